// Several tabs and several users at once.

import assert from "node:assert/strict";
import { test } from "node:test";
import {
  addTask,
  api,
  enter,
  expectGone,
  expectVisible,
  heading,
  newContext,
  open,
  respondWith,
  signIn,
  status,
  taskOf,
  unique,
} from "./support.mjs";

test("a task deleted elsewhere disappears when it is changed", async () => {
  const page = await signIn("Edgar Editor", "contoso");
  const titles = [unique("Completed too late"), unique("Renamed too late")];
  for (const title of titles) {
    await addTask(page, title);
  }
  for (const { id, title } of await api("contoso", "admin", "GET", "/api/tasks")) {
    if (titles.includes(title)) {
      await api("contoso", "admin", "DELETE", `/api/tasks/${id}`);
    }
  }
  await taskOf(page, titles[0]).getByRole("checkbox").click();
  await expectVisible(page.getByRole("alert").getByText(`“${titles[0]}” no longer exists.`));
  await expectGone(taskOf(page, titles[0]));
  await page.getByRole("button", { name: `Rename ${titles[1]}` }).click();
  await page.getByLabel("New title").fill("Another title");
  await page.keyboard.press("Enter");
  await expectVisible(page.getByRole("alert").getByText(`“${titles[1]}” no longer exists.`));
  await expectGone(taskOf(page, titles[1]));
});

test("the list is loaded again when the page becomes visible", async () => {
  const page = await signIn("Edgar Editor", "contoso");
  const [mine, other] = [unique("Added here"), unique("Added elsewhere")];
  await addTask(page, mine);
  await page.getByLabel("New task").fill("Half a sent");
  await api("contoso", "editor", "POST", "/api/tasks", { title: other });
  await becomeVisible(page);
  await expectVisible(taskOf(page, other));
  await expectVisible(taskOf(page, mine));
  assert.equal(await page.getByLabel("New task").inputValue(), "Half a sent");
});

test("an outage while the page becomes visible keeps the list", async () => {
  const page = await signIn("Edgar Editor", "contoso");
  const title = unique("Still shown");
  await addTask(page, title);
  await respondWith(page, 503, { detail: "Not now" });
  const response = page.waitForResponse((response) => response.status() === 503);
  await becomeVisible(page);
  await response;
  await expectVisible(taskOf(page, title));
  assert.equal(await page.getByText("cannot respond").count(), 0);
});

test("sign-out reaches the other tabs of the account", async () => {
  const context = await newContext();
  const [first, second, ofAda] = [await open({ context }), await open({ context }), await open({ context })];
  for (const [page, user] of [
    [first, "Edgar Editor"],
    [second, "Edgar Editor"],
    [ofAda, "Ada Admin"],
  ]) {
    await enter(page, user, "contoso");
    await expectVisible(heading(page, "Dashboard"));
  }
  await first.getByRole("button", { name: "Sign out" }).click();
  await expectVisible(second.getByRole("alert").getByText("You signed out in another tab."));
  await expectVisible(second.getByRole("button", { name: "Sign in with Microsoft" }));
  await second.reload();
  await expectVisible(second.getByRole("button", { name: "Sign in with Microsoft" }));
  await expectVisible(heading(ofAda, "Dashboard"));
});

function becomeVisible(page) {
  return page.evaluate(() => document.dispatchEvent(new Event("visibilitychange")));
}
