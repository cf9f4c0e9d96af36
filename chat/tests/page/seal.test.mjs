// Private messages sealed and opened in Node: what RFC 9180 says comes out, whoever shall can read, and nothing that anybody on the
// way changes, moves or makes up is taken for a message.

import assert from "node:assert/strict";
import { test } from "node:test";
import { Refused, deviceId, fromBase64, hpke, makeDevice, open, seal, toBase64 } from "../../page/seal.js";

const hex = (text) => Uint8Array.from(text.replaceAll(/\s/g, "").match(/../g), (pair) => Number.parseInt(pair, 16));
const HEADER = { conversation: "c0ffee", from: "alice", to: "bob", id: "client-0001", after: [6, "client-0000"] };
const TOLD = { conversation: "c0ffee", author: "alice", partner: "bob", id: "client-0001" };

/** alice with two devices, bob with two, and mallory. */
async function people() {
  const names = ["desk", "phone", "laptop", "tablet", "mallory"];
  const made = await Promise.all(names.map(makeDevice));
  return Object.fromEntries(names.map((name, at) => [name, made[at]]));
}

const sealed = ({ desk, phone, laptop, tablet }, text = "the treasure is under the tree", header = HEADER) => seal(desk, header, [desk, phone, laptop, tablet], text);

async function refuses(code, device, envelope, told = TOLD) {
  await assert.rejects(() => open(device, envelope, told), (error) => {
    assert.ok(error instanceof Refused, String(error?.stack));
    assert.equal(error.code, code);
    return true;
  });
}

test("what RFC 9180, A.3.3, seals is opened: auth mode of P-256, HKDF-SHA256, AES-128-GCM", async () => {
  const point = hex("04423e363e1cd54ce7b7573110ac121399acbc9ed815fae03b72ffbd4c18b01836835c5a09513f28fc971b7266cfde2e96afe84bb0f266920e82c4f53b36e1a78d");
  const sender = hex("04a817a0902bf28e036d66add5d544cc3a0457eab150f104285df1e293b5c10eef8651213e43d9cd9086c80b309df22cf37609f58c1127f7607e85f210b2804f73");
  const enc = hex("042224f3ea800f7ec55c03f29fc9865f6ee27004f818fcbdc6dc68932c1e52e15b79e264a98f2c535ef06745f3d308624414153b22c7332bc1e691cb4af4d53454");
  const jwk = { kty: "EC", crv: "P-256", x: toBase64(point.subarray(1, 33)), y: toBase64(point.subarray(33)), d: toBase64(hex("d929ab4be2e59f6954d6bedd93e638f02d4046cef21115b00cdda2acb2a4440e")) };
  const privateKey = await crypto.subtle.importKey("jwk", jwk, { name: "ECDH", namedCurve: "P-256" }, false, ["deriveBits"]);
  const secret = await hpke.decapsulate(enc, { key: toBase64(point), privateKey }, sender);
  assert.deepEqual(secret, hex("d4aea336439aadf68f9348880aa358086f1480e7c167b6ef15453ba69b94b44f"));
  const info = hex("4f6465206f6e2061204772656369616e2055726e");
  const text = await hpke.openOnce(secret, info, hex("436f756e742d30"), hex("82ffc8c44760db691a07c5627e5fc2c08e7a86979ee79b494a17cc3405446ac2bdb8f265db4a099ed3289ffe19"));
  assert.deepEqual(text, hex("4265617574792069732074727574682c20747275746820626561757479"));
});

test("each device of both reads it, and learns which device has written it", async () => {
  const all = await people();
  for (const text of ["x", "é 🎈 <b>\u0000", "\ufeffmarked", "🎈".repeat(4_000), "a".repeat(252), "a".repeat(253)]) {
    const envelope = await sealed(all, text);
    for (const name of ["desk", "phone", "laptop", "tablet"]) {
      const opened = await open(all[name], envelope, TOLD);
      assert.equal(opened.text, text);
      assert.equal(opened.device, all.desk.id);
      assert.deepEqual(opened.after, [6, "client-0000"]);
      assert.deepEqual(opened.devices, [all.desk, all.phone, all.laptop, all.tablet].map(({ id }) => id).sort());
    }
  }
});

test("it holds no text, and little of its length", async () => {
  const all = await people();
  const envelope = await sealed(all);
  assert.ok(!JSON.stringify(envelope).includes("treasure"));
  for (const [text, length] of [["a", 256], ["a".repeat(252), 256], ["a".repeat(253), 512], ["🎈".repeat(4_000), 16_128]]) {
    assert.equal(fromBase64((await sealed(all, text)).body).length, length + 16, text.length);
  }
  // The same words twice are two messages that nobody can tell to be the same.
  const [one, other] = [await sealed(all), await sealed(all)];
  assert.notEqual(one.body, other.body);
  assert.notEqual(one.keys[all.phone.id].enc, other.keys[all.phone.id].enc);
});

test("a private key can be read by nobody", async () => {
  const { privateKey } = await makeDevice();
  assert.equal(privateKey.extractable, false);
  for (const form of ["jwk", "pkcs8", "raw"]) await assert.rejects(() => crypto.subtle.exportKey(form, privateKey));
});

test("a device that it was not written for can't read it", async () => {
  const all = await people();
  const envelope = await sealed(all);
  await refuses("other_device", all.mallory, envelope);
  // Not even with a part that it took from another.
  for (const name of ["desk", "laptop"]) {
    const stolen = structuredClone(envelope);
    stolen.keys[all.mallory.id] = stolen.keys[all[name].id];
    await refuses("forged", all.mallory, stolen);
  }
  const left = structuredClone(envelope);
  delete left.keys[all.phone.id];
  await refuses("other_device", all.phone, left);
  // A name that every object has is no device.
  await refuses("other_device", { ...all.phone, id: "constructor" }, envelope);
});

/** The text with its character at `at` changed to another of base64url, which changes bits that count. */
function bent(text, at = 0) {
  return text.slice(0, at) + (text[at] === "A" ? "B" : "A") + text.slice(at + 1);
}

test("a change of any part is seen", async () => {
  const all = await people();
  const envelope = await sealed(all);
  const own = all.laptop.id;
  const changes = {
    iv: (one) => { one.iv = bent(one.iv); },
    "body's beginning": (one) => { one.body = bent(one.body); },
    "body's tag": (one) => { one.body = bent(one.body, one.body.length - 4); },
    "a shorter body": (one) => { one.body = one.body.slice(0, -4); },
    "no body": (one) => { one.body = ""; },
    "the key part": (one) => { one.keys[own].key = bent(one.keys[own].key); },
    "the ephemeral key": (one) => { one.keys[own].enc = bent(one.keys[own].enc, 20); },
    "another's part": (one) => { one.keys[own] = one.keys[all.tablet.id]; },
    "another's ephemeral key": (one) => { one.keys[own].enc = one.keys[all.tablet.id].enc; },
    "no base64": (one) => { one.iv = "%"; },
  };
  for (const [what, change] of Object.entries(changes)) {
    const changed = structuredClone(envelope);
    change(changed);
    await assert.doesNotReject(() => open(all.laptop, envelope, TOLD));
    await assert.rejects(() => open(all.laptop, changed, TOLD), (error) => error instanceof Refused && error.code === "forged", what);
  }
});

test("a change of anything that its header says is seen, whether or not the server says the same", async () => {
  const all = await people();
  const envelope = await sealed(all);
  const header = JSON.parse(envelope.header);
  const changes = {
    v: [2, "malformed"], conversation: ["decade", "swapped"], from: ["bob", "swapped"], to: ["alice", "swapped"], id: ["client-0002", "swapped"],
    device: [all.phone.id, "forged"], key: [all.phone.key, "forged"], after: [[5, "client-0000"], "forged"], commitment: [toBase64(new Uint8Array(32)), "forged"], devices: [[all.laptop.id], "forged"], more: ["x", "forged"],
  };
  for (const [name, [value, code]] of Object.entries(changes)) {
    const changed = { ...envelope, header: JSON.stringify({ ...header, [name]: value }) };
    await refuses(code, all.laptop, changed);
  }
  // Told alike by a server that has changed both.
  const forged = (more) => ({ ...envelope, header: JSON.stringify({ ...header, ...more }) });
  await refuses("forged", all.laptop, forged({ conversation: "decade" }), { ...TOLD, conversation: "decade" });
  await refuses("forged", all.laptop, forged({ from: "bob", to: "alice" }), { ...TOLD, author: "bob", partner: "alice" });
  await refuses("forged", all.laptop, forged({ id: "client-0002" }), { ...TOLD, id: "client-0002" });
  await refuses("forged", all.laptop, forged({ device: all.phone.id, key: all.phone.key }));
  // The same values in other words.
  await refuses("forged", all.laptop, { ...envelope, header: `${envelope.header} ` });
});

test("what the server says of it has to be what it says of itself", async () => {
  const all = await people();
  const envelope = await sealed(all);
  for (const told of [{ conversation: "decade" }, { author: "bob", partner: "alice" }, { author: "mallory" }, { partner: "mallory" }, { id: "client-0002" }]) {
    await refuses("swapped", all.laptop, envelope, { ...TOLD, ...told });
  }
});

test("nobody writes in another's name: not a stranger, not one who can read it", async () => {
  const all = await people();
  const { desk, laptop, tablet, mallory } = all;
  // mallory names alice's device, and has not its private half.
  const strange = await seal({ ...mallory, id: desk.id, key: desk.key }, HEADER, [laptop], "send me money");
  await refuses("forged", laptop, strange);
  // A device of bob's knows the content key; what it puts into the envelope instead no other device takes.
  const envelope = await sealed(all);
  const other = await seal({ ...tablet, id: desk.id, key: desk.key }, HEADER, [tablet, laptop, desk], "I owe you nothing");
  for (const mixed of [
    { ...envelope, body: other.body, iv: other.iv },
    { ...other, keys: { ...other.keys, [laptop.id]: envelope.keys[laptop.id] } },
    { ...envelope, keys: { ...envelope.keys, [laptop.id]: other.keys[laptop.id] } },
  ]) await refuses("forged", laptop, mixed);
  await refuses("forged", laptop, other);
  await refuses("forged", desk, other);
});

test("a key that is another than the header says opens nothing, though everything else is as its author made it", async (t) => {
  const all = await people();
  const { laptop } = all;
  const digest = crypto.subtle.digest.bind(crypto.subtle);
  const isOfKey = (data) => new TextDecoder().decode(data.subarray(0, 24)) === "fantail-chat content key";
  let keys = 0;
  // An author whose program says another key than it uses, as it would have to for a body that two keys open.
  t.mock.method(crypto.subtle, "digest", (name, data) => {
    keys += isOfKey(data);
    return digest(name, isOfKey(data) ? Uint8Array.of(1) : data);
  });
  const envelope = await sealed(all);
  t.mock.restoreAll();
  assert.equal(keys, 1);
  await refuses("forged", laptop, envelope);
  assert.equal(JSON.parse(envelope.header).commitment, toBase64(new Uint8Array(await digest("SHA-256", Uint8Array.of(1)))));
  await open(laptop, await sealed(all), TOLD);
});

test("nonsense in its place is refused", async () => {
  const all = await people();
  const { header, ...rest } = await sealed(all);
  for (const envelope of [{}, { header: 1 }, { header: "x" }, { header: "null" }, { header: "[]" }, { ...rest, header: "{}" }, { header, keys: null }, { ...rest, header, keys: "x" }, { ...rest, header, iv: 1 },
    ...[["after", 1], ["after", [1]], ["after", ["1", "x"]], ["devices", {}], ["devices", [1]], ["key", null], ["commitment", undefined], ["commitment", 1]].map(([name, value]) => ({ ...rest, header: JSON.stringify({ ...JSON.parse(header), [name]: value }) }))]) {
    await refuses("malformed", all.laptop, envelope);
  }
  // A point that is none of the curve.
  const off = structuredClone({ header, ...rest });
  off.keys[all.laptop.id].enc = toBase64(Uint8Array.from({ length: 65 }, (_, at) => (at ? 1 : 4)));
  await refuses("forged", all.laptop, off);
  await assert.rejects(() => seal(all.desk, HEADER, [{ id: "x", key: toBase64(new Uint8Array(65)) }], "x"));
});

test("a device is called by its key, as the server does it", async () => {
  // The same value is a test of the server's.
  assert.equal(await deviceId("BAEBAQ"), "2fbbb6d33e7f9830c89817dfe8b68a9138cea91815437dddff7f5fcdf28a71ab");
});
