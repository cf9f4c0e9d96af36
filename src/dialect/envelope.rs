//! The plain dialect with `?envelope=1`: each message behind one line of JSON that says its topic, offset and time.
//!
//! Two topics on one connection can be told apart, and what was missed is seen. Text stays text and binary stays
//! binary: the line stands in front of the payload, in the same message. Messages of the peer mean what they do
//! without it.

use serde::Serialize;

use super::Form;
use super::effect::{Cx, Effect, Meaning, Outcome, Reply};
use super::plain::Plain;
use super::speak::{Incoming, OpenRequest, Opening, Refusal, Speak};
use super::text::push_place;
use crate::topic::{Carried, Gap, Position, Stamped};
use crate::wire::frame::{Opcode, push_frame};

pub(super) struct Envelope;

/// A line alone; that in front of a payload is written as a form.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Line<'a> {
    Subscribed {
        topic: &'a str,
        position: String,
        #[serde(skip_serializing_if = "is_false")]
        recovered: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        gap: Option<GapLine>,
    },
    #[serde(rename = "subscribed")]
    Watching {
        pattern: &'a str,
    },
    Gap {
        topic: &'a str,
        gap: GapLine,
    },
    Forwarded {
        topic: &'a str,
    },
    Error {
        topic: &'a str,
        code: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<&'a str>,
        message: &'a str,
    },
}

#[derive(Serialize)]
struct GapLine {
    kind: &'static str,
    oldest: u64,
}

impl From<Gap> for GapLine {
    fn from(gap: Gap) -> Self {
        Self { kind: gap.kind.word(), oldest: gap.oldest }
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks with a reference")]
fn is_false(value: &bool) -> bool {
    !value
}

fn push_line(line: &Line<'_>, out: &mut Vec<u8>) {
    // Writing to a vector doesn't fail, and neither does any of these fields.
    let _ = serde_json::to_writer(&mut *out, line);
    out.push(b'\n');
}

/// Appends what the application says behind a line that says to which topic the message went.
fn push_reply(topic: &str, reply: Reply<'_>, out: &mut Vec<u8>) {
    let mut payload = Vec::new();
    push_line(&Line::Forwarded { topic }, &mut payload);
    let opcode = match reply {
        Reply::Json(text) | Reply::Text(text) => {
            payload.extend_from_slice(text.as_bytes());
            Opcode::Text
        }
        Reply::Binary(bytes) => {
            payload.extend_from_slice(bytes);
            Opcode::Binary
        }
    };
    push_frame(out, opcode, &payload, None);
}

/// Appends the line and the payload.
pub(super) fn write(of: Stamped<'_>, payload: &mut Vec<u8>) -> Carried {
    payload.extend_from_slice(of.start);
    push_place(of.message, payload);
    payload.extend_from_slice(b"}\n");
    payload.extend_from_slice(of.message.payload());
    Carried::Frame(if of.message.is_binary() { Opcode::Binary } else { Opcode::Text })
}

impl Speak for Envelope {
    fn label() -> &'static str {
        "envelope"
    }

    /// Its URL is the plain dialect's, which reads the parameter.
    fn open(_: &OpenRequest<'_>) -> Option<Result<Opening, Refusal>> {
        None
    }

    fn subprotocol() -> Option<&'static str> {
        Plain::subprotocol()
    }

    #[inline]
    fn on_message(_: &mut Cx<'_>, _: Incoming<'_>) -> Meaning {
        Meaning::Relay
    }

    fn on_outcome(cx: &mut Cx<'_>, outcome: Outcome<'_>) {
        let mut line = Vec::new();
        match outcome {
            Outcome::Refused { topic, denial } => {
                let (code, message) = denial.words();
                push_line(&Line::Error { topic, code, reason: None, message }, &mut line);
                if !denial.is_for_now() {
                    cx.effects.push(Effect::Ignore);
                }
            }
            Outcome::Rejected { topic, code, text } => {
                let reason = Some(code);
                push_line(&Line::Error { topic, code: "refused", reason, message: text }, &mut line);
                cx.effects.push(Effect::Ignore);
            }
            Outcome::Invalid { topic, invalid } => {
                let message = &invalid.to_string();
                let line_of = Line::Error { topic, code: "invalid_message", reason: None, message };
                push_line(&line_of, &mut line);
                cx.effects.push(Effect::Ignore);
            }
            Outcome::Forwarded { topic, reply: Some(reply) } => return push_reply(topic, reply, cx.out),
            Outcome::Joined { topic, offset, recovered, gap } => {
                let position = Position { epoch: topic.epoch(), offset }.to_string();
                let gap = gap.map(GapLine::from);
                push_line(&Line::Subscribed { topic: topic.name(), position, recovered, gap }, &mut line);
            }
            Outcome::Gap { topic, gap } => {
                push_line(&Line::Gap { topic: topic.name(), gap: gap.into() }, &mut line);
            }
            Outcome::Watching { pattern, .. } => push_line(&Line::Watching { pattern }, &mut line),
            Outcome::Welcome { .. }
            | Outcome::Published { .. }
            | Outcome::History { .. }
            | Outcome::Presence { .. }
            | Outcome::Listed { .. }
            | Outcome::Stated { .. }
            | Outcome::Identified { .. }
            | Outcome::Unidentified { .. }
            | Outcome::Expires { .. }
            | Outcome::Forwarded { reply: None, .. }
            | Outcome::Left { .. }
            | Outcome::Lost { .. }
            | Outcome::Limited { .. } => return,
        }
        push_frame(cx.out, Opcode::Text, &line, None);
    }

    fn form() -> Form {
        Form::Envelope
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::text::push_start;
    use crate::topic::{Message, Topic, TopicName};

    #[test]
    fn the_line_says_the_place_and_the_payload_stays_as_it_is() {
        let topic = Topic::new(3, 9, &TopicName::parse("a \"b\"\u{2028}é").unwrap(), 0);
        let message = Message::sample(3, 17, b"\x00\n\xff");
        let (mut start, mut payload) = (Vec::new(), Vec::new());
        push_start(&topic, &mut start);
        let carried = write(Stamped { topic: &topic, message: &message, start: &start }, &mut payload);
        assert_eq!(carried, Carried::Frame(Opcode::Binary));
        let end = payload.iter().position(|byte| *byte == b'\n').unwrap();
        let line: serde_json::Value = serde_json::from_slice(&payload[..end]).unwrap();
        let expected = serde_json::json!({
            "type": "message", "topic": "a \"b\"\u{2028}é", "offset": 17, "time": 0
        });
        assert_eq!(line, expected);
        assert_eq!(payload[end + 1..], *b"\x00\n\xff");
    }
}
