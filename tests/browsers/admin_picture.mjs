// Makes the picture of the operator's page in docs/admin.md: `node tests/browsers/admin_picture.mjs docs/admin.png`. Not part
// of continuous integration.

import WebSocket from "ws";
import { launch } from "./page_kit.mjs";
import { publish, startServer } from "./server.mjs";

const [, , path] = process.argv;
const CLIENTS = 1_500;
const RUN_MS = 70_000;

const server = await startServer({ env: { FANTAIL_OUTBOX_MESSAGES_MAX: "8" } });
const clients = Array.from({ length: CLIENTS }, (_, i) => new WebSocket(`ws://${server.listen}/ws/prices%2F${i % 300}?topic=news`, { perMessageDeflate: false }));
await Promise.all(clients.map((client) => new Promise((resolve) => client.once("open", resolve))));
clients.slice(0, 2).forEach((client) => client.pause());
const browser = await launch();
const page = await browser.newPage({ viewport: { width: 1280, height: 1060 }, colorScheme: "light" });
await page.goto(`http://${server.admin}/`);
const start = Date.now();
for (let round = 0; Date.now() - start < RUN_MS; round++) {
  const busy = 3 + Math.round(2 * Math.sin(round / 40)) + (round % 5 === 0 ? 1 : 0);
  await Promise.all(Array.from({ length: busy }, (_, i) => publish(server, `prices/${(round * 7 + i) % 300}`, JSON.stringify({ bid: 1.08 + round / 1e5 }))));
  if (round % 40 === 0) await publish(server, "news", "n".repeat(100_000));
  if (round === 300) clients.slice(1_000).forEach((client) => client.close());
  await new Promise((resolve) => setTimeout(resolve, 50));
}
// The address that a reader has, who changed nothing.
await page.evaluate(() => { document.getElementById("host").textContent = "127.0.0.1:8081"; });
await page.screenshot({ path });
for (const client of clients) client.terminate();
await browser.close();
await server.stop();
process.exit(0);
