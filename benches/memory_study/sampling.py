"""Launches: each a server of its own with so many connections, in an order drawn by a seed, a few at a time.

A table's rows are measured at the same steps, `launches` times each. All of these are put into one random order, so
that nothing that changes with time (caches that fill, a machine that gets busy) looks like a row or a step. What fails
is launched again, up to TRIES_MAX times in all; how often that was is kept, and stands beside the table.
"""

import csv
import multiprocessing
import multiprocessing.connection
import random
import signal
import sys
import time
from dataclasses import dataclass
from typing import Callable

from measure import RAW, WORK, Failed

SEED = 20261129
TRIES_MAX = 3
TELL_EVERY_SECONDS = 60
# Of all launches under way; a dear one waits until it fits, and others go before it.
BYTES_AT_ONCE_MAX = 1_600_000_000


@dataclass
class Row:
    """One row of a table: what to measure at a number of connections, and at which numbers."""

    name: str
    # (connections, seed) to {what: bytes}, with a server of its own.
    probe: Callable
    steps: list
    # How many times as many launches as other rows have.
    times: int = 1
    # Memory of a connection, roughly, where it matters how many launches fit the machine at once.
    dear_bytes: int = 0


@dataclass
class Launch:
    """One launch: what it was to measure, and what it found."""

    row: str
    connections: int
    launch: int
    order: int = 0
    tries: int = 0
    began: float = 0.0
    found: dict = None
    why: str = ""


class Samples:
    """What all launches of a table found."""

    def __init__(self, launches):
        self.launches = launches

    def points(self, row, key, less=None):
        """(connections, bytes) of each launch that was made; with `less`, less that other reading."""
        return [(one.connections, one.found[key] - (one.found[less] if less else 0))
                for one in self.launches if one.row == row and one.found and key in one.found]

    def values(self, row, key, less=None, connections=None):
        return [value for at, value in self.points(row, key, less) if connections in (None, at)]

    def about(self):
        """What to say beside the table."""
        each = {one.row: 0 for one in self.launches}
        for one in self.launches:
            each[one.row] = max(each[one.row], one.launch)
        return {"seed": SEED, "planned": len(self.launches),
                "again": sum(one.tries - 1 for one in self.launches),
                "missing": sum(one.found is None for one in self.launches),
                "unsettled": sum(bool(one.found and one.found.get("unsettled")) for one in self.launches),
                "launches": min(each.values(), default=0),
                "more": {row: count for row, count in each.items() if count > min(each.values())},
                "steps": sorted({one.connections for one in self.launches})}

    def write(self, path, others=()):
        """All launches in the order in which they were made, behind `others`, which are lines of an older file."""
        lines = list(others)
        for one in sorted(self.launches, key=lambda one: one.order):
            found = {key if key == "unsettled" else f"{key}_bytes": value for key, value in (one.found or {}).items()}
            lines.append({"order": one.order, "began_seconds": f"{one.began:.1f}", "row": one.row, "launch": one.launch,
                          "connections": one.connections, "tries": one.tries, **found})
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "w", newline="") as file:
            writer = csv.DictWriter(file, list(dict.fromkeys(key for line in lines for key in line)), lineterminator="\n")
            writer.writeheader()
            writer.writerows(lines)


def planned(rows, launches, seed=SEED):
    """All launches of the rows in random order."""
    plan = [Launch(row.name, step, launch) for row in rows for step in row.steps for launch in range(1, launches * row.times + 1)]
    random.Random(seed).shuffle(plan)
    for order, one in enumerate(plan, 1):
        one.order = order
    return plan


def sample(bench, table, rows, launches=None, jobs=None):
    """Makes every launch of the rows and keeps what they found in the table's CSV."""
    plan = planned(rows, launches or bench.launches)
    begun = told = time.monotonic()
    with Workers(rows, jobs or bench.jobs) as workers:
        for count, one in enumerate(workers.each(plan, begun), 1):
            if time.monotonic() - told > TELL_EVERY_SECONDS:
                told = time.monotonic()
                print(f"  {table}: {count} of {len(plan)} launches", file=sys.stderr)
            if one.found is None:
                print(f"  {table}: {one.row} at {one.connections:,}: given up: {one.why}", file=sys.stderr)
            elif one.tries > 1:
                print(f"  {table}: {one.row} at {one.connections:,}: again after: {one.why}", file=sys.stderr)
    samples = Samples(plan)
    path = (WORK if bench.quick else RAW) / f"{table}.csv"
    names = {row.name for row in rows}
    samples.write(path, [line for line in written(path) if line["row"] not in names] if bench.only else [])
    if all(one.found is None for one in plan):
        raise Failed(f"no launch succeeded: {plan[0].why}")
    return samples


def written(path):
    """The lines of a table's CSV."""
    if not path.exists():
        return []
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


class Workers:
    """Processes that make launches. A process each, because clients are forked, which threads do not survive."""

    def __init__(self, rows, count):
        self.probes = {row.name: row.probe for row in rows}
        self.dear = {row.name: row.dear_bytes for row in rows}
        self.count, self.idle, self.all = count, [], []

    def __enter__(self):
        context = multiprocessing.get_context("fork")
        for _ in range(self.count):
            ours, theirs = context.Pipe()
            inherited = [pipe for pipe, _ in self.all] + [ours]
            process = context.Process(target=work, args=(theirs, inherited, self.probes))
            process.start()
            theirs.close()
            self.all.append((ours, process))
            self.idle.append(ours)
        return self

    def __exit__(self, kind, *_):
        for pipe, process in self.all:
            # A launch that is under way ends its server on this signal.
            if kind is not None:
                process.terminate()
            pipe.close()
        for _, process in self.all:
            process.join(30)

    def each(self, plan, begun):
        """Every launch of the plan as it is done or given up."""
        waiting, busy = list(reversed(plan)), {}
        while waiting or busy:
            while self.idle and (one := self.next(waiting, busy.values())):
                pipe = self.idle.pop()
                waiting.remove(one)
                one.tries += 1
                one.began = time.monotonic() - begun
                pipe.send((one.row, one.connections, one.order))
                busy[pipe] = one
            for pipe in multiprocessing.connection.wait(list(busy)):
                one = busy.pop(pipe)
                try:
                    found, why = pipe.recv()
                except EOFError:
                    raise Failed("a process that measures has died") from None
                self.idle.append(pipe)
                one.found, one.why = found, why or one.why
                if found is None and one.tries < TRIES_MAX:
                    waiting.append(one)
                else:
                    yield one


    def next(self, waiting, busy):
        """The next launch for which there is room: whatever is alone has."""
        left = BYTES_AT_ONCE_MAX - sum(self.bytes(one) for one in busy)
        return next((one for one in reversed(waiting) if not busy or self.bytes(one) <= left), None)

    def bytes(self, one):
        return self.dear[one.row] * one.connections


def work(pipe, inherited, probes):
    """One of the processes: launches in, findings out."""
    for other in inherited:
        other.close()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        try:
            row, connections, order = pipe.recv()
        except (EOFError, KeyboardInterrupt):
            return
        try:
            answer = probes[row](connections, SEED + order), ""
        except KeyboardInterrupt:
            return
        # Whatever goes wrong in a launch is told and tried again; a table is not lost for it.
        except (Exception, SystemExit) as error:
            answer = None, f"{type(error).__name__}: {error}"
        pipe.send(answer)
