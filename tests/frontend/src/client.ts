// The API client. Request and response types come from the API's OpenAPI document.

import { InteractionRequiredAuthError } from "@azure/msal-browser";
import type { components, paths } from "./api";
import { acquireToken, isNetworkError, signInErrorMessage } from "./auth";
import { apiUrl } from "./settings";

export type Me = components["schemas"]["Me"];
export type Task = components["schemas"]["Task"];
type NewTask = components["schemas"]["CreateTask"];
type TaskUpdate = components["schemas"]["TaskUpdate"];

/** One page of tasks, oldest first. `next` is the query of the next page, if there is one. */
export type Page = { tasks: Task[]; next: string | undefined };

/** Decides which page or message is shown. */
export type FailureKind = "signed-out" | "not-allowed" | "unavailable" | "rejected";

/** A failed request. The message is shown to the user. */
export class Failure extends Error {
  constructor(
    readonly kind: FailureKind,
    message: string,
  ) {
    super(message);
  }
}

const FIRST_PAGE = "limit=100";
/** The service answers or fails within this time. */
const REQUEST_TIMEOUT_MS = 15_000;

export async function fetchMe(): Promise<Me> {
  return (await call("/api/me", "get")).body;
}

export async function listTasks(query = FIRST_PAGE): Promise<Page> {
  const { body, headers } = await call("/api/tasks", "get", { query });
  return { tasks: body, next: nextQuery(headers.get("Link")) };
}

export async function createTask(task: NewTask): Promise<Task> {
  const { body } = await call("/api/tasks", "post", { body: task });
  return body;
}

export async function updateTask(id: number, change: TaskUpdate): Promise<Task> {
  const { body } = await call("/api/tasks/{id}", "patch", { id, body: change });
  return body;
}

export async function deleteTask(id: number): Promise<void> {
  await call("/api/tasks/{id}", "delete", { id });
}

type Method<P extends keyof paths> = {
  [M in keyof paths[P]]: paths[P][M] extends { responses: { 200: unknown } } ? M : never;
}[keyof paths[P]] &
  string;

type ResponseBody<Operation> = Operation extends {
  responses: { 200: { content: { "application/json": infer Body } } };
}
  ? Body
  : never;

type RequestParts = { id?: number; query?: string; body?: NewTask | TaskUpdate };

async function call<P extends keyof paths, M extends Method<P>>(
  path: P,
  method: M,
  { id, query, body }: RequestParts = {},
): Promise<{ body: ResponseBody<paths[P][M]>; headers: Headers }> {
  const url = apiUrl + path.replace("{id}", String(id)) + (query ? `?${query}` : "");
  const headers = new Headers({ Authorization: `Bearer ${await accessToken()}` });
  const request: RequestInit = { method: method.toUpperCase(), headers };
  if (body) {
    headers.set("Content-Type", "application/json");
    request.body = JSON.stringify(body);
  }
  let response: Response;
  let parsed: unknown;
  try {
    response = await fetch(url, { ...request, signal: AbortSignal.timeout(REQUEST_TIMEOUT_MS) });
    parsed = parseJson(await response.text());
  } catch {
    throw new Failure("unavailable", "Cannot reach the service.");
  }
  if (!response.ok) {
    throw toFailure(response, parsed);
  }
  return { body: parsed as ResponseBody<paths[P][M]>, headers: response.headers };
}

async function accessToken(): Promise<string> {
  try {
    return await acquireToken();
  } catch (error) {
    if (isNetworkError(error)) {
      throw new Failure("unavailable", signInErrorMessage(error));
    }
    if (error instanceof InteractionRequiredAuthError) {
      throw new Failure("signed-out", "You are signed out. Sign in again.");
    }
    throw new Failure("signed-out", signInErrorMessage(error));
  }
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    // Not from the API: an HTML page of a proxy, or an empty body. The status is used instead.
    return undefined;
  }
}

function toFailure(response: Response, parsed: unknown): Failure {
  const detail = errorDetail(parsed) ?? `The service returned status ${response.status}.`;
  if (response.status === 401) {
    return new Failure("signed-out", "You have been signed out. Sign in again.");
  }
  if (response.status === 403 && /^Tenant \S+ is not allowed/.test(detail)) {
    return new Failure("not-allowed", detail);
  }
  if (response.status >= 500) {
    return new Failure("unavailable", `The service cannot respond right now. ${retryHint(response)}`.trim());
  }
  return new Failure("rejected", /\btry again\b/i.test(detail) ? detail : `${detail} ${retryHint(response)}`.trim());
}

function errorDetail(parsed: unknown): string | undefined {
  const error = parsed as Partial<components["schemas"]["Error"]> | null | undefined;
  return typeof error?.detail === "string" ? error.detail : undefined;
}

function retryHint(response: Response): string {
  const seconds = Number(response.headers.get("Retry-After") ?? Number.NaN);
  if (!Number.isFinite(seconds) || seconds < 1) {
    return "";
  }
  return `Try again in ${seconds === 1 ? "one second" : `${Math.ceil(seconds)} seconds`}.`;
}

/** The query of the `rel="next"` link. Its host and path are ignored: the token is only sent to the configured API. */
function nextQuery(link: string | null): string | undefined {
  for (const [, target, parameters] of (link ?? "").matchAll(/<([^>]*)>([^,]*)/g)) {
    if (target && /;\s*rel="?next"?\s*(;|$)/i.test(parameters ?? "")) {
      return new URL(target, apiUrl).search.slice(1);
    }
  }
  return undefined;
}
