"""Event streams under Python's `httpx-sse` and `sseclient-py` (over `requests`), and curl: readers it did not write.

Starts the binary (FANTAIL_BIN, else target/release or target/debug) and reads the same table of payloads as browsers do;
heartbeats, a drain in the middle, refusals, and how soon each event arrives.
"""

import contextlib
import json
import os
import signal
import subprocess
import threading
import time
import unittest

import httpx
import requests
from httpx_sse import connect_sse
from sseclient import SSEClient

import ws_client
from ws_client import ROOT, WAIT

PAYLOADS = json.loads((ROOT / "tests" / "fixtures" / "sse" / "payloads.json").read_text())
STREAM = {"Accept": "text/event-stream"}
# As it comes, and in gzip for who accepts it, which all of them do.
SETTINGS = ({}, {"FANTAIL_DEFLATE_EVENT_STREAMS": "true", "FANTAIL_DEFLATE_MIN_BYTES": "1"})
EACH = [(settings, reader) for settings in SETTINGS for reader in ("with_httpx", "with_requests")]


class Server(ws_client.Server):
    """The same server as a context, which keeps nobody waiting when it drains."""

    def __init__(self, **settings):
        super().__init__(FANTAIL_DRAIN_SECONDS="0", **settings)
        self.url = f"{'https' if ws_client.TLS else 'http'}://{self.listen}"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()

    def drain(self):
        self.process.send_signal(signal.SIGTERM)

    def publish_table(self, topic):
        for payload, _ in PAYLOADS:
            self.publish(topic, payload.encode())
        self.publish(f"{topic}?binary=1", b"\0\xff\n")
        self.publish(topic, b"end")


EXPECTED = [["message", data] for _, data in PAYLOADS] + [["binary", "AP8K"], ["message", "end"]]


@contextlib.contextmanager
def with_httpx(server, topic, timeout=WAIT):
    with httpx.Client(timeout=timeout) as client, connect_sse(client, "GET", f"{server.url}/sse/{topic}") as source:
        yield source.iter_sse()


@contextlib.contextmanager
def with_requests(server, topic):
    with requests.get(f"{server.url}/sse/{topic}", stream=True, headers=STREAM, timeout=WAIT) as answer:
        yield SSEClient(answer).events()


class Readers(unittest.TestCase):
    def test_every_payload_is_the_data_of_its_event(self):
        for settings, name in EACH:
            reader = globals()[name]
            with self.subTest(name, **settings), Server(**settings) as server, reader(server, "t") as events:
                server.publish_table("t")
                got = []
                for event in events:
                    got.append(event)
                    if event.data == "end":
                        break
                if reader is with_httpx:
                    # It takes the place where a stream begins, an id without an event, for one; and it alone.
                    first = got.pop(0)
                    self.assertEqual((first.event, first.data, first.id[-2:]), ("message", "", ":0"))
                self.assertEqual([[event.event, event.data] for event in got], EXPECTED)
                offsets = [int(event.id.split(":")[1]) for event in got]
                self.assertEqual(offsets, list(range(1, len(got) + 1)))
                metrics = requests.get(f"http://{server.admin}/metrics", timeout=WAIT).text
                deflated = sum(float(line.split()[-1]) for line in metrics.splitlines()
                               if line.startswith("fantail_deflate_in_bytes_total"))
                self.assertEqual(deflated > 0, bool(settings))

    def test_a_comment_is_nothing_and_keeps_the_default_of_httpx_from_giving_up(self):
        with Server(FANTAIL_TIMEOUTS_SSE_HEARTBEAT_SECONDS="0.5") as server:
            # Its own default is 5 s; the same in less time.
            with with_httpx(server, "quiet", timeout=3) as events:
                self.assertEqual(next(events).data, "")
                later = threading.Timer(5, server.publish, ("quiet", b"after a silence"))
                later.start()
                begin = time.monotonic()
                event = next(events)
                self.assertEqual((event.event, event.data), ("message", "after a silence"))
                self.assertGreater(time.monotonic() - begin, 4)
                later.join()

    def test_each_event_arrives_when_it_is_published(self):
        for settings, name in EACH:
            reader = globals()[name]
            with self.subTest(name, **settings), Server(**settings) as server, reader(server, "t") as events:
                if reader is with_httpx:
                    next(events)
                for payload in ("a", "b" * 300, "c"):
                    server.publish("t", payload.encode())
                    # Nothing comes behind it that could push it through a buffer; the comments are 15 s apart.
                    begin = time.monotonic()
                    self.assertEqual(next(events).data, payload)
                    self.assertLess(time.monotonic() - begin, 12)

    def test_a_drain_ends_a_stream_behind_a_whole_event(self):
        for settings, name in EACH:
            reader = globals()[name]
            with self.subTest(name, **settings), Server(**settings) as server, reader(server, "t") as events:
                server.publish("t", b"last")
                server.drain()
                got = [event.data for event in events if event.data]
                self.assertEqual(got, ["last"])

    def test_curl_sees_events_as_they_come_and_the_status_of_a_refusal(self):
        for settings in SETTINGS:
            with self.subTest(**settings), Server(FANTAIL_SERVER_CONNECTIONS_MAX="1", **settings) as server:
                self.curl(server)

    def curl(self, server):
        command = ["curl", "-sN", "--compressed", "--max-time", str(WAIT), f"{server.url}/sse/t"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as curl:
            self.assertRegex(curl.stdout.readline(), r"^retry: \d+$")
            self.assertRegex(curl.stdout.readline(), r"^id: [0-9a-f]{16}:0$")
            self.assertEqual(curl.stdout.readline(), "\n")
            server.publish("t", b"one\ntwo")
            lines = [curl.stdout.readline() for _ in range(4)]
            self.assertEqual(lines[1:], ["data: one\n", "data: two\n", "\n"])
            refused = subprocess.run(
                ["curl", "-s", "-o", os.devnull, "-w", "%{http_code}", f"{server.url}/sse/t"],
                capture_output=True, text=True, timeout=WAIT)
            self.assertEqual(refused.stdout, "503")
            server.drain()
            self.assertRegex(curl.stdout.read(), r"^: server is going away\nretry: \d+\n$")
            # The body came to its end.
            self.assertEqual(curl.wait(WAIT), 0)

    def test_a_stream_that_can_not_be_had_now_is_an_empty_one(self):
        with Server(FANTAIL_SERVER_CONNECTIONS_MAX="1") as server, with_requests(server, "t") as events:
            with httpx.Client(timeout=WAIT) as client, connect_sse(client, "GET", f"{server.url}/sse/t") as source:
                self.assertEqual(source.response.status_code, 200)
                self.assertEqual(list(source.iter_sse()), [])
            server.publish("t", b"for who is in")
            self.assertEqual(next(events).data, "for who is in")


if __name__ == "__main__":
    unittest.main(verbosity=2)
