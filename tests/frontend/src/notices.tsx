// Full-page messages.

import { useEffect, useRef, useState, type ReactNode } from "react";
import { signOut } from "./auth";
import { ROLES } from "./permissions";

const APP_NAME = "Tenant Tasks";

type NoticeProps = { title: string; children: ReactNode };

/** A page with one message. Focus moves to the heading, so that a screen reader announces it. */
function Notice({ title, children }: NoticeProps) {
  const heading = useRef<HTMLHeadingElement>(null);
  useEffect(() => heading.current?.focus(), []);
  return (
    <>
      <title>{`${title} – ${APP_NAME}`}</title>
      <main className="narrow card">
        <p className="brand">{APP_NAME}</p>
        <h1 ref={heading} tabIndex={-1}>
          {title}
        </h1>
        {children}
      </main>
    </>
  );
}

export function SignOut() {
  return (
    <button type="button" className="secondary" onClick={() => void signOut()}>
      Sign out
    </button>
  );
}

export function Loading() {
  return (
    <>
      <title>{APP_NAME}</title>
      <main className="narrow">
        <p role="status">Loading…</p>
      </main>
    </>
  );
}

export function MissingSettings({ names }: { names: string[] }) {
  return (
    <Notice title="This app is not set up yet">
      <p>
        The client IDs of the app registrations in Entra are missing. Set these variables in{" "}
        <code>.env.local</code>, next to <code>package.json</code>, then start or build the app again:
      </p>
      <ul>
        {names.map((name) => (
          <li key={name}>
            <code>{name}</code>
          </li>
        ))}
      </ul>
      <p>
        <code>.env.example</code> describes each variable.
      </p>
    </Notice>
  );
}

export function NotAllowed({ tenant }: { tenant: string }) {
  return (
    <Notice title="Your organization does not have access yet">
      <p>
        You are signed in, but your organization is not allowed to use this service. Ask the operator of the service
        or your IT administrator to add your organization. They need this tenant ID:
      </p>
      <p>
        <code className="id">{tenant}</code>
      </p>
      <p>If you have an account in another organization, sign out and use that account.</p>
      <SignOut />
    </Notice>
  );
}

export function NoRole({ name, email }: { name: string; email: string }) {
  return (
    <Notice title="You do not have a role yet">
      <p>
        You are signed in as <bdi>{name}</bdi>
        {email && (
          <>
            {" "}
            (<bdi>{email}</bdi>)
          </>
        )}
        , but you do not have a role in this service. You need a role to see tasks.
      </p>
      <p>
        Ask your administrator to assign you one of the roles {ROLES.join(", ")}. Then sign out and sign in again: a new
        role takes effect at the next sign-in.
      </p>
      <SignOut />
    </Notice>
  );
}

type UnavailableProps = { message: string; onRetry: () => Promise<void> };

export function Unavailable({ message, onRetry }: UnavailableProps) {
  const [retrying, setRetrying] = useState(false);
  const retry = async () => {
    setRetrying(true);
    await onRetry();
    setRetrying(false);
  };
  return (
    <Notice title="The service is unavailable">
      <p>{message}</p>
      <div className="actions">
        {/* Not `disabled` while retrying, because a disabled button loses the focus. */}
        <button type="button" aria-disabled={retrying} onClick={() => retrying || void retry()}>
          Try again
        </button>
        <SignOut />
      </div>
      <p role="status">{retrying ? "Trying again…" : ""}</p>
    </Notice>
  );
}

export function Rejected({ message }: { message: string }) {
  return (
    <Notice title="The service rejected your request">
      <p>{message}</p>
      <SignOut />
    </Notice>
  );
}
