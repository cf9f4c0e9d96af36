"""The server under Autobahn's fuzzing client: its own case files, driven by `kosoku`, since its own runner wants Python 2.

Runs what takes seconds; with `--all` every case, which takes minutes (`.ci/nightly`). What is informational has no right
or wrong; anything else but OK, non-strict included, is a failure.
"""

import asyncio
import collections
import contextlib
import ssl
import sys

import kosoku
from kosoku.cases import CASES

import ws_client

# Limits and speed of 9 take long, and 12 and 13 go on with ever larger messages; of these, the ones that ask for something
# of their own: 65,537 fragments, and small windows.
QUICK = ["1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "10.*", "9.3.1", "9.4.1",
         *(f"12.{n}.{size}" for n in range(1, 6) for size in (1, 4, 7)),
         *(f"13.{n}.{size}" for n in range(1, 8) for size in (1, 4, 7))]
NOT_WRONG = ("OK", "INFORMATIONAL")


def hand_bytes_over():
    """Cases 12 and 13 expect bytes, and the runner hands a text that came uncompressed over as a str of its bytes."""
    for case in (case for number, case in CASES.items() if number.startswith(("12.", "13."))):
        def on_message(self, message, binary, original=case.onMessage):
            return original(self, message.encode("latin-1") if isinstance(message, str) else message, binary)

        case.onMessage = on_message


async def passed_on(reader, writer):
    """Passes on what comes and its end."""
    with contextlib.suppress(OSError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    writer.close()


@contextlib.asynccontextmanager
async def tls_spoken_with(target):
    """Where to connect without TLS so that it is spoken with `target`: the runner knows only ws://."""
    context, (host, port), relayed = ssl.create_default_context(), target.split(":"), set()

    async def on_connection(reader, writer):
        task = asyncio.current_task()
        relayed.add(task)
        task.add_done_callback(relayed.discard)
        far_reader, far_writer = await asyncio.open_connection(host, int(port), ssl=context)
        await asyncio.gather(passed_on(reader, far_writer), passed_on(far_reader, writer))

    relay = await asyncio.start_server(on_connection, "127.0.0.1", 0)
    try:
        yield "127.0.0.1:%d" % relay.sockets[0].getsockname()[1]
    finally:
        relay.close()
        # Those whose runner has what it wants and waits for no end.
        for task in (left := list(relayed)):
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)


@contextlib.asynccontextmanager
async def as_it_is(target):
    yield target


async def results(server, cases):
    async with (tls_spoken_with if ws_client.TLS else as_it_is)(server.listen) as listen:
        try:
            return await kosoku.run_fuzzingclient(f"ws://{listen}/echo", cases=cases, concurrency=2)
        except kosoku.FailureError as failure:
            return failure.results


def main():
    hand_bytes_over()
    server = ws_client.Server()
    try:
        told = asyncio.run(results(server, None if "--all" in sys.argv[1:] else QUICK))
    finally:
        server.kill()
    wrong = [case for case in told if case.behavior.value not in NOT_WRONG or case.behavior_close.value not in NOT_WRONG]
    for case in wrong:
        print(f"{case.case_id}: {case.behavior.value}, close {case.behavior_close.value}: {case.result}")
    print(dict(collections.Counter(case.behavior.value for case in told)))
    print(f"autobahn: {len(told) - len(wrong)} passed, {len(wrong)} failed")
    return bool(wrong) or not told


if __name__ == "__main__":
    sys.exit(main())
