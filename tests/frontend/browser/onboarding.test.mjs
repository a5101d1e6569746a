// The pages of an organization that does not have access yet: consent, and not allowed.

import assert from "node:assert/strict";
import { test } from "node:test";
import { API_URL, APP_URL, TENANTS, api, enter, expectVisible, heading, newContext, open, signIn } from "./support.mjs";

test("the page after consent shows the tenant ID and the next steps", async () => {
  const page = await openAddress(`/?admin_consent=True&tenant=${TENANTS.northwind.toUpperCase()}`);
  await expectVisible(heading(page, "The app is approved for your organization"));
  await expectVisible(page.getByText(TENANTS.northwind, { exact: true }));
  await page.getByRole("button", { name: "Copy tenant ID" }).click();
  await expectVisible(page.getByText("Copied"));
  assert.equal(await page.evaluate(() => navigator.clipboard.readText()), TENANTS.northwind);
  const mail = await page.getByRole("link", { name: "Send the tenant ID" }).getAttribute("href");
  assert.match(mail, new RegExp(`^mailto:.*${TENANTS.northwind}`));
  const applications = await page.getByRole("link", { name: "Enterprise applications" }).getAttribute("href");
  assert.match(applications, /^https:\/\/entra\.microsoft\.com\//);

  assert.equal(page.url(), `${APP_URL}/`);
  await page.getByRole("link", { name: "Open the app" }).click();
  await expectVisible(page.getByRole("button", { name: "Sign in with Microsoft" }));
});

test("the page after consent sends nothing to the service", async () => {
  const page = await (await newContext()).newPage();
  const requests = [];
  page.on("request", (request) => requests.push(new URL(request.url()).origin));
  await page.goto(`${APP_URL}/?admin_consent=True&tenant=${TENANTS.northwind}`);
  await expectVisible(heading(page, "The app is approved for your organization"));
  assert.deepEqual([...new Set(requests)].filter((origin) => origin.startsWith("http")), [APP_URL]);
});

test("no text from the address is shown", async () => {
  const approved = await openAddress("/?admin_consent=True&tenant=call-us-at-555");
  await expectVisible(heading(approved, "The app is approved for your organization"));
  const declined = await openAddress("/?error=other&error_description=AADSTS7000218:+Call+us+at+555");
  await expectVisible(heading(declined, "The app was not approved"));
  await expectVisible(declined.getByRole("link", { name: "AADSTS7000218" }));
  for (const page of [approved, declined]) {
    assert.equal(await page.getByText("555").count(), 0);
    assert.equal(await page.getByRole("button", { name: "Copy tenant ID" }).count(), 0);
  }
});

for (const [name, query, reason] of [
  ["declined", "error=access_denied&error_description=AADSTS65004:+User+declined", "The approval was declined."],
  ["canceled", "error=access_denied&error_subcode=cancel", "The approval was declined or canceled."],
  ["interrupted", "error=server_error&error_description=AADSTS90033:+Transient", "temporarily unavailable."],
  ["contradictory", "admin_consent=True&error=consent_required&error_description=AADSTS65004", "was declined."],
  ["unconfirmed", "admin_consent=False", "Microsoft did not confirm the approval."],
]) {
  test(`a consent that was ${name} is explained`, async () => {
    const page = await openAddress(`/?${query}`);
    await expectVisible(heading(page, "The app was not approved"));
    await expectVisible(page.getByText(reason));
    assert.equal(page.url(), `${APP_URL}/`);
    const again = new URL(await page.getByRole("link", { name: "Ask again for approval" }).getAttribute("href"));
    assert.equal(again.pathname, "/organizations/adminconsent");
    assert.equal(again.searchParams.get("redirect_uri"), APP_URL);
  });
}

test("the not-allowed page shows the account, the tenant ID and what to do", async () => {
  const page = await open({ permissions: ["clipboard-read", "clipboard-write"] });
  await enter(page, "Ada Admin", "northwind");
  await expectVisible(heading(page, "Your organization does not have access yet"));
  await expectVisible(page.getByText("Signed in as Ada Admin (admin@northwind.example)."));
  await page.getByRole("button", { name: "Copy tenant ID" }).click();
  await expectVisible(page.getByText("Copied"));
  assert.equal(await page.evaluate(() => navigator.clipboard.readText()), TENANTS.northwind);
  const consent = new URL(await page.getByRole("link", { name: "approve the app" }).getAttribute("href"));
  assert.equal(consent.pathname, `/${TENANTS.northwind}/adminconsent`);

  // The operator allows the organization.
  const me = { id: "1", name: "Ada", email: "", tenant_id: TENANTS.northwind, roles: ["Admin"], scopes: "" };
  await page.route(`${API_URL}/api/**`, (route) =>
    route.fulfill({
      headers: { "Access-Control-Allow-Origin": APP_URL, "Access-Control-Allow-Headers": "authorization" },
      json: route.request().url().endsWith("/me") ? me : [],
    }),
  );
  await page.getByRole("button", { name: "Try again" }).click();
  await expectVisible(heading(page, "Dashboard"));
});

test("the not-allowed page leads to another account", async () => {
  const page = await signIn("Ada Admin", "northwind", "Your organization does not have access yet");
  const request = page.waitForRequest("**/oauth2/v2.0/authorize?*");
  await page.getByRole("button", { name: "Use another account" }).click();
  assert.equal(new URL((await request).url()).searchParams.get("prompt"), "select_account");
  await page.getByRole("button", { name: "Edgar Editor (contoso)" }).click();
  await expectVisible(heading(page, "Dashboard"));
  await expectVisible(page.getByText("editor@contoso.example"));
});

async function openAddress(address) {
  const context = await newContext({ permissions: ["clipboard-read", "clipboard-write"] });
  const page = await context.newPage();
  await page.goto(APP_URL + address);
  return page;
}
