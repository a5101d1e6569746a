// The pages of an organization that does not have access yet.

import type { AccountInfo } from "@azure/msal-browser";
import { useRef, useState } from "react";
import { consentUrl, signIn } from "./auth";
import type { ConsentResult } from "./consent-result";
import { Notice, Retry, SignOut } from "./notices";

const ENTERPRISE_APPLICATIONS =
  "https://entra.microsoft.com/#view/Microsoft_AAD_IAM/StartboardApplicationsMenuBlade/~/AppAppsPreview";
const ASSIGN_USERS = "https://learn.microsoft.com/entra/identity/enterprise-apps/assign-user-or-group-access-portal";

/** Shows the administrator the result of the consent, and what remains to be done. */
export function Consent({ result }: { result: ConsentResult }) {
  if (!result.approved) {
    return (
      <Notice title="The app was not approved">
        <p>{result.reason}</p>
        {result.code && (
          <p>
            Microsoft describes the error{" "}
            <a href={`https://login.microsoftonline.com/error?code=${result.code}`}>AADSTS{result.code}</a>.
          </p>
        )}
        <p>Nobody in your organization can use the app until an administrator approves it.</p>
        <div className="actions">
          <a className="button" href={consentUrl()}>
            Ask again for approval
          </a>
          <a className="button secondary" href="/">
            Open the app
          </a>
        </div>
      </Notice>
    );
  }
  return (
    <Notice title="The app is approved for your organization">
      {result.tenant && <TenantId id={result.tenant} />}
      <p>Two steps remain:</p>
      <ol>
        <li>
          <b>Ask for access.</b>{" "}
          {result.tenant ? (
            <>
              <a href={accessRequest(result.tenant)}>Send the tenant ID</a> to the operator of this service. The
              operator checks it and allows your organization.
            </>
          ) : (
            "Send the tenant ID of your organization to the operator of this service."
          )}
        </li>
        <li>
          <b>Assign roles.</b> In the Entra admin center, open{" "}
          <a href={ENTERPRISE_APPLICATIONS}>Enterprise applications</a>, then the API of this app, and assign a role to
          each user: <a href={ASSIGN_USERS}>how to assign users</a>.
        </li>
      </ol>
      <p className="hint">The users can sign in after both steps.</p>
      <div className="actions">
        <a className="button" href="/">
          Open the app
        </a>
      </div>
    </Notice>
  );
}

function accessRequest(tenant: string): string {
  const text = `Please allow our organization to use Tenant Tasks.\n\nTenant ID: ${tenant}`;
  return `mailto:?subject=${encodeURIComponent("Access to Tenant Tasks")}&body=${encodeURIComponent(text)}`;
}

type NotAllowedProps = { account: AccountInfo; onRetry: () => Promise<void> };

/** For a user whose tenant is not on the allow-list. */
export function NotAllowed({ account, onRetry }: NotAllowedProps) {
  const { tenantId, name, username } = account;
  return (
    <Notice title="Your organization does not have access yet">
      <p>
        Signed in as <bdi>{name ?? username}</bdi>
        {name && (
          <>
            {" "}
            (<bdi>{username}</bdi>)
          </>
        )}
        .
      </p>
      <p>
        Ask the operator of the service or your IT administrator to add your organization.{" "}
        <a href={accessRequest(tenantId)}>Send them this tenant ID</a>:
      </p>
      <TenantId id={tenantId} />
      <p>
        If you are an administrator, you can <a href={consentUrl(tenantId)}>approve the app for your organization</a>.
      </p>
      <Retry onRetry={onRetry}>
        <button type="button" className="secondary" onClick={() => void signIn().catch(() => undefined)}>
          Use another account
        </button>
        <SignOut />
      </Retry>
    </Notice>
  );
}

/** The tenant ID, with a button that copies it. If the browser does not allow this, the button selects it. */
function TenantId({ id }: { id: string }) {
  const code = useRef<HTMLElement>(null);
  const [result, setResult] = useState("");
  const copy = async () => {
    setResult("");
    try {
      await navigator.clipboard.writeText(id);
      setResult("Copied");
    } catch {
      if (code.current) {
        window.getSelection()?.selectAllChildren(code.current);
      }
      setResult("Selected. Press Ctrl+C or ⌘C to copy.");
    }
  };
  return (
    <div className="copyable">
      <span className="hint">Tenant ID</span>
      <code className="id" ref={code}>
        {id}
      </code>
      <button type="button" className="secondary small" aria-label="Copy tenant ID" onClick={() => void copy()}>
        Copy
      </button>
      <span role="status" className="hint">
        {result}
      </span>
    </div>
  );
}
