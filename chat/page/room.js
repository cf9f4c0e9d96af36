// One room: its messages as they are now, what is being sent, and how it looks. Knows up to which change it has everything;
// whoever sees a hole asks the application for what has changed.

import { $, el } from "./dom.js";
import { ApiError, call, get, post, postAs } from "./api.js";

// Elements of a list at a time; older ones come back by scrolling.
const SHOWN_MAX = 300;
const NEAR_PX = 80;
// Between two times that the application is told how far somebody has read.
const SEEN_MS = 500;

const NOTICES = {
  made: (who) => `${who} made this room`,
  joined: (who) => `${who} joined`,
  left: (who) => `${who} left`,
  removed: (who, by) => `${who} was removed by ${by}`,
  banned: (who, by) => `${who} was banned by ${by}`,
  unbanned: (who, by) => `${by} lets ${who} come back`,
  uninvited: (who, by) => `${by} took the invitation of ${who} back`,
  member: (who, by) => `${by} made ${who} a member`,
  moderator: (who, by) => `${by} made ${who} a moderator`,
  owner: (who, by) => (by ? `${by} made ${who} the owner` : `${who} owns this room now`),
};

const name = (message) => message.author?.name || "somebody who has left";
const isNear = () => $("messages").scrollHeight - $("messages").scrollTop - $("messages").clientHeight < NEAR_PX;
const toEnd = () => { $("messages").scrollTop = $("messages").scrollHeight; };

// The keyboard of a phone takes room from the messages: who was at the newest one stays there.
let wasNear = true;
$("messages").addEventListener("scroll", () => { wasNear = isNear(); });
new ResizeObserver(() => { if (wasNear) toEnd(); }).observe($("messages"));

export class Room {
  messages = new Map();
  elements = new Map();
  sending = new Map();
  // Up to which change everything is here; null before the first page.
  change = null;
  more = false;
  isShown = false;
  canEdit = true;
  beginning = "This is where the room begins.";
  #queue = Promise.resolve();
  #older = null;
  #syncing = null;
  #again = false;
  // Something was heard behind a hole, and what is in it could not be asked for.
  #isBehind = false;
  #isSeeing = false;
  #settling = null;
  // Of the newest message that has an element.
  #top = 0;

  constructor(told, me, changed) {
    this.me = me;
    this.changed = changed;
    this.update(told);
    // What this tab had not sent when it was loaded anew.
    for (const [id, text] of JSON.parse(sessionStorage.getItem(this.#key) ?? "[]")) {
      this.sending.set(id, { client_id: id, text, state: "failed", passes: true, error: "this page was loaded again" });
    }
  }

  update(told) { Object.assign(this, { id: told.id, name: told.name, role: told.role, isOpen: told.open, unread: told.unread, seen: told.seen }); }

  get path() { return `/rooms/${this.id}`; }
  get leads() { return this.role === "owner" || this.role === "moderator"; }
  get #key() { return `sending ${this.me.id} ${this.id}`; }
  get draft() { return sessionStorage.getItem(`draft ${this.me.id} ${this.id}`) ?? ""; }
  set draft(text) { sessionStorage.setItem(`draft ${this.me.id} ${this.id}`, text); }

  #save() {
    sessionStorage.setItem(this.#key, JSON.stringify([...this.sending.values()].map(({ client_id, text }) => [client_id, text])));
  }

  /** Everything up to now: the newest messages at first, later what has changed. One at a time; asked meanwhile, there is one more turn. */
  sync() {
    if (this.#syncing) this.#again = true;
    else this.#syncing = this.#turns();
    return this.#syncing;
  }

  async #turns() {
    try {
      do {
        this.#again = false;
        await this.#sync();
      } while (this.#again);
    } finally {
      this.#syncing = null;
    }
  }

  async #sync() {
    if (this.change === null) {
      const page = await get(`${this.path}/messages`);
      const messages = await this.read(page.messages);
      this.more = page.more;
      for (const message of messages) this.#keep(message);
      this.change = page.change;
      if (this.isShown) this.show();
      return;
    }
    for (let more = true; more;) {
      const page = await get(`${this.path}/messages?after_change=${this.change}`);
      for (const message of await this.read(page.messages)) this.#apply(message);
      this.change = Math.max(this.change, page.change);
      more = page.more;
    }
  }

  /** What the edge says: the next change is applied, an older one known, and behind a hole all is asked for. */
  hear(message) {
    if (this.change === null || message.change <= this.change) return;
    if (message.change > this.change + 1) {
      this.#catchUp();
      return;
    }
    this.change = message.change;
    this.#apply(message);
  }

  #catchUp() {
    this.#isBehind = false;
    this.sync().catch(() => { this.#isBehind = true; });
  }

  // Whether it is new or newer than what is here.
  #keep(message) {
    const before = this.messages.get(message.seq);
    if (before && before.change >= message.change) return false;
    this.messages.set(message.seq, message);
    if (message.author?.id === this.me.id && this.sending.delete(message.client_id)) this.#save();
    return true;
  }

  #apply(message) {
    const isNew = !this.messages.has(message.seq);
    // Changed in what is further back than anything that is here: it comes with its page.
    if (isNew && this.messages.size && message.seq < Math.min(...this.messages.keys())) return;
    if (!this.#keep(message)) return;
    const isOwn = message.author?.id === this.me.id;
    if (isNew && message.kind === "text" && !message.deleted && !isOwn) this.unread += 1;
    if (this.isShown) this.#put(message, isNew && !isOwn);
    else this.#trim();
    this.changed(this, message);
  }

  /** Sends a message: shown at once, kept in order with those before it. */
  send(text) {
    const one = { client_id: crypto.randomUUID?.() ?? `${Date.now()}-${Math.random()}`, text, state: "sending" };
    this.sending.set(one.client_id, one);
    this.#save();
    if (this.isShown) {
      this.#putSending(one);
      toEnd();
    }
    this.#submit(one);
  }

  /** Does once more what has failed: sends all that may work now, or one, and asks for what was missed. */
  retry(which = [...this.sending.values()].filter((one) => one.state === "failed" && one.passes)) {
    if (this.#isBehind) this.#catchUp();
    for (const one of which) {
      one.state = "sending";
      if (this.isShown) this.#putSending(one);
      this.#submit(one);
    }
  }

  #submit(one) {
    this.#queue = this.#queue.then(async () => {
      try {
        // Only known: the numbers before it may not have been heard yet.
        const message = await this.deliver(one);
        this.sending.delete(one.client_id);
        this.#save();
        if (this.change !== null && message.change === this.change + 1) this.hear(message);
        else this.#apply(message);
      } catch (error) {
        if (!this.sending.has(one.client_id)) return;
        Object.assign(one, { state: "failed", code: error.code, error: error.message, passes: error instanceof ApiError && error.passes });
      }
      if (this.isShown && this.sending.has(one.client_id)) this.#putSending(one);
    });
  }

  /** Sends a message, and gives what became of it. */
  deliver(one) { return postAs(this.me.id, `${this.path}/messages`, { client_id: one.client_id, text: one.text }); }

  /** Makes what is shown of what the server gives. */
  async read(messages) { return messages; }

  /** Puts a message that says something else now on the page again, if it is there. */
  redraw(message) {
    if (this.isShown && this.elements.has(message.seq)) this.#make(message, this.elements.get(message.seq));
  }

  /** Puts the room on the page. */
  show() {
    this.isShown = true;
    this.elements.clear();
    this.#top = 0;
    const list = $("message-list");
    list.replaceChildren();
    this.#trim(SHOWN_MAX);
    list.append(...[...this.messages.keys()].sort((a, b) => a - b).map((seq) => this.#make(this.messages.get(seq))));
    for (const one of this.sending.values()) this.#putSending(one);
    this.#tellMore();
    $("to-newest").hidden = true;
    toEnd();
    this.saw();
  }

  hide() { this.isShown = false; }

  /** What is on the page is read, if somebody looks at it. */
  async saw() {
    if (!this.isShown || document.hidden || !isNear() || this.messages.size === 0) return;
    $("to-newest").hidden = true;
    const newest = Math.max(...this.messages.keys());
    const had = this.unread;
    this.unread = 0;
    if (had) this.changed(this);
    if (newest <= this.seen || this.#isSeeing) return;
    const before = this.seen;
    this.seen = newest;
    this.#isSeeing = true;
    const isTold = await post(`${this.path}/seen`, { seq: newest }).then(() => true, () => { this.seen = before; });
    setTimeout(() => {
      this.#isSeeing = false;
      if (isTold) this.saw();
    }, SEEN_MS);
  }

  // Lets the oldest messages go where there are far too many: they come back by scrolling.
  #trim(most = 2 * SHOWN_MAX) {
    if (this.messages.size <= most) return;
    for (const seq of [...this.messages.keys()].sort((a, b) => a - b).slice(0, -SHOWN_MAX)) {
      this.messages.delete(seq);
      this.elements.get(seq)?.remove();
      this.elements.delete(seq);
    }
    this.more = true;
    if (this.isShown) this.#tellMore();
  }

  /** Older messages, when somebody scrolls up to where they would be. */
  older() {
    if (!this.more || this.#older || this.messages.size === 0) return;
    this.#older = this.#loadOlder().catch(() => {}).finally(() => { this.#older = null; });
  }

  async #loadOlder() {
    const box = $("messages");
    const page = await get(`${this.path}/messages?before=${Math.min(...this.messages.keys())}`);
    const messages = await this.read(page.messages);
    const height = box.scrollHeight;
    this.more = page.more;
    const made = messages.filter((message) => this.#keep(message)).map((message) => this.#make(message));
    if (!this.isShown) return;
    $("message-list").prepend(...made);
    this.#tellMore();
    box.scrollTop += box.scrollHeight - height;
  }

  #tellMore() { $("more").textContent = this.more ? "Scroll up for older messages." : this.beginning; }

  #put(message, isHeard) {
    this.#settle(isHeard && message.kind === "text");
    const top = this.#top;
    const made = this.#make(message, this.elements.get(message.seq));
    if (!made.isConnected) {
      const behind = message.seq < top ? [...this.elements].filter(([seq]) => seq > message.seq).sort(([a], [b]) => a - b)[0] : null;
      $("message-list").insertBefore(made, behind?.[1] ?? $("message-list").querySelector("li.sending"));
    }
    $("message-list").querySelector(`[data-sending="${CSS.escape(message.client_id)}"]`)?.remove();
    if (isHeard && (message.kind === "text" || message.author)) $("heard").replaceChildren(said(message));
  }

  // What needs the page's measures is done once for all that comes within a frame; a tab in the background has no frames.
  #settle(isNews) {
    if (this.#settling) {
      this.#settling.isNews ||= isNews;
      return;
    }
    const seen = this.#settling = { isNews, stays: isNear() };
    const settle = () => {
      if (this.#settling !== seen) return;
      this.#settling = null;
      if (!this.isShown) return;
      if (seen.stays) {
        this.#trim(SHOWN_MAX + SHOWN_MAX / 4);
        toEnd();
      } else if (seen.isNews) $("to-newest").hidden = false;
      this.saw();
    };
    if (document.hidden) setTimeout(settle);
    else requestAnimationFrame(settle);
  }

  #make(message, element = el("li")) {
    this.elements.set(message.seq, element);
    this.#top = Math.max(this.#top, message.seq);
    const isOwn = message.author?.id === this.me.id;
    if (message.kind !== "text") {
      element.className = "notice";
      element.textContent = NOTICES[message.kind]?.(name(message), message.text) ?? "";
      return element;
    }
    const date = new Date(message.sent);
    const time = el("time", { dateTime: date.toISOString(), title: date.toLocaleString() }, date.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" }));
    const tools = [];
    if (!message.deleted) {
      if (isOwn && this.canEdit) tools.push(el("button", { type: "button", className: "small", "aria-label": `Edit: ${message.text.slice(0, 40)}`, onclick: () => this.#edit(message) }, "Edit"));
      if (isOwn || this.leads) tools.push(el("button", { type: "button", className: "small", "aria-label": `Delete: ${message.text.slice(0, 40)}`, onclick: () => this.#delete(message) }, "Delete"));
    }
    const marks = el("span", {}, [isOwn && "sent", message.edited && !message.deleted && "edited", ...(message.notes ?? [])].filter(Boolean).join(" · "));
    const gone = message.deleted ? "This message was deleted." : message.problem;
    element.className = isOwn ? "own" : "";
    element.dataset.seq = message.seq;
    element.replaceChildren(
      el("div", { className: "meta" }, el("span", { className: "who" }, isOwn ? "You" : name(message)), time, marks, ...tools),
      el("p", { className: gone ? "text gone" : "text" }, gone ?? message.text),
    );
    return element;
  }

  #putSending(one) {
    this.#settle(false);
    const list = $("message-list");
    let element = list.querySelector(`[data-sending="${CSS.escape(one.client_id)}"]`);
    if (!element) list.append(element = el("li", { "data-sending": one.client_id }));
    const failed = one.state === "failed";
    element.className = `own sending ${failed ? "failed" : ""}`;
    const tools = failed ? [
      el("button", { type: "button", className: "small", onclick: () => this.retry([one]) }, "Try again"),
      el("button", { type: "button", className: "small", onclick: () => { this.sending.delete(one.client_id); this.#save(); element.remove(); } }, "Discard"),
    ] : [];
    element.replaceChildren(
      el("div", { className: "meta" }, el("span", { className: "who" }, "You"), el("span", { role: "status" }, failed ? `not sent: ${one.error}` : "sending…"), ...tools),
      el("p", { className: "text" }, one.text),
    );
  }

  #edit(message) {
    const element = this.elements.get(message.seq);
    const field = el("textarea", { value: message.text, rows: 2, "aria-label": "Other words for this message" });
    const error = el("p", { className: "error", role: "alert" });
    const back = () => {
      this.#make(this.messages.get(message.seq), element);
      $("draft").focus();
    };
    const made = el("form", {}, field, error, el("div", { className: "row" }, el("button", { type: "submit", className: "primary" }, "Save"), el("button", { type: "button", onclick: back }, "Cancel")));
    made.onkeydown = (event) => { if (event.key === "Escape") back(); };
    made.onsubmit = async (event) => {
      event.preventDefault();
      try {
        this.#apply(...await this.read([await call("PATCH", `${this.path}/messages/${message.seq}`, { text: field.value })]));
        back();
      } catch (failed) {
        error.textContent = failed.message;
      }
    };
    element.replaceChildren(made);
    field.focus();
  }

  async #delete(message) {
    if (!confirm("Delete this message?")) return;
    try {
      this.#apply(...await this.read([await call("DELETE", `${this.path}/messages/${message.seq}`)]));
    } catch (error) {
      $("draft-error").textContent = error.message;
    }
    $("draft").focus();
  }
}

function said(message) {
  if (message.kind !== "text") return NOTICES[message.kind]?.(name(message), message.text) ?? "";
  return message.deleted ? `${name(message)} deleted a message` : `${name(message)}: ${message.problem ?? message.text}`;
}
