"""The publisher: a process that posts batches at a fixed rate and knows what each message's number has to be."""

import json
import re
import socket
import time

from messages import line

# Batches a second.
BATCHES = 50


class Admin:
    """One kept-alive connection to the admin port."""

    def __init__(self, address):
        host, port = address.rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)), 60)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def post(self, path, body):
        head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        return self.answer(head + body)

    def get(self, path):
        return self.answer(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())

    def answer(self, request):
        self.socket.sendall(request)
        got = b""
        while b"\r\n\r\n" not in got:
            got += self.some()
        head, _, got = got.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise SystemExit(f"the admin port answered {head[:200]!r}")
        length = re.search(rb"(?i)content-length: *(\d+)", head)
        while length and len(got) < int(length.group(1)):
            got += self.some()
        if length:
            return got
        while not got.endswith(b"0\r\n\r\n"):
            got += self.some()
        body = b""
        while not got.startswith(b"0\r\n"):
            size, _, rest = got.partition(b"\r\n")
            body += rest[:int(size, 16)]
            got = rest[int(size, 16) + 2:]
        return body

    def some(self):
        piece = self.socket.recv(1 << 16)
        if not piece:
            raise SystemExit("the admin port closed a connection")
        return piece


def run(pipe, address, topics, rate, seconds):
    """Tells how many messages of each topic were taken, how many were refused at first, and how long it took."""
    admin = Admin(address)
    last = dict.fromkeys(topics, 0)
    refused, at = 0, 0
    each = max(1, round(rate / BATCHES))
    began = time.monotonic()
    while (now := time.monotonic()) < began + seconds:
        due = began + at / rate
        if due > now:
            time.sleep(due - now)
        wanted = [topics[number % len(topics)] for number in range(at, at + each)]
        at += each
        while wanted:
            wanted, again = [], publish(admin, wanted, last)
            refused += len(again)
            wanted = again
    pipe.send((last, refused, time.monotonic() - began))


def publish(admin, wanted, last):
    """Posts the next message of each of these topics; those that found no room, to be posted again."""
    lines, counts = [], dict(last)
    for topic in wanted:
        counts[topic] += 1
        lines.append(line(topic, counts[topic]))
    told = admin.post("/publish", "\n".join(lines).encode()).decode().splitlines()
    if len(told) != len(wanted):
        raise SystemExit(f"{len(told)} answers to {len(wanted)} lines")
    again = []
    for topic, answer in zip(wanted, map(json.loads, told)):
        if answer.get("error") == "busy":
            again.append(topic)
            continue
        if topic in again:
            raise SystemExit(f"{topic}: taken behind one that was refused")
        last[topic] += 1
        if answer.get("offset") != last[topic]:
            raise SystemExit(f"{topic}: message {last[topic]} was told {answer}")
    return again
