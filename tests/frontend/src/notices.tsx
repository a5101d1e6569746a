// Whole pages that say one thing.

import { useEffect, useRef, useState, type ReactNode } from "react";
import { signOut } from "./auth";

const NAME = "Tenant Tasks";

type NoticeProps = { title: string; children: ReactNode };

/** A page of its own. Focus moves to its heading, so that a screen reader says what happened. */
function Notice({ title, children }: NoticeProps) {
  const heading = useRef<HTMLHeadingElement>(null);
  useEffect(() => heading.current?.focus(), []);
  return (
    <>
      <title>{`${title} – ${NAME}`}</title>
      <main className="narrow card">
        <p className="brand">{NAME}</p>
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
      <title>{NAME}</title>
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
        It does not know its app registrations in Entra. Set these in the file <code>.env.local</code> beside{" "}
        <code>package.json</code>, then start or build it again:
      </p>
      <ul>
        {names.map((name) => (
          <li key={name}>
            <code>{name}</code>
          </li>
        ))}
      </ul>
      <p>
        <code>.env.example</code> says what each of them is.
      </p>
    </Notice>
  );
}

export function NotAllowed({ tenant }: { tenant: string }) {
  return (
    <Notice title="Your organization does not have access yet">
      <p>
        You signed in, but your organization has not been given access to this service. Ask the people who run the
        service, or your own IT administrator, to have it added. They will need its tenant ID:
      </p>
      <p>
        <code className="id">{tenant}</code>
      </p>
      <p>If you also have an account of another organization, sign out and use that one.</p>
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
        , but have no role in this service, so there is nothing you may see.
      </p>
      <p>
        Ask your administrator to make you an Admin, Editor or Reader. Then sign out and in again: a new role comes with
        a new sign-in.
      </p>
      <SignOut />
    </Notice>
  );
}

type UnavailableProps = { message: string; onRetry: () => Promise<void> };

export function Unavailable({ message, onRetry }: UnavailableProps) {
  const [trying, setTrying] = useState(false);
  const retry = async () => {
    setTrying(true);
    await onRetry();
    setTrying(false);
  };
  return (
    <Notice title="The service is unavailable">
      <p>{message}</p>
      <div className="actions">
        {/* Not disabled while trying: that would lose the focus. */}
        <button type="button" aria-disabled={trying} onClick={() => trying || void retry()}>
          Try again
        </button>
        <SignOut />
      </div>
      <p role="status">{trying ? "Trying again…" : ""}</p>
    </Notice>
  );
}

export function Refused({ message }: { message: string }) {
  return (
    <Notice title="The service refused your request">
      <p>{message}</p>
      <SignOut />
    </Notice>
  );
}
