import { useEffect, useRef } from "react";
import type { Me } from "./client";
import type { Failure } from "./failure";
import { SignOut } from "./notices";
import type { Permission, Permissions } from "./permissions";
import { Tasks } from "./tasks";

type Props = { me: Me; permissions: Permissions; onFatal: (failure: Failure) => void };

/** The user's account, permissions and tasks. */
export function Dashboard({ me, permissions, onFatal }: Props) {
  const heading = useRef<HTMLHeadingElement>(null);
  useEffect(() => heading.current?.focus(), []);
  return (
    <>
      <title>Dashboard – Tenant Tasks</title>
      <header className="bar">
        <p className="brand">Tenant Tasks</p>
        {me.tenant_name && (
          <p className="organization">
            <bdi>{me.tenant_name}</bdi>
          </p>
        )}
        <SignOut />
      </header>
      <main className="wide-page dashboard">
        <h1 ref={heading} tabIndex={-1}>
          Dashboard
        </h1>
        <Tasks me={me} permissions={permissions} onFatal={onFatal} />
        <div className="panels">
          <Account me={me} />
          <PermissionList permissions={permissions} />
        </div>
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
        <dd>{me.email || "unknown"}</dd>
        {me.tenant_name && (
          <>
            <dt>Organization</dt>
            <dd>
              <bdi>{me.tenant_name}</bdi>
            </dd>
          </>
        )}
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

function PermissionList({ permissions }: { permissions: Permissions }) {
  return (
    <section className="card" aria-labelledby="permissions">
      <h2 id="permissions">Permissions</h2>
      <ul className="permissions">
        {(Object.keys(permissions) as Permission[]).map((permission) => (
          <li key={permission} className={permissions[permission] ? "granted" : "denied"}>
            <span aria-hidden="true" className="mark">
              {permissions[permission] ? "✓" : "✕"}
            </span>
            <span>{permission}</span>
            <span className="verdict">{permissions[permission] ? "granted" : "not granted"}</span>
          </li>
        ))}
      </ul>
    </section>
  );
}
