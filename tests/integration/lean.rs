//! TLS 1.3 connections that are kept as plain data behind their handshake, from outside.

use std::io::{Read as _, Write as _};
use std::sync::Arc;

use fantail::wire::frame::{Opcode, Sender, decode_header};
use rustls::crypto::aws_lc_rs;
use rustls::{AlertDescription, ClientConfig, ClientConnection, Error, SupportedProtocolVersion};

use crate::client::{Frame, frame, upgrade_request};
use crate::secure::{flags, usual};
use crate::server::{Server, dial};

fn start() -> Server {
    start_with(&[])
}

fn start_with(environment: &[(&str, &str)]) -> Server {
    let flags = flags(&usual().files);
    let all: Vec<&str> = flags.iter().map(String::as_str).collect();
    Server::start(&all, &[environment, &[("FANTAIL_TLS_LEAN", "true")]].concat())
}

/// A client's end, byte by byte under the test's control.
struct Client {
    tls: ClientConnection,
    socket: std::net::TcpStream,
    plain: Vec<u8>,
}

impl Client {
    fn new(server: &Server, config: Arc<ClientConfig>) -> Self {
        let tls = ClientConnection::new(config, "localhost".try_into().expect("a name")).expect("a client");
        Self { tls, socket: dial(server.tls.expect("a TLS listener")), plain: Vec::new() }
    }

    fn with(server: &Server, versions: &[&'static SupportedProtocolVersion], suite: usize) -> Self {
        let mut provider = aws_lc_rs::default_provider();
        if suite < 3 {
            provider.cipher_suites = vec![provider.cipher_suites[suite]];
        }
        let usual = usual();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(usual.authority.issuer.der().clone()).expect("a root");
        let builder = ClientConfig::builder_with_provider(Arc::new(provider));
        let builder = builder.with_protocol_versions(versions).expect("versions");
        Self::new(server, Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
    }

    /// Everything that is to be sent, in one write.
    fn wire(&mut self) -> Vec<u8> {
        let mut wire = Vec::new();
        while self.tls.wants_write() {
            self.tls.write_tls(&mut wire).expect("a vector takes it");
        }
        wire
    }

    fn send(&mut self, bytes: &[u8]) {
        // rustls takes 64 KiB at a time.
        for piece in bytes.chunks(32_768) {
            self.tls.writer().write_all(piece).expect("room");
            let wire = self.wire();
            self.socket.write_all(&wire).expect("sent");
        }
    }

    /// Reads once; `false` at the end.
    fn read(&mut self) -> Result<bool, Error> {
        let count = self.tls.read_tls(&mut self.socket).expect("in time");
        let state = self.tls.process_new_packets();
        let mut piece = [0; 16_384];
        while let Ok(count @ 1..) = self.tls.reader().read(&mut piece) {
            self.plain.extend_from_slice(piece.get(..count).expect("read"));
        }
        state.map(|_| count > 0)
    }

    fn shake(&mut self) {
        while self.tls.is_handshaking() {
            let wire = self.wire();
            self.socket.write_all(&wire).expect("sent");
            if self.tls.is_handshaking() {
                assert!(self.read().expect("a handshake"), "the server has gone");
            }
        }
    }

    /// Shakes hands, and sends what upgrades in one write with the last of that.
    fn upgrade(&mut self, path: &str) {
        self.shake();
        let request = upgrade_request(self.socket.peer_addr().expect("connected"), path, "");
        self.send(request.as_bytes());
        while !self.plain.windows(4).any(|four| four == b"\r\n\r\n") {
            assert!(self.read().expect("an answer"));
        }
        let end = self.plain.windows(4).position(|four| four == b"\r\n\r\n").expect("found") + 4;
        let head: Vec<u8> = self.plain.drain(..end).collect();
        assert!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
    }

    fn frame(&mut self) -> Frame {
        loop {
            let header = decode_header(&self.plain, Sender::Server).expect("the server's frames are legal");
            if let Some(header) = header
                && let end = header.header_len + header.payload_len as usize
                && self.plain.len() >= end
            {
                let payload = self.plain.drain(..end).skip(header.header_len).collect();
                return Frame { opcode: header.opcode, deflated: header.rsv1, payload };
            }
            assert!(self.read().expect("a frame"), "the server has gone");
        }
    }

    fn echo(&mut self, content: &[u8]) {
        self.send(&frame(Opcode::Binary, content));
        assert_eq!(self.frame().payload, content);
    }
}

#[test]
fn every_suite_carries_messages_of_every_length() {
    let server = start();
    for suite in 0..3 {
        let mut client = Client::with(&server, &[&rustls::version::TLS13], suite);
        client.upgrade("/echo");
        for length in [0, 1, 125, 126, 16_383, 16_384, 65_536, 1_000_000] {
            client.echo(&vec![7; length]);
        }
        client.upgrade_lobby_and_close(&server);
    }
}

impl Client {
    /// A second client in a topic hears what is published, and both sides end as they should.
    fn upgrade_lobby_and_close(&mut self, server: &Server) {
        let mut other = Client::with(server, &[&rustls::version::TLS13], 9);
        other.upgrade("/ws/lobby");
        assert_eq!(server.publish("lobby", b"to all").status, 200);
        assert_eq!(other.frame().payload, b"to all");
        for client in [self, &mut other] {
            client.send(&frame(Opcode::Close, &1000_u16.to_be_bytes()));
            assert_eq!(client.frame().close_code(), Some(1000));
            // RFC 8446, 6.1: it says that nothing more will come, and then ends its stream.
            while client.read().expect("no alert but close_notify") {}
            assert!(client.tls.process_new_packets().expect("nothing wrong").peer_has_closed());
        }
    }
}

#[test]
fn keys_are_updated_as_often_as_the_client_likes() {
    let server = start();
    let mut client = Client::with(&server, &[&rustls::version::TLS13], 1);
    client.upgrade("/echo");
    for round in 0..50_u8 {
        client.tls.refresh_traffic_keys().expect("TLS 1.3");
        client.echo(&[round; 3_000]);
    }
}

#[test]
fn what_comes_with_the_last_of_the_handshake_is_taken_over() {
    let server = start();
    for cut in [0, 1, 7, 30, 60, 90] {
        let mut client = Client::with(&server, &[&rustls::version::TLS13], 0);
        let hello = client.wire();
        client.socket.write_all(&hello).expect("sent");
        while client.tls.is_handshaking() {
            assert!(client.read().expect("a handshake"));
        }
        // Behind the Finished, in one segment: a KeyUpdate and a request, of which perhaps a part is missing.
        let mut wire = client.wire();
        client.tls.refresh_traffic_keys().expect("TLS 1.3");
        let request = upgrade_request(client.socket.peer_addr().expect("connected"), "/echo", "");
        client.tls.writer().write_all(request.as_bytes()).expect("room");
        wire.extend_from_slice(&client.wire());
        let (first, second) = wire.split_at(wire.len() - cut);
        client.socket.write_all(first).expect("sent");
        if !second.is_empty() {
            // Whether they arrive together is the kernel's matter; either way it has to work.
            std::thread::yield_now();
            client.socket.write_all(second).expect("sent");
        }
        while !client.plain.ends_with(b"\r\n\r\n") {
            assert!(client.read().expect("an answer"), "cut {cut} from the end");
        }
        assert!(client.plain.starts_with(b"HTTP/1.1 101"));
        client.plain.clear();
        client.echo(b"hello");
    }
}

#[test]
fn clients_of_the_older_version_are_served_as_before() {
    let server = start();
    let mut client = Client::with(&server, &[&rustls::version::TLS12], 9);
    client.upgrade("/echo");
    client.echo(b"hello");
    assert_eq!(client.tls.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_2));
}

#[test]
fn sessions_are_resumed() {
    let server = start();
    let config = Arc::clone(&usual().client);
    let mut kinds = Vec::new();
    for _ in 0..3 {
        let mut client = Client::new(&server, Arc::clone(&config));
        client.upgrade("/echo");
        client.echo(b"hello");
        kinds.push(client.tls.handshake_kind());
    }
    assert_eq!(kinds.last(), Some(&Some(rustls::HandshakeKind::Resumed)), "{kinds:?}");
}

#[test]
fn a_wrong_record_is_answered_by_the_right_alert() {
    let server = start();
    let cases: [(&[u8], AlertDescription); 4] = [
        (&[23, 3, 3, 0, 20, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20], {
            AlertDescription::BadRecordMac
        }),
        (&[23, 3, 3, 0x41, 1], AlertDescription::RecordOverflow),
        (&[20, 3, 3, 0, 1, 1], AlertDescription::UnexpectedMessage),
        (b"GET / HTTP/1.1\r\n\r\n", AlertDescription::UnexpectedMessage),
    ];
    for (bytes, alert) in cases {
        let mut client = Client::with(&server, &[&rustls::version::TLS13], 2);
        client.upgrade("/echo");
        client.echo(b"hello");
        client.socket.write_all(bytes).expect("sent");
        let error = loop {
            match client.read() {
                Ok(true) => {}
                Ok(false) => panic!("no alert for {bytes:?}"),
                Err(error) => break error,
            }
        };
        assert_eq!(error, Error::AlertReceived(alert), "{bytes:?}");
    }
}

#[test]
fn a_peer_that_does_not_read_gets_everything_once_it_does() {
    let server =
        start_with(&[("FANTAIL_OUTBOX_BYTES_MAX", "32 MiB"), ("FANTAIL_OUTBOX_MESSAGES_MAX", "1000")]);
    let mut client = Client::with(&server, &[&rustls::version::TLS13], 0);
    client.upgrade("/ws/lobby?echo=0");
    let message = vec![9; 100_000];
    for _ in 0..60 {
        assert_eq!(server.publish("lobby", &message).status, 200);
    }
    for _ in 0..60 {
        assert_eq!(client.frame().payload, message);
    }
    client.tls.refresh_traffic_keys().expect("TLS 1.3");
    client.send(&frame(Opcode::Ping, b"still there"));
    assert_eq!(client.frame().payload, b"still there");
}
