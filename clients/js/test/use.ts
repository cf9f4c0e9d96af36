// What an application in TypeScript writes; compiled by package.test.mjs, never run.
import { Fantail, FantailError, connect } from "fantail";
import type { End, Gap, Message, Options, PatternMessage, PatternSubscription, Published, State, Subscription, Transport } from "fantail";
import { Presence } from "fantail/presence";
import type { Changes, PresenceList } from "fantail/presence";

interface Price { bid: number }

const options: Options = {
  getToken: (anew) => (anew ? fetch("/token").then((answer) => answer.text()) : sessionStorage.getItem("token")),
  onWelcome: ({ name }) => console.log(name),
  transports: ["websocket", "sse", "poll"], protocols: ["x"], heartbeat: 5_000, timeout: 1_000, raw: false,
  onState: (state: State, end?: End) => console.log(state, end?.code?.toFixed(), end?.reason?.trim(), end?.retryMs),
  onError: ({ code, topic }) => console.log(code.trim(), topic?.trim()),
  WebSocket: globalThis.WebSocket, fetch: globalThis.fetch,
};
const client: Fantail = connect("https://edge.example.com", options);
const first: Subscription = client.subscribe<Price>("prices/eur", {
  since: "00000000000000aa:7",
  history: 5,
  onMessage: ({ data, offset, time, position, topic }: Message<Price>) => console.log(data.bid.toFixed(), offset + (time ?? 0), position.trim(), topic),
  onGap: ({ kind, oldest }: Gap) => console.log(kind === "expired", oldest.toFixed()),
  onSubscribed: ({ position, recovered }) => console.log(position.trim(), !recovered),
  onError: (error) => console.log(error instanceof FantailError && error.code),
  getState: async (position) => position,
});
const all: PatternSubscription = client.subscribePattern<Price>("prices/*", {
  onMessage: ({ data, offset, topic }: PatternMessage<Price>) => console.log(data.bid.toFixed(), offset?.toFixed(), topic.trim()),
  onGap: ({ topic, kind }: Gap) => console.log(topic.trim(), kind === "dropped"),
  onSubscribed: ({ pattern, again }) => console.log(pattern.trim(), !again),
  onError: (error) => console.log(error),
  getState: async () => {},
});
client.subscribePattern("prices/**", ({ topic }) => console.log(topic.trim(), all.pattern.trim()));
all.close();
client.subscribe("short", ({ data }) => console.log(data));
const published: Published = await client.publish("chat", { text: "hello" });
for (const data of ["text", [1], new Uint8Array(1), new ArrayBuffer(1)]) await client.publish("chat", data);
const over: Transport | null = client.transport;
console.log(first.position?.trim(), published.epoch.trim(), published.offset.toFixed(), over, client.state);
const presence = new Presence();
connect("https://edge.example.com", presence.options(options));
const people: PresenceList<{ typing: boolean }> = presence.follow("room", {
  onChange: ({ joined, left, states }: Changes) => console.log(joined[0]?.trim(), left.length, states.length),
  onError: ({ code }) => console.log(code.trim()),
});
await people.setState({ typing: true }, 5);
console.log(people.members.get("alice")?.typing, people.count.toFixed(), people.self?.trim(), people.live, people.topic);
people.close();
client.wake();
first.close();
client.close();

connect("https://edge.example.com", { getToken: () => undefined });

// @ts-expect-error A number is no token.
connect("https://edge.example.com", { getToken: () => 5 });
// @ts-expect-error A number is no payload.
await client.publish("chat", 5);
// @ts-expect-error There is no such transport.
connect("https://edge.example.com", { transports: ["pigeon"] });
// @ts-expect-error Nor such an option.
connect("https://edge.example.com", { transport: "sse" });
// @ts-expect-error A pattern has no place to begin at.
client.subscribePattern("prices/*", { since: "00000000000000aa:7" });
