// Signing in and out, and the token for the API, by redirects: no popup that a browser may block.

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

/** Work and school accounts of any tenant; personal Microsoft accounts have none. */
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

/** Takes what a redirect brought back. Returns what to tell the person, if that was not a sign-in. */
export async function start(): Promise<string | undefined> {
  try {
    await msal.initialize();
    const result = await msal.handleRedirectPromise({ navigateToLoginRequestUrl: false });
    if (result) {
      await keepOnly(result.account);
    }
    return undefined;
  } catch (error) {
    // Whoever was signed in before would be sent to Entra again at once.
    await forget();
    return signInProblem(error);
  }
}

export function signIn(): Promise<void> {
  return msal.loginRedirect({ scopes, prompt: "select_account" });
}

/** Signs out here and at Entra. Here also works while Entra cannot be reached. */
export async function signOut(): Promise<void> {
  const account = msal.getActiveAccount();
  try {
    await msal.logoutRedirect({ account });
  } catch {
    await forget();
  }
}

/** Forgets everyone in this tab. Entra still knows them. */
export async function forget(): Promise<void> {
  await msal.clearCache().catch(() => undefined);
  msal.setActiveAccount(null);
}

/** A token for the API. Leaves for Entra, and never returns, if the person has to act there. */
export async function token(): Promise<string> {
  const account = msal.getActiveAccount();
  if (!account) {
    throw new InteractionRequiredAuthError("no_account", "");
  }
  try {
    const result = await msal.acquireTokenSilent({
      scopes,
      account,
      // No hidden frame after that: browsers keep Entra's cookies out of it.
      cacheLookupPolicy: CacheLookupPolicy.AccessTokenAndRefreshToken,
    });
    return result.accessToken;
  } catch (error) {
    if (!needsPerson(error)) {
      throw error;
    }
    try {
      await msal.acquireTokenRedirect({ scopes, account });
    } catch (redirect) {
      // Another call is already leaving for Entra.
      if (!isCode(redirect, BrowserAuthErrorCodes.interactionInProgress)) {
        throw redirect;
      }
    }
    return new Promise<never>(() => undefined);
  }
}

async function keepOnly(account: AccountInfo): Promise<void> {
  for (const other of msal.getAllAccounts()) {
    if (other.homeAccountId !== account.homeAccountId) {
      await msal.clearCache({ account: other });
    }
  }
  msal.setActiveAccount(account);
}

function needsPerson(error: unknown): boolean {
  // A refresh token ends after a day; Entra calls that `invalid_grant`, not always with a sub-error.
  return error instanceof InteractionRequiredAuthError || isCode(error, "invalid_grant");
}

function isCode(error: unknown, code: string): boolean {
  return error instanceof AuthError && error.errorCode === code;
}

/** Why Entra did not sign the person in, in words. */
export function signInProblem(error: unknown): string {
  if (!(error instanceof AuthError)) {
    return "Signing in did not work. Please try again.";
  }
  const said = error.errorMessage;
  if (/AADSTS(65001|90094|90095)\b/.test(said)) {
    return "An administrator of your organization has to approve this app before you can sign in. Ask them to.";
  }
  if (/AADSTS50105\b/.test(said)) {
    return "Your administrator has not assigned you to this app. Ask them to, then sign in again.";
  }
  if (error.errorCode === "access_denied" || error.errorCode === BrowserAuthErrorCodes.userCancelled) {
    return "The sign-in was cancelled, so you are not signed in.";
  }
  if (isUnreachable(error)) {
    return "Microsoft's sign-in could not be reached. Check your connection and try again.";
  }
  if (error instanceof BrowserAuthError) {
    return `The sign-in was interrupted (${error.errorCode}). Please try again.`;
  }
  // The rest of Entra's message is trace ids and a time.
  const sentence = said.split(/ ?Trace ID:|\r?\n/)[0]?.trim() || error.errorCode;
  return `Microsoft did not sign you in: ${sentence}`;
}

const UNREACHABLE: readonly string[] = [
  BrowserAuthErrorCodes.noNetworkConnectivity,
  BrowserAuthErrorCodes.postRequestFailed,
  BrowserAuthErrorCodes.getRequestFailed,
  "network_error",
  "endpoints_resolution_error",
];

export function isUnreachable(error: unknown): boolean {
  return error instanceof AuthError && UNREACHABLE.includes(error.errorCode);
}
