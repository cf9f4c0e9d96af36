"""The server under client libraries it did not write: each has the same conversation.

`clients/` has a small program for each language. It echoes what is small, similar, 65 KB and 150 KB, as text and binary,
closes by itself, subscribes, and is closed by the server. Libraries that compress are held to have been sent something
compressed. FANTAIL_BIN is the server, NODE and PERL name other programs; what a machine has not is an error under CI and
left out elsewhere. With --more come those that `.ci/install-browsers --more` brings.
"""

import hashlib
import json
import os
import pathlib
import queue
import shutil
import subprocess
import sys
import threading
import unittest
import urllib.request

import ws_client

CLIENTS = pathlib.Path(__file__).parent / "clients"
PYTHON = [sys.executable, str(CLIENTS / "python.py")]
NODE = [os.environ.get("NODE", "node"), str(CLIENTS / "node.mjs")]
PERL = [os.environ.get("PERL", "perl"), str(CLIENTS / "mojolicious.pl")]
JAVA = ["java", str(CLIENTS / "Java.java")]
# With the libraries of Debian's packages, and their sources.
OKHTTP = ["java", "-cp", "/usr/share/java/okhttp.jar:/usr/share/java/okio.jar", str(CLIENTS / "OkHttp.java")]
GO = ["go", "run", str(CLIENTS / "gorilla.go")]
os.environ |= {"GO111MODULE": "off", "GOPATH": "/usr/share/gocode", "GOFLAGS": "-buildvcs=false"}
# Its own client, which `--more` of .ci/install-browsers brings.
BUN = [str(CLIENTS.parents[2] / "target/browsers-bun/node_modules/.bin/bun"), str(CLIENTS / "node.mjs")]
WAIT = 60

# The library, its program, and whether it compresses.
MATRIX = [
    ("websockets", PYTHON, True),
    ("aiohttp", PYTHON, True),
    ("tornado", PYTHON, True),
    ("wsproto", PYTHON, True),
    ("websocket-client", PYTHON, False),
    ("picows", PYTHON, False),
    ("ws", NODE, True),
    ("undici", NODE, True),
    ("faye-websocket", NODE, True),
    ("websocket", NODE, False),
    ("mojolicious", PERL, True),
]
MORE = [
    ("java.net.http", JAVA, False),
    ("okhttp", OKHTTP, False),
    ("gorilla", GO, True),
    ("bun", BUN, True),
]

ROWS = [{"id": n, "name": f"row {n}", "open": n % 3 == 0} for n in range(100)]
MESSAGES = [b"small", "größer 🪭".encode(), json.dumps(ROWS[:20]).encode(), json.dumps(ROWS * 15).encode()[:65_000],
            json.dumps(ROWS * 40).encode()[:150_000]]


class Conversation:
    """One client program and the lines it says."""

    def __init__(self, command, library, url):
        self.process = subprocess.Popen(
            [*command, library, url], cwd=CLIENTS.parent, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        self.said = []
        self.lines = queue.Queue()
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        for line in self.process.stdout:
            self.lines.put(line.rstrip("\n"))
        self.lines.put(None)

    def says(self, wanted):
        """The next line that is no warm-up, which must be `wanted`."""
        warm_up = "got 7 " + hashlib.sha1(b"warm-up").hexdigest()
        while True:
            try:
                line = self.lines.get(timeout=WAIT)
            except queue.Empty:
                raise AssertionError(f"no {wanted!r} within {WAIT} s; said {self.said}") from None
            if line == warm_up:
                continue
            if line is None:
                raise AssertionError(f"ended without {wanted!r}; said {self.said}")
            self.said.append(line)
            if line == wanted:
                return
            if line.startswith(("got", "closed", "echoed", "subscribed")):
                raise AssertionError(f"{line!r} instead of {wanted!r}; said {self.said}")

    def end(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(WAIT)
        self.reader.join(WAIT)
        self.process.stdout.close()


class Matrix(unittest.TestCase):
    """One server for all: what one client does must not be felt by the next."""

    @classmethod
    def setUpClass(cls):
        cls.server = ws_client.Server()

    @classmethod
    def tearDownClass(cls):
        cls.server.kill()

    def admin(self, path, method="GET"):
        request = urllib.request.Request(f"http://{self.server.admin}{path}", method=method)
        with urllib.request.urlopen(request, timeout=WAIT) as answer:
            return answer.read().decode()

    def compressed(self):
        lines = self.admin("/metrics").splitlines()
        return sum(int(line.split()[-1]) for line in lines if line.startswith("fantail_deflate_messages_total{"))

    def converse(self, library, command, compresses):
        if shutil.which(command[0]) is None:
            self.assertFalse(os.environ.get("CI"), f"{command[0]} is missing")
            self.skipTest(f"no {command[0]}")
        before = self.compressed()
        client = Conversation(command, library, self.server.url)
        try:
            client.says("echoed 1000")
            client.says("subscribed")
            deadline = ws_client.time.monotonic() + WAIT
            while self.server.publish(library, "warm-up")["subscribers"] != 1:
                self.assertLess(ws_client.time.monotonic(), deadline, "it is not subscribed")
            self.assertEqual(self.compressed() > before, compresses, "whether its echoes were compressed")
            for message in MESSAGES:
                self.server.publish(library, message)
                client.says(f"got {len(message)} {hashlib.sha1(message).hexdigest()}")
            self.admin(f"/connections/close?topic={library}&code=4001", "POST")
            client.says("closed 4001")
            self.assertEqual(client.process.wait(WAIT), 0)
        finally:
            client.end()


_more = "--more" in sys.argv
if _more:
    sys.argv.remove("--more")
for _library, _command, _compresses in MATRIX + MORE * _more:
    def _test(self, row=(_library, _command, _compresses)):
        self.converse(*row)

    setattr(Matrix, f"test_{_library.replace('-', '_').replace('.', '_')}", _test)


if __name__ == "__main__":
    unittest.main(verbosity=2)
