// What the soak starts and ends: PostgreSQL in a folder of its own, the chat with its edge, and a network that is slow and
// breaks. Knows nothing of what is said over them.

import { execFileSync, spawn } from "node:child_process";
import { chownSync, mkdtempSync, readFileSync, readdirSync, rmSync } from "node:fs";
import { connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { within } from "../../tests/browsers/server.mjs";

export const sleep = (ms) => new Promise((resolve) => { setTimeout(resolve, ms); });

/** A port that is free now. */
export async function freePort() {
  const server = createServer();
  await new Promise((resolve) => { server.listen(0, "127.0.0.1", resolve); });
  const { port } = server.address();
  await new Promise((resolve) => { server.close(resolve); });
  return port;
}

/** A server of PostgreSQL, which refuses to be root's. */
export class Postgres {
  #child = null;

  constructor() {
    const versions = readdirSync("/usr/lib/postgresql").sort((a, b) => b - a);
    this.programs = `/usr/lib/postgresql/${versions[0]}/bin`;
    this.folder = mkdtempSync(join(tmpdir(), "fantail-chat-soak-"));
    if (process.getuid() === 0) {
      const [, , uid, gid] = readFileSync("/etc/passwd", "utf8").split("\n").find((line) => line.startsWith("postgres:")).split(":");
      this.user = { uid: Number(uid), gid: Number(gid) };
      chownSync(this.folder, this.user.uid, this.user.gid);
    }
    process.once("exit", () => this.#child?.kill("SIGQUIT"));
    this.#run("initdb", ["-A", "trust", "-U", "chat", "--no-sync", "-E", "UTF8", "-D", join(this.folder, "data")]);
  }

  get url() { return `postgres://chat@localhost/postgres?host=${this.folder}`; }

  #run(program, args) {
    return execFileSync(join(this.programs, program), args, { ...this.user, cwd: this.folder, encoding: "utf8", maxBuffer: 1 << 30, stdio: ["ignore", "pipe", "pipe"] });
  }

  async start() {
    // As it is by default: what is committed is on the disk.
    const args = ["-c", "listen_addresses=", "-c", "logging_collector=off", "-k", this.folder, "-D", join(this.folder, "data")];
    this.#child = spawn(join(this.programs, "postgres"), args, { ...this.user, cwd: this.folder, stdio: "ignore" });
    const ready = async () => {
      for (;;) {
        try { return this.#run("pg_isready", ["-q", "-h", this.folder]); } catch { await sleep(100); }
      }
    };
    await within(60_000, "PostgreSQL", ready());
  }

  /** Ends it with all its connections and without a last checkpoint. */
  stop() {
    if (this.#child) this.#run("pg_ctl", ["stop", "-m", "immediate", "-w", "-D", join(this.folder, "data")]);
    this.#child = null;
  }

  /** The rows of a question, each one value of JSON: asked past the application. */
  rows(query) {
    const out = this.#run("psql", ["-h", this.folder, "-U", "chat", "-d", "postgres", "-AtXq", "-c", query]);
    return out.split("\n").filter(Boolean).map((line) => JSON.parse(line));
  }

  remove() {
    this.stop();
    rmSync(this.folder, { recursive: true });
  }
}

/** The chat and its edge, at ports that stay. */
export class Chat {
  constructor(program, database, port, edgePort) {
    Object.assign(this, { program, database, port, edgePort, url: `http://127.0.0.1:${port}`, log: "" });
    process.once("exit", () => this.child?.kill("SIGKILL"));
  }

  async start() {
    const args = ["--listen", `127.0.0.1:${this.port}`, "--edge-port", String(this.edgePort), "--database", this.database];
    const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith("FANTAIL_")));
    const child = this.child = spawn(this.program, args, { stdio: ["ignore", "pipe", "pipe"], env });
    child.stderr.on("data", (bytes) => { this.log = (this.log + bytes).slice(-50_000); });
    this.ended = new Promise((resolve) => { child.once("exit", (...how) => resolve(how)); });
    const ready = new Promise((resolve) => {
      createInterface({ input: child.stdout }).on("line", (line) => { if (line.startsWith("fantail-chat ready ")) resolve(); });
    });
    const early = this.ended.then((how) => { throw new Error(`the chat ended (${how})\n${this.log}`); });
    early.catch(() => {});
    await within(60_000, "the chat's ready line", Promise.race([ready, early]));
  }

  /** Ends it at once, as a machine that loses its power. */
  async kill() {
    this.child.kill("SIGKILL");
    await within(30_000, "the chat's end", this.ended);
  }

  /** Ends its edge, if there is one now. */
  killEdge() {
    const pid = this.child.pid;
    const tasks = readdirSync(`/proc/${pid}/task`).map((task) => {
      // A thread may have ended meanwhile.
      try { return readFileSync(`/proc/${pid}/task/${task}/children`, "utf8"); } catch { return ""; }
    });
    const edge = Number(tasks.join(" ").trim().split(/\s+/)[0]);
    if (edge) process.kill(edge, "SIGKILL");
    return edge;
  }
}

/** A way to a port of 127.0.0.1, at the same port of another address: late, narrow, and cut when it is told to be. */
export class SlowWay {
  #open = new Set();
  #isCut = false;

  constructor(address, port, { delayMs = 150, bytesPerSecond = 64 << 10 } = {}) {
    this.server = createServer((near) => {
      const far = connect(port, "127.0.0.1");
      const both = [near, far];
      const end = () => { both.forEach((one) => { one.destroy(); this.#open.delete(one); }); };
      if (this.#isCut) return end();
      for (const one of both) {
        this.#open.add(one);
        one.on("error", end);
        one.on("close", end);
      }
      for (const [from, to] of [[near, far], [far, near]]) {
        let free = 0;
        from.on("data", (bytes) => {
          // A piece leaves when those before it have, and arrives later by the delay.
          free = Math.max(free, performance.now()) + (bytes.length / bytesPerSecond) * 1_000;
          const at = free + delayMs - performance.now();
          if (at > 1_000) {
            from.pause();
            setTimeout(() => from.resume(), at - 1_000);
          }
          setTimeout(() => { if (!to.destroyed) to.write(bytes); }, at);
        });
      }
    });
    this.ready = new Promise((resolve) => { this.server.listen(port, address, resolve); });
  }

  /** Breaks every connection and takes none for so long. */
  async cut(ms) {
    this.#isCut = true;
    for (const one of this.#open) one.destroy();
    await sleep(ms);
    this.#isCut = false;
  }

  close() {
    this.#isCut = true;
    for (const one of this.#open) one.destroy();
    this.server.close();
  }
}
