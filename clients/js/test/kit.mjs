// What the tests of the client share: the real server, queues of what comes, and a client that goes when its test does.

import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { connect } from "../fantail.js";
import { within } from "../../../tests/browsers/server.mjs";

const require = createRequire(new URL("../../../tests/browsers/package.json", import.meta.url));
export const { WebSocket, WebSocketServer } = require("ws");
export const WAIT = 60_000;

/** Things as they come; each wait has an end. */
export function queue() {
  const come = [];
  let wake = () => {};
  return {
    push(what) { come.push(what); wake(); },
    get length() { return come.length; },
    async next(ms = WAIT) {
      while (!come.length) await within(ms, "the next thing", new Promise((resolve) => { wake = resolve; }));
      return come.shift();
    },
  };
}

export function client(t, at, options = {}) {
  const made = connect(`http://${at}`, { WebSocket, ...options });
  t.after(() => made.close());
  return made;
}

/** A subscription whose messages and everything else come in queues. */
export async function subscribed(from, topic, more = {}) {
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

/** Ends connections through the admin port. */
export async function kick(server, query) {
  const answer = await fetch(`http://${server.admin}/connections/close?${query}`, { method: "POST" });
  assert.equal(answer.status, 200, await answer.clone().text());
  return (await answer.json()).closed;
}

/** A server that answers nothing but what it is told here. */
export async function listening(t, made) {
  await new Promise((resolve) => { made.listen(0, "127.0.0.1", resolve); });
  t.after(() => { made.closeAllConnections(); made.close(); });
  return `127.0.0.1:${made.address().port}`;
}

export async function until(what, done) {
  const start = performance.now();
  while (!done()) {
    assert.ok(performance.now() - start < WAIT, what);
    await new Promise((resolve) => { setTimeout(resolve, 20); });
  }
}
