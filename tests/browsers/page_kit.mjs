// What the scripts about the page share: a browser, and waiting for what a card shows. Owns nothing that lives on
// without `close`.

import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { chromium } from "playwright-core";

const CLIENT = new URL("../../clients/js/", import.meta.url);

// By time, because a tab in the background has no frames to wait for.
export const POLL = { polling: 50 };

/** A browser with a new, empty user data directory, where `fantail.test` is this machine under a name of its own. */
export function launch(more = []) {
  return chromium.launch({
    executablePath: process.env.CHROMIUM_BIN ?? "/usr/bin/chromium",
    args: [
      "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
      "--disable-background-networking", "--disable-component-update", "--disable-sync",
      "--host-resolver-rules=MAP fantail.test 127.0.0.1", ...more,
    ],
    timeout: 60_000,
  });
}

/** A site of its own with the JavaScript client, as applications have: a page that a test only makes up is no local one to
 * Chromium, which then blocks what it opens here. To be closed. */
export async function startSite() {
  const site = createServer(async ({ url }, answer) => {
    const isPage = url === "/";
    answer.setHeader("Content-Type", isPage ? "text/html" : "text/javascript");
    answer.end(isPage ? "<!doctype html><title>client</title><link rel=icon href=data:,>" : await readFile(new URL(`.${url}`, CLIENT)));
  });
  await new Promise((resolve) => { site.listen(0, "127.0.0.1", resolve); });
  return site;
}

export function state(page, card, value, timeout = 60_000) {
  return page.locator(`#${card}-state[data-state=${value}]`).waitFor({ state: "attached", timeout });
}

/** Waits for a row of a card's log with this direction and exactly this payload. */
export function row(page, card, dir, payload) {
  return page.waitForFunction(([id, direction, text]) => {
    const rows = document.querySelectorAll(`#${id}-log li[data-dir=${direction}] .payload`);
    return [...rows].some((each) => each.textContent === text);
  }, [card, dir, payload], POLL);
}

export async function say(page, card, text) {
  await page.locator(`#${card}-input`).fill(text);
  await page.locator(`#${card}-send`).click();
}

/** Waits until an element of a card has exactly this text. */
export function shows(page, card, name, value, timeout = 60_000) {
  const wanted = [`${card}-${name}`, String(value)];
  return page.waitForFunction(([id, text]) => document.getElementById(id).textContent === text, wanted, { ...POLL, timeout });
}

/** Opens connections of a card until it has `count`. */
export async function openUntil(page, card, count) {
  // Those that are still on their way count, too.
  const open = await page.evaluate((name) => ({ room, echo })[name].seats.length, card);
  for (let i = open; i < count; i++) await page.locator(`#${card}-add`).click();
  await shows(page, card, "open", count);
}

/** Moves the room to another topic. */
export async function switchTo(page, topic) {
  await page.locator("#room-topic").fill(topic);
  await page.locator("#room-toggle[data-action=switch]").click();
  await page.waitForFunction((name) => room.ready().length > 0 && room.joined() === name, topic, POLL);
}
