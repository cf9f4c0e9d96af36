//! The SSE dialect: `/sse/TOPIC`. An event stream (HTML, 9.2) as the body of an answer without end: messages out, nothing
//! in.
//!
//! Owns the reading of its URL, the head of its answer, and what a stream begins and ends with. An event and the line
//! that a stream begins with end with a line each, so that a stream may break off behind any of them and no reader takes
//! a part for a whole. Browsers come back by themselves, without jitter and until an answer is not 200: what they wait
//! for is spread here, and who is turned away for now is told so in a stream.

pub(super) mod event;

use std::borrow::Cow;
use std::io::Write;

use super::effect::{Cx, Meaning};
use super::speak::{Carrier, Farewell, Incoming, OpenRequest, Opening, Pulse, Refusal, Speak, Start};
use super::url::topic_name;
use super::{Dialect, Form};
use crate::metrics::CloseReason;
use crate::topic::Since;
use crate::wire::http::chunked::{LAST_CHUNK, push_chunk};
use crate::wire::http::head::Head;
use crate::wire::http::params::Params;
use crate::wire::http::response::{ResponseBuffer, push_text};

/// The media type of an event stream.
pub const MEDIA_TYPE: &str = "text/event-stream";

/// To a client of HTTP/1.1: each event is a chunk of its own, because some readers wait for a full buffer where nothing
/// tells them how much there is.
pub(super) type Chunked = Stream<true>;

/// To a client of HTTP/1.0, which must not be sent chunks (RFC 9112, 7.1).
pub(super) type Unchunked = Stream<false>;

pub(super) struct Stream<const CHUNKED: bool>;

impl<const CHUNKED: bool> Speak for Stream<CHUNKED> {
    fn label() -> &'static str {
        "sse"
    }

    fn open(request: &OpenRequest<'_>) -> Option<Result<Opening, Refusal>> {
        let head = request.head;
        let raw = head.path().strip_prefix("/sse/")?;
        let dialect = if head.version_minor >= 1 { Dialect::Sse } else { Dialect::SseUnchunked };
        Some(opening(dialect, raw, head.query()).map_err(Refusal::bad_request))
    }

    fn on_message(_: &mut Cx<'_>, _: Incoming<'_>) -> Meaning {
        Meaning::Said
    }

    fn push_head(_: &Head<'_>, out: &mut ResponseBuffer) {
        out.reserve(512);
        out.push_status_line(200);
        let coding = if CHUNKED { "Transfer-Encoding: chunked\r\n" } else { "" };
        // Nothing on the way may keep, compress or gather it (RFC 9111, 5.2.2.5 and 5.2.2.6; nginx's own field). The
        // connection ends with the stream (RFC 9112, 9.6).
        let _ = write!(
            **out,
            "Content-Type: {MEDIA_TYPE}\r\n{coding}Connection: close\r\nCache-Control: no-store, no-transform\r\n\
             X-Accel-Buffering: no\r\nX-Content-Type-Options: nosniff\r\n"
        );
    }

    /// A proxy that waits for a first byte before it passes the head on has one.
    fn push_start(start: Start, out: &mut Vec<u8>) {
        push_piece::<CHUNKED>(retry(start.again_ms).as_bytes(), out);
    }

    fn carrier() -> Carrier {
        Carrier::Body
    }

    #[inline]
    fn form() -> Form {
        if CHUNKED { Form::Sse } else { Form::SseUnchunked }
    }

    /// A comment. Without an empty line behind it, which to some readers is another event.
    fn pulse() -> Pulse {
        Pulse { bytes: if CHUNKED { b"2\r\n:\n\r\n" } else { b":\n" }, answered: false }
    }

    fn close_code(_: CloseReason) -> Option<u16> {
        None
    }

    fn push_close(farewell: &Farewell<'_>, out: &mut Vec<u8>) {
        push_piece::<CHUNKED>(&last_words(farewell.text, farewell.again_ms), out);
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

fn opening(dialect: Dialect, raw: &str, query: &str) -> Result<Opening, Cow<'static, str>> {
    let topic = topic_name(raw)?.into_owned();
    Params::read(query, b"", &[])?;
    Ok(Opening { topics: vec![(topic, Since::Now)], ..Opening::of(dialect) })
}

fn push_piece<const CHUNKED: bool>(piece: &[u8], out: &mut Vec<u8>) {
    match CHUNKED {
        true => push_chunk(out, piece),
        false => out.extend_from_slice(piece),
    }
}

/// The field that says when to come back. It counts as soon as its line ends (HTML, 9.2.6); behind an empty line some
/// readers would find an event. Never 0: browsers would come back at once, again and again.
fn retry(again_ms: u32) -> String {
    format!("retry: {}\n", again_ms.max(1))
}

fn last_words(text: &str, again_ms: Option<u32>) -> Vec<u8> {
    let mut words = Vec::new();
    if !text.is_empty() {
        words.extend_from_slice(b": ");
        push_text(&mut words, text);
        words.push(b'\n');
    }
    if let Some(again_ms) = again_ms {
        words.extend_from_slice(retry(again_ms).as_bytes());
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_browser_accepts_is_a_stream() {
        for accept in ["text/event-stream", "Text/Event-Stream;q=0.9, */*", "text/html, text/event-stream"] {
            assert!(is_accepted(accept.as_bytes()), "{accept}");
        }
        for accept in ["", "*/*", "text/*", "text/event-streams", "application/json"] {
            assert!(!is_accepted(accept.as_bytes()), "{accept}");
        }
    }

    #[test]
    fn a_url_names_one_topic_and_nothing_that_is_not_known() {
        let topics = |raw, query| opening(Dialect::Sse, raw, query).map(|opening| opening.topics);
        assert_eq!(topics("a%20b", "").unwrap()[0].0.as_str(), "a b");
        for (raw, query) in [("", ""), ("a", "sinse=1"), ("a%00", ""), ("*", ""), ("a", "x=1")] {
            assert!(topics(raw, query).is_err(), "{raw} {query}");
        }
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
