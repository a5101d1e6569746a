// Starts the API, a local Entra and the app on this machine, for a browser. No Azure account is needed.
//
//     npm run sandbox
//
// PORT (8000) and ENTRA_PORT (8001) are the ports of API and local Entra. The app is always at http://localhost:3000:
// this is the origin that the API accepts. If API_URL and ENTRA_URL are set, the app uses these running servers.

import { execFileSync, spawn } from "node:child_process";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { createInterface } from "node:readline";

const APP_PORT = 3000;
const FOLDER = import.meta.dirname;
const closers = [];
let stopping = false;

try {
  await run();
} catch (error) {
  console.error(`sandbox: ${error.message}`);
  await stop(1);
}

async function run() {
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) {
    process.once(signal, () => void stop(0));
  }
  const running = process.env.API_URL && process.env.ENTRA_URL;
  await checkPorts(running ? [] : ["PORT", "ENTRA_PORT"]);
  if (!existsSync(path.join(FOLDER, "node_modules/vite"))) {
    execFileSync("npm", ["ci", "--no-audit", "--no-fund"], { cwd: FOLDER, stdio: "inherit" });
  }
  const { api, entra } = running ? { api: process.env.API_URL, entra: process.env.ENTRA_URL } : await startServers();
  await startApp(api, entra);
  console.log(`API: ${api}, local Entra: ${entra}

Open http://localhost:${APP_PORT} and click "Sign in with Microsoft". Choose a user: there are no passwords.

  Ada Admin     sees, changes and deletes the tasks of her organization
  Edgar Editor  sees, creates and changes his own tasks
  Rita Reader   sees her own tasks
  Noor Norole   has no role

Each user exists in contoso, fabrikam and northwind. northwind is not allowed to use the service.
Ctrl-C stops everything. The tasks are in memory and are then lost.`);
}

/** Fails at once if a port is in use, before anything is built. */
async function checkPorts(variables) {
  const defaults = { PORT: "8000", ENTRA_PORT: "8001" };
  if (await isInUse(APP_PORT)) {
    throw new Error(`port ${APP_PORT} is in use: stop the program that uses it, and try again`);
  }
  for (const name of variables) {
    const port = Number(process.env[name] || defaults[name]);
    if (port !== 0 && (await isInUse(port))) {
      throw new Error(`port ${port} is in use: set ${name} to another port, and try again`);
    }
  }
}

async function isInUse(port) {
  const answers = ["127.0.0.1", "::1"].map(
    (host) =>
      new Promise((resolve) => {
        const socket = connect({ host, port });
        socket.once("connect", () => resolve(true)).once("error", () => resolve(false));
        socket.once("connect", () => socket.destroy());
      }),
  );
  return (await Promise.all(answers)).includes(true);
}

/** Builds and starts API and local Entra. Resolves to their URLs. */
function startServers() {
  console.log("Building API and local Entra. The first time, this takes some minutes.");
  const command = ["run", "--locked", "--example", "sandbox"];
  const servers = spawn("cargo", command, { cwd: path.join(FOLDER, "../.."), stdio: ["ignore", "pipe", "inherit"] });
  const ended = new Promise((resolve) => servers.once("close", resolve));
  closers.push(() => {
    servers.kill();
    return ended;
  });
  return new Promise((resolve, reject) => {
    servers.once("error", (error) => reject(new Error(`cannot run cargo: ${error.message}`)));
    servers.once("exit", () => {
      if (!stopping) {
        console.error("sandbox: API and local Entra have stopped");
        void stop(1);
      }
    });
    createInterface({ input: servers.stdout }).on("line", (line) => {
      const [, api, entra] = /^API: (\S+), local Entra: (\S+)$/.exec(line) ?? [];
      if (entra) {
        resolve({ api, entra });
      }
    });
  });
}

/** Builds the app for the sandbox and serves it. */
async function startApp(api, entra) {
  // MSAL rejects an authority without TLS, but accepts any endpoints in metadata that it need not fetch. So the local
  // Entra needs no certificate, and the browser shows no warning.
  const response = await fetch(`${entra}/organizations/v2.0/.well-known/openid-configuration`);
  Object.assign(process.env, {
    VITE_SPA_CLIENT_ID: "b0b0b0b0-0000-4000-8000-00000000b0b0",
    VITE_API_CLIENT_ID: "a0a0a0a0-0000-4000-8000-00000000a0a0",
    VITE_API_URL: api,
    VITE_AUTHORITY_METADATA: JSON.stringify(await response.json()),
  });
  // Not in dist, so that a build for the sandbox cannot be deployed by mistake.
  const outDir = mkdtempSync(path.join(tmpdir(), "tenant-tasks-"));
  closers.push(() => rmSync(outDir, { recursive: true, force: true }));
  const settings = { root: FOLDER, logLevel: "warn", build: { outDir, emptyOutDir: true } };
  // Not a static import, because the packages may have just been installed.
  const { build, preview } = await import("vite");
  await build(settings);
  const server = await preview(settings);
  closers.push(() => server.close());
}

async function stop(code) {
  stopping = true;
  for (const close of closers.splice(0).reverse()) {
    await close();
  }
  process.exit(code);
}
