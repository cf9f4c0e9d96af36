"""The json protocol under Python's `websockets`, every message of both sides held to docs/protocol.schema.json.

What the schema refuses of a client, the server refuses, and what it allows is obeyed; the page docs/protocol.md and the
schema name the same types, members and codes.
"""

import asyncio
import contextlib
import json
import pathlib
import re
import unittest

from jsonschema import Draft202012Validator
from websockets.asyncio.client import connect

from ws_client import Server

ROOT = pathlib.Path(__file__).resolve().parents[2]
SCHEMA = json.loads((ROOT / "docs/protocol.schema.json").read_text())
WAIT = 60


def validator(side):
    """Checks what one side says."""
    return Draft202012Validator({"$ref": f"#/$defs/{side}", "$defs": SCHEMA["$defs"]})


CLIENT, SERVER = validator("client"), validator("server")

GOOD = [
    {"type": "ping"},
    {"type": "ping", "id": "x" * 64},
    {"type": "ping", "id": -1},
    {"type": "subscribe", "topic": "a"},
    {"type": "subscribe", "id": 1, "topics": ["b", "é/ü"], "history": 3},
    {"type": "subscribe", "id": 2, "topic": "c", "since": "00000000000000ab:7"},
    {"type": "history", "id": 8, "topic": "a", "since": "00000000000000ab:7", "limit": 0, "reverse": False},
    {"type": "history", "id": 9, "topic": "open", "limit": 1000, "reverse": True},
    {"type": "unsubscribe", "id": 3, "topics": ["a", "b"]},
    {"type": "publish", "id": 4, "topic": "open", "data": {"a": [1, None, "é"]}},
    {"type": "publish", "id": 5, "topic": "open", "data": "text"},
    {"type": "publish", "id": 6, "topic": "open", "data_base64": "AP8="},
    {"type": "publish", "id": 7, "topic": "shut", "data": []},
    {"type": "state", "id": 10, "topic": "a", "state": {"typing": True}, "seconds": 5},
    {"type": "state", "id": 11, "topic": "a", "state": None},
]
BAD = [
    {},
    [],
    "ping",
    {"type": "pong"},
    {"type": "ping", "id": 1.5},
    {"type": "ping", "id": None},
    {"type": "ping", "id": "x" * 65},
    {"type": "ping", "topic": "a"},
    {"type": "subscribe"},
    {"type": "subscribe", "topic": ""},
    {"type": "subscribe", "topic": "a*"},
    {"type": "subscribe", "topic": "x" * 201},
    {"type": "subscribe", "topic": "a", "topics": ["b"]},
    {"type": "subscribe", "topics": []},
    {"type": "subscribe", "topics": ["t"] * 257},
    {"type": "subscribe", "topic": "a", "since": "7"},
    {"type": "subscribe", "topic": "a", "since": "00000000000000AB:7"},
    {"type": "subscribe", "topic": "a", "since": "00000000000000ab:7", "history": 1},
    {"type": "subscribe", "topics": ["a"], "since": "00000000000000ab:7"},
    {"type": "subscribe", "topic": "a", "history": -1},
    {"type": "subscribe", "topic": "a", "history": 4294967296},
    {"type": "history", "topic": "a", "limit": 1001},
    {"type": "history", "topic": "a", "reverse": 1},
    {"type": "history", "topic": "a", "reverse": True, "since": "00000000000000ab:7"},
    {"type": "history", "topics": ["a"]},
    {"type": "unsubscribe", "topic": "a", "history": 1},
    {"type": "publish", "topic": "a"},
    {"type": "publish", "topic": "a", "data": 5},
    {"type": "publish", "topic": "a", "data": None},
    {"type": "publish", "topic": "a", "data": "x", "data_base64": "eA=="},
    {"type": "publish", "topic": "a", "data_base64": "eA"},
    {"type": "publish", "topic": "a", "data": "x", "more": 1},
    {"type": "state", "topic": "a"},
    {"type": "state", "topic": "a", "state": 1, "seconds": 0},
    {"type": "state", "topic": "a", "state": None, "seconds": 1},
]


class Speaker:
    """One connection, whose every word is held to the schema."""

    def __init__(self, socket):
        self.socket = socket

    async def say(self, command):
        await self.socket.send(json.dumps(command))

    async def hear(self):
        text = await asyncio.wait_for(self.socket.recv(), WAIT)
        told = json.loads(text)
        SERVER.validate(told)
        return told


class JsonTests(unittest.IsolatedAsyncioTestCase):
    """One server for all."""

    @classmethod
    def setUpClass(cls):
        cls.server = Server(FANTAIL_PUBLISH_TOPICS="open*")

    @classmethod
    def tearDownClass(cls):
        cls.server.kill()

    @contextlib.asynccontextmanager
    async def speaker(self, path="/ws"):
        async with connect(f"{self.server.url}{path}", subprotocols=["fantail.json.v1"], proxy=None) as socket:
            self.assertEqual(socket.subprotocol, "fantail.json.v1")
            yield Speaker(socket)

    async def test_what_the_schema_allows_is_obeyed(self):
        async with self.speaker() as one:
            for command in GOOD:
                CLIENT.validate(command)
                await one.say(command)
                answers = [await one.hear() for _ in command.get("topics", [None])]
                for answer in answers:
                    self.assertNotEqual(answer.get("code"), "bad_command", command)
                    self.assertEqual(answer.get("id"), command.get("id"), command)

    async def test_what_the_schema_refuses_is_refused(self):
        async with self.speaker() as one:
            for command in BAD:
                self.assertFalse(CLIENT.is_valid(command), command)
                await one.say(command)
                answer = await one.hear()
                self.assertEqual(answer.get("code"), "bad_command", command)

    async def test_messages_are_as_the_schema_says(self):
        async with self.speaker("/ws/open?topic=open/é") as one:
            self.assertEqual([(await one.hear())["topic"] for _ in range(2)], ["open", "open/é"])
            for data in ({"data": {"a": "é\u2028"}}, {"data": []}, {"data": "\0\x7f\\\""}, {"data_base64": "AP8="}):
                await one.say({"type": "publish", "topic": "open/é", **data})
                message = await one.hear()
                self.assertEqual(message["type"], "message")
                self.assertEqual({**message, **data}, message)

    async def test_what_was_missed_is_told(self):
        async with self.speaker("/ws/open-gap") as one:
            at = await one.hear()
            position = f"{at['epoch']}:{at['offset']}"
            await one.say({"type": "publish", "id": 1, "topic": "open-gap", "data": "x"})
            self.assertEqual((await one.hear())["type"], "published")
            self.assertEqual((await one.hear())["type"], "message")
            await one.say({"type": "unsubscribe", "id": 2, "topic": "open-gap"})
            self.assertEqual((await one.hear())["type"], "unsubscribed")
            await one.say({"type": "subscribe", "id": 3, "topic": "open-gap", "since": position})
            self.assertEqual((await one.hear())["gap"], {"kind": "expired", "oldest": 2})

    def test_page_and_schema_name_the_same(self):
        page = (ROOT / "docs/protocol.md").read_text()
        rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*)", page, re.MULTILINE)
        listed = {*re.findall(r"\w+", " ".join(rows)), *re.findall(r"`(kind|oldest)`", page)}
        named = set()
        for side in ("client", "server"):
            for form in SCHEMA["$defs"][side]["oneOf"]:
                kind = form["properties"]["type"]
                named.update([kind["const"]] if "const" in kind else kind["enum"])
                named.update(set(form["properties"]) - {"type"})
                named.update(form["properties"].get("code", {}).get("enum", []))
        named.update(SCHEMA["$defs"]["gap"]["properties"])
        named.update(SCHEMA["$defs"]["gap"]["properties"]["kind"]["enum"])
        self.assertEqual(named, listed, "schema and page")


if __name__ == "__main__":
    unittest.main(verbosity=2)
