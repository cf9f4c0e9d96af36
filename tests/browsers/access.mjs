// The three pages for who has no mouse, does not see them, or wants nothing to move; and that nobody frames them. In
// Chromium, by its accessibility tree, at the width of a phone and of a desk.

import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http";
import { POLL, launch, state } from "./page_kit.mjs";
import { publish, runSteps, startServer } from "./server.mjs";

const WIDTHS = [390, 1280];
const CONTROLS = new Set(["button", "link", "textbox", "searchbox", "combobox", "checkbox", "radio", "spinbutton", "log", "table", "region", "navigation", "dialog"]);

const server = await startServer({ more: ["--demo"] });
const browser = await launch();
const complaints = [];

async function open(path, width, more = {}) {
  const context = await browser.newContext({ viewport: { width, height: 800 }, ...more });
  context.setDefaultTimeout(20_000);
  const page = await context.newPage();
  page.on("pageerror", (error) => complaints.push(String(error)));
  await page.goto(path);
  return page;
}

const room = async (width, more) => {
  const page = await open(`http://${server.listen}/`, width, more);
  await state(page, "room", "open");
  return page;
};
const demo = async (width, more) => {
  const page = await open(`http://${server.listen}/demo`, width, more);
  await page.waitForFunction(() => [...charts.values()].every((chart) => chart.points.length > 1), undefined, POLL);
  return page;
};
const admin = (view) => async (width, more) => {
  const page = await open(`http://${server.admin}/#${view}`, width, more);
  await page.locator(`#view-${view}`).waitFor({ state: "visible" });
  return page;
};
const PAGES = [["the page", room], ["the dashboard", demo], ...["overview", "topics", "connections"].map((view) => [`the admin page's ${view}`, admin(view)])];

/** What a screen reader is told: role and name of each node that it does not pass over. */
async function told(page) {
  const session = await page.context().newCDPSession(page);
  const { nodes } = await session.send("Accessibility.getFullAXTree");
  return nodes.filter(({ ignored }) => !ignored).map(({ role, name, properties = [] }) => ({
    role: role?.value, name: name?.value ?? "",
    ...Object.fromEntries(properties.map((each) => [each.name, each.value.value])),
  }));
}

/** Tabs through the page once: what has the focus, where it is, and whether that is seen. */
async function tabbed(page) {
  await page.evaluate(() => { document.activeElement?.blur(); scrollTo(0, 0); });
  const stops = [];
  for (;;) {
    await page.keyboard.press("Tab");
    const stop = await page.evaluate(() => {
      const all = [...document.querySelectorAll("*")];
      const on = document.activeElement;
      if (!on || on === document.body) return null;
      // A field shows it for what stands in it.
      const shows = [on, on.closest(".field")].some((each) => each && getComputedStyle(each).outlineStyle !== "none" && parseFloat(getComputedStyle(each).outlineWidth) >= 2);
      const { width, height, left, right } = on.getBoundingClientRect();
      return { what: on.id || on.textContent.trim().slice(0, 40), at: all.indexOf(on), shows, isSeen: width > 0 && height > 0 && left >= 0 && right <= innerWidth };
    });
    if (!stop || stop.at === stops[0]?.at) return stops;
    stops.push(stop);
    assert.ok(stops.length < 200, "the focus goes round in the page");
  }
}

const steps = [];
for (const [what, make] of PAGES) {
  steps.push([`${what}: whatever can be used has a name, and headings lead through it`, async () => {
    for (const width of WIDTHS) {
      const page = await make(width);
      const nodes = await told(page);
      const nameless = nodes.filter(({ role, name, focusable }) => (CONTROLS.has(role) || (focusable && !["RootWebArea", "main"].includes(role))) && !name.trim());
      assert.deepEqual(nameless, [], `at ${width} px`);
      assert.equal(nodes.filter(({ role }) => role === "main").length, 1);
      const levels = nodes.filter(({ role }) => role === "heading").map(({ level }) => level);
      assert.equal(levels.filter((level) => level === 1).length, 1, `${levels}`);
      levels.forEach((level, i) => assert.ok(i === 0 || level <= levels[i - 1] + 1, `a level is left out: ${levels}`));
      // Two of the same role and name can't be told apart.
      const marks = nodes.filter(({ role }) => ["region", "navigation", "log", "group"].includes(role)).map(({ role, name }) => `${role} ${name}`);
      assert.deepEqual(marks.filter((each, i) => marks.indexOf(each) !== i), []);
      await page.context().close();
    }
  }]);
  steps.push([`${what}: the focus goes through it in its order, is seen, and gets out`, async () => {
    for (const width of WIDTHS) {
      const page = await make(width);
      // Every second row of what moves would be another one by the next key.
      const stops = await tabbed(page);
      assert.ok(stops.length >= 2, JSON.stringify(stops));
      assert.deepEqual(stops.filter(({ shows, isSeen }) => !shows || !isSeen), [], `at ${width} px`);
      const places = stops.map(({ at }) => at);
      assert.deepEqual(places, [...places].sort((one, two) => one - two), JSON.stringify(stops));
      await page.context().close();
    }
  }]);
  steps.push([`${what}: nothing moves where that is wished`, async () => {
    const page = await make(1280, { reducedMotion: "reduce" });
    for (let i = 0; i < 5; i += 1) await publish(server, "lobby", `message ${i}`);
    await page.evaluate(() => new Promise((resolve) => { setTimeout(resolve, 300); }));
    assert.equal(await page.evaluate(() => document.getAnimations().length), 0);
    await page.context().close();
  }]);
}

steps.push(["the page flashes a feather for a message, and none where nothing is to move", async () => {
  for (const [reducedMotion, moves] of [["no-preference", true], ["reduce", false]]) {
    const page = await room(1280, { reducedMotion });
    await page.evaluate(() => {
      window.flashes = 0;
      const { animate } = Element.prototype;
      Element.prototype.animate = function(...given) { window.flashes += 1; return animate.apply(this, given); };
    });
    await publish(server, "lobby", "flash");
    await page.waitForFunction(() => [...document.querySelectorAll("#room-log .payload")].some((each) => each.textContent === "flash"), undefined, POLL);
    // The first may come before its feather is drawn.
    for (let tries = 0; moves && tries < 40 && !(await page.evaluate(() => window.flashes)); tries += 1) {
      await publish(server, "lobby", `again ${tries}`);
      await page.waitForTimeout(250);
    }
    if (moves) assert.ok(await page.evaluate(() => window.flashes));
    else assert.equal(await page.evaluate(() => window.flashes), 0);
    await page.context().close();
  }
}]);
steps.push(["the dashboard's curves move once a second where nothing is to move, and the viewer may ask for more", async () => {
  for (const [reducedMotion, limit] of [["no-preference", "10"], ["reduce", "1"]]) {
    const page = await demo(1280, { reducedMotion });
    assert.equal(await page.locator("#limit").inputValue(), limit);
    await page.context().close();
  }
}]);
steps.push(["no page of another site frames them", async () => {
  const elsewhere = createServer((_, answer) => {
    answer.setHeader("Content-Type", "text/html");
    answer.end("<!doctype html><title>elsewhere</title><link rel=icon href=data:,><p>elsewhere");
  }).listen(0, "127.0.0.1");
  await once(elsewhere, "listening");
  const page = await open(`http://127.0.0.1:${elsewhere.address().port}/`, 1280);
  for (const url of [`http://${server.listen}/`, `http://${server.listen}/demo`, `http://${server.admin}/`]) {
    const refused = page.waitForEvent("console", (line) => /frame-ancestors|X-Frame-Options/i.test(line.text()));
    await page.evaluate((src) => { document.body.append(Object.assign(document.createElement("iframe"), { src })); }, url);
    assert.match((await refused).text(), /frame/i, url);
    const { headers } = await fetch(url);
    assert.equal(headers.get("x-frame-options"), "DENY", url);
    assert.match(headers.get("content-security-policy"), /frame-ancestors 'none'/, url);
  }
  // Nothing of them runs in there.
  for (const frame of page.frames().slice(1)) assert.doesNotMatch(await frame.evaluate(() => document.body.textContent), /fantail/i);
  // A page that may be framed is, so that this could fail.
  const [frame] = await Promise.all([
    page.waitForEvent("framenavigated", (each) => each.url().endsWith("/own")),
    page.evaluate(() => { document.body.append(Object.assign(document.createElement("iframe"), { src: "/own" })); }),
  ]);
  await frame.waitForFunction(() => document.body?.textContent.includes("elsewhere"), undefined, POLL);
  await page.context().close();
  elsewhere.closeAllConnections();
  elsewhere.close();
}]);

await runSteps("access", steps, async () => {
  await browser.close();
  await server.stop();
  assert.deepEqual(complaints, []);
});
