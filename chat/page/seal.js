// Sealing and opening of private messages, by Web Crypto. A message is encrypted once, with a key of its own, and that key for
// each device by HPKE in its authenticated mode (RFC 9180: DHKEM(P-256, HKDF-SHA256), HKDF-SHA256, AES-128-GCM), which shows
// which device has sent it. Owns no keys and asks nobody; whether a device is the one it says is decided in trust.js.

const LABEL = "fantail-chat private message 1";
const STEP_BYTES = 256;
const KEM = bytesOf("KEM", [0, 16]);
const SUITE = bytesOf("HPKE", [0, 16, 0, 1, 0, 1]);
const AUTH = 2;
const CURVE = { name: "ECDH", namedCurve: "P-256" };
// HMAC fills a key up with zeros: this is an empty one, which Web Crypto does not take.
const EMPTY_KEY = new Uint8Array(32);
const NONE = new Uint8Array(0);

/** Why a message is not shown: `code` is a word of PROBLEMS. */
export class Refused extends Error {
  constructor(code) {
    super(PROBLEMS[code]);
    this.code = code;
  }
}

export const PROBLEMS = {
  malformed: "This is no message that can be read here.",
  swapped: "The server shows this message in a place that it was not written for, so it is not shown.",
  other_device: "This device can't read this message: it was written before the device was there, or the server left its part out.",
  forged: "This message was changed on its way, or is not by whom the server says, so it is not shown.",
};

/** A key pair of a device. The private half never leaves the browser: nobody can read it, scripts of this page included. */
export async function makeDevice() {
  const pair = await crypto.subtle.generateKey(CURVE, false, ["deriveBits"]);
  const raw = new Uint8Array(await crypto.subtle.exportKey("raw", pair.publicKey));
  const key = toBase64(raw);
  return { id: await deviceId(key), key, privateKey: pair.privateKey };
}

/** The name of a device, made of its public key: nobody has that of another. */
export async function deviceId(key) {
  const hash = await digest(bytesOf("fantail-chat device", [0], key));
  return [...hash].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/**
 * Seals a text. `device` is one's own; `header` says `conversation`, `from`, `to`, `id` and `after`, the number and id of the newest
 * message that one had, or null; `devices` are all that shall read it, each { id, key }.
 */
export async function seal(device, { conversation, from, to, id, after }, devices, text) {
  const sorted = [...devices].sort((a, b) => (a.id < b.id ? -1 : 1));
  const content = crypto.getRandomValues(new Uint8Array(32));
  const commitment = toBase64(await committed(content));
  const header = JSON.stringify({ v: 1, conversation, from, to, device: device.id, key: device.key, id, after, commitment, devices: sorted.map((one) => one.id) });
  const iv = crypto.getRandomValues(new Uint8Array(12));
  const how = { name: "AES-GCM", iv, additionalData: bytesOf(header) };
  const body = new Uint8Array(await crypto.subtle.encrypt(how, await aesKey(content, "encrypt"), filled(text)));
  const sealed = await bound(header, iv, body);
  const keys = {};
  for (const one of sorted) {
    const { enc, secret } = await encapsulate(one.key, device);
    keys[one.id] = { enc: toBase64(enc), key: toBase64(await sealOnce(secret, infoFor(one.id), sealed, content)) };
  }
  return { header, iv: toBase64(iv), body: toBase64(body), keys };
}

/**
 * Opens an envelope on this device. `told` is what the server says of it: `conversation`, `author`, `partner` (the other of the two)
 * and `id`. Gives { text, device, key, after, devices } or throws Refused.
 */
export async function open(device, envelope, told) {
  const header = read(envelope);
  if (header.conversation !== told.conversation || header.from !== told.author || header.to !== told.partner || header.id !== told.id) throw new Refused("swapped");
  if (header.device !== await deviceId(header.key)) throw new Refused("forged");
  const part = Object.hasOwn(envelope.keys, device.id) ? envelope.keys[device.id] : null;
  if (!part) throw new Refused("other_device");
  try {
    const [iv, body] = [fromBase64(envelope.iv), fromBase64(envelope.body)];
    const secret = await decapsulate(fromBase64(part.enc), device, fromBase64(header.key));
    const content = await openOnce(secret, infoFor(device.id), await bound(envelope.header, iv, body), fromBase64(part.key));
    if (toBase64(await committed(content)) !== header.commitment) throw new Error("another key than the others have");
    const how = { name: "AES-GCM", iv, additionalData: bytesOf(envelope.header) };
    const text = emptied(new Uint8Array(await crypto.subtle.decrypt(how, await aesKey(content, "decrypt"), body)));
    return { text, device: header.device, key: header.key, after: header.after, devices: header.devices };
  } catch {
    throw new Refused("forged");
  }
}

function read(envelope) {
  try {
    const header = JSON.parse(envelope.header);
    const texts = [header.conversation, header.from, header.to, header.device, header.key, header.id, header.commitment, envelope.iv, envelope.body];
    const isPlace = header.after === null || (Array.isArray(header.after) && header.after.length === 2 && Number.isSafeInteger(header.after[0]) && typeof header.after[1] === "string");
    const isList = Array.isArray(header.devices) && header.devices.every((id) => typeof id === "string");
    if (header.v === 1 && texts.every((text) => typeof text === "string") && isPlace && isList && typeof envelope.keys === "object" && envelope.keys) return header;
  } catch { /* as below */ }
  throw new Refused("malformed");
}

/** What says which content key it is. AES-GCM does not: a body can be made that two keys open, each to words of its own. */
const committed = (content) => digest(bytesOf("fantail-chat content key", [0], content));

const infoFor = (device) => bytesOf(LABEL, [0], device);

/** What each device's part is bound to: everything that all devices get. */
function bound(header, iv, body) {
  const text = bytesOf(header);
  return digest(bytesOf(number(text.length, 4), text, iv, body));
}

// A text with its length, filled up with zeros, so that its length says little of it.
function filled(text) {
  const bytes = bytesOf(text);
  const all = new Uint8Array(Math.ceil((bytes.length + 4) / STEP_BYTES) * STEP_BYTES);
  all.set(number(bytes.length, 4));
  all.set(bytes, 4);
  return all;
}

function emptied(bytes) {
  const length = new DataView(bytes.buffer, bytes.byteOffset).getUint32(0);
  if (length > bytes.length - 4) throw new Error("shorter than it says");
  return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes.subarray(4, 4 + length));
}

const aesKey = (raw, use) => crypto.subtle.importKey("raw", raw, "AES-GCM", false, [use]);

// --- HPKE, mode_auth, for one message (RFC 9180, 4.1, 5.1 and 6.1)

async function encapsulate(key, sender) {
  const pair = await crypto.subtle.generateKey(CURVE, true, ["deriveBits"]);
  const enc = new Uint8Array(await crypto.subtle.exportKey("raw", pair.publicKey));
  const receiver = fromBase64(key);
  const shared = bytesOf(await agreed(pair.privateKey, receiver), await agreed(sender.privateKey, receiver));
  return { enc, secret: await extractAndExpand(shared, bytesOf(enc, receiver, fromBase64(sender.key))) };
}

async function decapsulate(enc, receiver, sender) {
  const shared = bytesOf(await agreed(receiver.privateKey, enc), await agreed(receiver.privateKey, sender));
  return extractAndExpand(shared, bytesOf(enc, fromBase64(receiver.key), sender));
}

/** Diffie-Hellman; what is no point of the curve is refused by the import. */
async function agreed(privateKey, point) {
  const publicKey = await crypto.subtle.importKey("raw", point, CURVE, false, []);
  return new Uint8Array(await crypto.subtle.deriveBits({ name: "ECDH", public: publicKey }, privateKey, 256));
}

async function extractAndExpand(shared, context) {
  return labeledExpand(KEM, await labeledExtract(KEM, EMPTY_KEY, "eae_prk", shared), "shared_secret", context, 32);
}

async function schedule(secret, info) {
  const context = bytesOf([AUTH], await labeledExtract(SUITE, EMPTY_KEY, "psk_id_hash", NONE), await labeledExtract(SUITE, EMPTY_KEY, "info_hash", info));
  const root = await labeledExtract(SUITE, secret, "secret", NONE);
  return [await labeledExpand(SUITE, root, "key", context, 16), await labeledExpand(SUITE, root, "base_nonce", context, 12)];
}

async function sealOnce(secret, info, additionalData, text) {
  const [key, iv] = await schedule(secret, info);
  return new Uint8Array(await crypto.subtle.encrypt({ name: "AES-GCM", iv, additionalData }, await aesKey(key, "encrypt"), text));
}

async function openOnce(secret, info, additionalData, sealed) {
  const [key, iv] = await schedule(secret, info);
  return new Uint8Array(await crypto.subtle.decrypt({ name: "AES-GCM", iv, additionalData }, await aesKey(key, "decrypt"), sealed));
}

const labeledExtract = (suite, salt, label, text) => hmac(salt, bytesOf("HPKE-v1", suite, label, text));

// One block of HKDF is as much as is ever wanted.
const labeledExpand = async (suite, key, label, info, length) =>
  (await hmac(key, bytesOf(number(length, 2), "HPKE-v1", suite, label, info, [1]))).subarray(0, length);

async function hmac(raw, data) {
  const key = await crypto.subtle.importKey("raw", raw, { name: "HMAC", hash: "SHA-256" }, false, ["sign"]);
  return new Uint8Array(await crypto.subtle.sign("HMAC", key, data));
}

/** For tests with the vectors of the RFC. */
export const hpke = { decapsulate, openOnce };

// --- Bytes

async function digest(bytes) { return new Uint8Array(await crypto.subtle.digest("SHA-256", bytes)); }

function number(value, length) {
  return Uint8Array.from({ length }, (_, at) => (value / 256 ** (length - 1 - at)) & 255);
}

function bytesOf(...parts) {
  const all = parts.map((part) => (typeof part === "string" ? new TextEncoder().encode(part) : Uint8Array.from(part)));
  const joined = new Uint8Array(all.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of all) {
    joined.set(part, at);
    at += part.length;
  }
  return joined;
}

export function toBase64(bytes) {
  return btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");
}

export function fromBase64(text) {
  if (!/^[A-Za-z0-9_-]*$/.test(text)) throw new Error("no base64url");
  return Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (one) => one.charCodeAt(0));
}
