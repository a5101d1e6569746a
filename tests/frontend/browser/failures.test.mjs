// Failed requests, and what the app says about them.

import assert from "node:assert/strict";
import { test } from "node:test";
import {
  API_URL,
  TENANTS,
  addTask,
  addTitle,
  api,
  enter,
  expectAccessibleLayout,
  expectGone,
  expectVisible,
  failSignIn,
  heading,
  open,
  respondTimes,
  respondWith,
  screenshots,
  signIn,
  status,
  taskOf,
  unique,
} from "./support.mjs";

test("an unreachable service shows a message and can be retried", async () => {
  const page = await open();
  await page.route(`${API_URL}/**`, (route) => route.abort("connectionrefused"));
  await enter(page, "Edgar Editor", "contoso");
  await expectVisible(heading(page, "The service is unavailable"));
  await screenshots(page, "unavailable");
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

for (const status of [408, 429]) {
  test(`status ${status} is repeated after the Retry-After time`, async () => {
    const page = await open();
    const requests = await respondTimes(page, 2, "GET", "/api/me", status, { "Retry-After": "1" });
    await enter(page, "Edgar Editor", "contoso");
    await expectVisible(heading(page, "Dashboard"));
    assert.equal(requests.length, 3);
    const waits = [requests[1] - requests[0], requests[2] - requests[1]];
    assert.ok(
      waits.every((milliseconds) => milliseconds >= 1000),
      `waited ${waits} ms`,
    );
  });
}

test("a lasting rate limit can be retried by the user", async () => {
  const page = await open();
  await respondWith(page, 429, { detail: "Slow down" }, { "Retry-After": "30" });
  await enter(page, "Edgar Editor", "contoso");
  await expectVisible(heading(page, "The service is busy"));
  await expectVisible(page.getByText(/^Your organization sends too many requests. Try again in 30 seconds.$/));
  await expectAccessibleLayout(page, "busy");
  await screenshots(page, "busy");
  await page.unrouteAll();
  await page.getByRole("button", { name: "Try again" }).click();
  await expectVisible(heading(page, "Dashboard"));
});

test("a rate limit while adding a task keeps the typed title", async () => {
  const page = await signIn("Edgar Editor", "contoso");
  const title = unique("Typed too fast");
  await respondWith(page, 429, { detail: "Slow down" }, { "Retry-After": "1" });
  await addTitle(page, title);
  const message = "The change was not saved. Your organization sends too many requests. Try again in one second.";
  await expectVisible(page.getByRole("alert").getByText(message));
  await page.unrouteAll();
  assert.equal(await page.getByLabel("New task").inputValue(), title);
  await page.getByRole("button", { name: "Add task" }).click();
  await expectVisible(taskOf(page, title));
});

test("sentences of the service and of the app are separated", async () => {
  const page = await signIn("Edgar Editor", "contoso");
  await respondWith(page, 409, { detail: "The list is locked" }, { "Retry-After": "3" });
  await addTitle(page, unique("Locked"));
  await expectVisible(page.getByRole("alert").getByText(/^The list is locked. Try again in 3 seconds.$/));
});

test("an invalid title is explained in the app's words", async () => {
  const page = await signIn("Edgar Editor", "contoso");
  for (const [title, message] of [
    ["", "Enter a title."],
    [" ", "Enter a title. Spaces alone are not a title."],
    ["x".repeat(501), "The title is too long. Use at most 500 characters."],
    ["a\u0007b", "The title contains characters that are not allowed."],
  ]) {
    await addTitle(page, title);
    await expectVisible(page.getByRole("alert").getByText(message, { exact: true }));
    assert.equal(await page.getByLabel("New task").inputValue(), title);
  }
});

for (const [code, message] of [
  [650052, "An administrator must approve the app again."],
  [50020, "Use a work or school account."],
  [90033, "Microsoft sign-in is temporarily unavailable."],
]) {
  test(`AADSTS${code} is explained in words`, async () => {
    const page = await open();
    const description = `AADSTS${code}: Raw text of Entra. Trace ID: 1 Correlation ID: 2`;
    await failSignIn(page, { error: "server_error", error_description: description });
    await page.getByRole("button", { name: "Sign in with Microsoft" }).click();
    await expectVisible(page.getByRole("alert").getByText(message));
    assert.equal(await page.getByText("Raw text").count(), 0);
    const approval = page.getByRole("link", { name: "approve the app" });
    assert.equal(await approval.count(), code === 650052 ? 1 : 0);
  });
}

test("what was typed survives an expired sign-in", async () => {
  const page = await open();
  let grant = "valid";
  await page.route("**/oauth2/v2.0/token*", async (route) => {
    if (grant === "expired") {
      const expired = { error: "invalid_grant", error_description: "AADSTS700084: The refresh token has expired" };
      return route.fulfill({ status: 400, headers: { "Access-Control-Allow-Origin": "*" }, json: expired });
    }
    // An access token that expires within five minutes is refreshed for every request.
    const response = await route.fetch();
    return route.fulfill({ response, json: { ...(await response.json()), expires_in: 60 } });
  });
  await enter(page, "Edgar Editor", "contoso");
  await expectVisible(heading(page, "Dashboard"));
  await expectGone(page.getByText("Loading"));
  const title = unique("Typed for an hour");
  await page.getByLabel("New task").fill(title);
  grant = "expired";
  await page.getByRole("button", { name: "Add task" }).click();
  await page.getByRole("button", { name: "Edgar Editor (contoso)" }).waitFor();
  await page.unrouteAll();
  await page.getByRole("button", { name: "Edgar Editor (contoso)" }).click();
  await expectVisible(status(page, "Your sign-in had expired, so the task was not added."));
  assert.equal(await page.getByLabel("New task").inputValue(), title);
  await screenshots(page, "restored");
  await page.getByRole("button", { name: "Add task" }).click();
  await expectVisible(taskOf(page, title));
  await page.reload();
  await expectVisible(heading(page, "Dashboard"));
  assert.equal(await page.getByLabel("New task").inputValue(), "");
});

test("an outage while adding a task keeps the typed title", async () => {
  const page = await signIn("Edgar Editor", "contoso");
  await page.route(`${API_URL}/**`, (route) => route.abort("connectionrefused"));
  const title = unique("Typed during an outage");
  await page.getByLabel("New task").fill(title);
  await page.getByRole("button", { name: "Add task" }).click();
  await expectVisible(page.getByRole("alert").getByText("it is added only once"));
  assert.equal(await page.getByLabel("New task").inputValue(), title);
  await page.unrouteAll();
  await page.getByRole("button", { name: "Add task" }).click();
  await expectVisible(taskOf(page, title));
  await expectGone(page.getByText("it is added only once"));
});

test("a task whose answer was lost is added once", async () => {
  const page = await signIn("Edgar Editor", "contoso");
  // The API adds the task, and its answers do not arrive.
  await page.route(`${API_URL}/api/tasks`, async (route) => {
    if (route.request().method() === "POST") {
      await route.fetch();
      await route.abort("connectionreset");
    } else {
      await route.continue();
    }
  });
  const title = unique("Answer lost");
  await addTitle(page, title);
  await expectVisible(page.getByRole("alert").getByText("it is added only once"));
  await page.unrouteAll();
  // The key survives a reload with the draft.
  await page.reload();
  await expectVisible(status(page, "What you typed is restored."));
  await page.getByRole("button", { name: "Add task" }).click();
  await expectVisible(taskOf(page, title).first());
  await page.reload();
  await expectVisible(taskOf(page, title).first());
  assert.equal(await taskOf(page, title).count(), 1);
});

test("a completion that fails is reverted", async () => {
  const page = await signIn("Edgar Editor", "contoso");
  const title = unique("Not done yet");
  await addTask(page, title);
  await respondWith(page, 409, { detail: "The list is locked" });
  await taskOf(page, title).getByRole("checkbox").click();
  await expectVisible(page.getByRole("alert").getByText("The list is locked."));
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
