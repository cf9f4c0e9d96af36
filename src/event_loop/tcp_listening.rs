//! The listeners in the kernel: sockets on the ports that all loops share, registered with the loop's poll.
//!
//! Driven by [`super::listener`], which decides when to accept and when to give it up. Never decides anything.

use std::cell::Cell;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::fd::AsRawFd;

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};

use super::listener::{Listen, Which};
use super::run::{LISTENER, LISTENER_BESIDE, token_of};
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
    next: Cell<Which>,
}

/// One of them.
struct One {
    listener: Option<TcpListener>,
    address: SocketAddr,
    /// Whether TLS is spoken there.
    is_secure: bool,
    /// Somebody may be there: it was told of, and nobody has asked in vain since. The kernel tells of each who comes behind
    /// that (epoll(7), edge-triggered), so that it is asked for nothing else.
    owed: Cell<bool>,
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
        let first = One::listen(at.address, at.is_secure, &options, registry, LISTENER)?;
        let beside = |address| One::listen(address, true, &options, registry, LISTENER_BESIDE);
        let beside = at.tls.map(beside).transpose()?;
        if options.sharing == Sharing::Later {
            // It was the first. Taken back, it joins those that have come since: it gives up only where others listen.
            options.sharing = Sharing::Always;
        }
        let tls = beside.as_ref().map(|one| one.address);
        let at = Listening { address: first.address, tls, ..at };
        Ok((Self { first, beside, options, next: Cell::new(Which::First) }, at))
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
        token: usize,
    ) -> io::Result<Self> {
        let listener = listen(address, options)?;
        let address = local_of(&listener)?;
        registry.register(&mut SourceFd(&listener.as_raw_fd()), Token(token), Interest::READABLE)?;
        Ok(Self { listener: Some(listener), address, is_secure, owed: Cell::new(true) })
    }

    /// The same anew, on the port that it had.
    fn again(&self, options: &ListenOptions, registry: &Registry, token: usize) -> io::Result<Self> {
        Self::listen(self.address, self.is_secure, options, registry, token)
    }

    /// The next one in the queue, and where it comes from.
    fn accept(&self) -> io::Result<(Stream, IpAddr)> {
        let listener = self.listener.as_ref().ok_or(io::ErrorKind::WouldBlock)?;
        let (tcp, peer) = accept(listener)?;
        let stream = if self.is_secure { Stream::secure(tcp) } else { Stream::plain(tcp) };
        Ok((stream?, peer.ip()))
    }

    /// The same, if somebody may be there.
    fn accept_owed(&self) -> io::Result<(Stream, IpAddr)> {
        if !self.owed.get() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let accepted = self.accept();
        self.owed.set(!is_nobody(&accepted));
        accepted
    }
}

fn is_nobody<T>(accepted: &io::Result<T>) -> bool {
    accepted.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
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
        let again = |one: &One| one.again(&self.options, registry, LISTENER_BESIDE);
        let beside = self.beside.as_ref().map(again).transpose()?;
        self.first = self.first.again(&self.options, registry, LISTENER)?;
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
        let (one, other) = match self.next.get() {
            Which::First => (&self.first, beside),
            Which::Beside => (beside, &self.first),
        };
        self.next.set(if self.next.get() == Which::First { Which::Beside } else { Which::First });
        let accepted = one.accept_owed();
        if is_nobody(&accepted) { other.accept_owed() } else { accepted }
    }

    fn on_event(&self, which: Which) {
        match (which, &self.beside) {
            (Which::First, _) => self.first.owed.set(true),
            (Which::Beside, Some(beside)) => beside.owed.set(true),
            (Which::Beside, None) => {}
        }
    }

    fn register(&self, key: Key, stream: &Stream, registry: &Registry) -> io::Result<()> {
        // Both interests once and for good, edge-triggered: toggling would cost a system call each time.
        let interest = Interest::READABLE | Interest::WRITABLE;
        registry.register(&mut SourceFd(&stream.as_raw_fd()), token_of(key), interest)
    }
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
    fn only_who_was_told_of_is_asked_until_nobody_is_there() {
        let mut poll = Poll::new().unwrap();
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
        let mut told = |count: usize| {
            let (mut events, mut tokens) = (mio::Events::with_capacity(8), Vec::new());
            let until = Instant::now() + Duration::from_secs(20);
            while tokens.len() < count {
                assert!(Instant::now() < until, "{tokens:?}");
                poll.poll(&mut events, Some(Duration::from_millis(100))).unwrap();
                tokens.extend(events.iter().map(|event| event.token().0));
            }
            tokens
        };
        // A new one is asked without that.
        connect(secure, 1);
        assert_eq!(told(1), [LISTENER_BESIDE]);
        assert_eq!([took(&listening), took(&listening)], [Some(true), None]);
        (1..=3).for_each(|waiting| connect(secure, waiting));
        connect(at.address, 1);
        assert_eq!(took(&listening), None, "nobody is asked without an event");
        assert_eq!(told(2).len(), 2, "each has one of its own");
        listening.on_event(Which::Beside);
        let four = [took(&listening), took(&listening), took(&listening), took(&listening)];
        assert_eq!(four, [Some(true), Some(true), Some(true), None], "the other is not asked");
        listening.on_event(Which::First);
        assert_eq!([took(&listening), took(&listening)], [Some(false), None]);
        // Where both have somebody they take turns, until both have nobody.
        (1..=2).for_each(|waiting| connect(secure, waiting));
        (1..=2).for_each(|waiting| connect(at.address, waiting));
        [Which::First, Which::Beside].into_iter().for_each(|which| listening.on_event(which));
        let two = [took(&listening), took(&listening)];
        assert!(two.contains(&Some(false)) && two.contains(&Some(true)), "{two:?}");
        let rest = [took(&listening), took(&listening), took(&listening)];
        assert!(rest[..2].contains(&Some(false)) && rest[..2].contains(&Some(true)), "{rest:?}");
        assert_eq!(rest[2], None);
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
