//! One loop without its kernel: the slots, the topics they subscribe to, the ready list and the clock.
//!
//! Driven by the shell in `run` (or by a simulation), which reports accepted streams, readiness, mailbox
//! entries and the time. Every entry point does a bounded amount of work and never blocks.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::SystemTime;

use super::accept_log::AcceptLog;
use super::addresses::Addresses;
use super::admin_turn::AdminLoop;
use super::admission::Arrival;
use super::bearers::{Bearers, CHECKS_PER_TURN};
use super::blocked::BlockedQueues;
use super::catch_up_turn::CatchUpList;
use super::drain::DrainState;
use super::forward_turn::Forwarded;
use super::handshakes::is_shaking_hands;
use super::held::Held;
use super::inquiry_turn::Answering;
use super::layer::LayerBytes;
use super::poll_turn::Polled;
use super::question_turn::Questions;
use super::replaced::Replaced;
use super::slice::Slice;
use super::slots::SlotTable;
use super::turn::Clock;
use crate::auth::token::Signatures;
use crate::connection::deadline::{self, TimeoutTicks};
use crate::connection::rates::{Rate, RateLimits};
use crate::connection::session::Session;
use crate::connection::{Connection, Flags, Phase, Slot, TICK_MS, Tick};
use crate::dialect::Wall;
use crate::dialect::sse::Places;
use crate::edition::{Answered, Control, Edition, LocalTopics, Port};
use crate::metrics::{CloseReason, LoopCounters};
use crate::sys::clock::{monotonic_ns, wall_ns};
use crate::topic::{Key, Letter, Outdated, RouterError, Seats};
use crate::transport::{Beside, Socket};
use crate::wire::deflate::{Deflater, Inflater};
use crate::wire::http::date::Date;

/// Bytes one `recv` may bring: the scratch buffer every connection of a loop shares.
pub const SCRATCH_BYTES: usize = 64 * 1024;

/// Bytes that are read, inflated and written for those on the ready list before the kernel is asked for events
/// again: whoever floods waits for the others who flood, and nobody else does.
pub(super) const READY_BYTES_PER_TURN: u64 = 8 * SCRATCH_BYTES as u64;

/// The same for the events of one turn; the others of the same poll come in the next. A thousand peers that each send
/// a little that becomes a megabyte, or each have room for one again, must not be one turn.
pub(super) const EVENT_BYTES_PER_TURN: u64 = 32 * SCRATCH_BYTES as u64;

/// Of those whose request waits for joins before it, how many may go on in one turn.
const NEWCOMERS_PER_TURN: usize = 64;

/// Keys for which the ready list keeps room after a peak.
const READY_KEPT: usize = 1_024;

/// Bytes joined for one `send`.
pub const JOINED_BYTES: usize = 64 * 1024;

/// Connections come or gone after which the allocator is asked to give memory back.
const TRIM_AFTER: u64 = 1_024;

/// A peak of half-received and unsent bytes that is worth giving memory back after.
const PEAK_BYTES_MIN: u64 = 256 * 1024;

/// What the kernel said of one stream.
#[derive(Clone, Copy, Debug, Default)]
pub struct Readiness {
    /// Input, or the end of it.
    pub readable: bool,
    /// Room in the send queue.
    pub writable: bool,
    /// The peer ended its side: no further edge will announce what is still to be read.
    pub read_closed: bool,
    /// The stream is broken.
    pub error: bool,
}

/// One loop's state. `S` is the stream type.
pub struct Core<S: Socket> {
    /// Everybody connected to this loop.
    pub(super) slots: SlotTable<S>,
    /// What their streams have beside the kernel.
    pub(super) transport: S::Shared,
    /// What of that was counted.
    pub(super) layer: LayerBytes,
    /// Topics with a subscriber on this loop.
    pub(super) topics: LocalTopics,
    /// What all loops share.
    pub(super) edition: Arc<Edition>,
    /// This loop's counters.
    pub(super) counters: Arc<LoopCounters>,
    /// Whose turn ran out of budget.
    pub(super) ready: VecDeque<Key>,
    /// Whose handshake has to go on, and whether the end of the stream may be there.
    pub(super) handshakes: VecDeque<(Key, bool)>,
    /// What the events of this turn may still take.
    pub(super) slice: Slice,
    /// Where the time within a turn comes from.
    pub(super) clock: Clock,
    /// Where the date of messages comes from.
    pub(super) wall: Wall,
    /// Whose request waits until joins before it are listed.
    pub(super) newcomers: VecDeque<Key>,
    /// Who is behind and has room to be written to.
    pub(super) catching_up: CatchUpList,
    /// The one of them whose turn it is.
    pub(super) let_in: Option<Key>,
    /// Publishers waiting for room in a mailbox.
    pub(super) blocked: BlockedQueues,
    /// The queue of the one of them whose turn it is.
    pub(super) retrying: Option<usize>,
    /// It has found no room again.
    pub(super) retry_failed: bool,
    /// Not all were tried for whom there may be room.
    pub(super) blocked_left: bool,
    /// What was read last; taken out during a read turn.
    pub(super) scratch: Vec<u8>,
    /// Frames joined for one `send`.
    pub(super) joined: Vec<u8>,
    /// What a read turn answers.
    pub(super) out: Vec<u8>,
    /// Who of the connections is on the list of a topic.
    pub(super) seats: Seats,
    /// The places of those whose messages name them, by slot.
    pub(super) places: HashMap<u32, Places>,
    /// Whom connections belong to that have shown a token.
    pub(super) bearers: Bearers,
    /// Addresses that proxies have said.
    pub(super) addresses: Addresses,
    /// Signatures of tokens that were right lately.
    pub(super) signatures: Signatures,
    /// Tokens in messages that may still be checked in this turn.
    pub(super) checks_left: u32,
    /// What checks of signatures were worth since a slice was charged, in bytes.
    pub(super) signed_bytes: u64,
    /// The answer that polls were given last, for the next of the same pass.
    pub(super) polled: Polled,
    /// Where messages end that are written for one connection alone.
    pub(super) placed_ends: Vec<usize>,
    /// Deflates what is published or echoed on this loop.
    pub(super) deflater: Deflater,
    /// Inflates what compressed messages come to this loop; taken out during a read turn.
    pub(super) inflater: Inflater,
    /// Whose deadline a sweep found struck and has not acted on yet.
    pub(super) due: VecDeque<Key>,
    /// Set while draining.
    pub(super) draining: Option<DrainState>,
    /// The slot from which on what connections hold is to be moved.
    pub(super) relocating: Option<u32>,
    /// The most bytes that inboxes, outboxes and request bodies held since memory was last asked back.
    pub(super) held_peak: u64,
    /// Memory is to be given back, and nobody had time for it.
    pub(super) trim_owed: bool,
    /// Connections that had come or gone when that was asked for last.
    pub(super) trimmed_at: u64,
    /// Slot index from which deadlines are still those of earlier settings.
    pub(super) rearming: Option<u32>,
    /// Rules before those of now, for the subscriptions of the connections from there on.
    pub(super) reviewing: Outdated,
    pub(super) timeouts: TimeoutTicks,
    pub(super) now: Tick,
    /// When the loop went on after it had stood still, the last time last.
    pub(super) resumed: VecDeque<Tick>,
    /// What answers are dated with, and from when on it is to be made anew.
    date: Option<(Date, Tick)>,
    pub(super) index: usize,
    pub(super) port: Port,
    pub(super) generation: u32,
    pub(super) lingering: usize,
    /// Requests that wait for something.
    pub(super) parked: usize,
    /// What the application is asked about handshakes.
    pub(super) questions: Questions,
    /// What the application has said of messages, to be told.
    pub(super) forwarded: Forwarded,
    /// Who has to make room for another connection of theirs.
    pub(super) replaced: Replaced,
    /// Slots of refused connections.
    pub(super) refusing: usize,
    /// How fast one connection may speak.
    pub(super) rates: RateLimits,
    /// What has arrived in part, but for bodies.
    pub(super) held: Held,
    /// Bytes of request bodies that are arriving, and of batches under way; only the admin loop has any.
    pub(super) body_bytes: usize,
    /// When which generation was accepted.
    pub(super) accepts: AcceptLog,
    /// Questions of the admin loop that are being answered.
    pub(super) inquiries: VecDeque<Answering>,
    /// A request has asked to drain the server.
    pub(super) drain_asked: bool,
    /// Reloads that requests have asked for and the main thread was not told of.
    pub(super) reloads_asked: usize,
    /// What only the admin loop has.
    pub(super) admin: Option<Box<AdminLoop>>,
}

impl<S: Socket> Core<S> {
    /// Loop number `index`, serving `port`.
    ///
    /// # Errors
    /// The router serves no loop of this index.
    pub fn new(index: usize, port: Port, edition: Arc<Edition>) -> Result<Self, RouterError> {
        let counters = Arc::clone(edition.counters_of(index));
        let deflate = &edition.settings.deflate;
        let mut topics = LocalTopics::new(Arc::clone(&edition.router), index)?;
        topics.set_batch_bytes_max(edition.join_bytes_max);
        topics.set_replay_bytes_max(edition.totals.history_forms as u64);
        Ok(Self {
            slots: SlotTable::default(),
            transport: S::Shared::default(),
            layer: LayerBytes::default(),
            topics,
            counters,
            ready: VecDeque::new(),
            handshakes: VecDeque::new(),
            slice: Slice::new(0, u64::MAX, EVENT_BYTES_PER_TURN),
            clock: monotonic_ns,
            wall: Wall::new(wall_ns),
            catching_up: CatchUpList::default(),
            blocked: BlockedQueues::default(),
            retrying: None,
            retry_failed: false,
            blocked_left: false,
            newcomers: VecDeque::new(),
            let_in: None,
            scratch: vec![0; SCRATCH_BYTES],
            joined: Vec::new(),
            out: Vec::new(),
            seats: Seats::default(),
            places: HashMap::new(),
            bearers: Bearers::default(),
            addresses: Addresses::default(),
            signatures: Signatures::default(),
            signed_bytes: 0,
            checks_left: CHECKS_PER_TURN,
            polled: Polled::default(),
            placed_ends: Vec::new(),
            deflater: Deflater::new(deflate.level as u32, deflate.min_bytes),
            inflater: Inflater::keeping(Arc::clone(&edition.contexts)),
            due: VecDeque::new(),
            draining: None,
            relocating: None,
            held_peak: 0,
            trim_owed: false,
            trimmed_at: 0,
            rearming: None,
            reviewing: Outdated::default(),
            timeouts: timeout_ticks(&edition),
            now: 0,
            resumed: VecDeque::new(),
            date: None,
            index,
            port,
            generation: 0,
            lingering: 0,
            parked: 0,
            questions: Questions::default(),
            forwarded: Forwarded::default(),
            replaced: Replaced::default(),
            refusing: 0,
            rates: rate_limits(&edition, port),
            held: Held::default(),
            body_bytes: 0,
            accepts: AcceptLog::default(),
            inquiries: VecDeque::new(),
            drain_asked: false,
            reloads_asked: 0,
            admin: (port == Port::Admin)
                .then(|| Box::new(AdminLoop::new(&edition.settings.admin, edition.totals.replies))),
            edition,
        })
    }

    /// What the streams of this loop have beside the kernel.
    pub fn transport_mut(&mut self) -> &mut S::Shared {
        &mut self.transport
    }

    /// Takes the time within a turn from somewhere else: a simulation has its own.
    pub fn set_clock(&mut self, clock: Clock) {
        self.clock = clock;
        self.wall = Wall::new(clock);
    }

    /// Tells the time; never goes back.
    pub fn set_now(&mut self, now: Tick) {
        self.now = self.now.max(now);
        self.topics.set_now(self.now);
        self.wall.forget();
        self.checks_left = CHECKS_PER_TURN;
    }

    /// The Date of an answer sent now. The clock of the wall is read once a second at most, and only if there are
    /// answers.
    pub(super) fn date(&mut self) -> Date {
        match self.date {
            Some((date, until)) if self.now < until => date,
            _ => {
                let date = Date::at(SystemTime::now());
                self.date = Some((date, self.now.saturating_add((1_000 / TICK_MS) as Tick)));
                date
            }
        }
    }

    /// Connections on this loop.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.slots.len()
    }

    /// Connections that were let in: those that are being refused take nobody's place.
    #[must_use]
    pub fn admitted(&self) -> usize {
        self.slots.len() - self.refusing
    }

    /// Takes in an accepted stream as [`Self::admit`] said. A refused one is answered so, whatever it asks.
    pub fn on_accepted(&mut self, mut stream: S, arrival: Arrival) -> Key {
        if arrival.flags.has(Flags::PROXY_DUE) {
            stream.delay_layer(&mut self.transport);
        }
        self.generation = self.generation.wrapping_add(1);
        let generation = self.generation;
        self.accepts.note(generation, self.now);
        let mut connection = Connection::new(self.now);
        connection.flags = arrival.flags;
        connection.admission = arrival.admission;
        if let Some(reason) = arrival.refused {
            connection.session = Some(Box::new(Session::Refused(reason)));
            self.refusing += 1;
        }
        let slot = self.slots.insert(Slot { stream, generation, connection });
        self.rearm(slot);
        Key { slot, generation }
    }

    /// Runs the turns that one readiness event asks for.
    pub fn on_event(&mut self, key: Key, readiness: Readiness) {
        let Some(slot) = self.slots.get(key) else {
            self.counters.stale_keys.add(1);
            return;
        };
        let connection = &slot.connection;
        // Not much is read while a request waits, and a broken stream would go unnoticed behind that.
        if readiness.error && connection.phase() == Phase::Parked {
            return self.abort(key, CloseReason::PeerReset);
        }
        let write = readiness.writable && connection.has_backlog();
        let read = readiness.readable || readiness.read_closed || readiness.error;
        if read && is_shaking_hands(&slot.stream, connection, &self.transport) {
            return self.put_aside(key, readiness.read_closed || readiness.error);
        }
        if !write && (!read || connection.flags.has(Flags::LISTED)) {
            return;
        }
        if self.slice.is_over() {
            return self.list_ready(key);
        }
        let before = self.bytes_moved();
        let mut inflated = 0;
        if write {
            self.write_turn(key);
        }
        // Input that keeps coming raises an event a poll; without this a peer would have two turns in each.
        if read && self.slots.get(key).is_some_and(|slot| !slot.connection.flags.has(Flags::LISTED)) {
            self.read_turn(key, readiness.read_closed || readiness.error);
            // What came out of few bytes is as much work as what was read.
            inflated = self.inflater.turn_bytes() as u64;
        }
        let moved = self.bytes_moved().wrapping_sub(before) + inflated + self.take_effort();
        self.slice.charge(moved, self.clock);
    }

    /// What handshakes of TLS and signatures of tokens have cost since the last call, in bytes that take as long.
    pub(super) fn take_effort(&mut self) -> u64 {
        std::mem::take(&mut self.signed_bytes) + self.transport.take_effort()
    }

    pub(super) fn bytes_moved(&self) -> u64 {
        self.counters.bytes_received.value().wrapping_add(self.counters.bytes_sent.value())
    }

    /// Gives those on the ready list one more turn, until together they have taken enough; those put on it
    /// meanwhile, and those who are left, wait for the next call.
    pub fn run_ready(&mut self) {
        self.slice = Slice::new(0, u64::MAX, EVENT_BYTES_PER_TURN);
        self.let_newcomers_in();
        if self.ready.is_empty() {
            return;
        }
        let mut slice = self.reading_slice((self.clock)(), READY_BYTES_PER_TURN);
        for _ in 0..self.ready.len() {
            if slice.is_over() {
                break;
            }
            let Some(key) = self.ready.pop_front() else { break };
            self.ready_turn(key, &mut slice);
        }
        if self.ready.is_empty() && self.ready.capacity() > READY_KEPT {
            self.ready.shrink_to(READY_KEPT);
        }
    }

    /// One more turn for a connection of the ready list.
    fn ready_turn(&mut self, key: Key, slice: &mut Slice) {
        // What the last event said is forgotten by now; reading to WouldBlock is right in either case.
        self.listed_turn(key, slice, |core| core.read_turn(key, true));
    }

    /// The turn of a connection that was put on a list, which reads as `read` does.
    pub(super) fn listed_turn(&mut self, key: Key, slice: &mut Slice, read: impl FnOnce(&mut Self)) {
        let before = self.bytes_moved();
        let Some(slot) = self.slots.get(key) else { return };
        slot.connection.flags.clear(Flags::LISTED);
        if slot.connection.has_backlog() {
            self.write_turn(key);
        }
        read(self);
        let moved =
            self.bytes_moved().wrapping_sub(before) + self.inflater.turn_bytes() as u64 + self.take_effort();
        slice.charge(moved, self.clock);
    }

    /// Files what waits in the mailbox; what concerns the loop as a whole goes to `on_control`. Returns how many entries
    /// that were.
    pub fn drain_mailbox(&mut self, mut on_control: impl FnMut(Control)) -> usize {
        let inquiries = &mut self.inquiries;
        let mut answered = Vec::new();
        let count = self.topics.drain_mailbox(|letter| match letter {
            Letter::Control(Control::Inquire(inquiry)) => inquiries.push_back(Answering::new(inquiry)),
            Letter::Control(other) => on_control(other),
            Letter::Reply(reply) => answered.push(reply),
        });
        for reply in answered {
            match reply.answer {
                Answered::Inquiry(inquiry) => self.on_answered(reply.key, reply.ticket, &inquiry),
                Answered::Verdict(verdict) => self.on_verdict(reply.key, reply.ticket, verdict),
                Answered::Forwarded(told) => self.forwarded.push(reply.key, told),
                Answered::Replaced(taken) => self.replaced.push(taken),
            }
        }
        count
    }

    /// Whether a request has asked to drain the server since the last call.
    pub fn take_drain_asked(&mut self) -> bool {
        std::mem::take(&mut self.drain_asked)
    }

    /// Tells what is held now, once a turn.
    pub fn note_gauges(&mut self) {
        self.settle_layer();
        self.note_handshakes();
        self.counters.inbox_bytes.set((self.held.bytes() + self.body_bytes) as u64);
        self.counters.slot_bytes.set(self.slots.bytes() as u64);
        self.counters.subscriptions.set(self.topics.subscriptions() as u64);
        self.counters.watches.set(self.topics.watches() as u64);
        self.counters.replaced.set(self.topics.replaced());
        self.counters.behind.set(self.topics.behind() as u64);
        self.counters.replay_bytes.set(self.topics.replay_bytes());
    }

    /// Whether the loop must not sleep.
    #[must_use]
    pub fn has_work(&self) -> bool {
        !self.ready.is_empty()
            || !self.handshakes.is_empty()
            || self.blocked_left
            || !self.newcomers.is_empty()
            || !self.catching_up.is_empty()
            || !self.due.is_empty()
            || self.topics.has_work()
            || self.relocating.is_some()
            || self.rearming.is_some()
            || self.draining.as_ref().is_some_and(|drain| drain.behind)
            || !self.inquiries.is_empty()
            || self.has_batch_work()
            || self.questions.has_work()
            || self.forwarded.has_work()
            || self.replaced.has_work()
    }

    /// Milliseconds until something is due, counted from `now_ms` since the loop's time began; `None`
    /// when nothing is, so that an idle loop makes no wake-ups.
    #[must_use]
    pub fn sleep_ms(&self, now_ms: u64) -> Option<u64> {
        if self.has_work() {
            return Some(0);
        }
        if !self.blocked.is_empty() || self.has_blocked_batch() {
            return Some(1);
        }
        let sweep = self.slots.next_due();
        let drain = self.draining.as_ref().map(|_| self.now + 1);
        let update = self.topics.next_due();
        let next = [sweep, drain, update].into_iter().flatten().min()?;
        Some((u64::from(next) * TICK_MS).saturating_sub(now_ms))
    }

    /// Looks whether memory should be given back.
    pub(super) fn note_peak(&mut self) {
        let moved = self.counters.accepted.value() + self.counters.connections_closed.value();
        if moved - self.trimmed_at >= TRIM_AFTER {
            self.trim_owed = true;
            self.trimmed_at = moved;
        }
        self.trim_owed |= self.take_peak_is_over();
    }

    /// Whether inboxes, outboxes and request bodies hold much less than they did: their memory can go back. Asking
    /// resets it.
    pub fn take_peak_is_over(&mut self) -> bool {
        let held = (self.held.bytes() + self.body_bytes) as u64 + self.counters.outbox_bytes.value();
        self.held_peak = self.held_peak.max(held);
        let over = self.held_peak >= PEAK_BYTES_MIN && held <= self.held_peak / 2;
        if over {
            self.held_peak = held;
        }
        over
    }

    /// Puts a connection aside until there is room for more joins. Like those on the ready list, it has no event
    /// meanwhile; its request's time goes on.
    pub(super) fn wait_for_joins(&mut self, key: Key) {
        if let Some(slot) = self.slots.get(key)
            && !slot.connection.flags.has(Flags::LISTED)
        {
            slot.connection.flags.set(Flags::LISTED);
            self.newcomers.push_back(key);
        }
    }

    /// Whether this connection's request has to wait for joins before it: there is no room for its own, or others have
    /// waited longer for that.
    pub(super) fn joins_later(&self, key: Key) -> bool {
        let waits_behind = self.let_in != Some(key) && !self.newcomers.is_empty();
        self.port == Port::Client && (waits_behind || !self.topics.has_room_for_joins())
    }

    /// Gives some of those who waited for joins their turn, whoever has waited longest first.
    fn let_newcomers_in(&mut self) {
        if self.newcomers.is_empty() {
            return;
        }
        let mut slice = self.reading_slice((self.clock)(), READY_BYTES_PER_TURN);
        for _ in 0..self.newcomers.len().min(NEWCOMERS_PER_TURN) {
            if slice.is_over() || !self.topics.has_room_for_joins() {
                break;
            }
            self.let_in = self.newcomers.pop_front();
            if let Some(key) = self.let_in {
                self.ready_turn(key, &mut slice);
            }
        }
        self.let_in = None;
        if self.newcomers.is_empty() {
            self.newcomers.shrink_to(READY_KEPT);
        }
    }

    /// Puts a connection on the ready list, unless it is there.
    pub(super) fn list_ready(&mut self, key: Key) {
        if let Some(slot) = self.slots.get(key)
            && !slot.connection.flags.has(Flags::LISTED)
        {
            slot.connection.flags.set(Flags::LISTED);
            self.ready.push_back(key);
        }
    }

    /// Recomputes the one deadline of a slot.
    pub(super) fn rearm(&mut self, slot: u32) {
        let Some(entry) = self.slots.at(slot) else { return };
        let (deadline, _) =
            deadline::next(&entry.connection, &self.timeouts, self.bearers.due(slot, &self.timeouts));
        let current = entry.connection.deadline;
        // A later deadline is found when the earlier one strikes: an active connection need not touch its
        // page's schedule on every message. One that has none any more must not wake the loop for nothing.
        let later = deadline > current && deadline != Tick::MAX && current > self.now;
        if deadline != current && !later {
            self.slots.set_deadline(slot, deadline);
        }
    }
}

pub(super) fn rate_limits(edition: &Edition, port: Port) -> RateLimits {
    let (admission, auth) = (&edition.settings.admission, &edition.settings.auth);
    if port == Port::Admin {
        return RateLimits::default();
    }
    let rate = |per_second: usize, burst: usize| Rate { per_second: per_second as u64, burst: burst as u64 };
    RateLimits {
        messages: rate(admission.messages_per_second, admission.messages_burst),
        bytes: rate(admission.bytes_per_second, admission.bytes_burst),
        of_bearer: rate(auth.identity_messages_per_second, auth.identity_messages_burst),
    }
}

pub(super) fn timeout_ticks(edition: &Edition) -> TimeoutTicks {
    let ticks = |span: std::time::Duration| {
        if span.is_zero() {
            0
        } else {
            (span.as_millis() as u64).div_ceil(TICK_MS).min(u64::from(Tick::MAX)) as Tick
        }
    };
    let timeouts = &edition.settings.timeouts;
    TimeoutTicks {
        handshake: ticks(timeouts.handshake),
        keep_alive: ticks(timeouts.keep_alive),
        heartbeat: ticks(timeouts.heartbeat),
        sse_heartbeat: ticks(timeouts.sse_heartbeat),
        pong: ticks(timeouts.pong),
        write: ticks(timeouts.write),
        close: ticks(timeouts.close),
        linger: ticks(timeouts.linger),
        token_notice: ticks(edition.settings.auth.notice),
        token_grace: ticks(edition.settings.auth.grace),
    }
}

#[cfg(test)]
#[path = "core_tests.rs"]
mod tests;
