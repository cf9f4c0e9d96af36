//! What handshakes over TLS leave to those who are served: counted in steps, by a clock that each look moves on.

use std::io::{ErrorKind, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Instant, SystemTime};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use super::*;
use crate::transport::tls::config::{Files, Sources, TlsConfig};
use crate::transport::tls::tickets::Tickets;
use crate::transport::{Stream, Tally};

const PATIENCE: Duration = Duration::from_secs(20);

fn files(name: &str) -> String {
    format!("{}/loadtest/tests/tls/certificates/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// A loop that answers ClientHellos, its clock, and where streams of it come from.
struct Loop {
    core: Core<Stream>,
    listener: TcpListener,
    client: Arc<ClientConfig>,
    /// The server's end of the newest connection.
    newest: Option<TcpStream>,
}

impl Loop {
    fn new(clock: fn() -> u64) -> Self {
        Self::with("server", "ca", clock)
    }

    /// With this certificate, which clients believe because of `root`.
    fn with(name: &str, root: &str, clock: fn() -> u64) -> Self {
        let edition = edition(1, 1_000, RouterLimits::default(), |_| {});
        let mut core: Core<Stream> = Core::new(0, Port::Client, edition).unwrap();
        core.set_clock(clock);
        let [certificate, key] = ["pem", "key"].map(|kind| files(&format!("{name}.{kind}")));
        let own = Files { certificate, key, ocsp: None };
        let sources = Sources { certificates: vec![own], ..Sources::default() };
        let config = TlsConfig::read(&sources, &Tickets::default(), true, SystemTime::now()).unwrap();
        core.transport_mut().set_config(Some(&config));
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(files(&format!("{root}.pem"))).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let client = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let client = Arc::new(client.unwrap().with_root_certificates(roots).with_no_client_auth());
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        Self { core, listener, client, newest: None }
    }

    /// A connection on which `said` has arrived.
    fn arrives(&mut self, said: &[u8], secure: bool) -> (Key, TcpStream) {
        self.arrives_as(said, secure, false)
    }

    /// The same, as one of a proxy that tells first for whom it connects.
    fn arrives_as(&mut self, said: &[u8], secure: bool, proxied: bool) -> (Key, TcpStream) {
        let mut client = TcpStream::connect(self.listener.local_addr().unwrap()).unwrap();
        client.write_all(said).unwrap();
        let (server, peer) = self.listener.accept().unwrap();
        // Until it is there.
        server.peek(&mut [0]).unwrap();
        server.set_nonblocking(true).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        self.newest = Some(server.try_clone().unwrap());
        let stream = if secure { Stream::secure(server) } else { Stream::plain(server) };
        let mut arrival = self.core.admit(peer.ip(), false);
        if proxied {
            arrival.flags.set(Flags::PROXY_DUE);
        }
        (self.core.on_accepted(stream.unwrap(), arrival), client)
    }

    fn client_hello(&mut self) -> (Key, TcpStream) {
        let (key, stream, _) = self.client_of_its_own();
        (key, stream)
    }

    fn client_of_its_own(&mut self) -> (Key, TcpStream, ClientConnection) {
        let (client, hello) = self.hello();
        let (key, stream) = self.arrives(&hello, true);
        (key, stream, client)
    }

    fn hello(&self) -> (ClientConnection, Vec<u8>) {
        let mut hello = Vec::new();
        let name = "localhost".try_into().unwrap();
        let mut client = ClientConnection::new(Arc::clone(&self.client), name).unwrap();
        client.write_tls(&mut hello).unwrap();
        (client, hello)
    }

    /// What the stream of a connection has read.
    fn read(&mut self, key: Key, room: &mut [u8]) -> io::Result<Received> {
        self.core.slots.get(key).unwrap().stream.read(&mut self.core.transport, room)
    }

    /// A client that has sent its Finished and `said` in one piece, which is there, and has read nothing since.
    fn finishes(&mut self, said: &[u8]) -> (Key, TcpStream, ClientConnection) {
        let (key, mut stream, mut client) = self.client_of_its_own();
        assert_eq!(self.read(key, &mut [0; 1_024]).unwrap(), Received::Nothing, "one call for a flight");
        while client.is_handshaking() {
            client.read_tls(&mut stream).unwrap();
            client.process_new_packets().unwrap();
        }
        client.writer().write_all(said).unwrap();
        let mut wire = Vec::new();
        while client.write_tls(&mut wire).unwrap() > 0 {}
        stream.write_all(&wire).unwrap();
        self.await_bytes(wire.len());
        (key, stream, client)
    }

    /// Waits until so many bytes have come to the newest connection.
    fn await_bytes(&self, count: usize) {
        let until = Instant::now() + PATIENCE;
        let mut room = vec![0; count];
        while self.newest.as_ref().unwrap().peek(&mut room).ok() != Some(count) {
            assert!(Instant::now() < until, "it is on its way");
            std::thread::yield_now();
        }
    }

    /// Waits until the end of the newest connection's stream has come, whatever lies before it.
    fn await_end(&self) {
        let mut server = mio::net::TcpStream::from_std(self.newest.as_ref().unwrap().try_clone().unwrap());
        let (mut poll, mut events) = (mio::Poll::new().unwrap(), mio::Events::with_capacity(4));
        poll.registry().register(&mut server, mio::Token(0), mio::Interest::READABLE).unwrap();
        let until = Instant::now() + PATIENCE;
        while !events.iter().any(mio::event::Event::is_read_closed) {
            let left = until.checked_duration_since(Instant::now()).expect("the end is on its way");
            poll.poll(&mut events, Some(left)).unwrap();
        }
    }

    /// Whether the ClientHello of this connection was answered.
    fn is_answered(&mut self, key: Key) -> bool {
        self.core.slots.get(key).unwrap().stream.is_answered(&self.core.transport)
    }

    /// ClientHellos that were looked at.
    fn begun(&self) -> u64 {
        self.core.transport.tally().under_way
    }
}

fn moved_on_by(ns: u64) -> u64 {
    NOW_NS.set(NOW_NS.get() + ns);
    NOW_NS.get()
}

#[test]
fn a_handshake_that_takes_longer_than_a_turn_may_is_alone_in_its_turn() {
    // What RSA of 4,096 bits takes.
    let mut turning = Loop::new(|| moved_on_by(3_000_000));
    let peers: Vec<_> = (0..6).map(|_| turning.client_hello()).collect();
    peers.iter().for_each(|(key, _)| turning.core.on_event(*key, READABLE));
    assert_eq!(turning.begun(), 0, "events only list them");
    for turn in 1..=peers.len() {
        assert!(turning.core.has_work(), "the loop does not sleep on them");
        turning.core.handshake_turn();
        assert_eq!(turning.begun(), turn as u64);
    }
    assert!(!turning.core.has_work());
}

#[test]
fn with_a_key_of_4096_bits_a_signature_is_alone_in_its_turn() {
    let mut turning = Loop::with("rsa4096", "rsa4096", || moved_on_by(3_000_000));
    let mut peers: Vec<_> = (0..6).map(|_| turning.client_of_its_own()).collect();
    peers.iter().for_each(|(key, ..)| turning.core.on_event(*key, READABLE));
    assert_eq!(turning.begun(), 0, "events only list them");
    for turn in 1..=peers.len() {
        turning.core.handshake_turn();
        assert_eq!(turning.begun(), turn as u64, "one signature a turn");
    }
    assert!(!turning.core.has_work());
    // Each has got the signature, and believes it.
    for (_, stream, client) in &mut peers {
        while client.is_handshaking() {
            assert!(client.read_tls(stream).unwrap() > 0);
            client.process_new_packets().unwrap();
        }
        assert_eq!(client.peer_certificates().unwrap().len(), 1);
    }
}

#[test]
fn handshakes_have_their_time_of_a_turn_and_no_more() {
    // What ECDSA takes: of one millisecond there are ten, and the clock is asked at the beginning, too.
    let mut turning = Loop::new(|| moved_on_by(100_000));
    let peers: Vec<_> = (0..40).map(|_| turning.client_hello()).collect();
    peers.iter().for_each(|(key, _)| turning.core.on_event(*key, READABLE));
    for turn in 1..=4 {
        turning.core.handshake_turn();
        assert_eq!(turning.begun(), 10 * turn);
    }
    assert!(!turning.core.has_work());
}

#[test]
fn who_is_served_waits_behind_no_handshake() {
    let mut turning = Loop::new(|| moved_on_by(100_000));
    let (served, _client) = turning.arrives(&upgrade("/echo", ""), false);
    let secure: Vec<_> = (0..40).map(|_| turning.client_hello()).collect();
    secure.iter().for_each(|(key, _)| turning.core.on_event(*key, READABLE));
    turning.core.on_event(served, READABLE);
    assert!(
        turning.core.slots.get(served).unwrap().connection.is_open(),
        "the last of the poll, and at once"
    );
    assert_eq!(turning.begun(), 0);
}

#[test]
fn a_first_flight_is_not_answered_once_its_time_is_over() {
    let mut turning = Loop::with("rsa4096", "rsa4096", || moved_on_by(3_000_000));
    let peers: Vec<_> = (0..6).map(|_| turning.client_hello()).collect();
    peers.iter().for_each(|(key, _)| turning.core.on_event(*key, READABLE));
    turning.core.set_now(1_000);
    turning.core.sweep();
    assert_eq!(
        (turning.core.connections(), turning.core.transport.tally()),
        (0, Tally::default()),
        "it cost nothing"
    );
    turning.core.handshake_turn();
    assert!(!turning.core.has_work());
}

#[test]
fn last_flights_that_come_with_their_deadline_have_the_time_of_handshakes_and_are_served() {
    let mut turning = Loop::new(|| moved_on_by(3_000_000));
    let peers: Vec<_> = (0..6).map(|_| turning.finishes(&upgrade("/echo", ""))).collect();
    turning.core.set_now(1_000);
    for turn in 1..=peers.len() {
        turning.core.sweep();
        let open = peers
            .iter()
            .filter(|(key, ..)| turning.core.slots.get(*key).is_some_and(|slot| slot.connection.is_open()));
        assert_eq!(open.count(), turn, "one a turn");
        assert_eq!(turning.core.has_work(), turn < peers.len());
    }
}

#[test]
fn no_list_but_their_own_takes_a_step_of_a_handshake() {
    let mut turning = Loop::new(|| moved_on_by(100_000));
    let (key, _client) = turning.client_hello();
    turning.core.list_ready(key);
    turning.core.run_ready();
    assert_eq!(turning.begun(), 0, "nor does the ready list");
    assert!(turning.core.has_work(), "it was put aside");
    turning.core.handshake_turn();
    assert_eq!(turning.begun(), 1);
    turning.core.run_ready();
    turning.core.handshake_turn();
    assert!(!turning.core.has_work());
}

#[test]
fn behind_the_header_of_a_proxy_a_handshake_waits_as_any_other() {
    let mut turning = Loop::new(|| moved_on_by(100_000));
    let (_, hello) = turning.hello();
    let said = [b"PROXY TCP4 203.0.113.7 127.0.0.1 40000 443\r\n", &hello[..]].concat();
    let (key, _client) = turning.arrives_as(&said, true, true);
    turning.core.on_event(key, READABLE);
    turning.core.handshake_turn();
    assert!(!turning.is_answered(key), "the header was read, and what came behind it lies there");
    turning.core.run_ready();
    assert!(!turning.is_answered(key), "the ready list is for those who are served");
    turning.core.handshake_turn();
    assert!(turning.is_answered(key));
}

#[test]
fn what_is_unread_of_a_handshake_as_its_connection_ends_is_thrown_away() {
    let mut turning = Loop::with("rsa4096", "rsa4096", || moved_on_by(3_000_000));
    let (unread, mut silent) = turning.client_hello();
    // The other one was answered, and its last flight lies there.
    let (half, mut stream, _client) = turning.finishes(&upgrade("/echo", ""));
    // What that has cost is no turn's.
    turning.core.take_effort();
    for key in [unread, half] {
        turning.core.end(key, CloseReason::Drain, Words::Nothing);
        turning.core.on_event(key, READABLE);
    }
    turning.core.run_ready();
    turning.core.handshake_turn();
    let Tally { full, left, under_way, .. } = turning.core.transport.tally();
    assert_eq!((full, left, under_way), ([0, 0], 2, 0), "nobody would hear of it");
    assert_eq!(
        turning.core.connections(),
        2,
        "both linger: to sign, and to fail to say so, would have ended them"
    );
    assert!(!turning.core.has_work());
    // A ClientHello is met by the end of the stream and by nothing else.
    assert_eq!(io::Read::read(&mut silent, &mut [0; 64]).unwrap(), 0);
    assert_eq!(io::Read::read(&mut stream, &mut [0; 64]).unwrap(), 0);
    drop((silent, stream));
    let until = Instant::now() + PATIENCE;
    while turning.core.connections() > 0 {
        assert!(Instant::now() < until, "the ends were not seen");
        [unread, half].into_iter().for_each(|key| turning.core.on_event(key, ENDED));
    }
    assert_eq!(turning.core.transport.tally().left, 2, "each once");
}

#[test]
fn an_end_that_comes_behind_a_handshake_that_was_given_up_is_seen_by_the_list_it_waits_in() {
    let mut turning = Loop::new(|| moved_on_by(100_000));
    let (key, client) = turning.client_hello();
    turning.core.on_event(key, READABLE);
    turning.core.end(key, CloseReason::Drain, Words::Nothing);
    drop(client);
    turning.await_end();
    turning.core.on_event(key, ENDED);
    turning.core.handshake_turn();
    turning.core.run_ready();
    assert_eq!(turning.core.connections(), 0);
}

#[test]
fn an_end_that_comes_behind_a_handshake_that_the_sweep_has_finished_is_seen_by_the_list_it_waits_in() {
    let mut turning = Loop::new(|| moved_on_by(100_000));
    let (key, mut stream, mut client) = turning.finishes(&upgrade("/echo", ""));
    turning.core.on_event(key, READABLE);
    turning.core.set_now(1_000);
    turning.core.sweep();
    assert!(turning.core.slots.get(key).unwrap().connection.is_open());
    // A ping, and the end without a close_notify.
    client.writer().write_all(&[0x89, 0x80, 0, 0, 0, 0]).unwrap();
    while client.wants_write() {
        client.write_tls(&mut stream).unwrap();
    }
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    turning.await_end();
    turning.core.on_event(key, ENDED);
    turning.core.handshake_turn();
    turning.core.run_ready();
    assert_eq!(turning.core.connections(), 0);
}

#[test]
fn an_end_that_comes_while_a_handshake_waits_is_not_missed() {
    let mut turning = Loop::new(|| moved_on_by(100_000));
    let (key, client) = turning.client_hello();
    let (gone, _) = turning.client_hello();
    turning.core.on_event(key, READABLE);
    turning.core.on_event(gone, READABLE);
    turning.core.abort(gone, CloseReason::Admin);
    drop(client);
    let until = Instant::now() + PATIENCE;
    while turning.core.connections() > 0 {
        assert!(Instant::now() < until, "the end was not seen");
        turning.core.on_event(key, ENDED);
        turning.core.handshake_turn();
        turning.core.run_ready();
    }
    assert!(!turning.core.has_work());
}

#[test]
fn tickets_go_with_the_answer() {
    let mut turning = Loop::new(|| moved_on_by(0));
    let (key, stream, mut client) = turning.finishes(b"a question");
    let mut room = [0; 1_024];
    let Received::Bytes { count, .. } = turning.read(key, &mut room).unwrap() else { panic!("bytes") };
    assert_eq!(&room[..count], b"a question");
    stream.set_nonblocking(true).unwrap();
    let nothing = stream.peek(&mut room).unwrap_err();
    assert_eq!(nothing.kind(), ErrorKind::WouldBlock, "nothing has left");
    let Core { slots, transport, .. } = &mut turning.core;
    let own = &mut slots.get(key).unwrap().stream;
    assert!(own.pending(transport));
    assert_eq!(own.write(transport, b"an answer").unwrap(), 9);
    assert!(!own.pending(transport));
    stream.set_nonblocking(false).unwrap();
    heard(&mut client, stream, b"an answer");
}

#[test]
fn tickets_go_without_an_answer_too() {
    let mut turning = Loop::new(|| moved_on_by(0));
    // The beginning of a request is no question yet.
    let (key, mut stream, mut client) = turning.finishes(b"GET /");
    turning.core.on_event(key, READABLE);
    turning.core.handshake_turn();
    assert!(turning.core.slots.get(key).is_some_and(|slot| !slot.connection.has_backlog()));
    assert!(client.read_tls(&mut stream).unwrap() > 0, "a client waits for them, perhaps");
    client.process_new_packets().unwrap();
    assert_eq!(client.tls13_tickets_received(), 1);
}

/// Reads until all of this has come, and a ticket.
fn heard(client: &mut ClientConnection, mut stream: TcpStream, wanted: &[u8]) {
    let mut heard = Vec::new();
    while heard.len() < wanted.len() {
        assert!(client.read_tls(&mut stream).unwrap() > 0);
        client.process_new_packets().unwrap();
        let mut some = [0; 64];
        while let Ok(count @ 1..) = io::Read::read(&mut client.reader(), &mut some) {
            heard.extend_from_slice(&some[..count]);
        }
    }
    assert_eq!((&heard[..], client.tls13_tickets_received()), (wanted, 1));
}
