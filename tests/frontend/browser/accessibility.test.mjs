// Every page fits in the window and has no serious accessibility problem.

import assert from "node:assert/strict";
import { test } from "node:test";
import {
  APPEARANCES,
  APP_URL,
  TENANTS,
  addTask,
  addTitle,
  deleteAllTasks,
  enter,
  expectAccessibleLayout,
  expectStatusAfter,
  expectVisible,
  heading,
  open,
  screenshot,
  unique,
} from "./support.mjs";

const CONSENT_RESULTS = {
  approved: `admin_consent=True&tenant=${TENANTS.northwind}`,
  declined: "error=access_denied&error_description=AADSTS65004",
};

for (const { colorScheme, viewport } of APPEARANCES) {
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
    await expectVisible(page.getByRole("alert").getByText("Enter a title."));
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
    await screenshot(notAllowed, `not-allowed-${name}`);
    for (const [page, query] of Object.entries(CONSENT_RESULTS)) {
      await notAllowed.goto(`${APP_URL}/?${query}`);
      await expectVisible(heading(notAllowed, /approved/));
      await expectAccessibleLayout(notAllowed, page);
      await screenshot(notAllowed, `${page}-${name}`);
    }
  });
}
