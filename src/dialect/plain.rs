//! The plain dialect: `/ws` and `/ws/TOPIC`. The payload of a WebSocket message is the message.
//!
//! Owns the reading of its URL. Every message is published to the connection's first topic; one that may not be is
//! counted, because the dialect has no words to answer with.

use std::borrow::Cow;

use super::Dialect;
use super::effect::{Cx, Effect, Meaning, Outcome, Reply};
use super::speak::{Incoming, OpenRequest, Opening, Refusal, Speak};
use super::url::{Wanted, wanted, wanted_by_path};
use crate::topic::{LevelPattern, Position, PositionError, Since, TopicName};
use crate::wire::frame::{Opcode, push_frame};
use crate::wire::http::params::{switch, unknown};
use crate::wire::http::uri::query_pairs;

/// The topic of `/ws` itself.
const LOBBY: TopicName<'static> = TopicName::of("lobby");

/// The parameters of its URL.
const PARAMETERS: [&str; 5] = ["topic", "since", "history", "echo", "envelope"];

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
        match outcome {
            // An application that is away ends none of its clients.
            Outcome::Refused { denial, .. } if denial.is_for_now() => {}
            Outcome::Refused { .. } | Outcome::Invalid { .. } | Outcome::Rejected { .. } => {
                cx.effects.push(Effect::Ignore);
            }
            Outcome::Forwarded { reply: Some(reply), .. } => push_reply(reply, cx.out),
            _ => {}
        }
    }
}

/// Appends what the application says as a message, which has no topic.
fn push_reply(reply: Reply<'_>, out: &mut Vec<u8>) {
    match reply {
        Reply::Json(text) | Reply::Text(text) => push_frame(out, Opcode::Text, text.as_bytes(), None),
        Reply::Binary(bytes) => push_frame(out, Opcode::Binary, bytes, None),
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
    let opening = opening.map_err(Refusal::bad_request)?;
    match (dialect, opening.dialect) {
        (Dialect::Plain, _) => Ok(opening),
        (_, Dialect::Envelope) => {
            Err(Refusal::bad_request("envelope is of the plain dialect; what you speak says more".into()))
        }
        _ => Ok(Opening { dialect, ..opening }),
    }
}

/// Reads topics and options from path and query. `since` and `history` are about the topic named before them, first of all
/// that of the path.
///
/// # Errors
/// One line on what is wrong with them.
fn opening(
    path: &str,
    query: &str,
    topics_max: usize,
    usual: Option<TopicName<'static>>,
) -> Result<Opening, Cow<'static, str>> {
    let first = match path.strip_prefix("/ws/") {
        Some(raw) => Some(wanted_by_path(raw)?),
        None => usual.map(Wanted::Topic),
    };
    let mut topics: Vec<(TopicName<'static>, Option<Since>)> = Vec::new();
    let mut patterns: Vec<LevelPattern> = Vec::new();
    // Of the topic that `since` and `history` are about; of a pattern there is none.
    let mut at = first.map_or(usize::MAX, |first| add(first, &mut topics, &mut patterns));
    let (mut echo, mut envelope) = (None, None);
    for pair in query_pairs(query) {
        let (name, value) = pair.map_err(|_| "the query is not percent-encoded UTF-8")?;
        match name.as_ref() {
            "topic" => at = add(wanted(&value)?, &mut topics, &mut patterns),
            "since" | "history" => {
                let since = match name.as_ref() {
                    "since" => Since::After(Position::parse(&value).map_err(PositionError::reason)?),
                    _ => Since::Last(count(&value)?),
                };
                let Some((_, of)) = topics.get_mut(at) else {
                    return Err(
                        "since and history come behind the topic that they are about, which is no pattern"
                            .into(),
                    );
                };
                if of.replace(since).is_some() {
                    return Err("a topic begins at one place: since or history, once".into());
                }
            }
            "echo" if echo.is_some() => return Err("echo is there twice".into()),
            "echo" => echo = Some(switch("echo", &value)?),
            "envelope" if envelope.is_some() => return Err("envelope is there twice".into()),
            "envelope" => envelope = Some(switch("envelope", &value)?),
            name => return Err(unknown(name, &PARAMETERS).into()),
        }
    }
    if topics.len() + patterns.len() > topics_max {
        return Err("more topics than one connection may subscribe to".into());
    }
    let topics = topics.into_iter().map(|(name, since)| (name, since.unwrap_or_default())).collect();
    let dialect = if envelope == Some(true) { Dialect::Envelope } else { Dialect::Plain };
    Ok(Opening { topics, patterns, no_echo: echo == Some(false), ..Opening::of(dialect) })
}

/// Adds what is not there yet; returns the place of a topic.
fn add(
    wanted: Wanted,
    topics: &mut Vec<(TopicName<'static>, Option<Since>)>,
    patterns: &mut Vec<LevelPattern>,
) -> usize {
    match wanted {
        Wanted::Topic(name) => topics.iter().position(|(known, _)| *known == name).unwrap_or_else(|| {
            topics.push((name, None));
            topics.len() - 1
        }),
        Wanted::Pattern(pattern) => {
            if !patterns.contains(&pattern) {
                patterns.push(pattern);
            }
            usize::MAX
        }
    }
}

/// A number of messages.
fn count(value: &str) -> Result<u32, &'static str> {
    let digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
    value.parse().ok().filter(|_| digits).ok_or("history expects a number of messages")
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
        assert!(error("filter=x").contains("expects topic, since, history, echo, envelope"));
        assert!(error("sinc=x").contains("did you mean \"since\"?"));
        for query in ["echo=maybe", "echo=", "echo", "echo=0&echo=1", "topic=%zz", "topic=a&x"] {
            error(query);
        }
        assert!(!opened("/ws", "echo=1", 64).expect("valid").no_echo);
    }

    #[test]
    fn each_topic_begins_where_it_is_told() {
        let begin = |query: &str| -> Vec<Since> {
            let opening = opened("/ws/a", query, 64).expect("valid");
            opening.topics.iter().map(|(_, since)| *since).collect()
        };
        let after = Since::After(Position { epoch: 0xab, offset: 7 });
        assert_eq!(begin(""), [Since::Now]);
        assert_eq!(begin("since=00000000000000ab:7"), [after]);
        assert_eq!(begin("topic=b&since=00000000000000ab%3A7"), [Since::Now, after]);
        assert_eq!(
            begin("history=3&topic=b&history=0&topic=c"),
            [Since::Last(3), Since::Last(0), Since::Now]
        );
        assert_eq!(begin("topic=b&topic=a&history=4294967295"), [Since::Last(u32::MAX), Since::Now]);
        for query in [
            "since=",
            "since",
            "since=7",
            "since=00000000000000ab:07",
            "history=",
            "history=-1",
            "history=+1",
            "history=4294967296",
            "history=1&history=1",
            "history=1&since=00000000000000ab:7",
            "envelope=2",
            "envelope=1&envelope=1",
        ] {
            assert!(opened("/ws/a", query, 64).is_err(), "{query}");
        }
        assert_eq!(opened("/ws/a", "envelope=1", 64).unwrap().dialect, Dialect::Envelope);
        assert_eq!(opened("/ws/a", "envelope=0", 64).unwrap().dialect, Dialect::Plain);
    }

    #[test]
    fn a_star_makes_a_pattern_however_it_is_written() {
        let named = |path: &str, query: &str| -> (Vec<String>, Vec<String>) {
            let opening = opened(path, query, 64).expect("valid");
            let topics = opening.topics.iter().map(|(name, _)| name.as_str().to_owned()).collect();
            (topics, opening.patterns.iter().map(|pattern| pattern.as_str().to_owned()).collect())
        };
        let of = |topics: &[&str], patterns: &[&str]| {
            let all = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
            (all(topics), all(patterns))
        };
        assert_eq!(named("/ws", "topic=prices/*&topic=prices%2F%2A"), of(&["lobby"], &["prices/*"]));
        assert_eq!(named("/ws/a/*/b", "topic=x&topic=**"), of(&["x"], &["a/*/b", "**"]));
        assert_eq!(named("/ws/a%2F%2A%2A", ""), of(&[], &["a/**"]));
        for query in ["topic=a*", "topic=**/a", "topic=a/*&history=1", "topic=*&since=00000000000000ab:7"] {
            assert!(opened("/ws", query, 64).is_err(), "{query}");
        }
        assert!(opened("/ws/*", "history=1", 64).is_err());
        assert!(opened("/ws/a", "topic=b/*", 1).is_err(), "patterns count as topics do");
    }

    #[test]
    fn bad_names_are_refused() {
        for path in ["/ws/", "/ws/a%00", "/ws/a*", "/ws/%FF", "/ws/%2"] {
            assert!(opened(path, "", 64).is_err(), "{path}");
        }
        assert!(opened(&format!("/ws/{}", "x".repeat(201)), "", 64).is_err());
        assert!(opened("/ws/a", "topic=b", 1).is_err());
    }
}
