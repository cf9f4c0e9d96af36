//! The listener in the kernel: a socket on the port that all loops share, registered with the loop's poll.
//!
//! Driven by [`super::listener`], which decides when to accept and when to give it up. Never decides anything.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::fd::AsRawFd;

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};

use super::listener::Listen;
use super::run::{LISTENER, token_of};
use crate::sys::socket::{
    ListenOptions, Sharing, accept, ignore_connects, listen, local_of, set_user_timeout,
};
use crate::topic::Key;
use crate::transport::Stream;

/// A listening socket that can be closed and opened again.
pub(super) struct TcpListening {
    listener: Option<TcpListener>,
    address: SocketAddr,
    options: ListenOptions,
}

impl TcpListening {
    /// Listens on `address`; the one it has become, with the port that the kernel chose if it was 0.
    ///
    /// # Errors
    /// The kernel's, on binding.
    pub(super) fn new(
        address: SocketAddr,
        mut options: ListenOptions,
        registry: &Registry,
    ) -> io::Result<(Self, SocketAddr)> {
        let listener = listen(address, &options)?;
        if options.sharing == Sharing::Later {
            // It was the first. Taken back, it joins those that have come since: it gives up only where others listen.
            options.sharing = Sharing::Always;
        }
        let address = local_of(&listener)?;
        register(registry, &listener)?;
        Ok((Self { listener: Some(listener), address, options }, address))
    }

    /// Gives whoever connects from now on another TCP_USER_TIMEOUT. Those who are there keep theirs: a system call for
    /// each of them would be a long turn, and their own timeouts have followed the reload.
    pub(super) fn set_user_timeout(&mut self, user_timeout_ms: u32) {
        if self.options.user_timeout_ms == user_timeout_ms {
            return;
        }
        self.options.user_timeout_ms = user_timeout_ms;
        if let Some(listener) = &self.listener
            && let Err(error) = set_user_timeout(listener, user_timeout_ms)
        {
            tracing::warn!(%error, "TCP_USER_TIMEOUT stays as it was");
        }
    }
}

impl Listen for TcpListening {
    type Stream = Stream;
    type Registry = Registry;

    fn is_open(&self) -> bool {
        self.listener.is_some()
    }

    fn open(&mut self, registry: &Registry) -> io::Result<()> {
        let listener = listen(self.address, &self.options)?;
        register(registry, &listener)?;
        self.listener = Some(listener);
        Ok(())
    }

    fn close(&mut self) {
        self.listener = None;
    }

    fn ignore_connects(&self) -> io::Result<()> {
        self.listener.as_ref().map_or(Ok(()), ignore_connects)
    }

    fn accept(&self) -> io::Result<(Stream, IpAddr)> {
        let listener = self.listener.as_ref().ok_or(io::ErrorKind::WouldBlock)?;
        accept(listener).map(|(tcp, peer)| (Stream::Tcp(tcp), peer.ip()))
    }

    fn register(&self, key: Key, stream: &Stream, registry: &Registry) -> io::Result<()> {
        let Stream::Tcp(tcp) = stream;
        // Both interests once and for good, edge-triggered: toggling would cost a system call each time.
        let interest = Interest::READABLE | Interest::WRITABLE;
        registry.register(&mut SourceFd(&tcp.as_raw_fd()), token_of(key), interest)
    }
}

fn register(registry: &Registry, listener: &TcpListener) -> io::Result<()> {
    registry.register(&mut SourceFd(&listener.as_raw_fd()), Token(LISTENER), Interest::READABLE)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mio::Poll;
    use socket2::SockRef;

    use super::*;

    #[test]
    fn the_first_listener_of_a_port_joins_the_others_when_it_is_taken_back() {
        let poll = Poll::new().unwrap();
        let first = ListenOptions { sharing: Sharing::Later, ..ListenOptions::default() };
        let local = (std::net::Ipv4Addr::LOCALHOST, 0).into();
        let (mut first, address) = TcpListening::new(local, first, poll.registry()).unwrap();
        let other = ListenOptions { sharing: Sharing::Always, ..ListenOptions::default() };
        let (_other, _) = TcpListening::new(address, other, poll.registry()).unwrap();
        first.close();
        first.open(poll.registry()).unwrap();
        assert!(first.is_open());
    }

    #[test]
    fn a_listener_has_the_newest_user_timeout_even_if_it_is_taken_back() {
        let poll = Poll::new().unwrap();
        let options = ListenOptions { user_timeout_ms: 1_000, ..ListenOptions::default() };
        let local = (std::net::Ipv4Addr::LOCALHOST, 0).into();
        let (mut listening, _) = TcpListening::new(local, options, poll.registry()).unwrap();
        listening.set_user_timeout(2_000);
        let of = |listening: &TcpListening| {
            SockRef::from(listening.listener.as_ref().unwrap()).tcp_user_timeout().unwrap()
        };
        assert_eq!(of(&listening), Some(Duration::from_secs(2)));
        listening.close();
        assert!(!listening.is_open());
        listening.set_user_timeout(3_000);
        listening.open(poll.registry()).unwrap();
        assert_eq!(of(&listening), Some(Duration::from_secs(3)));
    }
}
