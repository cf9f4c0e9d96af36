"""Bytes per connection of a server: opens connections in steps, reads memory at each, and lays a line through it.

The load generator's `memory` does that wherever opening connections is all it takes; the clients of pairs.py do it
where they have to do something more.
"""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

BENCHES = Path(__file__).resolve().parent.parent
ROOT = BENCHES.parent
sys.path.insert(0, str(BENCHES))

import pairs  # noqa: E402

TARGET = ROOT / os.environ.get("CARGO_TARGET_DIR", "target")
WORK = TARGET / "memory-study"
LISTEN = "--listen 127.0.0.1:0 --admin 127.0.0.1:0"
# Clients that answer no ping, do not read, and say nothing for a while.
PATIENT = {**pairs.PATIENT, **pairs.PUBLISH_ENV, "FANTAIL_TIMEOUTS_HANDSHAKE_SECONDS": "3600"}
# Student's t, two-sided 95 %, by degrees of freedom.
T95 = [None, 12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228]


class Failed(Exception):
    """A measurement that could not be made."""


class Disturbed(Failed):
    """One that the rest of the machine did not let be made; nothing is wrong with what is measured."""


def figure(value, sure=None):
    """One figure and half of its 95 % interval; None is unknown, which is not 0."""
    return {"value": value, "sure": sure}


UNKNOWN = figure(None)


def fit(points):
    """Slope of a straight line through (connections, bytes) as a figure."""
    n = len(points)
    mean_x = sum(x for x, _ in points) / n
    mean_y = sum(y for _, y in points) / n
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in points) / spread
    if n < 3:
        return figure(slope)
    rest = sum((y - mean_y - slope * (x - mean_x)) ** 2 for x, y in points)
    return figure(slope, T95[min(n - 2, 10)] * (rest / (n - 2) / spread) ** 0.5)


class Bench:
    """The programs and the sizes of a run."""

    def __init__(self, fantail, loadtest, quick):
        self.fantail, self.loadtest, self.quick = fantail, loadtest, quick

    def steps(self, largest, quick=3_000):
        """Five even steps up to `largest`; three in a quick run."""
        if self.quick:
            return [quick // 3, quick * 2 // 3, quick]
        return [largest * part // 5 for part in range(1, 6)]

    @property
    def loops(self):
        # A descriptor table holds 20,000 here, and 50,000 are opened.
        return 2 if self.quick else 3

    def server(self, env=None, loops=None, command=None):
        """A running Fantail. Use it as a context."""
        line = command or f"{self.fantail} serve {LISTEN} --loops {loops or self.loops}"
        return pairs.Server(line, {**PATIENT, **(env or {})})

    def by_loadtest(self, pid, url, steps, **flags):
        """Runs `fantail-loadtest memory` and returns its result."""
        WORK.mkdir(parents=True, exist_ok=True)
        out = WORK / "loadtest.json"
        out.unlink(missing_ok=True)
        line = [self.loadtest, "memory", "--url", url, "--pid", str(pid), "--json", str(out),
                "--steps", ",".join(map(str, steps)), "--duration", "500ms" if self.quick else "1s"]
        for name, value in flags.items():
            line += [f"--{name}"] + ([] if value is True else [str(value)])
        run = subprocess.run(line, capture_output=True, text=True)
        if not out.exists():
            raise Failed(f"{shlex.join(line)}: {run.stderr[-2000:]}")
        result = json.loads(out.read_text())
        if result["problems"]:
            raise Failed(f"{shlex.join(line)}: {'; '.join(result['problems'])}")
        return result

    def idle(self, path="/ws/study", largest=50_000, env=None, loops=None, quick=3_000, prepare=None, **flags):
        """User memory of connections that are opened and left alone."""
        with self.server(env, loops) as server:
            if prepare:
                prepare(server)
            steps = self.steps(largest, quick)
            return user(self.by_loadtest(server.pid, f"ws://{server.listen}{path}", steps, **flags))

    def acting(self, path, largest, act, env=None, quick=1_500, **holders):
        """User memory of connections after `act(server, clients)` at each step."""
        points = []
        with self.server(env) as server, pairs.Holders(server, path, **holders) as clients:
            for step in self.steps(largest, quick):
                clients.open(step - clients.count)
                act(server, clients)
                points.append((step, self.settled(server)))
        return {"user": fit(points), "steps": span(points)}

    def afresh(self, largest, load, env=None, quick=300):
        """The slope over servers that each have a step's connections; `load(server, count)` tells the bytes."""
        points = []
        for step in self.steps(largest, quick):
            with self.server(env) as server:
                points.append((step, load(server, step)))
        return {"user": fit(points), "steps": span(points)}

    def settled(self, server):
        return server.settled_bytes(4 if self.quick else 12)


def held(server):
    """Client connections that the server has."""
    return server.metric("fantail_connections") - server.metric("fantail_connections", 'loop="admin"')


def span(points):
    """"10,000 .. 50,000", the steps of a line."""
    return f"{points[0][0]:,} .. {points[-1][0]:,}"


def kind(result, name, end):
    """One kind of memory in the load generator's result as a figure."""
    found = [kind for kind in result["kinds"] if kind["name"] == name and kind["end"] == end]
    if not found:
        raise Failed(f"the load generator tells no {name} of {end}")
    return figure(found[0]["bytes_per_connection"], found[0]["bytes_per_connection_plus_minus"])


def user(result):
    """What a row needs of the load generator's result."""
    before = [kind["before_bytes"] for kind in result["kinds"] if (kind["name"], kind["end"]) == ("user", "server")]
    steps = result["steps_connections"]
    return {"user": kind(result, "user", "server"), "generator": kind(result, "user", "generator"),
            "empty": figure(before[0]), "steps": f"{steps[0]:,} .. {steps[-1]:,}"}


def sizes(bench, *flags):
    """What `fantail sizes` says, parsed."""
    run = subprocess.run([bench.fantail, "sizes", "--json", *flags], capture_output=True, text=True)
    if run.returncode:
        raise Failed(f"fantail sizes {shlex.join(flags)}: {run.stderr}")
    return json.loads(run.stdout)


def mappings(pid):
    """Anonymous bytes of a process by what they are mapped for."""
    kinds = {"heap": 0, "stack": 0, "file": 0, "other": 0}
    name = "other"
    with open(f"/proc/{pid}/smaps") as file:
        for line in file:
            head = re.match(r"[0-9a-f]+-[0-9a-f]+ \S+ \S+ \S+ \d+\s*(.*)", line)
            if head:
                path = head.group(1).strip()
                name = {"[heap]": "heap", "[stack]": "stack"}.get(path, "file" if path.startswith("/") else "other")
            elif line.startswith("Anonymous:"):
                kinds[name] += 1024 * int(line.split()[1])
    return kinds


def machine():
    """What to say beside the figures."""
    return {"kernel": re.match(r"[\d.]+", os.uname().release).group(0).rstrip("."), "cores": os.cpu_count()}
