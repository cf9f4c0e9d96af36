// The client against the real server, and against servers that misbehave.

import assert from "node:assert/strict";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { after, before, test } from "node:test";
import { connect } from "../fantail.js";
import { publish, startServer, within } from "../../../tests/browsers/server.mjs";

const require = createRequire(new URL("../../../tests/browsers/package.json", import.meta.url));
const { WebSocket, WebSocketServer } = require("ws");
const WAIT = 15_000;

let server;
before(async () => { server = await startServer({ env: { FANTAIL_PUBLISH_TOPICS: "open*", FANTAIL_TIMEOUTS_SSE_HEARTBEAT_SECONDS: "1" } }); });
after(() => server.stop());

/** Things as they come; each wait has an end. */
function queue() {
  const come = [];
  let wake = () => {};
  return {
    push(what) { come.push(what); wake(); },
    get length() { return come.length; },
    async next() {
      while (!come.length) await within(WAIT, "the next thing", new Promise((resolve) => { wake = resolve; }));
      return come.shift();
    },
  };
}

function client(t, options = {}, at = server.listen) {
  const made = connect(`http://${at}`, { WebSocket, ...options });
  t.after(() => made.close());
  return made;
}

/** A subscription whose messages and everything else come in queues. */
async function subscribed(from, topic, more = {}) {
  const [messages, events] = [queue(), queue()];
  const subscription = from.subscribe(topic, {
    onMessage: (message) => messages.push(message),
    onSubscribed: (info) => events.push(info),
    onGap: (gap) => events.push(gap),
    onError: (error) => events.push(error),
    ...more,
  });
  const first = await events.next();
  return { subscription, messages, events, first };
}

async function kick(query) {
  const answer = await fetch(`http://${server.admin}/connections/close?${query}`, { method: "POST", headers: { "content-type": "application/x-www-form-urlencoded" } });
  assert.equal(answer.status, 200, await answer.clone().text());
  return (await answer.json()).closed;
}

/** A WebSocket that a network never lets through. */
class Blocked {
  constructor() { setTimeout(() => this.onclose?.({ code: 1006 })); }
  close() {}
}

test("what is published comes as what it was", async (t) => {
  const one = client(t);
  const { messages, first, subscription } = await subscribed(one, "open/a");
  assert.match(first.position, /^[0-9a-f]{16}:0$/);
  for (const data of [{ a: [1, "é"] }, ["x"], "text", "", "{broken", new Uint8Array([0, 255])]) {
    const { offset } = await one.publish("open/a", data);
    const message = await messages.next();
    assert.deepEqual([message.topic, message.offset, message.data], ["open/a", offset, data]);
    assert.ok(Math.abs(message.time - Date.now()) < 60_000);
    assert.equal(subscription.position, message.position);
  }
  await publish(server, "open/a", Buffer.alloc(100_000, 7), "?binary=1");
  assert.deepEqual((await messages.next()).data, new Uint8Array(100_000).fill(7));
  subscription.close();
  const again = await subscribed(one, "open/a");
  assert.equal(again.first.position, subscription.position);
});

test("what can't be published says why", async (t) => {
  const one = client(t);
  await assert.rejects(one.publish("shut", "x"), { name: "FantailError", code: "not_allowed", topic: "shut" });
  await assert.rejects(one.publish("open", 5), { code: "bad_command" });
  await assert.rejects(one.publish("open", "x".repeat(2 << 20)), { code: "outcome_unknown" });
  assert.equal((await one.publish("open", "still here")).topic, "open");
  assert.throws(() => { one.subscribe("open"); one.subscribe("open"); }, { code: "already_subscribed" });
  one.close();
  await assert.rejects(one.publish("open", "x"), { code: "closed" });
  assert.throws(() => one.subscribe("other"), { code: "closed" });
});

test("after a break it goes on by position, and tells what it missed", async (t) => {
  const states = queue();
  const one = client(t, { onState: (state) => states.push(state) });
  const { messages, events, subscription } = await subscribed(one, "open/resume");
  await publish(server, "open/resume", "1");
  assert.equal((await messages.next()).data, "1");
  assert.equal(await kick("topic=open/resume&code=1012"), 1);
  const back = await events.next();
  assert.deepEqual([back.recovered, back.position], [true, subscription.position], "nothing was missed");
  assert.deepEqual([await states.next(), await states.next(), await states.next(), await states.next()],
    ["open", "waiting", "connecting", "open"]);
  // Missed: the topic keeps nothing. It is published from the moment on that nobody is there.
  assert.equal(await kick("topic=open/resume&code=1012"), 1);
  assert.equal((await states.next()), "waiting");
  await publish(server, "open/resume", "2");
  const info = await events.next();
  assert.equal(info.recovered, false);
  assert.deepEqual(await events.next(), { topic: "open/resume", kind: "expired", oldest: 3 });
  await publish(server, "open/resume", "3");
  assert.equal((await messages.next()).data, "3");
});

test("state is loaded behind the subscription, and what came meanwhile follows", async (t) => {
  const asked = queue();
  let answer;
  const one = client(t);
  const { messages, first } = await subscribed(one, "open/state", {
    getState: (position) => { asked.push(position); return new Promise((resolve, reject) => { answer = { resolve, reject }; }); },
  });
  assert.equal(await asked.next(), first.position);
  for (const data of ["1", "2", "3"]) await one.publish("open/state", data);
  answer.reject(new Error("the application's own trouble"));
  const later = await asked.next();
  assert.match(later, /:3$/, "asked again, from where it is by then");
  await one.publish("open/state", "4");
  await one.publish("open/state", "5");
  assert.equal(messages.length, 0);
  answer.resolve(later.replace(/:3$/, ":4"));
  assert.equal((await messages.next()).data, "5");
  await one.publish("open/state", "6");
  assert.equal((await messages.next()).data, "6");
});

test("an end for good is not answered with another try", async (t) => {
  const errors = queue();
  const one = client(t, { onError: (error) => errors.push(error) });
  await subscribed(one, "open/end");
  assert.equal(await kick("topic=open/end&code=4000"), 1);
  assert.equal((await errors.next()).code, "ended");
  assert.equal(one.state, "closed");
});

for (const [name, end] of [["refused", (socket) => socket.destroy()], ["dropped once open", null]]) {
  test(`two tries in half a second and no more: ${name}`, async (t) => {
    const tries = [];
    const bad = createServer();
    const sockets = new WebSocketServer({ noServer: true, handleProtocols: () => "fantail.json.v1" });
    bad.on("upgrade", (request, socket, head) => {
      tries.push(performance.now());
      if (end) end(socket);
      else sockets.handleUpgrade(request, socket, head, (opened) => opened.close(1001));
    });
    await new Promise((resolve) => bad.listen(0, "127.0.0.1", resolve));
    t.after(() => bad.close());
    const random = t.mock.method(Math, "random", () => 0);
    const one = client(t, { transports: ["websocket"] }, `127.0.0.1:${bad.address().port}`);
    // Whoever is woken all the time does not try more often either.
    const waking = setInterval(() => one.wake(), 20);
    t.after(() => clearInterval(waking));
    const start = performance.now();
    while (performance.now() - start < 2_300) await new Promise((resolve) => { setTimeout(resolve, 50); });
    assert.ok(random.mock.callCount() > 0 && tries.length >= 6, `${tries.length} tries`);
    for (let i = 2; i < tries.length; i++) assert.ok(tries[i] - tries[i - 2] >= 480, `${tries.map(Math.round)}`);
  });
}

test("a machine that slept comes back at once", async (t) => {
  t.mock.method(Math, "random", () => 0.999);
  const dead = createServer();
  await new Promise((resolve) => dead.listen(0, "127.0.0.1", resolve));
  const { port } = dead.address();
  let tries = 0;
  dead.on("upgrade", (_, socket) => { tries += 1; socket.destroy(); });
  t.after(() => dead.close());
  const one = client(t, { transports: ["websocket"] }, `127.0.0.1:${port}`);
  const until = (done) => within(WAIT, "the tries", (async () => { while (!done()) await new Promise((r) => { setTimeout(r, 20); }); })());
  await until(() => tries === 4 && one.state === "waiting");
  // The fourth wait is 4 s; the clock leaps as if the lid had been shut for a minute.
  const real = Date.now;
  const slept = performance.now();
  t.mock.method(Date, "now", () => real() + 60_000);
  await until(() => tries === 5);
  assert.ok(performance.now() - slept < 3_000, `${performance.now() - slept} ms`);
});

test("a silent connection is asked, and given up if it does not answer", async (t) => {
  const silent = createServer();
  const sockets = new WebSocketServer({ server: silent, handleProtocols: () => "fantail.json.v1" });
  const said = queue();
  sockets.on("connection", (socket) => socket.on("message", (text) => said.push(JSON.parse(text))));
  await new Promise((resolve) => silent.listen(0, "127.0.0.1", resolve));
  t.after(() => { silent.closeAllConnections(); silent.close(); });
  const states = queue();
  const one = client(t, { transports: ["websocket"], heartbeat: 100, onState: (state) => states.push(state) }, `127.0.0.1:${silent.address().port}`);
  assert.equal(await states.next(), "open");
  assert.deepEqual(await said.next(), { type: "ping" });
  assert.equal(await states.next(), "waiting");
  await assert.rejects(one.publish("open", "x").finally(() => one.close()), { code: "outcome_unknown" }).catch(() => {});
});

test("where WebSockets are blocked, event streams take over and a WebSocket comes back later", async (t) => {
  let blocked = true;
  // eslint-disable-next-line no-constructor-return
  const Sometimes = function (...given) { return blocked ? new Blocked() : new WebSocket(...given); };
  const one = client(t, { WebSocket: Sometimes });
  const { messages, first } = await subscribed(one, "open/sse");
  assert.equal(one.transport, "sse");
  assert.match(first.position, /^[0-9a-f]{16}:0$/);
  for (const [body, data, query] of [["text", "text"], ["{\"a\":[1]}", { a: [1] }], ["two\nlines", "two\nlines"], [Buffer.from([1, 255]), new Uint8Array([1, 255]), "?binary=1"]]) {
    await publish(server, "open/sse", body, query);
    const message = await messages.next();
    assert.deepEqual(message.data, data);
  }
  await assert.rejects(one.publish("open/sse", "x"), { code: "not_possible" });
  blocked = false;
  const real = Date.now;
  t.mock.method(Date, "now", () => real() + 5_000);
  await within(WAIT, "the silence", new Promise((resolve) => { setTimeout(resolve, 10); }));
  t.mock.restoreAll();
});
