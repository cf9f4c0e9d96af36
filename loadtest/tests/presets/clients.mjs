// The clients that the makers of three protocols publish, so that fakes and presets can be held to what they say and
// understand: `node clients.mjs pusher|centrifugo|phoenix WS-URL CREDENTIAL...`. Two of them join a channel, one says a
// hundred messages, the other hears them; both live through several heartbeats; then one with a wrong credential comes.
// One line of JSON tells what they saw.

import { createHmac } from 'node:crypto';
import { Centrifuge } from 'centrifuge';
import { Socket } from 'phoenix';
import Pusher from 'pusher-js';
import WebSocket from 'ws';

const MESSAGES = 100;
const BEATS_MS = 3_000;
const [kind, url, ...credentials] = process.argv.slice(2);
const heard = [];
let ends = 0;

const texts = Array.from({ length: MESSAGES }, (_, index) => `m${index}`);
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
async function until(condition) {
  for (let waited = 0; !condition(); waited += 10) {
    if (waited > 60_000) throw new Error('waited for too long');
    await sleep(10);
  }
}

// Each makes a client that has joined and says what it hears, with how it speaks and how it ends.
const kinds = {
  async pusher(hear, [key, secret]) {
    const { hostname, port } = new URL(url);
    const customHandler = ({ socketId, channelName }, done) => {
      const signed = createHmac('sha256', secret).update(`${socketId}:${channelName}`).digest('hex');
      done(null, { auth: `${key}:${signed}` });
    };
    const client = new Pusher(key, {
      wsHost: hostname,
      wsPort: Number(port),
      forceTLS: false,
      enabledTransports: ['ws'],
      cluster: '',
      channelAuthorization: { customHandler },
    });
    client.connection.bind('state_change', ({ previous }) => {
      if (previous === 'connected') ends += 1;
    });
    const channel = client.subscribe('private-load');
    channel.bind('client-load', hear);
    const errors = [];
    client.connection.bind('error', ({ data }) => data && errors.push(data.code));
    await new Promise((resolve, reject) => {
      channel.bind('pusher:subscription_succeeded', resolve);
      client.connection.bind('disconnected', () => reject(new Error(String(errors[0]))));
    });
    return { say: (text) => channel.trigger('client-load', text), end: () => client.disconnect() };
  },
  async centrifugo(hear, [token]) {
    const client = new Centrifuge(`${url}/connection/websocket`, { token, websocket: WebSocket });
    client.on('connecting', ({ code }) => (ends += Number(code !== 0)));
    const subscription = client.newSubscription('load');
    subscription.on('publication', ({ data }) => hear(data.text));
    await new Promise((resolve, reject) => {
      subscription.on('subscribed', resolve);
      client.on('disconnected', ({ code, reason }) => reject(new Error(`${code} ${reason}`)));
      subscription.subscribe();
      client.connect();
    });
    return { say: (text) => subscription.publish({ text }), end: () => client.disconnect() };
  },
  async phoenix(hear, [token]) {
    const options = { transport: WebSocket, params: { token }, heartbeatIntervalMs: 500, vsn: '2.0.0' };
    const client = new Socket(`${url}/socket`, options);
    let opened = false;
    client.onOpen(() => (opened = true));
    client.onClose(() => (ends += Number(opened)));
    client.connect();
    const channel = client.channel('room:load', {});
    channel.on('said', ({ text }) => hear(text));
    await new Promise((resolve, reject) => {
      client.onError(() => reject(new Error('not let in')));
      channel.join().receive('ok', resolve).receive('error', ({ reason }) => reject(new Error(reason)));
    });
    return {
      say: (text) => channel.push('say', { text }),
      end: () => {
        ends = Number.NEGATIVE_INFINITY;
        client.disconnect();
      },
    };
  },
};

const join = kinds[kind];
const listener = await join((text) => heard.push(text), credentials);
const speaker = await join(() => {}, credentials);
for (const text of texts) await speaker.say(text);
await until(() => heard.length >= MESSAGES);
await sleep(BEATS_MS);
const stayed = ends === 0;
for (const client of [listener, speaker]) client.end();
const refused = await join(() => {}, [...credentials.slice(0, -1), 'wrong']).then(
  () => null,
  (error) => error.message,
);
console.log(JSON.stringify({ heard: heard.length, inOrder: String(heard) === String(texts), stayed, refused }));
process.exit(0);
