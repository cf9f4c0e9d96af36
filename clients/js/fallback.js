// Transports for networks that block WebSockets: event streams and long polls, both over fetch. They say the same objects
// as the server does over a WebSocket, and can't publish. Own their requests, and nothing that outlives `close`.

// As many topics as one stream takes.
const TOPICS_MAX = 16;
const POLL_SECONDS = 20;

/** Subscriptions as event streams, as few as can be. */
export function eventStream(on) {
  const streams = new Set();
  let ended = false;

  function open(topics) {
    const names = topics.map(({ topic }) => topic);
    const [path, ...more] = names.map(encodeURIComponent);
    const query = more.map((name) => `topic=${name}`);
    if (topics[0].since) query.push(`since=${topics.map(({ since }) => since).join()}`);
    else if (topics[0].history) query.push(`history=${topics[0].history}`);
    const stream = new AbortController();
    streams.add(stream);
    read(on, `sse/${path}${query.length ? `?${query.join("&")}` : ""}`, stream, topics).then(
      (retryMs) => { if (!ended) on.down(undefined, retryMs); },
      () => { if (!ended) on.down(); },
    );
  }

  function begin(topics) {
    if (!topics.length) setTimeout(on.up);
    // One list of positions is for all topics of a stream.
    const groups = new Map();
    for (const one of topics) {
      const key = one.since ? "since" : `history ${one.history}`;
      groups.set(key, [...(groups.get(key) ?? []), one]);
    }
    for (const group of groups.values()) {
      for (let at = 0; at < group.length; at += TOPICS_MAX) open(group.slice(at, at + TOPICS_MAX));
    }
  }

  return {
    begin,
    add: (one) => open([one]),
    // What still comes is nobody's; the stream goes with the next connection.
    remove() {},
    // Nothing can be asked over a stream; a new one costs little.
    probe: () => on.down(undefined, 0),
    close() {
      ended = true;
      for (const stream of streams) stream.abort();
    },
  };
}

// Reads one stream to its end and gives the time to come back after, if the server said one.
async function read(on, path, { signal }, topics) {
  const headers = { Accept: "text/event-stream" };
  const answer = await on.options.fetch(`${on.options.base}/${path}`, { headers, signal, cache: "no-store" });
  if (answer.status !== 200) throw new Error(`status ${answer.status}`);
  // Where the stream begins, in the order of the URL.
  const places = answer.headers.get("fantail-position")?.split(",").map(place);
  if (places?.length !== topics.length) throw new Error("no position");
  on.up();
  topics.forEach(({ topic, id }, at) => {
    const [epoch, offset] = places[at];
    on.said({ type: "subscribed", id, topic, epoch, offset });
  });
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let retryMs;
  for (;;) {
    const { value, done } = await reader.read();
    const blocks = (rest + (value ?? "")).split("\n\n");
    rest = done ? "" : blocks.pop();
    for (const block of blocks) {
      const event = fields(block);
      if (event.retry) retryMs = Number(event.retry);
      // What is cut off in the middle is no event.
      if (!done) tell(on, event, topics);
    }
    if (done) return retryMs;
    on.heard();
  }
}

function tell(on, { event = "", data, id }, topics) {
  if (data === undefined) return;
  if (event === "gap") {
    const { topic, ...gap } = JSON.parse(data);
    on.said({ type: "gap", topic, gap });
    return;
  }
  const [, kind, name] = /^(?:(topic|binary):)?(.*)$/s.exec(event);
  const topic = kind ? name : topics[0].topic;
  const at = topics.findIndex((one) => one.topic === topic);
  const [epoch, offset] = place(id?.split(",")[at] ?? "");
  if (!epoch) return;
  const binary = kind === "binary" || event === "binary";
  on.said({ type: "message", topic, epoch, offset, ...(binary ? { data_base64: data } : { data: documentOr(data) }) });
}

function fields(block) {
  const event = {};
  for (const line of block.split("\n")) {
    const [, name, value] = /^([^:]*):? ?(.*)$/.exec(line);
    if (name === "data" && event.data !== undefined) event.data += `\n${value}`;
    else if (name) event[name] = value;
  }
  return event;
}

/** Subscriptions as long polls, one for each. */
export function longPoll(on) {
  const all = new AbortController();
  const polls = new Map();

  async function follow({ topic, id, since }, { signal }) {
    let at = since;
    for (;;) {
      // The first one only asks where it begins.
      const query = at === undefined ? "wait=0" : `since=${at}&wait=${POLL_SECONDS}`;
      const url = `${on.options.base}/poll/${encodeURIComponent(topic)}?${query}`;
      const answer = await on.options.fetch(url, { signal, cache: "no-store" });
      if (answer.status !== 200 && answer.status !== 204) throw new Error(`status ${answer.status}`);
      const next = answer.headers.get("fantail-position");
      const body = answer.status === 200 ? await answer.json() : { messages: [] };
      on.up();
      on.heard();
      const [epoch, offset] = place(next);
      if (id !== undefined) {
        const [first] = body.messages;
        const begins = first ? first.offset - 1 : offset;
        on.said({ type: "subscribed", id, topic, epoch, offset: begins, gap: body.gap });
        id = undefined;
      } else if (body.gap) on.said({ type: "gap", topic, gap: body.gap });
      for (const message of body.messages) on.said({ type: "message", topic, epoch, ...message });
      at = next;
    }
  }

  function add(one) {
    const poll = new AbortController();
    all.signal.addEventListener("abort", () => poll.abort());
    polls.set(one.topic, poll);
    follow(one, poll).catch(() => { if (!poll.signal.aborted) on.down(); });
  }

  return {
    begin(topics) {
      if (!topics.length) setTimeout(on.up);
      topics.forEach(add);
    },
    add,
    remove: ({ topic }) => polls.get(topic)?.abort(),
    probe: () => on.down(undefined, 0),
    close: () => all.abort(),
  };
}

function place(text) {
  const at = text.indexOf(":");
  return [text.slice(0, at), Number(text.slice(at + 1))];
}

// As the server does over a WebSocket: objects and lists are JSON, all other text is itself.
function documentOr(text) {
  if (!/^\s*[{[]/.test(text)) return text;
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}
