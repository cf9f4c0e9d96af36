// A client of Fantail. One connection for all topics: a WebSocket that speaks fantail.json.v1, or what fallback.js makes
// of event streams and long polls where WebSockets are blocked. Owns subscriptions and their positions, publishes that
// wait for their answer, and when to come back; knows no dialect but the protocol's objects.

import { longPoll, eventStream } from "./fallback.js";

const PROTOCOL = "fantail.json.v1";
const TRANSPORTS = { websocket: webSocket, sse: eventStream, poll: longPoll };
const RETRY_FIRST_MS = 500;
const RETRY_MAX_MS = 30_000;
// A server that is going away may spread its clients over minutes.
const RETRY_HINT_MAX_MS = 300_000;
// Whatever ends connections early, there are two tries in this time and no more.
const TWO_TRIES_MS = 505;
// So long connected, and the next wait begins over.
const STABLE_MS = 10_000;
const OPEN_MS = 10_000;
const WATCH_MS = 2_000;
// A timer this late means that the machine slept.
const SLEPT_MS = 8_000;
const PROBE_MS = 4_000;
// Streams have a comment each 15 s, polls are answered each 20 s.
const QUIET_MAX_MS = 45_000;
// How often a WebSocket is tried beside another transport that works.
const UPGRADE_MS = 60_000;
// Messages kept while the application loads its state; above, it loads again.
const QUEUE_MAX = 10_000;
const PUBLISHES_MAX = 1_000;

/** What went wrong: `code` is a word of docs/protocol.md, or one of this client's own. */
export class FantailError extends Error {
  constructor(code, message, topic) {
    super(message);
    Object.assign(this, { name: "FantailError", code, topic });
  }
}

export class Fantail {
  #options;
  #subscriptions = new Map();
  #publishes = new Map();
  #id = 0;
  #state = "connecting";
  #transport = null;
  #up = false;
  #openedAt = 0;
  #heardAt = 0;
  #probed = 0;
  #tries = [0, 0];
  #failures = 0;
  // Which transport is next, and how often it has not opened in a row.
  #at = 0;
  #misses = 0;
  #webSocketWorks = false;
  #upgradeAt = 0;
  #retry = 0;
  #opening = 0;
  #watch;
  #lookedAt = Date.now();
  #wake = () => this.wake();
  #shown = () => document.visibilityState === "visible" && this.wake();

  /** `url` is where the server is, `https://edge.example.com`; a path in it is a prefix of the server's own. */
  constructor(url, options = {}) {
    const base = new URL(url, globalThis.location?.href);
    base.protocol = base.protocol.replace(/^ws/, "http");
    base.pathname = base.pathname.replace(/\/+$/, "");
    base.search = base.hash = "";
    this.#options = {
      transports: ["websocket", "sse", "poll"], heartbeat: 25_000, timeout: 10_000, protocols: [],
      WebSocket: globalThis.WebSocket, fetch: globalThis.fetch?.bind(globalThis), ...options,
      base: base.href.replace(/\/+$/, ""),
    };
    const can = { websocket: this.#options.WebSocket, sse: this.#options.fetch, poll: this.#options.fetch };
    this.#options.transports = this.#options.transports.filter((name) => can[name] && TRANSPORTS[name]);
    if (!this.#options.transports.length) throw new TypeError("no transport: pass options.WebSocket");
    this.#watch = setInterval(() => this.#look(), WATCH_MS);
    globalThis.addEventListener?.("online", this.#wake);
    globalThis.document?.addEventListener("visibilitychange", this.#shown);
    this.#connect();
  }

  /** "connecting", "open", "waiting" or "closed". */
  get state() { return this.#state; }

  /** The transport that is open, if one is. */
  get transport() { return this.#up ? this.#options.transports[this.#at] : null; }

  /** Begins a subscription; `on` has what it calls and where it begins. */
  subscribe(topic, on = {}) {
    if (this.#state === "closed") throw new FantailError("closed", "the client is closed", topic);
    if (this.#subscriptions.has(topic)) throw new FantailError("already_subscribed", "there is a subscription", topic);
    if (typeof on === "function") on = { onMessage: on };
    const [epoch, offset] = on.since ? parse(on.since) : [];
    const one = { topic, on, epoch, offset, id: 0, live: false, fresh: true, queue: null, again: false, failures: 0 };
    this.#subscriptions.set(topic, one);
    if (this.#up) this.#ask(one);
    const client = this;
    return {
      topic,
      get position() { return position(one); },
      close() {
        if (client.#subscriptions.get(topic) !== one) return;
        client.#subscriptions.delete(topic);
        clearTimeout(one.timer);
        if (client.#up) client.#transport.remove(one);
      },
    };
  }

  /** Publishes a string, an object, a list or bytes. The promise tells its place, or why it has none. */
  publish(topic, data) {
    const id = ++this.#id;
    const bytes = data instanceof ArrayBuffer || ArrayBuffer.isView(data);
    const command = { type: "publish", id, topic, ...(bytes ? { data_base64: base64(data) } : { data }) };
    return new Promise((resolve, reject) => {
      const fail = (code, text) => reject(new FantailError(code, text, topic));
      if (this.#state === "closed") return fail("closed", "the client is closed");
      if (this.#publishes.size >= PUBLISHES_MAX) return fail("busy", "too many publishes wait");
      const timer = setTimeout(() => {
        this.#publishes.delete(id);
        fail(waiting.sent ? "outcome_unknown" : "timeout", "no answer in time");
      }, this.#options.timeout);
      const waiting = { command, resolve, fail, timer, sent: false };
      this.#publishes.set(id, waiting);
      this.#send(waiting);
    });
  }

  /** Looks at once whether the connection lives, or tries to come back: after a sleep, on a new network. */
  wake() {
    this.#lookedAt = Date.now();
    if (this.#state === "waiting") this.#wait(0);
    else if (this.#up) this.#probe();
  }

  /** Ends everything, for good. */
  close() {
    if (this.#state === "closed") return;
    this.#set("closed");
    clearInterval(this.#watch);
    globalThis.removeEventListener?.("online", this.#wake);
    globalThis.document?.removeEventListener("visibilitychange", this.#shown);
    this.#end();
    for (const one of this.#subscriptions.values()) clearTimeout(one.timer);
    this.#subscriptions.clear();
    for (const waiting of this.#publishes.values()) {
      clearTimeout(waiting.timer);
      waiting.fail(waiting.sent ? "outcome_unknown" : "closed", "the client was closed");
    }
    this.#publishes.clear();
  }

  #set(state) {
    if (state === this.#state) return;
    this.#state = state;
    this.#call(this.#options.onState, state);
  }

  // What the application throws is its own: it must not keep others from their messages.
  #call(what, ...arguments_) {
    try {
      return what?.(...arguments_);
    } catch (error) {
      console.error(error);
      return undefined;
    }
  }

  #connect() {
    this.#set("connecting");
    if (this.#state !== "connecting") return;
    this.#tries = [this.#tries[1], Date.now()];
    const { transports } = this.#options;
    let own = true;
    const on = {
      options: this.#options,
      up: () => own && this.#opened(),
      heard: () => { if (own) this.#heardAt = Date.now(); },
      said: (what) => own && this.#said(what),
      down: (code, retryMs) => {
        if (!own) return;
        own = false;
        this.#lost(code, retryMs);
      },
    };
    this.#opening = setTimeout(() => on.down(), OPEN_MS);
    const transport = TRANSPORTS[transports[this.#at]](on);
    this.#transport = { ...transport, close: () => { own = false; transport.close(); } };
    if (transport.begin) transport.begin([...this.#subscriptions.values()].map((one) => this.#begin(one)));
  }

  #opened() {
    clearTimeout(this.#opening);
    this.#up = true;
    this.#misses = 0;
    this.#openedAt = this.#heardAt = this.#upgradeAt = Date.now();
    if (this.transport === "websocket") this.#webSocketWorks = true;
    this.#set("open");
    for (const one of this.#subscriptions.values()) if (one.via !== this.#transport) this.#ask(one);
    if (!this.#up) return;
    for (const waiting of this.#publishes.values()) this.#send(waiting);
  }

  #end() {
    clearTimeout(this.#opening);
    clearTimeout(this.#retry);
    clearTimeout(this.#probed);
    this.#up = false;
    this.#probed = 0;
    this.#transport?.close();
    this.#transport = null;
    for (const one of this.#subscriptions.values()) one.live = false;
  }

  #lost(code, retryMs) {
    const { transports } = this.#options;
    const was = this.#up;
    const stable = was && Date.now() - this.#openedAt >= STABLE_MS;
    this.#end();
    for (const [id, waiting] of this.#publishes) {
      if (!waiting.sent) continue;
      clearTimeout(waiting.timer);
      this.#publishes.delete(id);
      waiting.fail("outcome_unknown", "the connection ended before the answer");
    }
    if (was && isFinal(code)) {
      this.#call(this.#options.onError, new FantailError("ended", `the server ended the conversation with ${code}`));
      return this.close();
    }
    if (stable) this.#failures = 0;
    if (!was) {
      // What has worked is rather down than blocked.
      const patience = transports[this.#at] !== "websocket" ? 1 : this.#webSocketWorks ? 6 : 2;
      this.#misses += 1;
      if (this.#misses >= patience) {
        this.#at = (this.#at + 1) % transports.length;
        this.#misses = 0;
      }
    }
    // A server that goes has spread its clients already; everybody else is spread here, by full jitter.
    const spread = code === 1001 && this.#failures === 0
      ? 1_000 : Math.min(RETRY_MAX_MS, RETRY_FIRST_MS * 2 ** this.#failures);
    this.#failures += 1;
    this.#wait(Math.min(retryMs ?? Math.random() * spread, RETRY_HINT_MAX_MS));
  }

  #wait(ms) {
    clearTimeout(this.#retry);
    this.#set("waiting");
    if (this.#state !== "waiting") return;
    const soonest = this.#tries[0] + TWO_TRIES_MS - Date.now();
    this.#retry = setTimeout(() => this.#connect(), Math.max(ms, soonest, 0));
  }

  // Each two seconds: has the machine slept, does the connection live, would a WebSocket work by now?
  #look() {
    const now = Date.now();
    const slept = now - this.#lookedAt > SLEPT_MS;
    this.#lookedAt = now;
    if (slept) return this.wake();
    if (!this.#up) return;
    const quiet = now - this.#heardAt;
    if (this.transport === "websocket") {
      if (quiet > this.#options.heartbeat) this.#probe();
      return;
    }
    if (quiet > QUIET_MAX_MS) return this.#lost();
    const first = this.#options.transports.indexOf("websocket");
    if (first >= 0 && now - this.#upgradeAt > UPGRADE_MS) {
      this.#upgradeAt = now;
      const probe = webSocket({
        options: this.#options, heard() {}, said() {}, down() {},
        up: () => {
          probe.close();
          if (this.#state === "closed") return;
          this.#at = first;
          this.#end();
          this.#wait(0);
        },
      });
      setTimeout(probe.close, OPEN_MS);
    }
  }

  #probe() {
    if (this.#probed) return;
    const transport = this.#transport;
    const before = this.#heardAt;
    transport.probe();
    this.#probed = setTimeout(() => {
      this.#probed = 0;
      if (this.#transport === transport && this.#heardAt === before) this.#lost();
    }, PROBE_MS);
  }

  #send(waiting) {
    if (!this.#up) return;
    if (!this.#transport.send) {
      clearTimeout(waiting.timer);
      this.#publishes.delete(waiting.command.id);
      return waiting.fail("not_possible", "only a WebSocket can publish, and it is blocked");
    }
    waiting.sent = true;
    this.#transport.send(waiting.command);
  }

  // A subscription as it begins on this transport.
  #begin(one) {
    Object.assign(one, { id: ++this.#id, live: false, via: this.#transport });
    const since = position(one);
    return { topic: one.topic, id: one.id, since, history: since ? undefined : one.on.history };
  }

  #ask(one) {
    this.#transport.add(this.#begin(one));
  }

  #said(what) {
    this.#heardAt = Date.now();
    const one = this.#subscriptions.get(what.topic);
    switch (what.type) {
      case "message": return one?.live && this.#message(one, what);
      case "gap": return one?.live && this.#gap(one, what.gap);
      case "subscribed": return one && (what.id === one.id) && this.#subscribed(one, what);
      case "unsubscribed":
        if (one?.live && what.id === undefined) this.#fail(one, "unsubscribed", "the operator ended it");
        return undefined;
      case "published": case "error": {
        const waiting = this.#publishes.get(what.id);
        if (waiting) {
          clearTimeout(waiting.timer);
          this.#publishes.delete(what.id);
          if (what.type === "error") waiting.fail(what.code, what.message);
          else waiting.resolve({ topic: what.topic, epoch: what.epoch, offset: what.offset });
        } else if (one && what.id === one.id) this.#fail(one, what.code, what.message);
        else if (what.id === undefined) this.#call(this.#options.onError, new FantailError(what.code, what.message));
        return undefined;
      }
      default: return undefined;
    }
  }

  #subscribed(one, { epoch, offset, recovered, gap }) {
    const { fresh } = one;
    Object.assign(one, { live: true, fresh: false, failures: 0, epoch, offset });
    this.#call(one.on.onSubscribed, { topic: one.topic, position: position(one), recovered: !!recovered });
    if (gap) this.#gap(one, gap);
    else if (fresh && one.on.getState) this.#load(one);
  }

  #message(one, { epoch = one.epoch, offset, time, data, data_base64 }) {
    if (epoch === one.epoch && offset <= one.offset) return;
    Object.assign(one, { epoch, offset });
    const payload = data_base64 === undefined ? data : bytesOf(data_base64);
    const message = { topic: one.topic, offset, time, data: payload, position: position(one) };
    if (!one.queue) this.#call(one.on.onMessage, message);
    else if (one.queue.length < QUEUE_MAX) one.queue.push(message);
    else one.again = true;
  }

  #gap(one, gap) {
    this.#call(one.on.onGap, { topic: one.topic, ...gap });
    if (one.on.getState) this.#load(one);
  }

  // The application's state as of a position, and behind it the messages that came meanwhile.
  async #load(one) {
    one.again = true;
    if (one.queue) return;
    let from;
    let failures = 0;
    while (one.again && this.#subscriptions.get(one.topic) === one) {
      one.again = false;
      one.queue = [];
      try {
        from = await one.on.getState(position(one));
      } catch (error) {
        this.#call(one.on.onError, error);
        one.again = true;
        await new Promise((resolve) => { setTimeout(resolve, Math.random() * Math.min(RETRY_MAX_MS, 1_000 * 2 ** failures++)); });
      }
    }
    const { queue } = one;
    one.queue = null;
    if (this.#subscriptions.get(one.topic) !== one) return;
    const [epoch, offset] = from ? parse(from) : [];
    for (const message of queue) {
      const [itsEpoch] = parse(message.position);
      if (itsEpoch !== epoch || message.offset > offset) this.#call(one.on.onMessage, message);
    }
  }

  #fail(one, code, message) {
    one.live = false;
    this.#call(one.on.onError, new FantailError(code, message, one.topic));
    if (!["busy", "topic_rate", "topic_share"].includes(code)) return;
    const id = one.id;
    const ms = Math.random() * Math.min(RETRY_MAX_MS, 1_000 * 2 ** one.failures++);
    one.timer = setTimeout(() => this.#up && one.id === id && this.#ask(one), ms);
  }
}

/** Connects to a server. */
export function connect(url, options) {
  return new Fantail(url, options);
}

function webSocket(on) {
  const { WebSocket, base, protocols } = on.options;
  let socket;
  try {
    socket = new WebSocket(`${base.replace(/^http/, "ws")}/ws`, [PROTOCOL, ...protocols]);
  } catch {
    // A policy of the page may forbid it.
    setTimeout(on.down);
    return { close() {} };
  }
  const send = (what) => socket.readyState === 1 && socket.send(JSON.stringify(what));
  socket.onopen = () => (socket.protocol === PROTOCOL ? on.up() : socket.close());
  socket.onerror = () => {};
  socket.onclose = ({ code }) => on.down(code);
  socket.onmessage = ({ data }) => {
    let what;
    try {
      what = JSON.parse(data);
    } catch {
      return;
    }
    on.said(what);
  };
  return {
    send,
    add: (beginning) => send({ type: "subscribe", ...beginning }),
    remove: ({ topic }) => send({ type: "unsubscribe", id: 0, topic }),
    probe: () => send({ type: "ping" }),
    close: () => socket.close(),
  };
}

// Who comes back after these is sent away again; 1009 is about one publish, which is not repeated.
function isFinal(code) {
  return [1000, 1002, 1003, 1007, 1008, 1010].includes(code) || code >= 3000;
}

function position({ epoch, offset }) {
  return epoch === undefined ? undefined : `${epoch}:${offset}`;
}

function parse(text) {
  const at = text.indexOf(":");
  return [text.slice(0, at), Number(text.slice(at + 1))];
}

function base64(data) {
  const bytes = data instanceof ArrayBuffer ? new Uint8Array(data) : new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
  let text = "";
  for (let at = 0; at < bytes.length; at += 32_768) text += String.fromCharCode(...bytes.subarray(at, at + 32_768));
  return btoa(text);
}

function bytesOf(text) {
  return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
}
