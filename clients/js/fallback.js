// Transports for networks that block WebSockets: event streams and long polls, both over fetch. They say the same objects
// as the server does over a WebSocket, and can't publish. Own their requests, and nothing that outlives `close`.

// As many topics as one stream takes.
const TOPICS_MAX = 16;
const POLL_SECONDS = 20;
// Streams have a comment each 15 s, polls are answered each 20 s.
const QUIET_MAX_MS = 45_000;
// A poll that brings nothing new sooner than this is no long poll.
const EMPTY_MS = 1_000;
// An event, or the answer to a poll; the largest message is smaller, however it is written.
const SIZE_MAX = 64 << 20;
// Browsers open six connections to a server over HTTP/1.1, and something is to be left of them.
const REQUESTS_MAX = 5;
// Whatever the reason, the connection is down; it is told nobody.
const FAILED = new Error();

// What is asked for, once or again and again, until it is not wanted any more or nothing has come for too long. Its end is
// that of the connection, unless it was wished for.
function exchange({ fetch, base, token }, on) {
  const over = new AbortController();
  let reader;
  let timer;
  let isWished = false;
  // Both: Node 20 was seen to forget the signal of a request whose body is being read.
  const stop = () => {
    over.abort();
    reader?.cancel().catch(() => {});
  };
  const heard = () => {
    clearTimeout(timer);
    timer = setTimeout(stop, QUIET_MAX_MS);
  };
  const end = (why) => {
    clearTimeout(timer);
    if (!isWished) on.down(why);
  };
  return {
    async ask(path, headers) {
      heard();
      if (token) headers = { ...headers, Authorization: `Bearer ${token}` };
      // Redirects are not followed, as they are not for a WebSocket: one try is one request.
      const answer = await fetch(`${base}/${path}`, { headers, signal: over.signal, cache: "no-store", redirect: "error" });
      const { status } = answer;
      const retryMs = parseInt(answer.headers.get("retry-after")) * 1_000 || 0;
      // The server's own word, rather than that of what is in between; 429 and 503 say when.
      if (retryMs || status === 401 || status === 403) {
        end({ code: status, retryMs });
        throw FAILED;
      }
      return answer;
    },

    // Gives the body of an answer to `take`, piece by piece.
    async read(answer, take) {
      const decoder = new TextDecoder();
      reader = answer.body.getReader();
      for (;;) {
        const { value, done } = await reader.read();
        if (done) return;
        heard();
        take(decoder.decode(value, { stream: true }));
      }
    },

    run(work) { work.then((retryMs) => end({ retryMs }), () => end()); },

    abort() {
      isWished = true;
      end();
      stop();
    },
  };
}

/** Subscriptions as event streams, as few as can be. */
export function eventStream(options, on) {
  // Each with the topics that are still wanted of it.
  const streams = new Map();
  let waiting = [];
  // Whether there is one more stream than topics ask for.
  let patterns = false;

  function open(topics) {
    const [{ since, history }] = topics;
    const more = since ? `&since=${topics.map((one) => one.since)}` : history ? `&history=${history}` : "";
    const path = `sse/${topics.map(({ topic }) => encodeURIComponent(topic)).join("&topic=")}${more}`.replace("&", "?");
    const request = exchange(options, on);
    streams.set(request, new Set(topics.map(({ topic }) => topic)));
    request.run(read(on, request, path, topics, options.raw));
  }

  function begin(topics) {
    if (!topics.length) setTimeout(on.up);
    // One list of positions is for all topics of a stream.
    const groups = {};
    patterns ||= topics.some(isPattern);
    for (const one of topics) {
      const key = isPattern(one) ? "*" : one.since ? ":" : one.history;
      (groups[key] ??= []).push(one);
    }
    for (const group of Object.values(groups)) {
      for (let at = 0; at < group.length; at += TOPICS_MAX) open(group.slice(at, at + TOPICS_MAX));
    }
  }

  return {
    begin,
    // What is asked for together shares a stream.
    add(one) {
      if (waiting.push(one) > 1) return;
      setTimeout(() => {
        const topics = waiting;
        waiting = [];
        const all = [...streams.values()].reduce((sum, { size }) => sum + size, topics.length);
        // Many small streams become few large ones, when the connection comes back.
        if (streams.size >= REQUESTS_MAX && all / TOPICS_MAX < streams.size - patterns) on.down();
        else if (topics.length) begin(topics);
      });
    },
    remove({ topic }) {
      waiting = waiting.filter((one) => one.topic !== topic);
      for (const [request, names] of streams) {
        if (!names.delete(topic) || names.size) continue;
        streams.delete(request);
        request.abort();
      }
    },
    close() {
      waiting = [];
      for (const request of streams.keys()) request.abort();
    },
  };
}

// Reads one stream to its end and gives the time to come back after, if the server said one.
async function read(on, request, path, topics, raw) {
  const answer = await request.ask(path, { Accept: "text/event-stream" });
  // Streams of patterns have no places, and their messages no ids.
  const patterns = topics.filter(isPattern).map(({ topic }) => topic);
  // Where the stream begins, in the order of the URL.
  const places = answer.headers.get("fantail-position")?.split(",").map(place);
  // A server that has no patterns is of use for topics.
  if (patterns.length && answer.status === 400) {
    on.up();
    refuse(on, topics);
    return request.abort();
  }
  if (answer.status !== 200 || !patterns.length && places?.length !== topics.length) throw FAILED;
  on.up();
  topics.forEach(({ topic, id }, at) => {
    const [epoch, offset] = places?.[at] ?? [];
    on.said({ type: "subscribed", id, topic, epoch, offset });
  });
  let event = {};
  let rest = "";
  let size = 0;
  let retryMs;
  await request.read(answer, (text) => {
    on.up();
    size += text.length;
    if (size > SIZE_MAX) throw FAILED;
    rest += text;
    if (!text.includes("\n")) return;
    const lines = rest.split("\n");
    rest = lines.pop();
    for (const line of lines) {
      if (line) field(event, line);
      else {
        retryMs = parseInt(event.retry) || retryMs;
        tell(on, event, topics, patterns, raw);
        event = {};
        size = rest.length;
      }
    }
  });
  // What is cut off in the middle is no event.
  return retryMs;
}

function tell(on, { event = "", data, id }, topics, patterns, raw) {
  if (data === undefined) return;
  if (event === "gap") {
    const gap = JSON.parse(data);
    on.said({ type: "gap", topic: gap.topic, gap, patterns });
    return;
  }
  const [, kind, name] = /^(topic|binary)?:?(.*)$/s.exec(event);
  const topic = name || topics[0].topic;
  const at = topics.findIndex((one) => one.topic === topic);
  // Whatever other events there may be one day.
  if ((patterns.length ? !name : at < 0) || (event && !kind)) return;
  const [epoch, offset] = patterns.length ? [] : place(id?.split(",")[at]);
  const binary = kind === "binary";
  on.said({ type: "message", topic, epoch, offset, patterns, ...(binary ? { data_base64: data } : { data: raw ? data : documentOr(data) }) }, data.length);
}

function field(event, line) {
  const [, name, value] = /^([^:]*):? ?(.*)$/s.exec(line);
  if (name === "data" && event.data !== undefined) event.data += `\n${value}`;
  else if (name) event[name] = value;
}

function refuse(on, patterns) {
  for (const { id } of patterns) on.said({ type: "error", id, code: "not_possible" });
}

function isPattern({ topic }) {
  return topic.includes("*");
}

/** Subscriptions as long polls, one for each. */
export function longPoll(options, on) {
  const polls = new Map();

  async function follow({ topic, id, since }, request) {
    let at = since;
    for (;;) {
      const asked = performance.now();
      // The first one only asks where it begins. Where there are more than a browser asks at a time, they take turns.
      const seconds = Math.ceil(POLL_SECONDS / Math.ceil(polls.size / REQUESTS_MAX));
      const answer = await request.ask(`poll/${encodeURIComponent(topic)}?${at === undefined ? "wait=0" : `since=${at}&wait=${seconds}`}`);
      const next = answer.headers.get("fantail-position");
      const [epoch, offset] = place(next);
      let text = "";
      if (answer.status === 200) {
        await request.read(answer, (part) => {
          text += part;
          if (text.length > SIZE_MAX) throw FAILED;
        });
      }
      const { messages, gap } = text ? JSON.parse(text) : { messages: [] };
      on.up();
      if (id !== undefined) {
        on.said({ type: "subscribed", id, topic, epoch, offset: messages[0] ? messages[0].offset - 1 : offset, gap });
        id = undefined;
      } else if (gap) on.said({ type: "gap", topic, gap });
      for (const message of messages) on.said({ ...message, type: "message", topic, epoch }, text.length / messages.length);
      if (next === at && performance.now() - asked < EMPTY_MS) throw FAILED;
      at = next;
    }
  }

  function add(one) {
    if (isPattern(one)) {
      setTimeout(() => refuse(on, [one]));
      return;
    }
    const request = exchange(options, on);
    remove(one);
    polls.set(one.topic, request);
    request.run(follow(one, request));
  }

  function remove({ topic }) {
    polls.get(topic)?.abort();
    polls.delete(topic);
  }

  return {
    begin(topics) {
      if (topics.every(isPattern)) setTimeout(on.up);
      topics.forEach(add);
    },
    add,
    remove,
    close() {
      for (const request of polls.values()) request.abort();
    },
  };
}

/** Epoch and offset of a position; throws where it is none. */
export function place(text) {
  const [, epoch, offset] = /^(\w{1,64}):(\d{1,15})$/.exec(text) ?? [];
  if (!epoch) throw new TypeError("no position");
  return [epoch, Number(offset)];
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
