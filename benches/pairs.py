#!/usr/bin/env python3
"""Interleaved A/B measurements of Fantail against the floor, or of two builds against each other.

    cargo build --release --workspace --bins --examples
    benches/pairs.py fanout                    # sizes 16, 128 and 4,096, 10,000 subscribers
    benches/pairs.py burst                     # 60 messages at once, 3,000 subscribers, 1 and 2 loops
    benches/pairs.py burst-latency             # single messages, joining on (A) and off (B)
    benches/pairs.py handshake                 # against the bare accept-and-answer loop
    benches/pairs.py echo-during-fanout        # chunked fan-outs (A) against whole ones (B)
    benches/pairs.py idle [--deflate]          # bytes a connection, and a minute of doing nothing
    benches/pairs.py deflate                   # a compressed broadcast (A) against a plain one of equal bytes (B)
    benches/pairs.py slow                      # 1,000 subscribers that do not read (A), without them (B)
    benches/pairs.py receive                   # the load generator's own cost of a message, against a bare receive loop
    benches/pairs.py memory-return             # what comes back after all left, and after 90 % of them
    benches/pairs.py machine                   # the facts to quote beside any figure

HOW IT MEASURES
    One pair is a run against server A and a run against server B, each on a server started for it and
    stopped after it. Pairs alternate their order (AB, BA, AB ...), so that a machine that warms up or
    slows down hits both sides alike. After at least seven pairs the table shows per figure the median
    of each side, and the median, the least and the greatest of the ratios A/B *within* a pair. A
    ratio whose spread straddles 1.00 says "no difference seen", whatever its median is.

    `receive` measures clients, not servers: A is the load generator, B examples/receive_floor, both fed by the floor,
    which makes one send for each message and socket. The figure is the client process's CPU, all threads, from the last
    upgrade to the last message, per message; the generator's publisher is in it.

    `idle` is no ratio: it shows A alone unless --b is given, and the table shows the median and spread
    over --pairs runs (one by default). `memory-return` compares Fantail after 90 % have left (A) with
    Fantail that never had others than those who stay, in the same state (B).

    Server CPU is the process's CPU clock (user and system, all threads) as the load generator reads it
    between its first and last message; on loopback it contains the receiving half of TCP too, because
    the sender's system call runs it. Latency counts from the planned send time.

SIDES
    A is `{fantail} serve ... --loops {loops}`, B the floor that fits the subcommand. --a and --b replace
    them by any command that prints `fantail ready listen=ADDR admin=ADDR pid=PID`; {fantail}, {floor},
    {accept_floor} and {loops} are filled in. --a-env and --b-env (NAME=VALUE) add to the environment.
    The same command on both sides shows the noise of the
    machine, which is worth knowing first. Two builds compare like this:

        benches/pairs.py fanout --b 'old/fantail serve --listen 127.0.0.1:0 --admin 127.0.0.1:0 --loops {loops}'

READING THE ANSWER
    ns/delivery is the figure the floor is for. Look at `lost` first: a side that lost messages did less
    work, and its other figures mean nothing. `late sends` tells whether the
    generator kept its own plan. The exit code is 1 if a run failed or reported a problem.

More than 20,000 connections need a hard RLIMIT_NOFILE to match, or a server that splits its descriptor
tables; the clients here spread over processes and over source addresses in 127.0.0.0/8.
Python 3.9, standard library only, Linux only.
"""

import argparse
import json
import multiprocessing
import os
import random
import re
import resource
import select
import shlex
import signal
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

# ---------------------------------------------------------------------------------------------------
# What is known of the programs: their flags and the names in the load generator's JSON, only here.

SERVE = "{fantail} serve --listen 127.0.0.1:0 --admin 127.0.0.1:0 --loops {loops}"
FLOOR = "{floor} --listen 127.0.0.1:0 --admin 127.0.0.1:0 --threads {loops}"
ACCEPT_FLOOR = "{accept_floor} --listen 127.0.0.1:0 --admin 127.0.0.1:0 --threads {loops}"
PUBLISH_ENV = {"FANTAIL_PUBLISH_TOPICS": "*"}
CHUNKING_OFF = {"FANTAIL_MEASURE_FANOUT_CHUNKED": "false"}
JOINING_OFF = {"FANTAIL_MEASURE_FANOUT_JOINED": "false"}
# The clients of the memory figures answer no ping, and some of them are not to read for a while.
PATIENT = {"FANTAIL_TIMEOUTS_HEARTBEAT_SECONDS": "0", "FANTAIL_TIMEOUTS_WRITE_TIMEOUT_SECONDS": "3600"}
QUEUED_METRIC = "fantail_outbox_bytes"
LOOP_THREAD = re.compile(r"loop-\d+")

READY = re.compile(r"fantail ready listen=(\S+) admin=(\S+) pid=(\d+)(?: tls=(\S+))?")

# figure -> (path in the JSON, factor into the unit of the figure's name)
FANOUT_FIELDS = {
    "ns/delivery": ("server_cpu_nanoseconds_per_delivery", 1),
    "p50 ms": ("latency.p50_microseconds", 1e-3),
    "p99 ms": ("latency.p99_microseconds", 1e-3),
    "fan-out ms": ("fan_out_median_microseconds", 1e-3),
    "late sends": ("generator.late_sends", 1),
    "lost": ("missing", 1),
}
ECHO_FIELDS = {
    "echo p50 ms": ("latency.p50_microseconds", 1e-3),
    "echo p99 ms": ("latency.p99_microseconds", 1e-3),
    "echo max ms": ("latency.max_microseconds", 1e-3),
    "echo lost": ("missing", 1),
}
# `idle` opens connections and tells what that took; both are without the pause between its two steps.
CONNECT_COMMAND = "idle"
CONNECT_FIELDS = {
    "handshakes/s": ("connections.opened_per_second", 1),
    "cpu s": ("server.cpu_open_seconds", 1),
    "opened": ("connections.opened", 1),
    "p99 ms": ("connections.connect_latency.p99_microseconds", 1e-3),
}
# Figures whose ratio says nothing.
COUNTS = {"missed wrongly", "closed", "late sends", "lost", "echo lost", "opened", "stayed", "alive",
          "switches of loops", "switches of all"}
PROBLEMS = "problems"


def field(result, path):
    """The number at a dotted path; a missing name is an error that lists what there is."""
    at = result
    for name in path.split("."):
        if not isinstance(at, dict) or at.get(name) is None:
            raise SystemExit(f"the load generator's JSON has no {path!r}; problems: {result.get(PROBLEMS)}; "
                             f"it has: {', '.join(flat(result))}")
        at = at[name]
    return at


def flat(value, prefix=""):
    """Every dotted path of a JSON object that has a value."""
    for name, inner in value.items():
        if isinstance(inner, dict):
            yield from flat(inner, f"{prefix}{name}.")
        elif inner is not None:
            yield f"{prefix}{name}"


def figures(result, fields):
    return {name: field(result, path) * factor for name, (path, factor) in fields.items()}


# ---------------------------------------------------------------------------------------------------
# Servers


class Server:
    """One server process, from its ready line to its end. Use it as a context."""

    # How its clients are to speak, at `listen`.
    scheme = "ws"

    def __init__(self, command, env):
        self.process = subprocess.Popen(
            shlex.split(command), stdout=subprocess.PIPE, text=True, env={**os.environ, **env},
            stderr=subprocess.DEVNULL if not VERBOSE else None)
        self.listen, self.admin = self.await_ready(command)
        self.pid = self.process.pid

    def await_ready(self, command):
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            if not select.select([self.process.stdout], [], [], 0.5)[0]:
                continue
            line = self.process.stdout.readline()
            if not line:
                break
            found = READY.search(line)
            if found:
                self.tls = found.group(4)
                return found.group(1), found.group(2)
        self.stop()
        raise SystemExit(f"no ready line from: {command}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.wait()
        self.process.stdout.close()

    # What the kernel says of the process.

    def cpu_ns(self):
        """CPU of all threads, dead ones too: the clock id of a process is ~pid << 3 | 2."""
        return time.clock_gettime_ns((~self.pid << 3) | 2)

    def status(self, path, names):
        with open(path) as file:
            lines = dict(line.split(":", 1) for line in file)
        return sum(int(lines[name].split()[0]) for name in names if name in lines)

    def user_bytes(self):
        """User-space memory: RssAnon + RssShmem + HugetlbPages + VmSwap."""
        return 1024 * self.status(f"/proc/{self.pid}/status", ["RssAnon", "RssShmem", "HugetlbPages", "VmSwap"])

    def context_switches(self, thread=re.compile("")):
        """Context switches of the threads whose name fits."""
        names = ["voluntary_ctxt_switches", "nonvoluntary_ctxt_switches"]
        count = 0
        for task in os.listdir(f"/proc/{self.pid}/task"):
            try:
                with open(f"/proc/{self.pid}/task/{task}/comm") as file:
                    if thread.match(file.read()):
                        count += self.status(f"/proc/{self.pid}/task/{task}/status", names)
            except (FileNotFoundError, ProcessLookupError):
                pass  # It has ended meanwhile.
        return count

    def metric(self, name, label=""):
        """The sum of a metric's samples whose labels contain `label`."""
        with urllib.request.urlopen(f"http://{self.admin}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        found = [line for line in lines if re.match(re.escape(name) + r"[{ ]", line)]
        if not found:
            raise SystemExit(f"the server has no metric {name}")
        return sum(float(line.rsplit(" ", 1)[1]) for line in found if label in line)

    def settled_bytes(self, seconds=15):
        """Memory once it has stood still for two seconds, or at the deadline."""
        deadline = time.monotonic() + seconds
        seen = [self.user_bytes()]
        while time.monotonic() < deadline and not (len(seen) > 4 and len(set(seen[-4:])) == 1):
            time.sleep(0.5)
            seen.append(self.user_bytes())
        return seen[-1]

    def publish(self, topic, payload):
        request = urllib.request.Request(f"http://{self.admin}/publish/{topic}", data=payload, method="POST")
        deadline = time.monotonic() + 20
        while True:
            try:
                with urllib.request.urlopen(request, timeout=10) as answer:
                    return json.load(answer)
            except urllib.error.HTTPError as error:
                # 503 is "busy, again later".
                if error.code != 503 or time.monotonic() > deadline:
                    raise SystemExit(f"publish: {error.code} {error.read()[:500]!r}")
            time.sleep(0.05)


# The load generator's test messages are text from here on.
TEXT_BYTES_MIN = 48


def random_topic():
    return f"pairs-{random.randrange(1 << 40):x}"


def loadtest(args, command, server, **flags):
    """Runs one command of the load generator against `server` and returns its JSON."""
    with start_loadtest(args, command, server, **flags) as run:
        return run.result()


class start_loadtest:
    """A running load generator. Use it as a context; `result` waits for it."""

    def __init__(self, args, command, server, path="/ws/{topic}", topic=None, **flags):
        topic = topic or random_topic()
        url = f"{server.scheme}://{server.listen}{path.format(topic=topic)}"
        flags = {"pid": server.pid, "insecure": server.scheme == "wss" or None, **flags}
        if flags.get("publish") == "http":
            # Test messages too short for a text are binary, and nothing is added to a URL that was given.
            binary = "?binary=1" if int(flags.get("size", 128)) < TEXT_BYTES_MIN else ""
            flags["publish-url"] = f"http://{server.admin}/publish/{topic}{binary}"
        handle, self.json = tempfile.mkstemp(suffix=".json")
        os.close(handle)
        line = [args.loadtest, command, "--url", url, "--json", self.json]
        for name, value in flags.items():
            if value is True:
                line += [f"--{name}"]
            elif value is not None:
                line += [f"--{name}", str(value)]
        if VERBOSE:
            print("  " + shlex.join(line), file=sys.stderr)
        self.output = tempfile.TemporaryFile(mode="w+")
        self.process = subprocess.Popen(line, stdout=self.output, stderr=subprocess.STDOUT)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.output.close()
        os.unlink(self.json)

    def result(self):
        code = self.process.wait()
        with open(self.json) as file:
            text = file.read()
        # A run that lost messages may exit with an error and still tell its figures.
        if not text:
            self.output.seek(0)
            raise SystemExit(f"the load generator exited with {code} and no figures:\n{self.output.read()}")
        result = json.loads(text)
        if result[PROBLEMS]:
            print(f"  problems: {'; '.join(result[PROBLEMS])}", file=sys.stderr)
            PROBLEMS_SEEN.extend(result[PROBLEMS])
        return result


# ---------------------------------------------------------------------------------------------------
# Clients that only hold connections, for the memory figures

HOLD_MAX = 15_000  # connections a client process
HELLO = ("GET {path} HTTP/1.1\r\nHost: bench\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
         "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
HELLO_DEFLATE = HELLO[:-2] + "Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
IP_BIND_ADDRESS_NO_PORT = 24
TCP_REPAIR = 19


class Holders:
    """Connections from distinct source addresses, spread over processes. Use it as a context."""

    def __init__(self, server, path, receive_buffer=None, deflate=False, says=None, tls=False):
        """In `path`, {number} is the connection's number. `says` are the bytes to send in place of an upgrade,
        perhaps none; then no answer is awaited. With `tls`, any certificate will do."""
        host, port = server.listen.rsplit(":", 1)
        hello = (HELLO_DEFLATE if deflate else HELLO).format(path=path).encode() if says is None else says
        self.target = (host, int(port), hello, receive_buffer, deflate, says is None, tls)
        self.pipes = []
        self.count = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for pipe, process, _ in self.pipes:
            pipe.close()
            process.join(20)
            if process.is_alive():
                process.kill()

    def open(self, count):
        """Opens `count` more connections and waits until each is upgraded."""
        while count > 0:
            if not self.pipes or self.pipes[-1][2][0] == HOLD_MAX:
                ours, theirs = multiprocessing.Pipe()
                inherited = [pipe for pipe, _, _ in self.pipes] + [ours]
                process = multiprocessing.Process(target=hold, args=(theirs, inherited, *self.target), daemon=True)
                process.start()
                theirs.close()
                self.pipes.append((ours, process, [0]))
            pipe, _, held = self.pipes[-1]
            part = min(count, HOLD_MAX - held[0])
            self.ask(pipe, ("open", part, self.count))
            held[0] += part
            self.count += part
            count -= part

    def all(self, *command):
        """Lets every process do `command`; the sum of what they answer."""
        for pipe, _, _ in self.pipes:
            pipe.send(command)
        return sum(self.answer(pipe) for pipe, _, _ in self.pipes)

    def ask(self, pipe, command):
        pipe.send(command)
        return self.answer(pipe)

    def answer(self, pipe):
        answer = pipe.recv()
        if isinstance(answer, str):
            raise SystemExit(f"a client process failed: {answer}")
        return answer


def hold(pipe, inherited, *target):
    """A client process: commands in, counts out, until the pipe closes."""
    for other in inherited:
        other.close()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sockets = []
    while True:
        try:
            command, *rest = pipe.recv()
        except EOFError:
            return
        try:
            if command == "open":
                sockets += hold_open(rest[0], rest[1], *target)
            elif command == "send":
                for one in sockets:
                    one.send(rest[0])
            elif command == "leave":
                sockets = hold_leave(sockets, rest[0], rest[1])
            elif command == "vanish":
                sockets = hold_vanish(sockets, rest[0])
            elif command == "end":
                hold_end(sockets, rest[0])
            elif command == "read":
                pipe.send(hold_read(sockets, *rest))
                continue
            elif command == "drain":
                pipe.send(hold_drain(sockets, *rest))
                continue
            pipe.send(len(sockets))
        except OSError as error:
            pipe.send(f"{command}: {error}")


def hold_open(count, first, host, port, hello, receive_buffer, deflate, answered, tls=False):
    opened = []
    context = None
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    for start in range(0, count, 200):
        batch = []
        for number in range(first + start, first + min(start + 200, count)):
            one = socket.socket()
            if receive_buffer:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            if host.startswith("127."):
                one.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
                one.bind((f"127.{16 + number // 62_500}.{number // 250 % 250}.{number % 250 + 1}", 0))
            one.connect((host, port))
            if context:
                one.settimeout(20)
                one = context.wrap_socket(one)
            if hello:
                one.send(hello.replace(b"{number}", b"%d" % number))
            batch.append(one)
        for one in batch if answered else []:
            one.settimeout(20)
            head = b""
            while b"\r\n\r\n" not in head:
                piece = one.recv(4096)
                if not piece:
                    raise OSError(f"refused: {head[:200]!r}")
                head += piece
            if not head.startswith(b"HTTP/1.1 101") or (b"permessage-deflate" in head) != deflate:
                raise OSError(f"refused: {head[:200]!r}")
        for one in batch:
            one.setblocking(False)
        opened += batch
    return opened


def hold_leave(sockets, fraction, seed):
    """Closes a random `fraction` without any goodbye."""
    draw = random.Random(seed)
    stay = []
    for one in sockets:
        if draw.random() < fraction:
            one.close()
        else:
            stay.append(one)
    return stay


def hold_vanish(sockets, count):
    """Takes this end of `count` connections away so that the other hears nothing of it: no FIN, no reset. A
    socket under repair (which takes CAP_NET_ADMIN) is closed so."""
    for one in sockets[:count]:
        one.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
        one.close()
    return sockets[count:]


def staying(count, fraction, seed):
    """How many `hold_leave` lets stay of `count`."""
    stay = 0
    for start in range(0, count, HOLD_MAX):
        draw = random.Random(seed)
        stay += sum(draw.random() >= fraction for _ in range(min(HOLD_MAX, count - start)))
    return stay


def hold_end(sockets, frame):
    """Reads what waits, sends `frame`, and reads what that leads to, a few at a time: whoever is served
    by it is one of those who have to read."""
    hold_drain(sockets, 1.0)
    for start in range(0, len(sockets), 20):
        for one in sockets[start:start + 20]:
            one.send(frame)
        hold_drain(sockets, 0.05)


def hold_read(sockets, quiet_seconds, ending):
    """Reads until every open socket has read something that ends so; how many did. With some missing it goes on
    until nothing has come for so long, and at least ten seconds: a busy machine is not a lost connection."""
    poll = select.epoll()
    by_number = {one.fileno(): one for one in sockets}
    for number in by_number:
        poll.register(number, select.EPOLLIN)
    found, gone = set(), 0
    at_least = time.monotonic() + 10
    while len(found) + gone < len(sockets):
        events = poll.poll(quiet_seconds, 1024)
        if not events and time.monotonic() > at_least:
            break
        for number, _ in events:
            try:
                piece = by_number[number].recv(1 << 16)
            except BlockingIOError:
                continue
            except OSError:
                piece = b""
            if not piece:
                poll.unregister(number)
                found.discard(number)
                gone += 1
            elif piece.endswith(ending):
                found.add(number)
    poll.close()
    return len(found)


def hold_drain(sockets, quiet_seconds):
    """Reads until nothing has come for so long; how many bytes that was."""
    poll = select.epoll()
    by_number = {one.fileno(): one for one in sockets}
    for number in by_number:
        poll.register(number, select.EPOLLIN)
    count = 0
    while True:
        events = poll.poll(quiet_seconds, 1024)
        if not events:
            poll.close()
            return count
        for number, _ in events:
            try:
                piece = by_number[number].recv(1 << 18)
            except BlockingIOError:
                continue
            except OSError:
                piece = b""
            count += len(piece)
            if not piece:
                poll.unregister(number)


def client_frame(opcode, payload, final=True):
    """A masked frame; a mask of zeros is allowed and leaves the payload as it is."""
    size = len(payload)
    first = (0x80 if final else 0) | opcode
    if size < 126:
        head = bytes([first, 0x80 | size])
    else:
        head = bytes([first, 0x80 | 126]) + size.to_bytes(2, "big")
    return head + bytes(4) + payload


# ---------------------------------------------------------------------------------------------------
# Pairs and their table


def measure_pairs(args, title, loops, a, b, run, extra_env=({}, {}), run_b=None):
    """Runs pairs of `run(server)`, A and B in turn, and prints and keeps their table. B may run something else;
    `server.side` tells a run which side it is."""
    names = {"fantail": args.fantail, "floor": args.floor, "accept_floor": args.accept_floor, "loops": loops}
    sides = {"A": (a, {**PUBLISH_ENV, **extra_env[0], **args.a_env})}
    if b:
        sides["B"] = (b, {**PUBLISH_ENV, **extra_env[1], **args.b_env})
    seen = {side: [] for side in sides}
    for pair in range(args.pairs):
        for side in sorted(sides, reverse=pair % 2 == 1):
            template, env = sides[side]
            with Server(template.format(**names), env) as server:
                server.side = side
                seen[side].append(run(server) if side == "A" or not run_b else run_b(server))
            time.sleep(args.pause)
            print(f"  {title}: pair {pair + 1} of {args.pairs}, {side}: {one_line(seen[side][-1])}", file=sys.stderr)
    print_table(title, seen)
    RESULTS.append({"title": title, "commands": {s: sides[s][0].format(**names) for s in sides}, "runs": seen})


def one_line(run):
    return ", ".join(f"{name} {number(value)}" for name, value in run.items())


def number(value):
    if value and abs(value) < 100:
        return f"{value:.3g}" if abs(value) < 10 else f"{value:.1f}"
    return f"{value:,.0f}"


def print_table(title, seen):
    pairs = len(seen["A"])
    print(f"\n{title} ({pairs} {'pairs' if 'B' in seen else 'runs'})\n")
    rows = []
    for name in seen["A"][0]:
        a = [run[name] for run in seen["A"]]
        row = [name, number(statistics.median(a))]
        if "B" in seen:
            b = [run[name] for run in seen["B"]]
            row += [number(statistics.median(b))]
            if name in COUNTS or not all(b):
                row += ["-", f"A {number(min(a))} .. {number(max(a))}, B {number(min(b))} .. {number(max(b))}"]
            else:
                ratios = sorted(x / y for x, y in zip(a, b))
                row += [f"{statistics.median(ratios):.3f}", f"{ratios[0]:.3f} .. {ratios[-1]:.3f}"]
        else:
            row += [f"{number(min(a))} .. {number(max(a))}"]
        rows.append(row)
    heads = ["figure", "A median", "B median", "A/B median", "A/B spread"] if "B" in seen else [
        "figure", "median", "spread"]
    print_markdown(heads, rows)


def print_markdown(heads, rows):
    widths = [max(len(row[column]) for row in [heads, *rows]) for column in range(len(heads))]
    line = lambda row: "| " + " | ".join(
        cell.ljust(width) if column == 0 else cell.rjust(width)
        for column, (cell, width) in enumerate(zip(row, widths))) + " |"
    print(line(heads))
    print("|" + "|".join("-" * (width + 1) + ("-" if column == 0 else ":") for column, width in enumerate(widths)) + "|")
    for row in rows:
        print(line(row))
    sys.stdout.flush()


# ---------------------------------------------------------------------------------------------------
# Subcommands


def cmd_fanout(args):
    for loops in args.loops:
        for size in args.sizes:
            def run(server, size=size):
                return figures(loadtest(
                    args, "fanout", server, publish=args.publish, connections=args.connections, threads=1,
                    rate=args.rate, burst=args.burst, size=size, duration=args.duration), FANOUT_FIELDS)

            title = f"{args.command}: {args.connections:,} subscribers, {size} bytes, bursts of {args.burst}, loops {loops}"
            measure_pairs(args, title, loops, args.a or SERVE, args.b or FLOOR, run)


def cmd_deflate(args):
    """Side A sends messages of --size bytes of JSON compressed, side B plain ones as long as these come out."""
    flags = {"publish": "http", "filler": "json", "threads": 1, "rate": args.rate, "burst": args.burst}
    names = {"fantail": args.fantail, "floor": args.floor, "accept_floor": args.accept_floor}

    for loops in args.loops:
        template = args.a or SERVE
        with Server(template.format(**names, loops=loops), {**PUBLISH_ENV, **args.a_env}) as server:
            trial = loadtest(args, "fanout", server, deflate=True, connections=10, size=args.size, duration="2s", **flags)
        if field(trial, "deflated") < field(trial, "deliveries"):
            raise SystemExit("not every message came compressed")
        equal = round(field(trial, "deflated_bytes") / field(trial, "deflated"))

        def run(server):
            own = {"deflate": True, "size": args.size} if server.side == "A" else {"size": equal}
            result = loadtest(args, "fanout", server, connections=args.connections, duration=args.duration, **own, **flags)
            if server.side == "A" and field(result, "deflated") < field(result, "deliveries"):
                raise SystemExit("not every message came compressed")
            return figures(result, FANOUT_FIELDS)

        title = (f"deflate: {args.connections:,} subscribers, {args.size} bytes of JSON compressed (A), {equal} bytes plain (B), "
                 f"bursts of {args.burst}, loops {loops}")
        measure_pairs(args, title, loops, template, args.b or SERVE, run)


def cmd_burst_latency(args):
    for loops in args.loops:
        def run(server):
            return figures(loadtest(
                args, "fanout", server, publish=args.publish, connections=args.connections, threads=1,
                rate=args.rate, burst=1, size=args.size, duration=args.duration), FANOUT_FIELDS)

        title = (f"single messages to {args.connections:,} at {args.rate:g}/s, joining on (A) and off (B), "
                 f"{args.size} bytes, loops {loops}")
        measure_pairs(args, title, loops, args.a or SERVE, args.b or SERVE, run, ({}, JOINING_OFF))


def cmd_handshake(args):
    for loops in args.loops:
        def run(server):
            found = figures(loadtest(args, CONNECT_COMMAND, server, connections=args.connections, threads=1,
                                     duration="100ms"), CONNECT_FIELDS)
            found["us/handshake"] = found.pop("cpu s") / found["opened"] * 1e6
            return found

        title = f"handshake: {args.connections:,} connections, loops {loops}"
        measure_pairs(args, title, loops, args.a or SERVE, args.b or ACCEPT_FLOOR, run)


def cmd_echo_during_fanout(args):
    def run(server):
        before = tcp_in_use()
        with start_loadtest(
                args, "fanout", server, publish="http", connections=args.connections, threads=args.client_threads,
                rate=args.rate, burst=1, size=args.size, duration=f"{args.seconds + 4}s") as fanout:
            # Both ends of every connection are on this machine.
            wait_until(lambda: tcp_in_use() - before >= 2 * args.connections or fanout.process.poll() is not None,
                       120, "the subscribers to connect")
            time.sleep(1)
            echo = loadtest(args, "echo", server, path="/echo", connections=10, threads=1, rate=args.echo_rate,
                            size=64, duration=f"{args.seconds}s")
            return {**figures(echo, ECHO_FIELDS), **figures(fanout.result(), FANOUT_FIELDS)}

    for loops in args.loops:
        title = f"echo during fan-outs to {args.connections:,}: chunked (A), whole (B), loops {loops}"
        measure_pairs(args, title, loops, args.a or SERVE, args.b or SERVE, run, ({}, CHUNKING_OFF))


def cmd_receive(args):
    for size in args.sizes:
        frame = size + (2 if size < 126 else 4 if size < 65_536 else 10)
        count = round(args.rate * args.seconds)

        def run_generator(server):
            result = loadtest(args, "fanout", server, publish="http", connections=args.connections, threads=1,
                              rate=args.rate, burst=1, size=size, duration=f"{args.seconds}s")
            series = result["series"]
            from_ = series["open"].index(args.connections)
            cpu = series["generator_cpu_seconds"][-1] - series["generator_cpu_seconds"][from_]
            # The probe before the run was received, too.
            received = field(result, "deliveries") + field(result, "subscribed")
            return {"ns/message": cpu * 1e9 / received, "lost": field(result, "missing")}

        def run_bare(server):
            topic = random_topic()
            wanted = count * args.connections
            command = [args.receive_floor, "--connect", server.listen, "--path", f"/ws/{topic}", "--connections",
                       str(args.connections), "--bytes", str(wanted * frame)]
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            clock = (~process.pid << 3) | 2
            try:
                expect_line(process, "receive ready")
                before, start = time.clock_gettime_ns(clock), time.monotonic()
                for index in range(count):
                    time.sleep(max(0, start + index / args.rate - time.monotonic()))
                    server.publish(topic, b"m" * size)
                done = expect_line(process, "receive done")
                cpu = time.clock_gettime_ns(clock) - before
                received = int(re.search(r"bytes=(\d+)", done).group(1)) // frame
                return {"ns/message": cpu / received, "lost": wanted - received}
            finally:
                process.stdin.close()
                process.wait(20)
                process.stdout.close()

        title = (f"receive: {args.connections:,} connections, {size} bytes, {args.rate:g}/s, the load generator (A) "
                 "against a bare receive loop (B)")
        measure_pairs(args, title, 1, args.a or FLOOR, args.b or FLOOR, run_generator, run_b=run_bare)


def expect_line(process, beginning):
    line = process.stdout.readline()
    if not line.startswith(beginning):
        raise SystemExit(f"{beginning!r} expected, not {line!r}")
    return line


# Every policy has to keep the stalled at bay by itself, and pings would be counted among their bytes.
SLOW_ENV = {"FANTAIL_TIMEOUTS_WRITE_TIMEOUT_SECONDS": "3600", "FANTAIL_TIMEOUTS_HEARTBEAT_SECONDS": "0"}


def cmd_slow(args):
    readers = args.connections - args.stalled
    frame = args.size + (2 if args.size < 126 else 4 if args.size < 65_536 else 10)

    def run(server):
        topic = random_topic()
        stalled = args.stalled if server.side == "A" else 0
        with Holders(server, f"/ws/{topic}") as holders:
            holders.open(stalled)
            user, tcp = server.settled_bytes(5), tcp_bytes()
            fill(server, topic, args.size, stalled)
            queued = send_queue_bytes(server)
            with start_loadtest(
                    args, "fanout", server, topic=topic, publish="http", connections=readers, threads=1,
                    rate=args.rate, burst=1, size=args.size, duration=f"{args.seconds}s") as fanout:
                most_user, most_tcp = user, tcp
                while fanout.process.poll() is None:
                    most_user, most_tcp = max(most_user, server.user_bytes()), max(most_tcp, tcp_bytes())
                    time.sleep(0.25)
                result = fanout.result()
            found = figures(result, FANOUT_FIELDS)
            held = server.metric("fantail_outbox_held_bytes")
            drops = server.metric("fantail_drops_total")
            got = holders.all("drain", 1.0) if stalled else 0
            found["dropped"] = drops
            # What the stalled find when they read again, and what was dropped, is all that was published.
            found["missed wrongly"] = server.metric("fantail_publishes_total") * stalled - got / frame - drops
            found["closed"] = server.metric("fantail_closes_total", "slow_consumer")
            found["user MB more"] = (most_user - user) / 1e6
            found["tcp MB more"] = (most_tcp - tcp) / 1e6
            found["held MB"] = held / 1e6
            found["send queues MB"] = queued / 1e6
            return found

    for loops in args.loops:
        title = (f"slow: {readers:,} subscribers with {args.stalled:,} stalled ones beside them (A) and without (B), "
                 f"{args.rate:g}/s of {args.size} bytes, policy {args.policy}, loops {loops}")
        env = {**SLOW_ENV, "FANTAIL_OUTBOX_POLICY": args.policy}
        measure_pairs(args, title, loops, args.a or SERVE, args.b or SERVE, run, (env, env))


def fill(server, topic, size, stalled):
    """Publishes until those who do not read take nothing more, so that the run itself sends to the others only."""
    part, before = 20, -1
    while stalled and server.metric("fantail_drops_total") - before != part * stalled:
        before = server.metric("fantail_drops_total")
        for _ in range(part):
            server.publish(topic, b"f" * size)
        time.sleep(0.1)


def send_queue_bytes(server):
    """What the kernel holds on the server's side of its connections, sent and not acknowledged or not sent."""
    port = f":{int(server.listen.rsplit(':', 1)[1]):04X}"
    with open("/proc/net/tcp") as file:
        rows = [line.split() for line in file][1:]
    return sum(int(row[4].split(":")[0], 16) for row in rows if row[1].endswith(port) and row[3] == "01")


def tcp_bytes():
    """Memory of all TCP sockets, both ends where both are here."""
    with open("/proc/net/sockstat") as file:
        return resource.getpagesize() * int(re.search(r"TCP: .* mem (\d+)", file.read()).group(1))


def tcp_in_use():
    with open("/proc/net/sockstat") as file:
        return int(re.search(r"TCP: inuse (\d+)", file.read()).group(1))


def wait_until(condition, seconds, what):
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"waited {seconds} s for {what}")
        time.sleep(0.1)


def cmd_idle(args):
    few = args.connections // 5

    def run(server):
        result = {"empty MB": server.settled_bytes(5) / 1e6}
        with Holders(server, "/ws/idle", deflate=args.deflate) as holders:
            cpu = server.cpu_ns()
            holders.open(few)
            at_few = server.settled_bytes()
            holders.open(args.connections - few)
            at_all = server.settled_bytes()
            result["bytes/connection"] = (at_all - at_few) / (args.connections - few)
            result["us/handshake"] = (server.cpu_ns() - cpu) / args.connections / 1000
            # By then every page of slots has had its one look at handshakes that would have timed out.
            time.sleep(args.settle)
            of_loops = server.context_switches(LOOP_THREAD)
            switches, cpu = server.context_switches(), server.cpu_ns()
            time.sleep(args.seconds)
            result["switches of loops"] = server.context_switches(LOOP_THREAD) - of_loops
            result["switches of all"] = server.context_switches() - switches
            result["cpu ms idle"] = (server.cpu_ns() - cpu) / 1e6
            result["bytes/connection after"] = (server.user_bytes() - at_few) / (args.connections - few)
            # Still there, all of them?
            server.publish("idle", b"are you there")
            result["alive"] = holders.all("read", 2.0, b"are you there")
        return result

    for loops in args.loops:
        kind = "connections with permessage-deflate" if args.deflate else "connections"
        title = f"idle: {args.connections:,} {kind} for {args.seconds} s, loops {loops}"
        measure_pairs(args, title, loops, args.a or SERVE, args.b, run, (PATIENT, PATIENT))


def cmd_memory_return(args):
    leaving = 0.9
    few = staying(args.connections, leaving, SEED)

    def run(server, connections, fraction, drained):
        empty = server.settled_bytes(5)
        result = {"empty MB": empty / 1e6}
        # A small receive buffer makes the server queue early.
        with Holders(server, "/ws/return", receive_buffer=4096) as holders:
            holders.open(connections)
            result["opened MB"] = server.settled_bytes() / 1e6
            holders.all("send", client_frame(1, b"x" * args.fragment, final=False))
            queue_for_all(server, connections, args.size)
            result["loaded MB"] = server.settled_bytes(5) / 1e6
            stay = holders.all("leave", fraction, SEED)
            left = time.monotonic()
            if stay and drained:
                holders.all("end", client_frame(0, b"x"))
                left = time.monotonic()
            for seconds in (1, 3, 10):
                time.sleep(max(0, left + seconds - time.monotonic()))
                result[f"after {seconds} s MB"] = server.user_bytes() / 1e6
            result["stayed"] = stay
            if not stay:
                result["limit MB"] = (empty * 1.1 + 2e6) / 1e6
            server.publish("return", b"are you there")
            result["alive"] = holders.all("read", 1.0, b"are you there") if stay else 0
        return result

    what = f"at least {args.size} bytes queued and a fragment of {args.fragment}"
    for loops in args.loops:
        title = f"memory return: all of {args.connections:,} leave with {what}, loops {loops}"
        measure_pairs(args, title, loops, args.a or SERVE, None,
                      lambda server: run(server, args.connections, 1.0, False), (PATIENT, PATIENT))
        for drained in (True, False):
            state = "drained" if drained else "as they are"
            title = (f"memory return: 90% of {args.connections:,} leave with {what}, {few:,} stay {state} (A); "
                     f"those {few:,} alone (B), loops {loops}")
            measure_pairs(
                args, title, loops, args.a or SERVE, args.b or SERVE,
                lambda server, drained=drained: run(server, args.connections, leaving, drained), (PATIENT, PATIENT),
                lambda server, drained=drained: run(server, few, 0.0, drained))


SEED = 7


def queue_for_all(server, connections, size):
    """Publishes until every connection has at least `size` bytes in its queue: the whole of a message stays
    for each of them once the kernel takes no more for any, and then one more is published."""
    queued = server.metric(QUEUED_METRIC)
    for index in range(1000):
        server.publish("return", b"%08d" % index + b"m" * (size - 8))
        before, queued = queued, settled(lambda: server.metric(QUEUED_METRIC))
        if queued - before >= connections * size:
            return
    raise SystemExit("the server queues nothing for clients that do not read")


def settled(value):
    """A value once it has stood still for a fifth of a second."""
    seen, since = value(), time.monotonic()
    while time.monotonic() < since + 0.2:
        time.sleep(0.05)
        now = value()
        if now != seen:
            seen, since = now, time.monotonic()
    return seen


def cmd_machine(_):
    def read(path):
        try:
            with open(path) as file:
                return " ".join(file.read().split())
        except OSError:
            return "-"

    cpu = re.search(r"model name\s*: (.*)", open("/proc/cpuinfo").read())
    memory = re.search(r"MemTotal:\s*(\d+)", open("/proc/meminfo").read())
    rows = [
        ["kernel", os.uname().release],
        ["cpu", f"{os.cpu_count()} x {cpu.group(1) if cpu else os.uname().machine}"],
        ["memory", f"{int(memory.group(1)) / (1 << 20):.1f} GiB"],
        ["nofile", " / ".join(map(str, resource.getrlimit(resource.RLIMIT_NOFILE)))],
    ]
    for key in ["net/core/somaxconn", "net/ipv4/ip_local_port_range", "net/ipv4/tcp_mem", "net/ipv4/tcp_wmem",
                "net/ipv4/tcp_rmem", "net/ipv4/tcp_migrate_req", "kernel/randomize_va_space"]:
        rows.append([key.replace("/", "."), read(f"/proc/sys/{key}")])
    rows.append(["governor", read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")])
    vulnerabilities = "/sys/devices/system/cpu/vulnerabilities"
    if os.path.isdir(vulnerabilities):
        on = [name for name in sorted(os.listdir(vulnerabilities))
              if read(f"{vulnerabilities}/{name}").startswith("Mitigation")]
        rows.append(["mitigations", ", ".join(on) or "none"])
    print_markdown(["fact", "value"], rows)


# ---------------------------------------------------------------------------------------------------
# The command line


def numbers(text):
    return [int(part) for part in text.split(",")]


def pair(text):
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError("NAME=VALUE expected")
    return name, value


def parser():
    top = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = top.add_subparsers(dest="command", required=True, metavar="SUBCOMMAND")

    def add(name, run, about, pairs, loops, **defaults):
        sub = commands.add_parser(name, help=about, description=about)
        sub.add_argument("--pairs", type=int, default=pairs, help=f"pairs to run (default {pairs})")
        sub.add_argument("--loops", type=numbers, default=loops, help="server threads, one table for each of them")
        for key, value in defaults.items():
            if value is False:
                sub.add_argument("--" + key.replace("_", "-"), action="store_true")
                continue
            kind = numbers if isinstance(value, list) else type(value)
            sub.add_argument("--" + key.replace("_", "-"), type=kind, default=value, help=f"(default {value})")
        sub.add_argument("--fantail", default="target/release/fantail")
        sub.add_argument("--floor", default="target/release/examples/floor")
        sub.add_argument("--accept-floor", default="target/release/examples/accept_floor")
        sub.add_argument("--receive-floor", default="target/release/examples/receive_floor")
        sub.add_argument("--loadtest", default="target/release/fantail-loadtest")
        sub.add_argument("--a", help="command of side A instead of the usual one")
        sub.add_argument("--b", help="command of side B instead of the usual one")
        sub.add_argument("--a-env", type=pair, action="append", default=[], metavar="NAME=VALUE")
        sub.add_argument("--b-env", type=pair, action="append", default=[], metavar="NAME=VALUE")
        sub.add_argument("--pause", type=float, default=1.0, help="seconds between two runs")
        sub.add_argument("--out", help="write every run's figures to this JSON file")
        sub.add_argument("--verbose", action="store_true", help="show commands and the servers' logs")
        sub.set_defaults(run=run)

    add("fanout", cmd_fanout, "one message to every subscriber, against the floor", 7, [1],
        connections=10_000, sizes=[16, 128, 4096], rate=5.0, burst=1, duration="10s", publish="http")
    add("burst", cmd_fanout, "60 messages at once, against the floor", 7, [1, 2],
        connections=3_000, sizes=[128], rate=30.0, burst=60, duration="10s", publish="ws")
    add("deflate", cmd_deflate, "a compressed broadcast against a plain one of equal bytes on the wire", 7, [1],
        connections=10_000, size=1024, rate=5.0, burst=1, duration="10s")
    add("burst-latency", cmd_burst_latency, "latency of single messages with joining on and off", 7, [1],
        connections=3_000, size=128, rate=5.0, duration="10s", publish="ws")
    add("handshake", cmd_handshake, "connecting, against a bare accept-and-answer loop", 7, [1], connections=15_000)
    add("echo-during-fanout", cmd_echo_during_fanout, "echo latency while fan-outs run, chunked and whole", 7, [3],
        connections=50_000, client_threads=3, rate=2.0, size=128, seconds=10, echo_rate=200.0)
    add("slow", cmd_slow, "latency of those who read while others do not", 5, [1], connections=2_000, stalled=1_000,
        rate=100.0, size=1024, seconds=20, policy="drop-newest")
    add("receive", cmd_receive, "what a message costs the load generator, against a bare receive loop", 7, [1],
        connections=3_000, sizes=[16, 128, 1024], rate=10.0, seconds=6)
    add("idle", cmd_idle, "memory of a connection, and what idling costs", 1, [3], connections=50_000, seconds=60,
        deflate=False, settle=15)
    add("memory-return", cmd_memory_return, "what is given back when clients with a backlog leave", 1, [2],
        connections=10_000, size=4096, fragment=1024)
    machine = commands.add_parser("machine", help="facts of this machine, to quote beside figures")
    machine.set_defaults(run=cmd_machine, verbose=False, out=None)
    return top


VERBOSE = False
RESULTS = []
PROBLEMS_SEEN = []


def main():
    global VERBOSE
    args = parser().parse_args()
    VERBOSE = args.verbose
    for key in ("a_env", "b_env"):
        setattr(args, key, dict(getattr(args, key, [])))
    # The server and the clients inherit it; the machine is left as it is.
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    args.run(args)
    if args.out:
        with open(args.out, "w") as file:
            json.dump(RESULTS, file, indent=1)
    if PROBLEMS_SEEN:
        sys.exit("\nthere were problems: figures of runs with losses mean nothing")


if __name__ == "__main__":
    main()
