//! The closed set of transports. Owns one descriptor per connection and nothing else; TLS joins here as a
//! second variant whose state lives in the connection's session, so that the slot does not grow.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, RawFd};

use super::{Received, Socket};
use crate::sys::socket::peer_of;

/// One accepted, non-blocking stream: four bytes, the descriptor.
///
/// `std`'s `TcpStream` writes with `send(MSG_NOSIGNAL)` and reads with `recv`, one system call each. It is
/// used instead of mio's type because that carries 12 more bytes in debug builds.
#[derive(Debug)]
pub enum Stream {
    /// Plain TCP.
    Tcp(TcpStream),
}

impl AsRawFd for Stream {
    fn as_raw_fd(&self) -> RawFd {
        match self {
            Self::Tcp(tcp) => tcp.as_raw_fd(),
        }
    }
}

impl Socket for Stream {
    fn read(&mut self, into: &mut [u8]) -> io::Result<Received> {
        let Self::Tcp(tcp) = self;
        loop {
            return match tcp.read(into) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => Err(error),
                Ok(0) => Ok(Received::End),
                // A short read is all there was.
                Ok(count) => Ok(Received::Bytes { count, more: count == into.len() }),
            };
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Self::Tcp(tcp) = self;
        loop {
            match tcp.write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }

    fn end(&mut self) -> io::Result<()> {
        let Self::Tcp(tcp) = self;
        tcp.shutdown(Shutdown::Write)
    }

    fn peer(&self) -> Option<SocketAddr> {
        let Self::Tcp(tcp) = self;
        // The kernel knows it for as long as the connection lasts, so it is stored nowhere else.
        peer_of(tcp).ok()
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
