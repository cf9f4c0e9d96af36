//! The admin port: publishing, looking at topics and connections, health, metrics, statistics. Never a client's
//! business.
//!
//! Every request passes the guard first, because a browser on the operator's machine can reach loopback, and
//! then needs a key if there are any. What the client loops have to be asked is an [`Ask`]; what is too much
//! for one turn is a [`Batch`]; the admin loop carries both out.

mod batch;
mod connections;
mod history;
mod page;
mod presence;
mod replies;
mod topics;

use std::borrow::Cow;
use std::fmt::Write;

use super::{Answer, Edition, PLAIN_HEADERS, Tools, method_refusal, refusal, write_refusal};
use crate::auth::admin_guard::AdminRefusal;
use crate::auth::admin_keys::{KeyRefusal, Scope};
use crate::auth::revoked::REVOKED_MAX;
use crate::connection::inquiry::{Part, Question};
use crate::dialect::url::topic_name;
use crate::edition::{Readiness, ReloadAnswer};
use crate::metrics::{self, RefuseReason, prometheus, stats};
use crate::wire::http::head::Head;
use crate::wire::http::params::Params;
use crate::wire::http::response::{Response, ResponseBuffer};
use crate::wire::http::uri::percent_decode;

pub use batch::{Batch, Progress};
pub use connections::Ask;
use connections::{Shown, Unasked};
use replies::Known;
pub use replies::Replies;

/// The type of an answer of many lines.
const LINES: &str = "application/x-ndjson";
const JSON: &str = "application/json";

/// Bytes of a form: a handful of parameters.
const FORM_BYTES_MAX: usize = 64 << 10;

/// What is only to be looked at.
const READ_ONLY: [&str; 9] =
    ["/", "/healthz", "/readyz", "/metrics", "/stats", "/topics", "/history", "/presence", "/connections"];

/// Whether this request may reach the admin port at all.
pub(super) fn guard(head: &Head<'_>, edition: &Edition) -> Result<(), RefuseReason> {
    edition.guard.check(head.host.as_bytes(), |name| head.field(name)).map_err(|refusal| match refusal {
        AdminRefusal::Host => RefuseReason::AdminHost,
        AdminRefusal::Origin | AdminRefusal::FetchSite => RefuseReason::AdminOrigin,
    })?;
    let Some(scope) = scope_of(head) else { return Ok(()) };
    edition.keys.check(scope, head.field("authorization")).map_err(|refusal| match refusal {
        KeyRefusal::Unknown => RefuseReason::KeyMissing,
        KeyRefusal::Scope => RefuseReason::KeyScope,
    })
}

/// Whether a request needs a key, where there are any.
pub(super) fn needs_key(head: &Head<'_>) -> bool {
    scope_of(head).is_some()
}

/// Whether the admin port has this path.
pub(super) fn has(path: &str) -> bool {
    let whole = [
        "/publish",
        "/drain",
        "/reload",
        "/revoke",
        "/healthz",
        "/readyz",
        "/metrics",
        "/stats",
        "/topics",
        "/history",
        "/presence",
        "/connections",
    ];
    whole.contains(&path) || path.starts_with("/publish/") || path.starts_with("/connections/")
}

/// What a request needs a key for; probes need none, and the page that asks for the key.
fn scope_of(head: &Head<'_>) -> Option<Scope> {
    match (head.method, head.path()) {
        (_, "/healthz" | "/readyz" | "/") => None,
        (_, path) if path == "/publish" || path.starts_with("/publish/") => Some(Scope::Publish),
        ("GET" | "HEAD", _) => Some(Scope::Read),
        _ => Some(Scope::Admin),
    }
}

/// Bytes that the body of this request may have: a stranger must not be able to leave anything here, and parameters
/// are short.
///
/// # Errors
/// The request is refused whatever its body is.
pub fn body_max(head: &Head<'_>, edition: &Edition) -> Result<usize, RefuseReason> {
    guard(head, edition)?;
    let most = edition.settings.limits.admin_body_bytes_max;
    Ok(match scope_of(head) {
        None => 0,
        Some(Scope::Publish) => most,
        Some(Scope::Read | Scope::Admin) => most.min(FORM_BYTES_MAX),
    })
}

/// Answers one request.
pub(super) fn respond(
    head: &Head<'_>,
    body: Vec<u8>,
    edition: &Edition,
    replies: &mut Replies,
    tools: &mut Tools<'_>,
    out: &mut ResponseBuffer,
) -> Answer {
    if let Err(reason) = guard(head, edition) {
        return refusal(head, reason, reason.text(), out);
    }
    if let Some(raw) = head.path().strip_prefix("/publish/") {
        return publish(head, raw, &body, edition, replies, tools, out);
    }
    if let Some(raw) = head.path().strip_prefix("/connections/") {
        return connection(head, raw, &body, edition, out);
    }
    let read = matches!(head.method, "GET" | "HEAD");
    // The others read their own.
    if matches!(head.path(), "/" | "/drain" | "/reload" | "/healthz" | "/readyz" | "/metrics" | "/stats")
        && let Err(text) = Params::read(head.query(), b"", &[])
    {
        return refusal(head, RefuseReason::BadRequest, &text, out);
    }
    match head.path() {
        "/publish" | "/drain" | "/reload" | "/revoke" if head.method != "POST" => {
            method_refusal(head, "POST", out)
        }
        "/publish" => publish_batch(head, body, edition, replies, out),
        "/revoke" => revoke(head, &body, edition, tools, out),
        "/reload" if edition.is_draining() => {
            refusal(head, RefuseReason::Draining, "the server is on its way out and reads nothing more", out)
        }
        "/reload" => Answer::Reload,
        "/drain" => {
            answer(head, 202, JSON, b"{\"draining\":true}\n", out);
            Answer::Drain { keep_alive: head.keep_alive }
        }
        path if !read && READ_ONLY.contains(&path) => method_refusal(head, "GET, HEAD", out),
        "/" => page::respond(head, out),
        "/topics" => match topics::list(head.query(), edition) {
            Ok(topics::Found::Body(body)) => answer(head, 200, JSON, &body, out),
            Ok(topics::Found::Nothing) => refusal(head, RefuseReason::NotFound, "no such topic", out),
            Err(text) => refusal(head, RefuseReason::BadRequest, &text, out),
        },
        "/history" => match history::page(head.query(), edition) {
            Ok(history::Found::Body(body, position)) => {
                let position = position.to_string();
                let more = [("Fantail-Position", position.as_str())];
                write(200, JSON, &more, &body, head.keep_alive, head.method == "HEAD", out);
                Answer::Done { keep_alive: head.keep_alive, refused: None }
            }
            Ok(history::Found::Nothing) => refusal(head, RefuseReason::NotFound, "no such topic", out),
            Err(text) => refusal(head, RefuseReason::BadRequest, &text, out),
        },
        "/presence" => presence::respond(head, edition, out),
        "/connections" => ask(head, connections::list(head.query(), edition.loops()), out),
        "/healthz" => match edition.stuck_loop(metrics::now_ms()) {
            Some(index) => text(head, 503, &format!("loop {index} has not turned for 5 s\n"), out),
            None => text(head, 200, "ok\n", out),
        },
        "/readyz" => {
            let readiness = edition.readiness();
            let status = if readiness == Readiness::Ready { 200 } else { 503 };
            text(head, status, &format!("{}\n", readiness.text()), out)
        }
        "/metrics" => {
            let mut body = String::new();
            prometheus::render(&edition.facts(), &mut body);
            answer(head, 200, "text/plain; version=0.0.4; charset=utf-8", body.as_bytes(), out)
        }
        "/stats" => {
            let mut body = Vec::new();
            stats::render(&edition.facts(), &mut body);
            answer(head, 200, JSON, &body, out)
        }
        _ => refusal(head, RefuseReason::NotFound, RefuseReason::NotFound.text(), out),
    }
}

/// Writes what the loops answered, and says whether that is a refusal. `parts` are those of all loops that were
/// asked, in their order.
pub fn write_answered(
    question: &Question,
    parts: &[(usize, Part)],
    edition: &Edition,
    keep_alive: bool,
    head_only: bool,
    out: &mut ResponseBuffer,
) -> Option<RefuseReason> {
    let fields = Shown::of(&edition.settings.admin.connection_fields);
    match connections::render(question, parts, edition.loops(), fields, metrics::now_ms()) {
        Some(body) => {
            write(200, JSON, &[], &body, keep_alive, head_only, out);
            None
        }
        None => {
            let text = match question {
                Question::Unsubscribe { .. } => "no such connection, or it is not subscribed to the topic",
                _ => "no such connection",
            };
            write_refusal(RefuseReason::NotFound, text, None, (keep_alive, head_only), out);
            Some(RefuseReason::NotFound)
        }
    }
}

/// The loop a list goes on with when its last part has come, and the slot there.
#[must_use]
pub fn list_goes_on(last: &(usize, Part), edition: &Edition) -> Option<usize> {
    match connections::goes_on(last.0, &last.1, edition.loops()) {
        Some((index, 0)) if index > last.0 => Some(index),
        _ => None,
    }
}

/// Writes what became of a reload that was asked for.
pub fn write_reloaded(said: &ReloadAnswer, keep_alive: bool, out: &mut ResponseBuffer) {
    let status = if said.applied { 200 } else { 422 };
    write(status, JSON, &[], &said.body, keep_alive, false, out);
}

/// Writes the whole answer to a batch that was done at once.
pub fn write_batch_answer(body: &[u8], keep_alive: bool, out: &mut ResponseBuffer) {
    write(200, LINES, &[], body, keep_alive, false, out);
}

/// Writes the head of an answer to a batch whose lines come one run after the other.
pub fn write_batch_head(chunked: bool, keep_alive: bool, out: &mut ResponseBuffer) {
    let framing = if chunked { "Transfer-Encoding: chunked\r\n" } else { "" };
    let connection = if keep_alive { "keep-alive" } else { "close" };
    out.push_status_line(200);
    out.extend_from_slice(
        format!("Content-Type: {LINES}\r\n{framing}Connection: {connection}\r\n").as_bytes(),
    );
    for (name, value) in PLAIN_HEADERS.iter().chain(&[("Cache-Control", "no-store")]) {
        out.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    out.extend_from_slice(b"\r\n");
}

impl Replies {
    /// Keeps some lines of a batch's answer, if it has a key.
    pub fn extend_batch(&mut self, batch: &Batch, lines: &[u8]) {
        if let Some(key) = &batch.reply_key {
            self.extend(key, lines, metrics::now_ms());
        }
    }

    /// Every line of a batch is answered.
    pub fn finish_batch(&mut self, batch: &Batch) {
        if let Some(key) = &batch.reply_key {
            self.finish(key, metrics::now_ms());
        }
    }

    /// The batch was refused before its first line.
    pub fn forget_batch(&mut self, batch: &Batch) {
        if let Some(key) = &batch.reply_key {
            self.forget(key);
        }
    }
}

fn connection(
    head: &Head<'_>,
    raw: &str,
    body: &[u8],
    edition: &Edition,
    out: &mut ResponseBuffer,
) -> Answer {
    let loops = edition.loops();
    let read = matches!(head.method, "GET" | "HEAD");
    match raw {
        "close" | "unsubscribe" if head.method != "POST" => method_refusal(head, "POST", out),
        "close" => ask(head, connections::close(head.query(), body, loops), out),
        "unsubscribe" => ask(head, connections::unsubscribe(head.query(), body, loops), out),
        _ if !read => method_refusal(head, "GET, HEAD", out),
        id => match (percent_decode(id), Params::read(head.query(), b"", &[])) {
            (_, Err(text)) => refusal(head, RefuseReason::BadRequest, &text, out),
            (Ok(id), _) => ask(head, connections::one(&id, loops), out),
            (Err(_), _) => refusal(head, RefuseReason::BadRequest, "the id is not percent-encoded", out),
        },
    }
}

fn revoke(
    head: &Head<'_>,
    body: &[u8],
    edition: &Edition,
    tools: &Tools<'_>,
    out: &mut ResponseBuffer,
) -> Answer {
    let asked =
        connections::revoke(head.query(), body, edition.loops()).and_then(|(revoked, seconds, ask)| {
            let now = tools.wall.ms() / 1_000;
            // Before those are closed who have shown it, so that nobody comes back in between.
            match edition.revocations.add(revoked, now, now + seconds) {
                true => Ok(ask),
                false => Err(Unasked::Bad(format!(
                    "as many as {REVOKED_MAX} are revoked; wait until some are over"
                ))),
            }
        });
    ask(head, asked, out)
}

fn ask(head: &Head<'_>, asked: Result<Ask, Unasked>, out: &mut ResponseBuffer) -> Answer {
    match asked {
        Ok(ask) => Answer::Ask(ask),
        Err(Unasked::Bad(text)) => refusal(head, RefuseReason::BadRequest, &text, out),
        Err(Unasked::Nothing) => refusal(head, RefuseReason::NotFound, "no such connection", out),
    }
}

/// Looks up what a request with an `Idempotency-Key` was answered. `Ok` has the name, in `replies`, of one to carry
/// out.
fn recall(
    head: &Head<'_>,
    body: &[u8],
    content_type: &str,
    (edition, replies): (&Edition, &mut Replies),
    out: &mut ResponseBuffer,
) -> Result<Option<String>, Answer> {
    // Of two keys neither is the one that the sender will try again with.
    if head.fields("idempotency-key").nth(1).is_some() {
        return Err(refusal(head, RefuseReason::BadRequest, "Idempotency-Key is there twice", out));
    }
    let key = match replies::key_of(head.field("idempotency-key")) {
        Ok(Some(key)) => key,
        Ok(None) => return Ok(None),
        Err(text) => return Err(refusal(head, RefuseReason::BadRequest, text, out)),
    };
    let name = replies.name_of(edition.keys.holder(head.field("authorization")), key);
    match replies.begin(&name, head.target, body, metrics::now_ms()) {
        Known::New => Ok(Some(name)),
        Known::Answered(kept) => {
            let replayed = [("Idempotency-Replayed", "true")];
            write(200, content_type, &replayed, kept, head.keep_alive, false, out);
            Err(Answer::Done { keep_alive: head.keep_alive, refused: None })
        }
        Known::Unknown => Err(refusal(head, RefuseReason::KeyInUse, RefuseReason::KeyInUse.text(), out)),
        Known::Other => Err(refusal(head, RefuseReason::KeyReused, RefuseReason::KeyReused.text(), out)),
    }
}

fn publish_batch(
    head: &Head<'_>,
    body: Vec<u8>,
    edition: &Edition,
    replies: &mut Replies,
    out: &mut ResponseBuffer,
) -> Answer {
    // Each line says for itself what it is.
    if let Err(text) = Params::read(head.query(), b"", &[]) {
        return refusal(head, RefuseReason::BadRequest, &text, out);
    }
    match recall(head, &body, LINES, (edition, replies), out) {
        Ok(key) => Answer::Batch(Box::new(Batch::new(body, key.map(String::into_boxed_str)))),
        Err(answer) => answer,
    }
}

fn publish(
    head: &Head<'_>,
    raw: &str,
    body: &[u8],
    edition: &Edition,
    replies: &mut Replies,
    tools: &mut Tools<'_>,
    out: &mut ResponseBuffer,
) -> Answer {
    if head.method != "POST" {
        return method_refusal(head, "POST", out);
    }
    let key = match recall(head, body, JSON, (edition, &mut *replies), out) {
        Ok(key) => key,
        Err(answer) => return answer,
    };
    match publish_one(head, raw, body, edition, tools) {
        Ok(json) => {
            if let Some(key) = key {
                replies.extend(&key, json.as_bytes(), metrics::now_ms());
                replies.finish(&key, metrics::now_ms());
            }
            answer(head, 200, JSON, json.as_bytes(), out)
        }
        Err((reason, text)) => {
            if let Some(key) = key {
                replies.forget(&key);
            }
            refusal(head, reason, &text, out)
        }
    }
}

/// Publishes a whole body as one message; the answer is its JSON.
fn publish_one(
    head: &Head<'_>,
    raw: &str,
    body: &[u8],
    edition: &Edition,
    tools: &mut Tools<'_>,
) -> Result<String, (RefuseReason, Cow<'static, str>)> {
    let name = topic_name(raw).map_err(|text| (RefuseReason::BadRequest, text.into()))?;
    // A slip such as ?binary=true would publish as text what is none.
    let params = Params::read(head.query(), b"", &["binary"]);
    let binary = params.and_then(|params| params.is_set("binary"));
    let binary = binary.map_err(|text| (RefuseReason::BadRequest, text.into()))?;
    // A text frame that is not UTF-8 would make every subscriber fail the connection (RFC 6455, 8.1).
    if !binary && std::str::from_utf8(body).is_err() {
        return Err((RefuseReason::BadRequest, "the message is not UTF-8; add ?binary=1".into()));
    }
    let topic = edition.router.topic(&name).map_err(|_| (RefuseReason::Busy, "too many topics".into()))?;
    let rules = edition.router.rules();
    let policy = topic.policy(&rules);
    if body.len() > policy.message_bytes_max {
        return Err((RefuseReason::TooLarge, "the message is larger than message_bytes_max".into()));
    }
    let counters = edition.counters_of(edition.loops());
    if let Err(invalid) = rules.check(policy.check, binary, body) {
        counters.found_invalid(invalid.reason);
        return Err((RefuseReason::InvalidMessage, invalid.to_string().into()));
    }
    match edition.router.publish(&topic, tools.encode(&topic, None, binary, body), None) {
        Ok(published) => {
            counters.publishes.add(1);
            tracing::trace!(topic = topic.name(), offset = published.offset, "published by the admin port");
            let mut json = String::with_capacity(80);
            // The epoch is a string: 64 bits do not survive a reader that knows only doubles. Writing to a
            // String cannot fail.
            let _ = writeln!(
                json,
                "{{\"epoch\":\"{:016x}\",\"offset\":{},\"subscribers\":{}}}",
                published.epoch, published.offset, published.subscribers
            );
            Ok(json)
        }
        Err(_) => {
            counters.publishes_busy.add(1);
            Err((RefuseReason::Busy, RefuseReason::Busy.text().into()))
        }
    }
}

fn text(head: &Head<'_>, status: u16, body: &str, out: &mut ResponseBuffer) -> Answer {
    answer(head, status, "text/plain; charset=utf-8", body.as_bytes(), out)
}

fn answer(head: &Head<'_>, status: u16, content_type: &str, body: &[u8], out: &mut ResponseBuffer) -> Answer {
    write(status, content_type, &[], body, head.keep_alive, head.method == "HEAD", out);
    Answer::Done { keep_alive: head.keep_alive, refused: None }
}

fn write(
    status: u16,
    content_type: &str,
    more: &[(&str, &str)],
    body: &[u8],
    keep_alive: bool,
    head_only: bool,
    out: &mut ResponseBuffer,
) {
    let mut headers = PLAIN_HEADERS.to_vec();
    headers.push(("Cache-Control", "no-store"));
    headers.extend_from_slice(more);
    Response { status, content_type, headers: &headers, body, keep_alive, head_only }.write_into(out);
}
