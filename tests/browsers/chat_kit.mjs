// A running chat for scripts about its page, at a port and with a database of its own. Owns the process and its folder.

import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { POLL } from "./page_kit.mjs";
import { within } from "./server.mjs";

export const PASSWORD = "correct horse battery";

/** Starts one; `url` is where, `stop` ends it and takes its database away. */
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
  return { url, stop };
}

export const online = (page) => page.waitForFunction(() => document.getElementById("state").textContent === "online", undefined, POLL);

/** Makes an account on a page that shows the way in. */
export async function register(page, name) {
  await page.locator("#entrance-name").fill(name);
  await page.locator("#entrance-password").fill(PASSWORD);
  await page.getByRole("button", { name: "Make an account" }).click();
  await online(page);
}
