// Makes the picture of the live dashboard in the README: `node tests/browsers/demo_picture.mjs docs/demo.png`, then
// `pngquant --force --output docs/demo.png 64 docs/demo.png`. Not part of continuous integration.

import { launch, POLL } from "./page_kit.mjs";
import { startServer } from "./server.mjs";

const [, , path] = process.argv;
const server = await startServer({ more: ["--demo"] });
const browser = await launch();
const page = await browser.newPage({ viewport: { width: 1120, height: 830 }, colorScheme: "light" });
await page.goto(`http://${server.listen}/demo`);
await page.waitForFunction(() => feed.messages > 900, undefined, { ...POLL, timeout: 60_000 });
await page.locator("#unplug").click();
await page.waitForFunction(() => feed.messages > 2_300, undefined, { ...POLL, timeout: 90_000 });
await page.screenshot({ path });
await browser.close();
await server.stop();
