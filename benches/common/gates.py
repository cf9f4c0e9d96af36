"""Two sides measured in turn, their table, and what of it is beyond a gate: the frame of the benches that have modes."""

import contextlib
import os
import resource
import statistics
import sys

import pairs

BEYOND = []


def show(title, heads, seen, limits):
    """A table of two sides, and what of it is beyond its gate: figure -> (least, most) of A/B."""
    rows = []
    for name in seen["A"][0]:
        a, b = ([one[name] for one in seen[side]] for side in "AB")
        row = [name, f"{statistics.median(a):,.1f}", f"{statistics.median(b):,.1f}"]
        if min(b) > 0:
            ratios = [one / other for one, other in zip(a, b)]
            middle = statistics.median(ratios)
            row.append(f"{middle:.3f} ({min(ratios):.3f} .. {max(ratios):.3f})")
            if name in limits:
                low, high = limits[name]
                is_beyond = not low <= middle <= high
                row.append(f"{low or ''} .. {high}" + (" BEYOND" if is_beyond else ""))
                BEYOND.extend([f"{title}: {name}"] if is_beyond else [])
        rows.append(row + [""] * (5 - len(row)))
    print(f"\n### {title}\n")
    pairs.print_markdown(["figure", *heads, "A/B (spread)", "gate"], rows)


def in_turn(args, measure):
    """`measure(side)` for both sides, --pairs times."""
    seen = {"A": [], "B": []}
    for pair in range(args.pairs):
        for side in "AB" if pair % 2 == 0 else "BA":
            seen[side].append(measure(side))
            print(f"  pair {pair + 1} of {args.pairs}, {side}: {pairs.one_line(seen[side][-1])}", file=sys.stderr)
    return seen


def in_realtime(pid):
    """Gives a process of root's real-time priority: others on the machine do not blur its times."""
    for task in os.listdir(f"/proc/{pid}/task"):
        # A thread of the start may end in between.
        with contextlib.suppress(ProcessLookupError):
            os.sched_setscheduler(int(task), os.SCHED_RR, os.sched_param(2))


def run(parser, modes):
    """Does the modes that are asked for, all without any, with as many open files as there may be. The exit code says
    whether something is beyond its gate."""
    parser.add_argument("modes", nargs="*", metavar="MODE", help=", ".join(modes))
    args = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    for mode in args.modes or modes:
        if mode not in modes:
            parser.error(f"no mode {mode}")
        modes[mode](args)
    if BEYOND:
        sys.exit(f"\nbeyond the gate: {'; '.join(BEYOND)}")
