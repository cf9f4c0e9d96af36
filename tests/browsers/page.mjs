// The page at `/` in a real browser: two tabs that share a room, the echo, what the page does with
// hostile payloads and closed connections, and how it looks. Screenshots go to `out/`.

import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";
import { publish, runSteps, startServer, untilSubscribed } from "./server.mjs";

const OUT = fileURLToPath(new URL("out/", import.meta.url));
const PHONE = { width: 390, height: 844 };
const DESKTOP = { width: 1280, height: 800 };
const HOSTILE = "<img src=x onerror=\"window.pwned=1\"><script>window.pwned=1</script>";

mkdirSync(OUT, { recursive: true });
const server = await startServer();
// Playwright gives every launch a new, empty user data directory.
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM_BIN ?? "/usr/bin/chromium",
  args: [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
  ],
  timeout: 30_000,
});
const context = await browser.newContext({ viewport: DESKTOP });
context.setDefaultTimeout(15_000);

const complaints = [];
const requests = [];

async function openPage() {
  const page = await context.newPage();
  page.on("console", (line) => { if (["error", "warning"].includes(line.type())) complaints.push(line.text()); });
  page.on("pageerror", (error) => complaints.push(String(error)));
  page.on("request", (request) => requests.push(new URL(request.url()).pathname));
  const answer = await page.goto(`http://${server.listen}/`);
  assert.equal(answer.status(), 200);
  assert.match(answer.headers()["content-type"], /^text\/html/);
  await state(page, "room", "open");
  return page;
}

function state(page, card, value, timeout = 15_000) {
  return page.locator(`#${card}-state[data-state=${value}]`).waitFor({ state: "attached", timeout });
}

/** Waits for a row of a card's log with this direction and exactly this payload. */
async function row(page, card, dir, payload) {
  await page.waitForFunction(([id, direction, text]) => {
    const rows = document.querySelectorAll(`#${id}-log li[data-dir=${direction}] .payload`);
    return [...rows].some((each) => each.textContent === text);
  }, [card, dir, payload]);
}

async function say(page, card, text) {
  await page.locator(`#${card}-input`).fill(text);
  await page.locator(`#${card}-send`).click();
}

/** Waits until one of the card's counters (open, opened, sent, received) shows this number. */
async function counter(page, card, name, value) {
  await page.waitForFunction(([id, text]) => document.getElementById(id).textContent === text, [`${card}-${name}`, String(value)]);
}

async function width(page) {
  return page.evaluate(() => [document.documentElement.scrollWidth, document.body.scrollWidth, window.innerWidth]);
}

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
  ["more connections join, each message is counted on all of them", async () => {
    for (let i = 0; i < 4; i++) await one.locator("#room-add").click();
    await counter(one, "room", "open", 5);
    await counter(one, "room", "opened", 5);
    await untilSubscribed(server, "lobby", 6);
    await publish(server, "lobby", "to five of this page");
    await one.locator("#room-log li[data-count='5'] .payload", { hasText: "to five of this page" }).waitFor();
    await one.locator("#room-drop").click();
    await counter(one, "room", "open", 4);
  }],
  ["the echo answers text and binary", async () => {
    await one.locator("#echo-toggle").click();
    await state(one, "echo", "open");
    await say(one, "echo", "héllo, Ω ≈ ∞");
    await row(one, "echo", "received", "héllo, Ω ≈ ∞");
    await one.locator("#echo-binary").check();
    await say(one, "echo", "abc");
    await row(one, "echo", "received", "61 62 63");
    await counter(one, "echo", "sent", 2);
    await counter(one, "echo", "received", 2);
  }],
  ["looks right on a desk and on a phone, light and dark", async () => {
    for (const [size, viewport] of [["desktop", DESKTOP], ["phone", PHONE]]) {
      await one.setViewportSize(viewport);
      for (const colorScheme of ["light", "dark"]) {
        await one.emulateMedia({ colorScheme, reducedMotion: "reduce" });
        const [document, body, inner] = await width(one);
        assert.ok(document <= inner && body <= inner, `${size} scrolls sideways: ${document}/${body} in ${inner}`);
        await one.screenshot({ path: `${OUT}${size}-${colorScheme}.png` });
      }
    }
    await one.locator("#tab-echo").click();
    await one.locator("#echo-card").waitFor({ state: "visible" });
    await one.locator("#room-card").waitFor({ state: "hidden" });
    const [document, , inner] = await width(one);
    assert.ok(document <= inner, "the echo scrolls sideways on a phone");
    await one.screenshot({ path: `${OUT}phone-echo.png` });
  }],
  ["disconnecting shows 1000", async () => {
    await one.locator("#echo-toggle").click();
    await one.locator("#echo-log li[data-kind=close][data-code='1000']").waitFor();
    await state(one, "echo", "closed");
    assert.match(await one.locator("#echo-state").textContent(), /1000 Normal closure/);
    await one.setViewportSize(DESKTOP);
  }],
  ["switching the topic leaves the old one and joins the new", async () => {
    await two.locator("#room-topic").fill("café ☕");
    assert.equal(await two.locator("#room-toggle").getAttribute("data-action"), "switch");
    await two.locator("#room-toggle").click();
    await two.waitForFunction(() => document.getElementById("room-path").textContent === "/ws/caf%C3%A9%20%E2%98%95");
    await counter(two, "room", "opened", 2);
    await state(two, "room", "open");
    await counter(two, "room", "open", 1);
    await untilSubscribed(server, "café ☕", 1);
    await publish(server, "café ☕", "only here");
    await row(two, "room", "received", "only here");
  }],
  ["the log keeps its last 500 rows", async () => {
    for (let i = 0; i < 520; i++) await publish(server, "café ☕", `row ${i}`);
    await row(two, "room", "received", "row 519");
    assert.equal(await two.locator("#room-log li").count(), 500);
  }],
  ["nothing was blocked or thrown", async () => {
    assert.deepEqual(complaints, []);
  }],
  ["a stopping server says 1001 in every tab", async () => {
    server.term();
    for (const page of [one, two]) {
      await page.locator("#room-log li[data-kind=close][data-code='1001']").waitFor({ timeout: 40_000 });
      await state(page, "room", "closed", 40_000);
      assert.match(await page.locator("#room-state").textContent(), /1001 Going away/);
    }
    await one.screenshot({ path: `${OUT}closed.png` });
    const { code, signal } = await server.stop();
    assert.equal(signal, null);
    assert.equal(code, 0);
  }],
];

await runSteps("page", steps, async () => {
  await browser.close();
  await server.stop();
});
