//! TLS on a port of its own: who is answered with which certificate, what is refused and in whose words, how connections
//! end, and what a peer that does not keep up costs. That everything else is as over plain connections, the
//! other tests show when they are run with `FANTAIL_TEST_TLS=1`.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fantail::wire::frame::Opcode;
use rcgen::{CertificateParams, KeyPair};
use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, HandshakeKind, ProtocolVersion};

use crate::client::{Peer, frame, upgrade_request};
use crate::reload::ConfigFile;
use crate::secure::{Authority, Files, Secure, file, flags, read_tls, usual};
use crate::server::{PATIENCE, Server, dial, on_free_ports, wait_for};

fn start(files: &Files, more: &[&str]) -> Server {
    let flags = flags(files);
    let mut all: Vec<&str> = flags.iter().map(String::as_str).collect();
    all.extend_from_slice(more);
    Server::start(&all, &[])
}

fn secure_of(server: &Server) -> std::net::SocketAddr {
    server.tls.expect("tls= in the ready line")
}

/// A handshake with the port of TLS, which must work.
fn shake(server: &Server, config: &Arc<ClientConfig>, name: &str) -> (TcpStream, Secure) {
    let mut stream = dial(secure_of(server));
    let (secure, done) = Secure::new(config, name, &mut stream);
    done.expect("a handshake");
    (stream, secure)
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

#[test]
fn both_listeners_serve_at_once() {
    let server = start(&usual().files, &[]);
    let mut secure = Peer::connect_secure(secure_of(&server));
    secure.upgrade("/ws/lobby");
    let mut plain = server.websocket("/ws/lobby");
    secure.ping_pong();
    plain.ping_pong();
    assert_eq!(server.publish("lobby", b"to both").status, 200);
    assert_eq!((secure.text(), plain.text()), ("to both".to_owned(), "to both".to_owned()));
}

#[test]
fn both_versions_are_spoken_and_http_1_1_is_agreed_on() {
    let server = start(&usual().files, &[]);
    for (version, number) in [
        (&rustls::version::TLS12, ProtocolVersion::TLSv1_2),
        (&rustls::version::TLS13, ProtocolVersion::TLSv1_3),
    ] {
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
        let builder = builder.with_protocol_versions(&[version]).expect("a version");
        let mut config = builder.with_root_certificates(usual().authority.roots()).with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let (mut stream, mut secure) = shake(&server, &Arc::new(config), "localhost");
        assert_eq!(secure.0.protocol_version(), Some(number));
        assert_eq!(secure.0.alpn_protocol(), Some(&b"http/1.1"[..]));
        let echo = upgrade_request(secure_of(&server), "/echo", "");
        secure.send(echo.as_bytes(), &mut stream).expect("sent");
        // Larger than a record, and than what the server reads at a time.
        let message = vec![b'x'; 300_000];
        secure.send(&frame(Opcode::Binary, &message), &mut stream).expect("sent");
        let mut heard = Vec::new();
        let mut some = vec![0; 65_536];
        while heard.len() < message.len() {
            let count = secure.read(&mut some, &mut stream).expect("an echo");
            assert!(count > 0, "the stream ended after {} bytes", heard.len());
            heard.extend_from_slice(&some[..count]);
        }
        assert!(heard.windows(1_000).any(|window| window == &message[..1_000]));
    }
    let mut config = usual().authority.client().as_ref().clone();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let mut stream = dial(secure_of(&server));
    let (_, done) = Secure::new(&Arc::new(config), "localhost", &mut stream);
    assert!(done.unwrap_err().to_string().contains("NoApplicationProtocol"));
}

#[test]
fn the_certificate_is_that_of_the_name_asked_for() {
    let authority = Authority::new("names");
    let pair = |name: &str, names: &[&str]| {
        let (certificate, key) = authority.sign(names);
        // One with its key in the same file.
        text(&file(&format!("{name}.pem"), &(certificate + &key))).to_owned()
    };
    let (first, second) =
        (pair("first", &["first.example"]), pair("second", &["second.example", "*.wild.example"]));
    let both = format!("{first},{second}");
    let server = Server::start(&["--tls-listen", "127.0.0.1:0", "--tls-certificate", &both], &[]);
    let client = authority.client();
    for name in ["first.example", "second.example", "a.wild.example", "FIRST.example"] {
        shake(&server, &client, name);
    }
    // The first is what others get, and what they make of it is theirs to say.
    for name in ["third.example", "a.b.wild.example", "wild.example"] {
        let mut stream = dial(secure_of(&server));
        let (_, done) = Secure::new(&client, name, &mut stream);
        let error = done.unwrap_err().to_string();
        assert!(error.contains("first.example"), "{name}: {error}");
    }
}

#[test]
fn sessions_are_resumed_on_whichever_loop_the_client_meets() {
    let server = start(&usual().files, &["--loops", "4"]);
    let mut config = usual().authority.client().as_ref().clone();
    config.resumption = Resumption::in_memory_sessions(64);
    let config = Arc::new(config);
    let mut kinds = Vec::new();
    for _ in 0..12 {
        let (mut stream, mut secure) = shake(&server, &config, "localhost");
        kinds.push(secure.0.handshake_kind());
        // Tickets come behind the handshake.
        secure.send(b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n", &mut stream).expect("sent");
        assert!(secure.read(&mut [0; 16], &mut stream).expect("an answer") > 0);
    }
    assert_eq!(kinds.remove(0), Some(HandshakeKind::Full));
    assert!(kinds.iter().all(|kind| *kind == Some(HandshakeKind::Resumed)), "{kinds:?}");
    let name = "fantail_tls_handshakes_total";
    let counts = [("\"1.3\",resumed=\"no\"", 1), ("\"1.3\",resumed=\"yes\"", 11), ("\"1.2\"", 0)];
    for (label, wanted) in counts {
        server.await_metric(name, label, |count| count == wanted);
    }
}

#[test]
fn http_on_the_port_of_tls_is_answered_in_its_own_words() {
    let server = start(&usual().files, &[]);
    let mut stream = dial(secure_of(&server));
    stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("https://"), "{answer}");
    assert_eq!(server.metric("fantail_refusals_total", "plain_http"), 1);
    // What is neither is told nothing, and let go.
    let mut stream = dial(secure_of(&server));
    stream.write_all(b"\x00\x01\x02").expect("it reads");
    assert_eq!(stream.read(&mut [0; 16]).expect("the end"), 0);
    server.await_metric("fantail_closes_total", "\"tls\"", |count| count == 1);
    server.await_log("HTTP without TLS on the port of TLS");
    // And the other way round.
    let mut stream = dial(server.listen);
    let (_, done) = Secure::new(&usual().client, "localhost", &mut stream);
    assert!(done.is_err());
    server.await_log("TLS on a port that speaks none");
    assert_eq!(server.metric("fantail_refusals_total", "tls_on_plain"), 1);
    let failures = |reason: &str| server.metric("fantail_tls_failures_total", &format!("\"{reason}\""));
    assert_eq!((failures("plain_http"), failures("not_tls")), (1, 1));
    // Who does not trust the certificate says so by an alert.
    let mut stream = dial(secure_of(&server));
    assert!(Secure::new(&Authority::new("nobody's").client(), "localhost", &mut stream).1.is_err());
    server.await_metric("fantail_tls_failures_total", "refused_by_client", |count| count == 1);
}

/// The first flight of a client.
fn client_hello() -> Vec<u8> {
    let name = rustls::pki_types::ServerName::try_from("localhost").expect("a name");
    let mut connection =
        rustls::ClientConnection::new(Arc::clone(&usual().client), name).expect("a configuration");
    let mut out = Vec::new();
    connection.write_tls(&mut out).expect("memory");
    out
}

/// Twice what the page about TLS says that a handshake costs which is begun and not ended: this is what the process has of the
/// kernel, in pages. `tests/handshake_memory.rs` counts what it is.
const HALF_FINISHED_BYTES_MAX: u64 = 16 * 1024;

#[test]
fn handshakes_that_are_not_ended_have_a_bound_and_a_time() {
    const HALF: u64 = 200;
    let timeout = |seconds: &str| format!("[timeouts]\nhandshake_seconds = {seconds}\n");
    let file = ConfigFile::new(&timeout("600"));
    let flags = flags(&usual().files);
    let mut all: Vec<&str> = flags.iter().map(String::as_str).collect();
    all.extend(["--loops", "1", "--config", file.path()]);
    let server = Server::start(&all, &[("FANTAIL_ADMISSION_HANDSHAKES_MAX", &HALF.to_string())]);
    // What one handshake takes for good, such as buffers of the loop, is there before.
    shake(&server, &usual().client, "localhost");
    server.await_metric("fantail_connections", "", |count| count == 0);
    let anon = || server.metric("fantail_memory_bytes", "anon");
    let before = anon();
    let hello = client_hello();
    let half: Vec<TcpStream> = (0..HALF)
        .map(|_| {
            let mut stream = dial(secure_of(&server));
            stream.write_all(&hello).expect("it reads");
            stream
        })
        .collect();
    server.await_metric("fantail_tls_handshakes", "", |count| count == HALF);
    // All have had their answer.
    for stream in &half {
        let mut one = [0];
        let mut stream = stream;
        stream.read_exact(&mut one).expect("a server's flight");
        assert_eq!(one, [22]);
    }
    let each = anon().saturating_sub(before) / HALF;
    assert!(each <= HALF_FINISHED_BYTES_MAX, "{each} bytes each");
    // One more finds no place, and is told nothing it could read without a handshake.
    let mut stream = dial(secure_of(&server));
    let (mut secure, done) = Secure::new(&usual().client, "localhost", &mut stream);
    if done.is_ok() {
        secure.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", &mut stream).expect("sent");
        let mut answer = [0; 12];
        assert_eq!(secure.read(&mut answer, &mut stream).expect("an answer"), 12);
        assert_eq!(&answer, b"HTTP/1.1 503");
    }
    server.await_metric("fantail_refusals_total", "\"handshakes\"", |count| count == 1);
    // Those who do not go on are let go when their time is over.
    file.write(&timeout("0.5"));
    server.signal("HUP");
    server.await_metric("fantail_tls_handshakes", "", |count| count == 0);
    // Among them may be one of those before that went away in haste.
    server.await_metric("fantail_tls_failures_total", "\"left\"", |count| count >= HALF);
    server.await_metric("fantail_connections", "", |count| count == 0);
    file.write(&timeout("600"));
    server.signal("HUP");
    server.await_metric("fantail_config_reloads_total", "applied", |count| count == 2);
    let (mut stream, mut secure) = shake(&server, &usual().client, "localhost");
    secure.send(b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n", &mut stream).expect("sent");
    assert!(secure.read(&mut [0; 16], &mut stream).expect("an answer") > 0);
}

#[test]
fn a_connection_ends_by_close_close_notify_and_end_in_this_order() {
    let server = start(&usual().files, &[]);
    let mut stream = dial(secure_of(&server));
    let (mut secure, done) = Secure::new(&usual().client, "localhost", &mut stream);
    done.expect("a handshake");
    let upgrade = upgrade_request(secure_of(&server), "/echo", "");
    secure.send(upgrade.as_bytes(), &mut stream).expect("sent");
    secure.send(&frame(Opcode::Close, &1000_u16.to_be_bytes()), &mut stream).expect("sent");
    let mut heard = Vec::new();
    let mut some = [0; 4096];
    let ended = loop {
        match secure.0.reader().read(&mut some) {
            Ok(0) => break "close_notify",
            Ok(count) => heard.extend_from_slice(&some[..count]),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                read_tls(&mut secure.0, &mut stream).expect("bytes");
                secure.0.process_new_packets().expect("records");
            }
            Err(error) => panic!("no close_notify: {error}"),
        }
    };
    assert_eq!(ended, "close_notify");
    assert!(heard.ends_with(&[0x88, 2, 3, 232]), "{:?}", String::from_utf8_lossy(&heard));
    // The server ends its side first: many clients wait for that.
    assert_eq!(stream.read(&mut some).expect("the end"), 0);
    drop(stream);
    server.await_metric("fantail_closes_total", "\"normal\"", |count| count == 1);
}

/// RFC 8446, 6.1: each side ends with a close_notify, also behind the other's.
#[test]
fn a_close_notify_is_answered_by_one() {
    for lean in ["true", "false"] {
        let flags = flags(&usual().files);
        let all: Vec<&str> = flags.iter().map(String::as_str).collect();
        let server = Server::start(&all, &[("FANTAIL_TLS_LEAN", lean)]);
        // Of an open connection, and together with a request.
        for (path, open) in [("/echo", true), ("/none", false), ("/", false)] {
            let (mut stream, mut secure) = shake(&server, &usual().client, "localhost");
            let mut request = upgrade_request(secure_of(&server), path, "");
            if path == "/" {
                request = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned();
            }
            secure.0.writer().write_all(request.as_bytes()).expect("memory");
            if open {
                while secure.0.wants_write() {
                    secure.0.write_tls(&mut stream).expect("sent");
                }
                assert!(secure.read(&mut [0; 4096], &mut stream).expect("an answer") > 0);
            }
            secure.0.send_close_notify();
            while secure.0.wants_write() {
                secure.0.write_tls(&mut stream).expect("sent");
            }
            let (end, heard) = until_silence(&mut secure, &mut stream);
            assert_eq!(end, "close_notify", "{path} {}", String::from_utf8_lossy(&heard));
            assert_eq!(heard.starts_with(b"HTTP/1.1 "), !open, "{}", String::from_utf8_lossy(&heard));
        }
        server.await_metric("fantail_connections", "", |count| count == 0);
    }
}

/// Reads until something other than plain bytes comes; what that was, and the bytes.
fn until_silence(secure: &mut Secure, stream: &mut TcpStream) -> (String, Vec<u8>) {
    let (mut heard, mut some) = (Vec::new(), [0; 4096]);
    loop {
        match secure.0.reader().read(&mut some) {
            Ok(0) => return ("close_notify".to_owned(), heard),
            Ok(count) => heard.extend_from_slice(&some[..count]),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                if let Err(error) = read_tls(&mut secure.0, stream) {
                    return (format!("{:?}", error.kind()), heard);
                }
                secure.0.process_new_packets().expect("records");
            }
            Err(error) => return (error.to_string(), heard),
        }
    }
}

/// A connection that the server has closed with 1009 for a message too big, and when that was sent.
fn closed_by_the_server(linger: &str) -> (Server, TcpStream, Secure, Instant) {
    let environment =
        [("FANTAIL_TIMEOUTS_LINGER_SECONDS", linger), ("FANTAIL_LIMITS_ECHO_BYTES_MAX", "1000")];
    let flags = flags(&usual().files);
    let all: Vec<&str> = flags.iter().map(String::as_str).collect();
    let server = Server::start(&all, &environment);
    let (mut stream, mut secure) = shake(&server, &usual().client, "localhost");
    let upgrade = upgrade_request(secure_of(&server), "/echo", "");
    secure.send(upgrade.as_bytes(), &mut stream).expect("sent");
    let sent = Instant::now();
    secure.send(&frame(Opcode::Binary, &[b'x'; 2_000]), &mut stream).expect("sent");
    let mut heard = Vec::new();
    while !heard.windows(4).any(|four| four[0] == 0x88 && four[2..] == 1009_u16.to_be_bytes()) {
        let mut some = [0; 4096];
        let count = secure.read(&mut some, &mut stream).expect("a close frame");
        assert!(count > 0, "{heard:?}");
        heard.extend_from_slice(&some[..count]);
    }
    (server, stream, secure, sent)
}

#[test]
fn a_close_of_our_own_waits_for_its_answer_before_close_notify() {
    let (server, mut stream, mut secure, _) = closed_by_the_server("600");
    stream.set_read_timeout(Some(Duration::from_millis(300))).expect("a timeout");
    let (end, _) = until_silence(&mut secure, &mut stream);
    assert_eq!(end, "WouldBlock", "nothing follows the close frame yet");
    secure.send(&frame(Opcode::Close, &1009_u16.to_be_bytes()), &mut stream).expect("sent");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    assert_eq!(until_silence(&mut secure, &mut stream).0, "close_notify");
    assert_eq!(stream.read(&mut [0; 16]).expect("the end"), 0);
    server.await_metric("fantail_closes_total", "\"too_big\"", |count| count == 1);
    // Who does not answer has its time.
    let (server, mut stream, mut secure, sent) = closed_by_the_server("1.5");
    assert_eq!(until_silence(&mut secure, &mut stream).0, "close_notify");
    assert!(sent.elapsed() > Duration::from_secs(1), "{:?}", sent.elapsed());
    assert_eq!(stream.read(&mut [0; 16]).expect("the end"), 0);
    server.await_metric("fantail_closes_total", "\"too_big\"", |count| count == 1);
}

#[test]
fn a_handshake_split_anywhere_is_one_handshake() {
    let server = start(&usual().files, &[]);
    let mut stream = dial(secure_of(&server));
    stream.set_nodelay(true).expect("an option");
    let name = rustls::pki_types::ServerName::try_from("localhost").expect("a name");
    let mut connection =
        rustls::ClientConnection::new(Arc::clone(&usual().client), name).expect("a configuration");
    let bytewise = |connection: &mut rustls::ClientConnection, stream: &mut TcpStream| {
        let mut out = Vec::new();
        while connection.wants_write() {
            connection.write_tls(&mut out).expect("memory");
        }
        for byte in out {
            stream.write_all(&[byte]).expect("it reads");
        }
    };
    while connection.is_handshaking() {
        bytewise(&mut connection, &mut stream);
        if connection.is_handshaking() {
            read_tls(&mut connection, &mut stream).expect("bytes");
            connection.process_new_packets().expect("records");
        }
    }
    let request = upgrade_request(secure_of(&server), "/echo", "");
    connection.writer().write_all(request.as_bytes()).expect("memory");
    connection.writer().write_all(&frame(Opcode::Text, b"split")).expect("memory");
    bytewise(&mut connection, &mut stream);
    let mut heard = Vec::new();
    while !heard.ends_with(b"\x81\x05split") {
        assert!(
            read_tls(&mut connection, &mut stream).expect("bytes") > 0,
            "{:?}",
            String::from_utf8_lossy(&heard)
        );
        connection.process_new_packets().expect("records");
        let mut some = [0; 4096];
        if let Ok(count) = connection.reader().read(&mut some) {
            heard.extend_from_slice(&some[..count]);
        }
    }
}

#[test]
fn a_proxy_puts_its_header_in_front_of_the_handshake() {
    let flags = flags(&usual().files);
    let mut all: Vec<&str> = flags.iter().map(String::as_str).collect();
    all.extend(["--loops", "1"]);
    let trust = [
        ("FANTAIL_ADMISSION_TRUSTED_PROXIES", "127.0.0.1"),
        ("FANTAIL_ADMISSION_PROXY_PROTOCOL", "true"),
        ("FANTAIL_ADMISSION_PER_ADDRESS_MAX", "1"),
    ];
    let server = Server::start(&all, &trust);
    let mut connected = Vec::new();
    let header = |last: u8| format!("PROXY TCP4 203.0.113.{last} 203.0.113.9 1000 443\r\n");
    for (last, together) in [(1, true), (2, false)] {
        let mut stream = dial(secure_of(&server));
        stream.set_nodelay(true).expect("an option");
        let name = rustls::pki_types::ServerName::try_from("localhost").expect("a name");
        let connection = rustls::ClientConnection::new(Arc::clone(&usual().client), name);
        let mut secure = Secure(connection.expect("a configuration"));
        let mut out = header(last).into_bytes();
        if together {
            secure.0.write_tls(&mut out).expect("memory");
        }
        stream.write_all(&out).expect("it reads");
        while secure.0.is_handshaking() {
            secure.0.complete_io(&mut stream).expect("a handshake");
        }
        secure.send(upgrade_request(secure_of(&server), "/echo", "").as_bytes(), &mut stream).expect("sent");
        secure.send(&frame(Opcode::Text, b"behind it"), &mut stream).expect("sent");
        let mut heard = Vec::new();
        while !heard.ends_with(b"behind it") {
            let mut some = [0; 4096];
            let count = secure.read(&mut some, &mut stream).expect("an echo");
            assert!(count > 0, "{:?}", String::from_utf8_lossy(&heard));
            heard.extend_from_slice(&some[..count]);
        }
        connected.push((stream, secure));
    }
    // Its clients count by the addresses that it tells of: one each. Who is one too many is told so when its request is there,
    // whether its handshake comes with the header or only when that was looked at.
    for (refused, together) in [(1, true), (2, false)] {
        let mut stream = dial(secure_of(&server));
        let name = rustls::pki_types::ServerName::try_from("localhost").expect("a name");
        let connection = rustls::ClientConnection::new(Arc::clone(&usual().client), name);
        let mut secure = Secure(connection.expect("a configuration"));
        let mut out = header(1).into_bytes();
        if together {
            secure.0.write_tls(&mut out).expect("memory");
        }
        stream.write_all(&out).expect("it reads");
        server.await_metric("fantail_refusals_total", "too_many_from_address", |count| count == refused);
        while secure.0.is_handshaking() {
            secure.0.complete_io(&mut stream).expect("a handshake");
        }
        secure.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", &mut stream).expect("sent");
        let mut answer = [0; 12];
        assert_eq!(secure.read(&mut answer, &mut stream).expect("an answer"), 12);
        assert_eq!(&answer, b"HTTP/1.1 429");
    }
    // A handshake without a header is no way in.
    let mut bare = dial(secure_of(&server));
    assert!(Secure::new(&usual().client, "localhost", &mut bare).1.is_err());
    server.await_metric("fantail_refusals_total", "proxy_header", |count| count == 1);
    drop(connected);
    server.await_metric("fantail_connections", "", |count| count == 0);
    assert_eq!(server.metric("fantail_inbox_bytes", ""), 0);
}

/// What the server says and does to whoever sends `bytes` behind a handshake.
fn after_handshake(server: &Server, bytes: &[u8]) -> String {
    let (mut stream, mut secure) = shake(server, &usual().client, "localhost");
    stream.write_all(bytes).expect("it reads");
    let _ = stream.shutdown(Shutdown::Write);
    let mut some = [0; 4096];
    loop {
        match read_tls(&mut secure.0, &mut stream) {
            Ok(0) | Err(_) => return "the end".to_owned(),
            Ok(_) => {}
        }
        if let Err(error) = secure.0.process_new_packets() {
            return error.to_string();
        }
        let _ = secure.0.reader().read(&mut some);
    }
}

#[test]
fn broken_records_are_answered_with_the_alert_for_them() {
    let server = start(&usual().files, &[]);
    let said = |bytes: &[u8]| after_handshake(&server, bytes);
    let record = |kind: u8, length: usize| {
        let mut bytes = vec![kind, 3, 3];
        bytes.extend_from_slice(&(length as u16).to_be_bytes());
        bytes.resize(5 + length, 0x5a);
        bytes
    };
    // RFC 8446, 5.2: a tag that does not fit, and a record that is too long.
    assert!(said(&record(23, 100)).contains("BadRecordMac"), "{}", said(&record(23, 100)));
    assert!(said(&record(23, 17_000)).contains("alert"), "{}", said(&record(23, 17_000)));
    // An oversized record is refused by its header.
    assert!(said(&[23, 3, 3, 0xff, 0xff]).contains("alert"));
    // RFC 8446, 5: no handshake in the clear, no content type that is none.
    assert!(said(&record(22, 40)).contains("alert"));
    assert!(said(&record(99, 40)).contains("alert"));
    server.await_metric("fantail_closes_total", "\"tls\"", |count| count == 5);
    // Half a record is nobody's fault.
    assert_eq!(said(&record(23, 100)[..50]), "the end");
}

#[test]
fn what_is_held_of_records_counts_and_is_given_back() {
    let server = start(&usual().files, &["--loops", "1"]);
    let (mut stream, _secure) = shake(&server, &usual().client, "localhost");
    let mut half = vec![23, 3, 3, 0x40, 0];
    half.resize(9_000, 0);
    stream.write_all(&half).expect("it reads");
    let held = server.await_metric("fantail_inbox_bytes", "", |bytes| bytes >= 9_000);
    assert!(held < 32_768, "{held}");
    drop(stream);
    server.await_metric("fantail_inbox_bytes", "", |bytes| bytes == 0);
    server.await_metric("fantail_connections", "", |count| count == 0);
}

#[test]
fn a_peer_that_reads_nothing_costs_one_begun_record() {
    let server = start(&usual().files, &["--loops", "1"]);
    let (mut stream, mut secure) = shake(&server, &usual().client, "localhost");
    let upgrade = upgrade_request(secure_of(&server), "/ws/slow", "");
    secure.send(upgrade.as_bytes(), &mut stream).expect("sent");
    server.await_metric("fantail_subscriptions", "", |count| count == 1);
    let message = vec![b'm'; 200_000];
    wait_for("the kernel to be full", || {
        assert_eq!(server.publish("slow", &message).status, 200);
        server.metric("fantail_outbox_bytes", "") > 0
    });
    // What was published and is sealed belongs to nobody else; the rest is shared.
    let mut other = server.websocket("/ws/slow");
    other.ping_pong();
    let name = "fantail_outbox_held_bytes";
    let held = server.metric(name, "");
    assert!(held > 0, "{}", server.get("/metrics").text());
    drop((stream, other));
    server.await_metric(name, "", |bytes| bytes == 0);
    server.await_metric("fantail_outbox_bytes", "", |bytes| bytes == 0);
}

#[test]
fn a_reload_brings_the_new_certificate_and_drops_nobody() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let (certificate, key) = old.sign(&["localhost"]);
    let files = Files { certificate: file("swap.pem", &certificate), key: file("swap.key", &key) };
    let server = start(&files, &["--loops", "2"]);
    let (mut stream, mut secure) = shake(&server, &old.client(), "localhost");
    secure.send(upgrade_request(secure_of(&server), "/echo", "").as_bytes(), &mut stream).expect("sent");
    // A key that is not the certificate's is refused, and all stays as it was.
    let (certificate, key) = new.sign(&["localhost"]);
    file("swap.pem", &certificate);
    server.signal("HUP");
    server.await_log("is not the key of the certificate");
    shake(&server, &old.client(), "localhost");
    file("swap.key", &key);
    server.signal("HUP");
    server.await_log("configuration reloaded");
    wait_for("the new certificate on every loop", || {
        (0..8).all(|_| Secure::new(&new.client(), "localhost", &mut dial(secure_of(&server))).1.is_ok())
    });
    secure.send(&frame(Opcode::Text, b"still here"), &mut stream).expect("sent");
    let mut heard = Vec::new();
    while !heard.ends_with(b"still here") {
        let mut some = [0; 4096];
        let count = secure.read(&mut some, &mut stream).expect("an echo");
        assert!(count > 0);
        heard.extend_from_slice(&some[..count]);
    }
}

#[test]
fn files_that_change_are_taken_by_themselves() {
    let (old, new) = (Authority::new("before"), Authority::new("after"));
    let folder = file("watched-marker", "").with_file_name("watched");
    let versions = ["one", "two"].map(|name| folder.join(name));
    for (version, authority) in versions.iter().zip([&old, &new]) {
        std::fs::create_dir_all(version).expect("a folder");
        let (certificate, key) = authority.sign(&["localhost"]);
        std::fs::write(version.join("tls.crt"), certificate).expect("a file");
        std::fs::write(version.join("tls.key"), key).expect("a file");
    }
    // As Kubernetes mounts a secret: the files are links through a link, which is replaced by a rename.
    let data = folder.join("..data");
    let turn_to = |version: &Path| {
        let next = folder.join("..next");
        std::os::unix::fs::symlink(version, &next).expect("a link");
        std::fs::rename(&next, &data).expect("a rename");
    };
    turn_to(&versions[0]);
    let files = Files { certificate: data.join("tls.crt"), key: data.join("tls.key") };
    let flags = flags(&files);
    let all: Vec<&str> = flags.iter().map(String::as_str).collect();
    let server = Server::start(&all, &[("FANTAIL_TLS_WATCH_SECONDS", "0.1")]);
    shake(&server, &old.client(), "localhost");
    let mut open = Peer::connect_plain(server.listen);
    open.upgrade("/ws/lobby");
    turn_to(&versions[1]);
    server.await_log("the files of certificates have changed");
    wait_for("the new certificate", || {
        Secure::new(&new.client(), "localhost", &mut dial(secure_of(&server))).1.is_ok()
    });
    open.ping_pong();
    assert!(server.metric("fantail_tls_certificate_expiry_timestamp_seconds", "tls.crt") > 1_700_000_000);
}

/// How a start with these files fails.
fn refusal(certificate: &str, key: &str) -> String {
    let flags = ["--tls-listen", "127.0.0.1:0", "--tls-certificate", certificate, "--tls-key", key];
    let output = on_free_ports(&flags, &[]).output().expect("the binary starts");
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    String::from_utf8(output.stderr).expect("UTF-8")
}

#[test]
fn files_that_are_of_no_use_are_refused_by_name_and_cause() {
    let authority = Authority::new("refused");
    let (certificate, key) = authority.sign(&["localhost"]);
    let (_, other_key) = authority.sign(&["localhost"]);
    let path = |name: &str, content: &str| text(&file(name, content)).to_owned();
    let (good, good_key) = (path("good.pem", &certificate), path("good.key", &key));
    let root = authority.issuer.pem();
    let encrypted = key
        .replace("BEGIN PRIVATE", "BEGIN ENCRYPTED PRIVATE")
        .replace("END PRIVATE", "END ENCRYPTED PRIVATE");
    let dated = |from: (i32, u8), to: (i32, u8)| {
        let change = |params: &mut CertificateParams| {
            params.not_before = rcgen::date_time_ymd(from.0, from.1, 1);
            params.not_after = rcgen::date_time_ymd(to.0, to.1, 1);
        };
        authority.sign_with(&["localhost"], change)
    };
    let (expired, expired_key) = dated((2001, 1), (2002, 1));
    let (early, early_key) = dated((2200, 1), (2201, 1));
    let stranger = CertificateParams::new(vec!["stranger".to_owned()]).expect("names");
    let stranger = stranger.self_signed(&KeyPair::generate().expect("a key")).expect("a certificate").pem();
    let rows = [
        (good.clone(), path("other.key", &other_key), "other.key\" is not the key of the certificate in"),
        (good.clone(), path("encrypted.key", &encrypted), "encrypted.key\" is encrypted"),
        (good.clone(), path("empty.key", ""), "empty.key\" is empty"),
        (good.clone(), good.clone(), "has a certificate and no private key"),
        (good_key.clone(), good_key.clone(), "has a private key and no certificate"),
        (path("words.pem", "words"), good_key.clone(), "words.pem\" is not PEM"),
        ("/nowhere/at.pem".to_owned(), good_key.clone(), "at.pem\" cannot be read"),
        (path("cut.pem", &certificate[..certificate.len() / 2]), good_key.clone(), "cut.pem\" is broken PEM"),
        (
            path("turned.pem", &format!("{root}{certificate}")),
            good_key.clone(),
            "turned.pem\" is in the wrong order",
        ),
        (
            path("gap.pem", &format!("{certificate}{stranger}")),
            good_key.clone(),
            "gap.pem\" has no whole chain",
        ),
        (path("old.pem", &expired), path("old.key", &expired_key), "old.pem\" has expired at"),
        (path("early.pem", &early), path("early.key", &early_key), "early.pem\" is not valid before"),
    ];
    for (certificate, key, wanted) in rows {
        let said = refusal(&certificate, &key);
        assert!(said.contains(wanted), "{wanted}: {said}");
        assert!(said.contains("tls.certificate: ") || said.contains("tls.key: "), "{said}");
    }
    // With its root behind it the chain is whole.
    let whole = path("whole.pem", &format!("{certificate}{root}"));
    let flags = ["--tls-listen", "127.0.0.1:0", "--tls-certificate", &whole, "--tls-key", &good_key];
    Server::start(&flags, &[]);
}
