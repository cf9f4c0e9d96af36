// The three who use the page, each in a browser of their own: what they type, and what their pages show.

import { POLL, launch } from "../../tests/browsers/page_kit.mjs";
import { PASSWORD } from "./user.mjs";

/** One of them. */
class Page {
  said = [];

  constructor(name, page) { Object.assign(this, { name, page }); }

  async register() {
    await this.page.locator("#entrance-name").fill(this.name);
    await this.page.locator("#entrance-password").fill(PASSWORD);
    await this.page.getByRole("button", { name: "Make an account" }).click();
    await this.online();
  }

  online(timeout = 120_000) {
    return this.page.waitForFunction(() => document.getElementById("state").textContent === "online", undefined, { ...POLL, timeout });
  }

  /** Says something, whether there is a network or not. */
  async speak() {
    const text = `${this.name} types number ${this.said.length + 1} & <i>"no more"</i>`;
    await this.page.locator("#draft").fill(text);
    await this.page.locator("#draft").press("Enter");
    this.said.push(text);
  }

  /** Up to which message it shows the room, and how much is on its way. */
  state() {
    return this.page.evaluate(() => ({
      sending: document.querySelectorAll("#message-list [data-sending]").length,
      state: document.getElementById("state").textContent,
      shown: [...document.querySelectorAll("#message-list li[data-seq]")].map((each) => ({ seq: Number(each.dataset.seq), text: each.querySelector(".text").textContent })),
    }));
  }
}

/** Alice and Bob near by, and Carol, whose way is slow. */
export async function open(url, slowUrl) {
  const browser = await launch();
  const complaints = [];
  const pages = [];
  for (const [name, from] of [["alice", url], ["bob", url], ["carol", slowUrl]]) {
    const context = await browser.newContext({ viewport: { width: 1280, height: 800 } });
    context.setDefaultTimeout(120_000);
    const page = await context.newPage();
    page.on("pageerror", (error) => complaints.push(`${name}: ${error}`));
    await page.goto(from);
    pages.push(new Page(name, page));
  }
  return { pages, complaints, close: () => browser.close() };
}
