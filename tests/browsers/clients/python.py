"""A conversation with a running server, by a Python library that the first argument names. `matrix.py` runs it.

Echoes are checked here; what comes by subscription is printed as `got LENGTH SHA1`, the end as `closed CODE`.
"""

import asyncio
import hashlib
import os
import socket
import ssl
import sys
from urllib.parse import urlsplit

ROWS = [{"id": n, "name": f"row {n}", "open": n % 3 == 0} for n in range(40)]
# The same again and again: a client that keeps its compressor's window refers to the ones before.
ECHOES = ["", "hello, 世界 🪭", *(f"{n} {ROWS}" for n in range(5)), "x" * 65_000, f"{ROWS}" * 80, b"", os.urandom(150_000)]


class Closed(Exception):
    """The server's end, with its code."""


class Websockets:
    """websockets, asyncio."""

    async def open(self, url):
        from websockets.asyncio.client import connect
        self.socket = await connect(url, proxy=None, max_size=None)

    async def send(self, message):
        await self.socket.send(message)

    async def receive(self):
        from websockets.exceptions import ConnectionClosed
        try:
            return await self.socket.recv()
        except ConnectionClosed as end:
            raise Closed(end.rcvd.code if end.rcvd else 1006) from end

    async def close(self):
        await self.socket.close()
        return self.socket.close_code


class Aiohttp:
    """aiohttp; it compresses only if it is asked to."""

    async def open(self, url):
        import aiohttp
        self.session = aiohttp.ClientSession()
        self.socket = await self.session.ws_connect(url, compress=15, max_msg_size=0)

    async def send(self, message):
        await (self.socket.send_str(message) if isinstance(message, str) else self.socket.send_bytes(message))

    async def receive(self):
        import aiohttp
        message = await self.socket.receive()
        if message.type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
            return message.data
        await self.session.close()
        raise Closed(self.socket.close_code)

    async def close(self):
        await self.socket.close()
        await self.session.close()
        return self.socket.close_code


class Tornado:
    """tornado; it agrees to begin each message anew and goes on."""

    async def open(self, url):
        from tornado.websocket import websocket_connect
        self.socket = await websocket_connect(url, compression_options={}, max_message_size=1 << 24)

    async def send(self, message):
        await self.socket.write_message(message, binary=isinstance(message, bytes))

    async def receive(self):
        if (message := await self.socket.read_message()) is None:
            raise Closed(self.socket.close_code)
        return message

    async def close(self):
        self.socket.close(1000)
        while await self.socket.read_message() is not None:
            pass
        return self.socket.close_code


class WebsocketClient:
    """websocket-client, which blocks and does not compress."""

    async def open(self, url):
        import websocket
        self.socket = await asyncio.to_thread(websocket.create_connection, url, timeout=30)

    async def send(self, message):
        await asyncio.to_thread(self.socket.send if isinstance(message, str) else self.socket.send_binary, message)

    async def receive(self):
        import websocket
        opcode, data = await asyncio.to_thread(self.socket.recv_data)
        if opcode == websocket.ABNF.OPCODE_CLOSE:
            raise Closed(int.from_bytes(data[:2], "big"))
        return data.decode() if opcode == websocket.ABNF.OPCODE_TEXT else data

    async def close(self):
        import websocket
        await asyncio.to_thread(self.socket.send_close, 1000)
        opcode, data = await asyncio.to_thread(self.socket.recv_data)
        assert opcode == websocket.ABNF.OPCODE_CLOSE, opcode
        self.socket.shutdown()
        return int.from_bytes(data[:2], "big")


class Picows:
    """picows, which calls back."""

    async def open(self, url):
        import picows

        queue = self.queue = asyncio.Queue()

        class Listener(picows.WSListener):
            def __init__(self):
                super().__init__()
                self.parts = []

            def on_ws_frame(self, transport, frame):
                if frame.msg_type == picows.WSMsgType.PING:
                    transport.send_pong(frame.get_payload_as_bytes())
                elif frame.msg_type == picows.WSMsgType.CLOSE:
                    queue.put_nowait(int(frame.get_close_code()))
                    transport.send_close(frame.get_close_code())
                    transport.disconnect()
                elif frame.msg_type == picows.WSMsgType.TEXT:
                    queue.put_nowait(frame.get_payload_as_utf8_text())
                elif frame.msg_type == picows.WSMsgType.BINARY:
                    queue.put_nowait(frame.get_payload_as_bytes())

        self.transport, _ = await picows.ws_connect(Listener, url)

    async def send(self, message):
        import picows
        kind = picows.WSMsgType.TEXT if isinstance(message, str) else picows.WSMsgType.BINARY
        self.transport.send(kind, message.encode() if isinstance(message, str) else message)

    async def receive(self):
        if isinstance(message := await self.queue.get(), int):
            raise Closed(message)
        return message

    async def close(self):
        import picows
        self.transport.send_close(picows.WSCloseCode.OK)
        while not isinstance(code := await self.queue.get(), int):
            pass
        return code


class Wsproto:
    """wsproto, over a socket of our own; permessage-deflate as its extension has it."""

    async def open(self, url):
        from wsproto import ConnectionType, WSConnection
        from wsproto.events import AcceptConnection, Request
        from wsproto.extensions import PerMessageDeflate
        parts = urlsplit(url)
        self.socket = socket.create_connection((parts.hostname, parts.port), timeout=30)
        if parts.scheme == "wss":
            self.socket = ssl.create_default_context().wrap_socket(self.socket, server_hostname=parts.hostname)
        self.connection = WSConnection(ConnectionType.CLIENT)
        request = Request(host=parts.netloc, target=parts.path or "/", extensions=[PerMessageDeflate()])
        self.socket.sendall(self.connection.send(request))
        self.events = iter(())
        assert isinstance(await self.event(), AcceptConnection)

    async def event(self):
        while (event := next(self.events, None)) is None:
            data = await asyncio.to_thread(self.socket.recv, 1 << 16)
            self.connection.receive_data(data or None)
            self.events = self.connection.events()
        return event

    async def send(self, message):
        from wsproto.events import Message
        await asyncio.to_thread(self.socket.sendall, self.connection.send(Message(data=message)))

    async def receive(self):
        from wsproto.events import CloseConnection, Message, Ping
        parts = []
        while True:
            event = await self.event()
            if isinstance(event, Ping):
                self.socket.sendall(self.connection.send(event.response()))
            elif isinstance(event, CloseConnection):
                self.socket.sendall(self.connection.send(event.response()))
                self.socket.close()
                raise Closed(event.code)
            elif isinstance(event, Message):
                parts.append(event.data)
                if event.message_finished:
                    return type(event.data)().join(parts)

    async def close(self):
        from wsproto.events import CloseConnection
        self.socket.sendall(self.connection.send(CloseConnection(code=1000)))
        while not isinstance(event := await self.event(), CloseConnection):
            pass
        self.socket.close()
        return int(event.code)


LIBRARIES = {
    "websockets": Websockets, "aiohttp": Aiohttp, "tornado": Tornado,
    "websocket-client": WebsocketClient, "picows": Picows, "wsproto": Wsproto,
}


async def main(library, url):
    client = LIBRARIES[library]()
    await client.open(f"{url}/echo")
    for message in ECHOES:
        await client.send(message)
        answer = await client.receive()
        assert answer == message, f"{len(message)} came back as {len(answer)} {type(answer)}"
    print("echoed", await client.close(), flush=True)
    client = LIBRARIES[library]()
    await client.open(f"{url}/ws/{library}")
    print("subscribed", flush=True)
    try:
        while True:
            message = await client.receive()
            data = message.encode() if isinstance(message, str) else bytes(message)
            print("got", len(data), hashlib.sha1(data).hexdigest(), flush=True)
    except Closed as end:
        print("closed", int(end.args[0]), flush=True)


asyncio.run(main(sys.argv[1], sys.argv[2]))
