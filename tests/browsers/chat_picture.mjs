// Makes the pictures of docs/chat.md, a walk through the page: `node tests/browsers/chat_picture.mjs docs/chat`. On a phone of 390
// pixels and on a desktop, light and dark; names and words of a length that somebody will have. Fails if a picture would be
// wider than its screen, or larger than a page should have to load; without a folder it only looks whether they could be made.

import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { close, online, person, register, say, sees, visit } from "./chat_talk.mjs";
import { POLL } from "./page_kit.mjs";

const BYTES_MAX = 150_000;
const folder = process.argv[2] ?? mkdtempSync(join(tmpdir(), "fantail-pictures-"));
mkdirSync(folder, { recursive: true });

const phone = (colorScheme) => ({ viewport: { width: 390, height: 740 }, deviceScaleFactor: 1.5, hasTouch: true, isMobile: true, colorScheme, reducedMotion: "reduce" });
const desktop = (colorScheme) => ({ viewport: { width: 1100, height: 640 }, colorScheme, reducedMotion: "reduce" });

async function take(page, name) {
  const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  assert.equal(wide, 0, `${name} scrolls sideways`);
  const path = join(folder, `${name}.png`);
  await page.screenshot({ path, caret: "initial" });
  assert.ok(statSync(path).size <= BYTES_MAX, `${path} has ${statSync(path).size} bytes`);
}

const door = await visit(phone("light"));
await door.locator("#entrance-name").fill("alice");
await door.locator("#entrance-password").fill("short");
await door.getByRole("button", { name: "Make an account" }).click();
await door.waitForFunction(() => document.getElementById("entrance-error").textContent, undefined, POLL);
await take(door, "entrance-phone");
await door.context().close();

const alice = await register("alice", desktop("light"));
const bob = await register("bob", phone("dark"));
const charlie = await person("charlie");
const long = await person("Wolfeschlegelsteinhausen");
await alice.locator("#message-list").getByText("Wolfeschlegelsteinhausen joined").waitFor();
await say(alice, "Good morning! Who comes along to the lake on Saturday?");
await sees(bob, "Good morning! Who comes along to the lake on Saturday?");
await bob.locator("#draft").fill("I do, and I bring the boat");
await bob.getByRole("button", { name: "Send" }).click();
await sees(alice, "I do, and I bring the boat");
await charlie.say("Me too.\nThe train at 9:12 is the one that stops there:\nhttps://trains.example/timetable?from=main-station&to=lakeside&date=2026-12-05&time=09:12&class=2");
await long.say("Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft asks whether there is room for one more");
await sees(alice, "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft asks whether there is room for one more");
await say(alice, "There is.");
await sees(bob, "There is.");
await charlie.call("POST", "/rooms", { name: "Saturday's boat: who has which seat", open: true });
const { id: den } = await charlie.call("POST", "/rooms", { name: "surprise for bob", open: false });
await charlie.call("POST", `/rooms/${den}/invite`, { name: "alice" });
await alice.getByText("surprise for bob").waitFor();

await bob.locator("#draft").pressSequentially("See you");
await alice.getByText("bob is writing…").waitFor();
await alice.locator("#draft").focus();
await take(alice, "room-desktop");
// The keyboard of a phone takes the lower half.
await bob.setViewportSize({ width: 390, height: 400 });
await bob.waitForFunction(() => { const box = document.getElementById("messages"); return box.scrollHeight - box.scrollTop - box.clientHeight < 4; }, undefined, POLL);
await take(bob, "keyboard-phone");
await bob.locator("#draft").fill("");
await bob.setViewportSize({ width: 390, height: 740 });
await alice.locator("#draft").pressSequentially("An");
await bob.getByText("alice is writing…").waitFor();
await take(bob, "room-phone");
await alice.locator("#draft").fill("");
await bob.getByRole("button", { name: "People" }).click();
await bob.getByText("2 online").waitFor();
await take(bob, "people-phone");
await bob.getByRole("button", { name: "People" }).click();

const night = await visit({ ...desktop("dark"), storageState: await alice.context().storageState() });
await online(night);
await night.getByRole("button", { name: "Find or make a room" }).click();
await night.getByRole("button", { name: /^Join Saturday/ }).waitFor();
await take(night, "rooms-desktop");
await night.keyboard.press("Escape");
await night.getByRole("button", { name: "Edit: There is." }).click();
await night.context().setOffline(true);
await say(night, "Is the water warm?");
await night.getByRole("button", { name: "Try again" }).waitFor();
await night.waitForFunction(() => { const box = document.getElementById("messages"); return box.scrollHeight - box.scrollTop - box.clientHeight < 4; }, undefined, POLL);
await take(night, "not-sent-desktop");
await close();
if (!process.argv[2]) rmSync(folder, { recursive: true });
