// How smooth the chat's page is while 300 messages of ten people come, and while somebody scrolls up through them: long tasks, frames, and
// that each message is there once. `node tests/browsers/chat_smooth.mjs` prints the figures and fails beyond what a slow
// machine may take; `--json` prints them alone.

import assert from "node:assert/strict";
import { close, person, register } from "./chat_talk.mjs";
import { POLL } from "./page_kit.mjs";

const PEOPLE = 10;
// What a person may send at once.
const EACH = 30;
// Bounds for machines that do other things, too; docs/benchmarks.md has what one without does.
const TASK_MS_MAX = 500;

const page = await register("reader", { viewport: { width: 390, height: 740 } });
const people = [];
for (let number = 0; number < PEOPLE; number++) people.push(await person(`writer${number}`));

/** Counts tasks and frames from now on. */
const watch = () => page.evaluate(() => {
  const seen = globalThis.smooth = { tasks: [], frames: [], ends: false };
  new PerformanceObserver((list) => { for (const { duration } of list.getEntries()) seen.tasks.push(duration); }).observe({ type: "longtask" });
  let last = performance.now();
  const frame = (now) => {
    seen.frames.push(now - last);
    last = now;
    if (!seen.ends) requestAnimationFrame(frame);
  };
  requestAnimationFrame(frame);
});

const told = async () => {
  const { tasks, frames } = await page.evaluate(() => { globalThis.smooth.ends = true; return globalThis.smooth; });
  const sorted = [...frames].sort((a, b) => a - b);
  const round = (ms) => Math.round(ms * 10) / 10;
  return { frames: frames.length, frame_p99_ms: round(sorted[Math.floor(sorted.length * 0.99)] ?? 0), long_tasks: tasks.length, longest_task_ms: round(Math.max(0, ...tasks)) };
};

const listed = () => page.evaluate(() => [...document.querySelectorAll("#message-list .text")].map(({ textContent }) => textContent));

await watch();
const start = performance.now();
await Promise.all(people.map(async (one, number) => { for (let message = 0; message < EACH; message++) await one.say(`message ${message} of writer${number}: ${"words and more ".repeat(1 + (message % 7))}`); }));
await Promise.all(people.map((_, number) => page.waitForFunction((text) => [...document.querySelectorAll("#message-list .text")].some(({ textContent }) => textContent.startsWith(text)), `message ${EACH - 1} of writer${number}:`, POLL)));
const arriving = { ...await told(), seconds: Math.round((performance.now() - start) / 100) / 10 };
assert.ok(await page.evaluate(() => { const box = document.getElementById("messages"); return box.scrollHeight - box.scrollTop - box.clientHeight < 4; }), "it stays at the newest");

await watch();
// As a thumb does: until nothing older is there.
await page.waitForFunction(() => {
  const box = document.getElementById("messages");
  box.scrollTop = Math.max(0, box.scrollTop - 600);
  return box.scrollTop === 0 && document.getElementById("more").textContent === "This is where the room begins.";
}, undefined, { polling: "raf" });
const scrolling = await told();
const texts = await listed();
const wanted = people.flatMap((_, number) => Array.from({ length: EACH }, (__, message) => `message ${message} of writer${number}: `));
for (const text of wanted) assert.equal(texts.filter((one) => one.startsWith(text)).length, 1, text);

console.log(JSON.stringify({ messages: wanted.length, arriving, scrolling }));
await close();
for (const { longest_task_ms: longest } of [arriving, scrolling]) assert.ok(longest <= TASK_MS_MAX, `a task of ${longest} ms`);
