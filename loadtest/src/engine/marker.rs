//! The marker by which a test message is known wherever it stands in a payload: who sent it, which one it is, and
//! when it was planned to leave. Written by publishers and echo connections, searched by receivers.
//!
//! Servers that do not deliver payloads as they came (a JSON envelope, a prefix, escaped text, several messages in
//! one) leave it whole, because it is letters and digits. It describes itself: a fixed beginning to search for, and
//! a check over the rest. This module never touches a clock or a socket, and knows nothing of what stands around.
//!
//! ```text
//! text, 48 bytes                            compact, 16 bytes, numbers in network order
//!  4 letters     FQtZ                        4 bytes   the low half of the stream
//! 16 hex digits  stream                      4 bytes   sequence; all ones for a probe
//!  8 hex digits  sequence; all ones: probe   6 bytes   the low part of the planned time
//! 14 hex digits  planned send time in ns     2 bytes   check
//!  6 hex digits  check
//! ```
//!
//! The stream is the run, or in echo the run and the connection. The planned time counts from the start of the
//! process. A compact marker is no text and belongs to messages of less than 48 bytes.

use std::sync::LazyLock;

use memchr::memmem;

/// Bytes of the compact marker.
pub(crate) const COMPACT_BYTES: usize = 16;
/// Bytes of the text marker.
pub(crate) const TEXT_BYTES: usize = 48;
/// Sequence of a probe: sent before the measurement to learn who is subscribed, never counted.
pub(crate) const PROBE_SEQUENCE: u64 = u64::MAX;

/// How every text marker begins: letters that rarely follow each other, so that a search finds little else.
const MAGIC: &[u8; 4] = b"FQtZ";
/// Made once, because that takes longer than a search.
static FINDER: LazyLock<memmem::Finder<'static>> = LazyLock::new(|| memmem::Finder::new(MAGIC));
/// The sequence of a probe as it is written.
const PROBE_WRITTEN: u32 = u32::MAX;
/// Digits of the stream that have to be right for a broken marker to count as one of this run.
const DIGITS_KNOWN: usize = 8;
/// Bits of the planned time in a compact marker: three days, and arrivals are nearer than that.
const COMPACT_TIME_BITS: u32 = 48;

/// What a marker says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// The run, or in echo the run and the connection.
    pub(crate) stream: u64,
    /// Number of the message in its stream, from 0.
    pub(crate) sequence: u64,
    /// When it was planned to leave, in ns since the start of the process.
    pub(crate) planned_ns: u64,
}

/// Streams that are looked for: neighbouring numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Streams {
    first: u64,
    count: u64,
}

impl Streams {
    /// Only this one.
    pub(crate) fn one(stream: u64) -> Self {
        Self { first: stream, count: 1 }
    }

    /// So many from this one on.
    pub(crate) fn new(first: u64, count: u64) -> Self {
        Self { first, count }
    }

    /// Whether there is no other than the first.
    #[inline]
    pub(crate) fn are_one(self) -> bool {
        self.count == 1
    }

    #[inline]
    fn has(self, stream: u64) -> bool {
        stream.wrapping_sub(self.first) < self.count
    }
}

/// How a marker is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// Letters and digits.
    Text,
    /// Numbers.
    Compact,
}

/// A marker that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// A whole one of the stream that was looked for.
    Ours(Stamp),
    /// A whole one of another stream.
    Others,
    /// One that was cut or changed.
    Broken,
}

impl Form {
    /// Bytes of a marker.
    pub(crate) fn bytes(self) -> usize {
        match self {
            Self::Text => TEXT_BYTES,
            Self::Compact => COMPACT_BYTES,
        }
    }
}

/// Appends the marker.
pub(crate) fn write(stamp: &Stamp, form: Form, out: &mut Vec<u8>) {
    let Stamp { stream, planned_ns, .. } = *stamp;
    // Only a probe has a number that needs more: receivers count in 32 bits, too.
    let sequence = u32::try_from(stamp.sequence).unwrap_or(PROBE_WRITTEN);
    match form {
        Form::Text => {
            out.extend_from_slice(MAGIC);
            push_hex(stream, 16, out);
            push_hex(sequence.into(), 8, out);
            push_hex(planned_ns, 14, out);
            push_hex(u64::from(check(stream, sequence, planned_ns)), 6, out);
        }
        Form::Compact => {
            let tag = stream as u32;
            let time = planned_ns & low_bits(COMPACT_TIME_BITS);
            out.extend_from_slice(&tag.to_be_bytes());
            out.extend_from_slice(&sequence.to_be_bytes());
            out.extend(time.to_be_bytes().into_iter().skip(2));
            out.extend_from_slice(&compact_check(tag, sequence, time).to_be_bytes());
        }
    }
}

/// Reads a whole marker of one of `streams` at the very beginning of a payload that arrived at `now_ns`.
#[inline]
pub(crate) fn read_first(payload: &[u8], form: Form, streams: Streams, now_ns: u64) -> Option<Stamp> {
    match form {
        Form::Text => match read_text(payload.first_chunk()?)? {
            (stamp, true) if streams.has(stamp.stream) => Some(stamp),
            _ => None,
        },
        Form::Compact => read_compact(payload.first_chunk()?, streams, now_ns),
    }
}

/// All markers in a payload with the places at which they begin, in their order.
pub(crate) fn all(
    payload: &[u8],
    form: Form,
    streams: Streams,
    now_ns: u64,
) -> impl Iterator<Item = (usize, Seen)> {
    // Compact ones of several streams are only read where a payload begins.
    let tag = (streams.first as u32).to_be_bytes();
    let mut from = 0;
    std::iter::from_fn(move || {
        loop {
            let rest = payload.get(from..)?;
            let at = from
                + match form {
                    Form::Text => FINDER.find(rest)?,
                    Form::Compact => memmem::find(rest, &tag)?,
                };
            let rest = payload.get(at..).unwrap_or_default();
            let seen = match form {
                Form::Text => see_text(rest, streams),
                Form::Compact => {
                    Some(read_first(rest, form, streams, now_ns).map_or(Seen::Broken, Seen::Ours))
                }
            };
            // Behind a broken one, or what only began like one, the next may begin anywhere.
            let whole = matches!(seen, Some(Seen::Ours(_) | Seen::Others));
            from = at + if whole { form.bytes() } else { MAGIC.len() };
            if let Some(seen) = seen {
                return Some((at, seen));
            }
        }
    })
}

/// What begins at a [`MAGIC`]; `None` if nothing but these letters is like a marker.
fn see_text(bytes: &[u8], streams: Streams) -> Option<Seen> {
    match bytes.first_chunk().and_then(read_text) {
        Some((stamp, true)) if streams.has(stamp.stream) => return Some(Seen::Ours(stamp)),
        Some((_, true)) => return Some(Seen::Others),
        // Digits throughout, which do not fit together.
        Some((_, false)) => return Some(Seen::Broken),
        None => {}
    }
    let mut ours = Vec::with_capacity(16);
    push_hex(streams.first, 16, &mut ours);
    let found = bytes.get(MAGIC.len()..).unwrap_or_default();
    let right = ours.iter().zip(found).take_while(|(ours, found)| ours == found).count();
    (right >= DIGITS_KNOWN).then_some(Seen::Broken)
}

/// What a text marker says, and whether its check is right; `None` if it is no marker.
#[inline]
fn read_text(marker: &[u8; TEXT_BYTES]) -> Option<(Stamp, bool)> {
    let (magic, digits) = marker.split_first_chunk()?;
    if magic != MAGIC {
        return None;
    }
    // Eight digits at a time; the time has the last six of its fourteen in the word in which the check begins.
    let (words, last) = digits.as_chunks::<8>();
    let [high, low, sequence, time, mixed] = words else { return None };
    let [a, b, c, d] = last else { return None };
    let (high, low, sequence) = (hex(*high)?, hex(*low)?, hex(*sequence)?);
    let (time, mixed, last) = (hex(*time)?, hex(*mixed)?, hex([b'0', b'0', b'0', b'0', *a, *b, *c, *d])?);
    let stream = (u64::from(high) << 32) | u64::from(low);
    let planned_ns = (u64::from(time) << 24) | u64::from(mixed >> 8);
    let found = ((mixed & 0xff) << 16) | last;
    let right = found == check(stream, sequence, planned_ns);
    Some((Stamp { stream, sequence: number(sequence), planned_ns }, right))
}

#[inline]
fn read_compact(marker: &[u8; COMPACT_BYTES], streams: Streams, now_ns: u64) -> Option<Stamp> {
    let whole = u128::from_be_bytes(*marker);
    let (tag, sequence) = ((whole >> 96) as u32, (whole >> 64) as u32);
    let (time, found) = ((whole >> 16) as u64 & low_bits(COMPACT_TIME_BITS), whole as u16);
    let ahead = u64::from(tag.wrapping_sub(streams.first as u32));
    if ahead >= streams.count || found != compact_check(tag, sequence, time) {
        return None;
    }
    Some(Stamp {
        stream: streams.first.wrapping_add(ahead),
        sequence: number(sequence),
        planned_ns: widen(time, now_ns),
    })
}

/// The time with these low bits that is nearest to now.
fn widen(low: u64, now_ns: u64) -> u64 {
    let span = 1u64 << COMPACT_TIME_BITS;
    let near = (now_ns & !low_bits(COMPACT_TIME_BITS)) | low;
    if near > now_ns.saturating_add(span / 2) {
        near.saturating_sub(span)
    } else if now_ns > near.saturating_add(span / 2) {
        near.saturating_add(span)
    } else {
        near
    }
}

fn number(written: u32) -> u64 {
    if written == PROBE_WRITTEN { PROBE_SEQUENCE } else { u64::from(written) }
}

/// 24 bits that a change of any of the numbers changes, but for one in 16 million.
#[inline]
fn check(stream: u64, sequence: u32, planned_ns: u64) -> u32 {
    (mixed(stream, sequence, planned_ns) >> 40) as u32
}

#[inline]
fn compact_check(tag: u32, sequence: u32, time: u64) -> u16 {
    (mixed(tag.into(), sequence, time) >> 48) as u16
}

#[inline]
fn mixed(stream: u64, sequence: u32, planned_ns: u64) -> u64 {
    // The odd constants of xxHash: no change of one number can leave its product as it was.
    let state = stream.wrapping_mul(0x9e37_79b1_85eb_ca87)
        ^ u64::from(sequence).wrapping_mul(0xc2b2_ae3d_27d4_eb4f).rotate_left(21)
        ^ planned_ns.wrapping_mul(0x1656_67b1_9e37_79f9).rotate_left(42);
    // The high bits of a product depend on all of its factors.
    (state ^ (state >> 32)).wrapping_mul(0x9e37_79b1_85eb_ca87)
}

fn low_bits(count: u32) -> u64 {
    (1 << count) - 1
}

fn push_hex(number: u64, digits: u32, out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    out.extend((0..digits).rev().map(|digit| DIGITS[(number >> (digit * 4)) as usize & 0xf]));
}

/// The number that eight digits are; `None` unless all are digits as [`push_hex`] writes them.
#[inline]
fn hex(digits: [u8; 8]) -> Option<u32> {
    const EACH: u64 = 0x0101_0101_0101_0101;
    let text = u64::from_be_bytes(digits);
    // In each byte at once: letters have bit 6, and their low four bits count from 1.
    let values = (text & (0x0f * EACH)) + 9 * ((text >> 6) & EACH);
    // Whatever is no digit is above 15 (at most 24, so no byte overflows) or comes out as another text.
    let letters = ((values + 6 * EACH) >> 4) & EACH;
    let written = values + u64::from(b'0') * EACH + u64::from(b'a' - b'0' - 10) * letters;
    let digits = written == text && values & (0xf0 * EACH) == 0;
    let pairs = (values | (values >> 4)) & 0x00ff_00ff_00ff_00ff;
    let fours = (pairs | (pairs >> 8)) & 0x0000_ffff_0000_ffff;
    digits.then_some((fours | (fours >> 16)) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: Stamp = Stamp { stream: 0xfeed_0bad_cafe_0001, sequence: 30, planned_ns: 0x12_3456_789a };

    fn written(stamp: &Stamp, form: Form) -> Vec<u8> {
        let mut bytes = Vec::new();
        write(stamp, form, &mut bytes);
        bytes
    }

    fn text(stamp: &Stamp) -> String {
        String::from_utf8(written(stamp, Form::Text)).unwrap()
    }

    fn seen(payload: &[u8], form: Form) -> Vec<(usize, Seen)> {
        all(payload, form, Streams::one(STAMP.stream), STAMP.planned_ns + 5).collect()
    }

    #[test]
    fn both_forms_are_as_documented_and_read_back() {
        assert_eq!(&text(&STAMP)[..42], "FQtZfeed0badcafe00010000001e0000123456789a");
        let compact = written(&STAMP, Form::Compact);
        assert_eq!(compact[..14], [0xca, 0xfe, 0, 1, 0, 0, 0, 30, 0, 0x12, 0x34, 0x56, 0x78, 0x9a]);
        let last = Stamp { sequence: u64::from(u32::MAX) - 1, planned_ns: (1 << 56) - 1, ..STAMP };
        let probe = Stamp { sequence: PROBE_SEQUENCE, ..STAMP };
        for stamp in [STAMP, last, probe] {
            for form in [Form::Text, Form::Compact] {
                let bytes = written(&stamp, form);
                assert_eq!(bytes.len(), form.bytes());
                let now_ns = stamp.planned_ns + 1_000;
                assert_eq!(
                    read_first(&bytes, form, Streams::one(STAMP.stream), now_ns),
                    Some(stamp),
                    "{form:?}"
                );
                assert_eq!(
                    read_first(&bytes, form, Streams::one(STAMP.stream + 1), now_ns),
                    None,
                    "{form:?}"
                );
            }
        }
    }

    #[test]
    fn a_marker_of_any_of_several_streams_is_known() {
        let streams = Streams::new(STAMP.stream - 2, 4);
        for form in [Form::Text, Form::Compact] {
            for ahead in 0..6 {
                let stamp = Stamp { stream: STAMP.stream - 2 + ahead, ..STAMP };
                let found = read_first(&written(&stamp, form), form, streams, STAMP.planned_ns);
                assert_eq!(found, (ahead < 4).then_some(stamp), "{form:?} {ahead}");
            }
        }
        let bytes = text(&Stamp { stream: STAMP.stream + 1, ..STAMP });
        let broken: Vec<_> = all(&bytes.as_bytes()[..30], Form::Text, streams, 0).collect();
        assert_eq!(broken, [(0, Seen::Broken)]);
    }

    #[test]
    fn only_digits_as_they_are_written_are_digits() {
        for byte in 0..=u8::MAX {
            let expected = char::from(byte).to_digit(16).filter(|_| !byte.is_ascii_uppercase());
            for place in 0..8 {
                let mut digits = *b"1f0a9b3c";
                digits[place] = byte;
                let text = digits.map(char::from).iter().collect::<String>();
                let number = expected.map(|_| u32::from_str_radix(&text, 16).unwrap());
                assert_eq!(hex(digits), number, "{text}");
            }
        }
    }

    #[test]
    fn a_compact_time_is_the_nearest_to_now() {
        let span = 1 << COMPACT_TIME_BITS;
        for (planned_ns, now_ns) in [
            (5, 7),
            (7, 5),
            (span - 1, span + 3),
            (span + 3, span - 1),
            (9 * span + 8, 9 * span + 8 + span / 3),
        ] {
            assert_eq!(widen(planned_ns & low_bits(COMPACT_TIME_BITS), now_ns), planned_ns);
        }
    }

    #[test]
    fn it_is_found_wherever_it_stands() {
        let marker = text(&STAMP);
        for (before, behind) in [
            ("", ""),
            (r#"{"type":"msg","from":"ann","data":""#, r#"abc","ts":17}"#),
            (r#"42["message",{"text":""#, r#""}]"#),
            (r#"{"data":"{\"data\":\""#, r#"\"}"}"#),
            ("FQtZ FQtZ0 FQtZFQtZ", "FQtZ"),
        ] {
            let payload = format!("{before}{marker}{behind}");
            assert_eq!(
                seen(payload.as_bytes(), Form::Text),
                [(before.len(), Seen::Ours(STAMP))],
                "{payload}"
            );
        }
        let compact = written(&STAMP, Form::Compact);
        let payload = [b"\x0a\x10\xca\xfe", &compact[..], b"\x18\x01"].concat();
        assert_eq!(seen(&payload, Form::Compact), [(4, Seen::Ours(STAMP))]);
    }

    #[test]
    fn several_are_told_in_their_order_and_whose_they_are() {
        let next = Stamp { sequence: 31, ..STAMP };
        let other = Stamp { stream: 7, ..STAMP };
        let payload = format!("[{},{},{}]", text(&STAMP), text(&other), text(&next));
        assert_eq!(
            seen(payload.as_bytes(), Form::Text),
            [(1, Seen::Ours(STAMP)), (50, Seen::Others), (99, Seen::Ours(next))]
        );
        assert_eq!(seen(b"nothing", Form::Text), []);
        assert_eq!(seen(b"", Form::Compact), []);
    }

    #[test]
    fn a_marker_that_was_cut_or_changed_is_broken_not_somebody_elses() {
        let marker = text(&STAMP);
        for cut in 0..marker.len() {
            let payload = format!("{{\"data\":\"{}\"}}", &marker[..cut]);
            let expected = if cut < 4 + DIGITS_KNOWN { vec![] } else { vec![(9, Seen::Broken)] };
            assert_eq!(seen(payload.as_bytes(), Form::Text), expected, "{payload}");
            assert_eq!(seen(&marker.as_bytes()[..cut], Form::Text).len(), expected.len());
        }
        for form in [Form::Text, Form::Compact] {
            let marker = written(&STAMP, form);
            for at in 0..marker.len() {
                for bit in 0..8 {
                    let mut changed = marker.clone();
                    changed[at] ^= 1 << bit;
                    let found = seen(&changed, form);
                    // Who changes how it begins hides it; whoever waits for it misses it.
                    if at >= 4 + if form == Form::Text { DIGITS_KNOWN } else { 0 } {
                        assert_eq!(found, [(0, Seen::Broken)], "{form:?}: bit {bit} of byte {at}");
                    }
                    assert!(!found.iter().any(|(_, seen)| matches!(seen, Seen::Ours(_) | Seen::Others)));
                }
            }
        }
        assert_eq!(seen(b"a text about FQtZ, which begins every marker and is none", Form::Text), []);
    }
}
