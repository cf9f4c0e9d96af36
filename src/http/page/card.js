// One card: a topic or the echo, its connections, its log, and what can be typed.

const CONNECTIONS_MAX = 100;
const FALLBACKS = { __proto__: null, sse: "an event stream", poll: "long polls" };
const GAPS = {
  __proto__: null,
  expired: "not kept any more", other_epoch: "the topic was made anew", ahead: "the topic has not come so far",
  dropped: "this connection was too slow",
};

class Card {
  constructor(name, title, options) {
    Object.assign(this, { name, options, seats: [], wanted: 1, serial: 0, sent: 0, received: 0, lastEnd: null, ticker: 0 });
    // What the server said about topics, and when it was asked last.
    Object.assign(this, { facts: new Map(), asked: new Map() });
    const fragment = document.getElementById("card-template").content.cloneNode(true);
    this.root = fragment.firstElementChild;
    this.el = {};
    for (const element of fragment.querySelectorAll("[data-id]")) {
      this.el[element.dataset.id] = element;
      element.id = `${name}-${element.dataset.id}`;
      delete element.dataset.id;
    }
    for (const label of fragment.querySelectorAll("[data-for]")) label.htmlFor = `${name}-${label.dataset.for}`;
    this.root.id = `${name}-card`;
    this.root.setAttribute("aria-labelledby", `${name}-title`);
    this.el.title.textContent = title;
    this.el.log.setAttribute("aria-label", `${title} messages`);
    this.el.stepper.setAttribute("aria-label", `${title} connections of this page`);
    this.el.input.setAttribute("aria-describedby", `${name}-hint`);
    this.el.empty.textContent = options.empty;
    if (!options.topics) this.el["topic-field"].remove();
    document.getElementById("cards").append(fragment);
    this.log = new Log(this.el.log, this.el.latest, () => this.paint());
    this.listen();
    this.shape();
  }

  listen() {
    const { el } = this;
    el.controls.addEventListener("submit", (event) => { event.preventDefault(); this.toggle(); });
    el.composer.addEventListener("submit", (event) => { event.preventDefault(); this.send(); });
    el.topic.addEventListener("input", () => this.paint());
    el.input.addEventListener("input", () => { delete el["input-field"].dataset.fault; this.paint(); });
    el.mode.addEventListener("change", () => { delete el["input-field"].dataset.fault; this.paint(); el.input.focus(); });
    el.add.addEventListener("click", () => { this.open(1); this.wanted = this.seats.length; });
    el.drop.addEventListener("click", () => { this.leave(this.seats.slice(-1)); this.wanted = Math.max(1, this.seats.length); });
    el.retry.addEventListener("click", () => { for (const seat of this.seats) seat.again(); });
    el.clear.addEventListener("click", () => { this.log.clear(); this.paint(); });
  }

  ready() { return this.seats.filter((seat) => seat.isOpen); }

  // The topic of those who are connected or will be again, and the one in the field.
  joined() { return this.seats[0]?.topic; }
  typed() { return this.options.topics ? this.el.topic.value : null; }

  // The server's rules for topic names, plus what a URL can't carry as a last segment.
  topicFault() {
    const topic = this.typed();
    if (topic === null) return "";
    const bytes = encoder.encode(topic).length;
    if (bytes === 0) return "A topic has a name.";
    if (bytes > 200) return "A topic name has at most 200 bytes.";
    if (topic.includes("*") || /\p{Cc}/u.test(topic)) return "A topic name has no * and no control characters.";
    if (topic === "." || topic === ".." || /\p{Cs}/u.test(topic)) return "A URL can't carry this name.";
    return "";
  }

  moved() { return this.seats.length > 0 && !this.topicFault() && this.joined() !== this.typed(); }

  // Connects all that there were, moves them to another topic, or disconnects them.
  toggle() {
    const { length } = this.seats;
    const moved = this.moved();
    if (length > 0) this.wanted = length;
    this.leave(this.seats);
    if (length === 0 || moved) this.open(this.wanted);
  }

  open(count) {
    if (this.topicFault()) { this.el.topic.focus(); return; }
    const topic = this.typed();
    if (topic !== null) history.replaceState(null, "", topic === "lobby" ? location.pathname + location.search : hashOf(topic));
    const on = {
      open: (seat, info) => this.onOpen(seat, info),
      message: (seat, message) => this.onMessage(seat, message),
      gap: (seat, gap) => this.log.event("gap", "warn", gapText(gap), seat),
      trouble: (seat, error) => this.onTrouble(seat, error),
      lost: (seat, end) => this.onLost(seat, end),
      ended: (seat, end) => this.onEnded(seat, end),
      changed: () => this.shape(),
    };
    for (let i = 0; i < count && this.seats.length < CONNECTIONS_MAX; i++) {
      this.serial += 1;
      this.seats.push(topic === null ? new EchoSeat(this.serial, on) : new RoomSeat(this.serial, topic, on));
    }
    this.shape();
  }

  leave(seats) { for (const seat of [...seats]) seat.leave(); }

  send() {
    const text = this.el.input.value;
    const ready = this.ready();
    if (text === "" || ready.length === 0 || this.mute()) return;
    let data = text;
    if (this.el.mode.value === "hex") {
      data = parseHex(text)?.buffer;
      if (!data) { this.el["input-field"].dataset.fault = "hex"; this.paint(); return; }
    }
    for (const seat of this.options.sendOnAll ? ready : ready.slice(0, 1)) {
      this.sent += 1;
      this.log.message("sent", seat, { data }, "");
      seat.send(data).catch((error) => this.log.event("refused", "error", `Not sent: ${refusalText(error)}`, seat));
    }
    this.el.input.value = "";
    this.el.input.focus();
  }

  // Back where it was, it goes on by its position.
  onOpen(seat, { recovered }) {
    const place = seat.topic ?? "/echo";
    const over = FALLBACKS[seat.transport] ? ` over ${FALLBACKS[seat.transport]}` : "";
    // The name last: it may be written from right to left.
    this.log.event("open", "plain", `${recovered ? "Nothing missed, back" : "Connected"}${over} ${recovered ? "in" : "to"} ${place}`, seat);
    if (seat.topic !== null) this.ask(seat.topic);
  }

  onMessage(seat, message) {
    this.received += 1;
    const { sentAt } = message;
    this.log.message("received", seat, message, sentAt === undefined ? "" : (performance.now() - sentAt).toFixed(1) + " ms");
    seat.flash();
  }

  // What passes the client tries again.
  onTrouble(seat, { code, message }) {
    this.log.event("refused", "error", `${message} (${code})`, seat);
    if (code === "unsubscribed") seat.leave();
  }

  // Once for each outage; how often it was tried since is nobody's concern.
  onLost(seat, end) {
    if (end.wasOpen) this.log.event("close", closeTone(end.code), `${closeText(end)} · coming back`, seat, end);
    else if (seat.failures === 1) this.log.event("close", "error", "Could not connect · trying again", seat, end);
  }

  onEnded(seat, end) {
    this.seats.splice(this.seats.indexOf(seat), 1);
    if (end === null) {
      this.lastEnd = { code: "", tone: "plain", text: "Disconnected" };
      this.log.event("close", "plain", "Disconnected", seat);
    } else {
      this.lastEnd = { code: end.code, tone: closeTone(end.code), text: `Closed · ${end.code}` };
      this.log.event("close", this.lastEnd.tone, closeText(end), seat, end);
    }
  }

  // Who may publish to a topic is the server's rule, so it is asked: headers of the page itself.
  async ask(topic) {
    const now = performance.now();
    if (now - (this.asked.get(topic) ?? -Infinity) < 1000) return;
    this.asked.set(topic, now);
    try {
      const url = new URL("./?topic=" + encodeURIComponent(topic), document.baseURI);
      const { headers } = await fetch(url, { method: "HEAD", cache: "no-store" });
      this.facts.set(topic, { publish: headers.get("fantail-publish"), admin: headers.get("fantail-admin") });
    } catch { /* The next connection asks again. */ }
    this.paint();
  }

  // Over what the messages come where it is no WebSocket, by which nothing can be sent.
  fallback() { return FALLBACKS[this.ready()[0]?.transport]; }

  mute() { return this.listensOnly() || this.fallback() !== undefined; }

  listensOnly() { return this.facts.get(this.joined() ?? this.typed())?.publish === "nobody"; }

  shape() {
    drawFan(this.el.fan, this.seats);
    this.paint();
  }

  // State, its text, and its tone.
  aggregate() {
    const live = this.seats;
    const ready = this.ready().length;
    if (ready > 0) return ["open", ready === live.length ? "Connected" : `${ready} of ${live.length} connected`, ""];
    if (live.some((seat) => seat.state === "connecting")) return ["connecting", "Connecting…", ""];
    if (live.length > 0) {
      const left = Math.min(...live.map((seat) => seat.retryAt)) - performance.now();
      return ["waiting", `Retry in ${Math.max(1, Math.ceil(left / 1000))} s`, ""];
    }
    if (this.lastEnd) return ["closed", this.lastEnd.text, this.lastEnd.tone];
    return ["idle", "Not connected", ""];
  }

  paint() {
    const { el } = this;
    const live = this.seats.length;
    const ready = this.ready().length;
    this.paintState();
    const action = this.moved() ? "switch" : live > 0 ? "disconnect" : "connect";
    el.toggle.dataset.action = action;
    el.toggle.textContent = { switch: "Switch", disconnect: "Disconnect", connect: this.lastEnd ? "Reconnect" : "Connect" }[action];
    el.toggle.classList.toggle("main", action !== "disconnect");
    el.drop.disabled = live === 0;
    el.add.disabled = live >= CONNECTIONS_MAX || this.moved();
    el.open.textContent = countText(ready);
    el.of.textContent = ready < live ? `/${countText(live)}` : "";
    for (const name of ["sent", "received"]) {
      el[name].textContent = countText(this[name]);
      el[name].title = grouped.format(this[name]);
    }
    const topic = this.joined() ?? this.typed();
    const path = { sse: "/sse/", poll: "/poll/" }[this.ready()[0]?.transport] ?? "/ws/";
    el.where.textContent = this.options.topics ? (this.topicFault() && live === 0 ? "" : path + topic) : "/echo";
    el.where.title = el.where.textContent;
    const mute = this.mute();
    el.input.disabled = el.mode.disabled = mute;
    el.send.disabled = ready === 0 || mute;
    el.input.placeholder = mute ? "Listening only" : el.mode.value === "hex" ? "48 65 6c 6c 6f" : "Message";
    el.empty.hidden = !this.log.isEmpty;
    el.clear.hidden = this.log.isEmpty;
    document.getElementById(`tab-${this.name}-count`).textContent = ready > 0 ? ready : "";
    this.paintHint();
  }

  paintState() {
    const { el } = this;
    const [state, text, tone] = this.aggregate();
    Object.assign(el.state.dataset, { state, tone, code: state === "closed" ? this.lastEnd.code : "" });
    if (el.state.textContent !== text) el.state.textContent = text;
    el.retry.hidden = state !== "waiting";
    clearTimeout(this.ticker);
    if (state === "waiting") this.ticker = setTimeout(() => this.paintState(), 250);
  }

  // What is wrong, or else what can be done here.
  paintHint() {
    const { el } = this;
    const topicFault = this.topicFault();
    if (topicFault) el["topic-field"].dataset.fault = "";
    else delete el["topic-field"].dataset.fault;
    const inputFault = "fault" in el["input-field"].dataset ? "Hex is pairs of digits from 0 to f, such as 48 65 6c 6c 6f." : "";
    const fault = topicFault || inputFault;
    const [text, command] = fault ? [fault] : this.advice();
    el.hint.dataset.tone = fault ? "error" : "plain";
    if (el.hint.textContent !== text) el.hint.textContent = text;
    el.command.hidden = !command;
    if (el.command.textContent !== (command ?? "")) el.command.textContent = command ?? "";
  }

  // A sentence, and the command that publishes, if it is known and of use.
  advice() {
    if (!this.options.topics) return ["Every open connection sends the message. The time beside an answer is its round trip."];
    const topic = this.typed();
    if (this.moved()) return [`Switch leaves \u2068${this.joined()}\u2069 and joins \u2068${topic}\u2069.`];
    const fallback = this.fallback();
    if (fallback) return [`WebSockets are blocked here: messages come over ${fallback}, and nothing can be sent.`];
    const { publish, admin } = this.facts.get(topic) ?? {};
    const listens = publish === "nobody";
    const who = listens ? "Clients only listen here." : publish ? "What you send goes to everybody here." : "";
    // Whoever comes through a proxy has another name in the address bar, and no use for an address of this machine.
    if (admin && isLoopback(location.hostname)) return [`${who} From a shell:`, publishCommand(admin, topic)];
    return [listens ? `${who} The server's own side publishes.` : who];
  }
}

function gapText({ kind, oldest }) {
  return `Messages are missing: ${GAPS[kind] ?? kind}. The oldest to be had is ${grouped.format(oldest)}`;
}

function refusalText({ code, message }) {
  return code === "not_allowed" ? "clients only listen here" : `${message} (${code})`;
}

function closeText(close) {
  if (close.code === undefined || close.code === 1006) return "Connection lost";
  return `Closed · ${close.code} ${closeName(close.code)}${close.reason ? `: ${close.reason}` : ""}`;
}

function isLoopback(host) {
  return /^(localhost|.+\.localhost|127\.\d+\.\d+\.\d+|\[::1\])$/i.test(host);
}

// Nothing of the name stays that a shell would read, so only brackets need quotes.
function publishCommand(admin, topic) {
  let name = encodeURIComponent(topic).replace(/[!'()~]/g, (c) => "%" + c.charCodeAt(0).toString(16));
  // A slash may stay unless curl would take the parts for a path and shorten it.
  if (!topic.split("/").some((part) => part === "." || part === "..")) name = name.replaceAll("%2F", "/");
  const url = `${admin}/publish/${name}`;
  return `curl -d hello ${url.includes("[") ? `'${url}'` : url}`;
}
