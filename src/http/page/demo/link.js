// The one connection: subscribes to every chart's topic, and when it comes back, from where each of them was.

const RETRY_FIRST_MS = 500;
const RETRY_CAP_MS = 30_000;

class Link {
  // `charts` by topic; `onState(tone, text)` says how it stands.
  constructor(charts, onState) {
    Object.assign(this, { charts, onState, failures: 0, timer: 0, messages: 0, offline: 0 });
    this.connect();
  }

  connect() {
    clearTimeout(this.timer);
    this.onState("wait", "Connecting");
    const url = new URL("./ws", document.baseURI);
    url.protocol = location.protocol === "https:" ? "wss:" : "ws:";
    const socket = this.socket = new WebSocket(url, "fantail.json.v1");
    socket.onopen = () => {
      this.failures = 0;
      this.onState("good", "Live");
      for (const { topic, position } of this.charts.values()) {
        const since = position ? { since: `${position.epoch}:${position.offset}` } : {};
        socket.send(JSON.stringify({ type: "subscribe", topic, ...since }));
      }
    };
    socket.onmessage = ({ data }) => { if (socket === this.socket) this.take(JSON.parse(data)); };
    socket.onclose = () => { if (socket === this.socket) this.wait(); };
  }

  wait() {
    // Full jitter, as docs/deploy.md asks of clients.
    const delay = Math.max(this.offline - performance.now(), Math.random() * Math.min(RETRY_CAP_MS, RETRY_FIRST_MS * 2 ** this.failures));
    this.failures += 1;
    this.onState("wait", this.offline > performance.now() ? "Unplugged" : "Coming back");
    this.timer = setTimeout(() => this.connect(), delay);
  }

  // As if the network were gone for so long.
  unplug(ms) {
    this.offline = performance.now() + ms;
    const { socket } = this;
    this.socket = null;
    socket?.close();
    this.wait();
  }

  take(said) {
    const chart = this.charts.get(said.topic);
    if (!chart) return;
    if (said.type === "message") {
      this.messages += 1;
      // By this clock: the server's may be another.
      chart.take(said.offset, said.data.value, Date.now());
    } else if (said.type === "subscribed") {
      // What lies between is gone unless all of it follows; with another epoch nobody knows how much that is.
      const before = chart.position;
      if (before && before.epoch === said.epoch && !said.recovered && said.offset > before.offset) chart.miss(said.offset - before.offset, Date.now());
      if (!before || !said.recovered) chart.position = { epoch: said.epoch, offset: said.offset };
    }
  }
}
