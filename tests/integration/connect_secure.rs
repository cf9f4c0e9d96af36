//! `fantail connect`, `fantail publish` and `fantail health` over TLS: against the server, against servers that have the
//! wrong certificate or none, and against those that mean harm behind a handshake.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use fantail::wire::frame::Opcode;
use rcgen::{CertificateParams, KeyPair};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::connect::{Connect, answer_upgrade, in_time_to_connect, server_frame};
use crate::secure::{Authority, file, flags, usual};
use crate::server::{PATIENCE, Server, command, fails};

type Secured = StreamOwned<ServerConnection, TcpStream>;

/// What a server answers with that has this certificate.
pub(crate) fn config_of((certificate, key): &(String, String)) -> ServerConfig {
    let chain = CertificateDer::pem_slice_iter(certificate.as_bytes()).collect::<Result<Vec<_>, _>>();
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("a key");
    ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(chain.expect("PEM"), key)
        .expect("a certificate")
}

/// Serves one connection of TLS on a thread of its own.
fn serve(config: ServerConfig, act: impl FnOnce(Secured) + Send + 'static) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    let serving = thread::spawn(move || {
        let (stream, _) = listener.accept().expect("a client");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
        let connection = ServerConnection::new(Arc::new(config)).expect("a configuration");
        act(StreamOwned::new(connection, stream));
    });
    (address, serving)
}

/// A request's head.
fn head_of(stream: &mut Secured) -> String {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).expect("a request");
        head.push(byte[0]);
    }
    String::from_utf8(head).expect("UTF-8")
}

fn usual_config() -> ServerConfig {
    config_of(&usual().authority.sign(&["127.0.0.1", "localhost"]))
}

/// What `fantail` says about a server with this certificate; it must be a failure.
fn refused(config: ServerConfig, host: &str, more: &[&str]) -> String {
    let (address, serving) = serve(config, |mut stream| {
        let _ = stream.read(&mut [0; 16]);
    });
    let url = format!("wss://{host}:{}/", address.port());
    let (code, said) = fails(command(&[&["connect", "--listen", &url], more].concat(), &[]));
    assert_eq!(code, Some(1), "{said}");
    serving.join().expect("served");
    said
}

#[test]
fn lines_are_echoed_over_tls() {
    let certificate = flags(&usual().files);
    let server = Server::start(&certificate.each_ref().map(String::as_str), &[]);
    let at = server.tls.expect("a port of TLS");
    let ca = usual().ca();
    for (host, more) in [
        (at.to_string(), &["--ca", &ca][..]),
        (format!("localhost:{}", at.port()), &["--ca", &ca]),
        (at.to_string(), &["--insecure"]),
        (at.to_string(), &["--ca", &ca, "--server-name", "localhost"]),
    ] {
        let url = format!("wss://{host}/echo");
        let mut client = Connect::spawn(command(&[&["connect", &url, "--count", "2"], more].concat(), &[]));
        let large = "x".repeat(100_000);
        client.send(&format!("one\n{large}\n"));
        assert_eq!((client.line(), client.line()), ("one".to_owned(), large));
        let (code, _, said) = client.end();
        assert_eq!(code, Some(0), "{said}");
        assert!(said.contains("closed 1000"), "{said}");
    }
    // The server saw connections that ended as they should.
    server.await_metric("fantail_closes_total", "\"normal\"", |count| count == 4);
    server.await_metric("fantail_closes_total", "\"tls\"", |count| count == 0);
}

#[test]
fn a_flood_of_echoes_over_tls_is_no_deadlock() {
    let certificate = flags(&usual().files);
    let server = Server::start(&certificate.each_ref().map(String::as_str), &[]);
    let url = format!("wss://{}/echo", server.tls.expect("a port of TLS"));
    let ca = usual().ca();
    let mut client = Connect::spawn(command(&["connect", &url, "--ca", &ca, "--count", "5000"], &[]));
    let mut input = client.take_input();
    let writer = thread::spawn(move || {
        for number in 0..5_000 {
            input.write_all(format!("{number:04000}\n").as_bytes()).expect("it reads");
        }
    });
    for number in 0..5_000 {
        assert_eq!(client.line(), format!("{number:04000}"));
    }
    writer.join().expect("written");
    assert_eq!(client.end().0, Some(0));
}

#[test]
fn health_and_publish_speak_https() {
    let ca = usual().ca();
    let answer = |head: &'static str, body: &'static str| {
        serve(usual_config(), move |mut stream| {
            let asked = head_of(&mut stream);
            assert!(asked.starts_with(head), "{asked}");
            let length = body.len();
            stream
                .write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}").as_bytes())
                .expect("sent");
            // The client says goodbye, in the words of TLS.
            assert_eq!(stream.read(&mut [0; 16]).expect("close_notify"), 0);
        })
    };
    let (address, serving) = answer("GET /healthz ", "ok\n");
    let admin = format!("https://{address}");
    let output = command(&["health", "--admin", &admin, "--ca", &ca], &[]).output().expect("it runs");
    assert_eq!(output.stdout, b"ok\n", "{}", String::from_utf8_lossy(&output.stderr));
    serving.join().expect("served");
    let (address, serving) = serve(usual_config(), |mut stream| {
        let asked = head_of(&mut stream);
        assert!(
            asked.starts_with("POST /publish/lobby ")
                && asked.contains("\r\nAuthorization: Bearer s3cret\r\n")
        );
        let mut body = [0; 5];
        stream.read_exact(&mut body).expect("a message");
        assert_eq!(&body, b"hello");
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}").expect("sent");
    });
    let admin = format!("https://localhost:{}", address.port());
    let flags = ["publish", "--admin", &admin, "--ca", &ca, "lobby", "hello"];
    let output = command(&flags, &[("FANTAIL_ADMIN_KEY", "s3cret")]).output().expect("it runs");
    assert_eq!(output.stdout, b"{}", "{}", String::from_utf8_lossy(&output.stderr));
    serving.join().expect("served");
    // An answer without a length that is cut off is none.
    for (polite, code) in [(true, Some(0)), (false, Some(1))] {
        let (address, serving) = serve(usual_config(), move |mut stream| {
            head_of(&mut stream);
            stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nok").expect("sent");
            if polite {
                stream.conn.send_close_notify();
            }
            stream.flush().expect("sent");
        });
        let admin = format!("https://{address}");
        let output = command(&["health", "--admin", &admin, "--ca", &ca], &[]).output().expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), code, "{said}");
        assert!(polite || said.contains("no close_notify"), "{said}");
        serving.join().expect("served");
    }
}

#[test]
fn what_is_wrong_with_a_certificate_is_named() {
    let authority = Authority::new("an authority of tests");
    let ca = authority.file("connect-secure-ca.pem");
    let sign =
        |names: &[&str], change: fn(&mut CertificateParams)| config_of(&authority.sign_with(names, change));
    let trusting = ["--ca", ca.as_str()];
    let usual = |names: &[&str]| sign(names, |_| {});
    let said = refused(usual(&["localhost"]), "localhost", &["--ca", &crate::secure::usual().ca()]);
    assert!(said.contains("was issued by CN=an authority of tests") && said.contains("--ca FILE"), "{said}");
    let said = refused(usual(&["a.example", "b.example"]), "localhost", &trusting);
    assert!(said.contains("not for localhost, but for a.example, b.example"), "{said}");
    let said = refused(usual(&["a.example"]), "127.0.0.1", &trusting);
    assert!(said.contains("not for 127.0.0.1, but for a.example"), "{said}");
    let old = sign(&["localhost"], |params| params.not_after = rcgen::date_time_ymd(2020, 2, 3));
    let said = refused(old, "localhost", &trusting);
    assert!(said.contains("has expired at 2020-02-03T00:00:00Z"), "{said}");
    let new = sign(&["localhost"], |params| params.not_before = rcgen::date_time_ymd(2900, 1, 2));
    let said = refused(new, "localhost", &trusting);
    assert!(said.contains("is not valid before 2900-01-02T00:00:00Z") && said.contains("clock"), "{said}");
    let key = KeyPair::generate().expect("a key");
    let alone = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
    let alone = alone.self_signed(&key).expect("a certificate");
    let said = refused(config_of(&(alone.pem(), key.serialize_pem())), "localhost", &trusting);
    assert!(said.contains("signed by itself") && said.contains("--insecure"), "{said}");
    // No attempt to come back will end otherwise.
    let said = refused(usual(&["a.example"]), "localhost", &["--ca", &ca, "--reconnect"]);
    assert!(!said.contains("reconnecting"), "{said}");
    // Trust of the system, which does not know this one.
    let said = refused(usual(&["localhost"]), "localhost", &[]);
    assert!(said.contains("--ca FILE") || said.contains("no certificates of authorities"), "{said}");
}

#[test]
fn who_speaks_the_other_protocol_is_told_apart() {
    let server = Server::start(&[], &[]);
    let plain = format!("wss://{}/echo", server.listen);
    let (code, said) = fails(command(&["connect", "--insecure", &plain], &[]));
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("does not speak TLS: use ws://"), "{said}");
    let admin = format!("https://{}", server.admin);
    let (code, said) = fails(command(&["health", "--insecure", "--admin", &admin], &[]));
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("does not speak TLS"), "{said}");
    // A stranger's TLS: it answers a request that is not sealed by an alert.
    for arguments in [["connect", "ws://"], ["health", "--admin"]] {
        let (address, serving) = serve(usual_config(), |mut stream| {
            assert!(stream.conn.complete_io(&mut stream.sock).is_err());
            // The rest, so that the alert is not lost.
            let _ = stream.sock.shutdown(std::net::Shutdown::Write);
            let _ = stream.sock.read_to_end(&mut Vec::new());
        });
        let command = match arguments {
            ["connect", scheme] => command(&["connect", "--listen", &format!("{scheme}{address}/")], &[]),
            [health, admin] => command(&[health, admin, &address.to_string()], &[]),
        };
        let (code, said) = fails(command);
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("speaks TLS: use wss:// or https://"), "{said}");
        serving.join().expect("served");
    }
}

/// Notes the name that was asked for.
#[derive(Debug)]
struct Noting(Arc<CertifiedKey>, std::sync::Mutex<Option<String>>);

impl ResolvesServerCert for Noting {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        *self.1.lock().expect("alone") = hello.server_name().map(str::to_owned);
        Some(Arc::clone(&self.0))
    }
}

#[test]
fn the_name_is_asked_for_and_an_address_is_not() {
    let ca = usual().ca();
    let (certificate, key) = usual().authority.sign(&["127.0.0.1", "localhost", "other.example"]);
    let chain = CertificateDer::pem_slice_iter(certificate.as_bytes()).collect::<Result<Vec<_>, _>>();
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("a key");
    let certified = CertifiedKey::from_der(chain.expect("PEM"), key, &aws_lc_rs::default_provider());
    let certified = Arc::new(certified.expect("a certificate"));
    for (host, more, asked) in [
        ("localhost", &[][..], Some("localhost")),
        ("127.0.0.1", &[], None),
        ("127.0.0.1", &["--server-name", "other.example"], Some("other.example")),
    ] {
        let noting = Arc::new(Noting(Arc::clone(&certified), std::sync::Mutex::default()));
        let mut config = usual_config();
        config.cert_resolver = Arc::clone(&noting) as Arc<_>;
        let (address, serving) = serve(config, |mut stream| {
            head_of(&mut stream);
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").expect("sent");
        });
        let admin = format!("https://{host}:{}", address.port());
        let flags = [&["health", "--admin", &admin, "--ca", &ca], more].concat();
        let output = command(&flags, &[]).output().expect("it runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serving.join().expect("served");
        assert_eq!(noting.1.lock().expect("alone").as_deref(), asked);
    }
}

#[test]
fn a_server_may_want_to_know_the_client() {
    let clients = Authority::new("clients");
    let (certificate, key) = clients.sign(&["alice.example"]);
    let strange = Authority::new("strangers").sign(&["mallory.example"]);
    let path = |name: &str, text: &str| file(name, text).to_str().expect("UTF-8").to_owned();
    let (certificate, key) = (path("alice.pem", &certificate), path("alice.key", &key));
    let strange = path("mallory.pem", &(strange.0 + &strange.1));
    let ca = usual().ca();
    let ask = |more: &[&str]| {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let roots = Arc::new(clients.roots());
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider)).build();
        let (own, own_key) = usual().authority.sign(&["127.0.0.1"]);
        let chain = CertificateDer::pem_slice_iter(own.as_bytes()).collect::<Result<Vec<_>, _>>();
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_client_cert_verifier(verifier.expect("a verifier"))
            .with_single_cert(
                chain.expect("PEM"),
                PrivateKeyDer::from_pem_slice(own_key.as_bytes()).expect("a key"),
            )
            .expect("a certificate");
        let (address, serving) = serve(config, |mut stream| {
            if stream.conn.complete_io(&mut stream.sock).is_ok() {
                head_of(&mut stream);
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n").expect("sent");
            } else {
                let _ = stream.sock.shutdown(std::net::Shutdown::Write);
                let _ = stream.sock.read_to_end(&mut Vec::new());
            }
        });
        let admin = format!("https://{address}");
        let output = command(&[&["health", "--admin", &admin, "--ca", &ca], more].concat(), &[]).output();
        let output = output.expect("it runs");
        serving.join().expect("served");
        (output.status.code(), String::from_utf8(output.stderr).expect("UTF-8"))
    };
    assert_eq!(ask(&["--certificate", &certificate, "--key", &key]).0, Some(0));
    let (code, said) = ask(&[]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("wants a certificate of the client: name one with --certificate"), "{said}");
    let (code, said) = ask(&["--certificate", &strange]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("--certificate"), "{said}");
}

#[test]
fn flags_and_files_of_no_use_are_wrong_usage() {
    let (certificate, _) = usual().authority.sign(&["a"]);
    let (_, other) = usual().authority.sign(&["b"]);
    let path = |name: &str, text: &str| file(name, text).to_str().expect("UTF-8").to_owned();
    let (certificate, other) = (path("misuse.pem", &certificate), path("misuse.key", &other));
    let empty = path("misuse-empty.pem", "");
    let locked = path(
        "misuse-locked.key",
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAA==\n-----END ENCRYPTED PRIVATE KEY-----\n",
    );
    let (wss, ca) = ("wss://127.0.0.1:1/", usual().ca());
    for (flags, part) in [
        (&["ws://127.0.0.1:1/", "--ca", &ca][..], "--ca: is for TLS"),
        (&["ws://127.0.0.1:1/", "--insecure"], "--insecure: is for TLS"),
        (&[wss, "--ca", "/nonexistent"], "cannot be read"),
        (&[wss, "--ca", &empty], "has no certificate"),
        (&[wss, "--insecure", "--ca", &ca], "--insecure"),
        (&[wss, "--ca", &ca, "--key", &other], "--certificate"),
        (&[wss, "--ca", &ca, "--certificate", &certificate], "name its file with --key"),
        (
            &[wss, "--ca", &ca, "--certificate", &certificate, "--key", &other],
            "is not the key of --certificate",
        ),
        (&[wss, "--ca", &ca, "--certificate", &certificate, "--key", &locked], "is encrypted"),
        (&[wss, "--ca", &ca, "--server-name", "a b"], "not a name"),
    ] {
        let (code, said) = fails(command(&[&["connect"], flags].concat(), &[]));
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains(part), "{part}: {said}");
    }
    let (code, said) = fails(command(&["health", "--admin", "127.0.0.1:1", "--ca", &ca], &[]));
    assert_eq!(code, Some(2), "{said}");
}

#[test]
fn a_handshake_that_does_not_end_has_a_time() {
    for drips in [false, true] {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        let serving = thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a client");
            // A record that is never whole.
            let _ = stream.write_all(&[22, 3, 3, 0x40, 0]);
            while drips && stream.write_all(&[0]).is_ok() {
                thread::sleep(Duration::from_millis(20));
            }
            let _ = stream.read_to_end(&mut Vec::new());
        });
        let started = Instant::now();
        let admin = format!("https://{address}");
        let (code, said) =
            fails(command(&["health", "--insecure", "--timeout", "1", "--admin", &admin], &[]));
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("no end of the TLS handshake in time"), "{said}");
        assert!(started.elapsed() < PATIENCE);
        serving.join().expect("served");
    }
}

#[test]
fn a_server_that_floods_or_breaks_records_does_not_put_off_the_end() {
    let ca = usual().ca();
    // Pings without end, behind a handshake in order.
    let flood = |mut stream: Secured| {
        let head = head_of(&mut stream);
        stream.write_all(&answer_upgrade(&head)).expect("sent");
        let pings = server_frame(Opcode::Ping, b"").repeat(4096);
        let mut reading = stream.sock.try_clone().expect("a copy");
        let reader = thread::spawn(move || {
            let mut some = vec![0; 64 << 10];
            while reading.read(&mut some).is_ok_and(|count| count > 0) {}
        });
        while stream.conn.writer().write_all(&pings).is_ok() {
            let mut ended = false;
            while stream.conn.wants_write() && !ended {
                ended = stream.conn.write_tls(&mut stream.sock).is_err();
            }
            if ended {
                break;
            }
        }
        reader.join().expect("read");
    };
    let started = Instant::now();
    let (code, _, said) = in_time_to_connect(|time| {
        let (address, serving) = serve(usual_config(), flood);
        let url = format!("wss://{address}/");
        let client = command(&["connect", "--listen", "--timeout", time, "--ca", &ca, &url], &[]);
        let ended = Connect::spawn(client).end();
        // Whoever did not connect may have left in the middle of it.
        let _ = serving.join();
        ended
    });
    assert!(code == Some(0) || said.contains("did not answer the close frame"), "{code:?} {said}");
    assert!(started.elapsed() < PATIENCE, "{:?}", started.elapsed());
    // Records that nobody sealed: the client tells the server and ends.
    let (address, serving) = serve(usual_config(), |mut stream| {
        let head = head_of(&mut stream);
        stream.write_all(&answer_upgrade(&head)).expect("sent");
        stream.write_all(&server_frame(Opcode::Text, b"before")).expect("sent");
        stream.sock.write_all(&[23, 3, 3, 0, 32]).expect("sent");
        stream.sock.write_all(&[0x5a; 32]).expect("sent");
        let error = stream.read(&mut [0; 16]).expect_err("an alert").to_string();
        assert!(error.contains("BadRecordMac"), "{error}");
    });
    let url = format!("wss://{address}/");
    let client = Connect::spawn(command(&["connect", "--listen", "--ca", &ca, &url], &[]));
    let (code, out, said) = client.end();
    assert_eq!((code, out), (Some(1), vec!["before".to_owned()]), "{said}");
    assert!(said.contains("the server broke the TLS protocol"), "{said}");
    serving.join().expect("served");
}

#[test]
fn a_key_update_is_followed_and_a_flood_of_them_is_not() {
    let ca = usual().ca();
    let (address, serving) = serve(usual_config(), |mut stream| {
        let head = head_of(&mut stream);
        stream.write_all(&answer_upgrade(&head)).expect("sent");
        for round in 0..3 {
            stream.conn.refresh_traffic_keys().expect("TLS 1.3");
            stream.write_all(&server_frame(Opcode::Text, format!("round {round}").as_bytes())).expect("sent");
        }
        stream.write_all(&server_frame(Opcode::Close, &1000_u16.to_be_bytes())).expect("sent");
        stream.flush().expect("sent");
        // The client's answer under its own new keys.
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).expect("close_notify");
        assert_eq!(heard.len(), 8, "a masked close frame: {heard:?}");
    });
    let url = format!("wss://{address}/");
    let (code, out, said) = Connect::spawn(command(&["connect", "--listen", "--ca", &ca, &url], &[])).end();
    assert_eq!(
        (code, out),
        (Some(0), ["round 0", "round 1", "round 2"].map(str::to_owned).to_vec()),
        "{said}"
    );
    serving.join().expect("served");
    let (address, serving) = serve(usual_config(), |mut stream| {
        let head = head_of(&mut stream);
        stream.write_all(&answer_upgrade(&head)).expect("sent");
        let mut sent = || {
            stream.conn.refresh_traffic_keys().expect("TLS 1.3");
            while stream.conn.wants_write() {
                stream.conn.write_tls(&mut stream.sock)?;
            }
            std::io::Result::Ok(())
        };
        while sent().is_ok() {}
    });
    let url = format!("wss://{address}/");
    let (code, _, said) = Connect::spawn(command(&["connect", "--listen", "--ca", &ca, &url], &[])).end();
    assert_eq!(code, Some(1), "{said}");
    serving.join().expect("served");
}
