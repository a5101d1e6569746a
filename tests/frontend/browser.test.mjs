// Browser tests of the single-page app, against a running sandbox (API_URL, ENTRA_URL).
// If SCREENSHOTS names a directory, the tests save screenshots there.

import assert from "node:assert/strict";
import { mkdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import { after, afterEach, before, test } from "node:test";
import { API_URL, APP_URL, ENTRA_URL, Environment, TIMEOUT_MS } from "./environment.mjs";

const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const WIDE = { width: 1280, height: 800 };
const PHONE = { width: 375, height: 740 };
const TENANTS = {
  contoso: "11111111-1111-4111-8111-111111111111",
  fabrikam: "22222222-2222-4222-8222-222222222222",
  northwind: "33333333-3333-4333-8333-333333333333",
};

const environment = new Environment();
let browser;
let contexts = [];

before(async () => {
  await environment.startApp();
  browser = await environment.startBrowser(await environment.startEntra());
  await Promise.all(["contoso", "fabrikam"].map(deleteAllTasks));
});
afterEach(async () => {
  await Promise.all(contexts.map((context) => context.close()));
  contexts = [];
});
after(() => environment.close());

// --- Sign-in and sign-out

for (const tenant of ["contoso", "fabrikam"]) {
  test(`an Admin of ${tenant} has all permissions`, async () => {
    const page = await signIn("Ada Admin", tenant);
    await expectVisible(page.getByText(`admin@${tenant}.example`));
    await expectVisible(page.getByText(TENANTS[tenant]));
    await expectVisible(page.getByRole("heading", { name: "All Tasks in My Organization" }));
    assert.deepEqual(await badges(page), ["Admin"]);
    assert.deepEqual(await granted(page), ["Create", "Read", "Edit", "Delete", "View All in Org"]);
  });

  test(`an Editor of ${tenant} cannot delete tasks`, async () => {
    const page = await signIn("Edgar Editor", tenant);
    await expectVisible(page.getByText(`editor@${tenant}.example`));
    await expectVisible(page.getByRole("heading", { name: "My Tasks" }));
    assert.deepEqual(await badges(page), ["Editor"]);
    assert.deepEqual(await granted(page), ["Create", "Read", "Edit"]);
    await addTask(page, unique("Not to be deleted"));
    assert.equal(await page.getByRole("button", { name: /^Delete/ }).count(), 0);
  });

  test(`a Reader of ${tenant} gets a read-only list`, async () => {
    const page = await signIn("Rita Reader", tenant);
    await expectVisible(page.getByText(`reader@${tenant}.example`));
    await expectVisible(page.getByRole("heading", { name: "My Tasks" }));
    await expectVisible(page.getByText("No tasks yet."));
    assert.deepEqual(await granted(page), ["Read"]);
    assert.equal(await page.locator("main").locator("button, input").count(), 0);
    await screenshot(page, `reader-${tenant}`);
  });
}

test("a tenant that is not allowed sees its tenant ID and the next step", async () => {
  const page = await signIn("Ada Admin", "northwind", "Your organization does not have access yet");
  await expectVisible(page.getByText("Ask the operator of the service"));
  await expectVisible(page.getByText(TENANTS.northwind));
  await screenshot(page, "not-allowed");
  await page.getByRole("button", { name: "Sign out" }).click();
  await expectVisible(page.getByRole("button", { name: "Sign in with Microsoft" }));
});

test("a user without a role is asked to contact an administrator", async () => {
  const page = await signIn("Noor Norole", "contoso", "You do not have a role yet");
  await expectVisible(page.getByText("norole@contoso.example"));
  await expectVisible(page.getByText("Ask your administrator"));
  await screenshot(page, "no-role");
});

test("sign-out ends the session, also after a reload", async () => {
  const page = await signIn("Edgar Editor", "contoso");
  await page.reload();
  await expectVisible(heading(page, "Dashboard"));
  await page.getByRole("button", { name: "Sign out" }).click();
  await expectVisible(page.getByRole("button", { name: "Sign in with Microsoft" }));
  await page.reload();
  await expectVisible(page.getByRole("button", { name: "Sign in with Microsoft" }));
});

test("a sign-in canceled at Entra shows a message and can be retried", async () => {
  const page = await open();
  await page.route("**/oauth2/v2.0/authorize*", (route) => {
    const state = new URL(route.request().url()).searchParams.get("state");
    const result = new URLSearchParams({ error: "access_denied", error_subcode: "cancel", state });
    return route.fulfill({
      contentType: "text/html",
      body: `<script>location.replace(${JSON.stringify(`${APP_URL}/#${result}`)})</script>`,
    });
  });
  await page.getByRole("button", { name: "Sign in with Microsoft" }).click();
  await expectVisible(page.getByRole("alert").getByText("The sign-in was canceled"));
  await page.unrouteAll();
  await enter(page, "Edgar Editor", "contoso");
  await expectVisible(heading(page, "Dashboard"));
});

test("sign-in works after returning from Entra with the Back button", async () => {
  const page = await open();
  await page.getByRole("button", { name: "Sign in with Microsoft" }).click();
  await expectVisible(page.getByRole("button", { name: "Edgar Editor (contoso)" }));
  await page.goBack();
  await enter(page, "Edgar Editor", "contoso");
  await expectVisible(heading(page, "Dashboard"));
});

// --- Tasks

test("an Admin creates, completes, renames and deletes a task", async () => {
  const page = await signIn("Ada Admin", "contoso");
  const title = unique("Write the minutes");
  const renamed = unique("Send the minutes");
  await addTask(page, title);

  const checkbox = page.getByRole("checkbox", { name: title });
  await expectStatusAfter(page, "Task completed", () => checkbox.check());
  await page.reload();
  await expectVisible(checkbox);
  assert.equal(await checkbox.isChecked(), true);

  await page.getByRole("button", { name: `Rename ${title}` }).click();
  await page.getByLabel("New title").fill(renamed);
  await expectStatusAfter(page, "Task renamed", () => page.keyboard.press("Enter"));
  await expectFocused(page, page.getByRole("button", { name: `Rename ${renamed}` }));

  const deleteButton = page.getByRole("button", { name: `Delete ${renamed}` });
  await deleteButton.focus();
  await page.keyboard.press("Enter");
  const dialog = page.getByRole("dialog", { name: "Delete this task?" });
  await expectFocused(page, dialog.getByRole("button", { name: "Cancel" }));
  await page.keyboard.press("Escape");
  await expectGone(dialog);
  await expectFocused(page, deleteButton);

  await page.keyboard.press("Enter");
  await expectVisible(dialog);
  await page.keyboard.press("Tab");
  await expectStatusAfter(page, "Task deleted", () => page.keyboard.press("Enter"));
  await expectGone(deleteButton);
  await expectFocused(page, page.getByRole("heading", { name: "All Tasks in My Organization" }));
});

test("Escape cancels a rename", async () => {
  const page = await signIn("Edgar Editor", "contoso");
  const title = unique("Keep the name");
  await addTask(page, title);
  await page.getByRole("button", { name: `Rename ${title}` }).click();
  await page.getByLabel("New title").fill("Another name");
  await page.keyboard.press("Escape");
  await expectFocused(page, page.getByRole("button", { name: `Rename ${title}` }));
});

test("an Admin sees all tasks with owners, an Editor only their own", async () => {
  const [admin, editor] = await Promise.all([signIn("Ada Admin", "contoso"), signIn("Edgar Editor", "contoso")]);
  const [adminTitle, editorTitle] = [unique("Admin's task"), unique("Editor's task")];
  await addTask(admin, adminTitle);
  await addTask(editor, editorTitle);
  await Promise.all([admin.reload(), editor.reload()]);

  await expectVisible(taskOf(admin, adminTitle).getByText("Owner: Ada Admin"));
  await expectVisible(taskOf(admin, editorTitle).getByText("Owner: Edgar Editor"));
  await expectVisible(taskOf(editor, editorTitle));
  assert.equal(await taskOf(editor, adminTitle).count(), 0);
  assert.equal(await editor.getByText("Owner:").count(), 0);
  await taskOf(admin, editorTitle).getByRole("checkbox").check();
  await expectVisible(status(admin, "Task completed"));
  await screenshot(admin, "admin");
  await screenshot(editor, "editor");
});

test("tenants cannot see each other's tasks", async () => {
  const [contoso, fabrikam] = await Promise.all([signIn("Ada Admin", "contoso"), signIn("Ada Admin", "fabrikam")]);
  const [contosoTitle, fabrikamTitle] = [unique("Only in contoso"), unique("Only in fabrikam")];
  await addTask(contoso, contosoTitle);
  await addTask(fabrikam, fabrikamTitle);
  await Promise.all([contoso.reload(), fabrikam.reload()]);
  await expectVisible(taskOf(contoso, contosoTitle));
  await expectVisible(taskOf(fabrikam, fabrikamTitle));
  assert.equal(await contoso.getByText(fabrikamTitle).count(), 0);
  assert.equal(await fabrikam.getByText(contosoTitle).count(), 0);
});

test("a rejected title stays in the field with an error message", async () => {
  const page = await signIn("Edgar Editor", "contoso");
  const long = "x".repeat(501);
  const field = page.getByLabel("New task");
  await field.fill(long);
  await page.getByRole("button", { name: "Add task" }).click();
  await expectVisible(page.getByRole("alert").getByText("title: String should have at most 500 characters"));
  assert.equal(await field.inputValue(), long);
  assert.equal(await field.getAttribute("aria-invalid"), "true");
});

test("a long list is loaded in pages", async () => {
  const titles = Array.from({ length: 103 }, (_, number) => unique(`Number ${number}`));
  for (const title of titles) {
    await api("fabrikam", "editor", "POST", "/api/tasks", { title });
  }
  const page = await signIn("Ada Admin", "fabrikam");
  const items = page.getByRole("list", { name: "All Tasks in My Organization" }).getByRole("listitem");
  await expectVisible(items.nth(99));
  assert.equal(await items.count(), 100);
  await page.getByRole("button", { name: "Show more" }).click();
  await expectVisible(taskOf(page, titles.at(-1)));
  await expectGone(page.getByRole("button", { name: "Show more" }));
  await deleteAllTasks("fabrikam");
});

// --- Failures

test("an unreachable service shows a message and can be retried", async () => {
  const page = await open();
  await page.route(`${API_URL}/**`, (route) => route.abort("connectionrefused"));
  await enter(page, "Edgar Editor", "contoso");
  await expectVisible(heading(page, "The service is unavailable"));
  await screenshot(page, "unavailable");
  await page.unrouteAll();
  await page.getByRole("button", { name: "Try again" }).click();
  await expectVisible(heading(page, "Dashboard"));
});

test("an outage message shows the Retry-After time", async () => {
  const page = await open();
  await respondWith(page, 503, { detail: "Signing keys are unavailable. Try again later." }, { "Retry-After": "7" });
  await enter(page, "Edgar Editor", "contoso");
  await expectVisible(page.getByText("Try again in 7 seconds."));
});

test("a rate-limit message shows the wait only once", async () => {
  const page = await open();
  const detail = "Your organization sends too many requests. Try again in one second.";
  await respondWith(page, 429, { detail }, { "Retry-After": "1" });
  await enter(page, "Edgar Editor", "contoso");
  await expectVisible(heading(page, "The service rejected your request"));
  assert.equal(await page.getByText("too many requests").innerText(), detail);
});

test("an outage while adding a task keeps the typed title", async () => {
  const page = await signIn("Edgar Editor", "contoso");
  await page.route(`${API_URL}/**`, (route) => route.abort("connectionrefused"));
  const title = unique("Typed during an outage");
  await page.getByLabel("New task").fill(title);
  await page.getByRole("button", { name: "Add task" }).click();
  await expectVisible(page.getByRole("alert").getByText("may not have been saved"));
  assert.equal(await page.getByLabel("New task").inputValue(), title);
  await page.unrouteAll();
  await page.getByRole("button", { name: "Reload the list" }).click();
  await expectGone(page.getByText("may not have been saved"));
  await addTask(page, title);
});

test("a completion that fails is reverted", async () => {
  const page = await signIn("Edgar Editor", "contoso");
  const title = unique("Not done yet");
  await addTask(page, title);
  await respondWith(page, 404, { detail: "Task not found" });
  await taskOf(page, title).getByRole("checkbox").click();
  await expectVisible(page.getByRole("alert").getByText("Task not found"));
  assert.equal(await taskOf(page, title).getByRole("checkbox").isChecked(), false);
});

test("a rejected token signs the user out with a message", async () => {
  const page = await signIn("Edgar Editor", "contoso");
  await respondWith(page, 401, { detail: "Token has expired" });
  await addTitle(page, unique("Too late"));
  await expectVisible(page.getByRole("alert").getByText("You have been signed out"));
  await expectVisible(page.getByRole("button", { name: "Sign in with Microsoft" }));
  await page.unrouteAll();
  await enter(page, "Edgar Editor", "contoso");
  await expectVisible(heading(page, "Dashboard"));
});

test("a tenant that loses access during a session sees a message", async () => {
  const page = await signIn("Edgar Editor", "contoso");
  await respondWith(page, 403, { detail: `Tenant ${TENANTS.contoso} is not allowed to access this application` });
  await addTitle(page, unique("Too late"));
  await expectVisible(heading(page, "Your organization does not have access yet"));
});

// --- Accessibility

for (const colorScheme of ["light", "dark"]) {
  for (const viewport of [WIDE, PHONE]) {
    test(`pages are accessible and fit in ${colorScheme} mode at ${viewport.width}px`, async () => {
      await deleteAllTasks("contoso");
      const name = `${colorScheme}-${viewport.width}`;
      const page = await open({ colorScheme, viewport });
      await expectAccessibleLayout(page, "landing");
      await screenshot(page, `landing-${name}`);

      await enter(page, "Ada Admin", "contoso");
      await expectVisible(heading(page, "Dashboard"));
      const titles = [unique("Buy coffee"), unique("Unbroken".repeat(20)), unique("Call the landlord")];
      for (const title of titles) {
        await addTask(page, title);
      }
      await expectStatusAfter(page, "Task completed", () => page.getByRole("checkbox", { name: titles[0] }).check());
      await expectAccessibleLayout(page, "dashboard");
      await page.getByRole("button", { name: `Rename ${titles[2]}` }).click();
      await addTitle(page, " ");
      await expectVisible(page.getByRole("alert").getByText("title:"));
      await expectAccessibleLayout(page, "rename form and rejected title");
      await screenshot(page, `dashboard-${name}`);
      await page.getByRole("button", { name: `Delete ${titles[0]}` }).click();
      await expectVisible(page.getByRole("dialog"));
      await expectAccessibleLayout(page, "delete dialog");
      // The backdrop covers the viewport only, not the full page.
      await screenshot(page, `deletion-${name}`, { fullPage: false });

      const notAllowed = await open({ colorScheme, viewport });
      await enter(notAllowed, "Rita Reader", "northwind");
      await expectVisible(heading(notAllowed, "Your organization does not have access yet"));
      await expectAccessibleLayout(notAllowed, "not allowed");
    });
  }
}

// --- Helpers

async function open(options = {}) {
  const context = await browser.newContext({ viewport: WIDE, reducedMotion: "reduce", ...options });
  contexts.push(context);
  context.setDefaultTimeout(TIMEOUT_MS);
  const page = await context.newPage();
  page.on("pageerror", (error) => assert.fail(`uncaught error in the page: ${error.message}`));
  await page.goto(APP_URL);
  await expectVisible(page.getByRole("button", { name: "Sign in with Microsoft" }));
  return page;
}

async function enter(page, user, tenant) {
  await page.getByRole("button", { name: "Sign in with Microsoft" }).click();
  await page.getByRole("button", { name: `${user} (${tenant})` }).click();
}

async function signIn(user, tenant, title = "Dashboard") {
  const page = await open();
  await enter(page, user, tenant);
  await expectVisible(heading(page, title));
  return page;
}

async function addTitle(page, title) {
  await page.getByLabel("New task").fill(title);
  await page.getByRole("button", { name: "Add task" }).click();
}

async function addTask(page, title) {
  await addTitle(page, title);
  await expectVisible(taskOf(page, title));
}

async function expectStatusAfter(page, text, act) {
  await act();
  await expectVisible(status(page, text));
}

function heading(page, name) {
  return page.getByRole("heading", { level: 1, name });
}

function status(page, text) {
  return page.getByRole("status").getByText(text);
}

function taskOf(page, title) {
  return page.getByRole("listitem").filter({ hasText: title });
}

async function badges(page) {
  return page.locator(".badge").allInnerTexts();
}

async function granted(page) {
  const items = await page.getByRole("region", { name: "Permissions" }).getByRole("listitem").allInnerTexts();
  const words = items.map((text) => text.split(/\s*\n\s*/).filter((word) => !["✓", "✕"].includes(word)));
  return words.filter(([, verdict]) => verdict === "granted").map(([permission]) => permission);
}

async function expectVisible(locator) {
  await locator.first().waitFor({ state: "visible" });
}

async function expectGone(locator) {
  await locator.first().waitFor({ state: "detached" });
}

async function expectFocused(page, locator) {
  await expectVisible(locator);
  const element = await locator.elementHandle();
  await page.waitForFunction((expected) => document.activeElement === expected, element);
}

async function respondWith(page, status, body, headers = {}) {
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

async function expectAccessibleLayout(page, view) {
  const overflow = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
  assert.ok(overflow <= 0, `${view}: ${overflow}px too wide`);
  await page.evaluate(AXE);
  const { violations } = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ["violations"] }));
  const severe = violations.filter(({ impact }) => impact === "serious" || impact === "critical");
  const found = severe.map(({ id, nodes }) => `${id}: ${nodes.map(({ target }) => target.join(" ")).join(", ")}`);
  assert.deepEqual(found, [], view);
}

async function screenshot(page, name, options = { fullPage: true }) {
  if (process.env.SCREENSHOTS) {
    mkdirSync(process.env.SCREENSHOTS, { recursive: true });
    await page.screenshot({ path: path.join(process.env.SCREENSHOTS, `${name}.png`), ...options });
  }
}

let counter = 0;
/** A title that no other test and no earlier run uses. */
function unique(title) {
  counter += 1;
  return `${title} ${Date.now().toString(36)}-${counter}.`;
}

/** Sends a request to the API as a user of the mock Entra, without the app. */
async function api(tenant, user, method, route, body) {
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
async function deleteAllTasks(tenant) {
  for (const { id } of await api(tenant, "admin", "GET", "/api/tasks")) {
    await api(tenant, "admin", "DELETE", `/api/tasks/${id}`);
  }
}
