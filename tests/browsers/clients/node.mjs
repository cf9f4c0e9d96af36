// A conversation with a running server, by an npm library that the first argument names, or by Bun itself. `matrix.py` runs it.
// Echoes are checked here; what comes by subscription is printed as `got LENGTH SHA1`, the end as `closed CODE`.

import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { createRequire } from "node:module";

const require = createRequire(import.meta.url);
const [library, url] = process.argv.slice(2);
const rows = JSON.stringify(Array.from({ length: 40 }, (_, id) => ({ id, name: `row ${id}`, open: id % 3 === 0 })));
// The same again and again: a client that keeps its compressor's window refers to the ones before.
const echoes = ["", "hello, 世界 🪭", ...Array.from({ length: 5 }, (_, n) => `${n} ${rows}`), "x".repeat(65_000),
  rows.repeat(90), Buffer.alloc(0), randomBytes(150_000)];

/** Queues what events bring, so that nothing is missed between two waits. */
class Inbox {
  constructor() { this.waiting = []; this.wake = () => {}; }
  push(what) { this.waiting.push(what); this.wake(); }
  async next() {
    if (this.waiting.length === 0) await new Promise((resolve) => { this.wake = resolve; });
    return this.waiting.shift();
  }
}

/** A client with the interface of browsers: undici's, faye's and that of `ws` are alike. */
function standard(WebSocket, ...more) {
  return (target) => new Promise((resolve, reject) => {
    const inbox = new Inbox();
    const socket = new WebSocket(target, ...more);
    socket.binaryType = "arraybuffer";
    socket.onmessage = ({ data }) => inbox.push({ data: typeof data === "string" ? data : Buffer.from(data) });
    socket.onclose = ({ code }) => inbox.push({ code });
    socket.onerror = (event) => reject(new Error(event.message));
    socket.onopen = () => resolve({ inbox, send: (data) => socket.send(data), close: () => socket.close(1000) });
  });
}

/** npm's `websocket`, which has an interface of its own. */
function websocketNode(target) {
  const { client: Client } = require("websocket");
  return new Promise((resolve, reject) => {
    const client = new Client({ maxReceivedFrameSize: 1 << 24, maxReceivedMessageSize: 1 << 24 });
    client.on("connectFailed", reject);
    client.on("connect", (socket) => {
      const inbox = new Inbox();
      socket.on("message", ({ utf8Data, binaryData }) => inbox.push({ data: utf8Data ?? binaryData }));
      socket.on("close", (code) => inbox.push({ code }));
      const send = (data) => (typeof data === "string" ? socket.sendUTF(data) : socket.sendBytes(data));
      resolve({ inbox, send, close: () => socket.close(1000) });
    });
    client.connect(target);
  });
}

const libraries = {
  ws: () => standard(require("ws").WebSocket, { perMessageDeflate: { threshold: 0 } }),
  undici: () => standard(require("undici").WebSocket),
  "faye-websocket": () => standard(require("faye-websocket").Client, [], { extensions: [require("permessage-deflate")] }),
  websocket: () => websocketNode,
  // Run by Bun: its WebSocket is its own.
  bun: () => standard(WebSocket),
};

const open = libraries[library]();
const echo = await open(`${url}/echo`);
for (const message of echoes) {
  echo.send(message);
  const { data, code } = await echo.inbox.next();
  assert.equal(code, undefined, `closed with ${code} at ${message.length}`);
  assert.ok(typeof message === "string" ? data === message : Buffer.isBuffer(data) && data.equals(message), `${message.length} came back changed`);
}
echo.close();
console.log("echoed", (await echo.inbox.next()).code);
const subscriber = await open(`${url}/ws/${library}`);
console.log("subscribed");
for (;;) {
  const { data, code } = await subscriber.inbox.next();
  if (code !== undefined) { console.log("closed", code); break; }
  const bytes = Buffer.from(data);
  console.log("got", bytes.length, createHash("sha1").update(bytes).digest("hex"));
}
process.exit(0);
