//! UTF-8 validation of text that arrives in pieces.
//!
//! Owns the few bits that one piece leaves open for the next. Driven by the inbox with the bytes of a
//! text message as they arrive. Never keeps the text.

use std::fmt;

/// The text is not UTF-8; the answer is close 1007.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidUtf8;

impl fmt::Display for InvalidUtf8 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text is not valid UTF-8")
    }
}

impl std::error::Error for InvalidUtf8 {}

/// Whether a whole text is UTF-8. Most texts here are short and ASCII, which is seen a word at a time; the standard
/// library's validation looks at each of their bytes.
#[inline]
#[must_use]
pub fn is_utf8(text: &[u8]) -> bool {
    text.is_ascii() || core::str::from_utf8(text).is_ok()
}

/// Validates text piece by piece; a fresh one is between characters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Utf8Check {
    /// How many bytes the open character still needs.
    missing: u8,
    /// The range its next byte must be in.
    low: u8,
    high: u8,
}

impl Utf8Check {
    /// Takes the next bytes and fails on the first one that no valid text can have there.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), InvalidUtf8> {
        let mut rest = bytes;
        while self.missing > 0 {
            let Some((&byte, tail)) = rest.split_first() else { return Ok(()) };
            self.continue_with(byte)?;
            rest = tail;
        }
        let Err(error) = core::str::from_utf8(rest) else { return Ok(()) };
        if error.error_len().is_some() {
            return Err(InvalidUtf8);
        }
        // What follows the valid part is the beginning of one character.
        let open = rest.get(error.valid_up_to()..).unwrap_or_default();
        let Some((&lead, tail)) = open.split_first() else { return Ok(()) };
        self.begin(lead)?;
        tail.iter().try_for_each(|&byte| self.continue_with(byte))
    }

    /// Fails if the text ended inside a character.
    pub fn finish(&self) -> Result<(), InvalidUtf8> {
        if self.missing == 0 { Ok(()) } else { Err(InvalidUtf8) }
    }

    /// Opens a character of several bytes; the ranges are those of RFC 3629 section 4.
    fn begin(&mut self, lead: u8) -> Result<(), InvalidUtf8> {
        let (missing, low, high) = match lead {
            0xC2..=0xDF => (1, 0x80, 0xBF),
            0xE0 => (2, 0xA0, 0xBF),
            // Surrogates are not characters.
            0xED => (2, 0x80, 0x9F),
            0xE1..=0xEF => (2, 0x80, 0xBF),
            0xF0 => (3, 0x90, 0xBF),
            0xF1..=0xF3 => (3, 0x80, 0xBF),
            0xF4 => (3, 0x80, 0x8F),
            _ => return Err(InvalidUtf8),
        };
        *self = Self { missing, low, high };
        Ok(())
    }

    fn continue_with(&mut self, byte: u8) -> Result<(), InvalidUtf8> {
        if !(self.low..=self.high).contains(&byte) {
            return Err(InvalidUtf8);
        }
        *self = Self { missing: self.missing.saturating_sub(1), low: 0x80, high: 0xBF };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The index of the first byte that makes every continuation invalid, by the standard library.
    fn first_bad(bytes: &[u8]) -> Option<usize> {
        (1..=bytes.len())
            .find(|&n| core::str::from_utf8(&bytes[..n]).is_err_and(|e| e.error_len().is_some()))
            .map(|n| n - 1)
    }

    fn first_bad_ours(bytes: &[u8]) -> Option<usize> {
        let mut check = Utf8Check::default();
        bytes.iter().position(|&byte| check.push(&[byte]).is_err())
    }

    fn compare(bytes: &[u8]) {
        assert_eq!(first_bad_ours(bytes), first_bad(bytes), "{bytes:x?}");
        let valid = core::str::from_utf8(bytes).is_ok();
        assert_eq!(is_utf8(bytes), valid, "{bytes:x?}");
        for cut in 0..=bytes.len() {
            let mut check = Utf8Check::default();
            let pushed = check.push(&bytes[..cut]).and_then(|()| check.push(&bytes[cut..]));
            assert_eq!(pushed.is_ok(), first_bad(bytes).is_none(), "{bytes:x?} at {cut}");
            assert_eq!(pushed.and_then(|()| check.finish()).is_ok(), valid, "{bytes:x?} at {cut}");
        }
    }

    #[test]
    fn every_pair_of_bytes_and_the_edges_behind_it_agree_with_the_standard_library() {
        const EDGES: [u8; 8] = [0x00, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xBF, 0xC2];
        for a in 0x7F..=255u8 {
            for b in 0..=255u8 {
                compare(&[a, b]);
                if a >= 0xE0 && (b & 0xC0 == 0x80) {
                    for c in EDGES {
                        compare(&[a, b, c]);
                        compare(&[a, b, c, 0x80]);
                    }
                }
            }
        }
    }

    #[test]
    fn stays_small() {
        assert!(size_of::<Utf8Check>() <= 4);
    }

    proptest! {
        #[test]
        fn random_bytes_agree(bytes in proptest::collection::vec(any::<u8>(), 0..24)) {
            compare(&bytes);
        }

        #[test]
        fn random_text_with_one_byte_changed_agrees(
            text in "\\PC{0,12}", at in any::<proptest::sample::Index>(), byte in any::<u8>(),
        ) {
            let mut bytes = text.into_bytes();
            compare(&bytes);
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] = byte;
                compare(&bytes);
            }
        }
    }
}
