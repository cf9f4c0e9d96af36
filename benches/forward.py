#!/usr/bin/env python3
"""Messages of clients that go to an application which is restarted meanwhile: how many a second, in which order, and which are lost.

    cargo build --release --bins
    benches/forward.py                                    # 10,000 messages a second for 10 s, the application away for 2 s of them
    benches/forward.py --rate 2000 --seconds 3 --connections 20
    benches/forward.py --fanout --rounds 9                # what forwarding does to the CPU of a fan-out beside it

HOW IT MEASURES
    An application of its own (a process) takes batches and answers 204. In the middle it closes its port and all connections, whatever
    they carry, and opens the same port again after --away seconds. Two processes send numbered messages over --connections
    connections together, as fast as --rate says and no faster; who is not read further because its messages are unanswered sends
    what it owes later. When all is sent, the run waits until nothing is under way any more.

    It is good when the application has got each message at least once, those of each connection in the order in which they were sent
    (of a message that came again, its first time counts), and as many a second as --rate over the time from the first message to the
    last, the time away left out of it.

    --fanout has --subscribers connections on another topic, which --publishes messages a second are published to over the admin port.
    Each round measures the same server three times, in an order that turns: with the fan-out alone, with the forwarding alone (the
    application is never away), and with both. What counts is the CPU of the threads that deliver, `loop-N`: forwarding's own threads
    do its own work. "With forwarding" is the loops' whole time with both, by deliveries and by what a delivery costs alone: reading
    those messages and handing them over is in it, which a fan-out has no part in. With the loops' time of the forwarding alone taken off
    it is what the fan-out takes beside it; since the two share wake-ups, that can be less than 1. The median of the latter has to be
    within 1.05; the spread stands beside it. Every delivery has to arrive, every message to be told.

Python 3.9, standard library only, Linux only.
"""

import argparse
import asyncio
import contextlib
import http.client
import json
import os
import select
import statistics
import sys
import tempfile
import time
import urllib.request

sys.dont_write_bytecode = True
import hostile  # noqa: E402
import pairs  # noqa: E402

SERVE = "{fantail} serve --config {config} --listen 127.0.0.1:0 --admin 127.0.0.1:0 --loops {loops}"
# Subscribers that only read answer no ping.
QUIET = {"FANTAIL_TIMEOUTS_HEARTBEAT_SECONDS": "3600"}
RATE_SHARE_MIN = 0.98
CPU_TIMES_MAX = 1.05
# Of a delivered message, with the two bytes of its frame's head.
DELIVERY_BYTES = 102
TICK = 0.01


class Application(asyncio.Protocol):
    """Takes every batch. What it got is kept in order."""

    got, batches, dark, open_ones = [], 0, False, set()

    def connection_made(self, transport):
        self.transport, self.held = transport, bytearray()
        self.open_ones.add(self)

    def connection_lost(self, _):
        self.open_ones.discard(self)

    def data_received(self, data):
        self.held += data
        while True:
            at = self.held.find(b"\r\n\r\n")
            if at < 0:
                return
            length = int(bytes(self.held[:at]).lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            if len(self.held) < at + 4 + length:
                return
            body = bytes(self.held[at + 4:at + 4 + length])
            del self.held[:at + 4 + length]
            if Application.dark:
                return
            Application.batches += 1
            now = time.monotonic()
            self.got.extend((row["id"], row["data"], now) for row in json.loads(body)["messages"])
            self.transport.write(b"HTTP/1.1 204 Taken\r\n\r\n")


def application(away_after, away, pipe):
    async def serve():
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Application, "127.0.0.1", 0, backlog=1024)
        port = server.sockets[0].getsockname()[1]
        pipe.send(port)
        await loop.run_in_executor(None, pipe.recv)
        await asyncio.sleep(away_after)
        # A batch that was read and not answered is one that comes again.
        Application.dark = True
        server.close()
        for one in list(Application.open_ones):
            one.transport.abort()
        gone = time.monotonic()
        await asyncio.sleep(away)
        server = await loop.create_server(Application, "127.0.0.1", port, backlog=1024)
        Application.dark = False
        back = time.monotonic() - gone
        await loop.run_in_executor(None, pipe.recv)
        pipe.send((Application.got, Application.batches, back))

    asyncio.run(serve())


def senders(target, names, rate, seconds, pipe):
    """Sends numbered messages over a connection for each name; tells how many over each."""
    async def all_of_them():
        writers = []
        for name in names:
            reader, writer = await asyncio.open_connection(*target, limit=4096)
            writer.write(pairs.HELLO.format(path="/ws/app/bench").encode())
            await reader.readuntil(b"\r\n\r\n")
            writers.append((name, writer))
        pipe.send("ready")
        await asyncio.get_running_loop().run_in_executor(None, pipe.recv)
        sent, started, planned = dict.fromkeys(names, 0), time.monotonic(), 0
        while planned < rate * seconds:
            due = min(int((time.monotonic() - started) * rate), int(rate * seconds))
            for number in range(planned, due):
                name, writer = writers[number % len(writers)]
                text = f"{name} {sent[name]}".encode()
                writer.write(pairs.client_frame(1, text))
                sent[name] += 1
            planned = due
            await asyncio.sleep(TICK)
        for _, writer in writers:
            await writer.drain()
        pipe.send(sent)
        await asyncio.get_running_loop().run_in_executor(None, pipe.recv)

    asyncio.run(all_of_them())


def subscribers(target, count, pipe):
    """Reads all that comes on so many connections to a topic; tells how many bytes, whenever asked."""
    watched, seen = select.epoll(), 0
    ones = {}
    for number in range(count):
        one = hostile.upgraded(target, number, "/ws/news")
        one.setblocking(False)
        ones[one.fileno()] = one
        watched.register(one, select.EPOLLIN)
    watched.register(pipe, select.EPOLLIN)
    pipe.send("ready")
    room = bytearray(1 << 16)
    while True:
        for descriptor, _ in watched.poll():
            if descriptor != pipe.fileno():
                seen += ones[descriptor].recv_into(room)
            elif pipe.recv() is None:
                return
            else:
                pipe.send(seen)


def loops_cpu_ns(server):
    """CPU of the threads that deliver."""
    spent, tasks = 0, f"/proc/{server.pid}/task"
    for task in os.listdir(tasks):
        try:
            with open(f"{tasks}/{task}/comm") as comm, open(f"{tasks}/{task}/schedstat") as times:
                if comm.read().startswith("loop-"):
                    spent += int(times.read().split()[0])
        except (FileNotFoundError, ProcessLookupError):
            pass  # It has ended meanwhile.
    return spent


def metric(server, name):
    text = urllib.request.urlopen(f"http://{server.admin}/metrics", timeout=10).read().decode()
    return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith((f"{name} ", f"{name}{{")))


def judge(got, sent):
    """How many are lost, out of order, and doubled."""
    seen, last, wrong, doubled = set(), {}, 0, 0
    for name_of_message, text, _ in got:
        if name_of_message in seen:
            doubled += 1
            continue
        seen.add(name_of_message)
        name, number = text.split()
        wrong += int(number) != last.get(name, -1) + 1
        last[name] = int(number)
    return sum(sent.values()) - len(seen), wrong, doubled


@contextlib.contextmanager
def forwarding(args, url):
    """A server whose topics app/... are the application's at this URL."""
    with tempfile.TemporaryDirectory() as folder:
        secret, config = os.path.join(folder, "secret"), os.path.join(folder, "fantail.toml")
        with open(os.open(secret, os.O_CREAT | os.O_WRONLY, 0o600), "w") as file:
            file.write("a secret of thirty-two characters")
        with open(config, "w") as file:
            file.write(f"[forward]\nsecret_file = {json.dumps(secret)}\n[[topic]]\npattern = \"app/*\"\n"
                       f"publish = \"anyone\"\nforward = \"{url}\"\n")
        with pairs.Server(SERVE.format(fantail=args.fantail, config=config, loops=args.loops), QUIET) as server:
            yield server


def target_of(server):
    host, port = server.listen.rsplit(":", 1)
    return host, int(port)


def crews_of(args, server, seconds):
    """Two processes that send for so long when they are told to."""
    names = [f"c{number}" for number in range(args.connections)]
    crews = [hostile.start(senders, target_of(server), names[index::2], args.rate / 2, seconds) for index in range(2)]
    for _, comes in crews:
        comes.recv()
    return crews


def end_crews(crews):
    for process, comes in crews:
        comes.send(None)
        process.join(20)


def await_told(server, total):
    pairs.wait_until(lambda: metric(server, "fantail_forward_messages_total") >= total, 120, "all messages to be dealt with")


def measure(args):
    answering, says = hostile.start(application, args.seconds / 2, args.away)
    with forwarding(args, f"http://127.0.0.1:{says.recv()}/") as server:
        crews = crews_of(args, server, args.seconds)
        cpu = server.cpu_ns()
        for _, comes in crews:
            comes.send(None)
        says.send(None)
        sent = {}
        for _, comes in crews:
            sent.update(comes.recv())
        total = sum(sent.values())
        await_told(server, total)
        cpu = server.cpu_ns() - cpu
        says.send(None)
        got, batches, back = says.recv()
        end_crews(crews)
        answering.join(20)
    lost, wrong, doubled = judge(got, sent)
    took = got[-1][2] - got[0][2] - back
    return {
        "sent": total, "lost": lost, "out_of_order": wrong, "doubled": doubled, "batches": batches, "away_seconds": back,
        "per_second": total / took, "server_cpu_us_per_message": cpu / total / 1e3,
    }


def one_part(args, server, readers, kind):
    """CPU of the loops for some seconds with fan-out ("fanout"), forwarding ("forward") or both, and how many deliveries there were."""
    crews = crews_of(args, server, args.seconds) if kind != "fanout" else []
    told = metric(server, "fantail_forward_messages_total")
    readers.send("count")
    before, cpu, started = readers.recv(), loops_cpu_ns(server), time.monotonic()
    for _, comes in crews:
        comes.send(None)
    count = int(args.publishes * args.seconds) if kind != "forward" else 0
    payload = b"x" * (DELIVERY_BYTES - 2)
    admin = http.client.HTTPConnection(*server.admin.rsplit(":", 1))
    for number in range(count):
        time.sleep(max(0, started + number / args.publishes - time.monotonic()))
        admin.request("POST", "/publish/news", payload)
        answer = admin.getresponse()
        answer.read()
        if answer.status != 200:
            raise SystemExit(f"publish: {answer.status}")
    admin.close()
    total = sum(sum(comes.recv().values()) for _, comes in crews)
    await_told(server, told + total)

    def arrived():
        readers.send("count")
        return readers.recv() - before
    deliveries = count * args.subscribers
    pairs.wait_until(lambda: arrived() >= deliveries * DELIVERY_BYTES, 30, "all deliveries")
    cpu, took = loops_cpu_ns(server) - cpu, time.monotonic() - started
    end_crews(crews)
    return {"cpu_ns": cpu, "deliveries": deliveries, "forwarded": total, "seconds": took}


def fanout(args):
    args.away = 0
    answering, says = hostile.start(application, 1e9, 0)
    ratios, bare, raw, rates = [], [], [], []
    with forwarding(args, f"http://127.0.0.1:{says.recv()}/") as server:
        reading, readers = hostile.start(subscribers, target_of(server), args.subscribers)
        readers.recv()
        kinds = ["fanout", "forward", "both"]
        for kind in kinds:
            one_part(args, server, readers, kind)
        for number in range(args.rounds):
            parts = {kind: one_part(args, server, readers, kind) for kind in kinds[number % 3:] + kinds[:number % 3]}
            alone = parts["fanout"]["cpu_ns"] / parts["fanout"]["deliveries"]
            both = (parts["both"]["cpu_ns"] - parts["forward"]["cpu_ns"]) / parts["both"]["deliveries"]
            bare.append(alone)
            ratios.append(both / alone)
            raw.append(parts["both"]["cpu_ns"] / parts["both"]["deliveries"] / alone)
            rates.append(parts["both"]["forwarded"] / parts["both"]["seconds"])
        failed = server.metric("fantail_forward_messages_total", "failed") + server.metric("fantail_forward_messages_total", "full")
        readers.send(None)
    for process in (answering, reading):
        process.kill()
    spread = [f"{statistics.median(of):.2f} ({min(of):.2f} .. {max(of):.2f})" for of in (raw, ratios)]
    good = statistics.median(ratios) <= CPU_TIMES_MAX and not failed
    pairs.print_markdown(
        ["rounds", "deliveries/s", "forwarded/s", "loops' ns/delivery alone", "with forwarding / alone", "less forwarding alone", "not taken", "good"],
        [[str(args.rounds), f"{args.publishes * args.subscribers:,.0f}", f"{statistics.median(rates):,.0f}",
          f"{statistics.median(bare):,.0f}", *spread, f"{failed:.0f}", "yes" if good else "NO"]])
    return good, {"ratios": ratios, "alone_ns": bare, "raw_ratios": raw, "forwarded_per_second": rates}


def main():
    top = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    top.add_argument("--rate", type=float, default=10_000, help="messages a second")
    top.add_argument("--seconds", type=float, default=10)
    top.add_argument("--away", type=float, default=2, help="seconds that the application is away")
    top.add_argument("--connections", type=int, default=200)
    top.add_argument("--loops", type=int, default=2)
    top.add_argument("--fantail", default="target/release/fantail")
    top.add_argument("--json", help="write the figures to this file")
    top.add_argument("--fanout", action="store_true", help="measure what it does to a fan-out")
    top.add_argument("--rounds", type=int, default=9)
    top.add_argument("--subscribers", type=int, default=1_000)
    top.add_argument("--publishes", type=float, default=20, help="messages a second that are published to all of them")
    args = top.parse_args()
    if args.fanout:
        good, result = fanout(args)
        return leave(args, result, good)
    result = measure(args)
    fast = result["per_second"] >= args.rate * RATE_SHARE_MIN
    good = fast and result["lost"] == result["out_of_order"] == 0
    pairs.print_markdown(
        ["sent", "lost", "out of order", "doubled", "batches", "away s", "messages/s", "server cpu us each", "good"],
        [[f"{result['sent']:,}", str(result["lost"]), str(result["out_of_order"]), str(result["doubled"]), f"{result['batches']:,}",
          f"{result['away_seconds']:.1f}", f"{result['per_second']:,.0f}", f"{result['server_cpu_us_per_message']:.1f}",
          "yes" if good else "NO"]])
    leave(args, result, good)


def leave(args, result, good):
    if args.json:
        with open(args.json, "w") as file:
            json.dump(result, file, indent=1)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
