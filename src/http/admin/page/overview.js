// What the server does now: figures and their curves, what is worth a look, memory, reasons, loops.

const total = (name) => (stats) => stats.totals[name];
const share = (part, whole) => (whole > 0 ? part / whole : 0);

// Each tile: its words, its figure, the line below it, and the values of its curve.
const TILES = [
  ["Connections", (series, stats) => countText(stats.connections),
    (series, stats) => `of ${countText(stats.connections_max)} · ${rateText(series.rate(total("connections_accepted")))} new/s`,
    (series) => series.values((stats) => stats.connections)],
  ["Topics", (series, stats) => countText(stats.topics), (series, stats) => manyText(stats.totals.subscriptions, "subscription"),
    (series) => series.values((stats) => stats.topics)],
  ["Published a second", (series) => rateText(series.rate(total("publishes"))),
    (series) => `${rateText(series.rate(total("publishes_busy")))} found no room`, (series) => series.rates(total("publishes"))],
  ["Delivered a second", (series) => rateText(series.rate(total("deliveries"))),
    (series) => `${rateText(series.rate((stats) => sum(stats.drops)))} missed`, (series) => series.rates(total("deliveries"))],
  ["Sent a second", (series) => sizeText(series.rate(total("sent_bytes"))),
    (series) => `${sizeText(series.rate(total("received_bytes")))} received`, (series) => series.rates(total("sent_bytes"))],
  ["Processor", (series) => percentText(series.rate((stats) => stats.cpu_seconds ?? 0)),
    (series, stats) => `of one, for ${manyText(stats.loops.length - 1, "loop")}`, (series) => series.rates((stats) => stats.cpu_seconds ?? 0)],
  ["Memory", (series, stats) => sizeText(stats.memory?.user_bytes),
    (series, stats) => (stats.bytes_per_connection.above_empty === null ? "nobody is connected" : `${eachText(stats.bytes_per_connection.above_empty)} a connection`),
    (series) => series.values((stats) => stats.memory?.user_bytes ?? 0)],
  ["Waits for slow consumers", (series, stats) => sizeText(stats.outbox_held_bytes), (series, stats) => `of ${sizeText(stats.outbox_held_bytes_max)}`,
    (series) => series.values((stats) => stats.outbox_held_bytes)],
];

function sum(object) { return Object.values(object).reduce((all, each) => all + each, 0); }
// Bytes of one of many: to the byte as long as that says something.
function eachText(bytes) { return bytes < 10_000 ? `${countText(bytes)} B` : sizeText(bytes); }
function percentText(part) { return part === null ? "–" : `${Math.round(part * 100)} %`; }

const tiles = TILES.map(([words, figure, line, values]) => {
  const el = { figure: make("dd", "figure"), line: make("dd", "line"), curve: makeCurve() };
  byId("tiles").append(make("div", "tile", make("dt", "", words), el.figure, el.line, el.curve));
  return { figure, line, values, el };
});

// Reasons that are the usual course of things and no worry, however many.
const CALM_REFUSALS = new Set(["not_found", "method_not_allowed", "upgrade_required"]);

// What an operator should know, the worst first: tone, words, and where to look.
function worries(series, stats, health) {
  const found = [];
  const lately = (of) => series.lately(of).more;
  const since = series.lately(total("publishes")).seconds;
  const span = since >= 59 ? "in the last minute" : `in the last ${since} s`;
  const near = (part, whole, from, words) => { if (share(part, whole) >= from) found.push([part >= whole ? "error" : "warn", `${words}: ${percentText(share(part, whole))} used.`]); };
  if (health.stuck) found.push(["error", `${health.stuck}.`]);
  if (health.ready === "full") found.push(["error", "No place is left for newcomers."]);
  if (health.ready === "draining" || stats.draining) found.push(["warn", "Draining: nobody new is taken, and clients are told to go."]);
  near(stats.connections, stats.connections_max, 0.9, "Connections");
  for (const table of stats.tables) near(table.descriptors, stats.descriptors_max, 0.9, `Descriptors of ${table.table === "process" ? "the process" : "loop " + table.table}`);
  near(stats.outbox_held_bytes, stats.outbox_held_bytes_max, 0.5, "What may wait for slow consumers");
  for (const loop of stats.loops) {
    near(loop.mailbox_bytes, stats.mailbox_bytes_max, 0.5, `Mailbox of loop ${loop.loop}, in bytes`);
    near(loop.mailbox_entries, stats.mailbox_entries_max, 0.5, `Mailbox of loop ${loop.loop}, in messages`);
    if ((loop.turn_seconds.p99_at_most ?? 0) > 0.05) found.push(["warn", `1 % of the turns of loop ${loop.loop} take ${loop.turn_seconds.p99_at_most * 1000} ms or more.`]);
  }
  const grew = (of, tone, words, link) => { const more = lately(of); if (more > 0) found.push([tone, `${words(more)} ${span}.`, link]); };
  grew((each) => each.totals.accept_errors, "error", (more) => `${manyText(more, "accept")} failed for want of descriptors or memory`);
  grew((each) => each.outbox_full, "error", (more) => `${manyText(more, "message")} found no room in all that may wait`);
  grew((each) => sum(each.drops), "warn", (more) => `Slow consumers missed ${manyText(more, "message")}`, ["Who?", "#connections?slow=1"]);
  grew((each) => each.closes.slow_consumer ?? 0, "warn", (more) => `${manyText(more, "slow consumer")} were closed`);
  grew((each) => each.totals.publishes_busy, "warn", (more) => `${manyText(more, "publish", "publishes")} found a mailbox full`);
  const refusals = Object.keys(stats.refusals).filter((reason) => !CALM_REFUSALS.has(reason));
  const refused = refusals.map((reason) => [reason, lately((each) => each.refusals[reason] ?? 0)]).filter(([, more]) => more > 0);
  if (refused.length > 0) found.push(["warn", `Refused ${span}: ${refused.map(([reason, more]) => `${reason} ${countText(more)}`).join(", ")}.`]);
  grew((each) => each.log.lines_dropped, "warn", (more) => `${manyText(more, "log line")} were lost`);
  return found.sort((one, two) => (one[0] === "error" ? 0 : 1) - (two[0] === "error" ? 0 : 1));
}

function paintWorries(found) {
  const list = byId("worries");
  const lines = found.length > 0 ? found : [["calm", "Nothing out of the ordinary."]];
  // Told anew only when it changed, for whoever listens.
  const said = JSON.stringify(lines);
  if (list.dataset.said === said) return;
  list.dataset.said = said;
  list.replaceChildren(...lines.map(([tone, words, link]) => {
    const line = make("li", "", words);
    line.dataset.tone = tone;
    if (link) {
      const anchor = make("a", "", link[0]);
      anchor.href = link[1];
      line.append(" ", anchor);
    }
    return line;
  }));
}

// The parts of the memory that the server can name.
function memoryParts(stats) {
  const parts = [
    ["The program itself", stats.memory.empty_user_bytes ?? 0],
    ["Connections: slots", stats.totals.slot_bytes],
    ["Subscriptions, at least", stats.totals.subscriptions * 4],
    ["Half-received", stats.totals.inbox_bytes],
    ["Waits for slow consumers", stats.outbox_held_bytes],
  ];
  const mailboxes = stats.loops.reduce((all, loop) => all + loop.mailbox_bytes, 0);
  parts.push(["Mailboxes", mailboxes]);
  parts.push(["History", stats.history_bytes]);
  const known = parts.reduce((all, [, bytes]) => all + bytes, 0);
  parts.push(["The rest", Math.max(0, stats.memory.user_bytes - known)]);
  return parts;
}

function partClass(i, count) { return i === count - 1 ? "part-rest" : `part-${i}`; }

function paintMemory(stats) {
  if (!stats.memory) return;
  setText(byId("memory-total"), sizeText(stats.memory.user_bytes));
  const parts = memoryParts(stats);
  const bar = byId("memory-bar");
  while (bar.children.length < parts.length) bar.append(make("i"));
  const all = parts.reduce((sum, [, bytes]) => sum + bytes, 0);
  parts.forEach(([, bytes], i) => {
    bar.children[i].className = partClass(i, parts.length);
    bar.children[i].style.flexGrow = String(share(bytes, all));
  });
  setRows(byId("memory"), parts.map(([words, bytes], i) => ({ words, bytes, i })), (part) => part.words, (part) => {
    const row = rowOf(byId("memory"));
    row.cells[0].append(make("i", `swatch ${partClass(part.i, parts.length)}`), part.words);
    return row;
  }, (row, { bytes }) => {
    setText(row.cells[1], sizeText(bytes));
    const each = stats.connections > 0 ? bytes / stats.connections : null;
    setText(row.cells[2], each === null ? "–" : eachText(each));
  });
}

function paintReasons(series, stats) {
  const rows = [];
  for (const [kind, words] of [["closes", "closed"], ["drops", "dropped"], ["refusals", "refused"]]) {
    for (const [reason, all] of Object.entries(stats[kind])) {
      if (all > 0) rows.push({ kind, words, reason, all, more: series.lately((each) => each[kind][reason] ?? 0).more });
    }
  }
  rows.sort((one, two) => two.more - one.more || two.all - one.all);
  byId("reasons-empty").hidden = rows.length > 0;
  byId("reasons").hidden = rows.length === 0;
  const { seconds } = series.lately(total("publishes"));
  setText(byId("reasons-window"), seconds >= 59 ? "Last minute" : `Last ${seconds} s`);
  setRows(byId("reasons"), rows, (row) => `${row.kind} ${row.reason}`, (each) => {
    const row = rowOf(byId("reasons"));
    row.cells[0].append(make("code", "", each.reason), " ", make("span", "soft", each.words));
    return row;
  }, (row, each) => {
    setText(row.cells[1], countText(each.more));
    setText(row.cells[2], countText(each.all));
    row.classList.toggle("quiet", each.more === 0);
  });
}

function paintLoops(series, stats) {
  const before = series.samples.at(-2);
  setRows(byId("loops"), stats.loops, (loop) => loop.loop, (loop) => {
    const row = rowOf(byId("loops"));
    row.cells[0].append(loop.loop === "admin" ? "admin" : `loop ${loop.loop}`);
    return row;
  }, (row, loop) => {
    const old = before?.stats.loops.find((each) => each.loop === loop.loop);
    const seconds = before ? stats.uptime_seconds - before.at : 0;
    const rate = (name) => (old && seconds > 0 ? `${rateText((loop[name] - old[name]) / seconds)}/s` : "–");
    const most = loop.turn_seconds.p99_at_most;
    const cells = [
      countText(loop.connections), rate("deliveries"), rate("loop_turns"),
      most === null ? (loop.turn_seconds.count > 0 ? "above 3 s" : "–") : `≤ ${Number((most * 1000).toPrecision(3))} ms`,
      `${countText(loop.mailbox_entries)} · ${sizeText(loop.mailbox_bytes)}`, sizeText(loop.outbox_bytes),
    ];
    cells.forEach((text, i) => setText(row.cells[i + 1], text));
  });
}

function paintOverview(series, health) {
  const { stats } = series.last();
  for (const { figure, line, values, el } of tiles) {
    setText(el.figure, figure(series, stats));
    setText(el.line, line(series, stats));
    drawCurve(el.curve, values(series));
  }
  paintWorries(worries(series, stats, health));
  paintMemory(stats);
  paintReasons(series, stats);
  paintLoops(series, stats);
}
