// Servers that presets of the load generator are checked against: `node servers.mjs socketio` or `graphql-ws`. Each
// listens on a free port, says so on its standard output, and lives until SIGTERM, of which it tells its clients.
// Heartbeats are much quicker than by default.

import { createServer } from 'node:http';
import { buildSchema } from 'graphql';
import { useServer } from 'graphql-ws/use/ws';
import { Server } from 'socket.io';
import { WebSocketServer } from 'ws';

const PING_MS = 300;

const http = createServer((_, answer) => answer.writeHead(404).end());
let stop = () => {};

// One queue for each subscription, so that nothing is lost between two turns of its iterator.
function pubsub() {
  const topics = new Map();
  return {
    publish(topic, data) {
      for (const push of topics.get(topic) ?? []) push(data);
    },
    async *subscribe(topic) {
      const waiting = [];
      let wake = () => {};
      const push = (data) => {
        waiting.push(data);
        wake();
      };
      if (!topics.has(topic)) topics.set(topic, new Set());
      topics.get(topic).add(push);
      try {
        for (;;) {
          while (waiting.length > 0) yield { messages: waiting.shift() };
          await new Promise((resolve) => (wake = resolve));
        }
      } finally {
        topics.get(topic).delete(push);
      }
    },
  };
}

const kinds = {
  socketio() {
    const io = new Server(http, { pingInterval: PING_MS, pingTimeout: PING_MS });
    stop = () => io.close();
    io.use((socket, next) => {
      // A token is asked for, as applications do.
      next(socket.handshake.auth.token === 'sesame' ? undefined : new Error('no token'));
    });
    io.on('connection', (socket) => {
      socket.on('join', (topic) => socket.join(topic));
      socket.on('say', (topic, text) => io.to(topic).emit('said', topic, text));
    });
  },
  'graphql-ws'() {
    const { publish, subscribe } = pubsub();
    const schema = buildSchema(`
      type Query { ok: Boolean }
      type Mutation { publish(topic: String!, data: String!): Boolean }
      type Subscription { messages(topic: String!): String }
    `);
    const roots = {
      query: { ok: true },
      mutation: {
        publish: ({ topic, data }) => {
          publish(topic, data);
          return true;
        },
      },
      subscription: { messages: ({ topic }) => subscribe(topic) },
    };
    const server = new WebSocketServer({ server: http, path: '/graphql' });
    const onConnect = ({ connectionParams }) => connectionParams?.token === 'sesame';
    const { dispose } = useServer({ schema, roots, onConnect }, server, PING_MS);
    stop = dispose;
  },
};

const kind = kinds[process.argv[2]];
if (!kind) {
  console.error(`one of ${Object.keys(kinds).join(', ')}`);
  process.exit(2);
}
kind();
process.on('SIGTERM', async () => {
  await stop();
  process.exit(0);
});
http.listen(0, '127.0.0.1', () => console.log(`ready listen=127.0.0.1:${http.address().port}`));
