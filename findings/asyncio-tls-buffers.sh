#!/usr/bin/env bash
# Python's asyncio (3.11.7): an idle TLS connection of a server has a read buffer of 256 KiB in memory, whatever it reads
# (`SSLProtocol.max_size`: a bytearray, so all of it is zeroed as it is made). Every library on top of it inherits that.
# PyPI uvloop 0.22.1 makes a buffer of the same size and writes to none of it before there is something to read.
#
# Output seen:
#   asyncio, plain: 1597 bytes a connection
#   asyncio, TLS: 284241 bytes a connection
#   asyncio, TLS, max_size 16 KiB: 38481 bytes a connection
#   uvloop, TLS: 47308 bytes a connection
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet --disable-pip-version-check install uvloop==0.22.1
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -noenc -days 2 -subj /CN=127.0.0.1 \
  -out "$folder/certificate.pem" -keyout "$folder/key.pem" 2>/dev/null
cat >"$folder/server.py" <<'PY'
import asyncio
import ssl
import sys

kind, certificate, key = sys.argv[1:]
if kind == "small":
    asyncio.sslproto.SSLProtocol.max_size = 16 * 1024
context = None
if kind != "plain":
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)


class Idle(asyncio.Protocol):
    """Says one byte when it is connected, and nothing more."""

    def connection_made(self, transport):
        transport.write(b"!")


async def main():
    server = await asyncio.get_running_loop().create_server(Idle, "127.0.0.1", 0, ssl=context)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if kind == "uvloop":
    import uvloop
    uvloop.run(main())
else:
    asyncio.run(main())
PY
cat >"$folder/run.py" <<'PY'
import re
import socket
import ssl
import subprocess
import sys

CONNECTIONS = 200
folder = sys.argv[1]
files = [f"{folder}/certificate.pem", f"{folder}/key.pem"]


def used(pid):
    with open(f"/proc/{pid}/status") as file:
        return 1024 * int(re.search(r"RssAnon:\s+(\d+)", file.read()).group(1))


def measured(kind):
    """Bytes of memory that each of many idle connections takes of the server."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    server = subprocess.Popen([sys.executable, f"{folder}/server.py", kind, *files], stdout=subprocess.PIPE, text=True)
    try:
        port = int(server.stdout.readline())
        held = []

        def connect(count):
            for _ in range(count):
                one = socket.create_connection(("127.0.0.1", port))
                one = one if kind == "plain" else context.wrap_socket(one)
                assert one.recv(1) == b"!"
                held.append(one)

        # The first ones pay for what is there once.
        connect(20)
        before = used(server.pid)
        connect(CONNECTIONS)
        return (used(server.pid) - before) // CONNECTIONS
    finally:
        server.kill()
        server.wait()


seen = {}
for kind, name in [("plain", "asyncio, plain"), ("tls", "asyncio, TLS"), ("small", "asyncio, TLS, max_size 16 KiB"),
                   ("uvloop", "uvloop, TLS")]:
    seen[kind] = measured(kind)
    print(f"{name}: {seen[kind]} bytes a connection")
if not (seen["plain"] < 16_000 and seen["tls"] > 256 * 1024 and seen["small"] < 64_000 and seen["uvloop"] < 96_000):
    sys.exit("CHANGED: this is not what was seen before")
PY
"$folder/venv/bin/python" "$folder/run.py" "$folder"
