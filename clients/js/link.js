// When to connect, and over what: one link is one connection at a time, over the transports that it is given, in their
// order of preference. Owns the wait between two tries, whether a connection lives, the way back to a better transport, and
// when another token is asked for; knows nothing of what is said.

const RETRY_FIRST_MS = 500;
const RETRY_MAX_MS = 30_000;
// A server that is going away may spread its clients over minutes.
const RETRY_HINT_MAX_MS = 300_000;
// Whatever ends connections early, there are two tries in this time and no more.
const TWO_TRIES_MS = 550;
// So long connected, and the next wait begins over.
const STABLE_MS = 10_000;
const OPEN_MS = 10_000;
const MISSES_MAX = 6;
const WATCH_MS = 2_000;
// A timer this late means that the machine slept.
const SLEPT_MS = 8_000;
const PROBE_MS = 4_000;
// What can't be asked whether it lives has said something in this time, or is begun anew after a sleep.
const FRESH_MS = 25_000;
// How often a WebSocket is tried beside another transport that works.
const UPGRADE_MS = 60_000;
// What says that a token is not taken: statuses, and codes of a WebSocket's close.
const DENIED = [401, 403, 3003, 3005];
// Who comes back after these is sent away again; 1009 is about one publish, which is not repeated.
const FINAL = /^(40[13]|100[02378]|1010|[34]\d{3})$/;

// `transports` are pairs of a name and a function that opens one, with a token if `on` has `token(anew)`, which promises one.
// `on` has `state(state, why)`, `started()` with a new transport, `opened()`, `said(what, size)` and `lost()`.
export function Link(transports, heartbeat, on) {
  let state = "connecting";
  let openedAt;
  let heardAt;
  let probed;
  let tries = [-TWO_TRIES_MS, -TWO_TRIES_MS];
  let failures = 0;
  // Which transport is next, and how often it has not been of use in a row.
  let next = 0;
  let misses = 0;
  let works;
  let spoke;
  // Whether a token was not taken and none has been since, or there is none.
  let denied = !on.token;
  let upgradeAt;
  let upgrade;
  let retry;
  let opening;
  let lookedAt = Date.now();
  // It has the member that options of a listener have for this: `signal`.
  const gone = new AbortController();

  const link = {
    transport: null,
    up: false,
    get state() { return state; },
    get name() { return transports[next][0]; },
    connect,
    // Looks at once whether the connection lives, or tries to come back: on a new network, or when the application knows.
    wake: () => rouse(true),
    close,
  };
  const watch = setInterval(look, WATCH_MS);
  globalThis.addEventListener?.("online", link.wake, gone);
  globalThis.document?.addEventListener("visibilitychange", () => document.hidden || rouse(), gone);
  return link;

  function connect() {
    if (!set("connecting")) return;
    let own = true;
    // Silence is more of a block than an answer; a token that does not come is none.
    let blame = -1;
    const down = (why) => {
      if (!own) return;
      own = false;
      lost(why);
    };
    const failed = () => {
      if (own) misses += blame;
      down();
    };
    opening = setTimeout(failed, OPEN_MS);
    link.transport = { close() { own = false; } };
    ask((token) => {
      if (!own) return;
      blame = 1;
      // The application may have taken its time.
      tries = [tries[1], performance.now()];
      const transport = transports[next][1]({
        up: () => own && opened(),
        said: (what, size) => {
          if (!own) return;
          heardAt = Date.now();
          spoke = true;
          if (link.name === "websocket") works = true;
          on.said(what, size);
        },
        down,
      }, token);
      link.transport = { ...transport, close: (code) => { own = false; transport.close(code); } };
      on.started();
    }, failed);
  }

  // Opens at once, or with what the application gives.
  function ask(open, failed) {
    const asked = on.token?.(denied);
    if (asked) asked.then(open, failed);
    else open();
  }

  function close(why) {
    if (state === "closed") return;
    end(1000);
    clearInterval(watch);
    gone.abort();
    set("closed", why);
  }

  // Gives whether it is so: who hears of it may close.
  function set(now, why) {
    if (now !== state) {
      state = now;
      on.state(state, why);
    }
    return now === state;
  }

  function opened() {
    heardAt = Date.now();
    if (link.up) return;
    clearTimeout(opening);
    link.up = true;
    openedAt = performance.now();
    upgradeAt = heardAt;
    spoke = false;
    if (set("open")) on.opened();
  }

  function end(code) {
    clearTimeout(opening);
    clearTimeout(retry);
    clearTimeout(probed);
    upgrade?.();
    link.up = false;
    probed = 0;
    link.transport?.close(code);
    link.transport = null;
  }

  // `code` is that of a WebSocket's close, or the status of an answer that says no; `retryMs` is what the server asked for.
  function lost({ code, reason, retryMs = 0 } = {}) {
    const was = link.up;
    const lasted = performance.now() - openedAt;
    // What opens and breaks off without a word is of as little use as what does not open.
    const isUseless = !was || (!spoke && lasted < STABLE_MS && (code ?? 1006) === 1006);
    const isStatus = code < 1000;
    const isDenied = DENIED.includes(code);
    end();
    on.lost();
    if (state === "closed") return;
    if (was && lasted >= STABLE_MS) {
      failures = 0;
      denied = !on.token;
    }
    // For another token it is worth another try.
    if ((was || isStatus) && FINAL.test(code) && (denied || !isDenied)) {
      close({ code, reason });
      return;
    }
    denied ||= isDenied;
    if (isStatus || isDenied) {
      // What a WebSocket is refused for nobody can tell but the other transports. It has one try.
      next = 0;
      misses = MISSES_MAX;
    } else if (!isUseless) misses = 0;
    // What has worked is rather down than blocked.
    else if (++misses >= (link.name !== "websocket" ? 1 : works ? MISSES_MAX : 2)) {
      next = (next + 1) % transports.length;
      misses = 0;
    }
    // A server that goes has spread its clients already; everybody else is spread here, by full jitter.
    const first = code === 1001 && !failures ? 1_000 : RETRY_FIRST_MS;
    wait(Math.max(Math.min(retryMs, RETRY_HINT_MAX_MS), jitter(first, failures++)), { code, reason });
  }

  function wait(ms, why) {
    clearTimeout(retry);
    const retryMs = Math.max(ms, tries[0] + TWO_TRIES_MS - performance.now());
    if (set("waiting", { ...why, retryMs })) retry = setTimeout(connect, retryMs);
  }

  // Each two seconds: has the machine slept, does the connection live, would a WebSocket work by now?
  function look() {
    const now = Date.now();
    const late = now - lookedAt;
    lookedAt = now;
    // A clock that was set back.
    if (late < 0) heardAt = now;
    if (late > SLEPT_MS) return rouse();
    if (!link.up) return;
    if (link.transport.probe && now - heardAt > heartbeat) probe();
    if (link.name !== "websocket" && Math.abs(now - upgradeAt) > UPGRADE_MS) better(now);
  }

  function better(now) {
    const first = transports.findIndex(([name]) => name === "websocket");
    if (first < 0) return;
    upgradeAt = now;
    let transport;
    const over = () => {
      upgrade = null;
      clearTimeout(timer);
      transport?.close();
    };
    const down = () => upgrade?.();
    const timer = setTimeout(down, OPEN_MS);
    upgrade = over;
    ask((token) => {
      if (upgrade !== over) return;
      transport = transports[first][1]({
        said() {}, down,
        up: () => {
          next = first;
          again();
        },
      }, token);
    }, down);
  }

  // At once, without its being a failure.
  function again() {
    end();
    on.lost();
    wait(0);
  }

  // After a sleep, or when the page is shown again: a hidden page's timers are as late.
  function rouse(surely) {
    if (state === "waiting") wait(0);
    else if (link.up) probe(surely);
  }

  function probe(surely) {
    const { transport } = link;
    if (!transport.probe) {
      if (surely || Math.abs(Date.now() - heardAt) > FRESH_MS) again();
      return;
    }
    if (probed) return;
    const before = heardAt;
    transport.probe();
    probed = setTimeout(() => {
      probed = 0;
      if (link.transport === transport && heardAt === before) lost();
    }, PROBE_MS);
  }
}

// Full jitter: anything up to twice as long after each failure.
export function jitter(ms, failures) {
  return Math.random() * Math.min(RETRY_MAX_MS, ms * 2 ** failures);
}
