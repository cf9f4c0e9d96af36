// Servers that are none: garbage, endless answers, redirects, drips, answers at once. However they behave, memory has a
// bound, tries have a pace, nothing is thrown at the application and no position is lost.

import assert from "node:assert/strict";
import { createServer } from "node:http";
import { createServer as createPlainServer } from "node:net";
import { test } from "node:test";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { eventStream } from "../fallback.js";
import { WebSocketServer, client, listening, queue, subscribed, until } from "./kit.mjs";

const EPOCH = "00000000000000aa";
const SIZE_MAX = 64 << 20;
const subscribedTo = ({ id, topic }, offset = 7) => JSON.stringify({ type: "subscribed", id, topic, epoch: EPOCH, offset });

/** A server of WebSockets; `on` gets each command and the socket. */
async function speaking(t, on) {
  const made = createServer();
  const sockets = new WebSocketServer({ server: made, handleProtocols: () => "fantail.json.v1" });
  sockets.on("connection", (socket) => socket.on("message", (text) => on(JSON.parse(text), socket)));
  return listening(t, made);
}

/** An HTTP server that answers each request so, how many those were, and when this side asked. */
async function answering(t, answer) {
  const asked = { times: [], answered: 0 };
  const made = createServer((request, response) => {
    asked.answered += 1;
    answer(request, response);
  });
  const at = await listening(t, made);
  const timed = (...given) => {
    asked.times.push(performance.now());
    return fetch(...given);
  };
  return { at, asked, fetch: timed };
}

/** No three of these are within half a second. The first asks a little later than it was tried: it waits for a topic. */
function paced(times) {
  for (let i = 3; i < times.length; i += 1) assert.ok(times[i] - times[i - 2] >= 499, `${times.map(Math.round)}`);
}

test("garbage ends the connection, moves no position, and is never thrown", async (t) => {
  const message = (more) => JSON.stringify({ type: "message", topic: "t", offset: 8, data: "x", ...more });
  const garbage = [
    "", "{", "null", "\u0000", Buffer.from([1, 2, 3]), "[".repeat(100_000),
    message({ offset: "8" }).replace("\"8\"", "\"eight\""), message({ offset: -1 }), message({ offset: 1.5 }), message({ offset: null }),
    message({ offset: 1e300 }), message({ data: undefined, data_base64: "%" }), message({ data: undefined, data_base64: 5 }),
    message({ epoch: "two words" }),
    JSON.stringify({ type: "gap", topic: "t" }).replace("}", ",\"gap\":null}"),
  ];
  const asked = [];
  const at = await speaking(t, (command, socket) => {
    asked.push(command.since);
    socket.send(subscribedTo(command));
    if (asked.length <= garbage.length) socket.send(garbage[asked.length - 1]);
    else socket.send(message({ data: "at last" }));
  });
  t.mock.method(Math, "random", () => 0);
  const one = client(t, at, { transports: ["websocket"] });
  const came = queue();
  one.subscribe("t", { onMessage: (what) => came.push(what) });
  const first = await came.next(30_000);
  assert.deepEqual([first.data, first.position], ["at last", `${EPOCH}:8`]);
  // What says nothing of a topic is no end; all others are asked for again from where it was.
  assert.deepEqual(asked, [undefined, ...garbage.map(() => `${EPOCH}:7`)]);
});

test("what a later version may say is left alone", async (t) => {
  const at = await speaking(t, (command, socket) => {
    socket.send(subscribedTo(command));
    for (const said of [{ type: "weather" }, {}, 5, [], { type: "message", topic: "other", offset: 1 }, { type: "published", id: 99 }, { type: "error", id: "x" }]) {
      socket.send(JSON.stringify(said));
    }
    socket.send(JSON.stringify({ type: "message", topic: "t", offset: 8, data: "x", mood: { __proto__: null, good: true } }));
  });
  const states = queue();
  const one = client(t, at, { transports: ["websocket"], onState: (state) => states.push(state) });
  const { messages } = await subscribed(one, "t");
  assert.equal((await messages.next()).data, "x");
  assert.deepEqual([states.length, one.state], [1, "open"]);
});

test("a server that tells of gaps all the time has the state loaded once a second", async (t) => {
  const at = await speaking(t, (command, socket) => {
    socket.send(subscribedTo(command));
    const telling = setInterval(() => socket.send(JSON.stringify({ type: "gap", topic: "t", gap: { kind: "dropped", oldest: 1 } })), 5);
    socket.on("close", () => clearInterval(telling));
  });
  const loads = [];
  let gaps = 0;
  const one = client(t, at, { transports: ["websocket"] });
  one.subscribe("t", { getState: () => { loads.push(performance.now()); }, onGap: () => { gaps += 1; } });
  await until("three loads", () => loads.length === 3);
  assert.ok(gaps > 10, `${gaps}`);
  for (let i = 1; i < 3; i += 1) assert.ok(loads[i] - loads[i - 1] >= 990, `${loads}`);
});

test("what waits for the state has a bound in size, above which the state is loaded again", async (t) => {
  const answers = queue();
  const at = await speaking(t, async (command, socket) => {
    socket.send(subscribedTo(command, 0));
    for (let offset = 1; offset <= 40; offset += 1) {
      socket.send(JSON.stringify({ type: "message", topic: "t", offset, data: "x".repeat(1 << 20) }));
    }
  });
  const one = client(t, at, { transports: ["websocket"] });
  const came = [];
  const subscription = one.subscribe("t", {
    onMessage: ({ offset }) => came.push(offset),
    getState: (position) => new Promise((resolve) => answers.push({ position, resolve })),
  });
  const first = await answers.next();
  await until("all", () => subscription.position === `${EPOCH}:40`);
  first.resolve();
  const second = await answers.next();
  assert.equal(second.position, `${EPOCH}:40`);
  second.resolve();
  await new Promise((resolve) => { setTimeout(resolve, 20); });
  assert.deepEqual(came, []);
});

const PAGES = {
  "redirects without end": (request, response) => response.writeHead(302, { Location: request.url }).end(),
  "a page": (request, response) => response.writeHead(200, { "Content-Type": "text/html" }).end("<!doctype html><p>Log in first"),
  "a page without end": (request, response) => {
    response.writeHead(200, { "Content-Type": "text/html" });
    drip(response, "<p>Log in first", 1);
  },
  "an end at once": (request, response) => response.destroy(),
  "nothing new, at once": (request, response) => response.writeHead(204, { "Fantail-Position": `${EPOCH}:7` }).end(),
};
for (const [name, answer] of Object.entries(PAGES)) {
  test(`instead of streams and polls: ${name}`, async (t) => {
    t.mock.method(Math, "random", () => 0);
    const open = new Set();
    const { at, asked, fetch } = await answering(t, (request, response) => {
      open.add(response);
      response.once("close", () => open.delete(response));
      answer(request, response);
    });
    const errors = [];
    const one = client(t, at, { transports: ["sse", "poll"], fetch, onError: (error) => errors.push(error) });
    one.subscribe("t", { onError: (error) => errors.push(error) });
    await until("some tries", () => asked.answered >= 8);
    const { times } = asked;
    // None is followed anywhere.
    assert.ok(asked.answered <= times.length);
    // A poll asks where it begins, and then waits: two requests of one try.
    if (name !== "nothing new, at once") paced(times);
    else assert.ok(times.at(-1) - times[0] > 900, `${times.map(Math.round)}`);
    assert.ok(open.size <= 2, `${open.size} are left open`);
    assert.deepEqual(errors, []);
  });
}

for (const retry of ["0", "1", "abc", "-5", "1e9", "Infinity", "", "0x10"]) {
  test(`streams that end at once, and say to come back in "${retry}"`, async (t) => {
    t.mock.method(Math, "random", () => 0);
    const { at, asked, fetch } = await answering(t, (request, response) => {
      response.writeHead(200, { "Content-Type": "text/event-stream", "Fantail-Position": `${EPOCH}:7` }).end(`retry: ${retry}\n\n`);
    });
    const one = client(t, at, { transports: ["sse"], fetch });
    one.subscribe("t");
    await until("some tries", () => asked.answered >= 6);
    paced(asked.times);
  });
}

for (const [transport, head] of [["sse", { "Content-Type": "text/event-stream" }], ["poll", { "Content-Type": "application/json" }]]) {
  for (const piece of ["x".repeat(1 << 16), `${"x".repeat((1 << 16) - 8)}\ndata: x`]) {
    test(`an answer without end has one: ${transport}${piece.includes("\n") ? ", in lines" : ""}`, async (t) => {
      let sent = 0;
      let isOver = false;
      const { at } = await answering(t, (request, response) => {
        if (sent > 0) return response.destroy();
        response.writeHead(200, { ...head, "Fantail-Position": `${EPOCH}:7` });
        const pour = () => {
          while (!response.destroyed && sent < 4 * SIZE_MAX) {
            sent += piece.length;
            if (!response.write(piece)) return response.once("drain", pour);
          }
          return undefined;
        };
        response.once("close", () => { isOver = true; });
        response.write("data: ");
        return pour();
      });
      const one = client(t, at, { transports: [transport] });
      one.subscribe("t");
      await until("its end", () => isOver);
      assert.ok(sent >= SIZE_MAX && sent < 1.5 * SIZE_MAX, `${sent} bytes`);
    });
  }
}

test("a handshake that drips has its time, and the next transport its turn", async (t) => {
  let isOver = false;
  const streams = [];
  const dripping = createPlainServer((socket) => {
    socket.on("error", () => {});
    socket.once("data", (head) => {
      if (!String(head).includes("Upgrade: websocket")) {
        streams.push(String(head).split("\r\n")[0]);
        return socket.destroy();
      }
      socket.once("close", () => { isOver = true; });
      return drip(socket, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nX-Drip: ", 100);
    });
  });
  await new Promise((resolve) => { dripping.listen(0, "127.0.0.1", resolve); });
  t.after(() => dripping.close());
  const one = client(t, `127.0.0.1:${dripping.address().port}`, { transports: ["websocket", "sse"] });
  one.subscribe("t");
  await until("the next transport", () => streams.length > 0);
  assert.deepEqual([streams[0], isOver], ["GET /sse/t HTTP/1.1", true]);
});

test("of several streams each has to live", async (t) => {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  const bodies = [];
  const downs = [];
  const fetch = async () => ({
    status: 200,
    headers: new Headers({ "Fantail-Position": `${EPOCH}:7` }),
    body: new ReadableStream({ start: (body) => bodies.push(body) }, { highWaterMark: 0 }),
  });
  const aborting = (url, { signal }) => fetch().then((answer) => {
    signal.addEventListener("abort", () => bodies.forEach((body) => { try { body.error(new Error("aborted")); } catch { /* It is over. */ } }));
    return answer;
  });
  const transport = eventStream({ base: "http://here", fetch: aborting }, { up() {}, heard() {}, said() {}, down: (why) => downs.push(why) });
  transport.begin([{ topic: "a", id: 1, since: `${EPOCH}:1` }, { topic: "b", id: 2, history: 1 }]);
  const settle = () => new Promise((resolve) => { setImmediate(resolve); });
  for (let i = 0; i < 5; i += 1) await settle();
  assert.equal(bodies.length, 2);
  for (let second = 0; second < 44; second += 4) {
    t.mock.timers.tick(4_000);
    bodies[0].enqueue(new TextEncoder().encode(":\n\n"));
    for (let i = 0; i < 5; i += 1) await settle();
  }
  assert.equal(downs.length, 0);
  t.mock.timers.tick(2_000);
  for (let i = 0; i < 5; i += 1) await settle();
  assert.ok(downs.length > 0, "the silent one is noticed beside the other");
  transport.close();
});

test("a stream that is closed is over, however long it was read", async (t) => {
  setFlagsFromString("--expose-gc");
  const collect = runInNewContext("gc");
  let isOver = false;
  let sent = 0;
  const { at } = await answering(t, (request, response) => {
    response.writeHead(200, { "Content-Type": "text/event-stream", "Fantail-Position": `${EPOCH}:7` });
    const pouring = setInterval(() => { sent += 1; response.write("data: x\n"); }, 2);
    response.once("close", () => { isOver = true; clearInterval(pouring); });
  });
  const one = client(t, at, { transports: ["sse"] });
  one.subscribe("t");
  for (let i = 1; i <= 10; i += 1) {
    await until("some more", () => sent > i * 10);
    collect();
  }
  assert.equal(one.state, "open");
  one.close();
  await until("its end", () => isOver);
});

/** Writes a beginning, and then a letter each so many milliseconds, as long as there is somebody. */
function drip(to, beginning, ms) {
  to.write(beginning);
  const dripping = setInterval(() => to.write("x"), ms);
  to.once("close", () => clearInterval(dripping));
}
