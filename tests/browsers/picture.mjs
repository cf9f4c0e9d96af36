// Makes the picture of the page in the README: `node tests/browsers/picture.mjs docs/page.png`, then
// `pngquant --force --output docs/page.png 64 docs/page.png`. Not part of continuous integration.

import { launch, openUntil, row, say, shows, state } from "./page_kit.mjs";
import { publish, startServer } from "./server.mjs";

const [, , path] = process.argv;
const server = await startServer();
const browser = await launch();
const page = await browser.newPage({ viewport: { width: 1120, height: 640 }, colorScheme: "light", reducedMotion: "reduce" });
await page.goto(`http://${server.listen}/`);
await state(page, "room", "open");
await openUntil(page, "room", 4);
await publish(server, "lobby", "hello");
await say(page, "room", "typed on this page");
await row(page, "room", "received", "typed on this page");
await publish(server, "lobby", JSON.stringify({ symbol: "EUR/USD", bid: 1.0842 }));
await publish(server, "lobby", new TextEncoder().encode("Fantail\0"), "?binary=1");
await page.locator("#echo-toggle").click();
await state(page, "echo", "open");
for (const [count, text] of ["ping", "pong"].entries()) {
  await say(page, "echo", text);
  await shows(page, "echo", "received", count + 1);
}
await row(page, "room", "received", "46 61 6e 74 61 69 6c 00");
// The ports that a reader has, who changed nothing.
await page.evaluate(([listen, admin]) => {
  document.activeElement.blur();
  for (const [id, from, to] of [["host", listen, "127.0.0.1:8080"], ["room-command", admin, "127.0.0.1:8081"]]) {
    const element = document.getElementById(id);
    element.textContent = element.textContent.replace(from, to);
  }
}, [server.listen, server.admin]);
await page.screenshot({ path });
await browser.close();
await server.stop();
