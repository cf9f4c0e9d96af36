// Starts the server binary for a test script and stops it again. Owns the child process and its
// ready line; knows nothing about what the script asks of the server.

import { spawn } from "node:child_process";
import { createHmac, randomBytes } from "node:crypto";
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

const ROOT = join(dirname(fileURLToPath(import.meta.url)), "..", "..");

// With FANTAIL_TEST_TLS=1, or where a script asks for `tls`, clients that go to `url` speak TLS, with `lean` servers have `tls.lean`,
// too. Whoever sets it tells Node whom to trust by NODE_EXTRA_CA_CERTS, which is read as a process starts.
const TLS = process.env.FANTAIL_TEST_TLS;
export const CERTIFICATES = join(ROOT, "loadtest/tests/tls/certificates");
const SECURE = ["--tls-listen", "127.0.0.1:0", "--tls-certificate", join(CERTIFICATES, "server.pem"), "--tls-key", join(CERTIFICATES, "server.key")];

/** Rejects when `promise` has not settled after `ms`; every wait of these scripts goes through it. */
export function within(ms, what, promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what}: nothing after ${ms} ms`)), ms);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

function binary() {
  if (process.env.FANTAIL_BIN) return process.env.FANTAIL_BIN;
  const found = ["release", "debug"].map((kind) => join(ROOT, "target", kind, "fantail")).find(existsSync);
  if (!found) throw new Error("no target/release/fantail or target/debug/fantail; build one or set FANTAIL_BIN");
  return found;
}

/** A running server: its two addresses and its process id, `term()` for the start of a drain, `kill()` and `stop()` for the end. */
export async function startServer({ listen: asked = "127.0.0.1:0", env = {}, more = [], tls: secure = TLS } = {}) {
  const args = ["serve", "--listen", asked, "--admin", "127.0.0.1:0", ...(secure ? SECURE : []), ...more];
  if (secure) env = { FANTAIL_TLS_LEAN: String(secure === "lean"), ...env };
  const child = spawn(binary(), args, { stdio: ["ignore", "pipe", "pipe"], env: { ...process.env, ...env } });
  let log = "";
  child.stderr.on("data", (bytes) => { log = (log + bytes).slice(-20_000); });
  const exited = new Promise((resolve) => child.once("exit", (code, signal) => resolve({ code, signal })));
  const failed = new Promise((_, reject) => {
    child.once("error", reject);
    exited.then(({ code, signal }) => reject(new Error(`the server ended early (${signal ?? code})\n${log}`)));
  });
  failed.catch(() => {});
  const ready = new Promise((resolve) => {
    createInterface({ input: child.stdout }).on("line", (line) => {
      const match = /^fantail ready listen=(\S+) admin=(\S+) pid=(\d+)(?: tls=(\S+))?(?: admin_scheme=https)?$/.exec(line);
      if (match) resolve(match);
    });
  });
  const kill = () => child.kill("SIGKILL");
  process.once("exit", kill);
  exited.then(() => process.off("exit", kill));
  try {
    const [, plain, admin, pid, tls] = await within(60_000, "the ready line", Promise.race([ready, failed]));
    const term = () => child.kill("SIGTERM");
    const stop = async (deadline = 30_000) => {
      if (child.exitCode === null && child.signalCode === null) term();
      return within(deadline, "the server's exit", exited).finally(kill);
    };
    const listen = secure ? tls : plain;
    return { listen, url: `${secure ? "wss" : "ws"}://${listen}`, admin, pid: Number(pid), term, kill, stop, log: () => log };
  } catch (error) {
    kill();
    throw error;
  }
}

/** A running server that asks for tokens: `token(jti, claims)` makes one of alice's for fifty minutes, `revoke(jti)` ends it. `auth` is
 * more of that section, `rules` more of the file. */
export async function startGuarded(auth = "", env = {}, rules = "") {
  const folder = mkdtempSync(join(tmpdir(), "fantail-guarded-"));
  const [config, file] = ["fantail.toml", "secret"].map((name) => join(folder, name));
  const secret = randomBytes(32).toString("hex");
  writeFileSync(file, secret, { mode: 0o600 });
  writeFileSync(config, `[auth]\n${auth}\n[[auth.issuer]]\nhmac_file = ${JSON.stringify(file)}\n${rules}`);
  const remove = () => rmSync(folder, { recursive: true });
  const server = await startServer({ env: { FANTAIL_CONFIG: config, ...env } }).catch((error) => { remove(); throw error; });
  const part = (what) => Buffer.from(JSON.stringify(what)).toString("base64url");
  return {
    ...server,
    stop: () => server.stop().finally(remove),
    token(jti, claims) {
      const exp = Math.floor(Date.now() / 1_000) + 3_000;
      const text = `${part({ alg: "HS256", typ: "JWT" })}.${part({ sub: "alice", exp, jti, ...claims })}`;
      return `${text}.${createHmac("sha256", secret).update(text).digest("base64url")}`;
    },
    async revoke(jti) {
      const answer = await fetch(`http://${server.admin}/revoke?jti=${jti}`, { method: "POST", signal: AbortSignal.timeout(10_000) });
      if (answer.status !== 200) throw new Error(`${answer.status} ${await answer.text()}`);
      return answer.json();
    },
  };
}

/** Publishes through the admin port and returns its JSON answer. */
export async function publish(server, topic, body, query = "") {
  const url = `http://${server.admin}/publish/${encodeURIComponent(topic)}${query}`;
  const answer = await fetch(url, { method: "POST", body, signal: AbortSignal.timeout(10_000) });
  if (answer.status !== 200) throw new Error(`POST ${url}: ${answer.status} ${await answer.text()}`);
  return answer.json();
}

/** Publishes "warm-up" until it reaches `count` subscribers: a client is open before it is listed. */
export async function untilSubscribed(server, topic, count) {
  const start = Date.now();
  for (;;) {
    const { subscribers } = await publish(server, topic, "warm-up");
    if (subscribers === count) return;
    if (Date.now() - start > 60_000) throw new Error(`${subscribers} of ${count} subscribers on ${topic}`);
  }
}

/** Runs named steps in order, prints one line each, and sets the exit code. */
export async function runSteps(title, steps, cleanUp) {
  let passed = 0;
  const failures = [];
  for (const [name, step] of steps) {
    const start = performance.now();
    const spent = () => `${((performance.now() - start) / 1000).toFixed(2)} s`;
    try {
      await within(180_000, name, step());
      passed += 1;
      console.log(`ok      ${name} (${spent()})`);
    } catch (error) {
      failures.push(name);
      console.log(`FAILED  ${name} (${spent()})\n${error.stack ?? error}`);
    }
  }
  try {
    await cleanUp();
  } catch (error) {
    failures.push("clean-up");
    console.log(`FAILED  clean-up\n${error.stack ?? error}`);
  }
  console.log(`${title}: ${passed} ok, ${failures.length} not ok`);
  process.exit(failures.length === 0 ? 0 : 1);
}
