// The load generator's pages in Chromium, opened from files as a colleague opens them: whether a stranger reads from one
// when it stalled, whose fault it was and which limit was hit, whether anything runs off a phone, whether the button
// copies. `node report.mjs FOLDER` also leaves pictures of the pages there: page.png, through
// `pngquant 64`, is docs/loadtest-page.png.

import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, rmdirSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { launch } from "./page_kit.mjs";
import { runSteps, startServer, within } from "./server.mjs";

const ROOT = join(dirname(fileURLToPath(import.meta.url)), "..", "..");
const PICTURES = process.argv[2];
const folder = mkdtempSync(join(tmpdir(), "fantail-report-"));
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

function generator() {
  if (process.env.LOADTEST_BIN) return process.env.LOADTEST_BIN;
  const found = ["release", "debug"].map((kind) => join(ROOT, "target", kind, "fantail-loadtest")).find(existsSync);
  if (!found) throw new Error("no fantail-loadtest in target/; build it or set LOADTEST_BIN");
  return found;
}

/** Starts the generator; `flowing` comes when messages flow, `done` with its result and the place of its page. */
function start(name, args, prefix = []) {
  const [json, html] = ["json", "html"].map((kind) => join(folder, `${name}.${kind}`));
  const [program, ...words] = [...prefix, generator(), ...args, "--json", json, "--html", html];
  const child = spawn(program, words, { stdio: ["ignore", "pipe", "pipe"] });
  let said = "";
  child.stdout.on("data", (bytes) => { said += bytes; });
  const flowing = new Promise((resolve) => child.stderr.on("data", (bytes) => {
    said += bytes;
    if (said.includes("messages ")) resolve();
  }));
  const ended = within(60_000, args.join(" "), new Promise((resolve) => child.once("close", resolve)));
  const done = ended.then((code) => {
    assert.ok(existsSync(html), said);
    return { code, html, report: JSON.parse(readFileSync(json)), said };
  });
  return { child, flowing, done };
}

const browser = await launch();
const server = await startServer();
const echo = ["echo", "--url", `ws://${server.listen}/echo`, "--connections", "20", "--rate", "500"];

/** Opens a page out of its file, and fails on whatever it asks for beside. */
async function open(html, width, colorScheme) {
  const context = await browser.newContext({ viewport: { width, height: 800 }, colorScheme });
  const page = await context.newPage();
  const asked = [];
  page.on("request", (request) => asked.push(request.url()));
  page.on("pageerror", (error) => asked.push(String(error)));
  page.on("console", (message) => asked.push(message.text()));
  await page.goto(`file://${html}`);
  assert.deepEqual(asked, [`file://${html}`]);
  return page;
}

/** What stands out of the page at this width, but for what lies in a box that scrolls. */
const overflowing = (page) => page.evaluate(() => {
  const out = document.scrollingElement.scrollWidth > innerWidth ? ["the page itself"] : [];
  for (const element of document.querySelectorAll("main *, header *")) {
    if (element.closest(".scroll, svg, details:not([open])")) continue;
    const box = element.getBoundingClientRect();
    if (box.width > 0 && (box.right > innerWidth + 0.5 || box.left < -0.5)) {
      out.push(`${element.tagName} ${element.className} ${element.textContent.slice(0, 40)}`);
    }
    if (element.scrollWidth > element.clientWidth + 1 && element.clientWidth > 0 && getComputedStyle(element).display !== "inline") {
      out.push(`in ${element.tagName} ${element.className}: ${element.textContent.slice(0, 40)}`);
    }
  }
  return out;
});

/** The answers that stand at the top, by their questions. */
const answers = (page) => page.evaluate(() => Object.fromEntries(
  [...document.querySelectorAll(".answers dl > div")].map((div) => [div.querySelector("dt").textContent, div.querySelector("dd").innerText]),
));

/** Every width and scheme: nothing runs off, and text is told apart from what it stands on. */
async function looks(name, html) {
  for (const [width, scheme] of [[1280, "light"], [1280, "dark"], [390, "light"], [390, "dark"]]) {
    const page = await open(html, width, scheme);
    assert.deepEqual(await overflowing(page), [], `${name} at ${width} px`);
    const [ink, back] = await page.evaluate(() => {
      const style = getComputedStyle(document.body);
      return [style.color, style.backgroundColor].map((text) => text.match(/\d+/g).slice(0, 3).reduce((sum, part) => sum + Number(part), 0));
    });
    assert.ok(scheme === "dark" ? ink - back > 400 : back - ink > 400, `${name} ${scheme}: ${ink} on ${back}`);
    if (PICTURES) await page.screenshot({ path: join(PICTURES, `${name}-${width}-${scheme}.png`), fullPage: true });
    await page.context().close();
  }
}

/** The picture of docs/loadtest.md: the page down to the heat map, with paths and ports that a reader has. */
async function picture(html) {
  const page = await open(html, 1120, "light");
  await page.evaluate((place) => {
    for (const element of document.querySelectorAll("pre, header p")) {
      element.textContent = element.textContent.replaceAll(place.folder, "").replaceAll(place.listen, "127.0.0.1:8080").replace(/--pid \d+/, "--pid 4711");
    }
  }, { folder: `${folder}/`, listen: server.listen });
  const { y, height } = await page.locator("figure.wide").first().boundingBox();
  await page.setViewportSize({ width: 1120, height: Math.ceil(y + height + 14) });
  await page.screenshot({ path: join(PICTURES, "page.png") });
  await page.context().close();
}

const steps = [];
const step = (name, body) => steps.push([name, body]);
let stalled;

/** The same in a few tries: where the machine stops everybody once more for as long, a page rightly tells of that. */
async function again(name, body) {
  for (let left = 3; ; left -= 1) {
    try {
      return await body();
    } catch (error) {
      if (left === 0) throw error;
      console.log(`        once more: ${name}: ${error.message}`);
    }
  }
}
const stalling = (name, body) => step(name, () => again(name, body));

stalling("a server that is stopped for two seconds: when, and whose fault", async () => {
  const run = start("stall", [...echo, "--duration", "7s", "--pid", String(server.pid), "--label", "before the upgrade"]);
  await run.flowing;
  await sleep(1_500);
  process.kill(server.pid, "SIGSTOP");
  const from = Date.now() / 1e3;
  await sleep(2_000);
  process.kill(server.pid, "SIGCONT");
  const until = Date.now() / 1e3;
  stalled = await run.done;
  assert.ok(until - from < 2.9, `stopped for ${until - from} s`);
  const page = await open(stalled.html, 390, "light");
  const said = await answers(page);
  const [, begin, end] = /^From ([\d.]+) s to ([\d.]+) s after the first connect/.exec(said["When did it stall?"]);
  const started = stalled.report.started_unix_seconds;
  assert.ok(Math.abs(Number(begin) - (from - started)) < 0.5, `${begin} for ${from - started}`);
  assert.ok(Math.abs(Number(end) - (until - started)) < 0.7, `${end} for ${until - started}`);
  assert.match(said["Whose fault was it?"], /^The server's\n/);
  assert.match(said["Whose fault was it?"], /no network between the two.*stood still/s);
  if (PICTURES) await picture(stalled.html);
  const heading = await page.locator("h1").textContent();
  assert.ok(heading.includes("before the upgrade"), heading);
  await page.context().close();
});

step("its page at 1,280 and 390 px, light and dark", () => looks("stall", stalled.html));

step("the heat map has the stall in its table and says so to a screen reader", async () => {
  const page = await open(stalled.html, 1280, "light");
  const label = await page.locator("svg.map").first().getAttribute("aria-label");
  assert.match(label, /The longest, (1\.9\d*|2(\.\d+)?) s, began at/);
  await page.locator("figure.wide summary").first().focus();
  await page.keyboard.press("Enter");
  const cells = await page.locator("figure.wide details[open] td:nth-child(4)").allTextContents();
  assert.ok(cells.some((text) => /^(1\.9\d*|2(\.\d+)?) s$/.test(text)), cells.join());
  await page.context().close();
});

step("the button copies the command line, by keyboard, out of a file", async () => {
  const page = await open(stalled.html, 390, "dark");
  await page.locator(".command button").focus();
  await page.keyboard.press("Enter");
  await page.locator("[role=status]", { hasText: "Copied." }).waitFor({ timeout: 30_000 });
  await page.evaluate(() => document.body.prepend(Object.assign(document.createElement("textarea"), { id: "paste" })));
  await page.locator("#paste").focus();
  await page.keyboard.press("Control+V");
  const pasted = await page.locator("#paste").inputValue();
  assert.ok(pasted.startsWith("fantail-loadtest echo --url") && pasted.includes("--label 'before the upgrade'"), pasted);
  await page.context().close();
});

stalling("a generator that is stopped blames itself", async () => {
  const run = start("own", [...echo, "--duration", "6s"]);
  await run.flowing;
  await sleep(1_000);
  run.child.kill("SIGSTOP");
  await sleep(2_000);
  run.child.kill("SIGCONT");
  const { html } = await run.done;
  const page = await open(html, 390, "light");
  const said = await answers(page);
  assert.match(said["Whose fault was it?"], /^The generator's own\n.*late, by up to 2\.\d+ s/s);
  assert.match(said["When did it stall?"], /^From /);
  await page.context().close();
  await looks("own", html);
});

/** What a stranger reads of a generator that had no processor for two seconds. */
async function starved(name, run, limit) {
  await run.flowing;
  await sleep(1_500);
  return async (from, until) => {
    const { html, report } = await run.done;
    const page = await open(html, 390, "dark");
    const said = await answers(page);
    const [, begin] = /^From ([\d.]+) s to/.exec(said["When did it stall?"]) ?? assert.fail(JSON.stringify(said));
    const started = report.started_unix_seconds;
    assert.ok(from - started - 0.5 < Number(begin) && Number(begin) < until - started, `${begin} for ${from - started}`);
    assert.match(said["Whose fault was it?"], /^The generator's own\n/);
    assert.match(said["Which limit was hit?"], limit);
    // Green alone would say that the figures are the server's.
    assert.match(await page.locator(".verdict.warn", { hasText: "bottleneck" }).innerText(), /generator itself was the bottleneck/);
    await page.context().close();
    await looks(name, html);
  };
}

const now = () => Date.now() / 1e3;

/** What tests/skip does: fails in CI, unless that has found that this machine lacks it. */
function skipped(what, why) {
  console.log(`skipped: this machine has no ${what} (${why})`);
  const list = process.env.CI_MAY_SKIP;
  assert.ok(list === undefined || list.split(/\s+/).includes(what), `nothing may be skipped here for want of ${what}, only of: "${list}"`);
}

stalling("a generator whose processor others take says when, and that it was its own", async () => {
  const processor = /Cpus_allowed_list:\s*(\d+)/.exec(readFileSync("/proc/self/status", "utf8"))[1];
  const alone = ["taskset", "--cpu-list", processor];
  const run = start("taken", [...echo, "--threads", "1", "--duration", "6s"], [...alone, "nice", "-n", "19"]);
  const read = await starved("taken", run, /^The one processor that the generator may use, which others used as well$/);
  const from = now();
  // Somebody whom the scheduler puts first, or so many that its turn is long in coming, whatever the slices are.
  const first = spawnSync("chrt", ["-f", "1", "true"]).status === 0 ? ["chrt", "-f", "1"] : [];
  const hogs = "for i in $(seq 32); do while :; do :; done & done; wait";
  const hog = spawn("timeout", ["2.5", ...alone, ...first, "sh", "-c", first.length ? "while :; do :; done" : hogs]);
  await new Promise((resolve) => hog.once("close", resolve));
  await read(from, now());
});

stalling("a generator that is held back by its control group names what that allows", async () => {
  // Where the machine has the older layout, and this process may make a group.
  const group = `/sys/fs/cgroup/cpu/fantail-report-${process.pid}`;
  try {
    mkdirSync(group);
    // So long that one without its share is a stall by itself.
    writeFileSync(join(group, "cpu.cfs_period_us"), "1000000");
  } catch (error) {
    return skipped("processor-group", error.code);
  }
  const allow = (share) => writeFileSync(join(group, "cpu.cfs_quota_us"), String(share));
  let run;
  try {
    allow(2_000_000);
    const within = ["sh", "-c", 'echo $$ >"$0/cgroup.procs" && exec "$@"', group];
    run = start("held", [...echo, "--threads", "1", "--duration", "6s"], within);
    const read = await starved("held", run, /^The processor time that the generator's control group allows it: \d\.\d\d processors, used up for \d\.\d s of the run$/);
    const from = now();
    allow(1_000);
    await sleep(2_500);
    allow(2_000_000);
    await read(from, now());
  } finally {
    run?.child.kill();
    await run?.done.catch(() => {});
    rmdirSync(group);
  }
});

step("a generator without descriptors names its limit", async () => {
  // Who may not raise it is held to it.
  const limited = ["setpriv", "--bounding-set=-sys_resource", "--inh-caps=-sys_resource", "prlimit", "--nofile=100:100"];
  const idle = ["idle", "--url", `ws://${server.listen}/ws`, "--threads", "1", "--connections", "200", "--duration", "200ms"];
  const { code, html } = await start("files", idle, limited).done;
  assert.equal(code, 1);
  const page = await open(html, 390, "dark");
  const said = await answers(page);
  assert.match(said["Whose fault was it?"], /^The generator's own/);
  assert.match(said["Which limit was hit?"], /limit on open files \(ulimit -n, 100 /);
  await page.context().close();
  await looks("files", html);
});

step("a storm is drawn at its own resolution", async () => {
  const storm = ["storm", "--url", `ws://${server.listen}/ws`, "--bystander", `ws://${server.listen}/echo`];
  const { report, html } = await start("storm", [...storm, "--connections", "500", "--duration", "200ms"]).done;
  assert.ok(report.away_by_return_time.column_seconds <= 0.02, report.away_by_return_time.column_seconds);
  const page = await open(html, 1280, "light");
  for (const title of ["Time away by return time", "Bystander's echo by send time", "Clients that came back per second"]) {
    assert.equal(await page.locator("h2", { hasText: title }).count(), 1, title);
  }
  await page.context().close();
  await looks("storm", html);
});

step("a comparison speaks in words and folds what is noise", async () => {
  const runs = async (name, more) => {
    const { html, report } = await start(name, ["echo", "--url", `ws://${server.listen}/echo`, "--connections", "5", "--rate", "200",
      "--duration", "400ms", "--repeat", "4", ...more]).done;
    assert.equal(report.repeats.length, 4);
    return html.replace(".html", ".json");
  };
  const [a, b] = [await runs("a", []), await runs("b", ["--size", "20000"])];
  const { html, said } = await start("compared", ["compare", a, b]).done;
  assert.match(said, /set differently/);
  const page = await open(html, 390, "light");
  assert.match(await page.locator(".verdict.warn").innerText(), /Set differently.*--size: 64 and 20000/);
  assert.ok(await page.locator(".words li").count() >= 1);
  assert.match(await page.locator("details.folded summary").first().innerText(), /^(Within noise|The same): \d+ rows?$/);
  await page.context().close();
  await looks("compared", html);
});

await runSteps("report", steps, async () => {
  await browser.close();
  await server.stop();
  rmSync(folder, { recursive: true, force: true });
});
