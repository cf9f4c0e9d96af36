//! The shell of one loop: a `Poll`, a listener, a mailbox, and the order of the turns.
//!
//! Runs on the loop's own thread until it is drained or stopped. The only file that waits.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};

use super::core::{Core, Readiness};
use super::listener::Acceptor;
use crate::connection::TICK_MS;
use crate::edition::{Edition, Latest, Port};
use crate::sys::clock::monotonic_ns;
use crate::sys::eventfd::EventFd;
use crate::sys::socket::ListenOptions;
use crate::sys::tables::{TableMode, split_table};
use crate::topic::{Control, Key, Wake};
use crate::transport::Stream;

/// Events taken by one poll.
const EVENTS_PER_POLL: usize = 1_024;

/// Connections come or gone after which the allocator is asked to give memory back.
const TRIM_AFTER: u64 = 1_024;

const NS_PER_MS: u64 = 1_000_000;

/// How long a drain waits before it sends clients away, if other servers share the port.
pub const LEAVING_TIME: Duration = super::listener::LEAVING_TIME;

/// How long after the drain time the last clients may be told to go, busy loops and late requests included.
pub const TELLING_TIME: Duration = super::drain::TELLING_TIME;

/// Descriptors that every table keeps.
const STANDARD_STREAMS: usize = 3;

/// A loop that slept for less than this before its turn is a busy one.
const BUSY_SLEEP_NS: u64 = NS_PER_MS;

/// Turns for which a busy loop gives way after one that served several connections.
const CROWDED_TURNS: u8 = u8::MAX;

pub(super) const LISTENER: usize = usize::MAX - 1;
const WAKER: usize = usize::MAX;

/// What a loop tells the main thread.
#[derive(Debug)]
pub enum LoopEvent {
    /// It listens on this address.
    Listening {
        /// Which loop.
        index: usize,
        /// The address, with the port the kernel chose if 0 was asked for.
        address: SocketAddr,
        /// How its descriptor table was made.
        table: TableMode,
    },
    /// A request on the admin port has asked to drain the server.
    DrainAsked,
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
    pub address: SocketAddr,
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

fn key_of(token: Token) -> Key {
    Key { slot: token.0 as u32, generation: (token.0 >> 32) as u32 }
}

struct Shell {
    poll: Poll,
    events: Events,
    core: Core<Stream>,
    acceptor: Acceptor,
    edition: Arc<Edition>,
    latest: Arc<Latest>,
    index: usize,
    trim: SyncSender<TrimRequest>,
    trim_owed: bool,
    trimmed_at: u64,
    /// Descriptors of this loop's own table that are neither connections nor the listener.
    own_descriptors: usize,
    /// When the turn in progress began; 0 before the first.
    turn_began_ns: u64,
    /// How long the poll before it took.
    slept_ns: u64,
    /// Turns for which the loop still gives way before it sleeps.
    crowded: u8,
    stopping: bool,
    reports: EventSender,
}

impl Shell {
    fn start(parts: LoopParts) -> (io::Result<Self>, EventSender) {
        let events = parts.events.clone();
        (Self::listen(parts, &events), events)
    }

    fn listen(parts: LoopParts, events: &EventSender) -> io::Result<Self> {
        let LoopParts { prepared, port, edition, latest, address, options, capacity, keep, trim, .. } = parts;
        let Prepared { poll, index } = prepared;
        let (table, own_descriptors) = match keep {
            Some(mut keep) => {
                keep.push(poll.as_raw_fd());
                (split_table(&keep), keep.len() + STANDARD_STREAMS)
            }
            None => (TableMode::Shared, 0),
        };
        let (acceptor, address) = Acceptor::new(address, options, capacity, poll.registry())?;
        let core = Core::new(index, port, Arc::clone(&edition))
            .map_err(|_| io::Error::other("the router serves no such loop"))?;
        (events.0)(LoopEvent::Listening { index, address, table });
        Ok(Self {
            poll,
            events: Events::with_capacity(EVENTS_PER_POLL),
            core,
            acceptor,
            edition,
            latest,
            index,
            trim,
            trim_owed: false,
            trimmed_at: 0,
            own_descriptors: if table.is_split() { own_descriptors } else { 0 },
            turn_began_ns: 0,
            slept_ns: 0,
            crowded: 0,
            stopping: false,
            reports: events.clone(),
        })
    }

    fn turn_until_ended(mut self) -> io::Result<()> {
        while !self.stopping && !self.core.is_drained() {
            self.wait()?;
            let registry = self.poll.registry();
            on_events(&self.events, &mut self.core, &mut self.acceptor);
            self.acceptor.turn(&mut self.core, registry);
            self.core.run_ready();
            self.core.run_blocked();
            self.drain_mailbox();
            self.start_drain();
            self.core.sweep();
            self.core.reload_turn();
            self.core.fanout_turn();
            self.core.drain_turn();
            self.core.inquiry_turn();
            self.core.batch_turn();
            if self.core.take_drain_asked() {
                (self.reports.0)(LoopEvent::DrainAsked);
            }
            self.ask_for_trim();
        }
        // While others still drain, it must not look stuck, and whoever has asked it before is answered.
        self.edition.health[self.index].ends();
        self.drain_mailbox();
        self.core.answer_last();
        Ok(())
    }

    fn wait(&mut self) -> io::Result<()> {
        let ended_ns = self.end_turn();
        let now_ms = ended_ns / NS_PER_MS;
        let mailbox = self.edition.router.mailbox(self.index);
        let sleep_ms =
            if mailbox.is_some_and(|mailbox| !mailbox.is_empty()) || self.acceptor.has_work(&self.core) {
                Some(0)
            } else {
                let accepts = self.acceptor.next_tick(&self.core);
                let accepts = accepts.map(|tick| (u64::from(tick) * TICK_MS).saturating_sub(now_ms));
                [self.core.sleep_ms(now_ms), accepts].into_iter().flatten().min()
            };
        if sleep_ms != Some(0) {
            self.give_way();
        }
        let health = &self.edition.health[self.index];
        if sleep_ms != Some(0) {
            health.sleeps();
            self.core.counters.sleeps.add(1);
        }
        match self.poll.poll(&mut self.events, sleep_ms.map(Duration::from_millis)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => self.events.clear(),
            other => other?,
        }
        self.turn_began_ns = monotonic_ns();
        self.slept_ns = self.turn_began_ns.saturating_sub(ended_ns);
        let now_ms = self.turn_began_ns / NS_PER_MS;
        health.wakes(now_ms);
        self.core.set_now((now_ms / TICK_MS) as u32);
        self.core.counters.turns.add(1);
        Ok(())
    }

    /// Lets others have the core that a busy loop would leave only to take it back at the next message.
    ///
    /// Loops that share their cores with those who talk to them (a proxy, a load generator) take turns with them: asleep,
    /// a loop is woken by the next message and takes the core from whoever was about to send more, so that each message
    /// costs two switches. Ready to run, it finds all of them when its turn comes. Where nobody waits for the core this
    /// is a system call of a fifth of a microsecond, so a loop with little to do makes none, nor one that is alone.
    fn give_way(&mut self) {
        if self.slept_ns >= BUSY_SLEEP_NS || self.edition.loops() < 2 {
            return;
        }
        if self.events.iter().nth(1).is_some() {
            self.crowded = CROWDED_TURNS;
        }
        if self.crowded > 0 {
            self.crowded -= 1;
            std::thread::yield_now();
        }
    }

    /// Tells how long the turn took and what the loop holds. The time now: the clock is read
    /// twice a turn, for this and for everything else.
    fn end_turn(&mut self) -> u64 {
        let now_ns = monotonic_ns();
        let counters = &self.core.counters;
        if self.turn_began_ns != 0 {
            counters.turn_times.observe(now_ns.saturating_sub(self.turn_began_ns));
        }
        let held = self.own_descriptors + self.acceptor.descriptors() + self.core.connections();
        counters.descriptors.set(held as u64);
        self.core.note_gauges();
        now_ns
    }

    fn drain_mailbox(&mut self) {
        let mut drain = false;
        let mut stop = false;
        let mut relocate = false;
        let mut reload = false;
        self.core.drain_mailbox(|control| match control {
            Control::Drain => drain = true,
            Control::Stop => stop = true,
            Control::Relocate => relocate = true,
            Control::Reload => reload = true,
            // The core answers these itself.
            Control::Inquire(_) | Control::Answered(_) => {}
        });
        if relocate {
            self.core.start_relocation();
        }
        if reload {
            self.edition = self.latest.current();
            self.acceptor.set_user_timeout(self.edition.settings.timeouts.user_timeout_ms());
            self.core.on_reload(Arc::clone(&self.edition));
        }
        if drain {
            self.acceptor.leave(&mut self.core, self.poll.registry());
        }
        self.stopping |= stop;
    }

    /// Sends clients away once nobody of them could come back to this server.
    fn start_drain(&mut self) {
        if self.acceptor.is_gone() {
            let spread = self.edition.settings.drain.length.as_millis() as u64 / TICK_MS;
            self.core.start_drain(u32::try_from(spread).unwrap_or(u32::MAX));
        }
    }

    /// After a peak the allocator holds pages that nobody uses: a handshake storm leaves half as much again.
    fn ask_for_trim(&mut self) {
        let counters = &self.core.counters;
        let moved = counters.accepted.value() + counters.connections_closed.value();
        if moved - self.trimmed_at >= TRIM_AFTER {
            self.trim_owed = true;
            self.trimmed_at = moved;
        }
        self.trim_owed |= self.core.take_peak_is_over();
        if self.trim_owed {
            self.trim_owed = self.trim.try_send(TrimRequest::AfterPeak).is_err();
        }
        if self.core.relocation_turn() {
            // Where another request waits already, it serves this one, too.
            let _ = self.trim.try_send(TrimRequest::AfterMove);
        }
    }
}

fn on_events(events: &Events, core: &mut Core<Stream>, acceptor: &mut Acceptor) {
    for event in events {
        match event.token() {
            Token(WAKER) => core.counters.wakeups.add(1),
            Token(LISTENER) => acceptor.on_event(),
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
    }
}

/// Aborts the process if it is dropped, which only a panic does.
struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        std::process::abort();
    }
}
