// The environment of the browser tests: the built app, a browser, and the mock Entra under Entra's host name.

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

/** Timeout of every wait in a test. */
export const TIMEOUT_MS = 10_000;

function required(name) {
  const value = process.env[name];
  if (!value) {
    throw new Error(`${name} is not set: set API_URL and ENTRA_URL to the URLs of the sandbox's API and mock Entra`);
  }
  return value.replace(/\/+$/, "");
}

/** Starts what the tests need and closes it in reverse order. */
export class Environment {
  #closers = [];

  onClose(close) {
    this.#closers.push(close);
  }

  async close() {
    for (const close of this.#closers.reverse()) {
      await close();
    }
    this.#closers = [];
  }

  /** A temporary directory. `close` deletes it. */
  tempDirectory() {
    const directory = mkdtempSync(path.join(tmpdir(), "tenant-tasks-"));
    this.onClose(() => rmSync(directory, { recursive: true, force: true }));
    return directory;
  }

  /** Builds the app with the sandbox's client IDs and serves it at the redirect URI. */
  async startApp() {
    Object.assign(process.env, {
      VITE_SPA_CLIENT_ID: "b0b0b0b0-0000-4000-8000-00000000b0b0",
      VITE_API_CLIENT_ID: "a0a0a0a0-0000-4000-8000-00000000a0a0",
      VITE_API_URL: API_URL,
    });
    // Not in dist, so that a build with test settings cannot be deployed by mistake.
    const settings = { root: import.meta.dirname, logLevel: "warn", build: { outDir: this.tempDirectory() } };
    await build(settings);
    const server = await preview(settings);
    this.onClose(() => server.close());
  }

  /**
   * Serves the mock Entra over TLS with a certificate for Entra's host name. Returns the port, and the hash of the
   * public key for Chromium to trust.
   */
  async startEntra() {
    const directory = this.tempDirectory();
    const [key, cert] = ["key.pem", "cert.pem"].map((name) => path.join(directory, name));
    execFileSync(
      "openssl",
      ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1"].concat([
        ...["-subj", `/CN=${ENTRA_HOST}`, "-addext", `subjectAltName=DNS:${ENTRA_HOST}`],
        ...["-keyout", key, "-out", cert],
      ]),
      { stdio: "pipe", timeout: TIMEOUT_MS },
    );
    const server = https.createServer({ key: readFileSync(key), cert: readFileSync(cert) }, proxy);
    await new Promise((resolve, reject) => server.once("error", reject).listen(0, "127.0.0.1", resolve));
    this.onClose(() => {
      server.closeAllConnections();
      return new Promise((resolve) => server.close(resolve));
    });
    const { publicKey } = new X509Certificate(readFileSync(cert));
    const trustedKey = createHash("sha256").update(publicKey.export({ type: "spki", format: "der" })).digest("base64");
    return { port: server.address().port, trustedKey };
  }

  /** Starts a Chromium that only resolves local host names and, if `entra` is given, Entra's host name to it. */
  async startBrowser(entra) {
    const rules = entra ? [`MAP ${ENTRA_HOST}:443 127.0.0.1:${entra.port}`] : [];
    const hosts = [API_URL, ENTRA_URL, APP_URL].map((url) => new URL(url).hostname);
    const browser = await chromium.launch({
      executablePath: process.env.CHROMIUM || "/usr/bin/chromium",
      headless: true,
      timeout: 3 * TIMEOUT_MS,
      args: [
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        `--host-resolver-rules=${[...rules, "MAP * ~NOTFOUND", ...hosts.map((host) => `EXCLUDE ${host}`)].join(", ")}`,
        // Accept this certificate only. Chromium still rejects every other invalid certificate.
        ...(entra ? [`--ignore-certificate-errors-spki-list=${entra.trustedKey}`] : []),
      ],
    });
    this.onClose(() => browser.close());
    return browser;
  }
}

function proxy(request, response) {
  const target = new URL(request.url, ENTRA_URL);
  const headers = { ...request.headers, host: target.host };
  const upstream = http.request(target, { method: request.method, headers }, (reply) => {
    response.writeHead(reply.statusCode, reply.headers);
    reply.pipe(response);
  });
  upstream.on("error", () => (response.headersSent ? response.destroy() : response.writeHead(502).end()));
  request.pipe(upstream);
}
