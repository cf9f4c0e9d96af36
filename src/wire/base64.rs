//! Base64 (RFC 4648 section 4), strictly: the standard alphabet, padded, no stray bits.
//!
//! Pure. Decoding only; whoever needs the other way has it in its own tests.

/// Decodes `text` behind what is in `into`. `false` if it is not Base64; `into` is then as it was.
pub fn decode_into(text: &str, into: &mut Vec<u8>) -> bool {
    let before = into.len();
    let decoded = decode(text.as_bytes(), into);
    if decoded.is_none() {
        into.truncate(before);
    }
    decoded.is_some()
}

fn decode(text: &[u8], into: &mut Vec<u8>) -> Option<()> {
    if !text.len().is_multiple_of(4) {
        return None;
    }
    into.reserve(text.len() / 4 * 3);
    let quads = text.len() / 4;
    for (index, quad) in text.chunks_exact(4).enumerate() {
        let &[first, second, third, fourth] = quad else { return None };
        let (first, second) = (sextet(first)?, sextet(second)?);
        let last = index + 1 == quads;
        let bytes = match (third, fourth) {
            // RFC 4648, 3.5: bits that no byte is made of have to be zero.
            (b'=', b'=') if last && second & 0x0f == 0 => [first << 2 | second >> 4, 0, 0],
            (third, b'=') if last => {
                let third = sextet(third).filter(|third| third & 0x03 == 0)?;
                [first << 2 | second >> 4, second << 4 | third >> 2, 0]
            }
            (third, fourth) => {
                let (third, fourth) = (sextet(third)?, sextet(fourth)?);
                [first << 2 | second >> 4, second << 4 | third >> 2, third << 6 | fourth]
            }
        };
        let padding = usize::from(third == b'=') + usize::from(fourth == b'=');
        into.extend_from_slice(bytes.get(..3 - padding)?);
    }
    Some(())
}

fn sextet(digit: u8) -> Option<u8> {
    match digit {
        b'A'..=b'Z' => Some(digit - b'A'),
        b'a'..=b'z' => Some(digit - b'a' + 26),
        b'0'..=b'9' => Some(digit - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decoded(text: &str) -> Option<Vec<u8>> {
        let mut out = b"kept".to_vec();
        let fine = decode_into(text, &mut out);
        assert!(out.starts_with(b"kept") && (fine || out.len() == 4));
        fine.then(|| out.split_off(4))
    }

    fn encoded(bytes: &[u8]) -> String {
        const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut out = String::new();
        for three in bytes.chunks(3) {
            let mut word = [0; 4];
            word[1..=three.len()].copy_from_slice(three);
            let word = u32::from_be_bytes(word);
            for digit in 0..4 {
                let shown = digit <= three.len();
                let sextet = (word >> (18 - 6 * digit)) & 63;
                out.push(if shown { char::from(DIGITS[sextet as usize]) } else { '=' });
            }
        }
        out
    }

    #[test]
    fn the_vectors_of_the_rfc_hold() {
        for (text, bytes) in [
            ("", ""),
            ("Zg==", "f"),
            ("Zm8=", "fo"),
            ("Zm9v", "foo"),
            ("Zm9vYg==", "foob"),
            ("Zm9vYmFy", "foobar"),
        ] {
            assert_eq!(decoded(text).as_deref(), Some(bytes.as_bytes()));
            assert_eq!(encoded(bytes.as_bytes()), text);
        }
    }

    #[test]
    fn what_is_not_base64_is_refused() {
        for text in [
            "Z", "Zg", "Zg=", "Zh==", "Zm9=", "====", "Z===", "=g==", "Zg==Zg==", "Zm 9", "Zm9-", "Zm9v\n",
            "é=",
        ] {
            assert_eq!(decoded(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_byte_string_comes_back(bytes in proptest::collection::vec(any::<u8>(), 0..50)) {
            prop_assert_eq!(decoded(&encoded(&bytes)), Some(bytes));
        }

        #[test]
        fn anything_is_decoded_to_what_encodes_to_it(text in "[A-Da-d0-3+/=]{0,12}") {
            if let Some(bytes) = decoded(&text) {
                prop_assert_eq!(encoded(&bytes), text);
            }
        }
    }
}
