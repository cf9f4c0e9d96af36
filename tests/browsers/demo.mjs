// The live dashboard in a real browser: every card moves by push alone, what is missing is shown, it draws no more often than
// the viewer wants, and nothing is cut at any width. Screenshots go to `out/`.

import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { POLL, launch } from "./page_kit.mjs";
import { runSteps, startServer } from "./server.mjs";

const OUT = fileURLToPath(new URL("out/", import.meta.url));
mkdirSync(OUT, { recursive: true });

const server = await startServer({ more: ["--demo"] });
const browser = await launch();
const page = await browser.newPage({ viewport: { width: 1280, height: 900 } });
page.setDefaultTimeout(20_000);
const complaints = [];
const requests = [];
page.on("console", (line) => { if (["error", "warning"].includes(line.type())) complaints.push(line.text()); });
page.on("pageerror", (error) => complaints.push(String(error)));
page.on("request", (request) => requests.push(new URL(request.url()).pathname));

const missed = () => page.evaluate(() => [...charts.values()].reduce((all, chart) => all + chart.missed, 0));

/** What is wrong with the layout, as lines; runs in the page. */
function faults() {
  const found = [];
  if (document.documentElement.scrollWidth > innerWidth) found.push("the page scrolls sideways");
  for (const element of document.querySelectorAll(".value, .move, .missed, h3, header *")) {
    if (element.clientWidth > 0 && element.scrollWidth > element.clientWidth + 1) found.push(`${element.className || element.id || element.textContent} is cut`);
  }
  return found;
}

const steps = [
  ["every card moves, and nothing but the page and one WebSocket was asked for", async () => {
    await page.goto(`http://${server.listen}/demo`);
    await page.waitForFunction(() => [...document.querySelectorAll(".card .value")].every((value) => /\d/.test(value.textContent)), undefined, POLL);
    assert.equal(await page.locator(".card").count(), 12);
    const first = await page.evaluate(() => [...charts.values()].map((chart) => chart.position.offset));
    await page.waitForFunction((before) => [...charts.values()].every((chart, i) => chart.position.offset > before[i]), first, POLL);
    assert.equal(await page.locator("#state").textContent(), "Live");
    assert.equal(await missed(), 0);
    assert.deepEqual([...new Set(requests)].filter((path) => path !== "/favicon.ico"), ["/demo"]);
    // Each draws something, as soon as it has two points. Read back once: more than that the browser complains about.
    await page.waitForFunction(() => [...charts.values()].every((chart) => chart.points.length > 1), undefined, POLL);
    await page.waitForFunction((start) => draws > start + 1, await page.evaluate(() => draws), POLL);
    const blank = await page.evaluate(() => [...charts.values()].filter(({ el: { canvas } }) =>
      !canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data.some((part) => part !== 0)).map((chart) => chart.topic));
    assert.deepEqual(blank, []);
  }],
  ["it draws no more often than the viewer wants, and takes every message", async () => {
    await page.locator("#limit").selectOption("1");
    const [before, messages, begun] = await page.evaluate(() => [draws, feed.messages, performance.now()]);
    await page.waitForFunction((wanted) => feed.messages >= wanted, messages + 100, POLL);
    const [drawn, seconds] = await page.evaluate(([start, from]) => [draws - start, (performance.now() - from) / 1e3], [before, begun]);
    // Each of six cards once a second, however long a busy machine takes for the messages.
    assert.ok(drawn >= 1 && drawn <= 6 * (seconds + 1), `${drawn} times in ${seconds} s`);
    await page.locator("#limit").selectOption("10");
    assert.equal(await missed(), 0);
  }],
  ["what was missed is counted and marked", async () => {
    await page.locator("#unplug").click();
    await page.waitForFunction(() => document.getElementById("state").textContent === "Unplugged", undefined, POLL);
    await page.waitForFunction(() => document.getElementById("state").textContent === "Live", undefined, POLL);
    await page.waitForFunction(() => /missed/.test(document.querySelector("[data-topic='demo/prices/EUR-USD'] .missed").textContent), undefined, POLL);
    await page.waitForFunction(() => document.getElementById("missed").classList.contains("some"), undefined, POLL);
    assert.ok(await missed() > 20);
  }],
  ["a message that never came is found by the offset of the next", async () => {
    const before = await page.evaluate(() => {
      const chart = charts.get("demo/prices/OIL");
      chart.position.offset -= 3;
      return chart.missed;
    });
    await page.waitForFunction((wanted) => charts.get("demo/prices/OIL").missed === wanted, before + 3, POLL);
  }],
  ["nothing is cut and nothing scrolls sideways, at each width, light and dark", async () => {
    for (const width of [320, 390, 520, 600, 899, 900, 1280, 1920]) {
      await page.setViewportSize({ width, height: 900 });
      for (const colorScheme of ["light", "dark"]) {
        await page.emulateMedia({ colorScheme });
        await page.waitForFunction((start) => draws > start + 1, await page.evaluate(() => draws), POLL);
        assert.deepEqual(await page.evaluate(faults), [], `at ${width} px`);
        if ([390, 1280].includes(width)) await page.screenshot({ path: `${OUT}demo-${width}-${colorScheme}.png` });
      }
    }
  }],
];

await runSteps("live dashboard", steps, async () => {
  await browser.close();
  await server.stop();
  assert.deepEqual(complaints, [], "the console stays silent");
});
