//! The loop's listener: accepting within the limits, giving it up at the cap, taking it back below it.
//!
//! Every loop has a listener of its own on the same port (SO_REUSEPORT). One whose table is full closes it, so
//! that the kernel sends newcomers to the others; the last one stays and answers 503. Who is let in is decided
//! in `admission`.
//!
//! On a port that other processes share, a listener that is given up for good first ignores new connects for
//! nearly a second and takes those that are under way, because closing it would reset them.

use std::io::{self, ErrorKind};
use std::net::IpAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::core::Core;
use crate::connection::{TICK_MS, Tick};
use crate::edition::Port;
use crate::metrics::CloseReason;
use crate::topic::Key;
use crate::transport::Socket;

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

/// Of the two sockets that may listen together, the one of which something is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// The first, which there always is.
    First,
    /// The one beside it.
    Beside,
}

/// What listens: the kernel's socket, or a simulated one.
pub trait Listen {
    /// What it gives.
    type Stream: Socket;
    /// Where streams are registered for events.
    type Registry;

    /// Whether it is open.
    fn is_open(&self) -> bool;

    /// Descriptors it holds.
    fn descriptors(&self) -> usize {
        usize::from(self.is_open())
    }

    /// Opens it again, after [`Self::close`].
    ///
    /// # Errors
    /// The kernel's.
    fn open(&mut self, registry: &Self::Registry) -> io::Result<()>;

    /// An event told that somebody is there.
    fn on_event(&self, _: Which) {}

    /// Closes it: who waits in its queue is reset.
    fn close(&mut self);

    /// Stays open and takes who has begun to connect, and ignores others.
    ///
    /// # Errors
    /// The kernel's.
    fn ignore_connects(&self) -> io::Result<()>;

    /// The next one in the queue and its address.
    ///
    /// # Errors
    /// `WouldBlock` when nobody is there; anything else is the kernel's.
    fn accept(&self) -> io::Result<(Self::Stream, IpAddr)>;

    /// Has events of a stream told under its key.
    ///
    /// # Errors
    /// The kernel's.
    fn register(&self, key: Key, stream: &Self::Stream, registry: &Self::Registry) -> io::Result<()>;
}

/// One loop's listener and what it owes.
pub struct Acceptor<L> {
    pub(super) listener: L,
    /// Connections this loop may hold.
    capacity: usize,
    /// The kernel may have more: no edge will tell.
    owed: bool,
    /// Not before this tick, after the kernel ran out of something.
    not_before: Tick,
    leaving: Leaving,
}

impl<L: Listen> Acceptor<L> {
    /// Accepts from `listener`, which is open, up to so many connections of the loop.
    #[must_use]
    pub fn new(listener: L, capacity: usize) -> Self {
        Self { listener, capacity, owed: false, not_before: 0, leaving: Leaving::Not }
    }

    /// The listener's event came.
    pub fn on_event(&mut self, which: Which) {
        self.owed = true;
        self.listener.on_event(which);
    }

    /// Descriptors it holds.
    #[must_use]
    pub fn descriptors(&self) -> usize {
        self.listener.descriptors()
    }

    /// Whether a turn would do something now.
    pub fn has_work(&self, core: &Core<L::Stream>) -> bool {
        let accepts = self.not_before <= core.now
            && if self.listener.is_open() { self.owed } else { self.may_take_back(core) };
        accepts || self.leaves_at().is_some_and(|tick| tick <= core.now)
    }

    /// The tick at which there is something to do that no event tells, if there is.
    pub fn next_tick(&self, core: &Core<L::Stream>) -> Option<Tick> {
        let waits = self.owed || self.may_take_back(core);
        let put_off = (waits && self.not_before > core.now).then_some(self.not_before);
        [put_off, self.leaves_at()].into_iter().flatten().min()
    }

    /// Accepts, gives up or takes back, within one turn's budget.
    pub fn turn(&mut self, core: &mut Core<L::Stream>, registry: &L::Registry) {
        self.listener_turn(core, registry);
        let accepts =
            self.listener.is_open() && self.not_before <= core.now && core.admitted() < self.capacity;
        core.edition.health[core.index].set_accepts(accepts);
    }

    fn listener_turn(&mut self, core: &mut Core<L::Stream>, registry: &L::Registry) {
        if self.leaving != Leaving::Not {
            return self.leaving_turn(core, registry);
        }
        if !self.listener.is_open() {
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
    /// `LEAVING_TIME`.
    pub fn leave(&mut self, core: &mut Core<L::Stream>, registry: &L::Registry) {
        if self.leaving != Leaving::Not {
            return;
        }
        self.leaving = Leaving::Gone;
        if core.edition.settings.server.share_port {
            match self.listener.is_open().then(|| self.listener.ignore_connects()) {
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
        if self.listener.is_open() {
            self.give_up(core, registry);
        }
    }

    /// Whether the listeners of all loops are given up for good, so that clients may be sent away.
    pub fn is_gone(&self) -> bool {
        self.leaving == Leaving::Gone
    }

    fn leaving_turn(&mut self, core: &mut Core<L::Stream>, registry: &L::Registry) {
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
    fn give_up(&mut self, core: &mut Core<L::Stream>, registry: &L::Registry) {
        [Which::First, Which::Beside].into_iter().for_each(|which| self.on_event(which));
        self.not_before = 0;
        for _ in 0..LAST_TURNS {
            if !self.owed || self.not_before > core.now {
                break;
            }
            self.accept_some(core, registry, ACCEPTS_PER_TURN);
        }
        self.owed = false;
        self.listener.close();
    }

    fn try_take_back(&mut self, core: &mut Core<L::Stream>, registry: &L::Registry) {
        if !self.may_take_back(core) || self.not_before > core.now {
            return;
        }
        match self.listener.open(registry) {
            Ok(()) => {
                tracing::info!(loop_index = core.index, "this loop has room again");
                self.owed = true;
                core.edition.listening.fetch_add(1, Ordering::Relaxed);
            }
            Err(_) => self.not_before = core.now + 1,
        }
    }

    /// Whether the listener was given up and there is room again.
    fn may_take_back(&self, core: &Core<L::Stream>) -> bool {
        !self.listener.is_open() && self.leaving == Leaving::Not && core.admitted() * 100 < self.capacity * 95
    }

    fn accept_some(&mut self, core: &mut Core<L::Stream>, registry: &L::Registry, count: usize) {
        for _ in 0..count {
            // Descriptors are counted before accept: EMFILE would leave the peer hanging in the queue. Above the
            // capacity there are a few for those being refused and one for each that is turned away at once.
            if !self.listener.is_open() {
                return;
            }
            match self.listener.accept() {
                Ok((stream, peer)) => self.take(core, registry, stream, peer),
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

    fn take(&self, core: &mut Core<L::Stream>, registry: &L::Registry, stream: L::Stream, peer: IpAddr) {
        let full = core.admitted() >= self.capacity;
        let arrival = core.admit(peer, full);
        if let Some(reason) = arrival.refused
            && !core.may_refuse_properly()
        {
            return core.refuse_at_once(stream, reason);
        }
        core.counters.accepted.add(1);
        let key = core.on_accepted(stream, arrival);
        let registered = core
            .slots
            .get(key)
            .is_some_and(|slot| self.listener.register(key, &slot.stream, registry).is_ok());
        if !registered {
            core.abort(key, CloseReason::Io);
        }
    }
}
