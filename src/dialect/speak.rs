//! What a dialect has to say for itself: the trait that each implements, and the plain data it is asked with.
//!
//! Driven through `Dialect`'s own methods only. Most methods have the answer of RFC 6455, because most dialects are
//! carried by its frames.

use std::borrow::Cow;

use super::effect::{Cx, Meaning, Outcome};
use super::{Dialect, Form};
use crate::metrics::{CloseReason, RefuseReason};
use crate::topic::{LevelPattern, MemberId, PresencePage, Since, TopicName};
use crate::wire::close::close_payload;
use crate::wire::frame::{Opcode, push_frame};
use crate::wire::http::head::Head;
use crate::wire::http::response::ResponseBuffer;

/// An empty ping frame.
const PING: &[u8] = &[0x89, 0x00];

/// What a dialect's messages travel in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// WebSocket frames both ways (RFC 6455), behind a 101. Closing is a handshake.
    Frames,
    /// The body of an answer without end. What the peer sends behind its request means nothing.
    Body,
    /// The body of one answer, which waits for messages; then the next request.
    Answer,
}

/// A sign of life to a peer that has been quiet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pulse {
    /// The bytes to send.
    pub bytes: &'static [u8],
    /// Whether the peer has to answer, in the time for pongs.
    pub answered: bool,
}

/// What a connection that opens is told beside the head of the answer.
#[derive(Clone, Copy, Debug)]
pub struct Start<'a> {
    /// What became of its subscriptions, in the order of the opening's topics.
    pub joined: &'a [Outcome<'a>],
    /// Who is on topics of which it asked for that, and as whom its client is there; of those whose events go on where it was,
    /// nothing.
    pub lists: &'a [(PresencePage, Option<MemberId>)],
    /// When its client is to come back if the connection breaks off, in milliseconds.
    pub again_ms: u32,
}

/// What a connection that ends is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Farewell<'a> {
    /// The close code.
    pub code: u16,
    /// Why, in words; empty if there is nothing to say.
    pub text: &'a str,
    /// When its client is to come back, in milliseconds, if that is another time than it was told before.
    pub again_ms: Option<u32>,
}

/// A request that may open a dialect.
#[derive(Debug)]
pub struct OpenRequest<'a> {
    /// What was asked.
    pub head: &'a Head<'a>,
    /// Topics that one connection may be subscribed to.
    pub subscriptions_max: usize,
    /// The first subprotocol it offers that is known here at all.
    pub subprotocol: Option<&'a str>,
    /// Whether a stream may be sent in gzip: it takes that, and the configuration does.
    pub gzip: bool,
}

/// How an opened connection starts.
#[derive(Debug)]
pub struct Opening {
    /// What it speaks.
    pub dialect: Dialect,
    /// Topics it is subscribed to before the answer is sent, and where each subscription begins.
    pub topics: Vec<(TopicName<'static>, Since)>,
    /// Patterns that it is subscribed to besides.
    pub patterns: Vec<LevelPattern>,
    /// Whether its own messages are not delivered back.
    pub no_echo: bool,
    /// permessage-deflate was accepted, with a window of so many bits for what is sent.
    pub deflate: Option<u8>,
    /// What is sent deflated may refer to what was sent before.
    pub runs: bool,
    /// How long one answer may wait for messages, in seconds.
    pub wait_seconds: u32,
    /// Behind which member the list is to go on that the answer has some of.
    pub after: Option<Box<str>>,
    /// What the application has to say to who has connected, as JSON.
    pub welcome: Option<Box<str>>,
}

impl Opening {
    /// A start without topics.
    #[must_use]
    pub fn of(dialect: Dialect) -> Self {
        Self {
            dialect,
            topics: Vec::new(),
            patterns: Vec::new(),
            no_echo: false,
            deflate: None,
            runs: false,
            wait_seconds: 0,
            after: None,
            welcome: None,
        }
    }
}

/// Why a request does not open the dialect of its path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The reason it is counted and answered by.
    pub reason: RefuseReason,
    /// One line for who asked.
    pub text: Cow<'static, str>,
}

impl Refusal {
    /// The request says something that it can't.
    #[must_use]
    pub fn bad_request(text: Cow<'static, str>) -> Self {
        Self { reason: RefuseReason::BadRequest, text }
    }
}

/// What is configured for the size of messages, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Of an echo.
    pub echo: usize,
    /// Of the topic that the connection's messages go to, or of any topic where there is none.
    pub topic: usize,
    /// Of any topic.
    pub any_topic: usize,
}

/// A message of the peer, whole and inflated.
#[derive(Clone, Copy, Debug)]
pub struct Incoming<'a> {
    /// Text, and then valid UTF-8; binary otherwise.
    pub text: bool,
    /// Its payload.
    pub payload: &'a [u8],
}

/// One dialect. Implemented by a type without data: what a connection has of its own is the loop's.
pub(super) trait Speak {
    /// The name in listings.
    fn label() -> &'static str;

    /// What the request opens; `None` if its path is not this dialect's.
    fn open(request: &OpenRequest<'_>) -> Option<Result<Opening, Refusal>>;

    /// The subprotocol that stands for it.
    fn subprotocol() -> Option<&'static str> {
        None
    }

    /// Whether its messages may ask to join topics; they wait where too many joins do.
    fn joins() -> bool {
        false
    }

    /// Whether it tells that less than all of a pattern comes. Who could not know does not get some of one.
    fn tells_limits() -> bool {
        false
    }

    /// A whole message of the peer.
    fn on_message(cx: &mut Cx<'_>, message: Incoming<'_>) -> Meaning;

    /// What became of something it asked for.
    fn on_outcome(_: &mut Cx<'_>, _: Outcome<'_>) {}

    /// Appends status and fields of the answer that its messages are the body of, without the empty line that ends a head.
    /// Nothing where they travel in frames.
    fn push_head(_: &Head<'_>, _: &mut ResponseBuffer) {}

    /// Appends the fields of its answer's head that say where its topics begin. Nothing where messages travel in frames.
    fn push_places(_: &[Outcome<'_>], _: &mut Vec<u8>) {}

    /// Appends these and the end of the head, now that its topics are joined, and what follows the head. Nothing where
    /// messages travel in frames.
    fn push_start(_: &Start<'_>, _: &mut Vec<u8>) {}

    /// What its messages travel in.
    fn carrier() -> Carrier {
        Carrier::Frames
    }

    /// The bytes a message of the peer may have.
    fn message_bytes_max(bounds: &Bounds) -> usize {
        bounds.topic
    }

    /// How its connections want published messages.
    fn form() -> Form {
        Form::Raw
    }

    /// Whether its messages name the connection's own places, which are written into each of them for itself.
    fn is_placed() -> bool {
        false
    }

    /// Appends a message of its form with the connection's places in its topics, where its messages name them.
    fn push_placed(_: &[u8], _: &[u8], _: &mut Vec<u8>) {}

    /// What shows a quiet peer that the connection lives.
    fn pulse() -> Pulse {
        Pulse { bytes: PING, answered: true }
    }

    /// The code it closes with: those of RFC 6455, 7.4.1, as the table of reasons has them.
    fn close_code(reason: CloseReason) -> Option<u16> {
        reason.close_code()
    }

    /// Appends its last words: a close frame (RFC 6455, 5.5.1).
    fn push_close(farewell: &Farewell<'_>, out: &mut Vec<u8>) {
        let mut payload = [0; 125];
        let len = close_payload(&mut payload, farewell.code, farewell.text);
        push_frame(out, Opcode::Close, payload.get(..len).unwrap_or_default(), None);
    }
}
