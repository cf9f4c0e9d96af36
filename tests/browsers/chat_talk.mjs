// What the scripts about the chat share: the program with a database of its own, and browsers of people who use it. Owns what it
// starts until `close`.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { POLL, launch } from "./page_kit.mjs";
import { within } from "./server.mjs";

export const PASSWORD = "correct horse battery";

const program = process.env.CHAT_BIN ?? ["release", "debug"].map((kind) => fileURLToPath(new URL(`../../target/${kind}/fantail-chat`, import.meta.url))).find(existsSync);
assert.ok(program, "no fantail-chat; build it or set CHAT_BIN");
const folder = mkdtempSync(join(tmpdir(), "fantail-chat-test-"));

/** A running chat at this port. */
export async function startChat(port = 0) {
  const child = spawn(program, ["--listen", `127.0.0.1:${port}`, "--database", join(folder, "chat.db")], { stdio: ["ignore", "pipe", "inherit"] });
  const kill = () => child.kill("SIGKILL");
  process.once("exit", kill);
  const ended = new Promise((resolve) => { child.once("exit", resolve); });
  ended.then(() => process.off("exit", kill));
  const ready = new Promise((resolve) => {
    createInterface({ input: child.stdout }).on("line", (line) => {
      const match = /^fantail-chat ready (http:\S+) pid=\d+$/.exec(line);
      if (match) resolve(match[1]);
    });
  });
  const url = await within(60_000, "the ready line", Promise.race([ready, ended.then(() => { throw new Error("the chat ended"); })]));
  const edge = () => {
    const tasks = readdirSync(`/proc/${child.pid}/task`).map((task) => readFileSync(`/proc/${child.pid}/task/${task}/children`, "utf8"));
    return Number(tasks.join(" ").trim().split(/\s+/)[0]);
  };
  return { url, edge, stop: () => { child.kill("SIGKILL"); return within(30_000, "the chat's end", ended); } };
}

export const chat = { ...await startChat() };
export const browser = await launch();
// What no page should have to say.
export const complaints = [];

/** The page for somebody who has a browser of their own. */
export async function visit(more = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, ...more });
  context.setDefaultTimeout(60_000);
  const page = await context.newPage();
  page.on("pageerror", (error) => complaints.push(String(error)));
  page.on("console", (message) => { if (message.text().includes("Content Security Policy")) complaints.push(message.text()); });
  await page.goto(chat.url);
  return page;
}

export async function register(name, more) {
  const page = await visit(more);
  await page.locator("#entrance-name").fill(name);
  await page.locator("#entrance-password").fill(PASSWORD);
  await page.getByRole("button", { name: "Make an account" }).click();
  await online(page);
  return page;
}

export const online = (page) => page.waitForFunction(() => document.getElementById("state").textContent === "online", undefined, POLL);
export const count = (page, text) => page.evaluate((wanted) => [...document.querySelectorAll("#message-list .text")].filter(({ textContent }) => textContent === wanted).length, text);
export const sees = (page, text) => page.waitForFunction((wanted) => [...document.querySelectorAll("#message-list .text")].some(({ textContent }) => textContent === wanted), text, POLL);

export async function say(page, text) {
  await page.locator("#draft").fill(text);
  await page.locator("#draft").press("Enter");
}

/** Somebody without a page: calls the application as one would. */
export async function person(name) {
  let [cookies, csrf] = ["", ""];
  const call = async (method, path, body) => {
    const headers = { "Content-Type": "application/json", "X-CSRF-Token": csrf, Cookie: cookies };
    const answer = await fetch(new URL(`/api${path}`, chat.url), { method, headers, body: body && JSON.stringify(body), signal: AbortSignal.timeout(30_000) });
    const told = await answer.json();
    if (!answer.ok) throw new Error(`${method} ${path}: ${answer.status} ${JSON.stringify(told)}`);
    const set = answer.headers.getSetCookie().map((field) => field.split(";")[0]);
    if (set.length) cookies = set.join("; ");
    csrf = told.csrf ?? csrf;
    return told;
  };
  const { id } = await call("POST", "/register", { name, password: PASSWORD });
  let next = 0;
  return { id, call, say: (text, room = "lobby") => call("POST", `/rooms/${room}/messages`, { client_id: `${id}-${next++}`, text }) };
}

export async function close() {
  await browser.close();
  await chat.stop();
  rmSync(folder, { recursive: true });
}
