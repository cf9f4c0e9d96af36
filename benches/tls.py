#!/usr/bin/env python3
"""What TLS costs: fan-out, bursts, echoes, handshakes and memory over wss beside ws, and beside Bun.

    cargo build --release --workspace --bins --examples
    benches/tls.py fanout                      # 128 bytes to 10,000: plain, lean, rustls
    benches/tls.py fanout --sides bun-plain,bun,plain,lean --publish ws
    benches/tls.py burst                       # 60 at once to 3,000, with the plain floor
    benches/tls.py echo                        # echo latency during a fan-out to 10,000
    benches/tls.py handshake                   # full ones, against a bare rustls loop with ring and with aws-lc-rs
    benches/tls.py resume                      # clients that are dropped and come back, in full and with tickets
    benches/tls.py memory                      # bytes of an idle connection: lean, rustls, Bun, in one run
    benches/tls.py storm                       # full handshakes beside 5,000 clients that are served
    benches/tls.py half                        # memory of 20,000 handshakes that are begun and not ended
    benches/tls.py swap                        # certificates replaced under 5,000 connections and 200 handshakes/s

HOW IT MEASURES
    One round runs every side once, each on a server started for it, in an order that turns from round to round. The
    table has the medians, and the median, least and greatest of the ratios to the first side within a round. Everything is
    TLS 1.3 with a certificate on P-256; the clients are the load generator's (rustls with aws-lc-rs), which do not resume unless
    told to. A CPU figure is the server process's clock, user and system, all threads, as in pairs.py.

    `storm`, `half` and `swap` are no comparison: they say what happened, and fail if it is not as it should be. A storm comes with
    256 handshakes under way for each of the generator's threads, and what is measured are the echoes of those served
    while it lasts. Those who shake hands while certificates are replaced are OpenSSL's clients; each has to get
    the one that was in force.

Bun comes by npm into target/memory-study, the bare loops are built there; `openssl` makes the certificates.
Python 3.9, standard library only, Linux only.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
from contextlib import contextmanager

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(1, os.path.join(HERE, "memory_study"))
import pairs  # noqa: E402

LISTEN = "--listen 127.0.0.1:0 --admin 127.0.0.1:0"
BARE = os.path.join(HERE, "others", "rustls")


class Secure(pairs.Server):
    """A server whose clients speak TLS with it."""

    scheme = "wss"

    def __init__(self, command, env):
        super().__init__(command, env)
        self.listen = self.tls


def files():
    from installs import certificate
    return [str(path) for path in certificate()]


def serve(args, secure):
    line = f"{args.fantail} serve {LISTEN} --loops {args.loops}"
    if secure:
        certificate, key = files()
        line += f" --tls-listen 127.0.0.1:0 --tls-certificate {certificate} --tls-key {key}"
    return line


def bare(backend):
    """The bare loop's program."""
    from measure import WORK
    target = WORK / f"tls-floor-{backend}"
    subprocess.run(["cargo", "build", "--locked", "--release", "--quiet", "--features", backend, "--target-dir", target],
                   cwd=BARE, check=True)
    return f"{target}/release/fantail-tls-floor {' '.join(files())}"


@contextmanager
def bun(tls):
    from others import bun as install
    with install(files() if tls else [])[1]() as server:
        server.scheme, server.admin = "wss" if tls else "ws", None
        yield server


def side(name, args):
    """A server, as a context."""
    env = {**pairs.PUBLISH_ENV, **pairs.PATIENT, "FANTAIL_LOG_LEVEL": "warn"}
    floor = f"{args.floor} {LISTEN} --threads {args.loops}"
    return {
        "plain": lambda: pairs.Server(serve(args, False), env),
        "lean": lambda: Secure(serve(args, True), {**env, "FANTAIL_TLS_LEAN": "true"}),
        "rustls": lambda: Secure(serve(args, True), {**env, "FANTAIL_TLS_LEAN": "false"}),
        "floor": lambda: pairs.Server(floor, env),
        "bare-ring": lambda: Secure(bare("ring"), env),
        "bare-aws-lc-rs": lambda: Secure(bare("aws-lc-rs"), env),
        "bun-plain": lambda: bun(False),
        "bun": lambda: bun(True),
    }[name]()


def rounds(args, title, run):
    """Every side in turns, and the table of what `run(server, name)` finds."""
    sides = args.sides.split(",")
    seen = {name: [] for name in sides}
    for turn in range(args.rounds):
        at = turn % len(sides)
        order = sides[at:] + sides[:at]
        for name in order if turn % 2 == 0 else reversed(order):
            with side(name, args) as server:
                seen[name].append(run(server, name))
            print(f"  round {turn + 1} of {args.rounds}, {name}: {pairs.one_line(seen[name][-1])}", file=sys.stderr)
    print(f"\n### {title}, {args.rounds} rounds\n")
    rows = []
    for figure in seen[sides[0]][0]:
        for name in sides:
            values = [one[figure] for one in seen[name]]
            base = [one[figure] for one in seen[sides[0]]]
            row = [figure, name, pairs.number(statistics.median(values))]
            if figure in pairs.COUNTS or not all(base):
                row += [f"{pairs.number(min(values))} .. {pairs.number(max(values))}"]
            else:
                ratios = [value / one for value, one in zip(values, base)]
                row += [f"{statistics.median(ratios):.3f} ({min(ratios):.3f} .. {max(ratios):.3f})"]
            rows.append(row)
    pairs.print_markdown(["figure", "server", "median", f"to `{sides[0]}`"], rows)
    if args.out:
        with open(args.out, "w") as file:
            json.dump(seen, file, indent=1)


def cmd_fanout(args):
    def run(server, name):
        # Bun has no port to publish at, and its publisher is no subscriber; Fantail's would have its own back.
        by_http = args.publish == "http" and not name.startswith("bun")
        path = "/ws/{topic}" if by_http or name.startswith("bun") else "/ws/{topic}?echo=0"
        result = pairs.loadtest(
            args, "fanout", server, path=path, publish="http" if by_http else "ws", connections=args.connections,
            threads=1, rate=args.rate, burst=args.burst, size=args.size, duration=f"{args.seconds}s")
        return pairs.figures(result, pairs.FANOUT_FIELDS)

    rounds(args, f"{args.command}: {args.connections:,} subscribers, {args.size} bytes, bursts of {args.burst}, "
                 f"published by {args.publish}, loops {args.loops}", run)


def cmd_echo(args):
    def run(server, _):
        before = pairs.tcp_in_use()
        with pairs.start_loadtest(
                args, "fanout", server, publish="http", connections=args.connections, threads=1, rate=args.rate, burst=1,
                size=args.size, duration=f"{args.seconds + 4}s") as fanout:
            pairs.wait_until(lambda: pairs.tcp_in_use() - before >= 2 * args.connections, 120, "the subscribers to connect")
            echo = pairs.loadtest(args, "echo", server, path="/echo", connections=10, threads=1, rate=args.echo_rate, size=64,
                                  duration=f"{args.seconds}s")
            fanout.result()
            return pairs.figures(echo, pairs.ECHO_FIELDS)

    rounds(args, f"echo during fan-outs of {args.size} bytes to {args.connections:,}, loops {args.loops}", run)


def cmd_handshake(args):
    def run(server, _):
        result = pairs.loadtest(args, "idle", server, connections=args.connections, threads=1, duration="100ms")
        return {"us/handshake": result["server"]["cpu_open_seconds"] / result["connections"]["opened"] * 1e6}

    rounds(args, f"handshake: {args.connections:,} connections, loops {args.loops}", run)


def cmd_resume(args):
    """Everybody is dropped and comes back, in full and then with tickets; the end of those before is in it."""
    def run(server, _):
        found = {}
        for how, flag in (("in full", None), ("resumed", True)):
            result = pairs.loadtest(args, "storm", server, bystander="none", connections=args.connections, threads=1,
                                    duration="100ms", **{"tls-resume": flag})
            found[f"us/return {how}"] = result["server_cpu_seconds"] / result["returned"] * 1e6
            found[f"{how}: resumed"] = result["tls"]["resumed"]
        found["ratio"] = found["us/return resumed"] / found["us/return in full"]
        return found

    rounds(args, f"return of {args.connections:,}, in full and resumed, loops {args.loops}", run)


def cmd_memory(args):
    def run(server, _):
        result = pairs.loadtest(args, "memory", server, steps=args.steps, duration="1s")
        user = next(kind for kind in result["kinds"] if kind["end"] == "server" and kind["name"] == "user")
        return {"bytes/connection": user["bytes_per_connection"]}

    rounds(args, f"memory of an idle connection, at {args.steps} connections", run)


def parser():
    from tls_events import cmd_storm, cmd_swap
    from tls_half import cmd_half

    top = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = top.add_subparsers(dest="command", required=True, metavar="SUBCOMMAND")

    def add(name, run, sides, turns=7, **defaults):
        sub = commands.add_parser(name)
        sub.add_argument("--sides", default=sides)
        sub.add_argument("--rounds", type=int, default=turns)
        for key, value in {"loops": 1, **defaults}.items():
            if value is False:
                sub.add_argument("--" + key.replace("_", "-"), action="store_true")
                continue
            sub.add_argument("--" + key.replace("_", "-"), type=type(value), default=value, help=f"(default {value})")
        sub.add_argument("--fantail", default="target/release/fantail")
        sub.add_argument("--floor", default="target/release/examples/floor")
        sub.add_argument("--loadtest", default="target/release/fantail-loadtest")
        sub.add_argument("--out", help="write every run's figures to this JSON file")
        sub.add_argument("--verbose", action="store_true", help="show commands and the servers' logs")
        sub.set_defaults(run=run)

    add("fanout", cmd_fanout, "plain,lean,rustls", connections=10_000, size=128, rate=5.0, burst=1, seconds=6, publish="http")
    add("burst", cmd_fanout, "floor,plain,lean,rustls", connections=3_000, size=128, rate=30.0, burst=60, seconds=6,
        publish="http")
    add("echo", cmd_echo, "plain,lean,rustls", connections=10_000, size=128, rate=5.0, echo_rate=200.0, seconds=6)
    add("handshake", cmd_handshake, "bare-aws-lc-rs,bare-ring,lean,rustls,bun", connections=8_000)
    add("resume", cmd_resume, "lean", turns=5, connections=5_000)
    add("memory", cmd_memory, "lean,rustls,bun", turns=3, steps="3k,6k,9k,12k,15k")
    add("storm", cmd_storm, "lean", loops=3, served=5_000, handshakes=20_000, threads=2, rate=1_000.0, seconds=3,
        realtime=False)
    add("half", cmd_half, "lean", loops=3, handshakes=20_000, clients=4)
    add("swap", cmd_swap, "lean", served=5_000, swaps=100, workers=2, rate=200.0)
    return top


def main():
    args = parser().parse_args()
    pairs.VERBOSE = args.verbose
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    args.run(args)
    if pairs.PROBLEMS_SEEN:
        sys.exit("\nthere were problems: figures of runs with losses mean nothing")


if __name__ == "__main__":
    main()
