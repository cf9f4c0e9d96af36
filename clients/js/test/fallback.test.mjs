// Where WebSockets are blocked: event streams, and what comes back when they are not any more.

import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { publish, startServer } from "../../../tests/browsers/server.mjs";
import { WebSocket, client, kick, queue, subscribed, until } from "./kit.mjs";

const ENV = { FANTAIL_PUBLISH_TOPICS: "open*", FANTAIL_TIMEOUTS_SSE_HEARTBEAT_SECONDS: "1", FANTAIL_TIMEOUTS_SSE_RETRY_SECONDS: "1" };
const BODIES = [
  ["text", "text"],
  ["{\"a\":[1]}", { a: [1] }],
  ["two\nlines", "two\nlines"],
  ["lines\u2028and\u2029paragraphs", "lines\u2028and\u2029paragraphs"],
  ["", ""],
  [Buffer.from([1, 255]), new Uint8Array([1, 255]), "?binary=1"],
];

let server;
let folder;
before(async () => {
  folder = mkdtempSync(join(tmpdir(), "fantail-fallback-"));
  const config = join(folder, "fantail.toml");
  writeFileSync(config, "[[topic]]\npattern = \"kept*\"\nhistory_messages = 100\n");
  server = await startServer({ env: { ...ENV, FANTAIL_CONFIG: config } });
});
after(async () => { await server.stop(); rmSync(folder, { recursive: true }); });

/** A WebSocket that the network lets through or not. */
function behind(network) {
  return function Behind(...given) {
    if (!network.blocked) return new WebSocket(...given);
    setTimeout(() => this.onclose?.({ code: 1006 }));
    this.close = () => {};
    return undefined;
  };
}

test("event streams take over, go on by position, and can't publish", async (t) => {
  const one = client(t, server.listen, { WebSocket: behind({ blocked: true }) });
  const { messages, events, first, subscription } = await subscribed(one, "open/sse");
  assert.equal(one.transport, "sse");
  assert.match(first.position, /^[0-9a-f]{16}:0$/);
  for (const [body, data, query] of BODIES) {
    await publish(server, "open/sse", body, query);
    const message = await messages.next();
    assert.deepEqual([message.data, message.position], [data, subscription.position]);
  }
  await assert.rejects(one.publish("open/sse", "x"), { code: "not_possible" });
  assert.equal(await kick(server, "topic=open/sse"), 1);
  assert.equal((await events.next()).position, subscription.position, "goes on where it was");
  await publish(server, "open/sse", "after the break");
  assert.equal((await messages.next()).data, "after the break");
});

test("where streams are blocked, too, long polls take over", async (t) => {
  const asked = [];
  const network = (url, options) => {
    asked.push(new URL(url).pathname);
    return url.includes("/sse/") ? Promise.reject(new TypeError("blocked")) : fetch(url, options);
  };
  const one = client(t, server.listen, { WebSocket: behind({ blocked: true }), fetch: network });
  const [{ messages, subscription, first }, other] = await Promise.all(["kept/poll", "kept/other"].map((topic) => subscribed(one, topic)));
  assert.deepEqual([one.transport, asked.filter((path) => path.startsWith("/sse/")).length], ["poll", 1]);
  assert.match(first.position, /^[0-9a-f]{16}:0$/);
  for (const [body, , query] of BODIES) await publish(server, "kept/poll", body, query);
  for (const [, data] of BODIES) assert.deepEqual((await messages.next()).data, data);
  assert.match(subscription.position, new RegExp(`:${BODIES.length}$`));
  await publish(server, "kept/other", "too");
  assert.equal((await other.messages.next()).data, "too");
  // A poll that waits is cut off; the next one goes on from there.
  one.wake();
  await publish(server, "kept/poll", "meanwhile");
  assert.equal((await messages.next()).data, "meanwhile");
});

test("several topics share a stream", async (t) => {
  const one = client(t, server.listen, { WebSocket: behind({ blocked: true }) });
  const all = await Promise.all(["open/x", "open/y", "open/é,:"].map((topic) => subscribed(one, topic)));
  for (const { subscription, messages } of all) {
    for (const [body, data, query] of BODIES) {
      await publish(server, subscription.topic, body, query);
      const message = await messages.next();
      assert.deepEqual([message.topic, message.data, message.position], [subscription.topic, data, subscription.position]);
    }
  }
  const rows = await (await fetch(`http://${server.admin}/connections?topic=open/y`)).json();
  assert.equal(rows.connections.length, 1);
  assert.equal(rows.connections[0].topics.length, 3, JSON.stringify(rows));
  // A later one has a stream of its own until the next connection.
  const late = await subscribed(one, "open/late");
  await publish(server, "open/late", "here");
  assert.equal((await late.messages.next()).data, "here");
});

test("a WebSocket takes over again when the network lets it through", async (t) => {
  const network = { blocked: true };
  const transports = queue();
  const one = client(t, server.listen, { WebSocket: behind(network), onState: (state) => state === "open" && transports.push(one.transport) });
  const { messages, subscription } = await subscribed(one, "open/back");
  assert.equal(await transports.next(), "sse");
  await publish(server, "open/back", "1");
  assert.equal((await messages.next()).data, "1");
  // A minute in twenty seconds.
  const [real, start] = [Date.now, Date.now()];
  t.mock.method(Date, "now", () => start + (real() - start) * 3);
  network.blocked = false;
  assert.equal(await transports.next(60_000), "websocket");
  const before = subscription.position;
  await until("the subscription", () => subscription.position === before);
  const { offset } = await one.publish("open/back", "2");
  const message = await messages.next();
  assert.deepEqual([message.data, message.offset], ["2", offset]);
});
