//! The floor of a handshake over TLS: one listener, one edge-triggered epoll, and per connection rustls' own buffered
//! `ServerConnection` as its examples drive it, the accept key, one 101. The socket is kept until its peer leaves. No
//! timeout, no limit, nothing behind the 101. Arguments: certificate and key. The backend is a feature of the build.

use std::env;
use std::error::Error;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::sync::Arc;

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{CipherSuite, ServerConfig, ServerConnection};
use tungstenite::handshake::derive_accept_key;

#[cfg(feature = "aws-lc-rs")]
use rustls::crypto::aws_lc_rs as backend;
#[cfg(all(feature = "ring", not(feature = "aws-lc-rs")))]
use rustls::crypto::ring as backend;

const LISTENER: Token = Token(usize::MAX);

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = env::args().skip(1).collect();
    let [certificate, key] = &words[..] else { return Err("certificate and key".into()) };
    let chain = CertificateDer::pem_file_iter(certificate)?.collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_file(key)?;
    // What a server is spared by its configuration is no merit of its code: suite and tickets are Fantail's.
    let mut provider = backend::default_provider();
    let first = CipherSuite::TLS13_AES_128_GCM_SHA256;
    provider.cipher_suites.sort_by_key(|suite| suite.suite() != first);
    let builder = ServerConfig::builder_with_provider(Arc::new(provider));
    let builder = builder.with_safe_default_protocol_versions()?;
    let mut config = builder.with_no_client_auth().with_single_cert(chain, key)?;
    config.ignore_client_order = true;
    config.ticketer = backend::Ticketer::new()?;
    config.send_tls13_tickets = 1;
    let config = Arc::new(config);

    let mut poll = Poll::new()?;
    let mut listener = TcpListener::bind("127.0.0.1:0".parse()?)?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let address = listener.local_addr()?;
    println!("fantail ready listen={address} admin=- pid={} tls={address}", std::process::id());
    let mut peers: Vec<Option<Peer>> = Vec::new();
    let mut events = Events::with_capacity(1024);
    loop {
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            other => other?,
        }
        for event in &events {
            if event.token() == LISTENER {
                accept_all(&listener, &poll, &config, &mut peers)?;
            } else if let Some(place) = peers.get_mut(event.token().0)
                && place.as_mut().is_some_and(|peer| peer.go_on().is_err())
            {
                *place = None;
            }
        }
    }
}

fn accept_all(
    listener: &TcpListener,
    poll: &Poll,
    config: &Arc<ServerConfig>,
    peers: &mut Vec<Option<Peer>>,
) -> Result<(), Box<dyn Error>> {
    loop {
        let mut socket = match listener.accept() {
            Ok((socket, _)) => socket,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        socket.set_nodelay(true)?;
        let descriptor = socket.as_raw_fd() as usize;
        poll.registry().register(&mut socket, Token(descriptor), Interest::READABLE)?;
        if peers.len() <= descriptor {
            peers.resize_with(descriptor + 1, || None);
        }
        let tls = ServerConnection::new(Arc::clone(config))?;
        peers[descriptor] = Some(Peer { socket, tls, answered: false });
    }
}

struct Peer {
    socket: TcpStream,
    tls: ServerConnection,
    answered: bool,
}

impl Peer {
    /// Reads what there is. An error ends the connection.
    fn go_on(&mut self) -> Result<(), Box<dyn Error>> {
        loop {
            match self.tls.read_tls(&mut self.socket) {
                Ok(0) => return Err("it has left".into()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            }
            let state = self.tls.process_new_packets()?;
            if state.plaintext_bytes_to_read() > 0 {
                let mut head = vec![0; state.plaintext_bytes_to_read()];
                self.tls.reader().read_exact(&mut head)?;
                if !self.answered {
                    self.answered = true;
                    self.tls.writer().write_all(answer(&head).ok_or("no upgrade")?.as_bytes())?;
                }
            }
            while self.tls.wants_write() {
                self.tls.write_tls(&mut self.socket)?;
            }
        }
    }
}

/// The answer to an upgrade request (RFC 6455, 4.2.2).
fn answer(head: &[u8]) -> Option<String> {
    let key = head.split(|&byte| byte == b'\n').find_map(|line| {
        let (name, value) = line.split_at_checked(18)?;
        name.eq_ignore_ascii_case(b"sec-websocket-key:").then(|| value.trim_ascii())
    })?;
    Some(format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: {}\r\n\r\n",
        derive_accept_key(key)
    ))
}
