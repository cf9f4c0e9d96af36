// `fantail/presence` (clients/js) in Chromium: a list of more than a page of members, a page that is loaded again and makes no
// noise, and a network that is gone and back.

import assert from "node:assert/strict";
import WebSocket from "ws";
import { POLL, launch, startSite } from "./page_kit.mjs";
import { runSteps, startGuarded, within } from "./server.mjs";

const MANY = 1_100;
const RULE = "[[topic]]\npattern = \"crowd\"\npresence = \"full\"\nsubscribe = \"anyone\"\npresence_grace_seconds = 3\npresence_interval_ms = 100\n";
const server = await startGuarded("", { FANTAIL_ORIGIN_ALLOWED: "http://127.0.0.1:*" }, RULE);
const site = await startSite();
const browser = await launch();
const complaints = [];

/** Opens so many connections that are on the topic, each a member of its own. */
async function members(count) {
  const opened = Array.from({ length: count }, () => new WebSocket(`ws://${server.listen}/ws/crowd`));
  await within(60_000, "members", Promise.all(opened.map((one) => new Promise((resolve, reject) => {
    one.once("open", resolve);
    one.once("error", reject);
  }))));
  return opened;
}

/** A page of somebody who is on the topic and follows the list of it. */
async function page(name) {
  const context = await browser.newContext();
  context.setDefaultTimeout(20_000);
  const made = await context.newPage();
  made.on("pageerror", (error) => complaints.push(String(error)));
  await made.addInitScript(([at, token]) => {
    window.changes = [];
    window.ready = (async () => {
      const [{ connect }, { Presence }] = await Promise.all([import("/fantail.js"), import("/presence.js")]);
      const presence = new Presence();
      window.client = connect(at, presence.options({ getToken: async () => token }));
      window.list = presence.follow("crowd", { onChange: ({ joined, left }) => window.changes.push({ joined, left }) });
      window.client.subscribe("crowd", { onMessage() {} });
    })();
  }, [`http://${server.listen}`, server.token(name, { sub: name })]);
  await made.goto(`http://127.0.0.1:${site.address().port}/`);
  await untilKnown(made);
  return made;
}

/** Waits until a page knows itself on its list. */
function untilKnown(of) {
  return of.waitForFunction(() => window.list?.live && window.list.members.has(window.list.self), null, POLL);
}

/** Everybody on the list of the server, page by page. */
async function listed() {
  const ids = [];
  for (let after = ""; ;) {
    const answer = await fetch(`http://${server.admin}/presence?topic=crowd&limit=1000${after}`);
    const { members: some, next } = await answer.json();
    ids.push(...some.map(({ id }) => id));
    if (next === undefined) return ids.sort();
    after = `&after=${encodeURIComponent(next)}`;
  }
}

/** Waits until a page knows who the server has on its list, and that is so many. */
async function untilTrue(of, count) {
  await of.waitForFunction((wanted) => window.list.live && window.list.count === wanted && window.list.members.size === wanted, count, POLL);
  assert.deepEqual(await of.evaluate(() => [...window.list.members.keys()].sort()), await listed());
}

/** The names that a page was told of since it was asked last, of who came or went. */
const told = (of, what) => of.evaluate((which) => window.changes.flatMap((change) => change[which]), what);

let [many, alice, bob] = [];
const steps = [
  ["a list of more than a page", async () => {
    many = await members(MANY);
    alice = await page("alice");
    await untilTrue(alice, MANY + 1);
  }],
  ["a page that is loaded again makes no noise", async () => {
    bob = await page("bob");
    await untilTrue(bob, MANY + 2);
    const carol = (await members(1))[0];
    await untilTrue(bob, MANY + 3);
    await bob.evaluate(() => { window.changes.length = 0; });
    await alice.reload();
    await untilKnown(alice);
    // Who leaves behind that is told of once the grace is over that alice would have had.
    carol.close();
    await untilTrue(bob, MANY + 2);
    assert.deepEqual([(await told(bob, "joined")).length, (await told(bob, "left")).length], [0, 1]);
    assert.ok(!(await told(bob, "left")).includes("alice"));
  }],
  ["who comes back from a lost network knows who has come and gone meanwhile", async () => {
    await bob.context().setOffline(true);
    // Chromium leaves open WebSockets alone when it is offline; this one is cut from the other side.
    const closed = await fetch(`http://${server.admin}/connections/close?identity=bob&code=1012`, { method: "POST" });
    assert.equal((await closed.json()).closed, 1);
    await bob.waitForFunction(() => !window.list.live, null, POLL);
    many.splice(0, 300).forEach((one) => one.terminate());
    many.push(...await members(100));
    // Nothing is told of who left before their grace is over.
    await untilTrue(alice, MANY + 1 - 200);
    await bob.evaluate(() => { window.changes.length = 0; });
    await bob.context().setOffline(false);
    await untilKnown(bob);
    await untilTrue(bob, MANY + 2 - 200);
    // It may have been away for longer than its own grace.
    const left = (await told(bob, "left")).filter((id) => id !== "bob");
    assert.deepEqual([left.length, new Set(left).size], [300, 300], "each once");
    assert.deepEqual(complaints, []);
  }],
];

await runSteps("who is there", steps, async () => {
  many?.forEach((one) => one.terminate());
  await browser.close();
  site.closeAllConnections();
  site.close();
  await server.stop();
});
