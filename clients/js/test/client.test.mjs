// The client against the real server, and against servers that misbehave.

import assert from "node:assert/strict";
import { createServer } from "node:http";
import { createServer as createPlainServer } from "node:net";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { publish, startServer } from "../../../tests/browsers/server.mjs";
import { WAIT, WebSocket, WebSocketServer, client, kick, listening, queue, subscribed, until } from "./kit.mjs";

let server;
before(async () => { server = await startServer({ env: { FANTAIL_PUBLISH_TOPICS: "open*" } }); });
after(() => server.stop());

test("what is published comes as what it was", async (t) => {
  const one = client(t, server.listen);
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
  const one = client(t, server.listen);
  await assert.rejects(one.publish("shut", "x"), { name: "FantailError", code: "not_allowed", topic: "shut" });
  await assert.rejects(one.publish("open", 5), { code: "bad_command" });
  await assert.rejects(one.publish("open", "x".repeat(2 << 20)), { code: "outcome_unknown" });
  assert.equal((await one.publish("open", "still here")).topic, "open");
  assert.throws(() => { one.subscribe("open"); one.subscribe("open"); }, { code: "already_subscribed" });
  one.close();
  await assert.rejects(one.publish("open", "x"), { code: "closed" });
  assert.throws(() => one.subscribe("other"), { code: "closed" });
});

test("the application answers what is published to a topic of its own", async (t) => {
  const folder = mkdtempSync(join(tmpdir(), "fantail-forward-"));
  t.after(() => rmSync(folder, { recursive: true }));
  const application = await listening(t, createServer(async (request, response) => {
    let body = "";
    for await (const part of request) body += part;
    const messages = JSON.parse(body).messages.map(({ id, data }) => (
      data.rude ? { id, refuse: { code: "rude", text: "say please" } } : { id, reply: { data: { got: data } } }));
    response.end(JSON.stringify({ messages }));
  }));
  const [secret, config] = [join(folder, "secret"), join(folder, "fantail.toml")];
  writeFileSync(secret, "a secret of some length, at least", { mode: 0o600 });
  const rule = `[[topic]]\npattern = "app/*"\npublish = "anyone"\nforward = "http://${application}/"\n`;
  writeFileSync(config, `[forward]\nsecret_file = "${secret}"\n${rule}`);
  const forwarding = await startServer({ env: { FANTAIL_CONFIG: config } });
  t.after(() => forwarding.stop());
  const one = client(t, forwarding.listen);
  const { topic, offset, data } = await one.publish("app/a", { x: 1 });
  assert.deepEqual([topic, offset, data], ["app/a", undefined, { got: { x: 1 } }]);
  await assert.rejects(one.publish("app/a", { rude: true }), { code: "refused", message: /say please/ });
});

test("after a break it goes on by position, and tells what it missed", async (t) => {
  const states = queue();
  const one = client(t, server.listen, { onState: (state) => states.push(state) });
  const { messages, events, subscription } = await subscribed(one, "open/resume");
  await publish(server, "open/resume", "1");
  assert.equal((await messages.next()).data, "1");
  assert.equal(await kick(server, "topic=open/resume&code=1012"), 1);
  const back = await events.next();
  assert.deepEqual([back.recovered, back.position], [true, subscription.position], "nothing was missed");
  assert.deepEqual([await states.next(), await states.next(), await states.next(), await states.next()],
    ["open", "waiting", "connecting", "open"]);
  // Missed: the topic keeps nothing. It is published from the moment on that nobody is there.
  assert.equal(await kick(server, "topic=open/resume&code=1012"), 1);
  assert.equal((await states.next()), "waiting");
  await publish(server, "open/resume", "2");
  const info = await events.next();
  assert.equal(info.recovered, false);
  assert.deepEqual(await events.next(), { topic: "open/resume", kind: "expired", oldest: 3 });
  await publish(server, "open/resume", "3");
  assert.equal((await messages.next()).data, "3");
});

test("on a topic that keeps messages nothing is missed, however often it breaks", async (t) => {
  const folder = mkdtempSync(join(tmpdir(), "fantail-client-"));
  const config = join(folder, "fantail.toml");
  writeFileSync(config, "[[topic]]\npattern = \"kept*\"\npublish = \"anyone\"\nhistory_messages = 1000\n");
  const keeping = await startServer({ env: { FANTAIL_CONFIG: config } });
  t.after(async () => { await keeping.stop(); rmSync(folder, { recursive: true }); });
  const one = client(t, keeping.listen);
  const { messages, events } = await subscribed(one, "kept");
  let published = 0;
  const publishing = (async () => {
    for (; published < 300; published += 1) await publish(keeping, "kept", String(published + 1));
  })();
  for (let breaks = 1; breaks <= 4; breaks += 1) {
    await until("some more", () => published >= breaks * 40);
    await kick(keeping, "topic=kept&code=1012");
    assert.equal((await events.next()).recovered, true);
  }
  await publishing;
  for (let offset = 1; offset <= 300; offset += 1) {
    const message = await messages.next();
    assert.deepEqual([message.offset, message.data], [offset, String(offset)]);
  }
  assert.equal(events.length, 0, "no gap");
  // The newest come first to who asks for some.
  const late = client(t, keeping.listen);
  const newest = await subscribed(late, "kept", { history: 2 });
  assert.deepEqual([(await newest.messages.next()).offset, (await newest.messages.next()).offset], [299, 300]);
});

test("state is loaded behind the subscription, and what came meanwhile follows", async (t) => {
  const asked = queue();
  let answer;
  const one = client(t, server.listen);
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
  const one = client(t, server.listen, { onError: (error) => errors.push(error) });
  await subscribed(one, "open/end");
  assert.equal(await kick(server, "topic=open/end&code=4000"), 1);
  assert.equal((await errors.next()).code, "ended");
  assert.equal(one.state, "closed");
});

/** What a client took for the time of the try that it begins: it may be begun as much later as a busy machine likes. */
function timesOfTries(t) {
  let last;
  const now = performance.now.bind(performance);
  t.mock.method(performance, "now", () => (last = now()));
  return () => last;
}

for (const [name, end] of [["refused", (socket) => socket.destroy()], ["dropped once open", null]]) {
  test(`two tries in half a second and no more: ${name}`, async (t) => {
    const tries = [];
    const bad = createServer();
    const sockets = new WebSocketServer({ noServer: true, handleProtocols: () => "fantail.json.v1" });
    bad.on("upgrade", (request, socket, head) => {
      if (end) end(socket);
      else sockets.handleUpgrade(request, socket, head, (opened) => opened.close(1001));
    });
    const at = await listening(t, bad);
    const random = t.mock.method(Math, "random", () => 0);
    const begun = timesOfTries(t);
    class Timed extends WebSocket {
      constructor(...given) {
        tries.push(begun());
        super(...given);
      }
    }
    const one = client(t, at, { transports: ["websocket"], WebSocket: Timed });
    // Whoever is woken all the time does not try more often either.
    const waking = setInterval(() => one.wake(), 20);
    t.after(() => clearInterval(waking));
    const start = performance.now();
    const enough = () => performance.now() - start > 2_300 && (tries.length >= 6 || performance.now() - start > WAIT);
    while (!enough()) await new Promise((resolve) => { setTimeout(resolve, 50); });
    assert.ok(random.mock.callCount() > 0 && tries.length >= 6, `${tries.length} tries`);
    for (let i = 2; i < tries.length; i++) assert.ok(tries[i] - tries[i - 2] >= 499, `${tries.map(Math.round)}`);
  });
}

test("two tries in half a second and no more, over whichever transport and whatever the server answers", async (t) => {
  t.mock.method(Math, "random", () => 0);
  const begun = timesOfTries(t);
  const answers = {
    broken: (socket) => socket.resetAndDestroy(),
    "not let in": (socket) => socket.end("HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"),
    full: (socket) => socket.end("HTTP/1.1 503 Service Unavailable\r\nRetry-After: 0\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"),
    "soon over": (socket) => socket.end("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nFantail-Position: 00000000000000aa:7\r\nConnection: close\r\n\r\nretry: 0\n\n"),
  };
  const all = await Promise.all(Object.entries(answers).map(async ([name, answer]) => {
    const bad = createPlainServer((socket) => {
      socket.on("error", () => {});
      socket.once("data", () => answer(socket));
    });
    await new Promise((resolve) => { bad.listen(0, "127.0.0.1", resolve); });
    t.after(() => bad.close());
    const tries = [];
    const timed = (...given) => {
      tries.push(begun());
      return fetch(...given);
    };
    class Timed extends WebSocket {
      constructor(...given) {
        tries.push(begun());
        super(...given);
      }
    }
    const one = client(t, `127.0.0.1:${bad.address().port}`, { WebSocket: Timed, fetch: timed, getToken: () => "token" });
    one.subscribe("t");
    const waking = setInterval(() => one.wake(), 20);
    t.after(() => clearInterval(waking));
    return { name, tries, one };
  }));
  // Who is not let in is sent away for good: by two WebSockets and a stream, and with another token by one of each.
  await until("some tries", () => all.every(({ name, tries, one }) => (name === "not let in" ? one.state === "closed" : tries.length >= 5)));
  for (const { name, tries } of all) {
    if (name === "not let in") assert.equal(tries.length, 5);
    for (let i = 2; i < tries.length; i += 1) assert.ok(tries[i] - tries[i - 2] >= 499, `${name}: ${tries.map(Math.round)}`);
  }
});

test("a machine that slept comes back at once", async (t) => {
  t.mock.method(Math, "random", () => 0.999);
  const dead = createServer();
  const at = await listening(t, dead);
  let tries = 0;
  dead.on("upgrade", (_, socket) => { tries += 1; socket.destroy(); });
  const one = client(t, at, { transports: ["websocket"] });
  await until("five tries", () => tries === 5 && one.state === "waiting");
  // The fifth wait is 8 s; the clock leaps as if the lid had been shut for a minute.
  const real = Date.now;
  const slept = performance.now();
  t.mock.method(Date, "now", () => real() + 60_000);
  await until("a sixth", () => tries === 6);
  assert.ok(performance.now() - slept < 6_000, `${performance.now() - slept} ms`);
});

test("a silent connection is asked, and given up if it does not answer", async (t) => {
  const silent = createServer();
  const sockets = new WebSocketServer({ server: silent, handleProtocols: () => "fantail.json.v1" });
  const said = queue();
  sockets.on("connection", (socket) => socket.on("message", (text) => said.push(JSON.parse(text))));
  const at = await listening(t, silent);
  const states = queue();
  const one = client(t, at, { transports: ["websocket"], heartbeat: 100, onState: (state) => states.push(state) });
  assert.equal(await states.next(), "open");
  assert.deepEqual(await said.next(), { type: "ping" });
  assert.equal(await states.next(), "waiting");
  assert.equal(one.transport, null);
});
