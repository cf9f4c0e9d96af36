// npm's ws: subscribers in a Set, as its README does a broadcast. Where the module is, WS_MODULE tells. Arguments:
// port, and for TLS the files of certificate and key.
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { createServer as createTlsServer } from "node:https";

const { WebSocketServer } = await import(process.env.WS_MODULE);
const deflate = process.env.WS_DEFLATE === "1";
const subscribers = new Set();
const [port, cert, key] = process.argv.slice(2);
const web = cert ? createTlsServer({ cert: readFileSync(cert), key: readFileSync(key) }) : createServer();
const server = new WebSocketServer({ server: web, perMessageDeflate: deflate });
web.listen(Number(port), "127.0.0.1");
server.on("connection", (socket) => {
  subscribers.add(socket);
  socket.on("error", () => {});
  socket.on("close", () => subscribers.delete(socket));
  socket.on("message", (data) => subscribers.forEach((one) => one.send(data)));
});
