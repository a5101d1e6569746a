// The API's routes, typed by its own description, and every way they fail.

import { InteractionRequiredAuthError } from "@azure/msal-browser";
import type { components, paths } from "./api";
import { isUnreachable, signInProblem, token } from "./auth";
import { apiUrl } from "./settings";

export type Me = components["schemas"]["Me"];
export type Task = components["schemas"]["Task"];
type NewTask = components["schemas"]["NewTask"];
type TaskUpdate = components["schemas"]["TaskUpdate"];

/** Some of the tasks, oldest first, and where the list goes on, if it does. */
export type Page = { tasks: Task[]; next: string | undefined };

/** What the page has to do about a failure. */
export type Kind = "signed-out" | "not-allowed" | "unavailable" | "refused";

/** A request that failed; the message is for the person. */
export class Failure extends Error {
  constructor(
    readonly kind: Kind,
    message: string,
  ) {
    super(message);
  }
}

const PAGE = "limit=100";
/** Longer than the service takes for anything it still answers. */
const PATIENCE_MS = 15_000;

export async function me(): Promise<Me> {
  return (await call("/api/me", "get")).body;
}

export async function tasks(query = PAGE): Promise<Page> {
  const { body, headers } = await call("/api/tasks", "get", { query });
  return { tasks: body, next: nextQuery(headers.get("Link")) };
}

export async function create(task: NewTask): Promise<Task> {
  const { body } = await call("/api/tasks", "post", { body: task });
  return body;
}

export async function update(id: number, change: TaskUpdate): Promise<Task> {
  const { body } = await call("/api/tasks/{id}", "patch", { id, body: change });
  return body;
}

export async function remove(id: number): Promise<void> {
  await call("/api/tasks/{id}", "delete", { id });
}

type Method<P extends keyof paths> = {
  [M in keyof paths[P]]: paths[P][M] extends { responses: { 200: unknown } } ? M : never;
}[keyof paths[P]] &
  string;

type Answer<Operation> = Operation extends {
  responses: { 200: { content: { "application/json": infer Body } } };
}
  ? Body
  : never;

type Sent = { id?: number; query?: string; body?: NewTask | TaskUpdate };

async function call<P extends keyof paths, M extends Method<P>>(
  path: P,
  method: M,
  { id, query, body }: Sent = {},
): Promise<{ body: Answer<paths[P][M]>; headers: Headers }> {
  const url = apiUrl + path.replace("{id}", String(id)) + (query ? `?${query}` : "");
  const headers = new Headers({ Authorization: `Bearer ${await bearer()}` });
  const request: RequestInit = { method: method.toUpperCase(), headers };
  if (body) {
    headers.set("Content-Type", "application/json");
    request.body = JSON.stringify(body);
  }
  let response: Response;
  let answer: unknown;
  try {
    response = await fetch(url, { ...request, signal: AbortSignal.timeout(PATIENCE_MS) });
    answer = parse(await response.text());
  } catch {
    throw new Failure("unavailable", "The service cannot be reached at the moment.");
  }
  if (!response.ok) {
    throw refusal(response, answer);
  }
  return { body: answer as Answer<paths[P][M]>, headers: response.headers };
}

async function bearer(): Promise<string> {
  try {
    return await token();
  } catch (error) {
    if (isUnreachable(error)) {
      throw new Failure("unavailable", signInProblem(error));
    }
    if (error instanceof InteractionRequiredAuthError) {
      throw new Failure("signed-out", "You are signed out. Please sign in again.");
    }
    throw new Failure("signed-out", signInProblem(error));
  }
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    // A proxy's page, or nothing: the status has to do.
    return undefined;
  }
}

function refusal(response: Response, answer: unknown): Failure {
  const detail = detailOf(answer) ?? `The service answered with status ${response.status}.`;
  if (response.status === 401) {
    return new Failure("signed-out", "You have been signed out. Please sign in again.");
  }
  if (response.status === 403 && /^Tenant \S+ is not allowed/.test(detail)) {
    return new Failure("not-allowed", detail);
  }
  if (response.status >= 500) {
    return new Failure("unavailable", `The service cannot answer at the moment. ${waitOf(response)}`.trim());
  }
  return new Failure("refused", `${detail} ${waitOf(response)}`.trim());
}

function detailOf(answer: unknown): string | undefined {
  const error = answer as Partial<components["schemas"]["Error"]> | null | undefined;
  return typeof error?.detail === "string" ? error.detail : undefined;
}

function waitOf(response: Response): string {
  const seconds = Number(response.headers.get("Retry-After") ?? Number.NaN);
  if (!Number.isFinite(seconds) || seconds < 1) {
    return "";
  }
  return `Try again in ${seconds === 1 ? "a second" : `${Math.ceil(seconds)} seconds`}.`;
}

/** The query of the `rel="next"` link. Only that: the token goes to the API of the settings, nowhere else. */
function nextQuery(link: string | null): string | undefined {
  for (const [, target, parameters] of (link ?? "").matchAll(/<([^>]*)>([^,]*)/g)) {
    if (target && /;\s*rel="?next"?\s*(;|$)/i.test(parameters ?? "")) {
      return new URL(target, apiUrl).search.slice(1);
    }
  }
  return undefined;
}
