#!/usr/bin/env python3
"""A million connections on this one machine, server and load generator together, and one broadcast to all of them.

    cargo build --release --workspace
    benches/million.py                         # 1,000,000; takes some minutes and about 9 GiB
    benches/million.py --connections 200000    # the same, smaller

HOW IT MEASURES
    First it asks both programs whether the machine holds that many (`fantail preflight`, `fantail-loadtest fanout
    --plan`), and looks at memory and open files itself, because the two are not alone here: if something is missing,
    it says what and how much, and opens nothing (exit code 2).

    Then it starts `fantail serve`, opens the connections with `fantail-loadtest fanout`, subscribed to one topic,
    publishes one message over HTTP, and waits until nothing comes any more. Both programs split their descriptor tables
    (20,000 each is enough), and clients come from 127.0.0.1 and its neighbours, about 12,000 from each.

    User memory is RssAnon + RssShmem + HugetlbPages + VmSwap of a process while all connections are open, divided by
    their number: nothing is subtracted, so the empty process is in it. Kernel memory is what Slab, PageTables and
    KernelStack of /proc/meminfo have more at their highest than before the run, over the whole machine: what others do
    meanwhile is in it, too.

    It watches the memory available and stops both programs when it falls below --reserve-gib. The exit code is 0 if
    every connection was opened, none lost, and the message came to each exactly once.

Heartbeats are off unless --heartbeat is given: a ping each 25 s to 1,000,000 clients is 40,000 a second each way, which
two cores do not do beside anything else. Python 3.9, standard library only, Linux only.
"""

import argparse
import json
import os
import re
import select
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time

READY = re.compile(r"fantail ready listen=(\S+) admin=(\S+) pid=(\d+)")
# Sockets of both ends with their inodes, files and epoll entries, measured on Linux 6.18, and user memory of both ends.
BYTES_A_CONNECTION = 8_600 + 300
FILES_BESIDE = 2_000
GIB = 1 << 30


def meminfo(name):
    with open("/proc/meminfo") as file:
        return 1024 * int(re.search(name + r":\s*(\d+)", file.read()).group(1))


def user_bytes(pid):
    """User-space memory of a process; None once it is gone."""
    try:
        with open(f"/proc/{pid}/status") as file:
            fields = dict(re.findall(r"^(\w+):\s*(\d+) kB", file.read(), re.M))
    except OSError:
        return None
    names = ["RssAnon", "RssShmem", "HugetlbPages", "VmSwap"]
    return 1024 * sum(int(fields.get(name, 0)) for name in names) if "RssAnon" in fields else None


def missing(args):
    """What the machine lacks, in sentences."""
    lacks = []
    need, have = args.connections * BYTES_A_CONNECTION + args.reserve_gib * GIB, meminfo("MemAvailable")
    if have < need:
        lacks.append(f"memory: {have / GIB:.1f} GiB are available, {need / GIB:.1f} GiB are needed "
                     f"(--reserve-gib {args.reserve_gib:g} of them stay free)")
    with open("/proc/sys/fs/file-nr") as file:
        used, _, most = map(int, file.read().split())
    if most - used < 2 * args.connections + FILES_BESIDE:
        lacks.append(f"fs.file-max: {most - used} files are left, {2 * args.connections + FILES_BESIDE} are needed, "
                     f"two a connection: sysctl -w fs.file-max={used + 2 * args.connections + FILES_BESIDE}")
    for command in [
        [args.fantail, "preflight", "--connections", str(args.connections)],
        [args.loadtest, "fanout", "--connections", str(args.connections), "--plan", *args.generator],
    ]:
        answer = subprocess.run(command, capture_output=True, text=True)
        if answer.returncode != 0:
            lacks.append(f"{shlex.join(command)} says:\n{answer.stdout}{answer.stderr}")
    return lacks


def kernel_bytes():
    return sum(map(meminfo, ["Slab", "PageTables", "KernelStack"]))


class Guard(threading.Thread):
    """Samples memory while the run goes on, and stops it before the machine has none left."""

    def __init__(self, args, server, generator):
        super().__init__(daemon=True)
        self.args, self.server, self.generator = args, server, generator
        self.available = meminfo("MemAvailable")
        self.least = self.available
        self.most = {"server": 0, "generator": 0, "kernel": 0}
        self.stopped = False
        self.over = threading.Event()

    def run(self):
        while not self.over.wait(0.2):
            available = meminfo("MemAvailable")
            self.least = min(self.least, available)
            self.most["kernel"] = max(self.most["kernel"], kernel_bytes())
            for name, process in [("server", self.server), ("generator", self.generator)]:
                self.most[name] = max(self.most[name], user_bytes(process.pid) or 0)
            if available < self.args.reserve_gib * GIB:
                self.stopped = True
                self.generator.kill()
                self.server.kill()
                return


def start_server(args):
    environment = {**os.environ, "FANTAIL_TIMEOUTS_HEARTBEAT_SECONDS": f"{args.heartbeat:g}"}
    command = [args.fantail, "serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0",
               "--connections-max", str(args.connections + 1)]
    print(f"$ FANTAIL_TIMEOUTS_HEARTBEAT_SECONDS={args.heartbeat:g} {shlex.join(command)}", file=sys.stderr)
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment)
    if select.select([server.stdout], [], [], 20)[0]:
        found = READY.search(server.stdout.readline())
        if found:
            return server, found.group(1), found.group(2)
    server.kill()
    raise SystemExit("the server does not say that it is ready")


def measure(args):
    before = kernel_bytes()
    server, listen, admin = start_server(args)
    handle, path = tempfile.mkstemp(suffix=".json")
    os.close(handle)
    try:
        # One message: a rate of one a second for one second.
        command = [args.loadtest, "fanout", "--connections", str(args.connections), "--rate", "1", "--duration", "1s",
                   "--size", str(args.size), "--url", f"ws://{listen}/ws/{{topic}}",
                   "--publish-url", f"http://{admin}/publish/{{topic}}", "--pid", str(server.pid), "--json", path]
        command += args.generator
        print(f"$ {shlex.join(command)}", file=sys.stderr)
        generator = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        guard = Guard(args, server, generator)
        guard.start()
        try:
            generator.wait(args.timeout)
        except subprocess.TimeoutExpired:
            raise SystemExit(f"not done after {args.timeout} s")
        finally:
            guard.over.set()
            guard.join()
            if generator.poll() is None:
                generator.kill()
                generator.wait()
        if guard.stopped:
            raise SystemExit(f"stopped: less than {args.reserve_gib:g} GiB of memory were left")
        with open(path) as file:
            text = file.read()
        if not text:
            raise SystemExit(f"the generator ended with {generator.returncode} and no result")
        return json.loads(text), guard, before
    finally:
        os.unlink(path)
        if server.poll() is None:
            # Nobody is left whom a drain would be for.
            server.send_signal(signal.SIGTERM)
            server.send_signal(signal.SIGTERM)
            try:
                server.wait(30)
            except subprocess.TimeoutExpired:
                server.kill()
        server.wait()
        server.stdout.close()


def figures(args, result, guard, before):
    connections, opened = result["connections"], max(result["connections"]["opened"], 1)
    kernel = guard.most["kernel"] - before
    return {
        "connections opened": f"{connections['opened']:,} of {args.connections:,}",
        "failed / lost": f"{connections['failed']:,} / {connections['lost']:,}",
        "opened in": f"{connections['open_seconds']:.1f} s, {connections['opened_per_second']:,.0f}/s",
        "broadcast delivered": f"{result['deliveries']:,} of {result['deliveries_expected']:,}, "
                               f"{result['missing']:,} missing, {result['duplicate']:,} twice",
        "broadcast took": "n/a" if result["fan_out_max_microseconds"] is None
                          else f"{result['fan_out_max_microseconds'] / 1e6:.1f} s from the plan to the last arrival",
        "server, user": f"{guard.most['server'] / opened:.1f} bytes a connection, {guard.most['server'] / 1e6:.1f} MB",
        "generator, user": f"{guard.most['generator'] / opened:.1f} bytes a connection, {guard.most['generator'] / 1e6:.1f} MB",
        "kernel, both ends": f"{kernel / opened:,.0f} bytes a connection, {kernel / GIB:.2f} GiB",
        "least memory available": f"{guard.least / GIB:.1f} GiB",
        "server processor time": f"{result['server_cpu_seconds']:.1f} s for the broadcast",
        "generator threads": f"{result['generator']['threads']}, tables {result['generator']['descriptor_tables']}",
        "generator processor time": f"{result['generator']['cpu_seconds']:.1f} s",
        "generator the bottleneck": "; ".join(result["generator"]["bottleneck"]) or "no",
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, default=1_000_000)
    parser.add_argument("--size", type=int, default=64, help="bytes of the message (default 64)")
    parser.add_argument("--heartbeat", type=float, default=0, help="seconds between a server's pings; 0, the default, for none")
    parser.add_argument("--reserve-gib", type=float, default=3, help="memory that stays available (default 3)")
    parser.add_argument("--timeout", type=float, default=900, help="seconds until it gives up (default 900)")
    parser.add_argument("--generator-bytes-max", type=float, default=150,
                        help="user memory of the generator a connection from which the run fails (default 150)")
    parser.add_argument("--fantail", default="target/release/fantail")
    parser.add_argument("--loadtest", default="target/release/fantail-loadtest")
    parser.add_argument("--out", help="write the result file of the generator and the figures to this JSON file")
    parser.add_argument("generator", nargs="*", help="further flags of the generator, behind --")
    args = parser.parse_args()

    lacks = missing(args)
    if lacks:
        print(f"{args.connections:,} connections do not fit on this machine:\n\n" + "\n\n".join(lacks), file=sys.stderr)
        sys.exit(2)
    result, guard, before = measure(args)
    found = figures(args, result, guard, before)
    width = max(map(len, found))
    for name, value in found.items():
        print(f"{name.ljust(width)}  {value}")
    if args.out:
        with open(args.out, "w") as file:
            json.dump({"figures": found, "result": result}, file, indent=1)
    problems = list(result["problems"])
    each = guard.most["generator"] / max(result["connections"]["opened"], 1)
    if each > args.generator_bytes_max:
        problems.append(f"the generator takes {each:.0f} bytes of user memory a connection")
    if problems:
        sys.exit("problems: " + "; ".join(problems))
    print(f"{'verdict'.ljust(width)}  ok")


if __name__ == "__main__":
    main()
