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
        let path = request.head.path();
        if path != "/ws" && !path.starts_with("/ws/") {
            return None;
        }
        Some(opening(path, request.head.query(), request.subscriptions_max).map_err(Refusal::bad_request))
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

/// Reads topics and options from path and query.
///
/// # Errors
/// One line on what is wrong with them.
fn opening(path: &str, query: &str, topics_max: usize) -> Result<Opening, Cow<'static, str>> {
    let mut names = vec![match path.strip_prefix("/ws/") {
        Some(raw) => topic_name(raw)?.into_owned(),
        None => LOBBY,
    }];
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

    #[test]
    fn the_rest_of_the_path_is_the_topic() {
        let opening = opening("/ws/a%2Fb/c%20d", "topic=x&topic=x&topic=a+b&echo=0", 64).expect("valid");
        let names: Vec<_> = opening.topics.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["a/b/c d", "x", "a b"]);
        assert!(opening.no_echo);
    }

    #[test]
    fn a_slip_in_the_query_is_no_other_subscription() {
        let error = |query| opening("/ws", query, 64).expect_err("refused");
        assert!(error("topics=a").contains("did you mean \"topic\"?"));
        assert!(error("eco=0").contains("did you mean \"echo\"?"));
        assert!(error("filter=x").contains("expects topic, echo"));
        for query in ["echo=maybe", "echo=", "echo", "echo=0&echo=1", "topic=%zz", "topic=a&x"] {
            error(query);
        }
        assert!(!opening("/ws", "echo=1", 64).expect("valid").no_echo);
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
