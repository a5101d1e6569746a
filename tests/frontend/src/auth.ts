// Sign-in, sign-out and access tokens for the API. Uses redirects, because browsers may block popups.

import {
  BrowserAuthErrorCodes,
  BrowserCacheLocation,
  CacheLookupPolicy,
  InteractionRequiredAuthError,
  PublicClientApplication,
  type AccountInfo,
} from "@azure/msal-browser";
import { clearDraft, markDraftInterrupted } from "./draft";
import { apiScope, authorityMetadata, spaClientId } from "./settings";
import { hasCode, signInProblem, type SignInProblem } from "./sign-in-problem";
import { announceSignOut } from "./tabs";

/** Accepts work and school accounts of every tenant, but not personal Microsoft accounts. */
const AUTHORITY = "https://login.microsoftonline.com/organizations";

const scopes = [apiScope];

export const msal = new PublicClientApplication({
  auth: {
    clientId: spaClientId,
    authority: AUTHORITY,
    // Only the sandbox sets it. MSAL then uses the endpoints of the local Entra and does not fetch the metadata.
    ...(authorityMetadata && { authorityMetadata }),
    redirectUri: window.location.origin,
    postLogoutRedirectUri: window.location.origin,
  },
  cache: { cacheLocation: BrowserCacheLocation.SessionStorage },
});

/** Initializes MSAL and handles the result of a redirect. Returns what went wrong if the sign-in failed. */
export async function initialize(): Promise<SignInProblem | undefined> {
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
    return signInProblem(error);
  }
}

export function signIn(): Promise<void> {
  return msal.loginRedirect({ scopes, prompt: "select_account" });
}

/**
 * Signs out of the app, in every tab with this account, and of Entra. If Entra cannot be reached, signs out of the app
 * only.
 */
export async function signOut(): Promise<void> {
  const account = msal.getActiveAccount();
  clearDraft();
  if (account) {
    announceSignOut(account.homeAccountId);
  }
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

/**
 * Returns an access token for the API. If Entra requires user interaction, redirects and never resolves. In the
 * background, rejects instead.
 */
export async function acquireToken(background: boolean): Promise<string> {
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
    if (!needsInteraction(error) || background) {
      throw error;
    }
    markDraftInterrupted();
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

/**
 * The page at Entra where an administrator approves the app for an organization: the given tenant, or the one of the
 * account that the administrator signs in with. Entra redirects to this app's address with the result.
 */
export function consentUrl(tenant = "organizations"): string {
  const metadata = authorityMetadata && (JSON.parse(authorityMetadata) as { authorization_endpoint: string });
  const url = new URL(`/${tenant}/adminconsent`, metadata ? metadata.authorization_endpoint : AUTHORITY);
  url.search = new URLSearchParams({ client_id: spaClientId, redirect_uri: window.location.origin }).toString();
  return url.href;
}
