"""Python's aiohttp: subscribers in a set."""

import sys

from aiohttp import web

SUBSCRIBERS = set()


async def handler(request):
    socket = web.WebSocketResponse(compress=False)
    await socket.prepare(request)
    SUBSCRIBERS.add(socket)
    try:
        async for message in socket:
            for one in SUBSCRIBERS:
                await one.send_str(message.data)
    finally:
        SUBSCRIBERS.discard(socket)
    return socket


app = web.Application()
app.add_routes([web.get("/{tail:.*}", handler)])
web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None, access_log=None)
