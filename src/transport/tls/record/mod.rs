//! The record layer of TLS 1.3 on plain data: what a connection is once its handshake is finished, in 208 bytes.
//!
//! Owns keys, sequence numbers and the two traffic secrets, and all that RFC 8446 says of records, alerts and KeyUpdates
//! behind a handshake (sections 4.6.3, 5, 6, 7.2, 7.3). Driven by the connection's stream, with buffers that belong to the
//! loop. Has no socket, no clock and no buffer of its own, and makes no handshake: that is rustls', whose keys it goes on
//! with. The AEAD is that of aws-lc-rs, as it is rustls' here.

mod fault;
mod keylog;
mod keys;
mod open;
mod pages;
mod seal;

use std::fmt;

use rustls::ExtractedSecrets;

pub use fault::{Alert, Fault};
pub use keylog::{TrafficKeyLog, TrafficSecrets, take_last};
use open::Opener;
pub use pages::LeanPages;
pub use seal::RECORD_OVERHEAD;
use seal::Sealer;

/// Bytes of a record's header.
pub const HEADER_BYTES: usize = 5;

/// Bytes that a record may hold (RFC 8446, 5.1).
pub const PLAIN_BYTES_MAX: usize = 1 << 14;

/// The type of the one handshake message that there is behind a handshake (RFC 8446, 4).
const KEY_UPDATE: u8 = 24;

/// What a record holds (RFC 8446, 5.1).
#[derive(Clone, Copy)]
#[repr(u8)]
enum Content {
    Alert = 21,
    Handshake = 22,
    Data = 23,
}

/// What came of bytes that a peer has sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// Bytes of ciphertext that are done with, from the front.
    pub used: usize,
    /// Bytes of plaintext that were written.
    pub plain: usize,
    /// The peer has ended its side (RFC 8446, 6.1): nothing behind that is looked at.
    pub closed: bool,
    /// Nothing can be opened or sealed any more. What was written before is as good as any.
    pub fault: Option<Fault>,
}

/// One connection of TLS 1.3, of a server, behind its handshake.
///
/// Plain data of a fixed size; whatever is in flight is with whoever drives it. The default is nothing yet.
#[derive(Default)]
pub struct Lean {
    sealer: Sealer,
    opener: Opener,
}

/// Bytes of a lean connection.
pub const LEAN_BYTES: usize = size_of::<Lean>();

const _: () = assert!(LEAN_BYTES == 208, "a lean connection is 208 bytes");

impl fmt::Debug for Lean {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lean").field("suite", &self.sealer.suite).finish_non_exhaustive()
    }
}

impl Lean {
    /// Goes on where rustls has ended. `false`: `traffic` is not what its keys were made of, or the suites differ.
    fn fill(&mut self, extracted: &ExtractedSecrets, traffic: &TrafficSecrets) -> bool {
        let (sealed, sealing) = &extracted.tx;
        let (opened, opening) = &extracted.rx;
        self.sealer.sequence = *sealed;
        self.opener.sequence = *opened;
        let suites = (
            self.sealer.keys.fill(sealing, traffic.server()),
            self.opener.keys.fill(opening, traffic.client()),
        );
        match suites {
            (Some(suite), Some(other)) if suite == other => self.sealer.suite = suite,
            _ => return false,
        }
        true
    }

    /// Opens every whole record in `cipher` and writes what they hold to `plain`, which is at least as long; what is left
    /// at the end of `cipher` is half a record. If the peer has to be told of a fault, the alert is appended to `out`.
    ///
    /// A KeyUpdate that the peer asks for goes in front of the next data (RFC 8446, 4.6.3).
    pub fn open(&mut self, cipher: &mut [u8], plain: &mut [u8], out: &mut Vec<u8>) -> Opened {
        let opened = self.opener.open(self.sealer.suite, cipher, plain, &mut self.sealer.update_owed);
        if let Some(fault) = opened.fault {
            self.fail(fault, out);
        }
        opened
    }

    /// Seals data as records with at most `record_max` bytes each, and appends them to `out`.
    ///
    /// # Errors
    /// Nothing can be sealed any more; what `out` has more than before is still to be sent.
    pub fn seal(&mut self, bytes: &[u8], record_max: usize, out: &mut Vec<u8>) -> Result<(), Fault> {
        self.sealer.seal(bytes, record_max, out)
    }

    /// Ends this side (RFC 8446, 6.1): nothing is sealed behind it, and what the peer sends can still be opened.
    ///
    /// # Errors
    /// It can't be sealed.
    pub fn close_notify(&mut self, out: &mut Vec<u8>) -> Result<(), Fault> {
        self.sealer.alert(Alert::CloseNotify, out)
    }

    /// Ends this side for a fault of the other.
    fn fail(&mut self, fault: Fault, out: &mut Vec<u8>) {
        match fault.alert() {
            // Whether it can still be said or not, this is the end.
            Some(alert) => drop(self.sealer.alert(alert, out)),
            None => self.sealer.ended = true,
        }
    }
}

#[cfg(test)]
mod hostile_tests;
#[cfg(test)]
mod oracle_tests;
#[cfg(test)]
mod seal_tests;
#[cfg(test)]
mod test_pair;
