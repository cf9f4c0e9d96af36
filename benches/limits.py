#!/usr/bin/env python3
"""Is preflight right? Reaches the number it predicts under lowered limits, and is refused one more.

    cargo build --release --workspace --bins
    benches/limits.py                                  # 1,000, 5,000 and 20,000 open files, 1 to 4 loops
    benches/limits.py --nofile 20000 --loops 4 --memory none
    benches/limits.py --nofile none --memory 64,256    # control groups of so many MiB; as root

HOW IT WORKS
    For a limit on open files and a number of loops, `fantail preflight --json` says the highest number N that
    holds. Then:
      - preflight for N says yes (exit 0), for N + 1 no (exit 1), and names the open files;
      - the server with that limit takes N clients. The load generator opens them as fast as it can; when one of
        several loops fills up, those on their way to it are answered 503 ("refused on the way"), and this script
        opens as many instead, one after the other;
      - the next client is answered 503 and counted as at_capacity; no accept failed;
      - a message reaches N subscribers;
      - `--connections-max N+1` does not start (exit 2), and the message names the key and N.
    With a control group, of version 1 or 2, preflight and server run inside it. Nothing refuses the N + 1st there
    by itself, so the server is told N, as preflight advises, and has to hold them without being killed.

    Each row is one run; the exit code is 1 if any is not as predicted. The most that is opened is 4 × 20,000: the
    generator needs a hard limit on open files of 20,000 for each of its threads, and 1.5 GiB are in use then.

Python 3.9, standard library only, Linux only. Limits are lowered with prlimit (util-linux).
"""

import argparse
import json
import os
import pathlib
import shlex
import socket
import subprocess
import sys
import time

sys.dont_write_bytecode = True
import pairs  # noqa: E402

SERVE = "{fantail} serve --listen 127.0.0.1:0 --admin 127.0.0.1:0 --loops {loops}"
# Neither heartbeats nor the cap on one address are what is looked at here.
QUIET = {"FANTAIL_TIMEOUTS_HEARTBEAT_SECONDS": "0", "FANTAIL_ADMISSION_PER_ADDRESS_MAX": "0"}
# The generator's clients stay for so long at most; no more come if none has come for a while.
HOLD_SECONDS = 600
STANDS_SECONDS = 4


class Wrong(Exception):
    """Something is not as predicted."""


def need(condition, what):
    if not condition:
        raise Wrong(what)


def preflight(args, wrap, connections, loops):
    line = wrap(f"{args.fantail} preflight --json --connections {connections} --loops {loops}")
    ran = subprocess.run(shlex.split(line), capture_output=True, text=True)
    return ran.returncode, json.loads(ran.stdout)


def connected(server):
    """One more client: its connection, or None if it was answered 503."""
    host, port = server.listen.rsplit(":", 1)
    one = socket.create_connection((host, int(port)), 10)
    one.sendall(pairs.HELLO.format(path="/ws/limits").encode())
    head = b""
    while b"\r\n\r\n" not in head:
        piece = one.recv(4096)
        need(piece, f"a connection ended after {head[:40]!r}")
        head += piece
    if head.startswith(b"HTTP/1.1 101 "):
        return one
    one.close()
    need(head.startswith(b"HTTP/1.1 503 "), f"a client was answered {head[:40]!r}")
    return None


def next_is_refused(server):
    before = server.metric("fantail_refusals_total", "at_capacity")
    need(connected(server) is None, "one more was let in")
    need(server.metric("fantail_refusals_total", "at_capacity") == before + 1, "it is not counted as at_capacity")


def subscriptions(server):
    return int(server.metric("fantail_subscriptions"))


def fill(args, server, count):
    """`count` clients: most are the load generator's. Gives it, the others, and how many were refused before."""
    line = [args.loadtest, "idle", "--url", f"ws://{server.listen}/ws/limits", "--connections", str(count),
            "--duration", f"{HOLD_SECONDS}s"]
    generator = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        seen, since = 0, time.monotonic()
        while seen < count and time.monotonic() < since + STANDS_SECONDS:
            time.sleep(0.2)
            now = subscriptions(server)
            need(generator.poll() is None, "the load generator ended")
            if now > seen:
                seen, since = now, time.monotonic()
        # Those that were on their way to a loop that filled up were answered 503, and the generator asks once.
        refused = server.metric("fantail_refusals_total", "at_capacity")
        need(seen >= count * 9 // 10, f"{seen} of {count} connections were opened")
        others = []
        while len(others) < count - seen:
            one = connected(server)
            need(one, f"{seen + len(others)} of {count} connections are open, and one more is refused")
            others.append(one)
        return generator, others, int(refused)
    except BaseException:
        generator.kill()
        generator.wait()
        raise


def reach(args, wrap, loops, count, flags=""):
    """Runs the server and N clients; gives how many were refused on the way, and its memory in bytes."""
    command = wrap(SERVE.format(fantail=args.fantail, loops=loops) + flags)
    with pairs.Server(command, QUIET) as server:
        generator, others, refused = fill(args, server, count)
        try:
            next_is_refused(server)
            told = server.publish("limits", b"to all")["subscribers"]
            need(told == count, f"a message went to {told} subscribers")
            failed = server.metric("fantail_accept_errors_total")
            need(failed == 0, f"{failed} accepts failed")
            return refused, server.user_bytes()
        finally:
            generator.kill()
            generator.wait()
            for one in others:
                one.close()


def open_files(args, nofile, loops):
    def wrap(line):
        return f"prlimit --nofile={nofile}:{nofile} {line}"

    _, report = preflight(args, wrap, 1, loops)
    count = report["highest"]
    code, report = preflight(args, wrap, count, loops)
    need((code, report["holds"]) == (0, True), f"preflight says {count} do not hold")
    code, report = preflight(args, wrap, count + 1, loops)
    need((code, report["binds"]) == (1, "open files"), f"preflight for {count + 1}: {code}, {report['binds']}")
    refused, memory = reach(args, wrap, loops, count)
    line = wrap(SERVE.format(fantail=args.fantail, loops=loops) + f" --connections-max {count + 1}")
    ran = subprocess.run(shlex.split(line), capture_output=True, text=True, timeout=20)
    named = "server.connections_max" in ran.stderr and str(count) in ran.stderr
    need(ran.returncode == 2 and named, f"--connections-max {count + 1}: {ran.returncode} {ran.stderr}")
    return count, refused, memory


class Group:
    """A control group that limits memory. Use it as a context."""

    VERSIONS = [("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")]

    def __init__(self, mebibytes):
        self.folder = None
        for root, name in self.VERSIONS:
            folder = pathlib.Path(root) / f"fantail-limits-{os.getpid()}"
            try:
                folder.mkdir()
            except OSError:
                continue
            self.folder = folder
            if (folder / name).exists():
                (folder / name).write_text(str(mebibytes << 20))
                return
            folder.rmdir()
        raise Wrong("no control group that limits memory can be made here")

    def wrap(self, line):
        return f"sh -c {shlex.quote(f'echo $$ > {self.folder}/cgroup.procs && exec {line}')}"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        deadline = time.monotonic() + 10
        while True:
            try:
                return self.folder.rmdir()
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)


def memory_group(args, mebibytes, loops):
    with Group(mebibytes) as group:
        _, report = preflight(args, group.wrap, 1, loops)
        need(report["binds"].startswith("memory of the control group"), f"it binds first: {report['binds']}")
        # A run takes a little of the group's memory itself, and the next finds less.
        count = report["highest"]
        code, _ = preflight(args, group.wrap, count + count // 10, loops)
        need(code == 1, f"preflight says that {count + count // 10} hold, too")
        refused, memory = reach(args, group.wrap, loops, count, f" --connections-max {count}")
        return count, refused, memory


def numbers(text):
    return [] if text == "none" else [int(number.replace("_", "")) for number in text.split(",")]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nofile", type=numbers, default=[1_000, 5_000, 20_000])
    parser.add_argument("--loops", type=numbers, default=[1, 2, 3, 4])
    parser.add_argument("--memory", type=numbers, default=[64, 256], help="MiB of control groups, with four loops")
    parser.add_argument("--fantail", default="target/release/fantail")
    parser.add_argument("--loadtest", default="target/release/fantail-loadtest")
    args = parser.parse_args()
    runs = [(f"{nofile} open files", loops, lambda nofile=nofile, loops=loops: open_files(args, nofile, loops))
            for nofile in args.nofile for loops in args.loops]
    runs += [(f"{size} MiB", 4, lambda size=size: memory_group(args, size, 4)) for size in args.memory]
    wrong = 0
    print("| limit | loops | predicted and reached | refused on the way | one more | user MB |\n| --- | ---: | ---: | ---: | --- | ---: |")
    for limit, loops, run in runs:
        try:
            count, refused, memory = run()
            print(f"| {limit} | {loops} | {count:,} | {refused} | 503 | {memory / 1e6:.1f} |", flush=True)
        except Wrong as error:
            wrong += 1
            print(f"| {limit} | {loops} | WRONG: {error} | | | |", flush=True)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
