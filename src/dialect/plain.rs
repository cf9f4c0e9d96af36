//! The plain dialect: `/ws` and `/ws/TOPIC`. The payload of a WebSocket message is the message.
//!
//! Owns the reading of its URL. Every message is published to the connection's first topic; one that may not be is
//! counted, because the dialect has no words to answer with.

use std::borrow::Cow;

use super::Dialect;
use super::effect::{Cx, Effect, Meaning, Outcome};
use super::speak::{Incoming, OpenRequest, Opening, Refusal, Speak};
use super::url::topic_name;
use crate::topic::name::NameError;
use crate::topic::{Since, TopicName};
use crate::wire::http::params::{switch, unknown};
use crate::wire::http::uri::query_pairs;

/// The topic of `/ws` itself.
const LOBBY: TopicName<'static> = TopicName::of("lobby");

/// The parameters of its URL.
const PARAMETERS: [&str; 2] = ["topic", "echo"];

pub(super) struct Plain;

impl Speak for Plain {
    fn label() -> &'static str {
        "plain"
    }

    fn open(request: &OpenRequest<'_>) -> Option<Result<Opening, Refusal>> {
        is_path(request.head.path()).then(|| open_at(request, Dialect::Plain, Some(LOBBY)))
    }

    fn subprotocol() -> Option<&'static str> {
        Some("fantail.plain.v1")
    }

    #[inline]
    fn on_message(_: &mut Cx<'_>, _: Incoming<'_>) -> Meaning {
        Meaning::Relay
    }

    #[inline]
    fn on_outcome(cx: &mut Cx<'_>, outcome: Outcome<'_>) {
        if let Outcome::Refused { .. } = outcome {
            cx.effects.push(Effect::Ignore);
        }
    }
}

/// Whether it is the path of WebSockets with topics, whatever they speak.
pub(super) fn is_path(path: &str) -> bool {
    path == "/ws" || path.starts_with("/ws/")
}

/// How a connection of such a path starts; without a topic in the path it has `usual`.
///
/// # Errors
/// Path or query can't be read.
pub(super) fn open_at(
    request: &OpenRequest<'_>,
    dialect: Dialect,
    usual: Option<TopicName<'static>>,
) -> Result<Opening, Refusal> {
    let opening = opening(request.head.path(), request.head.query(), request.subscriptions_max, usual);
    opening.map(|opening| Opening { dialect, ..opening }).map_err(Refusal::bad_request)
}

/// Reads topics and options from path and query.
///
/// # Errors
/// One line on what is wrong with them.
fn opening(
    path: &str,
    query: &str,
    topics_max: usize,
    usual: Option<TopicName<'static>>,
) -> Result<Opening, Cow<'static, str>> {
    let mut names = Vec::from_iter(match path.strip_prefix("/ws/") {
        Some(raw) => Some(topic_name(raw)?.into_owned()),
        None => usual,
    });
    let mut echo = None;
    for pair in query_pairs(query) {
        let (name, value) = pair.map_err(|_| "the query is not percent-encoded UTF-8")?;
        match name.as_ref() {
            "topic" => {
                let name = TopicName::parse(value).map_err(NameError::reason)?;
                if !names.contains(&name) {
                    names.push(name.into_owned());
                }
            }
            "echo" if echo.is_some() => return Err("echo is there twice".into()),
            "echo" => echo = Some(switch("echo", &value)?),
            name => return Err(unknown(name, &PARAMETERS).into()),
        }
    }
    if names.len() > topics_max {
        return Err("more topics than one connection may subscribe to".into());
    }
    let topics = names.into_iter().map(|name| (name, Since::Now)).collect();
    Ok(Opening { dialect: Dialect::Plain, topics, no_echo: echo == Some(false), deflate: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(path: &str, query: &str, topics_max: usize) -> Result<Opening, Cow<'static, str>> {
        opening(path, query, topics_max, Some(LOBBY))
    }

    #[test]
    fn the_rest_of_the_path_is_the_topic() {
        let opening = opened("/ws/a%2Fb/c%20d", "topic=x&topic=x&topic=a+b&echo=0", 64).expect("valid");
        let names: Vec<_> = opening.topics.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["a/b/c d", "x", "a b"]);
        assert!(opening.no_echo);
    }

    #[test]
    fn a_slip_in_the_query_is_no_other_subscription() {
        let error = |query| opened("/ws", query, 64).expect_err("refused");
        assert!(error("topics=a").contains("did you mean \"topic\"?"));
        assert!(error("eco=0").contains("did you mean \"echo\"?"));
        assert!(error("filter=x").contains("expects topic, echo"));
        for query in ["echo=maybe", "echo=", "echo", "echo=0&echo=1", "topic=%zz", "topic=a&x"] {
            error(query);
        }
        assert!(!opened("/ws", "echo=1", 64).expect("valid").no_echo);
    }

    #[test]
    fn bad_names_are_refused() {
        for path in ["/ws/", "/ws/a%00", "/ws/*", "/ws/%FF", "/ws/%2"] {
            assert!(opened(path, "", 64).is_err(), "{path}");
        }
        assert!(opened(&format!("/ws/{}", "x".repeat(201)), "", 64).is_err());
        assert!(opened("/ws/a", "topic=b", 1).is_err());
    }
}
