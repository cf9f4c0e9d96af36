// What a device believes in: who is new, what two compare, and whether the order that the server shows can be true.

import assert from "node:assert/strict";
import { test } from "node:test";
import { NOTHING_SEEN, behind, believing, judge, judgeAll, lacks, met, news, safetyNumber } from "../../page/trust.js";

const device = (id) => ({ id });

test("the first devices are believed in, later ones are news", () => {
  assert.equal(met(null, []), null);
  assert.deepEqual(met(null, [device("a"), device("b")]), { believed: ["a", "b"], gone: [] });
  const known = met(null, [device("a")]);
  assert.deepEqual(news(known, [device("a"), device("b")]), [device("b")]);
  assert.deepEqual(news(known, [device("c")]), [device("c")]);
  assert.deepEqual(news({ believed: [], gone: [] }, [device("a")]), [device("a")]);
  assert.deepEqual(news(believing(known, [device("b")]), [device("a"), device("b")]), []);
});

test("a device that goes is not believed in any more, and news if it comes back", () => {
  const both = met(null, [device("a"), device("b")]);
  const one = met(both, [device("b")]);
  assert.deepEqual(one, { believed: ["b"], gone: ["a"] });
  assert.deepEqual(news(one, [device("b")]), []);
  const back = met(one, [device("a"), device("b")]);
  assert.deepEqual(back, { believed: ["b"], gone: ["a"] });
  assert.deepEqual(news(back, [device("a"), device("b")]), [device("a")]);
  assert.deepEqual(believing(back, [device("a")]), { believed: ["b", "a"], gone: [] });
  // Who has none left is not met for the first time once more.
  const none = met(both, []);
  assert.deepEqual(met(none, [device("c")]), { believed: [], gone: ["a", "b"] });
  assert.deepEqual(news(none, [device("c")]), [device("c")]);
  let many = both;
  for (let at = 0; at < 200; at += 1) many = met(believing(many, [device(`d${at}`)]), []);
  assert.equal(many.gone.length, 64);
});

test("two who believe in the same keys see the same number, and any other key makes another", async () => {
  const alice = { id: "alice", devices: ["1", "2"] };
  const bob = { id: "bob", devices: ["3"] };
  const number = await safetyNumber(alice, bob);
  assert.match(number, /^(\d{5} ){11}\d{5}$/);
  assert.equal(await safetyNumber(bob, { ...alice, devices: ["2", "1"] }), number);
  for (const [one, other] of [
    [{ ...alice, devices: ["1"] }, bob], [{ ...alice, devices: ["1", "4"] }, bob], [alice, { ...bob, devices: [] }], [alice, { ...bob, id: "rob" }],
    // The same devices, one of them the other's.
    [{ ...alice, devices: ["1", "2", "3"] }, { ...bob, devices: [] }],
  ]) assert.notEqual(await safetyNumber(one, other), number);
});

/** A conversation as the server shows it, held against nothing that was known; who looks a second time has to see the same. */
function shown(messages) {
  const seqOf = (id) => messages.find((one) => one.client_id === id)?.seq;
  const { verdicts, seen } = judgeAll(NOTHING_SEEN, messages, seqOf);
  assert.deepEqual(judgeAll(seen, messages, seqOf).verdicts, verdicts);
  return verdicts;
}

const message = (seq, client_id, by, after = null) => ({ seq, client_id, device: by, after });

test("what was written in turn is right, and so is what crossed on its way", () => {
  assert.deepEqual(shown([
    message(1, "a", "desk"), message(2, "b", "laptop"), message(3, "c", "desk", [1, "a"]), message(4, "d", "laptop", [3, "c"]),
    // The answer was lost, and what came after was written without having seen it.
    message(5, "e", "desk", [4, "d"]), message(6, "f", "desk", [4, "d"]),
  ]), [null, null, null, null, null, null]);
});

test("an order that can't be is seen", () => {
  const turned = [message(1, "a", "desk"), message(2, "c", "desk", [2, "b"]), message(3, "b", "desk", [1, "a"])];
  assert.deepEqual(shown(turned), [null, "out_of_order", "out_of_order"]);
  assert.equal(judge(NOTHING_SEEN, message(4, "x", "desk", [4, "y"]), () => 4), "out_of_order");
});

test("an old message once more is seen, also by who has read it long ago", () => {
  assert.deepEqual(shown([message(1, "a", "desk"), message(2, "b", "desk", [1, "a"])]), [null, null]);
  const ids = new Map([["a", 1]]);
  assert.equal(judge(NOTHING_SEEN, message(7, "a", "desk"), (id) => ids.get(id)), "repeated");
  let seen = NOTHING_SEEN;
  for (const one of [message(1, "a", "desk"), message(2, "b", "desk", [1, "a"])]) seen = behind(seen, one);
  // Of what was loaded only the new one is left.
  assert.equal(judge(seen, message(3, "b", "desk", [1, "a"]), () => 3), "repeated");
  assert.equal(judge(seen, message(3, "a", "desk"), () => 3), "out_of_order");
  assert.equal(judge(seen, message(2, "z", "laptop"), () => 2), "other_history");
  assert.equal(judge({ ...seen, top: [5, "e"] }, message(1, "b", "desk"), () => 1), "out_of_order");
});

test("what is wrong is wrong at the second look, too, also when more has come", () => {
  const good = [message(1, "a", "desk"), message(2, "b", "desk", [1, "a"])];
  const { seen } = judgeAll(NOTHING_SEEN, good, () => undefined);
  const look = (known, messages) => judgeAll(known, messages, () => undefined);
  for (const [wrong, verdict] of [
    [message(3, "b", "desk", [1, "a"]), "repeated"], [message(3, "a", "desk"), "out_of_order"],
    [message(3, "x", "desk", [3, "y"]), "out_of_order"], [message(2, "z", "laptop"), "other_history"],
  ]) {
    const first = look(seen, [wrong]);
    assert.deepEqual(first.verdicts, [verdict]);
    assert.deepEqual(look(first.seen, [wrong]).verdicts, [verdict]);
  }
  const turned = [message(1, "a", "desk"), message(2, "c", "desk", [2, "b"]), message(3, "b", "desk", [1, "a"])];
  const more = look(look(NOTHING_SEEN, turned).seen, [message(4, "d", "desk", [3, "b"])]);
  assert.deepEqual(more.verdicts, [null]);
  assert.deepEqual(look(more.seen, turned).verdicts, [null, "out_of_order", "out_of_order"]);
  // One that could not be opened, or was deleted, has no verdict and says nothing of a device.
  assert.deepEqual(look(seen, [{ seq: 3, client_id: "q" }]), { verdicts: [null], seen: { ...seen, top: [3, "q"] } });
});

test("one that was left out is missed by who was written behind it", () => {
  const here = new Map([[1, { client_id: "a" }], [3, { client_id: "c" }]]);
  const at = (seq) => here.get(seq);
  assert.equal(lacks(message(3, "c", "desk", [2, "b"]), at, 1), true);
  assert.equal(lacks(message(3, "c", "desk", [1, "other"]), at, 1), true);
  assert.equal(lacks(message(3, "c", "desk", [1, "a"]), at, 1), false);
  assert.equal(lacks(message(3, "c", "desk"), at, 1), false);
  // Further back than what is here: nobody knows yet.
  assert.equal(lacks(message(3, "c", "desk", [2, "b"]), at, 3), false);
});

test("what is remembered is bounded, and never goes back", () => {
  let seen = NOTHING_SEEN;
  for (let at = 1; at <= 200; at += 1) seen = behind(seen, message(at, `m${at}`, `device ${at}`));
  assert.deepEqual(seen.top, [200, "m200"]);
  assert.equal(Object.keys(seen.last).length, 64);
  assert.ok(Object.hasOwn(seen.last, "device 200"));
  assert.deepEqual(behind(seen, message(3, "m3", "device 200")), seen);
  // A message that was deleted, or could not be read, has a place and no device.
  assert.deepEqual(behind(NOTHING_SEEN, { seq: 1, client_id: "a" }), { top: [1, "a"], last: {} });
  // A device may have a name that objects have.
  assert.equal(judge(NOTHING_SEEN, message(1, "a", "constructor"), () => 1), null);
});
