#!/usr/bin/env node
// The chat for minutes: many scripted users over WebSockets and HTTP, three in Chromium, one of these over a slow network
// that is cut; meanwhile the edge, the application and PostgreSQL are killed and started again. At the end everybody's
// history must be the database's, with everything that was acknowledged in it, once.
//
//   benches/chat_soak/main.mjs [--users 1000] [--seconds 600] [--rate 10] [--edge 3] [--application 2] [--database 1]
//       [--away 10] [--chat target/release/fantail-chat]
//
// Exit status 1 if anything is wrong, or if the judge does not find what is planted for it.

import { parseArgs } from "node:util";
import { Chat, Postgres, SlowWay, freePort, sleep } from "./processes.mjs";
import { check, judge, readDatabase, readHeads } from "./judge.mjs";
import { open } from "./pages.mjs";
import { User } from "./user.mjs";

const SLOW_ADDRESS = "127.0.0.9";
const ROOM_OF = 50;
const REGISTER_AT_A_TIME = 16;
const SETTLE_MS = 180_000;
const PAGES_MS = 60_000;
// Between one user's first connection and the next one's.
const RAMP_MS = 20;

const { values } = parseArgs({ options: {
  users: { type: "string", default: "1000" }, seconds: { type: "string", default: "600" }, rate: { type: "string", default: "10" },
  edge: { type: "string", default: "3" }, application: { type: "string", default: "2" }, database: { type: "string", default: "1" },
  away: { type: "string", default: "10" }, chat: { type: "string", default: "target/release/fantail-chat" },
} });
const { chat: program, ...numbers } = values;
const asked = Object.fromEntries(Object.entries(numbers).map(([name, value]) => [name, Number(value)]));

const began = performance.now();
const tell = (text) => console.log(`${((performance.now() - began) / 1_000).toFixed(0).padStart(5)} s  ${text}`);

/** Does `work` for each of `all`, so many at a time. */
async function forAll(all, atATime, work) {
  const left = [...all];
  await Promise.all(Array.from({ length: atATime }, async () => { while (left.length) await work(left.shift()); }));
}

/** Users with accounts, each from an address of their own: everybody in the lobby and in one of the small rooms. */
async function makeUsers(url) {
  const users = Array.from({ length: asked.users }, (_, number) => new User(`user${number}`, `127.1.${number >> 7}.${(number & 127) + 1}`, url));
  await forAll(users, REGISTER_AT_A_TIME, (user) => user.register());
  const rooms = Math.ceil(users.length / ROOM_OF);
  const groups = Array.from({ length: rooms }, (_, room) => users.filter((_, number) => number % rooms === room));
  await forAll(groups.map((group, number) => [group, number]), REGISTER_AT_A_TIME, async ([[owner, ...others], number]) => {
    const room = await owner.makeRoom(`room number ${number}`);
    for (const user of others) await user.join(room);
  });
  return users;
}

/** What is ended when: the kinds take turns over the whole time. */
function plan() {
  const left = { edge: asked.edge, application: asked.application, database: asked.database };
  const all = [];
  while (Object.values(left).some((count) => count > 0)) {
    for (const kind of Object.keys(left)) if (left[kind]-- > 0) all.push(kind);
  }
  return all.map((kind, number) => [kind, ((number + 1) * asked.seconds * 1_000) / (all.length + 1)]);
}

async function disturb({ chat, postgres, ways }, isOver) {
  const start = performance.now();
  const cuts = async () => {
    for (let at = asked.seconds / 8; !isOver(); at += asked.seconds / 6) {
      while (performance.now() - start < at * 1_000 && !isOver()) await sleep(200);
      if (isOver()) return;
      tell("carol's network is cut");
      await Promise.all(ways.map((way) => way.cut(asked.away * 1_000)));
    }
  };
  const cutting = cuts();
  for (const [kind, at] of plan()) {
    await sleep(Math.max(0, start + at - performance.now()));
    tell(`the ${kind} ends`);
    if (kind === "edge" && !chat.killEdge()) throw new Error("there is no edge to kill");
    if (kind === "application") {
      await chat.kill();
      await chat.start();
    }
    if (kind === "database") {
      postgres.stop();
      await sleep(asked.away * 1_000);
      await postgres.start();
    }
  }
  await sleep(Math.max(0, start + asked.seconds * 1_000 - performance.now()));
  await cutting;
}

/** Until everybody has said everything and knows how far the rooms have come. Says who does not, if it takes too long. */
async function settle(users, pages, postgres) {
  const start = performance.now();
  for (;;) {
    const heads = readHeads(postgres);
    const behind = users.filter((user) => user.isBusy || !user.isUp || [...user.rooms.values()].some((room) => room.change !== heads.get(room.id)));
    const states = await Promise.all(pages.map((page) => page.state()));
    const waiting = pages.filter((_, number) => states[number].sending || states[number].state !== "online");
    if (behind.length + waiting.length === 0) return;
    if (performance.now() - start > SETTLE_MS) {
      const some = behind.slice(0, 5).map((user) => `${user.name} (${user.isBusy ? "asking" : user.isUp ? "behind" : "away"})`);
      throw new Error(`${behind.length} users are not done, such as ${some}; ${waiting.length} pages are not: ${JSON.stringify(states.map(({ sending, state }) => [sending, state]))}`);
    }
    await sleep(500);
  }
}

/** What the judge says; as long as only pages are behind, they have a while to ask for what they missed and to show it. */
async function compare(users, all, postgres) {
  const database = readDatabase(postgres);
  for (const start = performance.now(); ; await sleep(1_000)) {
    const states = await Promise.all(all.map((page) => page.state()));
    const pages = all.map(({ name, said }, number) => ({ name, said, shown: states[number].shown }));
    const faults = judge(database, users, pages);
    if (!faults.length || performance.now() - start > PAGES_MS || judge(database, users, []).length) return { database, pages, faults };
  }
}

const sum = (users, name) => users.reduce((total, user) => total + user.counts[name], 0);

async function main() {
  const postgres = new Postgres();
  const ends = [() => postgres.remove()];
  try {
    await postgres.start();
    const chat = new Chat(program, postgres.url, await freePort(), await freePort());
    ends.push(() => chat.kill());
    await chat.start();
    const ways = [chat.port, chat.edgePort].map((port) => new SlowWay(SLOW_ADDRESS, port));
    await Promise.all(ways.map((way) => way.ready));
    ends.push(() => ways.forEach((way) => way.close()));
    tell(`PostgreSQL in ${postgres.folder}, the chat at ${chat.url}`);
    const users = await makeUsers(chat.url);
    tell(`${users.length} accounts`);
    ends.push(() => users.forEach((user) => user.end()));
    const three = await open(chat.url, `http://${SLOW_ADDRESS}:${chat.port}`);
    ends.push(() => three.close());
    for (const page of three.pages) await page.register();
    tell("three pages");
    for (const user of users) {
      user.live();
      await sleep(RAMP_MS);
    }
    for (const start = performance.now(); users.some((user) => !user.isUp); await sleep(500)) {
      if (performance.now() - start > SETTLE_MS) throw new Error(`${users.filter((user) => !user.isUp).length} users have not come in\n${chat.log.slice(-5_000)}`);
    }
    tell("everybody is there");

    let isOver = false;
    const speaking = (async () => {
      while (!isOver) {
        users[Math.floor(Math.random() * users.length)].speak().catch(() => {});
        await sleep((-Math.log(1 - Math.random()) * 1_000) / asked.rate);
      }
    })();
    const typing = three.pages.map(async (page) => {
      while (!isOver) {
        await page.speak();
        await sleep(2_000 + Math.random() * 4_000);
      }
    });
    for (const one of typing) one.catch(() => {});
    const disturbing = disturb({ chat, postgres, ways }, () => isOver).catch((error) => error);
    await Promise.race([disturbing, sleep(asked.seconds * 1_000)]);
    isOver = true;
    const trouble = await disturbing;
    if (trouble) throw new Error(`${trouble.stack}\n${chat.log.slice(-5_000)}`);
    await Promise.all([speaking, ...typing]);
    tell("nobody says anything more");
    await settle(users, three.pages, postgres);
    tell("everybody is as far as the database");
    const { database, pages, faults } = await compare(users, three.pages, postgres);
    faults.push(...three.complaints);
    const missed = check(database, users, pages);
    const said = users.reduce((total, user) => total + user.acknowledged.size, 0);
    const typed = pages.reduce((total, page) => total + page.said.length, 0);
    tell(`${said} messages acknowledged to users and ${typed} to pages, ${sum(users, "edits")} edits, ${sum(users, "deletions")} deletions; `
      + `${sum(users, "heard")} heard live, ${sum(users, "syncs")} times asked for what was missed, ${sum(users, "connects")} connections, ${sum(users, "retries")} requests tried again`);
    for (const text of faults) console.log(`FAULT ${text}`);
    for (const text of missed) console.log(`NOT FOUND ${text}`);
    if (faults.length + missed.length) console.log(chat.log.slice(-5_000));
    tell(faults.length + missed.length ? "something is wrong" : "nothing acknowledged lost, nothing twice, every history is the database's");
    return faults.length + missed.length ? 1 : 0;
  } finally {
    for (const end of ends.reverse()) await Promise.resolve().then(end).catch((error) => console.error(String(error)));
  }
}

// What was started ends with this, too, if it is told to end.
for (const signal of ["SIGTERM", "SIGINT"]) process.once(signal, () => process.exit(130));
process.exitCode = await main().catch((error) => { console.error(error); return 1; });
// Timers of users who wait for nothing any more.
process.exit();
