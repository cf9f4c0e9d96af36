//! The shell of one loop: a `Poll`, a listener, a mailbox.
//!
//! Runs on the loop's own thread until it is drained or stopped. The only file that waits; the order of the work
//! between two waits is in [`super::turn`].

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};

use super::core::{Core, Readiness};
use super::listener::{Acceptor, Which};
use super::tcp_listening::TcpListening;
use super::turn::Driver;
use crate::connection::{TICK_MS, Tick};
use crate::edition::{Edition, Latest, Port};
use crate::sys::clock::monotonic_ns;
use crate::sys::eventfd::EventFd;
use crate::sys::socket::ListenOptions;
use crate::sys::tables::{TableMode, split_table};
use crate::topic::{Key, Wake};
use crate::transport::Stream;

/// Events taken by one poll.
const EVENTS_PER_POLL: usize = 1_024;

const NS_PER_MS: u64 = 1_000_000;

/// A poll that returns so much later than it was to, or a turn that takes as long: the process was stopped, or the
/// machine was.
pub const STOOD_STILL_MS: u64 = 500;

/// How long a drain waits before it sends clients away, if other servers share the port.
pub const LEAVING_TIME: Duration = super::listener::LEAVING_TIME;

/// How long after the drain time the last clients may be told to go, busy loops and late requests included.
pub const TELLING_TIME: Duration = super::drain::TELLING_TIME;

/// A turn that begins so soon after the one before is a busy loop's.
const BUSY_TURN_NS: u64 = NS_PER_MS;

/// Turns for which a busy loop gives way after one with several events: loops that are faster than their clients
/// mostly have one.
const CROWDED_TURNS: u8 = u8::MAX;

/// Descriptors that every table keeps.
const STANDARD_STREAMS: usize = 3;

pub(super) const LISTENER: usize = usize::MAX - 1;
pub(super) const LISTENER_BESIDE: usize = usize::MAX - 2;
const WAKER: usize = usize::MAX;

pub use super::tcp_listening::Listening;

/// What a loop tells the main thread.
#[derive(Debug)]
pub enum LoopEvent {
    /// It listens.
    Listening {
        /// Where, with the ports the kernel chose if 0 was asked for.
        at: Listening,
        /// How its descriptor table was made.
        table: TableMode,
    },
    /// A request on the admin port has asked to drain the server.
    DrainAsked,
    /// A request on the admin port has asked for a reload, and waits for one answer.
    ReloadAsked,
    /// It ended: drained, stopped, or unable to start.
    Ended {
        /// Which loop.
        index: usize,
        /// What went wrong, if anything did.
        result: io::Result<()>,
    },
}

/// Why memory should be given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrimRequest {
    /// Many connections came or went, or much was unsent or half received and is no more.
    AfterPeak,
    /// A loop has moved what its connections hold.
    AfterMove,
}

/// Carries loop events to the main thread.
#[derive(Clone)]
pub struct EventSender(Arc<dyn Fn(LoopEvent) + Send + Sync>);

impl EventSender {
    /// Wraps whatever takes the events.
    pub fn new(send: impl Fn(LoopEvent) + Send + Sync + 'static) -> Self {
        Self(Arc::new(send))
    }
}

/// Wakes loops. The descriptors are made before any table is split and live as long as the process, so the
/// same numbers mean the same wakers in every table.
pub struct LoopWakers(Box<[EventFd]>);

impl Wake for LoopWakers {
    fn wake(&self, loop_index: usize) {
        if let Some(waker) = self.0.get(loop_index) {
            // It fails only if the eventfd is gone, which outlives every loop.
            let _ = waker.raise();
        }
    }
}

/// A loop that has a poll but no thread yet.
pub struct Prepared {
    poll: Poll,
    index: usize,
}

/// Everything a loop's thread is given.
pub struct LoopParts {
    /// Its poll.
    pub prepared: Prepared,
    /// Which listener it serves.
    pub port: Port,
    /// What all share.
    pub edition: Arc<Edition>,
    /// Where it finds other settings after a reload.
    pub latest: Arc<Latest>,
    /// Where to listen.
    pub at: Listening,
    /// How to listen.
    pub options: ListenOptions,
    /// Connections it may hold.
    pub capacity: usize,
    /// Descriptors its own table keeps, or `None` to share the process's table.
    pub keep: Option<Vec<RawFd>>,
    /// To the main thread.
    pub events: EventSender,
    /// To the maintenance thread.
    pub trim: SyncSender<TrimRequest>,
}

/// Makes `count` polls, their wakers, and the descriptors each loop's table has to keep.
///
/// # Errors
/// The kernel's, when descriptors run out.
pub fn prepare(count: usize) -> io::Result<(Vec<Prepared>, LoopWakers, Vec<RawFd>)> {
    let mut loops = Vec::with_capacity(count);
    let mut wakers = Vec::with_capacity(count);
    for index in 0..count {
        let poll = Poll::new()?;
        let waker = EventFd::new()?;
        poll.registry().register(&mut SourceFd(&waker.as_raw_fd()), Token(WAKER), Interest::READABLE)?;
        wakers.push(waker);
        loops.push(Prepared { poll, index });
    }
    let wakers: Box<[EventFd]> = wakers.into();
    let keep = wakers.iter().map(AsRawFd::as_raw_fd).collect();
    Ok((loops, LoopWakers(wakers), keep))
}

/// Runs one loop on the calling thread until it has ended, and reports that. A panic aborts the process:
/// a server that lost a loop must not look alive.
pub fn run(parts: LoopParts) {
    let abort = AbortOnPanic;
    let index = parts.prepared.index;
    let (started, events) = Shell::start(parts);
    let result = started.and_then(Shell::turn_until_ended);
    std::mem::forget(abort);
    (events.0)(LoopEvent::Ended { index, result });
}

pub(super) fn token_of(key: Key) -> Token {
    Token((key.generation as usize) << 32 | key.slot as usize)
}

fn tick_of(ms: u64) -> Tick {
    Tick::try_from(ms / TICK_MS).unwrap_or(Tick::MAX)
}

fn key_of(token: Token) -> Key {
    Key { slot: token.0 as u32, generation: (token.0 >> 32) as u32 }
}

struct Shell {
    core: Core<Stream>,
    kernel: Kernel,
    index: usize,
    /// Descriptors of this loop's own table that are neither connections nor the listener.
    own_descriptors: usize,
    /// When the turn in progress began; 0 before the first.
    turn_began_ns: u64,
    /// From the beginning of the turn before to its own, waiting included.
    turn_took_ns: u64,
}

/// What the core's turns are driven by.
struct Kernel {
    poll: Poll,
    events: Events,
    /// Events of the last poll that were taken.
    taken: usize,
    /// Turns for which the loop still gives way before it sleeps.
    crowded: u8,
    /// Whether that were not all.
    left: bool,
    acceptor: Acceptor<TcpListening>,
    edition: Arc<Edition>,
    latest: Arc<Latest>,
    trim: SyncSender<TrimRequest>,
    stopping: bool,
    reports: EventSender,
}

impl Shell {
    fn start(parts: LoopParts) -> (io::Result<Self>, EventSender) {
        let events = parts.events.clone();
        (Self::listen(parts, &events), events)
    }

    fn listen(parts: LoopParts, events: &EventSender) -> io::Result<Self> {
        let LoopParts { prepared, port, edition, latest, at, options, capacity, keep, trim, .. } = parts;
        let Prepared { poll, index } = prepared;
        let (table, own_descriptors) = match keep {
            Some(mut keep) => {
                keep.push(poll.as_raw_fd());
                (split_table(&keep), keep.len() + STANDARD_STREAMS)
            }
            None => (TableMode::Shared, 0),
        };
        let (listening, at) = TcpListening::new(at, options, poll.registry())?;
        let mut core: Core<Stream> = Core::new(index, port, Arc::clone(&edition))
            .map_err(|_| io::Error::other("the router serves no such loop"))?;
        core.transport_mut().set_config(edition.tls_of(port));
        (events.0)(LoopEvent::Listening { at, table });
        let kernel = Kernel {
            poll,
            events: Events::with_capacity(EVENTS_PER_POLL),
            taken: 0,
            crowded: 0,
            left: false,
            acceptor: Acceptor::new(listening, capacity),
            edition,
            latest,
            trim,
            stopping: false,
            reports: events.clone(),
        };
        let own_descriptors = if table.is_split() { own_descriptors } else { 0 };
        Ok(Self { core, kernel, index, own_descriptors, turn_began_ns: 0, turn_took_ns: 0 })
    }

    fn turn_until_ended(mut self) -> io::Result<()> {
        while !self.kernel.stopping && !self.core.is_drained() {
            self.wait()?;
            self.core.turn(self.turn_began_ns, &mut self.kernel);
        }
        // While others still drain, it must not look stuck, and whoever has asked it before is answered.
        self.kernel.edition.health[self.index].ends();
        self.core.last_turn(&mut self.kernel);
        Ok(())
    }

    /// Waits for events, unless those of the last poll are not all taken.
    fn wait(&mut self) -> io::Result<()> {
        let now_ms = self.end_turn();
        let mut wakes_at_ms = Some(now_ms);
        // A stop within a turn: everything that was due meanwhile is found in the next.
        let long = now_ms.saturating_sub(self.turn_began_ns / NS_PER_MS) >= STOOD_STILL_MS;
        if long && self.turn_began_ns != 0 {
            self.core.on_resumed(tick_of(now_ms));
        }
        let kernel = &mut self.kernel;
        let health = &kernel.edition.health[self.index];
        if !kernel.left {
            let mailbox = kernel.edition.router.mailbox(self.index);
            let sleep_ms = if mailbox.is_some_and(|mailbox| !mailbox.is_empty())
                || kernel.acceptor.has_work(&self.core)
            {
                Some(0)
            } else {
                let accepts = kernel.acceptor.next_tick(&self.core);
                let accepts = accepts.map(|tick| (u64::from(tick) * TICK_MS).saturating_sub(now_ms));
                [self.core.sleep_ms(now_ms), accepts].into_iter().flatten().min()
            };
            if sleep_ms != Some(0) {
                if self.turn_took_ns < BUSY_TURN_NS && kernel.edition.loops() > 1 {
                    give_way(&kernel.events, &mut kernel.crowded);
                }
                health.sleeps();
                self.core.counters.sleeps.add(1);
            }
            kernel.taken = 0;
            wakes_at_ms = sleep_ms.map(|sleep_ms| now_ms + sleep_ms);
            match kernel.poll.poll(&mut kernel.events, sleep_ms.map(Duration::from_millis)) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => kernel.events.clear(),
                other => other?,
            }
        }
        let before_ns = std::mem::replace(&mut self.turn_began_ns, monotonic_ns());
        self.turn_took_ns = self.turn_began_ns.saturating_sub(before_ns);
        let now_ms = self.turn_began_ns / NS_PER_MS;
        health.wakes(now_ms);
        if wakes_at_ms.is_some_and(|at| now_ms >= at + STOOD_STILL_MS) {
            self.core.on_resumed(tick_of(now_ms));
        }
        self.core.counters.turns.add(1);
        Ok(())
    }

    /// Tells how long the turn took and what the loop holds. The time now, in milliseconds.
    fn end_turn(&mut self) -> u64 {
        let now_ns = monotonic_ns();
        let counters = &self.core.counters;
        if self.turn_began_ns != 0 {
            counters.turn_times.observe(now_ns.saturating_sub(self.turn_began_ns));
        }
        let held = self.own_descriptors + self.kernel.acceptor.descriptors() + self.core.connections();
        counters.descriptors.set(held as u64);
        self.core.note_gauges();
        now_ns / NS_PER_MS
    }
}

impl Driver<Stream> for Kernel {
    fn take_events(&mut self, core: &mut Core<Stream>) {
        let mut events = self.events.iter();
        if self.taken > 0 {
            events.nth(self.taken - 1);
        }
        let mut taken = self.taken;
        self.left = false;
        while let Some(event) = events.next() {
            taken += 1;
            match event.token() {
                Token(WAKER) => core.counters.wakeups.add(1),
                Token(LISTENER) => self.acceptor.on_event(Which::First),
                Token(LISTENER_BESIDE) => self.acceptor.on_event(Which::Beside),
                token => core.on_event(
                    key_of(token),
                    Readiness {
                        readable: event.is_readable(),
                        writable: event.is_writable(),
                        read_closed: event.is_read_closed(),
                        error: event.is_error(),
                    },
                ),
            }
            if core.has_had_events() {
                self.left = events.next().is_some();
                break;
            }
        }
        self.taken = taken;
    }

    fn accept_turn(&mut self, core: &mut Core<Stream>) {
        self.acceptor.turn(core, self.poll.registry());
    }

    fn on_reload(&mut self, core: &mut Core<Stream>) -> Arc<Edition> {
        self.edition = self.latest.current();
        let port = core.port;
        core.transport_mut().set_config(self.edition.tls_of(port));
        self.acceptor.listener.set_user_timeout(self.edition.settings.timeouts.user_timeout_ms());
        Arc::clone(&self.edition)
    }

    fn leave(&mut self, core: &mut Core<Stream>) {
        self.acceptor.leave(core, self.poll.registry());
    }

    fn has_left(&self) -> bool {
        self.acceptor.is_gone()
    }

    fn stop(&mut self) {
        self.stopping = true;
    }

    fn on_drain_asked(&mut self) {
        (self.reports.0)(LoopEvent::DrainAsked);
    }

    fn on_reload_asked(&mut self) {
        (self.reports.0)(LoopEvent::ReloadAsked);
    }

    fn try_trim(&mut self, request: TrimRequest) -> bool {
        self.trim.try_send(request).is_ok()
    }
}

/// Lets others have the core before a busy loop that is not alone sleeps.
///
/// Loops that share their cores with those who talk to them (a proxy, a load generator) would be woken by the next
/// message, and would take the core from whoever was about to send more: two switches for each of them. A loop that is
/// still ready to run finds all of them when its turn comes. Where nobody waits for the core, this is a system call of a
/// fifth of a microsecond; so a loop makes none that talks to one client only.
fn give_way(events: &Events, crowded: &mut u8) {
    if events.iter().nth(1).is_some() {
        *crowded = CROWDED_TURNS;
    }
    if *crowded > 0 {
        *crowded -= 1;
        std::thread::yield_now();
    }
}

/// Aborts the process if it is dropped, which only a panic does.
struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        std::process::abort();
    }
}
