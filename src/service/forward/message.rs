//! One forwarded message, and what became of it.
//!
//! Made by the loop that has read it, carried by the service, told to that loop again. Plain data.

use std::net::IpAddr;
use std::sync::Arc;

use crate::auth::Identity;
use crate::topic::Key;

/// A connection: its loop, and its key there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Sender {
    /// The loop.
    pub loop_index: usize,
    /// The connection's key on it, which no other connection has.
    pub key: Key,
}

/// What a client has sent to a topic that is the application's.
#[derive(Clone, Debug)]
pub struct Message {
    /// From whom.
    pub sender: Sender,
    /// To which topic.
    pub topic: Box<str>,
    /// Whether the payload is binary.
    pub binary: bool,
    /// Whether the payload is a JSON object or list that every reader takes.
    pub document: bool,
    /// The payload; UTF-8 unless it is binary.
    pub payload: Box<[u8]>,
    /// To whom the connection belongs.
    pub identity: Option<Arc<Identity>>,
    /// By what admission knows the client's address; 0 if no limit asks for it.
    pub admission: u32,
    /// The client's address, if it is known.
    pub address: Option<IpAddr>,
    /// What the connection speaks.
    pub dialect: &'static str,
    /// The client's own name of the request, as JSON.
    pub request: Option<Box<str>>,
    /// Its number: no other message of this process has it.
    pub number: u64,
    /// When it was sent, in milliseconds since 1970.
    pub time_ms: u64,
    /// When it was taken, by the service's clock.
    pub taken_ms: u64,
}

impl Message {
    /// Bytes that it holds outside itself. Of whom it is counts whole, though messages of a connection share that: it is told with
    /// each of them, and each keeps it for as long as it waits, whatever token the connection has shown since.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let identity = self.identity.as_deref().map_or(0, Identity::memory);
        self.topic.len() + self.payload.len() + self.request.as_deref().map_or(0, str::len) + identity
    }
}

/// A payload of the application's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    /// A JSON value that is no string.
    Json(Box<str>),
    /// Text.
    Text(Box<str>),
    /// Bytes.
    Binary(Box<[u8]>),
}

impl Payload {
    /// Whether it is binary.
    #[must_use]
    pub fn is_binary(&self) -> bool {
        matches!(self, Self::Binary(_))
    }

    /// Its bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Json(text) | Self::Text(text) => text.as_bytes(),
            Self::Binary(bytes) => bytes,
        }
    }
}

/// What became of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The application has taken it, and may have something to say to its sender.
    Taken(Option<Payload>),
    /// The application refuses it.
    Refused {
        /// A word for programs.
        code: Box<str>,
        /// What is wrong, for people.
        text: Box<str>,
    },
    /// Nobody knows whether the application has taken it.
    Failed,
}

/// What a sender is told of one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// The topic.
    pub topic: Box<str>,
    /// The client's own name of the request.
    pub request: Option<Box<str>>,
    /// What became of it.
    pub fate: Fate,
    /// The connection is to end behind that, with this code and text.
    pub close: Option<(u16, Box<str>)>,
}

impl Told {
    /// What became of a message.
    #[must_use]
    pub fn of(message: &Message, fate: Fate, close: Option<(u16, Box<str>)>) -> Self {
        Self { topic: message.topic.clone(), request: message.request.clone(), fate, close }
    }
}
