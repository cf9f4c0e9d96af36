//! `ws://`, `wss://`, `http://` and `https://` URLs as a client needs them. Pure; resolves nothing.

/// A parsed URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    /// Whether it is one of TLS.
    pub secure: bool,
    /// Host name or address; an IPv6 address without its brackets.
    pub host: String,
    /// The port; when none was given 80, and 443 with TLS.
    pub port: u16,
    /// The Host field: as it was written.
    pub authority: String,
    /// Path and query, beginning with `/`.
    pub target: String,
}

impl Url {
    /// Parses `ws://HOST[:PORT][/PATH][?QUERY]`, or `wss://`.
    ///
    /// # Errors
    /// One line on what is wrong.
    pub fn parse_ws(text: &str) -> Result<Self, String> {
        match text.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("ws") => Self::parse_rest(text, rest, false),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("wss") => Self::parse_rest(text, rest, true),
            _ => Err(format!(
                "{}: expects a URL such as ws://127.0.0.1:8080/ws or wss://localhost:8443/ws",
                quoted(text)
            )),
        }
    }

    /// Parses `HOST:PORT`, `http://HOST:PORT` or `https://HOST:PORT`, for requests to `target`.
    ///
    /// # Errors
    /// One line on what is wrong.
    pub fn parse_http(text: &str, target: &str) -> Result<Self, String> {
        let (rest, secure) = match text.split_once("://") {
            None => (text, false),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => (rest, false),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => (rest, true),
            Some(_) => {
                let problem =
                    "expects an address such as 127.0.0.1:8081, http:// or https:// in front of it or not";
                return Err(format!("{}: {problem}", quoted(text)));
            }
        };
        let mut url = Self::parse_rest(text, rest, secure)?;
        if url.target != "/" {
            return Err(format!("{}: expects an address and port without a path", quoted(text)));
        }
        url.target = target.to_owned();
        Ok(url)
    }

    fn parse_rest(text: &str, rest: &str, secure: bool) -> Result<Self, String> {
        // A request line is made of these bytes; a space or a line break would end it early.
        if let Some(bad) = text.chars().find(|c| c.is_whitespace() || c.is_control() || !c.is_ascii()) {
            return Err(format!("{:?}: {bad:?} must be percent-encoded", quoted(text)));
        }
        let rest = rest.split('#').next().unwrap_or_default();
        let (authority, target) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        if authority.contains('@') {
            return Err(format!("{}: user names are not supported", quoted(text)));
        }
        let wrong = || format!("{}: expects a host, and a port from 1 to 65535", quoted(text));
        let (host, port) = split_port(authority).ok_or_else(wrong)?;
        let slash = if target.starts_with('/') { "" } else { "/" };
        Ok(Self {
            secure,
            host: host.to_owned(),
            port: port.unwrap_or(if secure { 443 } else { 80 }),
            authority: authority.to_owned(),
            target: format!("{slash}{target}"),
        })
    }
}

/// A URL as an error quotes it: the query may hold a token, and what stands before an `@` a password.
fn quoted(text: &str) -> String {
    let (shown, query) = text.split_at(text.find(['?', '#']).unwrap_or(text.len()));
    let (before, shown) = shown.rsplit_once('@').map_or(("", shown), |(_, behind)| ("…@", behind));
    let behind = if query.is_empty() { "" } else { "?…" };
    format!("{before}{shown}{behind}")
}

/// Host and port; `None` when it is neither.
fn split_port(authority: &str) -> Option<(&str, Option<u16>)> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']')?;
            host.parse::<std::net::Ipv6Addr>().ok()?;
            (host, port)
        }
        None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
    };
    let port = match port {
        "" => None,
        text => {
            let digits = text.strip_prefix(':')?;
            // `parse` alone would take a sign.
            Some(digits.parse().ok().filter(|port| *port > 0 && !digits.starts_with('+'))?)
        }
    };
    (!host.is_empty()).then_some((host, port))
}

/// `text` percent-encoded, so that it can stand in a path as one name.
#[must_use]
pub fn percent_encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::http::uri::percent_decode;
    use proptest::prelude::*;

    fn ws(text: &str) -> (String, u16, String) {
        let url = Url::parse_ws(text).unwrap();
        (url.host, url.port, url.target)
    }

    #[test]
    fn urls_are_taken_apart() {
        assert_eq!(ws("ws://h"), ("h".into(), 80, "/".into()));
        assert_eq!(ws("WS://h:81?a=b"), ("h".into(), 81, "/?a=b".into()));
        assert_eq!(ws("ws://[::1]:8080/ws/a%20b?x#frag"), ("::1".into(), 8080, "/ws/a%20b?x".into()));
        assert_eq!(Url::parse_ws("ws://[::1]:8080/").unwrap().authority, "[::1]:8080");
        assert_eq!(ws("WSS://h/a"), ("h".into(), 443, "/a".into()));
        for (text, secure) in [("h:1", false), ("http://h:1", false), ("HTTPS://h:1", true)] {
            assert_eq!(Url::parse_http(text, "/").unwrap().secure, secure, "{text}");
        }
        let admin = Url::parse_http("127.0.0.1:8081", "/publish/a").unwrap();
        assert_eq!(
            (admin.host.as_str(), admin.port, admin.target.as_str()),
            ("127.0.0.1", 8081, "/publish/a")
        );
        assert_eq!(Url::parse_http("http://a:1/", "/x").unwrap().target, "/x");
    }

    #[test]
    fn what_is_no_url_says_so() {
        for bad in [
            "",
            "h:80",
            "ftp://h",
            "ws://",
            "ws://:80",
            "ws://h:0",
            "ws://h:99999",
            "ws://h:+80",
            "ws://h:x",
            "ws://u@h",
            "ws://[::1",
            "ws://[x]",
            "ws://h/a b",
            "ws://h/\r\nX: y",
            "ws://h/é",
            "ws://[::1]80",
        ] {
            assert!(Url::parse_ws(bad).is_err(), "{bad:?}");
        }
        assert!(Url::parse_http("ftp://h:1", "/").unwrap_err().contains("https://"));
        assert!(Url::parse_http("h:1/metrics", "/").is_err());
    }

    proptest! {
        #[test]
        fn an_encoded_name_decodes_to_itself(name in "\\PC{0,40}") {
            let encoded = percent_encode(&name);
            prop_assert!(encoded.is_ascii());
            prop_assert_eq!(percent_decode(&encoded).unwrap(), name);
        }
    }
}
