//! The test message: a marker, and filler up to its size.
//!
//! Publishers and echo connections write it, receivers look for it in what arrives: as it was sent, or wherever a
//! server that wraps payloads has put its marker. Its size decides the marker's form, so both sides of a run agree
//! without a word: from 48 bytes on a message is ASCII throughout, so the same bytes are a valid text and a valid
//! binary message; below it has to travel in a binary frame. This module never touches a clock or a socket.
//!
//! The filler is a rotating alphabet whose first letter depends on the sequence, or a piece of a JSON array, which
//! compresses like real messages, that begins elsewhere with each sequence.

use std::collections::BTreeSet;

pub(crate) use crate::engine::marker::{PROBE_SEQUENCE, Stamp, Streams};

use crate::engine::marker::{self, Form, Seen};
use crate::engine::sizes::Sizes;
use crate::engine::template::Around;

/// The smallest message: nothing but a compact marker.
pub(crate) const MESSAGE_BYTES_MIN: usize = marker::COMPACT_BYTES;
/// The smallest message that may travel as text.
pub(crate) const TEXT_BYTES_MIN: usize = marker::TEXT_BYTES;
/// The largest message the generator sends.
pub(crate) const MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;

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
    /// Bytes of each message.
    pub(crate) sizes: Sizes,
    /// What it is made of.
    pub(crate) filler: Filler,
    /// Whether it travels in a binary frame however long it is.
    pub(crate) binary: bool,
}

impl Shape {
    /// Whether messages travel in binary frames: as they are asked to, or because they are compact.
    pub(crate) fn is_binary(self) -> bool {
        self.binary || is_compact(self.sizes.least())
    }

    /// Bytes of a message.
    #[inline]
    pub(crate) fn size_of(self, stamp: &Stamp) -> usize {
        self.sizes.of(stamp.stream, stamp.sequence)
    }

    /// How markers are written: all of a run alike, so that they can be looked for.
    #[inline]
    fn form(self) -> Form {
        if is_compact(self.sizes.least()) { Form::Compact } else { Form::Text }
    }
}

/// A message as a receiver expects it.
#[derive(Clone, Copy)]
pub(crate) struct Expected<'a> {
    /// What it looks like.
    pub(crate) shape: Shape,
    /// The run and its topics, or in echo the run and the connection.
    pub(crate) streams: Streams,
    /// When the payload arrived.
    pub(crate) now_ns: u64,
    /// What was sent around a message; `None` if that can't be known.
    pub(crate) around: Option<&'a dyn Fn(&Stamp) -> Around<'a>>,
}

/// A message that was found in a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// The payload is what was sent.
    Unchanged(Stamp),
    /// The marker is whole, and the server put other things around it; the rest was not compared.
    Wrapped(Stamp),
    /// The same message once more in the same payload, as where a server quotes what it delivers.
    Repeated,
    /// The server put nothing around the message, and the rest of it is not what was sent.
    Changed(Stamp),
    /// Its marker was cut or changed.
    Broken,
}

/// Whether a message of `size` bytes is compact: no text.
pub(crate) fn is_compact(size: usize) -> bool {
    size < TEXT_BYTES_MIN
}

/// Appends the message to `out`; a smaller size than the least is raised to it.
pub(crate) fn write_message(stamp: &Stamp, shape: Shape, around: &Around<'_>, out: &mut Vec<u8>) {
    let size = shape.size_of(stamp).clamp(MESSAGE_BYTES_MIN, MESSAGE_BYTES_MAX);
    let form = shape.form();
    out.reserve(size + around.before.len() + around.behind.len());
    out.extend_from_slice(&around.before);
    marker::write(stamp, form, out);
    for piece in pieces(shape.filler, stamp.sequence, size - form.bytes()) {
        out.extend_from_slice(piece);
    }
    out.extend_from_slice(&around.behind);
}

/// Reads a payload that is a message of one of `streams` as it was sent, with nothing around it; `None` for anything else.
#[inline]
pub(crate) fn read_unchanged(payload: &[u8], shape: Shape, streams: Streams, now_ns: u64) -> Option<Stamp> {
    let form = shape.form();
    let stamp = marker::read_first(payload, form, streams, now_ns)?;
    let whole =
        payload.len() == shape.size_of(&stamp) && filler_matches(&stamp, shape, payload.get(form.bytes()..)?);
    whole.then_some(stamp)
}

/// Tells every message of this run in a payload, in their order; false if there is none.
pub(crate) fn search(payload: &[u8], expected: &Expected<'_>, mut on_found: impl FnMut(Found)) -> bool {
    let Expected { shape, streams, now_ns, .. } = *expected;
    let mut any = false;
    let (mut first, mut more) = (None, BTreeSet::new());
    for (at, seen) in marker::all(payload, shape.form(), streams, now_ns) {
        let found = match seen {
            Seen::Others => continue,
            Seen::Broken => Found::Broken,
            Seen::Ours(Stamp { stream, sequence, .. }) if first == Some((stream, sequence)) => {
                Found::Repeated
            }
            Seen::Ours(stamp) if first.is_none() => {
                first = Some((stamp.stream, stamp.sequence));
                judge(payload, at, stamp, expected)
            }
            Seen::Ours(Stamp { stream, sequence, .. }) if !more.insert((stream, sequence)) => Found::Repeated,
            Seen::Ours(stamp) => judge(payload, at, stamp, expected),
        };
        any = true;
        on_found(found);
    }
    any
}

/// Whether a payload whose marker is at `at` is what was sent.
fn judge(payload: &[u8], at: usize, stamp: Stamp, expected: &Expected<'_>) -> Found {
    let Some(around) = expected.around else { return Found::Wrapped(stamp) };
    let (shape, Around { before, behind }) = (&expected.shape, around(&stamp));
    let rest = payload.strip_prefix(before.as_ref()).filter(|_| at == before.len());
    let size = shape.size_of(&stamp);
    let whole_bytes = before.len() + size + behind.len();
    let bare = before.is_empty() && behind.is_empty();
    match rest {
        Some(rest) if payload.len() == whole_bytes => {
            let filler = rest.get(shape.form().bytes()..size).unwrap_or_default();
            let unchanged = filler_matches(&stamp, *shape, filler) && rest.ends_with(&behind);
            if unchanged { Found::Unchanged(stamp) } else { Found::Changed(stamp) }
        }
        // Nothing is around it, and a part of it is gone.
        Some(_) if bare && payload.len() < whole_bytes => Found::Changed(stamp),
        _ => Found::Wrapped(stamp),
    }
}

/// Whether the part behind the marker is what [`write_message`] wrote.
fn filler_matches(stamp: &Stamp, shape: Shape, mut tail: &[u8]) -> bool {
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

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: Stamp = Stamp { stream: 0xfeed_0bad_cafe, sequence: 30, planned_ns: 1 << 33 };

    fn letters(size: usize) -> Shape {
        Shape { sizes: Sizes::One(size), filler: Filler::Letters, binary: false }
    }

    fn written(stamp: &Stamp, size: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        write_message(stamp, letters(size), &Around::default(), &mut bytes);
        bytes
    }

    fn read(payload: &[u8], size: usize) -> Option<Stamp> {
        read_unchanged(payload, letters(size), Streams::one(STAMP.stream), STAMP.planned_ns)
    }

    fn found_around(payload: &[u8], size: usize, around: Around<'_>) -> Vec<Found> {
        let Stamp { stream, planned_ns, .. } = STAMP;
        let around_it = |_: &Stamp| around.clone();
        let (shape, streams) = (letters(size), Streams::one(stream));
        let expected = Expected { shape, streams, now_ns: planned_ns + 9, around: Some(&around_it) };
        let mut found = Vec::new();
        let any = search(payload, &expected, |one| found.push(one));
        assert_eq!(any, !found.is_empty());
        found
    }

    fn found(payload: &[u8], size: usize) -> Vec<Found> {
        found_around(payload, size, Around::default())
    }

    #[test]
    fn json_reads_back_is_ascii_and_compresses_to_a_third() {
        for size in [48, 49, 1_024, 200_000] {
            let shape = Shape { sizes: Sizes::One(size), filler: Filler::Json, binary: false };
            let stamp = Stamp { stream: 7, sequence: 1_000_000, planned_ns: 9 };
            let mut bytes = Vec::new();
            write_message(&stamp, shape, &Around::default(), &mut bytes);
            assert!(bytes.len() == size && bytes.is_ascii());
            assert_eq!(read_unchanged(&bytes, shape, Streams::one(7), 9), Some(stamp));
            assert!(read_unchanged(&bytes, letters(size), Streams::one(7), 9).is_none() || size == 48);
        }
        let mut bytes = Vec::new();
        let shape = Shape { sizes: Sizes::One(1_024), filler: Filler::Json, binary: false };
        let stamp = Stamp { stream: 1 << 60, sequence: 3, planned_ns: 1 << 30 };
        write_message(&stamp, shape, &Around::default(), &mut bytes);
        let mut deflater = fantail::wire::deflate::Deflater::new(5, 1);
        let deflated = deflater.try_deflate(&bytes).map(<[u8]>::len).unwrap();
        assert!((250..450).contains(&deflated), "{deflated} of 1,024 bytes");
    }

    #[test]
    fn a_message_reads_back_whatever_its_size() {
        for size in 16..200 {
            let bytes = written(&STAMP, size);
            assert_eq!(bytes.len(), size);
            assert!(size < 48 || bytes.is_ascii());
            assert_eq!(read(&bytes, size), Some(STAMP));
            assert_eq!(found(&bytes, size), [Found::Unchanged(STAMP)]);
        }
        assert_eq!(written(&STAMP, 1).len(), MESSAGE_BYTES_MIN);
        let largest = written(&STAMP, MESSAGE_BYTES_MAX);
        assert_eq!((largest.len(), read(&largest, MESSAGE_BYTES_MAX)), (MESSAGE_BYTES_MAX, Some(STAMP)));
    }

    #[test]
    fn a_changed_byte_or_a_cut_end_is_told_where_nothing_is_around() {
        for size in [17, 47, 64] {
            let mut bytes = written(&STAMP, size);
            let cut = &bytes[..size - 1];
            assert_eq!((read(cut, size), found(cut, size)), (None, vec![Found::Changed(STAMP)]));
            bytes[size - 1] ^= 1;
            assert_eq!((read(&bytes, size), found(&bytes, size)), (None, vec![Found::Changed(STAMP)]));
        }
        let cut_in_its_marker = &written(&STAMP, 64)[..40];
        assert_eq!(found(cut_in_its_marker, 64), [Found::Broken]);
        assert_eq!(found(&written(&STAMP, 30)[..12], 30), [Found::Broken]);
    }

    #[test]
    fn a_wrapped_message_is_known_by_its_marker_alone() {
        for size in [17, 64] {
            let bytes = written(&STAMP, size);
            let wrapped = [b"42[\"message\",\"", &bytes[..], b"\"]"].concat();
            assert_eq!((read(&wrapped, size), found(&wrapped, size)), (None, vec![Found::Wrapped(STAMP)]));
            let mut behind = bytes.clone();
            behind.push(b'!');
            assert_eq!(found(&behind, size), [Found::Wrapped(STAMP)]);
            let mut changed = wrapped;
            let last = changed.len() - 3;
            changed[last] ^= 1;
            assert_eq!(found(&changed, size), [Found::Wrapped(STAMP)]);
        }
    }

    #[test]
    fn messages_in_one_payload_count_each_and_a_quoted_one_once() {
        let next = Stamp { sequence: 31, ..STAMP };
        let other = Stamp { stream: 5, ..STAMP };
        let text = |stamp: &Stamp| String::from_utf8(written(stamp, 64)).unwrap();
        let (one, two, others) = (text(&STAMP), text(&next), text(&other));
        let payload = format!("[\"{one}\",\"{two}\",\"{one}\",\"{two}\",\"{others}\",\"{}\"]", &one[..30]);
        let (one, two) = (Found::Wrapped(STAMP), Found::Wrapped(next));
        let expected = [one, two, Found::Repeated, Found::Repeated, Found::Broken];
        assert_eq!(found(payload.as_bytes(), 64), expected);
        assert_eq!(found(others.as_bytes(), 64), []);
        assert_eq!(found(b"hello", 64), []);
        assert_eq!(found(&[b'G'; 64], 16), []);
    }

    #[test]
    fn with_text_of_ones_own_around_it_that_counts_as_well() {
        let around = Around { before: b"{\"say\":\"".into(), behind: b"\"}".into() };
        let mut bytes = Vec::new();
        write_message(&STAMP, letters(64), &around, &mut bytes);
        let found = |payload: &[u8]| found_around(payload, 64, around.clone());
        assert_eq!(found(&bytes), [Found::Unchanged(STAMP)]);
        let mut changed = bytes.clone();
        changed[70] ^= 1;
        assert_eq!(found(&changed), [Found::Changed(STAMP)]);
        let mut changed = bytes.clone();
        *changed.last_mut().unwrap() = b']';
        assert_eq!(found(&changed), [Found::Changed(STAMP)]);
        // A server that understands it delivers what it makes of it.
        let text = String::from_utf8(bytes).unwrap();
        for delivered in [text.replace("say", "said"), text.replace('}', ",\"n\":1}"), written_text()] {
            assert_eq!(found(delivered.as_bytes()), [Found::Wrapped(STAMP)], "{delivered}");
        }
    }

    fn written_text() -> String {
        String::from_utf8(written(&STAMP, 64)).unwrap()
    }
}
