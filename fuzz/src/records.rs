//! Records of TLS 1.3 behind a handshake: `transport::tls::record`, with rustls' own server as the oracle.
//!
//! The bytes are a script for a client that holds the keys: what it seals, what it alters, repeats and leaves out.

use std::io::Write as _;
use std::sync::Arc;

use fantail::transport::tls::record::{Fault, LeanPages, PLAIN_BYTES_MAX, TrafficKeyLog, take_last};
use fantail_test_support::tls::{self, Listener, Rogue, SUITES, quick};

use crate::choice;

/// What was sent, and where the oracle is known to judge otherwise.
#[derive(Default)]
struct Wire {
    bytes: Vec<u8>,
    /// The last record alone.
    last: Vec<u8>,
    /// There is something that the RFC forbids and rustls may let pass: an altered header, a record too long by a little
    /// (RFC 8446, 5.2), an empty handshake record (5.4), half a handshake message that can't be one that may come.
    lax: bool,
    /// There is an alert with a level that it does not have by custom, which the RFC ignores (6) and rustls does not; or
    /// half a header that rustls does not like.
    picky: bool,
    /// There is an empty record.
    empty: bool,
}

/// Plays the script and compares: what rustls takes is taken and read alike, and nothing more than the RFC allows;
/// however it is cut; and both then write the same.
///
/// # Panics
/// Something does not hold.
pub fn check(data: &[u8]) {
    let (suite, script) = choice(data);
    let (cuts, script) = choice(script);
    let listener = Listener::new(Arc::new(TrafficKeyLog));
    let mut pair = quick::pair(SUITES[suite % SUITES.len()], listener.clone());
    let traffic = take_last().expect("both traffic secrets");
    let secrets = tls::seen_from_the_server(pair.client);
    let mut rogue = Rogue::new(&secrets.rx, listener.client());
    let wire = play(script, &mut rogue);

    let (plain, error) = tls::feed(&mut pair.server, &wire.bytes);
    let mut pages = LeanPages::default();
    let mut results = Vec::new();
    let mut room = vec![0; wire.bytes.len()];
    // One whole, the other cut as the script says.
    for (index, piece) in [(0, usize::MAX), (1, cuts % 64 + 1)] {
        pages.take_over(index, &secrets, &traffic).expect("the client's own keys");
        let lean = pages.get(index).expect("it was put there");
        let (mut held, mut read, mut out, mut end) = (Vec::new(), Vec::new(), Vec::new(), (false, None));
        for piece in wire.bytes.chunks(piece) {
            held.extend_from_slice(piece);
            let room = &mut room[..held.len()];
            let opened = lean.open(&mut held, room, &mut out);
            read.extend_from_slice(&room[..opened.plain]);
            held.drain(..opened.used);
            end = (opened.closed, opened.fault);
            if opened.closed || opened.fault.is_some() {
                break;
            }
        }
        let mut sealed = Vec::new();
        let goes_on = lean.seal(b"and on", PLAIN_BYTES_MAX, &mut sealed).is_ok();
        assert_eq!(goes_on, end.1.is_none(), "nothing is sealed behind a fault, and everything without");
        assert!(goes_on || sealed.is_empty());
        results.push((read, out, end, sealed));
    }
    assert_eq!(results[0], results[1], "cut into pieces of {}", cuts % 64 + 1);

    let (read, _, (closed, fault), sealed) = &results[0];
    assert!(plain.starts_with(read) || read.starts_with(&plain), "the same data in the same order");
    // With rustls an empty record ends a row of KeyUpdates and a KeyUpdate a row of empty records, so that both in turn go
    // on for ever; here only data ends the former.
    let endless = wire.empty && matches!(fault, Some(Fault::TooMany(_)));
    if error.is_none() && !wire.lax && !endless {
        assert_eq!((fault, read), (&None, &plain), "what rustls takes is taken");
    }
    if fault.is_none() && !wire.picky {
        assert_eq!((&error, read), (&None, &plain), "what rustls refuses is refused");
    }
    if fault.is_none() && error.is_none() && !closed {
        let mut theirs = Vec::new();
        pair.server.writer().write_all(b"and on").expect("room");
        while pair.server.wants_write() {
            pair.server.write_tls(&mut theirs).expect("a vector takes it");
        }
        assert_eq!(sealed, &theirs, "the same records, KeyUpdates included");
    }
}

/// Each step is a byte that says what is done, and what it takes of the bytes behind.
fn play(mut script: &[u8], rogue: &mut Rogue) -> Wire {
    let mut wire = Wire::default();
    while !script.is_empty() && wire.bytes.len() < 200_000 {
        let (step, rest) = choice(script);
        script = rest;
        match step % 8 {
            0 => {
                // Data of up to 255 bytes, padded.
                let content = take(&mut script);
                let (padding, rest) = choice(script);
                script = rest;
                wire.seal(rogue, content, 23, padding);
            }
            1 => {
                // Anything of any type.
                let content = take(&mut script);
                let (kind, rest) = choice(script);
                script = rest;
                wire.seal(rogue, content, [21, 22, 23, kind as u8][kind % 4], step / 8);
            }
            2 => {
                // A KeyUpdate as it should be, in one record or two.
                let message = [24, 0, 0, 1, u8::from(step & 8 != 0)];
                let (first, second) = message.split_at(if step & 16 == 0 { 0 } else { step / 32 % 5 });
                if !first.is_empty() {
                    wire.seal(rogue, first, 22, 0);
                }
                wire.seal(rogue, second, 22, 0);
                rogue.update();
            }
            3 => {
                // As long as can be, or a little longer.
                let (more, rest) = choice(script);
                script = rest;
                let content = vec![b'l'; PLAIN_BYTES_MAX - 8 + more % 16];
                wire.seal(rogue, &content, 23, more / 16 % 8);
            }
            4 => {
                // An altered byte in the last record.
                let (at, rest) = choice(script);
                let (change, rest) = choice(rest);
                script = rest;
                let begin = wire.bytes.len() - wire.last.len();
                if let Some(byte) = wire.bytes.get_mut(begin + at) {
                    *byte ^= change as u8;
                    wire.lax |= at < 5;
                    wire.picky |= at < 5;
                }
            }
            5 => wire.bytes.extend_from_slice(&wire.last),
            6 => {
                // Left out.
                wire.bytes.truncate(wire.bytes.len() - wire.last.len());
                wire.last.clear();
            }
            _ => {
                // Bytes that nobody has sealed.
                wire.bytes.extend_from_slice(take(&mut script));
                wire.last.clear();
                (wire.lax, wire.picky) = (true, true);
            }
        }
    }
    wire
}

impl Wire {
    fn seal(&mut self, rogue: &mut Rogue, content: &[u8], kind: u8, padding: usize) {
        let mut inner = content.to_vec();
        inner.push(kind);
        inner.resize(inner.len() + padding, 0);
        // What is zero at the end is padding, whatever it was meant to be.
        let (kind, content) =
            inner.iter().rposition(|&byte| byte != 0).map_or((0, &[][..]), |at| (inner[at], &inner[..at]));
        // A message that may not come, or is wrong, is refused with its first byte that says so; rustls awaits the rest.
        self.lax |= kind == 22 && !KEY_UPDATE.starts_with(content) && !matches!(content, [24, 0, 0, 1, 1]);
        self.lax |= kind == 22 && content.is_empty();
        self.empty |= kind == 23 && content.is_empty();
        let usual = matches!(content, [1, _] | [2, 0]);
        self.picky |= kind == 21 && !usual;
        self.last = rogue.seal(&inner);
        self.bytes.extend_from_slice(&self.last);
    }
}

/// A KeyUpdate that asks for none (RFC 8446, 4.6.3).
const KEY_UPDATE: &[u8] = &[24, 0, 0, 1, 0];

/// Takes a length and so many bytes, or what there is.
fn take<'a>(script: &mut &'a [u8]) -> &'a [u8] {
    let (count, rest) = choice(script);
    let (taken, rest) = rest.split_at(count.min(rest.len()));
    *script = rest;
    taken
}
