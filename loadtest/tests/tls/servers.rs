//! TLS servers for the tests. Each listens on a free port and ends with the process.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned, SupportedProtocolVersion};
use tungstenite::WebSocket;
use tungstenite::handshake::server::{Request, Response};

pub(crate) type Stream = StreamOwned<ServerConnection, TcpStream>;

pub(crate) static TLS_1_2: &[&SupportedProtocolVersion] = &[&rustls::version::TLS12];
pub(crate) static TLS_1_3: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];

/// The path of a file in `certificates/`.
pub(crate) fn certificate(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tls/certificates").join(file);
    path.to_str().unwrap().to_owned()
}

/// How a server speaks TLS.
#[derive(Clone, Copy)]
pub(crate) struct Tls {
    /// The file with its certificate and its key, without the ending.
    pub(crate) certificate: &'static str,
    pub(crate) versions: &'static [&'static SupportedProtocolVersion],
    /// Whether it ends each connection a moment after the upgrade, and whether with a close_notify.
    pub(crate) ends: Option<bool>,
}

impl Tls {
    pub(crate) fn new(certificate: &'static str) -> Self {
        Self { certificate, versions: rustls::ALL_VERSIONS, ends: None }
    }

    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        let chain = CertificateDer::pem_file_iter(certificate(&format!("{}.pem", self.certificate)));
        let chain = chain.unwrap().map(|one| one.unwrap()).collect();
        let key = PrivateKeyDer::from_pem_file(certificate(&format!("{}.key", self.certificate))).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(self.versions)
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key);
        Arc::new(config.unwrap())
    }
}

/// A server's side of TLS over a connection that was just accepted.
pub(crate) fn secured(stream: TcpStream, config: &Arc<ServerConfig>) -> Stream {
    stream.set_nodelay(true).unwrap();
    StreamOwned::new(ServerConnection::new(config.clone()).unwrap(), stream)
}

/// Serves `/echo`; on any other path connections are subscribers, and with `?echo=0` publishers.
pub(crate) fn echo_and_fan_out(tls: Tls) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let config = tls.config();
    let subscribers: Arc<Mutex<Vec<WebSocket<Stream>>>> = Arc::default();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = secured(stream.unwrap(), &config);
            let subscribers = subscribers.clone();
            thread::spawn(move || serve(stream, tls.ends, &subscribers));
        }
    });
    address
}

#[expect(clippy::result_large_err, reason = "the callback's type is the library's")]
fn serve(stream: Stream, ends: Option<bool>, subscribers: &Mutex<Vec<WebSocket<Stream>>>) {
    let mut path = String::new();
    let callback = |request: &Request, response: Response| {
        path = request.uri().to_string();
        Ok(response)
    };
    // A client that does not like the certificate is gone by now.
    let Ok(mut socket) = tungstenite::accept_hdr(stream, callback) else { return };
    if let Some(says_goodbye) = ends {
        let stream = socket.get_mut();
        if says_goodbye {
            stream.conn.send_close_notify();
            let _ = stream.flush();
        }
        let _ = stream.sock.shutdown(std::net::Shutdown::Write);
        // Until the client has seen it: closing with input unread would be a reset.
        let _ = stream.sock.read(&mut [0; 1024]);
        return;
    }
    if path != "/echo" && !path.ends_with("?echo=0") {
        subscribers.lock().unwrap().push(socket);
        return;
    }
    while let Ok(message) = socket.read() {
        if !message.is_text() && !message.is_binary() {
            continue;
        }
        if path == "/echo" {
            let _ = socket.send(message);
            continue;
        }
        // Subscribers of an earlier run have gone.
        subscribers.lock().unwrap().retain_mut(|other| other.send(message.clone()).is_ok());
    }
}

/// Waits for the client's first bytes, answers these, and ends the connection in order.
pub(crate) fn misbehaving(answer: Vec<u8>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, answer) = (stream.unwrap(), answer.clone());
            thread::spawn(move || {
                let mut chunk = [0; 4096];
                let _ = stream.read(&mut chunk);
                let _ = stream.write_all(&answer);
                let _ = stream.shutdown(std::net::Shutdown::Write);
                stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
                while stream.read(&mut chunk).is_ok_and(|count| count > 0) {}
            });
        }
    });
    address
}
