//! What a connection speaks: a file or folder for each dialect, and the one match that finds them.
//!
//! Driven by the event loop. A dialect decides what a message *means* and says so in [`Effect`]s; it never sees a
//! socket, a slot or a lock, and never calls another dialect. A new one is its folder, its variant with its arm of
//! `speak!` below, and its page in docs.

mod echo;
mod effect;
mod envelope;
mod json;
#[cfg(test)]
mod lines;
pub mod plain;
pub mod poll;
mod request;
mod speak;
pub mod sse;
mod text;
mod tools;
pub(crate) mod url;

use crate::metrics::CloseReason;
use crate::topic::{self, Carried, Stamped, Topic};
use crate::wire::frame::Opcode;
use crate::wire::http::head::Head;
use crate::wire::http::response::ResponseBuffer;

pub use effect::{
    Cx, Denial, Effect, Effects, Meaning, Outcome, Piece, PresenceQuestion, Reply, StateWish, Tag, Token,
    TokenDenial, Wish,
};
pub use json::{is_document, push_page, push_presence};
pub use speak::{Bounds, Carrier, Farewell, Incoming, OpenRequest, Opening, Pulse, Refusal, Start};
pub use tools::{Tools, Wall};

use speak::Speak;

/// An enum with the list of all its variants, so that neither can forget one of the other.
macro_rules! closed_set {
    ($(#[doc = $about:literal])* $set:ident { $($(#[doc = $doc:literal])* $(#[cfg($when:meta)])? $name:ident,)+ }) => {
        $(#[doc = $about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum $set {
            $($(#[doc = $doc])* $(#[cfg($when)])? $name,)+
        }

        impl $set {
            /// All of them.
            pub const ALL: &[Self] = &[$($(#[cfg($when)])? Self::$name,)+];
        }
    };
}

closed_set! {
    /// What a connection speaks. One byte of the slot.
    Dialect {
        /// HTTP only, so far.
        Http,
        /// `/echo`: every message goes back to its sender.
        Echo,
        /// `/ws` with `fantail.json.v1`: one JSON object a message. Asked before `Plain`, which has the same path.
        Json,
        /// `/ws`: the payload is the message.
        Plain,
        /// `/ws` with `?envelope=1`: a line that says topic and offset, and the payload.
        Envelope,
        /// `/sse/TOPIC`: an event stream.
        Sse,
        /// The same for a client of HTTP/1.0, which knows no chunks.
        SseUnchunked,
        /// `/poll/TOPIC`: one answer with the next messages.
        Poll,
        /// `/sse/TOPIC?topic=OTHER`: an event stream of several topics.
        SseMany,
        /// The same for a client of HTTP/1.0.
        SseManyUnchunked,
        /// As `Sse`, in gzip.
        SseGzip,
        /// `/sse/PATTERN`: an event stream of whatever topics patterns mean.
        SseWatching,
        /// The same for a client of HTTP/1.0.
        SseWatchingUnchunked,
        /// `/lines`: text commands, in tests.
        #[cfg(test)]
        Lines,
    }
}

closed_set! {
    /// How connections want published messages: which bytes. Each may be deflated besides.
    Form {
        /// The payload in one WebSocket frame, as the publisher made it for all.
        Raw,
        /// A line of JSON and the payload in one WebSocket frame.
        Envelope,
        /// A JSON object in a text frame, which names topic and offset.
        Json,
        /// An event, in a chunk of its own.
        Sse,
        /// An event, as it is.
        SseUnchunked,
        /// An event, in a chunk of a body in gzip.
        SseGzip,
        /// What events of several topics have in common; the rest is each connection's own.
        SseTopic,
        /// An event that names its topic and has no place, in a chunk of its own.
        SseNamed,
        /// The same, as it is.
        SseNamedUnchunked,
    }
}

impl topic::Form for Form {
    const RAW: Self = Self::Raw;

    fn start(self, topic: &Topic, start: &mut Vec<u8>) {
        match self {
            Self::Raw => {}
            Self::Json if topic.is_of_presence() => json::push_presence_start(topic, start),
            Self::Envelope | Self::Json => text::push_start(topic, start),
            Self::Sse | Self::SseUnchunked | Self::SseGzip => sse::event::start(topic, start),
            Self::SseTopic if topic.is_of_presence() => {
                start.extend_from_slice(sse::PRESENCE_BEGINS);
                json::push_presence_start(topic, start);
            }
            Self::SseTopic | Self::SseNamed | Self::SseNamedUnchunked => {
                sse::event::start_named(topic, start);
            }
        }
    }

    fn write(self, of: Stamped<'_>, payload: &mut Vec<u8>) -> Carried {
        match self {
            Self::Raw => {
                payload.extend_from_slice(of.message.payload());
                Carried::Frame(if of.message.is_binary() { Opcode::Binary } else { Opcode::Text })
            }
            Self::Envelope => envelope::write(of, payload),
            Self::Json => json::write_message(of, payload),
            Self::Sse => {
                sse::event::write(of, payload);
                Carried::Chunk
            }
            Self::SseUnchunked => {
                sse::event::write(of, payload);
                Carried::Stream
            }
            Self::SseGzip => {
                sse::event::write(of, payload);
                Carried::Coded
            }
            Self::SseTopic if of.topic.is_of_presence() => {
                json::push_presence_event(of, payload);
                payload.push(b'\n');
                Carried::Stream
            }
            Self::SseTopic => {
                sse::event::write_named(of, payload);
                Carried::Stream
            }
            Self::SseNamed | Self::SseNamedUnchunked => {
                sse::event::write_named(of, payload);
                payload.push(b'\n');
                if self == Self::SseNamed { Carried::Chunk } else { Carried::Stream }
            }
        }
    }
}

/// Calls a dialect's own [`Speak`]: the only place that tells them apart.
macro_rules! speak {
    ($dialect:expr, $call:ident($($argument:expr),*)) => {
        match $dialect {
            Dialect::Http => request::Request::$call($($argument),*),
            Dialect::Echo => echo::Echo::$call($($argument),*),
            Dialect::Json => json::Json::$call($($argument),*),
            Dialect::Plain => plain::Plain::$call($($argument),*),
            Dialect::Envelope => envelope::Envelope::$call($($argument),*),
            Dialect::Sse => sse::Chunked::$call($($argument),*),
            Dialect::SseUnchunked => sse::Unchunked::$call($($argument),*),
            Dialect::Poll => poll::Poll::$call($($argument),*),
            Dialect::SseMany => sse::ManyChunked::$call($($argument),*),
            Dialect::SseManyUnchunked => sse::ManyUnchunked::$call($($argument),*),
            Dialect::SseWatching => sse::WatchingChunked::$call($($argument),*),
            Dialect::SseWatchingUnchunked => sse::WatchingUnchunked::$call($($argument),*),
            Dialect::SseGzip => sse::Coded::$call($($argument),*),
            #[cfg(test)]
            Dialect::Lines => lines::Lines::$call($($argument),*),
        }
    };
}

impl Dialect {
    /// What the first dialect that knows the request's path makes of it; `None` if none does.
    #[must_use]
    pub fn opening(request: &OpenRequest<'_>) -> Option<Result<Opening, Refusal>> {
        Self::ALL.iter().find_map(|&dialect| speak!(dialect, open(request)))
    }

    /// The name in listings.
    #[must_use]
    pub fn label(self) -> &'static str {
        speak!(self, label())
    }

    /// The subprotocol that stands for it, if one does (RFC 6455, 1.9).
    #[must_use]
    pub fn subprotocol(self) -> Option<&'static str> {
        speak!(self, subprotocol())
    }

    /// Whether its messages may ask to join topics.
    #[inline(always)]
    #[must_use]
    pub fn joins(self) -> bool {
        speak!(self, joins())
    }

    /// Whether it tells that less than all of a pattern comes.
    #[must_use]
    pub fn tells_limits(self) -> bool {
        speak!(self, tells_limits())
    }

    /// Appends status and fields of the answer that its messages are the body of, without the empty line that ends them.
    pub fn push_head(self, head: &Head<'_>, out: &mut ResponseBuffer) {
        speak!(self, push_head(head, out));
    }

    /// Appends the fields of that head that say where its topics begin.
    pub fn push_places(self, begins: &[Outcome<'_>], out: &mut Vec<u8>) {
        speak!(self, push_places(begins, out));
    }

    /// Appends the rest of that head, these fields among it, and what follows it.
    pub fn push_start(self, start: &Start<'_>, out: &mut Vec<u8>) {
        speak!(self, push_start(start, out));
    }

    /// What its messages travel in.
    #[must_use]
    pub fn carrier(self) -> Carrier {
        speak!(self, carrier())
    }

    /// The bytes a message of the peer may have, of what is configured.
    #[must_use]
    pub fn message_bytes_max(self, bounds: &Bounds) -> usize {
        speak!(self, message_bytes_max(bounds))
    }

    /// How its connections want published messages.
    #[inline(always)]
    #[must_use]
    pub fn form(self) -> Form {
        speak!(self, form())
    }

    /// Whether its connections are each written to in a way of their own, with what a message has in common for all.
    #[inline(always)]
    #[must_use]
    pub fn is_own(self) -> bool {
        self.is_placed() || self.carrier() == Carrier::Answer
    }

    /// Whether its messages name the connection's own places, which are written into each of them for itself.
    #[inline(always)]
    #[must_use]
    pub fn is_placed(self) -> bool {
        speak!(self, is_placed())
    }

    /// Appends a message of its form with the connection's places, for those that name them.
    pub fn push_placed(self, message: &[u8], places: &[u8], out: &mut Vec<u8>) {
        speak!(self, push_placed(message, places, out));
    }

    /// A whole message of the peer.
    #[inline(always)]
    pub fn on_message(self, cx: &mut Cx<'_>, message: Incoming<'_>) -> Meaning {
        speak!(self, on_message(cx, message))
    }

    /// What became of something it asked for.
    #[inline(always)]
    pub fn on_outcome(self, cx: &mut Cx<'_>, outcome: Outcome<'_>) {
        speak!(self, on_outcome(cx, outcome));
    }

    /// What shows a quiet peer that the connection lives.
    #[must_use]
    pub fn pulse(self) -> Pulse {
        speak!(self, pulse())
    }

    /// The code it closes with for `reason`; each dialect names its own, `None` where it has none.
    #[must_use]
    pub fn close_code(self, reason: CloseReason) -> Option<u16> {
        speak!(self, close_code(reason))
    }

    /// Appends its last words.
    pub fn push_close(self, farewell: &Farewell<'_>, out: &mut Vec<u8>) {
        speak!(self, push_close(farewell, out));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_dialect_is_listed_once_and_has_a_name_of_its_own() {
        // The kinds of a stream are one dialect to whoever looks on.
        let variants = [
            Dialect::SseUnchunked,
            Dialect::SseMany,
            Dialect::SseManyUnchunked,
            Dialect::SseGzip,
            Dialect::SseWatching,
            Dialect::SseWatchingUnchunked,
        ];
        let framed = Dialect::ALL.iter().filter(|dialect| !variants.contains(dialect));
        let mut labels: Vec<_> = framed.clone().map(|dialect| dialect.label()).collect();
        labels.sort_unstable();
        labels.dedup();
        assert_eq!(labels.len(), framed.count());
        for (place, dialect) in Dialect::ALL.iter().enumerate() {
            assert_eq!(*dialect as usize, place);
        }
    }
}
