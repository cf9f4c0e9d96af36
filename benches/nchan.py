#!/usr/bin/env python3
"""Beside nginx with nchan, the same work in the same run: CPU of a delivery and memory of a subscriber.

    cargo build --release --bins
    benches/nchan.py                       # WebSockets and event streams, 5,000 subscribers
    benches/nchan.py websocket --pairs 5

HOW IT MEASURES
    Both keep the newest 100 messages, and run on one core: nginx as one process, Fantail with one loop. Subscribers
    connect, a fifth of them and then the rest: the slope of the server's memory of its own (RssAnon, RssShmem,
    HugetlbPages, VmSwap) between is a subscriber's. Then messages of 128 bytes are published by POST over one
    connection, each when the one before has reached everybody; the server's CPU (user and system, all threads) over
    them, by deliveries. Nobody measures whether a delivery is dearer because others use the machine: pairs of both
    sides alternate their order, and the ratio is that within a pair.

    Gates: CPU at most 0.85 of nchan's, memory at most a fiftieth. The exit code is 1 beyond them.

nginx, nchan and what they need come from Debian's archive into target/memory-study (apt-get download). Python 3.9,
standard library only, Linux only.
"""

import argparse
import os
import re
import select
import socket
import sys
import tempfile
import time

sys.dont_write_bytecode = True
sys.path.insert(1, os.path.join(os.path.dirname(os.path.abspath(__file__)), "memory_study"))
import installs  # noqa: E402
import pairs  # noqa: E402
from common import gates  # noqa: E402
from others import Launched, filled  # noqa: E402

SIZE = 128
RULE = '[[topic]]\npattern = "study"\nhistory_messages = 100\nhistory_bytes = "1 MiB"\n'
# No heartbeat falls into a run.
ENV = {**pairs.PATIENT, **pairs.PUBLISH_ENV, "FANTAIL_TIMEOUTS_SSE_HEARTBEAT_SECONDS": "3600", "FANTAIL_LOG_LEVEL": "warn",
       "FANTAIL_ADMISSION_PER_ADDRESS_MAX": "0"}
STREAM = "GET {path} HTTP/1.1\r\nHost: bench\r\nAccept: text/event-stream\r\n\r\n"
# kind -> (request, status, path of Fantail's, path of nchan's)
KINDS = {
    "websocket": (pairs.HELLO, b"HTTP/1.1 101", "/ws/study", "/websocket"),
    "stream": (STREAM, b"HTTP/1.1 200", "/sse/study", "/stream"),
}


class Fantail:
    """A server that keeps messages. Use it as a context."""

    def __init__(self, args):
        self.file = tempfile.NamedTemporaryFile("w", suffix=".toml")
        self.file.write(RULE)
        self.file.flush()
        line = pairs.SERVE.format(fantail=args.fantail, loops=1) + f" --config {self.file.name}"
        self.server = pairs.Server(line, ENV)
        self.listen, self.publisher, self.path = self.server.listen, self.server.admin, "/publish/study"
        self.pid, self.user_bytes = self.server.pid, self.server.user_bytes

    def __enter__(self):
        return self

    def __exit__(self, *about):
        self.server.__exit__(*about)
        self.file.close()


class Nchan(Launched):
    """nginx. Use it as a context."""

    def __init__(self, _):
        folder, self.version = installs.debian("libnginx-mod-nchan", "nginx", "nginx-common")
        module = next(folder.rglob("ngx_nchan_module.so"))

        def line(server):
            config = filled("nchan_buffered.conf", server, module=module)
            return [folder / "usr/sbin/nginx", "-p", server.folder, "-c", config]

        super().__init__(line)
        self.publisher, self.path = self.listen, "/publish"


class Listeners:
    """Connections that were answered and listen."""

    def __init__(self, server, kind):
        host, port = server.listen.rsplit(":", 1)
        request, self.status, ours, theirs = KINDS[kind]
        self.target = (host, int(port))
        self.request = request.format(path=ours if isinstance(server, Fantail) else theirs).encode()
        self.poll, self.tails = select.epoll(), {}

    def open(self, count):
        for _ in range(count):
            one = socket.create_connection(self.target, 60)
            one.sendall(self.request)
            got = b""
            while b"\r\n\r\n" not in got:
                piece = one.recv(1 << 16)
                got += piece
                if not piece or not got.startswith(self.status[:len(got)]):
                    raise SystemExit(f"refused: {got[:200]!r}")
            self.poll.register(one.fileno(), select.EPOLLIN)
            self.tails[one.fileno()] = (one, b"")

    def await_all(self, mark):
        """Reads until everybody has got something with this mark."""
        waits, deadline = set(self.tails), time.monotonic() + 60
        while waits:
            if time.monotonic() > deadline:
                raise SystemExit(f"{len(waits)} subscribers wait for a message")
            for number, _ in self.poll.poll(1.0, 1024):
                one, tail = self.tails[number]
                piece = one.recv(1 << 18)
                if not piece:
                    raise SystemExit("the server closed a connection")
                if mark in tail + piece:
                    waits.discard(number)
                self.tails[number] = (one, piece[-len(mark):])

    def close(self):
        for one, _ in self.tails.values():
            one.close()


class Publisher:
    """POSTs over one connection."""

    def __init__(self, server):
        host, port = server.publisher.rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)), 60)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.head = f"POST {server.path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: text/plain\r\nContent-Length: {SIZE}\r\n\r\n"

    def post(self, mark):
        self.socket.sendall(self.head.encode() + mark.rjust(SIZE, b"m"))
        got = b""
        while b"\r\n\r\n" not in got:
            got += self.socket.recv(1 << 16)
        head, _, body = got.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
        if not re.match(rb"HTTP/1.1 20[012] ", head) or not length:
            raise SystemExit(f"publish: {got[:300]!r}")
        while len(body) < int(length.group(1)):
            body += self.socket.recv(1 << 16)


def settled(server, seconds=15):
    """Memory once it has stood still for two seconds, or at the deadline."""
    deadline, seen = time.monotonic() + seconds, []
    while time.monotonic() < deadline and not (len(seen) > 4 and len(set(seen[-4:])) == 1):
        seen.append(server.user_bytes())
        time.sleep(0.5)
    return seen[-1]


def cpu_ns(server):
    return time.clock_gettime_ns((~server.pid << 3) | 2)


def beside(args, kind):
    def run(side):
        with (Fantail if side == "A" else Nchan)(args) as server:
            listeners, few = Listeners(server, kind), args.subscribers // 5
            listeners.open(few)
            before = settled(server)
            listeners.open(args.subscribers - few)
            each = (settled(server) - before) / (args.subscribers - few)
            publisher, spent = Publisher(server), 0
            for number in range(-3, args.messages):
                mark = b"mark-%06d" % (number + 3)
                began = cpu_ns(server)
                publisher.post(mark)
                listeners.await_all(mark)
                # The first ones warm up.
                spent += cpu_ns(server) - began if number >= 0 else 0
            listeners.close()
        return {"ns/delivery": spent / (args.messages * args.subscribers), "bytes/subscriber": each}

    seen = gates.in_turn(args, run)
    gates.show(f"{kind}: {args.subscribers:,} subscribers, Fantail (A), nginx with nchan (B)", ["Fantail", "nchan"], seen,
               {"ns/delivery": (0, 0.85), "bytes/subscriber": (0, 0.02)})


def main():
    top = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    top.add_argument("--pairs", type=int, default=5)
    top.add_argument("--subscribers", type=int, default=5_000)
    top.add_argument("--messages", type=int, default=50, help="of a run (default 50)")
    top.add_argument("--fantail", default="target/release/fantail")
    gates.run(top, {kind: lambda args, kind=kind: beside(args, kind) for kind in KINDS})


if __name__ == "__main__":
    main()
