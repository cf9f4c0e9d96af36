//! A dialect of tests, `/lines`: text commands in WebSocket messages, several to a message, and an answer for each.
//!
//! `sub TOPIC`, `sub PATTERN`, `sub TOPIC EPOCH:OFFSET`, `sub TOPIC COUNT`, `unsub TOPIC`, `pub TOPIC TEXT`, `quit`; whatever else is counted as ignored. It proves that a dialect is
//! its file, its variant and its arm, and that effects are carried out in order.

use super::Dialect;
use super::effect::{Cx, Denial, Effect, Meaning, Outcome, Piece};
use super::speak::{Incoming, OpenRequest, Opening, Refusal, Speak};
use crate::metrics::CloseReason;
use crate::topic::{LevelPattern, Position, Since, TopicName};
use crate::wire::frame::{Opcode, push_frame};

pub(super) struct Lines;

impl Speak for Lines {
    fn label() -> &'static str {
        "lines"
    }

    fn open(request: &OpenRequest<'_>) -> Option<Result<Opening, Refusal>> {
        (request.head.path() == "/lines").then(|| Ok(Opening::of(Dialect::Lines)))
    }

    fn joins() -> bool {
        true
    }

    fn on_message(cx: &mut Cx<'_>, message: Incoming<'_>) -> Meaning {
        let text = std::str::from_utf8(message.payload).unwrap_or_default();
        for line in text.lines() {
            // Where the line lies in the message: what is published of it is not copied.
            let at = line.as_ptr() as usize - text.as_ptr() as usize;
            cx.effects.push(command(line, at).unwrap_or(Effect::Ignore));
        }
        Meaning::Said
    }

    fn on_outcome(cx: &mut Cx<'_>, outcome: Outcome<'_>) {
        let answer = match outcome {
            Outcome::Welcome { data } => format!("welcome {data}"),
            Outcome::Published { topic, offset } => format!("published {} {offset}", topic.name()),
            Outcome::Joined { topic, offset, recovered, gap } => {
                let recovered = if recovered { " recovered" } else { "" };
                let gap = gap.map(|gap| format!(" {} {}", gap.kind.word(), gap.oldest)).unwrap_or_default();
                format!("joined {} {offset}{recovered}{gap}", topic.name())
            }
            Outcome::Gap { topic, gap } => {
                format!("gap {} {} {}", topic.name(), gap.kind.word(), gap.oldest)
            }
            Outcome::History { topic, page } => format!("kept {} {}", topic.name(), page.messages.len()),
            Outcome::Presence { page, .. } | Outcome::Listed { page, .. } => {
                format!("{} on {}", page.count, page.topic)
            }
            Outcome::Stated { topic } => format!("stated {topic}"),
            Outcome::Identified { sub, .. } => format!("is {sub}"),
            Outcome::Unidentified { text, .. } => format!("is nobody {text}"),
            Outcome::Expires { at } => format!("ends {at}"),
            Outcome::Watching { pattern, .. } => format!("watching {pattern}"),
            Outcome::Left { topic } => format!("left {topic}"),
            Outcome::Lost { topic, .. } => format!("lost {topic}"),
            Outcome::Limited { pattern } => format!("limited {pattern}"),
            Outcome::Refused { denial, .. } => format!("no {}", word(denial)),
            Outcome::Forwarded { topic, .. } => format!("forwarded {topic}"),
            Outcome::Rejected { code, .. } => format!("no {code}"),
            Outcome::Invalid { invalid, .. } => format!("no {}", invalid.reason.label()),
        };
        push_frame(cx.out, Opcode::Text, answer.as_bytes(), None);
    }
}

fn command(line: &str, at: usize) -> Option<Effect> {
    let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
    let name = |name: &str| TopicName::parse(name.to_owned()).ok().map(TopicName::into_owned);
    Some(match verb {
        "sub" if LevelPattern::is_meant(rest) => Effect::Watch(LevelPattern::parse(rest).ok()?),
        "unsub" if LevelPattern::is_meant(rest) => Effect::Unwatch(LevelPattern::parse(rest).ok()?),
        "unsub" => Effect::Unsubscribe(name(rest)?),
        "sub" => subscribe(rest)?,
        "pub" => {
            let (topic, text) = rest.split_once(' ')?;
            let end = at + line.len();
            let payload = Piece::Message((end - text.len()) as u32, end as u32);
            Effect::Publish { topic: name(topic)?, binary: false, payload }
        }
        "quit" => Effect::Close(CloseReason::Normal),
        _ => return None,
    })
}

fn subscribe(rest: &str) -> Option<Effect> {
    let (name, since) = rest.split_once(' ').unwrap_or((rest, ""));
    let since = match (since, since.parse()) {
        ("", _) => Since::Now,
        (_, Ok(count)) => Since::Last(count),
        _ => Since::After(Position::parse(since).ok()?),
    };
    Some(Effect::Subscribe { topic: TopicName::parse(name.to_owned()).ok()?, since })
}

fn word(denial: Denial) -> &'static str {
    match denial {
        Denial::NotOpen | Denial::NotForYou | Denial::NoToken | Denial::NotByToken => "right",
        Denial::TooLong => "length",
        Denial::NoTopic => "topic",
        Denial::Already => "change",
        Denial::TooMany => "more",
        Denial::NoPresence | Denial::NoStates | Denial::NotListed => "presence",
        Denial::TopicShare | Denial::TopicRate | Denial::StateRate => "share",
        Denial::Busy | Denial::PatternsFull | Denial::StatesFull | Denial::ForwardFull => "room",
        Denial::ForwardFailed => "answer",
    }
}
