"""An echo server made with Python's `websockets` and `ssl`, for tls.mjs.

Arguments: certificate, key, and optionally `1.2` (no newer version) or `client-certificate` (which nobody here
has). Prints its port and serves until its input ends.
"""

import asyncio
import ssl
import sys

from websockets.asyncio.server import serve


async def echo(connection):
    async for message in connection:
        await connection.send(message)


async def main(certificate, key, how=""):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    if how == "1.2":
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    if how == "client-certificate":
        context.verify_mode = ssl.CERT_REQUIRED
    async with serve(echo, "127.0.0.1", 0, ssl=context, max_size=None) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


asyncio.run(main(*sys.argv[1:]))
