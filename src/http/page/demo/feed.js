// The one connection (clients/js): subscribes to every chart's topic, and when it comes back, from where each of them was.

const OVER = { __proto__: null, sse: " · event stream", poll: " · long polls" };
const STATES = { __proto__: null, connecting: ["wait", "Connecting"], waiting: ["wait", "Coming back"], closed: ["wait", "Ended by the server"] };

class Feed {
  // `charts` by topic; `onState(tone, text)` says how it stands.
  constructor(charts, onState) {
    Object.assign(this, { charts, onState, messages: 0 });
    this.plug();
  }

  plug() {
    let client;
    client = this.client = connect(new URL(".", document.baseURI), {
      onState: (state) => {
        // The one that was unplugged has nothing to say any more.
        if (client && client !== this.client) return;
        this.onState(...(STATES[state] ?? ["good", `Live${OVER[client.transport] ?? ""}`]));
      },
    });
    for (const chart of this.charts.values()) {
      const { topic, position } = chart;
      client.subscribe(topic, {
        since: position ? `${position.epoch}:${position.offset}` : undefined,
        onSubscribed: ({ position: now, recovered }) => this.begun(chart, now, recovered),
        onMessage: ({ offset, data }) => {
          this.messages += 1;
          // By this clock: the server's may be another.
          if (Number.isFinite(data?.value)) chart.take(offset, data.value, Date.now());
        },
      });
    }
  }

  // As if the network were gone for so long.
  unplug(ms) {
    const { client } = this;
    this.client = null;
    client?.close();
    clearTimeout(this.timer);
    this.onState("wait", "Unplugged");
    this.timer = setTimeout(() => this.plug(), ms);
  }

  // What lies between is gone unless all of it follows; with another epoch nobody knows how much that is.
  begun(chart, now, recovered) {
    const [epoch, text] = now.split(":");
    const offset = Number(text);
    const before = chart.position;
    if (before && before.epoch === epoch && !recovered && offset > before.offset) chart.miss(offset - before.offset, Date.now());
    if (!before || !recovered) chart.position = { epoch, offset };
  }
}
