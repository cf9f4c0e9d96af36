"""The server under Python's `websockets` and, where it differs, Tornado, clients it did not write.

Starts the binary (FANTAIL_BIN, else target/release or target/debug), drives it over asyncio and
checks echo, control frames, close codes, limits, a broadcast to many and the graceful stop.
"""

import asyncio
import contextlib
import http.client
import json
import os
import pathlib
import re
import subprocess
import sys
import threading
import time
import unittest

from tornado.websocket import websocket_connect as tornado_connect
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, ConnectionClosedOK, InvalidStatus
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory

ROOT = pathlib.Path(__file__).resolve().parents[2]
MIB = 1024 * 1024
WAIT = 60
MANY = 500

# With FANTAIL_TEST_TLS=1 every client speaks TLS, with `lean` the servers have `tls.lean`, too. Whatever asks OpenSSL or Node
# whom to trust is told of the authority, child processes included.
TLS = os.environ.get("FANTAIL_TEST_TLS")
CERTIFICATES = ROOT / "loadtest/tests/tls/certificates"
if TLS:
    for name in ("SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS", "MOJO_CA_FILE", "WEBSOCKET_CLIENT_CA_BUNDLE",
                 "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        os.environ[name] = str(CERTIFICATES / "ca.pem")


def binary():
    """The server to test."""
    if given := os.environ.get("FANTAIL_BIN"):
        return given
    for kind in ("release", "debug"):
        if (found := ROOT / "target" / kind / "fantail").exists():
            return str(found)
    sys.exit("no target/release/fantail or target/debug/fantail; build one or set FANTAIL_BIN")


class Server:
    """A running server, its two addresses and its log."""

    READY = re.compile(r"^fantail ready listen=(\S+) admin=(\S+) pid=(\d+)(?: tls=(\S+))?$")

    def __init__(self, **settings):
        command = [binary(), "serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]
        if TLS:
            command += ["--tls-listen", "127.0.0.1:0", "--tls-certificate", f"{CERTIFICATES}/server.pem",
                        "--tls-key", f"{CERTIFICATES}/server.key"]
            settings = {"FANTAIL_TLS_LEAN": "true" if TLS == "lean" else "false", **settings}
        self.log = []
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **settings},
        )
        self.ready = threading.Event()
        self.listen = self.admin = None
        self.threads = [
            threading.Thread(target=self._read_stdout, daemon=True),
            threading.Thread(target=self._read_stderr, daemon=True),
        ]
        for thread in self.threads:
            thread.start()
        if not self.ready.wait(WAIT) or self.listen is None:
            self.kill()
            raise AssertionError("no ready line\n" + "".join(self.log[-50:]))

    def _read_stdout(self):
        for line in self.process.stdout:
            if match := self.READY.match(line.rstrip("\n")):
                self.listen, self.admin = match[4] or match[1], match[2]
                self.url = f"{'wss' if TLS else 'ws'}://{self.listen}"
                self.ready.set()
        self.ready.set()

    def _read_stderr(self):
        for line in self.process.stderr:
            self.log.append(line)
            del self.log[:-200]

    def publish(self, topic, body):
        """Publishes through the admin port and returns its JSON answer."""
        connection = http.client.HTTPConnection(self.admin, timeout=WAIT)
        with contextlib.closing(connection):
            connection.request("POST", f"/publish/{topic}", body=body)
            answer = connection.getresponse()
            text = answer.read()
        if answer.status != 200:
            raise AssertionError(f"POST /publish/{topic}: {answer.status} {text!r}")
        return json.loads(text)

    def kill(self):
        """Ends the process if it still runs and closes its pipes."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(WAIT)
        for thread in self.threads:
            thread.join(WAIT)
        self.process.stdout.close()
        self.process.stderr.close()


class WebSockets(unittest.IsolatedAsyncioTestCase):
    """One server for each test, so that a stop in one is not felt by another."""

    async def asyncSetUp(self):
        self.server = await asyncio.to_thread(Server)

    async def asyncTearDown(self):
        await asyncio.to_thread(self.server.kill)

    def client(self, path, **options):
        options = {"max_size": 64 * MIB, "open_timeout": WAIT, "close_timeout": WAIT, "proxy": None, **options}
        return connect(f"{self.server.url}{path}", **options)

    async def publish(self, topic, body):
        return await asyncio.to_thread(self.server.publish, topic, body)

    async def until_subscribed(self, topic, count):
        """Publishes "warm-up" until it reaches `count` subscribers: a client is open before it is listed."""
        deadline = time.monotonic() + WAIT
        while (answer := await self.publish(topic, "warm-up"))["subscribers"] != count:
            self.assertLess(time.monotonic(), deadline, f"{answer} instead of {count} subscribers")

    async def closed(self, socket):
        """Reads until the server closes and returns the close code that came in its frame."""
        async with asyncio.timeout(WAIT):
            with contextlib.suppress(ConnectionClosed):
                while True:
                    await socket.recv()
            await socket.wait_closed()
        return socket.close_code

    async def test_echo_returns_text_and_binary(self):
        for compression in ("deflate", None):
            async with asyncio.timeout(60), self.client("/echo", compression=compression) as socket:
                for message in ("", "hello, 世界 🪭", b"", b"\x00\xff", "x" * MIB, os.urandom(MIB), bytes(16 * MIB)):
                    await socket.send(message)
                    self.assertTrue(await socket.recv() == message, f"{len(message)} came back changed")

    async def test_echo_joins_fragments(self):
        for compression in ("deflate", None):
            async with asyncio.timeout(WAIT), self.client("/echo", compression=compression) as socket:
                await socket.send(["one ", "two ", "", "three"])
                self.assertEqual(await socket.recv(), "one two three")
                await socket.send([b"\x00", b"\x01" * 70_000])
                self.assertEqual(await socket.recv(), b"\x00" + b"\x01" * 70_000)

    async def test_compression_is_accepted_without_context_takeover(self):
        accepted = "permessage-deflate; client_no_context_takeover"
        for options, answer in (
            ({}, accepted),
            ({"extensions": [ClientPerMessageDeflateFactory(server_max_window_bits=15)]},
             accepted + "; server_max_window_bits=15"),
            ({"extensions": [ClientPerMessageDeflateFactory(server_max_window_bits=9)]},
             accepted + "; server_max_window_bits=9"),
            ({"extensions": [ClientPerMessageDeflateFactory(server_no_context_takeover=True)]},
             "permessage-deflate; server_no_context_takeover; client_no_context_takeover"),
            ({"compression": None}, None),
        ):
            async with asyncio.timeout(WAIT), self.client("/echo", **options) as socket:
                self.assertEqual(socket.response.headers.get("Sec-WebSocket-Extensions"), answer)
                for message in ("", "x", "hello " * 80, "hello " * 1000, b"\x00" * 100_000):
                    await socket.send(message)
                    self.assertEqual(await socket.recv(), message)

    def metric(self, name):
        connection = http.client.HTTPConnection(self.server.admin, timeout=WAIT)
        with contextlib.closing(connection):
            connection.request("GET", "/metrics")
            lines = connection.getresponse().read().decode().splitlines()
        return sum(int(line.split()[-1]) for line in lines if line.startswith((f"{name} ", f"{name}{{")))

    async def test_a_small_window_is_kept_over_many_messages(self):
        # Its decoder goes on from message to message with a window of 512 bytes.
        small = [ClientPerMessageDeflateFactory(server_max_window_bits=9)]
        async with asyncio.timeout(WAIT), self.client("/ws/lobby", extensions=small) as socket:
            await self.until_subscribed("lobby", 1)
            bodies = [json.dumps([{"id": n, "row": i} for n in range(2 + i % 40)]) for i in range(200)]
            for body in bodies:
                await self.publish("lobby", body)
            self.assertEqual(await self.take(socket, len(bodies)), bodies)
        self.assertGreater(await asyncio.to_thread(self.metric, "fantail_deflate_messages_total"), 50)

    async def test_a_client_that_keeps_its_context_is_understood(self):
        # Tornado agrees to begin each message anew and refers to the ones before all the same.
        socket = await tornado_connect(f"{self.server.url}/echo", compression_options={})
        async with asyncio.timeout(WAIT):
            for i in range(50):
                message = json.dumps([{"id": n, "name": f"row {n} of {i}"} for n in range(20)])
                await socket.write_message(message)
                self.assertEqual(await socket.read_message(), message)
            self.assertGreater(await asyncio.to_thread(self.metric, "fantail_deflate_context_bytes"), 1000)
            socket.close(1000)
            while await socket.read_message() is not None:
                pass
            self.assertEqual(socket.close_code, 1000)
        # Nothing is kept of one that holds to it.
        async with asyncio.timeout(WAIT), self.client("/echo") as socket:
            for i in range(3):
                await socket.send(f"a message like others, {i}")
                await socket.recv()
            while await asyncio.to_thread(self.metric, "fantail_deflate_context_bytes"):
                await asyncio.sleep(0.01)

    async def test_too_much_when_inflated_closes_1009_and_bad_text_1007(self):
        for path, limit in (("/echo", 16 * MIB), ("/ws/lobby", MIB)):
            socket = await self.client(path)
            async with asyncio.timeout(WAIT):
                await socket.send(bytes(limit + 1))
            self.assertEqual(await self.closed(socket), 1009)
            async with self.client(path) as socket:
                await socket.send(b"hi\xc3\x28", text=True)
                self.assertEqual(await self.closed(socket), 1007)

    async def test_a_broadcast_is_the_same_with_and_without_compression(self):
        async with asyncio.timeout(60), contextlib.AsyncExitStack() as stack:
            sockets = [
                await stack.enter_async_context(self.client("/ws/lobby", compression=("deflate", None)[i % 2]))
                for i in range(20)
            ]
            await self.until_subscribed("lobby", len(sockets))
            bodies = ["small"] + [json.dumps([{"id": n, "name": f"row {i}"} for n in range(100)]) for i in range(20)]
            for body in bodies:
                await self.publish("lobby", body)
            await sockets[0].send(bodies[1])
            for socket in sockets:
                self.assertEqual(await self.take(socket, len(bodies) + 1), bodies + [bodies[1]])

    async def test_ping_is_answered(self):
        async with asyncio.timeout(WAIT), self.client("/ws/lobby") as socket:
            for payload in (b"", b"p" * 125):
                await (await socket.ping(payload))

    async def test_close_codes_come_back(self):
        for path in ("/echo", "/ws/lobby"):
            for code in (1000, 3000, 4999):
                async with asyncio.timeout(WAIT), self.client(path) as socket:
                    await socket.close(code, "bye")
                    self.assertEqual(socket.protocol.close_rcvd.code, code)
                    self.assertTrue(socket.protocol.close_rcvd_then_sent is False, "the client closed first")

    async def test_too_big_closes_1009(self):
        for path, limit in (("/echo", 16 * MIB), ("/ws/lobby", MIB)):
            # Not `async with`: its exit aborts a transport that is gone once the server has closed.
            socket = await self.client(path, compression=None)
            with contextlib.suppress(ConnectionClosed):
                async with asyncio.timeout(WAIT):
                    await socket.send(bytes(limit + 1))
            self.assertEqual(await self.closed(socket), 1009)

    async def test_text_that_is_not_utf8_closes_1007(self):
        for path in ("/echo", "/ws/lobby"):
            async with self.client(path, compression=None) as socket:
                await socket.send(b"hi\xc3\x28", text=True)
                self.assertEqual(await self.closed(socket), 1007)

    async def test_publishing_where_clients_may_not_closes_1008(self):
        async with self.client("/ws/news") as socket:
            async with asyncio.timeout(WAIT):
                for _ in range(50):
                    await socket.send("not for anybody")
                await (await socket.ping())
                with contextlib.suppress(ConnectionClosed):
                    for _ in range(60):
                        await socket.send("not for anybody")
            self.assertEqual(await self.closed(socket), 1008)

    async def test_unknown_path_answers_404(self):
        with self.assertRaises(InvalidStatus) as caught:
            async with asyncio.timeout(WAIT), self.client("/nothing-here"):
                pass
        self.assertEqual(caught.exception.response.status_code, 404)

    async def test_many_connections_receive_each_message_once_in_order(self):
        async with asyncio.timeout(90), contextlib.AsyncExitStack() as stack:
            gate = asyncio.Semaphore(50)

            async def enter():
                async with gate:
                    return await stack.enter_async_context(self.client("/ws/lobby", compression=None))

            sockets = await asyncio.gather(*(enter() for _ in range(MANY)))
            await self.until_subscribed("lobby", MANY)
            answers = [await self.publish("lobby", f"broadcast {i}") for i in range(10)]
            self.assertEqual({answer["subscribers"] for answer in answers}, {MANY})
            first = answers[0]["offset"]
            self.assertEqual([answer["offset"] for answer in answers], list(range(first, first + 10)))
            await sockets[0].send("from a client")
            expected = [f"broadcast {i}" for i in range(10)] + ["from a client"]
            for received in await asyncio.gather(*(self.take(socket, len(expected)) for socket in sockets)):
                self.assertEqual(received, expected)
            await asyncio.gather(*(socket.close() for socket in sockets))
            self.assertEqual({socket.close_code for socket in sockets}, {1000})
            await self.until_subscribed("lobby", 0)

    async def take(self, socket, count):
        """The next `count` messages that are not a warm-up."""
        taken = []
        while len(taken) < count:
            if (message := await socket.recv()) != "warm-up":
                taken.append(message)
        return taken

    async def test_stop_says_1001_to_everybody_and_exits_0(self):
        async with asyncio.timeout(60), contextlib.AsyncExitStack() as stack:
            paths = ["/echo"] * 20 + ["/ws/lobby"] * 20
            sockets = [await stack.enter_async_context(self.client(path)) for path in paths]
            self.server.process.terminate()
            for socket in sockets:
                with self.assertRaises(ConnectionClosedOK):
                    await socket.recv()
            self.assertEqual({socket.close_code for socket in sockets}, {1001})
            self.assertEqual(await asyncio.to_thread(self.server.process.wait, 30), 0)


if __name__ == "__main__":
    unittest.main(verbosity=2)
