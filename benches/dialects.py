#!/usr/bin/env python3
"""What a delivery costs in each dialect beside plain, at equal bytes on the wire, as `oldnew.py` counts.

    cargo build --release --bins
    benches/dialects.py                                  # target/release/fantail
    benches/dialects.py --only sse --kinds instructions  # some of it
    benches/dialects.py --subscribers 10000              # to so many

Messages of 128 bytes go one at a time, and sixty at once, to 500 or 200 subscribers that all speak one dialect; in the
other run of a pair as many bytes go to as many plain subscribers. Where messages are deflated they are a kilobyte of
JSON each, with the same keys and other numbers, and what the other run sends is as long as they were seen to become, one
at a time or sixty at once. Instructions in user space (callgrind), system
calls (strace -c) and CPU time are those of the whole process, divided by the deliveries. The gate is 1.05, for streams
of several topics 1.5 in CPU time: their list of places is written for each connection.

Needs valgrind and strace. Python 3.9, standard library only, Linux only.
"""

import argparse
import json
import resource
import select
import sys

sys.dont_write_bytecode = True
import oldnew  # noqa: E402
import pairs  # noqa: E402

# A comment is a part of no event.
oldnew.QUIET["FANTAIL_TIMEOUTS_SSE_HEARTBEAT_SECONDS"] = "3600"
oldnew.QUIET["FANTAIL_DEFLATE_EVENT_STREAMS"] = "true"
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
CODED_STREAM = STREAM.replace("\r\n\r\n", "\r\nAccept-Encoding: gzip\r\n\r\n")
DEFLATED_JSON = JSON.replace("\r\n\r\n", "\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n")

TEXT = b"m" * oldnew.SIZE


def document(number):
    """What dashboards are sent, and what deflating is for: a kilobyte with other values each time."""
    rows = [{"sensor": f"hall-{at}/{at * 7919 % 1000}", "celsius": round(20 + (at * 0.37 + number * at * 0.61) % 5, 2),
             "ok": (at + number) % 5 > 0} for at in range(18)]
    return json.dumps(rows).encode()[:-1].ljust(1_023) + b"]"


DOCUMENTS = [document(number) for number in range(BURST)]
TEXTS = [TEXT] * BURST

# name -> (path, payloads, a message on the wire if it is known, how its connections begin: the request, the answer's first
# bytes, the last ones of what they are told before any message)
DIALECTS = {
    "json": ("/ws/oldnew", TEXTS, told, (JSON, b"HTTP/1.1 101", b"}")),
    "deflated json": ("/ws/oldnew", DOCUMENTS, None, (DEFLATED_JSON, b"HTTP/1.1 101", b"}")),
    "sse": ("/sse/oldnew", TEXTS, sse, (STREAM, b"HTTP/1.1 200", b"\n\n\r\n")),
    "sse in gzip": ("/sse/oldnew", DOCUMENTS, None, (CODED_STREAM, b"HTTP/1.1 200", b"\n\n\r\n")),
    "sse of two": ("/sse/oldnew?topic=other", TEXTS, many, (STREAM, b"HTTP/1.1 200", b"\n\n\r\n")),
}


class Together:
    """A publisher whose messages are all there when the loop looks: else how many passes they come to is chance."""

    def __init__(self, server):
        self.pid = server.pid
        self.client = oldnew.Clients(server, "/ws/oldnew?echo=0", 1, 60_000)

    def send(self, payloads):
        frames = b"".join(pairs.client_frame(1, payload) for payload in payloads)
        with oldnew.stopped(self.pid):
            self.client.sockets[0].sendall(frames)


class Told(oldnew.Clients):
    """As connections that are upgraded, of dialects that say first where they begin."""

    def __init__(self, server, path, count, begins):
        request, first, last = begins
        host, port = server.listen.rsplit(":", 1)
        hello = request.format(path=path).encode()
        self.poll = select.epoll()
        # Answered below, because what they are told first comes right behind the answer.
        self.sockets = pairs.hold_open(count, 0, host, int(port), hello, None, False, False)
        self.by_number = {}
        for one in self.sockets:
            one.settimeout(60)
            got = b""
            while not got.endswith(last):
                got += one.recv(1 << 16)
                if not got.startswith(first):
                    raise SystemExit(f"{path}: {got[:200]!r}")
            one.setblocking(False)
            self.poll.register(one.fileno(), select.EPOLLIN)
            self.by_number[one.fileno()] = one

    def await_frames(self, each):
        """Reads until every connection has got so many frames or chunks; the bytes of all."""
        waits, rests, total = dict.fromkeys(self.by_number, each), dict.fromkeys(self.by_number, b""), 0
        while waits:
            for number, _ in self.poll.poll(10.0, 1024):
                piece = rests[number] + self.by_number[number].recv(1 << 18)
                while len(piece) >= 4 and len(piece) >= (end := message_end(piece)):
                    total, piece = total + end, piece[end:]
                    waits[number] -= 1
                rests[number] = piece
                if not waits.get(number, 1):
                    del waits[number]
        return total


def message_end(piece):
    """Where a frame of a server ends, of fewer than 64 KiB, or else a chunk."""
    if piece[0] & 0x80:
        short = piece[1] & 127
        return 4 + int.from_bytes(piece[2:4], "big") if short == 126 else 2 + short
    size, ended, _ = piece.partition(b"\r\n")
    return len(size) + 2 + int(size, 16) + 2 if ended else len(piece) + 1


def lines(payloads):
    return b"".join(json.dumps({"topic": "oldnew", "payload": payload.decode()}).encode() + b"\n" for payload in payloads)


def seen_bytes(fantail, path, payloads, begins):
    """Bytes of a message, as a client gets them that are published together."""
    with oldnew.Server(oldnew.SERVE.format(fantail=fantail), oldnew.QUIET) as server:
        clients, admin = Told(server, path, 1, begins), oldnew.Admin(server)
        admin.post("/publish", lines([b"x"]) * (FIRST_OFFSET - 1))
        clients.await_frames(FIRST_OFFSET - 1)
        admin.post("/publish", lines(payloads))
        return round(clients.await_frames(len(payloads)) / len(payloads))


def plain(wire):
    """The payload of a plain message of so many bytes on the wire."""
    return b"m" * (wire - (2 if wire <= 127 else 4))


def work(path, payloads, wire, begins, count):
    """Deliveries of these messages at once to so many subscribers on `path`, of `wire` bytes each if that is known; plain
    ones begin without being told anything."""

    class Work:
        def __init__(self, server):
            self.admin = oldnew.Admin(server)
            self.admin.post("/publish", lines([b"x"]) * (FIRST_OFFSET - 1))
            self.clients = Told(server, path, count, begins) if begins else oldnew.Clients(server, path, count)
            self.publisher = Together(server) if len(payloads) > 1 else None

        def go(self, times):
            messages = len(payloads)
            for _ in range(times):
                if self.publisher:
                    self.publisher.send(payloads)
                else:
                    self.admin.post("/publish/oldnew", payloads[0])
                if wire:
                    self.clients.await_bytes(wire * messages)
                else:
                    self.clients.await_frames(messages)
            return times * messages * count

    return Work


def main():
    top = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    top.add_argument("--fantail", default="target/release/fantail")
    top.add_argument("--only", default=",".join(DIALECTS), help="(default %(default)s)")
    top.add_argument("--kinds", default=",".join(oldnew.KINDS), help="(default %(default)s)")
    top.add_argument("--subscribers", type=int, help="(default 500, and 200 of bursts)")
    top.add_argument("--pairs", type=int, default=3, help="for instructions and calls (default 3)")
    top.add_argument("--cpu-pairs", type=int, default=7, help="for CPU time (default 7)")
    args = top.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    rows = []
    for name in args.only.split(","):
        path, payloads, form, begins = DIALECTS[name]
        for kind, count in SUBSCRIBERS.items():
            count = args.subscribers or count
            sent = payloads if kind == "burst" else payloads[:1]
            wire = len(form(sent[0])) if form else seen_bytes(args.fantail, path, sent, begins)
            sides = {"old": work("/ws/oldnew", [plain(wire)] * len(sent), wire, None, count),
                     "new": work(path, sent, wire if form else None, begins, count)}
            print(f"  {name}, {kind}: {wire} bytes a message", file=sys.stderr)
            for counted in args.kinds.split(","):
                _, _, warm, few, full = oldnew.WORK[kind]
                times, wanted = (full, args.cpu_pairs) if counted == "cpu ns" else (few, args.pairs)
                times = max(3, times * SUBSCRIBERS[kind] // count)
                seen = {"old": [], "new": []}
                for pair in range(wanted):
                    for side in ("old", "new") if pair % 2 == 0 else ("new", "old"):
                        seen[side].append(oldnew.KINDS[counted](args.fantail, sides[side], warm, times))
                cells, _ = oldnew.judge(counted, seen)
                rows.append([name, f"{kind} to {count:,}", counted, *cells])
                print(f"  {name}, {kind}, {counted}: {cells}", file=sys.stderr)
    pairs.print_markdown(["dialect", "operation", "counted", "plain", "dialect", "dialect/plain"], rows)


if __name__ == "__main__":
    main()
