#!/usr/bin/env python3
"""Restarts two servers that share a port, one after the other, under connected clients that come back.

Starts two servers with --share-port, has `fantail-loadtest rolling` connect and publish to both, and meanwhile asks
the first to end (SIGTERM), waits until it has, starts it again, waits until it is ready, and does the same with the
second. The exit code is 0 if nobody was refused, nothing was missed by whoever was connected, and everybody came back.

    cargo build --release --workspace
    benches/rolling.py --connections 10000 --rate 100 --topics 10

Each topic has a generator of its own, with its share of the connections and of the rate: with 10 topics each of
10,000 clients gets a tenth of 100 messages a second. Percentiles are those of the generator that has the worst.
"""

import argparse
import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def free_port():
    """One that no client is given by the kernel while a server is away."""
    with open("/proc/sys/net/ipv4/ip_local_port_range") as file:
        first = int(file.read().split()[0])
    for _ in range(1_000):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", random.randrange(min(10_000, first // 2), first)))
            return probe.getsockname()[1]
    sys.exit("no free port below those of clients")


class Instance:
    """One of the two; it keeps its admin port over restarts."""

    def __init__(self, args, listen, admin):
        self.command = [
            str(args.binaries / "fantail"), "serve", "--share-port", "--listen", f"127.0.0.1:{listen}",
            "--admin", f"127.0.0.1:{admin}", "--loops", str(args.loops),
            "--connections-max", str(2 * args.connections)]
        self.environment = {**os.environ, "FANTAIL_DRAIN_SECONDS": str(args.drain), "FANTAIL_LOG_LEVEL": "warn"}
        self.publish_url = f"http://127.0.0.1:{admin}/publish/{{topic}}"
        self.start()

    def start(self):
        self.process = subprocess.Popen(
            self.command, env=self.environment, stdout=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        if not line.startswith("fantail ready "):
            sys.exit(f"no ready line from {' '.join(self.command)}: {line!r}")

    def restart(self):
        """How long the old one took to end, and the new one to be ready."""
        begun = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(timeout=120)
        if code != 0:
            sys.exit(f"a drained server ended with {code}")
        ended = time.monotonic()
        self.start()
        return ended - begun, time.monotonic() - ended

    def stop(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--connections", type=int, default=10_000)
    parser.add_argument("--rate", type=float, default=100, help="messages a second of all topics, to both servers")
    parser.add_argument("--topics", type=int, default=10)
    parser.add_argument("--drain", type=float, default=10, help="drain.seconds of both")
    parser.add_argument("--backoff", default="1s", help="as of fantail-loadtest rolling")
    parser.add_argument("--loops", type=int, default=2, help="event loops of each server")
    parser.add_argument("--rounds", type=int, default=1, help="how often both are restarted")
    parser.add_argument("--binaries", type=Path, default=ROOT / "target/release")
    args = parser.parse_args()

    listen = free_port()
    instances, generators = [], []
    with tempfile.TemporaryDirectory() as folder:
        try:
            instances = [Instance(args, listen, free_port()) for _ in range(2)]
            # Each restart takes the drain and some seconds; the publishers go on for a little longer.
            duration = 2 * args.rounds * (args.drain + 8) + 4
            for number in range(args.topics):
                generators.append(generator(args, instances, listen, duration, f"{folder}/{number}.json"))
            await_connected(instances, args.connections, generators)
            time.sleep(2)
            for number in range(2 * args.rounds):
                ended, ready = instances[number % 2].restart()
                print(f"server {number % 2 + 1}: ended in {ended:.1f} s, ready again in {ready:.2f} s", flush=True)
                # The last of those that it sent away may still be on their way back.
                time.sleep(2)
            codes = [process.wait() for process in generators]
            show([json.loads(Path(f"{folder}/{number}.json").read_text()) for number in range(args.topics)])
            return max(codes)
        finally:
            for process in generators:
                if process.poll() is None:
                    process.kill()
                    process.wait()
            for instance in instances:
                instance.stop()


def generator(args, instances, listen, duration, result):
    command = [
        str(args.binaries / "fantail-loadtest"), "rolling", "--url", f"ws://127.0.0.1:{listen}/ws/{{topic}}",
        "--connections", str(args.connections // args.topics), "--rate", str(args.rate / args.topics),
        "--duration", f"{duration}s", "--backoff", args.backoff, "--json", result, "--threads", "1"]
    for instance in instances:
        command += ["--publish-url", instance.publish_url]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def show(results):
    def total(name):
        return sum(result[name] for result in results)

    def kinds(name):
        found = {}
        for result in results:
            for kind, count in result[name].items():
                found[kind] = found.get(kind, 0) + count
        return ", ".join(f"{kind} {count}" for kind, count in sorted(found.items())) or "none"

    def worst(name):
        latencies = [result[name] for result in results if result[name]]
        percentiles = ("p50", "p99", "max")
        return ", ".join(
            f"{which} {max((one[which + '_microseconds'] for one in latencies), default=0) / 1e3:.0f} ms"
            for which in percentiles)

    print(f"clients                   {sum(result['connections']['opened'] for result in results)}")
    print(f"messages                  {total('published')} of {total('planned')}")
    print(f"sent away                 {total('left')} ({kinds('endings')}), came back {total('returned')}")
    print(f"refused attempts          {total('refused')} ({kinds('refusals')})")
    print(f"reconnects a second       at most {total('returned_per_second_max')}")
    print(f"away, waits included      {worst('away')}")
    print(f"reconnect latency         {worst('reconnect_latency')}")
    print(f"deliveries                {total('deliveries')}, latency {worst('latency')}")
    print(f"missing while connected   {total('missing')}, duplicate {total('duplicate')}")
    given = max(result["crossing_seconds"] for result in results)
    print(f"given to arrive           {given * 1e3:.0f} ms before an end")
    print(f"published while away      {total('away_missed')}")
    for number, result in enumerate(results):
        if not result["ok"]:
            print(f"generator {number}: {'; '.join(result['problems'])}")


def await_connected(instances, connections, generators):
    """Waits until both servers together have all connections."""
    deadline = time.monotonic() + 180
    while sum(map(connected, instances)) < connections:
        if time.monotonic() > deadline or any(process.poll() is not None for process in generators):
            sys.exit("the clients did not connect")
        time.sleep(0.1)


def connected(instance):
    url = instance.publish_url.split("/publish/")[0].removeprefix("http://")
    host, port = url.split(":")
    with socket.create_connection((host, int(port))) as admin:
        admin.sendall(f"GET /metrics HTTP/1.1\r\nHost: {url}\r\nConnection: close\r\n\r\n".encode())
        text = b"".join(iter(lambda: admin.recv(65536), b"")).decode()
    lines = (line for line in text.splitlines() if line.startswith("fantail_connections{"))
    return sum(int(line.rsplit(" ", 1)[1]) for line in lines if 'loop="admin"' not in line)


if __name__ == "__main__":
    sys.exit(main())
