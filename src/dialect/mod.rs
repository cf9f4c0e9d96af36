//! What an upgraded connection speaks: a file or folder for each dialect.
//!
//! Driven by the event loop. A dialect never sees a socket, a slot or a lock, and never calls another one.

pub mod plain;
mod tools;

use crate::metrics::CloseReason;
use crate::topic::TopicName;

pub use tools::Tools;

/// What an open connection speaks. One byte of the slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Dialect {
    /// HTTP only, so far.
    Http,
    /// `/echo`: every message goes back to its sender.
    Echo,
    /// `/ws`: the payload is the message.
    Plain,
}

impl Dialect {
    /// The name in listings.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Echo => "echo",
            Self::Plain => "plain",
        }
    }
}

/// How an upgraded connection starts.
#[derive(Debug)]
pub struct Opening {
    /// What it speaks.
    pub dialect: Dialect,
    /// Topics it is subscribed to before the 101 is sent.
    pub topics: Vec<TopicName<'static>>,
    /// `?echo=0`.
    pub no_echo: bool,
    /// permessage-deflate was accepted.
    pub deflate: bool,
}

/// The code a close frame carries for `reason`; each dialect names its own, `None` where no frame is sent.
#[must_use]
pub fn close_code(dialect: Dialect, reason: CloseReason) -> Option<u16> {
    match dialect {
        Dialect::Http => None,
        Dialect::Echo | Dialect::Plain => plain::close_code(reason),
    }
}
