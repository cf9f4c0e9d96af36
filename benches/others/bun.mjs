// Bun's own server, each connection subscribed to one of its topics. Arguments: port, and for TLS the files of
// certificate and key.
const [port, cert, key] = process.argv.slice(2);
Bun.serve({
  hostname: "127.0.0.1",
  port: Number(port),
  tls: cert && { cert: Bun.file(cert), key: Bun.file(key) },
  fetch: (request, server) => (server.upgrade(request) ? undefined : new Response("no", { status: 400 })),
  websocket: {
    idleTimeout: 0,
    open: (socket) => socket.subscribe("study"),
    message: (socket, data) => socket.publish("study", data),
  },
});
