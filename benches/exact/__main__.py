#!/usr/bin/env python3
"""Does every subscriber get every message once and in order, however often its connection breaks?

    cargo build --release --bins
    benches/exact/__main__.py                          # 2,000 of each dialect, 4 loops, 60 s, 500 messages/s to 50 topics
    benches/exact/__main__.py --subscribers 100 --seconds 5
    benches/exact/__main__.py --check                  # is each fault that a proxy makes found in each dialect? 30 s

HOW IT JUDGES
    Shares no code with the server: what it knows of the dialects is what their pages say. Subscribers of json (half of
    them by the URL, half by a command), SSE (`Last-Event-ID` or `since`), long-poll and plain with an envelope have a
    topic each. Each is broken off again and again, on average every --break-every seconds: reset, half-closed, or not
    read from for up to --stall seconds, behind a small receive buffer. It comes back with the position of the last message
    that it has seen, and keeps nothing else.

    The publisher posts to the admin port and knows the number that each message has to have; the payload of each
    follows from topic and number. At the end every subscriber must have got exactly the numbers behind its first place
    up to the newest, each once, in order and with its own payload; the server must have said that it began where it was
    asked to, and have told no gap. Those it must not have: `missing`, `duplicate`, `out_of_order`, `wrong_payload`,
    `wrong_place`, `gap`.

    --check puts a proxy in between that does one kind of wrong to some messages, and wants each kind found in each
    dialect, and nothing found without.

The exit code is 0 if nothing was. Python 3.9, standard library only, Linux only.
"""

import argparse
import collections
import json
import multiprocessing
import re
import resource
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True
import proxy  # noqa: E402
import publisher  # noqa: E402
import workers  # noqa: E402
from account import Tally  # noqa: E402
from messages import topic_name  # noqa: E402

READY = re.compile(r"fantail ready listen=(\S+) admin=(\S+) pid=(\d+)")
# What a whole run publishes stays, so that nobody may miss any of it. Slow ones are met early, because few messages may
# wait for them.
CONFIGURATION = '''
[limits]
history_bytes_max = "1 GiB"
[outbox]
messages_max = 8
[log]
level = "error"
[[topic]]
pattern = "exact/*"
history_messages = 100000
history_bytes = "64 MiB"
[timeouts]
sse_heartbeat_seconds = 2
'''
# Who takes nothing is given up, as long as connections are broken off; then nobody is, however busy the machine is.
HARSH = "write_timeout_seconds = 3\nheartbeat_seconds = 4\npong_seconds = 4\n"
PATIENT = "write_timeout_seconds = 3600\nheartbeat_seconds = 0\n"
# What a fault of the proxy is called. Who begins too early or too late is told so, unless it polls.
NAMES = {"drop": ["missing"], "double": ["duplicate"], "swap": ["out_of_order"], "change": ["wrong_payload"],
         "late": ["wrong_place", "missing", "gap"], "early": ["wrong_place", "duplicate"]}
COUNTED = ("fantail_history_replayed_total", "fantail_history_fell_behind_total", "fantail_closes_total")


class Server:
    def __init__(self, args):
        self.file = tempfile.NamedTemporaryFile("w", suffix=".toml")
        self.write(HARSH)
        command = [args.fantail, "serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--loops", str(args.loops),
                   "--config", self.file.name]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        ready = READY.match(self.process.stdout.readline())
        if not ready:
            sys.exit(f"no ready line from {' '.join(command)}")
        host, port = ready.group(1).rsplit(":", 1)
        self.target, self.admin = (host, int(port)), ready.group(2)

    def write(self, timeouts):
        self.file.seek(0)
        self.file.truncate()
        self.file.write(CONFIGURATION + timeouts)
        self.file.flush()

    def be_patient(self):
        self.write(PATIENT)
        told = json.loads(publisher.Admin(self.admin).post("/reload", b""))
        if not told["reloaded"] or told["needs_restart"]:
            sys.exit(f"the configuration was not read again: {told}")

    def counted(self):
        """Sums over all labels."""
        found = collections.Counter()
        for line in publisher.Admin(self.admin).get("/metrics").decode().splitlines():
            name = line.split("{")[0].split(" ")[0]
            if name in COUNTED:
                found[name] += int(float(line.rsplit(" ", 1)[1]))
        return found

    def stop(self):
        self.process.kill()
        self.process.wait()
        self.file.close()


def process(target, *rest):
    ours, theirs = multiprocessing.Pipe()
    started = multiprocessing.Process(target=target, args=(theirs, *rest), daemon=True)
    started.start()
    theirs.close()
    return ours, started


def told(pipe, what):
    try:
        return pipe.recv()
    except EOFError:
        sys.exit(f"{what} ended before its time")


def run(args, fault=None, between=False):
    """One run: what each dialect did and found, and how often the proxy's fault struck in it."""
    server = Server(args)
    started, between_pipe = [], None
    try:
        topics = [topic_name(index) for index in range(args.topics)]
        target = server.target
        if between:
            between_pipe, one = process(proxy.run, target, fault)
            started.append(one)
            target = ("127.0.0.1", told(between_pipe, "the proxy"))
        pipes = []
        for index in range(args.workers):
            pipe, one = process(workers.run, index, target, args, topics)
            pipes.append(pipe)
            started.append(one)
        for pipe in pipes:
            told(pipe, "a worker")
        posts, one = process(publisher.run, server.admin, topics, args.rate, args.seconds)
        started.append(one)
        last, refused, took = told(posts, "the publisher")
        server.be_patient()
        for pipe in pipes:
            pipe.send(last)
        tallies = {dialect: Tally() for dialect in workers.DIALECTS}
        for pipe in pipes:
            for dialect, (counts, problems) in told(pipe, "a worker").items():
                tallies[dialect].counts += counts
                tallies[dialect].problems += problems
        struck = {}
        if between:
            between_pipe.send("end")
            struck = told(between_pipe, "the proxy")
        published = sum(last.values())
        print(f"published {published} messages to {len(topics)} topics in {took:.1f} s, {published / took:.0f}/s, "
              f"{refused} refused at first; server: "
              + ", ".join(f"{name} {count}" for name, count in sorted(server.counted().items())), flush=True)
        return tallies, struck
    finally:
        for one in started:
            one.kill()
            one.join()
        server.stop()


def faults_of(tally):
    return {name: tally.counts[name] for name in tally.counts
            if name in Tally.FAULTS or name in ("unreadable", "forgotten", "no_connection", "never_subscribed")}


def show(tallies):
    """Prints what happened; whether all was well."""
    good = True
    for dialect, tally in tallies.items():
        counts = tally.counts
        breaks = ", ".join(f"{kind} {counts[kind]}" for kind in workers.BREAKS)
        ended = ", ".join(f"{name.removeprefix('ended: ')} {count}" for name, count in sorted(counts.items())
                          if name.startswith("ended: ") or name == "given up by the server")
        found = faults_of(tally)
        row = ", ".join(f"{count} {name}" for name, count in {**dict.fromkeys(Tally.FAULTS, 0), **found}.items())
        print(f"{dialect:9} {counts['delivered']} delivered; {breaks}; ended by the server: {ended}\n{'':9} {row}")
        for problem in tally.problems[:5]:
            print(f"{'':9} {problem}")
        if not counts["delivered"] or not all(counts[kind] for kind in workers.BREAKS):
            print(f"{'':9} nothing happened")
            good = False
        good &= not found
    return good


def check(args):
    """Each fault is found in each dialect, and nothing where there is none."""
    args.subscribers, args.topics, args.workers, args.rate = 24, 4, 1, 200
    args.break_every, args.stall, args.seconds, args.loops = 0.7, 0.5, 3, 2
    good = True
    for fault in (None, *proxy.FAULTS):
        print(f"\n## {fault or 'no fault'}")
        # Where nothing is missing it is waited for only while the machine stands still.
        args.settle = 3 if fault else 20
        tallies, struck = run(args, fault, between=True)
        if fault is None:
            good &= show(tallies)
            continue
        for dialect, tally in tallies.items():
            found = faults_of(tally)
            print(f"{dialect:9} struck {struck.get(dialect, 0)} times; found {found}")
            if not struck.get(dialect) or not any(found.get(name) for name in NAMES[fault]):
                print(f"{'':9} NOT FOUND: no {' or '.join(NAMES[fault])}")
                good = False
    return good


def main():
    top = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    top.add_argument("--subscribers", type=int, default=2_000, help="of each dialect")
    top.add_argument("--topics", type=int, default=50)
    top.add_argument("--rate", type=float, default=500, help="messages a second over all topics")
    top.add_argument("--seconds", type=float, default=60)
    top.add_argument("--loops", type=int, default=4)
    top.add_argument("--workers", type=int, default=4, help="processes of subscribers")
    top.add_argument("--break-every", type=float, default=8, help="seconds, on average, from one break to the next")
    top.add_argument("--stall", type=float, default=12, help="seconds that a stall takes at most")
    top.add_argument("--away", type=float, default=2, help="seconds until one comes back, at most")
    top.add_argument("--settle", type=float, default=20, help="seconds without a message until those that have not everything are given up")
    top.add_argument("--quiet", type=float, default=1, help="seconds in which nothing may come any more")
    top.add_argument("--fantail", default="target/release/fantail")
    top.add_argument("--check", action="store_true")
    args = top.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    began = time.monotonic()
    good = check(args) if args.check else show(run(args)[0])
    print(f"\n{'nothing is wrong' if good else 'WRONG'} after {time.monotonic() - began:.0f} s")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
