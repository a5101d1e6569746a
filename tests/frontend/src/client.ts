// The API client. Request and response types come from the API's OpenAPI document.

import { InteractionRequiredAuthError } from "@azure/msal-browser";
import type { components, paths } from "./api";
import { acquireToken } from "./auth";
import { Failure, retryAfterSeconds, toFailure } from "./failure";
import { apiUrl } from "./settings";
import { isTemporary, signInProblem } from "./sign-in-problem";

export type Me = components["schemas"]["Me"];
export type Task = components["schemas"]["Task"];
type NewTask = components["schemas"]["CreateTask"];
type TaskUpdate = components["schemas"]["TaskUpdate"];

/** One page of tasks, oldest first. `next` is the query of the next page, if there is one. */
export type Page = { tasks: Task[]; next: string | undefined };

/** How much of its limit of tasks the organization uses. */
export type Quota = { used: number; max: number };

/** A new task. `quota` is set if the organization uses most of its limit. */
export type Created = { task: Task; quota: Quota | undefined };

/** The first page is small, so that the first rows appear early. */
const FIRST_PAGE = "limit=100";
/** The API's maximum. */
const LARGE_PAGE = "1000";
/** A GET that gets 408 or 429 is repeated this often. */
const MAX_REPEATS = 2;
/** If the service asks for a longer wait, the user decides when to try again. */
const MAX_WAIT_SECONDS = 5;
/** The service answers or fails within this time. */
const REQUEST_TIMEOUT_MS = 15_000;

export async function fetchMe(): Promise<Me> {
  return (await call("/api/me", "get")).body;
}

/** Fetches a page. A request in the background never redirects to Entra: it fails if the user must sign in again. */
export async function listTasks(query = FIRST_PAGE, background = false): Promise<Page> {
  const { body, headers } = await call("/api/tasks", "get", { query, background });
  return { tasks: body, next: nextQuery(headers.get("Link")) };
}

/** With the same key, a repeated call adds the task once. */
export async function createTask(task: NewTask, key: string): Promise<Created> {
  const { body, headers } = await call("/api/tasks", "post", { body: task, key });
  return { task: body, quota: parseQuota(headers.get("Task-Quota")) };
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

type RequestParts = { id?: number; query?: string; body?: NewTask | TaskUpdate; key?: string; background?: boolean };

async function call<P extends keyof paths, M extends Method<P>>(
  path: P,
  method: M,
  { id, query, body, key, background = false }: RequestParts = {},
): Promise<{ body: ResponseBody<paths[P][M]>; headers: Headers }> {
  const url = apiUrl + path.replace("{id}", String(id)) + (query ? `?${query}` : "");
  for (let repeats = 0; ; repeats += 1) {
    const headers = new Headers({ Authorization: `Bearer ${await accessToken(background)}` });
    const request: RequestInit = { method: method.toUpperCase(), headers };
    if (key) {
      headers.set("Idempotency-Key", key);
    }
    if (body) {
      headers.set("Content-Type", "application/json");
      request.body = JSON.stringify(body);
    }
    const { response, parsed } = await send(url, request);
    if (response.ok) {
      return { body: parsed as ResponseBody<paths[P][M]>, headers: response.headers };
    }
    const seconds = retryAfterSeconds(response) ?? 1;
    const temporary = response.status === 408 || response.status === 429;
    if (method !== "get" || !temporary || repeats >= MAX_REPEATS || seconds > MAX_WAIT_SECONDS) {
      throw toFailure(response, parsed);
    }
    // Up to a quarter of a second more, so that several clients do not repeat their requests at once.
    await new Promise((resolve) => setTimeout(resolve, seconds * 1000 + Math.random() * 250));
  }
}

async function send(url: string, request: RequestInit): Promise<{ response: Response; parsed: unknown }> {
  try {
    const response = await fetch(url, { ...request, signal: AbortSignal.timeout(REQUEST_TIMEOUT_MS) });
    return { response, parsed: parseJson(await response.text()) };
  } catch {
    throw new Failure("unavailable", "Cannot reach the service.");
  }
}

async function accessToken(background: boolean): Promise<string> {
  try {
    return await acquireToken(background);
  } catch (error) {
    if (isTemporary(error)) {
      throw new Failure("unavailable", signInProblem(error).message);
    }
    if (error instanceof InteractionRequiredAuthError) {
      throw new Failure("signed-out", "You are signed out. Sign in again.");
    }
    throw new Failure("signed-out", signInProblem(error).message);
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

/** Parses `used=80000, max=100000`. */
function parseQuota(header: string | null): Quota | undefined {
  const [, used, max] = /^used=(\d+), max=(\d+)$/.exec(header ?? "") ?? [];
  return used && max ? { used: Number(used), max: Number(max) } : undefined;
}

/** The query of the `rel="next"` link. Its host and path are ignored: the token is only sent to the configured API. */
function nextQuery(link: string | null): string | undefined {
  for (const [, target, parameters] of (link ?? "").matchAll(/<([^>]*)>([^,]*)/g)) {
    if (target && /;\s*rel="?next"?\s*(;|$)/i.test(parameters ?? "")) {
      const query = new URL(target, apiUrl).searchParams;
      query.set("limit", LARGE_PAGE);
      return query.toString();
    }
  }
  return undefined;
}
