// Who is on a topic, beside a client of fantail.js and on its WebSocket, which it gets to see by the option `WebSocket`.
// Owns what it knows of each list, and the way from a page of one to what is true now; knows nothing of connecting. Over
// event streams and long polls it hears nothing.

import { FantailError } from "./fantail.js";

// Members of a page; as many as the server gives.
const LIMIT = 1_000;
// Of the question as whom this client is on the list.
const SELF = "self";
// A refusal that passes by itself.
const AGAIN_MS = 5_000;

export class Presence {
  #socket;
  #lists = new Map();
  #states = new Map();
  #id = 0;

  /** Options for `connect`, with a WebSocket whose words are heard here, too. */
  options(options = {}) {
    const said = (socket, data) => this.#said(socket, data);
    const opened = (socket) => this.#opened(socket);
    const closed = (socket) => this.#closed(socket);
    const { WebSocket = globalThis.WebSocket } = options;
    return {
      ...options,
      WebSocket: WebSocket && class extends WebSocket {
        constructor(...given) {
          super(...given);
          this.addEventListener("open", () => opened(this));
          this.addEventListener("close", () => closed(this));
          this.addEventListener("message", ({ data }) => said(this, data));
        }
      },
    };
  }

  /** Follows the list of a topic, from now on and whenever the connection comes back. */
  follow(topic, on = {}) {
    if (this.#lists.has(topic)) throw new FantailError("already_subscribed", "already_subscribed", topic);
    const list = { topic, on, members: new Map(), count: 0, live: false };
    this.#lists.set(topic, list);
    this.#ask(list);
    return {
      topic,
      get members() { return list.members; },
      get count() { return list.count; },
      get self() { return list.self; },
      get live() { return list.live; },
      setState: (state, seconds) => this.#say(topic, state, seconds),
      close: () => {
        if (this.#lists.get(topic) !== list) return;
        this.#lists.delete(topic);
        clearTimeout(list.timer);
        this.#send({ type: "presence", id: `p${++this.#id}`, topic, events: false, limit: 0 });
      },
    };
  }

  #send(what) {
    const isOpen = this.#socket?.readyState === 1;
    if (isOpen) this.#socket.send(JSON.stringify(what));
    return isOpen;
  }

  // The list from its beginning, and what changes behind it.
  #ask(list, after) {
    clearTimeout(list.timer);
    list.id = `p${++this.#id}`;
    // Nothing that comes before the answer is behind it.
    if (!after) Object.assign(list, { next: null, live: false });
    this.#send({ type: "presence", id: list.id, topic: list.topic, after, events: true, limit: LIMIT });
  }

  #say(topic, state, seconds) {
    const id = `p${++this.#id}`;
    return new Promise((resolve, reject) => {
      if (this.#send({ type: "state", id, topic, state, seconds })) this.#states.set(id, { resolve, reject, topic });
      else reject(new FantailError("not_possible", "not_possible", topic));
    });
  }

  #opened(socket) {
    this.#closed(this.#socket);
    this.#socket = socket;
    for (const list of this.#lists.values()) this.#ask(list);
  }

  #closed(socket) {
    if (!socket || socket !== this.#socket) return;
    this.#socket = null;
    for (const list of this.#lists.values()) {
      list.live = false;
      clearTimeout(list.timer);
    }
    for (const { reject, topic } of this.#states.values()) reject(new FantailError("outcome_unknown", "outcome_unknown", topic));
    this.#states.clear();
  }

  #said(socket, data) {
    if (socket !== this.#socket || !/"(presence|state|error|subscribed)"/.test(data)) return;
    let what;
    try { what = JSON.parse(data); } catch { return; }
    const { type, id, topic, code, message } = what;
    const said = this.#states.get(id);
    const list = this.#lists.get(topic);
    if (said) {
      this.#states.delete(id);
      if (type === "error") said.reject(new FantailError(code, message, topic));
      else said.resolve();
    } else if (!list) return;
    else if (type === "subscribed") this.#send({ type: "presence", id: SELF, topic, limit: 0 });
    else if (id === SELF) list.self = what.self;
    else if (type === "error" && id === list.id) {
      list.live = false;
      call(list.on.onError, new FantailError(code, message, topic));
      if (/^(busy|topic_)/.test(code)) list.timer = setTimeout(() => this.#ask(list), AGAIN_MS);
    } else if (type !== "presence") return;
    else if (what.gap) this.#ask(list);
    else if (id === undefined) this.#changed(list, what);
    else if (id === list.id) this.#page(list, what);
  }

  #page(list, { version, count, members, next, self }) {
    list.next ??= { members: new Map(), version };
    list.self = self;
    for (const { id, state } of members ?? []) list.next.members.set(id, state);
    list.next.count = count;
    if (next) {
      this.#ask(list, next);
      return;
    }
    const before = list.members;
    const now = list.next.members;
    const changes = {
      joined: [...now.keys()].filter((id) => !before.has(id)),
      left: [...before.keys()].filter((id) => !now.has(id)),
      states: [...now].filter(([id, state]) => JSON.stringify(state) !== JSON.stringify(before.get(id))).map(([id]) => id),
    };
    Object.assign(list, list.next, { next: null, live: true });
    call(list.on.onChange, changes);
  }

  #changed(list, { version, count, joined = [], left = [], states = [] }) {
    const to = list.next ?? list;
    if (!list.next && !list.live) return;
    const [epoch, offset] = version.split(":");
    const [of, last] = to.version.split(":");
    // It is in the list already.
    if (epoch === of && +offset <= +last) return;
    if (epoch !== of || +offset !== +last + 1) {
      this.#ask(list);
      return;
    }
    const { members } = to;
    for (const id of joined) if (!members.has(id)) members.set(id);
    for (const id of left) members.delete(id);
    const said = states.filter(({ id }) => members.has(id));
    for (const { id, state } of said) members.set(id, state ?? undefined);
    Object.assign(to, { version, count });
    if (!list.next) call(list.on.onChange, { joined, left, states: said.map(({ id }) => id) });
  }
}

// What the application throws is its own.
function call(what, ...given) {
  try {
    what?.(...given);
  } catch (error) {
    console.error(error);
  }
}
