// Subscriptions by pattern, against the real server over each transport, and against servers that have none.

import assert from "node:assert/strict";
import { createServer } from "node:http";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { publish, startServer } from "../../../tests/browsers/server.mjs";
import { WebSocket, WebSocketServer, client, kick, listening, queue, subscribed, until } from "./kit.mjs";

let server;
let folder;
before(async () => {
  folder = mkdtempSync(join(tmpdir(), "fantail-patterns-"));
  const config = join(folder, "fantail.toml");
  writeFileSync(config, "[[topic]]\npattern = \"kept/*\"\npublish = \"anyone\"\nhistory_messages = 1000\n");
  server = await startServer({ env: { FANTAIL_PUBLISH_TOPICS: "open*", FANTAIL_CONFIG: config } });
});
after(async () => { await server.stop(); rmSync(folder, { recursive: true }); });

class Blocked {
  constructor() { setTimeout(() => this.onclose?.({ code: 1006 })); }
  close() {}
}

/** A pattern whose messages and everything else come in queues. */
async function following(from, pattern, more = {}) {
  const [messages, events] = [queue(), queue()];
  const subscription = from.subscribePattern(pattern, {
    onMessage: (message) => messages.push(message),
    onSubscribed: (info) => events.push(info),
    onGap: (gap) => events.push(gap),
    onError: (error) => events.push(error),
    ...more,
  });
  return { subscription, messages, events, first: await events.next() };
}

const said = async (messages, count) => {
  const all = [];
  while (all.length < count) {
    const { topic, offset, data } = await messages.next();
    all.push(`${topic} ${offset} ${data}`);
  }
  return all.sort();
};

test("a pattern has what its topics say, each message once, and nothing behind its end", async (t) => {
  const one = client(t, server.listen);
  const level = await following(one, "open/p/*");
  assert.deepEqual([level.first.pattern, level.first.again, level.first.position], ["open/p/*", false, undefined]);
  const [rest, topic] = [await following(one, "open/**"), await subscribed(one, "open/p/a")];
  const place = (await publish(server, "open/p/a", "1")).epoch;
  for (const name of ["open/p/b", "open/p/b/c", "open/q", "shut"]) await publish(server, name, "1");
  await publish(server, "open/p/a", Buffer.from([1, 2]), "?binary=1");
  assert.deepEqual(await said(level.messages, 3), ["open/p/a 1 1", "open/p/a 2 1,2", "open/p/b 1 1"]);
  assert.deepEqual(await said(rest.messages, 5), ["open/p/a 1 1", "open/p/a 2 1,2", "open/p/b 1 1", "open/p/b/c 1 1", "open/q 1 1"]);
  assert.deepEqual(await said(topic.messages, 2), ["open/p/a 1 1", "open/p/a 2 1,2"]);
  assert.equal(topic.subscription.position, `${place}:2`);
  // Each ends by itself.
  topic.subscription.close();
  level.subscription.close();
  await publish(server, "open/p/a", "2");
  assert.deepEqual(await said(rest.messages, 1), ["open/p/a 3 2"]);
  rest.subscription.close();
  const again = await following(one, "open/p/*");
  await publish(server, "open/p/a", "3");
  assert.match((await said(again.messages, 1))[0], /^open\/p\/a \d 3$/);
  for (const { messages } of [level, rest, topic]) assert.equal(messages.length, 0);
  assert.throws(() => one.subscribePattern("open/p/*"), { code: "already_subscribed" });
  assert.throws(() => one.subscribePattern("open/p"), { code: "bad_command" });
  assert.throws(() => one.subscribe("open/*"), { code: "bad_command" });
});

test("what a topic's subscription reads again comes to a pattern once only", async (t) => {
  const one = client(t, server.listen);
  const { messages } = await following(one, "kept/*");
  const expected = [];
  let epoch;
  for (let offset = 1; offset <= 30; offset += 1) {
    ({ epoch } = await publish(server, "kept/a", String(offset)));
    expected.push(`kept/a ${offset} ${offset}`);
  }
  // From the beginning, while more comes; and once more from there by who left while it was reading.
  const from = { since: `${epoch}:0` };
  const left = one.subscribe("kept/a", from);
  left.close();
  const topic = await subscribed(one, "kept/a", from);
  for (let offset = 31; offset <= 60; offset += 1) {
    await publish(server, "kept/a", String(offset));
    expected.push(`kept/a ${offset} ${offset}`);
  }
  assert.deepEqual(await said(topic.messages, 60), [...expected].sort());
  assert.deepEqual(await said(messages, 60), [...expected].sort());
  topic.subscription.close();
  await publish(server, "kept/a", "61");
  assert.deepEqual(await said(messages, 1), ["kept/a 61 61"]);
  assert.equal(messages.length + topic.messages.length, 0);
});

test("after a break a pattern begins anew and says so; its state is loaded again", async (t) => {
  const one = client(t, server.listen);
  let loads = 0;
  const { messages, events, first } = await following(one, "open/r/*", { getState: () => { loads += 1; } });
  const topic = await subscribed(one, "open/r/b");
  await until("the state", () => loads === 1);
  assert.equal(await kick(server, "topic=open/r/b&code=1012"), 1);
  const again = await events.next();
  assert.deepEqual([first.again, again.again, again.pattern], [false, true, "open/r/*"]);
  assert.equal((await topic.events.next()).again, true);
  await until("the state once more", () => loads === 2);
  // A topic that begins another life begins its offsets anew.
  await publish(server, "open/r/a", "1");
  await publish(server, "open/r/b", "2");
  assert.deepEqual(await said(messages, 2), ["open/r/a 1 1", "open/r/b 1 2"]);
  assert.deepEqual(await said(topic.messages, 1), ["open/r/b 1 2"]);
});

test("the operator ends a pattern", async (t) => {
  const one = client(t, server.listen);
  const { events } = await following(one, "open/o/*");
  const answer = await fetch(`http://${server.admin}/connections/unsubscribe?topic=open/o/*`, { method: "POST" });
  assert.deepEqual(await answer.json(), { unsubscribed: 1 });
  assert.equal((await events.next()).code, "unsubscribed");
});

test("event streams have patterns beside topics, and each message once for each", async (t) => {
  const one = client(t, server.listen, { WebSocket: Blocked });
  const [level, topic] = await Promise.all([following(one, "open/s/*"), subscribed(one, "open/s/a")]);
  assert.equal(one.transport, "sse");
  // A later one has a stream of its own.
  const rest = await following(one, "open/s/**");
  for (const name of ["open/s/a", "open/s/b", "open/s/b/c"]) await publish(server, name, "x");
  await publish(server, "open/s/b", Buffer.from([7, 8]), "?binary=1");
  assert.deepEqual(await said(topic.messages, 1), ["open/s/a 1 x"]);
  assert.deepEqual(await said(level.messages, 3), ["open/s/a undefined x", "open/s/b undefined 7,8", "open/s/b undefined x"]);
  assert.equal((await said(rest.messages, 4)).at(-1), "open/s/b/c undefined x");
  assert.equal(await kick(server, "topic=open/s/*"), 1);
  assert.equal((await level.events.next()).again, true);
  assert.equal((await rest.events.next()).again, true);
  await publish(server, "open/s/b", "after");
  assert.deepEqual(await said(level.messages, 1), ["open/s/b undefined after"]);
  assert.deepEqual(await said(rest.messages, 1), ["open/s/b undefined after"]);
  assert.equal(topic.messages.length, 0);
});

test("long polls have none, and say so; topics go on", async (t) => {
  const network = (url, options) => (url.includes("/sse/") ? Promise.reject(new TypeError("blocked")) : fetch(url, options));
  const one = client(t, server.listen, { WebSocket: Blocked, fetch: network });
  const [{ first }, topic] = await Promise.all([following(one, "kept/*"), subscribed(one, "kept/poll")]);
  assert.equal(first.code, "not_possible");
  assert.equal(one.transport, "poll");
  await publish(server, "kept/poll", "x");
  assert.equal((await topic.messages.next()).data, "x");
});

test("of a server without patterns the answer is an error, and topics go on", async (t) => {
  const old = createServer((request, response) => {
    if (request.url.includes("*")) {
      response.writeHead(400).end("a topic's name has no *");
      return;
    }
    response.writeHead(200, { "Content-Type": "text/event-stream", "Fantail-Position": "00000000000000aa:7" });
    response.write("data: y\nid: 00000000000000aa:8\n\n");
  });
  const sockets = new WebSocketServer({ server: old, handleProtocols: () => "fantail.json.v1" });
  let refused = 0;
  sockets.on("connection", (socket) => socket.on("message", (text) => {
    const { id, topic } = JSON.parse(text);
    // As a server answers a command whose topic is none.
    refused += topic.includes("*") ? 1 : 0;
    socket.send(JSON.stringify(topic.includes("*")
      ? { type: "error", id, code: "bad_command", message: "a topic has no *" }
      : { type: "subscribed", id, topic, epoch: "00000000000000aa", offset: 7 }));
    if (!topic.includes("*")) socket.send(JSON.stringify({ type: "message", topic, offset: 8, data: "x" }));
  }));
  const at = await listening(t, old);
  for (const [more, code, data] of [[{}, "bad_command", "x"], [{ WebSocket: Blocked }, "not_possible", "y"]]) {
    const states = [];
    const one = client(t, at, { WebSocket, ...more, onState: (state) => states.push(state) });
    const [pattern, topic] = await Promise.all([following(one, "open/*"), subscribed(one, "open")]);
    assert.equal(pattern.first.code, code);
    assert.equal((await topic.messages.next()).data, data);
    // It is not asked again and again, and the connection stays.
    one.subscribe("other", {});
    await until("the other", () => one.state === "open");
    assert.equal(pattern.messages.length + pattern.events.length, 0);
    assert.equal(states.filter((state) => state === "open").length, 1);
  }
  assert.equal(refused, 1);
});
