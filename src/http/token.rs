//! Tokens of requests: where one may stand, what is wrong with it, and the answer to who needs one (RFC 6750).
//!
//! Driven by the request turn once a request has been read and its address counted. Pure; what it costs is the check of one
//! signature.

use std::borrow::Cow;

use crate::auth::Identity;
use crate::auth::identity::{Denied, Right, permit};
use crate::auth::origin::{Grant, OriginPolicy};
use crate::auth::share::may_watch;
use crate::auth::token::{Claims, Issuers, Refusal, Signatures};
use crate::dialect::Opening;
use crate::edition::Edition;
use crate::metrics::RefuseReason;
use crate::topic::{TopicName, TopicRules};
use crate::wire::http::head::Head;
use crate::wire::http::uri::query_pairs;
use crate::wire::upgrade;

/// What stands before a token among the subprotocols that a client offers: pages of browsers can set no other field. It is
/// never chosen, so that no answer shows it.
const SUBPROTOCOL: &str = "fantail.token.";

/// The cookie.
const COOKIE: &str = "fantail_token";

/// The parameter of the URL.
const PARAMETER: &str = "token";

/// Seconds for which a token may be good that stands in a URL.
const QUERY_SECONDS_MAX: u64 = 300;

/// Why a request's token, or its want of one, keeps it out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unauthorized {
    /// The reason it is counted and answered by.
    pub reason: RefuseReason,
    /// One line for who asked.
    pub text: Cow<'static, str>,
}

impl Unauthorized {
    /// Kept out for this reason, in its own words.
    #[must_use]
    pub fn new(reason: RefuseReason) -> Self {
        Self { reason, text: reason.text().into() }
    }

    fn invalid(refusal: Refusal) -> Self {
        let reason = match refusal {
            Refusal::Expired => RefuseReason::TokenExpired,
            Refusal::Awaited => RefuseReason::TokenKeyAwaited,
            _ => RefuseReason::TokenInvalid,
        };
        Self { reason, text: format!("the token is not taken: {refusal}").into() }
    }
}

impl From<Denied> for Unauthorized {
    fn from(denied: Denied) -> Self {
        Self::new(match denied {
            Denied::Nobody => RefuseReason::SubscribeDenied,
            Denied::Anonymous => RefuseReason::TokenMissing,
            Denied::Scope => RefuseReason::TokenScope,
        })
    }
}

/// Who asks, by the token of the request; `None` without one, and where nobody issues any. `now` in seconds since 1970;
/// `signatures` has those that need not be computed.
///
/// # Errors
/// There is more than one token, or the one is not good.
pub fn claims_of(
    head: &Head<'_>,
    edition: &Edition,
    now: u64,
    signatures: &mut Signatures,
) -> Result<Option<Claims>, Unauthorized> {
    let Some(issuers) = edition.issuers.as_deref() else { return Ok(None) };
    let Some(given) = given(head, &edition.origin, edition.settings.auth.query_token)? else {
        return Ok(None);
    };
    let claims = given.check(issuers, now, signatures)?;
    if edition.revocations.has(&claims, now) {
        return Err(Unauthorized::new(RefuseReason::TokenRevoked));
    }
    Ok(Some(claims))
}

/// Whether who asks may open this: all of its topics and patterns.
///
/// # Errors
/// Something among them is not for them.
pub fn may_open(opening: &Opening, rules: &TopicRules, who: Option<&Identity>) -> Result<(), Denied> {
    for (name, _) in &opening.topics {
        // Who may subscribe to a topic may see who is there.
        let name = TopicName::presence_of(name.as_str()).unwrap_or(name.as_str());
        permit(rules.subscribers_of(name), who, Right::Subscribe(name))?;
    }
    for pattern in &opening.patterns {
        may_watch(pattern, who, rules, opening.dialect.tells_limits())?;
    }
    Ok(())
}

/// A request target without its token, which no dialect is to see; `None` if it has none.
pub(super) fn without_token(head: &Head<'_>) -> Option<String> {
    let is_token = |pair: &&str| {
        let name = pair.split('=').next().unwrap_or_default();
        matches!(query_pairs(name).next(), Some(Ok((name, _))) if name == PARAMETER)
    };
    let query = head.query();
    if !query.split('&').any(|pair| is_token(&pair)) {
        return None;
    }
    let rest: Vec<&str> = query.split('&').filter(|pair| !is_token(pair)).collect();
    let path = head.target.split_once('?').map_or(head.target, |(path, _)| path);
    Some(format!("{path}?{}", rest.join("&")))
}

/// A token as a request has it.
#[derive(Debug, PartialEq, Eq)]
struct Given<'a> {
    token: Cow<'a, str>,
    in_query: bool,
}

impl Given<'_> {
    fn check(
        &self,
        issuers: &Issuers,
        now: u64,
        signatures: &mut Signatures,
    ) -> Result<Claims, Unauthorized> {
        let claims = issuers.check_with(&self.token, now, signatures).map_err(Unauthorized::invalid)?;
        if self.in_query && claims.expires > now.saturating_add(QUERY_SECONDS_MAX) {
            let text = "the token is not taken: in the URL it may be good for five minutes at most (exp)";
            return Err(Unauthorized { reason: RefuseReason::TokenInvalid, text: text.into() });
        }
        Ok(claims)
    }
}

/// The one token of a request, wherever it stands.
fn given<'a>(
    head: &Head<'a>,
    origin: &OriginPolicy,
    in_query: bool,
) -> Result<Option<Given<'a>>, Unauthorized> {
    let text = |bytes: &'a [u8]| Cow::from(std::str::from_utf8(bytes).unwrap_or_default());
    let bearer = head.fields("authorization").filter_map(bearer).map(text);
    let offered = upgrade::protocols(head).filter_map(|offer| offer.strip_prefix(SUBPROTOCOL));
    let cookies = head.fields("cookie").flat_map(|field| field.split(|byte| *byte == b';'));
    let cookies = cookies.filter_map(cookie).map(text).filter(|_| is_of_trusted_page(head, origin));
    let mut all = bearer.chain(offered.map(Cow::from)).chain(cookies);
    let mut found = all.next().map(|token| Given { token, in_query: false });
    let mut more = all.next().is_some();
    if in_query {
        // What is not percent-encoded UTF-8 was refused before.
        let pairs = query_pairs(head.query()).filter_map(Result::ok);
        for (_, token) in pairs.filter(|(name, _)| name == PARAMETER) {
            more |= found.replace(Given { token, in_query: true }).is_some();
        }
    }
    // RFC 6750, 2: one way for each request.
    if more { Err(Unauthorized::new(RefuseReason::TokenTwice)) } else { Ok(found) }
}

/// The token of an Authorization field, if its scheme is Bearer (RFC 9110, 11.1: in any case).
fn bearer(field: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = field.split_at_checked(b"Bearer".len())?;
    let is_bearer = scheme.eq_ignore_ascii_case(b"Bearer") && token.first().is_none_or(|byte| *byte == b' ');
    is_bearer.then(|| token.trim_ascii())
}

/// The token of one cookie (RFC 6265, 4.2.1), if it is ours.
fn cookie(pair: &[u8]) -> Option<&[u8]> {
    let pair = pair.trim_ascii();
    let value = pair.strip_prefix(COOKIE.as_bytes())?.strip_prefix(b"=")?;
    let quoted = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\""));
    Some(quoted.unwrap_or(value))
}

/// Whether a page has asked that is the server's own or listed by name: browsers send a visitor's cookies whichever page
/// asks, so that for others they say nothing. Where a page reads from its own server browsers name no origin but say so in a
/// field that scripts cannot set (Fetch, 3.1; Fetch Metadata, 2.3).
fn is_of_trusted_page(head: &Head<'_>, origin: &OriginPolicy) -> bool {
    match head.field("origin") {
        None => head.field("sec-fetch-site") == Some(b"same-origin"),
        named => origin.check(named, Some(head.host.as_bytes())) == Ok(Grant::Named),
    }
}

/// Whether the cookies of a request may say of its page who asks, to an application that is asked about it: not where the
/// page is somebody else's that only a `*` lets in. Who is no page names none.
#[must_use]
pub fn sends_own_cookies(head: &Head<'_>, origin: &OriginPolicy) -> bool {
    let named = head.field("origin");
    named.is_none() || origin.check(named, Some(head.host.as_bytes())) == Ok(Grant::Named)
}

/// The challenge that goes with a refusal for a token's sake (RFC 6750, 3); `None` with any other.
pub(super) fn challenge(reason: RefuseReason, text: &str) -> Option<String> {
    const REALM: &str = "Bearer realm=\"fantail\"";
    let error = match reason {
        // RFC 6750, 3.1: who has shown nothing is told no error.
        RefuseReason::TokenMissing | RefuseReason::KeyMissing | RefuseReason::BackendUnidentified => {
            return Some(REALM.to_owned());
        }
        RefuseReason::TokenTwice => "invalid_request",
        RefuseReason::TokenInvalid | RefuseReason::TokenExpired | RefuseReason::TokenRevoked => {
            "invalid_token"
        }
        RefuseReason::TokenScope => "insufficient_scope",
        _ => return None,
    };
    Some(format!("{REALM}, error=\"{error}\", error_description=\"{text}\""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::http::head::{HeadLimits, field_store, parse_head};

    /// What `given` makes of a request with these fields, as its token and whether it stood in the URL.
    fn of(
        target: &str,
        fields: &str,
        allowed: &str,
        in_query: bool,
    ) -> Result<Option<(String, bool)>, RefuseReason> {
        let request = format!("GET {target} HTTP/1.1\r\nHost: own.example\r\n{fields}\r\n");
        let mut store = field_store();
        let (head, _) = parse_head(request.as_bytes(), &mut store, &HeadLimits::default()).unwrap().unwrap();
        let origin = OriginPolicy::compile(&[allowed.to_owned()], false).unwrap();
        let given = given(&head, &origin, in_query).map_err(|unauthorized| unauthorized.reason)?;
        Ok(given.map(|given| (given.token.into_owned(), given.in_query)))
    }

    #[test]
    fn a_token_stands_in_one_of_four_places() {
        let at = |fields: &str| of("/ws", fields, "https://named.example", true);
        let found = |token: &str| Ok(Some((token.to_owned(), false)));
        assert_eq!(at(""), Ok(None));
        for (fields, token) in [
            ("Authorization: Bearer a.b.c\r\n", "a.b.c"),
            ("authorization: bearer  a.b.c \r\n", "a.b.c"),
            ("Authorization: Bearer\r\n", ""),
            ("Sec-WebSocket-Protocol: fantail.json.v1, fantail.token.a.b.c\r\n", "a.b.c"),
            ("Sec-WebSocket-Protocol: x\r\nSec-WebSocket-Protocol: fantail.token.a.b.c\r\n", "a.b.c"),
            ("Origin: https://own.example\r\nCookie: x=1; fantail_token=a.b.c; y=2\r\n", "a.b.c"),
            ("Origin: https://named.example\r\nCookie: fantail_token=\"a.b.c\"\r\n", "a.b.c"),
            ("Sec-Fetch-Site: same-origin\r\nCookie: fantail_token=a.b.c\r\n", "a.b.c"),
        ] {
            assert_eq!(at(fields), found(token), "{fields}");
        }
        for fields in [
            "Authorization: Basic YTpi\r\n",
            "Authorization: Bearerx a\r\n",
            "Sec-WebSocket-Protocol: fantail.json.v1\r\n",
            "Cookie: fantail_token=a.b.c\r\n",
            "Origin: https://foreign.example\r\nCookie: fantail_token=a.b.c\r\n",
            "Origin: null\r\nCookie: fantail_token=a.b.c\r\n",
            "Sec-Fetch-Site: same-site\r\nCookie: fantail_token=a.b.c\r\n",
            "Origin: https://own.example\r\nCookie: xfantail_token=a; fantail_tokens=b; Fantail_Token=c\r\n",
        ] {
            assert_eq!(at(fields), Ok(None), "{fields}");
        }
        // Everybody may open a page of theirs there, and that makes nobody trusted.
        let anybody = "Origin: https://foreign.example\r\nCookie: fantail_token=a.b.c\r\n";
        assert_eq!(of("/ws", anybody, "*", true), Ok(None));
        assert_eq!(of("/ws?token=a.b%2Ec", "", "*", true), Ok(Some(("a.b.c".to_owned(), true))));
        assert_eq!(of("/ws?token=a.b.c", "", "*", false), Ok(None));
    }

    #[test]
    fn more_than_one_is_refused_even_if_they_are_equal() {
        for (target, fields) in [
            ("/ws", "Authorization: Bearer a\r\nAuthorization: Bearer a\r\n"),
            ("/ws", "Authorization: Bearer a\r\nSec-WebSocket-Protocol: fantail.token.a\r\n"),
            ("/ws", "Sec-WebSocket-Protocol: fantail.token.a, fantail.token.b\r\n"),
            ("/ws?token=a", "Authorization: Bearer a\r\n"),
            ("/ws?token=a&token=a", ""),
            ("/ws", "Origin: http://own.example\r\nCookie: fantail_token=a\r\nAuthorization: Bearer a\r\n"),
            ("/ws", "Origin: http://own.example\r\nCookie: fantail_token=a; fantail_token=b\r\n"),
        ] {
            assert_eq!(of(target, fields, "*", true), Err(RefuseReason::TokenTwice), "{target} {fields}");
        }
    }

    #[test]
    fn dialects_do_not_see_the_token_of_a_url() {
        let of = |target: &str| {
            let request = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
            let mut store = field_store();
            let (head, _) =
                parse_head(request.as_bytes(), &mut store, &HeadLimits::default()).unwrap().unwrap();
            without_token(&head)
        };
        assert_eq!(of("/ws/a?token=x&since=1").as_deref(), Some("/ws/a?since=1"));
        assert_eq!(of("/ws/a?topic=b&%74oken=x").as_deref(), Some("/ws/a?topic=b"));
        assert_eq!(of("/ws/a?token").as_deref(), Some("/ws/a?"));
        assert_eq!((of("/ws/a"), of("/ws/token=x?topic=token"), of("/ws/a?tokens=1")), (None, None, None));
    }

    #[test]
    fn challenges_are_those_of_rfc_6750() {
        let of = |reason: RefuseReason| challenge(reason, "why");
        for nothing in [RefuseReason::TokenMissing, RefuseReason::BackendUnidentified] {
            assert_eq!(of(nothing).as_deref(), Some("Bearer realm=\"fantail\""));
        }
        let invalid = "Bearer realm=\"fantail\", error=\"invalid_token\", error_description=\"why\"";
        assert_eq!(of(RefuseReason::TokenExpired).as_deref(), Some(invalid));
        assert_eq!(of(RefuseReason::SubscribeDenied), None);
    }
}
