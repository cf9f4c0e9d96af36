#!/usr/bin/env python3
"""A crowd whose application has to be asked about each: how long until all are in, and what who is in notices.

    cargo build --release --bins
    benches/backend.py                                  # 20,000 handshakes, answers after 100 ms, 64 at a time
    benches/backend.py --handshakes 2000 --delay 0.05

HOW IT MEASURES
    An application of its own (a process) answers each question after --delay seconds. Two processes open --handshakes
    connections as fast as they can, each with a cookie of its own, and waits for all their answers. Meanwhile one that was let in
    before, a process, too, sends echoes at a fixed rate; its latency counts from the planned send time.

    It is good when the crowd was in within 1.15 times what the cap allows (handshakes / calls x delay), everybody was, no more calls
    were under way than the cap says, and the p99 of the echoes is at most 50 ms. All of it shares the machine, so that on few
    cores part of the latency is the wait for a core.

Python 3.9, standard library only, Linux only.
"""

import argparse
import asyncio
import json
import resource
import sys
import time

sys.dont_write_bytecode = True
import hostile  # noqa: E402
import pairs  # noqa: E402

SERVE = "{fantail} serve --listen 127.0.0.1:0 --admin 127.0.0.1:0 --loops {loops}"
TIMES_MAX = 1.15
P99_MS_MAX = 50
CONNECTING = 500


class Application(asyncio.Protocol):
    """Answers every question with yes, after a while. Counts who waits."""

    delay, calls, under_way, most = 0.1, 0, 0, 0
    answer = json.dumps({"allow": True, "sub": "somebody", "subscribe": ["**"]}).encode()

    def connection_made(self, transport):
        self.transport, self.held = transport, b""

    def data_received(self, data):
        self.held += data
        head, end, rest = self.held.partition(b"\r\n\r\n")
        if not end:
            return
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        if len(rest) < length:
            return
        self.held = rest[length:]
        Application.calls += 1
        Application.under_way += 1
        Application.most = max(Application.most, Application.under_way)
        asyncio.get_running_loop().call_later(self.delay, self.say)

    def say(self):
        Application.under_way -= 1
        self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(self.answer), self.answer))


def application(delay, pipe):
    async def serve():
        Application.delay = delay
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Application, "127.0.0.1", 0, backlog=1024)
        pipe.send(server.sockets[0].getsockname()[1])
        await loop.run_in_executor(None, pipe.recv)
        pipe.send((Application.calls, Application.most))

    asyncio.run(serve())


def crowd(target, numbers, pipe):
    """Opens one for each number, and tells of each when it was let in, in seconds from the first; None for who was not."""
    async def one(number, started, connecting):
        source = f"127.{32 + number // 62_500 % 200}.{number // 250 % 250}.{number % 250 + 1}"
        async with connecting:
            reader, writer = await asyncio.open_connection(*target, local_addr=(source, 0), limit=4096)
        hello = pairs.HELLO.format(path="/echo").replace("\r\n\r\n", f"\r\nCookie: session={number}\r\n\r\n")
        writer.write(hello.encode())
        answer = await reader.readuntil(b"\r\n\r\n")
        return (time.monotonic() - started if b" 101 " in answer else None), writer

    async def all_of_them():
        connecting, started = asyncio.Semaphore(CONNECTING), time.monotonic()
        done = await asyncio.gather(*(one(number, started, connecting) for number in numbers), return_exceptions=True)
        pipe.send([None if isinstance(each, BaseException) else each[0] for each in done])
        pipe.recv()

    asyncio.run(all_of_them())


def measure(args):
    answering, says = hostile.start(application, args.delay)
    env = {
        "FANTAIL_AUTH_BACKEND_URL": f"http://127.0.0.1:{says.recv()}/",
        "FANTAIL_AUTH_BACKEND_CALLS_MAX": str(args.calls),
        "FANTAIL_AUTH_BACKEND_WAIT_SECONDS": "600",
    }
    with pairs.Server(SERVE.format(fantail=args.fantail, loops=args.loops), env) as server:
        host, port = server.listen.rsplit(":", 1)
        target = (host, int(port))
        watcher, echoes = hostile.start(hostile.bystander, target, args.rate, 2)
        allowed = args.handshakes / args.calls * args.delay
        echoes.send(3)
        quiet = echoes.recv()
        before, cpu = server.user_bytes(), server.cpu_ns()
        crowds = [hostile.start(crowd, target, range(index, args.handshakes, 2)) for index in range(2)]
        echoes.send(allowed * 0.9)
        busy = echoes.recv()
        let_in = [each for _, comes in crowds for each in comes.recv()]
        cpu, after = server.cpu_ns() - cpu, server.user_bytes()
        for _, comes in crowds:
            comes.send(None)
        says.send(None)
        calls, most = says.recv()
        for process in (answering, watcher, *(process for process, _ in crowds)):
            process.join(20)
    known = [each for each in let_in if each is not None]
    return {
        "handshakes": args.handshakes, "let_in": len(known), "calls": calls - 1, "calls_under_way": most,
        "allowed_seconds": allowed, "seconds": max(known, default=0), "times": max(known, default=0) / allowed,
        "quiet_p99_ms": hostile.percentile(quiet, 0.99), "p99_ms": hostile.percentile(busy, 0.99), "max_ms": max(busy),
        "server_cpu_seconds": cpu / 1e9, "before_bytes": before, "after_bytes": after,
    }


def main():
    top = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    top.add_argument("--handshakes", type=int, default=20_000)
    top.add_argument("--delay", type=float, default=0.1, help="seconds that the application takes")
    top.add_argument("--calls", type=int, default=64, help="auth.backend_calls_max")
    top.add_argument("--rate", type=float, default=200, help="the bystander's echoes a second")
    top.add_argument("--loops", type=int, default=2, help="each has descriptors of its own")
    top.add_argument("--fantail", default="target/release/fantail")
    top.add_argument("--json", help="write the figures to this file")
    args = top.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    result = measure(args)
    good = (
        result["let_in"] == result["calls"] == args.handshakes
        and result["times"] <= TIMES_MAX
        and result["calls_under_way"] <= args.calls
        and result["p99_ms"] <= P99_MS_MAX
    )
    pairs.print_markdown(
        ["handshakes", "let in", "calls", "at a time", "seconds", "of what the cap allows", "quiet p99 ms", "p99 ms", "max ms", "cpu s",
         "MB before", "MB after", "good"],
        [[f"{result['handshakes']:,}", f"{result['let_in']:,}", f"{result['calls']:,}", str(result["calls_under_way"]),
          f"{result['seconds']:.1f}", f"{result['times']:.2f}", f"{result['quiet_p99_ms']:.2f}", f"{result['p99_ms']:.2f}",
          f"{result['max_ms']:.1f}", f"{result['server_cpu_seconds']:.1f}", f"{result['before_bytes'] / 1e6:.1f}",
          f"{result['after_bytes'] / 1e6:.1f}", "yes" if good else "NO"]])
    if args.json:
        with open(args.json, "w") as file:
            json.dump(result, file, indent=1)
    if not good:
        sys.exit(1)


if __name__ == "__main__":
    main()
