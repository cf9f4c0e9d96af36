#!/usr/bin/env python3
"""Many small things against one large one: topics, publishers and floods that must not crowd anybody out.

    cargo build --release --bins
    benches/crowds.py topics                   # 8,000 topics with one subscriber each, against one topic with 8,000
    benches/crowds.py flood [--old OLD]        # a broadcast while echoes flood the loop, against its quiet time
    benches/crowds.py publishers               # a batch while 8,000 publishers wait for room, against alone
    benches/crowds.py reload                   # a bystander while many topics get other rules
    benches/crowds.py topic-bytes              # memory of a topic of one's own
    benches/crowds.py pattern-bytes            # memory of a subscription to a pattern
    benches/crowds.py listing                  # a bystander while the admin port is asked for somebody who is not there
    benches/crowds.py                          # all of them

HOW IT MEASURES
    topics      One message to each subscriber, --rounds times: on the one side a batch with a line for each topic, on
                the other one message. CPU of the loop threads (what the scheduler gave them) and of the process, by
                deliveries. Gates: 1.05 for the loops, 1.25 for the process.
    flood       One loop, 2,000 subscribers. Two processes send small echoes over 32 connections each as fast as they
                are taken. From the POST to the last arrival, median of --rounds broadcasts: at most 3 times the quiet
                one. With --old the flood's echoes a second are compared, too: at least 0.9 of before.
    publishers  One loop, a mailbox of 1,024 entries, and a batch of many messages to 1,000 subscribers, so that the
                mailbox is full while it lasts. Then 8,000 clients publish a message each to topics of their own, and
                wait for room. Time of the batch, at most 1.2 times the time alone, and no line refused.
    reload      Two loops, --ruled topics with a subscriber each. Other rules, 1,000 of them that fit nothing, come with
                SIGHUP, and a message to each of 8,000 topics behind it, which look their policies up. The worst echo of
                a bystander meanwhile: at most 50 ms. Beside it the worst under the same messages without a reload.
    topic-bytes Slope of the server's user memory over connections, each on a topic of its own, less the same with all
                on one topic: at most 200 bytes.

    pattern-bytes
                The same slope, with each connection on a pattern of its own and with all on one, less that of all on one
                topic. No gate.
    listing     --listed connections, which need a hard RLIMIT_NOFILE to match. GET /connections?ip= for one that nobody has, one after the other, as the
                operator's page does: the 99th percentile and the worst of a bystander's echoes meanwhile, and of the same
                without. The 99th percentile is to be at most 50 ms.

    Both sides of a ratio are measured in turn, --pairs times, each on a server started for it. The table has the
    medians of the sides and the median, least and greatest ratio of a pair.
    --realtime (as root) gives the server real-time priority: others on the machine do not blur its times.

The exit code is 1 if a median is beyond its gate. Python 3.9, standard library only, Linux only.
"""

import argparse
import contextlib
import json
import multiprocessing
import os
import select
import signal
import socket
import statistics
import sys
import tempfile
import threading
import time
import urllib.request

sys.dont_write_bytecode = True
import hostile  # noqa: E402
import oldnew  # noqa: E402
import pairs  # noqa: E402
from common import gates  # noqa: E402

ENV = {**oldnew.QUIET, **pairs.PATIENT}
SMALL_MAILBOX = {"FANTAIL_MAILBOX_ENTRIES_MAX": "1024"}


def serve(args, binary=None, env=None):
    server = oldnew.Server(oldnew.SERVE.format(fantail=binary or args.fantail), {**ENV, **(env or {})})
    if args.realtime:
        gates.in_realtime(server.pid)
    return server


def loops_ns(server):
    """CPU of the client loops' threads."""
    total = 0
    for task in os.listdir(f"/proc/{server.pid}/task"):
        with open(f"/proc/{server.pid}/task/{task}/comm") as name:
            if not pairs.LOOP_THREAD.match(name.read()):
                continue
        with open(f"/proc/{server.pid}/task/{task}/schedstat") as file:
            total += int(file.read().split()[0])
    return total


# ---------------------------------------------------------------------------------------------------


def topics(args):
    def run(side):
        path = "/ws/crowd-{number}" if side == "A" else "/ws/crowd"
        with serve(args) as server, pairs.Holders(server, path) as holders:
            holders.open(args.topics)
            admin = oldnew.Admin(server)
            spent = [0, 0]
            for turn in range(-1, args.rounds):
                payload = f"{'m' * 112}{turn:016}"
                if side == "A":
                    names = (f"crowd-{number}" for number in range(args.topics))
                else:
                    names = ["crowd"]
                lines = "".join(json.dumps({"topic": name, "payload": payload}) + "\n" for name in names)
                before = loops_ns(server), server.cpu_ns()
                answer = admin.post("/publish", lines.encode())
                if b"error" in answer:
                    raise SystemExit(f"a line was refused: {answer[:300]!r}")
                got = holders.all("read", 5.0, payload.encode())
                if got != args.topics:
                    raise SystemExit(f"{got} of {args.topics} got the message")
                # The first round warms up.
                if turn >= 0:
                    spent[0] += loops_ns(server) - before[0]
                    spent[1] += server.cpu_ns() - before[1]
        deliveries = args.topics * args.rounds
        return {"loops, ns/delivery": spent[0] / deliveries, "process, ns/delivery": spent[1] / deliveries}

    gates.show(f"topics: {args.topics:,} with a subscriber each (A), one with {args.topics:,} (B)",
               ["many", "one"], gates.in_turn(args, run),
               {"loops, ns/delivery": (0, 1.05), "process, ns/delivery": (0, 1.25)})


# ---------------------------------------------------------------------------------------------------


def flood(args):
    def run(side, binary=None):
        with serve(args, binary) as server:
            clients = oldnew.Clients(server, "/ws/crowd", args.subscribers)
            admin = oldnew.Admin(server)
            broadcast(admin, clients)
            quiet = statistics.median(broadcast(admin, clients) for _ in range(args.rounds))
            host, port = server.listen.rsplit(":", 1)
            stop = multiprocessing.Event()
            floods = [multiprocessing.Process(target=echo_flood, args=((host, int(port)), 3_000_000 + 1_000 * one, stop),
                                              daemon=True) for one in range(2)]
            for one in floods:
                one.start()
            pairs.wait_until(lambda: server.metric("fantail_messages_received_total") > 1_000_000, 30, "the flood")
            before, began = server.metric("fantail_messages_received_total"), time.monotonic()
            busy = statistics.median(broadcast(admin, clients) for _ in range(args.rounds))
            time.sleep(1.0)
            echoes = server.metric("fantail_messages_received_total") - before
            seconds = time.monotonic() - began
            stop.set()
            for one in floods:
                one.join(10)
                one.kill()
        return {"quiet ms": quiet, "flooded ms": busy, "echoes/s": echoes / seconds}

    found = [run("A") for _ in range(args.pairs)]
    seen = {"A": [{"broadcast ms": one["flooded ms"]} for one in found],
            "B": [{"broadcast ms": one["quiet ms"]} for one in found]}
    gates.show(f"flood: a broadcast to {args.subscribers:,} under echoes (A), quiet (B)", ["flooded", "quiet"], seen,
               {"broadcast ms": (0, 3.0)})
    if args.old:
        seen = gates.in_turn(args, lambda side: run(side, args.fantail if side == "A" else args.old))
        gates.show("flood: new (A), old (B)", ["new", "old"], seen, {"echoes/s": (0.9, 1000)})


def broadcast(admin, clients):
    """Milliseconds from a POST to the last arrival."""
    began = time.monotonic()
    admin.post("/publish/crowd", b"m" * oldnew.SIZE)
    clients.await_bytes(oldnew.DELIVERED)
    return 1e3 * (time.monotonic() - began)


def echo_flood(target, first, stop):
    """Small echoes over many connections, as fast as they are taken, with the answers read."""
    piece = pairs.client_frame(1, b"m" * 8) * 4_000
    sockets = [hostile.upgraded(target, first + number) for number in range(32)]
    poll = select.epoll()
    rests = {}
    for one in sockets:
        one.setblocking(False)
        poll.register(one.fileno(), select.EPOLLIN | select.EPOLLOUT)
        rests[one.fileno()] = (one, memoryview(piece))
    while not stop.is_set():
        for number, events in poll.poll(0.1, 64):
            one, rest = rests[number]
            try:
                if events & select.EPOLLIN:
                    one.recv(1 << 18)
                if events & select.EPOLLOUT:
                    rest = rest[one.send(rest):]
                    rests[number] = (one, rest or memoryview(piece))
            except BlockingIOError:
                pass


# ---------------------------------------------------------------------------------------------------


def publishers(args):
    def run(side):
        with serve(args, env=SMALL_MAILBOX) as server:
            subscribers = pairs.Holders(server, "/ws/crowd")
            waiting = pairs.Holders(server, "/ws/crowd-{number}?echo=0")
            with subscribers, waiting:
                subscribers.open(args.subscribers // 2)
                waiting.open(args.publishers)
                admin = oldnew.Admin(server)
                line = json.dumps({"topic": "crowd", "payload": "m" * 16}).encode() + b"\n"
                admin.post("/publish", line)
                reader = threading.Thread(target=subscribers.all, args=("drain", 2.0))
                reader.start()
                took, answers = [], []

                def batch():
                    began = time.monotonic()
                    answers.append(admin.post("/publish", line * args.lines))
                    took.append(time.monotonic() - began)

                before = server.metric("fantail_publishes_total")
                posting = threading.Thread(target=batch)
                posting.start()
                pairs.wait_until(lambda: server.metric("fantail_publishes_total") > before, 20, "the batch")
                if side == "A":
                    waiting.all("send", pairs.client_frame(1, b"w" * 16))
                posting.join()
                reader.join()
                tries = server.metric("fantail_publishes_busy_total")
        refused = answers[0].count(b'"error"')
        return {"batch ms": 1e3 * took[0], "refused lines": refused, "tries that found no room": tries}

    seen = gates.in_turn(args, run)
    gates.show(f"publishers: a batch of {args.lines:,} while {args.publishers:,} wait for room (A), alone (B)",
               ["with them", "alone"], seen, {"batch ms": (0, 1.2)})
    if any(one["refused lines"] for one in seen["A"]):
        gates.BEYOND.append("publishers: refused lines")


# ---------------------------------------------------------------------------------------------------


TOPICS_PER_CONNECTION = 2_500
RULES = 1_000


def reload(args):
    def run(side):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "fantail.toml")
            env = {"FANTAIL_CONFIG": path, "FANTAIL_SERVER_LOOPS": "2", "FANTAIL_LIMITS_HEAD_BYTES_MAX": str(64 << 10),
                   "FANTAIL_LIMITS_SUBSCRIPTIONS_MAX": "65535", "FANTAIL_ADMISSION_TOPICS_PER_ADDRESS_MAX": "1000000"}
            write_rules(path, "before")
            server = oldnew.Server(oldnew.SERVE.format(fantail=args.fantail).replace(" --loops 1", ""), {**ENV, **env})
            with server, contextlib.ExitStack() as open_sockets:
                host, port = server.listen.rsplit(":", 1)
                count = -(-args.ruled // TOPICS_PER_CONNECTION)
                for number in range(count):
                    open_sockets.enter_context(subscriber((host, int(port)), number))
                topics = count * TOPICS_PER_CONNECTION
                pairs.wait_until(lambda: server.metric("fantail_subscriptions") >= topics, 60, "the topics")
                admin = oldnew.Admin(server)
                lines = b"".join(
                    json.dumps({"topic": f"r{at % count}-{at // count}", "payload": "m"}).encode() + b"\n"
                    for at in range(8_000)
                )
                stop, worst = threading.Event(), []
                prober = threading.Thread(target=probe, args=((host, int(port)), stop, worst))
                prober.start()
                time.sleep(0.5)
                if side == "A":
                    write_rules(path, "after")
                    os.kill(server.pid, signal.SIGHUP)
                    pairs.wait_until(lambda: server.metric("fantail_config_reloads_total", 'outcome="applied"') > 0, 30, "the reload")
                admin.post("/publish", lines)
                time.sleep(1.0)
                stop.set()
                prober.join()
        return {"worst echo ms": max(worst), "echoes": len(worst), "topics": topics}

    seen = gates.in_turn(args, run)
    gates.show(f"reload: {args.ruled:,} topics, {RULES:,} rules; with SIGHUP (A), without (B)", ["reload", "none"], seen, {})
    worst = statistics.median(one["worst echo ms"] for one in seen["A"])
    print(f"\nworst echo during a reload: {worst:.1f} ms (gate 50)")
    gates.BEYOND.extend(["reload"] if worst > 50 else [])


def write_rules(path, word):
    with open(path, "w") as file:
        for number in range(RULES):
            file.write(f'[[topic]]\npattern = "{word}-{number}-*"\nmessages_max = {10 + number}\n')


def subscriber(target, number):
    one = socket.create_connection(target)
    more = "&".join(f"topic=r{number}-{topic}" for topic in range(1, TOPICS_PER_CONNECTION))
    one.sendall(f"GET /ws/r{number}-0?{more} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode())
    if b" 101 " not in one.recv(4096):
        raise SystemExit("a subscriber was refused")
    return one


def probe(target, stop, took):
    """One echo after the other; milliseconds of each."""
    with hostile.upgraded(target, 9_000_000) as one:
        frame = pairs.client_frame(1, b"m" * 16)
        while not stop.is_set():
            began = time.monotonic()
            one.sendall(frame)
            left = 18
            while left > 0:
                left -= len(one.recv(left))
            took.append(1e3 * (time.monotonic() - began))
            time.sleep(0.0005)


# ---------------------------------------------------------------------------------------------------


def topic_bytes(args):
    def run(side):
        path = "/ws/crowd-{number}" if side == "A" else "/ws/crowd"
        few, all_ = args.held // 5, args.held
        with serve(args) as server, pairs.Holders(server, path) as holders:
            holders.open(few)
            before = server.settled_bytes()
            holders.open(all_ - few)
            return {"bytes/connection": (server.settled_bytes() - before) / (all_ - few)}

    seen = gates.in_turn(args, run)
    gates.show(f"topic-bytes: {args.held:,} connections, each on a topic of its own (A), all on one (B)", ["own", "one"], seen, {})
    own = statistics.median(a["bytes/connection"] - b["bytes/connection"] for a, b in zip(seen["A"], seen["B"]))
    print(f"\na topic of its own: {own:.0f} bytes (gate 200)")
    gates.BEYOND.extend(["topic-bytes"] if own > 200 else [])


PATTERNS = {"own pattern": "/ws/crowd-{number}%2F*", "one pattern": "/ws/crowd%2F*", "one topic": "/ws/crowd"}


def pattern_bytes(args):
    env = {"FANTAIL_LIMITS_PATTERNS_MAX": str(args.held)}
    few, all_ = args.held // 5, args.held
    seen = {name: [] for name in PATTERNS}
    for _ in range(args.pairs):
        for name, path in PATTERNS.items():
            with serve(args, env=env) as server, pairs.Holders(server, path) as holders:
                holders.open(few)
                before = server.settled_bytes()
                holders.open(all_ - few)
                seen[name].append((server.settled_bytes() - before) / (all_ - few))
    print(f"\npattern-bytes: {args.held:,} connections, each on")
    topic = statistics.median(seen["one topic"])
    pairs.print_markdown(["", "bytes/connection", "more than on one topic"],
                         [[name, f"{statistics.median(bytes_):.0f}", f"{statistics.median(bytes_) - topic:.0f}"]
                          for name, bytes_ in seen.items()])


# ---------------------------------------------------------------------------------------------------


NOBODY = "203.0.113.77"
ECHO_P99_MS = 50


def listing(args):
    def run(side):
        with serve(args) as server, pairs.Holders(server, "/ws/crowd") as holders:
            holders.open(args.listed)
            host, port = server.listen.rsplit(":", 1)
            stop, took = threading.Event(), []
            prober = threading.Thread(target=probe, args=((host, int(port)), stop, took))
            prober.start()
            asked, until = 0, time.monotonic() + 5
            while time.monotonic() < until:
                if side == "A":
                    found = search(server)
                    if found:
                        raise SystemExit(f"somebody has {NOBODY}: {found[:1]}")
                    asked += 1
                else:
                    time.sleep(0.1)
            stop.set()
            prober.join()
        took.sort()
        return {"echo p99 ms": took[len(took) * 99 // 100], "worst ms": took[-1], "echoes": len(took), "searches": asked}

    seen = gates.in_turn(args, run)
    gates.show(f"listing: {args.listed:,} connections; while one is searched for that is not there (A), quiet (B)",
               ["searched", "quiet"], seen, {})
    p99 = statistics.median(one["echo p99 ms"] for one in seen["A"])
    print(f"\nechoes during searches: p99 {p99:.1f} ms (gate {ECHO_P99_MS})")
    gates.BEYOND.extend(["listing"] if p99 > ECHO_P99_MS else [])


def search(server):
    """All pages of a search for nobody."""
    found, cursor = [], ""
    while True:
        with urllib.request.urlopen(f"http://{server.admin}/connections?ip={NOBODY}&limit=100{cursor}") as answer:
            page = json.load(answer)
        found += page["connections"]
        if not page.get("next"):
            return found
        cursor = f"&cursor={page['next']}"


MODES = {"topics": topics, "flood": flood, "publishers": publishers, "reload": reload, "topic-bytes": topic_bytes,
         "pattern-bytes": pattern_bytes, "listing": listing}


def main():
    top = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    top.add_argument("--pairs", type=int, default=3)
    top.add_argument("--rounds", type=int, default=10, help="messages of a run (default 10)")
    top.add_argument("--topics", type=int, default=8_000)
    top.add_argument("--subscribers", type=int, default=2_000)
    top.add_argument("--publishers", type=int, default=8_000)
    top.add_argument("--lines", type=int, default=8_000, help="of the batch that publishers meet")
    top.add_argument("--ruled", type=int, default=445_000, help="topics of reload (default %(default)s)")
    top.add_argument("--held", type=int, default=15_000, help="connections of topic-bytes and pattern-bytes")
    top.add_argument("--listed", type=int, default=50_000, help="connections of listing (default %(default)s)")
    top.add_argument("--fantail", default="target/release/fantail")
    top.add_argument("--old", help="another binary, for the flood's echoes")
    top.add_argument("--realtime", action="store_true")
    gates.run(top, MODES)


if __name__ == "__main__":
    main()
