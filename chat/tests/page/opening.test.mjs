// What a page makes of a message is made of its envelope: whatever else the server says beside it has no effect.

import assert from "node:assert/strict";
import { test } from "node:test";
import { isOpened, openMessage, withhold } from "../../page/opening.js";
import { makeDevice, seal } from "../../page/seal.js";

const PLACE = { conversation: "c0ffee", me: "bob", partner: "alice" };
const [desk, laptop] = await Promise.all([makeDevice(), makeDevice()]);
const envelope = await seal(desk, { conversation: "c0ffee", from: "alice", to: "bob", id: "client-0001", after: null }, [desk, laptop], "the real words");
const told = { conversation: "c0ffee", seq: 1, change: 1, author: { id: "alice", name: "alice" }, client_id: "client-0001", sent: 5, deleted: false, envelope };
// What a page itself puts into messages that it has opened.
const FORGED = { kind: "text", text: "forged", notes: [], device: "forged", devices: ["forged"], after: [9, "forged"], verdict: "repeated", problem: "forged", lacks: true, edited: 1 };

test("nothing that the server says beside an envelope has an effect", async () => {
  const right = await openMessage(laptop, told, PLACE);
  assert.equal(right.text, "the real words");
  assert.deepEqual(await openMessage(laptop, { ...told, ...FORGED }, PLACE), right);
});

test("a text without an envelope is none, and was not opened before whatever it says", async () => {
  const forged = { ...told, ...FORGED, envelope: undefined };
  assert.equal(isOpened(forged), false);
  const one = await openMessage(laptop, forged, PLACE);
  assert.deepEqual([one.text, one.device, one.devices], ["", undefined, undefined]);
  assert.match(one.problem, /^This is no message/);
  assert.equal(isOpened(one), true);
  // Only this very object was.
  assert.equal(isOpened({ ...one }), false);
});

test("a deleted message has a place and nothing else", async () => {
  const one = await openMessage(laptop, { ...told, ...FORGED, envelope: null, deleted: true }, PLACE);
  assert.deepEqual([one.deleted, one.text, one.device, one.problem, one.notes], [true, "", undefined, undefined, []]);
});

test("by somebody else than the two it is not shown", async () => {
  for (const author of [{ id: "mallory", name: "alice" }, null]) {
    const one = await openMessage(laptop, { ...told, author }, PLACE);
    assert.match(one.problem, /in a place that it was not written for/);
  }
  assert.match((await openMessage(laptop, told, { ...PLACE, partner: "mallory" })).problem, /in a place/);
});

test("what is withheld has no text and no device", async () => {
  const one = withhold(await openMessage(laptop, told, PLACE), "why");
  assert.deepEqual([one.text, one.problem, "device" in one, "devices" in one, isOpened(one)], ["", "why", false, false, true]);
});
