//! Percent-decoding of paths and queries (RFC 3986 section 2.1).
//!
//! Pure; decodes once. What a decoded name may contain is up to whoever uses it.

use std::borrow::Cow;
use std::fmt;

/// Why a text cannot be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PercentError {
    /// A `%` without two hexadecimal digits.
    BadEscape,
    /// The decoded bytes are not UTF-8.
    NotUtf8,
}

impl fmt::Display for PercentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BadEscape => "malformed percent escape",
            Self::NotUtf8 => "percent escapes are not UTF-8",
        })
    }
}

impl std::error::Error for PercentError {}

/// Decodes each `%XX` once; borrows if there is none.
pub fn percent_decode(text: &str) -> Result<Cow<'_, str>, PercentError> {
    decode(text, false)
}

/// The pairs of a query, names and values decoded, `+` being a space; empty ones are left out.
pub fn query_pairs(query: &str) -> impl Iterator<Item = Result<(Cow<'_, str>, Cow<'_, str>), PercentError>> {
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        Ok((decode(name, true)?, decode(value, true)?))
    })
}

fn decode(text: &str, plus_is_space: bool) -> Result<Cow<'_, str>, PercentError> {
    if !text.bytes().any(|byte| byte == b'%' || (plus_is_space && byte == b'+')) {
        return Ok(Cow::Borrowed(text));
    }
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        decoded.push(match byte {
            b'%' => {
                let (&digits, tail) = tail.split_first_chunk::<2>().ok_or(PercentError::BadEscape)?;
                rest = tail;
                let [high, low] = digits.map(hex_digit);
                high.zip(low).map(|(high, low)| high << 4 | low).ok_or(PercentError::BadEscape)?
            }
            b'+' if plus_is_space => b' ',
            byte => byte,
        });
    }
    String::from_utf8(decoded).map(Cow::Owned).map_err(|_| PercentError::NotUtf8)
}

/// The value of a hexadecimal digit.
pub(super) fn hex_digit(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pairs(query: &str) -> Result<Vec<(String, String)>, PercentError> {
        query_pairs(query)
            .map(|pair| pair.map(|(name, value)| (name.into_owned(), value.into_owned())))
            .collect()
    }

    #[test]
    fn escapes_are_decoded_once() {
        assert!(matches!(percent_decode("plain+text"), Ok(Cow::Borrowed("plain+text"))));
        assert_eq!(percent_decode("a%20b%2Fc%2f").as_deref(), Ok("a b/c/"));
        assert_eq!(percent_decode("%2520").as_deref(), Ok("%20"));
        assert_eq!(percent_decode("%E2%82%AC€").as_deref(), Ok("€€"));
        for bad in ["%", "%2", "%2g", "%%20", "%+1", "% 1", "a%€"] {
            assert_eq!(percent_decode(bad), Err(PercentError::BadEscape), "{bad}");
        }
        for bad in ["%ff", "%e2%82", "%C0%AF", "%ED%A0%80"] {
            assert_eq!(percent_decode(bad), Err(PercentError::NotUtf8), "{bad}");
        }
    }

    #[test]
    fn queries_are_cut_before_they_are_decoded() {
        let expected = [("topic", "a b"), ("topic", "c&d=e"), ("flag", ""), ("", "x"), ("y", "1=2")];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(pairs("topic=a+b&topic=c%26d%3De&&flag&=x&y=1=2&"), Ok(expected.to_vec()));
        assert_eq!(pairs(""), Ok(vec![]));
        assert_eq!(pairs("a=%zz"), Err(PercentError::BadEscape));
    }

    proptest! {
        #[test]
        fn escaping_every_byte_comes_back(text in "\\PC{0,20}") {
            let escaped: String = text.bytes().map(|byte| format!("%{byte:02x}")).collect();
            let decoded = percent_decode(&escaped);
            prop_assert_eq!(decoded.as_deref(), Ok(text.as_str()));
        }

        #[test]
        fn anything_is_decoded_or_refused(text in "[%+&=0-9a-fA-F€x]{0,20}") {
            let _ = percent_decode(&text);
            let _ = pairs(&text);
        }
    }
}
