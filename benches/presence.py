#!/usr/bin/env python3
"""Who is there, with thousands of members: what it costs, and whether the list is true.

    cargo build --release --bins
    benches/presence.py                        # 10,000 members, 100 joins and 100 leaves a second
    benches/presence.py --members 15000 --seconds 30
    benches/presence.py --members 50000        # in four loops, because a table of descriptors has 20,000 here

HOW IT MEASURES
    One topic with presence = "full", a grace of --grace seconds and the usual interval, two loops, or as many as have room for the
    members. --members json
    connections in processes of up to 7,000 each subscribe to it and ask for its events. While 500 more come and go, 100
    a second each way, it counts for --seconds what the members get and what CPU the server takes. Then those who came
    and went are gone, and the list of GET /presence has to be that of the members' own ids, 2 s after the grace at the
    latest. Then a process with 3,000 of them is killed (kill -9), and the same is asked again. When the list was right is told by
    its version, not by when its pages were read, which takes a second for 50,000.

    Gates: 2 events for each member and second, half a core, both lists right in time. Python 3.9, standard library
    only, Linux only.
"""

import argparse
import json
import multiprocessing
import os
import re
import select
import signal
import socket
import sys
import tempfile
import time
import urllib.parse
import urllib.request

sys.dont_write_bytecode = True
import oldnew  # noqa: E402
import pairs  # noqa: E402

UPGRADE = ("GET /ws/crowd HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
           "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
           "Sec-WebSocket-Protocol: fantail.json.v1\r\n\r\n").encode()
ASK = pairs.client_frame(1, b'{"type":"presence","id":1,"topic":"crowd","events":true,"limit":0}')
HOLDER_MAX = 7_000
KILLED = 3_000
# Connections are shared out over the loops by the kernel, unevenly, and each loop has a table of descriptors of its own.
MEMBERS_OF_LOOP = 15_000
CHURNERS = 4
EVENT = b'"type":"presence","topic"'
SELF = re.compile(rb'"self":"([^"]*)"')


def connect(target, number):
    """One subscribed connection; addresses of loopback in turn, because one has 28,000 ports."""
    one = socket.socket()
    one.bind((f"127.0.0.{2 + number // 20_000}", 0))
    one.connect(target)
    one.sendall(UPGRADE)
    head = b""
    while b'"subscribed"' not in head:
        got = one.recv(4096)
        if not got or b" 101 " not in head + got:
            raise SystemExit(f"refused: {head + got!r}")
        head += got
    return one


def hold(target, first, count, pipe):
    """Members that ask for events and count them, until the process is killed."""
    poll = select.epoll()
    by_fd, ids = {}, {}
    for number in range(first, first + count):
        one = connect(target, number)
        by_fd[one.fileno()] = one
        poll.register(one.fileno(), select.EPOLLIN)
    pipe.send("open")
    # Not before all are there: what comes while it connects would wait in the kernel.
    pipe.recv()
    for one in by_fd.values():
        one.sendall(ASK)
        one.setblocking(False)
    events = 0
    told = 0
    while True:
        for fd, _ in poll.poll(0.2):
            data = by_fd[fd].recv(1 << 16)
            if not data:
                raise SystemExit  # The server has ended.
            events += data.count(EVENT)
            if fd not in ids and (own := SELF.search(data)):
                ids[fd] = own.group(1).decode()
        if pipe.poll():
            pipe.recv()
            pipe.send((events - told, list(ids.values())))
            told = events


def churn(target, first, each_second, stop):
    """One comes and one goes, each in its time."""
    held = [connect(target, first + number) for number in range(500 // CHURNERS)]
    began, done = time.monotonic(), 0
    while not stop.is_set():
        due = int((time.monotonic() - began) * each_second)
        for _ in range(due - done):
            held.append(connect(target, first))
            held.pop(0).close()
        done = due
        time.sleep(0.005)


def page(server, limit, after=""):
    """One page of the list."""
    with urllib.request.urlopen(f"http://{server.admin}/presence?topic=crowd&limit={limit}{after}", timeout=10) as answer:
        return json.load(answer)


def listed(server):
    """All ids of the list, page by page, and the versions of the pages."""
    ids, versions, after = [], set(), ""
    while True:
        some = page(server, 1000, after)
        versions.add(some["version"])
        ids += [member["id"] for member in some["members"]]
        if "next" not in some:
            return ids, versions
        after = "&after=" + urllib.parse.quote(some["next"])


def until_true(server, truth, seconds):
    """Seconds until the list is the truth, at most so many, and how long all pages of it take to read.

    Asked for the number and the version, which is one answer however long the list is. Where the pages that are read then are all of
    that very version, and of the very members, they were the list when the number was told."""
    began = time.monotonic()
    while (took := time.monotonic() - began) <= seconds:
        head = page(server, 0)
        if head["count"] == len(truth):
            ids, versions = listed(server)
            if versions == {head["version"]} and sorted(ids) == sorted(truth):
                return took, time.monotonic() - began - took
        time.sleep(0.01)
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fantail", default="target/release/fantail")
    parser.add_argument("--members", type=int, default=10_000)
    parser.add_argument("--rate", type=int, default=100, help="joins a second, and as many leaves")
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--grace", type=int, default=2)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "fantail.toml")
        with open(path, "w") as file:
            file.write(f'[[topic]]\npattern = "crowd"\npresence = "full"\npresence_grace_seconds = {args.grace}\n')
        env = {**oldnew.QUIET, "FANTAIL_CONFIG": path, "FANTAIL_SERVER_LOOPS": str(max(2, -(-args.members // MEMBERS_OF_LOOP)))}
        serve = oldnew.SERVE.format(fantail=args.fantail).replace(" --loops 1", "")
        with oldnew.Server(serve, env) as server:
            return measure(args, server)


def measure(args, server):
    host, port = server.listen.rsplit(":", 1)
    target = (host, int(port))
    shares = [KILLED] + [0] * -(-(args.members - KILLED) // HOLDER_MAX)
    for at in range(1, len(shares)):
        shares[at] = min(HOLDER_MAX, args.members - sum(shares))
    holders = []
    for at, share in enumerate(shares):
        own, other = multiprocessing.Pipe()
        one = multiprocessing.Process(target=hold, args=(target, sum(shares[:at]), share, other), daemon=True)
        one.start()
        holders.append((one, own))
    for _, own in holders:
        if own.recv() != "open":
            raise SystemExit("a holder did not open")
    for _, own in holders:
        own.send("ask")

    def ask(holders):
        for _, pipe in holders:
            pipe.send("tell")
        told = [pipe.recv() for _, pipe in holders]
        return sum(events for events, _ in told), [one for _, ids in told for one in ids]

    stop = multiprocessing.Event()
    churning = [
        multiprocessing.Process(target=churn, args=(target, args.members, args.rate / CHURNERS, stop), daemon=True)
        for _ in range(CHURNERS)
    ]
    for one in churning:
        one.start()
    time.sleep(args.grace + 2)
    ask(holders)
    joins, cpu, began = server.metric("fantail_connections_accepted_total"), server.cpu_ns(), time.monotonic()
    time.sleep(args.seconds)
    spent, took = server.cpu_ns() - cpu, time.monotonic() - began
    joins = server.metric("fantail_connections_accepted_total") - joins
    events, truth = ask(holders)
    stop.set()
    for one in churning:
        one.join()
    first = until_true(server, truth, args.grace + 2)
    os.kill(holders[0][0].pid, signal.SIGKILL)
    _, truth = ask(holders[1:])
    second = until_true(server, truth, args.grace + 2)
    each, cores = events / args.members / took, spent / 1e9 / took
    print(f"{args.members:,} members, {joins / took:.0f} joins and leaves a second, {took:.1f} s")
    print(f"events for each member and second   {each:.2f}   (gate 2)")
    print(f"cores of the server                 {cores:.2f}   (gate 0.5)")
    for what, found in [("the list right after they had gone", first), ("and after kill -9 of 3,000", second)]:
        shown = "never" if found is None else f"{found[0]:.2f} s, read in {found[1]:.2f} s"
        print(f"{what:<36}{shown}   (gate {args.grace + 2} s, the grace in it)")
    # A run that begins before an event and ends behind one has one more.
    return 1 if each > 2 + 1 / took or cores > 0.5 or None in (first, second) else 0


if __name__ == "__main__":
    sys.exit(main())
