// Who is there, as a client knows it that follows a list: against the real server, and against one whose words are told here.

import assert from "node:assert/strict";
import { createServer } from "node:http";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { startServer } from "../../../tests/browsers/server.mjs";
import { Presence } from "../presence.js";
import { WebSocket, WebSocketServer, client, kick, listening, queue, subscribed, until } from "./kit.mjs";

const folder = mkdtempSync(join(tmpdir(), "fantail-presence-"));
const EPOCH = "00000000000000aa";

let server;
before(async () => {
  const config = join(folder, "fantail.toml");
  writeFileSync(config, ["full", "counts"].map((mode) => `[[topic]]\npattern = "${mode}*"\npresence = "${mode}"\n`
    + "presence_grace_seconds = 0\npresence_interval_ms = 100\npresence_state_seconds = 3600\n").join(""));
  server = await startServer({ env: { FANTAIL_CONFIG: config } });
});
after(async () => { await server.stop(); rmSync(folder, { recursive: true }); });

/** A client and the list that it follows. */
function follower(t, at, topic) {
  const presence = new Presence();
  const one = client(t, at, presence.options({ WebSocket, transports: ["websocket"] }));
  const [changes, errors] = [queue(), queue()];
  const list = presence.follow(topic, { onChange: (change) => changes.push(change), onError: (error) => errors.push(error) });
  return { one, list, changes, errors };
}

test("who comes, says something and goes is known, after a break too", async (t) => {
  const { one, list, changes } = follower(t, server.listen, "full/a");
  assert.deepEqual(await changes.next(), { joined: [], left: [], states: [] }, "nobody is there");
  assert.ok(list.live);
  await subscribed(one, "full/a");
  await until("itself", () => list.self && list.members.has(list.self));
  const other = follower(t, server.listen, "full/a");
  await subscribed(other.one, "full/a");
  const both = () => [list, other.list].every(({ live, count, members }) => live && count === 2 && members.has(list.self) && members.has(other.list.self));
  await until("both", both);
  await other.list.setState({ typing: true }, 60);
  await until("the state", () => list.members.get(other.list.self)?.typing);
  await other.list.setState(null);
  await until("its end", () => list.members.has(other.list.self) && !list.members.get(other.list.self));
  await other.list.setState("still here");
  await until("another", () => list.members.get(other.list.self) === "still here");
  // All connections break; who comes back is somebody else without a token.
  const before = [list.self, other.list.self];
  assert.equal(await kick(server, "topic=full/a&code=1012"), 2);
  await until("the new ones", () => both() && !before.includes(list.self) && !before.includes(other.list.self));
  assert.deepEqual([...list.members.keys()].sort(), [list.self, other.list.self].sort());
  assert.equal(list.members.get(other.list.self), undefined, "a state goes with its member");
  other.one.close();
  await until("the other's end", () => list.count === 1);
  list.close();
  await assert.rejects(other.list.setState(1), { code: "not_possible" });
});

test("where members are only counted there is a number", async (t) => {
  const { one, list } = follower(t, server.listen, "counts/a");
  await subscribed(one, "counts/a");
  await until("a count", () => list.count === 1);
  assert.equal(list.members.size, 0);
  await assert.rejects(list.setState(1), { code: "no_state", topic: "counts/a" });
});

test("what can't be had is told", async (t) => {
  const { errors, list } = follower(t, server.listen, "other");
  assert.equal((await errors.next()).code, "no_presence");
  assert.equal(list.live, false);
});

/** A server that tells here what it is asked, and says what it is told. */
async function scripted(t) {
  const asked = queue();
  const made = createServer();
  const sockets = new WebSocketServer({ server: made, handleProtocols: () => "fantail.json.v1" });
  sockets.on("connection", (socket) => socket.on("message", (data) => {
    const what = JSON.parse(data);
    if (what.type !== "ping") asked.push({ ...what, say: (words) => socket.send(JSON.stringify(words)), end: () => socket.terminate() });
  }));
  return { at: await listening(t, made), asked };
}

const page = (to, offset, count, members, more = {}) => to.say({
  type: "presence", id: to.id, topic: to.topic, version: `${EPOCH}:${offset}`, count, members: members.map(([id, state]) => ({ id, state })), ...more,
});
const event = (to, offset, count, more) => to.say({ type: "presence", topic: to.topic, version: `${EPOCH}:${offset}`, count, ...more });

test("pages of several versions and the events between them lead to the list", async (t) => {
  const { at, asked } = await scripted(t);
  const { list, changes } = follower(t, at, "t");
  const first = await asked.next();
  assert.deepEqual([first.type, first.topic, first.events, first.after, first.limit], ["presence", "t", true, undefined, 1000]);
  page(first, 3, 3, [["a"], ["b", 1]], { next: "b" });
  const second = await asked.next();
  assert.equal(second.after, "b");
  // Told already, then two that the next page has in it, the first of them for somebody who is not known yet.
  event(second, 3, 9, { joined: ["x"] });
  event(second, 4, 3, { left: ["a"], joined: ["d"], states: [{ id: "z", state: 5 }, { id: "d", state: 2 }] });
  page(second, 5, 3, [["c"], ["d", 2]]);
  assert.deepEqual(await changes.next(), { joined: ["b", "d", "c"], left: [], states: ["b", "d"] });
  assert.deepEqual([...list.members], [["b", 1], ["d", 2], ["c", undefined]]);
  event(second, 5, 2, { left: ["b"], states: [{ id: "d", state: null }] });
  assert.deepEqual(await changes.next(), { joined: [], left: ["b"], states: ["d"] });
  assert.deepEqual([list.count, [...list.members]], [2, [["d", undefined], ["c", undefined]]]);
});

test("behind a gap, a hole and another life the list is loaded again, and what has changed is told", async (t) => {
  const { at, asked } = await scripted(t);
  const { list, changes } = follower(t, at, "t");
  let to = await asked.next();
  page(to, 1, 2, [["a", 1], ["b", { x: 1 }]]);
  await changes.next();
  let offset = 1;
  for (const breaks of [
    () => to.say({ type: "presence", topic: "t", gap: { kind: "expired", oldest: 9 } }),
    () => event(to, offset + 2, 5, { joined: ["y"] }),
    () => to.say({ type: "presence", topic: "t", version: `00000000000000bb:${offset + 1}`, count: 1, joined: ["y"] }),
    () => to.end(),
  ]) {
    breaks();
    to = await asked.next();
    offset += 5;
    // An event that is older than the page, on its way before it.
    event(to, offset, 7, { joined: ["old"] });
    page(to, offset, 2, [["a", offset], ["b", { x: 1 }]]);
    assert.deepEqual(await changes.next(), { joined: [], left: [], states: ["a"] });
    assert.deepEqual([...list.members], [["a", offset], ["b", { x: 1 }]]);
  }
  assert.equal(changes.length, 0);
});

test("a state whose answer does not come fails", async (t) => {
  const { at, asked } = await scripted(t);
  const { list } = follower(t, at, "t");
  await asked.next();
  const said = list.setState("x", 5);
  const to = await asked.next();
  assert.deepEqual([to.type, to.topic, to.state, to.seconds], ["state", "t", "x", 5]);
  to.end();
  await assert.rejects(said, { code: "outcome_unknown", topic: "t" });
});
