//! The loop's listener: accepting within the limits, giving it up at the cap, taking it back below it.
//!
//! Every loop has a listener of its own on the same port (SO_REUSEPORT). One whose table is full closes it, so
//! that the kernel sends newcomers to the others; the last one stays and answers 503. Who is let in is decided
//! in `admission`.
//!
//! On a port that other processes share, a listener that is given up for good first ignores new connects for
//! nearly a second and takes those that are under way, because closing it would reset them.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering;
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};

use super::core::Core;
use super::run::{LISTENER, token_of};
use crate::connection::{TICK_MS, Tick};
use crate::edition::Port;
use crate::sys::socket::{
    ListenOptions, Sharing, accept, ignore_connects, listen, local_of, set_user_timeout,
};
use crate::transport::Stream;

/// Connections accepted in one turn.
const ACCEPTS_PER_TURN: usize = 128;

/// Connections of the kernel's queue that are still taken when a listener is given up, in turns' worth: more
/// than any backlog, and an end for a flood that refills the queue meanwhile.
const LAST_TURNS: usize = 1 + 65_536 / ACCEPTS_PER_TURN;

/// Ticks for which a listener ignores connects before it leaves a port that others share: as long as a handshake
/// under way may take, and short of the second (RFC 6298, 2.1) after which clients repeat what was ignored. By
/// then it is gone, and they reach the others.
const LEAVING_TICKS: Tick = 9;

/// Ticks after which the listeners of all loops are gone for sure, so that clients may be sent away: one more,
/// for loops that were busy.
const SETTLED_TICKS: Tick = LEAVING_TICKS + 1;

/// How long a drain waits for its listeners to leave a port that others share.
pub(super) const LEAVING_TIME: Duration = Duration::from_millis(SETTLED_TICKS as u64 * TICK_MS);

/// Where a listener is on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leaving {
    /// It isn't.
    Not,
    /// It ignores connects and is closed at this tick.
    ClosesAt(Tick),
    /// It is closed; those of the other loops are, too, at this tick.
    SettledAt(Tick),
    /// Given up for good.
    Gone,
}

/// One loop's listener and what it owes.
pub(super) struct Acceptor {
    listener: Option<TcpListener>,
    address: SocketAddr,
    options: ListenOptions,
    /// Connections this loop may hold.
    capacity: usize,
    /// The kernel may have more: no edge will tell.
    owed: bool,
    /// Not before this tick, after the kernel ran out of something.
    not_before: Tick,
    leaving: Leaving,
}

impl Acceptor {
    /// Listens on `address`.
    ///
    /// # Errors
    /// The kernel's, on binding.
    pub(super) fn new(
        address: SocketAddr,
        mut options: ListenOptions,
        capacity: usize,
        registry: &Registry,
    ) -> io::Result<(Self, SocketAddr)> {
        let listener = listen(address, &options)?;
        if options.sharing == Sharing::Later {
            // A listener that is taken back comes to those of the other loops.
            options.sharing = Sharing::Always;
        }
        let address = local_of(&listener)?;
        register(registry, &listener)?;
        let acceptor = Self {
            listener: Some(listener),
            address,
            options,
            capacity,
            owed: false,
            not_before: 0,
            leaving: Leaving::Not,
        };
        Ok((acceptor, address))
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

    /// The listener's event came.
    pub(super) fn on_event(&mut self) {
        self.owed = true;
    }

    /// Descriptors it holds.
    pub(super) fn descriptors(&self) -> usize {
        usize::from(self.listener.is_some())
    }

    /// Whether a turn would do something now.
    pub(super) fn has_work(&self, core: &Core<Stream>) -> bool {
        let accepts = self.not_before <= core.now
            && match self.listener {
                Some(_) => self.owed,
                None => self.may_take_back(core),
            };
        accepts || self.leaves_at().is_some_and(|tick| tick <= core.now)
    }

    /// The tick at which there is something to do that no event tells, if there is.
    pub(super) fn next_tick(&self, core: &Core<Stream>) -> Option<Tick> {
        let waits = self.owed || self.may_take_back(core);
        let put_off = (waits && self.not_before > core.now).then_some(self.not_before);
        [put_off, self.leaves_at()].into_iter().flatten().min()
    }

    /// Accepts, gives up or takes back, within one turn's budget.
    pub(super) fn turn(&mut self, core: &mut Core<Stream>, registry: &Registry) {
        self.listener_turn(core, registry);
        let accepts =
            self.listener.is_some() && self.not_before <= core.now && core.admitted() < self.capacity;
        core.edition.health[core.index].set_accepts(accepts);
    }

    fn listener_turn(&mut self, core: &mut Core<Stream>, registry: &Registry) {
        if self.leaving != Leaving::Not {
            return self.leaving_turn(core, registry);
        }
        if self.listener.is_none() {
            return self.try_take_back(core, registry);
        }
        if self.has_work(core) {
            self.accept_some(core, registry, ACCEPTS_PER_TURN);
        }
        if core.admitted() >= self.capacity && core.port == Port::Client {
            let listening = &core.edition.listening;
            let give_up = |count: usize| (count > 1).then(|| count - 1);
            if listening.fetch_update(Ordering::Relaxed, Ordering::Relaxed, give_up).is_ok() {
                tracing::warn!(
                    loop_index = core.index,
                    connections = core.connections(),
                    "this loop is full; newcomers go to the others"
                );
                self.give_up(core, registry);
            }
        }
    }

    /// Stops listening for good; whoever has begun to connect is still taken. If others share the port this takes
    /// [`LEAVING_TIME`].
    pub(super) fn leave(&mut self, core: &mut Core<Stream>, registry: &Registry) {
        if self.leaving != Leaving::Not {
            return;
        }
        self.leaving = Leaving::Gone;
        if core.edition.settings.server.share_port {
            match self.listener.as_ref().map(ignore_connects) {
                Some(Ok(())) => {
                    self.leaving = Leaving::ClosesAt(core.now + LEAVING_TICKS);
                    return;
                }
                Some(Err(error)) => tracing::warn!(
                    loop_index = core.index,
                    %error,
                    "the listener is closed at once; connects under way may be reset"
                ),
                None => {}
            }
            // The other loops take their time.
            self.leaving = Leaving::SettledAt(core.now + SETTLED_TICKS);
        }
        if self.listener.is_some() {
            self.give_up(core, registry);
        }
    }

    /// Whether the listeners of all loops are given up for good, so that clients may be sent away.
    pub(super) fn is_gone(&self) -> bool {
        self.leaving == Leaving::Gone
    }

    fn leaving_turn(&mut self, core: &mut Core<Stream>, registry: &Registry) {
        match self.leaving {
            Leaving::ClosesAt(tick) if tick <= core.now => {
                self.give_up(core, registry);
                self.leaving = Leaving::SettledAt(tick + SETTLED_TICKS - LEAVING_TICKS);
            }
            Leaving::ClosesAt(_) if self.has_work(core) => {
                self.accept_some(core, registry, ACCEPTS_PER_TURN);
            }
            Leaving::SettledAt(tick) if tick <= core.now => self.leaving = Leaving::Gone,
            _ => {}
        }
    }

    fn leaves_at(&self) -> Option<Tick> {
        match self.leaving {
            Leaving::ClosesAt(tick) | Leaving::SettledAt(tick) => Some(tick),
            Leaving::Not | Leaving::Gone => None,
        }
    }

    /// Takes whoever is in the queue, since closing a listener resets them, then closes it.
    fn give_up(&mut self, core: &mut Core<Stream>, registry: &Registry) {
        self.owed = true;
        self.not_before = 0;
        for _ in 0..LAST_TURNS {
            if !self.owed || self.not_before > core.now {
                break;
            }
            self.accept_some(core, registry, ACCEPTS_PER_TURN);
        }
        self.owed = false;
        self.listener = None;
    }

    fn try_take_back(&mut self, core: &mut Core<Stream>, registry: &Registry) {
        if !self.may_take_back(core) || self.not_before > core.now {
            return;
        }
        let taken = listen(self.address, &self.options).and_then(|listener| {
            register(registry, &listener)?;
            Ok(listener)
        });
        match taken {
            Ok(listener) => {
                tracing::info!(loop_index = core.index, "this loop has room again");
                self.listener = Some(listener);
                self.owed = true;
                core.edition.listening.fetch_add(1, Ordering::Relaxed);
            }
            Err(_) => self.not_before = core.now + 1,
        }
    }

    /// Whether the listener was given up and there is room again.
    fn may_take_back(&self, core: &Core<Stream>) -> bool {
        self.listener.is_none() && self.leaving == Leaving::Not && core.admitted() * 100 < self.capacity * 95
    }

    fn accept_some(&mut self, core: &mut Core<Stream>, registry: &Registry, count: usize) {
        for _ in 0..count {
            // Descriptors are counted before accept: EMFILE would leave the peer hanging in the queue. Above the
            // capacity there are a few for those being refused and one for each that is turned away at once.
            let Some(listener) = &self.listener else { return };
            match accept(listener) {
                Ok((tcp, peer)) => take(core, registry, tcp, peer.ip(), self.capacity),
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock => {
                        self.owed = false;
                        return;
                    }
                    ErrorKind::Interrupted | ErrorKind::ConnectionAborted => {}
                    _ => {
                        self.not_before = core.now + 1;
                        core.counters.accept_errors.add(1);
                        tracing::warn!(loop_index = core.index, %error, "accepting is put off by 0.1 s");
                        return;
                    }
                },
            }
        }
    }
}

fn take(core: &mut Core<Stream>, registry: &Registry, tcp: TcpStream, peer: IpAddr, capacity: usize) {
    let full = core.admitted() >= capacity;
    let arrival = core.admit(peer, full);
    if let Some(reason) = arrival.refused
        && !core.may_refuse_properly()
    {
        return core.refuse_at_once(Stream::Tcp(tcp), reason);
    }
    core.counters.accepted.add(1);
    let fd = tcp.as_raw_fd();
    let key = core.on_accepted(Stream::Tcp(tcp), arrival);
    // Both interests once and for good, edge-triggered: toggling would cost a system call each time.
    let interest = Interest::READABLE | Interest::WRITABLE;
    if registry.register(&mut SourceFd(&fd), token_of(key), interest).is_err() {
        core.abort(key, crate::metrics::CloseReason::Io);
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
    fn a_listener_has_the_newest_user_timeout_even_if_it_is_taken_back() {
        let poll = Poll::new().unwrap();
        let options = ListenOptions { user_timeout_ms: 1_000, ..ListenOptions::default() };
        let local = (std::net::Ipv4Addr::LOCALHOST, 0).into();
        let (mut acceptor, _) = Acceptor::new(local, options, 10, poll.registry()).unwrap();
        acceptor.set_user_timeout(2_000);
        let of = |listener: &TcpListener| SockRef::from(listener).tcp_user_timeout().unwrap();
        assert_eq!(acceptor.listener.as_ref().map(of), Some(Some(Duration::from_secs(2))));
        acceptor.listener = None;
        acceptor.set_user_timeout(3_000);
        let again = listen(local, &acceptor.options).unwrap();
        assert_eq!(of(&again), Some(Duration::from_secs(3)));
    }
}
