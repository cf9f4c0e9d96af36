//! What the tests of the record layer begin with.

use std::io::{Read as _, Write as _};
use std::sync::Arc;

use fantail_test_support::tls::{self, Listener, Pair, Rogue};
use rustls::{CipherSuite, ClientConnection, ExtractedSecrets, ServerConnection};

use super::*;

/// A lean connection and what it has read.
pub(super) struct End {
    pages: LeanPages,
    held: Vec<u8>,
    pub(super) plain: Vec<u8>,
    /// What it has to send.
    pub(super) out: Vec<u8>,
    pub(super) closed: bool,
    pub(super) fault: Option<Fault>,
}

impl End {
    fn new(extracted: &ExtractedSecrets, traffic: &TrafficSecrets) -> Self {
        let mut pages = LeanPages::default();
        pages.take_over(7, extracted, traffic).unwrap();
        Self { pages, held: Vec::new(), plain: Vec::new(), out: Vec::new(), closed: false, fault: None }
    }

    pub(super) fn lean(&mut self) -> &mut Lean {
        self.pages.get(7).unwrap()
    }

    /// Takes bytes as they arrive; half a record waits.
    pub(super) fn feed(&mut self, wire: &[u8]) -> &mut Self {
        self.held.extend_from_slice(wire);
        let mut room = vec![0; self.held.len()];
        if self.closed || self.fault.is_some() {
            return self;
        }
        let lean = self.pages.get(7).unwrap();
        let opened = lean.open(&mut self.held, &mut room, &mut self.out);
        self.plain.extend_from_slice(&room[..opened.plain]);
        self.held.drain(..opened.used);
        self.closed = opened.closed;
        self.fault = opened.fault;
        self
    }

    /// Seals data.
    pub(super) fn seal(&mut self, bytes: &[u8], record_max: usize) -> Vec<u8> {
        let mut out = Vec::new();
        self.lean().seal(bytes, record_max, &mut out).unwrap();
        out
    }
}

/// A lean connection, rustls' own server with the same keys, and both ends of a client with theirs.
pub(super) struct Beside {
    pub(super) end: End,
    pub(super) server: ServerConnection,
    /// Seals as the client.
    pub(super) rogue: Rogue,
    /// Opens as the client.
    pub(super) client: End,
}

pub(super) fn beside(suite: CipherSuite) -> Beside {
    let listener = Listener::new(Arc::new(TrafficKeyLog));
    let Pair { client, server } = tls::pair(suite, listener.clone());
    let traffic = take_last().unwrap();
    let secrets = tls::seen_from_the_server(client);
    let rogue = Rogue::new(&secrets.rx, listener.client());
    let end = End::new(&secrets, &traffic);
    let mut turned = TrafficSecrets::default();
    traffic.turned(&mut turned);
    let ExtractedSecrets { tx, rx } = secrets;
    let client = End::new(&ExtractedSecrets { tx: rx, rx: tx }, &turned);
    Beside { end, server, rogue, client }
}

/// A lean connection in the place of a server, and its client.
pub(super) fn instead(suite: CipherSuite) -> (End, ClientConnection) {
    let Pair { client, server } = tls::pair(suite, Arc::new(TrafficKeyLog));
    let traffic = take_last().unwrap();
    (End::new(&server.dangerous_extract_secrets().unwrap(), &traffic), client)
}

/// What a client of rustls writes.
pub(super) fn written(client: &mut ClientConnection, bytes: &[u8]) -> Vec<u8> {
    let mut wire = Vec::new();
    client.writer().write_all(bytes).unwrap();
    while client.wants_write() {
        client.write_tls(&mut wire).unwrap();
    }
    wire
}

/// What a client of rustls reads.
pub(super) fn read(client: &mut ClientConnection, mut wire: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    while !wire.is_empty() {
        client.read_tls(&mut wire).unwrap();
        client.process_new_packets().unwrap();
        let mut piece = [0; 4096];
        while let Ok(count @ 1..) = client.reader().read(&mut piece) {
            plain.extend_from_slice(&piece[..count]);
        }
    }
    plain
}
