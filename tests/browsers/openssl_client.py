"""The server's TLS under OpenSSL's `s_client` and curl: versions, suites, resumption, updates of keys, polls by HTTP.

Starts the binary (FANTAIL_BIN, else target/release or target/debug) with and without `tls.lean`. What OpenSSL says of a
connection is believed; echoes are frames made by hand.
"""

import contextlib
import json
import os
import pathlib
import queue
import subprocess
import tempfile
import threading
import time
import unittest

os.environ.setdefault("FANTAIL_TEST_TLS", "1")

import ws_client  # noqa: E402 (it reads the variable)
from ws_client import CERTIFICATES, WAIT  # noqa: E402

FORMS = {"lean": {"FANTAIL_TLS_LEAN": "true"}, "rustls": {"FANTAIL_TLS_LEAN": "false"}}
UPGRADE = (b"GET /echo HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
           b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n")
SUITES = [
    ["-tls1_3", "-ciphersuites", "TLS_AES_128_GCM_SHA256"],
    ["-tls1_3", "-ciphersuites", "TLS_AES_256_GCM_SHA384"],
    ["-tls1_3", "-ciphersuites", "TLS_CHACHA20_POLY1305_SHA256"],
    ["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"],
    ["-tls1_2", "-cipher", "ECDHE-ECDSA-CHACHA20-POLY1305"],
]


def frame(text, mask=b""):
    """A text frame of up to 64 KiB, masked with zeros where a client has to mask."""
    length = bytes([len(text)]) if len(text) < 126 else bytes([126]) + len(text).to_bytes(2, "big")
    if not mask:
        return b"\x81" + length + text
    return b"\x81" + bytes([length[0] | 0x80]) + length[1:] + mask + text


class Speaker:
    """One `openssl s_client`: what it is given goes out as it is, what comes is kept."""

    def __init__(self, server, *options):
        command = ["openssl", "s_client", "-connect", server.listen, "-servername", "localhost", "-brief",
                   "-CAfile", str(CERTIFICATES / "ca.pem"), "-verify_return_error", *options]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.come, self.told = b"", b""
        self.pieces = queue.Queue()
        self.threads = [threading.Thread(target=self._read, args=pair, daemon=True)
                        for pair in (("come", self.process.stdout), ("told", self.process.stderr))]
        for thread in self.threads:
            thread.start()

    def _read(self, kind, pipe):
        while piece := os.read(pipe.fileno(), 1 << 16):
            self.pieces.put((kind, piece))
        self.pieces.put((kind, b""))

    def until(self, what, condition):
        """Takes what comes until the condition holds."""
        deadline = time.monotonic() + WAIT
        while not condition():
            try:
                kind, piece = self.pieces.get(timeout=max(0, deadline - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"no {what} within {WAIT} s: {self.come[-500:]!r} {self.told!r}") from None
            setattr(self, kind, getattr(self, kind) + piece)

    def say(self, data):
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def upgrade(self):
        self.say(UPGRADE)
        self.until("answer", lambda: b"\r\n\r\n" in self.come)
        head, self.come = self.come.split(b"\r\n\r\n", 1)
        assert head.startswith(b"HTTP/1.1 101 "), head

    def echo(self, text):
        self.say(frame(text, mask=bytes(4)))
        wanted = frame(text)
        self.until(f"echo of {len(text)}", lambda: len(self.come) >= len(wanted))
        assert self.come == wanted, f"{len(text)} came back changed"
        self.come = b""

    def end(self):
        """Ends by the end of its input, and gives what OpenSSL has told."""
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        try:
            self.process.wait(WAIT)
        finally:
            self.process.kill()
            for thread in self.threads:
                thread.join(WAIT)
            self.process.stdout.close()
            self.process.stderr.close()
        while not self.pieces.empty():
            kind, piece = self.pieces.get()
            setattr(self, kind, getattr(self, kind) + piece)
        return self.told.decode()


class OpenSsl(unittest.TestCase):
    @contextlib.contextmanager
    def each_form(self):
        """Both forms' servers, one behind the other."""
        with contextlib.ExitStack() as stack:
            servers = {}
            for form, settings in FORMS.items():
                servers[form] = ws_client.Server(**settings)
                stack.callback(servers[form].kill)
            yield servers.items()

    def test_each_version_and_suite_echoes(self):
        with self.each_form() as servers:
            for form, server in servers:
                for options in SUITES:
                    with self.subTest(form, options=options):
                        speaker = Speaker(server, "-alpn", "h2,http/1.1", *options)
                        try:
                            speaker.upgrade()
                            for length in (0, 5, 16_384, 60_000):
                                speaker.echo(b"x" * length)
                        finally:
                            told = speaker.end()
                        self.assertIn("Verification: OK", told)
                        self.assertIn(options[2], told)

    def test_keys_are_updated_as_often_as_it_likes_and_the_server_answers(self):
        with self.each_form() as servers, tempfile.TemporaryDirectory() as folder:
            for form, server in servers:
                with self.subTest(form):
                    protocol = pathlib.Path(folder, form)
                    speaker = Speaker(server, "-tls1_3", "-msg", "-msgfile", str(protocol))
                    try:
                        speaker.upgrade()
                        for round, command in enumerate([b"k\n", b"K\n"] * 5, 1):
                            # Alone in its line it is a command: update, and with a capital ask the other side to.
                            speaker.say(command)
                            speaker.until("update", lambda: speaker.told.count(b"KEYUPDATE") == round)
                            speaker.echo(b"behind update %d" % round)
                    finally:
                        speaker.end()
                    lines = [line for line in protocol.read_text().splitlines() if line.endswith("KeyUpdate")]
                    # Each that asks for it is answered before more is said (RFC 8446, 4.6.3).
                    self.assertEqual([line[:3] for line in lines], [">>>", ">>>", "<<<"] * 5, lines)

    def test_sessions_are_resumed(self):
        with self.each_form() as servers, tempfile.TemporaryDirectory() as folder:
            for form, server in servers:
                for version in ("-tls1_3", "-tls1_2"):
                    with self.subTest(form, version=version):
                        session = pathlib.Path(folder, form + version)
                        first = Speaker(server, version, "-sess_out", str(session))
                        try:
                            # With what comes first the tickets have come, too.
                            first.upgrade()
                        finally:
                            first.end()
                        protocol = pathlib.Path(folder, f"{form}{version}-said")
                        again = Speaker(server, version, "-sess_in", str(session), "-msg", "-msgfile", str(protocol))
                        try:
                            again.upgrade()
                            again.echo(b"again")
                        finally:
                            again.end()
                        said = protocol.read_text()
                        self.assertIn("ServerHello", said)
                        self.assertNotIn("Certificate", said)

    def test_other_protocols_and_other_authorities_are_no_connection(self):
        with self.each_form() as servers:
            for form, server in servers:
                with self.subTest(form):
                    told = Speaker(server, "-alpn", "h2").end()
                    self.assertIn("no application protocol", told)
                    told = Speaker(server, "-CAfile", str(CERTIFICATES / "other.pem")).end()
                    self.assertIn("verify failed", told)


class Curl(unittest.TestCase):
    def curl(self, *arguments):
        command = ["curl", "-sS", "--max-time", str(WAIT), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=2 * WAIT)

    def test_polls_the_page_and_what_it_does_not_believe(self):
        for form, settings in FORMS.items():
            for version in (["--tls-max", "1.2"], ["--tlsv1.3"]):
                with self.subTest(form, version=version):
                    server = ws_client.Server(**settings)
                    try:
                        url = f"https://{server.listen}"
                        # It offers HTTP/2 and gets what there is.
                        page = self.curl(*version, "--http2", "-o", os.devnull, "-w", "%{http_code} %{http_version}", url)
                        self.assertEqual((page.stdout, page.stderr), ("200 1.1", ""))
                        nothing = self.curl(*version, "-w", "%{http_code}", f"{url}/poll/t?wait=0")
                        self.assertEqual(nothing.stdout, "204")
                        waiting = subprocess.Popen(
                            ["curl", "-sS", "--max-time", str(WAIT), *version, f"{url}/poll/t?wait={WAIT}"],
                            stdout=subprocess.PIPE, text=True)
                        with waiting:
                            while server.publish("t", b"news")["subscribers"] == 0:
                                self.assertIsNone(waiting.poll(), "it waits for what comes")
                            told = json.loads(waiting.communicate(timeout=2 * WAIT)[0])
                        self.assertEqual(told["messages"][0]["data"], "news")
                        wrong = self.curl(*version, "--cacert", str(CERTIFICATES / "other.pem"), url)
                        self.assertEqual(wrong.returncode, 60, wrong.stderr)
                    finally:
                        server.kill()


if __name__ == "__main__":
    unittest.main(verbosity=2)
