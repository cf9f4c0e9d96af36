// Event streams under Chromium's EventSource and npm's `eventsource`: what payloads come through as, who comes back after
// a crash, a drain and a refusal, from where, and which pages may read.

import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { EventSource } from "eventsource";
import { launch } from "./page_kit.mjs";
import { publish, runSteps, startServer, untilSubscribed } from "./server.mjs";

const WAIT = 60_000;
const PAYLOADS = JSON.parse(readFileSync(new URL("../fixtures/sse/payloads.json", import.meta.url)));
// Whoever comes back does so within half a second, and a drain takes no time.
const QUICK = { FANTAIL_TIMEOUTS_SSE_RETRY_SECONDS: "0.2", FANTAIL_DRAIN_SECONDS: "0" };

const browser = await launch();
// Pages of another origin: really served, because browsers don't let pages from nowhere connect to this machine.
const elsewhere = createServer((_, answer) => answer.setHeader("Content-Type", "text/html").end());
await new Promise((resolve) => elsewhere.listen(0, "127.0.0.1", resolve));
const ELSEWHERE = `http://127.0.0.1:${elsewhere.address().port}`;
// In gzip for who accepts it, which both do.
const CODED = { ...QUICK, FANTAIL_DEFLATE_EVENT_STREAMS: "true", FANTAIL_DEFLATE_MIN_BYTES: "1" };
let env = QUICK;
let server = await startServer({ env });

/** Notes everything that a source says, in order; in a page as in Node. */
function follow(source, kinds) {
  const seen = { open: 0, errors: [], events: [] };
  source.addEventListener("open", () => { seen.open += 1; });
  source.addEventListener("error", () => seen.errors.push(source.readyState));
  for (const kind of ["message", ...kinds]) {
    source.addEventListener(kind, ({ data, lastEventId }) => seen.events.push([kind, data, lastEventId]));
  }
  return seen;
}

async function until(what, condition) {
  const start = Date.now();
  for (;;) {
    const value = await condition();
    if (value) return value;
    if (Date.now() - start > WAIT) throw new Error(`waited too long for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** Publishes until `client` has one of the messages: whoever left before it may still be counted as a subscriber. */
async function untilReads(client, one, topic) {
  await until("it is let in", async () => {
    await publish(one, topic, "come in");
    return (await client.look()).events.length > 0;
  });
}

/** A source in the server's own page, or in one of `from`. */
class InBrowser {
  static async open(url, kinds = [], { from = `http://${server.listen}`, ...options } = {}) {
    const page = await browser.newPage();
    await page.goto(`${from}/`);
    await page.evaluate(([follow, url, kinds, options]) => {
      window.source = new EventSource(url, options);
      window.seen = eval(`(${follow})`)(window.source, kinds);
    }, [String(follow), url, kinds, options]);
    const it = new InBrowser();
    it.page = page;
    return it;
  }

  look() { return this.page.evaluate(() => ({ ...window.seen, state: window.source.readyState })); }
  async close() { await this.page.close(); }
}

class InNode {
  static async open(url, kinds = []) {
    const it = new InNode();
    it.source = new EventSource(new URL(url, `http://${server.listen}/`));
    it.seen = follow(it.source, kinds);
    return it;
  }

  async look() { return { ...this.seen, state: this.source.readyState }; }
  async close() { this.source.close(); }
}

async function restart(end) {
  const { listen } = server;
  await end(server);
  server = await startServer({ listen, env });
}

const crash = async (old) => { old.kill(); await old.stop().catch(() => {}); };
const drain = (old) => old.stop();

const without = (events, data) => events.filter(([, each]) => each !== data);

function steps(name, Client) {
  return [
    [`${name}: every payload is the data of its event`, async () => {
      const client = await Client.open("/sse/table", ["binary", "gap"]);
      await untilSubscribed(server, "table", 1);
      for (const [payload] of PAYLOADS) await publish(server, "table", payload);
      await publish(server, "table", new Uint8Array([0, 255, 10]), "?binary=1");
      const { events, open } = await until("all of them", async () => {
        const seen = await client.look();
        return seen.events.some(([kind]) => kind === "binary") && seen;
      });
      const got = without(events, "warm-up");
      assert.deepEqual(got.map(([kind, data]) => [kind, data]),
        [...PAYLOADS.map(([, data]) => ["message", data]), ["binary", "AP8K"]]);
      got.map(([, , id]) => Number(id.split(":")[1])).reduce((before, offset) => { assert.equal(offset, before + 1); return offset; });
      assert.equal(open, 1);
      await client.close();
    }],
    [`${name}: after a crash it comes back and is told what is lost`, async () => {
      const client = await Client.open("/sse/crash", ["gap"]);
      await untilSubscribed(server, "crash", 1);
      // Who has read nothing has no place to come back with.
      await until("it has read", async () => (await client.look()).events.length > 0);
      await restart(crash);
      const { events, errors } = await until("its return", async () => {
        const seen = await client.look();
        return seen.open === 2 && seen.events.some(([kind]) => kind === "gap") && seen;
      });
      assert.equal(JSON.parse(events.find(([kind]) => kind === "gap")[1]).kind, "other_epoch");
      assert.ok(!errors.includes(2), `it gave up: ${errors}`);
      await publish(server, "crash", "after");
      await until("what comes then", async () => (await client.look()).events.some(([, data]) => data === "after"));
      await client.close();
    }],
    [`${name}: a drain sends it away, and it comes back`, async () => {
      const client = await Client.open("/sse/drain", ["gap"]);
      await untilSubscribed(server, "drain", 1);
      await restart(drain);
      await until("its return", async () => (await client.look()).open === 2);
      await untilSubscribed(server, "drain", 1);
      const { errors } = await client.look();
      assert.ok(errors.length > 0 && !errors.includes(2), `it gave up: ${errors}`);
      await client.close();
    }],
    [`${name}: cut off before the first message it goes on behind where it began`, async () => {
      const client = await Client.open("/sse/early", ["gap"]);
      await until("it is open", async () => (await client.look()).open === 1);
      // Only its connection breaks off; the server stays.
      const answer = await fetch(`http://${server.admin}/connections/close?topic=early`, { method: "POST" });
      assert.equal(answer.status, 200);
      await publish(server, "early", "while it is away");
      const { events } = await until("it knows", async () => {
        const seen = await client.look();
        return seen.events.length > 0 && seen;
      });
      // Nothing is kept of this topic: it is told so, and does not take the hole for silence.
      assert.deepEqual(events.map(([kind]) => kind), ["gap"]);
      await client.close();
    }],
    [`${name}: a full server is asked again until there is room`, async () => {
      const one = await startServer({ env: { ...env, FANTAIL_SERVER_CONNECTIONS_MAX: "1" } });
      try {
        const holder = await fetch(`http://${one.listen}/sse/full`, { signal: AbortSignal.timeout(60_000) });
        assert.equal(holder.status, 200);
        const client = await Client.open(`http://${one.listen}/sse/full`, [], { from: ELSEWHERE });
        if (Client === InBrowser) {
          // Another origin, which the policy does not know: final, and rightly so.
          await until("it gives up", async () => (await client.look()).state === 2);
        } else {
          await until("it is sent away", async () => (await client.look()).errors.length > 1);
          assert.notEqual((await client.look()).state, 2);
          await holder.body.cancel();
          await untilReads(client, one, "full");
        }
        await client.close();
      } finally {
        await one.stop();
      }
    }],
  ];
}

await runSteps("event streams in Chromium and Node", [
  ...steps("Chromium", InBrowser),
  ...steps("eventsource", InNode),
  ["from here on in gzip", async () => {
    env = CODED;
    await restart(drain);
  }],
  ...steps("Chromium, gzip", InBrowser),
  ...steps("eventsource, gzip", InNode),
  ["what both were sent was deflated", async () => {
    const client = await InNode.open("/sse/seen");
    await until("it is open", async () => (await client.look()).open === 1);
    await publish(server, "seen", "x".repeat(400));
    await until("it comes", async () => (await client.look()).events.length === 1);
    const metrics = await (await fetch(`http://${server.admin}/metrics`)).text();
    const bytes = [...metrics.matchAll(/^fantail_deflate_in_bytes_total\S* (\d+)/gm)].map(([, value]) => Number(value));
    assert.ok(bytes.reduce((sum, value) => sum + value, 0) >= 400, "and by an event stream, for there is nobody else");
    await client.close();
  }],
  ["Chromium: several topics, each by its name", async () => {
    const client = await InBrowser.open("/sse/a?topic=error&topic=open", ["topic:a", "topic:error", "topic:open"]);
    await untilSubscribed(server, "open", 1);
    for (const topic of ["a", "error", "open"]) await publish(server, topic, `of ${topic}`);
    const { events, errors, open } = await until("all of them", async () => {
      const seen = await client.look();
      return without(seen.events, "warm-up").length === 3 && seen;
    });
    // In the order of each topic; between topics there is none.
    assert.deepEqual(without(events, "warm-up").map(([kind, data]) => [kind, data]).sort(),
      [["topic:a", "of a"], ["topic:error", "of error"], ["topic:open", "of open"]]);
    assert.deepEqual([errors, open], [[], 1], "no topic is an event of EventSource itself");
    await client.close();
  }],
  ["Chromium and Node: who is there is told behind the list, and goes on after a break", async () => {
    const folder = mkdtempSync(join(tmpdir(), "fantail-sse-"));
    const config = join(folder, "fantail.toml");
    writeFileSync(config, "[[topic]]\npattern = \"people\"\npresence = \"full\"\npresence_grace_seconds = 0\npresence_interval_ms = 100\n");
    const one = await startServer({ env: { ...QUICK, FANTAIL_CONFIG: config } });
    try {
      const at = `http://${one.listen}`;
      const clients = [await InBrowser.open(`${at}/sse/people?presence=1`, ["presence"], { from: at }), await InNode.open(`${at}/sse/people?presence=1`, ["presence"])];
      const listed = async () => (await (await fetch(`http://${one.admin}/presence?topic=people`)).json());
      const told = async (client) => (await client.look()).events.map(([, data]) => JSON.parse(data));
      const known = (events) => events.reduce((ids, { members = [], joined = [], left = [] }) => {
        [...members.map(({ id }) => id), ...joined].forEach((id) => ids.add(id));
        left.forEach((id) => ids.delete(id));
        return ids;
      }, new Set());
      const agreed = () => until("all know who is there", async () => {
        const { count, version, members } = await listed();
        const each = await Promise.all(clients.map(told));
        return count === clients.length && each.every((events) => events.at(-1)?.version === version
          && members.every(({ id }) => known(events).has(id)) && known(events).size === count);
      });
      await agreed();
      const answer = await fetch(`http://${one.admin}/connections/close?topic=people`, { method: "POST" });
      assert.equal((await answer.json()).closed, 2);
      await until("their return", async () => (await Promise.all(clients.map((client) => client.look()))).every(({ open }) => open === 2));
      await agreed();
      for (const client of clients) {
        const events = await told(client);
        assert.deepEqual(events.map(({ members }) => !!members), events.map((_, at) => at === 0), "one list");
        const versions = events.map(({ version }) => Number(version.split(":")[1]));
        assert.deepEqual(versions, versions.map((_, at) => versions[0] + at), "no hole");
        await client.close();
      }
    } finally {
      await one.stop();
      rmSync(folder, { recursive: true });
    }
  }],
  ["Chromium: a page of an allowed origin reads, with credentials, and comes back when there is room", async () => {
    const env = { ...QUICK, FANTAIL_ORIGIN_ALLOWED: ELSEWHERE, FANTAIL_SERVER_CONNECTIONS_MAX: "1" };
    const other = await startServer({ env });
    try {
      const holder = await fetch(`http://${other.listen}/sse/t`, { signal: AbortSignal.timeout(60_000) });
      const client = await InBrowser.open(`http://${other.listen}/sse/t`, [], { from: ELSEWHERE, withCredentials: true });
      await until("it is sent away", async () => (await client.look()).errors.length > 1);
      assert.notEqual((await client.look()).state, 2, "for now, not for good");
      await holder.body.cancel();
      await untilReads(client, other, "t");
      await client.close();
    } finally {
      await other.stop();
    }
  }],
  ["Chromium: a page of another origin may not read", async () => {
    const client = await InBrowser.open(`http://${server.listen}/sse/t`, [], { from: ELSEWHERE });
    await until("it gives up", async () => (await client.look()).state === 2);
    assert.equal((await client.look()).open, 0);
    await client.close();
  }],
], async () => {
  await browser.close();
  elsewhere.close();
  await server.stop();
});
