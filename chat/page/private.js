// Private messages on the page: conversations between two, their list, and what is shown of keys. A conversation is a room
// whose messages are sealed before they are sent and opened when they come.

import { $, dialog, el, form } from "./dom.js";
import { ApiError, call, get, post, postAs } from "./api.js";
import { NoDevice, believe, forget, meet, ownDevice, partnerOf, read, update } from "./keys.js";
import { isOpened, openMessage, withhold } from "./opening.js";
import { deviceId, seal } from "./seal.js";
import { NOTHING_SEEN, judgeAll, lacks, news, safetyNumber } from "./trust.js";
import { Room } from "./room.js";

const NOTES = {
  out_of_order: "not in the order in which it was written",
  other_history: "the server has shown another message here before",
  missing: "a message before this one is missing",
  from_unconfirmed: "from a device that you have not confirmed",
  for_unconfirmed: "also for a device that you have not confirmed",
};
const REPEATED = "The server shows an older message once more here, so it is not shown.";
const EXCHANGED = "The server shows somebody else as the other one of this conversation: nothing is opened or sent.";
// Between two lists of conversations that are asked for, and before one that failed is asked for again.
const SYNC_MS = 1_000;
const AGAIN_MS = 5_000;
const SEALED = "End-to-end encrypted: the server sees who writes to whom, when, and about how much, and no text.";

/** What keeps a message from being sent that somebody has to decide; it stays, and can be tried again. */
const held = (message) => new ApiError({ code: "held", message }, 0);

class Conversation extends Room {
  #heard = Promise.resolve();
  #meeting = null;
  #isUnmet = false;
  // Devices of both, once they are known.
  devices = null;
  // Who the other one is, once this browser has looked: it stays so, whatever the server says.
  partner = null;
  isPrivate = true;
  canEdit = false;
  beginning = "This is where your conversation begins.";

  constructor(told, me, changed, privates) {
    super(told, me, changed);
    this.privates = privates;
  }

  update(told) {
    const name = told.with.name || "somebody who has left";
    Object.assign(this, { id: told.id, with: told.with, name, unread: told.unread, seen: told.seen, moved: told.moved, isBlocked: told.blocked });
  }

  get path() { return `/conversations/${this.id}`; }
  get leads() { return false; }
  get #key() { return [this.me.id, this.id]; }

  get isExchanged() { return this.partner !== null && this.with.id !== this.partner; }

  /** Makes sure that the other one is who it was when this browser saw the conversation first. */
  async #hold() {
    this.partner ??= await partnerOf(this.me, this.id, this.with.id);
    if (!this.isExchanged) return;
    this.privates.tell(this);
    throw held(EXCHANGED);
  }

  /** The devices of both as the server tells them now, held against those that are believed in. */
  meet() {
    this.#meeting ??= this.#meet().then(
      (devices) => { this.#isUnmet = false; return devices; },
      (error) => { this.#isUnmet = true; throw error; },
    ).finally(() => { this.#meeting = null; });
    return this.#meeting;
  }

  async #meet() {
    const device = await this.privates.device();
    await this.#hold();
    const told = await get(`${this.path}/devices`);
    // What is believed in are ids: each has to be that of its key.
    for (const { id, key } of [...told.own, ...told.theirs]) if (id !== await deviceId(key)) throw held("the server shows a device under another's name");
    let own = await meet(this.me, this.me.id, told.own);
    if (!own?.believed.includes(device.id)) own = await believe(this.me, this.me.id, [device]);
    // Who has no device yet is not met yet.
    const theirs = (await meet(this.me, this.partner, told.theirs)) ?? { believed: [], gone: [] };
    const ever = ({ believed, gone }) => [...believed, ...gone];
    this.devices = { ...told, news: { own: news(own, told.own), theirs: news(theirs, told.theirs) }, believed: [...own.believed, ...theirs.believed], known: { own: ever(own), theirs: ever(theirs) } };
    this.privates.tell(this);
    for (const message of this.messages.values()) this.#note(message);
    if (!this.#news.length && told.theirs.length) this.retry([...this.sending.values()].filter((one) => one.state === "failed" && one.code === "held"));
    return this.devices;
  }

  get #news() { return this.devices ? [...this.devices.news.own, ...this.devices.news.theirs] : []; }

  /** Somebody has decided that the devices that are new are whose the server says. */
  async confirm() {
    const { news } = this.devices;
    await believe(this.me, this.me.id, news.own);
    await believe(this.me, this.partner, news.theirs);
    // One that is under way has read what was believed before.
    await this.#meeting?.catch(() => {});
    await this.meet();
  }

  async numbers() {
    const { own, theirs, believed } = await this.meet();
    const those = (devices) => devices.map(({ id }) => id).filter((id) => believed.includes(id));
    return safetyNumber({ id: this.me.id, devices: those(own) }, { id: this.partner, devices: those(theirs) });
  }

  hear(message) {
    this.#heard = this.#heard.then(async () => {
      const [opened] = await this.read([message]);
      super.hear(opened);
      this.#recheck();
    }).catch(() => this.privates.soon());
  }

  async sync() {
    // Devices have changed, and which they are could not be asked then.
    if (this.#isUnmet && this.devices) await this.meet().catch((error) => { if (error.code !== "held") throw error; });
    await super.sync();
    this.#recheck();
  }

  // --- Opening

  /** Opens what comes from the server; what was opened before stays as it is. */
  async read(messages) {
    if (messages.every(isOpened)) return messages;
    const device = await this.privates.device();
    await this.#hold();
    if (!this.devices) await this.meet();
    const place = { conversation: this.id, me: this.me.id, partner: this.partner };
    const opened = new Map();
    for (const message of messages) opened.set(message.seq, await openMessage(device, message, place));
    const inOrder = [...opened.values()].sort((a, b) => a.seq - b.seq);
    const ids = new Map([...this.messages.values(), ...inOrder].sort((a, b) => b.seq - a.seq).map((message) => [message.client_id, message.seq]));
    let verdicts;
    await update("seen", this.#key, (there) => {
      const judged = judgeAll(there ?? NOTHING_SEEN, inOrder, (id) => ids.get(id));
      verdicts = judged.verdicts;
      return judged.seen;
    });
    for (const [at, one] of inOrder.entries()) {
      if (verdicts[at] === "repeated") withhold(one, REPEATED);
      else one.verdict = verdicts[at];
    }
    if (this.#isStrange(opened)) await this.meet();
    for (const message of opened.values()) this.#note(message);
    return messages.map(({ seq }) => opened.get(seq));
  }

  // Whether one of them is by or for a device that was not heard of.
  #isStrange(opened) {
    const all = new Set([...this.devices.own, ...this.devices.theirs].map(({ id }) => id).concat(this.devices.known.own, this.devices.known.theirs));
    return [...opened.values()].some((one) => one.devices?.some((id) => !all.has(id)) || (one.device && !all.has(one.device)));
  }

  #note(message) {
    if (!message.device || !this.devices) return;
    const { own, theirs } = this.devices.known;
    const isOwn = message.author.id === this.me.id;
    const notes = [
      message.verdict,
      message.lacks && "missing",
      !(isOwn ? own : theirs).includes(message.device) && "from_unconfirmed",
      message.devices.some((id) => !own.includes(id) && !theirs.includes(id)) && "for_unconfirmed",
    ].filter(Boolean).map((code) => NOTES[code]);
    if (notes.join() === message.notes.join()) return;
    message.notes = notes;
    this.redraw(message);
  }

  /** Holds each message that is here against the one that it was written behind. */
  #recheck() {
    const oldest = Math.min(...this.messages.keys());
    for (const message of this.messages.values()) {
      message.lacks = Boolean(message.device) && lacks(message, (seq) => this.messages.get(seq), oldest);
      this.#note(message);
    }
  }

  // --- Sealing

  /** Seals a message and sends it. One at a time in all tabs of this browser, so that each is behind the one before. */
  async deliver(one) {
    const device = await this.privates.device().catch((error) => { throw error instanceof NoDevice ? held(error.message) : error; });
    return navigator.locks.request(`fantail-chat ${this.me.id} ${this.id}`, async () => {
      for (let again = 0; ; again += 1) {
        try {
          const message = await postAs(this.me.id, `${this.path}/messages`, { client_id: one.client_id, envelope: await this.#seal(device, one) });
          return (await this.read([message]))[0];
        } catch (error) {
          // Devices have come or gone; whether that may be goes through the same doors once more.
          if (error.code !== "other_devices" || again === 2) throw error;
          await this.meet();
        }
      }
    });
  }

  async #seal(device, one) {
    await this.#hold();
    const { own, theirs } = this.devices?.theirs.length ? this.devices : await this.meet();
    if (!theirs.length) throw held(this.with.name ? `${this.name} has no device that could read it: the next time they open this page they get one` : "who you write to has no account any more");
    if (this.#news.length) throw held("it waits until you have confirmed the new device");
    const newest = this.messages.size ? this.messages.get(Math.max(...this.messages.keys())) : null;
    const { top } = (await read("seen", this.#key)) ?? NOTHING_SEEN;
    const after = newest && newest.seq > (top?.[0] ?? 0) ? [newest.seq, newest.client_id] : top;
    return seal(device, { conversation: this.id, from: this.me.id, to: this.partner, id: one.client_id, after }, [...own, ...theirs], one.text);
  }

  // --- What stands below the messages

  /** What is to be said about keys, and whether it is to be decided upon. */
  said() {
    const trouble = this.privates.trouble;
    if (trouble) return { text: trouble.message, code: trouble.code };
    if (this.isExchanged) return { text: EXCHANGED, code: "exchanged" };
    const { own = [], theirs = [] } = this.devices?.news ?? {};
    if (!own.length && !theirs.length) return { text: SEALED };
    const list = (devices) => devices.map(({ name, made }) => `${name}, since ${new Date(made).toLocaleString()}`).join("; ");
    const parts = [
      theirs.length && `${this.name} has a new device (${list(theirs)}). If it is not theirs, somebody else could read along: compare numbers, or ask them.`,
      own.length && `You have a new device (${list(own)}). If you did not add it, remove it and change your password.`,
    ];
    return { text: [...parts, "Nothing is sent until you have confirmed it."].filter(Boolean).join(" "), code: "news" };
  }
}

/** All conversations of who is here. */
export class Privates {
  all = new Map();
  trouble = null;
  #me = null;
  #device = null;
  // The list that is being asked for, the one that will be, when the last one was, and what waits to ask once more.
  #running = null;
  #next = null;
  #asked = -Infinity;
  #again = 0;

  /** `page` has open(room), changed(room, message), current(), listed(). */
  constructor(page) { this.page = page; }

  get unread() { return [...this.all.values()].reduce((sum, one) => sum + one.unread, 0); }

  /** Somebody is here. Ends when their conversations are known, or could not be. */
  async begin(me) {
    this.end();
    this.#me = me;
    this.device().catch(() => {});
    await this.sync().catch(() => this.soon(AGAIN_MS));
  }

  end() {
    clearTimeout(this.#again);
    this.#again = 0;
    this.#me = this.#device = this.trouble = null;
    this.all = new Map();
    this.list();
  }

  /** This device, once the server knows it. */
  device() {
    const me = this.#me;
    if (!me) return Promise.reject(new NoDevice("unavailable", "Nobody is logged in."));
    this.#device ??= ownDevice(me).then((device) => {
      if (this.trouble && this.#me === me) {
        this.trouble = null;
        this.tell(this.page.current());
      }
      return device;
    }, (error) => {
      if (this.#me !== me) throw error;
      this.#device = null;
      // Without a network nothing is known; that is said elsewhere.
      if (!(error instanceof ApiError && error.passes)) this.trouble = error;
      this.tell(this.page.current());
      throw error;
    });
    return this.#device;
  }

  /** What came on one's own topic, if it is about private messages. */
  hear(data) {
    if (data?.private) {
      const one = this.all.get(data.private.conversation);
      if (one && one.change !== null) one.hear(data.private);
      else this.soon();
    } else if (data?.devices) {
      const isOwn = data.devices.person === this.#me?.id;
      if (isOwn) this.#device = null;
      const concerned = [...this.all.values()].filter((one) => one.devices && (isOwn || data.devices.person === one.partner));
      for (const one of concerned) one.meet().catch(() => this.soon());
      const current = this.page.current();
      if (isOwn && current?.isPrivate && !current.devices) this.shown(current);
    } else if (data?.conversations) {
      this.soon();
    } else {
      return false;
    }
    return true;
  }

  /** Asks for all of it, now or later, and again while that fails. */
  soon(wait = 0) {
    if (this.#again) return;
    this.#again = setTimeout(() => {
      this.#again = 0;
      if (this.#me) this.sync().catch(() => this.soon(AGAIN_MS));
    }, wait);
  }

  /**
   * The list as it is now, and what was missed of those that have been opened. One at a time, and not more often than once a second:
   * who asks until the next begins shares it. What no other try can help is no failure.
   */
  sync() {
    this.#next ??= this.#turn();
    return this.#next;
  }

  async #turn() {
    await this.#running?.catch(() => {});
    const wait = this.#asked + SYNC_MS - performance.now();
    if (wait > 0) await new Promise((resolve) => { setTimeout(resolve, wait); });
    this.#next = null;
    this.#asked = performance.now();
    this.#running = this.#sync();
    await this.#running;
  }

  async #sync() {
    const me = this.#me;
    if (!me) return;
    const { conversations } = await get("/conversations");
    if (this.#me !== me) return;
    for (const told of conversations) this.#put(told);
    this.list();
    this.page.listed();
    this.tell(this.page.current());
    const opened = [...this.all.values()].filter((one) => one.change !== null || one === this.page.current());
    const failed = (await Promise.allSettled(opened.map((one) => one.sync()))).filter(({ status }) => status === "rejected");
    // What will be the same the next time is said where it is shown.
    const stays = (error) => error instanceof NoDevice || (error instanceof ApiError && !error.passes);
    for (const { reason } of failed) if (!stays(reason) && this.#me === me) throw reason;
  }

  #put(told) {
    const there = this.all.get(told.id);
    if (!there) {
      const changed = (room, message) => {
        room.moved = Math.max(room.moved, message?.sent ?? 0);
        this.list();
        this.page.changed(room, message);
      };
      const made = new Conversation(told, this.#me, changed, this);
      this.all.set(told.id, made);
      return made;
    }
    const { unread, seen } = there;
    there.update(told);
    // What this page has seen meanwhile it knows better.
    if (there.change !== null && seen >= told.seen) Object.assign(there, { unread, seen });
    return there;
  }

  retry() { for (const one of this.all.values()) one.retry(); }

  list() {
    const current = this.page.current();
    const one = (room) => el("li", {}, el("button", { type: "button", "data-id": room.id, onclick: () => { this.page.open(room); $("draft").focus(); }, ...(room === current ? { "aria-current": "true" } : {}) },
      room.name,
      room.unread ? el("span", { className: "count" }, room.unread > 99 ? "99+" : String(room.unread), el("span", { className: "unseen" }, " unread")) : null));
    const had = document.activeElement?.dataset?.id;
    $("private-list").replaceChildren(...[...this.all.values()].sort((a, b) => b.moved - a.moved).map(one));
    if (had) $("private-list").querySelector(`[data-id="${CSS.escape(had)}"]`)?.focus();
  }

  /** Opens the conversation with whoever has this name. */
  async write(name) {
    const told = await post("/conversations", { name });
    this.#put(told);
    $("dialog").close();
    this.page.open(this.all.get(told.id));
    $("draft").focus();
  }

  /** A conversation is shown: what was written, and how it stands with its keys. */
  async shown(room) {
    this.tell(room);
    try {
      await room.meet();
      await room.sync();
    } catch (error) {
      if (room === this.page.current() && !room.messages.size) $("more").textContent = error.message;
    }
  }

  /** Says below the messages how it stands with a conversation's keys. */
  tell(room) {
    if (!room?.isPrivate || room !== this.page.current()) return;
    const { text, code } = room.said();
    if ($("private-said").textContent !== text) $("private-said").textContent = text;
    $("private-bar").classList.toggle("trouble", Boolean(code));
    $("private-confirm").hidden = code !== "news";
    $("private-again").hidden = code !== "removed";
    $("private-devices").hidden = !["too_many_devices", "news"].includes(code);
    $("private-compare").hidden = Boolean(code) && code !== "news";
    $("private-block").textContent = room.isBlocked ? "Take messages again" : `Block ${room.name}`;
  }

  bind() {
    const current = () => this.page.current();
    const said = (error) => { $("draft-error").textContent = error.message; };
    $("write-to").addEventListener("click", () => dialog("Private message", form([["name", "Write to (name)", { autocomplete: "off", autocapitalize: "none", spellcheck: false, required: true }]], "Open", ({ name }) => this.write(name))));
    $("private-compare").addEventListener("click", () => compare(current()).catch(said));
    $("private-confirm").addEventListener("click", () => { current().confirm().then(() => $("draft").focus(), said); });
    $("private-devices").addEventListener("click", () => this.devices().catch(said));
    $("show-devices").addEventListener("click", () => this.devices().catch(said));
    $("private-again").addEventListener("click", async () => {
      await forget(this.#me);
      this.#device = this.trouble = null;
      await this.shown(current()).catch(said);
      current()?.retry([...current().sending.values()]);
    });
    $("private-block").addEventListener("click", async () => {
      const room = current();
      try {
        await post(`${room.path}/block`, { block: !room.isBlocked });
        room.isBlocked = !room.isBlocked;
        this.tell(room);
      } catch (error) { said(error); }
    });
  }

  /** One's devices, and a way to take one away. */
  async devices() {
    const own = await this.device().catch(() => null);
    const { devices } = await get("/devices");
    const one = ({ id, name, made }) => el("li", { className: "row" },
      el("span", {}, `${name}${id === own?.id ? " (this one)" : ""}, since ${new Date(made).toLocaleString()} `),
      el("button", { type: "button", className: "small", "aria-label": `Remove ${name}, since ${new Date(made).toLocaleString()}`, onclick: async () => {
        if (id === own?.id && !confirm("Remove this very device? It can't read anything any more that was written until now.")) return;
        try {
          await call("DELETE", `/devices/${id}`);
          if (id === own?.id) {
            await forget(this.#me);
            this.#device = null;
            // Whatever was read here was read with the key that is gone.
            location.reload();
          }
          await this.devices();
        } catch (error) { failed(error); }
      } }, "Remove"));
    const failed = dialog("Your devices",
      el("p", { className: "hint" }, "Private messages to and from you are encrypted for each of these. A device can read what was written since it is there; one that is removed gets nothing any more."),
      devices.length ? el("ul", {}, ...devices.map(one)) : el("p", {}, "There are none."));
  }
}

async function compare(room) {
  const [number, devices] = [await room.numbers(), room.devices];
  const list = (whose, all) => el("li", {}, `${whose}: ${all.map(({ name, made }) => `${name} (since ${new Date(made).toLocaleDateString()})`).join(", ") || "none"}`);
  dialog(`You and ${room.name}`,
    el("p", {}, `Read these to each other, not by this chat. If ${room.name} sees the same under your name, nobody is in between and both know the same devices.`),
    el("p", { className: "number", id: "safety-number" }, number),
    el("ul", {}, list("Your devices", devices.own), list(`Devices of ${room.name}`, devices.theirs)),
    room.devices.news.own.length + room.devices.news.theirs.length ? el("p", { className: "hint" }, "New devices are not in the number before you have confirmed them.") : "");
}
