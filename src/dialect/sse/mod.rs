//! The SSE dialect: `/sse/TOPIC`. An event stream (HTML, 9.2) as the body of an answer without end: messages out, nothing
//! in.
//!
//! Owns the reading of its URL, the head of its answer, and what a stream begins and ends with. An event and the line
//! that a stream begins with end with a line each, so that a stream may break off behind any of them and no reader takes
//! a part for a whole. Browsers come back by themselves, without jitter and until an answer is not 200: what they wait
//! for is spread here, and who is turned away for now is told so in a stream.

pub(super) mod event;
mod places;

pub use places::Places;

use std::borrow::Cow;
use std::io::Write;

use serde::Serialize;

use super::effect::{Cx, Meaning, Outcome};
use super::speak::{Carrier, Farewell, Incoming, OpenRequest, Opening, Pulse, Refusal, Speak, Start};
use super::url::{Wanted, begin, wanted, wanted_by_path};
use super::{Dialect, Form, json};
use crate::metrics::CloseReason;
use crate::topic::{Gap, MemberId, Position, PresencePage, Since, Topic, TopicName};
use crate::wire::deflate::{WINDOW_BITS_MAX, coded};
use crate::wire::http::chunked::{CHUNK_HEAD_BYTES_MAX, LAST_CHUNK, encode_chunk_head, push_chunk};
use crate::wire::http::head::Head;
use crate::wire::http::params::unknown;
use crate::wire::http::response::{ResponseBuffer, push_text};
use crate::wire::http::uri::query_pairs;

/// The media type of an event stream.
pub const MEDIA_TYPE: &str = "text/event-stream";

/// The field of an answer that says behind which places messages follow.
const POSITION_FIELD: &str = "Fantail-Position";

/// The field that says what is missing of what was asked for.
const GAP_FIELD: &str = "Fantail-Gap";

/// To a client of HTTP/1.1: each event is a chunk of its own, because some readers wait for a full buffer where nothing
/// tells them how much there is.
pub(super) type Chunked = Stream<true, ONE, false>;

/// To a client of HTTP/1.0, which must not be sent chunks (RFC 9112, 7.1).
pub(super) type Unchunked = Stream<false, ONE, false>;

/// Of several topics: an event names its topic, and its id the places in all of them.
pub(super) type ManyChunked = Stream<true, MANY, false>;

/// The same to a client of HTTP/1.0.
pub(super) type ManyUnchunked = Stream<false, MANY, false>;

/// Of patterns, and topics besides: an event names its topic, and has no id.
pub(super) type WatchingChunked = Stream<true, WATCHING, false>;

/// The same to a client of HTTP/1.0.
pub(super) type WatchingUnchunked = Stream<false, WATCHING, false>;

/// What a stream is of.
const ONE: u8 = 1;
const MANY: u8 = 2;
const WATCHING: u8 = 3;

/// As [`Chunked`], in gzip.
pub(super) type Coded = Stream<true, ONE, true>;

/// The most topics of one stream: the places in all of them have to fit the head of a browser that comes back.
const TOPICS_MAX: usize = 16;

/// The parameters of its URL.
const PARAMETERS: [&str; 4] = ["topic", "since", "history", "presence"];

/// What events begin with that tell who is on a topic. Their data is as over WebSockets that speak json.
pub(super) const PRESENCE_BEGINS: &[u8] = b"event: presence\ndata: ";

pub(super) struct Stream<const CHUNKED: bool, const OF: u8, const CODED: bool>;

impl<const CHUNKED: bool, const OF: u8, const CODED: bool> Speak for Stream<CHUNKED, OF, CODED> {
    fn label() -> &'static str {
        "sse"
    }

    fn open(request: &OpenRequest<'_>) -> Option<Result<Opening, Refusal>> {
        let head = request.head;
        let raw = head.path().strip_prefix("/sse/")?;
        Some(opening(raw, head, request.subscriptions_max, request.gzip).map_err(Refusal::bad_request))
    }

    fn on_message(_: &mut Cx<'_>, _: Incoming<'_>) -> Meaning {
        Meaning::Said
    }

    fn push_head(_: &Head<'_>, out: &mut ResponseBuffer) {
        out.reserve(512);
        out.push_status_line(200);
        let coding = match (CHUNKED, CODED) {
            (_, true) => "Transfer-Encoding: chunked\r\nContent-Encoding: gzip\r\n",
            (true, false) => "Transfer-Encoding: chunked\r\n",
            (false, false) => "",
        };
        // Nothing on the way may keep, compress or gather it (RFC 9111, 5.2.2.5 and 5.2.2.6; nginx's own field). The
        // connection ends with the stream (RFC 9112, 9.6).
        let _ = write!(
            **out,
            "Content-Type: {MEDIA_TYPE}\r\n{coding}Connection: close\r\nCache-Control: no-store, no-transform\r\n\
             X-Accel-Buffering: no\r\nX-Content-Type-Options: nosniff\r\n"
        );
    }

    fn on_outcome(cx: &mut Cx<'_>, outcome: Outcome<'_>) {
        // How a subscription began was told with the head.
        match outcome {
            Outcome::Gap { topic, gap } => {
                push_piece::<CHUNKED, CODED>(&gap_event(topic, gap, None), cx.out);
            }
            Outcome::Listed { page, own, after, at } => {
                push_piece::<CHUNKED, CODED>(&list_event(page, own, after, at), cx.out);
            }
            _ => {}
        }
    }

    fn push_places(begins: &[Outcome<'_>], out: &mut Vec<u8>) {
        if OF == WATCHING {
            // It has none.
            return;
        }
        let begins: Vec<Begun<'_>> = begins.iter().filter_map(Begun::of).collect();
        let _ = write!(out, "{POSITION_FIELD}: {}\r\n", positions(&begins));
        if begins.iter().any(|begun| begun.gap.is_some()) {
            let _ = write!(out, "{GAP_FIELD}: {}\r\n", gaps(&begins));
        }
    }

    /// Where the stream begins is told twice: in the head, for whoever can read one, and in the stream, for browsers. A
    /// proxy that waits for a first byte before it passes the head on has one.
    fn push_start(start: &Start<'_>, out: &mut Vec<u8>) {
        if OF == WATCHING {
            // What has no place begins where it begins.
            out.extend_from_slice(b"\r\n");
            return push_piece::<CHUNKED, CODED>(&retry(start.again_ms), out);
        }
        let mut begins: Vec<Begun<'_>> = start.joined.iter().filter_map(Begun::of).collect();
        let at = positions(&begins);
        Self::push_places(start.joined, out);
        out.extend_from_slice(b"\r\n");
        let mut first = retry(start.again_ms);
        // An event of nothing but its id is none, and yet it is where a browser goes on from that is cut off before the
        // first message. Whoever came with a position has one.
        if !begins.iter().all(|begun| begun.recovered || begun.gap.is_some()) {
            let _ = write!(first, "id: {at}\n\n");
        }
        match CODED {
            true => coded::push_first_chunk(out, &first),
            false => push_piece::<CHUNKED, CODED>(&first, out),
        }
        for begun in &begins {
            if let Some(gap) = begun.gap {
                push_piece::<CHUNKED, CODED>(&gap_event(begun.topic, gap, Some(&at)), out);
            }
        }
        for (page, own) in start.lists {
            // Who is cut off before the end of a list must come back as who has none.
            let of =
                |begun: &&mut Begun<'_>| TopicName::presence_of(begun.topic.name()) == Some(&*page.topic);
            if let Some(begun) = begins.iter_mut().find(of) {
                begun.listed = page.next().is_none();
            }
            let own = own.as_ref().map(MemberId::as_str);
            push_piece::<CHUNKED, CODED>(&list_event(page, own, None, positions(&begins).as_bytes()), out);
        }
    }

    fn carrier() -> Carrier {
        Carrier::Body
    }

    #[inline]
    fn form() -> Form {
        match (OF, CHUNKED, CODED) {
            (MANY, _, _) => Form::SseTopic,
            (WATCHING, true, _) => Form::SseNamed,
            (WATCHING, false, _) => Form::SseNamedUnchunked,
            (_, _, true) => Form::SseGzip,
            (_, true, _) => Form::Sse,
            (_, false, _) => Form::SseUnchunked,
        }
    }

    #[inline]
    fn is_placed() -> bool {
        OF == MANY
    }

    fn push_placed(event: &[u8], places: &[u8], out: &mut Vec<u8>) {
        const BEFORE: &[u8] = b"id: ";
        const BEHIND: &[u8] = b"\n\n";
        if CHUNKED {
            let mut head = [0; CHUNK_HEAD_BYTES_MAX];
            let len = event.len() + BEFORE.len() + places.len() + BEHIND.len();
            let head_len = encode_chunk_head(&mut head, len);
            out.extend_from_slice(head.get(..head_len).unwrap_or_default());
        }
        out.extend_from_slice(event);
        out.extend_from_slice(BEFORE);
        out.extend_from_slice(places);
        out.extend_from_slice(BEHIND);
        if CHUNKED {
            out.extend_from_slice(b"\r\n");
        }
    }

    /// A comment. Without an empty line behind it, which to some readers is another event.
    fn pulse() -> Pulse {
        let bytes: &[u8] = match (CHUNKED, CODED) {
            // In a block that is stored: not the last, two bytes, and the same inverted (RFC 1951, 3.2.4).
            (_, true) => b"7\r\n\x00\x02\x00\xfd\xff:\n\r\n",
            (true, false) => b"2\r\n:\n\r\n",
            (false, false) => b":\n",
        };
        Pulse { bytes, answered: false }
    }

    fn close_code(_: CloseReason) -> Option<u16> {
        None
    }

    fn push_close(farewell: &Farewell<'_>, out: &mut Vec<u8>) {
        push_piece::<CHUNKED, CODED>(&last_words(farewell.text, farewell.again_ms), out);
        if CHUNKED {
            out.extend_from_slice(LAST_CHUNK);
        }
    }
}

/// The body of an answer to who asked for a stream and can't have one now: why, and when to ask again.
#[must_use]
pub fn not_now(text: &str, again_ms: u32) -> Vec<u8> {
    last_words(text, Some(again_ms))
}

/// Whether a list of media types, as the value of Accept is, names event streams.
#[must_use]
pub fn is_accepted(accept: &[u8]) -> bool {
    accept.split(|&byte| byte == b',').any(|range| {
        let media_type = range.split(|&byte| byte == b';').next().unwrap_or_default();
        media_type.trim_ascii().eq_ignore_ascii_case(MEDIA_TYPE.as_bytes())
    })
}

/// Reads what is asked for.
///
/// # Errors
/// One line on what is wrong with it.
fn opening(raw: &str, head: &Head<'_>, topics_max: usize, gzip: bool) -> Result<Opening, Cow<'static, str>> {
    let (mut names, mut patterns) = (Vec::new(), Vec::new());
    let mut add = |wanted| match wanted {
        Wanted::Topic(name) if !names.contains(&name) => names.push(name),
        Wanted::Pattern(pattern) if !patterns.contains(&pattern) => patterns.push(pattern),
        Wanted::Topic(_) | Wanted::Pattern(_) => {}
    };
    add(wanted_by_path(raw)?);
    let (mut since, mut history, mut presence) = (None, None, None);
    for pair in query_pairs(head.query()) {
        let (name, value) = pair.map_err(|_| "the query is not percent-encoded UTF-8")?;
        let slot = match name.as_ref() {
            "topic" => {
                add(wanted(&value)?);
                continue;
            }
            "since" => &mut since,
            "history" => &mut history,
            "presence" => &mut presence,
            name => return Err(unknown(name, &PARAMETERS).into()),
        };
        if slot.replace(value).is_some() {
            return Err(format!("{name} is there twice").into());
        }
    }
    let events: Vec<TopicName<'static>> = match presence.as_deref() {
        None | Some("0") => Vec::new(),
        Some("1") if !patterns.is_empty() => {
            return Err("presence is about topics; a pattern has no list".into());
        }
        Some("1") => names.iter().map(|name| TopicName::of_presence(name.as_str())).collect(),
        Some(_) => return Err("presence expects 0 or 1".into()),
    };
    if names.len() + events.len() + patterns.len() > topics_max.min(TOPICS_MAX) {
        return Err("more topics than one stream may have".into());
    }
    if !patterns.is_empty() {
        if since.is_some() || history.is_some() {
            return Err("a stream of patterns has no places: since and history are about topics".into());
        }
        let chunked = head.version_minor > 0;
        let dialect = if chunked { Dialect::SseWatching } else { Dialect::SseWatchingUnchunked };
        let topics = names.into_iter().map(|name| (name, Since::Now)).collect();
        return Ok(Opening { topics, patterns, ..Opening::of(dialect) });
    }
    // What a browser has seen last counts: it comes back with the URL that it came with.
    let last = head.field("last-event-id").filter(|id| !id.is_empty());
    let mut begins = begins(since.as_deref(), history.as_deref(), names.len())?;
    // Who comes for the first time is told the list, and what changes from then on.
    begins.resize(names.len() + events.len(), Since::Now);
    let begins = last.map_or(begins, |id| seen(id, names.len() + events.len()));
    names.extend(events);
    let dialect = match (names.len(), head.version_minor) {
        (1, 0) => Dialect::SseUnchunked,
        (1, _) if gzip => Dialect::SseGzip,
        (1, _) => Dialect::Sse,
        (_, 0) => Dialect::SseManyUnchunked,
        (_, _) => Dialect::SseMany,
    };
    // What is deflated at all is deflated for everybody alike.
    let deflate = (dialect == Dialect::SseGzip).then_some(WINDOW_BITS_MAX);
    let topics = names.into_iter().zip(begins).collect();
    Ok(Opening { topics, deflate, runs: deflate.is_some(), ..Opening::of(dialect) })
}

/// Where each of so many topics begins by the parameters: `since` has a place for each.
fn begins(
    since: Option<&str>,
    history: Option<&str>,
    topics: usize,
) -> Result<Vec<Since>, Cow<'static, str>> {
    let Some(list) = since else { return Ok(vec![begin(None, history)?; topics]) };
    let places: Vec<_> =
        list.split(',').map(|place| begin(Some(place), history)).collect::<Result<_, _>>()?;
    if places.len() != topics {
        return Err("since has a position for each topic, in their order, with commas between".into());
    }
    Ok(places)
}

/// Where each topic goes on for whoever has seen this id last. Ids of other servers, and of other topics, are places that
/// nobody knows here: a refusal would be for good, and a gap is the truth.
fn seen(id: &[u8], topics: usize) -> Vec<Since> {
    let nowhere = Since::After(Position { epoch: 0, offset: 0 });
    let places = std::str::from_utf8(id).ok().and_then(|id| begins(Some(id), None, topics).ok());
    places.unwrap_or_else(|| vec![nowhere; topics])
}

/// How a subscription began.
struct Begun<'a> {
    topic: &'a Topic,
    at: Position,
    recovered: bool,
    gap: Option<Gap>,
    /// Its reader knows what there was before: of a topic that tells who is on another, the list.
    listed: bool,
}

impl<'a> Begun<'a> {
    fn of(outcome: &Outcome<'a>) -> Option<Self> {
        let Outcome::Joined { topic, offset, recovered, gap } = *outcome else { return None };
        let listed = recovered || !topic.is_of_presence();
        Some(Self { topic, at: Position { epoch: topic.epoch(), offset }, recovered, gap, listed })
    }
}

/// The places behind which messages follow. Where a list has not been told it is a place that nobody knows.
fn positions(begins: &[Begun<'_>]) -> String {
    let place =
        |begun: &Begun<'_>| Position { epoch: if begun.listed { begun.at.epoch } else { 0 }, ..begun.at };
    let each: Vec<_> = begins.iter().map(|begun| place(begun).to_string()).collect();
    each.join(",")
}

/// What is missing, in the same order, as a header field says it.
fn gaps(begins: &[Begun<'_>]) -> String {
    let told = |begun: &Begun<'_>| match begun.gap {
        Some(Gap { kind, oldest }) => format!("{}; oldest={oldest}", kind.word()),
        None => "none".to_owned(),
    };
    let each: Vec<_> = begins.iter().map(told).collect();
    each.join(", ")
}

/// What a reader is told of a gap.
#[derive(Serialize)]
struct GapData<'a> {
    topic: &'a str,
    kind: &'static str,
    oldest: u64,
}

/// The event that tells of a gap, and where the stream goes on behind it if that is no place of a message.
fn gap_event(topic: &Topic, gap: Gap, at: Option<&str>) -> Vec<u8> {
    if let Some(of) = TopicName::presence_of(topic.name()) {
        let mut event = PRESENCE_BEGINS.to_vec();
        event.extend_from_slice(&json::presence_gap(of, gap));
        return ended(event, at);
    }
    let mut event = b"event: gap\ndata: ".to_vec();
    let data = GapData { topic: topic.name(), kind: gap.kind.word(), oldest: gap.oldest };
    // Text and numbers; JSON on one line, because it escapes control characters.
    let _ = serde_json::to_writer(&mut event, &data);
    ended(event, at)
}

/// The event that tells who is on a topic, and where the stream has come to with it.
fn list_event(page: &PresencePage, own: Option<&str>, after: Option<&str>, at: &[u8]) -> Vec<u8> {
    let mut event = PRESENCE_BEGINS.to_vec();
    json::push_list(page, own, after, &mut event);
    ended(event, std::str::from_utf8(at).ok())
}

/// An event whose one line of data is there, and where the stream goes on behind it.
fn ended(mut event: Vec<u8>, at: Option<&str>) -> Vec<u8> {
    event.push(b'\n');
    if let Some(at) = at {
        let _ = writeln!(event, "id: {at}");
    }
    event.push(b'\n');
    event
}

fn push_piece<const CHUNKED: bool, const CODED: bool>(piece: &[u8], out: &mut Vec<u8>) {
    match (CHUNKED, CODED) {
        (_, true) => coded::push_stored_chunk(out, piece),
        (true, false) => push_chunk(out, piece),
        (false, false) => out.extend_from_slice(piece),
    }
}

/// The field that says when to come back. It counts as soon as its line ends (HTML, 9.2.6); behind an empty line some
/// readers would find an event. Never 0: browsers would come back at once, again and again.
fn retry(again_ms: u32) -> Vec<u8> {
    format!("retry: {}\n", again_ms.max(1)).into_bytes()
}

fn last_words(text: &str, again_ms: Option<u32>) -> Vec<u8> {
    let mut words = Vec::new();
    if !text.is_empty() {
        words.extend_from_slice(b": ");
        push_text(&mut words, text);
        words.push(b'\n');
    }
    if let Some(again_ms) = again_ms {
        words.extend_from_slice(&retry(again_ms));
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topic::GapKind;
    use crate::wire::http::head::{HeadLimits, field_store, parse_head};

    #[test]
    fn what_a_browser_accepts_is_a_stream() {
        for accept in ["text/event-stream", "Text/Event-Stream;q=0.9, */*", "text/html, text/event-stream"] {
            assert!(is_accepted(accept.as_bytes()), "{accept}");
        }
        for accept in ["", "*/*", "text/*", "text/event-streams", "application/json"] {
            assert!(!is_accepted(accept.as_bytes()), "{accept}");
        }
    }

    fn opened(raw: &str, query: &str, fields: &str) -> Result<Opening, Cow<'static, str>> {
        let request = format!("GET /sse/x?{query} HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        let mut store = field_store();
        let (head, _) = parse_head(request.as_bytes(), &mut store, &HeadLimits::default()).unwrap().unwrap();
        opening(raw, &head, 64, head.has_token("accept-encoding", "gzip"))
    }

    fn asked(raw: &str, query: &str, fields: &str) -> Result<(String, Since), Cow<'static, str>> {
        let opening = opened(raw, query, fields)?;
        assert_eq!((opening.dialect, opening.topics.len()), (Dialect::Sse, 1));
        Ok((opening.topics[0].0.as_str().to_owned(), opening.topics[0].1))
    }

    #[test]
    fn a_url_names_a_topic_and_a_beginning_and_nothing_that_is_not_known() {
        let after = |offset| Since::After(Position { epoch: 0xab, offset });
        let place = |offset| format!("since=00000000000000ab:{offset}");
        assert_eq!(asked("a%20b", "", ""), Ok(("a b".into(), Since::Now)));
        assert_eq!(asked("a", &place(7), ""), Ok(("a".into(), after(7))));
        assert_eq!(asked("a", "history=3", ""), Ok(("a".into(), Since::Last(3))));
        // A browser comes back with the URL that it came with, and the id of what it has seen since.
        let last = "Last-Event-ID: 00000000000000ab:9\r\n";
        assert_eq!(asked("a", &place(7), last), Ok(("a".into(), after(9))));
        assert_eq!(asked("a", &place(7), "Last-Event-ID:\r\n"), Ok(("a".into(), after(7))));
        let nowhere = Since::After(Position { epoch: 0, offset: 0 });
        for id in ["17", "00000000000000ab:", "\u{e9}"] {
            assert_eq!(
                asked("a", "", &format!("Last-Event-ID: {id}\r\n")),
                Ok(("a".into(), nowhere)),
                "{id}"
            );
        }
        let both = format!("history=1&{}", place(7));
        for query in ["sinse=1", "x=1", "since=", "since=7", "history=-1", "history=4294967296", &both] {
            assert!(asked("a", query, last).is_err(), "{query}");
        }
        for raw in ["", "a%00", "a*"] {
            assert!(asked(raw, "", "").is_err(), "{raw}");
        }
    }

    #[test]
    fn several_topics_have_a_place_each_in_their_order() {
        let after = |epoch, offset| Since::After(Position { epoch, offset });
        let opening = opened("a", "topic=b&topic=a&topic=c%2Cd", "").unwrap();
        let names: Vec<_> = opening.topics.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!((opening.dialect, names), (Dialect::SseMany, vec!["a", "b", "c,d"]));
        let begins = |query: &str, fields: &str| {
            opened("a", query, fields)
                .map(|opening| opening.topics.iter().map(|topic| topic.1).collect::<Vec<_>>())
        };
        let two = "0000000000000001:5,0000000000000002:6";
        assert_eq!(begins(&format!("topic=b&since={two}"), ""), Ok(vec![after(1, 5), after(2, 6)]));
        assert_eq!(
            begins("topic=b", &format!("Last-Event-ID: {two}\r\n")),
            Ok(vec![after(1, 5), after(2, 6)])
        );
        assert_eq!(begins("topic=b&history=4", ""), Ok(vec![Since::Last(4); 2]));
        assert!(begins(&format!("topic=b&topic=c&since={two}"), "").is_err());
        // The id of fewer topics than it asks for now: nobody knows which.
        let last = "Last-Event-ID: 0000000000000001:5\r\n";
        assert_eq!(begins("topic=b", last), Ok(vec![after(0, 0); 2]));
        let many: String = (0..15).map(|number| format!("topic=t{number}&")).collect();
        assert_eq!(begins(many.trim_end_matches('&'), "").map(|begins| begins.len()), Ok(16));
        assert!(begins(&format!("{many}topic=one-more"), "").is_err());
        assert!(begins("since=0000000000000001:5&since=0000000000000001:5", "").is_err());
    }

    #[test]
    fn who_is_there_is_a_topic_more_for_each() {
        let after = |epoch, offset| Since::After(Position { epoch, offset });
        let gzip = "Accept-Encoding: gzip\r\n";
        let opening = opened("a", "presence=1", gzip).unwrap();
        let names: Vec<_> = opening.topics.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!((opening.dialect, names), (Dialect::SseMany, vec!["a", "*presence:a"]));
        let begins = |query: &str, fields: &str| {
            opened("a", query, fields)
                .map(|opening| opening.topics.iter().map(|topic| topic.1).collect::<Vec<_>>())
        };
        let two = "topic=b&presence=1";
        let places = "0000000000000001:5,0000000000000002:6";
        assert_eq!(
            begins(&format!("{two}&since={places}"), ""),
            Ok(vec![after(1, 5), after(2, 6), Since::Now, Since::Now])
        );
        let last = format!("Last-Event-ID: {places},{places}\r\n");
        assert_eq!(begins(two, &last), Ok(vec![after(1, 5), after(2, 6), after(1, 5), after(2, 6)]));
        // Of before it asked who is there.
        let last = format!("Last-Event-ID: {places}\r\n");
        assert_eq!(begins(two, &last), Ok(vec![after(0, 0); 4]));
        assert_eq!(begins("history=2&presence=1", ""), Ok(vec![Since::Last(2), Since::Now]));
        assert_eq!(begins("presence=0", ""), Ok(vec![Since::Now]));
        let seven: String = (0..7).map(|number| format!("topic=t{number}&")).collect();
        assert_eq!(begins(&format!("{seven}presence=1"), "").map(|begins| begins.len()), Ok(16));
        assert!(begins(&format!("{seven}topic=t7&presence=1"), "").is_err());
        for query in ["presence=", "presence=2", "presence=1&presence=1", "topic=b/*&presence=1"] {
            assert!(begins(query, "").is_err(), "{query}");
        }
    }

    #[test]
    fn a_stream_of_one_topic_may_be_coded_and_no_other() {
        let dialect =
            |query, fields| opened("a", query, fields).map(|opening| (opening.dialect, opening.deflate));
        let gzip = "Accept-Encoding: gzip\r\n";
        assert_eq!(dialect("", gzip), Ok((Dialect::SseGzip, Some(WINDOW_BITS_MAX))));
        assert_eq!(dialect("", ""), Ok((Dialect::Sse, None)));
        assert_eq!(dialect("topic=b", gzip), Ok((Dialect::SseMany, None)));
        let (mut pulse, bytes) = (Vec::new(), Coded::pulse().bytes);
        push_piece::<true, true>(b":\n", &mut pulse);
        assert_eq!(bytes, pulse);
    }

    #[test]
    fn patterns_make_a_stream_without_places() {
        let opening =
            opened("prices/*", "topic=a&topic=b%2F%2A%2A&topic=prices/*", "Last-Event-ID: 7\r\n").unwrap();
        let patterns: Vec<_> = opening.patterns.iter().map(|pattern| pattern.as_str()).collect();
        assert_eq!((opening.dialect, patterns), (Dialect::SseWatching, vec!["prices/*", "b/**"]));
        assert_eq!(opening.topics.iter().map(|topic| topic.1).collect::<Vec<_>>(), [Since::Now]);
        for query in ["history=1", "since=00000000000000ab:7", "topic=b*"] {
            assert!(opened("prices/*", query, "").is_err(), "{query}");
        }
        let many: String = (0..15).map(|number| format!("topic=t{number}/*&")).collect();
        assert!(opened("*", many.trim_end_matches('&'), "").is_ok());
        assert!(opened("*", &format!("{many}topic=one-more"), "").is_err());
    }

    #[test]
    fn a_gap_names_the_topic_that_who_is_there_was_told_of() {
        let gap = Gap { kind: GapKind::Dropped, oldest: 7 };
        let topic = |name: &TopicName<'_>| Topic::new(1, 0xab, name, 0);
        let event = |topic, at| String::from_utf8(gap_event(&topic, gap, at)).unwrap();
        assert_eq!(
            event(topic(&TopicName::of("a")), Some("x")),
            "event: gap\ndata: {\"topic\":\"a\",\"kind\":\"dropped\",\"oldest\":7}\nid: x\n\n"
        );
        assert_eq!(
            event(topic(&TopicName::of_presence("a\"b")), None),
            "event: presence\ndata: {\"type\":\"presence\",\"topic\":\"a\\\"b\",\"gap\":{\"kind\":\"dropped\",\
             \"oldest\":7}}\n\n"
        );
    }

    #[test]
    fn the_end_of_a_stream_has_no_line_of_anybody_elses() {
        let mut out = Vec::new();
        let farewell = Farewell { code: 1000, text: "bye\ndata: forged\r\n", again_ms: Some(0) };
        Unchunked::push_close(&farewell, &mut out);
        assert_eq!(out, b": bye data: forged  \nretry: 1\n");
        out.clear();
        Chunked::push_close(&Farewell { text: "", again_ms: None, ..farewell }, &mut out);
        assert_eq!(out, LAST_CHUNK, "nothing said is no chunk");
    }
}
