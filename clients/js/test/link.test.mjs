// When to come back and over what, with transports that only say how they end.

import assert from "node:assert/strict";
import { test } from "node:test";
import { Link } from "../link.js";

/** A link over transports that are never opened but by hand; `ends` are what opened, in their order. */
function made(t, names) {
  const ends = [];
  const states = [];
  const transport = (name) => [name, (on) => {
    ends.push({ name, ...on });
    return { close() {} };
  }];
  const link = new Link(names.map(transport), 25_000, {
    state: (state, why) => states.push({ state, ...why }), started() {}, opened() {}, said() {}, lost() {},
  });
  t.after(() => link.close());
  const next = () => {
    link.connect();
    return ends.at(-1);
  };
  return { link, next, states };
}

test("waits are full jitter below a bound that doubles", (t) => {
  t.mock.method(Math, "random", () => 0.5);
  // The third of three tries within half a second would have to wait for another reason.
  let clock = 1_000_000;
  t.mock.method(performance, "now", () => (clock += 1_000));
  const { next, states } = made(t, ["websocket"]);
  const waited = (end, why) => {
    end.down(why);
    return states.at(-1).retryMs;
  };
  const waits = Array.from({ length: 9 }, () => waited(next(), { code: 1006 }));
  assert.deepEqual(waits, [250, 500, 1000, 2000, 4000, 8000, 15_000, 15_000, 15_000]);
  // What a server asks for makes it longer and never shorter, up to five minutes.
  assert.equal(waited(next(), { retryMs: 20_000 }), 20_000);
  assert.equal(waited(next(), { retryMs: 1 }), 15_000);
  assert.equal(waited(next(), { retryMs: 1e15 }), 300_000);
  // So long connected, it begins over; and whom a server that goes has told so, has been spread by it.
  for (const [code, wait] of [[1006, 250], [1001, 500], [1012, 250]]) {
    const end = next();
    end.up();
    end.said({});
    clock += 10_000;
    assert.equal(waited(end, { code }), wait, String(code));
    assert.equal(states.at(-1).code, code);
  }
});

test("some ends are final", (t) => {
  const after = (code) => {
    const { next, link } = made(t, ["websocket"]);
    const end = next();
    end.up();
    end.down({ code });
    return link.state;
  };
  const coming = [undefined, 1001, 1005, 1006, 1009, 1011, 1012, 1013, 1014, 1015];
  const final = [1000, 1002, 1003, 1007, 1008, 1010, 3000, 4000, 4999];
  assert.deepEqual(coming.map(after), coming.map(() => "waiting"));
  assert.deepEqual(final.map(after), final.map(() => "closed"));
});

test("what does not open is given up, what opens and says nothing too, and what has worked not so soon", (t) => {
  const { next, link } = made(t, ["websocket", "sse", "poll"]);
  const tried = [];
  const ended = (how) => {
    const end = next();
    tried.push(end.name);
    how(end);
  };
  const refused = (end) => end.down({ code: 1006 });
  const broken = (end) => { end.up(); end.down({ code: 1006 }); };
  const fine = (end) => { end.up(); end.said({}); end.down({ code: 1006 }); };
  const leaving = (end) => { end.up(); end.down({ code: 1001 }); };
  for (const how of [refused, broken, broken, refused, leaving, refused, fine, refused, refused, refused, refused, refused, refused, refused]) ended(how);
  assert.deepEqual(tried, ["websocket", "websocket", "sse", "poll", "websocket", "websocket", "websocket",
    "websocket", "websocket", "websocket", "websocket", "websocket", "websocket", "sse"]);
  assert.equal(link.state, "waiting");
});

test("a handshake without an answer is a block", (t) => {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  const { next, link } = made(t, ["websocket", "sse"]);
  assert.equal(next().name, "websocket");
  t.mock.timers.tick(10_000);
  assert.equal(link.state, "waiting");
  assert.equal(next().name, "sse");
});

test("a clock that is set back keeps nobody waiting", (t) => {
  t.mock.method(Math, "random", () => 0);
  const { next, states } = made(t, ["websocket"]);
  next().down({ code: 1006 });
  const real = Date.now;
  t.mock.method(Date, "now", () => real() - 86_400_000);
  next().down({ code: 1006 });
  assert.ok(states.at(-1).retryMs <= 550, JSON.stringify(states.at(-1)));
});
