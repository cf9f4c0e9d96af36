"""The memory study: remakes the tables of docs/memory.md and says what differs from them.

    docs/reproduce.sh                 # builds, measures everything (half an hour), writes page and figures
    docs/reproduce.sh --quick         # fewer connections and rows, a minute; writes neither, only compares
    docs/reproduce.sh --table kernel  # one table; may be repeated
    docs/reproduce.sh --check         # measures nothing: is the page made of the figures, the layout the program's?

The figures are docs/memory.json; those of a quick run go to target/memory-study/quick.json. A figure differs if it
is further from its old value than a tolerance and both intervals allow. The exit code is 1 if something could not be
measured or the check failed (not if the rest of the machine disturbed a quick run); differences alone are no failure,
because another machine has other figures.

The kernel's tables need root. Other servers and allocators come from npm, pip and apt into target/memory-study.
Python 3.9, standard library only, Linux only.
"""

import argparse
import json
import resource
import signal
import sys
import time

import allocators
import kernel
import measure
import others
import page
import states

PAGE = measure.ROOT / "docs/memory.md"
FIGURES = measure.ROOT / "docs/memory.json"
# In the order of the page. A quick run leaves out what installs something or needs many servers.
QUICK = ("layout", "states", "kernel", "buffers")


def tables(bench, chosen, old):
    """Name and rows of each chosen table, one after the other, or why there are none."""
    known = {} if not chosen or "states" in chosen else old["tables"].get("states", {})

    def of_states():
        if not known:
            known.update(states.states(bench))
        return known

    makers = {
        "layout": lambda: measure.sizes(bench, "--layout")["structs"],
        "states": of_states,
        "parts": lambda: states.parts(bench),
        "leaving": lambda: states.leaving(bench),
        "kernel": lambda: kernel.objects(bench),
        "buffers": lambda: kernel.buffers(bench),
        "settings": lambda: states.settings(bench, of_states()),
        "allocators": lambda: allocators.allocators(bench),
        "others": lambda: others.others(bench),
    }
    for name in chosen or (QUICK if bench.quick else makers):
        if name not in makers:
            raise SystemExit(f"no table {name}; there are: {', '.join(makers)}")
        begun = time.monotonic()
        try:
            rows = makers[name]()
        except (measure.Failed, SystemExit) as error:
            print(f"{name}: n/a: {error}", file=sys.stderr)
            yield name, error
            continue
        print(f"{name}: measured in {time.monotonic() - begun:.0f} s", file=sys.stderr)
        yield name, rows


def stale(bench, figures):
    """What of the page is not what the figures and the program say."""
    found = []
    text = PAGE.read_text()
    if page.filled(text, figures) != text:
        found.append("docs/memory.md has tables that docs/memory.json does not give: run docs/reproduce.sh")
    if figures["tables"].get("layout") != measure.sizes(bench, "--layout")["structs"]:
        found.append("structs have changed: run docs/reproduce.sh --table layout, and the tables they bear on")
    return found


def ended(*_):
    raise KeyboardInterrupt


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--table", action="append", default=[], metavar="NAME")
    parser.add_argument("--fantail", default=measure.TARGET / "release/fantail")
    parser.add_argument("--loadtest", default=measure.TARGET / "release/fantail-loadtest")
    args = parser.parse_args()
    bench = measure.Bench(str(args.fantail), str(args.loadtest), args.quick)
    measure.WORK.mkdir(parents=True, exist_ok=True)
    # Ended from outside it still stops its servers and puts back what it has set.
    signal.signal(signal.SIGTERM, ended)
    # The server and the clients inherit it; the machine is left as it is.
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    old = json.loads(FIGURES.read_text()) if FIGURES.exists() else {"tables": {}}
    if args.check:
        problems = stale(bench, old)
        print("\n".join(problems) or "the page is up to date")
        return bool(problems)
    new = {"machine": measure.machine(), "tables": {}}
    failed = []
    for name, rows in tables(bench, args.table, old):
        if isinstance(rows, BaseException):
            failed += [] if args.quick and isinstance(rows, measure.Disturbed) else [name]
            continue
        new["tables"][name] = rows
        if not args.quick:
            # At once, so that a run that is broken off leaves what it has found.
            kept = json.loads(FIGURES.read_text()) if FIGURES.exists() else {"tables": {}}
            kept["machine"], kept["tables"][name] = new["machine"], rows
            FIGURES.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n")
            PAGE.write_text(page.filled(PAGE.read_text(), kept))
    if args.quick:
        (measure.WORK / "quick.json").write_text(json.dumps(new, indent=1, ensure_ascii=False) + "\n")
    lines = page.differences(old, new)
    print("\n".join(lines) if lines else "no figure differs")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
