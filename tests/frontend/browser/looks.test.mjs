// What a user sees at first sight.

import assert from "node:assert/strict";
import { test } from "node:test";
import {
  API_URL,
  PHONE,
  addTask,
  api,
  enter,
  expectAccessibleLayout,
  expectVisible,
  heading,
  open,
  screenshots,
  status,
  taskOf,
  unique,
} from "./support.mjs";

test("tasks are in sight on a phone without scrolling", async () => {
  const page = await open({ viewport: PHONE });
  await enter(page, "Ada Admin", "contoso");
  await expectVisible(heading(page, "Dashboard"));
  const titles = [unique("First"), unique("Second"), unique("Third")];
  for (const title of titles) {
    await addTask(page, title);
  }
  for (const title of titles) {
    const { y, height } = await taskOf(page, title).boundingBox();
    assert.ok(y + height <= PHONE.height, `${title} ends at ${y + height}px`);
  }
});

test("an empty checkbox is visible in dark mode", async () => {
  for (const colorScheme of ["dark", "light"]) {
    const page = await open({ colorScheme });
    await enter(page, "Edgar Editor", "contoso");
    await expectVisible(heading(page, "Dashboard"));
    const title = unique("Not done yet");
    await addTask(page, title);
    const image = await taskOf(page, title).getByRole("checkbox").screenshot();
    // WCAG requires 3:1 for a control and 4.5:1 for text. Row titles are text, and the checkbox is as prominent.
    const contrast = await page.evaluate(greatestContrast, image.toString("base64"));
    assert.ok(contrast >= 4.5, `${colorScheme}: ${contrast}`);
  }
});

test("a frame is shown while the account is loading", async () => {
  const page = await open();
  let answer;
  const delay = new Promise((resolve) => (answer = resolve));
  await page.route(`${API_URL}/api/me`, async (route) => {
    await delay;
    return route.continue();
  });
  await enter(page, "Edgar Editor", "contoso");
  await expectVisible(page.getByRole("banner").getByText("Tenant Tasks"));
  await expectVisible(status(page, "Loading…"));
  await expectAccessibleLayout(page, "loading");
  await screenshots(page, "loading");
  answer();
  await expectVisible(heading(page, "Dashboard"));
});

/** Runs in the page. The contrast ratio between the lightest and the darkest pixel, by WCAG's formula. */
async function greatestContrast(png) {
  const image = new Image();
  image.src = `data:image/png;base64,${png}`;
  await image.decode();
  const canvas = new OffscreenCanvas(image.width, image.height).getContext("2d");
  canvas.drawImage(image, 0, 0);
  const { data } = canvas.getImageData(0, 0, image.width, image.height);
  const linear = (value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
  const luminances = [];
  for (let at = 0; at < data.length; at += 4) {
    const [red, green, blue] = data.slice(at, at + 3);
    luminances.push(0.2126 * linear(red / 255) + 0.7152 * linear(green / 255) + 0.0722 * linear(blue / 255));
  }
  return (Math.max(...luminances) + 0.05) / (Math.min(...luminances) + 0.05);
}
