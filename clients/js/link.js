// When to connect, and over what: one link is one connection at a time, over the transports that it is given, in their
// order of preference. Owns the wait between two tries, whether a connection lives, and the way back to a better transport;
// knows nothing of what is said.

const RETRY_FIRST_MS = 500;
const RETRY_MAX_MS = 30_000;
// A server that is going away may spread its clients over minutes.
const RETRY_HINT_MAX_MS = 300_000;
// Whatever ends connections early, there are two tries in this time and no more.
const TWO_TRIES_MS = 550;
// So long connected, and the next wait begins over.
const STABLE_MS = 10_000;
const OPEN_MS = 10_000;
const WATCH_MS = 2_000;
// A timer this late means that the machine slept.
const SLEPT_MS = 8_000;
const PROBE_MS = 4_000;
// What can't be asked whether it lives has said something in this time, or is begun anew after a sleep.
const FRESH_MS = 25_000;
// How often a WebSocket is tried beside another transport that works.
const UPGRADE_MS = 60_000;

export class Link {
  #transports;
  #heartbeat;
  #on;
  #state = "connecting";
  #openedAt = 0;
  #heardAt = 0;
  #probed = 0;
  #tries = [-TWO_TRIES_MS, -TWO_TRIES_MS];
  #failures = 0;
  // Which transport is next, and how often it has not been of use in a row.
  #at = 0;
  #misses = 0;
  #works = false;
  #spoke = false;
  #upgradeAt = 0;
  #upgrade = null;
  #retry = 0;
  #opening = 0;
  #watch;
  #lookedAt = Date.now();
  #online = () => this.wake();
  #shown = () => document.visibilityState === "visible" && this.#rouse();
  transport = null;
  up = false;

  // `transports` are pairs of a name and a function that opens one. `on` has `state(state, why)`, `started()` with a new
  // transport, `opened()`, `said(what, size)`, `lost()` and `ended(code)`.
  constructor(transports, heartbeat, on) {
    this.#transports = transports;
    this.#heartbeat = heartbeat;
    this.#on = on;
    this.#watch = setInterval(() => this.#look(), WATCH_MS);
    globalThis.addEventListener?.("online", this.#online);
    globalThis.document?.addEventListener("visibilitychange", this.#shown);
  }

  get state() { return this.#state; }

  get name() { return this.#transports[this.#at][0]; }

  connect() {
    this.#set("connecting");
    if (this.#state !== "connecting") return;
    this.#tries = [this.#tries[1], performance.now()];
    let own = true;
    const transport = this.#transports[this.#at][1]({
      up: () => own && this.#opened(),
      heard: () => { if (own) this.#heardAt = Date.now(); },
      said: (what, size) => {
        if (!own) return;
        this.#heardAt = Date.now();
        this.#spoke = true;
        if (this.name === "websocket") this.#works = true;
        this.#on.said(what, size);
      },
      down: (why) => {
        if (!own) return;
        own = false;
        this.#lost(why);
      },
    });
    this.transport = { ...transport, close: (code) => { own = false; transport.close(code); } };
    this.#opening = setTimeout(() => {
      if (!own) return;
      own = false;
      // Silence is more of a block than an answer.
      this.#misses += 1;
      this.#lost();
    }, OPEN_MS);
    this.#on.started();
  }

  // Looks at once whether the connection lives, or tries to come back: on a new network, or when the application knows.
  wake() {
    if (this.#state === "waiting") this.#wait(0);
    else if (this.up) this.#probe(true);
  }

  close(why) {
    if (this.#state === "closed") return;
    this.#end(1000);
    clearInterval(this.#watch);
    globalThis.removeEventListener?.("online", this.#online);
    globalThis.document?.removeEventListener("visibilitychange", this.#shown);
    this.#set("closed", why);
  }

  #set(state, why) {
    if (state === this.#state) return;
    this.#state = state;
    this.#on.state(state, why);
  }

  #opened() {
    if (this.up) return;
    clearTimeout(this.#opening);
    this.up = true;
    this.#openedAt = performance.now();
    this.#heardAt = this.#upgradeAt = Date.now();
    this.#spoke = false;
    this.#set("open");
    if (this.up) this.#on.opened();
  }

  #end(code) {
    clearTimeout(this.#opening);
    clearTimeout(this.#retry);
    clearTimeout(this.#probed);
    this.#upgrade?.();
    this.up = false;
    this.#probed = 0;
    this.transport?.close(code);
    this.transport = null;
  }

  // `code` and `reason` are those of a WebSocket's close; `retryMs` is what the server asked for.
  #lost({ code, reason, retryMs = 0 } = {}) {
    const was = this.up;
    const lasted = performance.now() - this.#openedAt;
    // What opens and breaks off without a word is of as little use as what does not open.
    const useless = !was || (!this.#spoke && lasted < STABLE_MS && (code === undefined || code === 1006));
    this.#end();
    this.#on.lost();
    if (this.#state === "closed") return;
    if (was && isFinal(code)) {
      this.#on.ended(code);
      this.close({ code, reason });
      return;
    }
    if (was && lasted >= STABLE_MS) this.#failures = 0;
    if (!useless) this.#misses = 0;
    else {
      // What has worked is rather down than blocked.
      const patience = this.name !== "websocket" ? 1 : this.#works ? 6 : 2;
      this.#misses += 1;
      if (this.#misses >= patience) {
        this.#at = (this.#at + 1) % this.#transports.length;
        this.#misses = 0;
      }
    }
    // A server that goes has spread its clients already; everybody else is spread here, by full jitter.
    const first = code === 1001 && !this.#failures ? 1_000 : RETRY_FIRST_MS;
    this.#wait(Math.max(Math.min(retryMs, RETRY_HINT_MAX_MS), jitter(first, this.#failures++)), { code, reason });
  }

  #wait(ms, why) {
    clearTimeout(this.#retry);
    const wait = Math.max(ms, this.#tries[0] + TWO_TRIES_MS - performance.now());
    this.#set("waiting", { ...why, retryMs: wait });
    if (this.#state === "waiting") this.#retry = setTimeout(() => this.connect(), wait);
  }

  // Each two seconds: has the machine slept, does the connection live, would a WebSocket work by now?
  #look() {
    const now = Date.now();
    const late = now - this.#lookedAt;
    this.#lookedAt = now;
    // A clock that was set back.
    if (late < 0) this.#heardAt = now;
    if (late > SLEPT_MS) return this.#rouse();
    if (!this.up) return;
    if (this.transport.probe && now - this.#heardAt > this.#heartbeat) this.#probe();
    if (this.name !== "websocket" && Math.abs(now - this.#upgradeAt) > UPGRADE_MS) this.#better(now);
  }

  #better(now) {
    const first = this.#transports.findIndex(([name]) => name === "websocket");
    if (first < 0) return;
    this.#upgradeAt = now;
    const transport = this.#transports[first][1]({
      heard() {}, said() {}, down: () => this.#upgrade?.(),
      up: () => {
        this.#at = first;
        this.#again();
      },
    });
    const timer = setTimeout(() => this.#upgrade?.(), OPEN_MS);
    this.#upgrade = () => {
      this.#upgrade = null;
      clearTimeout(timer);
      transport.close();
    };
  }

  // At once, without its being a failure.
  #again() {
    this.#end();
    this.#on.lost();
    this.#wait(0);
  }

  // After a sleep, or when the page is shown again: a hidden page's timers are as late.
  #rouse() {
    if (this.#state === "waiting") this.#wait(0);
    else if (this.up) this.#probe();
  }

  #probe(surely) {
    const { transport } = this;
    if (!transport.probe) {
      if (surely || Math.abs(Date.now() - this.#heardAt) > FRESH_MS) this.#again();
      return;
    }
    if (this.#probed) return;
    const before = this.#heardAt;
    transport.probe();
    this.#probed = setTimeout(() => {
      this.#probed = 0;
      if (this.transport === transport && this.#heardAt === before) this.#lost();
    }, PROBE_MS);
  }
}

// Full jitter: anything up to twice as long after each failure.
export function jitter(ms, failures) {
  return Math.random() * Math.min(RETRY_MAX_MS, ms * 2 ** failures);
}

// Who comes back after these is sent away again; 1009 is about one publish, which is not repeated.
function isFinal(code) {
  return [1000, 1002, 1003, 1007, 1008, 1010].includes(code) || code >= 3000;
}
