//! The listeners in the kernel: sockets on the ports that all loops share, registered with the loop's poll.
//!
//! Driven by [`super::listener`], which decides when to accept and when to give it up. Never decides anything.

use std::cell::Cell;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
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

/// The listening sockets of one loop, which are closed and opened again together: one for plain connections, and perhaps
/// one for those that speak TLS.
pub(super) struct TcpListening {
    plain: One,
    secure: Option<One>,
    options: ListenOptions,
    /// Who is asked first next time: neither can keep the other's queue from being emptied.
    secure_first: Cell<bool>,
}

/// One of them.
struct One {
    listener: Option<TcpListener>,
    address: SocketAddr,
}

/// Where they listen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listening {
    /// For plain connections.
    pub address: SocketAddr,
    /// For those that speak TLS.
    pub tls: Option<SocketAddr>,
}

impl TcpListening {
    /// Listens; where it does, with the ports that the kernel chose if they were 0.
    ///
    /// # Errors
    /// The kernel's, on binding.
    pub(super) fn new(
        at: Listening,
        mut options: ListenOptions,
        registry: &Registry,
    ) -> io::Result<(Self, Listening)> {
        let plain = One::listen(at.address, &options, registry)?;
        let secure = at.tls.map(|address| One::listen(address, &options, registry)).transpose()?;
        if options.sharing == Sharing::Later {
            // It was the first. Taken back, it joins those that have come since: it gives up only where others listen.
            options.sharing = Sharing::Always;
        }
        let at = Listening { address: plain.address, tls: secure.as_ref().map(|one| one.address) };
        Ok((Self { plain, secure, options, secure_first: Cell::new(false) }, at))
    }

    fn all(&self) -> impl Iterator<Item = &One> {
        [Some(&self.plain), self.secure.as_ref()].into_iter().flatten()
    }

    fn open_ones(&self) -> impl Iterator<Item = &TcpListener> {
        self.all().filter_map(|one| one.listener.as_ref())
    }

    /// Gives whoever connects from now on another TCP_USER_TIMEOUT. Those who are there keep theirs: a system call for
    /// each of them would be a long turn, and their own timeouts have followed the reload.
    pub(super) fn set_user_timeout(&mut self, user_timeout_ms: u32) {
        if self.options.user_timeout_ms == user_timeout_ms {
            return;
        }
        self.options.user_timeout_ms = user_timeout_ms;
        for listener in self.open_ones() {
            if let Err(error) = set_user_timeout(listener, user_timeout_ms) {
                tracing::warn!(%error, "TCP_USER_TIMEOUT stays as it was");
            }
        }
    }
}

impl One {
    fn listen(address: SocketAddr, options: &ListenOptions, registry: &Registry) -> io::Result<Self> {
        let listener = listen(address, options)?;
        let address = local_of(&listener)?;
        register(registry, &listener)?;
        Ok(Self { listener: Some(listener), address })
    }

    /// The next one in the queue, and where it comes from.
    fn accept(&self) -> io::Result<(TcpStream, IpAddr)> {
        let listener = self.listener.as_ref().ok_or(io::ErrorKind::WouldBlock)?;
        accept(listener).map(|(tcp, peer)| (tcp, peer.ip()))
    }
}

impl Listen for TcpListening {
    type Stream = Stream;
    type Registry = Registry;

    fn is_open(&self) -> bool {
        self.plain.listener.is_some()
    }

    fn descriptors(&self) -> usize {
        self.open_ones().count()
    }

    fn open(&mut self, registry: &Registry) -> io::Result<()> {
        // Both or none.
        let secure =
            self.secure.as_ref().map(|one| One::listen(one.address, &self.options, registry)).transpose()?;
        self.plain = One::listen(self.plain.address, &self.options, registry)?;
        self.secure = secure;
        Ok(())
    }

    fn close(&mut self) {
        for one in [Some(&mut self.plain), self.secure.as_mut()].into_iter().flatten() {
            one.listener = None;
        }
    }

    fn ignore_connects(&self) -> io::Result<()> {
        self.open_ones().try_for_each(ignore_connects)
    }

    fn accept(&self) -> io::Result<(Stream, IpAddr)> {
        let plain = || self.plain.accept().and_then(|(tcp, peer)| Ok((Stream::plain(tcp)?, peer)));
        let Some(secure) = &self.secure else { return plain() };
        let secure = || secure.accept().and_then(|(tcp, peer)| Ok((Stream::secure(tcp)?, peer)));
        let nobody = |tried: &io::Result<_>| {
            tried.as_ref().is_err_and(|e: &io::Error| e.kind() == io::ErrorKind::WouldBlock)
        };
        let secure_first = self.secure_first.replace(!self.secure_first.get());
        let first = if secure_first { secure() } else { plain() };
        match nobody(&first) {
            true if secure_first => plain(),
            true => secure(),
            false => first,
        }
    }

    fn register(&self, key: Key, stream: &Stream, registry: &Registry) -> io::Result<()> {
        // Both interests once and for good, edge-triggered: toggling would cost a system call each time.
        let interest = Interest::READABLE | Interest::WRITABLE;
        registry.register(&mut SourceFd(&stream.as_raw_fd()), token_of(key), interest)
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
        let local = SocketAddr::from((std::net::Ipv4Addr::LOCALHOST, 0));
        let local = Listening { address: local, tls: Some(local) };
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
        let local = SocketAddr::from((std::net::Ipv4Addr::LOCALHOST, 0));
        let local = Listening { address: local, tls: Some(local) };
        let (mut listening, _) = TcpListening::new(local, options, poll.registry()).unwrap();
        listening.set_user_timeout(2_000);
        let of = |listening: &TcpListening| {
            SockRef::from(listening.plain.listener.as_ref().unwrap()).tcp_user_timeout().unwrap()
        };
        assert_eq!(of(&listening), Some(Duration::from_secs(2)));
        listening.close();
        assert!(!listening.is_open());
        listening.set_user_timeout(3_000);
        listening.open(poll.registry()).unwrap();
        assert_eq!(of(&listening), Some(Duration::from_secs(3)));
    }
}
