#!/usr/bin/env bash
# npm eventsource 5.1.5 (node 20): a 503 ends an EventSource for good, Retry-After or not; the end of a stream is
# followed by a new attempt 3 s later, always the same.
#
# Output seen:
#   end of stream: again after 3.0 s, 3.0 s
#   503 with Retry-After: 1: state 2 (closed), 2 requests in 8 s
#   204: state 2 (closed), 2 requests in 8 s
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm init -y >/dev/null
npm install --no-audit --no-fund --silent eventsource@5.1.5
cat >run.mjs <<'JS'
import http from "node:http";
import { EventSource } from "eventsource";

// The first request gets a stream of one message that ends; the later ones get `status`.
async function watch(status) {
  const times = [];
  const server = http.createServer((request, answer) => {
    times.push(performance.now());
    if (status !== 200 && times.length > 1) {
      answer.writeHead(status, status === 503 ? { "Retry-After": "1" } : {});
      answer.end();
      return;
    }
    answer.writeHead(200, { "Content-Type": "text/event-stream" });
    answer.end("id: 7\ndata: x\n\n");
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const source = new EventSource(`http://127.0.0.1:${server.address().port}/`);
  await new Promise((resolve) => setTimeout(resolve, 8000));
  const state = source.readyState;
  source.close();
  server.closeAllConnections();
  server.close();
  return { state, requests: times.length, waits: times.slice(1).map((time, i) => (time - times[i]) / 1000) };
}

const [ended, unavailable, empty] = await Promise.all([watch(200), watch(503), watch(204)]);
console.log(`end of stream: again after ${ended.waits.map((wait) => wait.toFixed(1) + " s").join(", ")}`);
console.log(`503 with Retry-After: 1: state ${unavailable.state} (closed), ${unavailable.requests} requests in 8 s`);
console.log(`204: state ${empty.state} (closed), ${empty.requests} requests in 8 s`);
const same = ended.waits.length === 2 && ended.waits.every((wait) => wait >= 2.95 && wait < 3.5) &&
  [unavailable, empty].every((seen) => seen.state === EventSource.CLOSED && seen.requests === 2);
if (!same) { console.log("CHANGED: this is not what was seen before"); process.exit(1); }
JS
node run.mjs
