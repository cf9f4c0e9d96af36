// What a device believes, without keys and without asking anybody: which devices are somebody's, by first use and by
// confirmation; whether the order in which the server shows messages can be the one in which they were written.

/**
 * Which of the devices that the server tells of somebody are new to this one. `known` are the ids that were believed until now,
 * null if there never were any: then the first ones are taken as they come.
 */
export function news(known, devices) {
  if (known === null) return [];
  return devices.filter(({ id }) => !known.includes(id));
}

/** A number of 60 digits that two see alike if their devices believe in the same keys of both. */
export async function safetyNumber(one, other) {
  const part = ({ id, devices }) => [id, [...devices].sort()];
  const both = [part(one), part(other)].sort(([a], [b]) => (a < b ? -1 : 1));
  const text = new TextEncoder().encode(JSON.stringify(["fantail-chat safety number 1", both]));
  const hash = new Uint8Array(await crypto.subtle.digest("SHA-512", text));
  const groups = Array.from({ length: 12 }, (_, at) => {
    const five = hash.subarray(5 * at, 5 * at + 5).reduce((sum, byte) => sum * 256 + byte, 0);
    return String(five % 100_000).padStart(5, "0");
  });
  return groups.join(" ");
}

// Devices of one conversation that are remembered.
const DEVICES_MAX = 64;

/** What was seen of a conversation so far: the newest message, and of each device where its last one was and what it came after. */
export const NOTHING_SEEN = { top: null, last: {} };

/**
 * Holds a message that was opened against what else is known of the conversation, and gives what is wrong with its place: "repeated",
 * "out_of_order", "other_history", or null. `seqOf(id)` is the number of a message with this id that is here.
 */
export function judge(seen, { seq, client_id, device, after }, seqOf) {
  const last = Object.hasOwn(seen.last, device) ? seen.last[device] : null;
  if (seen.top && seen.top[0] === seq && seen.top[1] !== client_id) return "other_history";
  if ((last && last[2] === client_id && last[0] < seq) || (seqOf(client_id) ?? seq) !== seq) return "repeated";
  if ((last && last[2] === client_id && last[0] > seq) || (after && after[0] >= seq)) return "out_of_order";
  // Each device seals one message after the other, behind all that it has seen.
  if (last && seq > last[0] && (after?.[0] ?? 0) < last[1]) return "out_of_order";
  return null;
}

/** Whether the message that one was written behind is not where it was: `at(seq)` is the one that is, `oldest` where those begin. */
export function lacks({ after }, at, oldest) {
  return Boolean(after) && after[0] >= oldest && at(after[0])?.client_id !== after[1];
}

/** What is known of a conversation behind one more message; only what was opened, and was nothing wrong with, says of devices. */
export function behind(seen, { seq, client_id, device, after }) {
  const top = seen.top && seen.top[0] >= seq ? seen.top : [seq, client_id];
  const last = device && Object.hasOwn(seen.last, device) ? seen.last[device] : null;
  if (!device || (last && last[0] >= seq)) return { ...seen, top };
  const all = Object.entries({ ...seen.last, [device]: [seq, after?.[0] ?? 0, client_id] });
  const newest = all.sort(([, a], [, b]) => b[0] - a[0]).slice(0, DEVICES_MAX);
  return { top, last: Object.fromEntries(newest) };
}
