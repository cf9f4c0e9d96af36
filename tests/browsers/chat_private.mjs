// Private messages of the chat in Chromium: alice and bob, each with two devices. What they write is in no file of the server's and in
// nothing that goes over the wire; keys can't be read; a new device is shown, waits for a yes, and can't read the past; a server that
// changes, moves or leaves out messages is seen doing so.

import assert from "node:assert/strict";
import { readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { POLL } from "./page_kit.mjs";
import { makeDevice } from "../../chat/page/seal.js";
import { PASSWORD, count, examine, online, say, sees, startChats, texts } from "./chat_kit.mjs";
import { runSteps } from "./server.mjs";

const WORDS = ["the treasure is under the old oak", "which oak? <img src=x onerror=\"document.title='owned'\">", "the crooked one, by the brook", "written in the tunnel", "told without an edge", "for the new tablet, too", "a slip of the pen"];
const [TREASURE, WHICH, CROOKED, TUNNEL, EDGE, TABLET, SLIP] = WORDS;
const UNREADABLE = "This device can't read this message";

const chats = await startChats();
// Everything that goes over the wire, but for what was typed into forms of passwords.
const wire = [];
let alice;
let phone;
let bob;
let tablet;

async function visit(name, button, more) {
  const page = await chats.visit(more, (opened) => {
    opened.on("websocket", (socket) => {
      for (const event of ["framereceived", "framesent"]) socket.on(event, ({ payload }) => wire.push(String(payload)));
    });
    opened.on("request", (request) => { if (request.url().includes("/api/")) wire.push(`${request.url()} ${request.postData() ?? ""}`); });
    opened.on("response", async (response) => { if (response.url().includes("/api/")) wire.push(await response.text().catch(() => "")); });
  });
  await page.locator("#entrance-name").fill(name);
  await page.locator("#entrance-password").fill(PASSWORD);
  await page.getByRole("button", { name: button }).click();
  await online(page);
  // Its key is known to the server.
  await page.waitForFunction(async () => (await (await fetch("/api/devices")).json()).devices.some(({ made }) => made > performance.timeOrigin), undefined, POLL);
  return page;
}

const register = (name, more) => visit(name, "Make an account", more);
const login = (name, more) => visit(name, "Log in", more);

/** Opens the conversation with somebody who is in the list. */
async function openWith(page, name) {
  const list = page.getByRole("button", { name: "Rooms", exact: true });
  if (await list.isVisible()) await list.click();
  await page.locator("#private-list").getByRole("button", { name: new RegExp(`^${name}`) }).click();
  await page.getByRole("heading", { name, exact: true }).waitFor();
}

async function writeTo(page, name) {
  await page.getByRole("button", { name: "Write to somebody" }).click();
  await page.getByLabel("Write to (name)").fill(name);
  await page.getByRole("button", { name: "Open", exact: true }).click();
  await page.getByRole("heading", { name, exact: true }).waitFor();
}

const saysOfKeys = (page, text) => page.waitForFunction((wanted) => document.getElementById("private-said").textContent.includes(wanted), text, POLL);
const showsUnreadable = (page, text, times = 1) => page.waitForFunction(([wanted, least]) => [...document.querySelectorAll("#message-list .gone")].filter(({ textContent }) => textContent.startsWith(wanted)).length >= least, [text, times], POLL);
const notesOf = (page, text) => page.evaluate((wanted) => {
  const found = [...document.querySelectorAll("#message-list li")].find((one) => one.querySelector(".text")?.textContent === wanted);
  return found?.querySelector(".meta > span:not(.who)")?.textContent;
}, text);
const notes = (page, text, note) => page.waitForFunction(([wanted, said]) => [...document.querySelectorAll("#message-list li")].some((one) => one.querySelector(".text")?.textContent === wanted && one.querySelector(".meta").textContent.includes(said)), [text, note], POLL);

async function numberOf(page) {
  await page.getByRole("button", { name: "Compare numbers" }).click();
  // One that was shown before is still there until the dialog opens.
  const number = await page.locator("#dialog[open] #safety-number").textContent();
  await examine(page, "the numbers");
  await page.keyboard.press("Escape");
  return number;
}

/** What `change` makes of the messages of an answer is what this page gets, until the function that this gives is called. */
async function asServer(page, what, change) {
  const path = new RegExp(`/api/conversations/[0-9a-f]+/${what}`);
  await page.route(path, async (route) => {
    if (route.request().method() !== "GET") return route.continue();
    const response = await route.fetch();
    const told = await response.json();
    change(told);
    await route.fulfill({ response, json: told });
  });
  return () => page.unroute(path);
}

/** The same with the list of conversations. */
async function asLister(page, change) {
  const path = /\/api\/conversations$/;
  await page.route(path, async (route) => {
    if (route.request().method() !== "GET") return route.continue();
    const response = await route.fetch();
    const told = await response.json();
    await change(told);
    await route.fulfill({ response, json: told });
  });
  return () => page.unroute(path);
}

async function again(page, name) {
  await page.reload();
  await online(page);
  await page.getByRole("heading", { name, exact: true }).waitFor();
}

const steps = [
  ["alice and bob write, and each of their devices has every message once", async () => {
    [alice, bob] = [await register("alice"), await register("bob", { viewport: { width: 390, height: 740 }, colorScheme: "dark" })];
    phone = await login("alice");
    await writeTo(alice, "bob");
    await saysOfKeys(alice, "End-to-end encrypted: the server sees who writes to whom");
    await say(alice, TREASURE);
    await alice.getByText("sent", { exact: true }).waitFor();
    await bob.waitForFunction(() => document.title.startsWith("(1)"), undefined, POLL);
    await openWith(bob, "alice");
    await sees(bob, TREASURE);
    await openWith(phone, "bob");
    await sees(phone, TREASURE);
    await say(bob, WHICH);
    await say(phone, CROOKED);
    for (const page of [alice, phone, bob]) {
      for (const text of [TREASURE, WHICH, CROOKED]) {
        await sees(page, text);
        assert.equal(await count(page, text), 1);
        assert.match(await notesOf(page, text), /^(sent)?$/);
      }
      assert.notEqual(await page.title(), "owned");
    }
    await bob.waitForFunction(() => !document.title.startsWith("("), undefined, POLL);
  }],
  ["all see the same number, and axe finds nothing", async () => {
    await examine(alice, "a conversation, wide and light");
    await examine(bob, "a conversation, narrow and dark");
    const numbers = [];
    for (const page of [alice, phone, bob]) numbers.push(await numberOf(page));
    assert.match(numbers[0], /^(\d{5} ){11}\d{5}$/);
    assert.deepEqual(numbers, [numbers[0], numbers[0], numbers[0]]);
    await alice.getByRole("button", { name: "Your devices" }).first().click();
    await alice.getByText("(this one)").waitFor();
    await examine(alice, "devices");
    await alice.keyboard.press("Escape");
    for (const which of ["Rooms", "People"]) {
      await bob.getByRole("button", { name: which, exact: true }).click();
      await examine(bob, which);
      await bob.getByRole("button", { name: which, exact: true }).click();
    }
  }],
  ["a private key can be used and not read", async () => {
    const told = await alice.evaluate(async () => {
      const open = indexedDB.open("fantail-chat");
      await new Promise((resolve) => { open.onsuccess = resolve; });
      const all = open.result.transaction("devices").objectStore("devices").getAll();
      await new Promise((resolve) => { all.onsuccess = resolve; });
      const [{ privateKey }] = all.result;
      const forms = await Promise.allSettled(["jwk", "pkcs8", "raw"].map((form) => crypto.subtle.exportKey(form, privateKey)));
      return { devices: all.result.length, extractable: privateKey.extractable, usages: privateKey.usages, forms: forms.map(({ status }) => status), text: JSON.stringify(privateKey) };
    });
    assert.deepEqual(told, { devices: 1, extractable: false, usages: ["deriveBits"], forms: ["rejected", "rejected", "rejected"], text: "{}" });
  }],
  ["without a network it waits, and is there once when that is back; an edge that ends changes nothing", async () => {
    await alice.context().setOffline(true);
    await say(alice, TUNNEL);
    await alice.getByText("not sent:").waitFor();
    await alice.locator("#draft").fill("half a thought");
    await alice.context().setOffline(false);
    for (const page of [alice, phone, bob]) await sees(page, TUNNEL);
    process.kill(chats.edge(), "SIGKILL");
    await say(bob, EDGE);
    for (const page of [alice, phone, bob]) {
      await sees(page, EDGE);
      await online(page);
      for (const text of [TUNNEL, EDGE]) assert.equal(await count(page, text), 1);
    }
    assert.equal(await alice.locator("#draft").inputValue(), "half a thought");
    await alice.locator("#draft").fill("");
    const [first, ...others] = await Promise.all([alice, phone, bob].map(texts));
    for (const other of others) assert.deepEqual(other, first);
  }],
  ["one's own message is deleted everywhere, and can't be edited", async () => {
    await say(bob, SLIP);
    await sees(alice, SLIP);
    assert.equal(await bob.getByRole("button", { name: /^Edit/ }).count(), 0);
    bob.once("dialog", (dialog) => dialog.accept());
    await bob.getByRole("button", { name: `Delete: ${SLIP}` }).click();
    for (const page of [alice, phone, bob]) await sees(page, "This message was deleted.");
    assert.equal(await count(alice, SLIP), 0);
  }],
  ["a new device is shown to both, nothing is sent before a yes, and it can't read the past", async () => {
    tablet = await login("bob");
    await saysOfKeys(alice, "bob has a new device");
    await saysOfKeys(bob, "You have a new device");
    await examine(alice, "a new device, wide");
    await examine(bob, "a new device, narrow");
    await openWith(tablet, "alice");
    // Five that were sent, and not the one that was deleted.
    await showsUnreadable(tablet, UNREADABLE, 5);
    await examine(tablet, "messages that can't be read");
    for (const text of [TREASURE, WHICH, CROOKED]) assert.equal(await count(tablet, text), 0);
    await say(alice, TABLET);
    await alice.getByText("not sent: it waits until you have confirmed the new device").waitFor();
    assert.equal(await count(bob, TABLET), 0);
    await alice.getByRole("button", { name: "Confirm the new device" }).click();
    for (const page of [tablet, bob, phone]) {
      await sees(page, TABLET);
      assert.equal(await count(page, TABLET), 1);
    }
    // bob's other device has not said yes: that somebody writes to one that it does not know is shown.
    await notes(bob, TABLET, "also for a device that you have not confirmed");
    await bob.getByRole("button", { name: "Confirm the new device" }).click();
    await saysOfKeys(bob, "End-to-end encrypted");
    await bob.waitForFunction(() => !document.getElementById("message-list").textContent.includes("not confirmed"), undefined, POLL);
    await phone.getByRole("button", { name: "Confirm the new device" }).click();
    for (const page of [alice, phone]) await saysOfKeys(page, "End-to-end encrypted");
    const numbers = [];
    for (const page of [alice, phone, bob, tablet]) numbers.push(await numberOf(page));
    assert.equal(new Set(numbers).size, 1);
    await say(tablet, "from the tablet");
    await notes(alice, "from the tablet", "");
    assert.equal(await notesOf(alice, "from the tablet"), "");
  }],
  ["a server that changes, moves, repeats or leaves out messages is seen doing so", async () => {
    const bend = (text) => (text[0] === "A" ? "B" : "A") + text.slice(1);
    const find = (told, seq) => told.messages.find((one) => one.seq === seq);
    const since = async (change, look) => {
      const stop = await asServer(alice, "messages", (told) => { if (find(told, 1)) change(told); });
      await again(alice, "bob");
      await look();
      await stop();
    };
    await since((told) => { const one = find(told, 1); one.envelope.body = bend(one.envelope.body); }, () => showsUnreadable(alice, "This message was changed on its way"));
    await since((told) => { [find(told, 1).envelope, find(told, 2).envelope] = [find(told, 2).envelope, find(told, 1).envelope]; }, () => showsUnreadable(alice, "The server shows this message in a place", 2));
    await since((told) => { const one = find(told, 2); one.author = { ...find(told, 1).author }; }, () => showsUnreadable(alice, "The server shows this message in a place"));
    await since((told) => { told.messages.push({ ...find(told, 1), seq: told.messages.at(-1).seq + 1, change: told.change + 1 }); }, () => showsUnreadable(alice, "The server shows an older message once more"));
    await since((told) => { told.messages = told.messages.filter(({ seq }) => seq !== 2); }, () => notes(alice, CROOKED, "a message before this one is missing"));
    await since((told) => {
      const [two, three] = [find(told, 2), find(told, 3)];
      [two.seq, three.seq] = [three.seq, two.seq];
      told.messages.sort((a, b) => a.seq - b.seq);
    }, () => notes(alice, CROOKED, "not in the order in which it was written"));
    // What only the page itself says of messages that it has opened.
    const own = { kind: "text", text: "made up by the server", notes: [], device: "made up", devices: ["made up"], after: [1, "made up"], edited: 0 };
    await since((told) => { for (const one of told.messages) Object.assign(one, own, { envelope: null }); }, () => showsUnreadable(alice, "This is no message that can be read here", 5));
    assert.equal(await count(alice, own.text), 0);
    await since((told) => { for (const one of told.messages) Object.assign(one, own, { problem: "made up by the server", devices: undefined }); }, () => sees(alice, CROOKED));
    assert.equal(await count(alice, own.text), 0);
    assert.equal(await alice.locator("#message-list .gone").count(), 1);
    const stop = await asLister(alice, (told) => { for (const one of told.conversations) one.with.id = "5".repeat(one.with.id.length); });
    await again(alice, "bob");
    await saysOfKeys(alice, "The server shows somebody else as the other one");
    await say(alice, "for whom?");
    await alice.getByText("not sent: The server shows somebody else").waitFor();
    assert.equal(await count(alice, TREASURE), 0);
    await stop();
    await alice.getByRole("button", { name: "Discard" }).click();
    await again(alice, "bob");
    await sees(alice, CROOKED);
    assert.match(await notesOf(alice, CROOKED), /^sent$/);
    assert.equal(await alice.locator("#message-list .gone").count(), 1);
  }],
  ["a server that adds a device of its own has to ask, and one that gives a device another key is refused", async () => {
    const { id, key } = await makeDevice();
    for (const [change, said] of [
      [(told) => { told.theirs.push({ ...told.theirs[0], id, key, name: "Firefox on Linux" }); }, "it waits until you have confirmed"],
      [(told) => { told.theirs[0].key = key; }, "the server shows a device under another's name"],
    ]) {
      const stop = await asServer(alice, "devices", change);
      await again(alice, "bob");
      if (said.startsWith("it waits")) await saysOfKeys(alice, "bob has a new device (Firefox on Linux");
      await say(alice, "held back");
      await alice.getByText(`not sent: ${said}`).waitFor();
      await stop();
      await alice.getByRole("button", { name: "Discard" }).click();
    }
    await again(alice, "bob");
    await saysOfKeys(alice, "End-to-end encrypted");
    // One that was gone has to be confirmed again; what it has written stays by a device that was known.
    const stop = await asServer(alice, "devices", (told) => { told.theirs = told.theirs.slice(0, 1); });
    await again(alice, "bob");
    await sees(alice, "from the tablet");
    assert.equal(await notesOf(alice, "from the tablet"), "");
    await stop();
    await again(alice, "bob");
    await saysOfKeys(alice, "bob has a new device");
    await alice.getByRole("button", { name: "Confirm the new device" }).click();
    await saysOfKeys(alice, "End-to-end encrypted");
  }],
  ["a page that is loaded again writes to no other room while it looks for its conversation", async () => {
    let go;
    const waits = new Promise((resolve) => { go = resolve; });
    const stop = await asLister(alice, () => waits);
    await alice.reload();
    await online(alice);
    await alice.locator("#room-list").getByRole("button", { name: /^Lobby/ }).waitFor();
    assert.equal(await alice.locator("#composer").isVisible(), false);
    go();
    await alice.getByRole("heading", { name: "bob", exact: true }).waitFor();
    assert.equal(await alice.locator("#composer").isVisible(), true);
    await stop();
  }],
  ["a device that was removed says so, gets nothing more, and comes back as another", async () => {
    await bob.getByRole("button", { name: "Rooms", exact: true }).click();
    await bob.getByRole("button", { name: "Your devices" }).first().click();
    await bob.locator("#dialog li").filter({ hasNotText: "(this one)" }).getByRole("button").click();
    await bob.waitForFunction(() => document.querySelectorAll("#dialog li").length === 1, undefined, POLL);
    await bob.keyboard.press("Escape");
    await bob.getByRole("button", { name: "Rooms", exact: true }).click();
    await saysOfKeys(tablet, "This device was removed");
    await examine(tablet, "a removed device");
    await say(alice, "without the tablet");
    await openWith(bob, "alice");
    await sees(bob, "without the tablet");
    await tablet.getByRole("button", { name: "Make this a new device" }).click();
    await saysOfKeys(tablet, "End-to-end encrypted");
    assert.equal(await count(tablet, "without the tablet"), 0);
    await saysOfKeys(alice, "bob has a new device");
  }],
  ["who is blocked is told", async () => {
    await alice.getByRole("button", { name: "Block bob" }).click();
    await alice.getByRole("button", { name: "Take messages again" }).waitFor();
    await say(tablet, "are you there?");
    await tablet.getByText("not sent: they take no messages from you").waitFor();
    await alice.getByRole("button", { name: "Take messages again" }).click();
    await alice.getByRole("button", { name: "Block bob" }).waitFor();
  }],
  ["what was written is in no file of the server's and in nothing that it was sent or has sent", async () => {
    const files = readdirSync(chats.folder).map((name) => readFileSync(join(chats.folder, name)));
    assert.ok(files.some((file) => file.includes("client_id")) && wire.some((one) => one.includes("envelope")), "nothing was looked at");
    for (const text of [...WORDS, "from the tablet", "held back"]) {
      for (const form of [text, JSON.stringify(text).slice(1, -1), Buffer.from(text).toString("base64").slice(0, -4), Buffer.from(text).toString("base64url").slice(0, -4)]) {
        assert.ok(files.every((file) => !file.includes(form)), `${form} in a file`);
        assert.ok(wire.every((one) => !one.includes(form)), `${form} on the wire`);
      }
    }
  }],
  ["nothing was thrown, and the policy had nothing to forbid", async () => { assert.deepEqual(chats.complaints, []); }],
];

await runSteps("private messages of the chat in Chromium", steps, chats.stop);
