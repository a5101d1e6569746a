// Sign-in, sign-out and access tokens for the API. Uses redirects, because browsers may block popups.

import {
  AuthError,
  BrowserAuthError,
  BrowserAuthErrorCodes,
  BrowserCacheLocation,
  CacheLookupPolicy,
  InteractionRequiredAuthError,
  PublicClientApplication,
  type AccountInfo,
} from "@azure/msal-browser";
import { apiScope, spaClientId } from "./settings";

/** Accepts work and school accounts of every tenant, but not personal Microsoft accounts. */
const AUTHORITY = "https://login.microsoftonline.com/organizations";

const scopes = [apiScope];

export const msal = new PublicClientApplication({
  auth: {
    clientId: spaClientId,
    authority: AUTHORITY,
    redirectUri: window.location.origin,
    postLogoutRedirectUri: window.location.origin,
  },
  cache: { cacheLocation: BrowserCacheLocation.SessionStorage },
});

/** Initializes MSAL and handles the result of a redirect. Returns a message for the user if the sign-in failed. */
export async function initialize(): Promise<string | undefined> {
  try {
    await msal.initialize();
    const result = await msal.handleRedirectPromise({ navigateToLoginRequestUrl: false });
    if (result) {
      await setOnlyAccount(result.account);
    }
    return undefined;
  } catch (error) {
    // With a cached account, the next token request would redirect to Entra again immediately.
    await clearSession();
    return signInErrorMessage(error);
  }
}

export function signIn(): Promise<void> {
  return msal.loginRedirect({ scopes, prompt: "select_account" });
}

/** Signs out of the app and of Entra. If Entra cannot be reached, signs out of the app only. */
export async function signOut(): Promise<void> {
  const account = msal.getActiveAccount();
  try {
    await msal.logoutRedirect({ account });
  } catch {
    await clearSession();
  }
}

/** Removes all accounts and tokens from this tab. The session at Entra continues. */
export async function clearSession(): Promise<void> {
  await msal.clearCache().catch(() => undefined);
  msal.setActiveAccount(null);
}

/** Returns an access token for the API. If Entra requires user interaction, redirects and never resolves. */
export async function acquireToken(): Promise<string> {
  const account = msal.getActiveAccount();
  if (!account) {
    throw new InteractionRequiredAuthError("no_account", "");
  }
  try {
    const result = await msal.acquireTokenSilent({
      scopes,
      account,
      // No hidden iframe as a fallback: browsers block Entra's third-party cookies in it.
      cacheLookupPolicy: CacheLookupPolicy.AccessTokenAndRefreshToken,
    });
    return result.accessToken;
  } catch (error) {
    if (!needsInteraction(error)) {
      throw error;
    }
    try {
      await msal.acquireTokenRedirect({ scopes, account });
    } catch (redirectError) {
      // Another call has already started the redirect.
      if (!hasCode(redirectError, BrowserAuthErrorCodes.interactionInProgress)) {
        throw redirectError;
      }
    }
    return new Promise<never>(() => undefined);
  }
}

async function setOnlyAccount(account: AccountInfo): Promise<void> {
  for (const other of msal.getAllAccounts()) {
    if (other.homeAccountId !== account.homeAccountId) {
      await msal.clearCache({ account: other });
    }
  }
  msal.setActiveAccount(account);
}

function needsInteraction(error: unknown): boolean {
  // A refresh token expires after 24 hours. Entra then returns `invalid_grant`, sometimes without a sub-error.
  return error instanceof InteractionRequiredAuthError || hasCode(error, "invalid_grant");
}

function hasCode(error: unknown, code: string): boolean {
  return error instanceof AuthError && error.errorCode === code;
}

/** The message shown to the user when a sign-in fails. */
export function signInErrorMessage(error: unknown): string {
  if (!(error instanceof AuthError)) {
    return "Sign-in failed. Try again.";
  }
  const message = error.errorMessage;
  if (/AADSTS(65001|90094|90095)\b/.test(message)) {
    return "An administrator of your organization must approve this app before you can sign in. Ask for approval.";
  }
  if (/AADSTS50105\b/.test(message)) {
    return "Your administrator has not assigned you to this app. Ask for access, then sign in again.";
  }
  if (error.errorCode === "access_denied" || error.errorCode === BrowserAuthErrorCodes.userCancelled) {
    return "The sign-in was canceled.";
  }
  if (isNetworkError(error)) {
    return "Cannot reach Microsoft sign-in. Check your connection and try again.";
  }
  if (error instanceof BrowserAuthError) {
    return `The sign-in was interrupted (${error.errorCode}). Try again.`;
  }
  // Entra appends trace IDs and a timestamp to its message.
  const sentence = message.split(/ ?Trace ID:|\r?\n/)[0]?.trim() || error.errorCode;
  return `Microsoft rejected the sign-in: ${sentence}`;
}

const NETWORK_ERRORS: readonly string[] = [
  BrowserAuthErrorCodes.noNetworkConnectivity,
  BrowserAuthErrorCodes.postRequestFailed,
  BrowserAuthErrorCodes.getRequestFailed,
  "network_error",
  "endpoints_resolution_error",
];

export function isNetworkError(error: unknown): boolean {
  return error instanceof AuthError && NETWORK_ERRORS.includes(error.errorCode);
}
