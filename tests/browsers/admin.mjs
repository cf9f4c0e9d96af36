// The page of the admin port in a real browser: who is let in, what it shows, what can be done with it, and how it looks
// and keeps up with 100,000 topics. What the port answers by itself is in tests/integration.

import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { fileURLToPath } from "node:url";
import WebSocket from "ws";
import { POLL, launch } from "./page_kit.mjs";
import { runSteps, startServer, within } from "./server.mjs";

const ADMIN = "admin-0123456789abcdef";
const READ = "read-0123456789abcdef";
const PUBLISH = "publish-0123456789abcdef";
const OUT = fileURLToPath(new URL("out/", import.meta.url));
const HOSTILE = "<img src=x onerror=\"window.pwned=1\">";
const TOPICS = 100_000;
const TOPICS_EACH = 4_000;

const locked = await startServer({ env: { FANTAIL_ADMIN_KEYS: `admin:${ADMIN},read:${READ},publish:${PUBLISH}` } });
const CONFIG = fileURLToPath(new URL("out/admin.toml", import.meta.url));
mkdirSync(OUT, { recursive: true });
writeFileSync(CONFIG, "[[topic]]\npattern = \"kept\"\nhistory_messages = 10\n");
// Who takes nothing stays for as long as it is looked at, however busy the machine.
const open = await startServer({ env: { FANTAIL_OUTBOX_MESSAGES_MAX: "4", FANTAIL_TIMEOUTS_WRITE_TIMEOUT_SECONDS: "300" }, more: ["--config", CONFIG] });
const crowded = await startServer({ env: { FANTAIL_LIMITS_SUBSCRIPTIONS_MAX: String(TOPICS_EACH + 1), FANTAIL_LIMITS_HEAD_BYTES_MAX: "65536" } });
const browser = await launch();

const complaints = [];
const urls = [];
const clients = [];

/** A client that is open; `path` is what stands behind `/ws`. */
async function client(server, path) {
  const socket = new WebSocket(`ws://${server.listen}/ws${path}`, { perMessageDeflate: false });
  const closed = new Promise((resolve) => socket.once("close", (code, reason) => resolve({ code, reason: String(reason) })));
  await within(60_000, "an open client", new Promise((resolve, reject) => {
    socket.once("open", resolve);
    socket.on("error", reject);
  }));
  clients.push(socket);
  return { socket, closed };
}

async function openPage(server, { hash = "", width = 1280, ...more } = {}) {
  const context = await browser.newContext({ viewport: { width, height: 800 }, ...more });
  context.setDefaultTimeout(15_000);
  const page = await context.newPage();
  page.on("console", (line) => { if (["error", "warning"].includes(line.type())) complaints.push(line.text()); });
  page.on("pageerror", (error) => complaints.push(String(error)));
  page.on("request", (request) => urls.push(request.url()));
  const answer = await page.goto(`http://${server.admin}/${hash}`);
  assert.equal(answer.status(), 200);
  return page;
}

const shown = (page, view) => page.locator(`#view-${view}`).waitFor({ state: "visible" });
const text = (page, selector, wanted) => page.waitForFunction(([what, pattern]) =>
  new RegExp(pattern).test(document.querySelector(what)?.textContent ?? ""), [selector, wanted], POLL);
const rows = (page, table) => page.locator(`#${table} tbody tr`);

/** What is wrong with the layout, as lines; runs in the page. */
function faults() {
  const found = [];
  if (document.documentElement.scrollWidth > innerWidth) found.push("the page scrolls sideways");
  const visible = (element) => element.getClientRects().length > 0 && !element.closest(".hidden-text, thead");
  for (const card of document.querySelectorAll(".card, .tile, nav, .filter, dialog[open], header")) {
    const edge = card.getBoundingClientRect();
    if (edge.width === 0) continue;
    const walker = document.createTreeWalker(card, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
      const { parentElement: parent, data } = walker.currentNode;
      if (!data.trim() || !visible(parent) || parent.closest(".host") || parent.closest("option")) continue;
      const range = document.createRange();
      range.selectNodeContents(walker.currentNode);
      for (const box of range.getClientRects()) {
        if (box.left < edge.left - 1 || box.right > edge.right + 1) found.push(`"${data}" leaves its card`);
      }
    }
  }
  for (const element of document.querySelectorAll("button, .figure, nav a, .state")) {
    if (visible(element) && element.scrollWidth > element.clientWidth + 1 && !element.matches(".name")) found.push(`${element.id || element.textContent} is cut`);
  }
  return found;
}

/** What a long message covers that nobody can scroll out from under it, as lines; runs in the page. */
function covered() {
  say("Words that fill more than a line. ".repeat(8));
  scrollTo(0, document.documentElement.scrollHeight);
  const { top } = document.getElementById("said").getBoundingClientRect();
  const found = [...document.querySelectorAll("#view-connections :is(tr, .pager)")].filter((each) => each.getBoundingClientRect().bottom > top);
  say("");
  scrollTo(0, 0);
  return found.map((each) => each.textContent);
}

let page;
let viewer;

const login = [
  ["without a key there is the login and nothing of the state", async () => {
    page = await openPage(locked);
    await page.locator("#login").waitFor({ state: "visible" });
    assert.equal(await page.locator("#app").isVisible(), false);
    assert.equal(await page.locator("#login-fault").textContent(), "");
    const source = await (await fetch(`http://${locked.admin}/`)).text();
    for (const part of [locked.listen, locked.listen.split(":")[1], "lobby"]) assert.equal(source.includes(part), false, part);
    assert.equal((await fetch(`http://${locked.admin}/?key=${ADMIN}`)).status, 400);
  }],
  ["a wrong key is said, and one that may publish only, too", async () => {
    for (const [key, said] of [["wrong-0123456789abcdef", "does not know this key"], ["schlüssel", "does not know this key"], ["", "A key is needed"], [PUBLISH, "publish only"]]) {
      await page.locator("#login-key").fill(key);
      await page.locator("#login-key").press("Enter");
      await text(page, "#login-fault", said);
      assert.equal(await page.locator("#app").isVisible(), false);
    }
    assert.equal(await page.evaluate(() => sessionStorage.length), 0);
    complaints.length = 0;
  }],
  ["with the key the page opens, and a reload of the tab keeps it", async () => {
    await page.locator("#login-key").fill(ADMIN);
    await page.locator("#login-send").click();
    await shown(page, "overview");
    await page.reload();
    await shown(page, "overview");
    assert.equal(await page.locator("#login").isVisible(), false);
    assert.equal(await page.evaluate(() => localStorage.length + document.cookie.length), 0);
  }],
  ["another tab has to be told the key again", async () => {
    const other = await openPage(locked);
    await other.locator("#login").waitFor({ state: "visible" });
    complaints.length = 0;
    await other.context().close();
  }],
  ["signed out, nothing is left", async () => {
    await page.locator("#act-out").click();
    await page.locator("#login").waitFor({ state: "visible" });
    assert.equal(await page.evaluate(() => sessionStorage.length), 0);
    complaints.length = 0;
  }],
  ["a key that may only look is told so when it acts", async () => {
    await page.locator("#login-key").fill(READ);
    await page.locator("#login-send").click();
    await shown(page, "overview");
    await page.locator("#act-drain").click();
    await page.locator("#ask-yes").click();
    await text(page, "#ask-fault", "another scope");
    await page.locator("#ask-no").click();
    complaints.length = 0;
    await page.context().close();
  }],
  ["where the browser lets pages store nothing the key is for this document", async () => {
    const context = await browser.newContext();
    context.setDefaultTimeout(15_000);
    const there = await context.newPage();
    const thrown = [];
    there.on("pageerror", (error) => thrown.push(String(error)));
    await there.addInitScript(() => {
      Object.defineProperty(window, "sessionStorage", { get() { throw new DOMException("not here", "SecurityError"); } });
    });
    await there.goto(`http://${locked.admin}/`);
    await there.locator("#login-key").fill(READ);
    await there.locator("#login-send").click();
    await shown(there, "overview");
    await there.reload();
    await there.locator("#login").waitFor({ state: "visible" });
    assert.deepEqual(thrown, []);
    await context.close();
  }],
  ["no key was ever in a URL", async () => {
    for (const url of urls) for (const key of [ADMIN, READ, PUBLISH]) assert.equal(url.includes(key), false, url);
    assert.ok(urls.length > 5);
  }],
  ["a page from elsewhere neither frames nor drives it", async () => {
    const elsewhere = createServer((_, answer) => answer.end("<!doctype html><title>elsewhere</title>")).listen(0, "127.0.0.1");
    await once(elsewhere, "listening");
    const other = await (await browser.newContext()).newPage();
    await other.goto(`http://localhost:${elsewhere.address().port}/`);
    const tried = await other.evaluate(async (admin) => {
      const went = await fetch(`http://${admin}/drain`, { method: "POST", mode: "no-cors" }).then(() => "sent", () => "refused");
      const read = await fetch(`http://${admin}/stats`).then(() => "read", () => "refused");
      return { went, read };
    }, open.admin);
    // The request goes out, and the guard refuses it.
    assert.equal(tried.read, "refused");
    const stats = await (await fetch(`http://${open.admin}/stats`)).json();
    assert.equal(stats.draining, false);
    assert.ok(stats.refusals.admin_origin >= 1);
    const { headers } = await fetch(`http://${open.admin}/`);
    assert.match(headers.get("content-security-policy"), /frame-ancestors 'none'/);
    assert.doesNotMatch(headers.get("content-security-policy"), /unsafe/);
    await other.context().close();
    elsewhere.close();
  }],
];

const acts = [
  ["without keys the page opens at once, and tells what there is", async () => {
    viewer = await client(open, "/prices%2Feur?topic=news");
    await client(open, `/${encodeURIComponent(HOSTILE)}`);
    page = await openPage(open);
    await shown(page, "overview");
    await text(page, "#state", "Ready");
    await page.waitForFunction(() => document.querySelector("#tiles .figure").textContent === "2", undefined, POLL);
    await text(page, "#worries", "^(?!$)");
    assert.equal(await page.locator("#act-out").isVisible(), false);
  }],
  ["publish works, and says how many it reached", async () => {
    const got = new Promise((resolve) => viewer.socket.once("message", (data, binary) => resolve([String(data), binary])));
    await page.locator("#act-publish").click();
    const fields = page.locator("#ask-body");
    await fields.getByLabel("Topic").fill("prices/eur");
    await fields.getByLabel("Message", { exact: true }).fill("1.08");
    await page.locator("#ask-yes").click();
    await text(page, "#ask-body .result", "1 subscriber, with offset 1");
    assert.deepEqual(await within(60_000, "the message", got), ["1.08", false]);
    const bytes = new Promise((resolve) => viewer.socket.once("message", (data, binary) => resolve([...data, binary])));
    await fields.getByLabel("Bytes, typed as hex").check();
    await fields.getByLabel("Message", { exact: true }).fill("00 f");
    await page.locator("#ask-yes").click();
    await text(page, "#ask-fault", "pairs of digits");
    await fields.getByLabel("Message", { exact: true }).fill("00 ff");
    await page.locator("#ask-yes").click();
    assert.deepEqual(await within(60_000, "the bytes", bytes), [0, 255, true]);
    await page.locator("#ask-no").click();
  }],
  ["a topic is found by a part of its name, and a name is never markup", async () => {
    await page.locator("#tab-topics").click();
    await shown(page, "topics");
    await page.getByRole("button", { name: HOSTILE }).waitFor();
    await page.locator("#topics-name").fill("ces/e");
    await page.waitForFunction(() => document.querySelectorAll("#topics-table tbody tr").length === 1, undefined, POLL);
    assert.equal(await page.evaluate(() => location.hash), "#topics?q=ces%2Fe");
    assert.equal(await page.evaluate(() => window.pwned), undefined);
    await page.reload();
    await page.getByRole("button", { name: "prices/eur" }).click();
    await text(page, "#ask-body", "Subscribers");
  }],
  ["what is typed is searched for once, whatever is chosen, turned or opened before its time", async () => {
    const there = await openPage(open, { hash: "#topics" });
    await text(there, "#topics-note", "shown");
    // Timers of one page end in the order of their times: behind the later one the earlier has been.
    const searches = (act) => there.evaluate((what) => new Promise((resolve) => {
      const { search } = views.topics;
      let count = 0;
      views.topics.search = function(signal) { count++; return search.call(this, signal); };
      const name = document.getElementById("topics-name");
      name.value = name.value ? "" : "o";
      name.dispatchEvent(new Event("input"));
      if (what === "choose") document.getElementById("topics-sort").dispatchEvent(new Event("change"));
      if (what === "turn") document.getElementById("topics-on").dispatchEvent(new Event("click"));
      if (what === "open") location.hash = "#overview";
      setTimeout(() => { views.topics.search = search; resolve(`${count} of ${views.topics.pages.length}`); }, TYPED_MS + 200);
    }), act);
    for (const act of ["", "choose", "turn"]) assert.equal(await searches(act), "1 of 1", act);
    assert.equal(await searches("open"), "0 of 1", "another view");
    await there.context().close();
  }],
  ["what a topic keeps is told, and what all do", async () => {
    await page.keyboard.press("Escape");
    for (let i = 0; i < 12; i++) await fetch(`http://${open.admin}/publish/kept`, { method: "POST", body: "x".repeat(1_000) });
    await page.locator("#topics-name").fill("kept");
    await page.getByRole("button", { name: "kept" }).click();
    await text(page, "#ask-body", "History10 messages, 1[01].* KiB");
    await page.keyboard.press("Escape");
    await page.locator("#tab-overview").click();
    await text(page, "#memory", "History1[01]");
    await page.locator("#tab-topics").click();
    await page.locator("#topics-name").fill("prices/eur");
    await page.getByRole("button", { name: "prices/eur" }).click();
  }],
  ["from a topic to its connections, and one of them is unsubscribed", async () => {
    await page.getByRole("button", { name: "Show connections" }).click();
    await shown(page, "connections");
    await page.waitForFunction(() => document.querySelectorAll("#connections-table tbody tr").length === 1, undefined, POLL);
    await page.locator("#connections-table button.name").click();
    await page.getByRole("button", { name: "Unsubscribe from news" }).click();
    await page.locator("#ask-yes").click();
    await text(page, "#said", "1 subscription ended");
    assert.equal((await (await fetch(`http://${open.admin}/topics?topic=news`)).json()).subscribers, 0);
  }],
  ["a connection is closed only behind the question, with the code that was chosen", async () => {
    await page.getByRole("button", { name: /^Close 127/ }).click();
    assert.equal(await page.evaluate(() => document.activeElement.id), "ask-no", "Enter closes nothing by accident");
    await page.keyboard.press("Escape");
    await page.locator("#ask").waitFor({ state: "hidden" });
    assert.equal(viewer.socket.readyState, WebSocket.OPEN);
    await page.getByRole("button", { name: /^Close 127/ }).click();
    await page.locator("#ask-body").getByLabel("Code").selectOption("4000");
    await page.locator("#ask-body").getByLabel(/^Reason/).fill("nächstes mal");
    await page.locator("#ask-yes").click();
    assert.deepEqual(await within(60_000, "the close", viewer.closed), { code: 4000, reason: "nächstes mal" });
    await text(page, "#said", "1 connection told to close");
    await page.locator("#connections-empty").waitFor({ state: "visible" });
  }],
  ["a slow consumer is found, told of on the overview, and closed", async () => {
    const slow = await client(open, "/slow");
    slow.socket.pause();
    const payload = "x".repeat(200_000);
    const missed = async () => Object.values((await (await fetch(`http://${open.admin}/stats`)).json()).drops).some((count) => count > 0);
    for (let round = 0; round < 300 && !(await missed()); round++) await fetch(`http://${open.admin}/publish/slow`, { method: "POST", body: payload });
    await page.locator("#tab-overview").click();
    await shown(page, "overview");
    await page.getByRole("link", { name: "Who?" }).click();
    await shown(page, "connections");
    assert.equal(await page.locator("#connections-slow").isChecked(), true);
    await page.waitForFunction(() => document.querySelectorAll("#connections-table tbody tr.slow").length === 1, undefined, POLL);
    await page.locator("#connections-close").click();
    await text(page, "#ask-body", "with unsent bytes");
    await page.locator("#ask-yes").click();
    await text(page, "#said", "1 connection told to close");
    slow.socket.terminate();
  }],
  ["a mistake in a filter is said in the server's words", async () => {
    await page.locator("#connections-slow").uncheck();
    await page.locator("#connections-ip").fill("10.0.0.1/8");
    await text(page, "#connections-note", "ip expects an address");
    complaints.length = 0;
    await page.locator("#connections-ip").fill("127.0.0.0/8");
    await page.waitForFunction(() => document.querySelectorAll("#connections-table tbody tr").length === 1, undefined, POLL);
  }],
  ["the keyboard alone is enough: search, and a question", async () => {
    await page.locator("#tab-overview").click();
    await shown(page, "overview");
    await page.keyboard.press("/");
    await shown(page, "topics");
    await page.waitForFunction(() => document.activeElement.id === "topics-name", undefined, POLL);
    const names = await page.locator("button, input, select, textarea").evaluateAll((all) => all
      .filter((each) => each.getClientRects().length > 0 && !each.labels?.length && !each.textContent.trim() && !each.getAttribute("aria-label"))
      .map((each) => each.outerHTML));
    assert.deepEqual(names, [], "each has a name");
  }],
  ["a reload of the configuration is asked for, and told", async () => {
    await page.locator("#act-reload").click();
    await page.locator("#ask-yes").click();
    await text(page, "#ask-title", "Reloaded");
    await page.locator("#ask-no").click();
  }],
];

const looks = [
  ["nothing is cut and nothing scrolls sideways, at each width, light and dark", async () => {
    for (let i = 0; i < 30; i++) await client(open, `/${["prices%2F", "chat%2Froom%20", "a%2Fvery%2Flong%2Fname%2Fthat%2Fgoes%2Fon%2Fand%2Fon%2Fwithout%2Fan%2Fend%2F"][i % 3]}${i}?topic=news&topic=lobby`);
    for (const width of [320, 390, 600, 819, 820, 1024, 1280, 1920]) {
      await page.setViewportSize({ width, height: 800 });
      for (const colorScheme of ["light", "dark"]) {
        await page.emulateMedia({ colorScheme });
        for (const view of ["overview", "topics", "connections"]) {
          await page.evaluate((name) => { location.hash = name; }, view);
          await shown(page, view);
          if (view !== "overview") await page.waitForFunction((name) => document.querySelectorAll(`#${name}-table tbody tr`).length > 3, view, POLL);
          assert.deepEqual(await page.evaluate(faults), [], `${view} at ${width} px`);
          if ([390, 1280].includes(width)) await page.screenshot({ path: `${OUT}admin-${view}-${width}-${colorScheme}.png` });
        }
        assert.deepEqual(await page.evaluate(covered), [], `under the message at ${width} px`);
        await page.getByRole("button", { name: /^Close 127/ }).first().click();
        assert.deepEqual(await page.evaluate(faults), [], `the question at ${width} px`);
        await page.keyboard.press("Escape");
      }
    }
    await page.setViewportSize({ width: 1280, height: 800 });
  }],
  ["the page says when the server is silent, and when it is back", async () => {
    await page.context().setOffline(true);
    await page.locator("#state[data-tone=error]").waitFor({ timeout: 30_000 });
    await text(page, "#state", "No answer for");
    await page.context().setOffline(false);
    await text(page, "#state", "Ready");
    complaints.length = 0;
  }],
  ["a drain is asked for, and told", async () => {
    await page.locator("#act-drain").click();
    await text(page, "#ask-body", "can't be taken back");
    await page.locator("#ask-yes").click();
    await text(page, "#said", "Draining");
    await page.context().close();
    complaints.length = 0;
  }],
];

/** Runs `act`, and says in milliseconds how long it took until `until` held, and the longest the page was busy at once. */
async function timed(there, act, until, argument) {
  await there.evaluate(() => {
    window.longest = 0;
    window.busy?.disconnect();
    window.busy = new PerformanceObserver((list) => { for (const each of list.getEntries()) window.longest = Math.max(window.longest, each.duration); });
    window.busy.observe({ entryTypes: ["longtask"] });
  });
  const start = performance.now();
  await act();
  await there.waitForFunction(until, argument, POLL);
  return { ms: Math.round(performance.now() - start), busy: Math.round(await there.evaluate(() => window.longest)) };
}

const crowd = [
  [`with ${TOPICS} topics a search, a sort and a page are a matter of a moment`, async () => {
    for (let from = 0; from < TOPICS; from += TOPICS_EACH) {
      await client(crowded, `?${Array.from({ length: TOPICS_EACH }, (_, i) => `topic=t/${String(from + i).padStart(5, "0")}`).join("&")}`);
    }
    await client(crowded, "/t%2F77777");
    const there = await openPage(crowded, { hash: "#topics" });
    await text(there, "#topics-note", "100K topics|100,001 topics");
    // The view's name in the hash is no place to scroll to, however long the table.
    for (const view of ["overview", "topics"]) {
      await there.evaluate((name) => { location.hash = `#${name}`; }, view);
      await shown(there, view);
    }
    await text(there, "#topics-note", "50 shown");
    await there.evaluate(() => new Promise((resolve) => { requestAnimationFrame(() => requestAnimationFrame(resolve)); }));
    assert.equal(await there.evaluate(() => scrollY), 0);
    const found = [];
    const name = there.locator("#topics-name");
    const only = (count) => [() => name.fill(count), (wanted) => document.querySelectorAll("#topics-table tbody tr").length === 1 && document.querySelector("#topics-table .name").textContent === `t/${wanted}`, count];
    found.push(["contains 99998", await timed(there, ...only("99998"))]);
    found.push(["contains 00001", await timed(there, ...only("00001"))]);
    await name.fill("");
    found.push(["most subscribers", await timed(there, () => there.locator("#topics-sort").selectOption("subscribers"), () =>
      document.querySelector("#topics-table .name")?.textContent === "lobby" && document.querySelectorAll("#topics-table .name")[1].textContent === "t/77777" && /most/.test(document.getElementById("topics-note").textContent))]);
    await there.locator("#topics-sort").selectOption("name");
    await text(there, "#topics-note", "50 shown");
    found.push(["the next page", await timed(there, () => there.locator("#topics-on").click(), () => document.querySelector("#topics-table .name").textContent === "t/00049")]);
    for (const [what, { ms, busy }] of found) {
      console.log(`        ${what}: ${ms} ms, the page busy for ${busy} ms at the most`);
      assert.ok(ms < 15_000 && busy < 1_000, what);
    }
    await there.context().close();
  }],
];

async function cleanUp() {
  for (const each of clients) each.terminate();
  await browser.close();
  await Promise.all([locked, open, crowded].map((server) => server.stop()));
  rmSync(CONFIG);
  assert.deepEqual(complaints, [], "the console stays silent");
}

await runSteps("admin page", [...login, ...acts, ...looks, ...crowd], cleanUp);
