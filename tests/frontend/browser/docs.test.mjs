// Browser test of the API's /docs page, against a running sandbox.

import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { API_URL, ENTRA_URL, newContext } from "./support.mjs";

test("/docs can sign in and send a request to /api/me", async () => {
  const context = await newContext({ viewport: { width: 1280, height: 1000 } });
  const requested = new Set();
  // On the context, to include requests of the popup and requests that fail.
  context.on("request", (request) => requested.add(new URL(request.url())));
  const page = await context.newPage();
  await page.goto(`${API_URL}/docs`);

  await page.locator(".auth-wrapper .btn.authorize").click();
  const dialog = page.locator(".dialog-ux");
  const scheme = dialog.locator(".auth-container").filter({ hasText: "authorizationCode" });
  for (const scope of await scheme.getByRole("checkbox").all()) {
    // Swagger UI hides the checkbox and shows its label instead.
    await scope.check({ force: true });
  }
  const [popup] = await Promise.all([page.waitForEvent("popup"), scheme.locator(".btn.authorize").click()]);
  await popup.getByRole("button", { name: "Ada Admin (contoso)" }).click();
  await scheme.getByRole("button", { name: "Logout" }).or(scheme.getByLabel("Remove authorization")).first().waitFor();
  await scheme.locator(".btn-done").click();

  const operation = page.locator(".opblock-get").filter({ has: page.locator('[data-path="/api/me"]') });
  await operation.locator(".opblock-summary").click();
  await operation.getByRole("button", { name: "Try it out" }).click();
  await operation.getByRole("button", { name: "Execute" }).click();
  const response = operation.locator(".live-responses-table .response").first();
  await response.getByText("Ada Admin").first().waitFor();
  assert.match(await response.locator(".response-col_status").innerText(), /^200\b/);

  if (process.env.SCREENSHOTS) {
    mkdirSync(process.env.SCREENSHOTS, { recursive: true });
    // The curl command contains the token.
    await page.addStyleTag({ content: ".curl-command { display: none }" });
    const clip = { x: 0, y: 280, width: 1280, height: 900 };
    await page.screenshot({ path: path.join(process.env.SCREENSHOTS, "docs.png"), fullPage: true, clip });
  }
  const allowedHosts = [API_URL, ENTRA_URL].map((url) => new URL(url).host);
  const isExternal = ({ protocol, host }) => /^(https?|wss?):$/.test(protocol) && !allowedHosts.includes(host);
  const external = [...requested].filter(isExternal);
  assert.deepEqual(external.map(String), []);
});
