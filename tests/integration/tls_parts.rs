//! Messages of a handshake that share a record, or of which a record has only a part: what rustls has found and not yet looked
//! at, or remembers for later, while the server goes on.

use std::io::{Read, Write};
use std::sync::Arc;

use fantail_test_support::tls::{Listener, Rogue};
use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, ServerConfig, ServerConnection};

use crate::client::upgrade_request;
use crate::secure::{Secure, flags, usual};
use crate::server::{Server, dial};

/// Any content type of TLS 1.3 that is not data.
const HANDSHAKE: u8 = 22;

fn start(lean: &str) -> Server {
    let flags = flags(&usual().files);
    let all: Vec<&str> = flags.iter().map(String::as_str).collect();
    Server::start(&all, &[("FANTAIL_TLS_LEAN", lean)])
}

#[test]
fn what_lies_behind_a_message_that_is_refused_is_not_looked_at() {
    let server = start("false");
    let mut config: ClientConfig = usual().client.as_ref().clone();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let name = ServerName::try_from("localhost").expect("a name");
    let mut connection = ClientConnection::new(Arc::new(config), name).expect("a configuration");
    let mut hello = Vec::new();
    connection.write_tls(&mut hello).expect("memory");
    // A Finished behind it, in the same record; and by itself, before anything.
    let finished = [20, 0, 0, 1, 0];
    hello.extend_from_slice(&finished);
    let length = u16::try_from(hello.len() - 5).expect("a record").to_be_bytes();
    hello[3..5].copy_from_slice(&length);
    let mut twice = vec![HANDSHAKE, 3, 1, 0, 10];
    twice.extend_from_slice(&[finished, finished].concat());
    for bytes in [&hello, &twice] {
        let mut stream = dial(server.tls.expect("tls= in the ready line"));
        stream.write_all(bytes).expect("it reads");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("an answer");
        // RFC 8446, 6.2: unexpected_message, and nothing else.
        assert_eq!(answer, [21, 3, 3, 0, 2, 2, 10]);
    }
    let mut plain = server.websocket("/ws/lobby");
    plain.ping_pong();
}

/// RFC 8446, 5.1: a message may be in as many records as its sender likes, and these may come one by one.
#[test]
fn a_client_hello_may_be_in_many_records() {
    for (lean, piece) in [("true", 40), ("true", 1), ("false", 40)] {
        let server = start(lean);
        let name = ServerName::try_from("localhost").expect("a name");
        let config = Arc::clone(&usual().client);
        let mut connection = ClientConnection::new(config, name).expect("a configuration");
        let mut hello = Vec::new();
        connection.write_tls(&mut hello).expect("memory");
        let mut stream = dial(server.tls.expect("tls= in the ready line"));
        stream.set_nodelay(true).expect("TCP");
        for part in hello[5..].chunks(piece) {
            stream.write_all(&[&[HANDSHAKE, 3, 1, 0, part.len() as u8], part].concat()).expect("it reads");
        }
        while connection.is_handshaking() {
            connection.complete_io(&mut stream).expect("a handshake");
        }
        let mut secure = rustls::Stream::new(&mut connection, &mut stream);
        secure.write_all(b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n").expect("sent");
        assert!(secure.read(&mut [0; 16]).expect("an answer") > 0);
        assert_eq!(server.metric("fantail_tls_failures_total", ""), 0);
    }
}

/// RFC 8446, 6.2: rustls ends such a connection without a word.
#[test]
fn a_first_flight_is_refused_with_an_alert_whatever_is_wrong_with_it() {
    let server = start("false");
    let record = |kind: u8, body: &[u8]| {
        let [high, low] = u16::try_from(body.len()).expect("a record").to_be_bytes();
        [&[kind, 3, 1, high, low], body].concat()
    };
    let longest = [&[1, 0, 0xa0, 0][..], &[0; 16_000]].concat();
    let cases = [
        // A ClientHello of 327,680 bytes.
        (record(HANDSHAKE, &[1, 5, 0, 0]), 50),
        // Data between the parts of one (5.1).
        ([record(HANDSHAKE, &[1, 0, 1]), record(23, b"data")].concat(), 10),
        // More than a client may have said before it is known.
        (
            [record(HANDSHAKE, &longest), record(HANDSHAKE, &[0; 16_000]), record(HANDSHAKE, &[0; 800])]
                .concat(),
            50,
        ),
    ];
    for (bytes, description) in cases {
        let mut stream = dial(server.tls.expect("tls= in the ready line"));
        stream.write_all(&bytes).expect("it reads");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("an answer");
        assert_eq!(answer, [21, 3, 3, 0, 2, 2, description]);
    }
    server.await_metric("fantail_closes_total", "\"tls\"", |count| count == 3);
}

#[test]
fn a_message_may_come_in_parts_while_others_are_sent() {
    for lean in ["false", "true"] {
        let server = start(lean);
        let listener = Listener::new(Arc::new(rustls::KeyLogFile::new()));
        let mut config: ClientConfig = usual().client.as_ref().clone();
        config.enable_secret_extraction = true;
        config.key_log = listener.clone();
        let secure = server.tls.expect("tls= in the ready line");
        let mut stream = dial(secure);
        let (mut client, done) = Secure::new(&Arc::new(config), "localhost", &mut stream);
        done.expect("a handshake");
        client.send(upgrade_request(secure, "/ws/lobby", "").as_bytes(), &mut stream).expect("sent");
        assert!(client.read(&mut [0; 4096], &mut stream).expect("an answer") > 0);
        server.await_metric("fantail_subscriptions", "", |count| count == 1);
        let secrets = client.0.dangerous_extract_secrets().expect("secrets");
        let mut rogue = Rogue::new(&secrets.tx, listener.client());
        // A KeyUpdate (RFC 8446, 4.6.3) in two records; between them the server has something to say.
        for part in [&[24, 0, 0][..], &[1, 0]] {
            let mut inner = part.to_vec();
            inner.push(HANDSHAKE);
            stream.write_all(&rogue.seal(&inner)).expect("it reads");
            for _ in 0..3 {
                assert_eq!(server.publish("lobby", b"between").status, 200);
                assert!(stream.read(&mut [0; 4096]).expect("a record") > 0);
            }
        }
        rogue.update();
        // A ping under the new key is answered: nothing was lost between.
        let mut inner = crate::client::frame(fantail::wire::frame::Opcode::Ping, b"");
        inner.push(23);
        stream.write_all(&rogue.seal(&inner)).expect("it reads");
        assert!(stream.read(&mut [0; 4096]).expect("a pong") > 0);
        assert_eq!(server.metric("fantail_tls_failures_total", ""), 0);
        assert_eq!(server.metric("fantail_connections", ""), 1);
    }
}

/// A client that thinks that this server takes early data, because another one of the same name has said so.
fn with_early_data() -> Arc<ClientConfig> {
    let (certificate, key) = usual().authority.sign(&["localhost"]);
    let chain = CertificateDer::pem_slice_iter(certificate.as_bytes()).collect::<Result<Vec<_>, _>>();
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("a key");
    let builder = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().expect("versions").with_no_client_auth();
    let mut config = builder.with_single_cert(chain.expect("a chain"), key).expect("a certificate");
    config.max_early_data_size = 8_192;
    let mut client: ClientConfig = usual().client.as_ref().clone();
    client.resumption = Resumption::in_memory_sessions(4);
    client.enable_early_data = true;
    let client = Arc::new(client);
    let name = ServerName::try_from("localhost").expect("a name");
    let mut ours = ClientConnection::new(Arc::clone(&client), name).expect("a configuration");
    let mut other = ServerConnection::new(Arc::new(config)).expect("a configuration");
    while ours.wants_write() || other.wants_write() {
        let mut wire = Vec::new();
        while ours.wants_write() {
            ours.write_tls(&mut wire).expect("memory");
        }
        other.read_tls(&mut wire.as_slice()).expect("memory");
        other.process_new_packets().expect("a client");
        wire.clear();
        while other.wants_write() {
            other.write_tls(&mut wire).expect("memory");
        }
        ours.read_tls(&mut wire.as_slice()).expect("memory");
        ours.process_new_packets().expect("a server");
    }
    client
}

/// RFC 8446, 4.2.10: a server that takes no early data skips it, and the handshake goes on. It could be sent again by anybody.
#[test]
fn early_data_is_not_heard() {
    for lean in ["true", "false"] {
        let server = start(lean);
        let name = ServerName::try_from("localhost").expect("a name");
        let mut connection = ClientConnection::new(with_early_data(), name).expect("a configuration");
        let early = b"GET /early HTTP/1.1\r\nHost: localhost\r\n\r\n";
        // In two records, so that the server meets one when it awaits the next.
        for half in early.chunks(early.len() / 2 + 1) {
            let mut writer = connection.early_data().expect("a ticket that allows it");
            writer.write_all(half).expect("less than it allows");
            writer.flush().expect("nothing to do");
        }
        let mut stream = dial(server.tls.expect("tls= in the ready line"));
        while connection.is_handshaking() {
            connection.complete_io(&mut stream).expect("a handshake");
        }
        assert!(!connection.is_early_data_accepted());
        assert_eq!(connection.handshake_kind(), Some(HandshakeKind::Full));
        let mut secure = Secure(connection);
        secure.send(b"GET /behind HTTP/1.0\r\nHost: localhost\r\n\r\n", &mut stream).expect("it reads");
        let mut answers = Vec::new();
        let mut room = [0; 4096];
        loop {
            match secure.read(&mut room, &mut stream).expect("an answer") {
                0 => break,
                count => answers.extend_from_slice(&room[..count]),
            }
        }
        let answers = String::from_utf8_lossy(&answers);
        assert_eq!(answers.matches("HTTP/1.1 ").count(), 1, "lean {lean}: {answers}");
        assert!(answers.starts_with("HTTP/1.1 404 "), "lean {lean}: {answers}");
    }
}
