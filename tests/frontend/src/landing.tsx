import { InteractionStatus } from "@azure/msal-browser";
import { useMsal } from "@azure/msal-react";
import { useState } from "react";
import { signIn, signInProblem } from "./auth";

/** For people who are not signed in, with the reason if there is one. */
export function Landing({ notice }: { notice: string | undefined }) {
  const { inProgress } = useMsal();
  const [problem, setProblem] = useState(notice);
  // MSAL's own state, not one of ours: coming back by the browser's Back button resets it.
  const leaving = inProgress !== InteractionStatus.None;

  const leave = () => {
    setProblem(undefined);
    signIn().catch((error: unknown) => setProblem(signInProblem(error)));
  };

  return (
    <>
      <title>Sign in – Tenant Tasks</title>
      <main className="narrow card">
        <h1>Tenant Tasks</h1>
        <p>
          The tasks of your organization, and of nobody else’s. What you may see and do depends on the role your
          administrator gave you.
        </p>
        <div role="alert">{problem && <p className="problem">{problem}</p>}</div>
        <button type="button" className="wide" aria-disabled={leaving} onClick={() => leaving || leave()}>
          Sign in with Microsoft
        </button>
        <p className="hint">Use your work or school account.</p>
        <p role="status">{leaving ? "Going to Microsoft’s sign-in…" : ""}</p>
      </main>
    </>
  );
}
