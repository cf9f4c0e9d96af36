"""What every table needs: the programs, a server and its clients at a step, and what to say beside the figures.

The clients are those of pairs.py: each has an address of its own, reads nothing and says nothing unless it is told to.
"""

import datetime
import json
import os
import platform
import re
import shlex
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

BENCHES = Path(__file__).resolve().parent.parent
ROOT = BENCHES.parent
sys.path.insert(0, str(BENCHES))

import pairs  # noqa: E402

TARGET = ROOT / os.environ.get("CARGO_TARGET_DIR", "target")
WORK = TARGET / "memory-study"
RAW = ROOT / "docs/memory"
LISTEN = "--listen 127.0.0.1:0 --admin 127.0.0.1:0"
# Clients that answer no ping, do not read, and say nothing for a while.
PATIENT = {**pairs.PATIENT, **pairs.PUBLISH_ENV, "FANTAIL_TIMEOUTS_HANDSHAKE_SECONDS": "3600"}
NO_CAP = {"FANTAIL_ADMISSION_PER_ADDRESS_MAX": "0"}
# What a reading may differ from those before it and still stand still: what an idle runtime's timers touch.
STILL_BYTES = 8 * 1024
READ_SECONDS = 0.4
STILL_READINGS = 4
# In which a server that frees at all has begun to.
AFTER_LEAVING_SECONDS = 3.0


class Failed(Exception):
    """A measurement that could not be made."""


class Disturbed(Failed):
    """One that the rest of the machine did not let be made; nothing is wrong with what is measured."""


class Bench:
    """The programs and the sizes of a run."""

    def __init__(self, fantail, quick=False, launches=5, jobs=3):
        self.fantail, self.quick = fantail, quick
        self.launches, self.jobs = 3 if quick else launches, jobs
        # The only rows to measure, if not all; the others are those of `known`, the tables as they were.
        self.only, self.known = (), {}

    def steps(self, largest, quick=3_000):
        """Three even steps up to `largest`: a fifth, three fifths, all. The first and the last in a quick run."""
        return [quick // 5, quick] if self.quick else [largest // 5, largest * 3 // 5, largest]

    @property
    def loops(self):
        # The same on every machine, so that figures can be compared.
        return 3

    def server(self, env=None, loops=None, command=None):
        """A running Fantail. Use it as a context."""
        line = command or f"{self.fantail} serve {LISTEN} --loops {loops or self.loops}"
        return pairs.Server(line, {**PATIENT, **(env or {})})

    def idle(self, path="/ws/study", env=NO_CAP, loops=None, command=None, **holders):
        """A probe: connections that are opened and left alone."""
        def probe(connections, _):
            with self.server(env, loops, command) as server, pairs.Holders(server, path, **holders) as clients:
                found = {}
                found["empty"] = settled(server.user_bytes, found)
                clients.open(connections)
                found["open"] = settled(server.user_bytes, found)
                return found

        return probe

    def acting(self, path, act, env=NO_CAP, **holders):
        """A probe: connections after `act(server, clients)`."""
        def probe(connections, _):
            with self.server(env) as server, pairs.Holders(server, path, **holders) as clients:
                found = {}
                clients.open(connections)
                # Otherwise what the server tidies up after so many have come falls at a time of its own.
                settled(server.user_bytes, found)
                act(server, clients)
                found["open"] = settled(server.user_bytes, found)
                return found

        return probe


def settled(read, notes, seconds=10.0):
    """What `read` tells once it stands still; if it does not by then, the last, and `notes` has it."""
    deadline = time.monotonic() + seconds
    seen = [read()]
    while True:
        last = seen[-STILL_READINGS:]
        if len(last) == STILL_READINGS and max(last) - min(last) <= STILL_BYTES:
            return seen[-1]
        if time.monotonic() > deadline:
            notes["unsettled"] = notes.get("unsettled", 0) + 1
            return seen[-1]
        time.sleep(READ_SECONDS)
        seen.append(read())


def user_bytes(*pids):
    """User-space memory of processes, as pairs.Server tells it of one."""
    total = 0
    for pid in pids:
        with open(f"/proc/{pid}/status") as file:
            lines = dict(line.split(":", 1) for line in file)
        total += sum(int(lines[name].split()[0]) for name in ("RssAnon", "RssShmem", "HugetlbPages", "VmSwap") if name in lines)
    return 1024 * total


def held(server):
    """Client connections that the server has."""
    return server.metric("fantail_connections") - server.metric("fantail_connections", 'loop="admin"')


def span(steps):
    """"10,000 .. 50,000", the steps of a line."""
    return f"{steps[0]:,} .. {steps[-1]:,}"


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


def built(bench):
    """Of which commit and with which compiler the program is, as it tells itself."""
    with bench.server() as server, urllib.request.urlopen(f"http://{server.admin}/metrics", timeout=10) as answer:
        line = re.search(r"^fantail_build_info\{(.*)\}", answer.read().decode(), re.M)
    return dict(re.findall(r'(\w+)="([^"]*)"', line.group(1))) if line else {}


def machine(bench):
    """What to say beside the figures."""
    about = built(bench)
    with open("/proc/cpuinfo") as file:
        model = re.search(r"^model name\s*:\s*(.+)$", file.read(), re.M)
    return {"kernel": re.match(r"[\d.]+", os.uname().release).group(0).rstrip("."), "cores": os.cpu_count(),
            "cpu": model.group(1).strip() if model else platform.machine(),
            "libc": " ".join(platform.libc_ver()), "compiler": f"rustc {about.get('rustc', 'unknown')}",
            "commit": about.get("commit", "unknown")[:10], "date": datetime.date.today().isoformat()}
