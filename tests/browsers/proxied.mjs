// The JavaScript client in Chromium behind a real nginx that takes the upgrade out of every request, as old proxies and some
// filters of companies do: an event stream takes over, and where those are refused, too, long polls.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { connect, createServer as createPlainServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { POLL, launch, startSite } from "./page_kit.mjs";
import { publish, runSteps, startServer, within } from "./server.mjs";

const NGINX = process.env.NGINX_BIN ?? "/usr/sbin/nginx";
const folder = mkdtempSync(join(tmpdir(), "fantail-proxied-"));
const CONFIG = join(folder, "fantail.toml");
writeFileSync(CONFIG, "[[topic]]\npattern = \"kept/*\"\nhistory_messages = 100\n");
const server = await startServer({ env: { FANTAIL_ORIGIN_ALLOWED: "http://127.0.0.1:*" }, more: ["--config", CONFIG] });
const site = await startSite();
const browser = await launch();
const proxies = [];

/** nginx in front of the server, without the upgrade, with these locations. */
async function proxy(name, locations) {
  assert.ok(existsSync(NGINX), `${NGINX} is missing: install nginx, or set NGINX_BIN`);
  const home = mkdtempSync(join(folder, name));
  const listen = join(home, "listen.sock");
  writeFileSync(join(home, "nginx.conf"), `
    daemon off; master_process off; pid ${home}/pid; error_log ${home}/error.log;
    events { worker_connections 256; }
    http {
      access_log off;
      client_body_temp_path ${home}/body; proxy_temp_path ${home}/proxy; fastcgi_temp_path ${home}/fastcgi;
      uwsgi_temp_path ${home}/uwsgi; scgi_temp_path ${home}/scgi;
      proxy_http_version 1.1; proxy_set_header Host $http_host; proxy_set_header Connection ""; proxy_set_header Upgrade "";
      proxy_read_timeout 90s;
      server { listen unix:${listen}; ${locations.replaceAll("FANTAIL", `http://${server.listen}`)} }
    }`);
  const child = spawn(NGINX, ["-p", home, "-c", join(home, "nginx.conf"), "-e", join(home, "error.log")], { stdio: ["ignore", "ignore", "ignore"] });
  const gone = new Promise((resolve) => { child.once("exit", resolve); });
  // nginx takes no port that the kernel chooses, so that one of ours stands in front of its socket.
  const sockets = new Set();
  const front = createPlainServer((socket) => {
    const behind = connect(listen);
    for (const [one, other] of [[socket, behind], [behind, socket]]) {
      sockets.add(one);
      one.on("error", () => other.destroy()).on("close", () => { sockets.delete(one); other.destroy(); });
      one.pipe(other);
    }
  });
  await new Promise((resolve) => { front.listen(0, "127.0.0.1", resolve); });
  const end = async () => {
    child.kill();
    sockets.forEach((each) => each.destroy());
    front.close();
    await gone;
  };
  proxies.push(end);
  const start = performance.now();
  while (!existsSync(listen)) {
    assert.ok(child.exitCode === null && performance.now() - start < 60_000, `nginx is not there: ${existsSync(join(home, "error.log")) ? readFileSync(join(home, "error.log"), "utf8") : ""}`);
    await new Promise((resolve) => { setTimeout(resolve, 20); });
  }
  return `http://127.0.0.1:${front.address().port}`;
}

/** A page with a client of this address. */
async function page(at) {
  const context = await browser.newContext();
  context.setDefaultTimeout(60_000);
  const made = await context.newPage();
  await made.goto(`http://127.0.0.1:${site.address().port}/`);
  await made.evaluate(async (address) => {
    const { connect: open } = await import("/fantail.js");
    window.come = [];
    window.client = open(address);
    window.client.subscribe("kept/a", {
      onMessage: ({ data, offset }) => window.come.push([offset, data]),
      onGap: ({ kind }) => window.come.push(kind),
      onSubscribed: () => { window.isOn = true; },
    });
  }, at);
  await made.waitForFunction(() => window.isOn, undefined, POLL);
  return made;
}

let published = 0;
async function comes(there, transport) {
  assert.equal(await there.evaluate(() => window.client.transport), transport);
  const expected = [];
  for (let i = 0; i < 20; i += 1) expected.push([(await publish(server, "kept/a", `message ${published += 1}`)).offset, `message ${published}`]);
  await there.waitForFunction((count) => window.come.length >= count, expected.length, POLL);
  assert.deepEqual(await there.evaluate(() => window.come.splice(0)), expected);
  assert.equal(await there.evaluate(() => window.client.publish("kept/a", "x").catch(({ code }) => code)), "not_possible");
}

const steps = [
  ["without the upgrade an event stream takes over, with all that is published", async () => {
    const at = await proxy("upgrade", "location / { proxy_pass FANTAIL; }");
    // The upgrade is gone indeed.
    const asked = await fetch(`${at}/ws`, { headers: { Connection: "close" } });
    assert.equal(asked.status, 426);
    const there = await page(at);
    await comes(there, "sse");
    await there.context().close();
  }],
  ["where streams are cut off, too, long polls do", async () => {
    const at = await proxy("streams", "location / { proxy_pass FANTAIL; } location /sse/ { return 403; }");
    const there = await page(at);
    await comes(there, "poll");
    await there.context().close();
  }],
];

await runSteps("behind a proxy without upgrade", steps, async () => {
  await browser.close();
  site.closeAllConnections();
  site.close();
  await Promise.all(proxies.map((end) => within(15_000, "the end of nginx", end())));
  await server.stop();
  rmSync(folder, { recursive: true });
});
