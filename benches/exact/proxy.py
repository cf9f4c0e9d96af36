"""A proxy that does wrong on purpose, to see that it is found out: stands between subscribers and server, understands where
a message begins and ends in each dialect, and now and then drops one, sends it twice, before its predecessor or with
another payload, or has a subscriber come back one message too early or too late."""

import asyncio
import json
import random
import re

FAULTS = ("drop", "double", "swap", "change", "late", "early")
# One message in so many, and one request.
ONE_IN = 20
ASKED_ONE_IN = 3
POSITION = re.compile(rb"((?:since=|Last-Event-ID: )[0-9a-f]{16}:)(\d+)")
MARK = re.compile(rb"n=\d")


class Proxy:
    def __init__(self, target, fault):
        self.target, self.fault = target, fault
        # By dialect.
        self.struck = {}

    def strikes(self, dialect, one_in=ONE_IN):
        struck = random.randrange(one_in) == 0
        self.struck[dialect] = self.struck.get(dialect, 0) + struck
        return struck

    async def serve(self, reader, writer):
        there = None
        try:
            there = await asyncio.open_connection(*self.target, limit=1 << 20)
            head = await reader.readuntil(b"\r\n\r\n")
            dialect = dialect_of(head)
            there[1].write(self.asked(head, dialect))
            ways = [self.requests(reader, there[1], dialect), self.answers(there[0], writer, dialect)]
            done, rest = await asyncio.wait([asyncio.ensure_future(way) for way in ways],
                                            return_when=asyncio.FIRST_COMPLETED)
            # A half-close goes through, and what comes until the server ends, too.
            if rest and all(task.exception() is None and task.result() == "requests" for task in done):
                await asyncio.wait(rest, timeout=30)
            for task in rest:
                task.cancel()
            for task in done | rest:
                try:
                    await task
                except (asyncio.CancelledError, OSError, asyncio.IncompleteReadError):
                    pass
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            for one in (writer, there and there[1]):
                if one:
                    one.close()

    def asked(self, head, dialect):
        """The request, with another place if that is the fault."""
        by = {"late": 1, "early": -1}.get(self.fault)
        found = by and POSITION.search(head)
        if not found or int(found.group(2)) < 2 or not self.strikes(dialect, ASKED_ONE_IN if dialect == "poll" else 1):
            return head
        return POSITION.sub(lambda place: place.group(1) + str(int(place.group(2)) + by).encode(), head)

    async def requests(self, reader, writer, dialect):
        while True:
            if dialect == "poll":
                try:
                    piece = self.asked(await reader.readuntil(b"\r\n\r\n"), dialect)
                except asyncio.IncompleteReadError:
                    piece = b""
            else:
                piece = await reader.read(1 << 16)
            if not piece:
                writer.write_eof()
                return "requests"
            writer.write(piece)
            await writer.drain()

    async def answers(self, reader, writer, dialect):
        held = b""
        if dialect != "poll":
            writer.write(await reader.readuntil(b"\r\n\r\n"))
        while True:
            unit = await UNITS[dialect](reader)
            if dialect == "poll":
                unit = self.tampered_page(unit)
            elif held:
                unit, held = unit + held, b""
            elif is_message(unit, dialect) and self.fault not in ("late", "early"):
                unit, held = self.tampered(unit, dialect)
            writer.write(unit)
            await writer.drain()

    def tampered(self, unit, dialect):
        """What to send instead of this message now, and what behind the next."""
        if self.fault == "change":
            if MARK.search(unit) and self.strikes(dialect):
                unit = MARK.sub(other_digit, unit, count=1)
            return unit, b""
        if not self.fault or not self.strikes(dialect):
            return unit, b""
        return {"drop": (b"", b""), "double": (unit + unit, b""), "swap": (b"", unit)}[self.fault]

    def tampered_page(self, answer):
        head, _, body = answer.partition(b"\r\n\r\n")
        if not body or not self.fault or self.fault in ("late", "early"):
            return answer
        told = json.loads(body)
        messages = told["messages"]
        at = random.randrange(len(messages))
        if self.fault == "change":
            if MARK.search(body) and self.strikes("poll"):
                body = MARK.sub(other_digit, body, count=1)
            return head + b"\r\n\r\n" + body
        if len(messages) < 2 or at == len(messages) - 1 or not self.strikes("poll", ASKED_ONE_IN):
            return answer
        if self.fault == "swap":
            messages[at], messages[at + 1] = messages[at + 1], messages[at]
        else:
            messages[at:at + 1] = [] if self.fault == "drop" else [messages[at]] * 2
        body = json.dumps(told).encode()
        return re.sub(rb"Content-Length: \d+", b"Content-Length: %d" % len(body), head) + b"\r\n\r\n" + body


def other_digit(mark):
    return b"n=0" if mark.group() != b"n=0" else b"n=1"


def dialect_of(head):
    path = head.split(b" ", 2)[1]
    if path.startswith(b"/sse/"):
        return "sse"
    if path.startswith(b"/poll/"):
        return "poll"
    return "json" if b"fantail.json.v1" in head else "envelope"


def is_message(unit, dialect):
    return b"data: " in unit if dialect == "sse" else b'"type":"message"' in unit[:40]


async def frame(reader):
    head = await reader.readexactly(2)
    more = {126: 2, 127: 8}.get(head[1], 0)
    extended = await reader.readexactly(more)
    length = int.from_bytes(extended, "big") if more else head[1]
    return head + extended + await reader.readexactly(length)


async def chunk(reader):
    size = await reader.readuntil(b"\r\n")
    return size + await reader.readexactly(int(size, 16) + 2)


async def page(reader):
    head = await reader.readuntil(b"\r\n\r\n")
    length = re.search(rb"Content-Length: (\d+)", head)
    return head + (await reader.readexactly(int(length.group(1))) if length else b"")


UNITS = {"json": frame, "envelope": frame, "sse": chunk, "poll": page}


def run(pipe, target, fault):
    """A process: tells its port, and at the end how often the fault struck."""
    async def main():
        proxy = Proxy(target, fault)
        server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0, limit=1 << 20)
        pipe.send(server.sockets[0].getsockname()[1])
        while not pipe.poll():
            await asyncio.sleep(0.05)
        pipe.send(proxy.struck)

    asyncio.run(main())
