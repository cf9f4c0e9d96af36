//! Sealing: how plaintext becomes records.
//!
//! Owns the sending direction. Driven by the connection's stream. [`Sealer::seal_record`] is the only function that seals
//! anything, so that no sequence number is used twice with one key, whatever fails: the number is gone before anything can.
//! What it has made is ciphertext, and is sent as it is or not at all.

use aws_lc_rs::aead::{Aad, LessSafeKey};

#[cfg(test)]
use fantail_test_support::planted::{self, Planted};

use super::fault::{Alert, Fault};
use super::keys::{Keys, Suite, TAG_BYTES};
use super::{Content, HEADER_BYTES, KEY_UPDATE, PLAIN_BYTES_MAX};

/// Records after which a key is updated. RFC 8446, 5.5: AES-GCM is safe for 2^24.5 full records; this is a third of that,
/// and no client was seen to mind. ChaCha20 would last for ever, and is treated alike so that one rule is tested.
pub(super) const UPDATE_AFTER_RECORDS: u64 = 1 << 23;

/// Records after which a key is not used, whatever happens.
pub(super) const RECORDS_MAX: u64 = 1 << 24;

/// What stands for a record before what it holds (RFC 8446, 5.2: application data, and the version of TLS 1.2).
const HEADER: [u8; 3] = [Content::Data as u8, 3, 3];

/// Bytes that a record adds to what it holds: header, type and tag.
pub const RECORD_OVERHEAD: usize = HEADER_BYTES + 1 + TAG_BYTES;

/// The sending direction of one connection.
#[derive(Debug, Default)]
pub(super) struct Sealer {
    /// Of the next record.
    pub(super) sequence: u64,
    pub(super) keys: Keys,
    pub(super) suite: Suite,
    /// The peer has asked for a KeyUpdate, which goes in front of the next data (RFC 8446, 4.6.3).
    pub(super) update_owed: bool,
    /// An alert that ends this direction was made: nothing may follow it (RFC 8446, 6.1).
    pub(super) ended: bool,
}

impl Sealer {
    /// Seals data as records with at most `record_max` bytes of it each, behind a KeyUpdate if one is owed or due.
    pub(super) fn seal(&mut self, bytes: &[u8], record_max: usize, out: &mut Vec<u8>) -> Result<(), Fault> {
        if self.ended {
            return Err(Fault::Exhausted);
        }
        let mut key = None;
        // RFC 8446, 5.1: a record of no data could be sent, but Java ends the connection over one.
        for piece in bytes.chunks(record_max.clamp(1, PLAIN_BYTES_MAX)) {
            if self.update_owed || self.sequence >= UPDATE_AFTER_RECORDS {
                self.update(out)?;
                key = None;
            }
            let key = match &key {
                Some(key) => key,
                None => key.insert(self.keys.expanded(self.suite)?),
            };
            self.seal_record(key, Content::Data, piece, out)?;
        }
        Ok(())
    }

    /// Seals an alert, behind which nothing is sealed. Does nothing if there was one.
    pub(super) fn alert(&mut self, alert: Alert, out: &mut Vec<u8>) -> Result<(), Fault> {
        if std::mem::replace(&mut self.ended, true) {
            return Ok(());
        }
        // RFC 8446, 6: closure alerts are warnings by custom, all others are fatal.
        let level = if alert == Alert::CloseNotify { 1 } else { 2 };
        let key = self.keys.expanded(self.suite)?;
        self.seal_record(&key, Content::Alert, &[level, alert as u8], out)
    }

    /// RFC 8446, 4.6.3: the message is the last one under the old key. The peer is not asked for one of its own: it knows
    /// its own limit.
    fn update(&mut self, out: &mut Vec<u8>) -> Result<(), Fault> {
        let key = self.keys.expanded(self.suite)?;
        self.seal_record(&key, Content::Handshake, &[KEY_UPDATE, 0, 0, 1, 0], out)?;
        self.keys.update(self.suite)?;
        self.sequence = 0;
        self.update_owed = false;
        Ok(())
    }

    /// Seals one record and appends it. `key` is that of `self.keys`.
    fn seal_record(
        &mut self,
        key: &LessSafeKey,
        content: Content,
        bytes: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), Fault> {
        // RFC 8446, 5.3 and 5.5: it does not wrap, long before it could.
        let sequence = self.sequence;
        if sequence >= RECORDS_MAX {
            return Err(Fault::Exhausted);
        }
        self.sequence = sequence + 1;
        #[cfg(test)]
        self.note_use(sequence);
        let [kind, major, minor] = HEADER;
        let [high, low] = ((bytes.len() + 1 + TAG_BYTES) as u16).to_be_bytes();
        let header = [kind, major, minor, high, low];
        let begin = out.len();
        out.reserve(bytes.len() + RECORD_OVERHEAD);
        out.extend_from_slice(&header);
        out.extend_from_slice(bytes);
        out.push(content as u8);
        let inner = out.get_mut(begin + HEADER_BYTES..).unwrap_or_default();
        // RFC 8446, 5.2: the header is what is authenticated with it.
        let sealed = key.seal_in_place_separate_tag(self.keys.nonce(sequence), Aad::from(header), inner);
        #[cfg(test)]
        let sealed = sealed.and_then(|tag| {
            if planted::strikes(Planted::SealingFails) { Err(aws_lc_rs::error::Unspecified) } else { Ok(tag) }
        });
        match sealed {
            Ok(tag) => {
                out.extend_from_slice(tag.as_ref());
                Ok(())
            }
            Err(_) => {
                // What is left may be plaintext.
                out.truncate(begin);
                self.ended = true;
                Err(Fault::Internal)
            }
        }
    }
}

#[cfg(test)]
impl Sealer {
    /// Notes the nonce and the key of a record that is about to be sealed, with the fault planted that a number is kept.
    fn note_use(&mut self, sequence: u64) {
        if planted::strikes(Planted::SequenceKept) {
            self.sequence = sequence;
        }
        super::seal_tests::note(self.keys.nonce(sequence).as_ref(), &self.keys);
    }
}
