// The page at `/` in a real browser: two tabs that share a room, the echo, what the page does with hostile, long and
// binary payloads, who is told what about publishing, and how connections come back. page_looks.mjs has its looks.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { promisify } from "node:util";
import { POLL, launch, openUntil, row, say, shows, state, switchTo } from "./page_kit.mjs";
import { looks } from "./page_looks.mjs";
import { publish, runSteps, startServer, untilSubscribed } from "./server.mjs";

const HOSTILE = "<img src=x onerror=\"window.pwned=1\"><script>window.pwned=1</script>";
// Neither is what the name of a topic makes one think.
const RULES = { FANTAIL_PUBLISH_TOPICS: "lobby,open/*,café ☕" };

const CONFIG = join(mkdtempSync(join(tmpdir(), "fantail-page-")), "fantail.toml");
writeFileSync(CONFIG, "[[topic]]\npattern = \"kept/*\"\nhistory_messages = 100\n\n[[topic]]\npattern = \"lobby\"\nmessage_bytes_max = 200000\n");

let server = await startServer({ env: { ...RULES, FANTAIL_CONFIG: CONFIG } });
const { listen } = server;
const browser = await launch();
const context = await browser.newContext({ viewport: { width: 1280, height: 800 } });
context.setDefaultTimeout(15_000);
await context.grantPermissions(["clipboard-read", "clipboard-write"], { origin: `http://${listen}` });

const complaints = [];
const requests = [];

async function openPage(hash = "", host = listen) {
  const page = await context.newPage();
  page.on("console", (line) => { if (["error", "warning"].includes(line.type())) complaints.push(line.text()); });
  page.on("pageerror", (error) => complaints.push(String(error)));
  page.on("request", (request) => requests.push(new URL(request.url()).pathname));
  const answer = await page.goto(`http://${host}/${hash}`);
  assert.equal(answer.status(), 200);
  assert.match(answer.headers()["content-type"], /^text\/html/);
  await state(page, "room", "open");
  return page;
}

/** The document as the server sends it, without what the browser makes of it. */
async function source(host = listen) {
  const answer = await fetch(`http://${host}/`);
  return answer.text();
}

/** Ends connections through the admin port, and says how many. */
async function kick(query) {
  const answer = await fetch(`http://${server.admin}/connections/close?${query}`, { method: "POST" });
  assert.equal(answer.status, 200, await answer.clone().text());
  return (await answer.json()).closed;
}

const clipboard = (page) => page.evaluate(() => navigator.clipboard.readText());

let one;
let two;

const steps = [
  ["two tabs connect to the room on load", async () => {
    one = await openPage();
    two = await openPage();
    assert.equal(await one.locator("#room-topic").inputValue(), "lobby");
    assert.equal(await one.locator("#echo-state").getAttribute("data-state"), "idle");
  }],
  ["a message from one tab reaches the other and comes back", async () => {
    await one.bringToFront();
    await say(one, "room", "from one tab to the other");
    await row(one, "room", "sent", "from one tab to the other");
    await row(two, "room", "received", "from one tab to the other");
    await row(one, "room", "received", "from one tab to the other");
  }],
  ["a publish through the admin port reaches both tabs", async () => {
    const answer = await publish(server, "lobby", "from the admin port");
    assert.equal(answer.subscribers, 2);
    await row(one, "room", "received", "from the admin port");
    await row(two, "room", "received", "from the admin port");
  }],
  ["on the server's own machine the page says how to publish, and that works", async () => {
    await shows(one, "room", "command", `curl -d hello ${server.admin}/publish/lobby`);
    await switchTo(one, "open/../a 'b' $(c)");
    await one.waitForFunction(() => /open%2F..%2Fa/.test(document.getElementById("room-command").textContent), undefined, POLL);
    const { stdout } = await promisify(execFile)("sh", ["-c", await one.locator("#room-command").textContent()]);
    assert.equal(JSON.parse(stdout).subscribers, 1);
    await row(one, "room", "received", "hello");
    await switchTo(one, "lobby");
  }],
  ["under another name, as behind a proxy, the page knows no admin port", async () => {
    const port = listen.split(":")[1];
    const there = await openPage("", `fantail.test:${port}`);
    await shows(there, "room", "hint", "What you send goes to everybody here.");
    assert.equal(await there.locator("#room-command").isVisible(), false);
    assert.equal((await there.content()).includes(server.admin.split(":")[1]), false);
    await there.close();
    await one.bringToFront();
    assert.equal((await source()).includes(server.admin.split(":")[1]), false);
  }],
  ["a topic where clients only listen is one by its rule, not by its name", async () => {
    await switchTo(one, "open/news");
    await shows(one, "room", "hint", "What you send goes to everybody here. From a shell:");
    await say(one, "room", "anybody may");
    await row(one, "room", "received", "anybody may");
    await switchTo(one, "lobby-news");
    await shows(one, "room", "hint", "Clients only listen here. From a shell:");
    assert.equal(await one.locator("#room-input").isDisabled(), true);
    assert.equal(await one.locator("#room-send").isDisabled(), true);
    await publish(server, "lobby-news", "the operator may");
    await row(one, "room", "received", "the operator may");
    await switchTo(one, "lobby");
    await one.waitForFunction(() => !document.getElementById("room-input").disabled, undefined, POLL);
  }],
  ["markup in a payload is text and runs nothing", async () => {
    await say(one, "room", HOSTILE);
    await row(two, "room", "received", HOSTILE);
    await row(one, "room", "received", HOSTILE);
    for (const page of [one, two]) {
      assert.equal(await page.evaluate(() => window.pwned), undefined);
      assert.equal(await page.locator("#room-log img, #room-log script").count(), 0);
    }
    assert.deepEqual([...new Set(requests)].filter((path) => path !== "/" && path !== "/favicon.ico"), []);
  }],
  ["a binary message is shown as hex", async () => {
    await publish(server, "lobby", new Uint8Array([0, 1, 254, 255]), "?binary=1");
    await row(one, "room", "received", "00 01 fe ff");
    assert.equal(await one.locator("#room-log li[data-kind=binary]").count(), 1);
  }],
  ["a long text can be opened, copied and saved whole", async () => {
    const text = JSON.stringify({ lines: Array.from({ length: 3000 }, (_, i) => `line ${i} of ünïcode`) });
    await publish(server, "lobby", text);
    await one.locator("#room-log li[data-clipped] .whole").last().click();
    assert.equal(await one.locator("#viewer-content").textContent(), JSON.stringify(JSON.parse(text), null, 2));
    await one.locator("#viewer-forms button", { hasText: "Text" }).click();
    assert.equal(await one.locator("#viewer-content").textContent(), text);
    await one.locator("#viewer-copy").click();
    await shows(one, "viewer", "note", "Copied as text.");
    assert.equal(await clipboard(one), text);
    const [download] = await Promise.all([one.waitForEvent("download"), one.locator("#viewer-save").click()]);
    assert.equal(await readFile(await download.path(), "utf8"), text);
    await one.locator("#viewer-close").click();
  }],
  ["a binary message can be opened, copied and saved whole, over plain HTTP too", async () => {
    const bytes = Uint8Array.from({ length: 70_000 }, (_, i) => (i * 31) % 256);
    await publish(server, "lobby", bytes, "?binary=1");
    const hex = Buffer.from(bytes).toString("hex").replace(/..(?!$)/g, "$& ");
    await one.locator("#room-log li[data-kind=binary][data-clipped] .whole").last().click();
    assert.match(await one.locator("#viewer-content").textContent(), /^000000 {2}00 1f 3e/);
    assert.match(await one.locator("#viewer-note").textContent(), /beginning/);
    await one.locator("#viewer-copy").click();
    await shows(one, "viewer", "note", "Copied as hex.");
    assert.equal(await clipboard(one), hex);
    const [download] = await Promise.all([one.waitForEvent("download"), one.locator("#viewer-save").click()]);
    assert.deepEqual(new Uint8Array(await readFile(await download.path())), bytes);
    // A page of plain HTTP has no `navigator.clipboard`.
    await one.evaluate(() => navigator.clipboard.writeText(""));
    assert.equal(await one.evaluate(async () => {
      Object.defineProperty(navigator, "clipboard", { value: undefined, configurable: true });
      const done = await copyText("without it");
      delete navigator.clipboard;
      return done;
    }), true);
    assert.equal(await clipboard(one), "without it");
    await one.keyboard.press("Escape");
  }],
  ["what is kept has a bound, beyond which the oldest messages lose their rest", async () => {
    const [kept, gone] = await one.evaluate(() => {
      const log = new Log(document.createElement("ol"), document.createElement("button"), () => {});
      for (let i = 0; i < 70; i++) log.message("received", { id: i, lastRow: 0 }, { data: "x".repeat(1 << 20) + i }, "");
      log.flush();
      return [log.kept, log.rows.filter((each) => each.data === null).length];
    });
    assert.equal(gone, 7, `${kept}`);
    assert.ok(kept <= 64 * 1024 * 1024);
  }],
  ["more connections join, each message is counted on all of them", async () => {
    await openUntil(one, "room", 5);
    await untilSubscribed(server, "lobby", 6);
    await publish(server, "lobby", "to five of this page");
    await one.locator("#room-log li[data-count='5'] .payload", { hasText: "to five of this page" }).waitFor();
    await one.locator("#room-drop").click();
    await shows(one, "room", "open", 4);
  }],
  ["disconnecting is no error, and reconnecting brings all of them back", async () => {
    await one.locator("#room-toggle[data-action=disconnect]").click();
    await state(one, "room", "closed");
    await shows(one, "room", "state", "Disconnected");
    assert.equal(await one.locator("#room-state").getAttribute("data-tone"), "plain");
    // One row for all five, the one that was closed by itself before included.
    await one.locator("#room-log li[data-kind=close][data-tone=plain][data-count='5'] .payload", { hasText: "Disconnected" }).waitFor();
    await untilSubscribed(server, "lobby", 1);
    await one.locator("#room-toggle[data-action=connect]").click();
    await shows(one, "room", "open", 4);
    await untilSubscribed(server, "lobby", 5);
  }],
  ["the echo answers text and bytes typed as hex", async () => {
    await one.locator("#echo-toggle").click();
    await state(one, "echo", "open");
    await say(one, "echo", "héllo, Ω ≈ ∞");
    await row(one, "echo", "received", "héllo, Ω ≈ ∞");
    await one.locator("#echo-mode").selectOption("hex");
    await say(one, "echo", "0xDE,ad be:ef00");
    await row(one, "echo", "received", "de ad be ef 00");
    assert.equal(await one.locator("#echo-log li[data-kind=binary]").count(), 2);
    await say(one, "echo", "0g");
    await one.locator("#echo-hint[data-tone=error]").waitFor();
    await shows(one, "echo", "sent", 2);
    await shows(one, "echo", "received", 2);
  }],
  ["switching the topic leaves the old one, joins the new, and a reload keeps it", async () => {
    await switchTo(two, "café ☕");
    await shows(two, "room", "where", "/ws/café ☕");
    await row(two, "room", "event", "Connected to café ☕");
    await untilSubscribed(server, "café ☕", 1);
    await publish(server, "café ☕", "only here");
    await row(two, "room", "received", "only here");
    await two.reload();
    await state(two, "room", "open");
    assert.equal(await two.locator("#room-topic").inputValue(), "café ☕");
    await switchTo(two, "prices/eur");
    assert.equal(new URL(two.url()).hash, "#prices/eur");
    await shows(two, "room", "where", "/ws/prices/eur");
    // Somebody types into the address bar.
    await two.evaluate(() => { location.hash = "#caf%C3%A9%20%E2%98%95"; });
    await untilSubscribed(server, "café ☕", 1);
    await shows(two, "room", "where", "/ws/café ☕");
  }],
  ["the log keeps its last 500 rows", async () => {
    for (let i = 0; i < 520; i++) await publish(server, "café ☕", `row ${i}`);
    await row(two, "room", "received", "row 519");
    assert.equal(await two.locator("#room-log li").count(), 500);
  }],
  ["what would end in the same way is not tried again", async () => {
    const three = await openPage("#only/listening");
    await shows(three, "room", "hint", "Clients only listen here. From a shell:");
    assert.equal(await kick("topic=only/listening&code=1008"), 1);
    await state(three, "room", "closed");
    await shows(three, "room", "state", "Closed · 1008");
    assert.equal(await three.locator("#room-state").getAttribute("data-tone"), "error");
    await three.locator("#room-log li[data-kind=close][data-code='1008'][data-tone=error]").waitFor();
    assert.equal(await three.evaluate(() => room.seats.length), 0);
    await three.close();
    await one.bringToFront();
  }],
  ["a break is made good by position, and what can't be had is told", async () => {
    const kept = await openPage("#kept/a");
    await openUntil(kept, "room", 2);
    await publish(server, "kept/a", "before");
    await row(kept, "room", "received", "before");
    // Nobody comes back before there is something to be missed: chance as it never is makes half a second three.
    await kept.evaluate(() => { window.random = Math.random; Math.random = () => 6; });
    assert.equal(await kick("topic=kept/a&code=1012"), 2);
    for (const text of ["missed 1", "missed 2"]) assert.equal((await publish(server, "kept/a", text)).subscribers, 0);
    await kept.locator("#room-log li[data-kind=open][data-count='2'] .payload", { hasText: "Nothing missed, back in kept/a" }).waitFor();
    await publish(server, "kept/a", "after");
    for (const text of ["missed 1", "missed 2", "after"]) {
      await kept.locator("#room-log li[data-dir=received][data-count='2'] .payload", { hasText: text }).waitFor();
    }
    assert.equal(await kept.locator("#room-log li[data-kind=gap]").count(), 0);
    assert.equal(await kept.locator("#room-log li[data-dir=received]").count(), 4);
    assert.match(await kept.locator("#room-log li[data-dir=received] .meta").last().getAttribute("title"), /^Offset 4 · /);
    // Nothing is kept here.
    await switchTo(kept, "lobby-gap");
    await publish(server, "lobby-gap", "before");
    await row(kept, "room", "received", "before");
    assert.equal(await kick("topic=lobby-gap&code=1012"), 2);
    await publish(server, "lobby-gap", "nobody sees this");
    await kept.locator("#room-log li[data-kind=gap][data-tone=warn][data-count='2'] .payload", { hasText: "Messages are missing: not kept any more. The oldest to be had is 3" }).waitFor();
    await kept.close();
    await one.bringToFront();
  }],
  ["JSON is shown as it was published, not as it was read", async () => {
    const text = '{ "n": 1.0, "big": 12345678901234567890,  "n": 2, "data": {"x":"\u00e9"} }';
    await publish(server, "lobby", text);
    await row(one, "room", "received", text);
    await say(one, "room", text);
    await row(one, "room", "sent", text);
    await one.locator("#room-log li[data-dir=received] .payload").filter({ hasText: "12345678901234567890" }).nth(1).waitFor();
  }],
  ["a flood on several connections leaves the page to whoever clicks", async () => {
    const flooded = await openPage("#kept/flood");
    await openUntil(flooded, "room", 4);
    const start = performance.now();
    for (let sent = 0; sent < 8_000; sent += 50) {
      const lines = Array.from({ length: 50 }, (_, i) => JSON.stringify({ topic: "kept/flood", payload: `${sent + i}` }));
      const answer = await fetch(`http://${server.admin}/publish`, { method: "POST", body: lines.join("\n") });
      assert.equal(answer.status, 200, await answer.text());
      const early = start + sent - performance.now();
      if (early > 0) await new Promise((resolve) => { setTimeout(resolve, early); });
    }
    // It waits for nothing but its turn; without a pause between two drawings that was eight seconds.
    const asked = performance.now();
    await flooded.evaluate(() => document.getElementById("room-clear").click());
    const waited = performance.now() - asked;
    console.log(`        answered after ${Math.round(waited)} ms`);
    assert.ok(waited < 6_000, `${waited} ms`);
    // A connection that is still behind is not told the newest, so one is sent until it is told.
    const deadline = performance.now() + 90_000;
    for (let number = 1, told = false; !told; number += 1) {
      assert.ok(performance.now() < deadline, "nothing comes any more");
      const last = `the last one, number ${number}.`;
      await publish(server, "kept/flood", last);
      const row = flooded.locator("#room-log li[data-dir=received][data-count='4'] .payload", { hasText: last });
      told = await row.waitFor({ timeout: 3_000 }).then(() => true, () => false);
    }
    await flooded.close();
    await one.bringToFront();
  }],
  ["what the server does not take is told with its reason", async () => {
    await say(one, "room", "x".repeat(300_000));
    await one.locator("#room-log li[data-kind=refused][data-tone=error] .payload", { hasText: "(too_large)" }).waitFor();
    await state(one, "room", "open");
  }],
  ["blocked WebSockets: messages come over an event stream, or else by long polls, and the page says so", async () => {
    for (const [blocked, transport, words] of [[["WebSocket"], "sse", "an event stream"], [["WebSocket", "/sse/"], "poll", "long polls"]]) {
      const there = await context.newPage();
      await there.addInitScript((what) => {
        window.WebSocket = class { constructor() { setTimeout(() => this.onclose({ code: 1006 })); } close() {} };
        const { fetch } = window;
        window.fetch = (url, options) => (what.some((part) => String(url).includes(part)) ? Promise.reject(new TypeError("blocked")) : fetch(url, options));
      }, blocked);
      await there.goto(`http://${listen}/#open/${transport}`);
      await state(there, "room", "open");
      await shows(there, "room", "where", `/${transport}/open/${transport}`);
      await shows(there, "room", "hint", `WebSockets are blocked here: messages come over ${words}, and nothing can be sent.`);
      assert.equal(await there.locator("#room-input").isDisabled(), true);
      for (const [body, shown, query] of [["text", "text"], ["{ \"a\": 1.0 }", transport === "sse" ? "{ \"a\": 1.0 }" : "{\"a\":1}"], [new Uint8Array([7, 255]), "07 ff", "?binary=1"]]) {
        await publish(server, `open/${transport}`, body, query);
        await row(there, "room", "received", shown);
      }
      await there.close();
    }
    await one.bringToFront();
  }],
  ...looks(server, openPage),
  ["nothing was blocked or thrown", async () => {
    assert.deepEqual(complaints, []);
  }],
  ["after a crash of the server every connection comes back by itself", async () => {
    await one.evaluate(() => room.log.clear());
    server.kill();
    await one.locator("#room-log li[data-kind=close][data-code='1006'][data-tone=error]").first().waitFor();
    await state(one, "room", "waiting");
    await shows(one, "room", "of", "/4");
    // What waits can be hurried.
    await one.locator("#room-retry").click();
    await server.stop().catch(() => {});
    server = await startServer({ listen, env: { ...RULES, FANTAIL_CONFIG: CONFIG } });
    // A server that was slow to start has made them wait for up to half a minute.
    await shows(one, "room", "open", 4, 45_000);
    await state(two, "room", "open", 45_000);
    await untilSubscribed(server, "lobby", 4);
    await publish(server, "lobby", "back again");
    await one.locator("#room-log li[data-count='4'] .payload", { hasText: "back again" }).waitFor();
    await shows(one, "room", "command", `curl -d hello ${server.admin}/publish/lobby`);
  }],
  ["a stopping server says 1001 in every tab, which waits and can be told to stop", async () => {
    await one.evaluate(() => room.log.clear());
    server.term();
    for (const page of [one, two]) {
      await page.locator("#room-log li[data-kind=close][data-code='1001'][data-tone=warn]").first().waitFor({ timeout: 40_000 });
    }
    const { code, signal } = await server.stop();
    assert.equal(signal, null);
    assert.equal(code, 0);
    await one.locator("#room-toggle[data-action=disconnect]").click();
    await shows(one, "room", "state", "Disconnected");
    assert.equal(await one.evaluate(() => room.seats.length), 0);
  }],
];

await runSteps("page", steps, async () => {
  await browser.close();
  await server.stop();
  rmSync(dirname(CONFIG), { recursive: true });
});
