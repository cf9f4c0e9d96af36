#!/usr/bin/env python3
"""Writes the seeds that are made from the project's own tables and examples.

    fuzz/seeds.py

Frames come from tests/conformance/frames.txt, the rest from the lists below. Existing files of other names
(what fuzzing added) stay.
"""

import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parent
HEADS = {
    "get": b"\x05GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "upgrade": b"\x21GET /ws/a%20b?topic=c&echo=0 HTTP/1.1\r\nHost: a:1\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: x, y\r\n"
    b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\nOrigin: http://a\r\n\r\n\x81\x80\x00\x00\x00\x00",
    "absolute": b"\x10GET http://a/ws HTTP/1.1\r\nHost: a\r\n\r\n",
    "length": b"\x08POST /publish/a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
    "chunked": b"\x03POST /publish/a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n0\r\nT: v\r\n\r\nGET",
    "both": b"\x02POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
    "old": b"\x00GET / HTTP/1.0\r\n\r\n",
    "folded": b"\x00GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n",
    "bare-lf": b"\x00GET / HTTP/1.1\nHost: a\n\n",
}
CONFIGS = {
    "topics": '[[topic]]\npattern = "prices/*"\npolicy = "latest"\npublish = "nobody"\n[[topic]]\npattern = "a"\nmessages_max = 3\n',
    "server": '[server]\nlisten = "127.0.0.1:8080"\nloops = 2\nconnections_max = 0x100\n',
    "limits": '[limits]\nmessage_bytes_max = "1 MiB"\nfragments_max = 1_000\n[timeouts]\nheartbeat_seconds = 0.5\n',
    "origin": '[origin]\nallowed = ["https://*.example.com", "localhost:*"]\nrequired = true\n[publish]\ntopics = ["lobby", "a/*"]\n',
    "misspelt": '[sever]\nlisten = 5\n[outbox]\nmesages_max = 1979-05-27\n',
    "broken": '[server\nlisten = "\n= 5\n[[x]]\n',
    "environment": '#FANTAIL_SERVER_LOOPS=3\n#FANTAIL_OUTBOX_BYTES_MAX=1 GiB\n#FANTAIL_NO_SUCH=1\n[log]\nlevel = "debug"\n',
}


def frame_bytes(text):
    """The bytes of a row's third column, in the notation that frames.txt describes."""
    out = b""
    for token in re.findall(r'"[^"]*"|\S+', text):
        if token.startswith("@"):
            continue
        if token.startswith('"'):
            out += token[1:-1].encode()
        elif "*" in token:
            unit, count = token.split("*")
            out += bytes.fromhex(unit) * min(int(count), 5_000)
        else:
            out += bytes.fromhex(token)
    return out


COMMANDS = {
    "subscribe": '{"type":"subscribe","id":1,"topic":"a/\u00e9","since":"00000000000000ab:7"}',
    "several": '{"type":"subscribe","topics":["a","b"],"history":10,"id":"x"}',
    "unsubscribe": '{"id":-1,"topic":"a","type":"unsubscribe"}',
    "object": '{"type":"publish","topic":"a","data":{"a":[1,-2.5e3,true,null,"\\u00e9"]},"id":2}',
    "text": '{"type":"publish","topic":"a","data":"say \\"hello\\"\\n"}',
    "plain-text": '{"type":"publish","topic":"a","data":"hello"}',
    "bytes": '{"type":"publish","topic":"a","data_base64":"AP8="}',
    "ping": '{"type":"ping","id":"p"}',
    "misspelt": '{"type":"subscibe","topik":"a","id":3}',
    "twice": '{"type":"ping","type":"ping","id":1,"id":2}',
    "forging": '{"a":1},"type":"error"',
    "deep": '{"type":"publish","topic":"a","data":' + "[" * 70 + "]" * 70 + "}",
    "list": ' [1, {"b": "\\ud83d\\ude00"}] ',
    "surrogate": '{"type":"publish","topic":"a","data":"\\ud800"}',
    "number": "[1e999, -0, 18446744073709551616]",
}
V2 = b"\r\n\r\n\0\r\nQUIT\n"
PROXIES = {
    "v1-tcp4": b"PROXY TCP4 192.0.2.1 127.0.0.1 4711 80\r\n",
    "v1-tcp6": b"PROXY TCP6 2001:db8::1 ::1 4711 80\r\nGET / HTTP/1.1\r\n",
    "v1-unknown": b"PROXY UNKNOWN ffff:f...f:ffff 65535\r\n",
    "v2-local": V2 + bytes([0x20, 0, 0, 0]),
    "v2-tcp4": V2 + bytes([0x21, 0x11, 0, 12, 192, 0, 2, 1, 127, 0, 0, 1, 1, 2, 3, 4]),
    "v2-tcp6-tlv": V2 + bytes([0x21, 0x21, 0, 40]) + bytes(36) + bytes([4, 0, 1, 0]),
    "v2-unix": V2 + bytes([0x21, 0x31, 0, 216]) + b"/" * 216,
    "forwarded": b"1.1.1.1, 203.0.113.7:80, [2001:db8::1]:1\n10.0.0.2, ::1",
    "network": b"10.0.0.0/8",
    "network-6": b"2001:db8::/32",
}
# The shape (2 bits for the server, 3 for the client, 32 delayed, 128 once more), then steps of two bytes each.
FINISHED = bytes([20, 0, 0, 1, 0])
SCRIPTS = {
    "lean": bytes([1, 0, 0, 0, 0, 3, 5, 4, 9, 0, 0, 7, 1, 3, 50, 0, 0, 7, 0, 0, 0]),
    "in-pieces": bytes([4, 1, 3, 2, 2, 0, 0, 0, 0, 3, 70, 4, 80, 7, 1, 0, 0, 3, 9, 10, 0]),
    "rogue": bytes([8, 0, 0, 0, 0, 8, 0, 4, 1, 7, 18, 0, 0, 3, 7, 7, 26, 9, 2, 1, 0, 0, 0]),
    "tls12": bytes([12, 1, 5, 0, 0, 0, 0, 0, 0, 52, 255, 51, 255, 0, 0, 6, 0, 3, 1, 0, 0]),
    "slow": bytes([1, 0, 0, 0, 0, 5, 1, 52, 255, 52, 255, 52, 90, 3, 1, 0, 0, 5, 0, 0, 0]),
    "certificate": bytes([128 + 2 + 16, 0, 1, 0, 1, 3, 5, 0, 0]),
    "retried": bytes([32 + 20, 1, 4, 0, 0, 0, 0, 3, 5, 0, 0]),
    "joined": bytes([0, 14, 5]) + FINISHED + bytes([0, 0]),
    "twice": bytes([0, 41, 10]) + FINISHED * 2 + bytes([12, 0, 0, 0]),
    "split": bytes([12, 13, 3, 0, 0, 0, 0, 13, 1, 12, 1, 0, 0, 0, 0]),
    "flipped": bytes([24, 11, 60, 4, 0, 0]),
}


def main():
    write("proxy", PROXIES)
    for folder, seeds in (
        ("head", HEADS),
        ("config", {k: v.encode() for k, v in CONFIGS.items()}),
        ("tls", SCRIPTS),
        ("commands", {k: v.encode() for k, v in COMMANDS.items()}),
    ):
        write(folder, seeds)
    frames, messages = {}, {}
    for line in (ROOT.parent / "tests/conformance/frames.txt").read_text().splitlines():
        if line.strip() and not line.startswith("#"):
            name, _, client = (part.strip() for part in line.split("|")[:3])
            deflated = client.removeprefix("deflate ")
            seeds = frames if deflated == client else messages
            seeds[re.sub(r"\W+", "-", name.removeprefix("deflate: "))] = b"\x07" + frame_bytes(deflated)
    write("frames", frames)
    write("messages", messages)


def write(folder, seeds):
    path = ROOT / "seeds" / folder
    path.mkdir(parents=True, exist_ok=True)
    for name, data in seeds.items():
        (path / name).write_bytes(data)
    print(f"{folder}: {len(seeds)} seeds")


if __name__ == "__main__":
    main()
