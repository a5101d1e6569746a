// Selects the page: the sign-in page, the dashboard or a full-page message.

import { InteractionStatus } from "@azure/msal-browser";
import { useMsal } from "@azure/msal-react";
import { useCallback, useEffect, useState } from "react";
import { Failure, fetchMe, type Me } from "./client";
import { clearSession } from "./auth";
import { Dashboard } from "./dashboard";
import { Landing } from "./landing";
import { Loading, NoRole, NotAllowed, Rejected, Unavailable } from "./notices";
import { permissionsOf } from "./permissions";

export function App({ problem }: { problem: string | undefined }) {
  const { instance, inProgress } = useMsal();
  const [notice, setNotice] = useState(problem);
  const account = instance.getActiveAccount();

  const endSession = useCallback((reason: string) => {
    setNotice(reason);
    void clearSession();
  }, []);

  if (inProgress === InteractionStatus.Startup || inProgress === InteractionStatus.HandleRedirect) {
    return <Loading />;
  }
  if (!account) {
    return <Landing notice={notice} />;
  }
  return <Session key={account.homeAccountId} tenant={account.tenantId} onEnd={endSession} />;
}

type SessionProps = { tenant: string; onEnd: (reason: string) => void };

/** The session of one user, from sign-in to sign-out. */
function Session({ tenant, onEnd }: SessionProps) {
  const [user, setUser] = useState<Me>();
  const [failure, setFailure] = useState<Failure>();

  // Handles failures that replace the dashboard, from any request.
  const handle = useCallback(
    (error: Failure) => (error.kind === "signed-out" ? onEnd(error.message) : setFailure(error)),
    [onEnd],
  );

  const load = useCallback(async () => {
    try {
      const loaded = await fetchMe();
      setFailure(undefined);
      setUser(loaded);
    } catch (error) {
      handle(error as Failure);
    }
  }, [handle]);

  useEffect(() => void load(), [load]);

  if (failure?.kind === "not-allowed") {
    return <NotAllowed tenant={tenant} />;
  }
  if (failure?.kind === "unavailable") {
    return <Unavailable message={failure.message} onRetry={load} />;
  }
  if (failure) {
    return <Rejected message={failure.message} />;
  }
  if (!user) {
    return <Loading />;
  }
  const permissions = permissionsOf(user.roles);
  if (!permissions.Read) {
    return <NoRole name={user.name} email={user.email} />;
  }
  return <Dashboard me={user} permissions={permissions} onFatal={handle} />;
}
