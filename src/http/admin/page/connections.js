// Connections: those of a topic, an address, or with unsent bytes; closing and unsubscribing them.

class ConnectionsView extends Paged {
  constructor(onView) {
    super("connections", onView);
    for (const id of ["topic", "ip"]) this.typedIn(byId(`connections-${id}`));
    this.chosenIn(byId("connections-slow"));
    byId("connections-close").addEventListener("click", () => this.closeAll());
    byId("connections-unsubscribe").addEventListener("click", () => {
      const { topic } = this.filter;
      askToUnsubscribe("Unsubscribe all of these?", `Ends the subscriptions to ${quoted(topic)} of ${this.meant()}.`, this.filter, () => this.load());
    });
  }

  get state() {
    return { topic: byId("connections-topic").value, ip: byId("connections-ip").value.trim(), slow: byId("connections-slow").checked ? "1" : "" };
  }
  set state({ topic = "", ip = "", slow = "" }) {
    byId("connections-topic").value = topic;
    byId("connections-ip").value = ip;
    byId("connections-slow").checked = slow === "1";
    this.pages = [""];
  }

  // As the server wants it.
  get filter() {
    const { topic, ip, slow } = this.state;
    return Object.fromEntries(Object.entries({ topic, ip, outbox_bytes_min: slow }).filter(([, value]) => value !== ""));
  }

  meant() {
    const { topic, ip, slow } = this.state;
    const words = [slow && "with unsent bytes", topic && `subscribed to ${quoted(topic)}`, ip && `from ${ip}`].filter(Boolean);
    return words.length === 0 ? "every connection of the server" : `all connections ${words.join(", ")}`;
  }

  closeAll() {
    const { filter } = this;
    const all = Object.keys(filter).length === 0;
    askToClose(all ? "Close everybody?" : "Close all of these?", `Closes ${this.meant()}.`, all ? { all: "1" } : filter, () => this.load());
  }

  onFault(error) {
    byId("connections-empty").hidden = true;
    if (error.status === 400) setRows(this.table, [], null, null, null);
  }

  // Until the page is full: a filter that means few is looked through piece by piece.
  async search(signal) {
    const { filter } = this;
    const slow = "outbox_bytes_min" in filter;
    const wanted = slow ? 1_000 : PAGE_ROWS;
    let rows = [];
    let cursor = this.pages.at(-1);
    for (let step = 0; step < STEPS_MAX; step++) {
      const page = await server.json("/connections", { signal, query: { ...filter, limit: wanted - rows.length, cursor } });
      rows = rows.concat(page.connections);
      cursor = page.next ?? "";
      if (cursor === "" || rows.length >= wanted) break;
      if (rows.length > this.table.tBodies[0].rows.length) this.paint(rows.slice(0, PAGE_ROWS), rows.length, slow, false);
    }
    this.next = cursor;
    if (slow) rows.sort((one, two) => two.outbox_bytes - one.outbox_bytes);
    this.paint(rows.slice(0, PAGE_ROWS), rows.length, slow, true);
  }

  paint(rows, all, slow, done) {
    const now = Date.now() / 1000;
    setRows(this.table, rows, (each) => each.id, () => {
      const row = rowOf(this.table);
      row.cells[0].append(opener("", () => this.open(row.connection)));
      const close = make("button", "small danger", "Close…");
      close.type = "button";
      close.addEventListener("click", () => this.close(row.connection));
      row.cells[8].append(close);
      return row;
    }, (row, each) => {
      row.connection = each;
      const [name] = row.cells[0].children;
      setText(name, each.peer ?? "gone");
      name.title = `connection ${each.id}`;
      row.cells[8].firstChild.setAttribute("aria-label", `Close ${each.peer ?? each.id}`);
      const topics = each.topics.slice(0, 3).join(", ") + (each.topics.length > 3 ? ` and ${each.topics.length - 3} more` : "");
      const cells = [
        topics || "–", each.phase === "open" ? each.dialect : `${each.dialect}, ${each.phase}`, spanText(Math.max(0, now - each.since)), spanText(each.idle_seconds),
        sizeText(each.outbox_bytes), countText(each.drops), sizeText(each.memory.total),
      ];
      cells.forEach((text, i) => setText(row.cells[i + 1], text));
      row.cells[1].title = each.topics.join("\n");
      row.classList.toggle("slow", each.outbox_bytes > 0);
    });
    this.table.hidden = rows.length === 0;
    byId("connections-empty").hidden = !done || rows.length > 0;
    const more = this.next ? " · there are more" : "";
    setText(byId("connections-note"), !done ? "Looking…" : slow ? `${countText(rows.length)} with the most unsent, of ${countText(all)} found${more}` : `${countText(rows.length)} shown${more}`);
    byId("connections-back").disabled = this.pages.length === 1;
    byId("connections-on").disabled = !this.next;
    byId("connections-unsubscribe").hidden = !this.state.topic;
    const none = Object.keys(this.filter).length === 0;
    setText(byId("connections-close"), none ? "Close everybody…" : "Close all of these…");
  }

  close(each) { askToClose("Close this connection?", `Connection ${each.id} from ${each.peer ?? "a peer that is gone"}.`, { id: each.id }, () => this.load()); }

  async open(known) {
    let each = known;
    try {
      each = await server.json(`/connections/${known.id}`);
    } catch (error) {
      if (error.status === 404) return say("This connection is gone.");
    }
    const { memory } = each;
    const rows = [
      ["Id", each.id], ["Speaks", `${each.dialect}, ${each.phase}`], ["Accepted", new Date(each.since * 1000).toLocaleString()],
      ["Silent for", spanText(each.idle_seconds)], ["Unsent", sizeText(each.outbox_bytes)], ["Missed messages", countText(each.drops)],
      ["Memory", `${memory.total} B: slot ${memory.slot}, inbox ${memory.inbox}, outbox ${memory.outbox}, session ${memory.session}, lists ${memory.lists}`],
    ];
    const after = () => this.load();
    const list = make("ul", "topics");
    for (const topic of each.topics) {
      const leave = make("button", "small danger", "Unsubscribe…");
      leave.type = "button";
      leave.setAttribute("aria-label", `Unsubscribe from ${topic}`);
      leave.addEventListener("click", () => askToUnsubscribe("Unsubscribe this connection?", `Ends its subscription to ${quoted(topic)}.`, { topic, id: each.id }, after));
      list.append(make("li", "", make("span", "name", topic), leave));
    }
    const close = make("button", "small danger", "Close…");
    close.type = "button";
    close.addEventListener("click", () => this.close(each));
    ask({ title: each.peer ?? "A peer that is gone", fields: [facts(rows), ...(each.topics.length > 0 ? [make("h3", "", "Topics"), list] : []), make("div", "acts", close)] });
  }
}
