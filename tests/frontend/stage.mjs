// What the browser tests need around them: a browser, the app, and Entra's own name leading to the stand-in.

import { execFileSync } from "node:child_process";
import { X509Certificate, createHash } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import http from "node:http";
import https from "node:https";
import { tmpdir } from "node:os";
import path from "node:path";
import { chromium } from "playwright-core";
import { build, preview } from "vite";

export const API_URL = required("API_URL");
export const ENTRA_URL = required("ENTRA_URL");
export const APP_URL = "http://localhost:3000";

const ENTRA_HOST = "login.microsoftonline.com";

/** Every wait of a test ends after this, whatever it waits for. */
export const PATIENCE_MS = 10_000;

function required(name) {
  const value = process.env[name];
  if (!value) {
    throw new Error(`${name} must be set: where the sandbox's API is, and where its stand-in for Entra`);
  }
  return value.replace(/\/+$/, "");
}

/** Starts what a test asks for and closes all of it, the last first. */
export class Stage {
  #closing = [];

  onClose(close) {
    this.#closing.push(close);
  }

  async close() {
    for (const close of this.#closing.reverse()) {
      await close();
    }
    this.#closing = [];
  }

  /** A directory that is gone after the tests. */
  directory() {
    const directory = mkdtempSync(path.join(tmpdir(), "tenant-tasks-"));
    this.onClose(() => rmSync(directory, { recursive: true, force: true }));
    return directory;
  }

  /** Builds the app with the sandbox's registrations and serves it where Entra would send people back to. */
  async app() {
    Object.assign(process.env, {
      VITE_SPA_CLIENT_ID: "b0b0b0b0-0000-4000-8000-00000000b0b0",
      VITE_API_CLIENT_ID: "a0a0a0a0-0000-4000-8000-00000000a0a0",
      VITE_API_URL: API_URL,
    });
    // Not into dist: these settings are not to be shipped.
    const settings = { root: import.meta.dirname, logLevel: "warn", build: { outDir: this.directory() } };
    await build(settings);
    const server = await preview(settings);
    this.onClose(() => server.close());
  }

  /** Entra's name over TLS, answered by the stand-in. Resolves to its port and the key Chromium is to trust. */
  async entra() {
    const directory = this.directory();
    const [key, cert] = ["key.pem", "cert.pem"].map((name) => path.join(directory, name));
    execFileSync(
      "openssl",
      ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1"].concat([
        ...["-subj", `/CN=${ENTRA_HOST}`, "-addext", `subjectAltName=DNS:${ENTRA_HOST}`],
        ...["-keyout", key, "-out", cert],
      ]),
      { stdio: "pipe", timeout: PATIENCE_MS },
    );
    const server = https.createServer({ key: readFileSync(key), cert: readFileSync(cert) }, forward);
    await new Promise((resolve, reject) => server.once("error", reject).listen(0, "127.0.0.1", resolve));
    this.onClose(() => {
      server.closeAllConnections();
      return new Promise((resolve) => server.close(resolve));
    });
    const { publicKey } = new X509Certificate(readFileSync(cert));
    const trusted = createHash("sha256").update(publicKey.export({ type: "spki", format: "der" })).digest("base64");
    return { port: server.address().port, trusted };
  }

  /** A Chromium that resolves no name but this machine's, and Entra's to the stand-in if that is there. */
  async browser(entra) {
    const rules = entra ? [`MAP ${ENTRA_HOST}:443 127.0.0.1:${entra.port}`] : [];
    const hosts = [API_URL, ENTRA_URL, APP_URL].map((url) => new URL(url).hostname);
    const browser = await chromium.launch({
      executablePath: process.env.CHROMIUM || "/usr/bin/chromium",
      headless: true,
      timeout: 3 * PATIENCE_MS,
      args: [
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        `--host-resolver-rules=${[...rules, "MAP * ~NOTFOUND", ...hosts.map((host) => `EXCLUDE ${host}`)].join(", ")}`,
        // Only this certificate, so that any other one still fails.
        ...(entra ? [`--ignore-certificate-errors-spki-list=${entra.trusted}`] : []),
      ],
    });
    this.onClose(() => browser.close());
    return browser;
  }
}

function forward(request, response) {
  const target = new URL(request.url, ENTRA_URL);
  const headers = { ...request.headers, host: target.host };
  const onward = http.request(target, { method: request.method, headers }, (answer) => {
    response.writeHead(answer.statusCode, answer.headers);
    answer.pipe(response);
  });
  onward.on("error", () => (response.headersSent ? response.destroy() : response.writeHead(502).end()));
  request.pipe(onward);
}
