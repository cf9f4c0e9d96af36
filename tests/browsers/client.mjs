// The JavaScript client (clients/js) in Chromium: what is published comes back, a lost network is noticed and made good,
// and where WebSockets are blocked event streams take over.

import assert from "node:assert/strict";
import { POLL, launch, startSite } from "./page_kit.mjs";
import { publish, runSteps, startGuarded, startServer } from "./server.mjs";

const server = await startServer({ env: { FANTAIL_PUBLISH_TOPICS: "open*", FANTAIL_ORIGIN_ALLOWED: "http://127.0.0.1:*" } });
const site = await startSite();
const browser = await launch();
const complaints = [];

/** A page that has a client, and what came to it. */
async function page(prepare) {
  const context = await browser.newContext();
  context.setDefaultTimeout(20_000);
  const made = await context.newPage();
  made.on("pageerror", (error) => complaints.push(String(error)));
  if (prepare) await made.addInitScript(prepare);
  await made.goto(`http://127.0.0.1:${site.address().port}/`);
  await made.evaluate(async (at) => {
    const { connect } = await import("/fantail.js");
    window.come = [];
    window.states = [];
    window.client = connect(at, { onState: (state) => window.states.push(state) });
    window.follow = (topic, more = {}) => window.client.subscribe(topic, {
      onMessage: ({ data, offset }) => window.come.push({ data: data instanceof Uint8Array ? [...data] : data, offset }),
      onSubscribed: ({ recovered }) => window.come.push({ subscribed: recovered }),
      onGap: ({ kind }) => window.come.push({ gap: kind }),
      ...more,
    });
  }, `http://${server.listen}`);
  return made;
}

const come = async (from, count) => {
  await from.waitForFunction((wanted) => window.come.length >= wanted, count, POLL);
  return from.evaluate(() => window.come.splice(0));
};

let one;
const steps = [
  ["text, objects, lists and bytes come back as what they were", async () => {
    one = await page();
    await one.evaluate(() => { window.subscription = window.follow("open/a"); });
    assert.deepEqual(await come(one, 1), [{ subscribed: false }]);
    const offsets = await one.evaluate(async () => {
      const published = [];
      for (const data of ["text é", { a: [1, null] }, [2], new Uint8Array([0, 255])]) published.push(await window.client.publish("open/a", data));
      return published.map(({ offset }) => offset);
    });
    assert.deepEqual(offsets, [1, 2, 3, 4]);
    assert.deepEqual((await come(one, 4)).map(({ data }) => data), ["text é", { a: [1, null] }, [2], [0, 255]]);
    const code = await one.evaluate(() => window.client.publish("shut", "x").catch((error) => error.code));
    assert.equal(code, "not_allowed");
  }],
  ["a closed connection comes back and goes on", async () => {
    const closed = await fetch(`http://${server.admin}/connections/close?topic=open/a&code=1012`, { method: "POST" });
    assert.equal((await closed.json()).closed, 1);
    assert.deepEqual(await come(one, 1), [{ subscribed: true }]);
    await publish(server, "open/a", "after");
    assert.equal((await come(one, 1))[0].data, "after");
  }],
  ["a network that is gone and back is noticed at once, and what was missed is told", async () => {
    await one.evaluate(() => { window.states.length = 0; });
    await one.context().setOffline(true);
    // Chromium leaves open WebSockets alone when it is offline; this one is cut from the other side.
    await fetch(`http://${server.admin}/connections/close?topic=open/a&code=1012`, { method: "POST" });
    await one.waitForFunction(() => window.states.includes("waiting"), null, POLL);
    await publish(server, "open/a", "missed");
    await one.context().setOffline(false);
    assert.deepEqual(await come(one, 2), [{ subscribed: false }, { gap: "expired" }]);
  }],
  ["blocked WebSockets: an event stream takes over", async () => {
    const blocked = await page(() => {
      window.WebSocket = class { constructor() { setTimeout(() => this.onclose({ code: 1006 })); } close() {} };
    });
    await blocked.evaluate(() => { window.follow("open/b"); });
    assert.deepEqual(await come(blocked, 1), [{ subscribed: false }]);
    assert.equal(await blocked.evaluate(() => window.client.transport), "sse");
    await publish(server, "open/b", "{\"by\":\"stream\"}");
    assert.deepEqual(await come(blocked, 1), [{ data: { by: "stream" }, offset: 1 }]);
    await blocked.context().close();
  }],
  ["a pattern has each message once, over a WebSocket and over an event stream, and begins anew after a break", async () => {
    const blocked = await page(() => {
      window.WebSocket = class { constructor() { setTimeout(() => this.onclose({ code: 1006 })); } close() {} };
    });
    for (const from of [one, blocked]) {
      await from.evaluate(() => {
        window.client.subscribePattern("open/p/*", {
          onMessage: ({ topic, data }) => window.come.push([topic, data]),
          onSubscribed: ({ again }) => window.come.push(again),
        });
      });
      assert.deepEqual(await come(from, 1), [false]);
      await from.evaluate(() => { window.follow("open/p/a", { onMessage: ({ data }) => window.come.push(["own", data]) }); });
      assert.deepEqual(await come(from, 1), [{ subscribed: false }]);
    }
    await fetch(`http://${server.admin}/connections/close?topic=open/p/a&code=1012`, { method: "POST" });
    // The pattern, the topic and, over the one connection of a WebSocket, the topic of before.
    const isBack = ({ length }) => window.come.length >= length && window.come.includes(true);
    for (const [from, length] of [[one, 3], [blocked, 2]]) {
      await from.waitForFunction(isBack, { length }, POLL);
      await from.evaluate(() => { window.come.length = 0; });
    }
    await publish(server, "open/p/a", "both");
    await publish(server, "open/p/b", "{\"by\":\"pattern\"}");
    await publish(server, "open/p/b/c", "nobody's");
    await publish(server, "open/p/a", "last");
    for (const from of [one, blocked]) {
      const all = (await come(from, 5)).map((each) => JSON.stringify(each)).sort();
      assert.deepEqual(all, [
        "[\"open/p/a\",\"both\"]", "[\"open/p/a\",\"last\"]", "[\"open/p/b\",{\"by\":\"pattern\"}]", "[\"own\",\"both\"]", "[\"own\",\"last\"]",
      ]);
    }
    await blocked.context().close();
  }],
  ["a token goes by a WebSocket and by a stream to a server elsewhere, and two that are not taken are the end", async () => {
    const guarded = await startGuarded("", { FANTAIL_ORIGIN_ALLOWED: "http://127.0.0.1:*", FANTAIL_TIMEOUTS_SSE_RETRY_SECONDS: "1" });
    try {
      for (const transports of [["websocket", "sse"], ["sse"]]) {
        const [over] = transports;
        // Waits are as short as they can be.
        const made = await page(() => { Math.random = () => 0; });
        await made.evaluate(async ([at, ways, good]) => {
          const { connect } = await import("/fantail.js");
          Object.assign(window, { token: good, ends: [], wanted: [] });
          window.guarded = connect(at, {
            transports: ways,
            getToken: async (anew) => { window.wanted.push(anew); return window.token; },
            onState: (state, end) => { if (state === "closed") window.ends.push(end.code); },
            onError: ({ code }) => window.ends.push(code),
          });
          window.guarded.subscribe("mine", { onSubscribed: () => window.come.push(window.guarded.transport) });
        }, [`http://${guarded.listen}`, transports, guarded.token(over)]);
        assert.deepEqual(await come(made, 1), [over]);
        await made.evaluate(() => { window.token = "none"; });
        assert.deepEqual(await guarded.revoke(over), { closed: 1 });
        await made.waitForFunction(() => window.ends.length >= 2, null, POLL);
        const { ends, wanted } = await made.evaluate(() => ({ ends: window.ends, wanted: window.wanted }));
        assert.deepEqual([ends, wanted.includes(true)], [["ended", 401], true]);
        await made.context().close();
      }
    } finally {
      await guarded.stop();
    }
  }],
  ["a client that is closed leaves nothing", async () => {
    await one.evaluate(() => window.client.close());
    const rows = await (await fetch(`http://${server.admin}/connections?topic=open/a`)).json();
    assert.ok(rows.connections.length <= 1);
    assert.deepEqual(complaints, []);
  }],
];

await runSteps("client", steps, async () => {
  await browser.close();
  site.closeAllConnections();
  site.close();
  await server.stop();
});
