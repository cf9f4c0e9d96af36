#!/usr/bin/env python3
"""Echoes in a closed loop: Fantail with one and two loops, Bun (uWebSockets inside), and the floor.

    cargo build --release --bins --examples
    benches/echo.py                            # 7 rounds; brings Bun by npm into target/memory-study
    benches/echo.py --sides one,two,old --old ../before/target/release/fantail

HOW IT MEASURES
    One round runs every side once, each on a server started for it, in an order that turns from round to round.
    `examples/echo_load` holds --connections on one thread; each sends its next message of --size bytes when the one
    before has come back. Server CPU is the process's clock, user and system, all threads, between the same two moments
    as the echoes; on loopback it holds the receiving half of what it sends. The table has the medians, and the median,
    least and greatest of the ratios to side `one` within a round.

    Two cores are shared by a server and the generator: two loops have to fight for them, one loop has one.

Python 3.9, standard library only, Linux only; Bun needs npm.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(1, os.path.join(HERE, "memory_study"))
import pairs  # noqa: E402

LISTEN = " --listen 127.0.0.1:0 --admin 127.0.0.1:0"
FANTAIL = "{fantail} serve" + LISTEN + " --loops {loops}"
FLOOR = "{floor} --echo" + LISTEN + " --threads {loops}"


def bun():
    from installs import npm
    folder, _ = npm("bun")
    return str(folder / "bun" / "bin" / "bun.exe")


def command(side, args):
    fill = lambda text, binary, loops: text.format(fantail=binary, floor=args.floor, loops=loops)
    return {
        "one": lambda: fill(FANTAIL, args.fantail, 1),
        "two": lambda: fill(FANTAIL, args.fantail, 2),
        "old": lambda: fill(FANTAIL, args.old, 1),
        "old-two": lambda: fill(FANTAIL, args.old, 2),
        "floor": lambda: fill(FLOOR, "", 1),
        "floor-two": lambda: fill(FLOOR, "", 2),
        "bun": lambda: f"{bun()} {os.path.join(HERE, 'others', 'bun_echo.mjs')}",
    }[side]()


def run(line, args):
    with pairs.Server(line, {"FANTAIL_LOG_LEVEL": "warn"}) as server:
        load = [args.load, "--connect", server.listen, "--connections", str(args.connections), "--size", str(args.size),
                "--seconds", str(args.seconds), "--pid", str(server.pid)]
        switches = server.context_switches()
        done = subprocess.run(load, capture_output=True, text=True, timeout=60 + args.seconds)
        switches = server.context_switches() - switches
        server.process.kill()
    found = dict(re.findall(r"(\w+)=([\d.]+)", done.stdout))
    if "echoes" not in found:
        raise SystemExit(f"{line}: {done.stdout}{done.stderr}")
    echoes = int(found["echoes"])
    return {
        "echoes/s": echoes / float(found["seconds"]),
        "server ns/echo": int(found["server_ns"]) / echoes,
        "client ns/echo": int(found["client_ns"]) / echoes,
        "echoes a client's poll": echoes / max(1, int(found["polls"])),
        # Warming up and connecting are in it, a sixth more or so.
        "switches/1000 echoes": 1000 * switches / echoes,
    }


def main():
    top = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    top.add_argument("--sides", default="one,two,bun", help="of one, two, old, old-two, floor, floor-two, bun")
    top.add_argument("--rounds", type=int, default=7)
    top.add_argument("--connections", type=int, default=100)
    top.add_argument("--size", type=int, default=128)
    top.add_argument("--seconds", type=float, default=3.0)
    top.add_argument("--fantail", default="target/release/fantail")
    top.add_argument("--old", help="the binary of the sides old and old-two")
    top.add_argument("--floor", default="target/release/examples/accept_floor")
    top.add_argument("--load", default="target/release/examples/echo_load")
    top.add_argument("--nice", type=int, default=0, help="of server and generator; -20, as root, on a busy machine")
    top.add_argument("--out", help="write every run's figures to this JSON file")
    args = top.parse_args()
    os.nice(args.nice)
    sides = args.sides.split(",")
    lines = {side: command(side, args) for side in sides}
    seen = {side: [] for side in sides}
    for turn in range(args.rounds):
        at = turn % len(sides)
        order = sides[at:] + sides[:at]
        for side in order if turn % 2 == 0 else reversed(order):
            seen[side].append(run(lines[side], args))
            print(f"  round {turn + 1} of {args.rounds}, {side}: {pairs.one_line(seen[side][-1])}", file=sys.stderr)
    rows = []
    for side in sides:
        median = lambda name: statistics.median(one[name] for one in seen[side])
        row = [side]
        for name in ("echoes/s", "server ns/echo"):
            ratios = [one[name] / base[name] for one, base in zip(seen[side], seen[sides[0]])]
            row += [f"{median(name):,.0f}",
                    f"{statistics.median(ratios):.3f} ({min(ratios):.3f} .. {max(ratios):.3f})"]
        rows.append([*row, f"{median('switches/1000 echoes'):,.1f}"])
    to = f"to `{sides[0]}` (spread)"
    print(f"\n### echo: {args.connections} connections, {args.size} bytes, closed loop\n")
    pairs.print_markdown(["server", "echoes/s", to, "server ns/echo", to, "switches/1000"], rows)
    if args.out:
        with open(args.out, "w") as file:
            json.dump(seen, file, indent=1)


if __name__ == "__main__":
    main()
