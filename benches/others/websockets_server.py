"""Python's websockets: subscribers in a set, as its documentation does a broadcast."""

import asyncio
import sys

from websockets.asyncio.server import broadcast, serve

SUBSCRIBERS = set()


async def handler(socket):
    SUBSCRIBERS.add(socket)
    try:
        async for message in socket:
            broadcast(SUBSCRIBERS, message)
    finally:
        SUBSCRIBERS.remove(socket)


async def main():
    async with serve(handler, "127.0.0.1", int(sys.argv[1]), ping_interval=None, compression=None) as server:
        await server.serve_forever()


asyncio.run(main())
