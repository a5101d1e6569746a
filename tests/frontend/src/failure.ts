// Failed requests, in words for the user.

import type { components } from "./api";

/**
 * Decides which page or message is shown.
 * - `unavailable`: it is unknown whether a change was saved.
 * - `busy`: the service did not process the request. The same request may succeed later.
 * - `gone`: the task does not exist (any more).
 */
export type FailureKind = "signed-out" | "not-allowed" | "unavailable" | "busy" | "gone" | "rejected";

/** A failed request. The message is shown to the user. */
export class Failure extends Error {
  constructor(
    readonly kind: FailureKind,
    message: string,
  ) {
    super(message);
  }
}

type ApiError = components["schemas"]["Error"];

/** The failure for a response that is not successful. `parsed` is its JSON body, or undefined. */
export function toFailure(response: Response, parsed: unknown): Failure {
  const error = parsed as Partial<ApiError> | null | undefined;
  const detail = typeof error?.detail === "string" ? error.detail : undefined;
  const { status } = response;
  if (status === 401) {
    return new Failure("signed-out", "You have been signed out. Sign in again.");
  }
  if (status === 403 && /^Tenant \S+ is not allowed/.test(detail ?? "")) {
    return new Failure("not-allowed", sentence(detail));
  }
  if (status === 404 && detail === "Task not found") {
    return new Failure("gone", "This task no longer exists.");
  }
  if (status === 408) {
    return new Failure("unavailable", "The service did not respond in time.");
  }
  if (status === 422) {
    return new Failure("rejected", invalidInput(error));
  }
  if (status === 429) {
    return new Failure("busy", join("Your organization sends too many requests.", retryHint(response)));
  }
  if (status >= 500) {
    return new Failure("unavailable", join("The service cannot respond right now.", retryHint(response)));
  }
  const reason = sentence(detail) || `The service returned status ${status}.`;
  return new Failure("rejected", /\btry again\b/i.test(reason) ? reason : join(reason, retryHint(response)));
}

/** The seconds until the next attempt, from `Retry-After`: a number or an HTTP date. */
export function retryAfterSeconds(response: Response): number | undefined {
  const value = response.headers.get("Retry-After")?.trim();
  if (!value) {
    return undefined;
  }
  const seconds = /^\d+$/.test(value) ? Number(value) : (Date.parse(value) - Date.now()) / 1000;
  return Number.isFinite(seconds) ? Math.max(0, Math.ceil(seconds)) : undefined;
}

function retryHint(response: Response): string {
  const seconds = retryAfterSeconds(response);
  if (!seconds) {
    return "";
  }
  return `Try again in ${seconds === 1 ? "one second" : `${seconds} seconds`}.`;
}

/** What is wrong with a title, by the `type` of the API's error. No other input of this app can be invalid. */
const TITLE_PROBLEMS: Record<string, string> = {
  string_too_short: "Enter a title.",
  string_too_long: "The title is too long. Use at most 500 characters.",
};

function invalidInput(error: Partial<ApiError> | null | undefined): string {
  const problem = error?.errors?.find(({ loc }) => loc.includes("title"));
  if (!problem) {
    return "The service did not understand the request. Reload the page.";
  }
  const blank = /\bblank\b/.test(problem.msg);
  return (
    TITLE_PROBLEMS[problem.type] ??
    (blank ? "Enter a title. Spaces alone are not a title." : "The title contains characters that are not allowed.")
  );
}

/** Ends the text with a period, so that another sentence can follow. */
function sentence(text: string | undefined): string {
  const trimmed = text?.trim() ?? "";
  return trimmed && !/[.!?…]$/.test(trimmed) ? `${trimmed}.` : trimmed;
}

function join(...sentences: string[]): string {
  return sentences.filter(Boolean).join(" ");
}
