#!/usr/bin/env python3
"""What a delivery costs in each dialect beside plain, at equal bytes on the wire, as `oldnew.py` counts.

    cargo build --release --bins
    benches/dialects.py                                  # target/release/fantail
    benches/dialects.py --only sse --kinds instructions  # some of it

Messages of 128 bytes go one at a time, and sixty at once, to 500 or 200 subscribers that all speak one dialect; in the
other run of a pair as many bytes go to as many plain subscribers. Instructions in user space (callgrind), system calls
(strace -c) and CPU time are those of the whole process, divided by the deliveries. The gate is 1.05, for streams of
several topics 1.5 in CPU time: their list of places is written for each connection.

Needs valgrind and strace. Python 3.9, standard library only, Linux only.
"""

import argparse
import json
import select
import socket
import sys

sys.dont_write_bytecode = True
import oldnew  # noqa: E402
import pairs  # noqa: E402

# Offsets of so many digits throughout: the bytes of an event depend on it.
FIRST_OFFSET = 1_000
EPOCH = 16
SUBSCRIBERS = {"single": 500, "burst": 200}
BURST = 60


def chunk(data):
    return b"%x\r\n%s\r\n" % (len(data), data)


def place(offset):
    return b"e" * EPOCH + b":%d" % offset


def sse(payload):
    return chunk(b"id: " + place(FIRST_OFFSET) + b"\ndata: " + payload + b"\n\n")


def many(payload):
    event = b"event: topic:oldnew\ndata: " + payload + b"\nid: "
    return chunk(event + place(FIRST_OFFSET) + b"," + place(0) + b"\n\n")


def told(payload):
    text = b'{"type":"message","topic":"oldnew","offset":%d,"time":%d,"data":"%s"}' % (FIRST_OFFSET, 10**12, payload)
    # The header of a frame of 126 to 65,535 bytes.
    return b"\x81\x7e" + len(text).to_bytes(2, "big") + text


STREAM = "GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n"
JSON = pairs.HELLO.replace("\r\n\r\n", "\r\nSec-WebSocket-Protocol: fantail.json.v1\r\n\r\n")

# name -> (path, a message on the wire, how its connections begin: the request, the answer's first bytes, the last ones
# of what they are told before any message)
DIALECTS = {
    "json": ("/ws/oldnew", told, (JSON, b"HTTP/1.1 101", b"}")),
    "sse": ("/sse/oldnew", sse, (STREAM, b"HTTP/1.1 200", b"\n\n\r\n")),
    "sse of two": ("/sse/oldnew?topic=other", many, (STREAM, b"HTTP/1.1 200", b"\n\n\r\n")),
}


class Told(oldnew.Clients):
    """As connections that are upgraded, of dialects that say first where they begin."""

    def __init__(self, server, path, count, begins):
        request, first, last = begins
        host, port = server.listen.rsplit(":", 1)
        self.poll, self.sockets = select.epoll(), []
        self.by_number = {}
        for _ in range(count):
            one = socket.create_connection((host, int(port)), 60)
            one.sendall(request.format(path=path).encode())
            got = b""
            while not got.endswith(last):
                got += one.recv(1 << 16)
                if not got.startswith(first):
                    raise SystemExit(f"{path}: {got[:200]!r}")
            self.sockets.append(one)
            self.poll.register(one.fileno(), select.EPOLLIN)
            self.by_number[one.fileno()] = one


def work(path, wire, begins, kind):
    """Deliveries of one kind to subscribers on `path`, of as many bytes each as `wire` makes of a payload; plain ones
    begin without being told anything."""

    class Work:
        def __init__(self, server):
            payload = b"m" * oldnew.SIZE
            self.admin = oldnew.Admin(server)
            self.lines(b"x", FIRST_OFFSET - 1)
            count = SUBSCRIBERS[kind]
            self.clients = Told(server, path, count, begins) if begins else oldnew.Clients(server, path, count)
            self.wire = len(wire(payload))
            # A plain frame of so many bytes has a header of four.
            self.payload = payload if begins else b"m" * (self.wire - 4)

        def lines(self, payload, count):
            line = json.dumps({"topic": "oldnew", "payload": payload.decode()}).encode() + b"\n"
            self.admin.post("/publish", line * count)

        def go(self, times):
            count = BURST if kind == "burst" else 1
            for _ in range(times):
                if kind == "burst":
                    self.lines(self.payload, count)
                else:
                    self.admin.post("/publish/oldnew", self.payload)
                self.clients.await_bytes(self.wire * count)
            return times * count * len(self.clients.sockets)

    return Work


def main():
    top = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    top.add_argument("--fantail", default="target/release/fantail")
    top.add_argument("--only", default=",".join(DIALECTS), help="(default %(default)s)")
    top.add_argument("--kinds", default=",".join(oldnew.KINDS), help="(default %(default)s)")
    top.add_argument("--pairs", type=int, default=3, help="for instructions and calls (default 3)")
    top.add_argument("--cpu-pairs", type=int, default=7, help="for CPU time (default 7)")
    args = top.parse_args()
    rows = []
    for name in args.only.split(","):
        path, wire, begins = DIALECTS[name]
        for kind in SUBSCRIBERS:
            sides = {"old": work("/ws/oldnew", wire, None, kind), "new": work(path, wire, begins, kind)}
            for counted in args.kinds.split(","):
                _, _, warm, few, full = oldnew.WORK[kind]
                times, wanted = (full, args.cpu_pairs) if counted == "cpu ns" else (few, args.pairs)
                seen = {"old": [], "new": []}
                for pair in range(wanted):
                    for side in ("old", "new") if pair % 2 == 0 else ("new", "old"):
                        seen[side].append(oldnew.KINDS[counted](args.fantail, sides[side], warm, times))
                cells, _ = oldnew.judge(counted, seen)
                rows.append([name, f"delivery, {kind}", counted, *cells])
                print(f"  {name}, {kind}, {counted}: {cells}", file=sys.stderr)
    pairs.print_markdown(["dialect", "operation", "counted", "plain", "dialect", "dialect/plain"], rows)


if __name__ == "__main__":
    main()
