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

/// How far a connection may be sent a form's frames deflated. Closed: what needs a subscriber's own input is no
/// encoding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encoding {
    /// The payload as it is.
    #[default]
    Plain,
    /// permessage-deflate without context takeover (RFC 7692), where that made the frame smaller.
    Deflated,
    /// The same for a connection whose window is 2 to the power of so many bytes (RFC 7692 section 7.1.2.1): a payload
    /// of at most that many can't refer further back; what is longer goes out plain.
    DeflatedWithin(u8),
}

impl Encoding {
    /// The longest payload that may be deflated, in bytes.
    #[must_use]
    pub fn deflates_up_to(self) -> usize {
        match self {
            Self::Plain => 0,
            Self::Deflated => usize::MAX,
            Self::DeflatedWithin(window_bits) => 1 << window_bits.min(15),
        }
    }
}
