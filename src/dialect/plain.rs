//! The plain dialect: `/ws` and `/ws/TOPIC`. The payload of a WebSocket message is the message.
//!
//! Owns the reading of its URL. Every message is published to the connection's first topic; one that may not be is
//! counted, because the dialect has no words to answer with.

use std::borrow::Cow;

use super::Dialect;
use super::effect::{Cx, Effect, Meaning, Outcome};
use super::speak::{Incoming, OpenRequest, Opening, Refusal, Speak};
use crate::metrics::RefuseReason;
use crate::wire::http::uri::{percent_decode, query_pairs};

/// The topic of `/ws` itself.
const LOBBY: &str = "lobby";

/// Bytes a topic name may have.
pub(crate) const TOPIC_BYTES_MAX: usize = 200;

pub(super) struct Plain;

impl Speak for Plain {
    fn label() -> &'static str {
        "plain"
    }

    fn open(request: &OpenRequest<'_>) -> Option<Result<Opening, Refusal>> {
        let path = request.head.path();
        if path != "/ws" && !path.starts_with("/ws/") {
            return None;
        }
        let refusal = |text| Refusal { reason: RefuseReason::BadRequest, text: Cow::Borrowed(text) };
        Some(opening(path, request.head.query(), request.subscriptions_max).map_err(refusal))
    }

    #[inline]
    fn on_message(_: &mut Cx<'_>, _: Incoming<'_>) -> Meaning {
        Meaning::Relay
    }

    #[inline]
    fn on_outcome(cx: &mut Cx<'_>, outcome: Outcome<'_>) {
        if let Outcome::Refused(_) = outcome {
            cx.effects.push(Effect::Ignore);
        }
    }
}

/// Reads topics and options from path and query.
///
/// # Errors
/// One line on what is wrong with them.
fn opening(path: &str, query: &str, topics_max: usize) -> Result<Opening, &'static str> {
    let mut topics = vec![match path.strip_prefix("/ws/") {
        Some(raw) => topic_name(raw)?,
        None => LOBBY.to_owned(),
    }];
    let mut no_echo = false;
    for pair in query_pairs(query) {
        let (name, value) = pair.map_err(|_| "the query is not percent-encoded UTF-8")?;
        match name.as_ref() {
            "topic" => {
                check_topic(&value)?;
                if !topics.iter().any(|topic| *topic == value) {
                    topics.push(value.into_owned());
                }
            }
            "echo" => no_echo = value == "0",
            _ => {}
        }
    }
    if topics.len() > topics_max {
        return Err("more topics than one connection may subscribe to");
    }
    Ok(Opening { dialect: Dialect::Plain, topics, no_echo, deflate: false })
}

/// The topic named by the rest of a path, percent-decoded once.
///
/// # Errors
/// One line on what is wrong with it.
pub(crate) fn topic_name(raw: &str) -> Result<String, &'static str> {
    let name = percent_decode(raw).map_err(|_| "the topic is not percent-encoded UTF-8")?;
    check_topic(&name)?;
    Ok(name.into_owned())
}

/// Whether a topic can have this name.
///
/// # Errors
/// One line on what is wrong with it.
pub(crate) fn check_topic(name: &str) -> Result<(), &'static str> {
    if name.is_empty() || name.len() > TOPIC_BYTES_MAX {
        return Err("a topic name has 1 to 200 bytes");
    }
    if name.chars().any(|c| c.is_control() || c == '*') {
        return Err("a topic name has no control characters and no '*'");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_of_the_path_is_the_topic() {
        let opening = opening("/ws/a%2Fb/c%20d", "topic=x&topic=x&topic=a+b&echo=0", 64).expect("valid");
        assert_eq!(opening.topics, ["a/b/c d", "x", "a b"]);
        assert!(opening.no_echo);
    }

    #[test]
    fn bad_names_are_refused() {
        for path in ["/ws/", "/ws/a%00", "/ws/*", "/ws/%FF", "/ws/%2"] {
            assert!(opening(path, "", 64).is_err(), "{path}");
        }
        assert!(opening(&format!("/ws/{}", "x".repeat(201)), "", 64).is_err());
        assert!(opening("/ws/a", "topic=b", 1).is_err());
    }
}
