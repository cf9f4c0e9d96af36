//! What a URL asks for: routing, the page, and the admin port.
//!
//! Driven by the event loop with whole requests; answers are bytes pushed into a buffer, or an upgrade to a dialect.
//! Never touches a connection or a socket.

pub mod admin;
mod cors;
mod page;
mod token;

use std::net::IpAddr;

use crate::dialect::{Carrier, Dialect, OpenRequest, Opening, Outcome, Tools};
use crate::edition::{Edition, Port};
use crate::metrics::RefuseReason;
use crate::topic::{Since, TopicName};
use crate::wire::deflate::{coded, negotiate};
use crate::wire::http::head::Head;
use crate::wire::http::response::{Response, ResponseBuffer, push_field};
use crate::wire::upgrade::{self, UpgradeRefusal};

pub use cors::{Asker, Fields};
pub use token::{Unauthorized, claims_of, may_open, sends_own_cookies};

/// Headers of every answer that is no page: never run, never framed.
const PLAIN_HEADERS: [(&str, &str); 3] = [
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'"),
];

/// What a request led to. The bytes to send are in the buffer.
#[derive(Debug)]
pub enum Answer {
    /// A response.
    Done {
        /// Whether a further request may follow.
        keep_alive: bool,
        /// Set when the response is a refusal that is to be counted.
        refused: Option<RefuseReason>,
    },
    /// The connection speaks a dialect from now on.
    Open(Opening),
    /// The client loops have to be asked first.
    Ask(admin::Ask),
    /// A batch of messages, to be published in runs.
    Batch(Box<admin::Batch>),
    /// The configuration has to be read first.
    Reload,
    /// A response, and the server is to drain.
    Drain {
        /// Whether a further request may follow.
        keep_alive: bool,
    },
}

/// Whether a request that was let in can only be the operator's, not a stranger's or a probe.
#[must_use]
pub fn is_for_operator(port: Port, head: &Head<'_>) -> bool {
    port == Port::Admin && admin::needs_key(head)
}

/// Answers one request of the client port; `peer` says who asks, for the few answers that depend on it.
pub fn respond(
    head: &Head<'_>,
    edition: &Edition,
    peer: impl FnOnce() -> Option<IpAddr>,
    out: &mut ResponseBuffer,
) -> Answer {
    // Only where a token may stand in a URL, since the others are not asked for one there.
    let asks = edition.issuers.is_some() && edition.settings.auth.query_token;
    match if asks { token::without_token(head) } else { None } {
        Some(target) => client(head, &head.with_target(&target), edition, peer, out),
        None => client(head, head, edition, peer, out),
    }
}

/// Answers one request of the admin port.
pub fn respond_admin(
    head: &Head<'_>,
    body: Vec<u8>,
    edition: &Edition,
    replies: &mut admin::Replies,
    tools: &mut Tools<'_>,
    out: &mut ResponseBuffer,
) -> Answer {
    admin::respond(head, body, edition, replies, tools, out)
}

/// The same; `seen` is the request as dialects see it.
fn client(
    head: &Head<'_>,
    seen: &Head<'_>,
    edition: &Edition,
    peer: impl FnOnce() -> Option<IpAddr>,
    out: &mut ResponseBuffer,
) -> Answer {
    if head.method == "OPTIONS" && head.field("access-control-request-method").is_some() {
        // Whatever is wrong with its path and parameters: the request behind it is told what, and a page can read that
        // only if the preflight succeeds (Fetch, 4.8).
        return preflight(head, edition, out);
    }
    if head.path() == "/" {
        if !matches!(head.method, "GET" | "HEAD") {
            return client_method_refusal(head, edition, "GET, HEAD", out);
        }
        return match page::write(head, edition, peer, out) {
            Ok(()) => Answer::Done { keep_alive: head.keep_alive, refused: None },
            Err(text) => client_refusal(head, edition, RefuseReason::BadRequest, &text, out),
        };
    }
    let welcome = &edition.settings.server.subprotocols;
    let is_known = |offer: &&str| {
        Dialect::ALL.iter().any(|dialect| dialect.subprotocol() == Some(offer))
            || welcome.iter().any(|name| name == offer)
    };
    if head.path() == "/demo" && edition.settings.server.demo {
        if !matches!(head.method, "GET" | "HEAD") {
            return client_method_refusal(head, edition, "GET, HEAD", out);
        }
        return match page::demo::write(head, out) {
            Ok(()) => Answer::Done { keep_alive: head.keep_alive, refused: None },
            Err(text) => client_refusal(head, edition, RefuseReason::BadRequest, &text, out),
        };
    }
    let request = OpenRequest {
        head: seen,
        subscriptions_max: edition.settings.limits.subscriptions_max,
        subprotocol: upgrade::protocols(head).find(is_known),
        gzip: edition.settings.deflate.event_streams && head.fields("accept-encoding").any(coded::takes_gzip),
    };
    match Dialect::opening(&request) {
        None => {
            let elsewhere = "not here: this is the client port, not the admin port";
            let text = if admin::has(head.path()) { elsewhere } else { RefuseReason::NotFound.text() };
            client_refusal(head, edition, RefuseReason::NotFound, text, out)
        }
        Some(Err(refused)) => client_refusal(head, edition, refused.reason, &refused.text, out),
        Some(Ok(opening)) => match opening.dialect.carrier() {
            Carrier::Frames => upgrade(head, opening, edition, out),
            Carrier::Body | Carrier::Answer => stream(head, opening, edition, out),
        },
    }
}

/// Opens a dialect that is carried by frames.
fn upgrade(head: &Head<'_>, mut opening: Opening, edition: &Edition, out: &mut ResponseBuffer) -> Answer {
    let upgrade = match upgrade::check(head) {
        Ok(upgrade) => upgrade,
        Err(error) => return upgrade_refusal(head, &error, edition, out),
    };
    if edition.origin.check(head.field("origin"), Some(head.host.as_bytes())).is_err() {
        return foreign(head, edition, out);
    }
    let extension = match edition.settings.deflate.enabled.then(|| negotiate(upgrade.extensions())) {
        // Whoever might need some of what is kept must not be invited while there is no room.
        Some(Ok(Some(_))) if !edition.contexts.admits() => None,
        Some(Ok(answer)) => answer,
        // RFC 6455, 9.1.
        Some(Err(error)) => {
            return client_refusal(head, edition, RefuseReason::BadRequest, &error.to_string(), out);
        }
        None => None,
    };
    opening.deflate = extension.map(|agreement| agreement.window_bits);
    opening.runs = extension.is_some_and(|agreement| !agreement.server_resets);
    // RFC 6455, 4.2.2: one of the client's offers, here its first that is spoken here or welcome, or none. A client
    // that needs one ends the connection by itself then (4.1).
    let welcome = &edition.settings.server.subprotocols;
    let spoken = opening.dialect.subprotocol();
    let subprotocol =
        upgrade.protocols().find(|offer| spoken == Some(*offer) || welcome.iter().any(|name| name == offer));
    upgrade::write_accept(out, &upgrade, subprotocol, extension.map(|agreement| agreement.answer));
    Answer::Open(opening)
}

/// Opens a dialect whose messages are the body of an answer.
fn stream(head: &Head<'_>, opening: Opening, edition: &Edition, out: &mut ResponseBuffer) -> Answer {
    if !matches!(head.method, "GET" | "HEAD" | "OPTIONS") {
        return client_method_refusal(head, edition, "GET, HEAD, OPTIONS", out);
    }
    if head.method == "OPTIONS" {
        return preflight(head, edition, out);
    }
    let Ok(fields) = Asker::of(head).fields(&edition.origin) else {
        return foreign(head, edition, out);
    };
    opening.dialect.push_head(head, out);
    fields.push(out);
    if edition.settings.deflate.event_streams && opening.dialect.carrier() == Carrier::Body {
        // RFC 9110, 12.5.5: another client may be sent another coding.
        push_field(out, "Vary", "Accept-Encoding");
    }
    Answer::Open(opening)
}

/// Ends the head of a stream's answer that only its head is asked of (RFC 9110, 9.3.2): what GET would be answered, without
/// its content and what is only known with it: GET makes a topic that does not exist, and HEAD must not (9.2.1).
pub fn end_head(opening: &Opening, edition: &Edition, out: &mut Vec<u8>) {
    let found = |(name, since): &(TopicName<'_>, Since)| {
        let topic = edition.router.find(name)?;
        let joined = topic.look(*since);
        Some((topic, joined))
    };
    if let Some(found) = opening.topics.iter().map(found).collect::<Option<Vec<_>>>() {
        let begins: Vec<_> = found.iter().map(|(topic, joined)| Outcome::of_joined(topic, *joined)).collect();
        opening.dialect.push_places(&begins, out);
    }
    out.extend_from_slice(b"\r\n");
}

/// Answers the question whether a page may send a request.
fn preflight(head: &Head<'_>, edition: &Edition, out: &mut ResponseBuffer) -> Answer {
    let Ok(fields) = Asker::of(head).fields(&edition.origin) else {
        return foreign(head, edition, out);
    };
    fields.push_preflight(head.keep_alive, out);
    Answer::Done { keep_alive: head.keep_alive, refused: None }
}

fn foreign(head: &Head<'_>, edition: &Edition, out: &mut ResponseBuffer) -> Answer {
    let reason = RefuseReason::ForeignOrigin;
    client_refusal(head, edition, reason, reason.text(), out)
}

fn upgrade_refusal(
    head: &Head<'_>,
    error: &UpgradeRefusal,
    edition: &Edition,
    out: &mut ResponseBuffer,
) -> Answer {
    if error.status() == RefuseReason::MethodNotAllowed.status() {
        return client_method_refusal(head, edition, "GET", out);
    }
    let reason = RefuseReason::of_head_status(error.status());
    client_refusal(head, edition, reason, error.reason(), out)
}

/// As [`method_refusal`], on the client port.
fn client_method_refusal(
    head: &Head<'_>,
    edition: &Edition,
    allow: &str,
    out: &mut ResponseBuffer,
) -> Answer {
    write_method_refusal(head, allow, Some(&Asker::of(head).fields_of_refusal(&edition.origin)), out)
}

/// Answers 405 with the methods this path does answer (RFC 9110, 15.5.6).
fn method_refusal(head: &Head<'_>, allow: &str, out: &mut ResponseBuffer) -> Answer {
    write_method_refusal(head, allow, None, out)
}

fn write_method_refusal(
    head: &Head<'_>,
    allow: &str,
    readers: Option<&Fields<'_>>,
    out: &mut ResponseBuffer,
) -> Answer {
    let mut headers = PLAIN_HEADERS.to_vec();
    headers.push(("Allow", allow));
    headers.extend(readers.into_iter().flat_map(Fields::each));
    Response {
        status: RefuseReason::MethodNotAllowed.status(),
        content_type: "text/plain; charset=utf-8",
        headers: &headers,
        body: format!("this path answers {allow}\n").as_bytes(),
        keep_alive: head.keep_alive,
        head_only: head.method == "HEAD",
    }
    .write_into(out);
    Answer::Done { keep_alive: head.keep_alive, refused: Some(RefuseReason::MethodNotAllowed) }
}

/// As [`refusal`], on the client port: a page that may read the answer may read the refusal, too.
fn client_refusal(
    head: &Head<'_>,
    edition: &Edition,
    reason: RefuseReason,
    text: &str,
    out: &mut ResponseBuffer,
) -> Answer {
    let readers = Asker::of(head).fields_of_refusal(&edition.origin);
    write_refusal(reason, text, Some(&readers), (head.keep_alive, head.method == "HEAD"), out);
    Answer::Done { keep_alive: head.keep_alive, refused: Some(reason) }
}

/// Answers a refusal that leaves the connection as it is.
fn refusal(head: &Head<'_>, reason: RefuseReason, text: &str, out: &mut ResponseBuffer) -> Answer {
    write_refusal(reason, text, None, (head.keep_alive, head.method == "HEAD"), out);
    Answer::Done { keep_alive: head.keep_alive, refused: Some(reason) }
}

/// Writes the refusal of somebody who may be let in another time, as whoever asks understands it: a stream that ends with
/// the time to ask again, `again_ms` from now, where a stream is wanted.
pub fn write_not_now(
    reason: RefuseReason,
    asker: &Asker<'_>,
    edition: &Edition,
    again_ms: u32,
    out: &mut ResponseBuffer,
) {
    if asker.wants_stream() && reason.passes() {
        cors::push_not_now(asker, &edition.origin, reason.text(), again_ms, out);
    } else {
        let readers = asker.fields_of_refusal(&edition.origin);
        write_refusal(reason, reason.text(), Some(&readers), (false, asker.head_only()), out);
    }
}

/// Writes the answer of a refusal: its status, one plain line, the headers the status calls for, and those that say which
/// pages may read it.
pub fn write_refusal(
    reason: RefuseReason,
    text: &str,
    readers: Option<&Fields<'_>>,
    (keep_alive, head_only): (bool, bool),
    out: &mut ResponseBuffer,
) {
    let more: &[(&str, &str)] = match reason.status() {
        // Others of its own have to go first; that takes longer than a bucket needs for one token.
        _ if matches!(reason, RefuseReason::TooManyFromAddress | RefuseReason::TooManyOfIdentity) => {
            &[("Retry-After", "10")]
        }
        // RFC 6455, 4.4: the refusal names the version that is understood.
        // RFC 9110, 15.5.22.
        426 => &[("Sec-WebSocket-Version", "13"), ("Upgrade", "websocket")],
        429 | 503 => &[("Retry-After", "1")],
        _ => &[],
    };
    let mut headers = PLAIN_HEADERS.to_vec();
    headers.extend_from_slice(more);
    // RFC 9110, 15.5.2: a 401 names what would help.
    let challenge = token::challenge(reason, text);
    headers.extend(challenge.iter().map(|challenge| ("WWW-Authenticate", challenge.as_str())));
    headers.extend(readers.into_iter().flat_map(Fields::each));
    Response {
        status: reason.status(),
        content_type: "text/plain; charset=utf-8",
        headers: &headers,
        body: format!("{text}\n").as_bytes(),
        keep_alive,
        head_only,
    }
    .write_into(out);
}
