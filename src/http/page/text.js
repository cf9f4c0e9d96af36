// Words and bytes: pure functions, no state and no elements.

const encoder = new TextEncoder();
const grouped = new Intl.NumberFormat("en");
const compact = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });

const HEX_SHOWN_BYTES = 32;
const TEXT_SHOWN_CHARS = 4096;

// The registry of RFC 6455 section 7.4 and its later additions.
const CLOSE_NAMES = {
  1000: "Normal closure", 1001: "Going away", 1002: "Protocol error", 1003: "Unsupported data",
  1005: "No status received", 1006: "Connection lost", 1007: "Invalid payload", 1008: "Policy violation",
  1009: "Message too big", 1010: "Missing extension", 1011: "Internal error", 1012: "Service restart",
  1013: "Try again later", 1014: "Bad gateway", 1015: "TLS handshake failed", 3000: "Unauthorized",
  3003: "Forbidden", 3008: "Timeout",
};

function closeName(code) {
  if (CLOSE_NAMES[code]) return CLOSE_NAMES[code];
  if (code >= 4000 && code <= 4999) return "Application code";
  if (code >= 3000 && code <= 3999) return "Registered code";
  return "Unknown code";
}

// What a close means for the reader: 1000 is an end as wished, 1001, 1012 and 1013 are a server that wants the
// client elsewhere or later, everything else went wrong.
function closeTone(code) {
  if (code === 1000 || code === 1005) return "plain";
  return [1001, 1012, 1013].includes(code) ? "warn" : "error";
}

function sizeText(bytes) {
  if (bytes < 1024) return bytes + " B";
  if (bytes < 1024 * 1024) return (bytes / 1024).toFixed(1) + " KiB";
  return (bytes / 1024 / 1024).toFixed(1) + " MiB";
}

function countText(count) { return count < 10_000 ? grouped.format(count) : compact.format(count); }

function hexOf(bytes) { return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join(" "); }

// Lines of offset, bytes and the ASCII among them.
function hexDump(bytes, perLine) {
  const lines = [];
  for (let at = 0; at < bytes.length; at += perLine) {
    const part = bytes.subarray(at, at + perLine);
    const text = Array.from(part, (byte) => (byte >= 0x20 && byte < 0x7f ? String.fromCharCode(byte) : "·")).join("");
    lines.push(`${at.toString(16).padStart(6, "0")}  ${hexOf(part).padEnd(perLine * 3)} ${text}`);
  }
  return lines.join("\n");
}

// Bytes of what was typed: pairs of hex digits, with or without 0x and separators. `null` if it is something else.
function parseHex(text) {
  const digits = text.replace(/0x|[\s,:;_-]/gi, "");
  if (digits.length % 2 === 1 || /[^0-9a-f]/i.test(digits)) return null;
  return Uint8Array.from(digits.match(/../g) ?? [], (pair) => parseInt(pair, 16));
}

// The text that bytes are in UTF-8, or `null`.
function utf8Of(bytes) {
  try { return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes); } catch { return null; }
}

// A JSON object or array over several lines, or `null` for what is neither or already as long as it gets.
function prettyJson(text) {
  if (!/^\s*[[{]/.test(text) || text.length > 1 << 20) return null;
  try { return JSON.stringify(JSON.parse(text), null, 2); } catch { return null; }
}

// A payload as a row shows it. `clipped` when there is more of it.
function describe(data) {
  if (typeof data === "string") {
    const clipped = data.length > TEXT_SHOWN_CHARS;
    const text = clipped ? data.slice(0, TEXT_SHOWN_CHARS) + "…" : data || "(empty)";
    return { kind: "text", text, clipped, size: encoder.encode(data).length };
  }
  const bytes = new Uint8Array(data);
  const clipped = bytes.length > HEX_SHOWN_BYTES;
  const text = hexOf(bytes.subarray(0, HEX_SHOWN_BYTES)) + (clipped ? " …" : "") || "(empty)";
  return { kind: "binary", text, clipped, size: bytes.length };
}

function sameData(one, two) {
  if (typeof one === "string" || typeof two === "string") return one === two;
  if (one.byteLength !== two.byteLength) return false;
  const [a, b] = [new Uint8Array(one), new Uint8Array(two)];
  return a.every((byte, at) => byte === b[at]);
}

function make(name, className, text) {
  const element = document.createElement(name);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

// Below a URL's `#` a slash may stand as it is.
function hashOf(topic) { return "#" + encodeURIComponent(topic).replaceAll("%2F", "/"); }

// The topic named behind `#`, or `null`.
function topicOfHash() {
  try { return location.hash.length > 1 ? decodeURIComponent(location.hash.slice(1)) : null; } catch { return null; }
}
