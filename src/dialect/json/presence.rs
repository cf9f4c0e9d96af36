//! What is said of who is on a topic: pages of the list, and the events that tell of changes. Pure.
//!
//! Both name the version of the list that they lead to. An event is the message of a topic whose name nobody sees: its
//! payload is an object that topic and version are put in front of.

use std::io::Write as _;

use crate::dialect::effect::Tag;
use crate::dialect::text::{push_decimal, push_string};
use crate::topic::{Gap, PresenceMember, PresenceMembers, PresencePage, Stamped, Topic, TopicName};
use crate::wire::frame::{Opcode, push_frame};

/// Appends a page as a frame, in answer to a request.
pub(super) fn push_answer(tag: &Tag, page: &PresencePage, own: Option<&str>, out: &mut Vec<u8>) {
    let mut payload = b"{\"type\":\"presence\"".to_vec();
    if let Some(id) = tag.words() {
        payload.extend_from_slice(b",\"id\":");
        payload.extend_from_slice(id.as_bytes());
    }
    push_rest(page, own, &mut payload);
    push_frame(out, Opcode::Text, &payload, None);
}

/// Appends a page as the object that answers nobody's request; `after` is behind whom a list goes on that has begun.
pub(in crate::dialect) fn push_list(
    page: &PresencePage,
    own: Option<&str>,
    after: Option<&str>,
    out: &mut Vec<u8>,
) {
    out.extend_from_slice(b"{\"type\":\"presence\"");
    push_rest(page, own, out);
    push_member("after", after, out);
}

/// Appends the rest of an object that has begun: the page, and as whom its reader is on the list.
fn push_rest(page: &PresencePage, own: Option<&str>, out: &mut Vec<u8>) {
    let at = out.len();
    push_presence(page, out);
    // One object: what opened the page goes on with its members.
    if let Some(opening) = out.get_mut(at) {
        *opening = b',';
    }
    push_member("self", own, out);
}

/// Appends one more member, if there is any, to an object that is whole.
fn push_member(name: &str, value: Option<&str>, out: &mut Vec<u8>) {
    if let Some(value) = value
        && out.pop().is_some()
    {
        // Writing into memory does not fail.
        let _ = write!(out, ",\"{name}\":");
        push_string(value, out);
        out.push(b'}');
    }
}

/// Appends a page as one object.
pub fn push_presence(page: &PresencePage, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"topic\":");
    push_string(&page.topic, out);
    // Writing into memory does not fail.
    let _ = write!(out, ",\"version\":\"{}\",\"count\":{}", page.version, page.count);
    if let Some(members) = &page.members {
        out.extend_from_slice(members.written(written));
    }
    out.push(b'}');
}

/// Some members, and behind whom there are more, as what an object has of them.
fn written(of: &PresenceMembers) -> Vec<u8> {
    let mut out = b",\"members\":[".to_vec();
    for (index, PresenceMember { id, state }) in of.as_slice().iter().enumerate() {
        out.extend_from_slice(if index == 0 { b"{\"id\":" } else { b",{\"id\":" });
        push_string(id.as_str(), &mut out);
        if let Some(state) = state {
            // It was checked as JSON before it was kept. Writing into memory does not fail.
            let _ = write!(out, ",\"state\":{}", state.as_str());
        }
        out.push(b'}');
    }
    out.push(b']');
    if let Some(last) = of.as_slice().last().filter(|_| of.has_more()) {
        out.extend_from_slice(b",\"next\":");
        push_string(last.id.as_str(), &mut out);
    }
    out
}

/// Appends what all events of a topic begin with, up to the offset in the version.
pub(in crate::dialect) fn push_presence_start(topic: &Topic, out: &mut Vec<u8>) {
    let of = TopicName::presence_of(topic.name()).unwrap_or_default();
    out.extend_from_slice(b"{\"type\":\"presence\",\"topic\":");
    push_string(of, out);
    let _ = write!(out, ",\"version\":\"{:016x}:", topic.epoch());
}

/// Appends an event behind what all begin with.
#[cold]
pub(in crate::dialect) fn push_presence_event(of: Stamped<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(of.start);
    push_decimal(of.message.offset(), out);
    out.extend_from_slice(b"\",");
    // What opens the object stands in front of it already.
    out.extend_from_slice(of.message.payload().get(1..).unwrap_or_default());
}

/// The object that says that events are missing.
pub(in crate::dialect) fn presence_gap(of: &str, gap: Gap) -> Vec<u8> {
    let mut out = b"{\"type\":\"presence\",\"topic\":".to_vec();
    push_string(of, &mut out);
    let _ = write!(out, ",\"gap\":{{\"kind\":\"{}\",\"oldest\":{}}}}}", gap.kind.word(), gap.oldest);
    out
}
