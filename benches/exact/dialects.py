"""How a subscriber of each dialect asks, and what the bytes that it gets mean. Written from the documentation alone.

A dialect has `request(account)`, the bytes to begin with, and `read(account, bytes)`, which takes what is complete,
returns the rest and bytes to answer with, and raises `Ended` when the server says that it is over.
"""

import base64
import json
import os
import random
import struct

from messages import as_member, payload

WEBSOCKET = ("GET {path} HTTP/1.1\r\nHost: exact.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
             "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n{more}\r\n")
GET = "GET {path} HTTP/1.1\r\nHost: exact.test\r\n{more}\r\n"


class Ended(Exception):
    """The server has ended it, and why."""


class Broken(Exception):
    """What came can't be had by any reading of the documentation."""


def head_of(data, status):
    """The header fields and what is behind them, or None while the head is not complete."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return None
    lines = data[:end].decode("latin-1").split("\r\n")
    got = lines[0].split(" ")[1]
    if got not in status:
        raise Ended(f"status {got}")
    fields = {}
    for line in lines[1:]:
        name, _, value = line.partition(":")
        fields[name.lower()] = value.strip()
    return got, fields, data[end + 4:]


def split_position(text):
    epoch, _, offset = text.partition(":")
    return epoch, int(offset)


def client_frame(opcode, body):
    mask = os.urandom(4)
    length = struct.pack("!B", 0x80 | len(body)) if len(body) < 126 else struct.pack("!BH", 0xFE, len(body))
    masked = bytes(byte ^ mask[at & 3] for at, byte in enumerate(body))
    return bytes([0x80 | opcode]) + length + mask + masked


class WebSocket:
    """What both dialects over WebSocket have in common."""

    more = ""

    def __init__(self):
        self.is_open = False
        self.since = True

    def upgrade(self, path):
        key = base64.b64encode(os.urandom(16)).decode()
        return WEBSOCKET.format(path=path, key=key, more=self.more).encode()

    def opened(self, account):
        """What to say first."""
        return b""

    def read(self, account, data):
        answers = []
        if not self.is_open:
            head = head_of(data, ("101",))
            if head is None:
                return data, b""
            data = head[2]
            self.is_open = True
            answers.append(self.opened(account))
        at, total = 0, len(data)
        while total - at >= 2:
            first, length = data[at], data[at + 1]
            begin = at + 2
            if length == 126:
                if total - at < 4:
                    break
                length, begin = int.from_bytes(data[at + 2:at + 4], "big"), at + 4
            elif length == 127:
                if total - at < 10:
                    break
                length, begin = int.from_bytes(data[at + 2:at + 10], "big"), at + 10
            if total < begin + length:
                break
            body = data[begin:begin + length]
            at = begin + length
            if first in (0x81, 0x82):
                self.message(account, body, first == 0x82)
            elif first == 0x89:
                answers.append(client_frame(0xA, body))
            elif first == 0x88:
                raise Ended(f"close {int.from_bytes(body[:2], 'big') if body else 1005}")
            else:
                raise Broken(f"a frame that begins with {first:#x}")
        return data[at:], b"".join(answers)


class Json(WebSocket):
    """`fantail.json.v1`: subscribed by the URL, or by a command."""

    more = "Sec-WebSocket-Protocol: fantail.json.v1\r\n"

    def request(self, account):
        self.by_command = random.random() < 0.5
        if self.by_command:
            return self.upgrade("/ws")
        since = f"?since={account.position}" if account.epoch else ""
        return self.upgrade(f"/ws/{account.topic}{since}")

    def opened(self, account):
        if not self.by_command:
            return b""
        command = {"type": "subscribe", "id": 1, "topic": account.topic}
        if account.epoch:
            command["since"] = account.position
        return client_frame(1, json.dumps(command).encode())

    def message(self, account, body, is_binary):
        told = json.loads(body)
        kind = told["type"]
        if kind == "message":
            account.took(told["offset"], right_member(account, told))
        elif kind == "subscribed":
            if account.epoch and told.get("recovered") is not True:
                account.tally.problem("gap", f"{account.topic}: not recovered: {body[:200]}")
            account.began(told["epoch"], told["offset"], told.get("gap"))
        elif kind == "gap":
            account.tally.problem("gap", f"{account.topic}: {body[:200]}")
        else:
            raise Broken(f"{body[:200]}")


class Envelope(WebSocket):
    """plain with `?envelope=1`: a line in front of each payload."""

    def request(self, account):
        since = f"&since={account.position}" if account.epoch else ""
        return self.upgrade(f"/ws/{account.topic}?envelope=1{since}")

    def message(self, account, body, is_binary):
        line, _, rest = body.partition(b"\n")
        told = json.loads(line)
        if told["type"] == "message":
            right = (rest, is_binary) == payload(account.topic, told["offset"]) and told["topic"] == account.topic
            account.took(told["offset"], right)
        elif told["type"] == "subscribed":
            if account.epoch and told.get("recovered") is not True:
                account.tally.problem("gap", f"{account.topic}: not recovered: {line[:200]}")
            account.began(*split_position(told["position"]), told.get("gap"))
        else:
            account.tally.problem("gap", f"{account.topic}: {line[:200]}")


class Sse:
    """`/sse/TOPIC`: comes back with `Last-Event-ID`, or with `since`."""

    def __init__(self):
        self.is_open = False
        self.text = b""

    def request(self, account):
        if not account.epoch:
            return GET.format(path=f"/sse/{account.topic}", more="").encode()
        if random.random() < 0.5:
            return GET.format(path=f"/sse/{account.topic}?since={account.position}", more="").encode()
        return GET.format(path=f"/sse/{account.topic}", more=f"Last-Event-ID: {account.position}\r\n").encode()

    def read(self, account, data):
        if not self.is_open:
            head = head_of(data, ("200",))
            if head is None:
                return data, b""
            _, fields, data = head
            if "fantail-position" not in fields:
                # A refusal that a browser comes back from.
                raise Ended("refused")
            self.is_open = True
            account.began(*split_position(fields["fantail-position"]), fields.get("fantail-gap"))
        at = 0
        while (end := data.find(b"\r\n", at)) >= 0:
            size = int(data[at:end], 16)
            if len(data) < end + size + 4:
                break
            self.text += data[end + 2:end + 2 + size]
            at = end + size + 4
            if size == 0:
                raise Ended("end of the stream")
        *events, self.text = self.text.split(b"\n\n")
        for event in events:
            self.event(account, event)
        return data[at:], b""

    def event(self, account, event):
        """HTML, 9.2.6."""
        kind, place, lines = b"", None, []
        for line in event.split(b"\n"):
            name, _, value = line.partition(b":")
            value = value[1:] if value.startswith(b" ") else value
            if name == b"data":
                lines.append(value)
            elif name == b"event":
                kind = value
            elif name == b"id":
                place = split_position(value.decode())
        if kind == b"gap":
            account.tally.problem("gap", f"{account.topic}: {event[:200]}")
        elif lines:
            body = b"\n".join(lines)
            body = base64.b64decode(body) if kind == b"binary" else body
            right = (body, kind == b"binary") == payload(account.topic, place[1]) and place[0] == account.epoch
            account.took(place[1], right)
        elif place:
            account.began(*place)


class Poll:
    """`/poll/TOPIC`: one answer, then the next request on the same connection."""

    def __init__(self):
        self.asked = False

    def request(self, account):
        since = f"&since={account.position}" if account.epoch else ""
        wait = random.choice((0, 1, 2, 5)) if account.epoch else 0
        return GET.format(path=f"/poll/{account.topic}?wait={wait}{since}", more="").encode()

    def read(self, account, data):
        answers = []
        while (head := head_of(data, ("200", "204"))) is not None:
            status, fields, rest = head
            length = int(fields.get("content-length", 0))
            if len(rest) < length:
                break
            data = rest[length:]
            epoch, offset = split_position(fields["fantail-position"])
            if status == "204":
                account.began(epoch, offset)
            else:
                self.take(account, json.loads(rest[:length]), (epoch, offset))
            if fields.get("connection", "").lower() == "close":
                raise Ended("connection: close")
            answers.append(self.request(account))
        return data, b"".join(answers)

    def take(self, account, told, position):
        if "gap" in told:
            account.tally.problem("gap", f"{account.topic}: {told['gap']}")
        for message in told["messages"]:
            if account.epoch is None:
                account.began(told["epoch"], message["offset"] - 1)
            account.took(message["offset"], right_member(account, message))
        if (told["epoch"], told["offset"]) != position:
            account.tally.problem("wrong_place", f"{account.topic}: {position} is not that of the answer")
        # The place to ask from next is what came.
        account.began(*position)


def right_member(account, told):
    name, value = as_member(account.topic, told["offset"])
    return told.get(name) == value and told.get("topic", account.topic) == account.topic


DIALECTS = {"json": Json, "sse": Sse, "poll": Poll, "envelope": Envelope}
