// How the page looks: nothing cut, nothing running into something else, at every width, light and dark; red for errors
// only. Screenshots go to `out/`. Steps of page.mjs.

import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { publish } from "./server.mjs";
import { POLL, openUntil, row, say, shows, state, switchTo } from "./page_kit.mjs";

const OUT = fileURLToPath(new URL("out/", import.meta.url));
const WIDTHS = [320, 390, 600, 820, 899, 900, 1024, 1280, 1920];
const PHONE_HEIGHT = 760;

/** What is wrong with the layout of the shown page, as lines; runs in the page. */
function faults() {
  const found = [];
  if (document.documentElement.scrollWidth > innerWidth) found.push("the page scrolls sideways");
  for (const card of document.querySelectorAll(".card")) {
    if (card.getBoundingClientRect().width === 0) continue;
    const edge = card.getBoundingClientRect();
    // Boxes of words, each beside all others of the card; what scrolls by itself is not compared.
    const boxes = [];
    const walker = document.createTreeWalker(card, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
      const { parentElement: parent, data } = walker.currentNode;
      const style = getComputedStyle(parent);
      if (!data.trim() || parent.closest(".log, .hidden-text, select, [hidden]") || style.visibility === "hidden") continue;
      const range = document.createRange();
      range.selectNodeContents(walker.currentNode);
      for (const box of range.getClientRects()) boxes.push({ data, box, clips: style.textOverflow === "ellipsis" });
    }
    for (const { data, box, clips } of boxes) {
      if (!clips && (box.left < edge.left || box.right > edge.right)) found.push(`"${data}" leaves its card`);
    }
    for (const [i, one] of boxes.entries()) {
      for (const two of boxes.slice(i + 1)) {
        const wide = Math.min(one.box.right, two.box.right) - Math.max(one.box.left, two.box.left);
        const high = Math.min(one.box.bottom, two.box.bottom) - Math.max(one.box.top, two.box.top);
        // Lines of one text overlap by their leading.
        if (wide > 1 && high > 4 && !one.clips && !two.clips) found.push(`"${one.data}" runs into "${two.data}"`);
      }
    }
    for (const element of card.querySelectorAll("button, dt, dd, .state, .hint, .command")) {
      if (element.offsetWidth > 0 && element.scrollWidth > element.clientWidth + 1) found.push(`${element.id || element.textContent} is cut`);
    }
    for (const element of card.querySelectorAll("button, input, select")) {
      const box = element.getBoundingClientRect();
      if (box.width > 0 && !element.closest(".log") && (box.left < edge.left + 4 || box.right > edge.right - 4)) found.push(`${element.id} touches the edge of its card`);
    }
  }
  return found;
}

/** Elements that show red, as lines; runs in the page. */
function reds() {
  const probe = document.createElement("i");
  probe.style.color = "var(--red)";
  document.body.append(probe);
  const red = getComputedStyle(probe).color;
  probe.remove();
  const isRed = (element) => {
    const style = getComputedStyle(element);
    return style.color === red || (style.borderTopColor === red && style.borderTopWidth !== "0px");
  };
  const all = [...document.querySelectorAll("body *")].filter(isRed);
  return all.map((element) => `${element.id} ${element.className} ${element.textContent.slice(0, 40)}`);
}

/** Colours that are too near to what they stand on, as lines; runs in the page. WCAG 2.2, 1.4.3 and 1.4.11. */
function pale() {
  const style = getComputedStyle(document.documentElement);
  const light = (name) => {
    const parts = style.getPropertyValue(`--${name}`).match(/[0-9a-f]{2}/g).map((part) => parseInt(part, 16) / 255);
    const [red, green, blue] = parts.map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  const pairs = [
    ...["ink", "soft", "teal", "blue", "amber", "red"].flatMap((words) => ["card", "well", "ground"].map((under) => [words, under, 4.5])),
    ["faint", "card", 4.5], ["faint", "well", 4.5], ["ink", "line", 4.5], ["teal-ink", "teal", 4.5],
    ["teal", "teal-wash", 4.5], ["amber", "amber-wash", 4.5], ["red", "red-wash", 4.5], ["edge", "card", 3], ["edge", "ground", 3],
  ];
  const ratios = pairs.map(([one, two, least]) => {
    const [low, high] = [light(one), light(two)].sort((a, b) => a - b);
    return [`${one} on ${two}`, (high + 0.05) / (low + 0.05), least];
  });
  return ratios.filter(([, ratio, least]) => ratio < least).map(([what, ratio, least]) => `${what}: ${ratio.toFixed(2)} of ${least}`);
}

/** Looks at every width, and shows what it was before. */
async function look(page, name) {
  for (const width of WIDTHS) {
    await page.setViewportSize({ width, height: width < 600 ? PHONE_HEIGHT : 800 });
    const tabs = (await page.locator("#tab-room").isVisible()) ? ["room", "echo"] : ["both"];
    for (const tab of tabs) {
      if (tab !== "both") await page.locator(`#tab-${tab}`).click();
      for (const colorScheme of ["light", "dark"]) {
        await page.emulateMedia({ colorScheme, reducedMotion: "reduce" });
        assert.deepEqual(await page.evaluate(faults), [], `${name}, ${tab} at ${width} px`);
        await page.screenshot({ path: `${OUT}${name}-${tab}-${width}-${colorScheme}.png` });
      }
    }
  }
  await page.setViewportSize({ width: 1280, height: 800 });
  await page.emulateMedia({ colorScheme: "light" });
}

/** The steps; `open` opens a page of its own. */
export function looks(server, open) {
  mkdirSync(OUT, { recursive: true });
  let page;
  return [
    ["nothing is cut or runs into something else: connected, with messages", async () => {
      page = await open("#looks/a/topic with a name that is long");
      await openUntil(page, "room", 4);
      const topic = await page.locator("#room-topic").inputValue();
      await publish(server, topic, "short");
      await publish(server, topic, JSON.stringify({ symbol: "EUR/USD", bids: Array.from({ length: 60 }, (_, i) => i * i) }));
      await publish(server, topic, new Uint8Array(120).map((_, i) => i * 7), "?binary=1");
      await page.locator("#echo-toggle").click();
      await state(page, "echo", "open");
      await say(page, "echo", "ping");
      await row(page, "echo", "received", "ping");
      await page.evaluate(() => { room.received = 99_999; room.sent = 12_345; room.paint(); });
      await look(page, "connected");
      assert.deepEqual(await page.evaluate(reds), []);
    }],
    ["words stand out as WCAG AA asks, and so do the borders of controls", async () => {
      for (const colorScheme of ["light", "dark"]) {
        await page.emulateMedia({ colorScheme });
        assert.deepEqual(await page.evaluate(pale), [], colorScheme);
      }
    }],
    ["between the topic's label and its field there is no seam", async () => {
      const seam = await page.evaluate(() => {
        const [label, input] = document.querySelectorAll("#room-topic-field > *");
        const borders = [label, input].map((each) => getComputedStyle(each)).flatMap((style) => [style.borderLeftWidth, style.borderRightWidth]);
        return { gap: input.getBoundingClientRect().left - label.getBoundingClientRect().right, borders };
      });
      assert.deepEqual(seam, { gap: 0, borders: ["0px", "0px", "0px", "0px"] });
    }],
    ["received, sent, waiting and closed have colours of their own, and a wished end is not red", async () => {
      await page.locator("#echo-toggle").click();
      await page.locator("#echo-log li[data-kind=close]").waitFor();
      assert.deepEqual(await page.evaluate(reds), []);
      const colors = await page.evaluate(() => ["sent", "received", "event"].map((dir) =>
        getComputedStyle(document.querySelector(`#echo-log li[data-dir=${dir}] .dir`)).color));
      assert.equal(new Set(colors).size, 3, String(colors));
    }],
    ["what is wrong is red, and says what would be right", async () => {
      await page.locator("#room-topic").fill("a*b");
      await page.locator("#room-hint[data-tone=error]").waitFor();
      await page.locator("#echo-toggle").click();
      await state(page, "echo", "open");
      await page.locator("#echo-mode").selectOption("hex");
      await say(page, "echo", "00 f");
      await shows(page, "echo", "sent", 1);
      assert.match(await page.locator("#echo-hint").textContent(), /pairs of digits/);
      const shown = await page.evaluate(reds);
      assert.equal(shown.length, 4, String(shown));
      await look(page, "wrong");
      await page.locator("#echo-input").fill("00 ff");
      assert.equal(await page.locator("#echo-hint").getAttribute("data-tone"), "plain");
      await page.locator("#room-topic").fill(await page.evaluate(() => room.joined()));
    }],
    ["nothing is cut while clients only listen, and while connections wait to come back", async () => {
      await switchTo(page, "prices/eur");
      await page.waitForFunction(() => document.getElementById("room-input").disabled, undefined, POLL);
      await openUntil(page, "room", 10);
      await look(page, "listening");
      // As if each had just lost its server: nothing is tried again while it is looked at.
      await page.evaluate(() => {
        for (const seat of room.seats) Object.assign(seat, { state: "waiting", retryAt: performance.now() + 29_000 });
        room.shape();
      });
      await state(page, "room", "waiting");
      await look(page, "waiting");
    }],
    ["the whole of a message fits every window", async () => {
      await page.evaluate(() => { for (const seat of room.seats) seat.state = "open"; room.shape(); });
      await publish(server, "prices/eur", JSON.stringify({ list: Array.from({ length: 400 }, (_, i) => `entry ${i}`) }));
      await page.locator("#room-log .whole").last().click();
      for (const width of WIDTHS) {
        await page.setViewportSize({ width, height: width < 600 ? PHONE_HEIGHT : 800 });
        const beyond = await page.evaluate(() => [...document.querySelectorAll("#viewer, #viewer button, #viewer pre")]
          .map((each) => each.getBoundingClientRect())
          .filter((box) => box.left < 0 || box.top < 0 || box.right > innerWidth || box.bottom > innerHeight).length);
        assert.equal(beyond, 0, `the dialog leaves a window of ${width} px`);
        await page.screenshot({ path: `${OUT}viewer-${width}.png` });
      }
      await page.keyboard.press("Escape");
      await page.close();
    }],
  ];
}
