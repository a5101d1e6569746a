// The result of an administrator's consent. Entra appends it to the address of this app. Anyone can open such an
// address, so the result proves nothing: it only selects what the page says, and no text of it is shown.

import { entraCode, entraProblem } from "./sign-in-problem";

export type ConsentResult =
  | { approved: true; tenant: string | undefined }
  | { approved: false; reason: string; code: string | undefined };

const GUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

/** Returns the result if the query of the page's address contains one. */
export function consentResult(query: string): ConsentResult | undefined {
  const parameters = new URLSearchParams(query);
  const error = parameters.get("error");
  if (error !== null) {
    const description = parameters.get("error_description") ?? "";
    return { approved: false, reason: declinedReason(error, description), code: entraCode(description) };
  }
  const outcome = parameters.get("admin_consent");
  if (outcome === null) {
    return undefined;
  }
  if (outcome.toLowerCase() !== "true") {
    return { approved: false, reason: "Microsoft did not confirm the approval.", code: undefined };
  }
  const tenant = parameters.get("tenant") ?? "";
  return { approved: true, tenant: GUID.test(tenant) ? tenant.toLowerCase() : undefined };
}

function declinedReason(error: string, description: string): string {
  const known = entraProblem(description);
  if (known) {
    return known.message;
  }
  if (error === "access_denied") {
    return "The approval was declined or canceled.";
  }
  return "Microsoft could not complete the approval.";
}
