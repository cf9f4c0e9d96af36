// A connection that comes back: one seat is one place at the server, over as many sockets as it takes. It waits as
// docs/deploy.md asks of clients, and knows nothing of what is said over it.

const RETRY_FIRST_MS = 500;
const RETRY_CAP_MS = 30_000;
// So long connected, and the next wait begins over.
const STABLE_MS = 10_000;

class Seat {
  // `on` has `open(seat)`, `message(seat, data)`, `lost(seat, close)`, `ended(seat, close)` and `changed()`.
  constructor(id, url, on) {
    Object.assign(this, { id, url, on, state: "connecting", failures: 0, retryAt: 0, timer: 0, leaving: false });
    Object.assign(this, { lastRow: 0, sentAt: [], feather: null });
    this.connect();
  }

  get isOpen() { return this.state === "open"; }

  connect() {
    clearTimeout(this.timer);
    this.state = "connecting";
    this.sentAt = [];
    let openedAt = 0;
    const socket = this.socket = new WebSocket(this.url);
    socket.binaryType = "arraybuffer";
    socket.onopen = () => {
      openedAt = performance.now();
      this.state = "open";
      this.on.open(this);
      this.on.changed();
    };
    socket.onmessage = (message) => this.on.message(this, message.data);
    socket.onclose = (close) => {
      const wasOpen = openedAt > 0;
      const what = { code: close.code, reason: close.reason, wasOpen, byPage: this.leaving };
      if (wasOpen && performance.now() - openedAt >= STABLE_MS) this.failures = 0;
      if (this.leaving || !comesBack(close.code)) {
        this.state = "closed";
        this.on.ended(this, what);
      } else {
        this.wait(close.code);
        this.on.lost(this, what);
      }
      this.on.changed();
    };
  }

  wait(code) {
    // A server that goes has spread its clients already; everybody else is spread here, by full jitter.
    const spread = code === 1001 && this.failures === 0 ? 1000 : Math.min(RETRY_CAP_MS, RETRY_FIRST_MS * 2 ** this.failures);
    this.failures += 1;
    const delay = Math.random() * spread;
    this.state = "waiting";
    this.retryAt = performance.now() + delay;
    this.timer = setTimeout(() => this.again(), delay);
  }

  // The next attempt, now.
  again() {
    if (this.state !== "waiting") return;
    this.connect();
    this.on.changed();
  }

  leave() {
    clearTimeout(this.timer);
    this.leaving = true;
    if (this.state === "waiting") {
      this.state = "closed";
      this.on.ended(this, null);
    } else {
      this.state = "closing";
      this.socket.close(1000, "closed by the page");
    }
    this.on.changed();
  }
}
