"""The table of allocators and huge pages: the same server, started differently."""

import shlex
import sys
import time
from pathlib import Path

import installs
import pairs
from figures import UNKNOWN, fit, mean
from measure import AFTER_LEAVING_SECONDS, LISTEN, NO_CAP, Failed, settled
from sampling import Row, sample
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


STALLED_CONNECTIONS = 2_000


def allocators(bench):
    """What the allocator and transparent huge pages make of the same server."""
    without = shlex.join([sys.executable, "-c", NO_HUGE_PAGES])
    never = f"{without} {Path(bench.fantail).resolve()} serve {LISTEN} --loops {bench.loops}"
    kinds = {
        "glibc, as it is (huge pages `madvise`)": {},
        "glibc, `MALLOC_ARENA_MAX=1`": {"env": {"MALLOC_ARENA_MAX": "1"}},
        "glibc, huge pages `never` (prctl)": {"command": never},
        "glibc, huge pages `madvise`, and malloc asks (`glibc.malloc.hugetlb=1`)":
            {"env": {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}},
    }
    for name, package, pattern in [("jemalloc", "libjemalloc2", "libjemalloc.so.2"),
                                   ("mimalloc", "libmimalloc2.0", "libmimalloc.so.2*")]:
        try:
            path, version = installs.library(package, pattern)
        except Failed as error:
            print(f"  n/a: {error}", file=sys.stderr)
            continue
        kinds[f"{name} {version.split('+')[0].split('-')[0]} by LD_PRELOAD"] = {
            "env": {"LD_PRELOAD": str(path)}, "mapped": path.name}
    samples = sample(bench, "allocators", rows_of(bench, kinds))
    found = {name: figures_of(samples, name) for name in kinds}
    about = samples.about()
    # The setting is the whole machine's: nothing else is measured meanwhile.
    always = {"glibc, huge pages `always`": {}}
    try:
        with huge_pages("always"):
            samples = sample(bench, "allocators-always", rows_of(bench, always))
        found.update({name: figures_of(samples, name) for name in always})
        for key in ("planned", "again", "missing", "unsettled"):
            about[key] += samples.about()[key]
    except Failed as error:
        print(f"  n/a: {error}", file=sys.stderr)
        found.update({name: dict.fromkeys(("empty", "idle", "stalled", "kept"), UNKNOWN) for name in always})
    return found, about


def rows_of(bench, kinds):
    steps, few = bench.steps(10_000), [300 if bench.quick else STALLED_CONNECTIONS]
    return [row for name, kind in kinds.items() for row in
            (Row(f"{name}: idle", idle(bench, **kind), steps), Row(f"{name}: stalled", stalled(bench, **kind), few))]


def checked(server, mapped):
    if mapped and mapped not in Path(f"/proc/{server.pid}/maps").read_text():
        raise Failed(f"{mapped} is not in the process")


def idle(bench, env=None, command=None, mapped=None):
    def probe(connections, _):
        with bench.server({**NO_CAP, **(env or {})}, command=command) as server, pairs.Holders(server, "/ws/study") as clients:
            checked(server, mapped)
            found = {}
            found["empty"] = settled(server.user_bytes, found)
            clients.open(connections)
            found["open"] = settled(server.user_bytes, found)
            return found

    return probe


def stalled(bench, env=None, command=None, mapped=None):
    def probe(connections, _):
        with bench.server(env, command=command) as server, pairs.Holders(server, "/ws/study", receive_buffer=4096) as clients:
            checked(server, mapped)
            found = {}
            found["before"] = settled(server.user_bytes, found)
            clients.open(connections)
            pairs.fill(server, "study", MESSAGE_BYTES, connections)
            found["full"] = settled(server.user_bytes, found)
            clients.all("leave", 1.0, 1)
            # It gives back when it has been quiet for a second, and again after what is left has moved.
            time.sleep(AFTER_LEAVING_SECONDS)
            found["kept"] = settled(server.user_bytes, found)
            return found

    return probe


def figures_of(samples, name):
    points = samples.points(f"{name}: idle", "open")
    row = f"{name}: stalled"
    each = [(full - before) / at for (at, full), (_, before) in
            zip(samples.points(row, "full"), samples.points(row, "before"))]
    return {"empty": mean(samples.values(f"{name}: idle", "empty")), "idle": fit(points) if len(points) > 2 else UNKNOWN,
            "stalled": mean(each), "kept": mean(samples.values(row, "kept", "before"))}
