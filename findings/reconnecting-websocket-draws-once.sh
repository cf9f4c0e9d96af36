#!/usr/bin/env bash
# npm reconnecting-websocket 4.4.0 with ws 8.23.0 (node 20): it comes back after every close code, 1000, 1008 and 4400
# included; its wait is drawn once as it is loaded (1 to 5 s), and only multiplied by 1.3 after that.
#
# Output seen (the first wait differs from run to run):
#   1000: waits 3.02, 3.90, 5.03, 6.52 s; each 1.3 times the one before
#   1008: waits 3.37, 4.29, 5.69, 7.24 s; each 1.3 times the one before
#   4400: waits 1.42, 1.84, 2.36, 3.06, 3.96, 5.10 s; each 1.3 times the one before
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm init -y >/dev/null
npm install --no-audit --no-fund --silent reconnecting-websocket@4.4.0 ws@8.23.0
cat >run.mjs <<'JS'
import WebSocket, { WebSocketServer } from "ws";
import loaded from "reconnecting-websocket";

const ReconnectingWebSocket = loaded.default ?? loaded;
const code = Number(process.argv[2]);
const server = new WebSocketServer({ host: "127.0.0.1", port: 0 });
const waits = [];
let closedAt = 0;
server.on("connection", (socket) => {
  if (closedAt) waits.push((performance.now() - closedAt) / 1000);
  setTimeout(() => { closedAt = performance.now(); socket.close(code, "by the server"); }, 50);
});
await new Promise((resolve) => server.once("listening", resolve));
new ReconnectingWebSocket(`ws://127.0.0.1:${server.address().port}/`, [], { WebSocket });
setTimeout(() => {
  const grows = waits.length >= 3 && waits.slice(1).every((wait, i) => Math.abs(wait / waits[i] - 1.3) < 0.1);
  const said = grows ? "each 1.3 times the one before" : "CHANGED: this is not what was seen before";
  console.log(`${code}: waits ${waits.map((wait) => wait.toFixed(2)).join(", ")} s; ${said}`);
  process.exit(grows && waits[0] >= 0.95 && waits[0] < 5.5 ? 0 : 1);
}, 30_000);
JS
failed=0 jobs=()
for code in 1000 1008 4400; do
  node run.mjs "$code" &
  jobs+=("$!")
done
for job in "${jobs[@]}"; do wait "$job" || failed=1; done
exit "$failed"
