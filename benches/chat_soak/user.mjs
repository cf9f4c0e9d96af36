// A scripted user: an account, one connection to the edge, the application by HTTP, from an address of its own. Knows what
// docs/chat.md says of changes, and keeps what was acknowledged. Shares no code with the page.

import { Agent, request } from "node:http";
import { createRequire } from "node:module";
import { sleep } from "./processes.mjs";

const { WebSocket } = createRequire(new URL("../../tests/browsers/package.json", import.meta.url))("ws");
export const PASSWORD = "correct horse battery";
const PATIENCE_MS = 20_000;

const later = () => sleep(300 + Math.random() * 2_000);

/** What one user knows of one room. */
class Room {
  messages = new Map();
  change = null;
  syncing = null;
  again = false;
  /** The oldest message of its first page: what is before that it has never asked for. */
  from = 0;

  constructor(id) { this.id = id; }

  keep(message) {
    const before = this.messages.get(message.seq);
    if (message.seq >= this.from && (!before || before.change < message.change)) this.messages.set(message.seq, message);
  }
}

export class User {
  rooms = new Map();
  /** By client_id: what was acknowledged, as it was acknowledged last. */
  acknowledged = new Map();
  counts = { connects: 0, heard: 0, applied: 0, syncs: 0, retries: 0, edits: 0, deletions: 0 };
  problems = [];
  isBusy = false;
  #cookies = new Map();
  #csrf = "";
  #next = 0;
  #isOver = false;

  constructor(name, address, url) {
    Object.assign(this, { name, address, url: new URL(url) });
    this.agent = new Agent({ keepAlive: true, maxSockets: 4 });
  }

  get isUp() { return this.socket?.readyState === WebSocket.OPEN && [...this.rooms.values()].every((room) => room.isSubscribed && !room.syncing); }

  #ask(method, path, body) {
    const text = body === undefined ? undefined : JSON.stringify(body);
    const headers = { "X-CSRF-Token": this.#csrf, Cookie: [...this.#cookies].map(([name, value]) => `${name}=${value}`).join("; ") };
    if (text !== undefined) Object.assign(headers, { "Content-Type": "application/json", "Content-Length": Buffer.byteLength(text) });
    return new Promise((resolve, reject) => {
      const sent = request({ host: this.url.hostname, port: this.url.port, localAddress: this.address, agent: this.agent, method, path: `/api${path}`, headers, timeout: PATIENCE_MS }, (answer) => {
        let said = "";
        answer.setEncoding("utf8");
        answer.on("data", (part) => { said += part; });
        answer.on("error", reject);
        answer.on("end", () => {
          for (const field of answer.headers["set-cookie"] ?? []) {
            const [name, value] = field.split(";")[0].split("=");
            this.#cookies.set(name, value);
          }
          try {
            const told = JSON.parse(said);
            if (told.csrf) this.#csrf = told.csrf;
            resolve({ status: answer.statusCode, told });
          } catch (error) { reject(error); }
        });
        answer.on("close", () => reject(new Error("cut off")));
      });
      sent.on("timeout", () => sent.destroy(new Error("too slow")));
      sent.on("error", reject);
      sent.end(text);
    });
  }

  /** Asks until it is answered for good: what comes of outages is asked again. */
  async call(method, path, body) {
    for (;;) {
      try {
        const { status, told } = await this.#ask(method, path, body);
        if (status < 500 && status !== 429) return { status, told };
        // What the application itself calls a fault is one, whatever is restarted meanwhile.
        if (status === 500) this.problems.push(`${method} ${path}: ${JSON.stringify(told)}`);
      } catch { /* no answer */ }
      if (this.#isOver) throw new Error("over");
      this.counts.retries += 1;
      await later();
    }
  }

  async good(method, path, body) {
    const { status, told } = await this.call(method, path, body);
    if (status < 200 || status > 299) this.problems.push(`${this.name}: ${method} ${path}: ${status} ${JSON.stringify(told)}`);
    return told;
  }

  async register() {
    const { status, told } = await this.call("POST", "/register", { name: this.name, password: PASSWORD });
    // Its answer may have been lost.
    const me = status === 201 ? told : await this.good("POST", "/login", { name: this.name, password: PASSWORD });
    this.id = me.id;
    this.rooms.set("lobby", new Room("lobby"));
  }

  async makeRoom(name) {
    const { id } = await this.good("POST", "/rooms", { name, open: true });
    this.rooms.set(id, new Room(id));
    return id;
  }

  async join(id) {
    await this.good("POST", `/rooms/${id}/join`, {});
    this.rooms.set(id, new Room(id));
  }

  /** Is connected, again and again, until it is over. */
  async live() {
    while (!this.#isOver) {
      try {
        const { status, told } = await this.call("GET", "/edge");
        if (status !== 200) throw new Error(`no token: ${status}`);
        await this.#connection(told);
      } catch (error) {
        if (this.#isOver) return;
        if (String(error.message).startsWith("no token")) this.problems.push(`${this.name}: ${error.message}`);
      }
      await later();
    }
  }

  #connection({ url, token }) {
    const socket = this.socket = new WebSocket(`${url.replace("http", "ws")}/ws`, ["fantail.json.v1", `fantail.token.${token}`], { localAddress: this.address, perMessageDeflate: false, handshakeTimeout: PATIENCE_MS });
    const names = [...this.rooms.keys()];
    for (const room of this.rooms.values()) room.isSubscribed = false;
    socket.on("open", () => {
      this.counts.connects += 1;
      names.forEach((id, number) => socket.send(JSON.stringify({ type: "subscribe", id: number + 1, topic: `rooms/${id}` })));
    });
    socket.on("message", (data) => {
      const what = JSON.parse(data);
      const room = this.rooms.get(what.topic?.slice("rooms/".length));
      if (what.type === "message") this.#hear(room, what.data);
      else if (what.type === "subscribed") { room.isSubscribed = true; this.#sync(room); }
      else if (what.type === "gap") this.#sync(room);
      else if (what.type === "expires") this.#renew(socket).catch(() => {});
      else if (what.type === "error" && what.code !== "busy") this.problems.push(`${this.name}: ${data}`);
    });
    return new Promise((resolve) => {
      socket.on("error", () => {});
      socket.on("close", resolve);
    });
  }

  async #renew(socket) {
    const { status, told } = await this.call("GET", "/edge");
    if (status === 200 && socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify({ type: "refresh", token: told.token }));
  }

  #hear(room, message) {
    this.counts.heard += 1;
    if (message.change <= room.change) return;
    // Behind a hole, or before the first page, which may be of before this.
    if (room.change === null || message.change > room.change + 1) this.#sync(room);
    else {
      this.#apply(room, message);
      room.change = message.change;
    }
  }

  #apply(room, message) {
    this.counts.applied += 1;
    room.keep(message);
  }

  /** Asks for what has changed; asked for while it asks, it does once more. */
  #sync(room) {
    room.again = true;
    room.syncing ??= this.#ask_all(room).catch(() => {}).finally(() => { room.syncing = null; });
    return room.syncing;
  }

  async #ask_all(room) {
    while (room.again && !this.#isOver) {
      room.again = false;
      this.counts.syncs += 1;
      if (room.change === null) {
        const page = await this.good("GET", `/rooms/${room.id}/messages`);
        if (page.more) room.from = page.messages[0].seq;
        for (const message of page.messages) room.keep(message);
        room.change = page.change;
        continue;
      }
      for (let more = true; more;) {
        const page = await this.good("GET", `/rooms/${room.id}/messages?after_change=${room.change}`);
        for (const message of page.messages) this.#apply(room, message);
        room.change = Math.max(room.change, page.change);
        more = page.more;
      }
    }
  }

  /** Says something, until it is acknowledged; now and then changes or takes back something said before. */
  async speak() {
    if (this.isBusy) return;
    this.isBusy = true;
    try {
      const own = [...this.acknowledged.values()].filter((one) => !one.deleted);
      const luck = Math.random();
      if (own.length > 2 && luck < 0.15) await this.#change(own[Math.floor(Math.random() * own.length)], luck < 0.05);
      else await this.#say();
    } finally { this.isBusy = false; }
  }

  async #say() {
    const ids = [...this.rooms.keys()];
    const room = Math.random() < 0.3 ? "lobby" : ids.at(-1);
    const client_id = `soak-${this.name}-${this.#next += 1}`;
    const text = `${client_id} says ${"words ".repeat(Math.random() * 20)}<b>&'"é🎈`;
    const { status, told } = await this.call("POST", `/rooms/${room}/messages`, { client_id, text });
    if (status !== 201) return this.problems.push(`${this.name} says: ${status} ${JSON.stringify(told)}`);
    this.acknowledged.set(client_id, { client_id, room, seq: told.seq, text: told.text, change: told.change, deleted: false });
  }

  async #change(one, deletes) {
    const path = `/rooms/${one.room}/messages/${one.seq}`;
    const text = `${one.client_id} says it better ${this.#next += 1}`;
    const { status, told } = deletes ? await this.call("DELETE", path, {}) : await this.call("PATCH", path, { text });
    // Done before, with an answer that was lost.
    if (status === 404 && deletes) return Object.assign(one, { deleted: true, text: "" });
    if (status !== 200) return this.problems.push(`${this.name} changes: ${status} ${JSON.stringify(told)}`);
    this.counts[deletes ? "deletions" : "edits"] += 1;
    return Object.assign(one, { text: told.text, deleted: told.deleted, change: told.change });
  }

  end() {
    this.#isOver = true;
    this.socket?.terminate();
    this.agent.destroy();
  }
}
