//! The payload of a close frame (RFC 6455 sections 5.5.1 and 7.4).
//!
//! Owns which codes may appear on the wire. Driven by whoever reads or writes a close frame. Never
//! decides when to close.

use super::frame::CONTROL_BYTES_MAX;
use std::fmt;

/// The codes that may stand in a close frame, as inclusive ranges: those the RFC and its registry
/// define, and those left to libraries and applications.
pub const LEGAL_CODES: [(u16, u16); 3] = [(1000, 1003), (1007, 1014), (3000, 4999)];

/// Why a code may not stand in a close frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CloseCodeError {
    /// Below 1000 or above 4999 (RFC 6455 section 7.4.2).
    OutOfRange,
    /// 1005, 1006 and 1015 are for reporting only (RFC 6455 section 7.4.1).
    NeverSent,
    /// Reserved for the protocol and not defined.
    Undefined,
}

/// What a close payload can do wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CloseError {
    /// One byte, which is half a code.
    HalfCode,
    /// A code that may not be sent.
    Code(CloseCodeError),
    /// A reason that is not UTF-8.
    BadUtf8,
}

impl CloseError {
    /// The code to answer with.
    pub const fn close_code(self) -> u16 {
        match self {
            Self::HalfCode | Self::Code(_) => 1002,
            // RFC 6455 section 8.1: text that is not UTF-8 fails the connection, with 1007.
            Self::BadUtf8 => 1007,
        }
    }

    /// The reason as one line, fit for a close frame.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::HalfCode => "close payload of one byte",
            Self::Code(CloseCodeError::OutOfRange) => "close code out of range",
            Self::Code(CloseCodeError::NeverSent) => "close code that is never sent",
            Self::Code(CloseCodeError::Undefined) => "close code without a meaning",
            Self::BadUtf8 => "close reason is not valid UTF-8",
        }
    }
}

impl fmt::Display for CloseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason())
    }
}

impl std::error::Error for CloseError {}

/// Whether `code` may stand in a close frame.
pub fn check_code(code: u16) -> Result<(), CloseCodeError> {
    if LEGAL_CODES.iter().any(|&(low, high)| (low..=high).contains(&code)) {
        return Ok(());
    }
    Err(match code {
        1005 | 1006 | 1015 => CloseCodeError::NeverSent,
        1000..=4999 => CloseCodeError::Undefined,
        _ => CloseCodeError::OutOfRange,
    })
}

/// The code and reason in a close payload; `None` if it is empty, which is legal.
pub fn parse_close(payload: &[u8]) -> Result<Option<(u16, &str)>, CloseError> {
    if payload.is_empty() {
        return Ok(None);
    }
    let Some((&code, reason)) = payload.split_first_chunk::<2>() else { return Err(CloseError::HalfCode) };
    let code = u16::from_be_bytes(code);
    check_code(code).map_err(CloseError::Code)?;
    let reason = core::str::from_utf8(reason).map_err(|_| CloseError::BadUtf8)?;
    Ok(Some((code, reason)))
}

/// Writes a close payload to the front of `buf`, with as many whole characters of `reason` as fit,
/// and returns its length.
pub fn close_payload(buf: &mut [u8; CONTROL_BYTES_MAX], code: u16, reason: &str) -> usize {
    let reason = truncated(reason, CONTROL_BYTES_MAX - 2);
    let len = 2 + reason.len();
    buf[..2].copy_from_slice(&code.to_be_bytes());
    buf[2..len].copy_from_slice(reason.as_bytes());
    len
}

/// The longest beginning of `text` of at most `bytes_max` bytes that ends between characters.
fn truncated(text: &str, bytes_max: usize) -> &str {
    // Zero is always a boundary, so the search always ends with a cut.
    (0..=bytes_max.min(text.len())).rev().find_map(|end| text.get(..end)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tungstenite::protocol::frame::coding::CloseCode;

    #[test]
    fn every_code_is_judged_as_the_rfc_and_tungstenite_do() {
        for code in (0..=5100).chain([u16::MAX]) {
            let legal = matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999);
            let bytes = code.to_be_bytes();
            let parsed = parse_close(&bytes);
            assert_eq!(parsed.is_ok(), legal, "{code}");
            // 1014 is in the registry and not yet in tungstenite.
            assert!(code == 1014 || legal == CloseCode::from(code).is_allowed(), "{code}");
            match parsed {
                Ok(parsed) => assert_eq!(parsed, Some((code, ""))),
                Err(error) => assert_eq!(error.close_code(), 1002),
            }
        }
    }

    #[test]
    fn payloads_that_are_short_or_not_text_are_told_apart() {
        assert_eq!(parse_close(b""), Ok(None));
        assert_eq!(parse_close(&[3]), Err(CloseError::HalfCode));
        assert_eq!(parse_close(b"\x03\xe8bye"), Ok(Some((1000, "bye"))));
        assert_eq!(parse_close(b"\x03\xe8\xff"), Err(CloseError::BadUtf8));
        assert_eq!(parse_close(b"\x03\xe8\xe2\x82").map_err(CloseError::close_code), Err(1007));
    }

    #[test]
    fn a_reason_is_cut_between_characters() {
        let mut buf = [0; CONTROL_BYTES_MAX];
        for ascii in 0..8 {
            let reason = "a".repeat(ascii) + &"€".repeat(60);
            let n = close_payload(&mut buf, 1011, &reason);
            let (code, cut) = parse_close(&buf[..n]).unwrap().unwrap();
            assert_eq!(code, 1011);
            assert!(reason.starts_with(cut) && (120..=123).contains(&cut.len()), "{}", cut.len());
        }
        assert_eq!(close_payload(&mut buf, 1000, ""), 2);
        assert_eq!(close_payload(&mut buf, 1000, &"x".repeat(123)), 125);
        assert_eq!(close_payload(&mut buf, 1000, &"x".repeat(124)), 125);
    }
}
