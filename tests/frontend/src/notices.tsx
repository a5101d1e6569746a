// Full-page messages.

import { useEffect, useRef, useState, type ReactNode } from "react";
import { signOut } from "./auth";
import type { Failure, FailureKind } from "./failure";
import { ROLES } from "./permissions";

const APP_NAME = "Tenant Tasks";

type NoticeProps = { title: string; children: ReactNode };

/** A page with one message. The focus moves to the heading, so that a screen reader announces it. */
export function Notice({ title, children }: NoticeProps) {
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

/** The frame of the dashboard, so that the page does not jump when the content appears. */
export function Loading() {
  return (
    <>
      <title>{APP_NAME}</title>
      <header className="bar">
        <p className="brand">{APP_NAME}</p>
      </header>
      <main className="wide-page">
        <p role="status">Loading…</p>
        <div className="card">
          <PlaceholderRows />
        </div>
      </main>
    </>
  );
}

/** Stands for tasks that are not loaded yet. */
export function PlaceholderRows() {
  return (
    <div className="placeholder" aria-hidden="true">
      <div />
      <div />
      <div />
    </div>
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

const PROBLEM_TITLES: Partial<Record<FailureKind, string>> = {
  unavailable: "The service is unavailable",
  busy: "The service is busy",
};

type ProblemProps = { failure: Failure; onRetry: () => Promise<void> };

export function Problem({ failure, onRetry }: ProblemProps) {
  return (
    <Notice title={PROBLEM_TITLES[failure.kind] ?? "The service rejected your request"}>
      <p>{failure.message}</p>
      <Retry onRetry={onRetry}>
        <SignOut />
      </Retry>
    </Notice>
  );
}

type RetryProps = { onRetry: () => Promise<void>; children: ReactNode };

/** The button "Try again", beside other buttons. */
export function Retry({ onRetry, children }: RetryProps) {
  const [retrying, setRetrying] = useState(false);
  const retry = async () => {
    setRetrying(true);
    await onRetry();
    setRetrying(false);
  };
  return (
    <>
      <div className="actions">
        {/* Not `disabled` while retrying, because a disabled button loses the focus. */}
        <button type="button" aria-disabled={retrying} onClick={() => retrying || void retry()}>
          Try again
        </button>
        {children}
      </div>
      <p role="status">{retrying ? "Trying again…" : ""}</p>
    </>
  );
}
