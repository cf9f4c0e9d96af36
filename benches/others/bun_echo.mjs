// Bun's own server as an echo, on one thread.
const server = Bun.serve({
  hostname: "127.0.0.1",
  port: 0,
  fetch: (request, server) => (server.upgrade(request) ? undefined : new Response("no", { status: 400 })),
  websocket: { idleTimeout: 0, message: (socket, data) => void socket.send(data) },
});
console.log(`fantail ready listen=127.0.0.1:${server.port} admin=- pid=${process.pid}`);
