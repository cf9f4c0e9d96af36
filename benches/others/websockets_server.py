"""Python's websockets: subscribers in a set, as its documentation does a broadcast. Arguments: port, and for TLS the
files of certificate and key."""

import asyncio
import ssl
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


def context():
    if len(sys.argv) < 4:
        return None
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(*sys.argv[2:4])
    return made


async def main():
    async with serve(handler, "127.0.0.1", int(sys.argv[1]), ssl=context(), ping_interval=None, compression=None) as server:
        await server.serve_forever()


asyncio.run(main())
