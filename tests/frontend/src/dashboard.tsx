import { useEffect, useRef } from "react";
import type { Failure, Me } from "./client";
import { SignOut } from "./notices";
import type { Permission, Permissions } from "./permissions";
import { Tasks } from "./tasks";

type Props = { me: Me; may: Permissions; onFatal: (failure: Failure) => void };

/** Who is signed in, what they may do, and the tasks they may see. */
export function Dashboard({ me, may, onFatal }: Props) {
  const heading = useRef<HTMLHeadingElement>(null);
  useEffect(() => heading.current?.focus(), []);
  return (
    <>
      <title>Dashboard – Tenant Tasks</title>
      <header className="bar">
        <p className="brand">Tenant Tasks</p>
        <SignOut />
      </header>
      <main className="wide-page">
        <h1 ref={heading} tabIndex={-1}>
          Dashboard
        </h1>
        <div className="panels">
          <Account me={me} />
          <PermissionList may={may} />
        </div>
        <Tasks may={may} onFatal={onFatal} />
      </main>
    </>
  );
}

function Account({ me }: { me: Me }) {
  return (
    <section className="card" aria-labelledby="account">
      <h2 id="account">Account</h2>
      <dl>
        <dt>Name</dt>
        <dd>
          <bdi>{me.name}</bdi>
        </dd>
        <dt>Email</dt>
        <dd>{me.email || "not known"}</dd>
        <dt>Tenant ID</dt>
        <dd>
          <code className="id">{me.tenant_id}</code>
        </dd>
        <dt>{me.roles.length === 1 ? "Role" : "Roles"}</dt>
        <dd>
          <ul className="badges">
            {me.roles.map((role) => (
              <li key={role} className="badge">
                {role}
              </li>
            ))}
          </ul>
        </dd>
      </dl>
    </section>
  );
}

function PermissionList({ may }: { may: Permissions }) {
  return (
    <section className="card" aria-labelledby="permissions">
      <h2 id="permissions">Permissions</h2>
      <ul className="permissions">
        {(Object.keys(may) as Permission[]).map((permission) => (
          <li key={permission} className={may[permission] ? "granted" : "denied"}>
            <span aria-hidden="true" className="mark">
              {may[permission] ? "✓" : "✕"}
            </span>
            <span>{permission}</span>
            <span className="verdict">{may[permission] ? "granted" : "not granted"}</span>
          </li>
        ))}
      </ul>
    </section>
  );
}
