//! `GET /topics`: what topics there are, in the order of their names.
//!
//! Answered by the admin loop alone: the router's directory is ordered, so a page is a range of it and costs
//! what it shows.

use serde_json::{Value, json};

use crate::edition::Edition;
use crate::topic::name::NameError;
use crate::topic::state::FIRST_OFFSET;
use crate::topic::{Topic, TopicName};
use crate::wire::http::params::Params;

/// Topics on one page.
const LIMIT_MAX: usize = 1_000;

/// Topics counted by one request of the count-only form.
const COUNT_MAX: usize = 10_000;

/// Topics taken from the directory under one lock.
const CHUNK: usize = 256;

/// What a request for topics led to.
pub(super) enum Found {
    /// The JSON of the answer.
    Body(Vec<u8>),
    /// There is no topic of the one name asked for.
    Nothing,
}

/// Answers `GET /topics`.
///
/// # Errors
/// One line on what is wrong with the parameters.
pub(super) fn list(query: &str, edition: &Edition) -> Result<Found, String> {
    let params = Params::read(query, b"", &["prefix", "topic", "cursor", "limit", "count"])?;
    let router = &edition.router;
    let mut out = Vec::new();
    if let Some(name) = params.text("topic") {
        let name = TopicName::parse(name).map_err(NameError::reason)?;
        let Some(topic) = router.find(&name) else { return Ok(Found::Nothing) };
        push(&mut out, &topic_json(&topic));
        out.push(b'\n');
        return Ok(Found::Body(out));
    }
    let count = params.is_set("count")?;
    let most = if count { COUNT_MAX } else { LIMIT_MAX };
    let limit = params.number("limit", most)?;
    if !(1..=most).contains(&limit) {
        return Err(format!("limit expects 1 to {most}"));
    }
    let prefix = params.text("prefix").unwrap_or_default();
    let mut after = params.text("cursor").map(str::to_owned);
    let (mut seen, mut subscribers, mut more) = (0, 0, true);
    if !count {
        out.extend_from_slice(b"{\"topics\":[");
    }
    while more && seen < limit {
        // One more than wanted, to know whether any is left.
        let wanted = (limit - seen).min(CHUNK);
        let mut topics = router.topics_from(prefix, after.as_deref(), wanted + 1);
        more = topics.len() > wanted;
        topics.truncate(wanted);
        for topic in &topics {
            if count {
                subscribers += topic.subscribers();
            } else {
                out.extend_from_slice(if seen == 0 { b"\n" } else { b",\n" });
                push(&mut out, &topic_json(topic));
            }
            seen += 1;
        }
        if let Some(last) = topics.last() {
            after = Some(last.name().to_owned());
        }
    }
    if count {
        out.extend_from_slice(format!("{{\"topics\":{seen},\"subscribers\":{subscribers}").as_bytes());
    } else {
        out.push(b']');
    }
    out.extend_from_slice(b",\"next\":");
    push(&mut out, &json!(after.filter(|_| more)));
    out.extend_from_slice(format!(",\"total\":{}}}\n", router.topics()).as_bytes());
    Ok(Found::Body(out))
}

fn topic_json(topic: &Topic) -> Value {
    let summary = topic.summary();
    json!({
        "topic": topic.name(),
        // A string: 64 bits do not survive a reader that knows only doubles.
        "epoch": format!("{:016x}", topic.epoch()),
        "subscribers": summary.subscribers,
        "loops": summary.loops,
        "messages": summary.next_offset - FIRST_OFFSET,
        "next_offset": summary.next_offset,
        "history_messages": summary.kept_messages,
        "history_bytes": summary.kept_bytes,
    })
}

fn push(out: &mut Vec<u8>, value: &Value) {
    // Writing to a Vec cannot fail.
    let _ = serde_json::to_writer(out, value);
}
