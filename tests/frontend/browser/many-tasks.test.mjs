// Lists that are longer than a page.

import assert from "node:assert/strict";
import { after, test } from "node:test";
import {
  API_URL,
  WIDE,
  addTask,
  addTitle,
  api,
  deleteAllTasks,
  enter,
  expectAccessibleLayout,
  expectGone,
  expectVisible,
  open,
  screenshots,
  signIn,
  status,
  taskOf,
  unique,
} from "./support.mjs";

const titles = Array.from({ length: 103 }, (_, number) => unique(`Number ${number}`));

after(() => deleteAllTasks("fabrikam"));

test("a long list is shown in parts", async () => {
  const page = await signInToLongList("Ada Admin");
  const items = page.getByRole("list", { name: "All Tasks in My Organization" }).getByRole("listitem");
  await expectVisible(page.getByText("100 of 103 tasks"));
  assert.equal(await items.count(), 100);
  assert.equal(await items.first().evaluate((item) => getComputedStyle(item).contentVisibility), "auto");
  await page.getByRole("button", { name: "Show more" }).click();
  await expectVisible(taskOf(page, titles.at(-1)));
  await expectVisible(page.getByText("103 tasks", { exact: true }));
  await expectGone(page.getByRole("button", { name: "Show more" }));
});

test("pages after the first ones are loaded on request", async () => {
  await createTasks();
  const page = await open();
  // Pages of ten tasks.
  await page.route(`${API_URL}/api/tasks?*`, (route) =>
    route.continue({ url: route.request().url().replace(/limit=\d+/, "limit=10") }),
  );
  await enter(page, "Ada Admin", "fabrikam");
  await expectVisible(page.getByText("60 of more than 60 tasks"));
  await page.getByLabel("Filter by title").fill(titles[100]);
  await expectVisible(page.getByText("0 of the first 60 tasks"));
  await page.getByRole("button", { name: "Show all" }).click();
  await expectVisible(page.getByText("1 of 103 tasks"));
  await expectVisible(taskOf(page, titles[100]));
});

test("a new task appears in sight", async () => {
  const page = await signInToLongList("Edgar Editor");
  await expectVisible(page.getByText("100 of 103 tasks"));
  const [first, second] = [unique("New in a long list"), unique("Newer in a long list")];
  for (const title of [first, second]) {
    await addTitle(page, title);
    await expectVisible(taskOf(page, title));
    const { y, height } = await taskOf(page, title).boundingBox();
    assert.ok(y >= 0 && y + height <= WIDE.height, `at ${y}px`);
  }
  const shown = await page.getByRole("listitem").allInnerTexts();
  assert.deepEqual([shown[0].includes(second), shown[1].includes(first)], [true, true]);
  await screenshots(page, "many-tasks", {});
});

test("loaded tasks can be filtered by title, state and owner", async () => {
  const page = await signInToLongList("Ada Admin");
  const mine = unique("Sonderfall");
  await addTask(page, mine);
  const count = page.locator(".count");
  await page.getByLabel("Mine").check();
  await expectVisible(count.getByText(/^1 of 10\d tasks$/));
  await expectVisible(taskOf(page, mine));
  await page.getByLabel("Mine").uncheck();

  await page.getByLabel("Filter by title").fill(titles[7].toUpperCase());
  await expectVisible(count.getByText(/^1 of 10\d tasks$/));
  await expectGone(taskOf(page, mine));
  await expectVisible(taskOf(page, titles[7]));
  await page.getByLabel("Filter by state").selectOption("Open");
  await taskOf(page, titles[7]).getByRole("checkbox").check();
  await expectVisible(status(page, "Task completed"));
  // It stays in sight until the filter changes.
  await expectVisible(taskOf(page, titles[7]));
  await page.getByLabel("Filter by state").selectOption("Done");
  await expectVisible(taskOf(page, titles[7]));
  await expectAccessibleLayout(page, "filter");
  await page.getByLabel("Filter by state").selectOption("Open");
  await expectVisible(count.getByText(/^0 of 10\d tasks$/));
  await expectGone(taskOf(page, titles[7]));
});

async function signInToLongList(user) {
  await createTasks();
  return signIn(user, "fabrikam");
}

let created;
/** Not a `before` hook: Node may run it while the hook of support.mjs deletes the tasks of earlier runs. */
function createTasks() {
  created ??= (async () => {
    for (const title of titles) {
      await api("fabrikam", "editor", "POST", "/api/tasks", { title });
    }
  })();
  return created;
}
