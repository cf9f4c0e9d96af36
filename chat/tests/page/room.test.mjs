// A room without a page around it: what it asks the application for, and what it sends for whom.

import assert from "node:assert/strict";
import { test } from "node:test";

const nothing = { addEventListener() {}, scrollHeight: 0, scrollTop: 0, clientHeight: 0 };
Object.assign(globalThis, {
  document: { getElementById: () => nothing, hidden: true },
  ResizeObserver: class { observe() {} },
  sessionStorage: { getItem: () => null, setItem() {} },
});
const { Room } = await import("../../page/room.js");
const { postAs, speakFor } = await import("../../page/api.js");

const made = () => new Room({ id: "lobby", name: "Lobby", role: "member", open: true, unread: 0, seen: 0 }, { id: "alice", name: "alice" }, () => {});
const text = (seq) => ({ seq, change: seq, kind: "text", text: `${seq}`, client_id: `c${seq}`, author: { id: "bob", name: "bob" }, sent: 1 });

/** The application: each request waits in `asked` for its answer. */
function application() {
  const asked = [];
  globalThis.fetch = (path, { method }) => new Promise((resolve, reject) => {
    asked.push({ path, method, answer: (told) => resolve({ ok: true, json: async () => told }), fail: () => reject(new Error("offline")) });
  });
  return asked;
}

async function until(condition) {
  const end = performance.now() + 10_000;
  while (!condition()) {
    assert.ok(performance.now() < end, "too late");
    await new Promise((resolve) => { setImmediate(resolve); });
  }
}

test("a change that is heard while it is asked for others is asked for behind them", async () => {
  const asked = application();
  const room = made();
  const first = room.sync();
  await until(() => asked.length === 1);
  asked[0].answer({ messages: [text(1)], change: 1, more: false });
  await first;
  const second = room.sync();
  await until(() => asked.length === 2);
  // The answer to this was made before what is heard now, and has a hole before it.
  room.hear(text(3));
  asked[1].answer({ messages: [], change: 1, more: false });
  await until(() => asked.length === 3);
  assert.match(asked[2].path, /after_change=1$/);
  asked[2].answer({ messages: [text(2), text(3)], change: 3, more: false });
  await second;
  assert.deepEqual([...room.messages.keys()], [1, 2, 3]);
  assert.equal(asked.length, 3);
});

test("what is missed behind a hole and can't be asked for is asked for later", async () => {
  const asked = application();
  const room = made();
  room.change = 1;
  room.hear(text(3));
  await until(() => asked.length === 1);
  asked[0].fail();
  await until(() => {
    room.retry();
    return asked.length === 2;
  });
  asked[1].answer({ messages: [text(2), text(3)], change: 3, more: false });
  await until(() => room.messages.size === 2);
  room.retry();
  assert.equal(asked.length, 2);
});

test("what waits in a queue is not sent with the next person's session", async () => {
  const asked = application();
  speakFor("alice");
  const room = made();
  room.send("one");
  room.send("two");
  await until(() => asked.length === 1);
  speakFor("bob");
  asked[0].answer({ ...text(1), author: { id: "alice", name: "alice" } });
  await until(() => [...room.sending.values()].some(({ state }) => state === "failed"));
  assert.equal(asked.length, 1);
  assert.deepEqual([...room.sending.values()].map((one) => [one.text, one.code, one.passes]), [["two", "left", false]]);
  await assert.rejects(() => postAs("alice", "/x", {}), { code: "left" });
  assert.equal(asked.length, 1);
});
