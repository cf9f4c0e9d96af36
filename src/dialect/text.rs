//! Text that is in every message of a dialect: numbers, the members that say a message's place, and texts that need no
//! escapes. Pure.
//!
//! Beside a burst of small messages to some hundred connections this is what a form costs, and formatting is slow.

use crate::topic::{Message, Topic};

/// Digits that a number may have.
pub(super) const DIGITS_MAX: usize = 20;

/// The decimal digits of the numbers below 100.
const PAIRS: [[u8; 2]; 100] = {
    let mut pairs = [[0; 2]; 100];
    let mut number = 0;
    while number < pairs.len() {
        pairs[number] = [b'0' + (number / 10) as u8, b'0' + (number % 10) as u8];
        number += 1;
    }
    pairs
};

/// The decimal digits of a number, at the end of the room.
#[inline]
pub(super) fn decimal(mut number: u64, room: &mut [u8; DIGITS_MAX]) -> &[u8] {
    let mut from = DIGITS_MAX;
    while let Some(before) = from.checked_sub(2) {
        let pair = PAIRS[(number % 100) as usize];
        if let Some(place) = room.get_mut(before..from) {
            place.copy_from_slice(&pair);
        }
        let was = number;
        number /= 100;
        from = before;
        if number == 0 {
            from += usize::from(was < 10);
            break;
        }
    }
    room.get(from..).unwrap_or_default()
}

/// Appends the decimal digits of a number.
#[inline]
pub(super) fn push_decimal(number: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(decimal(number, &mut [0; DIGITS_MAX]));
}

/// Appends the beginning of a JSON object that tells of a message, up to its offset: it is the same for all of a topic.
pub(super) fn push_start(topic: &Topic, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"type\":\"message\",\"topic\":");
    push_string(topic.name(), out);
    out.extend_from_slice(b",\"offset\":");
}

/// Appends offset and time of a message as members of the object, the offset without its name.
#[inline]
pub(super) fn push_place(message: &Message, out: &mut Vec<u8>) {
    push_decimal(message.offset(), out);
    out.extend_from_slice(b",\"time\":");
    push_decimal(message.time_ms(), out);
}

/// Appends a JSON string.
pub(super) fn push_string(text: &str, out: &mut Vec<u8>) {
    // Writing a string into memory does not fail.
    let _ = serde_json::to_writer(out, text);
}

/// Whether text is ASCII that a JSON string has as it is (RFC 8259, 7).
#[inline]
pub(super) fn is_bare(text: &[u8]) -> bool {
    let escaped = |byte: u8| (byte < b' ') | (byte == b'"') | (byte == b'\\') | (byte >= 0x80);
    // All of a step are looked at, which the compiler turns into a few instructions for all of them.
    let mut steps = text.chunks_exact(32);
    let clear = steps.all(|step| !step.iter().fold(false, |any, &byte| any | escaped(byte)));
    clear && !steps.remainder().iter().any(|&byte| escaped(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_what_their_own_text_is() {
        let powers = (0..20).map(|digits| 10_u64.pow(digits));
        let near = powers.flat_map(|power| [power - 1, power, power + 1]);
        for number in near.chain([12_345_678_901, u64::MAX - 1, u64::MAX]) {
            assert_eq!(decimal(number, &mut [0; DIGITS_MAX]), number.to_string().as_bytes());
        }
    }

    #[test]
    fn a_bare_text_is_its_own_string() {
        let mut text = vec![b'a'; 70];
        for at in 0..text.len() {
            for byte in 0..=u8::MAX {
                text[at] = byte;
                let string = std::str::from_utf8(&text).ok().map(|text| serde_json::to_string(text).unwrap());
                let same = string.is_some_and(|string| string.len() == text.len() + 2 && text.is_ascii());
                assert_eq!(is_bare(&text), same, "{byte} at {at}");
            }
            text[at] = b'a';
        }
        assert!(is_bare(b"") && is_bare(b" ~") && !is_bare(b"\x7f\x1f"));
    }
}
