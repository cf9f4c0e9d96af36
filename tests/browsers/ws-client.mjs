// The server under npm's `ws`, a client it did not write: echo, control frames, close codes,
// broadcast, limits and refusals.

import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { WebSocket } from "ws";
import { publish, runSteps, startServer, untilSubscribed, within } from "./server.mjs";

const MIB = 1024 * 1024;
const WAIT = 60_000;
const server = await startServer();

/** One connection that keeps what it received, so that no wait can miss a message. */
class Client {
  constructor(path, options) {
    this.socket = new WebSocket(`${server.url}${path}`, { maxPayload: 64 * MIB, handshakeTimeout: WAIT, ...options });
    this.received = [];
    this.errors = [];
    this.wake = () => {};
    this.opened = new Promise((resolve) => this.socket.once("open", resolve));
    this.closed = new Promise((resolve) => this.socket.once("close", (code, reason) => resolve({ code, reason: String(reason) })));
    this.socket.on("error", (error) => this.errors.push(error));
    this.socket.on("message", (data, binary) => { this.received.push({ data, binary }); this.wake(); });
  }

  static async open(path, options) {
    const client = new Client(path, options);
    const refused = client.closed.then(() => { throw new Error(`${path}: ${client.errors[0] ?? "closed"}`); });
    refused.catch(() => {});
    await within(WAIT, `opening ${path}`, Promise.race([client.opened, refused]));
    return client;
  }

  async next() {
    if (this.received.length === 0) {
      await within(WAIT, "a message", new Promise((resolve) => { this.wake = resolve; }));
    }
    return this.received.shift();
  }

  async ping(payload) {
    const pong = new Promise((resolve) => this.socket.once("pong", resolve));
    this.socket.ping(payload);
    return String(await within(WAIT, "a pong", pong));
  }

  async close(code = 1000, reason = "done") {
    this.socket.close(code, reason);
    return this.end();
  }

  async end() {
    const end = await within(WAIT, "the close", this.closed);
    return { ...end, errors: this.errors.map(String) };
  }
}

async function echoes(client, data, binary) {
  client.socket.send(data, { binary });
  const answer = await client.next();
  assert.equal(answer.binary, binary);
  assert.ok(answer.data.equals(Buffer.from(data)), `${data.length} bytes came back changed`);
}

/** The HTTP status that answers an upgrade to `path`. */
async function statusOf(path) {
  const socket = new WebSocket(`${server.url}${path}`);
  socket.on("error", () => {});
  const answer = new Promise((resolve) => {
    socket.once("unexpected-response", (_, response) => { resolve(response.statusCode); response.destroy(); });
    socket.once("open", () => { resolve(101); socket.terminate(); });
  });
  return within(WAIT, `the answer to ${path}`, answer);
}

async function nextAfterWarmUp(client) {
  for (;;) {
    const message = await client.next();
    if (String(message.data) !== "warm-up") return message;
  }
}

const steps = [
  ["echo: text, empty, binary", async () => {
    const client = await Client.open("/echo");
    await echoes(client, "hello, 世界 🪭", false);
    await echoes(client, "", false);
    await echoes(client, Buffer.from([0, 255, 128, 1]), true);
    await echoes(client, Buffer.alloc(0), true);
    assert.equal((await client.close()).code, 1000);
  }],
  ["echo: every length around the frame header's steps", async () => {
    const client = await Client.open("/echo");
    for (const size of [1, 124, 125, 126, 127, 128, 4095, 4096, 65_534, 65_535, 65_536, 65_537]) {
      await echoes(client, randomBytes(size), true);
    }
    await client.close();
  }],
  ["echo: 1 MiB and the largest message, 16 MiB", async () => {
    const client = await Client.open("/echo");
    await echoes(client, "x".repeat(MIB), false);
    await echoes(client, randomBytes(MIB), true);
    await echoes(client, Buffer.alloc(16 * MIB, 7), true);
    await client.close();
  }],
  ["echo: with and without permessage-deflate", async () => {
    for (const perMessageDeflate of [false, true, { threshold: 0 }, { threshold: 0, serverMaxWindowBits: 15 }, { threshold: 0, serverMaxWindowBits: 9 }, { threshold: 0, clientMaxWindowBits: 9 }]) {
      const client = await Client.open("/echo", { perMessageDeflate });
      assert.equal(client.socket.extensions, perMessageDeflate ? "permessage-deflate" : "");
      for (const text of ["", "a", "hello, 世界 🪭", "x".repeat(255), "x".repeat(256), "x".repeat(512), "x".repeat(513), "x".repeat(100_000), "y".repeat(300_000)]) {
        await echoes(client, text, false);
      }
      for (const size of [1, 1000, 65_536, 300_000]) await echoes(client, randomBytes(size), true);
      await client.close();
    }
  }],
  ["compression: accepted without context takeover, with the window that is asked for", async () => {
    const answerTo = async (perMessageDeflate) => {
      const socket = new WebSocket(`${server.url}/echo`, { perMessageDeflate });
      const answer = new Promise((resolve) => socket.once("upgrade", (response) => resolve(response.headers["sec-websocket-extensions"])));
      const opened = new Promise((resolve) => socket.once("open", resolve));
      const value = await within(WAIT, "the answer", answer);
      await within(WAIT, "the opening", opened);
      socket.close();
      return value;
    };
    assert.equal(await answerTo(true), "permessage-deflate; client_no_context_takeover");
    assert.equal(await answerTo({ serverMaxWindowBits: 10 }), "permessage-deflate; client_no_context_takeover; server_max_window_bits=10");
    assert.equal(await answerTo(false), undefined);
  }],
  ["compression: fragments of one message, a ping between them", async () => {
    const client = await Client.open("/echo", { perMessageDeflate: { threshold: 0 } });
    client.socket.send("one ".repeat(200), { fin: false });
    client.socket.send("two ".repeat(200), { fin: false });
    assert.equal(await client.ping("between"), "between");
    client.socket.send("three", { fin: true });
    assert.equal(String((await client.next()).data), "one ".repeat(200) + "two ".repeat(200) + "three");
    await client.close();
  }],
  ["compression: a broadcast is the same with and without", async () => {
    const clients = await Promise.all(Array.from({ length: 20 }, (_, i) => Client.open("/ws/lobby", { perMessageDeflate: i % 2 === 0 })));
    await untilSubscribed(server, "lobby", clients.length);
    const rows = Array.from({ length: 50 }, (_, id) => ({ id, name: `row ${id}`, open: true }));
    const bodies = ["small", JSON.stringify(rows), "ä".repeat(5_000), JSON.stringify(rows.reverse())];
    for (const body of bodies) await publish(server, "lobby", body);
    const noise = randomBytes(5_000);
    await publish(server, "lobby", noise, "?binary=1");
    for (const client of clients) {
      for (const body of bodies) assert.equal(String((await nextAfterWarmUp(client)).data), body);
      assert.ok((await client.next()).data.equals(noise));
    }
    clients[0].socket.send(bodies[1]);
    for (const client of clients) assert.equal(String((await client.next()).data), bodies[1]);
    await Promise.all(clients.map((client) => client.close()));
    await untilSubscribed(server, "lobby", 0);
  }],
  ["compression: too much when inflated closes 1009, bad text 1007", async () => {
    const options = { perMessageDeflate: { threshold: 0 } };
    const whole = await Client.open("/ws/lobby", options);
    whole.socket.send(Buffer.alloc(MIB));
    assert.equal((await whole.next()).data.length, MIB);
    whole.socket.send(Buffer.alloc(MIB + 1));
    assert.equal((await whole.end()).code, 1009);
    const bomb = await Client.open("/echo", options);
    bomb.socket.send(Buffer.alloc(16 * MIB + 1));
    assert.equal((await bomb.end()).code, 1009);
    const text = await Client.open("/echo", options);
    text.socket.send(Buffer.from([0x68, 0x69, 0xc3, 0x28]), { binary: false });
    assert.equal((await text.end()).code, 1007);
  }],
  ["echo: a fragmented message with a ping between its frames", async () => {
    const client = await Client.open("/echo", { perMessageDeflate: false });
    client.socket.send("one ", { fin: false });
    client.socket.send("two ", { fin: false });
    assert.equal(await client.ping("between"), "between");
    client.socket.send("three", { fin: true });
    assert.equal(String((await client.next()).data), "one two three");
    await client.close();
  }],
  ["echo: 1,000 messages at once keep their order", async () => {
    const client = await Client.open("/echo");
    for (let i = 0; i < 1000; i++) client.socket.send(`message ${i}`);
    for (let i = 0; i < 1000; i++) assert.equal(String((await client.next()).data), `message ${i}`);
    await client.close();
  }],
  ["ping is answered with its payload", async () => {
    for (const path of ["/echo", "/ws/lobby"]) {
      const client = await Client.open(path);
      assert.equal(await client.ping(""), "");
      assert.equal(await client.ping("p".repeat(125)), "p".repeat(125));
      await client.close();
    }
  }],
  ["close codes come back", async () => {
    for (const path of ["/echo", "/ws/lobby"]) {
      for (const code of [1000, 3000, 4999]) {
        const client = await Client.open(path);
        const end = await client.close(code, "bye");
        assert.deepEqual([end.code, end.errors], [code, []]);
      }
    }
  }],
  ["a publish reaches 50 clients in order", async () => {
    const clients = await Promise.all(Array.from({ length: 50 }, () => Client.open("/ws/lobby")));
    clients.push(await Client.open("/ws"));
    await untilSubscribed(server, "lobby", clients.length);
    const answers = [];
    for (let i = 0; i < 20; i++) answers.push(await publish(server, "lobby", `broadcast ${i}`));
    answers.forEach((answer, i) => {
      assert.deepEqual(Object.keys(answer).sort(), ["epoch", "offset", "subscribers"]);
      assert.equal(answer.subscribers, clients.length);
      assert.equal(answer.epoch, answers[0].epoch);
      assert.equal(answer.offset, answers[0].offset + i);
    });
    for (const client of clients) {
      for (let i = 0; i < 20; i++) {
        const message = await nextAfterWarmUp(client);
        assert.deepEqual([String(message.data), message.binary], [`broadcast ${i}`, false]);
      }
    }
    clients[0].socket.send("from a client");
    for (const client of clients) assert.equal(String((await client.next()).data), "from a client");
    await Promise.all(clients.map((client) => client.close()));
    await untilSubscribed(server, "lobby", 0);
  }],
  ["a topic name is percent-decoded once, binary stays binary", async () => {
    const client = await Client.open("/ws/caf%C3%A9/100%2525");
    await untilSubscribed(server, "café/100%25", 1);
    await publish(server, "café/100%25", Buffer.from([1, 2, 255]), "?binary=1");
    const message = await nextAfterWarmUp(client);
    assert.deepEqual([message.binary, [...message.data]], [true, [1, 2, 255]]);
    await client.close();
  }],
  ["a message over 16 MiB on /echo closes 1009", async () => {
    const whole = await Client.open("/echo", { perMessageDeflate: false });
    whole.socket.send(Buffer.alloc(16 * MIB + 1));
    assert.equal((await whole.end()).code, 1009);
    const pieces = await Client.open("/echo", { perMessageDeflate: false });
    for (let i = 0; i < 16; i++) pieces.socket.send(Buffer.alloc(MIB), { fin: false });
    pieces.socket.send(Buffer.alloc(1), { fin: true });
    assert.equal((await pieces.end()).code, 1009);
  }],
  ["a message over 1 MiB on /ws/lobby closes 1009", async () => {
    const client = await Client.open("/ws/lobby", { perMessageDeflate: false });
    client.socket.send("x".repeat(MIB));
    assert.equal((await client.next()).data.length, MIB);
    client.socket.send("x".repeat(MIB + 1));
    assert.equal((await client.end()).code, 1009);
  }],
  ["text that is not UTF-8 closes 1007", async () => {
    for (const path of ["/echo", "/ws/lobby"]) {
      const client = await Client.open(path, { perMessageDeflate: false });
      client.socket.send(Buffer.from([0x68, 0x69, 0xc3, 0x28]), { binary: false });
      assert.equal((await client.end()).code, 1007);
      const split = await Client.open(path, { perMessageDeflate: false });
      split.socket.send(Buffer.from([0xe4, 0xb8]), { binary: false, fin: false });
      split.socket.send(Buffer.from([0x41]), { binary: false, fin: true });
      assert.equal((await split.end()).code, 1007);
    }
  }],
  ["publishing where clients may not is ignored 100 times, then closes 1008", async () => {
    const client = await Client.open("/ws/news");
    const reader = await Client.open("/ws/news");
    await untilSubscribed(server, "news", 2);
    for (let i = 0; i < 50; i++) client.socket.send("not for anybody");
    assert.equal(await client.ping("still here"), "still here");
    for (let i = 0; i < 60; i++) client.socket.send("not for anybody");
    assert.equal((await client.end()).code, 1008);
    await publish(server, "news", "from the admin port");
    assert.equal(String((await nextAfterWarmUp(reader)).data), "from the admin port");
    await reader.close();
  }],
  ["an unknown path answers 404", async () => {
    assert.equal(await statusOf("/nothing-here"), 404);
    assert.equal(await statusOf("/echo/more"), 404);
  }],
  ["a stopping server closes with 1001 and exits 0", async () => {
    const clients = await Promise.all(["/echo", "/ws/lobby", "/ws/news"].map((path) => Client.open(path)));
    server.term();
    const ends = await Promise.all(clients.map((client) => within(40_000, "the close", client.closed)));
    assert.deepEqual(ends.map((end) => end.code), [1001, 1001, 1001]);
    assert.deepEqual(await server.stop(), { code: 0, signal: null });
  }],
];

await runSteps("ws-client", steps, () => server.stop());
