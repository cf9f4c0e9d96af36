// What the scripts about the chat's page share: a running chat, at a port and with a database of its own, a browser for its people, and
// what they do on its page. Owns the process and its folder.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, readdirSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { POLL, launch } from "./page_kit.mjs";
import { within } from "./server.mjs";

export const PASSWORD = "correct horse battery";

const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

/** Starts one; `url` is where, `folder` has its database, `edge()` is the process of its edge, `stop` ends it and takes the database away. */
export async function startChat() {
  const found = ["release", "debug"].map((kind) => fileURLToPath(new URL(`../../target/${kind}/fantail-chat`, import.meta.url)));
  const program = process.env.CHAT_BIN ?? found.find(existsSync);
  if (!program) throw new Error("no fantail-chat; build it or set CHAT_BIN");
  const folder = mkdtempSync(join(tmpdir(), "fantail-chat-test-"));
  const child = spawn(program, ["--listen", "127.0.0.1:0", "--database", join(folder, "chat.db")], { stdio: ["ignore", "pipe", "inherit"] });
  const kill = () => child.kill("SIGKILL");
  process.once("exit", kill);
  const ended = new Promise((resolve) => { child.once("exit", resolve); });
  const ready = new Promise((resolve) => {
    createInterface({ input: child.stdout }).on("line", (line) => {
      const match = /^fantail-chat ready (http:\S+) pid=\d+$/.exec(line);
      if (match) resolve(match[1]);
    });
  });
  const url = await within(60_000, "the ready line", Promise.race([ready, ended.then(() => { throw new Error("the chat ended"); })]));
  const stop = async () => {
    process.off("exit", kill);
    kill();
    await within(30_000, "the chat's end", ended);
    rmSync(folder, { recursive: true });
  };
  const edge = () => {
    const tasks = readdirSync(`/proc/${child.pid}/task`).map((task) => readFileSync(`/proc/${child.pid}/task/${task}/children`, "utf8"));
    return Number(tasks.join(" ").trim().split(/\s+/)[0]);
  };
  return { url, folder, edge, stop };
}

/** The same with a browser. */
export async function startChats() {
  const chat = await startChat();
  const browser = await launch();
  const complaints = [];
  return {
    folder: chat.folder, edge: chat.edge, complaints,
    /** Somebody's own browser; `prepare` has its page before it goes anywhere. */
    async visit(more = {}, prepare = () => {}) {
      const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, ...more });
      context.setDefaultTimeout(60_000);
      const page = await context.newPage();
      page.on("pageerror", (error) => complaints.push(String(error)));
      page.on("console", (message) => { if (message.text().includes("Content Security Policy")) complaints.push(message.text()); });
      prepare(page);
      await page.goto(chat.url);
      return page;
    },
    async stop() {
      await browser.close();
      await chat.stop();
    },
  };
}

export const online = (page) => page.waitForFunction(() => document.getElementById("state").textContent === "online", undefined, POLL);

/** Makes an account on a page that shows the way in. */
export async function register(page, name) {
  await page.locator("#entrance-name").fill(name);
  await page.locator("#entrance-password").fill(PASSWORD);
  await page.getByRole("button", { name: "Make an account" }).click();
  await online(page);
}

export const count = (page, text) => page.evaluate((wanted) => [...document.querySelectorAll("#message-list .text")].filter(({ textContent }) => textContent === wanted).length, text);
export const sees = (page, text) => page.waitForFunction((wanted) => [...document.querySelectorAll("#message-list .text")].some(({ textContent }) => textContent === wanted), text, POLL);
export const texts = (page) => page.evaluate(() => [...document.querySelectorAll("#message-list li:not(.notice) .text")].map(({ textContent }) => textContent));

export async function say(page, text) {
  await page.locator("#draft").fill(text);
  await page.locator("#draft").press("Enter");
}

/** What axe finds in the page as it is. */
export async function examine(page, what) {
  // By the debugger's way in: the page's own policy keeps scripts out.
  await page.evaluate(AXE);
  const { violations } = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ["violations"] }));
  const told = violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html.slice(0, 120)).join(" | ")}`);
  assert.deepEqual(told, [], what);
}
