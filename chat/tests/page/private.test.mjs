// The list of private conversations without a page around it: how often it is asked for, what becomes of a failure, and what it says
// of messages that are not read.

import assert from "node:assert/strict";
import { test } from "node:test";

const element = () => ({
  addEventListener() {}, append() {}, replaceChildren() {}, setAttribute() {}, querySelector: () => null, dataset: {}, style: {}, classList: { toggle() {} },
  scrollHeight: 0, scrollTop: 0, clientHeight: 0,
});
const nothing = element();
Object.assign(globalThis, {
  document: { getElementById: () => nothing, createElement: element, hidden: true },
  ResizeObserver: class { observe() {} },
  sessionStorage: { getItem: () => null, setItem() {} },
});
const { Privates } = await import("../../page/private.js");

const page = { open() {}, changed() {}, current: () => null, listed() {} };
const told = (more) => ({ id: "c0ffee", with: { id: "bob", name: "bob" }, change: 1, newest: 3, moved: 1, seen: 0, unread: 3, blocked: false, ...more });

/** The application; gives when its list of conversations was asked for. Without an answer it can't be reached. */
function application(answer) {
  const asked = [];
  globalThis.fetch = async (path) => {
    if (path === "/api/conversations") asked.push(performance.now());
    const made = answer(path, asked.length);
    if (!made) throw new Error("offline");
    return { ok: true, json: async () => made };
  };
  return asked;
}

async function until(condition) {
  const end = performance.now() + 30_000;
  while (!condition()) {
    assert.ok(performance.now() < end, "too late");
    await new Promise((resolve) => { setTimeout(resolve, 5); });
  }
}

test("however much is told at once, the list is asked for once a second", async () => {
  const asked = application(() => ({ conversations: [] }));
  const privates = new Privates(page);
  await privates.begin({ id: "alice", name: "alice" });
  assert.equal(asked.length, 1);
  for (let at = 0; at < 50; at += 1) {
    privates.hear({ conversations: "changed" });
    privates.hear({ private: { conversation: `c${at}` } });
  }
  await Promise.all([privates.sync(), privates.sync()]);
  assert.equal(asked.length, 2);
  assert.ok(asked[1] - asked[0] >= 990, `${asked[1] - asked[0]} ms`);
  privates.end();
});

test("a failure is told to who asks, and what was heard is asked for again until it is known", async () => {
  let isThere = false;
  const asked = application(() => isThere && { conversations: [told()] });
  const privates = new Privates(page);
  await privates.begin({ id: "alice", name: "alice" });
  await assert.rejects(() => privates.sync(), { code: "offline" });
  privates.hear({ conversations: "changed" });
  isThere = true;
  await until(() => privates.all.size === 1);
  assert.ok(asked.length >= 3);
  privates.end();
});

test("what this page has counted is not counted twice behind a gap", async () => {
  let list = [told()];
  application((path) => (path === "/api/conversations" ? { conversations: list } : { messages: [], change: 5, more: false }));
  const privates = new Privates(page);
  await privates.begin({ id: "alice", name: "alice" });
  const one = privates.all.get("c0ffee");
  assert.equal(one.unread, 3);
  Object.assign(one, { change: 5, seen: 3, unread: 1 });
  // The server counts two that this page is about to hear of.
  list = [told({ seen: 3, unread: 3 })];
  await privates.sync();
  assert.deepEqual([one.seen, one.unread], [3, 1]);
  list = [told({ seen: 6, unread: 0 })];
  await privates.sync();
  assert.deepEqual([one.seen, one.unread], [6, 0]);
  privates.end();
});
