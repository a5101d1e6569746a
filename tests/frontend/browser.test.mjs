// The app in a browser, against a running sandbox (API_URL, ENTRA_URL). SCREENSHOTS: a directory for pictures.

import assert from "node:assert/strict";
import { mkdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import { after, afterEach, before, test } from "node:test";
import { API_URL, APP_URL, ENTRA_URL, PATIENCE_MS, Stage } from "./stage.mjs";

const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const WIDE = { width: 1280, height: 800 };
const PHONE = { width: 375, height: 740 };
const TENANTS = {
  contoso: "11111111-1111-4111-8111-111111111111",
  fabrikam: "22222222-2222-4222-8222-222222222222",
  northwind: "33333333-3333-4333-8333-333333333333",
};

const stage = new Stage();
let browser;
let contexts = [];

before(async () => {
  await stage.app();
  browser = await stage.browser(await stage.entra());
  await Promise.all(["contoso", "fabrikam"].map(empty));
});
afterEach(async () => {
  await Promise.all(contexts.map((context) => context.close()));
  contexts = [];
});
after(() => stage.close());

// --- Signing in and out

for (const organisation of ["contoso", "fabrikam"]) {
  test(`an Admin of ${organisation} signs in and may do everything`, async () => {
    const page = await signIn("Ada Admin", organisation);
    await sees(page, page.getByText(`admin@${organisation}.example`));
    await sees(page, page.getByText(TENANTS[organisation]));
    await sees(page, page.getByRole("heading", { name: "All Tasks in My Organization" }));
    assert.deepEqual(await badges(page), ["Admin"]);
    assert.deepEqual(await granted(page), ["Create", "Read", "Edit", "Delete", "View All in Org"]);
  });

  test(`an Editor of ${organisation} signs in and may not delete`, async () => {
    const page = await signIn("Edgar Editor", organisation);
    await sees(page, page.getByText(`editor@${organisation}.example`));
    await sees(page, page.getByRole("heading", { name: "My Tasks" }));
    assert.deepEqual(await badges(page), ["Editor"]);
    assert.deepEqual(await granted(page), ["Create", "Read", "Edit"]);
    await addTask(page, unique("Not to be deleted"));
    assert.equal(await page.getByRole("button", { name: /^Delete/ }).count(), 0);
  });

  test(`a Reader of ${organisation} signs in and has no controls`, async () => {
    const page = await signIn("Rita Reader", organisation);
    await sees(page, page.getByText(`reader@${organisation}.example`));
    await sees(page, page.getByRole("heading", { name: "My Tasks" }));
    await sees(page, page.getByText("No tasks yet."));
    assert.deepEqual(await granted(page), ["Read"]);
    assert.equal(await page.locator("main").locator("button, input").count(), 0);
    await picture(page, `reader-${organisation}`);
  });
}

test("people of an organization that is not allowed are told so, and whom to ask", async () => {
  const page = await signIn("Ada Admin", "northwind", "Your organization does not have access yet");
  await sees(page, page.getByText("Ask the people who run the service"));
  await sees(page, page.getByText(TENANTS.northwind));
  await picture(page, "not-allowed");
  await page.getByRole("button", { name: "Sign out" }).click();
  await sees(page, page.getByRole("button", { name: "Sign in with Microsoft" }));
});

test("someone without a role is told so, and whom to ask", async () => {
  const page = await signIn("Noor Norole", "contoso", "You do not have a role yet");
  await sees(page, page.getByText("norole@contoso.example"));
  await sees(page, page.getByText("Ask your administrator"));
  await picture(page, "no-role");
});

test("signing out ends the session, also after a reload", async () => {
  const page = await signIn("Edgar Editor", "contoso");
  await page.reload();
  await sees(page, heading(page, "Dashboard"));
  await page.getByRole("button", { name: "Sign out" }).click();
  await sees(page, page.getByRole("button", { name: "Sign in with Microsoft" }));
  await page.reload();
  await sees(page, page.getByRole("button", { name: "Sign in with Microsoft" }));
});

test("a sign-in cancelled at Entra is told in words, and can be started again", async () => {
  const page = await open();
  await page.route("**/oauth2/v2.0/authorize*", (route) => {
    const state = new URL(route.request().url()).searchParams.get("state");
    const answer = new URLSearchParams({ error: "access_denied", error_subcode: "cancel", state });
    return route.fulfill({
      contentType: "text/html",
      body: `<script>location.replace(${JSON.stringify(`${APP_URL}/#${answer}`)})</script>`,
    });
  });
  await page.getByRole("button", { name: "Sign in with Microsoft" }).click();
  await sees(page, page.getByRole("alert").getByText("The sign-in was cancelled"));
  await page.unrouteAll();
  await enter(page, "Edgar Editor", "contoso");
  await sees(page, heading(page, "Dashboard"));
});

test("coming back from Entra with the Back button, one can sign in again", async () => {
  const page = await open();
  await page.getByRole("button", { name: "Sign in with Microsoft" }).click();
  await sees(page, page.getByRole("button", { name: "Edgar Editor (contoso)" }));
  await page.goBack();
  await enter(page, "Edgar Editor", "contoso");
  await sees(page, heading(page, "Dashboard"));
});

// --- Tasks

test("an Admin creates, completes, renames and deletes a task", async () => {
  const page = await signIn("Ada Admin", "contoso");
  const title = unique("Write the minutes");
  const renamed = unique("Send the minutes");
  await addTask(page, title);

  const checkbox = page.getByRole("checkbox", { name: title });
  await says(page, "Task completed", () => checkbox.check());
  await page.reload();
  await sees(page, checkbox);
  assert.equal(await checkbox.isChecked(), true);

  await page.getByRole("button", { name: `Rename ${title}` }).click();
  await page.getByLabel("New title").fill(renamed);
  await says(page, "Task renamed", () => page.keyboard.press("Enter"));
  await focused(page, page.getByRole("button", { name: `Rename ${renamed}` }));

  const deleteButton = page.getByRole("button", { name: `Delete ${renamed}` });
  await deleteButton.focus();
  await page.keyboard.press("Enter");
  const dialog = page.getByRole("dialog", { name: "Delete this task?" });
  await focused(page, dialog.getByRole("button", { name: "Cancel" }));
  await page.keyboard.press("Escape");
  await isGone(page, dialog);
  await focused(page, deleteButton);

  await page.keyboard.press("Enter");
  await sees(page, dialog);
  await page.keyboard.press("Tab");
  await says(page, "Task deleted", () => page.keyboard.press("Enter"));
  await isGone(page, deleteButton);
  await focused(page, page.getByRole("heading", { name: "All Tasks in My Organization" }));
});

test("Escape leaves a rename undone", async () => {
  const page = await signIn("Edgar Editor", "contoso");
  const title = unique("Keep the name");
  await addTask(page, title);
  await page.getByRole("button", { name: `Rename ${title}` }).click();
  await page.getByLabel("New title").fill("Another name");
  await page.keyboard.press("Escape");
  await focused(page, page.getByRole("button", { name: `Rename ${title}` }));
});

test("an Admin sees their Editor's task with its owner, the Editor only their own", async () => {
  const [admin, editor] = await Promise.all([signIn("Ada Admin", "contoso"), signIn("Edgar Editor", "contoso")]);
  const [adminTitle, editorTitle] = [unique("Of the Admin"), unique("Of the Editor")];
  await addTask(admin, adminTitle);
  await addTask(editor, editorTitle);
  await Promise.all([admin.reload(), editor.reload()]);

  await sees(admin, taskOf(admin, adminTitle).getByText("Owner: Ada Admin"));
  await sees(admin, taskOf(admin, editorTitle).getByText("Owner: Edgar Editor"));
  await sees(editor, taskOf(editor, editorTitle));
  assert.equal(await taskOf(editor, adminTitle).count(), 0);
  assert.equal(await editor.getByText("Owner:").count(), 0);
  await taskOf(admin, editorTitle).getByRole("checkbox").check();
  await sees(admin, status(admin, "Task completed"));
  await picture(admin, "admin");
  await picture(editor, "editor");
});

test("neither organization sees the other's titles", async () => {
  const [contoso, fabrikam] = await Promise.all([signIn("Ada Admin", "contoso"), signIn("Ada Admin", "fabrikam")]);
  const [contosoTitle, fabrikamTitle] = [unique("Only in contoso"), unique("Only in fabrikam")];
  await addTask(contoso, contosoTitle);
  await addTask(fabrikam, fabrikamTitle);
  await Promise.all([contoso.reload(), fabrikam.reload()]);
  await sees(contoso, taskOf(contoso, contosoTitle));
  await sees(fabrikam, taskOf(fabrikam, fabrikamTitle));
  assert.equal(await contoso.getByText(fabrikamTitle).count(), 0);
  assert.equal(await fabrikam.getByText(contosoTitle).count(), 0);
});

test("a title the service refuses is explained, and stays to be corrected", async () => {
  const page = await signIn("Edgar Editor", "contoso");
  const long = "x".repeat(501);
  const field = page.getByLabel("New task");
  await field.fill(long);
  await page.getByRole("button", { name: "Add task" }).click();
  await sees(page, page.getByRole("alert").getByText("title: String should have at most 500 characters"));
  assert.equal(await field.inputValue(), long);
  assert.equal(await field.getAttribute("aria-invalid"), "true");
});

test("a long list is read page by page", async () => {
  const titles = Array.from({ length: 103 }, (_, number) => unique(`Number ${number}`));
  for (const title of titles) {
    await api("fabrikam", "editor", "POST", "/api/tasks", { title });
  }
  const page = await signIn("Ada Admin", "fabrikam");
  const items = page.getByRole("list", { name: "All Tasks in My Organization" }).getByRole("listitem");
  await sees(page, items.nth(99));
  assert.equal(await items.count(), 100);
  await page.getByRole("button", { name: "Show more" }).click();
  await sees(page, taskOf(page, titles.at(-1)));
  await isGone(page, page.getByRole("button", { name: "Show more" }));
  await empty("fabrikam");
});

// --- When something fails

test("a service that is down is told in words, and trying again works", async () => {
  const page = await open();
  await page.route(`${API_URL}/**`, (route) => route.abort("connectionrefused"));
  await enter(page, "Edgar Editor", "contoso");
  await sees(page, heading(page, "The service is unavailable"));
  await picture(page, "unavailable");
  await page.unrouteAll();
  await page.getByRole("button", { name: "Try again" }).click();
  await sees(page, heading(page, "Dashboard"));
});

test("an outage says when to try again", async () => {
  const page = await open();
  await answerWith(page, 503, { detail: "Signing keys are unavailable" }, { "Retry-After": "7" });
  await enter(page, "Edgar Editor", "contoso");
  await sees(page, page.getByText("Try again in 7 seconds."));
});

test("an outage while adding a task keeps what was typed", async () => {
  const page = await signIn("Edgar Editor", "contoso");
  await page.route(`${API_URL}/**`, (route) => route.abort("connectionrefused"));
  const title = unique("Typed in vain");
  await page.getByLabel("New task").fill(title);
  await page.getByRole("button", { name: "Add task" }).click();
  await sees(page, page.getByRole("alert").getByText("may not have been saved"));
  assert.equal(await page.getByLabel("New task").inputValue(), title);
  await page.unrouteAll();
  await page.getByRole("button", { name: "Reload the list" }).click();
  await isGone(page, page.getByText("may not have been saved"));
  await addTask(page, title);
});

test("a completion that fails is taken back", async () => {
  const page = await signIn("Edgar Editor", "contoso");
  const title = unique("Not done yet");
  await addTask(page, title);
  await answerWith(page, 404, { detail: "Task not found" });
  await taskOf(page, title).getByRole("checkbox").click();
  await sees(page, page.getByRole("alert").getByText("Task not found"));
  assert.equal(await taskOf(page, title).getByRole("checkbox").isChecked(), false);
});

test("a refused token signs out, and says so", async () => {
  const page = await signIn("Edgar Editor", "contoso");
  await answerWith(page, 401, { detail: "Token has expired" });
  await addTitle(page, unique("Too late"));
  await sees(page, page.getByRole("alert").getByText("You have been signed out"));
  await sees(page, page.getByRole("button", { name: "Sign in with Microsoft" }));
  await page.unrouteAll();
  await enter(page, "Edgar Editor", "contoso");
  await sees(page, heading(page, "Dashboard"));
});

test("an organization that loses access during a session is told so", async () => {
  const page = await signIn("Edgar Editor", "contoso");
  await answerWith(page, 403, { detail: `Tenant ${TENANTS.contoso} is not allowed to access this application` });
  await addTitle(page, unique("Too late"));
  await sees(page, heading(page, "Your organization does not have access yet"));
});

// --- For everyone

for (const colorScheme of ["light", "dark"]) {
  for (const viewport of [WIDE, PHONE]) {
    test(`the pages are accessible and fit, ${colorScheme}, ${viewport.width} wide`, async () => {
      await empty("contoso");
      const name = `${colorScheme}-${viewport.width}`;
      const page = await open({ colorScheme, viewport });
      await fitsAndIsAccessible(page, "landing");
      await picture(page, `landing-${name}`);

      await enter(page, "Ada Admin", "contoso");
      await sees(page, heading(page, "Dashboard"));
      const titles = [unique("Buy coffee"), unique("Unbroken".repeat(20)), unique("Call the landlord")];
      for (const title of titles) {
        await addTask(page, title);
      }
      await says(page, "Task completed", () => page.getByRole("checkbox", { name: titles[0] }).check());
      await fitsAndIsAccessible(page, "dashboard");
      await page.getByRole("button", { name: `Rename ${titles[2]}` }).click();
      await addTitle(page, " ");
      await sees(page, page.getByRole("alert").getByText("title:"));
      await fitsAndIsAccessible(page, "rename and refusal");
      await picture(page, `dashboard-${name}`);
      await page.getByRole("button", { name: `Delete ${titles[0]}` }).click();
      await sees(page, page.getByRole("dialog"));
      await fitsAndIsAccessible(page, "deletion");
      // The dialog dims the window, not the whole page.
      await picture(page, `deletion-${name}`, { fullPage: false });

      const refused = await open({ colorScheme, viewport });
      await enter(refused, "Rita Reader", "northwind");
      await sees(refused, heading(refused, "Your organization does not have access yet"));
      await fitsAndIsAccessible(refused, "not allowed");
    });
  }
}

// --- Steps

async function open(options = {}) {
  const context = await browser.newContext({ viewport: WIDE, reducedMotion: "reduce", ...options });
  contexts.push(context);
  context.setDefaultTimeout(PATIENCE_MS);
  const page = await context.newPage();
  page.on("pageerror", (error) => assert.fail(`the page failed: ${error.message}`));
  await page.goto(APP_URL);
  await sees(page, page.getByRole("button", { name: "Sign in with Microsoft" }));
  return page;
}

async function enter(page, person, organisation) {
  await page.getByRole("button", { name: "Sign in with Microsoft" }).click();
  await page.getByRole("button", { name: `${person} (${organisation})` }).click();
}

async function signIn(person, organisation, title = "Dashboard") {
  const page = await open();
  await enter(page, person, organisation);
  await sees(page, heading(page, title));
  return page;
}

async function addTitle(page, title) {
  await page.getByLabel("New task").fill(title);
  await page.getByRole("button", { name: "Add task" }).click();
}

async function addTask(page, title) {
  await addTitle(page, title);
  await sees(page, taskOf(page, title));
}

async function says(page, text, act) {
  await act();
  await sees(page, status(page, text));
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

async function sees(_page, locator) {
  await locator.first().waitFor({ state: "visible" });
}

async function isGone(_page, locator) {
  await locator.first().waitFor({ state: "detached" });
}

async function focused(page, locator) {
  await sees(page, locator);
  const element = await locator.elementHandle();
  await page.waitForFunction((expected) => document.activeElement === expected, element);
}

async function answerWith(page, status, body, headers = {}) {
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

async function fitsAndIsAccessible(page, what) {
  const overflow = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
  assert.ok(overflow <= 0, `${what}: ${overflow}px too wide`);
  await page.evaluate(AXE);
  const { violations } = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ["violations"] }));
  const grave = violations.filter(({ impact }) => impact === "serious" || impact === "critical");
  const found = grave.map(({ id, nodes }) => `${id}: ${nodes.map(({ target }) => target.join(" ")).join(", ")}`);
  assert.deepEqual(found, [], what);
}

async function picture(page, name, options = { fullPage: true }) {
  if (process.env.SCREENSHOTS) {
    mkdirSync(process.env.SCREENSHOTS, { recursive: true });
    await page.screenshot({ path: path.join(process.env.SCREENSHOTS, `${name}.png`), ...options });
  }
}

let counted = 0;
/** A title no other test and no earlier run has. */
function unique(title) {
  counted += 1;
  return `${title} ${Date.now().toString(36)}-${counted}.`;
}

/** A request to the API as one of the stand-in's people, without the app. */
async function api(organisation, person, method, route, body) {
  const signal = AbortSignal.timeout(PATIENCE_MS);
  const token = await (await fetch(`${ENTRA_URL}/token/${organisation}/${person}`, { signal })).text();
  const response = await fetch(API_URL + route, {
    method,
    signal,
    headers: { Authorization: `Bearer ${token}`, ...(body && { "Content-Type": "application/json" }) },
    ...(body && { body: JSON.stringify(body) }),
  });
  assert.equal(response.status, 200, `${method} ${route}`);
  return response.json();
}

/** An earlier run against the same sandbox may have left tasks. */
async function empty(organisation) {
  for (const { id } of await api(organisation, "admin", "GET", "/api/tasks")) {
    await api(organisation, "admin", "DELETE", `/api/tasks/${id}`);
  }
}
