"""The server's TLS under tlslite-ng, a TLS of its own in Python: records and messages that no well-behaved client sends.

Starts the binary (FANTAIL_BIN, else target/release or target/debug) with and without `tls.lean`. Each conversation expects an
alert, named with its clause, or that the connection goes on: then an echo comes back.
"""

import contextlib
import os
import socket
import unittest

os.environ.setdefault("FANTAIL_TEST_TLS", "1")

from tlslite.api import HandshakeSettings, TLSConnection  # noqa: E402
from tlslite.constants import AlertDescription, ContentType, KeyUpdateMessageType  # noqa: E402
from tlslite.errors import TLSAbruptCloseError, TLSRemoteAlert  # noqa: E402
from tlslite.messages import Message  # noqa: E402

import ws_client  # noqa: E402 (it reads the variable)
from openssl_client import FORMS, UPGRADE, frame  # noqa: E402
from ws_client import WAIT  # noqa: E402

TLS12, TLS13 = (3, 3), (3, 4)
# Without the wish for an answer (RFC 8446, 4.6.3).
KEY_UPDATE = bytes([24, 0, 0, 1, 0])


class Wire:
    """A socket that sends what `edit` makes of each piece."""

    def __init__(self, inner, edit):
        self.inner, self.edit, self.first = inner, edit, None

    def send(self, data):
        self.first = self.first or bytes(data)
        for piece in self.edit(bytes(data)):
            self.inner.sendall(piece)
        return len(data)

    def sendall(self, data):
        self.send(data)

    def __getattr__(self, name):
        return getattr(self.inner, name)


class Peer:
    """A connection behind its handshake."""

    def __init__(self, server, version=TLS13, edit=lambda data: [data]):
        host, _, port = server.listen.rpartition(":")
        self.socket = socket.create_connection((host, int(port)), WAIT)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.wire = Wire(self.socket, edit)
        self.tls = TLSConnection(self.wire)
        settings = HandshakeSettings()
        settings.minVersion = settings.maxVersion = version
        self.tls.handshakeClientCert(settings=settings, serverName="localhost")
        assert self.tls.version == version

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    @property
    def client_hello(self):
        """The message that it began with."""
        return self.wire.first[5:5 + int.from_bytes(self.wire.first[3:5], "big")]

    def record(self, kind, data):
        """Sends one record, whatever it is."""
        for _ in self.tls._recordLayer.sendRecord(Message(kind, bytearray(data))):
            pass
        self.tls.sock.flush()

    def upgrade(self):
        self.tls.write(UPGRADE)
        head = b""
        while b"\r\n\r\n" not in head:
            head += self.tls.read(min=1, max=1)
        assert head.startswith(b"HTTP/1.1 101 "), head

    def echo(self, text=b"hello"):
        self.tls.write(frame(text, mask=bytes(4)))
        wanted = frame(text)
        come = self.tls.read(min=len(wanted), max=len(wanted))
        assert come == wanted, f"{come!r} came back of {text!r}"

    def end(self):
        """The alert that comes, and what came before it; `None` if the stream just ends."""
        come = b""
        try:
            while piece := self.tls.read(min=1, max=1 << 16):
                come += piece
        except TLSRemoteAlert as alert:
            return alert.description, come
        except TLSAbruptCloseError:
            return None, come
        # Of close_notify there is no more than that it is over.
        return AlertDescription.close_notify, come


def corrupt(data):
    """Another last byte: of the tag."""
    return [data[:-1] + bytes([data[-1] ^ 1])]


def in_small_records(data):
    """What is in one record in records of 20 bytes, if it is a ClientHello."""
    if data[0] != ContentType.handshake or data[5] != 1:
        return [data]
    body = data[5:]
    parts = [body[at:at + 20] for at in range(0, len(body), 20)]
    return [bytes([22, 3, 1, 0, len(part)]) + part for part in parts]


class TlsLite(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.servers = {form: ws_client.Server(**settings) for form, settings in FORMS.items()}

    @classmethod
    def tearDownClass(cls):
        for server in cls.servers.values():
            server.kill()

    def goes_on(self, act, versions=(TLS13, TLS12), **how):
        for form, server in self.servers.items():
            for version in versions:
                with self.subTest(form=form, version=version), Peer(server, version, **how) as peer:
                    peer.upgrade()
                    act(peer)
                    peer.echo()

    def ends_with(self, alert, act, versions=(TLS13,), forms=tuple(FORMS)):
        for form in forms:
            for version in versions:
                with self.subTest(form=form, version=version), Peer(self.servers[form], version) as peer:
                    peer.upgrade()
                    peer.echo()
                    act(peer)
                    self.assertEqual(peer.end(), (alert, b""))

    def test_a_client_hello_in_many_records(self):
        """RFC 8446, 5.1: handshake messages may be fragmented."""
        self.goes_on(lambda peer: peer.echo(), edit=in_small_records)

    def test_records_byte_by_byte(self):
        self.goes_on(lambda peer: peer.echo(bytes(200)), edit=lambda data: [bytes([byte]) for byte in data])

    def test_records_without_data(self):
        """RFC 8446, 5.1: zero-length fragments of application data are allowed."""
        self.goes_on(lambda peer: [peer.record(ContentType.application_data, b"") for _ in range(5)])

    def test_a_message_in_many_records(self):
        def act(peer):
            for byte in frame(b"in pieces", mask=bytes(4)):
                peer.record(ContentType.application_data, [byte])
            self.assertEqual(peer.tls.read(min=11, max=11), frame(b"in pieces"))
        self.goes_on(act)

    def test_padded_records(self):
        """RFC 8446, 5.4: of any length up to a record's."""
        def act(peer):
            peer.tls._recordLayer.padding_cb = lambda length, kind, room: min(room, 1_000)
            peer.echo()
        self.goes_on(act, versions=(TLS13,))

    def test_key_updates_of_the_clients(self):
        """RFC 8446, 4.6.3: with and without the wish for an answer, which comes before what is sent next."""
        def act(peer):
            for kind in (KeyUpdateMessageType.update_not_requested, KeyUpdateMessageType.update_requested) * 3:
                for _ in peer.tls.send_keyupdate_request(kind):
                    pass
                peer.echo()
        self.goes_on(act, versions=(TLS13,))

    def test_a_key_update_that_says_neither(self):
        """RFC 8446, 4.6.3: illegal_parameter."""
        self.ends_with(AlertDescription.illegal_parameter,
                       lambda peer: peer.record(ContentType.handshake, [24, 0, 0, 1, 2]))

    def test_a_key_update_with_something_behind_it(self):
        """RFC 8446, 5.1: a message right before a change of keys ends its record, or it is unexpected_message."""
        self.ends_with(AlertDescription.unexpected_message,
                       lambda peer: peer.record(ContentType.handshake, KEY_UPDATE + KEY_UPDATE))

    def test_a_wrong_tag(self):
        """RFC 8446, 5.2; RFC 5246, 7.2.2: bad_record_mac."""
        def act(peer):
            peer.wire.edit = corrupt
            peer.tls.write(b"data")
        self.ends_with(AlertDescription.bad_record_mac, act, versions=(TLS13, TLS12))

    def test_a_record_twice(self):
        """RFC 8446, 5.3: the number of a record is part of its nonce, so that it opens once."""
        def act(peer):
            peer.wire.edit = lambda data: [data, data]
            peer.record(ContentType.application_data, b"")
        self.ends_with(AlertDescription.bad_record_mac, act, versions=(TLS13, TLS12))

    def test_a_record_that_is_too_long(self):
        """RFC 8446, 5.2: more than 2^14 + 256 is record_overflow."""
        def act(peer):
            peer.socket.sendall(bytes([23, 3, 3, 0x41, 1]) + bytes(0x4101))
        self.ends_with(AlertDescription.record_overflow, act, forms=("lean",))

    def test_more_in_a_record_than_there_may_be(self):
        """RFC 8446, 5.4: more than 2^14 bytes and their type is record_overflow."""
        self.ends_with(AlertDescription.record_overflow,
                       lambda peer: peer.record(ContentType.application_data, bytes((1 << 14) + 1)))

    def test_a_type_that_nobody_knows(self):
        """RFC 8446, 5: unexpected_message; rustls itself says decode_error."""
        for form, alert in (("lean", AlertDescription.unexpected_message), ("rustls", AlertDescription.decode_error)):
            self.ends_with(alert, lambda peer: peer.record(99, b"data"), forms=(form,))

    def test_a_change_cipher_spec_behind_the_handshake(self):
        """RFC 8446, 5: unexpected_message."""
        self.ends_with(AlertDescription.unexpected_message,
                       lambda peer: peer.record(ContentType.change_cipher_spec, [1]))

    def test_a_client_hello_behind_the_handshake(self):
        """RFC 8446, 4.1.2: there is no renegotiation; unexpected_message."""
        self.ends_with(AlertDescription.unexpected_message,
                       lambda peer: peer.record(ContentType.handshake, peer.client_hello))

    def test_renegotiation(self):
        """RFC 5246, 7.2.2: refused by no_renegotiation, a warning."""
        for form, server in self.servers.items():
            with self.subTest(form=form), Peer(server, TLS12) as peer:
                peer.upgrade()
                peer.record(ContentType.handshake, peer.client_hello)
                self.assertEqual(peer.end(), (AlertDescription.no_renegotiation, b""))

    def test_the_client_ends_first(self):
        """RFC 8446, 6.1: close_notify is answered by one, then the stream ends; user_canceled in front changes nothing."""
        for before in ([], [[1, AlertDescription.user_canceled]]):
            def act(peer, before=before):
                for alert in [*before, [1, AlertDescription.close_notify]]:
                    peer.record(ContentType.alert, alert)
            self.ends_with(AlertDescription.close_notify, act)

    def test_the_server_ends_first(self):
        """RFC 8446, 6.1: behind the last bytes there is a close_notify."""
        for form, server in self.servers.items():
            for version in (TLS13, TLS12):
                with self.subTest(form=form, version=version), Peer(server, version) as peer:
                    peer.tls.write(b"GET /healthz-not HTTP/1.0\r\nHost: localhost\r\n\r\n")
                    alert, come = peer.end()
                    self.assertTrue(come.startswith(b"HTTP/1.1 404 "), come)
                    self.assertEqual(alert, AlertDescription.close_notify)

    def test_an_alert_of_the_clients(self):
        """RFC 8446, 6.2: whoever gets a fatal alert closes, and says nothing."""
        self.ends_with(None, lambda peer: peer.record(ContentType.alert, [2, AlertDescription.internal_error]))


if __name__ == "__main__":
    unittest.main()
