// Opening what the server shows as messages of a conversation. Of what it says only the fields that are named here count, and whether
// a message was opened is known here and nowhere else: the server can't have said so.

import { Refused, open } from "./seal.js";

const opened = new WeakSet();

/** Whether this very object was made here, of an envelope. */
export const isOpened = (message) => opened.has(message);

/**
 * Opens a message on a device. `place` has `conversation`, `me` and `partner`, the ids that it has to be of. One that can't be shown
 * has a `problem` for its text; one that could be opened has `device`, `after` and `devices`.
 */
export async function openMessage(device, message, place) {
  const author = message.author?.id;
  const one = {
    conversation: place.conversation, seq: message.seq, change: message.change, client_id: message.client_id,
    author: { id: author, name: message.author?.name }, sent: message.sent, deleted: Boolean(message.deleted),
    kind: "text", text: "", edited: 0, notes: [],
  };
  opened.add(one);
  if (one.deleted) return one;
  const isOwn = author === place.me;
  const told = { conversation: place.conversation, id: message.client_id, author, partner: isOwn ? place.partner : place.me };
  try {
    if (!isOwn && author !== place.partner) throw new Refused("swapped");
    const { text, device: by, after, devices } = await open(device, message.envelope ?? {}, told);
    return Object.assign(one, { text, device: by, after, devices });
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    return Object.assign(one, { problem: error.message });
  }
}

/** Leaves nothing of a message but its place and why it is not shown. */
export function withhold(message, problem) {
  for (const field of ["device", "after", "devices"]) delete message[field];
  return Object.assign(message, { text: "", problem });
}
