"""What is published: the payload of a topic's message with a given number, which nobody else could make up.

Shared by the publisher and by who checks what came; the server has no part in it.
"""

import base64
import functools
import json

LARGE = 24 * 1024


def topic_name(index):
    return f"exact/{index}"


@functools.lru_cache(maxsize=None)
def payload(topic, number):
    """The payload, and whether it is binary. One in eight is an object, one bytes, one has lines and is not ASCII; one in
    fifty is large."""
    begin = f"{topic} n={number};"
    if number % 50 == 49:
        return (begin + "x" * LARGE).encode(), False
    kind = number % 8
    if kind == 0:
        return json.dumps({"topic": topic, "mark": begin, "list": [number, None, "\u00fc"]}).encode(), False
    if kind == 1:
        return f'{begin}\nsecond "line" \\ \u00fc \U0001f980\n\nend'.encode(), False
    if kind == 2:
        return b"\x00\xff" + begin.encode() + bytes(range(number % 64)), True
    return (begin + "y" * (number * 7 % 60)).encode(), False


@functools.lru_cache(maxsize=None)
def as_member(topic, number):
    """The member of a JSON object that such a message has to be."""
    body, binary = payload(topic, number)
    if binary:
        return "data_base64", base64.b64encode(body).decode()
    text = body.decode()
    return "data", json.loads(text) if text.startswith("{") else text


def line(topic, number):
    """The message's line in a batch of the admin port."""
    body, binary = payload(topic, number)
    what = {"payload_base64": base64.b64encode(body).decode()} if binary else {"payload": body.decode()}
    return json.dumps({"topic": topic, **what})
