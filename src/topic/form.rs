//! How subscribers want the bytes of a message: the closed set of forms, which the dialects' room defines, and how
//! far a connection may be sent them deflated. Pure; asked by `batch` once a message and loop.

use std::fmt;

use super::message::Message;
use super::state::Topic;
use crate::wire::frame::Opcode;

/// The forms there are. A form that names the topic, its epoch or the message's offset can only be made of the
/// message with its place: each loop that has a subscriber of it does so, once for all of them.
pub trait Form: Copy + PartialEq + fmt::Debug + Send + 'static {
    /// What publishers make: the payload in one WebSocket frame, and that deflated if anybody wants it.
    const RAW: Self;

    /// Appends what is the same in all messages of a topic, once a batch: [`Stamped::start`].
    fn start(self, _topic: &Topic, _start: &mut Vec<u8>) {}

    /// Appends what its frames carry of the message, and says in what they carry it.
    fn write(self, of: Stamped<'_>, payload: &mut Vec<u8>) -> Carried;
}

/// A message at its place.
#[derive(Clone, Copy, Debug)]
pub struct Stamped<'a> {
    /// Whose place it is.
    pub topic: &'a Topic,
    /// The message, which knows its offset.
    pub message: &'a Message,
    /// What [`Form::start`] has made of the topic.
    pub start: &'a [u8],
}

/// What a message's bytes are carried in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carried {
    /// One unmasked WebSocket frame (RFC 6455), which may be deflated (RFC 7692).
    Frame(Opcode),
    /// One chunk of a body (RFC 9112, 7.1), plain.
    Chunk,
    /// One chunk of a body in gzip (RFC 1952), deflated where that saves anything.
    Coded,
    /// Nothing: they are a piece of a stream that ends with its connection.
    Stream,
}

impl Carried {
    /// Whether that may be deflated.
    #[must_use]
    pub fn is_deflatable(self) -> bool {
        matches!(self, Self::Frame(_) | Self::Coded)
    }
}

/// How far a connection may be sent a form's frames deflated. Closed: what needs a subscriber's own input is no
/// encoding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encoding {
    /// The payload as it is.
    #[default]
    Plain,
    /// permessage-deflate without context takeover (RFC 7692), where that made the frame smaller.
    Deflated,
    /// The same, and of messages that are written in one piece each may refer to those before it (RFC 7692 section 7.1.1.1
    /// does not forbid it for this connection).
    DeflatedInRuns,
    /// As `Deflated`, for a connection whose window is 2 to the power of so many bytes (RFC 7692 section 7.1.2.1): a payload
    /// of at most that many can't refer further back; what is longer goes out plain.
    DeflatedWithin(u8),
}

impl Encoding {
    /// The longest payload that may be deflated, in bytes.
    #[must_use]
    pub fn deflates_up_to(self) -> usize {
        match self {
            Self::Plain => 0,
            Self::Deflated | Self::DeflatedInRuns => usize::MAX,
            Self::DeflatedWithin(window_bits) => 1 << window_bits.min(15),
        }
    }

    /// The same where no message may refer to another.
    #[must_use]
    pub fn alone(self) -> Self {
        if self == Self::DeflatedInRuns { Self::Deflated } else { self }
    }
}

/// Deflates what is made of messages.
pub trait Deflate {
    /// Appends what a payload becomes by itself, without the tail of a flush; `false` where that saves nothing.
    fn alone(&mut self, payload: &[u8], out: &mut Vec<u8>) -> bool;

    /// Begins a run of payloads of so many bytes together; `false`: there is to be none.
    fn begin_run(&mut self, _bytes: usize) -> bool {
        false
    }

    /// Appends what the run's next payload becomes, which may refer to those before it; `false`: the run can't go on.
    fn go_on(&mut self, _payload: &[u8], _out: &mut Vec<u8>) -> bool {
        false
    }
}

impl<F: FnMut(&[u8], &mut Vec<u8>) -> bool> Deflate for F {
    fn alone(&mut self, payload: &[u8], out: &mut Vec<u8>) -> bool {
        self(payload, out)
    }
}
