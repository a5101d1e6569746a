// Selects the page: the sign-in page, the dashboard or a full-page message.

import { InteractionStatus, type AccountInfo } from "@azure/msal-browser";
import { useMsal } from "@azure/msal-react";
import { useCallback, useEffect, useMemo, useState } from "react";
import { clearSession } from "./auth";
import { fetchMe, type Me } from "./client";
import { Dashboard } from "./dashboard";
import { clearDraft } from "./draft";
import type { Failure } from "./failure";
import { Landing } from "./landing";
import { Loading, NoRole, Problem } from "./notices";
import { NotAllowed } from "./onboarding";
import { permissionsOf } from "./permissions";
import type { SignInProblem } from "./sign-in-problem";
import { onSignOutElsewhere } from "./tabs";

export function App({ problem }: { problem: SignInProblem | undefined }) {
  const { instance, inProgress } = useMsal();
  const [notice, setNotice] = useState(problem);
  const account = instance.getActiveAccount();

  const endSession = useCallback((message: string) => {
    setNotice({ message });
    void clearSession();
  }, []);

  useEffect(
    () =>
      onSignOutElsewhere((homeAccountId) => {
        if (instance.getActiveAccount()?.homeAccountId === homeAccountId) {
          clearDraft();
          endSession("You signed out in another tab.");
        }
      }),
    [instance, endSession],
  );

  if (inProgress === InteractionStatus.Startup || inProgress === InteractionStatus.HandleRedirect) {
    return <Loading />;
  }
  if (!account) {
    return <Landing notice={notice} />;
  }
  return <Session key={account.homeAccountId} account={account} onEnd={endSession} />;
}

type SessionProps = { account: AccountInfo; onEnd: (reason: string) => void };

/** The session of one user, from sign-in to sign-out. */
function Session({ account, onEnd }: SessionProps) {
  const [user, setUser] = useState<Me>();
  const [failure, setFailure] = useState<Failure>();
  const permissions = useMemo(() => permissionsOf(user?.roles ?? []), [user]);

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
    return <NotAllowed account={account} onRetry={load} />;
  }
  if (failure) {
    return <Problem failure={failure} onRetry={load} />;
  }
  if (!user) {
    return <Loading />;
  }
  if (!permissions.Read) {
    return <NoRole name={user.name} email={user.email} />;
  }
  return <Dashboard me={user} permissions={permissions} onFatal={handle} />;
}
