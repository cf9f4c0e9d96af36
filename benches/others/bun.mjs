// Bun's own server, each connection subscribed to one of its topics.
Bun.serve({
  hostname: "127.0.0.1",
  port: Number(process.argv[2]),
  fetch: (request, server) => (server.upgrade(request) ? undefined : new Response("no", { status: 400 })),
  websocket: {
    idleTimeout: 0,
    open: (socket) => socket.subscribe("study"),
    message: (socket, data) => socket.publish("study", data),
  },
});
