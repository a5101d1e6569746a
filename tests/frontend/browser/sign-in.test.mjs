// Sign-in and sign-out.

import assert from "node:assert/strict";
import { test } from "node:test";
import {
  TENANTS,
  addTask,
  badges,
  enter,
  expectVisible,
  failSignIn,
  granted,
  heading,
  open,
  screenshots,
  signIn,
  unique,
} from "./support.mjs";

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
    await screenshots(page, `reader-${tenant}`);
  });
}

test("a tenant that is not allowed sees its tenant ID and the next step", async () => {
  const page = await signIn("Ada Admin", "northwind", "Your organization does not have access yet");
  await expectVisible(page.getByText("Ask the operator of the service"));
  await expectVisible(page.getByText(TENANTS.northwind));
  await page.getByRole("button", { name: "Sign out" }).click();
  await expectVisible(page.getByRole("button", { name: "Sign in with Microsoft" }));
});

test("a user without a role is asked to contact an administrator", async () => {
  const page = await signIn("Noor Norole", "contoso", "You do not have a role yet");
  await expectVisible(page.getByText("norole@contoso.example"));
  await expectVisible(page.getByText("Ask your administrator"));
  await screenshots(page, "no-role");
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
  await failSignIn(page, { error: "access_denied", error_subcode: "cancel" });
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
