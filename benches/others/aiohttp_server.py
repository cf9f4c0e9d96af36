"""Python's aiohttp: subscribers in a set. Arguments: port, and for TLS the files of certificate and key."""

import ssl
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


def context():
    if len(sys.argv) < 4:
        return None
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(*sys.argv[2:4])
    return made


app = web.Application()
app.add_routes([web.get("/{tail:.*}", handler)])
web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), ssl_context=context(), print=None, access_log=None)
