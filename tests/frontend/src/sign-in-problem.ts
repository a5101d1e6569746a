// Failed sign-ins, in words for the user.

import { AuthError, BrowserAuthError, BrowserAuthErrorCodes } from "@azure/msal-browser";

/** A failed sign-in, or why the user is signed out. */
export type SignInProblem = {
  message: string;
  /** An administrator can solve it by approving the app for the organization. */
  needsApproval?: boolean;
};

export function signInProblem(error: unknown): SignInProblem {
  if (!(error instanceof AuthError)) {
    return { message: "Sign-in failed. Try again." };
  }
  const known = entraProblem(error.errorMessage);
  if (known) {
    return known;
  }
  if (error.errorCode === "access_denied" || error.errorCode === BrowserAuthErrorCodes.userCancelled) {
    return { message: "The sign-in was canceled." };
  }
  if (NETWORK_ERRORS.includes(error.errorCode)) {
    return { message: "Cannot reach Microsoft sign-in. Check your connection and try again." };
  }
  if (error instanceof BrowserAuthError) {
    return { message: `The sign-in was interrupted (${error.errorCode}). Try again.` };
  }
  // Entra appends trace IDs and a timestamp to its message.
  const sentence = error.errorMessage.split(/ ?Trace ID:|\r?\n/)[0]?.trim() || error.errorCode;
  return { message: `Microsoft rejected the sign-in: ${sentence}` };
}

/** The problem for an error of Entra, by the first code in its description: `AADSTS` and a number. */
export function entraProblem(description: string): SignInProblem | undefined {
  switch (entraCode(description)) {
    case "65001":
    case "90094":
    case "90095":
      return {
        message:
          "An administrator of your organization must approve this app before you can sign in. Ask for approval.",
        needsApproval: true,
      };
    case "650052":
      return {
        message:
          "Your organization lacks the service that this app uses. An administrator must approve the app again.",
        needsApproval: true,
      };
    case "50105":
      return { message: "Your administrator has not assigned you to this app. Ask for access, then sign in again." };
    case "50020":
    case "500200":
      return {
        message: "This account does not belong to an organization that can use this app. Use a work or school account.",
      };
    case "65004":
      return { message: "The approval was declined." };
    case "90033":
      return { message: "Microsoft sign-in is temporarily unavailable. Try again in a minute." };
    default:
      return undefined;
  }
}

export function entraCode(description: string): string | undefined {
  return /\bAADSTS(\d+)\b/.exec(description)?.[1];
}

/** Whether the same sign-in or token request may succeed later. */
export function isTemporary(error: unknown): boolean {
  return (
    error instanceof AuthError &&
    (NETWORK_ERRORS.includes(error.errorCode) || entraCode(error.errorMessage) === "90033")
  );
}

export function hasCode(error: unknown, code: string): boolean {
  return error instanceof AuthError && error.errorCode === code;
}

const NETWORK_ERRORS: readonly string[] = [
  BrowserAuthErrorCodes.noNetworkConnectivity,
  BrowserAuthErrorCodes.postRequestFailed,
  BrowserAuthErrorCodes.getRequestFailed,
  "network_error",
  "endpoints_resolution_error",
];
