//! The byte stream under a connection.
//!
//! Owns the seam between the event loop and whatever carries bytes: [`Stream`] is the closed set of
//! transports, [`Socket`] is what the loop core asks of one, so that a simulation can stand in for the
//! kernel. What all streams of a loop have beside the kernel is theirs together ([`Socket::Shared`]), so that a stream
//! is no larger for it. Driven by the event loop's turns. Never knows a protocol.

mod fault;
mod stream;
pub mod tls;

use std::io;
use std::net::SocketAddr;

pub use fault::{Fault, Unaccepted};
pub use stream::Stream;
pub use tls::Tally;

/// What one read brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// Bytes.
    Bytes {
        /// How many of the buffer; at least one.
        count: usize,
        /// Whether there may be more that no event will tell of. Only the transport knows: of the kernel a read that
        /// did not fill the buffer has left nothing, and a layer above it may hold what it has opened.
        more: bool,
    },
    /// Nothing for the reader: what came was for a layer above the kernel, or a part of something. There is no more but,
    /// perhaps, the end of the stream.
    Nothing,
    /// The peer's end of stream.
    End,
    /// A layer above the kernel met what it can't take. It has said so to the peer; what comes now is read to be thrown
    /// away, and nothing more can be written.
    Fault(Fault),
}

/// What the streams of one loop have beside the kernel.
pub trait Beside: Default {
    /// Whether there was any yet: where there was none, nothing else needs to be asked.
    #[inline]
    fn is_used(&self) -> bool {
        false
    }

    /// Bytes that have arrived in part, over all of them.
    fn held_bytes(&self) -> usize {
        0
    }

    /// Bytes that were taken to be sent and are not with the kernel, over all of them.
    fn begun_bytes(&self) -> usize {
        0
    }

    /// What was done since the last call beyond the moving of bytes, as so many bytes moved.
    fn take_effort(&mut self) -> u64 {
        0
    }

    /// Handshakes so far.
    fn tally(&self) -> Tally {
        Tally::default()
    }
}

impl Beside for () {}

/// What the loop core asks of a non-blocking byte stream. Every call returns at once, and no caller asks what kind of
/// stream it is.
pub trait Socket {
    /// What the streams of one loop have beside the kernel: one for each loop, made with it.
    type Shared: Beside;

    /// Reads what has arrived.
    ///
    /// # Errors
    /// `WouldBlock` when nothing is there, `Interrupted` is retried inside, anything else ends the stream.
    fn read(&mut self, shared: &mut Self::Shared, into: &mut [u8]) -> io::Result<Received>;

    /// Takes bytes and returns how many, at least one unless `bytes` is empty. Fewer than all only if the kernel has no
    /// more room, of which an event will tell. What it has taken and not handed to the kernel is [`Self::pending`], and
    /// goes before the next bytes; without bytes it is all that there is to do.
    ///
    /// # Errors
    /// `WouldBlock` when no byte was taken, and while something is pending: the kernel will tell when there is room.
    /// Anything else ends the stream.
    fn write(&mut self, shared: &mut Self::Shared, bytes: &[u8]) -> io::Result<usize>;

    /// Whether it has taken bytes that are not with the kernel. Whoever drops it now throws them away.
    fn pending(&self, _: &Self::Shared) -> bool {
        false
    }

    /// Sends end of stream after everything already written. A handshake that is under way is given up by that: nobody could
    /// hear its end, and what comes is read to be thrown away.
    ///
    /// # Errors
    /// `WouldBlock` when it is to be called again once there is room; any other means that the peer is gone already.
    fn end(&mut self, shared: &mut Self::Shared) -> io::Result<()>;

    /// Gives up what is shared for it. Called once, before it is dropped.
    fn forget(&mut self, _: &mut Self::Shared) {}

    /// What the peer says first lies below the layer: a header that a proxy puts in front. Until
    /// [`Self::begin_layer`], bytes are read as they come.
    fn delay_layer(&mut self, _: &mut Self::Shared) {}

    /// That has come; the layer begins with `rest`, which came behind it. `false`: there is no layer, and `rest` is what the
    /// connection has read.
    fn begin_layer(&mut self, _: &mut Self::Shared, _rest: &[u8]) -> bool {
        false
    }

    /// Whether the end of our side must not come with last words that the peer has not answered: over TLS a client
    /// takes the two together for a connection that was cut.
    fn parts_in_turn(&self) -> bool {
        false
    }

    /// Whether bytes written now could reach the peer: not before a handshake.
    fn hears(&self, _: &Self::Shared) -> bool {
        true
    }

    /// Whether a read may have to take a step of a handshake, which costs as much as many messages do.
    fn is_shaking_hands(&self, _: &Self::Shared) -> bool {
        false
    }

    /// Whether the peer's next flight could end the handshake: not before its first was answered.
    fn is_answered(&self, _: &Self::Shared) -> bool {
        true
    }

    /// Whom the certificate names that the peer has shown.
    fn subject(&self, _: &Self::Shared) -> Option<Box<str>> {
        None
    }

    /// The other end, if there is one and it has an address.
    fn peer(&self) -> Option<SocketAddr> {
        None
    }
}
