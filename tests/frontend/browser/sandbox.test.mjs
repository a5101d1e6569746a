// "npm run sandbox" itself. The other tests use the app, the API and the local Entra that it has started.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import path from "node:path";
import { test } from "node:test";
import { promisify } from "node:util";
import { TIMEOUT_MS } from "./support.mjs";

const run = promisify(execFile);
const FOLDER = path.dirname(import.meta.dirname);

test("an occupied port of the app is reported at once", async () => {
  // The running sandbox occupies it.
  const started = run("node", ["sandbox.mjs"], { cwd: FOLDER, timeout: TIMEOUT_MS });
  const { code, stderr } = await started.catch((error) => error);
  assert.equal(code, 1);
  assert.equal(stderr, "sandbox: port 3000 is in use: stop the program that uses it, and try again\n");
});
