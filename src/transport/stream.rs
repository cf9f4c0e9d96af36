//! The closed set of transports: TCP, and TLS over it. Owns one descriptor per connection and a bit that says which; the
//! state of TLS is its loop's ([`Tls`]), so that the slot does not grow.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, RawFd};

use super::tls::{Tls, drive};
use super::{Received, Socket};
use crate::sys::marked::MarkedSocket;
use crate::sys::socket::peer_of;

/// One accepted, non-blocking stream: four bytes, the descriptor and whether TLS is spoken over it.
///
/// Neither `std`'s type, whose calls stay calls and cost a delivery a twentieth of its instructions in user space, nor mio's,
/// which carries 12 more bytes in debug builds.
#[derive(Debug)]
pub struct Stream(MarkedSocket);

impl Stream {
    /// Plain TCP.
    ///
    /// # Errors
    /// There is no descriptor to be had but 0.
    pub fn plain(tcp: TcpStream) -> io::Result<Self> {
        MarkedSocket::new(tcp, false).map(Self)
    }

    /// TLS, whose handshake the peer begins.
    ///
    /// # Errors
    /// There is no descriptor to be had but 0.
    pub fn secure(tcp: TcpStream) -> io::Result<Self> {
        MarkedSocket::new(tcp, true).map(Self)
    }

    /// Whether TLS is spoken over it.
    #[must_use]
    pub fn is_secure(&self) -> bool {
        self.0.is_marked()
    }
}

impl AsRawFd for Stream {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl Socket for Stream {
    type Shared = Tls;

    fn read(&mut self, shared: &mut Tls, into: &mut [u8]) -> io::Result<Received> {
        if self.0.is_marked() {
            return drive::read(&mut self.0, shared, into);
        }
        match self.0.receive(into)? {
            0 => Ok(Received::End),
            // A short read is all there was.
            count => Ok(Received::Bytes { count, more: count == into.len() }),
        }
    }

    #[inline]
    fn write(&mut self, shared: &mut Tls, bytes: &[u8]) -> io::Result<usize> {
        if self.0.is_marked() {
            return drive::write(&self.0, shared, bytes);
        }
        self.0.send(bytes)
    }

    #[inline]
    fn pending(&self, shared: &Tls) -> bool {
        self.0.is_marked() && shared.is_pending(self.0.as_raw_fd())
    }

    fn end(&mut self, shared: &mut Tls) -> io::Result<()> {
        if self.0.is_marked() {
            drive::say_close(&self.0, shared)?;
        }
        self.0.lend().shutdown(Shutdown::Write)
    }

    fn forget(&mut self, shared: &mut Tls) {
        if self.0.is_marked() {
            shared.forget(self.0.as_raw_fd());
        }
    }

    fn delay_layer(&mut self, shared: &mut Tls) {
        if self.0.is_marked() {
            shared.delay(self.0.as_raw_fd());
        }
    }

    fn begin_layer(&mut self, shared: &mut Tls, rest: &[u8]) -> bool {
        self.0.is_marked() && shared.begin_with(self.0.as_raw_fd(), rest)
    }

    fn parts_in_turn(&self) -> bool {
        self.0.is_marked()
    }

    fn hears(&self, shared: &Tls) -> bool {
        !self.0.is_marked() || shared.has_agreed(self.0.as_raw_fd())
    }

    #[inline]
    fn is_shaking_hands(&self, shared: &Tls) -> bool {
        self.0.is_marked() && shared.is_shaking_hands(self.0.as_raw_fd())
    }

    fn is_answered(&self, shared: &Tls) -> bool {
        !self.0.is_marked() || shared.is_answered(self.0.as_raw_fd())
    }

    fn subject(&self, shared: &Tls) -> Option<Box<str>> {
        if self.0.is_marked() { shared.subject(self.0.as_raw_fd()).map(Box::from) } else { None }
    }

    fn peer(&self) -> Option<SocketAddr> {
        // The kernel knows it for as long as the connection lasts, so it is stored nowhere else.
        peer_of(&*self.0.lend()).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_its_descriptor() {
        assert_eq!(size_of::<Stream>(), 4);
        assert_eq!(size_of::<Option<Stream>>(), 4, "the descriptor's niche serves the slab's free list");
    }
}
