//! The test message: who sent it, which one it is, and when it was planned to leave.
//!
//! Publishers and echo connections write it, receivers check it. Its size decides its form, so both sides of
//! a run agree without a word. This module never touches a clock or a socket.
//!
//! From 48 bytes on it is ASCII throughout, so the same bytes are a valid text and a valid binary message:
//!
//! ```text
//! 16 hex digits   stream: the run, or in echo the run and the connection
//! 16 hex digits   sequence, from 0
//! 16 hex digits   planned send time in ns since the start of the process
//! the rest        a rotating alphabet whose first letter depends on the sequence, or a piece of a JSON
//!                 array, which compresses like real messages, that begins elsewhere with each sequence
//! ```
//!
//! Below 48 bytes it is compact, numbers in network order, and has to travel in a binary frame:
//!
//! ```text
//! 4 bytes         the low half of the stream
//! 4 bytes         sequence, from 0; all ones for a probe
//! 8 bytes         planned send time in ns since the start of the process
//! the rest        the alphabet as above
//! ```

/// Bytes of the compact header, and so the smallest message.
pub(crate) const MESSAGE_BYTES_MIN: usize = 16;
/// Bytes of the ASCII header, and so the smallest message that may travel as text.
pub(crate) const TEXT_BYTES_MIN: usize = 48;
/// The largest message the generator sends.
pub(crate) const MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Sequence of a probe: sent before the measurement to learn who is subscribed, never counted.
pub(crate) const PROBE_SEQUENCE: u64 = u64::MAX;

/// The sequence of a probe in a compact message.
const PROBE_COMPACT: u32 = u32::MAX;

const LETTERS: usize = 26;

/// What the rest of a message is made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Filler {
    /// A rotating alphabet.
    #[default]
    Letters,
    /// JSON that compresses to about a third.
    Json,
}

/// What every message of a run looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Bytes of a message.
    pub(crate) size: usize,
    /// What it is made of.
    pub(crate) filler: Filler,
}

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

/// Whether a message of `size` bytes is compact and so has to travel in a binary frame.
pub(crate) fn is_binary(size: usize) -> bool {
    size < TEXT_BYTES_MIN
}

/// Appends the message to `out`; a smaller size than the least is raised to it.
pub(crate) fn write_message(stamp: &Stamp, shape: Shape, out: &mut Vec<u8>) {
    let size = shape.size.clamp(MESSAGE_BYTES_MIN, MESSAGE_BYTES_MAX);
    out.reserve(size);
    if is_binary(size) {
        // Only a probe has a number that needs more: receivers count in 32 bits, too.
        let sequence = u32::try_from(stamp.sequence).unwrap_or(PROBE_COMPACT);
        out.extend_from_slice(&(stamp.stream as u32).to_be_bytes());
        out.extend_from_slice(&sequence.to_be_bytes());
        out.extend_from_slice(&stamp.planned_ns.to_be_bytes());
    } else {
        for number in [stamp.stream, stamp.sequence, stamp.planned_ns] {
            out.extend((0..16).rev().map(|digit| hex_digit(number >> (digit * 4))));
        }
    }
    for piece in pieces(shape.filler, stamp.sequence, size - header_bytes(size)) {
        out.extend_from_slice(piece);
    }
}

/// Reads the header of a message of `stream` in a run with messages of `size` bytes; `None` when these bytes
/// are no such message.
pub(crate) fn read_stamp(payload: &[u8], size: usize, stream: u64) -> Option<Stamp> {
    let header = payload.get(..header_bytes(size))?;
    if is_binary(size) {
        let (tag, rest) = header.split_first_chunk()?;
        let (sequence, rest) = rest.split_first_chunk()?;
        let (planned_ns, _) = rest.split_first_chunk()?;
        let sequence = match u32::from_be_bytes(*sequence) {
            PROBE_COMPACT => PROBE_SEQUENCE,
            number => u64::from(number),
        };
        let planned_ns = u64::from_be_bytes(*planned_ns);
        return (u32::from_be_bytes(*tag) == stream as u32).then_some(Stamp { stream, sequence, planned_ns });
    }
    let mut numbers = [0u64; 3];
    for (number, digits) in numbers.iter_mut().zip(header.chunks_exact(16)) {
        for digit in digits {
            *number = (*number << 4) | u64::from(hex_value(*digit)?);
        }
    }
    let [found, sequence, planned_ns] = numbers;
    (found == stream).then_some(Stamp { stream, sequence, planned_ns })
}

/// Whether the part behind the header is what [`write_message`] wrote for a message of this shape.
pub(crate) fn filler_matches(stamp: &Stamp, shape: Shape, payload: &[u8]) -> bool {
    if payload.len() != shape.size || shape.size < MESSAGE_BYTES_MIN {
        return false;
    }
    let mut tail = payload.get(header_bytes(shape.size)..).unwrap_or_default();
    pieces(shape.filler, stamp.sequence, tail.len()).all(|piece| match tail.split_at_checked(piece.len()) {
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

fn header_bytes(size: usize) -> usize {
    if is_binary(size) { MESSAGE_BYTES_MIN } else { TEXT_BYTES_MIN }
}

/// The filler as pieces of a static table, so that checking it is a comparison of memory.
fn pieces(filler: Filler, sequence: u64, len: usize) -> impl Iterator<Item = &'static [u8]> {
    let (table, piece_bytes, starts): (&'static [u8], usize, usize) = match filler {
        Filler::Letters => (&ALPHABET, PIECE_BYTES, LETTERS),
        Filler::Json => (json_table(), JSON_PIECE_BYTES, JSON_STARTS),
    };
    let start = (sequence % starts as u64) as usize;
    let full = (0..len / piece_bytes).map(move |_| piece_bytes);
    full.chain([len % piece_bytes]).filter_map(move |piece| table.get(start..start + piece))
}

/// Bytes of JSON before it repeats.
const JSON_PIECE_BYTES: usize = 64 * 1024;
/// Places at which it may begin; a prime, so that neighbouring runs differ.
const JSON_STARTS: usize = 8_191;

/// The elements of an array of objects as a price feed sends them: names repeat, numbers do not.
fn json_table() -> &'static [u8] {
    static TABLE: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
    TABLE.get_or_init(|| {
        const SYMBOLS: [&str; 4] = ["ACME", "GLOBEX", "INITECH", "UMBRELLA"];
        let mut table = Vec::with_capacity(JSON_PIECE_BYTES + JSON_STARTS + 256);
        let mut state = 1u64;
        while table.len() < JSON_PIECE_BYTES + JSON_STARTS {
            // Knuth's MMIX generator; the high bits are the good ones.
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let (id, price, volume) = (state >> 44, (state >> 30) % 100_000, (state >> 50) % 10_000);
            let symbol = SYMBOLS[(state >> 62) as usize];
            let side = if (state >> 61) & 1 == 0 { "buy" } else { "sell" };
            table.extend_from_slice(
                format!(
                    "{{\"id\":{id},\"symbol\":\"{symbol}\",\"side\":\"{side}\",\"price\":{}.{:02},\"volume\":{volume}}},",
                    price / 100,
                    price % 100
                )
                .as_bytes(),
            );
        }
        table
    })
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

    fn letters(size: usize) -> Shape {
        Shape { size, filler: Filler::Letters }
    }

    #[test]
    fn json_reads_back_is_ascii_and_compresses_to_a_third() {
        for size in [48, 49, 1_024, 200_000] {
            let shape = Shape { size, filler: Filler::Json };
            let stamp = Stamp { stream: 7, sequence: 1_000_000, planned_ns: 9 };
            let mut bytes = Vec::new();
            write_message(&stamp, shape, &mut bytes);
            assert!(bytes.len() == size && bytes.is_ascii());
            assert!(filler_matches(&stamp, shape, &bytes));
            assert!(!filler_matches(&stamp, letters(size), &bytes) || size == 48);
        }
        let mut bytes = Vec::new();
        let shape = Shape { size: 1_024, filler: Filler::Json };
        write_message(&Stamp { stream: 1 << 60, sequence: 3, planned_ns: 1 << 30 }, shape, &mut bytes);
        let mut deflater = fantail::wire::deflate::Deflater::new(5, 1);
        let deflated = deflater.try_deflate(&bytes).map(<[u8]>::len).unwrap();
        assert!((250..450).contains(&deflated), "{deflated} of 1,024 bytes");
    }

    fn written(stamp: &Stamp, size: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        write_message(stamp, letters(size), &mut bytes);
        bytes
    }

    #[test]
    fn a_message_reads_back_whatever_its_size() {
        let stamp = Stamp { stream: 0xfeed_0bad_cafe, sequence: 30, planned_ns: u64::MAX - 7 };
        for size in 16..200 {
            let bytes = written(&stamp, size);
            assert_eq!(bytes.len(), size);
            assert!(size < 48 || bytes.is_ascii());
            assert_eq!(read_stamp(&bytes, size, stamp.stream), Some(stamp));
            assert!(filler_matches(&stamp, letters(size), &bytes));
        }
    }

    #[test]
    fn a_compact_message_is_tag_sequence_and_time_in_network_order() {
        let stamp = Stamp { stream: 0xaaaa_aaaa_0102_0304, sequence: 0x0506_0708, planned_ns: 0x1112 };
        let bytes = [1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0, 0, 0, 0x11, 0x12];
        assert_eq!(written(&stamp, 16), bytes);
    }

    #[test]
    fn a_probe_is_a_probe_in_both_forms() {
        let stamp = Stamp { stream: 1, sequence: PROBE_SEQUENCE, planned_ns: 3 };
        for size in [16, 47, 48, 64] {
            assert_eq!(read_stamp(&written(&stamp, size), size, 1), Some(stamp));
        }
        let last = Stamp { sequence: u64::from(u32::MAX) - 1, ..stamp };
        assert_eq!(read_stamp(&written(&last, 16), 16, 1), Some(last));
    }

    #[test]
    fn a_changed_byte_or_length_is_seen() {
        let stamp = Stamp { stream: 1, sequence: 2, planned_ns: 3 };
        for size in [17, 47, 64] {
            let mut bytes = written(&stamp, size);
            assert!(!filler_matches(&stamp, letters(size + 1), &bytes));
            bytes[size - 1] ^= 1;
            assert!(!filler_matches(&stamp, letters(size), &bytes));
        }
        let longer = written(&stamp, 17);
        assert!(!filler_matches(&stamp, letters(16), &longer));
    }

    #[test]
    fn foreign_bytes_are_no_stamp() {
        assert_eq!(read_stamp(b"hello", 64, 0), None);
        assert_eq!(read_stamp(b"hello", 16, 0), None);
        assert_eq!(read_stamp(&[b'G'; 64], 64, 0), None);
        let stamp = Stamp { stream: 5, sequence: 2, planned_ns: 3 };
        for size in [16, 64] {
            assert_eq!(read_stamp(&written(&stamp, size), size, 6), None);
        }
    }

    #[test]
    fn sizes_are_kept_within_bounds() {
        let stamp = Stamp { stream: 1, sequence: 25, planned_ns: 3 };
        assert_eq!(written(&stamp, 1).len(), MESSAGE_BYTES_MIN);
        let largest = written(&stamp, MESSAGE_BYTES_MAX);
        assert_eq!(largest.len(), MESSAGE_BYTES_MAX);
        assert!(filler_matches(&stamp, letters(MESSAGE_BYTES_MAX), &largest));
    }
}
