// Messages between the tabs of this browser. MSAL stores each tab's session separately, so it does not share sign-outs.

type SignOut = { signedOut: string };

const channel = new BroadcastChannel("tenant-tasks");

/** Signs the account out in the other tabs. */
export function announceSignOut(homeAccountId: string): void {
  channel.postMessage({ signedOut: homeAccountId } satisfies SignOut);
}

/** Calls `handle` when an account is signed out in another tab. Returns a function that ends this. */
export function onSignOutElsewhere(handle: (homeAccountId: string) => void): () => void {
  const listener = ({ data }: MessageEvent<SignOut>) => handle(data.signedOut);
  channel.addEventListener("message", listener);
  return () => channel.removeEventListener("message", listener);
}
