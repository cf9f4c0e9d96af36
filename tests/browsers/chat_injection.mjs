// The chat in Chromium, against who writes markup and script instead of words: whatever anybody writes, wherever it is shown,
// is text there. Nothing runs, nothing is loaded, no element and no attribute comes of it, no dialog opens, and the page's
// policy had nothing to forbid.

import assert from "node:assert/strict";
import { PASSWORD, online, register, startChat } from "./chat_kit.mjs";
import { POLL, launch } from "./page_kit.mjs";
import { runSteps, within } from "./server.mjs";

const ATTACKS = [
  "<img src=x onerror=own()>",
  "<script>own()</script>",
  "\"><svg/onload=own()>",
  "'><img src=x onerror='own()'>",
  "<iframe srcdoc='<script>parent.own()</script>'></iframe>",
  "<a href=javascript:own()>x</a>",
  "javascript:own()",
  "data:text/html,<script>own()</script>",
  "http://evil.example/\"onmouseover=\"own()",
  "[x](javascript:own()) ![x](http://evil.example/x.png)",
  "</textarea></p></li><img src=x onerror=own()>",
  "<style>@import 'http://evil.example/x.css'</style>",
  "<link rel=stylesheet href=http://evil.example/x.css>",
  "<base href=http://evil.example/>",
  "<meta http-equiv=refresh content=0;url=http://evil.example/>",
  "<form action=http://evil.example/><button autofocus onfocus=own()>x",
  "<math><mi xlink:href=\"javascript:own()\">x</mi></math>",
  "<template><img src=x onerror=own()></template>",
  "<details open ontoggle=own()><summary>x</summary></details>",
  "<input autofocus onfocus=own()>",
  "<video><source onerror=own()></video>",
  "<object data=javascript:own()></object><embed src=javascript:own()>",
  "&lt;img src=x onerror=own()&gt; &#60;script&#62;own()",
  "\\u003cscript\\u003eown()",
  "{{constructor.constructor('own()')()}} ${own()} <%= own() %>",
  "<!-- --><![CDATA[<script>own()</script>]]>",
  "<b id=chat name=draft>x</b><form id=dialog><input name=close>",
  "__proto__ constructor toString",
  "]]></script><script>own()</script>",
  "'-own()-' \"-own()-\" `${own()}`",
];
const ROOM_NAME_MAX = 40;

const chat = await startChat();
const browser = await launch();
// What the two pages were seen to do.
const seen = [];
// What their connections were told.
const heard = [];
let alice;
let bob;
let baseline = "";

async function visit(name) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 800 } });
  context.setDefaultTimeout(60_000);
  await context.addInitScript(() => {
    globalThis.own = () => { document.title = "owned"; globalThis.owned = true; };
    // What its member says of itself to the edge is what a test has put here instead, as a program of somebody's own could.
    const send = WebSocket.prototype.send;
    WebSocket.prototype.send = function (data) {
      if (!globalThis.says || !String(data).includes('"typing":true')) return send.call(this, data);
      return send.call(this, JSON.stringify({ ...JSON.parse(data), state: globalThis.says }));
    };
    document.addEventListener("securitypolicyviolation", (event) => console.error(`VIOLATION ${event.violatedDirective} ${event.blockedURI} ${event.sample}`));
  });
  const page = await context.newPage();
  page.on("dialog", (dialog) => {
    // The page's own questions, which are asked for below, begin like this.
    if (!/^(Delete this message|Leave )/.test(dialog.message())) seen.push(`${name}: dialog ${dialog.message()}`);
    dialog.accept().catch(() => {});
  });
  page.on("console", (message) => { if (/VIOLATION|Content Security Policy/.test(message.text())) seen.push(`${name}: ${message.text()}`); });
  page.on("pageerror", (error) => seen.push(`${name}: ${error}`));
  page.on("popup", () => seen.push(`${name}: a window opened`));
  page.on("framenavigated", (frame) => { if (frame !== page.mainFrame() || !frame.url().startsWith(chat.url)) seen.push(`${name}: went to ${frame.url()}`); });
  page.on("request", (request) => { if (!["127.0.0.1"].includes(new URL(request.url()).hostname) && !request.url().startsWith("data:,")) seen.push(`${name}: asked for ${request.url()}`); });
  page.on("websocket", (socket) => socket.on("framereceived", ({ payload }) => heard.push(`${name}: ${payload}`)));
  await page.goto(chat.url);
  return page;
}

/** What in a page can't be from its own files. */
const foreign = (page) => page.evaluate(() => {
  const found = [];
  if (globalThis.owned || document.title === "owned") found.push("it is owned");
  const plain = new Set("HTML HEAD META TITLE LINK SCRIPT BODY NOSCRIPT MAIN H1 H2 H3 FORM LABEL INPUT P DIV BUTTON HEADER SPAN NAV UL OL LI TEXTAREA ASIDE DIALOG TIME SELECT OPTION SMALL STRONG DL DT DD CODE SECTION".split(" "));
  for (const element of document.querySelectorAll("*")) {
    if (!plain.has(element.tagName)) found.push(`<${element.tagName}>`);
    for (const { name, value } of element.attributes) {
      if (name.startsWith("on") || /^(srcdoc|style|action|formaction|http-equiv)$/.test(name) || /^\s*javascript:/i.test(value) && /^(href|src|data|xlink:href)$/.test(name)) found.push(`${element.tagName} ${name}=${value}`);
    }
  }
  const of = (selector) => [...document.querySelectorAll(selector)].map((each) => each.outerHTML.replace(/ aria-\S+="[^"]*"/g, "")).join();
  return { found, head: of("head link, head script, head meta, base") };
});

async function isClean(what) {
  for (const [name, page] of [["alice", alice], ["bob", bob]]) {
    const { found, head } = await foreign(page);
    assert.deepEqual(found, [], `${what}, ${name}'s page`);
    assert.equal(head, baseline, `${what}, ${name}'s page`);
  }
  assert.deepEqual(seen, [], what);
}

const shows = (page, selector, text) => page.waitForFunction(([where, wanted]) => [...document.querySelectorAll(where)].some(({ textContent }) => textContent.includes(wanted)), [selector, text], POLL);

/** Asks the application as the page itself does, past what its fields would allow. */
const ask = (page, method, path, body) => page.evaluate(async ([...asked]) => {
  const { call } = await import("/api.js");
  try { return await call(...asked); } catch (error) { return { error: error.code, message: error.message }; }
}, [method, path, body]);

const steps = [
  ["who writes names of markup is told so, in text", async () => {
    [alice, bob] = [await visit("alice"), await visit("bob")];
    baseline = (await foreign(alice)).head;
    for (const attack of ATTACKS) {
      await alice.locator("#entrance-name").fill(attack);
      await alice.locator("#entrance-password").fill(PASSWORD);
      await alice.getByRole("button", { name: "Make an account" }).click();
      await alice.waitForFunction(() => document.getElementById("entrance-error").textContent && !document.querySelector("#entrance-form button[disabled]"), undefined, POLL);
    }
    await isClean("the way in");
    await alice.reload();
    await register(alice, "alice");
    await register(bob, "bob");
    await isClean("two accounts");
  }],
  ["messages are text for who writes and who reads them, when they are edited, too, and after a reload", async () => {
    for (const attack of ATTACKS) {
      await alice.locator("#draft").fill(attack);
      await alice.locator("#draft").press("Enter");
      await shows(alice, "#message-list li[data-seq] .text", attack);
      await shows(bob, "#message-list .text", attack);
      // A person may not say so much in so little time.
      await alice.waitForTimeout(600);
    }
    await isClean("messages");
    const own = alice.locator("#message-list li.own");
    for (const attack of ATTACKS.slice(0, 8)) {
      await own.last().getByRole("button", { name: /^Edit/ }).click();
      await alice.getByRole("textbox", { name: "Other words" }).fill(`${attack} edited`);
      await isClean("an editor");
      await alice.getByRole("button", { name: "Save" }).click();
      await shows(bob, "#message-list .text", `${attack} edited`);
      await alice.waitForTimeout(600);
    }
    await isClean("edits");
    await own.last().getByRole("button", { name: /^Delete/ }).click();
    await shows(bob, "#message-list .text", "This message was deleted.");
    await Promise.all([alice, bob].map(async (page) => {
      await page.reload();
      await online(page);
      await shows(page, "#message-list .text", ATTACKS[0]);
    }));
    await isClean("after a reload");
  }],
  ["what can't be sent, and what is being typed, is text", async () => {
    await alice.route("**/api/rooms/*/messages", (route) => route.abort());
    for (const attack of ATTACKS.slice(0, 6)) {
      await alice.locator("#draft").fill(attack);
      await alice.locator("#draft").press("Enter");
    }
    await alice.locator("#message-list .failed").nth(5).waitFor();
    await alice.locator("#draft").fill(ATTACKS[10]);
    await isClean("what is not sent");
    await alice.unroute("**/api/rooms/*/messages");
    await alice.reload();
    await online(alice);
    assert.equal(await alice.locator("#draft").inputValue(), ATTACKS[10]);
    await isClean("what was not sent, after a reload");
  }],
  ["what a member says of itself beside writing is shown to nobody", async () => {
    const told = (attack) => heard.some((one) => one.startsWith("bob: ") && one.includes(JSON.stringify(attack).slice(1, -1)));
    await alice.locator("#draft").fill("");
    for (const attack of ATTACKS.slice(0, 10)) {
      for (const [state, writes] of [[{ typing: attack, [attack]: true }, false], [{ typing: true, name: attack, id: attack, html: attack }, true]]) {
        heard.length = 0;
        await alice.evaluate((says) => { globalThis.says = says; }, state);
        await alice.locator("#draft").pressSequentially("x");
        await within(30_000, `bob is told ${attack}`, (async () => { while (!told(attack)) await bob.waitForTimeout(20); })());
        if (writes) await bob.waitForFunction(() => document.getElementById("writing").textContent === "alice is writing…", undefined, POLL);
        else assert.equal(await bob.locator("#writing").textContent(), "");
        await isClean(`a state with ${attack}`);
        await alice.locator("#draft").fill("");
        await bob.waitForFunction(() => document.getElementById("writing").textContent === "", undefined, POLL);
      }
    }
    await alice.evaluate(() => { globalThis.says = null; });
  }],
  ["names of rooms are text: in the list, in the head, in the title, in what is found, in dialogs and questions", async () => {
    const names = ATTACKS.filter((attack) => [...attack].length <= ROOM_NAME_MAX);
    assert.ok(names.length > 8);
    for (const [number, name] of names.entries()) {
      const { id, error, message } = await ask(alice, "POST", "/rooms", { name, open: number % 2 === 0 });
      assert.equal(error, undefined, `${name}: ${message}`);
      await alice.evaluate(async (room) => { location.hash = room; }, id);
      await ask(alice, "POST", `/rooms/${id}/invite`, { name: "bob" });
      await shows(alice, "#room-list button", name);
      await shows(bob, "#room-list button", name);
    }
    await isClean("a list of rooms");
    for (const name of names.slice(0, 4)) {
      await alice.getByRole("button", { name, exact: true }).click();
      await shows(alice, "#title", name);
      await bob.getByRole("button", { name: `${name} invited`, exact: true }).or(bob.getByRole("button", { name: `${name}invited`, exact: true })).click();
      await shows(bob, "#dialog-title", name);
      await isClean(`room ${name}`);
      await bob.locator("#dialog").getByRole("button", { name: "Join" }).click();
      await shows(bob, "#title", name);
      await shows(alice, "#people-list li", "bob");
      await alice.getByRole("button", { name: "Manage bob" }).click();
      await shows(alice, "#dialog-title", name);
      await isClean(`people of ${name}`);
      await alice.locator("#dialog").getByRole("button", { name: "Ban from room" }).click();
      await bob.waitForFunction((room) => ![...document.querySelectorAll("#room-list button")].some(({ textContent }) => textContent === room), name, POLL);
    }
    await alice.getByRole("button", { name: "Find or make a room" }).click();
    for (const attack of names) {
      await alice.getByLabel("Find an open room").fill(attack);
      const answered = alice.waitForResponse((response) => response.url().includes("/api/rooms?name="));
      await alice.getByRole("button", { name: "Find", exact: true }).click();
      await answered;
      await alice.locator("#dialog-body li").first().waitFor();
    }
    await isClean("what is found");
    await alice.keyboard.press("Escape");
    await alice.locator("#leave").click();
    await isClean("a question whether to leave");
  }],
  ["errors that tell what was written are text, and so is the address", async () => {
    await alice.locator("#room-list button").filter({ hasText: "<img" }).first().click();
    for (const attack of ATTACKS) {
      await alice.locator("#invite-name").fill(attack);
      await alice.locator("#invite-name").press("Enter");
      await alice.waitForFunction(() => document.getElementById("invite-said").textContent !== "", undefined, POLL);
    }
    for (const attack of ATTACKS) {
      await bob.evaluate((hash) => { location.hash = hash; }, attack);
      await bob.evaluate((hash) => { location.hash = encodeURIComponent(hash); }, attack);
      const { message } = await ask(bob, "GET", `/rooms/${encodeURIComponent(attack)}/messages`);
      assert.ok(message.length > 5);
    }
    await isClean("errors and addresses");
    await bob.goto(`${chat.url}?x=${encodeURIComponent(ATTACKS[0])}#${encodeURIComponent(ATTACKS[1])}`);
    await online(bob);
    await isClean("an address");
  }],
  ["whoever puts markup into a page is found out", async () => {
    await bob.evaluate((attack) => {
      const made = document.createElement("div");
      made.innerHTML = attack;
      document.body.append(made);
    }, ATTACKS[0]);
    const { found } = await foreign(bob);
    assert.ok(found.includes("<IMG>") && found.some((one) => one.includes("onerror")), String(found));
    await within(30_000, "a violation", (async () => { while (!seen.some((one) => one.includes("VIOLATION script-src-attr"))) await bob.waitForTimeout(50); })());
    assert.notEqual(await bob.title(), "owned");
  }],
];

await runSteps("markup and script in the chat", steps, async () => {
  await browser.close();
  await chat.stop();
});
