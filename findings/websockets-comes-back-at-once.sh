#!/usr/bin/env bash
# PyPI websockets 17.4 (Python 3.11): `async for socket in connect(...)` comes back without any wait when a connection
# that had opened is closed, whatever the code. After an upgrade that was refused with 503 it waits, longer each time.
#
# Output seen (the number depends on the machine):
#   closed with 1000: 362 connections in 2 s
#   closed with 1001: 447 connections in 2 s
#   closed with 1008: 411 connections in 2 s
#   closed with 1013: 465 connections in 2 s
#   refused with 503: 1 connection in 2 s
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet --disable-pip-version-check install websockets==17.4
cat >"$folder/run.py" <<'PY'
import asyncio
import logging
import random
import sys

from websockets.asyncio.client import connect
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed

SECONDS = 2
random.seed(1)
logging.disable()


async def count(closes_with=None):
    """Connections that a client makes in two seconds when each is closed at once, or each upgrade refused."""
    made = 0

    async def close(socket):
        await socket.close(closes_with, "not now")

    def refuse(connection, request):
        nonlocal made
        made += 1
        if closes_with is None:
            return connection.respond(503, "not now\n")

    async def client(port):
        async for socket in connect(f"ws://127.0.0.1:{port}/"):
            try:
                async for _ in socket:
                    pass
            except ConnectionClosed:
                pass

    async with serve(close, "127.0.0.1", 0, process_request=refuse) as server:
        task = asyncio.create_task(client(server.sockets[0].getsockname()[1]))
        await asyncio.sleep(SECONDS)
        task.cancel()
        return made


same = True
for code in (1000, 1001, 1008, 1013):
    made = asyncio.run(count(code))
    same &= made > 40
    print(f"closed with {code}: {made} connections in {SECONDS} s")
made = asyncio.run(count())
same &= made <= 4
print(f"refused with 503: {made} connection{'s' * (made != 1)} in {SECONDS} s")
if not same:
    sys.exit("CHANGED: this is not what was seen before")
PY
"$folder/venv/bin/python" "$folder/run.py"
