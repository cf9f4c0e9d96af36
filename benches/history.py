#!/usr/bin/env python3
"""What remembering costs: a storm of clients that come back, and topics that keep their messages.

    cargo build --release --bins
    benches/history.py storm         # 10,000 clients come back at once, each 1,000 messages behind, beside live ones
    benches/history.py publish       # CPU of a publish to a topic that keeps messages, against one that does not
    benches/history.py topic-bytes   # memory of a topic with one subscriber and one kept message
    benches/history.py topics        # CPU of a publish among 100,000 topics, against 1,000
    benches/history.py               # all of them

HOW IT MEASURES
    storm        --returning connections are made and ask for the last --behind messages of 128 bytes all at once. The time
                 until the last has all of it, against that of one burst of as many messages to the same connections,
                 which are subscribed by then: at most 2. Meanwhile --live subscribers of another topic get 20 messages a
                 second; p99 of their latency in the storm: at most 1.5 times that before it, or 25 ms.
    publish      One subscriber, a batch of --lines messages. CPU of the process, A keeps 1,000 messages: at most 1.3.
    topic-bytes  Slope of the server's user memory over topics, 64 a connection, each with one kept message of 16 bytes,
                 less that of as many connections on one topic: at most 500 bytes.
    topics       A message that is kept to each of 1,000 topics, in turn, --rounds times five, each with a subscriber. There
                 are --many topics, 64 to a connection (A), or no others (B). CPU of the process: 0.95 to 1.05.

    Both sides of a ratio are measured in turn, --pairs times, each on a server started for it; the storm compares
    with itself. --realtime (as root) gives the server, and in the storm who watches live messages, real-time priority:
    others on the machine, the returning clients among them, do not blur their times.

The exit code is 1 if a median is beyond its gate. Python 3.9, standard library only, Linux only.
"""

import argparse
import json
import multiprocessing
import os
import select
import socket
import statistics
import sys
import tempfile
import time

sys.dont_write_bytecode = True
import oldnew  # noqa: E402
import pairs  # noqa: E402
from common import gates  # noqa: E402

RULE = '[[topic]]\npattern = "kept*"\nhistory_messages = {messages}\nhistory_bytes = "64 MiB"\n'
LIMITS = "[limits]\nsubscriptions_max = 64\n"
SIZE = 128
WORKERS = 4


class Server(oldnew.Server):
    """A server with these rules."""

    def __init__(self, args, rules, loops=1):
        self.file = tempfile.NamedTemporaryFile("w", suffix=".toml")
        self.file.write(LIMITS + rules)
        self.file.flush()
        command = f"{args.fantail} serve --listen 127.0.0.1:0 --admin 127.0.0.1:0 --loops {loops} --config {self.file.name}"
        super().__init__(command, {**oldnew.QUIET, **pairs.PATIENT})
        if args.realtime:
            gates.in_realtime(self.pid)

    def __exit__(self, *about):
        super().__exit__(*about)
        self.file.close()


def address(server):
    host, port = server.listen.rsplit(":", 1)
    return host, int(port)


def batch(names, payload):
    return "".join(json.dumps({"topic": name, "payload": payload}) + "\n" for name in names).encode()


# ---------------------------------------------------------------------------------------------------


def returning(pipe, target, count, first, path, rounds):
    """A process of clients: connects, asks at once when told, and says when all have got `rounds` of so many bytes."""
    sockets = {}
    for number in range(count):
        one = socket.socket()
        number += first
        one.bind((f"127.2.{number >> 8 & 255}.{number & 255}", 0))
        one.connect(target)
        one.setblocking(False)
        sockets[one.fileno()] = one
    poll = select.epoll()
    for number in sockets:
        poll.register(number, select.EPOLLIN)
    pipe.send("connected")
    pipe.recv()
    hello = pairs.HELLO.format(path=path).encode()
    for one in sockets.values():
        one.send(hello)
    got = dict.fromkeys(sockets, 0)
    heads = {}
    for bytes_each in rounds:
        left = set(sockets)
        while left:
            for number, _ in poll.poll(60):
                piece = sockets[number].recv(1 << 18)
                if not piece:
                    raise SystemExit("the server closed a connection")
                if number not in heads:
                    # The answer's head may come with messages behind it.
                    head = piece.index(b"\r\n\r\n") + 4
                    heads[number] = head
                    piece = piece[head:]
                got[number] += len(piece)
                if got[number] >= bytes_each:
                    left.discard(number)
        pipe.send("done")
        extra = [count for count in got.values() if count > bytes_each]
        if extra:
            raise SystemExit(f"more than there was: {extra[:3]}")
        got = dict.fromkeys(sockets, 0)
        if bytes_each is not rounds[-1]:
            pipe.recv()


def live(pipe, target, count, path, realtime):
    """A process of subscribers that measures latencies, and gives those since it was last asked."""
    sockets = {}
    for _ in range(count):
        one = socket.create_connection(target)
        one.send(pairs.HELLO.format(path=path).encode())
        head = b""
        while b"\r\n\r\n" not in head:
            head += one.recv(4096)
        one.setblocking(False)
        sockets[one.fileno()] = one
    poll = select.epoll()
    for number in sockets:
        poll.register(number, select.EPOLLIN)
    poll.register(pipe.fileno(), select.EPOLLIN)
    if realtime:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(3))
    pipe.send("subscribed")
    seen = []
    while True:
        for number, _ in poll.poll(1):
            if number == pipe.fileno():
                if pipe.recv() == "end":
                    return
                pipe.send(seen)
                seen = []
                continue
            piece = sockets[number].recv(4096)
            now = time.monotonic()
            for at in range(0, len(piece) - 21, 22):
                seen.append(now - float(piece[at + 2:at + 22]))


def ticker(admin_address, stop):
    """Publishes the time 20 times a second."""
    class At:
        admin = admin_address
    admin = oldnew.Admin(At)
    due = time.monotonic()
    while not stop.is_set():
        admin.post("/publish/live", f"{time.monotonic():020.9f}".encode())
        due += 0.05
        time.sleep(max(0, due - time.monotonic()))


def p99(latencies):
    latencies = sorted(latencies)
    return 1e3 * latencies[int(len(latencies) * 0.99)] if latencies else float("nan")


def storm(args):
    found = []
    for _ in range(args.pairs):
        with Server(args, RULE.format(messages=args.behind), loops=args.loops) as server:
            found.append(one_storm(args, server))
        print(f"  {pairs.one_line(found[-1])}", file=sys.stderr)
    middle = {name: statistics.median(one[name] for one in found) for name in found[0]}
    limits = {"catch-up ms": 2 * middle["burst ms"], "live p99 ms in the storm": max(1.5 * middle["live p99 ms before"], 25)}
    print(f"\n### storm: {args.returning:,} come back, {args.behind:,} messages behind, {args.live:,} live ones\n")
    rows = []
    for name, value in middle.items():
        spread = f"{min(one[name] for one in found):,.1f} .. {max(one[name] for one in found):,.1f}"
        is_beyond = value > limits.get(name, value)
        gates.BEYOND.extend([f"storm: {name}"] if is_beyond else [])
        gate = f"{limits[name]:,.1f}" + (" BEYOND" if is_beyond else "") if name in limits else ""
        rows.append([name, f"{value:,.1f}", spread, gate])
    pairs.print_markdown(["figure", "median", "spread", "gate"], rows)


def one_storm(args, server):
    admin = oldnew.Admin(server)
    for _ in range(args.behind // 100):
        admin.post("/publish", batch(["kept"] * 100, "m" * SIZE))
    whole = args.behind * (SIZE + 4)
    clients, each = [], args.returning // WORKERS
    for worker in range(WORKERS):
        ours, theirs = multiprocessing.Pipe()
        path = f"/ws/kept?history={args.behind}"
        rest = (theirs, address(server), each, worker * each, path, [whole, whole])
        process = multiprocessing.Process(target=returning, args=rest, daemon=True)
        process.start()
        clients.append((ours, process))
    ours, theirs = multiprocessing.Pipe()
    watcher = multiprocessing.Process(target=live, daemon=True,
                                      args=(theirs, address(server), args.live, "/ws/live", args.realtime))
    watcher.start()
    ours.recv()
    for pipe, _ in clients:
        pipe.recv()
    stop = multiprocessing.Event()
    ticking = multiprocessing.Process(target=ticker, args=(server.admin, stop), daemon=True)
    ticking.start()

    def latencies():
        ours.send("tell")
        return ours.recv()

    time.sleep(0.5)
    latencies()
    time.sleep(3)
    before = latencies()
    began, spent = time.monotonic(), server.cpu_ns()
    for pipe, _ in clients:
        pipe.send("go")
    for pipe, _ in clients:
        pipe.recv()
    caught_up, caught_up_cpu = time.monotonic() - began, server.cpu_ns() - spent
    time.sleep(0.2)
    during = latencies()
    peak = server.metric("fantail_memory_bytes", 'kind="anon"')
    pairs.wait_until(lambda: server.metric("fantail_history_readers") == 0, 10, "the seam")
    for pipe, _ in clients:
        pipe.send("next")
    body = batch(["kept"] * args.behind, "m" * SIZE)
    began, spent = time.monotonic(), server.cpu_ns()
    admin.post("/publish", body)
    for pipe, _ in clients:
        pipe.recv()
    burst, burst_cpu = time.monotonic() - began, server.cpu_ns() - spent
    stop.set()
    ours.send("end")
    for process in [watcher, ticking, *(process for _, process in clients)]:
        process.join(5)
        process.kill()
    return {"catch-up ms": 1e3 * caught_up, "burst ms": 1e3 * burst, "catch-up, CPU ms": caught_up_cpu / 1e6,
            "burst, CPU ms": burst_cpu / 1e6, "live p99 ms before": p99(before),
            "live p99 ms in the storm": p99(during), "live messages in the storm": len(during), "anon MiB": peak / 2**20}


# ---------------------------------------------------------------------------------------------------


def publish(args):
    def run(side):
        name = "kept" if side == "A" else "other"
        with Server(args, RULE.format(messages=1_000)) as server, pairs.Holders(server, f"/ws/{name}") as holders:
            holders.open(1)
            admin = oldnew.Admin(server)
            body = batch([name] * args.lines, "m" * SIZE)
            admin.post("/publish", body)
            pairs.wait_until(lambda: server.metric("fantail_mailbox_entries") == 0, 20, "the deliveries")
            before = server.cpu_ns()
            for _ in range(args.rounds):
                admin.post("/publish", body)
            pairs.wait_until(lambda: server.metric("fantail_mailbox_entries") == 0, 20, "the deliveries")
            return {"process, ns/publish": (server.cpu_ns() - before) / (args.lines * args.rounds)}

    gates.show("publish: to a topic that keeps 1,000 (A), to one that keeps none (B)", ["keeps", "keeps none"],
               gates.in_turn(args, run), {"process, ns/publish": (0, 1.3)})


def many_topics(number):
    """The path of a connection that subscribes to 64 topics of its own."""
    names = [f"kept-{number}-{each}" for each in range(64)]
    return f"/ws/{names[0]}?" + "&".join(f"topic={name}" for name in names[1:])


def subscribed(server, connections, path_of, first=0):
    """Upgraded connections, which get what is published and do not read it."""
    sockets = []
    for number in range(first, first + connections):
        one = socket.create_connection(address(server))
        one.send(pairs.HELLO.format(path=path_of(number)).encode())
        head = b""
        while b"\r\n\r\n" not in head:
            head += one.recv(65536)
        sockets.append(one)
    return sockets


def names_of(first, connections):
    return [f"kept-{number}-{each}" for number in range(first, first + connections) for each in range(64)]


def topic_bytes(args):
    def run(side):
        few, all_ = 200, args.many // 64
        with Server(args, RULE.format(messages=10)) as server:
            admin = oldnew.Admin(server)
            path_of = many_topics if side == "A" else (lambda _: "/ws/kept")
            sockets = []

            def more(first, count):
                sockets.extend(subscribed(server, count, path_of, first))
                names = names_of(first, count) if side == "A" else ["kept"] * count
                for at in range(0, len(names), 4_000):
                    admin.post("/publish", batch(names[at:at + 4_000], "m" * 16))

            more(0, few)
            before = server.settled_bytes()
            more(few, all_ - few)
            grown = server.settled_bytes() - before
            for one in sockets:
                one.close()
            return {"bytes/64 topics": grown / (all_ - few)}

    seen = gates.in_turn(args, run)
    gates.show(f"topic-bytes: {args.many:,} topics with a kept message (A), as many connections on one (B)",
               ["own", "one"], seen, {})
    sides = zip(seen["A"], seen["B"])
    own = statistics.median((a["bytes/64 topics"] - b["bytes/64 topics"]) / 64 for a, b in sides)
    print(f"\na topic with a subscriber and a kept message of 16 bytes: {own:.0f} bytes (gate 500)")
    gates.BEYOND.extend(["topic-bytes"] if own > 500 else [])


def topics(args):
    def run(side):
        connections = -(-args.many // 64) if side == "A" else 1_000
        path_of = many_topics if side == "A" else (lambda number: f"/ws/kept-{number}-0")
        with Server(args, RULE.format(messages=10)) as server:
            sockets = subscribed(server, connections, path_of)
            admin = oldnew.Admin(server)
            # Each goes to another connection, on both sides.
            names = [f"kept-{number}-0" for number in range(1_000)]
            body = batch(names, "m" * 16)
            admin.post("/publish", body)
            before = server.cpu_ns()
            for _ in range(args.rounds * 5):
                admin.post("/publish", body)
            pairs.wait_until(lambda: server.metric("fantail_mailbox_entries") == 0, 20, "the deliveries")
            spent = server.cpu_ns() - before
            for one in sockets:
                one.close()
            return {"process, ns/publish": spent / (len(names) * args.rounds * 5)}

    gates.show(f"topics: a publish among {args.many:,} topics (A), among 1,000 (B)", ["many", "few"],
               gates.in_turn(args, run), {"process, ns/publish": (0.95, 1.05)})


MODES = {"storm": storm, "publish": publish, "topic-bytes": topic_bytes, "topics": topics}


def main():
    top = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    top.add_argument("--pairs", type=int, default=3)
    top.add_argument("--rounds", type=int, default=10)
    top.add_argument("--loops", type=int, default=1, help="of the storm's server")
    top.add_argument("--returning", type=int, default=10_000)
    top.add_argument("--behind", type=int, default=1_000)
    top.add_argument("--live", type=int, default=1_000)
    top.add_argument("--lines", type=int, default=8_000)
    top.add_argument("--many", type=int, default=100_000)
    top.add_argument("--fantail", default="target/release/fantail")
    top.add_argument("--realtime", action="store_true")
    gates.run(top, MODES)


if __name__ == "__main__":
    main()
