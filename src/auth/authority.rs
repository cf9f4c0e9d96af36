//! `host[:port]` as it stands in Host and Origin, compared without allocating. Strict: what a browser
//! would not send does not parse.

use std::net::{Ipv4Addr, Ipv6Addr};

/// A host, in the spelling of the peer.
#[derive(Debug, Clone, Copy)]
pub(super) enum HostName<'a> {
    /// A name or an IPv4 address; compared without regard to case.
    Name(&'a [u8]),
    /// An IPv6 literal; compared as an address, because it has many spellings.
    V6(Ipv6Addr),
}

impl PartialEq for HostName<'_> {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Name(a), Self::Name(b)) => a.eq_ignore_ascii_case(b),
            (Self::V6(a), Self::V6(b)) => a == b,
            _ => false,
        }
    }
}

impl HostName<'_> {
    /// Whether the name means this machine whatever a name server says: RFC 6761 §6.3 reserves `localhost` and
    /// all names under it.
    pub(super) fn is_loopback(&self) -> bool {
        match self {
            Self::V6(address) => address.is_loopback(),
            Self::Name(name) => {
                name.eq_ignore_ascii_case(b"localhost")
                    || ends_under(name, b".localhost")
                    || std::str::from_utf8(name)
                        .ok()
                        .and_then(|text| text.parse::<Ipv4Addr>().ok())
                        .is_some_and(|address| address.is_loopback())
            }
        }
    }
}

/// A host and, if it was written, a port.
#[derive(Debug, Clone, Copy)]
pub(super) struct Authority<'a> {
    pub(super) host: HostName<'a>,
    pub(super) port: Option<u16>,
}

impl<'a> Authority<'a> {
    /// Reads `host[:port]` (RFC 3986 §3.2 without userinfo), `None` for anything else.
    pub(super) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (host, port) = match bytes.strip_prefix(b"[") {
            Some(rest) => {
                let end = rest.iter().position(|byte| *byte == b']')?;
                let (literal, after) = (rest.get(..end)?, rest.get(end + 1..)?);
                let address = std::str::from_utf8(literal).ok()?.parse().ok()?;
                let port = if after.is_empty() { None } else { Some(after.strip_prefix(b":")?) };
                (HostName::V6(address), port)
            }
            None => {
                let colon = bytes.iter().position(|byte| *byte == b':');
                let (name, port) = match colon {
                    Some(at) => (bytes.get(..at)?, Some(bytes.get(at + 1..)?)),
                    None => (bytes, None),
                };
                if !is_name(name) {
                    return None;
                }
                (HostName::Name(name), port)
            }
        };
        let port = match port {
            Some(digits) => Some(port_number(digits)?),
            None => None,
        };
        Some(Self { host, port })
    }
}

/// Whether `name` lies under `suffix`, which begins with a dot.
pub(super) fn ends_under(name: &[u8], suffix: &[u8]) -> bool {
    name.len()
        .checked_sub(suffix.len())
        .and_then(|at| name.split_at_checked(at))
        .is_some_and(|(head, tail)| !head.is_empty() && tail.eq_ignore_ascii_case(suffix))
}

/// Letters, digits, `-`, `_` and dots between labels; one dot at the end is a name of its own.
pub(super) fn is_name(name: &[u8]) -> bool {
    const NAME_BYTES_MAX: usize = 255;
    let labels = name.strip_suffix(b".").unwrap_or(name);
    name.len() <= NAME_BYTES_MAX
        && labels.split(|byte| *byte == b'.').all(|label| {
            !label.is_empty() && label.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
        })
}

/// A port of one to five digits; no sign, no blank.
pub(super) fn port_number(digits: &[u8]) -> Option<u16> {
    if !(1..=5).contains(&digits.len()) || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_ports_parse_strictly() {
        for good in [
            "a",
            "a.example",
            "a.example.",
            "A_b-c.example:443",
            "127.0.0.1:1",
            "[::1]",
            "[::1]:80",
            "x:00080",
        ] {
            assert!(Authority::parse(good.as_bytes()).is_some(), "{good}");
        }
        let bad = [
            "",
            ".",
            "a..b",
            ".a",
            "a:",
            ":80",
            "a:b",
            "a:+80",
            "a:-1",
            "a:65536",
            "a:123456",
            "a b",
            "u@a",
            "a/b",
            "a\\b",
            "a?b",
            "a#b",
            "a,b",
            "[::1",
            "[::1]x",
            "[::1]:",
            "[]",
            "[a]",
            "[fe80::1%25eth0]",
            "[127.0.0.1]",
            "::1",
            "a%2eb",
            "é.example",
            "a\0b",
            "*.a",
        ];
        for bad in bad {
            assert!(Authority::parse(bad.as_bytes()).is_none(), "{bad}");
        }
        assert!(Authority::parse(&[0xff, 0xfe]).is_none());
        assert!(Authority::parse("a".repeat(256).as_bytes()).is_none());
    }

    #[test]
    fn hosts_compare_by_meaning() {
        let host = |text: &'static str| Authority::parse(text.as_bytes()).unwrap().host;
        assert_eq!(host("A.Example"), host("a.eXample"));
        assert_eq!(host("[0:0::1]"), host("[::1]"));
        assert_ne!(host("a.example."), host("a.example"));
        assert_ne!(host("[::1]"), host("localhost"));
    }

    #[test]
    fn loopback_is_what_cannot_be_rebound() {
        let loopback = |text: &str| Authority::parse(text.as_bytes()).unwrap().host.is_loopback();
        for yes in ["localhost", "LocalHost:1", "a.localhost", "127.0.0.1", "127.255.0.9:80", "[::1]:8081"] {
            assert!(loopback(yes), "{yes}");
        }
        let no = [
            "notlocalhost",
            "localhost.evil.com",
            "127.0.0.1.evil.com",
            "128.0.0.1",
            "127.1",
            "[::2]",
            "0.0.0.0",
        ];
        for no in no {
            assert!(!loopback(no), "{no}");
        }
    }
}
