//! What a client says: one JSON object a message, read into a command or refused with one line that says why.
//!
//! Pure; driven by the dialect with each message. Members are looked at where they lie in the message, so that what is
//! published is not copied, and each is bounded before anything is made of it.

use std::borrow::Cow;
use std::fmt;

use data_encoding::BASE64;
use serde::Deserializer as _;
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::document;
use crate::dialect::url::{Wanted, wanted};
use crate::topic::name::NameError;
use crate::topic::{PageFrom, Position, PositionError, Since, TopicName};
use crate::wire::http::params::whole;
use crate::wire::nearest::nearest;

/// Topics that one command may name.
pub(super) const TOPICS_MAX: usize = 256;

/// Messages that one answer tells of a topic's history, and how many if nobody says.
const LIMIT_MAX: u16 = 1_000;
const LIMIT_USUAL: u16 = 100;

/// Bytes of the id of a member.
const MEMBER_BYTES_MAX: usize = 1_024;

/// Bytes of what a member says of itself, as it is written; and for how many seconds it may hold.
const STATE_BYTES_MAX: usize = 1_024;
const STATE_SECONDS_MAX: u16 = 3_600;

/// Bytes of a request id as it is written, quotes included.
pub(super) const ID_BYTES_MAX: usize = 66;

/// Characters of a strange word that an answer quotes.
const WORD_CHARS_MAX: usize = 60;

/// The types of commands.
const TYPES: [&str; 9] = [
    "subscribe",
    "unsubscribe",
    "publish",
    "history",
    "presence",
    "state",
    "authenticate",
    "refresh",
    "ping",
];

/// Every member that a command may have; which of them depends on its type.
const MEMBERS: [&str; 15] = [
    "type",
    "id",
    "topic",
    "topics",
    "data",
    "data_base64",
    "since",
    "history",
    "limit",
    "reverse",
    "after",
    "events",
    "token",
    "state",
    "seconds",
];

const TYPE: usize = 0;
const ID: usize = 1;
const TOPIC: usize = 2;
const TOPICS: usize = 3;
const DATA: usize = 4;
const DATA_BASE64: usize = 5;
const SINCE: usize = 6;
const HISTORY: usize = 7;
const LIMIT: usize = 8;
const REVERSE: usize = 9;
const AFTER: usize = 10;
const EVENTS: usize = 11;
const TOKEN: usize = 12;
const STATE: usize = 13;
const SECONDS: usize = 14;

/// A command.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Command<'a> {
    /// The request id as the client wrote it, which is valid JSON by itself.
    pub(super) id: Option<&'a str>,
    /// What is to be done.
    pub(super) what: What<'a>,
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum What<'a> {
    Subscribe {
        topics: Vec<Wanted>,
        since: Since,
    },
    Unsubscribe(Vec<Wanted>),
    Publish {
        topic: TopicName<'static>,
        payload: Payload<'a>,
    },
    History {
        topic: TopicName<'static>,
        from: PageFrom,
        limit: u16,
    },
    Presence {
        topic: TopicName<'static>,
        after: Option<Box<str>>,
        limit: u16,
        events: Option<bool>,
    },
    /// To say something of oneself where one is a member, or nothing any more.
    State {
        topic: TopicName<'static>,
        state: Option<Box<str>>,
        seconds: Option<u16>,
    },
    /// To show a token: the first one, or another of the same bearer.
    Identify {
        token: Cow<'a, str>,
        again: bool,
    },
    Ping,
}

/// What is to be published.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Payload<'a> {
    /// Text, where it can be a piece of the command itself.
    Text(Cow<'a, str>),
    /// Bytes.
    Binary(Vec<u8>),
}

/// Why a message is no command.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Bad<'a> {
    /// The request id, if there was one.
    pub(super) id: Option<&'a str>,
    /// One line on what is wrong.
    pub(super) text: Cow<'static, str>,
}

type Checked<T> = Result<T, Cow<'static, str>>;

/// Reads a command.
pub(super) fn read(message: &str) -> Result<Command<'_>, Bad<'_>> {
    let members = Members::of(message).map_err(|text| Bad { id: None, text })?;
    let id = members.id().map_err(|text| Bad { id: None, text })?;
    match members.what() {
        Ok(what) => Ok(Command { id, what }),
        Err(text) => Err(Bad { id, text }),
    }
}

/// The members of a command where they lie in it.
#[derive(Debug, Default)]
struct Members<'a> {
    known: [Option<&'a str>; MEMBERS.len()],
    /// The first that no command has.
    unknown: Option<String>,
    /// The first that is there twice.
    twice: Option<&'static str>,
}

impl<'a> Members<'a> {
    fn of(message: &'a str) -> Checked<Self> {
        let mut reader = serde_json::Deserializer::from_str(message);
        // Its own words could quote the message, which may be long.
        let members = reader.deserialize_map(MembersVisitor).map_err(|error| match error.classify() {
            serde_json::error::Category::Data => "a command is a JSON object".to_owned(),
            _ => format!("not JSON at line {}, column {}", error.line(), error.column()),
        })?;
        reader.end().map_err(|_| "more follows behind the object")?;
        Ok(members)
    }

    fn at(&self, member: usize) -> Option<&'a str> {
        self.known.get(member).copied().flatten()
    }

    /// The request id: a string or a whole number, as it is written.
    fn id(&self) -> Checked<Option<&'a str>> {
        let Some(raw) = self.at(ID) else { return Ok(None) };
        if raw.len() > ID_BYTES_MAX {
            return Err("id has more than 64 bytes".into());
        }
        let digits = raw.strip_prefix('-').unwrap_or(raw);
        let whole = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        if whole || (raw.starts_with('"') && string(raw).is_some()) {
            return Ok(Some(raw));
        }
        Err("id is a string or a whole number".into())
    }

    fn what(&self) -> Checked<What<'a>> {
        let Some(kind) = self.at(TYPE).and_then(string) else {
            return Err(format!("type is missing; it is one of {}", TYPES.join(", ")).into());
        };
        match kind.as_ref() {
            "subscribe" => {
                self.check(&["type", "id", "topic", "topics", "since", "history"])?;
                self.subscribe()
            }
            "unsubscribe" => {
                self.check(&["type", "id", "topic", "topics"])?;
                self.topics().map(What::Unsubscribe)
            }
            "publish" => {
                self.check(&["type", "id", "topic", "data", "data_base64"])?;
                self.publish()
            }
            "history" => {
                self.check(&["type", "id", "topic", "since", "limit", "reverse"])?;
                self.history()
            }
            "presence" => {
                self.check(&["type", "id", "topic", "after", "limit", "events"])?;
                self.presence()
            }
            "state" => {
                self.check(&["type", "id", "topic", "state", "seconds"])?;
                self.state()
            }
            kind @ ("authenticate" | "refresh") => {
                self.check(&["type", "id", "token"])?;
                let raw = self.at(TOKEN).ok_or("token is missing")?;
                let token = string(raw).ok_or("token is a string")?;
                Ok(What::Identify { token, again: kind == "refresh" })
            }
            "ping" => {
                self.check(&["type", "id"])?;
                Ok(What::Ping)
            }
            other => Err(unknown("type", other, &TYPES).into()),
        }
    }

    /// Refuses members that the type does not have, and any that is there twice: of two, readers differ in which counts.
    fn check(&self, allowed: &[&str]) -> Checked<()> {
        if let Some(name) = self.twice {
            return Err(format!("{name} is there twice").into());
        }
        let strange =
            self.known.iter().zip(MEMBERS).find(|(raw, name)| raw.is_some() && !allowed.contains(name));
        match self.unknown.as_deref().or(strange.map(|(_, name)| name)) {
            Some(name) => Err(unknown("member", name, allowed).into()),
            None => Ok(()),
        }
    }

    fn topic(&self) -> Checked<TopicName<'static>> {
        let raw = self.at(TOPIC).ok_or("topic is missing")?;
        name(&string(raw).ok_or("topic is a string")?)
    }

    /// The topics and patterns of `topic` or `topics`.
    fn topics(&self) -> Checked<Vec<Wanted>> {
        let Some(raw) = self.at(TOPICS) else {
            let raw = self.at(TOPIC).ok_or("topic is missing")?;
            return Ok(vec![wanted(&string(raw).ok_or("topic is a string")?)?]);
        };
        if self.at(TOPIC).is_some() {
            return Err("topic and topics are both there".into());
        }
        let mut reader = serde_json::Deserializer::from_str(raw);
        match reader.deserialize_seq(TopicsVisitor) {
            Ok(topics) => topics,
            Err(_) => Err("topics is a list of strings".into()),
        }
    }

    fn subscribe(&self) -> Checked<What<'a>> {
        let topics = self.topics()?;
        let since = match (self.at(SINCE), self.at(HISTORY)) {
            (None, None) => Since::Now,
            (Some(_), Some(_)) => return Err("since and history are both there".into()),
            (Some(_), None) if self.at(TOPICS).is_some() => {
                // Each topic has an epoch of its own.
                return Err("since is a place in one topic; name it as topic".into());
            }
            (Some(raw), None) => Since::After(place(raw)?),
            (None, Some(raw)) => Since::Last(whole(raw).ok_or("history is a whole number up to 4294967295")?),
        };
        if since != Since::Now && topics.iter().any(|wanted| matches!(wanted, Wanted::Pattern(_))) {
            return Err("a pattern has no place and keeps nothing: since and history are about topics".into());
        }
        Ok(What::Subscribe { topics, since })
    }

    fn history(&self) -> Checked<What<'a>> {
        let topic = self.topic()?;
        let reverse = match self.at(REVERSE) {
            None | Some("false") => false,
            Some("true") => true,
            Some(_) => return Err("reverse is true or false".into()),
        };
        let from = match self.at(SINCE) {
            Some(_) if reverse => return Err("reverse begins with the newest; it takes no since".into()),
            Some(raw) => PageFrom::Since(Since::After(place(raw)?)),
            None if reverse => PageFrom::Newest(None),
            // All that is kept.
            None => PageFrom::Since(Since::Last(u32::MAX)),
        };
        Ok(What::History { topic, from, limit: self.limit()? })
    }

    fn limit(&self) -> Checked<u16> {
        let limit = self.at(LIMIT).map_or(Some(LIMIT_USUAL), whole).filter(|limit| *limit <= LIMIT_MAX);
        Ok(limit.ok_or_else(|| format!("limit is a whole number up to {LIMIT_MAX}"))?)
    }

    fn presence(&self) -> Checked<What<'a>> {
        let topic = self.topic()?;
        let after = match self.at(AFTER) {
            None => None,
            Some(raw) => {
                let after = string(raw).filter(|after| after.len() <= MEMBER_BYTES_MAX);
                Some(after.ok_or("after is the id of a member")?.into())
            }
        };
        let events = match self.at(EVENTS) {
            None => None,
            Some("true") => Some(true),
            Some("false") => Some(false),
            Some(_) => return Err("events is true or false".into()),
        };
        Ok(What::Presence { topic, after, limit: self.limit()?, events })
    }

    fn state(&self) -> Checked<What<'a>> {
        let topic = self.topic()?;
        let raw = self.at(STATE).ok_or("state is missing; null ends it")?;
        if raw.len() > STATE_BYTES_MAX {
            return Err(format!("state has more than {STATE_BYTES_MAX} bytes").into());
        }
        if !document::is_value(raw) {
            return Err(format!(
                "state is nested deeper than {}, or has a number or a string that not every reader takes",
                document::DEPTH_MAX
            )
            .into());
        }
        let seconds = match self.at(SECONDS) {
            None => None,
            Some(raw) => {
                let seconds = whole(raw).filter(|seconds| (1..=STATE_SECONDS_MAX).contains(seconds));
                Some(
                    seconds
                        .ok_or_else(|| format!("seconds is a whole number from 1 to {STATE_SECONDS_MAX}"))?,
                )
            }
        };
        let state = (raw != "null").then(|| document::on_one_line(raw));
        if state.is_none() && seconds.is_some() {
            return Err("a state that ends has no seconds".into());
        }
        Ok(What::State { topic, state, seconds })
    }

    fn publish(&self) -> Checked<What<'a>> {
        let topic = self.topic()?;
        let payload = match (self.at(DATA), self.at(DATA_BASE64)) {
            (Some(_), Some(_)) => return Err("data and data_base64 are both there".into()),
            (None, None) => return Err("data is missing".into()),
            (None, Some(raw)) => {
                let text = string(raw).ok_or("data_base64 is a string")?;
                let bytes = BASE64.decode(text.as_bytes());
                Payload::Binary(bytes.map_err(|_| "data_base64 is not base64 (RFC 4648, 4)")?)
            }
            (Some(raw), None) if raw.starts_with('"') => {
                Payload::Text(string(raw).ok_or("data has half of a surrogate pair")?)
            }
            (Some(raw), None) if raw.starts_with(['{', '[']) => {
                if !document::is_document(raw) {
                    return Err(format!(
                        "data is nested deeper than {}, or has a number or a string that not every reader takes",
                        document::DEPTH_MAX
                    )
                    .into());
                }
                Payload::Text(raw.into())
            }
            (Some(_), None) => return Err("data is an object, a list or a string".into()),
        };
        Ok(What::Publish { topic, payload })
    }
}

/// The value of a JSON string, borrowed if nothing in it is escaped.
fn string(raw: &str) -> Option<Cow<'_, str>> {
    let mut reader = serde_json::Deserializer::from_str(raw);
    reader.deserialize_str(Text).ok()
}

fn place(raw: &str) -> Checked<Position> {
    let text = string(raw).ok_or("since is a string")?;
    Ok(Position::parse(&text).map_err(PositionError::reason)?)
}

fn name(text: &str) -> Checked<TopicName<'static>> {
    // Looked at before it is copied: it may be as long as a message.
    let name = TopicName::parse(text).map_err(NameError::reason)?;
    Ok(name.into_owned())
}

/// One line on a word that is none of the known ones.
fn unknown(what: &str, word: &str, known: &[&str]) -> String {
    let shown: String = word.chars().take(WORD_CHARS_MAX).collect();
    match nearest(word, known.iter().copied()) {
        Some(near) => format!("unknown {what} {shown:?}; did you mean {near:?}?"),
        None => format!("unknown {what} {shown:?}; expects {}", known.join(", ")),
    }
}

struct MembersVisitor;

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Members<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
        let mut members = Members::default();
        while let Some(name) = map.next_key_seed(Text)? {
            let place = MEMBERS.iter().position(|member| *member == name);
            let Some((known, slot)) =
                place.and_then(|at| Some((MEMBERS.get(at)?, members.known.get_mut(at)?)))
            else {
                members.unknown.get_or_insert_with(|| name.chars().take(WORD_CHARS_MAX).collect());
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            let raw: &RawValue = map.next_value()?;
            if slot.replace(raw.get()).is_some() {
                members.twice.get_or_insert(known);
            }
        }
        Ok(members)
    }
}

struct TopicsVisitor;

impl<'de> Visitor<'de> for TopicsVisitor {
    type Value = Checked<Vec<Wanted>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut topics = Vec::new();
        let mut bad = None;
        while let Some(text) = seq.next_element_seed(Text)? {
            match wanted(&text) {
                _ if topics.len() == TOPICS_MAX => {
                    bad.get_or_insert(format!("topics names more than {TOPICS_MAX}").into());
                }
                Ok(topic) => topics.push(topic),
                Err(text) => {
                    bad.get_or_insert(text.into());
                }
            }
        }
        if topics.is_empty() {
            bad.get_or_insert("topics is empty".into());
        }
        Ok(bad.map_or(Ok(topics), Err))
    }
}

/// A string, borrowed if nothing in it is escaped.
struct Text;

impl<'de> DeserializeSeed<'de> for Text {
    type Value = Cow<'de, str>;

    fn deserialize<D: serde::Deserializer<'de>>(self, from: D) -> Result<Cow<'de, str>, D::Error> {
        from.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Text {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Borrowed(text))
    }

    fn visit_str<E>(self, text: &str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Owned(text.to_owned()))
    }
}

#[cfg(test)]
#[path = "command_tests.rs"]
mod tests;
