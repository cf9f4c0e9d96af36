//! What handshakes hold that are begun and not ended, counted by the allocator, beside what the loop counts for them in
//! `limits.inbox_bytes_total`. What this thread alone allocates is counted, and of that what Rust does: the cryptography has an
//! allocator of its own, for some 1,400 bytes each, which `benches/tls.py half` sees by the process.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use fantail::sys::socket::unread_bytes;
use fantail::transport::tls::Tls;
use fantail::transport::tls::clients::ClientFiles;
use fantail::transport::tls::config::{Files, Sources, TlsConfig};
use fantail::transport::tls::tickets::Tickets;
use fantail::transport::{Beside as _, Fault, Received, Socket as _, Stream};
use fantail_test_support::counting_alloc::CountingAllocator;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, RootCertStore, SupportedProtocolVersion};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

const PATIENCE: Duration = Duration::from_secs(20);

/// The content type of a handshake (RFC 8446, 5.1).
const HANDSHAKE: u8 = 22;

const HANDSHAKES: usize = 16;

/// What docs/tls.md says that one takes beside what is counted, 8 KiB, but for what the cryptography may have of it.
const OWN_BYTES_MAX: usize = 6 * 1024;

/// What it says that comes on top where clients are asked for certificates: what was said so far, which rustls keeps in a
/// buffer that doubles.
const SAID_BYTES_MAX: usize = 64 * 1024;

/// Bytes of a flight of the peer's.
const FLIGHT_BYTES_MAX: usize = 32 * 1024;

fn file(name: &str) -> String {
    format!("{}/loadtest/tests/tls/certificates/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// One loop's streams, and where they come from.
struct Serving {
    tls: Tls,
    listener: TcpListener,
    room: Vec<u8>,
}

impl Serving {
    fn new(lean: bool, asks: bool) -> Self {
        let own = Files { certificate: file("server.pem"), key: file("server.key"), ocsp: None };
        let authorities = if asks { vec![file("ca.pem")] } else { Vec::new() };
        let clients = ClientFiles { authorities, required: asks, ..ClientFiles::default() };
        let sources = Sources { certificates: vec![own], clients, ..Sources::default() };
        let now = SystemTime::now();
        let config = TlsConfig::read(&sources, &Tickets::default(), lean, now).expect("certificates");
        let mut tls = Tls::default();
        tls.set_config(Some(&config));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        Self { tls, listener, room: vec![0; 64 * 1024] }
    }

    fn connect(&self) -> Peer {
        let client = TcpStream::connect(self.listener.local_addr().expect("a port")).expect("it listens");
        client.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        // Or a second piece waits until the first is acknowledged.
        client.set_nodelay(true).expect("an option");
        let (server, _) = self.listener.accept().expect("it has connected");
        server.set_nonblocking(true).expect("a socket");
        let kernels = server.try_clone().expect("a descriptor");
        Peer { client, server: Stream::secure(server).expect("a socket"), kernels }
    }

    /// What comes of `said`, once all of it is there.
    fn hears(&mut self, peer: &mut Peer, said: &[u8]) -> Received {
        peer.client.write_all(said).expect("the kernel takes it");
        let until = Instant::now() + PATIENCE;
        while unread_bytes(&peer.kernels).expect("a socket") < said.len() {
            assert!(Instant::now() < until, "it is on its way");
            std::thread::yield_now();
        }
        peer.server.read(&mut self.tls, &mut self.room).expect("bytes")
    }

    /// What `HANDSHAKES` take that have come so far: all that there is of each, and how much of that is counted.
    fn cost(&mut self, said: &[&[u8]], answered: bool) -> (usize, usize) {
        // What one takes for good, such as buffers of the loop, is there before.
        let mut before = vec![self.stops_behind(said, answered)];
        before.reserve(HANDSHAKES);
        let (start, held) = (ALLOCATOR.used(), self.tls.held_bytes());
        before.extend((0..HANDSHAKES).map(|_| self.stops_behind(said, answered)));
        assert_eq!(self.tls.tally().under_way, HANDSHAKES as u64 + 1);
        let all = (ALLOCATOR.used() - start).div_ceil(HANDSHAKES);
        let held = (self.tls.held_bytes() - held).div_ceil(HANDSHAKES);
        for peer in &mut before {
            peer.server.forget(&mut self.tls);
        }
        (all, held)
    }

    /// One that has said all this, piece by piece, and says nothing more.
    fn stops_behind(&mut self, said: &[&[u8]], answered: bool) -> Peer {
        let mut peer = self.connect();
        for piece in said {
            assert_eq!(self.hears(&mut peer, piece), Received::Nothing);
        }
        if answered {
            let mut first = [0];
            peer.client.read_exact(&mut first).expect("a server's flight");
            assert_eq!(first, [HANDSHAKE]);
        }
        peer
    }
}

/// Both ends of a connection.
struct Peer {
    client: TcpStream,
    server: Stream,
    /// The server's end again, to be asked what has come.
    kernels: TcpStream,
}

/// A client's first flight: one record.
fn client_hello(version: &'static SupportedProtocolVersion) -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[version]);
    let config = config.expect("a version").with_root_certificates(RootCertStore::empty());
    let name = "localhost".try_into().expect("a name");
    let mut client =
        ClientConnection::new(Arc::new(config.with_no_client_auth()), name).expect("a configuration");
    let mut hello = Vec::new();
    client.write_tls(&mut hello).expect("memory");
    hello
}

/// The same message with padding (RFC 7685) to `length` bytes, in as few records as it takes.
fn padded(hello: &[u8], length: usize) -> Vec<u8> {
    let mut message = hello[5..].to_vec();
    // RFC 8446, 4.1.2: version, random, session id, cipher suites, compression, extensions.
    let session = 4 + 2 + 32;
    let suites = session + 1 + usize::from(message[session]);
    let suite_bytes = usize::from(u16::from_be_bytes([message[suites], message[suites + 1]]));
    let compression = suites + 2 + suite_bytes;
    let extensions = compression + 1 + usize::from(message[compression]);
    let padding = length - message.len() - 4;
    message.extend_from_slice(&[0, 21]);
    message.extend_from_slice(&u16::try_from(padding).expect("an extension").to_be_bytes());
    message.resize(length, 0);
    let rest = u16::try_from(length - extensions - 2).expect("extensions").to_be_bytes();
    message[extensions..extensions + 2].copy_from_slice(&rest);
    message[2..4].copy_from_slice(&u16::try_from(length - 4).expect("a message").to_be_bytes());
    let mut records = Vec::new();
    for part in message.chunks(1 << 14) {
        let [high, low] = u16::try_from(part.len()).expect("a record").to_be_bytes();
        records.extend_from_slice(&[HANDSHAKE, 3, 1, high, low]);
        records.extend_from_slice(part);
    }
    records
}

#[test]
fn a_handshake_that_is_not_ended_has_a_bound_beside_what_is_counted() {
    for lean in [true, false] {
        let mut serving = Serving::new(lean, false);
        for version in [&TLS13, &TLS12] {
            let hello = client_hello(version);
            let (all, held) = serving.cost(&[&hello], true);
            println!(
                "{:?}, lean {lean}: {all} behind an answered ClientHello, {held} counted",
                version.version
            );
            assert_eq!(held, 0);
            assert!(all <= OWN_BYTES_MAX, "{all} bytes each");
            // The next record comes in two parts, of which the second makes room for the first anew.
            let record = [&[23, 3, 3, 0x41, 0][..], &[0; 16_639]].concat();
            let (first, second) = record.split_at(9_000);
            let (all, held) = serving.cost(&[&hello, first, second], true);
            println!("{:?}, lean {lean}: {all} with a begun record, {held} counted", version.version);
            assert!(held >= record.len() && held <= 2 * record.len(), "{held} bytes counted");
            assert!(all - held <= OWN_BYTES_MAX, "{all} bytes each, {held} counted");
            // Nor has it to be answered.
            let begun = &padded(&hello, 16_000)[..15_000];
            let (all, held) = serving.cost(&[begun], false);
            assert!(held >= begun.len(), "{held} bytes counted");
            assert!(all - held <= OWN_BYTES_MAX, "{all} bytes each, {held} counted");
        }
    }
}

#[test]
fn where_clients_have_certificates_what_was_said_is_bounded() {
    for lean in [true, false] {
        let mut serving = Serving::new(lean, true);
        for version in [&TLS13, &TLS12] {
            let hello = client_hello(version);
            let longest = padded(&hello, FLIGHT_BYTES_MAX - 10);
            assert_eq!(longest.len(), FLIGHT_BYTES_MAX);
            let (all, held) = serving.cost(&[&longest], true);
            println!("{:?}, lean {lean}: {all} behind a long ClientHello", version.version);
            assert_eq!(held, 0);
            assert!(all <= OWN_BYTES_MAX + SAID_BYTES_MAX, "{all} bytes each");
            // What is longer is refused even if all of it is there.
            let mut peer = serving.connect();
            let longer = padded(&hello, FLIGHT_BYTES_MAX + 4_096);
            assert_eq!(serving.hears(&mut peer, &longer), Received::Fault(Fault::Handshake));
            let mut alert = [0; 7];
            peer.client.read_exact(&mut alert).expect("an alert");
            // RFC 8446, 6.2: decode_error.
            assert_eq!(alert, [21, 3, 3, 0, 2, 2, 50]);
            peer.server.forget(&mut serving.tls);
        }
    }
}
