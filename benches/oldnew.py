#!/usr/bin/env python3
"""Did anything get dearer? Two builds of Fantail in interleaved pairs, judged by what a noisy machine cannot blur.

    cargo build --release --bins
    benches/oldnew.py --old ../before/target/release/fantail       # --new is target/release/fantail
    benches/oldnew.py --old OLD --only echo,post --pairs 5         # some of the work, more pairs
    benches/oldnew.py --check                                      # does the instrument work? under a minute

HOW IT MEASURES
    The same small pieces of work (`WORK` below) are done to a server of each build, one piece at a time, and three
    things are counted over it, for the whole process with all its threads, and divided by the operations done:

    instructions  in user space, by valgrind's callgrind: they do not depend on what else runs on the machine
    calls         system calls, by strace -c
    cpu ns        user and system time of the process at full speed

    Each kind is taken in a run of its own, because callgrind and strace slow the server down. Pairs alternate their
    order. Instructions and calls are given as the median over the pairs of each side and the median of the ratios
    new/old within a pair; CPU time as the geometric mean of these ratios with its 95 % interval (Student's t).

READING THE ANSWER
    A row is over the gate if instructions or calls are more than 1.03 times as many, or if even the lower end of the
    CPU ratio's interval is above it. Those rows are marked, and the exit code is 1. How many
    events share a turn depends on the clients' speed: a row marked `~` moves by a per cent or two for it.
    --old and --new with the same binary show what this machine makes of nothing.

Needs valgrind and strace. Python 3.9, standard library only, Linux only.
"""

import argparse
import contextlib
import json
import math
import os
import re
import select
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True
import pairs  # noqa: E402

GATE = 1.03
# A single call more in hundreds of operations is chance: when the kernel had more to read.
CALLS_APART = 0.005
SIZE = 128
SERVE = "{fantail} serve --listen 127.0.0.1:0 --admin 127.0.0.1:0 --loops 1"
# Nothing but the work is to happen meanwhile.
QUIET = {**pairs.PUBLISH_ENV, "FANTAIL_TIMEOUTS_HEARTBEAT_SECONDS": "0", "FANTAIL_LOG_LEVEL": "warn"}
# Student's t, 97.5 %, by degrees of freedom; beyond the list it is as good as 1.96.
STUDENT = [12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23, 2.20, 2.18, 2.16, 2.14, 2.13]
TEXT_FRAME = pairs.client_frame(1, b"m" * SIZE)
PING_FRAME = pairs.client_frame(9, b"")


# ---------------------------------------------------------------------------------------------------
# Clients


class Admin:
    """One kept-alive connection to the admin port."""

    def __init__(self, server):
        host, port = server.admin.rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)), 60)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def post(self, path, body):
        """The answer's body."""
        head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        self.socket.sendall(head + body)
        got = b""
        while b"\r\n\r\n" not in got:
            got += self.some()
        head, _, got = got.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise SystemExit(f"{path}: {head[:200]!r}")
        length = re.search(rb"(?i)content-length: *(\d+)", head)
        if not length:
            # Chunked; its end is a line of its own.
            while not got.endswith(b"0\r\n\r\n"):
                got += self.some()
            return got
        while len(got) < int(length.group(1)):
            got += self.some()
        return got

    def some(self):
        piece = self.socket.recv(1 << 16)
        if not piece:
            raise SystemExit("the admin port closed a connection")
        return piece


class Clients:
    """Upgraded connections that are sent to and read from all at once."""

    def __init__(self, server, path, count, first=0):
        host, port = server.listen.rsplit(":", 1)
        hello = pairs.HELLO.format(path=path).encode()
        self.sockets = pairs.hold_open(count, first, host, int(port), hello, None, False, True)
        self.poll = select.epoll()
        self.by_number = {}
        for one in self.sockets:
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.poll.register(one.fileno(), select.EPOLLIN)
            self.by_number[one.fileno()] = one

    def send(self, data):
        for one in self.sockets:
            one.send(data)

    def await_bytes(self, each):
        """Reads until every connection has got so many bytes."""
        waits = dict.fromkeys(self.by_number, each)
        deadline = time.monotonic() + 120
        while waits:
            if time.monotonic() > deadline:
                raise SystemExit(f"{len(waits)} connections still wait for {sum(waits.values())} bytes")
            for number, _ in self.poll.poll(1.0, 1024):
                piece = self.by_number[number].recv(1 << 18)
                if not piece:
                    raise SystemExit("the server closed a connection")
                waits[number] -= len(piece)
                if waits[number] < 0:
                    raise SystemExit("more bytes came than were sent")
                if not waits[number]:
                    del waits[number]


# ---------------------------------------------------------------------------------------------------
# The work. Each is made with a server and a scale, and `go(times)` returns how many operations it did.

DELIVERED = SIZE + 4  # bytes of a server's frame with SIZE bytes of text


class Single:
    """Deliveries of one message at a time to many subscribers."""

    def __init__(self, server):
        self.clients = Clients(server, "/ws/oldnew", 500)
        self.admin = Admin(server)

    def go(self, times):
        for _ in range(times):
            self.admin.post("/publish/oldnew", b"m" * SIZE)
            self.clients.await_bytes(DELIVERED)
        return times * len(self.clients.sockets)


class Burst:
    """Deliveries of sixty messages that arrive at once."""

    def __init__(self, server):
        self.clients = Clients(server, "/ws/oldnew", 200)
        self.publisher = Clients(server, "/ws/oldnew?echo=0", 1, 60_000)

    def go(self, times):
        for _ in range(times):
            self.publisher.send(TEXT_FRAME * 60)
            self.clients.await_bytes(DELIVERED * 60)
        return times * 60 * len(self.clients.sockets)


class Echo:
    """Echoes of one connection, each sent when the one before has come: a turn of the loop for each."""

    def __init__(self, server, count=1):
        self.clients = Clients(server, "/echo", count)

    def go(self, times):
        for _ in range(times):
            self.clients.send(TEXT_FRAME)
            self.clients.await_bytes(DELIVERED)
        return times * len(self.clients.sockets)


@contextlib.contextmanager
def stopped(pid):
    """The server stands still meanwhile."""
    os.kill(pid, signal.SIGSTOP)
    while not states(pid) <= {"T", "t"}:
        time.sleep(0.001)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def states(pid):
    """What its threads do, by the letter after the name in their stat files."""
    seen = set()
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/stat") as file:
            seen.add(file.read().rpartition(")")[2].split()[0])
    return seen


class Echoes(Echo):
    """Echoes of a hundred connections that share a turn: the server stands still until each has sent."""

    def __init__(self, server):
        super().__init__(server, 100)
        self.pid = server.pid

    def go(self, times):
        for _ in range(times):
            with stopped(self.pid):
                self.clients.send(TEXT_FRAME)
            self.clients.await_bytes(DELIVERED)
        return times * len(self.clients.sockets)


class Pipeline(Echo):
    """Small echoes that arrive many at once: what each costs beside the calls they share."""

    FRAME = pairs.client_frame(1, b"m" * 8)
    ANSWER = 8 + 2

    def go(self, times):
        for _ in range(times):
            self.clients.send(self.FRAME * 1_000)
            self.clients.await_bytes(self.ANSWER * 1_000)
        return 1_000 * times


class Handshakes:
    """Connecting and upgrading, fifty under way."""

    def __init__(self, server):
        self.server = server
        self.held = []

    def go(self, times):
        for _ in range(times):
            self.held.append(Clients(self.server, "/ws/oldnew", 50, 50 * len(self.held)))
        return 50 * times


class Post:
    """Publishes by the admin port, a request each, to a topic without subscribers."""

    def __init__(self, server):
        self.admin = Admin(server)

    def go(self, times):
        for _ in range(times):
            self.admin.post("/publish/oldnew", b"m" * SIZE)
        return times


class Lines(Post):
    """Publishes by the admin port, five hundred lines a request."""

    def go(self, times):
        line = json.dumps({"topic": "oldnew", "payload": "m" * SIZE}).encode() + b"\n"
        for _ in range(times):
            self.admin.post("/publish", line * 500)
        return 500 * times


class Frames:
    """Publishes by a WebSocket client, twenty at a time and a ping to know that they were taken."""

    def __init__(self, server):
        self.clients = Clients(server, "/ws/oldnew?echo=0", 1)

    def go(self, times):
        for _ in range(times):
            self.clients.send(TEXT_FRAME * 20 + PING_FRAME)
            self.clients.await_bytes(2)
        return 20 * times


# name -> (work, operation, times to warm up, times under callgrind and strace, times at full speed)
WORK = {
    "single": (Single, "delivery, single", 2, 10, 60),
    "burst": (Burst, "delivery, burst", 2, 10, 60),
    "echo": (Echo, "echo, alone", 50, 1_000, 8_000),
    "echoes": (Echoes, "echo, of 100 in a turn", 3, 20, 120),
    "pipeline": (Pipeline, "echo, of 1,000 in a read", 2, 20, 2_000),
    "handshake": (Handshakes, "~ handshake", 2, 10, 40),
    "post": (Post, "publish, POST", 20, 300, 4_000),
    "lines": (Lines, "publish, NDJSON line", 1, 5, 100),
    "frames": (Frames, "publish, ws frame", 5, 100, 2_000),
}


# ---------------------------------------------------------------------------------------------------
# What is counted


class Server(pairs.Server):
    """Gone at once in the end: clients that are still there would be drained."""

    def stop(self):
        self.process.kill()
        super().stop()


def count_instructions(binary, work, warm, times):
    with tempfile.TemporaryDirectory() as folder:
        tool = f"valgrind --tool=callgrind --callgrind-out-file={folder}/out "
        with Server(tool + SERVE.format(fantail=binary), QUIET) as server:
            doing = work(server)
            doing.go(warm)
            control(server, "--zero")
            done = doing.go(times)
            control(server, "--dump")
            with open(f"{folder}/out.1") as file:
                found = re.search(r"^totals: (\d+)", file.read(), re.M)
        return int(found.group(1)) / done


def control(server, command):
    told = subprocess.run(["callgrind_control", command, str(server.pid)], capture_output=True, text=True)
    if "OK" not in told.stdout:
        raise SystemExit(f"callgrind_control {command}: {told.stdout}{told.stderr}")


def count_calls(binary, work, warm, times):
    with Server(SERVE.format(fantail=binary), QUIET) as server, tempfile.NamedTemporaryFile("r") as out:
        doing = work(server)
        doing.go(warm)
        trace = subprocess.Popen(["strace", "-f", "-c", "-o", out.name, "-p", str(server.pid)],
                                 stderr=subprocess.PIPE, text=True)
        await_tracer(server.pid, trace)
        done = doing.go(times)
        trace.send_signal(signal.SIGINT)
        trace.communicate(timeout=30)
        found = re.search(r"^100\.00 +\S+ +\S+ +(\d+)", out.read(), re.M)
    return int(found.group(1)) / done


def await_tracer(pid, trace):
    """Waits until strace is attached to every thread; what it says of them differs with when they came."""
    deadline = time.monotonic() + 30
    while tracers(pid) != {trace.pid}:
        if trace.poll() is not None:
            raise SystemExit(f"strace could not attach: {trace.stderr.read()}")
        if time.monotonic() > deadline:
            trace.kill()
            raise SystemExit("strace has not attached within 30 s")
        time.sleep(0.01)


def tracers(pid):
    """Who traces its threads, 0 for nobody."""
    seen = set()
    for task in os.listdir(f"/proc/{pid}/task"):
        with contextlib.suppress(FileNotFoundError), open(f"/proc/{pid}/task/{task}/status") as file:
            seen.add(int(re.search(r"^TracerPid:\s*(\d+)", file.read(), re.M)[1]))
    return seen


def count_cpu(binary, work, warm, times):
    with Server(SERVE.format(fantail=binary), QUIET) as server:
        doing = work(server)
        doing.go(warm)
        before = server.cpu_ns()
        done = doing.go(times)
        return (server.cpu_ns() - before) / done


KINDS = {"instructions": count_instructions, "calls": count_calls, "cpu ns": count_cpu}


# ---------------------------------------------------------------------------------------------------
# Pairs and their judgement


def interval(ratios):
    """Geometric mean of the ratios and the ends of its 95 % interval."""
    logs = [math.log(ratio) for ratio in ratios]
    middle = statistics.fmean(logs)
    if len(logs) < 2:
        return math.exp(middle), 0.0, math.inf
    degrees = len(logs) - 1
    factor = STUDENT[degrees - 1] if degrees <= len(STUDENT) else 1.96
    half = factor * statistics.stdev(logs) / math.sqrt(len(logs))
    return math.exp(middle), math.exp(middle - half), math.exp(middle + half)


def judge(kind, seen):
    """The cells of a row, and whether it is over the gate."""
    ratios = [new / old for old, new in zip(seen["old"], seen["new"])]
    old, new = (statistics.median(seen[side]) for side in ("old", "new"))
    shown = [f"{value:,.0f}" if value >= 100 else f"{value:.3f}" for value in (old, new)]
    if kind == "cpu ns":
        ratio, low, high = interval(ratios)
        return [*shown, f"{ratio:.3f} ({low:.3f} .. {high:.3f})"], low > GATE
    ratio = statistics.median(ratios)
    chance = kind == "calls" and new - old < CALLS_APART
    return [*shown, f"{ratio:.3f}"], ratio > GATE and not chance


def measure(args, name, kind, pairs_wanted, scale):
    work, _, warm, counted, full = WORK[name]
    times = max(1, int((full if kind == "cpu ns" else counted) * scale))
    seen = {"old": [], "new": []}
    for pair in range(pairs_wanted):
        for side in ("old", "new") if pair % 2 == 0 else ("new", "old"):
            binary = args.old if side == "old" else args.new
            seen[side].append(KINDS[kind](binary, work, warm, times))
        print(f"  {name}, {kind}: pair {pair + 1} of {pairs_wanted}: "
              f"{seen['new'][-1] / seen['old'][-1]:.3f}", file=sys.stderr)
    return seen


def arguments():
    top = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    top.add_argument("--old", help="the binary before (with --check the new one again)")
    top.add_argument("--new", default="target/release/fantail")
    top.add_argument("--only", default=",".join(WORK), help="names, with commas between: " + ", ".join(WORK))
    top.add_argument("--kinds", default=",".join(KINDS), help="(default %(default)s)")
    top.add_argument("--pairs", type=int, default=3, help="for instructions and calls (default 3)")
    top.add_argument("--cpu-pairs", type=int, default=7, help="for CPU time (default 7)")
    top.add_argument("--out", help="write every figure to this JSON file")
    top.add_argument("--check", action="store_true", help="a tenth of everything, once: that the instrument works")
    args = top.parse_args()
    if args.check:
        args.old, args.pairs, args.cpu_pairs = args.old or args.new, 1, 1
    if not args.old:
        top.error("--old is needed")
    return args


def main():
    args = arguments()
    rows, over, kept = [], [], {}
    for name in args.only.split(","):
        for kind in args.kinds.split(","):
            wanted = args.cpu_pairs if kind == "cpu ns" else args.pairs
            seen = measure(args, name, kind, wanted, 0.1 if args.check else 1)
            kept[f"{name}, {kind}"] = seen
            cells, is_over = judge(kind, seen)
            rows.append([WORK[name][1], kind, *cells, "OVER" if is_over else ""])
            over += [f"{name}, {kind}"] if is_over else []
    pairs.print_markdown(["operation", "counted", "old", "new", "new/old", f"gate {GATE}"], rows)
    if args.out:
        with open(args.out, "w") as file:
            json.dump(kept, file, indent=1)
    if over and not args.check:
        sys.exit(f"\nover the gate of {GATE}: {'; '.join(over)}")


if __name__ == "__main__":
    main()
