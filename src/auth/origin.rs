//! Which web pages may open a connection, decided from the Origin and Host of the upgrade request.
//!
//! A browser lets any page open a WebSocket to any server and only tells where the page came from (RFC
//! 6455 §10.2); this check is what keeps a foreign page from using a visitor's network position.
//! Endpoints call it once per upgrade. It says nothing about programs, which send what they like.

use super::PatternError;
use super::authority::{Authority, HostName, ends_under, is_name, port_number};

/// Why a request was refused; each is answered with 403.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OriginRefusal {
    /// No Origin, and one is required.
    Missing,
    /// `null`: a sandboxed frame, a local file, a redirect across origins.
    Null,
    /// Not an origin as RFC 6454 §6.2 writes it.
    Malformed,
    /// Neither the server's own nor an allowed one.
    Foreign,
}

/// On what grounds a request is welcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grant {
    /// It names no origin, and none is required.
    Unnamed,
    /// The server's own origin, or one that the policy names: a page that is trusted.
    Named,
    /// Everybody is welcome, and this one is nobody in particular.
    Anybody,
}

/// The compiled policy; shared by all loops, never changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OriginPolicy {
    patterns: Vec<Pattern>,
    any: bool,
    required: bool,
}

impl OriginPolicy {
    /// Compiles patterns: `https://a.example`, `https://*.example.com`, `localhost:*`, `*`.
    ///
    /// A pattern without a scheme means http and https; without a port the scheme's default; `*.` means one or
    /// more labels before the rest, not the bare name.
    ///
    /// # Errors
    /// When a pattern has a wildcard elsewhere, a path, or anything else that no origin has.
    pub fn compile(patterns: &[String], required: bool) -> Result<Self, PatternError> {
        let mut policy = Self { required, ..Self::default() };
        for pattern in patterns {
            match pattern.as_str() {
                "*" => policy.any = true,
                _ => policy.patterns.push(Pattern::compile(pattern)?),
            }
        }
        Ok(policy)
    }

    /// Decides about a request by its Origin and Host fields.
    ///
    /// # Errors
    /// The reason for a 403.
    pub fn check(&self, origin: Option<&[u8]>, host: Option<&[u8]>) -> Result<Grant, OriginRefusal> {
        let Some(origin) = origin else {
            return if self.required { Err(OriginRefusal::Missing) } else { Ok(Grant::Unnamed) };
        };
        match self.judge(origin, host) {
            Err(_) if self.any => Ok(Grant::Anybody),
            judged => judged.map(|()| Grant::Named),
        }
    }

    /// Whether the origin is one that the policy names, or the server's own.
    fn judge(&self, origin: &[u8], host: Option<&[u8]>) -> Result<(), OriginRefusal> {
        if origin.eq_ignore_ascii_case(b"null") {
            return Err(OriginRefusal::Null);
        }
        let origin = ParsedOrigin::parse(origin).ok_or(OriginRefusal::Malformed)?;
        let same = host.and_then(Authority::parse).is_some_and(|host| origin.is_same(&host));
        if same || self.patterns.iter().any(|pattern| pattern.matches(&origin)) {
            return Ok(());
        }
        Err(OriginRefusal::Foreign)
    }
}

/// An origin: scheme, host, port, and nothing after it.
#[derive(Debug, Clone, Copy)]
pub(super) struct ParsedOrigin<'a> {
    scheme: &'a [u8],
    host: HostName<'a>,
    /// Written or the scheme's default; `None` for a scheme that has none.
    port: Option<u16>,
}

impl<'a> ParsedOrigin<'a> {
    /// Reads `scheme://host[:port]` (RFC 6454 §6.2), `None` for anything else, lists of origins included.
    pub(super) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let at = bytes.windows(3).position(|window| window == b"://")?;
        let (scheme, authority) = (bytes.get(..at)?, bytes.get(at + 3..)?);
        if !is_scheme(scheme) {
            return None;
        }
        let Authority { host, port } = Authority::parse(authority)?;
        Some(Self { scheme, host, port: port.or_else(|| default_port(scheme)) })
    }

    /// Whether a page of this origin came from the server that `host` names.
    ///
    /// Host does not tell the scheme, and behind a proxy that ends TLS the server doesn't know it either, so a
    /// missing port in Host stands for the default of the origin's own scheme.
    pub(super) fn is_same(&self, host: &Authority<'_>) -> bool {
        // An extension's `chrome-extension://name` is no page of the server `name`.
        let Some(default) = default_port(self.scheme) else { return false };
        self.host == host.host && self.port == Some(host.port.unwrap_or(default))
    }
}

impl ParsedOrigin<'_> {
    /// Whether its page came over TLS.
    pub(super) fn is_https(&self) -> bool {
        self.scheme.eq_ignore_ascii_case(b"https")
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Pattern {
    /// Lower case; `None` for http and https.
    scheme: Option<Vec<u8>>,
    host: HostPattern,
    port: PortPattern,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum HostPattern {
    Exact(Vec<u8>),
    V6(std::net::Ipv6Addr),
    /// Begins with a dot.
    Under(Vec<u8>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PortPattern {
    Any,
    Default,
    Exact(u16),
}

impl Pattern {
    fn compile(pattern: &str) -> Result<Self, PatternError> {
        let fail = |problem| Err(PatternError::new(pattern, problem));
        if pattern.eq_ignore_ascii_case("null") {
            return fail("\"null\" is every page without an origin and cannot be allowed by itself");
        }
        let (scheme, rest) = match pattern.split_once("://") {
            Some((scheme, rest)) if is_scheme(scheme.as_bytes()) => (Some(scheme.to_ascii_lowercase()), rest),
            Some(_) => return fail("expects a scheme such as https before \"://\""),
            None => (None, pattern),
        };
        if rest.contains(['/', '?', '#', '@']) {
            return fail("an origin is scheme, host and port only, without path or user");
        }
        // The port is what follows the last colon, unless that colon is inside an IPv6 literal.
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, Some(port)),
            _ => (rest, None),
        };
        let port = match port {
            None => PortPattern::Default,
            Some("*") => PortPattern::Any,
            Some(digits) => match port_number(digits.as_bytes()) {
                Some(number) => PortPattern::Exact(number),
                None => return fail("expects a port number or * behind the last colon"),
            },
        };
        let host = match (host.strip_prefix('*'), Authority::parse(host.as_bytes())) {
            (Some(suffix), _) if suffix.as_bytes().strip_prefix(b".").is_some_and(is_name) => {
                HostPattern::Under(suffix.as_bytes().to_vec())
            }
            (Some(_), _) => {
                return fail("a * stands alone or for whole labels in front, as in *.example.com");
            }
            (None, Some(Authority { host: HostName::V6(address), port: None })) => HostPattern::V6(address),
            (None, Some(Authority { host: HostName::Name(name), port: None })) => {
                HostPattern::Exact(name.to_vec())
            }
            (None, _) => return fail("expects an origin such as https://a.example or https://*.example.com"),
        };
        let scheme = scheme.map(String::into_bytes);
        let has_default = scheme.as_deref().is_none_or(|scheme| default_port(scheme).is_some());
        // A scheme without default ports, such as an app's, has origins without a port.
        let port = if has_default || port != PortPattern::Default { port } else { PortPattern::Any };
        Ok(Self { scheme, host, port })
    }

    fn matches(&self, origin: &ParsedOrigin<'_>) -> bool {
        let scheme = match &self.scheme {
            Some(scheme) => scheme.eq_ignore_ascii_case(origin.scheme),
            None => default_port(origin.scheme).is_some(),
        };
        let host = match (&self.host, &origin.host) {
            (HostPattern::Exact(name), HostName::Name(host)) => name.eq_ignore_ascii_case(host),
            (HostPattern::Under(suffix), HostName::Name(host)) => ends_under(host, suffix),
            (HostPattern::V6(address), HostName::V6(host)) => address == host,
            _ => false,
        };
        let port = match self.port {
            PortPattern::Any => true,
            PortPattern::Default => origin.port == default_port(origin.scheme),
            PortPattern::Exact(port) => origin.port == Some(port),
        };
        scheme && host && port
    }
}

/// RFC 3986 §3.1.
fn is_scheme(scheme: &[u8]) -> bool {
    scheme.first().is_some_and(u8::is_ascii_alphabetic)
        && scheme.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'))
}

/// The default port of a scheme that web pages come by.
fn default_port(scheme: &[u8]) -> Option<u16> {
    if scheme.eq_ignore_ascii_case(b"https") {
        Some(443)
    } else if scheme.eq_ignore_ascii_case(b"http") {
        Some(80)
    } else {
        None
    }
}

#[cfg(test)]
#[path = "origin_tests.rs"]
mod tests;
