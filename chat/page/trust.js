// What a device believes, without keys and without asking anybody: which devices are somebody's, by first use and by
// confirmation; whether the order in which the server shows messages can be the one in which they were written.

// Devices of one person that are remembered, and as many that are gone.
const KNOWN_MAX = 64;

/**
 * What is believed of somebody once the server tells these devices of theirs. `known` has the ids that are `believed` in and those
 * that are `gone`, or is null before the first: then the first ones are taken as they come. Who is not told any more is gone.
 */
export function met(known, devices) {
  const ids = devices.map(({ id }) => id);
  if (!known) return ids.length ? believing(null, devices) : null;
  const gone = known.believed.filter((id) => !ids.includes(id));
  return { believed: known.believed.filter((id) => ids.includes(id)), gone: [...known.gone, ...gone].slice(-KNOWN_MAX) };
}

/** The same once somebody has said that these devices are theirs, too. */
export function believing(known, devices) {
  const ids = devices.map(({ id }) => id);
  const { believed, gone } = known ?? { believed: [], gone: [] };
  return { believed: [...new Set([...believed, ...ids])].slice(-KNOWN_MAX), gone: gone.filter((id) => !ids.includes(id)) };
}

/** Which of the devices that the server tells of somebody are new to this one. One that was gone and is told again is new, too. */
export function news(known, devices) {
  return devices.filter(({ id }) => !known?.believed.includes(id));
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

/** What is known of a conversation behind one more message; only one that was opened says of devices. */
export function behind(seen, { seq, client_id, device, after }) {
  const top = seen.top && seen.top[0] >= seq ? seen.top : [seq, client_id];
  const last = device && Object.hasOwn(seen.last, device) ? seen.last[device] : null;
  if (!device || (last && last[0] >= seq)) return { ...seen, top };
  const all = Object.entries({ ...seen.last, [device]: [seq, after?.[0] ?? 0, client_id] });
  const newest = all.sort(([, a], [, b]) => b[0] - a[0]).slice(0, DEVICES_MAX);
  return { top, last: Object.fromEntries(newest) };
}

const placeOf = ({ seq, client_id }) => ({ seq, client_id });

/**
 * Holds messages that were loaded together, in the order of their numbers, against what is known, and against each other. What is
 * wrong with one does not become known, so that it is wrong whenever it is looked at. Gives the verdicts and what is known then.
 */
export function judgeAll(seen, messages, seqOf) {
  let together = NOTHING_SEEN;
  const verdicts = [];
  for (const one of messages) {
    const verdict = one.device ? judge(seen, one, seqOf) ?? judge(together, one, seqOf) : null;
    verdicts.push(verdict);
    seen = behind(seen, verdict ? placeOf(one) : one);
    together = behind(together, verdict === "repeated" ? placeOf(one) : one);
  }
  return { verdicts, seen };
}
