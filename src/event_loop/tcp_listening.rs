//! The listeners in the kernel: sockets on the ports that all loops share, registered with the loop's poll.
//!
//! Driven by [`super::listener`], which decides when to accept and when to give it up. Never decides anything.

use std::cell::Cell;
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

/// The listening sockets of one loop, which are closed and opened again together: one, and perhaps one beside it for
/// connections that speak TLS.
pub(super) struct TcpListening {
    first: One,
    beside: Option<One>,
    options: ListenOptions,
    /// Who is asked first next time: neither can keep the other's queue from being emptied.
    beside_first: Cell<bool>,
    /// Nobody was there when the other of the two was asked last: not before the next event is it asked again. Whether it
    /// is the one beside.
    only: Cell<Option<bool>>,
}

/// One of them.
struct One {
    listener: Option<TcpListener>,
    address: SocketAddr,
    /// Whether TLS is spoken there.
    is_secure: bool,
}

/// Where they listen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listening {
    /// For plain connections, or for those that speak TLS if no others are taken.
    pub address: SocketAddr,
    /// Whether TLS is spoken there.
    pub is_secure: bool,
    /// For those that speak TLS, beside plain ones.
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
        let first = One::listen(at.address, at.is_secure, &options, registry)?;
        let beside = at.tls.map(|address| One::listen(address, true, &options, registry)).transpose()?;
        if options.sharing == Sharing::Later {
            // It was the first. Taken back, it joins those that have come since: it gives up only where others listen.
            options.sharing = Sharing::Always;
        }
        let tls = beside.as_ref().map(|one| one.address);
        let at = Listening { address: first.address, tls, ..at };
        Ok((Self { first, beside, options, beside_first: Cell::new(false), only: Cell::new(None) }, at))
    }

    fn all(&self) -> impl Iterator<Item = &One> {
        [Some(&self.first), self.beside.as_ref()].into_iter().flatten()
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
    fn listen(
        address: SocketAddr,
        is_secure: bool,
        options: &ListenOptions,
        registry: &Registry,
    ) -> io::Result<Self> {
        let listener = listen(address, options)?;
        let address = local_of(&listener)?;
        register(registry, &listener)?;
        Ok(Self { listener: Some(listener), address, is_secure })
    }

    /// The same anew, on the port that it had.
    fn again(&self, options: &ListenOptions, registry: &Registry) -> io::Result<Self> {
        Self::listen(self.address, self.is_secure, options, registry)
    }

    /// The next one in the queue, and where it comes from.
    fn accept(&self) -> io::Result<(Stream, IpAddr)> {
        let listener = self.listener.as_ref().ok_or(io::ErrorKind::WouldBlock)?;
        let (tcp, peer) = accept(listener)?;
        let stream = if self.is_secure { Stream::secure(tcp) } else { Stream::plain(tcp) };
        Ok((stream?, peer.ip()))
    }
}

impl Listen for TcpListening {
    type Stream = Stream;
    type Registry = Registry;

    fn is_open(&self) -> bool {
        self.first.listener.is_some()
    }

    fn descriptors(&self) -> usize {
        self.open_ones().count()
    }

    fn open(&mut self, registry: &Registry) -> io::Result<()> {
        // Both or none.
        let beside = self.beside.as_ref().map(|one| one.again(&self.options, registry)).transpose()?;
        self.first = self.first.again(&self.options, registry)?;
        self.beside = beside;
        Ok(())
    }

    fn close(&mut self) {
        for one in [Some(&mut self.first), self.beside.as_mut()].into_iter().flatten() {
            one.listener = None;
        }
    }

    fn ignore_connects(&self) -> io::Result<()> {
        self.open_ones().try_for_each(ignore_connects)
    }

    fn accept(&self) -> io::Result<(Stream, IpAddr)> {
        let Some(beside) = &self.beside else { return self.first.accept() };
        let nobody = |tried: &io::Result<_>| {
            tried.as_ref().is_err_and(|e: &io::Error| e.kind() == io::ErrorKind::WouldBlock)
        };
        let accept = |is_beside: bool| if is_beside { beside.accept() } else { self.first.accept() };
        let turn = || self.beside_first.replace(!self.beside_first.get());
        let beside_first = self.only.get().unwrap_or_else(turn);
        let accepted = accept(beside_first);
        if !nobody(&accepted) || self.only.take().is_some() {
            return accepted;
        }
        let accepted = accept(!beside_first);
        self.only.set((!nobody(&accepted)).then_some(!beside_first));
        accepted
    }

    fn on_event(&self) {
        self.only.set(None);
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
    use std::net::TcpStream;
    use std::time::{Duration, Instant};

    use mio::Poll;
    use socket2::SockRef;

    use super::*;

    #[test]
    fn the_first_listener_of_a_port_joins_the_others_when_it_is_taken_back() {
        let poll = Poll::new().unwrap();
        let first = ListenOptions { sharing: Sharing::Later, ..ListenOptions::default() };
        let local = SocketAddr::from((std::net::Ipv4Addr::LOCALHOST, 0));
        let local = Listening { address: local, is_secure: false, tls: Some(local) };
        let (mut first, address) = TcpListening::new(local, first, poll.registry()).unwrap();
        let other = ListenOptions { sharing: Sharing::Always, ..ListenOptions::default() };
        let (_other, _) = TcpListening::new(address, other, poll.registry()).unwrap();
        first.close();
        first.open(poll.registry()).unwrap();
        assert!(first.is_open());
    }

    /// Waits until so many wait to be accepted: for a listener proc(5) has them in the place of bytes to be read.
    fn await_queue(listener: SocketAddr, waiting: u32) {
        let until = Instant::now() + Duration::from_secs(20);
        let port = format!(":{:04X}", listener.port());
        let queue = || {
            let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
            let mut lines = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
            let line = lines.find(|words| words[1].ends_with(&port) && words[3] == "0A").unwrap();
            u32::from_str_radix(line[4].split_once(':').unwrap().1, 16).unwrap()
        };
        while queue() < waiting {
            assert!(Instant::now() < until, "a connect is on its way");
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_queue_that_was_empty_is_asked_again_after_an_event_and_behind_the_other() {
        let poll = Poll::new().unwrap();
        let local = SocketAddr::from((std::net::Ipv4Addr::LOCALHOST, 0));
        let local = Listening { address: local, is_secure: false, tls: Some(local) };
        let (listening, at) = TcpListening::new(local, ListenOptions::default(), poll.registry()).unwrap();
        let secure = at.tls.unwrap();
        let mut clients = Vec::new();
        let mut connect = |to: SocketAddr, waiting: u32| {
            clients.push(TcpStream::connect(to).unwrap());
            await_queue(to, waiting);
        };
        let took = |listening: &TcpListening| match listening.accept() {
            Ok((stream, _)) => Some(stream.is_secure()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            Err(error) => panic!("{error}"),
        };
        (1..=4).for_each(|waiting| connect(secure, waiting));
        assert_eq!(took(&listening), Some(true));
        connect(at.address, 1);
        assert_eq!(took(&listening), Some(true), "the plain one was empty, and no event has come");
        listening.on_event();
        let two = [took(&listening), took(&listening)];
        assert!(two.contains(&Some(false)), "{two:?}");
        connect(at.address, 1);
        let rest = [took(&listening), took(&listening), took(&listening), took(&listening)];
        assert!(rest.contains(&Some(false)), "what nobody has told of is found behind the end: {rest:?}");
        assert_eq!(rest.iter().flatten().count(), 2);
    }

    #[test]
    fn a_listener_has_the_newest_user_timeout_even_if_it_is_taken_back() {
        let poll = Poll::new().unwrap();
        let options = ListenOptions { user_timeout_ms: 1_000, ..ListenOptions::default() };
        let local = SocketAddr::from((std::net::Ipv4Addr::LOCALHOST, 0));
        let local = Listening { address: local, is_secure: false, tls: Some(local) };
        let (mut listening, _) = TcpListening::new(local, options, poll.registry()).unwrap();
        listening.set_user_timeout(2_000);
        let of = |listening: &TcpListening| {
            SockRef::from(listening.first.listener.as_ref().unwrap()).tcp_user_timeout().unwrap()
        };
        assert_eq!(of(&listening), Some(Duration::from_secs(2)));
        listening.close();
        assert!(!listening.is_open());
        listening.set_user_timeout(3_000);
        listening.open(poll.registry()).unwrap();
        assert_eq!(of(&listening), Some(Duration::from_secs(3)));
    }
}
