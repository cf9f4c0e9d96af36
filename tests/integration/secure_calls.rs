//! Calls over TLS: to the application and for keys of an issuer, with an authority of one's own and with a wrong one.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::connect_secure::config_of;
use crate::reload::ConfigFile;
use crate::secure::{Authority, usual};
use crate::server::{PATIENCE, Server, on_free_ports, wait_for};

const KEYS: &str = include_str!("../fixtures/tokens/keys.json");
const ALLOW: &str = r#"{"allow":true,"sub":"alice","subscribe":["lobby"]}"#;

/// Answers a question of a handshake, and a request for keys; one request a connection.
struct Https {
    address: SocketAddr,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Https {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        let config = Arc::new(config_of(&usual().authority.sign(&["127.0.0.1"])));
        let ended = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&ended);
        let thread = thread::spawn(move || {
            for stream in listener.incoming() {
                if over.load(Ordering::SeqCst) {
                    return;
                }
                let config = Arc::clone(&config);
                thread::spawn(move || converse(stream.expect("a client"), config));
            }
        });
        Self { address, ended, thread: Some(thread) }
    }
}

impl Drop for Https {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        // Wakes it.
        let _ = TcpStream::connect(self.address);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// `None`: the client does not believe the certificate.
fn converse(stream: TcpStream, config: Arc<ServerConfig>) -> Option<()> {
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    let mut stream = StreamOwned::new(ServerConnection::new(config).ok()?, stream);
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let body = if head.starts_with(b"POST ") { ALLOW } else { KEYS };
    let head = format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all((head + body).as_bytes()).ok()?;
    stream.conn.send_close_notify();
    stream.flush().ok()
}

fn start(config: &ConfigFile) -> Server {
    Server::spawn(on_free_ports(
        &["--config", config.path(), "--loops", "1"],
        &[("FANTAIL_DRAIN_SECONDS", "0.1")],
    ))
}

fn status(server: &Server, path: &str) -> u16 {
    server.connect().ask_upgrade(path, "Cookie: alice\r\n").status
}

#[test]
fn the_application_is_asked_over_tls_if_its_authority_is_the_one() {
    let application = Https::start();
    let wrong = Authority::new("Somebody else's").file("wrong-backend.pem");
    for (ca, statuses, outcome) in [(usual().ca(), [101, 403], "allow"), (wrong, [503, 503], "tls")] {
        let url = format!("https://{}/ask", application.address);
        let config = ConfigFile::new(&format!("[auth]\nbackend_url = {url:?}\nbackend_ca = {ca:?}\n"));
        let server = start(&config);
        assert_eq!(["/ws/lobby", "/ws/other"].map(|path| status(&server, path)), statuses, "{outcome}");
        assert!(server.metric("fantail_backend_calls_total", &format!("\"{outcome}\"")) > 0, "{outcome}");
    }
}

#[test]
fn keys_are_fetched_over_tls_if_their_authority_is_the_one() {
    let login = Https::start();
    let wrong = Authority::new("Somebody else's").file("wrong-login.pem");
    let lines = include_str!("../fixtures/tokens/tokens.txt").lines();
    let token = lines.filter_map(|line| line.split_once(' ')).find(|(name, _)| *name == "RS256");
    let bearer = format!("Authorization: Bearer {}\r\n", token.expect("a token").1);
    for (ca, outcome, is_ready, expected) in
        [(usual().ca(), "changed", "ready", 204), (wrong, "tls", "without keys", 503)]
    {
        let url = format!("https://{}/keys", login.address);
        let config =
            ConfigFile::new(&format!("[[auth.issuer]]\njwks_url = {url:?}\njwks_ca_file = {ca:?}\n"));
        let server = start(&config);
        let outcome = format!("\"{outcome}\"");
        wait_for("a fetch", || server.metric("fantail_jwks_fetches_total", &outcome) > 0);
        wait_for(is_ready, || server.get("/readyz").text().trim() == is_ready);
        let mut peer = server.connect();
        let head = format!("GET /poll/a?wait=0 HTTP/1.1\r\nHost: x\r\n{bearer}\r\n");
        peer.send(head.as_bytes());
        assert_eq!(peer.answer().status, expected, "{outcome}");
    }
}
