//! Draining: everybody is told 1001, spread over the drain time, so that their reconnects are no storm.
//!
//! Who connected just before the listener was given up is served as well: its request is on its way, and a
//! refusal would be seen by its user, a close frame behind the 101 is not.

use std::collections::VecDeque;
use std::time::Duration;

use super::closing::Words;
use super::core::Core;
use crate::connection::{Flags, Phase, Slot, TICK_MS, Tick};
use crate::metrics::CloseReason;
use crate::topic::Key;
use crate::transport::Socket;

/// Connections that one turn chooses, and tells, at the most.
const TOLD_PER_TURN_MAX: usize = 1_024;

/// How long the first request of a connection is awaited, in ticks: as long as a lost packet takes to come again.
const REQUEST_TICKS: Tick = 20;

/// How long telling waits, in ticks, for a moment in which everything that was published has been delivered.
const QUIET_TICKS: Tick = 10;

/// How long it waits for what had been published when its time came: a loop that can't keep up must come to its end,
/// too.
const FANOUT_TICKS: Tick = 30;

/// How long after the drain time the last ones are told, with a second for their answers: a process that ends before
/// cuts off those who wait for it.
pub(super) const TELLING_TIME: Duration = Duration::from_millis((FANOUT_TICKS as u64 + 10) * TICK_MS);

/// How far the drain has come.
#[derive(Debug)]
pub(super) struct DrainState {
    started: Tick,
    /// Ticks over which the close frames are spread.
    spread: Tick,
    /// Connections when it started.
    total: usize,
    /// Loops over which those of the process are spread.
    loops: u64,
    /// Which of them this one is: with a few connections a loop, they would otherwise all be told in the same moments.
    place: u64,
    told: usize,
    /// More are due at once than one turn tells.
    pub(super) behind: bool,
    /// Slot index to go on from; `None` when everybody was told.
    next: Option<u32>,
    /// Who is told next, once what was published before has been delivered.
    held: VecDeque<Held>,
    /// When that was last looked at, unless there was more to tell than one turn does.
    looked: Option<Tick>,
    /// Whose first request is awaited until [`REQUEST_TICKS`] after the start.
    awaited: Vec<Key>,
}

/// Connections whose time to be told has come.
#[derive(Debug)]
struct Held {
    /// Behind what was published by then.
    mark: u64,
    since: Tick,
    keys: Vec<Key>,
}

impl DrainState {
    /// How many are to be told when so many ticks have begun. However few they are, the whole time is used: elsewhere
    /// they are newcomers, among those of the loops and servers that drain at the same time.
    fn due(&self, elapsed: u64) -> usize {
        let spread = u64::from(self.spread);
        if elapsed >= spread {
            return usize::MAX;
        }
        // One at (number + place / loops) × spread / total, in ticks from the start.
        let begun = (self.total as u64 * elapsed * self.loops).saturating_sub(self.place * spread);
        usize::try_from(begun.div_ceil(spread * self.loops)).unwrap_or(usize::MAX)
    }
}

impl<S: Socket> Core<S> {
    /// Starts to drain; the close frames go out evenly over `spread` ticks.
    pub fn start_drain(&mut self, spread: Tick) {
        if self.draining.is_none() {
            // What waits for its time has none left.
            self.topics.flush();
            let total = self.slots.len();
            // Whoever is alone need not wait.
            let alone = self.edition.connections_open() <= 1;
            let place = if alone { 0 } else { self.index as u64 };
            let loops = self.edition.loops().max(1) as u64;
            let started = self.now;
            let next = Some(0);
            let awaited = Vec::new();
            let state = DrainState {
                started,
                spread,
                total,
                loops,
                place,
                told: 0,
                behind: false,
                next,
                held: VecDeque::new(),
                looked: None,
                awaited,
            };
            self.draining = Some(state);
        }
    }

    /// Whether the drain is over: nobody is connected any more, and no topic counts on this loop to make room in
    /// its mailbox.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.draining.is_some() && self.slots.is_empty() && self.topics.is_empty()
    }

    /// Tells as many as the elapsed time asks for.
    pub fn drain_turn(&mut self) {
        if let Some(state) = &mut self.draining {
            state.behind = false;
            self.end_awaited();
            self.hold_next();
            self.tell_held();
        }
    }

    /// Chooses whose time has come.
    fn hold_next(&mut self) {
        let Some(state) = &mut self.draining else { return };
        let elapsed = u64::from(self.now - state.started) + 1;
        let target = state.due(elapsed);
        let Some(from) = state.next else { return };
        let count = target.saturating_sub(state.told);
        if count == 0 {
            return;
        }
        let mut keys = Vec::new();
        state.next = self.slots.keys_from(from, count.min(TOLD_PER_TURN_MAX), &mut keys);
        state.behind |= count > TOLD_PER_TURN_MAX && state.next.is_some();
        state.told += keys.len();
        state.held.push_back(Held { mark: self.topics.mark(), since: self.now, keys });
    }

    /// Tells those whose time has come when nothing waits to be delivered: what was published before a client's
    /// close frame comes before it. On a busy loop, behind what had been published when their time came.
    fn tell_held(&mut self) {
        let now = self.now;
        let mailbox = self.edition.router.mailbox(self.index);
        let quiet = !self.topics.has_work() && mailbox.is_none_or(|mailbox| mailbox.is_empty());
        let Some(state) = &mut self.draining else { return };
        // Marks take a look at every topic, which a tick may cost and a turn not.
        if state.held.is_empty() || !quiet && state.looked == Some(now) {
            return;
        }
        state.looked = Some(now);
        let delivered = self.topics.delivered();
        let may_go = |held: &Held| {
            let waited = now - held.since;
            quiet || waited >= QUIET_TICKS && held.mark <= delivered || waited >= FANOUT_TICKS
        };
        let mut told = 0;
        while let Some(state) = &mut self.draining
            && state.held.front().is_some_and(may_go)
        {
            if told >= TOLD_PER_TURN_MAX {
                // Those of many ticks may go at once: more than a turn has time for.
                state.behind = true;
                state.looked = None;
                break;
            }
            let keys = state.held.pop_front().map(|held| held.keys).unwrap_or_default();
            told += keys.len();
            for key in keys {
                self.tell_leaving(key);
            }
        }
    }

    /// Tells a connection that has just been upgraded, if its turn has passed.
    pub(super) fn tell_upgraded(&mut self, key: Key) {
        let passed = |state: &DrainState| state.next.is_none_or(|next| key.slot < next);
        if self.draining.as_ref().is_some_and(passed) {
            self.close(key, CloseReason::Drain, Words::Own);
        }
    }

    fn tell_leaving(&mut self, key: Key) {
        let now = self.now;
        let Some(slot) = self.slots.get(key) else { return };
        let connection = &slot.connection;
        match connection.phase() {
            Phase::Open => self.close(key, CloseReason::Drain, Words::Own),
            Phase::Head if connection.session.is_none() => {
                let new = !connection.flags.has(Flags::KEPT_ALIVE) && now - connection.heard < REQUEST_TICKS;
                match &mut self.draining {
                    Some(state) if new => state.awaited.push(key),
                    _ => self.end(key, CloseReason::Drain, Words::Nothing),
                }
            }
            Phase::Parked if self.answer_poll(key) => {}
            // A request on its way is answered when its head is complete, or times out.
            Phase::Head | Phase::Body | Phase::Parked | Phase::Closing | Phase::Lingering => {}
        }
    }

    /// Whoever has connected and asked for nothing all the time is not waited for any more.
    fn end_awaited(&mut self) {
        let now = self.now;
        let Some(state) = &mut self.draining else { return };
        if state.awaited.is_empty() || now - state.started < REQUEST_TICKS {
            return;
        }
        let kept = state.awaited.len().saturating_sub(TOLD_PER_TURN_MAX);
        state.behind |= kept > 0;
        for key in state.awaited.split_off(kept) {
            let silent = |slot: &mut Slot<S>| {
                slot.connection.phase() == Phase::Head && slot.connection.session.is_none()
            };
            if self.slots.get(key).is_some_and(silent) {
                self.end(key, CloseReason::Drain, Words::Nothing);
            }
        }
    }
}
