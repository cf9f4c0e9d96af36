//! What the application is asked about a handshake: some fields of it as they came, and what it wants. Pure.

use std::net::IpAddr;

use aws_lc_rs::digest::{Context, SHA256};
use serde::Serialize;

use super::caller::Request;
use super::desk::Digest;

/// Fields that are never the client's: Fantail or HTTP itself gives them, or they differ with every handshake.
const NEVER: [&str; 24] = [
    "accept",
    "accept-encoding",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "forwarded",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "sec-websocket-accept",
    "sec-websocket-extensions",
    "sec-websocket-key",
    "sec-websocket-version",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
    "x-real-ip",
];

/// Whether a client's field of this name may be passed on.
#[must_use]
pub fn may_pass(name: &str) -> bool {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    let lower = name.to_ascii_lowercase();
    !lower.is_empty()
        && lower.bytes().all(is_token)
        && !NEVER.contains(&lower.as_str())
        && !lower.starts_with("x-forwarded-")
        && !lower.starts_with("fantail-")
}

/// What a handshake wants, as the application reads it.
#[derive(Serialize)]
pub struct Handshake<'a> {
    /// The path.
    pub path: &'a str,
    /// What it would speak.
    pub dialect: &'a str,
    /// Topics that it would be subscribed to.
    pub topics: Vec<&'a str>,
    /// Patterns, likewise.
    pub patterns: Vec<&'a str>,
    /// Who connects, if that is known.
    pub address: Option<IpAddr>,
}

impl Handshake<'_> {
    /// The question, with these fields of the client.
    #[must_use]
    pub fn question<'f>(&self, fields: impl Iterator<Item = (&'f str, &'f [u8])>) -> Request {
        let own = |name: &str, value: String| (name.to_owned(), value.into_bytes());
        let mut all = vec![own("content-type", "application/json".to_owned())];
        if let Some(address) = self.address {
            all.push(own("x-forwarded-for", address.to_string()));
        }
        all.extend(
            fields.filter(|(name, _)| may_pass(name)).map(|(name, value)| (name.to_owned(), value.to_vec())),
        );
        // Text and lists of it: there is nothing that could not be written.
        Request { fields: all, body: Some(serde_json::to_vec(self).unwrap_or_default()) }
    }
}

/// Tells a question from every other by all that is sent.
#[must_use]
pub(super) fn digest(request: &Request) -> Digest {
    let mut context = Context::new(&SHA256);
    // Each with its length in front, so that no two are the same bytes in a row.
    let mut part = |bytes: &[u8]| {
        context.update(&(bytes.len() as u64).to_be_bytes());
        context.update(bytes);
    };
    for (name, value) in &request.fields {
        part(name.as_bytes());
        part(value);
    }
    part(request.body.as_deref().unwrap_or_default());
    let mut digest = [0; 32];
    digest.copy_from_slice(context.finish().as_ref());
    digest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(fields: &[(&str, &str)], address: &str) -> Request {
        let handshake = Handshake {
            path: "/ws/a%20b",
            dialect: "plain",
            topics: vec!["a b"],
            patterns: vec!["c/*"],
            address: address.parse().ok(),
        };
        handshake.question(fields.iter().map(|(name, value)| (*name, value.as_bytes())))
    }

    #[test]
    fn a_question_has_what_may_pass_and_what_is_wanted() {
        let asked = question(
            &[
                ("Authorization", "Bearer x"),
                ("Host", "evil"),
                ("X-Forwarded-For", "1.2.3.4"),
                ("x-forwarded-proto", "https"),
                ("Fantail-Address", "1.2.3.4"),
                ("Connection", "Authorization"),
                ("Content-Length", "0"),
                ("Transfer-Encoding", "chunked"),
                ("Cookie", "a=b"),
            ],
            "192.0.2.7",
        );
        let fields: Vec<_> = asked
            .fields
            .iter()
            .map(|(name, value)| (name.as_str(), std::str::from_utf8(value).unwrap()))
            .collect();
        assert_eq!(
            fields,
            [
                ("content-type", "application/json"),
                ("x-forwarded-for", "192.0.2.7"),
                ("Authorization", "Bearer x"),
                ("Cookie", "a=b"),
            ]
        );
        assert_eq!(
            std::str::from_utf8(asked.body.as_deref().unwrap()).unwrap(),
            r#"{"path":"/ws/a%20b","dialect":"plain","topics":["a b"],"patterns":["c/*"],"address":"192.0.2.7"}"#
        );
    }

    #[test]
    fn questions_are_equal_when_every_byte_is() {
        let one = question(&[("cookie", "a=b"), ("origin", "c")], "192.0.2.7");
        assert_eq!(digest(&one), digest(&one.clone()));
        for other in [
            question(&[("cookie", "a=b"), ("origin", "d")], "192.0.2.7"),
            question(&[("cookie", "a=b")], "192.0.2.7"),
            question(&[("origin", "c"), ("cookie", "a=b")], "192.0.2.7"),
            question(&[("cookie", "a=bo"), ("rigin", "c")], "192.0.2.7"),
            question(&[("cookie", "a=b"), ("origin", "c")], "192.0.2.8"),
            question(&[("cookie", "a=b"), ("origin", "c")], ""),
        ] {
            assert_ne!(digest(&one), digest(&other), "{other:?}");
        }
    }
}
