// Topics: a page of them by name, or those with the most of something. The server looks at 10,000 for one request and says
// where to go on, so that a search through all of them is some requests, and a new one ends it.

class TopicsView extends Paged {
  constructor(onView) {
    super("topics", onView);
    this.typedIn(byId("topics-name"));
    for (const id of ["how", "sort"]) this.chosenIn(byId(`topics-${id}`));
  }

  get state() { return { q: byId("topics-name").value, how: byId("topics-how").value, sort: byId("topics-sort").value }; }
  set state({ q = "", how = "contains", sort = "name" }) {
    byId("topics-name").value = q;
    byId("topics-how").value = how;
    byId("topics-sort").value = sort;
    this.pages = [""];
  }

  async search(signal) {
    const { q, how, sort } = this.state;
    const most = sort !== "name";
    let rows = [];
    let cursor = this.pages.at(-1);
    let all = 0;
    for (let step = 0; step < STEPS_MAX; step++) {
      const limit = most ? PAGE_ROWS : PAGE_ROWS - rows.length;
      const page = await server.json("/topics", { signal, query: { [how]: q, sort: most ? sort : undefined, limit, cursor } });
      rows = rows.concat(page.topics);
      all = page.total;
      if (most) rows = rows.sort((one, two) => two[sort] - one[sort] || (one.topic < two.topic ? -1 : 1)).slice(0, PAGE_ROWS);
      cursor = page.next ?? "";
      const done = cursor === "" || (!most && rows.length >= PAGE_ROWS);
      // While there are only some, a whole page is left to look at.
      if (done || rows.length > this.table.tBodies[0].rows.length) this.paint(rows, all, most, done);
      if (done) break;
    }
    this.next = most ? "" : cursor;
    this.paint(rows, all, most, true);
  }

  paint(rows, all, most, done) {
    const now = performance.now();
    setRows(this.table, rows, (topic) => topic.epoch + topic.topic, ({ topic }) => {
      const row = rowOf(this.table);
      row.cells[0].append(opener(topic, () => this.open(row.topic)));
      return row;
    }, (row, topic) => {
      row.topic = topic;
      const before = row.looked;
      // What of it is new since it was looked at last.
      if (!before || now - before.at > 1_000) {
        const rate = before ? (topic.messages - before.messages) / ((now - before.at) / 1000) : null;
        Object.assign(row, { looked: { at: now, messages: topic.messages }, rate });
      }
      [countText(topic.subscribers), countText(topic.messages), rateText(row.rate), countText(topic.loops), topic.history_messages > 0 ? sizeText(topic.history_bytes) : "–"].forEach((text, i) => setText(row.cells[i + 1], text));
    });
    byId("topics-empty").hidden = !done || rows.length > 0;
    this.table.hidden = rows.length === 0;
    const note = most ? `The ${countText(rows.length)} with the most, of ${countText(all)}` : `${countText(rows.length)} shown · ${manyText(all, "topic")} in all`;
    setText(this.note, done ? note : "Looking…");
    byId("topics-back").disabled = this.pages.length === 1;
    byId("topics-on").disabled = !this.next;
  }

  open(topic) {
    const rows = [
      ["Subscribers", countText(topic.subscribers)], ["On loops", countText(topic.loops)], ["Messages", grouped.format(topic.messages)],
      ["Epoch", topic.epoch], ["Next offset", grouped.format(topic.next_offset)],
    ];
    if (topic.history_messages > 0) rows.push(["History", `${manyText(topic.history_messages, "message")}, ${sizeText(topic.history_bytes)}`]);
    const name = topic.topic;
    const after = () => this.load();
    const acts = make("div", "acts");
    const act = (text, run, danger = false) => {
      const button = make("button", danger ? "small danger" : "small", text);
      button.type = "button";
      button.addEventListener("click", run);
      acts.append(button);
    };
    act("Show connections", () => { dialog.el.close(); location.hash = "#connections?" + new URLSearchParams({ topic: name }); });
    act("Publish…", () => askToPublish(name));
    act("Unsubscribe all…", () => askToUnsubscribe("Unsubscribe everybody?", `Ends ${manyText(topic.subscribers, "subscription")} to ${quoted(name)}.`, { topic: name }, after), true);
    act("Close all…", () => askToClose("Close its connections?", `Closes every connection that is subscribed to ${quoted(name)}: ${countText(topic.subscribers)} now.`, { topic: name }, after), true);
    ask({ title: name, fields: [facts(rows), acts] });
  }
}

function facts(rows) { return make("dl", "facts", ...rows.map(([words, value]) => make("div", "", make("dt", "", words), make("dd", "", value)))); }
