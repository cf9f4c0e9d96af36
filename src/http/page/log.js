// The rows of a card. The same thing on several connections of this page is one row that counts them; payloads are
// kept whole, so that they can be looked at, as far as the total allows.

const ROWS_MAX = 500;
const KEPT_BYTES_MAX = 64 * 1024 * 1024;
// How far up a row may join another one that says the same.
const NEAR_ROWS = 64;
const FLUSH_MS = 16;
const FLUSH_MAX_MS = 1_000;
const ARROWS = { sent: "↑", received: "↓", event: "•" };
const SPOKEN = { sent: "Sent", received: "Received", event: "Event" };

class Log {
  constructor(list, latest, onFlush) {
    Object.assign(this, { list, latest, onFlush, rows: [], pending: [], serial: 0, timer: 0, rest: FLUSH_MS, stick: true, kept: 0 });
    latest.addEventListener("click", () => { list.scrollTop = list.scrollHeight; list.focus(); });
    list.addEventListener("scroll", () => {
      this.stick = list.scrollHeight - list.scrollTop - list.clientHeight < 24;
      latest.hidden = this.stick;
    });
    list.addEventListener("click", (event) => {
      const row = event.target.closest("button") && this.rows.find((each) => each.element.contains(event.target));
      if (row) view(row);
    });
    // A log that was following keeps following when the keyboard or the window takes room away.
    new ResizeObserver(() => { if (this.stick) list.scrollTop = list.scrollHeight; }).observe(list);
  }

  get isEmpty() { return this.rows.length === 0; }

  clear() {
    Object.assign(this, { rows: [], pending: [], stick: true, kept: 0 });
    this.list.replaceChildren();
    this.latest.hidden = true;
    this.list.focus();
  }

  event(kind, tone, text, seat, close) {
    this.put({ dir: "event", kind, tone, text, extra: "", data: text, size: 0, close }, seat);
  }

  // `message` has `data`, and its `position` and `offset` if it came from a topic.
  message(dir, seat, { data, position, offset }, extra) {
    const { kind, text, clipped, size } = describe(data);
    this.put({ dir, kind, text, clipped, size, data, position, offset, extra }, seat);
  }

  // A connection never joins a row above its own last one, so each one's order stays true.
  put(row, seat) {
    const near = this.pending.length < NEAR_ROWS ? this.rows.slice(-NEAR_ROWS).concat(this.pending) : this.pending.slice(-NEAR_ROWS);
    const isSame = (r) => r.serial > seat.lastRow && r.dir === row.dir && r.kind === row.kind && r.position === row.position &&
      (row.position !== undefined || (r.size === row.size && r.data !== null && sameData(r.data, row.data)));
    const same = near.find(isSame);
    if (same) {
      same.ids.push(seat.id);
      if (same.element) this.paintMeta(same);
      this.schedule();
    } else {
      row.ids = [seat.id];
      this.append(row);
    }
    seat.lastRow = (same || row).serial;
  }

  // Rows wait for the next paint, at most as many as the log may show.
  append(row) {
    row.serial = ++this.serial;
    row.at = new Date();
    this.kept += row.size;
    this.pending.push(row);
    if (this.pending.length > ROWS_MAX) this.kept -= this.pending.shift().size;
    this.schedule();
  }

  // What takes long is done less often, so that a flood leaves most of the time to whoever clicks.
  schedule() {
    if (this.timer) return;
    this.timer = setTimeout(() => {
      const began = performance.now();
      this.timer = 0;
      this.flush();
      this.rest = Math.min(FLUSH_MAX_MS, Math.max(FLUSH_MS, 4 * (performance.now() - began)));
    }, this.rest);
  }

  flush() {
    const fresh = this.pending;
    this.pending = [];
    const elements = document.createDocumentFragment();
    for (const row of fresh) elements.append(this.build(row));
    this.rows.push(...fresh);
    this.list.append(elements);
    for (const row of this.rows.splice(0, Math.max(0, this.rows.length - ROWS_MAX))) {
      row.element.remove();
      this.forget(row);
    }
    for (const row of this.rows) {
      if (this.kept <= KEPT_BYTES_MAX) break;
      this.forget(row);
    }
    for (const row of fresh) this.markClipped(row);
    if (this.stick) this.list.scrollTop = this.list.scrollHeight;
    this.onFlush();
  }

  forget(row) {
    if (row.data === null || row.dir === "event") return;
    this.kept -= row.size;
    row.data = null;
  }

  build(row) {
    const li = make("li");
    Object.assign(li.dataset, { dir: row.dir, kind: row.kind });
    if (row.tone) li.dataset.tone = row.tone;
    if (row.close) Object.assign(li.dataset, { code: row.close.code, reason: row.close.reason });
    const iso = row.at.toISOString();
    const time = make("time", "", row.at.toTimeString().slice(0, 8));
    time.dateTime = iso;
    time.append(make("span", "ms", iso.slice(19, 23)));
    const dir = make("span", "dir");
    const arrow = make("span", "", ARROWS[row.dir]);
    arrow.setAttribute("aria-hidden", "true");
    dir.append(arrow, make("span", "hidden-text", SPOKEN[row.dir]));
    const body = make("div", "body");
    body.append(make("span", "payload", row.text));
    li.append(time, dir, body, make("span", "meta"));
    row.element = li;
    this.paintMeta(row);
    return li;
  }

  // What the row does not show is a button away; whether six lines were enough is known once it is laid out.
  markClipped(row) {
    const payload = row.element.querySelector(".payload");
    if (row.dir === "event" || !(row.clipped || payload.scrollHeight > payload.clientHeight + 2)) return;
    row.element.dataset.clipped = "";
    payload.after(make("button", "whole", `Show all ${sizeText(row.size)}`));
  }

  paintMeta(row) {
    const meta = row.element.lastElementChild;
    const many = row.ids.length > 1;
    row.element.dataset.count = row.ids.length;
    row.element.dataset.connections = row.ids.join(" ");
    const parts = [];
    if (row.extra) parts.push(make("span", "", row.extra));
    if (row.kind === "binary") parts.push(make("span", "kind", "binary"));
    parts.push(make("span", many ? "many" : "", many ? "×" + row.ids.length : "#" + row.ids[0]));
    if (row.dir !== "event") {
      const look = make("button", "look", "⤢");
      look.setAttribute("aria-label", "Show this message");
      parts.push(look);
    }
    meta.replaceChildren(...parts);
    const offset = row.offset === undefined ? "" : `Offset ${row.offset} · `;
    meta.title = `${offset}Connection ${row.ids.map((id) => "#" + id).join(", ")}`;
  }
}
