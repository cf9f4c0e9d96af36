//! A socket with one bit beside its descriptor, in four bytes. Moves bytes by
//! one call each; says what the bit means to nobody.

use std::io;
use std::mem::ManuallyDrop;
use std::net::TcpStream;
use std::num::NonZeroI32;
use std::ops::Deref;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};

/// A TCP socket, closed when this is dropped, and whether it is marked: its descriptor, which is negative if it is.
#[derive(Debug)]
pub struct MarkedSocket(NonZeroI32);

/// A socket that is lent.
#[derive(Debug)]
pub struct Lent<'a> {
    socket: ManuallyDrop<TcpStream>,
    _owner: &'a MarkedSocket,
}

impl MarkedSocket {
    /// Takes a socket.
    ///
    /// # Errors
    /// It has descriptor 0, which can't be told from its negative, and there is no other to be had.
    pub fn new(socket: TcpStream, marked: bool) -> io::Result<Self> {
        // That of standard input, which a process has closed that accepts a connection under it.
        let socket = if socket.as_raw_fd() == 0 { socket.try_clone()? } else { socket };
        let fd = NonZeroI32::new(socket.into_raw_fd()).ok_or(io::ErrorKind::InvalidInput)?;
        Ok(Self(if marked { -fd } else { fd }))
    }

    /// Whether it is.
    #[inline]
    #[must_use]
    pub fn is_marked(&self) -> bool {
        self.0.get() < 0
    }

    /// Takes the mark away.
    pub fn unmark(&mut self) {
        self.0 = self.0.abs();
    }

    /// Sends what the kernel takes of it at once, in one call; a signal that interrupts it does not count.
    ///
    /// # Errors
    /// Those of send(2); the peer's going is one of them and no signal.
    #[inline]
    pub fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            // SAFETY: the descriptor is open for as long as `self` is borrowed, and the kernel only reads those bytes.
            let sent = unsafe {
                libc::send(self.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), libc::MSG_NOSIGNAL)
            };
            if let Some(outcome) = outcome(sent) {
                return outcome;
            }
        }
    }

    /// Receives what has come, in one call; 0 is the end of the stream. A signal that interrupts it does not count.
    ///
    /// # Errors
    /// Those of recv(2).
    #[inline]
    pub fn receive(&self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            // SAFETY: the descriptor is open for as long as `self` is borrowed, and the kernel only writes to those bytes,
            // which nobody else has.
            let came = unsafe { libc::recv(self.as_raw_fd(), into.as_mut_ptr().cast(), into.len(), 0) };
            if let Some(outcome) = outcome(came) {
                return outcome;
            }
        }
    }

    /// The socket.
    #[inline]
    #[must_use]
    pub fn lend(&self) -> Lent<'_> {
        // SAFETY: the descriptor is open for as long as `self` is borrowed, and never closed by what is lent.
        let socket = ManuallyDrop::new(unsafe { TcpStream::from_raw_fd(self.as_raw_fd()) });
        Lent { socket, _owner: self }
    }
}

impl Deref for Lent<'_> {
    type Target = TcpStream;

    #[inline]
    fn deref(&self) -> &TcpStream {
        &self.socket
    }
}

impl AsRawFd for MarkedSocket {
    #[inline]
    fn as_raw_fd(&self) -> RawFd {
        self.0.get().abs()
    }
}

impl Drop for MarkedSocket {
    fn drop(&mut self) {
        // SAFETY: `new` took the descriptor from its owner, and nobody else has it.
        drop(unsafe { OwnedFd::from_raw_fd(self.as_raw_fd()) });
    }
}

/// What a call that moves bytes has come to; `None` if a signal interrupted it.
#[inline]
fn outcome(count: libc::ssize_t) -> Option<io::Result<usize>> {
    if let Ok(count) = usize::try_from(count) {
        return Some(Ok(count));
    }
    let error = io::Error::last_os_error();
    (error.kind() != io::ErrorKind::Interrupted).then_some(Err(error))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn it_is_four_bytes_and_closes_what_it_took() {
        assert_eq!((size_of::<MarkedSocket>(), size_of::<Option<MarkedSocket>>()), (4, 4));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        for marked in [false, true] {
            let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (socket, _) = listener.accept().unwrap();
            let fd = socket.as_raw_fd();
            let mut socket = MarkedSocket::new(socket, marked).unwrap();
            assert_eq!((socket.as_raw_fd(), socket.is_marked()), (fd, marked));
            (&*socket.lend()).write_all(b"a").unwrap();
            socket.unmark();
            assert_eq!((socket.as_raw_fd(), socket.is_marked()), (fd, false));
            (&*socket.lend()).write_all(b"b").unwrap();
            drop(socket);
            let mut heard = Vec::new();
            client.read_to_end(&mut heard).unwrap();
            assert_eq!(heard, b"ab");
        }
    }
}
