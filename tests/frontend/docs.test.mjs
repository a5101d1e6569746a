// The API's own page, /docs, in a browser against a running sandbox: signing in there and sending a request.

import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import path from "node:path";
import { after, before, test } from "node:test";
import { API_URL, ENTRA_URL, PATIENCE_MS, Stage } from "./stage.mjs";

const stage = new Stage();
let browser;

before(async () => {
  browser = await stage.browser();
});
after(() => stage.close());

test("someone signs in on /docs and asks who they are", async () => {
  const context = await browser.newContext({ viewport: { width: 1280, height: 1000 } });
  context.setDefaultTimeout(PATIENCE_MS);
  const asked = new Set();
  // Of the context: the popup's requests count too, and those that fail.
  context.on("request", (request) => asked.add(new URL(request.url())));
  const page = await context.newPage();
  await page.goto(`${API_URL}/docs`);

  await page.locator(".auth-wrapper .btn.authorize").click();
  const dialog = page.locator(".dialog-ux");
  const scheme = dialog.locator(".auth-container").filter({ hasText: "authorizationCode" });
  for (const scope of await scheme.getByRole("checkbox").all()) {
    // Swagger UI hides the box and shows its label.
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
  const answer = operation.locator(".live-responses-table .response").first();
  await answer.getByText("Ada Admin").first().waitFor();
  assert.match(await answer.locator(".response-col_status").innerText(), /^200\b/);

  if (process.env.SCREENSHOTS) {
    mkdirSync(process.env.SCREENSHOTS, { recursive: true });
    // The command to copy has the token in it.
    await page.addStyleTag({ content: ".curl-command { display: none }" });
    const clip = { x: 0, y: 280, width: 1280, height: 900 };
    await page.screenshot({ path: path.join(process.env.SCREENSHOTS, "docs.png"), fullPage: true, clip });
  }
  const here = [API_URL, ENTRA_URL].map((url) => new URL(url).host);
  const elsewhere = [...asked].filter(({ protocol, host }) => /^(https?|wss?):$/.test(protocol) && !here.includes(host));
  assert.deepEqual(elsewhere.map(String), []);
  await context.close();
});
