// A client of Fantail. One connection for all topics: a WebSocket that speaks fantail.json.v1, or what fallback.js makes
// of event streams and long polls where WebSockets are blocked. Owns subscriptions and their positions, and publishes that
// wait for their answer; link.js decides when to come back. Knows no dialect but the protocol's objects.

import { Link, jitter } from "./link.js";
import { eventStream, longPoll, place } from "./fallback.js";

const PROTOCOL = "fantail.json.v1";
const TRANSPORTS = { websocket: webSocket, sse: eventStream, poll: longPoll };
// What is kept while the application loads its state, in messages and characters of theirs; above, it loads again.
const QUEUE_MAX = 10_000;
const QUEUE_SIZE_MAX = 16 << 20;
// State is loaded again this much later than before at least, whoever asks for it.
const LOAD_MS = 1_000;
const PUBLISHES_MAX = 1_000;
// Another token is asked for this much later than before at least: one that lives no longer ends soon from the beginning.
const RENEW_MS = 10_000;
// Topics of which it is known how far they have come by a pattern.
const NEWEST_MAX = 10_000;

/** What went wrong: `code` is a word of docs/protocol.md, or one of this client's own. */
export class FantailError extends Error {
  constructor(code, message = code, topic) {
    super(message);
    Object.assign(this, { name: "FantailError", code, topic });
  }
}

export class Fantail {
  #options;
  #link;
  #subscriptions = new Map();
  // Those of them that are to patterns.
  #wild = new Set();
  // What came last of a topic by pattern, and topics whose subscription ends while a pattern means them.
  #newest = new Map();
  #leaving = new Set();
  #publishes = new Map();
  #renewAt = 0;
  #id = 0;

  /** `url` is where the server is, `https://edge.example.com`; a path in it is a prefix of the server's own. */
  constructor(url, options = {}) {
    const { WebSocket, fetch, location } = globalThis;
    const base = new URL(url, location?.href);
    base.search = base.hash = "";
    options = this.#options = {
      transports: Object.keys(TRANSPORTS), heartbeat: 25_000, timeout: 10_000, protocols: [],
      WebSocket, fetch, ...options,
      base: base.href.replace(/^ws/, "http").replace(/\/+$/, ""),
    };
    const transports = options.transports.filter((name) => name !== "websocket" || options.WebSocket);
    if (!transports.length) throw new TypeError("no transport");
    this.#link = new Link(transports.map((name) => [name, (on, token) => TRANSPORTS[name]({ ...options, token }, on)]), options.heartbeat, {
      state: (state, why) => {
        if (state === "closed") {
          this.#forget();
          if (why) this.#trouble("ended", `code ${why.code}`);
        }
        call(options.onState, state, why);
      },
      started: () => this.#link.transport.begin?.([...this.#subscriptions.values()].map((one) => this.#begin(one))),
      opened: () => this.#opened(),
      said: (what, size) => this.#said(what, size),
      lost: () => this.#lost(),
      // Whatever it throws, the connection has failed, and comes back.
      token: options.getToken && (async (anew) => options.getToken(anew)),
    });
    this.#link.connect();
  }

  /** "connecting", "open", "waiting" or "closed". */
  get state() { return this.#link.state; }

  /** The transport that is open, if one is. */
  get transport() { return this.#link.up ? this.#link.name : null; }

  /** Begins a subscription; `on` has what it calls and where it begins. */
  subscribe(topic, on) { return this.#follow(topic, on, false); }

  /** The same to all topics that a pattern means, `prices/*`: from now on, without a place to begin at. */
  subscribePattern(pattern, on) { return this.#follow(pattern, on, true); }

  #follow(topic, on = {}, wild) {
    const code = topic.includes("*") !== wild ? "bad_command"
      : this.state === "closed" ? "closed"
      : this.#subscriptions.has(topic) && "already_subscribed";
    if (code) throw new FantailError(code, code, topic);
    if (typeof on === "function") on = { onMessage: on };
    const [epoch, offset] = on.since ? place(on.since) : [];
    const name = { [wild ? "pattern" : "topic"]: topic };
    const one = { name, topic, on, wild, epoch, offset, id: 0, fresh: true, loadedAt: -LOAD_MS, failures: 0 };
    this.#subscriptions.set(topic, one);
    if (wild) this.#wild.add(one);
    if (this.#link.up) this.#ask(one);
    return {
      ...name,
      get position() { return position(one); },
      close: () => {
        if (this.#subscriptions.get(topic) !== one) return;
        this.#subscriptions.delete(topic);
        this.#wild.delete(one);
        one.live = false;
        clearTimeout(one.timer);
        if (!this.#link.up) return;
        // Until the server has heard of it, more may come of what is kept.
        if (this.#link.transport.send) this.#leaving.add(topic);
        this.#link.transport.remove(one);
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
      if (this.state === "closed") return fail("closed");
      if (this.#publishes.size >= PUBLISHES_MAX) return fail("busy");
      const timer = setTimeout(() => {
        this.#settle(waiting).fail(waiting.sent ? "outcome_unknown" : "timeout");
      }, this.#options.timeout);
      const waiting = { command, resolve, fail, timer, sent: false };
      this.#publishes.set(id, waiting);
      this.#send(waiting);
    });
  }

  /** Looks at once whether the connection lives, or tries to come back: after a sleep, on a new network. */
  wake() { this.#link.wake(); }

  /** Ends everything, for good. */
  close() { this.#link.close(); }

  #trouble(code, message) { call(this.#options.onError, new FantailError(code, message)); }

  // Another token for the connection that there is. If none is taken, it ends, and comes back with another.
  async #renew({ send }) {
    const now = performance.now();
    if (now < this.#renewAt) return;
    this.#renewAt = now + RENEW_MS;
    const token = await this.#options.getToken?.(true);
    if (token) send({ type: "refresh", id: 0, token });
  }

  #opened() {
    const { transport } = this.#link;
    for (const one of this.#subscriptions.values()) if (one.via !== transport) this.#ask(one);
    for (const waiting of this.#publishes.values()) this.#send(waiting);
  }

  #lost() {
    this.#renewAt = 0;
    this.#leaving.clear();
    for (const one of this.#subscriptions.values()) one.live = false;
    for (const waiting of this.#publishes.values()) {
      if (waiting.sent) this.#settle(waiting).fail("outcome_unknown");
    }
  }

  #forget() {
    this.#lost();
    for (const one of this.#subscriptions.values()) clearTimeout(one.timer);
    this.#subscriptions.clear();
    this.#wild.clear();
    for (const waiting of this.#publishes.values()) this.#settle(waiting).fail("closed");
  }

  #settle(waiting) {
    clearTimeout(waiting.timer);
    this.#publishes.delete(waiting.command.id);
    return waiting;
  }

  #send(waiting) {
    const { up, transport } = this.#link;
    if (!up) return;
    waiting.sent = !!transport.send;
    if (waiting.sent) transport.send(waiting.command);
    // Only a WebSocket can publish.
    else this.#settle(waiting).fail("not_possible");
  }

  // A subscription as it begins on this transport.
  #begin(one) {
    Object.assign(one, { id: ++this.#id, live: false, via: this.#link.transport });
    const since = position(one);
    return { topic: one.topic, id: one.id, since, history: since ? undefined : one.on.history };
  }

  #ask(one) {
    this.#link.transport.add(this.#begin(one));
  }

  #said(what, size) {
    const { type, id, code, message } = what;
    const name = what.pattern ?? what.topic;
    const one = this.#subscriptions.get(name);
    // The answer to an end.
    if (id === 0) this.#leaving.delete(name);
    switch (type) {
      case "message": this.#message(what, size); break;
      case "gap": this.#meant(what).forEach((each) => this.#gap(each, name, what.gap)); break;
      case "welcome": call(this.#options.onWelcome, what.data); break;
      case "expires": this.#renew(this.#link.transport).catch(() => {}); break;
      case "subscribed": if (one && id === one.id) this.#subscribed(one, what); break;
      case "unsubscribed": if (one?.live && id === undefined) this.#fail(one, type); break;
      case "published": case "forwarded": case "error": {
        const waiting = this.#publishes.get(id);
        // A server that knows no patterns names none.
        const asked = !waiting && id && [...this.#subscriptions.values()].find((each) => each.id === id);
        if (asked) this.#fail(asked, code, message);
        else if (waiting) {
          this.#settle(waiting);
          if (type === "error") waiting.fail(code, message);
          else waiting.resolve(what);
        } else if (id === undefined) this.#trouble(code, message);
      }
    }
  }

  #subscribed(one, { epoch, offset, recovered, gap }) {
    const { fresh, wild } = one;
    if (!wild) [one.epoch, one.offset] = place(`${epoch}:${offset}`);
    Object.assign(one, { live: true, fresh: false, failures: 0 });
    call(one.on.onSubscribed, { ...one.name, position: position(one), recovered: !!recovered, again: !fresh });
    if (gap) this.#gap(one, one.topic, gap);
    // By a pattern nothing of what was missed comes.
    else if ((fresh || wild) && one.on.getState) this.#load(one);
  }

  // For whom it is: a WebSocket says each thing once, other transports for which `patterns` they do.
  #meant({ topic, patterns }) {
    const own = this.#subscriptions.get(topic);
    const wild = [...this.#wild].filter((one) => one.live && fits(one.topic, topic) && (!patterns || patterns.includes(one.topic)));
    return own?.live && !patterns?.length ? [own, ...wild] : wild;
  }

  #message(what, size) {
    const { topic, time, data, data_base64, patterns } = what;
    const meant = this.#meant(what);
    if (!meant.length) return;
    // Read as a whole before anything is kept of it: what is no message must not move the position.
    const [, offset] = patterns?.length ? [] : place(`${what.epoch ?? "of"}:${what.offset}`);
    const payload = data_base64 !== undefined ? bytesOf(data_base64)
      : this.#options.raw && typeof data === "object" ? JSON.stringify(data) : data;
    const isOld = offset && meant.at(-1).wild && this.#isOld(what, !meant[0].wild);
    for (const one of meant) {
      const epoch = what.epoch ?? one.epoch;
      if (one.wild ? isOld : epoch === one.epoch && offset <= one.offset) continue;
      if (!one.wild) Object.assign(one, { epoch, offset });
      const message = { topic, offset, time, data: payload, position: position(one) };
      if (!one.live) continue;
      if (!one.queue) call(one.on.onMessage, message);
      else if (one.queue.length < QUEUE_MAX && (one.size += size) < QUEUE_SIZE_MAX) one.queue.push(message);
      else one.again = true;
    }
  }

  // Whether a pattern has had this message, which comes again for who subscribes to the topic from further back. Without
  // such a subscription offsets only say that the topic has begun another life.
  #isOld({ topic, offset, time }, own) {
    const seen = this.#newest.get(topic);
    if ((own || this.#leaving.has(topic)) && offset <= seen?.offset && time <= seen.time) return true;
    this.#newest.set(topic, { offset, time });
    if (this.#newest.size > NEWEST_MAX) this.#newest.clear();
    return false;
  }

  #gap(one, topic, { kind, oldest }) {
    call(one.on.onGap, { topic, kind, oldest });
    if (one.on.getState) this.#load(one);
  }

  // The application's state as of a position, and behind it the messages that came meanwhile.
  async #load(one) {
    one.again = true;
    if (one.queue) return;
    const isMine = () => this.#subscriptions.get(one.topic) === one;
    let from;
    let failures = 0;
    while (one.again && isMine()) {
      one.queue = [];
      const backOff = failures && jitter(LOAD_MS, failures);
      await new Promise((resolve) => { setTimeout(resolve, Math.max(backOff, one.loadedAt + LOAD_MS - performance.now())); });
      if (!isMine()) return;
      // What has come until now is part of the state.
      Object.assign(one, { again: false, queue: [], size: 0, loadedAt: performance.now() });
      try {
        from = await one.on.getState(position(one));
        from = !one.wild && from && place(from);
      } catch (error) {
        call(one.on.onError, error);
        one.again = true;
        failures += 1;
      }
    }
    const { queue } = one;
    one.queue = null;
    if (!isMine()) return;
    const [epoch, offset] = from || [];
    for (const message of queue) {
      if (!epoch || place(message.position)[0] !== epoch || message.offset > offset) call(one.on.onMessage, message);
    }
  }

  #fail(one, code, message) {
    one.live = false;
    call(one.on.onError, new FantailError(code, message, one.topic));
    // "topic_rate" and "topic_share" pass, and "busy".
    if (!/^(busy|topic_)/.test(code)) return;
    const id = one.id;
    one.timer = setTimeout(() => this.#link.up && one.id === id && this.#ask(one), jitter(1_000, one.failures++));
  }
}

// What the application throws is its own: it must not keep others from their messages.
function call(what, ...given) {
  try {
    return what?.(...given);
  } catch (error) {
    console.error(error);
    return undefined;
  }
}

/** Connects to a server. */
export function connect(url, options) {
  return new Fantail(url, options);
}

function webSocket({ WebSocket, base, protocols, raw, token }, on) {
  let socket;
  try {
    socket = new WebSocket(`${base.replace(/^http/, "ws")}/ws`, [PROTOCOL].concat(protocols, token ? `fantail.token.${token}` : []));
  } catch {
    // A policy of the page may forbid it.
    setTimeout(on.down);
    return { close() {} };
  }
  const send = (what) => socket.send(JSON.stringify(what));
  socket.onopen = () => (socket.protocol === PROTOCOL ? on.up() : socket.close());
  socket.onerror = () => {};
  socket.onclose = on.down;
  socket.onmessage = ({ data }) => {
    try {
      const what = JSON.parse(data);
      // The payload is the last member.
      if (raw && what.type === "message" && typeof what.data === "object") what.data = data.slice(data.indexOf(',"data":') + 8, -1);
      on.said(what, data.length);
    } catch {
      // No server of this protocol; what it may have been comes again by its position.
      on.down();
    }
  };
  return {
    send,
    add: (beginning) => send({ type: "subscribe", ...beginning }),
    remove: ({ topic }) => send({ type: "unsubscribe", id: 0, topic }),
    probe: () => send({ type: "ping" }),
    close: (code) => socket.close(code),
  };
}

// Whether a pattern means a topic: a * is any one level, and a ** at its end all that follow.
function fits(pattern, topic) {
  const levels = topic.split("/");
  const wanted = pattern.split("/");
  return wanted.every((level, at) => (level[0] === "*" ? at in levels : level === levels[at]))
    && (pattern.endsWith("**") || wanted.length === levels.length);
}

function position({ epoch, offset }) {
  return epoch && `${epoch}:${offset}`;
}

function base64(data) {
  // A view of a buffer, or a buffer.
  const bytes = new Uint8Array(data.buffer ?? data, data.byteOffset, data.byteLength);
  return btoa(bytes.reduce((text, byte) => text + String.fromCharCode(byte), ""));
}

function bytesOf(text) {
  return Uint8Array.from(atob(text), (letter) => letter.charCodeAt());
}
