// What the browser tests share: a browser with the app of a running sandbox ("npm run sandbox"), and helpers.
// If SCREENSHOTS names a directory, the tests save screenshots there.

import assert from "node:assert/strict";
import { mkdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import { after, afterEach, before } from "node:test";
import { chromium } from "playwright-core";

export const API_URL = process.env.API_URL || "http://127.0.0.1:8000";
export const ENTRA_URL = process.env.ENTRA_URL || "http://127.0.0.1:8001";
export const APP_URL = "http://localhost:3000";
/** Timeout of every wait in a test. */
export const TIMEOUT_MS = 10_000;

export const WIDE = { width: 1280, height: 800 };
export const PHONE = { width: 375, height: 740 };
export const SMALL_PHONE = { width: 320, height: 640 };
/** The color schemes and widths in which pages are tested. */
export const APPEARANCES = ["light", "dark"].flatMap((colorScheme) =>
  [WIDE, PHONE, SMALL_PHONE].map((viewport) => ({ colorScheme, viewport })),
);
export const TENANTS = {
  contoso: "11111111-1111-4111-8111-111111111111",
  fabrikam: "22222222-2222-4222-8222-222222222222",
  northwind: "33333333-3333-4333-8333-333333333333",
};

const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

// Not in a hook: then every test would fail and wait on its own.
for (const url of [API_URL, ENTRA_URL, APP_URL]) {
  await fetch(url).catch(() => {
    console.error(`${url} does not respond: run "npm run sandbox", or set API_URL and ENTRA_URL`);
    process.exit(1);
  });
}

let browser;
let contexts = [];

before(async () => {
  browser = await startBrowser();
  await Promise.all(["contoso", "fabrikam"].map(deleteAllTasks));
});
afterEach(async () => {
  await Promise.all(contexts.map((context) => context.close()));
  contexts = [];
});
after(() => browser?.close());

/** Starts a Chromium that only resolves the host names of the sandbox. */
function startBrowser() {
  const hosts = [API_URL, ENTRA_URL, APP_URL].map((url) => new URL(url).hostname);
  return chromium.launch({
    executablePath: process.env.CHROMIUM || "/usr/bin/chromium",
    headless: true,
    timeout: 3 * TIMEOUT_MS,
    args: [
      "--no-sandbox",
      "--disable-gpu",
      "--disable-quic",
      "--no-first-run",
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-sync",
      `--host-resolver-rules=${["MAP * ~NOTFOUND", ...hosts.map((host) => `EXCLUDE ${host}`)].join(", ")}`,
    ],
  });
}

/** A new browser profile. It is closed after the test. */
export async function newContext(options = {}) {
  const context = await browser.newContext({ viewport: WIDE, reducedMotion: "reduce", ...options });
  contexts.push(context);
  context.setDefaultTimeout(TIMEOUT_MS);
  return context;
}

/** Opens the sign-in page in a new profile, or as a new tab of `context`. */
export async function open({ context, ...options } = {}) {
  const page = await (context ?? (await newContext(options))).newPage();
  page.on("pageerror", (error) => assert.fail(`uncaught error in the page: ${error.message}`));
  await page.goto(APP_URL);
  await expectVisible(page.getByRole("button", { name: "Sign in with Microsoft" }));
  return page;
}

export async function enter(page, user, tenant) {
  await page.getByRole("button", { name: "Sign in with Microsoft" }).click();
  await page.getByRole("button", { name: `${user} (${tenant})` }).click();
}

export async function signIn(user, tenant, title = "Dashboard") {
  const page = await open();
  await enter(page, user, tenant);
  await expectVisible(heading(page, title));
  return page;
}

export async function addTitle(page, title) {
  await page.getByLabel("New task").fill(title);
  await page.getByRole("button", { name: "Add task" }).click();
}

export async function addTask(page, title) {
  await addTitle(page, title);
  await expectVisible(taskOf(page, title));
}

export async function expectStatusAfter(page, text, act) {
  await act();
  await expectVisible(status(page, text));
}

export function heading(page, name) {
  return page.getByRole("heading", { level: 1, name });
}

export function status(page, text) {
  return page.getByRole("status").getByText(text);
}

export function taskOf(page, title) {
  return page.getByRole("listitem").filter({ hasText: title });
}

export async function badges(page) {
  return page.locator(".badge").allInnerTexts();
}

export async function granted(page) {
  const items = await page.getByRole("region", { name: "Permissions" }).getByRole("listitem").allInnerTexts();
  const words = items.map((text) => text.split(/\s*\n\s*/).filter((word) => !["✓", "✕"].includes(word)));
  return words.filter(([, verdict]) => verdict === "granted").map(([permission]) => permission);
}

export async function expectVisible(locator) {
  await locator.first().waitFor({ state: "visible" });
}

export async function expectGone(locator) {
  await locator.first().waitFor({ state: "detached" });
}

export async function expectFocused(page, locator) {
  await expectVisible(locator);
  const element = await locator.elementHandle();
  await page.waitForFunction((expected) => document.activeElement === expected, element);
}

/** Changes responses of the service: members of the body, and headers that scripts may read. */
export async function changeResponse(page, method, path, { body = {}, headers = {} }) {
  await page.route(`${API_URL}${path}`, async (route) => {
    if (route.request().method() !== method) {
      return route.fallback();
    }
    const response = await route.fetch();
    const exposed = { "Access-Control-Expose-Headers": Object.keys(headers).join(", ") };
    return route.fulfill({
      response,
      headers: { ...response.headers(), ...exposed, ...headers },
      json: { ...(await response.json()), ...body },
    });
  });
}

export async function respondWith(page, status, body, headers = {}) {
  await page.route(`${API_URL}/**`, (route) =>
    route.request().method() === "OPTIONS"
      ? route.continue()
      : route.fulfill({
          status,
          contentType: "application/json",
          headers: {
            "Access-Control-Allow-Origin": APP_URL,
            "Access-Control-Expose-Headers": "Retry-After",
            ...headers,
          },
          body: JSON.stringify(body),
        }),
  );
}

/** Responds to the first requests of a route with `status`. Returns a list that collects the times of all requests. */
export async function respondTimes(page, count, method, path, status, headers = {}) {
  const times = [];
  await page.route(`${API_URL}${path}`, (route) => {
    if (route.request().method() !== method) {
      return route.continue();
    }
    times.push(Date.now());
    if (times.length > count) {
      return route.continue();
    }
    const cors = { "Access-Control-Allow-Origin": APP_URL, "Access-Control-Expose-Headers": "Retry-After" };
    return route.fulfill({ status, headers: { ...cors, ...headers }, json: { detail: "Not now" } });
  });
  return times;
}

/** Lets Entra end the sign-in with an error. */
export async function failSignIn(page, result) {
  await page.route("**/oauth2/v2.0/authorize*", (route) => {
    const state = new URL(route.request().url()).searchParams.get("state");
    const target = `${APP_URL}/#${new URLSearchParams({ ...result, state })}`;
    return route.fulfill({
      contentType: "text/html",
      body: `<script>location.replace(${JSON.stringify(target)})</script>`,
    });
  });
}

export async function expectAccessibleLayout(page, view) {
  const overflow = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
  assert.ok(overflow <= 0, `${view}: ${overflow}px too wide`);
  await page.evaluate(AXE);
  const { violations } = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ["violations"] }));
  const severe = violations.filter(({ impact }) => impact === "serious" || impact === "critical");
  const found = severe.map(({ id, nodes }) => `${id}: ${nodes.map(({ target }) => target.join(" ")).join(", ")}`);
  assert.deepEqual(found, [], view);
}

export async function screenshot(page, name, options = { fullPage: true }) {
  if (process.env.SCREENSHOTS) {
    mkdirSync(process.env.SCREENSHOTS, { recursive: true });
    await page.screenshot({ path: path.join(process.env.SCREENSHOTS, `${name}.png`), ...options });
  }
}

/** Saves a screenshot of the page in each width and color scheme if `SCREENSHOTS` is set. */
export async function screenshots(page, name, options) {
  if (!process.env.SCREENSHOTS) {
    return;
  }
  const before = page.viewportSize();
  for (const { colorScheme, viewport } of APPEARANCES) {
    await page.emulateMedia({ colorScheme });
    await page.setViewportSize(viewport);
    await screenshot(page, `${name}-${colorScheme}-${viewport.width}`, options);
  }
  await page.emulateMedia({ colorScheme: null });
  await page.setViewportSize(before);
}

let counter = 0;
/** A title that no other test and no earlier run uses. */
export function unique(title) {
  counter += 1;
  return `${title} ${Date.now().toString(36)}-${counter}.`;
}

/** Sends a request to the API as a user of the mock Entra, without the app. */
export async function api(tenant, user, method, route, body) {
  const signal = AbortSignal.timeout(TIMEOUT_MS);
  const token = await (await fetch(`${ENTRA_URL}/token/${tenant}/${user}`, { signal })).text();
  const response = await fetch(API_URL + route, {
    method,
    signal,
    headers: { Authorization: `Bearer ${token}`, ...(body && { "Content-Type": "application/json" }) },
    ...(body && { body: JSON.stringify(body) }),
  });
  assert.equal(response.status, 200, `${method} ${route}`);
  return response.json();
}

/** Deletes the tenant's tasks. Earlier runs against the same sandbox may have left some. */
export async function deleteAllTasks(tenant) {
  for (const { id } of await api(tenant, "admin", "GET", "/api/tasks")) {
    await api(tenant, "admin", "DELETE", `/api/tasks/${id}`);
  }
}
