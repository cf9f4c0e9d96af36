//! The byte stream under a connection.
//!
//! Owns the seam between the event loop and whatever carries bytes: [`Stream`] is the closed set of
//! transports, [`Socket`] is what the loop core asks of one, so that a simulation can stand in for the
//! kernel. Driven by the event loop's turns. Never knows a protocol.

mod stream;

use std::io;
use std::net::SocketAddr;

pub use stream::Stream;

/// What the loop core asks of a non-blocking byte stream. Every call returns at once.
pub trait Socket {
    /// Reads what has arrived; `Ok(0)` is the peer's end of stream.
    ///
    /// # Errors
    /// `WouldBlock` when nothing is there, `Interrupted` is retried inside, anything else ends the stream.
    fn try_read(&mut self, into: &mut [u8]) -> io::Result<usize>;

    /// Hands bytes to the kernel and returns how many it took (at least one unless `bytes` is empty).
    ///
    /// # Errors
    /// `WouldBlock` when the send queue is full; anything else ends the stream.
    fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize>;

    /// Sends end of stream after everything already written. Errors mean that the peer is gone already.
    ///
    /// # Errors
    /// The kernel's, `NotConnected` as a rule.
    fn shutdown_write(&mut self) -> io::Result<()>;

    /// The other end, if there is one and it has an address.
    fn peer(&self) -> Option<SocketAddr> {
        None
    }
}
