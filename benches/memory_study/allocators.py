"""The table of allocators and huge pages: the same server, started differently."""

import shlex
import sys
import time
from pathlib import Path

import installs
import pairs
from measure import LISTEN, UNKNOWN, Failed, figure, user
from states import MESSAGE_BYTES

HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
# PR_SET_THP_DISABLE, which exec inherits.
NO_HUGE_PAGES = ("import ctypes, os, sys; ctypes.CDLL(None).prctl(41, 1, 0, 0, 0) and sys.exit(1); "
                 "os.execv(sys.argv[1], sys.argv[1:])")


class huge_pages:
    """The machine's setting while the context lasts."""

    def __init__(self, wanted):
        self.wanted = wanted

    def __enter__(self):
        try:
            self.before = HUGE_PAGES.read_text().split("[")[1].split("]")[0]
            HUGE_PAGES.write_text(self.wanted)
        except (OSError, IndexError) as error:
            raise Failed(f"{HUGE_PAGES}: {error}") from None

    def __exit__(self, *_):
        HUGE_PAGES.write_text(self.before)


def allocators(bench):
    """What the allocator and transparent huge pages make of the same server."""
    def preloaded(package, pattern):
        path, version = installs.library(package, pattern)
        return version, lambda: measured(bench, {"LD_PRELOAD": str(path)}, mapped=path.name)

    def always():
        with huge_pages("always"):
            return measured(bench)

    def never():
        without = shlex.join([sys.executable, "-c", NO_HUGE_PAGES])
        return measured(bench, command=f"{without} {Path(bench.fantail).resolve()} serve {LISTEN} --loops {bench.loops}")

    rows = {
        "glibc, as it is (huge pages `madvise`)": lambda: measured(bench),
        "glibc, `MALLOC_ARENA_MAX=1`": lambda: measured(bench, {"MALLOC_ARENA_MAX": "1"}),
        "glibc, huge pages `never` (prctl)": never,
        "glibc, huge pages `madvise`, and malloc asks (`glibc.malloc.hugetlb=1`)":
            lambda: measured(bench, {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}),
        "glibc, huge pages `always`": always,
    }
    table = {name: attempt(run) for name, run in rows.items()}
    for name, package, pattern in [("jemalloc", "libjemalloc2", "libjemalloc.so.2"),
                                   ("mimalloc", "libmimalloc2.0", "libmimalloc.so.2*")]:
        try:
            version, run = preloaded(package, pattern)
        except Failed as error:
            print(f"  n/a: {error}", file=sys.stderr)
            table[name] = dict.fromkeys(("empty", "idle", "stalled", "kept"), UNKNOWN)
            continue
        table[f"{name} {version.split('+')[0].split('-')[0]} by LD_PRELOAD"] = attempt(run)
    return table


def attempt(run):
    """A row, or one of n/a if this machine does not allow it."""
    try:
        return run()
    except Failed as error:
        print(f"  n/a: {error}", file=sys.stderr)
        return dict.fromkeys(("empty", "idle", "stalled", "kept"), UNKNOWN)


def measured(bench, env=None, command=None, mapped=None):
    with bench.server(env, command=command) as server:
        if mapped and mapped not in Path(f"/proc/{server.pid}/maps").read_text():
            raise Failed(f"{mapped} is not in the process")
        empty = bench.settled(server)
        result = bench.by_loadtest(server.pid, f"ws://{server.listen}/ws/study", bench.steps(50_000))
    idle = user(result)["user"]
    count = 300 if bench.quick else 2_000
    with bench.server(env, command=command) as server, pairs.Holders(server, "/ws/study", receive_buffer=4096) as clients:
        before = bench.settled(server)
        clients.open(count)
        pairs.fill(server, "study", MESSAGE_BYTES, count)
        full = bench.settled(server)
        clients.all("leave", 1.0, 1)
        # It gives back when it has been quiet for a second, and again after what is left has moved.
        time.sleep(4)
        kept = bench.settled(server)
    return {"empty": figure(empty), "idle": idle, "stalled": figure((full - before) / count),
            "kept": figure(max(0, kept - before))}
