// The load generator against TLS servers nobody here wrote: npm's `ws` on node's https, and Python's `websockets` on
// OpenSSL. Certificates are those of the generator's own tests.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createServer } from "node:https";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { WebSocketServer } from "ws";
import { runSteps, startServer, within } from "./server.mjs";

const ROOT = join(dirname(fileURLToPath(import.meta.url)), "..", "..");
const CERTIFICATES = join(ROOT, "loadtest/tests/tls/certificates");
const PYTHON = join(ROOT, "target/browsers-venv/bin/python");
const folder = mkdtempSync(join(tmpdir(), "fantail-tls-"));
const ends = [];

function generator() {
  if (process.env.LOADTEST_BIN) return process.env.LOADTEST_BIN;
  const found = ["release", "debug"].map((kind) => join(ROOT, "target", kind, "fantail-loadtest")).find(existsSync);
  if (!found) throw new Error("no fantail-loadtest in target/; build it or set LOADTEST_BIN");
  return found;
}

const file = (name) => join(CERTIFICATES, name);
const CA = ["--ca", file("ca.pem")];

/** Runs the generator and returns its exit code, result and table. */
async function run(args) {
  const json = join(folder, "result.json");
  rmSync(json, { force: true });
  const child = spawn(generator(), [...args, "--json", json], { stdio: ["ignore", "pipe", "pipe"] });
  let table = "";
  let log = "";
  child.stdout.on("data", (bytes) => { table += bytes; });
  child.stderr.on("data", (bytes) => { log += bytes; });
  const code = await within(60_000, args.join(" "), new Promise((resolve) => child.once("close", resolve)));
  assert.ok(existsSync(json), `${args.join(" ")}: ${table}${log}`);
  return { code, report: JSON.parse(readFileSync(json)), table };
}

async function ok(args) {
  const { code, report, table } = await run([...args, ...CA]);
  assert.equal(code, 0, table);
  assert.equal(report.tls.verified, true);
  return { report, table };
}

async function errors(args) {
  const { code, report } = await run([...args, "--connections", "5", "--duration", "100ms"]);
  assert.equal(code, 1);
  return { errors: report.connections.errors, advice: report.connections.advice };
}

/** npm's ws on https: /echo, topics, and what a server of its kind offers by HTTP. */
async function startNode(certificate = "server", options = {}) {
  const topics = new Map();
  const server = createServer({ cert: readFileSync(file(`${certificate}.pem`)), key: readFileSync(file(`${certificate}.key`)), ...options });
  const sockets = new WebSocketServer({ server, perMessageDeflate: { threshold: 0 } });
  sockets.on("connection", (socket, request) => {
    socket.on("error", () => {});
    if (request.url === "/echo") {
      socket.on("message", (data, binary) => socket.send(data, { binary }));
      return;
    }
    const topic = request.url.split("?")[0];
    if (!topics.has(topic)) topics.set(topic, new Set());
    topics.get(topic).add(socket);
    socket.on("close", () => topics.get(topic).delete(socket));
  });
  server.on("request", (request, response) => {
    if (request.url === "/metrics") {
      const cpu = process.cpuUsage();
      response.end(`process_resident_memory_bytes ${process.memoryUsage.rss()}\nprocess_cpu_seconds_total ${(cpu.user + cpu.system) / 1e6}\n`);
      return;
    }
    const body = [];
    request.on("data", (bytes) => body.push(bytes));
    request.on("end", () => {
      const message = Buffer.concat(body);
      const binary = request.url.includes("binary=1");
      const topic = request.url.split("?")[0].replace("/publish", "");
      for (const socket of topics.get(topic) ?? []) socket.send(message, { binary });
      response.end("ok");
    });
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  ends.push(() => { sockets.close(); server.closeAllConnections(); server.close(); });
  return server.address().port;
}

async function startPython(how = []) {
  const child = spawn(PYTHON, [join(ROOT, "tests/browsers/tls_server.py"), file("server.pem"), file("server.key"), ...how], { stdio: ["pipe", "pipe", "ignore"] });
  ends.push(() => child.stdin.end());
  const port = new Promise((resolve) => createInterface({ input: child.stdout }).once("line", resolve));
  return within(60_000, "the Python server", port);
}

const node = await startNode();
const python = await startPython();
const steps = [
  ["npm ws: connections by name and by address", async () => {
    for (const host of ["localhost", "127.0.0.1"]) {
      const { report } = await ok(["idle", "--url", `wss://${host}:${node}/quiet`, "--connections", "200", "--duration", "300ms"]);
      assert.equal(report.connections.opened, 200);
      assert.equal(report.tls.handshakes, 200);
      assert.match(report.tls.agreed, /^TLS 1\.3, /);
    }
  }],
  ["npm ws: echoes, small and larger than any buffer", async () => {
    for (const [size, rate] of [["16", "1000"], ["2000000", "20"]]) {
      const { report } = await ok(["echo", "--url", `wss://localhost:${node}/echo`, "--connections", "10", "--size", size, "--rate", rate, "--duration", "2s"]);
      assert.equal(report.returned, 2 * Number(rate));
    }
  }],
  ["npm ws: publishing by https, plain and compressed", async () => {
    for (const deflate of [[], ["--deflate"]]) {
      const { report } = await ok(["fanout", "--url", `wss://localhost:${node}/{topic}`, "--publish-url", `https://localhost:${node}/publish/{topic}`, "--connections", "50", "--rate", "40", "--duration", "2s", "--size", "300", ...deflate]);
      assert.equal(report.deliveries, 4000);
      assert.equal(report.deflated > 0, deflate.length > 0);
    }
  }],
  ["npm ws: a burst that no single read takes, and readers that trickle", async () => {
    const url = ["--url", `wss://localhost:${node}/{topic}`, "--publish-url", `https://localhost:${node}/publish/{topic}`, "--connections", "20"];
    const burst = await ok(["fanout", ...url, "--rate", "200", "--burst", "200", "--size", "5000", "--duration", "2s"]);
    assert.equal(burst.report.missing, 0);
    const slow = await ok(["slow", ...url, "--slow-rate", "20000", "--rate", "50", "--size", "2000", "--duration", "2s"]);
    assert.equal(slow.report.slow.missing, 0);
    assert.ok(slow.report.slow.deliveries > 0);
  }],
  ["npm ws: a storm of full handshakes, and one that resumes", async () => {
    const storm = ["storm", "--url", `wss://localhost:${node}/quiet`, "--bystander", `wss://localhost:${node}/echo`, "--connections", "200", "--duration", "100ms"];
    const { report: full } = await ok(storm);
    assert.deepEqual([full.returned, full.tls.handshakes, full.tls.resumed], [200, 400, 0]);
    const { report: resumed } = await ok([...storm, "--tls-resume"]);
    assert.ok(resumed.tls.resumed >= 200, JSON.stringify(resumed.tls));
  }],
  ["npm ws: its metrics by https stand in for a process id", async () => {
    const { report, table } = await ok(["memory", "--url", `wss://localhost:${node}/quiet`, "--steps", "50,100,150", "--duration", "500ms", "--server-metrics", `https://localhost:${node}/metrics`]);
    const kind = (name) => report.kinds.find((one) => one.end === "server" && one.name === name);
    assert.ok(kind("resident").before_bytes > 10_000_000);
    assert.equal(kind("user").before_bytes, null);
    assert.match(table, /the server's own metrics at https:/);
  }],
  ["npm ws: TLS 1.2, with sessions resumed by ticket and by id", async () => {
    const old = await startNode("server", { maxVersion: "TLSv1.2" });
    const { report } = await ok(["storm", "--url", `wss://localhost:${old}/quiet`, "--bystander", "none", "--connections", "50", "--duration", "100ms", "--tls-resume"]);
    assert.match(report.tls.agreed, /^TLS 1\.2, /);
    assert.ok(report.tls.resumed >= 50, JSON.stringify(report.tls));
  }],
  ["npm ws: wrong certificates", async () => {
    for (const [certificate, error] of [["expired", "tls_expired"], ["future", "tls_not_yet_valid"], ["elsewhere", "tls_wrong_name"]]) {
      const port = await startNode(certificate);
      assert.deepEqual((await errors(["idle", "--url", `wss://localhost:${port}/`, ...CA])).errors, { [error]: 5 });
    }
    const untrusted = await errors(["idle", "--url", `wss://localhost:${node}/`, "--ca", file("other.pem")]);
    assert.deepEqual(untrusted.errors, { tls_unknown_issuer: 5 });
    assert.match(untrusted.advice[0], /--ca FILE/);
  }],
  ["Python websockets: connections and echoes", async () => {
    for (const host of ["localhost", "127.0.0.1"]) {
      const { report } = await ok(["echo", "--url", `wss://${host}:${python}/`, "--connections", "50", "--size", "20000", "--rate", "200", "--duration", "2s"]);
      assert.equal(report.returned, 400);
    }
  }],
  ["Python websockets: TLS 1.2", async () => {
    const { report } = await ok(["idle", "--url", `wss://localhost:${await startPython(["1.2"])}/`, "--connections", "20", "--duration", "100ms"]);
    assert.match(report.tls.agreed, /^TLS 1\.2, /);
  }],
  ["Python websockets: a server that wants a client certificate", async () => {
    const port = await startPython(["client-certificate"]);
    const refused = await errors(["idle", "--url", `wss://localhost:${port}/`, ...CA]);
    // Its asyncio ends the connection before the alert has left.
    assert.deepEqual(refused.errors, { connect_reset: 5 });
    assert.match(refused.advice[0], /client certificate/);
  }],
  ["TLS where none is spoken, and none where it is", async () => {
    const plain = await startServer();
    try {
      const spoken = await errors(["idle", "--url", `wss://${plain.listen}/`, ...CA]);
      assert.deepEqual(spoken.errors, { tls_not_spoken: 5 });
    } finally {
      await plain.stop();
    }
    for (const port of [node, python]) {
      const { advice } = await errors(["idle", "--url", `ws://127.0.0.1:${port}/`]);
      assert.match(advice[0] ?? "", /wss:/);
    }
  }],
];

await runSteps("tls", steps, async () => {
  for (const end of ends) end();
  rmSync(folder, { recursive: true, force: true });
});
