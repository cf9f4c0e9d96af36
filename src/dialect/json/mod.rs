//! The json dialect: `/ws` with the subprotocol `fantail.json.v1`. One JSON object a message, both ways.
//!
//! Owns what commands mean and what their answers are: `command` reads, `words` writes, `document` decides which
//! payloads stay JSON. A connection has nothing of its own here but its count of bad commands once there is one; what
//! belongs to a request travels with its effect.

mod command;
mod document;
mod presence;
mod words;

use std::borrow::Cow;

use super::effect::{Cx, Effect, Meaning, Outcome, Piece, PresenceQuestion, StateWish, Tag, Token, Wish};
use super::plain;
use super::speak::{Bounds, Incoming, OpenRequest, Opening, Refusal, Speak};
use super::url::Wanted;
use super::{Dialect, Form};
use command::{Bad, Command, Payload, What};
use words::Told;

use crate::topic::TopicName;

pub use document::is_document;
pub use presence::push_presence;
pub(in crate::dialect) use presence::{presence_gap, push_list, push_presence_event, push_presence_start};
pub use words::push_page;
pub(in crate::dialect) use words::write_message;

/// The subprotocol that chooses it.
pub(super) const SUBPROTOCOL: &str = "fantail.json.v1";

pub(super) struct Json;

impl Speak for Json {
    fn label() -> &'static str {
        "json"
    }

    fn subprotocol() -> Option<&'static str> {
        Some(SUBPROTOCOL)
    }

    fn open(request: &OpenRequest<'_>) -> Option<Result<Opening, Refusal>> {
        let chosen = request.subprotocol == Some(SUBPROTOCOL) && plain::is_path(request.head.path());
        chosen.then(|| plain::open_at(request, Dialect::Json, None))
    }

    fn form() -> Form {
        Form::Json
    }

    fn joins() -> bool {
        true
    }

    fn tells_limits() -> bool {
        true
    }

    fn message_bytes_max(bounds: &Bounds) -> usize {
        bounds.any_topic
    }

    fn on_message(cx: &mut Cx<'_>, message: Incoming<'_>) -> Meaning {
        let text = if message.text { std::str::from_utf8(message.payload).ok() } else { None };
        match text.map(command::read) {
            Some(Ok(command)) => obey(cx, command, message.payload),
            Some(Err(Bad { id, text })) => refuse(cx, id, &text),
            None => refuse(cx, None, "a command is text"),
        }
        Meaning::Said
    }

    fn on_outcome(cx: &mut Cx<'_>, outcome: Outcome<'_>) {
        let told = |kind| Told::of(kind, cx.tag);
        match outcome {
            Outcome::Welcome { data } => told("welcome").data(data).push(cx.out),
            // Who gave no id does not ask.
            Outcome::Published { .. } if cx.tag.words().is_none() => {}
            Outcome::Published { topic, offset } => told("published").place(topic, offset).push(cx.out),
            Outcome::Joined { topic, offset, recovered, gap } => {
                told("subscribed").place(topic, offset).recovered(recovered).gap(gap).push(cx.out);
            }
            Outcome::Watching { pattern, limited } => {
                told("subscribed").about(pattern).limited(limited).push(cx.out);
            }
            Outcome::Gap { topic, gap } if TopicName::presence_of(topic.name()).is_some() => {
                let of = TopicName::presence_of(topic.name()).unwrap_or_default();
                told("presence").topic(of).gap(Some(gap)).push(cx.out);
            }
            Outcome::Stated { topic } => {
                if cx.tag.words().is_some() {
                    told("state").topic(topic).push(cx.out);
                }
            }
            Outcome::Presence { page, own } => presence::push_answer(cx.tag, page, own, cx.out),
            // It asks for one page after the other.
            Outcome::Listed { .. } => {}
            Outcome::Gap { topic, gap } => told("gap").topic(topic.name()).gap(Some(gap)).push(cx.out),
            Outcome::History { topic, page } => words::push_history(cx.tag, topic, page, cx.out),
            Outcome::Identified { sub, expires, again } => {
                let kind = if again { "refreshed" } else { "authenticated" };
                told(kind).bearer(Some(sub), expires).push(cx.out);
            }
            Outcome::Unidentified { denial, text } => {
                told("error").error(words::token_denial(denial), text).push(cx.out);
            }
            Outcome::Expires { at } => told("expires").bearer(None, at).push(cx.out),
            Outcome::Left { topic } => told("unsubscribed").about(topic).push(cx.out),
            Outcome::Lost { topic, denial } => {
                let (code, message) = denial.words();
                told("unsubscribed").about(topic).error(code, message).push(cx.out);
            }
            Outcome::Limited { pattern } => told("limited").about(pattern).push(cx.out),
            Outcome::Refused { topic, denial } => {
                let (code, message) = denial.words();
                told("error").about(topic).error(code, message).push(cx.out);
            }
            // Who gave no id does not ask.
            Outcome::Forwarded { reply: None, .. } if cx.tag.words().is_none() => {}
            Outcome::Forwarded { topic, reply } => told("forwarded").topic(topic).reply(reply).push(cx.out),
            Outcome::Rejected { topic, code, text } => {
                told("error").topic(topic).error("refused", text).reason(code).push(cx.out);
            }
            Outcome::Invalid { topic, invalid } => {
                let text = invalid.to_string();
                told("error").topic(topic).error("invalid_message", &text).misfit(invalid).push(cx.out);
            }
        }
    }
}

/// Asks for what a command wants, or answers what needs nothing else.
fn obey(cx: &mut Cx<'_>, command: Command<'_>, message: &[u8]) {
    let tag = || command.id.map_or_else(Tag::default, Tag::of);
    match command.what {
        What::Subscribe { topics, since } => {
            let effects = topics.into_iter().map(|wanted| match wanted {
                Wanted::Topic(topic) => Effect::Subscribe { topic, since },
                Wanted::Pattern(pattern) => Effect::Watch(pattern),
            });
            effects.for_each(|effect| cx.effects.push(Wish { effect, tag: tag() }));
        }
        What::Unsubscribe(topics) => {
            let effects = topics.into_iter().map(|wanted| match wanted {
                Wanted::Topic(topic) => Effect::Unsubscribe(topic),
                Wanted::Pattern(pattern) => Effect::Unwatch(pattern),
            });
            effects.for_each(|effect| cx.effects.push(Wish { effect, tag: tag() }));
        }
        What::Publish { topic, payload } => {
            let (binary, payload) = match payload {
                Payload::Text(Cow::Borrowed(text)) => (false, place_of(text, message)),
                Payload::Text(Cow::Owned(text)) => (false, Piece::Own(text.into_bytes().into())),
                Payload::Binary(bytes) => (true, Piece::Own(bytes.into())),
            };
            cx.effects.push(Wish { effect: Effect::Publish { topic, binary, payload }, tag: tag() });
        }
        What::History { topic, from, limit } => {
            cx.effects.push(Wish { effect: Effect::ReadHistory { topic, from, limit }, tag: tag() });
        }
        What::Presence { topic, after, limit, events } => {
            let asked = PresenceQuestion { topic, after, limit, events };
            cx.effects.push(Wish { effect: Effect::Presence(Box::new(asked)), tag: tag() });
        }
        What::State { topic, state, seconds } => {
            let wish = StateWish { topic, state, seconds };
            cx.effects.push(Wish { effect: Effect::State(Box::new(wish)), tag: tag() });
        }
        What::Identify { token, again } => {
            let effect = Effect::Identify { token: Token::new(&token), again };
            cx.effects.push(Wish { effect, tag: tag() });
        }
        What::Ping => Told::of("pong", &tag()).push(cx.out),
    }
}

/// Where a piece of the message in hand lies in it.
fn place_of(text: &str, message: &[u8]) -> Piece {
    let from = (text.as_ptr() as usize).wrapping_sub(message.as_ptr() as usize);
    let place = |at: usize| u32::try_from(at).ok();
    match (place(from), place(from.saturating_add(text.len()))) {
        (Some(from), Some(to)) if to as usize <= message.len() => Piece::Message(from, to),
        _ => Piece::Own(text.as_bytes().into()),
    }
}

/// Answers a message that is no command, and counts it.
fn refuse(cx: &mut Cx<'_>, id: Option<&str>, text: &str) {
    Told::of("error", &id.map_or_else(Tag::default, Tag::of)).error("bad_command", text).push(cx.out);
    cx.effects.push(Effect::CountBad);
}
