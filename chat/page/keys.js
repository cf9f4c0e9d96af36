// What this browser keeps for private messages, in IndexedDB: the key pair of this device, whose private half no script can
// read; which devices of whom are believed in; who the other one of a conversation is; how far it was seen. Each for who is logged in.

import { get as ask, post } from "./api.js";
import { makeDevice } from "./seal.js";
import { believing, met } from "./trust.js";

const NAME = "fantail-chat";
const STORES = ["devices", "known", "partners", "seen"];

let opening = null;

function database() {
  opening ??= new Promise((resolve, reject) => {
    const request = indexedDB.open(NAME, 2);
    request.onupgradeneeded = () => {
      const there = request.result.objectStoreNames;
      for (const store of STORES) if (!there.contains(store)) request.result.createObjectStore(store);
    };
    request.onsuccess = () => {
      // Another tab has a newer page: it waits for this one.
      request.result.onversionchange = () => { request.result.close(); opening = null; };
      resolve(request.result);
    };
    request.onerror = () => reject(request.error);
  }).catch((error) => { opening = null; throw error; });
  return opening;
}

/** Puts what `change` makes of what is there in its place, in one transaction, and gives it. Undefined takes it away. */
export async function update(store, key, change) {
  const transaction = (await database()).transaction(store, "readwrite", { durability: "strict" });
  const done = new Promise((resolve, reject) => {
    transaction.oncomplete = resolve;
    transaction.onerror = transaction.onabort = () => reject(transaction.error);
  });
  const entries = transaction.objectStore(store);
  let made;
  const request = entries.get(key);
  request.onsuccess = () => {
    made = change(request.result);
    if (made === undefined) entries.delete(key);
    else entries.put(made, key);
  };
  await done;
  return made;
}

export async function read(store, key) {
  const request = (await database()).transaction(store).objectStore(store).get(key);
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

/** Why there are no private messages on this device: `code` is "unavailable", "removed", or what the server says. */
export class NoDevice extends Error {
  constructor(code, message) {
    super(message);
    this.code = code;
  }
}

const REMOVED = "This device was removed from your account.";

/** This device of somebody's: made at first, told to the server once. */
export async function ownDevice(me) {
  if (!globalThis.crypto?.subtle) throw new NoDevice("unavailable", "Private messages need this page by https://, or on this machine itself: elsewhere a browser gives no encryption.");
  let kept;
  try {
    kept = await read("devices", me.id);
    if (!kept) {
      const made = await makeDevice();
      // Another tab may have been quicker.
      kept = await update("devices", me.id, (there) => there ?? { ...made, isTold: false });
    }
  } catch {
    throw new NoDevice("unavailable", "Private messages need a place for keys, which this browser does not give: let it keep data of this site.");
  }
  const { devices } = await ask("/devices");
  const isThere = devices.some(({ id }) => id === kept.id);
  // What was told and is not there any more was removed, and does not come back by itself.
  if (!isThere && kept.isTold) throw new NoDevice("removed", REMOVED);
  if (!isThere) {
    await post("/devices", { key: kept.key, name: called() }).catch((error) => { throw error.code === "device_taken" ? new NoDevice("removed", REMOVED) : error; });
  }
  if (!kept.isTold) kept = await update("devices", me.id, (there) => (there?.id === kept.id ? { ...there, isTold: true } : there));
  return kept;
}

/** Takes the key of this device away. What was written for it can't be read any more. */
export const forget = (me) => update("devices", me.id, () => undefined);

// As pages before the second version of this database have kept it: a list of ids.
const kept = (there) => (Array.isArray(there) ? { believed: there, gone: [] } : there ?? null);

/** What is believed of somebody's devices now that the server has told them, null before the first: see `met`. */
export const meet = async (me, person, devices) => (await update("known", [me.id, person], (there) => met(kept(there), devices) ?? undefined)) ?? null;

/** Believes in these devices of somebody's, too. */
export const believe = (me, person, devices) => update("known", [me.id, person], (there) => believing(kept(there), devices));

/** Who the other one of a conversation is: whoever the server has named first. */
export const partnerOf = (me, conversation, named) => update("partners", [me.id, conversation], (there) => there ?? named);

/** What to call this device: a browser and a system, as far as they say. */
function called() {
  const text = navigator.userAgent;
  const first = (pairs) => pairs.find(([word]) => text.includes(word))?.[1];
  const browser = first([["Firefox/", "Firefox"], ["Edg/", "Edge"], ["OPR/", "Opera"], ["Chrome/", "Chromium"], ["Safari/", "Safari"]]) ?? "a browser";
  const system = first([["Android", "Android"], ["iPhone", "iPhone"], ["iPad", "iPad"], ["Windows", "Windows"], ["Mac OS", "macOS"], ["Linux", "Linux"]]);
  return system ? `${browser} on ${system}` : browser;
}
