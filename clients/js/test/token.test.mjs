// Tokens: where they are shown, when another one is asked for, and what becomes of those that are not taken; what servers
// say that refuse for now; and what the application's backend has to say.

import assert from "node:assert/strict";
import { createServer } from "node:http";
import { before, mock, test } from "node:test";
import { Link } from "../link.js";
import { startGuarded } from "../../../tests/browsers/server.mjs";
import { WebSocketServer, client, listening, queue, subscribed, until } from "./kit.mjs";

const EPOCH = "00000000000000aa";

// Waits are as short as they can be.
before(() => mock.method(Math, "random", () => 0));

/** A server of WebSockets: what each was opened with, what was said there, and `on` with each command and its socket. */
async function speaking(t, on, opened = () => {}) {
  const [shown, said] = [[], queue()];
  const made = createServer();
  const sockets = new WebSocketServer({ server: made, handleProtocols: () => "fantail.json.v1" });
  sockets.on("connection", (socket, request) => {
    shown.push({ url: request.url, protocols: request.headers["sec-websocket-protocol"] });
    opened(socket, shown.length);
    socket.on("message", (text) => {
      const command = JSON.parse(text);
      said.push(command);
      on?.(command, socket);
    });
  });
  return { at: await listening(t, made), shown, said };
}

/** An HTTP server that answers each request so, and what those were. */
async function answering(t, answer) {
  const asked = [];
  const made = createServer((request, response) => {
    asked.push({ url: request.url, authorization: request.headers.authorization });
    answer(request, response);
  });
  return { at: await listening(t, made), asked };
}

/** Tokens `t1`, `t2` …, and for each call whether a new one was wanted. */
function tokens() {
  const wanted = [];
  return { wanted, getToken: (anew) => `t${wanted.push(anew)}` };
}

/** What a client tells besides messages. */
function watched(options) {
  const told = { states: [], errors: [] };
  return { told, ...options, onState: (state, end) => told.states.push({ state, ...end }), onError: (error) => told.errors.push(error) };
}

const tell = (socket, what) => socket.send(JSON.stringify(what));

test("a token is asked for each connection, shown beside the protocol, and nowhere else", async (t) => {
  const { at, shown } = await speaking(t, null, (socket, nth) => { if (nth < 3) socket.close(1012); });
  const { wanted, getToken } = tokens();
  const { told, ...options } = watched({ transports: ["websocket"], protocols: ["x"], getToken: async (anew) => getToken(anew) });
  const one = client(t, at, options);
  await until("the third", () => shown.length === 3 && one.state === "open");
  assert.deepEqual(wanted, [false, false, false]);
  assert.deepEqual(shown, [1, 2, 3].map((nth) => ({ url: "/ws", protocols: `fantail.json.v1,x,fantail.token.t${nth}` })));
  assert.doesNotMatch(JSON.stringify(told), /t[123]"/);
});

test("whoever has no token shows none, and whose token does not come is not taken for blocked", async (t) => {
  const { at, shown } = await speaking(t);
  const none = client(t, at, { transports: ["websocket"], getToken: () => undefined });
  await until("a connection", () => none.state === "open");
  assert.equal(shown[0].protocols, "fantail.json.v1");
  let asked = 0;
  const { told, ...options } = watched({ getToken: () => { asked += 1; if (asked < 6) throw new Error("no t1 to be had"); return "t6"; } });
  const one = client(t, at, options);
  await until("a connection", () => one.state === "open");
  assert.deepEqual([one.transport, asked, shown[1].protocols], ["websocket", 6, "fantail.json.v1,fantail.token.t6"]);
  assert.doesNotMatch(JSON.stringify(told), /t1/);
});

test("a token that never comes has its time, and is no reason for another transport", (t) => {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  const opened = [];
  const transport = (name) => [name, () => { opened.push(name); return { close() {} }; }];
  const link = Link(["websocket", "sse"].map(transport), 25_000, {
    state() {}, started() {}, opened() {}, said() {}, lost() {}, token: () => ({ then() {} }),
  });
  t.after(() => link.close());
  for (let nth = 0; nth < 5; nth += 1) {
    link.connect();
    t.mock.timers.tick(10_000);
  }
  assert.deepEqual([opened, link.name], [[], "websocket"]);
});

test("a client that is closed while it waits for a token opens nothing", async (t) => {
  const { at, shown } = await speaking(t);
  let give;
  const one = client(t, at, { getToken: () => new Promise((resolve) => { give = resolve; }) });
  await until("the question", () => give);
  one.close();
  give("t1");
  const other = client(t, at, {});
  await until("the other", () => other.state === "open");
  assert.deepEqual(shown.map(({ protocols }) => protocols), ["fantail.json.v1"]);
});

test("a token that ends soon is followed by another on the same connection, once in a while and not in circles", async (t) => {
  const { wanted, getToken } = tokens();
  const { at, shown, said } = await speaking(t, (command, socket) => {
    // As a server does to a token that lives no longer than its notice.
    if (command.type !== "refresh") return tell(socket, { type: "pong" });
    tell(socket, { type: "error", id: command.id, code: "token_expired", message: "t2 is over" });
    for (let times = 0; times < 50; times += 1) tell(socket, { type: "expires", expires: 1 });
    return tell(socket, { type: "subscribed", id: 1, topic: "t", epoch: EPOCH, offset: 7 });
  }, (socket) => tell(socket, { type: "expires", expires: 1 }));
  const { told, ...options } = watched({ transports: ["websocket"], getToken });
  const { first } = await subscribed(client(t, at, options), "t");
  assert.equal(first.position, `${EPOCH}:7`);
  const commands = [await said.next(), await said.next()];
  assert.deepEqual(commands.find(({ type }) => type === "refresh"), { type: "refresh", id: 0, token: "t2" });
  assert.deepEqual([wanted, shown.length, told.errors, said.length], [[false, true], 1, [], 0]);
});

for (const code of [3003, 3005]) {
  test(`an end with ${code} is answered with one other token, and a second one ends it`, async (t) => {
    const { at, shown } = await speaking(t, null, (socket) => socket.close(code));
    const { wanted, getToken } = tokens();
    const { told, ...options } = watched({ getToken });
    const one = client(t, at, options);
    await until("the end", () => one.state === "closed");
    assert.deepEqual([wanted, shown.length], [[false, true], 2]);
    assert.deepEqual(told.errors.map((error) => error.code), ["ended"]);
    assert.equal(told.states.at(-1).code, code);
    const without = client(t, at, { transports: ["websocket"] });
    await until("the end", () => without.state === "closed");
    assert.equal(shown.length, 3, "without another token it is final");
  });
}

for (const [transport, path] of [["sse", "/sse/t"], ["poll", "/poll/t?wait=0"]]) {
  for (const status of [401, 403]) {
    test(`${status} instead of ${transport} is answered with one other token, and the second one ends it`, async (t) => {
      const { at, asked } = await answering(t, (_, response) => response.writeHead(status, { "Retry-After": "0" }).end("no"));
      const { wanted, getToken } = tokens();
      const { told, ...options } = watched({ transports: [transport], getToken });
      const one = client(t, at, options);
      one.subscribe("t");
      await until("the end", () => one.state === "closed");
      assert.deepEqual(wanted, [false, true]);
      assert.deepEqual(asked, [1, 2].map((nth) => ({ url: path, authorization: `Bearer t${nth}` })));
      assert.deepEqual(told.errors.map((error) => error.code), ["ended"]);
      assert.deepEqual(told.states.map(({ state, code }) => [state, code]), [["waiting", status], ["connecting", undefined], ["closed", status]]);
      assert.doesNotMatch(JSON.stringify(told) + told.errors.join(), /t[12]\b/);
      const without = client(t, at, { transports: [transport] });
      without.subscribe("t");
      await until("the end", () => without.state === "closed");
      assert.equal(asked.length, 3, "without another token it is final");
    });
  }

  for (const status of [429, 503]) {
    test(`${status} instead of ${transport} says when to come back`, async (t) => {
          const { at, asked } = await answering(t, (_, response) => response.writeHead(status, { "Retry-After": "7" }).end("later"));
      const { told, ...options } = watched({ transports: [transport] });
      const one = client(t, at, options);
      one.subscribe("t");
      const waits = () => told.states.filter(({ state }) => state === "waiting");
      await until("the wait", () => waits().length === 1);
      assert.deepEqual(waits(), [{ state: "waiting", code: status, reason: undefined, retryMs: 7_000 }]);
      one.wake();
      await until("another", () => asked.length === 2 && waits().length > 1);
      assert.equal(waits().at(-1).retryMs, 7_000);
    });
  }
}

test("what a WebSocket was refused for is told by a stream, and a good token goes by a WebSocket again", async (t) => {
  const refused = [];
  const made = createServer((request, response) => {
    refused.push("sse");
    response.writeHead(401).end();
  });
  const sockets = new WebSocketServer({ noServer: true, handleProtocols: () => "fantail.json.v1" });
  made.on("upgrade", (request, socket, head) => {
    if (request.headers["sec-websocket-protocol"].endsWith("fresh")) return sockets.handleUpgrade(request, socket, head, () => {});
    refused.push("websocket");
    return socket.end("HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n");
  });
  const at = await listening(t, made);
  const one = client(t, at, { getToken: (anew) => (anew ? "fresh" : "stale") });
  one.subscribe("t");
  await until("a connection", () => one.state === "open");
  assert.deepEqual([one.transport, refused], ["websocket", ["websocket", "websocket", "sse"]]);
});

test("what the backend says at the handshake comes before all else", async (t) => {
  const { at } = await speaking(t, ({ id, topic }, socket) => tell(socket, { type: "subscribed", id, topic, epoch: EPOCH, offset: 7 }),
    (socket) => tell(socket, { type: "welcome", data: { name: "Alice", seats: [1, null] } }));
  const welcomes = [];
  const one = client(t, at, { transports: ["websocket"], onWelcome: (data) => welcomes.push(data) });
  await subscribed(one, "t");
  assert.deepEqual(welcomes, [{ name: "Alice", seats: [1, null] }]);
});

test("against the real server: shown, refreshed, revoked, and refused", async (t) => {
  // The notice is longer than the tokens live, so that it comes at once.
  const server = await startGuarded("notice_seconds = 3600", { FANTAIL_TIMEOUTS_SSE_RETRY_SECONDS: "1" });
  t.after(() => server.stop());
  for (const [name, transports] of [["websocket", ["websocket", "sse"]], ["sse", ["sse"]]]) {
    const wanted = [];
    // The second is allowed more than the first, and is the last.
    const getToken = (anew) => {
      const nth = Math.min(wanted.push(anew), 2);
      return server.token(`${name}-${nth}`, { subscribe: ["first", "second"].slice(0, nth) });
    };
    const { told, ...options } = watched({ transports, getToken });
    const one = client(t, server.listen, options);
    await subscribed(one, "first");
    assert.equal(one.transport, name);
    // Over a WebSocket the other token comes by itself, and what was not allowed is; a stream that is not asks for it.
    for (let isAllowed = false; !isAllowed;) {
      const { first, subscription } = await subscribed(one, "second");
      isAllowed = first.position !== undefined;
      if (!isAllowed) assert.equal(first.code, "not_allowed");
      subscription.close();
    }
    assert.deepEqual([wanted, told.errors], [[false, true], []]);
    await server.revoke(`${name}-2`);
    await until("the end", () => one.state === "closed");
    assert.deepEqual([told.errors.map(({ code }) => code), told.states.at(-1).code], [["ended"], 401]);
    assert.ok(wanted.length <= 4, `${wanted}`);
  }
});
