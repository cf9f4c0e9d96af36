#!/usr/bin/env python3
"""Publishing in batches: Fantail's `POST /publish` (NDJSON) against Redis `PUBLISH`, pipelined.

    cargo build --release --bins
    benches/publish.py                         # 7 pairs; needs redis-server (Debian: redis-server)
    benches/publish.py --depth 1000 --size 16 --subscribers 1

HOW IT MEASURES
    Both servers are pinned to one core, the client to another. One round is `--depth` messages of `--size`
    bytes on one topic: for Redis that many PUBLISH commands in one write and as many integer replies, for
    Fantail one request with that many lines and as many result lines. The next round begins when the last
    reply of the round is there. Requests are made before the clock starts and replies are counted, not
    parsed, so that the client costs little; `--depth` bounds what is under way on both alike.

    Messages/s is by the client's clock; ns/message is the server process's CPU, all threads. A is Fantail, B
    Redis; the ratios are within one pair, pairs alternate their order. With --subscribers, that many raw
    connections are subscribed to the topic and read by a process of their own on the client's core.

    Bytes of a reply differ: Redis answers `:0`, Fantail epoch, offset and subscribers.

Python 3.9, standard library only, Linux only.
"""

import argparse
import json
import multiprocessing
import os
import socket
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True
import pairs  # noqa: E402

SERVER_CORE, CLIENT_CORE = 0, 1
TOPIC = "publish-bench"
FANTAIL = "taskset -c {core} {fantail} serve --listen 127.0.0.1:0 --admin 127.0.0.1:0 --loops 1"


class Redis:
    """A redis-server without persistence, for one run. Use it as a context."""

    def __init__(self, path):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = free.getsockname()
        self.folder = tempfile.TemporaryDirectory()
        self.process = subprocess.Popen(
            ["taskset", "-c", str(SERVER_CORE), path, "--port", str(self.address[1]), "--bind", "127.0.0.1", "--save", "",
             "--appendonly", "no", "--dir", self.folder.name], stdout=subprocess.DEVNULL)
        self.pid = self.process.pid
        deadline = time.monotonic() + 10
        while True:
            try:
                socket.create_connection(self.address, 1).close()
                return
            except OSError:
                if time.monotonic() > deadline:
                    raise SystemExit("redis-server does not answer") from None
                time.sleep(0.05)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()
        self.folder.cleanup()

    cpu_ns = pairs.Server.cpu_ns

    def round_of(self, args):
        payload = b"x" * args.size
        command = b"*3\r\n$7\r\nPUBLISH\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n" % (
            len(TOPIC), TOPIC.encode(), args.size, payload)
        return command * args.depth, b":%d\r\n" % args.subscribers

    def subscribe(self):
        one = socket.create_connection(self.address)
        one.sendall(b"SUBSCRIBE %s\r\n" % TOPIC.encode())
        one.recv(1000)
        return one


class Fantail(pairs.Server):
    """A Fantail with one loop and its admin port. Use it as a context."""

    def __init__(self, path):
        super().__init__(FANTAIL.format(core=SERVER_CORE, fantail=path), {})
        host, port = self.admin.rsplit(":", 1)
        self.address = (host, int(port))

    def round_of(self, args):
        line = json.dumps({"topic": TOPIC, "payload": "x" * args.size}, separators=(",", ":")).encode() + b"\n"
        body = line * args.depth
        head = b"POST /publish HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n\r\n" % len(body)
        return head + body, b'"subscribers":%d' % args.subscribers

    def subscribe(self):
        host, port = self.listen.rsplit(":", 1)
        one = socket.create_connection((host, int(port)))
        one.sendall(pairs.HELLO.format(path=f"/ws/{TOPIC}").encode())
        one.recv(1000)
        return one


def drain(sockets):
    """Reads what subscribers get until the server goes away."""
    os.sched_setaffinity(0, {CLIENT_CORE})
    one = sockets[0] if len(sockets) == 1 else None
    if one:
        while one.recv(1 << 20):
            pass
        return
    import select
    while sockets:
        for ready in select.select(sockets, [], [])[0]:
            if not ready.recv(1 << 20):
                sockets.remove(ready)


def measure(server, args):
    request, mark = server.round_of(args)
    sockets = [server.subscribe() for _ in range(args.subscribers)]
    reader = multiprocessing.Process(target=drain, args=(sockets,), daemon=True) if sockets else None
    if reader:
        reader.start()
        for one in sockets:
            one.close()
    rounds = 0
    with socket.create_connection(server.address) as one:
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        play_round(one, request, mark, args.depth)
        cpu, started = server.cpu_ns(), time.monotonic()
        while time.monotonic() - started < args.seconds:
            play_round(one, request, mark, args.depth)
            rounds += 1
        spent, cpu = time.monotonic() - started, server.cpu_ns() - cpu
    if reader:
        reader.terminate()
        reader.join()
    messages = rounds * args.depth
    return {"messages/s": messages / spent, "ns/message": cpu / messages, "core busy": cpu / 1e9 / spent}


def play_round(one, request, mark, depth):
    """Sends a round and takes its replies; a reply is recognised by a piece that each has once."""
    one.settimeout(20)
    view = memoryview(request)
    got, tail = 0, b""
    one.setblocking(False)
    deadline = time.monotonic() + 20
    while got < depth:
        if time.monotonic() > deadline:
            raise SystemExit(f"{got} replies of {depth}: {tail[-300:]!r}")
        if view:
            try:
                view = view[one.send(view):]
            except BlockingIOError:
                pass
        try:
            piece = one.recv(1 << 20)
        except BlockingIOError:
            if not view:
                one.setblocking(True)
                piece = one.recv(1 << 20)
                one.setblocking(False)
            else:
                continue
        if not piece:
            raise SystemExit(f"closed after {got} replies of {depth}")
        tail += piece
        got += tail.count(mark)
        # Keep what may be the beginning of a mark that the next piece completes.
        end = tail.rfind(mark)
        tail = tail[end + len(mark):] if end >= 0 else tail[-len(mark):]


def main():
    top = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    top.add_argument("--pairs", type=int, default=7)
    top.add_argument("--depth", type=int, default=1_000, help="messages under way (default 1000)")
    top.add_argument("--size", type=int, default=128, help="bytes of a payload (default 128)")
    top.add_argument("--subscribers", type=int, default=0)
    top.add_argument("--seconds", type=float, default=3.0)
    top.add_argument("--fantail", default="target/release/fantail")
    top.add_argument("--redis", default="redis-server")
    args = top.parse_args()
    os.sched_setaffinity(0, {CLIENT_CORE})
    seen = {"A": [], "B": []}
    for pair in range(args.pairs):
        for side in "AB" if pair % 2 == 0 else "BA":
            with Fantail(args.fantail) if side == "A" else Redis(args.redis) as server:
                seen[side].append(measure(server, args))
    pairs.print_table(
        f"publish: batches of {args.depth:,} messages of {args.size} bytes, {args.subscribers} subscribers,"
        " Fantail (A), Redis (B)", seen)


if __name__ == "__main__":
    main()
