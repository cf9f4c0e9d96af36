"""The memory study: remakes the tables of docs/memory.md and says how far they agree with what was there.

    docs/reproduce.sh                 # builds, measures everything (under an hour), writes page, plot, figures, CSV
    docs/reproduce.sh --quick         # fewer connections, launches and rows, two minutes; writes none of them, compares
    docs/reproduce.sh --table kernel  # one table; may be repeated
    docs/reproduce.sh --check         # measures nothing: is the page made of the figures, the layout the program's?

The figures are docs/memory.json, what each launch found is in docs/memory/; both of a quick run go to
target/memory-study. A figure differs if it is further from its old value than a tolerance and both intervals allow; one
whose interval is wider than two tolerances does not agree either, because it could not differ.

The exit code is 1 if something could not be measured, the check failed, or a figure of a quick run does not agree: of
Fantail's structs and user memory always, of the kernel's only under the kernel that the page tells of, and not if the
rest of the machine disturbed it. A quick run is made up to three times until all do: what has changed has each time. Differences of a full run are no failure: it makes the figures new.

The kernel's tables need root. Other servers and allocators come from npm, pip, cargo and apt into target/memory-study.
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
import plot
import states

PAGE = measure.ROOT / "docs/memory.md"
FIGURES = measure.ROOT / "docs/memory.json"
PLOT = measure.RAW / "servers.svg"
# In the order of the page. A quick run leaves out what installs something or needs many servers.
QUICK = ("layout", "states", "kernel", "buffers")


def tables(bench, chosen, old):
    """Name, rows and what to say beside them of each chosen table, one after the other, or why there are none."""
    known = {} if not chosen or "states" in chosen else old["tables"].get("states", {})

    def of_states():
        rows, about = states.states(bench)
        known.update(rows)
        return rows, about

    def of_settings():
        return states.settings(bench, known or of_states()[0])

    makers = {
        "layout": lambda: (measure.sizes(bench, "--layout")["structs"], {}),
        "states": of_states,
        "parts": lambda: states.parts(bench),
        "leaving": lambda: states.leaving(bench),
        "kernel": lambda: kernel.objects(bench),
        "buffers": lambda: kernel.buffers(bench),
        "settings": of_settings,
        "allocators": lambda: allocators.allocators(bench),
        "others": lambda: others.others(bench),
        "tls": lambda: others.tls(bench),
    }
    for name in chosen or (QUICK if bench.quick else makers):
        if name not in makers:
            raise SystemExit(f"no table {name}; there are: {', '.join(makers)}")
        begun = time.monotonic()
        try:
            rows, about = makers[name]()
        except (measure.Failed, SystemExit) as error:
            print(f"{name}: n/a: {error}", file=sys.stderr)
            yield name, error, {}
            continue
        print(f"{name}: measured in {time.monotonic() - begun:.0f} s", file=sys.stderr)
        yield name, rows, about


def stale(bench, figures):
    """What of the page is not what the figures and the program say."""
    found = []
    text = PAGE.read_text()
    if page.filled(text, figures) != text:
        found.append("docs/memory.md has tables that docs/memory.json does not give: run docs/reproduce.sh")
    if not PLOT.exists() or plot.svg(figures) != PLOT.read_text():
        found.append(f"{PLOT.relative_to(measure.ROOT)} is not what docs/memory.json gives: run docs/reproduce.sh")
    if figures["tables"].get("layout") != measure.sizes(bench, "--layout")["structs"]:
        found.append("structs have changed: run docs/reproduce.sh --table layout, and the tables they bear on")
    return found


def kept(name, rows, about):
    """Writes one table into the figures, the page and the plot: at once, so that a run that is broken off leaves what
    it has found."""
    figures = read(FIGURES)
    figures["tables"][name], figures["about"][name] = rows, about
    FIGURES.write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n")
    PAGE.write_text(page.filled(PAGE.read_text(), figures))
    PLOT.parent.mkdir(exist_ok=True)
    PLOT.write_text(plot.svg(figures))


def read(path):
    return {"tables": {}, "about": {}, **(json.loads(path.read_text()) if path.exists() else {})}


def ended(*_):
    raise KeyboardInterrupt


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--table", action="append", default=[], metavar="NAME")
    parser.add_argument("--row", action="append", default=[], metavar="NAME",
                        help="of the tables others and tls, only this one anew; may be repeated")
    parser.add_argument("--launches", type=int, default=5, help="at each step, of a full run (5)")
    parser.add_argument("--jobs", type=int, default=3, help="launches at once, but for the kernel's tables (3)")
    parser.add_argument("--against", default=FIGURES, type=measure.Path, help="the figures to compare with (docs/memory.json)")
    parser.add_argument("--fantail", default=measure.TARGET / "release/fantail")
    args = parser.parse_args()
    bench = measure.Bench(str(args.fantail), args.quick, args.launches, args.jobs)
    measure.WORK.mkdir(parents=True, exist_ok=True)
    # Ended from outside it still stops its servers and puts back what it has set.
    signal.signal(signal.SIGTERM, ended)
    # The server and the clients inherit it; the machine is left as it is.
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    old = read(args.against)
    if args.check:
        problems = stale(bench, old)
        print("\n".join(problems) or "the page is up to date")
        return bool(problems)
    bench.only, bench.known = args.row, old["tables"]
    if args.row and (args.quick or not args.table or set(args.table) - {"others", "tls"}):
        parser.error("--row goes with --table others or --table tls")
    for left in (2, 1, 0) if args.quick else (0,):
        new, failed = made(args, bench, old)
        compared = page.Comparison(old, new, page.gated(old, new) if args.quick else ())
        print(compared.text(), flush=True)
        if not left or not (failed or compared.failed):
            return bool(failed) or compared.failed
        print("once more", flush=True)


def made(args, bench, old):
    """What the tables have come to, and which could not be measured."""
    new, machine, failed = {"tables": {}, "about": {}}, measure.machine(bench), []
    for name, rows, about in tables(bench, args.table, old):
        if isinstance(rows, BaseException):
            failed += [] if args.quick and isinstance(rows, measure.Disturbed) else [name]
            continue
        new["tables"][name], new["about"][name] = rows, {**machine, **about}
        if args.row:
            apart = {**old["about"][name].get("apart", {}), **dict.fromkeys(args.row, f"{machine['commit']}, {machine['date']}")}
            again = old["about"][name]["again"] + about["again"]
            new["about"][name] = {**old["about"][name], "again": again, "apart": apart}
        if not args.quick:
            kept(name, rows, new["about"][name])
    if args.quick:
        (measure.WORK / "quick.json").write_text(json.dumps(new, indent=1, ensure_ascii=False) + "\n")
    return new, failed


if __name__ == "__main__":
    sys.exit(main())
