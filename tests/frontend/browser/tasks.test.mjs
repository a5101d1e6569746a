// The task list.

import assert from "node:assert/strict";
import { test } from "node:test";
import {
  PHONE,
  TENANTS,
  WIDE,
  addTask,
  api,
  changeResponse,
  enter,
  expectAccessibleLayout,
  expectFocused,
  expectGone,
  expectStatusAfter,
  expectVisible,
  heading,
  open,
  screenshot,
  screenshots,
  signIn,
  status,
  taskOf,
  unique,
} from "./support.mjs";

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
  await screenshots(admin, "admin");
  await screenshots(editor, "editor");
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
  await expectVisible(page.getByRole("alert").getByText("The title is too long."));
  assert.equal(await field.inputValue(), long);
  assert.equal(await field.getAttribute("aria-invalid"), "true");
});

test("the organization's name and a nearly reached limit are shown", async () => {
  const page = await open();
  const name = `${"Northwind Traders ".repeat(10)}Ltd.`;
  await changeResponse(page, "GET", "/api/me", { body: { tenant_name: name } });
  await enter(page, "Edgar Editor", "contoso");
  await expectVisible(page.getByRole("banner").getByText(name));
  await expectVisible(page.getByRole("region", { name: "Account" }).getByText(name));
  await expectVisible(page.getByText(TENANTS.contoso));
  await addTask(page, unique("Far from the limit"));
  assert.equal(await page.getByText("Your organization has used").count(), 0);

  await changeResponse(page, "POST", "/api/tasks", { headers: { "Task-Quota": "used=80000, max=100000" } });
  await addTask(page, unique("Near the limit"));
  await expectVisible(status(page, "Your organization has used 80,000 of 100,000 tasks."));
  for (const viewport of [WIDE, PHONE]) {
    await page.setViewportSize(viewport);
    await expectAccessibleLayout(page, `quota at ${viewport.width}px`);
    await screenshot(page, `quota-${viewport.width}`);
  }
  await page.unrouteAll();
  await addTask(page, unique("Far from the limit again"));
  await expectGone(page.getByText("Your organization has used"));
});
