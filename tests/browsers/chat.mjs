// The chat in Chromium, from its page: alice, bob and charlie talk; the edge and the application end in between; nothing that
// was acknowledged is lost and nothing comes twice; no view has anything that axe knows to be in the way of anybody.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, readdirSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { POLL, launch } from "./page_kit.mjs";
import { runSteps, within } from "./server.mjs";

const PASSWORD = "correct horse battery";
const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const MISCHIEF = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script> javascript:alert(1) '; DROP TABLE messages; --";

const folder = mkdtempSync(join(tmpdir(), "fantail-chat-test-"));
const program = process.env.CHAT_BIN ?? ["release", "debug"].map((kind) => fileURLToPath(new URL(`../../target/${kind}/fantail-chat`, import.meta.url))).find(existsSync);
assert.ok(program, "no fantail-chat; build it or set CHAT_BIN");
const complaints = [];

/** A running chat at this port. */
async function startChat(port = 0) {
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

let chat = await startChat();
const browser = await launch();

async function visit(more = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, ...more });
  context.setDefaultTimeout(60_000);
  const page = await context.newPage();
  page.on("pageerror", (error) => complaints.push(String(error)));
  page.on("console", (message) => { if (message.text().includes("Content Security Policy")) complaints.push(message.text()); });
  await page.goto(chat.url);
  return page;
}

async function register(name, more) {
  const page = await visit(more);
  await page.locator("#entrance-name").fill(name);
  await page.locator("#entrance-password").fill(PASSWORD);
  await page.getByRole("button", { name: "Make an account" }).click();
  await online(page);
  return page;
}

const online = (page) => page.waitForFunction(() => document.getElementById("state").textContent === "online", undefined, POLL);
const count = (page, text) => page.evaluate((wanted) => [...document.querySelectorAll("#message-list .text")].filter(({ textContent }) => textContent === wanted).length, text);
const sees = (page, text) => page.waitForFunction((wanted) => [...document.querySelectorAll("#message-list .text")].some(({ textContent }) => textContent === wanted), text, POLL);
const texts = (page) => page.evaluate(() => [...document.querySelectorAll("#message-list li:not(.notice) .text")].map(({ textContent }) => textContent));

async function say(page, text) {
  await page.locator("#draft").fill(text);
  await page.locator("#draft").press("Enter");
}

/** What axe finds in the page as it is. */
async function examine(page, what) {
  // By the debugger's way in: the page's own policy keeps scripts out.
  await page.evaluate(AXE);
  const { violations } = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ["violations"] }));
  const told = violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html.slice(0, 120)).join(" | ")}`);
  assert.deepEqual(told, [], what);
}

let alice;
let bob;
let charlie;

const steps = [
  ["the way in says what is wrong, and axe finds nothing in it", async () => {
    const page = await visit();
    await page.locator("#entrance-form").waitFor();
    await examine(page, "the way in");
    await page.locator("#entrance-name").fill("x");
    await page.getByRole("button", { name: "Make an account" }).click();
    await page.getByText("a name has 2 to 24 characters").waitFor();
    assert.equal(await page.evaluate(() => document.activeElement.id), "entrance-name");
    await page.context().close();
  }],
  ["three people talk, and each has every message once", async () => {
    [alice, bob] = [await register("alice"), await register("bob")];
    charlie = await register("charlie", { viewport: { width: 390, height: 740 }, colorScheme: "dark" });
    await say(alice, "hello from alice");
    await say(bob, MISCHIEF);
    await say(charlie, "one line\nand another");
    for (const page of [alice, bob, charlie]) {
      for (const text of ["hello from alice", MISCHIEF, "one line\nand another"]) {
        await sees(page, text);
        assert.equal(await count(page, text), 1);
      }
      assert.notEqual(await page.title(), "owned");
    }
    await alice.locator("#people-list .online").nth(2).waitFor();
    await alice.locator("#message-list").getByText("charlie joined").waitFor();
  }],
  ["axe finds nothing in the room, light and wide or dark and narrow, nor in a dialog", async () => {
    await examine(alice, "wide and light");
    await examine(charlie, "narrow and dark");
    for (const which of ["Rooms", "People"]) {
      await charlie.getByRole("button", { name: which, exact: true }).click();
      await examine(charlie, which);
      await charlie.getByRole("button", { name: which, exact: true }).click();
    }
    for (const [button, text] of [["Find or make a room", "Lobby · 3 members"], ["Account", "Change password"], ["Manage bob", "Ban from room"]]) {
      await alice.getByRole("button", { name: button }).click();
      await alice.locator("#dialog").getByText(text).first().waitFor();
      await examine(alice, button);
      await alice.keyboard.press("Escape");
    }
  }],
  ["one's own message is edited and deleted, everywhere", async () => {
    await say(bob, "a slip");
    await bob.getByRole("button", { name: "Edit: a slip" }).click();
    await bob.getByRole("textbox", { name: "Other words" }).fill("put right");
    await bob.getByRole("button", { name: "Save" }).click();
    await sees(alice, "put right");
    assert.equal(await count(alice, "a slip"), 0);
    bob.once("dialog", (dialog) => dialog.accept());
    await bob.getByRole("button", { name: "Delete: put right" }).click();
    await sees(alice, "This message was deleted.");
    assert.equal(await count(alice, "put right"), 0);
  }],
  ["what is sent without a network waits, and is there once when it is back", async () => {
    await bob.route("**/api/rooms/*/messages", (route) => route.abort());
    await say(bob, "for a second try");
    await bob.getByText("not sent:").waitFor();
    await bob.unroute("**/api/rooms/*/messages");
    // Unless the page has done so by itself.
    await bob.getByRole("button", { name: "Try again" }).click({ timeout: 3_000 }).catch(() => {});
    await sees(alice, "for a second try");
    await bob.context().setOffline(true);
    await say(bob, "from the tunnel");
    await bob.getByText("not sent:").waitFor();
    await bob.locator("#draft").fill("half a thought");
    await say(alice, "while bob is away");
    await bob.context().setOffline(false);
    for (const page of [alice, bob]) {
      for (const text of ["for a second try", "from the tunnel", "while bob is away"]) {
        await sees(page, text);
        assert.equal(await count(page, text), 1);
      }
    }
    assert.equal(await bob.locator("#draft").inputValue(), "half a thought");
    await bob.reload();
    await online(bob);
    assert.equal(await bob.locator("#draft").inputValue(), "half a thought");
  }],
  ["the edge ends and the application too, and everybody has the same", async () => {
    process.kill(chat.edge(), "SIGKILL");
    await say(alice, "without an edge");
    await Promise.all([bob, charlie].map((page) => sees(page, "without an edge")));
    const port = new URL(chat.url).port;
    await chat.stop();
    await say(charlie, "without an application");
    await charlie.getByText("not sent:").waitFor();
    chat = await startChat(port);
    await Promise.all([alice, bob, charlie].map((page) => sees(page, "without an application")));
    await Promise.all([alice, bob, charlie].map(online));
    await say(alice, "and on");
    await Promise.all([alice, bob, charlie].map((page) => sees(page, "and on")));
    const [first, ...others] = await Promise.all([alice, bob, charlie].map(texts));
    for (const other of others) assert.deepEqual(other, first);
    assert.equal(new Set(first).size, first.length);
  }],
  ["a room by invitation: invited, told, come in, put out", async () => {
    await alice.getByRole("button", { name: "Find or make a room" }).click();
    await alice.getByLabel("New room by invitation").fill("the den");
    await alice.getByRole("button", { name: "Make room by invitation" }).click();
    await alice.getByRole("heading", { name: "the den" }).waitFor();
    await alice.getByLabel("Invite by name").fill("Bob");
    await alice.getByRole("button", { name: "Invite", exact: true }).click();
    await alice.getByText("bob is invited.").waitFor();
    await bob.getByRole("button", { name: "the den" }).click();
    await bob.getByRole("button", { name: "Join" }).click();
    await bob.getByRole("heading", { name: "the den" }).waitFor();
    await say(alice, "in private");
    await sees(bob, "in private");
    await say(bob, "thanks");
    await sees(alice, "thanks");
    await alice.getByRole("button", { name: "Manage bob" }).click();
    await alice.getByRole("button", { name: "Ban from room" }).click();
    await bob.getByRole("heading", { name: "Lobby" }).waitFor();
    assert.equal(await bob.getByRole("button", { name: "the den" }).count(), 0);
    await online(bob);
  }],
  ["what is not read is counted", async () => {
    await say(charlie, "is anybody here?");
    await alice.locator("#room-list .count").waitFor();
    await alice.getByRole("button", { name: /Lobby/ }).click();
    await sees(alice, "is anybody here?");
    await alice.locator("#room-list .count").waitFor({ state: "detached" });
  }],
  ["the keyboard alone: log out and in again", async () => {
    await alice.locator("#show-account").focus();
    await alice.keyboard.press("Enter");
    await alice.getByRole("button", { name: "Log out", exact: true }).focus();
    await alice.keyboard.press("Enter");
    await alice.locator("#entrance-name").waitFor();
    assert.equal(await alice.evaluate(() => document.activeElement.id), "entrance-name");
    await alice.keyboard.type("ALICE");
    await alice.keyboard.press("Tab");
    await alice.keyboard.type(PASSWORD);
    await alice.keyboard.press("Enter");
    await alice.waitForFunction(() => document.activeElement.id === "draft", undefined, POLL);
    await online(alice);
  }],
  ["nothing was thrown, and the policy had nothing to forbid", async () => { assert.deepEqual(complaints, []); }],
];

await runSteps("the chat in Chromium", steps, async () => {
  await browser.close();
  await chat.stop();
  rmSync(folder, { recursive: true });
});
