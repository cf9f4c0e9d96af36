//! Which pages may read an answer that scripts ask for (Fetch, 3.2), and how those are told who asked for a stream and
//! can't have one now.
//!
//! A page of another origin may read what the origin policy lets it open. Pure.

use std::borrow::Cow;

use crate::auth::origin::{Grant, OriginPolicy, OriginRefusal};
use crate::dialect::sse;
use crate::wire::http::head::Head;
use crate::wire::http::response::{Response, ResponseBuffer, push_field};

/// Fields of answers that a page may read besides the usual ones.
const EXPOSED: &str = "Fantail-Position, Fantail-Gap, Retry-After";

/// How long a browser may remember what a preflight was answered, in seconds.
const PREFLIGHT_SECONDS: &str = "600";

/// What decides whether a page may read the answer to a request.
#[derive(Clone, Copy, Debug, Default)]
pub struct Asker<'a> {
    /// The Origin field.
    origin: Option<&'a [u8]>,
    /// The Host field.
    host: &'a [u8],
    /// The Sec-Fetch-Site field, which scripts can't set.
    site: Option<&'a [u8]>,
    /// Whether Accept names event streams.
    wants_stream: bool,
    /// Whether it asks for a head alone.
    head_only: bool,
}

impl<'a> Asker<'a> {
    /// Of a request.
    #[must_use]
    pub fn of(head: &Head<'a>) -> Self {
        Self {
            origin: head.field("origin"),
            host: head.host.as_bytes(),
            site: head.field("sec-fetch-site"),
            wants_stream: head.fields("accept").any(sse::is_accepted),
            head_only: head.method == "HEAD",
        }
    }

    /// Of the beginning of a request, whether all of its head is there or not. For refusals, which are made whatever else
    /// it says.
    #[must_use]
    pub fn of_bytes(bytes: &'a [u8]) -> Self {
        let mut asker = Self { head_only: bytes.starts_with(b"HEAD "), ..Self::default() };
        for line in bytes.split(|&byte| byte == b'\n').skip(1).map(<[u8]>::trim_ascii) {
            if line.is_empty() {
                break;
            }
            let mut parts = line.splitn(2, |&byte| byte == b':');
            let (Some(name), Some(value)) = (parts.next(), parts.next()) else { continue };
            let value = value.trim_ascii();
            if name.eq_ignore_ascii_case(b"origin") {
                asker.origin = Some(value);
            } else if name.eq_ignore_ascii_case(b"host") {
                asker.host = value;
            } else if name.eq_ignore_ascii_case(b"accept") {
                asker.wants_stream |= sse::is_accepted(value);
            }
        }
        asker
    }

    /// Whether it expects an event stream, as browsers' EventSource does, which gives up for good on any status but 200.
    #[must_use]
    pub fn wants_stream(&self) -> bool {
        self.wants_stream
    }

    /// Whether its method is HEAD, which has no content in an answer (RFC 9110, 9.3.2).
    #[must_use]
    pub fn head_only(&self) -> bool {
        self.head_only
    }

    /// The fields of a refusal: a page that is welcome may read why, another one learns nothing (Fetch, 3.2.3).
    #[must_use]
    pub fn fields_of_refusal(&self, policy: &OriginPolicy) -> Fields<'a> {
        self.fields(policy).unwrap_or_default()
    }

    /// The fields that let it be read, if its origin is welcome.
    pub(super) fn fields(&self, policy: &OriginPolicy) -> Result<Fields<'a>, OriginRefusal> {
        let grant = match policy.check(self.origin, Some(self.host)) {
            // Browsers name no origin where a page only reads from its own server (Fetch, 3.1).
            Err(OriginRefusal::Missing) if self.site == Some(b"same-origin") => Grant::Unnamed,
            judged => judged?,
        };
        let named = || self.origin.map(String::from_utf8_lossy);
        let (allow, credentials) = match grant {
            Grant::Unnamed => (None, false),
            Grant::Named => (named(), true),
            // Whoever lets everybody in did not say that every page may use its visitors' cookies.
            Grant::Anybody => (Some("*".into()), false),
        };
        Ok(Fields { allow, credentials })
    }
}

/// Fields of an answer that say which pages may read it; by default none that names its origin.
#[derive(Debug, Default)]
pub struct Fields<'a> {
    allow: Option<Cow<'a, str>>,
    credentials: bool,
}

impl Fields<'_> {
    /// Each of them. The answer depends on who asks, also where nobody has said who does.
    pub(super) fn each(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let allow = self.allow.as_deref().map(|allow| ("Access-Control-Allow-Origin", allow));
        let credentials = self.credentials.then_some(("Access-Control-Allow-Credentials", "true"));
        let exposed = allow.map(|_| ("Access-Control-Expose-Headers", EXPOSED));
        [Some(("Vary", "Origin")), allow, credentials, exposed].into_iter().flatten()
    }

    /// Appends them.
    pub(super) fn push(&self, out: &mut ResponseBuffer) {
        self.each().for_each(|(name, value)| push_field(out, name, value));
    }

    /// Answers the question whether a page may send a request (Fetch, 3.2.5): with the fields that clients in scripts
    /// send, because they have no EventSource to do it for them.
    pub(super) fn push_preflight(&self, keep_alive: bool, out: &mut ResponseBuffer) {
        let mut headers: Vec<_> = self.each().collect();
        headers.extend([
            ("Access-Control-Allow-Methods", "GET"),
            ("Access-Control-Allow-Headers", "Last-Event-ID, Cache-Control, Authorization"),
            ("Access-Control-Max-Age", PREFLIGHT_SECONDS),
        ]);
        Response {
            status: 204,
            content_type: "",
            headers: &headers,
            body: b"",
            keep_alive,
            head_only: false,
        }
        .write_into(out);
    }
}

/// Answers who wants a stream and can't have one now: a stream that says when to ask again, and ends.
pub(super) fn push_not_now(
    asker: &Asker<'_>,
    policy: &OriginPolicy,
    text: &str,
    again_ms: u32,
    out: &mut ResponseBuffer,
) {
    let fields = asker.fields_of_refusal(policy);
    let mut headers = vec![("Cache-Control", "no-store"), ("X-Content-Type-Options", "nosniff")];
    headers.extend(fields.each());
    Response {
        status: 200,
        content_type: sse::MEDIA_TYPE,
        headers: &headers,
        body: &sse::not_now(text, again_ms),
        keep_alive: false,
        head_only: asker.head_only,
    }
    .write_into(out);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(patterns: &[&str], required: bool, asker: &Asker<'_>) -> Option<String> {
        let patterns: Vec<_> = patterns.iter().map(|&pattern| pattern.to_owned()).collect();
        let policy = OriginPolicy::compile(&patterns, required).unwrap();
        let fields = asker.fields(&policy).ok()?;
        Some(fields.each().map(|(name, value)| format!("{name}: {value}\n")).collect())
    }

    fn from(origin: &'static str) -> Asker<'static> {
        Asker { origin: Some(origin.as_bytes()), host: b"edge.example", ..Asker::default() }
    }

    #[test]
    fn a_page_may_read_what_the_policy_lets_it_open() {
        let vary = "Vary: Origin\n";
        let exposed = "Access-Control-Expose-Headers: Fantail-Position, Fantail-Gap, Retry-After\n";
        let named = |origin| {
            let allow = format!("Access-Control-Allow-Origin: {origin}\n");
            Some(format!("{vary}{allow}Access-Control-Allow-Credentials: true\n{exposed}"))
        };
        let anybody = Some(format!("{vary}Access-Control-Allow-Origin: *\n{exposed}"));
        let (own, app, other) = ("https://edge.example", "https://app.example", "https://other.example");
        assert_eq!(told(&[], false, &from(own)), named(own));
        assert_eq!(told(&[app], false, &from(app)), named(app));
        assert_eq!(told(&[app], false, &from(other)), None);
        assert_eq!(told(&[app, "*"], false, &from(app)), named(app));
        assert_eq!(told(&[app, "*"], false, &from(other)), anybody);
        assert_eq!(told(&["*"], false, &from("null")), anybody);
        assert_eq!(told(&[app], false, &from("null")), None);
        assert_eq!(told(&[app], false, &Asker::default()), Some(vary.to_owned()));
        assert_eq!(told(&[app], true, &Asker::default()), None);
        let own_page = Asker { site: Some(b"same-origin"), ..Asker::default() };
        assert_eq!(told(&[app], true, &own_page), Some(vary.to_owned()));
        let foreign = Asker { site: Some(b"cross-site"), ..Asker::default() };
        assert_eq!(told(&[app], true, &foreign), None);
    }

    #[test]
    fn who_asks_is_seen_in_a_part_of_a_head() {
        let whole = b"GET /sse/a HTTP/1.1\r\nHost: edge.example\r\nAccept: text/event-stream\r\nOrigin: https://a.example\r\n\r\n\
                      Accept: nothing";
        for bytes in [&whole[..], &whole[..whole.len() - 17]] {
            let asker = Asker::of_bytes(bytes);
            assert!(asker.wants_stream());
            assert_eq!((asker.origin, asker.host), (Some(&b"https://a.example"[..]), &b"edge.example"[..]));
        }
        for bytes in
            [&b""[..], b"GET / HTTP/1.1\r\nAccept: */*\r\n\r\n", b"x\n\nAccept: text/event-stream\r\n"]
        {
            assert!(!Asker::of_bytes(bytes).wants_stream());
        }
    }
}
