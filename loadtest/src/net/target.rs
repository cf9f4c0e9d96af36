//! Where the load goes: `ws://`, `wss://`, `http://` and `https://` URLs, and the source addresses it comes from.
//!
//! Only what a load test needs: a literal address, `localhost` or a host name, a port, a path. Resolving happens
//! once, before any load.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs, UdpSocket};

use super::ways::Ways;

/// Connections per source address. Linux has about 28,000 ephemeral ports per address, and filling
/// them makes the search for a free one slow, which would be measured as connect latency.
pub(crate) const CONNECTIONS_PER_SOURCE: usize = 12_000;
/// Addresses that one `--source` may name.
const SOURCES_MAX: u32 = 65_536;

/// The protocol of a [`Target`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scheme {
    /// `ws://` or `wss://`
    Ws,
    /// `http://` or `https://`
    Http,
}

/// A parsed URL, resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// The protocol.
    pub(crate) scheme: Scheme,
    /// Whether it is spoken over TLS.
    pub(crate) secure: bool,
    /// The value of the `Host` header.
    pub(crate) authority: String,
    /// Path and query, starting with `/`.
    pub(crate) path: String,
    /// The first address the host resolves to.
    pub(crate) address: SocketAddr,
    /// The others of the same family, which are used in turn.
    pub(crate) others: Vec<SocketAddr>,
}

impl Target {
    /// Parses and resolves `scheme://HOST[:PORT]/PATH`.
    pub(crate) fn parse(url: &str) -> Result<Self, String> {
        Self::parse_by(url, &Ways::default())
    }

    /// The same, where connections may go elsewhere than the URL says.
    pub(crate) fn parse_by(url: &str, ways: &Ways) -> Result<Self, String> {
        let (scheme, rest) = url.split_once("://").ok_or_else(|| format!("{url}: not a URL"))?;
        let (scheme, secure) = match scheme.to_ascii_lowercase().as_str() {
            "ws" => (Scheme::Ws, false),
            "wss" => (Scheme::Ws, true),
            "http" => (Scheme::Http, false),
            "https" => (Scheme::Http, true),
            other => {
                return Err(format!("{url}: unknown scheme {other}; use ws://, wss://, http:// or https://"));
            }
        };
        if url.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
            return Err(format!("{url}: spaces and controls must be percent-encoded"));
        }
        let rest = rest.split('#').next().unwrap_or_default();
        let (authority, path) = split_path(rest);
        if authority.contains('@') {
            return Err(format!("{url}: user names are not supported"));
        }
        if !authority.is_ascii() {
            return Err(format!("{url}: write the host as it is resolved, in ASCII (xn--…)"));
        }
        let (host, port) = split_port(authority).ok_or_else(|| format!("{url}: wrong host or port"))?;
        let mut addresses: Vec<SocketAddr> = Vec::new();
        for (host, port) in ways.of(host, port.unwrap_or(if secure { 443 } else { 80 })) {
            let found = (host, port)
                .to_socket_addrs()
                .map_err(|error| format!("{url}: cannot resolve {host}: {error}"))?;
            for address in found {
                // Of both families only the one that the system prefers: a server often listens on one of them.
                let fits = addresses.first().is_none_or(|first| first.is_ipv4() == address.is_ipv4());
                if fits && !addresses.contains(&address) {
                    addresses.push(address);
                }
            }
        }
        let (address, others) =
            addresses.split_first().ok_or_else(|| format!("{url}: {host} has no address"))?;
        let (address, others) = (*address, others.to_vec());
        Ok(Self { scheme, secure, authority: authority.to_owned(), path, address, others })
    }

    /// The address of the connection of this number: each in its turn.
    pub(crate) fn address_of(&self, number: u64) -> SocketAddr {
        let turn = number % (self.others.len() as u64 + 1);
        let other = usize::try_from(turn).ok().and_then(|turn| self.others.get(turn.checked_sub(1)?));
        other.copied().unwrap_or(self.address)
    }

    /// The host's name or address, without brackets and port: what a certificate has to be for.
    pub(crate) fn host(&self) -> &str {
        split_port(&self.authority).map_or(self.authority.as_str(), |(host, _)| host)
    }
}

/// Path and query of a URL, starting with `/`.
pub(crate) fn path_of(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest).split('#').next().unwrap_or_default();
    split_path(rest).1
}

/// The authority of a URL without its scheme and fragment, and what is behind it.
fn split_path(rest: &str) -> (&str, String) {
    let (authority, path) = match rest.find(['/', '?']) {
        Some(at) => rest.split_at(at),
        None => (rest, "/"),
    };
    let slash = if path.starts_with('/') { "" } else { "/" };
    (authority, format!("{slash}{}", ascii(path)))
}

/// A part of a URL with what is not ASCII percent-encoded, as RFC 3987 section 3.1 says; the rest is as it was written.
fn ascii(part: &str) -> String {
    let mut out = String::with_capacity(part.len());
    for byte in part.bytes() {
        match byte {
            0x80.. => out.push_str(&format!("%{byte:02X}")),
            _ => out.push(char::from(byte)),
        }
    }
    out
}

/// The source addresses for `connections`: those given, or enough of 127.0.0.0/8 for a loopback
/// target, or `None`, which leaves the choice to the kernel.
pub(crate) fn source_addresses(
    given: Option<&str>,
    target: SocketAddr,
    connections: usize,
) -> Result<Option<Vec<IpAddr>>, String> {
    if let Some(list) = given {
        let sources = parse_sources(list)?;
        if let Some(wrong) = sources.iter().find(|source| source.is_ipv4() != target.is_ipv4()) {
            return Err(format!("--source {wrong}: not the address family of {target}"));
        }
        // Later it would look as if the ports were used up.
        if let Some(wrong) = sources.iter().find(|source| UdpSocket::bind((**source, 0)).is_err()) {
            return Err(format!("--source {wrong}: not an address of this machine"));
        }
        return Ok(Some(sources));
    }
    let IpAddr::V4(address) = target.ip() else { return Ok(None) };
    if !address.is_loopback() {
        return Ok(None);
    }
    let count = connections.div_ceil(CONNECTIONS_PER_SOURCE).clamp(1, SOURCES_MAX as usize) as u32;
    let first = u32::from(Ipv4Addr::LOCALHOST);
    Ok(Some((first..first + count).map(|bits| Ipv4Addr::from(bits).into()).collect()))
}

/// Parses `A,B,C-D`: addresses and inclusive IPv4 ranges.
fn parse_sources(list: &str) -> Result<Vec<IpAddr>, String> {
    let mut sources = Vec::new();
    for part in list.split(',').map(str::trim) {
        let wrong = |_| format!("--source {part}: not an address or a range such as 127.0.0.1-127.0.0.9");
        match part.split_once('-') {
            None => sources.push(part.parse::<IpAddr>().map_err(wrong)?),
            Some((first, last)) => {
                let first = u32::from(first.trim().parse::<Ipv4Addr>().map_err(wrong)?);
                let last = u32::from(last.trim().parse::<Ipv4Addr>().map_err(wrong)?);
                if last < first || last - first >= SOURCES_MAX {
                    return Err(format!("--source {part}: the range is empty or too large"));
                }
                sources.extend((first..=last).map(|bits| IpAddr::from(Ipv4Addr::from(bits))));
            }
        }
    }
    Ok(sources)
}

pub(super) fn split_port(authority: &str) -> Option<(&str, Option<u16>)> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, after) = rest.split_once(']')?;
            (host, if after.is_empty() { None } else { Some(after.strip_prefix(':')?) })
        }
        None => match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    let port = port.map(|port| port.parse::<u16>().ok().filter(|port| *port > 0));
    match port {
        Some(None) => None,
        _ if host.is_empty() => None,
        Some(port) => Some((host, port)),
        None => Some((host, None)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_ascii_is_percent_encoded() {
        let target = Target::parse("ws://127.0.0.1:1/ws/zür%69ch?q=€&r=%E2#ü").unwrap();
        assert_eq!(target.path, "/ws/z%C3%BCr%69ch?q=%E2%82%AC&r=%E2");
        assert_eq!(path_of("ws://h/ü/{topic}?a={x|url}"), "/%C3%BC/{topic}?a={x|url}");
        assert!(Target::parse("ws://zürich.example/").unwrap_err().contains("xn--"));
    }

    #[test]
    fn urls_parse() {
        let target = Target::parse("ws://127.0.0.1:8080/ws/a?b=1#c").unwrap();
        assert_eq!(target.scheme, Scheme::Ws);
        assert_eq!(target.authority, "127.0.0.1:8080");
        assert_eq!(target.path, "/ws/a?b=1");
        assert_eq!(target.address, "127.0.0.1:8080".parse().unwrap());
        let bare = Target::parse("http://127.0.0.1").unwrap();
        assert_eq!((bare.scheme, bare.path.as_str(), bare.address.port()), (Scheme::Http, "/", 80));
        assert_eq!(Target::parse("ws://[::1]:9/").unwrap().address, "[::1]:9".parse().unwrap());
        assert_eq!(Target::parse("ws://127.0.0.1:9?x=1").unwrap().path, "/?x=1");
        assert!(Target::parse("ws://localhost:1/").unwrap().address.ip().is_loopback());
    }

    #[test]
    fn all_addresses_of_a_name_have_their_turn() {
        let texts = [
            "9.example:80:127.0.0.1:81",
            "9.example:80:127.0.0.2:",
            "9.example:80:[::1]:7",
            "9.example:80:127.0.0.1:81",
        ];
        let ways = Ways::parse(&texts.map(str::to_owned)).unwrap();
        let target = Target::parse_by("ws://9.example/a", &ways).unwrap();
        let turns: Vec<String> = (0..4).map(|number| target.address_of(number).to_string()).collect();
        assert_eq!(turns, ["127.0.0.1:81", "127.0.0.2:80", "127.0.0.1:81", "127.0.0.2:80"]);
        assert_eq!((target.authority.as_str(), target.host()), ("9.example", "9.example"));
    }

    #[test]
    fn wrong_urls_are_refused_by_name() {
        for wrong in [
            "127.0.0.1:80",
            "wss://127.0.0.1:0/",
            "ftp://127.0.0.1/",
            "ws://:80/",
            "ws://127.0.0.1:x/",
            "ws://127.0.0.1:0/",
            "ws://127.0.0.1:99999/",
            "ws://u@127.0.0.1/",
            "ws://127.0.0.1/a b",
            "ws://[::1/",
            "ws://[::1]9/",
        ] {
            assert!(Target::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn tls_has_its_own_schemes_and_port() {
        let target = Target::parse("WSS://127.0.0.1/x").unwrap();
        assert_eq!((target.scheme, target.secure, target.address.port()), (Scheme::Ws, true, 443));
        let target = Target::parse("https://[::1]:9/x").unwrap();
        assert_eq!((target.scheme, target.secure, target.host()), (Scheme::Http, true, "::1"));
        assert_eq!(Target::parse("ws://localhost:9").unwrap().host(), "localhost");
        assert!(!Target::parse("ws://localhost:443").unwrap().secure);
    }

    #[test]
    fn loopback_targets_get_enough_sources() {
        let target = "127.0.0.1:80".parse().unwrap();
        let sources = |n| source_addresses(None, target, n).unwrap().unwrap();
        assert_eq!(sources(1), ["127.0.0.1".parse::<IpAddr>().unwrap()]);
        assert_eq!(sources(12_000).len(), 1);
        assert_eq!(sources(12_001).len(), 2);
        assert_eq!(sources(1_000_000).len(), 84);
        assert_eq!(source_addresses(None, "192.0.2.1:80".parse().unwrap(), 9), Ok(None));
    }

    #[test]
    fn lists_and_ranges_of_sources_parse() {
        assert_eq!(parse_sources("127.0.0.1-127.0.0.3, 10.0.0.1").unwrap().len(), 4);
        assert_eq!(parse_sources("::1").unwrap().len(), 1);
        for wrong in ["", "x", "127.0.0.9-127.0.0.1", "0.0.0.0-255.255.255.255", "1.2.3.4-"] {
            assert!(parse_sources(wrong).is_err(), "{wrong}");
        }
        let v6 = "[::1]:80".parse().unwrap();
        assert!(source_addresses(Some("127.0.0.1"), v6, 1).is_err());
        // RFC 5737: nobody has these.
        let error = source_addresses(Some("192.0.2.1"), "127.0.0.1:80".parse().unwrap(), 1).unwrap_err();
        assert!(error.contains("not an address of this machine"), "{error}");
    }
}
