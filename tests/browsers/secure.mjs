// Browsers over https and wss, with `tls.lean` and without: a page, a WebSocket, an event stream and a poll, and the end of the
// server; and the operator's page. Chromium believes the certificate by its key; with `--firefox` Firefox too, which is told to believe any and is driven
// by WebDriver BiDi, since Debian's is none of Playwright's.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { X509Certificate, createHash } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import WebSocket from "ws";
import { launch } from "./page_kit.mjs";
import { CERTIFICATES, publish, runSteps, startServer, untilSubscribed, within } from "./server.mjs";

const WAIT = 20_000;
const FORMS = { lean: "lean", rustls: "1" };

/** Chromium, which takes one certificate more than others do. */
async function startChromium() {
  const { publicKey } = new X509Certificate(readFileSync(join(CERTIFICATES, "server.pem")));
  const key = createHash("sha256").update(publicKey.export({ type: "spki", format: "der" })).digest("base64");
  const browser = await launch([`--ignore-certificate-errors-spki-list=${key}`]);
  const version = `Chromium ${browser.version()}`;
  return {
    version,
    async open(url) {
      const page = await browser.newPage();
      page.setDefaultTimeout(WAIT);
      await page.goto(url);
      return { run: (work, ...given) => page.evaluate(`(${work})(...${JSON.stringify(given)})`), close: () => page.close() };
    },
    close: () => browser.close(),
  };
}

/** Firefox, by WebDriver BiDi. */
async function startFirefox() {
  const profile = mkdtempSync(join(tmpdir(), "fantail-firefox-"));
  const child = spawn(process.env.FIREFOX_BIN ?? "/usr/bin/firefox-esr",
    ["--headless", "--no-remote", "--profile", profile, "--remote-debugging-port", "0"], { stdio: ["ignore", "ignore", "pipe"] });
  const gone = new Promise((resolve) => { child.once("exit", resolve); });
  const close = async () => {
    child.kill("SIGKILL");
    await within(WAIT, "Firefox's end", gone);
    rmSync(profile, { recursive: true, force: true, maxRetries: 10 });
  };
  try {
    const listening = new Promise((resolve) => {
      createInterface({ input: child.stderr }).on("line", (line) => {
        const match = /WebDriver BiDi listening on (\S+)/.exec(line);
        if (match) resolve(match[1]);
      });
    });
    const socket = new WebSocket(`${await within(60_000, "Firefox", listening)}/session`);
    await within(WAIT, "its session", new Promise((resolve, reject) => { socket.once("open", resolve); socket.once("error", reject); }));
    const asked = new Map();
    socket.on("message", (data) => {
      const { id, result, error, message } = JSON.parse(data);
      const { resolve, reject } = asked.get(id) ?? {};
      if (resolve) error ? reject(new Error(`${error}: ${message}`)) : resolve(result);
      asked.delete(id);
    });
    let last = 0;
    const ask = (method, params = {}) => {
      const id = ++last;
      socket.send(JSON.stringify({ id, method, params }));
      return within(WAIT, method, new Promise((resolve, reject) => { asked.set(id, { resolve, reject }); }));
    };
    const { capabilities } = await ask("session.new", { capabilities: { alwaysMatch: { acceptInsecureCerts: true } } });
    return {
      version: `Firefox ${capabilities.browserVersion}`,
      async open(url) {
        const { context } = await ask("browsingContext.create", { type: "tab" });
        await ask("browsingContext.navigate", { context, url, wait: "complete" });
        const run = async (work, ...given) => {
          const functionDeclaration = `async () => JSON.stringify(await (${work})(...${JSON.stringify(given)}) ?? null)`;
          const told = await ask("script.callFunction", { functionDeclaration, awaitPromise: true, target: { context } });
          assert.equal(told.type, "success", JSON.stringify(told.exceptionDetails?.text));
          return JSON.parse(told.result.value);
        };
        return { run, close: () => ask("browsingContext.close", { context }) };
      },
      close: async () => { socket.terminate(); await close(); },
    };
  } catch (error) {
    await close();
    throw error;
  }
}

/** In a page: what a WebSocket echoes, and how it ends. */
async function echo() {
  const socket = new WebSocket(`wss://${location.host}/echo`);
  socket.binaryType = "arraybuffer";
  const next = (kind) => new Promise((resolve) => { socket.addEventListener(kind, resolve, { once: true }); });
  await next("open");
  const lengths = [];
  for (const sent of ["", "hello, 世界", "x".repeat(100_000), new Uint8Array(300_000).fill(7)]) {
    const come = next("message");
    socket.send(sent);
    const { data } = await come;
    lengths.push(data.byteLength ?? data.length);
  }
  const end = next("close");
  socket.close(1000);
  const { code, wasClean } = await end;
  return { lengths, code, wasClean };
}

/** In a page: subscribes in both ways, and keeps what comes in `window`. */
async function follow(topic) {
  window.come = { socket: [], stream: [], end: null };
  const socket = new WebSocket(`wss://${location.host}/ws/${topic}`);
  socket.addEventListener("message", ({ data }) => window.come.socket.push(data));
  socket.addEventListener("close", ({ code, wasClean }) => { window.come.end = { code, wasClean }; });
  const stream = new EventSource(`/sse/${topic}`);
  stream.addEventListener("message", ({ data }) => window.come.stream.push(data));
  await new Promise((resolve) => { stream.addEventListener("open", resolve, { once: true }); });
}

/** In a page: what came once `kind` has `last`, or once the server has ended the WebSocket. */
async function come(last) {
  const start = Date.now();
  const there = () => (last === null ? window.come.end : window.come.socket.includes(last) && window.come.stream.includes(last));
  while (!there() && Date.now() - start < 15_000) await new Promise((resolve) => { setTimeout(resolve, 20); });
  return window.come;
}

const MESSAGES = ["first", "größer 🪭", "z".repeat(50_000), "last"];
const news = (all) => all.filter((each) => each !== "warm-up" && each !== "");

/** In the page of the admin port: signs in, and publishes as a page of this origin may. */
async function signIn(key) {
  const start = Date.now();
  const until = async (there) => { while (!there() && Date.now() - start < 15_000) await new Promise((resolve) => { setTimeout(resolve, 20); }); };
  const isShown = (id) => document.getElementById(id)?.getClientRects().length > 0;
  await until(() => isShown("login"));
  document.getElementById("login-key").value = key;
  document.getElementById("login-send").click();
  await until(() => isShown("view-overview"));
  const published = await fetch("/publish/lobby", { method: "POST", body: "x", headers: { Authorization: `Bearer ${key}` } });
  return { overview: isShown("view-overview"), published: published.status };
}

const KEY = "admin-0123456789abcdef";

function operatorStep(browser) {
  return [`${browser.version}: the operator's page over https`, async () => {
    const [FANTAIL_ADMIN_TLS_CERTIFICATE, FANTAIL_ADMIN_TLS_KEY] = ["server.pem", "server.key"].map((name) => join(CERTIFICATES, name));
    const env = { FANTAIL_ADMIN_TLS_CERTIFICATE, FANTAIL_ADMIN_TLS_KEY, FANTAIL_ADMIN_KEYS: `admin:${KEY}` };
    const server = await startServer({ tls: false, env });
    try {
      const page = await browser.open(`https://${server.admin}/`);
      assert.deepEqual(await page.run(signIn, KEY), { overview: true, published: 200 });
      await page.close();
    } finally {
      server.kill();
    }
  }];
}

function steps(browser) {
  return [...clientSteps(browser), operatorStep(browser)];
}

function clientSteps(browser) {
  return Object.entries(FORMS).map(([form, tls]) => [`${browser.version}, ${form}: echoes, messages both ways, a poll, a drain`, async () => {
    const server = await startServer({ tls, env: { FANTAIL_DRAIN_SECONDS: "0" } });
    try {
      const page = await browser.open(`https://${server.listen}/`);
      assert.deepEqual(await page.run(echo), { lengths: [0, 9, 100_000, 300_000], code: 1000, wasClean: true });
      await page.run(follow, "news");
      await untilSubscribed(server, "news", 2);
      for (const message of MESSAGES) await publish(server, "news", message);
      const { socket, stream } = await page.run(come, "last");
      assert.deepEqual([news(socket), news(stream)], [MESSAGES, MESSAGES]);
      assert.equal(await page.run(async () => (await fetch("/poll/news?wait=0")).status), 204);
      const stopped = server.stop();
      assert.deepEqual((await page.run(come, null)).end, { code: 1001, wasClean: true });
      assert.deepEqual(await stopped, { code: 0, signal: null });
      await page.close();
    } finally {
      server.kill();
    }
  }]);
}

const browsers = [await startChromium()];
if (process.argv.includes("--firefox")) browsers.push(await startFirefox());
await runSteps("secure", browsers.flatMap(steps), () => Promise.all(browsers.map((browser) => browser.close())));
