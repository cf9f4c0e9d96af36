// A seat: one place at the server, over as many connections as it takes. In a room it is a client with one subscription
// (clients/js), at the echo a link that sends bytes as they are. Both say the same things to their card: `open(seat, info)`,
// `message(seat, message)`, `gap(seat, gap)`, `trouble(seat, error)`, `lost(seat, end)`, `ended(seat, end)` and `changed()`.

const FLASH_MS = 200;

class Seat {
  constructor(id, topic, on) {
    Object.assign(this, { id, topic, on, state: "connecting", retryAt: 0, failures: 0, leaving: false });
    Object.assign(this, { lastRow: 0, feather: null, flashedAt: -Infinity });
  }

  get isOpen() { return this.state === "open"; }

  onState(state, end) {
    const wasOpen = this.isOpen;
    this.state = state;
    if (state === "waiting") {
      this.failures = wasOpen ? 1 : this.failures + 1;
      this.retryAt = performance.now() + end.retryMs;
      this.on.lost(this, { ...end, wasOpen });
    } else if (state === "closed") {
      this.on.ended(this, this.leaving ? null : end);
    }
    this.on.changed();
  }

  opened(info) {
    this.state = "open";
    this.on.open(this, info);
    this.on.changed();
  }

  // A feather that flashes already says all that it can.
  flash() {
    const now = performance.now();
    if (now - this.flashedAt < FLASH_MS) return;
    this.flashedAt = now;
    flash(this.feather);
  }

  // The next attempt, now.
  again() {
    if (this.state !== "waiting") return;
    this.retryAt = performance.now();
    this.connection.wake();
  }

  leave() {
    this.leaving = true;
    this.connection.close();
  }
}

class RoomSeat extends Seat {
  constructor(id, topic, on) {
    super(id, topic, on);
    // It is open when the topic has begun, which is said by the subscription.
    this.connection = connect(new URL(".", document.baseURI), {
      raw: true, onState: (state, end) => this.onState(state === "open" ? "connecting" : state, end),
    });
    this.connection.subscribe(topic, {
      onSubscribed: (info) => this.opened(info),
      onMessage: (message) => on.message(this, message),
      onGap: (gap) => on.gap(this, gap),
      onError: (error) => on.trouble(this, error),
    });
  }

  get transport() { return this.connection.transport; }

  send(data) { return this.connection.publish(this.topic, data); }
}

class EchoSeat extends Seat {
  constructor(id, on) {
    super(id, null, on);
    this.connection = new Link([["websocket", (link) => this.socket(link)]], 25_000, {
      state: (state, end) => this.onState(state, end),
      started() {}, lost() {},
      opened: () => this.opened({}),
      said: (message) => on.message(this, message),
    });
    this.connection.connect();
  }

  get transport() { return "websocket"; }

  // What is sent comes back in its order, and so does what only asks whether the connection lives.
  socket(link) {
    const url = new URL("./echo", document.baseURI);
    url.protocol = location.protocol === "https:" ? "wss:" : "ws:";
    const socket = new WebSocket(url);
    const onTheWay = [];
    socket.binaryType = "arraybuffer";
    socket.onopen = link.up;
    socket.onclose = link.down;
    socket.onmessage = ({ data }) => {
      link.up();
      const sent = onTheWay.shift();
      if (sent?.at) link.said({ data, sentAt: sent.at });
    };
    const send = (data, at) => {
      onTheWay.push({ at });
      socket.send(data);
    };
    return {
      send: (data) => send(data, performance.now()),
      probe: () => send("", 0),
      close: (code) => socket.close(code),
    };
  }

  async send(data) { this.connection.transport.send(data); }
}
