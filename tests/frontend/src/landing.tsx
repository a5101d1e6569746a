import { InteractionStatus } from "@azure/msal-browser";
import { useMsal } from "@azure/msal-react";
import { useState } from "react";
import { consentUrl, signIn } from "./auth";
import { signInProblem, type SignInProblem } from "./sign-in-problem";

/** The sign-in page. `notice` explains why the user is signed out or could not sign in. */
export function Landing({ notice }: { notice: SignInProblem | undefined }) {
  const { inProgress } = useMsal();
  const [problem, setProblem] = useState(notice);
  // MSAL's state, because MSAL resets it when the user returns with the Back button.
  const redirecting = inProgress !== InteractionStatus.None;

  const startSignIn = () => {
    setProblem(undefined);
    signIn().catch((error: unknown) => setProblem(signInProblem(error)));
  };

  return (
    <>
      <title>Sign in – Tenant Tasks</title>
      <main className="narrow card">
        <h1>Tenant Tasks</h1>
        <p>
          Manage tasks in your organization. Users in other organizations cannot see them. What you can see and do
          depends on the role that your administrator assigned to you.
        </p>
        <div role="alert">{problem && <p className="problem">{problem.message}</p>}</div>
        {problem?.needsApproval && (
          <p>
            If you are an administrator: <a href={consentUrl()}>approve the app for your organization</a>.
          </p>
        )}
        <button type="button" className="wide" aria-disabled={redirecting} onClick={() => redirecting || startSignIn()}>
          Sign in with Microsoft
        </button>
        <p className="hint">Use your work or school account.</p>
        <p role="status">{redirecting ? "Redirecting to Microsoft sign-in…" : ""}</p>
      </main>
    </>
  );
}
