//! The admin port: publishing, health, metrics, statistics. Never a client's business.
//!
//! Every request passes the guard first, because a browser on the operator's machine can reach loopback.

use super::{Answer, Services, Tools, method_refusal, plain, refusal};
use crate::auth::admin_guard::AdminRefusal;
use crate::metrics::{self, RefuseReason, prometheus, stats};
use crate::wire::http::head::Head;
use crate::wire::http::response::Response;
use crate::wire::http::uri::query_pairs;

/// Whether this request may reach the admin port at all.
pub(super) fn guard(head: &Head<'_>, services: &Services) -> Result<(), RefuseReason> {
    services.guard.check(|name| head.field(name)).map_err(|refusal| match refusal {
        AdminRefusal::Host => RefuseReason::AdminHost,
        AdminRefusal::Origin | AdminRefusal::FetchSite => RefuseReason::AdminOrigin,
    })
}

/// Answers one request.
pub(super) fn respond(
    head: &Head<'_>,
    body: &[u8],
    services: &Services,
    tools: &mut Tools<'_>,
    out: &mut Vec<u8>,
) -> Answer {
    if let Err(reason) = guard(head, services) {
        return refusal(head, reason, reason.text(), out);
    }
    if let Some(raw) = head.path().strip_prefix("/publish/") {
        return publish(head, raw, body, services, tools, out);
    }
    let read = matches!(head.method, "GET" | "HEAD");
    match head.path() {
        "/healthz" | "/readyz" | "/metrics" | "/stats" if !read => method_refusal(head, "GET, HEAD", out),
        "/healthz" => match services.stuck_loop(metrics::now_ms()) {
            Some(index) => text(head, 503, &format!("loop {index} has not turned for 5 s\n"), out),
            None => text(head, 200, "ok\n", out),
        },
        "/readyz" if services.is_draining() => text(head, 503, "draining\n", out),
        "/readyz" => text(head, 200, "ready\n", out),
        "/metrics" => {
            let mut body = String::new();
            prometheus::render(&services.facts(), &mut body);
            answer(head, 200, "text/plain; version=0.0.4; charset=utf-8", body.as_bytes(), out)
        }
        "/stats" => {
            let mut body = String::new();
            stats::render(&services.facts(), &mut body);
            answer(head, 200, "application/json", body.as_bytes(), out)
        }
        _ => refusal(head, RefuseReason::NotFound, RefuseReason::NotFound.text(), out),
    }
}

fn publish(
    head: &Head<'_>,
    raw: &str,
    body: &[u8],
    services: &Services,
    tools: &mut Tools<'_>,
    out: &mut Vec<u8>,
) -> Answer {
    if head.method != "POST" {
        return method_refusal(head, "POST", out);
    }
    let name = match plain::topic_name(raw) {
        Ok(name) => name,
        Err(text) => return refusal(head, RefuseReason::BadRequest, text, out),
    };
    let binary = query_pairs(head.query()).flatten().any(|(name, value)| name == "binary" && value == "1");
    // A text frame that is not UTF-8 would make every subscriber fail the connection (RFC 6455, 8.1).
    if !binary && std::str::from_utf8(body).is_err() {
        return refusal(head, RefuseReason::BadRequest, "the message is not UTF-8; add ?binary=1", out);
    }
    let Ok(topic) = services.router.topic(&name) else {
        return refusal(head, RefuseReason::Busy, "too many topics", out);
    };
    if body.len() > topic.policy().message_bytes_max {
        return refusal(head, RefuseReason::TooLarge, "the message is larger than message_bytes_max", out);
    }
    match services.router.publish(&topic, tools.encode(&topic, None, binary, body), None) {
        Ok(published) => {
            services.counters[services.counters.len() - 1].publishes.add(1);
            tracing::trace!(topic = topic.name(), offset = published.offset, "published by the admin port");
            // The epoch is a string: 64 bits do not survive a reader that knows only doubles.
            let json = format!(
                "{{\"epoch\":\"{:016x}\",\"offset\":{},\"subscribers\":{}}}\n",
                published.epoch, published.offset, published.subscribers
            );
            answer(head, 200, "application/json", json.as_bytes(), out)
        }
        Err(_) => {
            services.counters[services.counters.len() - 1].publishes_busy.add(1);
            refusal(head, RefuseReason::Busy, RefuseReason::Busy.text(), out)
        }
    }
}

fn text(head: &Head<'_>, status: u16, body: &str, out: &mut Vec<u8>) -> Answer {
    answer(head, status, "text/plain; charset=utf-8", body.as_bytes(), out)
}

fn answer(head: &Head<'_>, status: u16, content_type: &str, body: &[u8], out: &mut Vec<u8>) -> Answer {
    Response {
        status,
        content_type,
        headers: &[("X-Content-Type-Options", "nosniff"), ("Cache-Control", "no-store")],
        body,
        keep_alive: head.keep_alive,
        head_only: head.method == "HEAD",
    }
    .write_into(out);
    Answer::Done { keep_alive: head.keep_alive, refused: None }
}
