"""The server behind nginx and HAProxy, each with its configuration of packaging/proxies.

Only ports, paths, numbers of descriptors and the timeouts are replaced: a minute of silence becomes three seconds.
Starts the binary (FANTAIL_BIN, else target/release or target/debug) and drives it through TLS with Python's
`websockets`: echo, a broadcast, pages and their origins, silence longer than the proxy's timeout with and without
heartbeats, whose address the limits count, what clients and newcomers see of a drain, and few descriptors.
"""

import asyncio
import contextlib
import http.client
import json
import logging
import os
import pathlib
import re
import resource
import select
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import unittest

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

ROOT = pathlib.Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "packaging" / "proxies"
READY = re.compile(r"^fantail ready listen=(\S+) admin=(\S+) pid=\d+$")
WAIT = 60
# What a minute becomes, and the server's heartbeat that has to fit in.
TIMEOUT_SECONDS = 3
HEARTBEAT = {"FANTAIL_TIMEOUTS_HEARTBEAT_SECONDS": "1", "FANTAIL_TIMEOUTS_PONG_SECONDS": "1",
             "FANTAIL_TIMEOUTS_SSE_HEARTBEAT_SECONDS": "1"}
TRUST = {"FANTAIL_ADMISSION_TRUSTED_PROXIES": "127.0.0.1"}

# Certificates are made for each test by itself.
TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
TLS.check_hostname, TLS.verify_mode = False, ssl.CERT_NONE


def binary():
    if given := os.environ.get("FANTAIL_BIN"):
        return given
    for kind in ("release", "debug"):
        if (found := ROOT / "target" / kind / "fantail").exists():
            return str(found)
    sys.exit("no target/release/fantail or target/debug/fantail; build one or set FANTAIL_BIN")


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def ended(process):
    """Ends a process that may have ended already."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(WAIT)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait()


class Fantail:
    """A running server. Use it as a context."""

    def __init__(self, **environment):
        kept = {name: value for name, value in os.environ.items() if not name.startswith("FANTAIL_")}
        command = [binary(), "serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--loops", "2"]
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            env={**kept, **environment})
        waited = select.select([self.process.stdout], [], [], WAIT)[0]
        match = READY.match(self.process.stdout.readline().rstrip("\n")) if waited else None
        if match is None:
            self.__exit__()
            raise AssertionError("no ready line")
        self.listen, self.admin = match[1], match[2]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        ended(self.process)
        self.process.stdout.close()

    def ask(self, method, path, body=None):
        connection = http.client.HTTPConnection(self.admin, timeout=WAIT)
        with contextlib.closing(connection):
            connection.request(method, path, body=body)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()

    def metric(self, name):
        _, text = self.ask("GET", "/metrics")
        samples = [line for line in text.splitlines() if re.match(rf"{name}[{{ ]", line)]
        return sum(int(line.rsplit(" ", 1)[1]) for line in samples if 'loop="admin"' not in line)

    def drain(self):
        self.process.send_signal(signal.SIGTERM)


class Proxy:
    """nginx or HAProxy in front of a server, in a folder of its own. Use it as a context."""

    def __init__(self, server, files=None):
        """With `files` it keeps its own numbers of descriptors, and may open so many."""
        self.files = files
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="fantail-proxy-"))
        self.port = free_port()
        self.process = None
        try:
            self.certify()
            text = (CONFIGS / self.CONFIG).read_text()
            for pattern, replacement in self.replacements(server):
                text, count = re.subn(pattern, replacement, text)
                if not count:
                    raise AssertionError(f"{self.CONFIG} has no {pattern}")
            (self.folder / self.CONFIG).write_text(text)
            self.log = open(self.folder / "log", "w+")
            checked = subprocess.run(self.command("check"), stdout=self.log, stderr=self.log, timeout=WAIT, preexec_fn=self.limit)
            if checked.returncode != 0:
                raise AssertionError(f"{self.CONFIG} is refused\n{self.said()}")
            self.process = subprocess.Popen(
                self.command("run"), stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, preexec_fn=self.limit)
            self.await_port()
        except BaseException:
            self.__exit__()
            raise

    def limit(self):
        if self.files:
            resource.setrlimit(resource.RLIMIT_NOFILE, (self.files, self.files))

    def certify(self):
        pem, key = self.folder / "cert.pem", self.folder / "cert.key"
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days",
             "1", "-subj", "/CN=ws.example", "-keyout", key, "-out", pem], check=True, capture_output=True)
        (self.folder / "both.pem").write_text(pem.read_text() + key.read_text())

    def said(self):
        self.log.seek(0)
        return self.log.read()[-3000:]

    def await_port(self):
        deadline = time.monotonic() + WAIT
        while time.monotonic() < deadline and self.process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            time.sleep(0.02)
        raise AssertionError(f"it does not listen\n{self.said()}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process:
            ended(self.process)
        if log := getattr(self, "log", None):
            log.close()
        shutil.rmtree(self.folder)


class Nginx(Proxy):
    CONFIG = "nginx.conf"
    SETTINGS = {}

    def replacements(self, server):
        fewer = [
            (r"worker_rlimit_nofile \d+", "worker_rlimit_nofile 4000"),
            (r"worker_connections \d+", "worker_connections 1000"),
        ]
        return ([] if self.files else fewer) + [
            (r"user www-data;", f"daemon off; pid {self.folder}/pid; error_log {self.folder}/error;"),
            (r"http \{", f"http {{ {self.paths()}"),
            (r"127\.0\.0\.1:8080", server.listen),
            (r"listen 443", f"listen 127.0.0.1:{self.port}"),
            (r"/etc/nginx/fantail\.pem", str(self.folder / "cert.pem")),
            (r"/etc/nginx/fantail\.key", str(self.folder / "cert.key")),
            (r"proxy_read_timeout 60s", f"proxy_read_timeout {TIMEOUT_SECONDS}s"),
        ]

    def paths(self):
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        return " ".join(f"{kind}_temp_path {self.folder}/{kind};" for kind in kinds)

    def command(self, what):
        line = ["nginx", "-p", str(self.folder), "-e", str(self.folder / "error"), "-c", str(self.folder / self.CONFIG)]
        return line + (["-t"] if what == "check" else [])


class KeepingNginx(Nginx):
    """Gathers what a server answers in its buffers, and says so, unless the answer forbids it."""
    STREAMS = "proxy_buffering on;"

    def replacements(self, server):
        return super().replacements(server) + [(r"location /sse/ \{", f"location /sse/ {{ {self.STREAMS}")]


class DeafNginx(KeepingNginx):
    """Does not listen to the answer."""
    STREAMS = "proxy_buffering on; proxy_ignore_headers X-Accel-Buffering;"


class HAProxy(Proxy):
    CONFIG = "haproxy.cfg"
    SETTINGS = {"FANTAIL_ADMISSION_PROXY_PROTOCOL": "true"}

    def replacements(self, server):
        return ([] if self.files else [(r"fd-hard-limit \d+", "fd-hard-limit 4000")]) + [
            (r"bind :443", f"bind 127.0.0.1:{self.port}"),
            (r"/etc/haproxy/fantail\.pem", str(self.folder / "both.pem")),
            (r"127\.0\.0\.1:8080", server.listen),
            (r"port 8081", f"port {server.admin.rsplit(':', 1)[1]}"),
            (r"timeout tunnel 60s", f"timeout tunnel {TIMEOUT_SECONDS}s"),
        ]

    def command(self, what):
        return ["haproxy", "-c" if what == "check" else "-db", "-f", str(self.folder / self.CONFIG)]


class Behind:
    """What both proxies have to do."""

    PROXY = None

    @contextlib.asynccontextmanager
    async def running(self, files=None, proxy=None, **environment):
        environment = {**HEARTBEAT, **TRUST, **self.PROXY.SETTINGS, **environment}
        server = await asyncio.to_thread(lambda: Fantail(**environment))
        with server, await asyncio.to_thread(proxy or self.PROXY, server, files) as front:
            yield server, front

    def client(self, proxy, path, source="127.0.0.1", **options):
        options = {"open_timeout": WAIT, "close_timeout": WAIT, "ping_interval": None, "max_size": None, **options}
        return connect(f"wss://127.0.0.1:{proxy.port}{path}", ssl=TLS, proxy=None, server_hostname="ws.example",
                       local_addr=(source, 0), **options)

    async def until(self, what, condition):
        deadline = time.monotonic() + WAIT
        while not await asyncio.to_thread(condition):
            self.assertLess(time.monotonic(), deadline, f"waited too long for {what}")
            await asyncio.sleep(0.02)

    async def test_echo_of_every_kind_and_size(self):
        async with asyncio.timeout(60), self.running() as (_, proxy):
            for compression in ("deflate", None):
                async with self.client(proxy, "/echo", compression=compression) as socket:
                    for message in ("", "hello, 世界", b"\x00\xff", "x" * (1 << 20), os.urandom(1 << 20)):
                        await socket.send(message)
                        self.assertTrue(await socket.recv() == message, "it came back changed")

    async def test_a_broadcast_reaches_everybody(self):
        async with asyncio.timeout(60), self.running() as (server, proxy), contextlib.AsyncExitStack() as stack:
            entered = [self.client(proxy, "/ws/news", compression=("deflate", None)[i % 2]) for i in range(100)]
            sockets = [await stack.enter_async_context(one) for one in entered]
            for body in ["first", "second " * 1000]:
                status, answer = await asyncio.to_thread(server.ask, "POST", "/publish/news", body)
                self.assertEqual((status, json.loads(answer)["subscribers"]), (200, len(sockets)))
                for socket in sockets:
                    self.assertEqual(await socket.recv(), body)

    async def test_pages_of_its_own_may_connect_whatever_the_port(self):
        async with asyncio.timeout(60), self.running() as (_, proxy):
            async with self.client(proxy, "/echo", origin=f"https://127.0.0.1:{proxy.port}") as socket:
                await socket.send("from a page")
                self.assertEqual(await socket.recv(), "from a page")
            for foreign in ("https://127.0.0.1", f"https://evil.example:{proxy.port}"):
                with self.assertRaises(InvalidStatus) as refused:
                    await self.client(proxy, "/echo", origin=foreign)
                self.assertEqual(refused.exception.response.status_code, 403)

    async def test_the_page_is_told_what_strangers_may_know(self):
        async with asyncio.timeout(60), self.running() as (server, proxy):
            def page(target):
                asked = http.client.HTTPSConnection("127.0.0.1", proxy.port, timeout=WAIT, context=TLS)
                with contextlib.closing(asked):
                    asked.request("GET", target)
                    answer = asked.getresponse()
                    return answer.status, answer.headers, answer.read().decode()
            status, headers, text = await asyncio.to_thread(page, "/?topic=prices")
            self.assertEqual((status, headers["Fantail-Publish"], headers["Fantail-Admin"]), (200, "nobody", None))
            self.assertNotIn(server.admin.rsplit(":", 1)[1], text)

    async def test_few_descriptors_mean_fewer_connections(self):
        """Its own numbers of descriptors where only 1,000 are allowed: it starts, and holds what fits."""
        async with asyncio.timeout(90), self.running(files=1000) as (_, proxy), contextlib.AsyncExitStack() as stack:
            for _ in range(100):
                socket = await stack.enter_async_context(self.client(proxy, "/echo", compression=None))
            await socket.send("there")
            self.assertEqual(await socket.recv(), "there")

    async def test_heartbeats_keep_silent_connections(self):
        async with asyncio.timeout(60), self.running() as (server, proxy), self.client(proxy, "/ws/quiet") as socket:
            begin = time.monotonic()
            silence = 2.5 * TIMEOUT_SECONDS
            await self.until("a long silence", lambda: time.monotonic() - begin > silence)
            self.assertGreaterEqual(server.metric("fantail_pongs_received_total"), silence // 2 - 1)
            await asyncio.to_thread(server.ask, "POST", "/publish/quiet", "still there")
            self.assertEqual(await socket.recv(), "still there")

    def stream(self, proxy):
        """A stream through the proxy: the connection and the answer, whose lines can be read."""
        asked = http.client.HTTPSConnection("127.0.0.1", proxy.port, timeout=WAIT, context=TLS)
        asked.request("GET", "/sse/events", headers={"Accept": "text/event-stream"})
        return asked, asked.getresponse()

    async def test_events_come_at_once_and_comments_outlast_the_proxys_patience(self):
        def read(server, proxy):
            asked, answer = self.stream(proxy)
            with contextlib.closing(asked):
                self.assertEqual((answer.status, answer.headers["Content-Type"]), (200, "text/event-stream"))
                self.assertRegex(answer.readline(), rb"^retry: \d+\n$")
                self.assertRegex(answer.readline(), rb"^id: [0-9a-f]{16}:0\n$")
                self.assertEqual(answer.readline(), b"\n")
                begin, comments = time.monotonic(), 0
                while time.monotonic() - begin < 2.5 * TIMEOUT_SECONDS:
                    self.assertEqual(answer.readline(), b":\n")
                    comments += 1
                for payload in ("small", "large" * 20_000, "last"):
                    server.ask("POST", "/publish/events", payload)
                    while (line := answer.readline()) == b":\n":
                        comments += 1
                    self.assertRegex(line, rb"^id: ")
                    self.assertEqual(answer.readline(), f"data: {payload}\n".encode())
                    self.assertEqual(answer.readline(), b"\n")
                return comments
        async with asyncio.timeout(60), self.running() as (server, proxy):
            comments = await asyncio.to_thread(read, server, proxy)
            # Each came by itself: gathered ones would have come too late, or not at all.
            self.assertGreaterEqual(comments, TIMEOUT_SECONDS)

    async def test_without_heartbeats_the_proxy_ends_them(self):
        off = {"FANTAIL_TIMEOUTS_HEARTBEAT_SECONDS": "0"}
        async with asyncio.timeout(60), self.running(**off) as (_, proxy):
            socket = await self.client(proxy, "/ws/quiet")
            begin = time.monotonic()
            with self.assertRaises(ConnectionClosed):
                await socket.recv()
            self.assertGreater(time.monotonic() - begin, TIMEOUT_SECONDS - 1)
            # Without a close frame: nobody told the client anything.
            self.assertEqual(socket.close_code, 1006)

    async def test_the_limits_count_the_clients_address(self):
        async with asyncio.timeout(60), self.running(FANTAIL_ADMISSION_PER_ADDRESS_MAX="3") as (server, proxy):
            async with contextlib.AsyncExitStack() as stack:
                for source in ("127.0.0.5", "127.0.0.6"):
                    for _ in range(3):
                        await stack.enter_async_context(self.client(proxy, "/ws/a", source))
                    # What a client claims about itself must not count.
                    claims = {"X-Forwarded-For": "127.0.0.7"}
                    with self.assertRaises(InvalidStatus) as refused:
                        await self.client(proxy, "/ws/a", source, additional_headers=claims)
                    self.assertEqual(refused.exception.response.status_code, 429)
                self.assertEqual(server.metric("fantail_connections"), 6)
                # The admin port tells the other end of the TCP connection, which is the proxy.
                _, listed = await asyncio.to_thread(server.ask, "GET", "/connections?topic=a")
                peers = {one["peer"].split(":")[0] for one in json.loads(listed)["connections"]}
                self.assertEqual(peers, {"127.0.0.1"})
            await self.until("them to leave", lambda: server.metric("fantail_connections") == 0)
            async with self.client(proxy, "/ws/a", "127.0.0.5"):
                pass

    async def test_a_drain_reaches_clients_and_newcomers(self):
        drain = {"FANTAIL_DRAIN_DELAY_SECONDS": "3", "FANTAIL_DRAIN_SECONDS": "1"}
        async with asyncio.timeout(60), self.running(**drain) as (server, proxy):
            socket = await self.client(proxy, "/ws/a")
            server.drain()
            with self.assertRaises(ConnectionClosed):
                await socket.recv()
            self.assertEqual((socket.close_code, socket.close_reason), (1001, "server is going away"))
            self.assertEqual(await asyncio.to_thread(server.process.wait, WAIT), 0)
            with self.assertRaises(InvalidStatus) as refused:
                await self.client(proxy, "/ws/a")
            self.assertIn(refused.exception.response.status_code, (502, 503))


class BehindNginx(Behind, unittest.IsolatedAsyncioTestCase):
    PROXY = Nginx

    async def test_readers_of_streams_are_told_to_come_back_while_there_is_no_server(self):
        def read(proxy):
            asked, answer = self.stream(proxy)
            with contextlib.closing(asked):
                return answer.status, answer.headers["Content-Type"], answer.read()
        async with asyncio.timeout(60), self.running() as (server, proxy):
            server.process.kill()
            await asyncio.to_thread(server.process.wait, WAIT)
            status, kind, body = await asyncio.to_thread(read, proxy)
            self.assertEqual((status, kind), (200, "text/event-stream"))
            self.assertRegex(body, rb"^: no server\nretry: [2-5]000\n$")
            # Everybody else gets the status.
            with self.assertRaises(InvalidStatus) as refused:
                await self.client(proxy, "/ws/a")
            self.assertEqual(refused.exception.response.status_code, 502)


    @contextlib.asynccontextmanager
    async def raw_stream(self, proxy):
        """A stream that the server has begun, as the records of TLS that come: the server, and a function for the next one."""
        async with asyncio.timeout(60), self.running(proxy=proxy) as (server, front):
            with TLS.wrap_socket(socket.create_connection(("127.0.0.1", front.port), WAIT)) as client:
                client.sendall(b"GET /sse/events HTTP/1.1\r\nHost: ws.example\r\nAccept: text/event-stream\r\n\r\n")
                await self.until("the stream", lambda: server.metric("fantail_subscriptions") == 1)
                yield server, lambda: client.recv(1 << 16)

    async def test_events_flow_through_buffering_because_the_stream_forbids_it(self):
        def read(server, record):
            for number in range(8):
                self.assertEqual(server.ask("POST", "/publish/events", f"event {number}")[0], 200)
                came = b""
                # Before the next one is published: nothing has pushed it.
                while f"data: event {number}\n".encode() not in came:
                    came += (more := record())
                    self.assertTrue(more, f"it ended behind {came}")
        async with self.raw_stream(KeepingNginx) as (server, record):
            await asyncio.to_thread(read, server, record)

    async def test_events_are_gathered_where_nginx_does_not_listen(self):
        def publish(server):
            for number in range(8):
                self.assertEqual(server.ask("POST", "/publish/events", f"event {number}")[0], 200)
        async with self.raw_stream(DeafNginx) as (server, record):
            await asyncio.to_thread(publish, server)
            await self.until("deliveries", lambda: server.metric("fantail_deliveries_total") == 8)
            server.drain()
            first = await asyncio.to_thread(record)
            # Not even the head came before the end.
            self.assertEqual((first[:15], first.count(b"data: event ")), (b"HTTP/1.1 200 OK", 8))


class BehindHAProxy(Behind, unittest.IsolatedAsyncioTestCase):
    PROXY = HAProxy

    async def test_a_draining_server_leaves_the_rotation_at_once(self):
        """While it still accepts: the check asks /readyz. Those who are connected stay."""
        async with asyncio.timeout(60), self.running(FANTAIL_DRAIN_DELAY_SECONDS="60") as (server, proxy):
            async with self.client(proxy, "/echo") as socket:
                server.drain()
                deadline = time.monotonic() + WAIT
                while True:
                    try:
                        async with self.client(proxy, "/ws/a"):
                            pass
                    except InvalidStatus as refused:
                        self.assertEqual(refused.response.status_code, 503)
                        break
                    self.assertLess(time.monotonic(), deadline, "it stayed in the rotation")
                await socket.send("still here")
                self.assertEqual(await socket.recv(), "still here")
            server.drain()


if __name__ == "__main__":
    # Its tales of slow callbacks.
    logging.getLogger("asyncio").setLevel(logging.ERROR)
    unittest.main(verbosity=2)
