// npm's ws: subscribers in a Set, as its README does a broadcast. NODE_PATH's place is told by WS_MODULE.
const { WebSocketServer } = await import(process.env.WS_MODULE);
const deflate = process.env.WS_DEFLATE === "1";
const subscribers = new Set();
const server = new WebSocketServer({ host: "127.0.0.1", port: Number(process.argv[2]), perMessageDeflate: deflate });
server.on("connection", (socket) => {
  subscribers.add(socket);
  socket.on("error", () => {});
  socket.on("close", () => subscribers.delete(socket));
  socket.on("message", (data) => subscribers.forEach((one) => one.send(data)));
});
