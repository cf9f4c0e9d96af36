// Words and numbers: pure functions, and the making of elements. What comes from the server becomes text only.

const SVG = "http://www.w3.org/2000/svg";
const grouped = new Intl.NumberFormat("en");
const compact = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });

const byId = (id) => document.getElementById(id);

function make(name, className, ...children) {
  const element = document.createElement(name);
  if (className) element.className = className;
  element.append(...children.map((child) => (child instanceof Node ? child : String(child))));
  return element;
}

function setText(element, text) { if (element.textContent !== text) element.textContent = text; }

function countText(count) { return count < 100_000 ? grouped.format(Math.round(count)) : compact.format(count); }

function rateText(rate) {
  if (rate === null) return "–";
  if (rate > 0 && rate < 10) return rate.toFixed(1);
  return countText(rate);
}

function sizeText(bytes) {
  if (bytes === null || bytes === undefined) return "–";
  let unit = 0;
  let value = bytes;
  while (value >= 1024 && unit < 4) { value /= 1024; unit += 1; }
  return `${unit === 0 || value >= 100 ? Math.round(value) : value.toFixed(1)} ${["B", "KiB", "MiB", "GiB", "TiB"][unit]}`;
}

function spanText(seconds) {
  const whole = Math.floor(seconds);
  if (whole < 1) return "0 s";
  const parts = [[86_400, "d"], [3_600, "h"], [60, "min"], [1, "s"]];
  const first = parts.findIndex(([unit]) => whole >= unit);
  const [unit, name] = parts[first];
  const left = Math.floor((whole % unit) / (parts[first + 1]?.[0] ?? 1));
  const more = first < 2 && left > 0 ? ` ${left} ${parts[first + 1][1]}` : "";
  return `${Math.floor(whole / unit)} ${name}${more}`;
}

function manyText(count, one, many = one + "s") { return `${countText(count)} ${count === 1 ? one : many}`; }

// Bytes of pairs of hex digits, or `null` if it is something else.
function parseHex(text) {
  const digits = text.replace(/0x|[\s,:;_-]/gi, "");
  if (digits.length % 2 === 1 || /[^0-9a-f]/i.test(digits)) return null;
  return Uint8Array.from(digits.match(/../g) ?? [], (pair) => parseInt(pair, 16));
}

// Rows of a table by their keys, in this order; one that stays keeps its elements, and with them the focus.
function setRows(table, items, keyOf, makeRow, fill) {
  const body = table.tBodies[0];
  const old = table.rowsByKey ?? new Map();
  const rows = new Map();
  for (const item of items) {
    const key = keyOf(item);
    const row = old.get(key) ?? makeRow(item);
    fill(row, item);
    rows.set(key, row);
  }
  table.rowsByKey = rows;
  const wanted = [...rows.values()];
  for (const row of [...body.rows]) if (!wanted.includes(row)) row.remove();
  wanted.forEach((row, place) => { if (body.rows[place] !== row) body.insertBefore(row, body.rows[place] ?? null); });
}

// A row whose cells carry the words of their columns, which a narrow window shows beside them.
function rowOf(table) {
  const row = make("tr");
  for (const head of table.tHead.rows[0].cells) {
    const cell = make("td", head.className);
    if (head.textContent.trim() && !head.querySelector(".hidden-text")) cell.dataset.label = head.textContent.trim();
    row.append(cell);
  }
  return row;
}

// A name that opens something; whole in its title where it is cut.
function opener(text, onClick) {
  const button = make("button", "name", text === "" ? "(empty)" : text);
  button.type = "button";
  button.title = text;
  button.addEventListener("click", onClick);
  return button;
}

// A name in a sentence: whatever way it is written, it turns nothing around it (Unicode's isolates).
function quoted(name) { return `“\u2068${name}\u2069”`; }
