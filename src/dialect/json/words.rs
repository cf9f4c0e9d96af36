//! What the server says: one JSON object in each text frame. Published messages are a form, written once for all
//! connections of a loop; everything else is told to one connection.
//!
//! Pure; names, texts and payloads are escaped or checked here and nowhere else.

use std::io::Write as _;

use data_encoding::BASE64;
use serde::Serialize;
use serde_json::value::RawValue;

use super::document::is_document;
use super::presence;
use crate::dialect::effect::{Reply, Tag, TokenDenial};
use crate::dialect::text::{is_bare, push_place, push_string};
use crate::topic::{Carried, Gap, Invalid, LevelPattern, Message, Page, Stamped, Topic};
use crate::wire::frame::{Opcode, push_frame};

/// What is told to one connection. Members are written in this order, those that are not there left out.
#[derive(Debug, Default, Serialize)]
pub(super) struct Told<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    topic: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pattern: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limited: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    epoch: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    recovered: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gap: Option<Hole>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sub: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pointer: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    keyword: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Data<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data_base64: Option<String>,
}

/// A payload that is no base64.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Data<'a> {
    Json(&'a RawValue),
    Text(&'a str),
}

/// Messages that don't come.
#[derive(Debug, Serialize)]
struct Hole {
    kind: &'static str,
    oldest: u64,
}

impl<'a> Told<'a> {
    /// Something of this type that belongs to a request.
    pub(super) fn of(kind: &'static str, tag: &'a Tag) -> Self {
        // It was read as JSON before it became a tag.
        let id = tag.words().and_then(|words| serde_json::from_str(words).ok());
        Self { kind, id, ..Self::default() }
    }

    /// About a topic of this name.
    pub(super) fn topic(self, name: &'a str) -> Self {
        Self { topic: Some(name), ..self }
    }

    /// About a topic of this name, or a pattern.
    pub(super) fn about(self, text: &'a str) -> Self {
        match LevelPattern::is_meant(text) {
            true => Self { pattern: Some(text), ..self },
            false => self.topic(text),
        }
    }

    /// Whether less than all of a pattern comes, where it does.
    pub(super) fn limited(self, limited: bool) -> Self {
        Self { limited: limited.then_some(true), ..self }
    }

    /// About a place in a topic.
    pub(super) fn place(self, topic: &'a Topic, offset: u64) -> Self {
        let epoch = Some(format!("{:016x}", topic.epoch()));
        Self { topic: Some(topic.name()), epoch, offset: Some(offset), ..self }
    }

    /// Whether all that was asked for follows, where something was.
    pub(super) fn recovered(self, recovered: bool) -> Self {
        Self { recovered: recovered.then_some(true), ..self }
    }

    /// What does not come.
    pub(super) fn gap(self, gap: Option<Gap>) -> Self {
        Self { gap: gap.map(|gap| Hole { kind: gap.kind.word(), oldest: gap.oldest }), ..self }
    }

    /// Of whose token, and when it ends in seconds since 1970.
    pub(super) fn bearer(self, sub: Option<&'a str>, expires: u64) -> Self {
        Self { sub, expires: Some(expires), ..self }
    }

    /// With a code for programs and a line for people.
    pub(super) fn error(self, code: &'static str, message: &'a str) -> Self {
        Self { code: Some(code), message: Some(message), ..self }
    }

    /// With the application's own word for it.
    pub(super) fn reason(self, word: &'a str) -> Self {
        Self { reason: Some(word), ..self }
    }

    /// Where a message does not fit, if that is known.
    pub(super) fn misfit(self, invalid: &'a Invalid) -> Self {
        let misfit = invalid.misfit.as_ref();
        let (pointer, keyword) =
            (misfit.map(|misfit| &*misfit.pointer), misfit.map(|misfit| &*misfit.keyword));
        Self { pointer, keyword, ..self }
    }

    /// With JSON that was checked where it came from.
    pub(super) fn data(self, json: &'a str) -> Self {
        Self { data: serde_json::from_str(json).ok().map(Data::Json), ..self }
    }

    /// With what the application says.
    pub(super) fn reply(self, reply: Option<Reply<'a>>) -> Self {
        match reply {
            None => self,
            Some(Reply::Text(text)) => Self { data: Some(Data::Text(text)), ..self },
            Some(Reply::Json(json)) if is_document(json) => self.data(json),
            // As of messages: a number, or what not every reader takes.
            Some(Reply::Json(json)) => Self { data: Some(Data::Text(json)), ..self },
            Some(Reply::Binary(bytes)) => Self { data_base64: Some(BASE64.encode(bytes)), ..self },
        }
    }

    /// Appends it as a frame.
    pub(super) fn push(&self, out: &mut Vec<u8>) {
        let mut payload = Vec::with_capacity(128);
        // Writing into memory what has no maps with strange keys does not fail.
        let _ = serde_json::to_writer(&mut payload, self);
        push_frame(out, Opcode::Text, &payload, None);
    }
}

/// The code of a token that is not taken.
pub(super) fn token_denial(denial: TokenDenial) -> &'static str {
    match denial {
        TokenDenial::Expired => "token_expired",
        TokenDenial::Invalid => "token_invalid",
        TokenDenial::NotNow => "not_allowed",
        TokenDenial::Busy => "busy",
    }
}

/// Appends some of what a topic keeps as a frame. Its offset is how far it has come: behind its last message the next one
/// goes on.
pub(super) fn push_history(tag: &Tag, topic: &Topic, page: &Page, out: &mut Vec<u8>) {
    let payloads: usize = page.messages.iter().map(|message| message.payload().len() + 64).sum();
    let mut payload = Vec::with_capacity(payloads + 256);
    payload.extend_from_slice(b"{\"type\":\"history\"");
    if let Some(id) = tag.words() {
        payload.extend_from_slice(b",\"id\":");
        payload.extend_from_slice(id.as_bytes());
    }
    let at = payload.len();
    let reached = page.messages.last().map_or(page.newest, Message::offset);
    push_page(topic, page, reached, &mut payload);
    // One object: what opened the page goes on with its members.
    if let Some(opening) = payload.get_mut(at) {
        *opening = b',';
    }
    push_frame(out, Opcode::Text, &payload, None);
}

/// Appends a published message: an object or list as it is, other text as a string, bytes in base64.
pub(in crate::dialect) fn write_message(of: Stamped<'_>, out: &mut Vec<u8>) -> Carried {
    if of.topic.is_of_presence() {
        presence::push_presence_event(of, out);
        return Carried::Frame(Opcode::Text);
    }
    out.extend_from_slice(of.start);
    push_placed_data(of.message, out);
    Carried::Frame(Opcode::Text)
}

/// Appends some of what a topic keeps as one object; `offset` is the place that it has come to.
pub fn push_page(topic: &Topic, page: &Page, offset: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"topic\":");
    push_string(topic.name(), out);
    // Writing into memory does not fail.
    let _ = write!(out, ",\"epoch\":\"{:016x}\",\"offset\":{offset},\"messages\":[", page.epoch);
    for (index, message) in page.messages.iter().enumerate() {
        out.extend_from_slice(if index == 0 { b"{\"offset\":" } else { b",{\"offset\":" });
        push_placed_data(message, out);
    }
    out.push(b']');
    if let Some(Gap { kind, oldest }) = page.gap {
        let _ = write!(out, ",\"gap\":{{\"kind\":\"{}\",\"oldest\":{oldest}}}", kind.word());
    }
    out.push(b'}');
}

/// Appends offset, of which the name stands there, time and payload of a message, and the end of the object that they are
/// members of.
fn push_placed_data(message: &Message, out: &mut Vec<u8>) {
    let payload = message.payload();
    push_place(message, out);
    let begins_document = matches!(payload.trim_ascii_start().first(), Some(b'{' | b'['));
    if !message.is_binary() && !begins_document && is_bare(payload) {
        out.extend_from_slice(b",\"data\":\"");
        out.extend_from_slice(payload);
        out.extend_from_slice(b"\"}");
        return;
    }
    match std::str::from_utf8(payload) {
        Ok(text) if !message.is_binary() => {
            out.extend_from_slice(b",\"data\":");
            if message.is_document(|_| is_document(text)) {
                out.extend_from_slice(payload.trim_ascii());
            } else {
                push_string(text, out);
            }
            out.push(b'}');
        }
        _ => {
            out.extend_from_slice(b",\"data_base64\":\"");
            let from = out.len();
            out.resize(from + BASE64.encode_len(payload.len()), 0);
            BASE64.encode_mut(payload, out.get_mut(from..).unwrap_or_default());
            out.extend_from_slice(b"\"}");
        }
    }
}

#[cfg(test)]
#[path = "words_tests.rs"]
mod tests;
