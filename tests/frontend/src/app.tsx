// Which page: signed out, being asked who it is, or one of the answers.

import { InteractionStatus } from "@azure/msal-browser";
import { useMsal } from "@azure/msal-react";
import { useCallback, useEffect, useState } from "react";
import { Failure, me, type Me } from "./client";
import { forget } from "./auth";
import { Dashboard } from "./dashboard";
import { Landing } from "./landing";
import { Loading, NoRole, NotAllowed, Refused, Unavailable } from "./notices";
import { permissionsOf } from "./permissions";

export function App({ problem }: { problem: string | undefined }) {
  const { instance, inProgress } = useMsal();
  const [notice, setNotice] = useState(problem);
  const account = instance.getActiveAccount();

  const endSession = useCallback((why: string) => {
    setNotice(why);
    void forget();
  }, []);

  if (inProgress === InteractionStatus.Startup || inProgress === InteractionStatus.HandleRedirect) {
    return <Loading />;
  }
  if (!account) {
    return <Landing notice={notice} />;
  }
  return <Session key={account.homeAccountId} tenant={account.tenantId} onEnd={endSession} />;
}

type SessionProps = { tenant: string; onEnd: (why: string) => void };

/** One person, from signing in to signing out. */
function Session({ tenant, onEnd }: SessionProps) {
  const [person, setPerson] = useState<Me>();
  const [failure, setFailure] = useState<Failure>();

  // Failures that end what the dashboard is for, whichever request met them.
  const handle = useCallback(
    (error: Failure) => (error.kind === "signed-out" ? onEnd(error.message) : setFailure(error)),
    [onEnd],
  );

  const load = useCallback(async () => {
    try {
      const answer = await me();
      setFailure(undefined);
      setPerson(answer);
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
    return <Refused message={failure.message} />;
  }
  if (!person) {
    return <Loading />;
  }
  const may = permissionsOf(person.roles);
  return may.Read ? <Dashboard me={person} may={may} onFatal={handle} /> : <NoRole name={person.name} email={person.email} />;
}
