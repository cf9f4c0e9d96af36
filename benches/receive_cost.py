#!/usr/bin/env python3
"""What a received message costs the load generator in instructions, which a busy machine does not blur.

    cargo build --release --workspace --bins --examples
    benches/receive_cost.py                    # 16, 128 and 1,024 bytes, 400 subscribers
    benches/receive_cost.py --top 30           # and where they are spent, by function
    benches/receive_cost.py --loadtest OLD/fantail-loadtest --sizes 128

HOW IT COUNTS
    The generator runs under callgrind and is fed by the floor, which makes one send for each message and socket, so that
    nearly every message is a read of its own. Only two functions are counted with all that they call, in user space: the
    turns of the thread that receives, and the waiting of the main thread meanwhile, which takes samples, writes the
    progress line and looks after the server. Two runs differ in messages and in seconds alone, and what they differ by in
    instructions says what a message costs in the one thread, and what a second does in the other. The bare receive loop
    (examples/receive_floor) is counted in the same way, as a whole.

    Instructions are no time: of a message's 3 to 4 us nearly all is the kernel's. `benches/pairs.py receive` has that.

Needs valgrind. Python 3.9, standard library only, Linux only.
"""

import argparse
import collections
import os
import re
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True
import pairs  # noqa: E402

# Messages a second for each subscriber, and the seconds of two runs.
RATE, SECONDS = 20, (2, 6)
RECEIVING, WAITING = "*Worker::turns", "*Run::wait"
FUNCTION = re.compile(r"^\s*([\d,]+)\s+(?:\([^)]*\)\s+)?\S*?:(\S.*?)(?: \[.*)?$")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=pairs.numbers, default=[16, 128, 1024])
    parser.add_argument("--connections", type=int, default=400, help="(default 400)")
    parser.add_argument("--top", type=int, default=0, help="functions to show")
    parser.add_argument("--floor", default="target/release/examples/floor")
    parser.add_argument("--receive-floor", default="target/release/examples/receive_floor")
    parser.add_argument("--loadtest", default="target/release/fantail-loadtest")
    args = parser.parse_args()
    rows = []
    for size in args.sizes:
        runs = [generator(args, size, seconds) for seconds in SECONDS]
        seconds = SECONDS[1] - SECONDS[0]
        messages = seconds * RATE * args.connections
        received, waited = [difference(*(run[part] for run in runs)) for part in (0, 1)]
        bare = difference(*(bare_loop(args, size, seconds) for seconds in SECONDS))
        rows.append([f"{size:,}", f"{received.total() / messages:,.0f}", f"{bare.total() / messages:,.0f}",
                     f"{waited.total() / seconds / 1e3:,.0f}"])
        for title, costs, divisor in [("a message", received, messages), ("a second", waited, seconds)]:
            if args.top:
                print(f"{size:,} bytes, {title}")
            for name, cost in costs.most_common(args.top):
                print(f"{cost / divisor:12.1f}  {name[:140]}")
    pairs.print_markdown(["size", "a message", "a message, bare loop", "a second, thousands"], rows)


def difference(less, more):
    more.subtract(less)
    return more


def generator(args, size, seconds):
    """Instructions by function of the receiving thread, and of the main thread while it waits."""
    tool = ["--separate-threads=yes", f"--toggle-collect={RECEIVING}", f"--toggle-collect={WAITING}"]
    with pairs.Server(pairs.FLOOR.format(floor=args.floor, loops=1), {}) as server, Counted(*tool) as counted:
        topic = pairs.random_topic()
        # A short message is no text.
        binary = "?binary=1" if size < pairs.TEXT_BYTES_MIN else ""
        flags = {
            "url": f"ws://{server.listen}/ws/{topic}", "pid": server.pid, "publish": "http",
            "publish-url": f"http://{server.admin}/publish/{topic}{binary}", "connections": args.connections,
            "threads": 1, "rate": RATE, "size": size, "duration": f"{seconds}s",
        }
        line = [args.loadtest, "fanout"] + [part for name in flags for part in (f"--{name}", str(flags[name]))]
        run = subprocess.run(counted.tool + line, capture_output=True, text=True)
        wanted = args.connections * RATE * seconds
        found = re.search(r"^deliveries +(\d+) of (\d+)", run.stdout, re.M)
        if not found or (int(found[1]), int(found[2])) != (wanted, wanted):
            raise SystemExit(f"{wanted} deliveries expected:\n{run.stdout}{run.stderr}")
        first, *others = counted.by_thread()
    received = sum(others, collections.Counter())
    if not first or not received:
        raise SystemExit(f"nothing was counted: {RECEIVING} or {WAITING} is not in this build, or was inlined")
    return received, first


def bare_loop(args, size, seconds):
    """Instructions by function of the bare receive loop."""
    frame = size + (2 if size < 126 else 4 if size < 65_536 else 10)
    with pairs.Server(pairs.FLOOR.format(floor=args.floor, loops=1), {}) as server, Counted() as counted:
        topic, count = pairs.random_topic(), RATE * seconds
        messages = count * args.connections
        line = [args.receive_floor, "--connect", server.listen, "--path", f"/ws/{topic}", "--connections",
                str(args.connections), "--bytes", str(messages * frame)]
        with subprocess.Popen(counted.tool + line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                              stderr=subprocess.DEVNULL) as process:
            pairs.expect_line(process, "receive ready")
            start = time.monotonic()
            for index in range(count):
                time.sleep(max(0, start + index / RATE - time.monotonic()))
                server.publish(topic, b"m" * size)
            done = pairs.expect_line(process, "receive done")
            process.stdin.close()
            process.wait(20)
        reads = int(re.search(r"reads=(\d+)", done).group(1))
        if reads < 0.9 * messages:
            print(f"{size} bytes: only {reads:,} reads of {messages:,} messages", file=sys.stderr)
        return sum(counted.by_thread(), collections.Counter())


class Counted:
    """Files of counts for one process under callgrind. Use it as a context."""

    def __init__(self, *tool):
        self.folder = tempfile.TemporaryDirectory()
        self.path = os.path.join(self.folder.name, "out")
        self.tool = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={self.path}", *tool]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.folder.cleanup()

    def by_thread(self):
        """Instructions by function, of each thread, or of all where they were not counted apart."""
        threads = sorted(name for name in os.listdir(self.folder.name) if name != "out") or ["out"]
        return [functions(os.path.join(self.folder.name, name)) for name in threads]


def functions(path):
    table = subprocess.run(["callgrind_annotate", "--threshold=100", path], capture_output=True, text=True)
    counts = collections.Counter()
    # Behind the functions come their lines, where there is a source to be found.
    for line in table.stdout.partition("-- Auto-annotated source")[0].splitlines():
        found = FUNCTION.match(line)
        if found and "PROGRAM TOTALS" not in line:
            counts[found[2]] += int(found[1].replace(",", ""))
    return counts


if __name__ == "__main__":
    main()
