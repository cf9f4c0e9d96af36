//! The PROXY protocol, versions 1 and 2: one header in front of a connection in which a proxy says whom it
//! speaks for (haproxy's `proxy-protocol.txt`).
//!
//! Pure: bytes in, a header out, as soon as it is whole; refused as soon as it cannot become one. Never
//! allocates. Who may send one is decided elsewhere.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The longest header of version 1, line end included (section 2.1).
pub const V1_BYTES_MAX: usize = 107;

/// The longest header of version 2 that is taken: the fixed part and addresses with TLVs of 520 bytes. Section
/// 2.2 asks receivers for 536 bytes at least.
pub const V2_BYTES_MAX: usize = 16 + 520;

const V1_START: &[u8] = b"PROXY ";
const V2_START: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const V2_FIXED_BYTES: usize = 16;

/// What a header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProxyHeader {
    /// The client the proxy speaks for; `None` when it speaks for itself (a health check) or does not know.
    pub source: Option<IpAddr>,
    /// Bytes of the header; the client's begin behind them.
    pub len: usize,
}

/// Why a connection does not begin with a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyError {
    /// It begins with something else.
    Missing,
    /// Version 1: not the words, addresses and ports there should be.
    BadLine,
    /// Version 2: a version or command nobody knows.
    BadCommand,
    /// Version 2: a family or transport that no TCP connection has.
    BadFamily,
    /// Version 2: a length too small for the addresses, or larger than is taken.
    BadLength,
}

impl ProxyError {
    /// The reason as one line.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Missing => "a PROXY header is expected from this network",
            Self::BadLine => "malformed PROXY header",
            Self::BadCommand => "unknown PROXY version or command",
            Self::BadFamily => "PROXY header of another transport than TCP",
            Self::BadLength => "PROXY header of impossible length",
        }
    }
}

impl fmt::Display for ProxyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason())
    }
}

impl std::error::Error for ProxyError {}

/// Parses the header at the front of `bytes`; `None` if it is not all there.
///
/// # Errors
/// No continuation of `bytes` begins with a header that is taken.
pub fn parse_proxy(bytes: &[u8]) -> Result<Option<ProxyHeader>, ProxyError> {
    if begins(bytes, V2_START) {
        return parse_v2(bytes);
    }
    if begins(bytes, V1_START) {
        return parse_v1(bytes);
    }
    Err(ProxyError::Missing)
}

/// Whether `bytes` begin with `start`, as far as they go.
fn begins(bytes: &[u8], start: &[u8]) -> bool {
    let known = bytes.len().min(start.len());
    bytes.get(..known) == start.get(..known)
}

fn parse_v1(bytes: &[u8]) -> Result<Option<ProxyHeader>, ProxyError> {
    let window = bytes.get(..V1_BYTES_MAX).unwrap_or(bytes);
    let Some(end) = window.iter().position(|byte| *byte == b'\n') else {
        // Only the last byte may be a CR whose LF is on its way.
        let text = window.strip_suffix(b"\r").unwrap_or(window);
        if bytes.len() >= V1_BYTES_MAX || !text.iter().all(|byte| matches!(byte, b' '..=b'~')) {
            return Err(ProxyError::BadLine);
        }
        return Ok(None);
    };
    let line = window.get(..end).and_then(|line| line.strip_suffix(b"\r"));
    let line = line.and_then(|line| std::str::from_utf8(line).ok()).ok_or(ProxyError::BadLine)?;
    let source = v1_source(line).ok_or(ProxyError::BadLine)?;
    Ok(Some(ProxyHeader { source, len: end + 1 }))
}

/// The source of a line without its end; the outer `None` is for one that is malformed.
fn v1_source(line: &str) -> Option<Option<IpAddr>> {
    if !line.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return None;
    }
    // Exactly one space between words; `split` makes an empty word of two.
    let mut words = line.split(' ');
    if words.next() != Some("PROXY") {
        return None;
    }
    let family = words.next()?;
    // Section 2.1: what follows UNKNOWN is to be ignored up to the end of the line.
    if family == "UNKNOWN" {
        return Some(None);
    }
    let mut address = || -> Option<IpAddr> {
        let word = words.next()?;
        match family {
            "TCP4" => word.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
            "TCP6" => word.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
            _ => None,
        }
    };
    let (source, _destination) = (address()?, address()?);
    let _ports = (port(words.next()?)?, port(words.next()?)?);
    words.next().is_none().then_some(Some(source.to_canonical()))
}

/// A decimal port without sign or leading zero.
fn port(word: &str) -> Option<u16> {
    let plain = word.bytes().all(|byte| byte.is_ascii_digit()) && (word.len() == 1 || !word.starts_with('0'));
    if plain { word.parse().ok() } else { None }
}

fn parse_v2(bytes: &[u8]) -> Result<Option<ProxyHeader>, ProxyError> {
    // Section 2.2: version 2 with the commands LOCAL and PROXY.
    let local = match bytes.get(12) {
        None => return Ok(None),
        Some(0x20) => true,
        Some(0x21) => false,
        Some(_) => return Err(ProxyError::BadCommand),
    };
    let address_bytes = match bytes.get(13) {
        None => return Ok(None),
        // AF_UNSPEC; and a LOCAL header's family is to be ignored.
        Some(0x00) => 0,
        Some(_) if local => 0,
        Some(0x11) => 12,
        Some(0x21) => 36,
        // AF_UNIX over a stream: the client of a local proxy, which has no address.
        Some(0x31) => 216,
        Some(_) => return Err(ProxyError::BadFamily),
    };
    let (Some(high), Some(low)) = (bytes.get(14), bytes.get(15)) else {
        // The high byte alone may already say too much.
        return match bytes.get(14) {
            Some(high) if usize::from(*high) << 8 > V2_BYTES_MAX - V2_FIXED_BYTES => {
                Err(ProxyError::BadLength)
            }
            _ => Ok(None),
        };
    };
    let length = usize::from(u16::from_be_bytes([*high, *low]));
    if length < address_bytes || length > V2_BYTES_MAX - V2_FIXED_BYTES {
        return Err(ProxyError::BadLength);
    }
    // TLVs behind the addresses are skipped.
    let Some(addresses) = bytes.get(V2_FIXED_BYTES..V2_FIXED_BYTES + length) else { return Ok(None) };
    let source = match address_bytes {
        12 => addresses.first_chunk::<4>().map(|octets| IpAddr::from(*octets)),
        36 => addresses.first_chunk::<16>().map(|octets| IpAddr::from(*octets).to_canonical()),
        _ => None,
    };
    Ok(Some(ProxyHeader { source, len: V2_FIXED_BYTES + length }))
}

#[cfg(test)]
mod tests;
