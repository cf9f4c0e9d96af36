//! A server's side of TLS, from the first byte to the last: `transport`'s secure stream as a loop drives it, with a real
//! client whose records are altered on their way.
//!
//! The bytes are a script: what the client and the server say, what becomes of the client's records (flipped, cut, joined,
//! repeated, left out, put in another order, made up), how the server's reads and the kernel's room are cut.

use std::cell::OnceCell;
use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::SystemTime;

use fantail::transport::tls::Tls;
use fantail::transport::tls::clients::ClientFiles;
use fantail::transport::tls::config::{Files, Sources, TlsConfig};
use fantail::transport::tls::tickets::Tickets;
use fantail::transport::{Beside, Fault, Received, Socket, Stream};
use fantail_test_support::tls::Rogue;
use rustls::ClientConnection;
use socket2::SockRef;

mod clients;

use crate::choice;
use clients::{Client, Kinds};

/// Bytes of one stream that may wait for the rest of a record or of a flight, and that were opened and not read.
const HELD_BYTES_MAX: usize = 112 * 1024;

/// Bytes that may be sealed and not sent: a record, and what the layer says by itself.
const BEGUN_BYTES_MAX: usize = 24 * 1024;

/// Bytes of the kernel's room for what the server sends; it makes more of it.
const KERNEL_ROOM: usize = 8 * 1024;

/// Bytes of a flight that the server takes.
const HANDSHAKE_BYTES_MAX: usize = 32 * 1024;

/// rustls asserts in debug builds that it finds no fault behind its own close_notify, which is the other's to decide.
const ASSERTS: bool = cfg!(debug_assertions);

/// Steps of one script.
const STEPS_MAX: usize = 200;

thread_local! {
    static CONFIGS: OnceCell<Configs> = const { OnceCell::new() };
}

/// What servers and clients are made with, once for a thread.
struct Configs {
    /// Buffered and lean, without and with a look at certificates of clients.
    servers: [TlsConfig; 4],
    clients: Kinds,
}

impl Configs {
    fn new() -> Self {
        let file =
            |name: &str| format!("{}/../loadtest/tests/tls/certificates/{name}", env!("CARGO_MANIFEST_DIR"));
        let tickets = Tickets::default();
        let server = |index: usize| {
            let files = Files { certificate: file("server.pem"), key: file("server.key"), ocsp: None };
            let mut clients = ClientFiles::default();
            if index & 2 != 0 {
                clients.authorities.push(file("ca.pem"));
            }
            let sources = Sources { certificates: vec![files], clients, ..Sources::default() };
            TlsConfig::read(&sources, &tickets, index & 1 != 0, SystemTime::now()).expect("good files")
        };
        Self { servers: [server(0), server(1), server(2), server(3)], clients: Kinds::new() }
    }
}

/// Plays the script. Whatever the peer does, the server does not panic and holds no more than it may; what it reads is what
/// was sealed for it, in that order and without a hole; behind a fault it says no more than an alert; a first flight that is
/// refused is refused with the alert that rustls' other form has for it. What was not altered arrives, however it was cut.
///
/// # Panics
/// Something does not hold.
pub fn check(data: &[u8]) {
    CONFIGS.with(|configs| {
        let configs = configs.get_or_init(Configs::new);
        let (shape, script) = choice(data);
        let server = &configs.servers[shape % 4];
        let client = configs.clients.client(shape / 4 % 8);
        let is_refused = client.is_refused(shape & 2 != 0);
        if shape & 128 != 0 && !is_refused {
            // A session to take up.
            let mut before = Play::new(server, &client, &configs.clients);
            before.say(b"before");
            before.seal(b"before", 23);
            before.finish();
        }
        let mut play = Play::new(server, &client, &configs.clients);
        play.honest = !is_refused;
        play.resumes = shape & 128 != 0;
        if shape & 32 != 0 {
            // As behind a proxy's header, whose end came with the first bytes of a flight.
            play.stream.delay_layer(&mut play.tls);
            play.is_delayed = true;
        }
        play.run(script);
    });
}

/// One connection with all that is known of it.
struct Play<'a> {
    stream: Stream,
    tls: Tls,
    /// What comes first is not TLS', as far as the stream knows.
    is_delayed: bool,
    peer: UnixStream,
    /// The client has ended its side.
    shut: bool,
    kinds: &'a Kinds,
    kind: &'a Client,
    /// There is a session to take up.
    resumes: bool,
    client: Peer,
    /// Records of the client that are not yet on their way, a part of one at the end.
    wire: VecDeque<Vec<u8>>,
    /// Whatever was sent to the server.
    sent: Vec<u8>,
    /// Whatever the server has sent.
    heard: Vec<u8>,
    /// Where the first record of `heard` begins that nobody has looked at.
    heard_at: usize,
    /// Data that the client has sealed, and how much the server has read of it.
    sealed: Vec<u8>,
    read: usize,
    /// Data that the server was to send, and how much of it its stream has taken; what the client has read.
    said: Vec<u8>,
    taken: usize,
    client_read: Vec<u8>,
    /// Nothing was altered.
    honest: bool,
    /// Bytes of a piece on the wire, and of the server's buffer.
    piece: usize,
    room: usize,
    /// The client reads what comes.
    reads: bool,
    server: Ended,
    /// KeyUpdates of the client.
    updates: usize,
    /// Who has said close_notify.
    client_closed: bool,
    server_closed: bool,
}

/// How the client's side goes on.
enum Peer {
    /// By rustls.
    Real(Box<ClientConnection>),
    /// With the keys of one.
    Rogue(Box<Rogue>),
    /// It has met something that it does not take.
    Gone,
}

/// How the server has ended its reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    Not,
    /// Before the handshake was done, by its own word: what comes is thrown away.
    Unfinished,
    Stream,
    Fault(Fault),
    Kernel,
}

impl<'a> Play<'a> {
    fn new(config: &TlsConfig, kind: &'a Client, kinds: &'a Kinds) -> Self {
        let (ours, peer) = UnixStream::pair().expect("descriptors");
        for end in [&ours, &peer] {
            end.set_nonblocking(true).expect("a socket");
        }
        SockRef::from(&ours).set_send_buffer_size(KERNEL_ROOM).expect("a socket");
        let stream = Stream::secure(TcpStream::from(OwnedFd::from(ours))).expect("a descriptor");
        let mut tls = Tls::default();
        tls.set_config(Some(config));
        Self {
            stream,
            tls,
            is_delayed: false,
            peer,
            shut: false,
            kinds,
            kind,
            resumes: false,
            client: Peer::Real(Box::new(kind.connect())),
            wire: VecDeque::new(),
            sent: Vec::new(),
            heard: Vec::new(),
            heard_at: 0,
            sealed: Vec::new(),
            read: 0,
            said: Vec::new(),
            taken: 0,
            client_read: Vec::new(),
            honest: true,
            piece: usize::MAX,
            room: 65_536,
            reads: true,
            server: Ended::Not,
            updates: 0,
            client_closed: false,
            server_closed: false,
        }
    }

    fn run(mut self, mut script: &[u8]) {
        for _ in 0..STEPS_MAX {
            if script.is_empty() {
                break;
            }
            self.step(&mut script);
            self.bounds();
        }
        self.finish();
    }

    /// Each step is a byte that says what is done, and one that says how.
    fn step(&mut self, script: &mut &[u8]) {
        let (step, rest) = choice(script);
        let (how, rest) = choice(rest);
        *script = rest;
        match step % 16 {
            0 => self.pass(how),
            1 => self.piece = [usize::MAX, 1, 2, 5, 100, 1_000][how % 6],
            2 => self.room = [65_536, 1, 7, 1_000, 16_384, 20_000][how % 6],
            3 => self.seal(&vec![b'c'; how * [1, 1, 80, 300][step / 16 % 4]], 23),
            4 => self.say(&vec![b's'; how * [1, 1, 80, 300][step / 16 % 4]]),
            5 => self.reads = how.is_multiple_of(2),
            6 => {
                // Nothing is said behind it, even if it has to wait for room.
                self.said.truncate(self.taken);
                self.server_closed = true;
                let unfinished = self.stream.is_shaking_hands(&self.tls);
                drop(self.stream.end(&mut self.tls));
                if unfinished {
                    (self.server, self.is_delayed) = (Ended::Unfinished, false);
                    self.tls.take_effort();
                }
            }
            7 => self.client_says(how),
            8 => self.become_rogue(),
            9 => {
                // Any record: by a rogue, sealed; of a real client, as it is.
                let content = take(script, how);
                self.seal(content, [20, 21, 22, 24][step / 16 % 4]);
            }
            10 => {
                self.peer.shutdown(Shutdown::Write).expect("a socket");
                self.shut = true;
            }
            _ => {
                self.pull();
                if self.alter(step, how, script).is_some() {
                    self.honest = false;
                }
            }
        }
    }

    /// Alters the records that are not yet on their way. `None`: there is nothing to alter.
    fn alter(&mut self, step: usize, how: usize, script: &mut &[u8]) -> Option<()> {
        let (more, rest) = choice(script);
        match step % 16 {
            11 => {
                *script = rest;
                let record = self.wire.get_mut(how / 64)?;
                // Mostly near the beginning, where headers and lengths are.
                let at = if step & 16 == 0 { how % 64 } else { how * 61 };
                *record.get_mut(at)? ^= (more as u8).max(1);
            }
            12 => match step / 16 % 4 {
                0 => drop(self.wire.remove(how % 4)?),
                1 => {
                    let record = self.wire.get(how % 4)?.clone();
                    self.wire.push_back(record);
                }
                2 if self.wire.len() > 1 => self.wire.swap(0, 1),
                _ => self.wire.front_mut()?.truncate(how),
            },
            13 => {
                // A record made two, as anybody may do with a handshake's that is not sealed.
                let record = self.wire.pop_front()?;
                let (header, body) = record.split_at_checked(5)?;
                let (left, right) = body.split_at(how.min(body.len()));
                for part in [right, left].into_iter().filter(|part| !part.is_empty()) {
                    self.wire.push_front(framed([header[0], header[1], header[2]], part));
                }
            }
            14 => {
                // What is in the first record and the bytes behind, in one.
                let record = self.wire.pop_front()?;
                let (header, body) = record.split_at_checked(5)?;
                let body = [body, take(script, how)].concat();
                self.wire.push_front(framed([header[0], header[1], header[2]], &body));
            }
            _ => self.wire.push_back(take(script, how).to_vec()),
        }
        Some(())
    }

    /// What the client has sealed goes to the wire's end, a record at a time.
    fn pull(&mut self) {
        let Peer::Real(client) = &mut self.client else { return };
        let mut bytes = Vec::new();
        while client.wants_write() && client.write_tls(&mut bytes).is_ok_and(|count| count > 0) {}
        let mut rest = &bytes[..];
        while let Some((record, behind)) = rest.split_at_checked(record_bytes(rest)) {
            if record.is_empty() {
                break;
            }
            self.wire.push_back(record.to_vec());
            rest = behind;
        }
    }

    /// The client seals content of a type; of data it is known what the server is to read.
    fn seal(&mut self, content: &[u8], kind: u8) {
        match &mut self.client {
            Peer::Real(client) if kind == 23 => {
                // What was said before the handshake is done waits in the client.
                let count = client.writer().write(content).unwrap_or(0);
                self.sealed.extend_from_slice(&content[..count]);
            }
            Peer::Rogue(rogue) => {
                let content = &content[..content.len().min(1 << 14)];
                self.wire.push_back(rogue.seal(&[content, &[kind]].concat()));
                if kind == 23 {
                    self.sealed.extend_from_slice(content);
                }
                self.honest &= kind == 23 && !content.is_empty();
            }
            _ => {
                self.pull();
                self.wire.push_back(framed([kind, 3, 3], content));
                self.honest = false;
            }
        }
    }

    /// The client goes on by itself what rustls began.
    fn become_rogue(&mut self) {
        self.pull();
        let Peer::Real(client) = &self.client else { return };
        // The secret that is known is that of its first keys.
        let is_first = self.updates == 0 && self.kind.gives_secrets();
        if client.is_handshaking() || client.wants_write() || !is_first {
            return;
        }
        let Peer::Real(client) = std::mem::replace(&mut self.client, Peer::Gone) else { return };
        if let Ok(secrets) = client.dangerous_extract_secrets() {
            let rogue = Rogue::new(&secrets.tx, self.kind.secret());
            self.client = Peer::Rogue(Box::new(rogue));
        }
    }

    fn client_says(&mut self, how: usize) {
        if matches!(self.client, Peer::Rogue(_)) {
            // What it has sealed before goes before.
            self.pass(0);
        }
        self.updates += 1;
        // So many without data are refused.
        self.honest &= self.updates <= 32;
        match &mut self.client {
            Peer::Real(client) if how.is_multiple_of(2) => {
                // rustls takes a close_notify in a handshake for a mistake.
                self.honest &= !client.is_handshaking();
                client.send_close_notify();
                self.client_closed = true;
            }
            Peer::Real(client) => drop(client.refresh_traffic_keys()),
            Peer::Rogue(rogue) => {
                // A KeyUpdate (RFC 8446, 4.6.3) in up to two records, between which the server may have something to say.
                let message = [24, 0, 0, 1, u8::from(how & 8 != 0)];
                let (first, second) = message.split_at(how % 5);
                let mut records = Vec::new();
                for part in [first, second].into_iter().filter(|part| !part.is_empty()) {
                    records.push(rogue.seal(&[part, &[22]].concat()));
                }
                rogue.update();
                let last = records.pop();
                for record in records {
                    self.send(&record);
                }
                if how & 16 != 0 {
                    self.say(b"between");
                }
                self.wire.extend(last);
            }
            Peer::Gone => {}
        }
    }

    /// Lets go of what waits: the server's answers come back, and the client's to them wait for the next call.
    fn pass(&mut self, how: usize) {
        self.pull();
        let count = if how == 0 { self.wire.len() } else { how };
        for _ in 0..count {
            let Some(record) = self.wire.pop_front() else { break };
            self.send(&record);
        }
    }

    /// Bytes to the server, in pieces; it reads behind each, as often as it is told that there may be more.
    fn send(&mut self, bytes: &[u8]) {
        if self.shut {
            return;
        }
        for piece in bytes.chunks(self.piece.max(bytes.len() / 512)) {
            let mut rest = piece;
            while !rest.is_empty() {
                match self.peer.write(rest) {
                    Ok(count) => {
                        self.sent.extend_from_slice(&rest[..count]);
                        rest = &rest[count..];
                    }
                    // Whoever has ended does not read any more.
                    Err(_) if self.server != Ended::Not => return,
                    Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
                }
                self.serve();
                self.listen();
            }
        }
    }

    /// What a loop does when an event tells of bytes or of room.
    fn serve(&mut self) {
        if self.server == Ended::Unfinished {
            return self.throw_away();
        }
        if ASSERTS && self.server_closed && !self.honest {
            self.server = Ended::Kernel;
        }
        let mut room = vec![0; self.room];
        while self.server == Ended::Not {
            match self.stream.read(&mut self.tls, &mut room) {
                Ok(Received::Bytes { count, .. }) if self.is_delayed => {
                    self.is_delayed = false;
                    assert!(self.stream.begin_layer(&mut self.tls, &room[..count]));
                }
                Ok(Received::Bytes { count, more }) => {
                    let wanted = self.sealed.get(self.read..self.read + count);
                    assert_eq!(wanted, Some(&room[..count]), "what was sealed, in its order, without a hole");
                    self.read += count;
                    if !more {
                        break;
                    }
                }
                Ok(Received::Nothing) => {}
                Ok(Received::End) => self.server = Ended::Stream,
                Ok(Received::Fault(fault)) => self.server = Ended::Fault(fault),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => self.server = Ended::Kernel,
            }
        }
        self.write();
    }

    /// Reads on as a loop does behind its own end: nothing of a handshake happens any more.
    fn throw_away(&mut self) {
        let mut room = vec![0; self.room];
        loop {
            match self.stream.read(&mut self.tls, &mut room) {
                Ok(Received::Bytes { .. }) => {}
                Ok(Received::End) | Err(_) => break,
                Ok(other) => panic!("{other:?} of a handshake that was given up"),
            }
        }
        assert_eq!(
            (self.tls.take_effort(), self.tls.held_bytes()),
            (0, 0),
            "of a handshake that was given up"
        );
    }

    fn say(&mut self, bytes: &[u8]) {
        if !self.server_closed {
            self.said.extend_from_slice(bytes);
        }
        self.write();
    }

    fn write(&mut self) {
        if self.server == Ended::Fault(Fault::PlainHttp) {
            // What is written now is plain.
            return;
        }
        while self.stream.pending(&self.tls) || self.taken < self.said.len() {
            let rest = &self.said[self.taken..];
            match self.stream.write(&mut self.tls, rest) {
                Ok(count) => {
                    assert!(!matches!(self.server, Ended::Fault(_)) || count == 0, "sealed behind a fault");
                    self.taken += count;
                    if count < rest.len() {
                        break;
                    }
                }
                Err(error) => {
                    let fitting = matches!(
                        error.kind(),
                        ErrorKind::WouldBlock | ErrorKind::NotConnected | ErrorKind::BrokenPipe
                    );
                    assert!(fitting, "{error}");
                    break;
                }
            }
        }
    }

    /// The client takes what has come.
    fn listen(&mut self) {
        if !self.reads {
            return;
        }
        let mut some = [0; 16_384];
        while let Ok(count @ 1..) = self.peer.read(&mut some) {
            self.heard.extend_from_slice(&some[..count]);
            // There is room again.
            self.write();
        }
        while let Some(whole) = self.heard.get(self.heard_at..) {
            let count = record_bytes(whole);
            if count == 0 || count > whole.len() {
                break;
            }
            self.hear(self.heard_at..self.heard_at + count);
            self.heard_at += count;
        }
    }

    /// One record for the client.
    fn hear(&mut self, at: std::ops::Range<usize>) {
        if ASSERTS && self.client_closed && !self.honest {
            self.client = Peer::Gone;
        }
        let Peer::Real(client) = &mut self.client else { return };
        let mut record = &self.heard[at];
        while !record.is_empty() {
            let taken = client.read_tls(&mut record).is_ok_and(|count| count > 0);
            let state = client.process_new_packets();
            let mut some = [0; 16_384];
            while let Ok(count @ 1..) = client.reader().read(&mut some) {
                self.client_read.extend_from_slice(&some[..count]);
            }
            if !taken || state.is_err() {
                // It has its say, too.
                self.pull();
                self.client = Peer::Gone;
                assert!(!self.honest, "a client met {state:?} of an honest server");
                return;
            }
        }
    }

    fn bounds(&self) {
        let (held, begun) = (self.tls.held_bytes(), self.tls.begun_bytes());
        assert!(held <= HELD_BYTES_MAX, "{held} bytes held");
        assert!(begun <= BEGUN_BYTES_MAX, "{begun} bytes begun");
        assert!(self.tls.tally().under_way <= 1);
    }

    /// Lets everything through that waits, and looks at what has come of it.
    fn finish(mut self) {
        self.reads = true;
        for _ in 0..64 {
            let before = (self.heard.len(), self.read, self.taken, self.wire.len());
            self.pass(0);
            self.serve();
            self.listen();
            self.bounds();
            if before == (self.heard.len(), self.read, self.taken, self.wire.len()) {
                break;
            }
        }
        assert!(self.said.starts_with(&self.client_read), "what was said, in its order, without a hole");
        let faulty = match self.server {
            Ended::Fault(fault) => Some(fault),
            _ => None,
        };
        if self.honest && !matches!(self.client, Peer::Gone) {
            assert_eq!(faulty, None, "nobody has altered anything");
            let whole = self.server == Ended::Not;
            if whole && matches!(&self.client, Peer::Real(client) if !client.is_handshaking()) {
                assert_eq!(self.read, self.sealed.len(), "all that was sealed arrives");
                assert_eq!(self.taken, self.said.len(), "all that was said is sealed");
                assert_eq!(self.client_read, self.said, "and arrives");
            }
        }
        if let Some(fault) = faulty {
            self.check_fault(fault);
        }
        self.stream.forget(&mut self.tls);
        let left = (self.tls.held_bytes(), self.tls.begun_bytes(), self.tls.tally().under_way);
        assert_eq!(left, (0, 0, 0), "nothing is left of a stream");
        assert_eq!(self.tls.memory_of(self.stream.as_raw_fd()), 0);
    }

    /// Behind a fault there is no half record; a first flight is refused with the alert that rustls' other form has for it.
    fn check_fault(&self, fault: Fault) {
        let (mut rest, mut flights) = (&self.heard[..], 0);
        while let Some((record, behind)) = rest.split_at_checked(record_bytes(rest)) {
            let [kind, ..] = record else { break };
            flights += usize::from(*kind == 22);
            rest = behind;
        }
        assert!(rest.is_empty(), "half a record is the last that was said: {rest:?}");
        match fault {
            Fault::PlainHttp | Fault::NotTls => assert!(self.heard.is_empty(), "said {:?}", self.heard),
            // The peer's own alert, which is not answered.
            Fault::Refused(_) | Fault::Alert(_) => {}
            // What rustls says of it may be sealed, and a flight that it has answered is not the same twice.
            _ if flights > 0 => {}
            _ => {
                assert!(
                    matches!(self.heard[..], [21, 3, 3, 0, 2, 2, _]),
                    "an alert, and not {:?}",
                    self.heard
                );
                // The other form of rustls takes longer flights, can't open a ticket of this one's, and finds out later that
                // its certificate is not for this client.
                let alike = !self.resumes && fault != Fault::NoCertificate;
                if self.sent.len() <= HANDSHAKE_BYTES_MAX && alike {
                    let (answer, refused) = self.kinds.first_answer(&self.sent);
                    assert!(refused, "{fault:?} where there is none");
                    assert!(answer.is_empty() || answer == self.heard, "{:?}, not {answer:?}", self.heard);
                }
            }
        }
    }
}

/// A record that is not sealed.
fn framed(header: [u8; 3], body: &[u8]) -> Vec<u8> {
    let [high, low] = (body.len() as u16).to_be_bytes();
    [&[header[0], header[1], header[2], high, low], body].concat()
}

/// Bytes of the first record, 0 if its header is not there.
fn record_bytes(bytes: &[u8]) -> usize {
    match bytes {
        [_, _, _, high, low, ..] => 5 + usize::from(u16::from_be_bytes([*high, *low])),
        _ => 0,
    }
}

/// Takes so many bytes, or what there is.
fn take<'a>(script: &mut &'a [u8], count: usize) -> &'a [u8] {
    let (taken, rest) = script.split_at(count.min(script.len()));
    *script = rest;
    taken
}
