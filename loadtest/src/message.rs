//! The test message: who sent it, which one it is, and when it was planned to leave.
//!
//! Publishers and echo connections write it, receivers check it. It is ASCII throughout, so the same
//! bytes are a valid text and a valid binary message. This module never touches a clock or a socket.
//!
//! ```text
//! 16 hex digits   stream: the run, or in echo the run and the connection
//! 16 hex digits   sequence, from 0
//! 16 hex digits   planned send time in ns since the start of the process
//! the rest        a rotating alphabet whose first letter depends on the sequence
//! ```

/// Bytes of the header, and so the smallest message.
pub(crate) const MESSAGE_BYTES_MIN: usize = 48;
/// The largest message the generator sends.
pub(crate) const MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Sequence of a probe: sent before the measurement to learn who is subscribed, never counted.
pub(crate) const PROBE_SEQUENCE: u64 = u64::MAX;

const LETTERS: usize = 26;

/// The header of a test message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// The run, or in echo the run and the connection.
    pub(crate) stream: u64,
    /// Number of the message in its stream, from 0.
    pub(crate) sequence: u64,
    /// When it was planned to leave, in ns since the start of the process.
    pub(crate) planned_ns: u64,
}

/// Appends the message of `size` bytes to `out`; a smaller size than the header is raised to it.
pub(crate) fn write_message(stamp: &Stamp, size: usize, out: &mut Vec<u8>) {
    let size = size.clamp(MESSAGE_BYTES_MIN, MESSAGE_BYTES_MAX);
    out.reserve(size);
    for number in [stamp.stream, stamp.sequence, stamp.planned_ns] {
        out.extend((0..16).rev().map(|digit| hex_digit(number >> (digit * 4))));
    }
    for piece in filler(stamp.sequence, size - MESSAGE_BYTES_MIN) {
        out.extend_from_slice(piece);
    }
}

/// Reads the header; `None` when these bytes are no test message.
pub(crate) fn read_stamp(payload: &[u8]) -> Option<Stamp> {
    let header = payload.get(..MESSAGE_BYTES_MIN)?;
    let mut numbers = [0u64; 3];
    for (number, digits) in numbers.iter_mut().zip(header.chunks_exact(16)) {
        for digit in digits {
            *number = (*number << 4) | u64::from(hex_value(*digit)?);
        }
    }
    let [stream, sequence, planned_ns] = numbers;
    Some(Stamp { stream, sequence, planned_ns })
}

/// Whether the part behind the header is what [`write_message`] wrote for a message of `size` bytes.
pub(crate) fn filler_matches(stamp: &Stamp, size: usize, payload: &[u8]) -> bool {
    if payload.len() != size || size < MESSAGE_BYTES_MIN {
        return false;
    }
    let mut tail = payload.get(MESSAGE_BYTES_MIN..).unwrap_or_default();
    filler(stamp.sequence, tail.len()).all(|piece| match tail.split_at_checked(piece.len()) {
        Some((head, rest)) => {
            tail = rest;
            head == piece
        }
        None => false,
    })
}

/// A number that differs from run to run.
pub(crate) fn random_u64() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    // The standard hasher is seeded by the operating system; that is all the randomness needed here.
    let mut hasher = std::collections::hash_map::RandomState::new().build_hasher();
    hasher.write_u32(std::process::id());
    hasher.finish()
}

/// The rotated alphabet as pieces of a static table, so that checking it is a comparison of memory.
fn filler(sequence: u64, len: usize) -> impl Iterator<Item = &'static [u8]> {
    let start = (sequence % LETTERS as u64) as usize;
    let full = (0..len / PIECE_BYTES).map(|_| PIECE_BYTES);
    full.chain([len % PIECE_BYTES]).filter_map(move |piece| ALPHABET.get(start..start + piece))
}

/// A multiple of the alphabet, so that every piece starts with the same letter.
const PIECE_BYTES: usize = LETTERS * 128;

static ALPHABET: [u8; PIECE_BYTES + LETTERS] = {
    let mut table = [0; PIECE_BYTES + LETTERS];
    let mut index = 0;
    while index < table.len() {
        table[index] = b'a' + (index % LETTERS) as u8;
        index += 1;
    }
    table
};

fn hex_digit(value: u64) -> u8 {
    match (value & 0xf) as u8 {
        digit @ 0..=9 => b'0' + digit,
        digit => b'a' + digit - 10,
    }
}

fn hex_value(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_reads_back_and_is_ascii() {
        let stamp = Stamp { stream: 0xfeed, sequence: 30, planned_ns: u64::MAX };
        let mut bytes = Vec::new();
        write_message(&stamp, 100, &mut bytes);
        assert_eq!(bytes.len(), 100);
        assert!(bytes.is_ascii());
        assert_eq!(read_stamp(&bytes), Some(stamp));
        assert!(filler_matches(&stamp, 100, &bytes));
    }

    #[test]
    fn a_changed_byte_or_length_is_seen() {
        let stamp = Stamp { stream: 1, sequence: 2, planned_ns: 3 };
        let mut bytes = Vec::new();
        write_message(&stamp, 64, &mut bytes);
        assert!(!filler_matches(&stamp, 65, &bytes));
        bytes[63] ^= 1;
        assert!(!filler_matches(&stamp, 64, &bytes));
    }

    #[test]
    fn foreign_bytes_are_no_stamp() {
        assert_eq!(read_stamp(b"hello"), None);
        assert_eq!(read_stamp(&[b'G'; 64]), None);
    }

    #[test]
    fn sizes_are_kept_within_bounds() {
        let stamp = Stamp { stream: 1, sequence: 25, planned_ns: 3 };
        let mut bytes = Vec::new();
        write_message(&stamp, 1, &mut bytes);
        assert_eq!(bytes.len(), MESSAGE_BYTES_MIN);
        bytes.clear();
        write_message(&stamp, MESSAGE_BYTES_MAX, &mut bytes);
        assert_eq!(bytes.len(), MESSAGE_BYTES_MAX);
        assert!(filler_matches(&stamp, MESSAGE_BYTES_MAX, &bytes));
    }
}
