//! The poll dialect: `/poll/TOPIC`. One answer in JSON with what was missed, or with the next messages as soon as there are
//! some; then the client asks again, from the position that it was told.
//!
//! Owns the reading of its URL and the bytes of its answers. For whoever can have neither WebSockets nor streams.

use std::borrow::Cow;
use std::io::Write;

use super::effect::{Cx, Meaning};
use super::speak::{Carrier, Farewell, Incoming, OpenRequest, Opening, Pulse, Refusal, Speak};
use super::url::{Wanted, begin, wanted_by_path};
use super::{Dialect, json};
use crate::metrics::CloseReason;
use crate::topic::{Message, Position, PresencePage, Since, Stamped, Topic, TopicName};
use crate::wire::http::head::Head;
use crate::wire::http::params::Params;
use crate::wire::http::response::ResponseBuffer;

/// Seconds that an answer waits for messages unless it is told otherwise: less than proxies wait.
const WAIT_SECONDS: usize = 25;

/// The most that it may be told.
const WAIT_SECONDS_MAX: usize = 60;

pub(super) struct Poll;

impl Speak for Poll {
    fn label() -> &'static str {
        "poll"
    }

    fn open(request: &OpenRequest<'_>) -> Option<Result<Opening, Refusal>> {
        let raw = request.head.path().strip_prefix("/poll/")?;
        Some(opening(raw, request.head, request.subscriptions_max).map_err(Refusal::bad_request))
    }

    fn on_message(_: &mut Cx<'_>, _: Incoming<'_>) -> Meaning {
        Meaning::Said
    }

    fn carrier() -> Carrier {
        Carrier::Answer
    }

    fn pulse() -> Pulse {
        Pulse { bytes: &[], answered: false }
    }

    fn close_code(_: CloseReason) -> Option<u16> {
        None
    }

    fn push_close(_: &Farewell<'_>, _: &mut Vec<u8>) {}
}

fn opening(raw: &str, head: &Head<'_>, topics_max: usize) -> Result<Opening, Cow<'static, str>> {
    let Wanted::Topic(topic) = wanted_by_path(raw)? else {
        return Err(
            "a poll is about one topic, because it goes on from a place in it; patterns need a stream".into(),
        );
    };
    let params = Params::read(head.query(), b"", &["since", "wait", "presence", "after"])?;
    let presence = match params.text("presence") {
        None | Some("0") => false,
        Some("1") => true,
        Some(_) => return Err("presence expects 0 or 1".into()),
    };
    let mut places = params.text("since").map(|since| since.split(','));
    let mut next = || begin(places.as_mut().and_then(Iterator::next), None);
    let events = presence.then(|| TopicName::of_presence(topic.as_str()));
    let mut topics = vec![(topic, next()?)];
    if let Some(events) = events {
        topics.push((events, next()?));
    }
    if places.is_some_and(|mut places| places.next().is_some()) {
        return Err("since has a position, and with presence=1 a version of the list behind it".into());
    }
    if topics.len() > topics_max {
        return Err("more topics than one connection may have".into());
    }
    let after = params.text("after").map(Box::from);
    if after.is_some() && !topics.get(1).is_some_and(|(_, since)| matches!(since, Since::After(_))) {
        return Err("after goes on in a list: it needs presence=1 and the version in since".into());
    }
    let wait = params.number("wait", WAIT_SECONDS)?;
    if wait > WAIT_SECONDS_MAX {
        return Err("wait expects at most 60 seconds".into());
    }
    Ok(Opening { topics, wait_seconds: wait as u32, after, ..Opening::of(Dialect::Poll) })
}

/// Appends what is told of who is on a topic to an answer's object: events of it, oldest first, and some of the list.
pub fn push_polled(
    events: Option<&Topic>,
    messages: &[Message],
    list: Option<(&PresencePage, Option<&str>, Option<&str>)>,
    out: &mut Vec<u8>,
) {
    if out.pop().is_none() {
        return;
    }
    out.extend_from_slice(b",\"presence\":[");
    let mut start = Vec::new();
    if let Some(events) = events {
        json::push_presence_start(events, &mut start);
        for message in messages {
            json::push_presence_event(Stamped { topic: events, message, start: &start }, out);
            out.push(b',');
        }
    }
    match list {
        Some((page, own, after)) => json::push_list(page, own, after, out),
        None if messages.is_empty() => {}
        None => drop(out.pop()),
    }
    out.extend_from_slice(b"]}");
}

/// What a poll is answered.
#[derive(Clone, Copy, Debug)]
pub struct Reply<'a> {
    /// Where the next poll goes on.
    pub at: Position,
    /// And which version of the list it knows, if it wants to.
    pub version: Option<Position>,
    /// What there is to tell, as `push_page` writes it; empty for nothing.
    pub page: &'a [u8],
    /// Fields that say which pages may read it.
    pub fields: &'a [u8],
    /// Whether a further request may follow.
    pub keep_alive: bool,
    /// The request was HEAD.
    pub head_only: bool,
}

impl Reply<'_> {
    /// Appends the answer: 204 if there is nothing to tell but the position.
    pub fn push(&self, out: &mut ResponseBuffer) {
        let empty = self.page.is_empty();
        out.push_status_line(if empty { 204 } else { 200 });
        let connection = if self.keep_alive { "keep-alive" } else { "close" };
        let _ = write!(
            **out,
            "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nConnection: {connection}\r\n\
             Fantail-Position: {}",
            self.at
        );
        if let Some(version) = self.version {
            let _ = write!(**out, ",{version}");
        }
        out.extend_from_slice(b"\r\n");
        if !empty {
            let _ = write!(
                **out,
                "Content-Type: application/json\r\nContent-Length: {}\r\n",
                self.page.len() + 1
            );
        }
        out.extend_from_slice(self.fields);
        out.extend_from_slice(b"\r\n");
        if !self.head_only && !empty {
            out.extend_from_slice(self.page);
            out.push(b'\n');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topic::Since;
    use crate::wire::http::head::{HeadLimits, field_store, parse_head};

    #[test]
    fn a_url_says_from_where_and_how_long() {
        let asked = |raw: &str, query: &str| {
            let request = format!("GET /poll/x?{query} HTTP/1.1\r\nHost: a\r\n\r\n");
            let mut store = field_store();
            let (head, _) =
                parse_head(request.as_bytes(), &mut store, &HeadLimits::default()).unwrap().unwrap();
            opening(raw, &head, 2).map(|opening| (opening.topics[0].1, opening.wait_seconds))
        };
        assert_eq!(asked("a", ""), Ok((Since::Now, 25)));
        let after = Since::After(Position { epoch: 1, offset: 5 });
        assert_eq!(asked("a%20b", "since=0000000000000001:5&wait=0"), Ok((after, 0)));
        for (raw, query) in
            [("a", "wait=61"), ("a", "wait=-1"), ("a", "since=5"), ("a", "snice=1"), ("*", "")]
        {
            assert!(asked(raw, query).is_err(), "{raw} {query}");
        }
    }
}
