//! One turn of a loop: which work comes after which, written down once.
//!
//! [`Core::turn`] is driven by the shell in `run`, by the simulation and by the test of allocations alike; each
//! brings a [`Driver`], which stands for what is not the core's: the poll, the listener, the main thread. Never waits.

use std::sync::Arc;

use super::core::Core;
use super::run::TrimRequest;
use super::slice::Slice;
use crate::connection::{TICK_MS, Tick};
use crate::edition::Control;
use crate::edition::Edition;
use crate::transport::Socket;

const NS_PER_TICK: u64 = TICK_MS * 1_000_000;

/// How long events may take in one turn, and the ready list as long again: what is published meanwhile waits.
const READING_NS: u64 = 1_000_000;

/// The same while a fan-out is under way, whose turns have 0.5 ms: it has its share of the loop, however many
/// peers keep it busy, and they have theirs.
const READING_BESIDE_FANOUT_NS: u64 = 200_000;

/// Where a loop has the time within a turn from, in nanoseconds; a simulation puts its own in its place.
pub type Clock = fn() -> u64;

/// What the loop core is driven by.
pub trait Driver<S: Socket> {
    /// Gives the events of the last poll to [`Core::on_event`] until none is left or [`Core::has_had_events`]; what
    /// is left comes first in the next turn.
    fn take_events(&mut self, core: &mut Core<S>);

    /// Accepts, gives the listener up or takes it back.
    fn accept_turn(&mut self, core: &mut Core<S>);

    /// The newest settings: a reload was announced.
    fn on_reload(&mut self, core: &mut Core<S>) -> Arc<Edition>;

    /// The server drains: nobody new is to come.
    fn leave(&mut self, core: &mut Core<S>);

    /// Whether nobody new can come any more, so that clients may be sent away.
    fn has_left(&self) -> bool;

    /// The server stops.
    fn stop(&mut self);

    /// A request has asked to drain the server.
    fn on_drain_asked(&mut self);

    /// A request has asked for a reload. Each is answered by one of `Edition::reload_answers`, and told by mail.
    fn on_reload_asked(&mut self);

    /// Memory may be given back. `false`: not now, ask again.
    fn try_trim(&mut self, request: TrimRequest) -> bool;
}

/// What the mailbox had for the loop as a whole.
#[derive(Default)]
struct Orders {
    drain: bool,
    stop: bool,
    relocate: bool,
    reload: bool,
}

impl<S: Socket> Core<S> {
    /// Everything that is to be done at `now_ns`, within the budgets of each part.
    pub fn turn(&mut self, now_ns: u64, driver: &mut impl Driver<S>) {
        self.set_now(Tick::try_from(now_ns / NS_PER_TICK).unwrap_or(Tick::MAX));
        self.begin_events(now_ns);
        driver.take_events(self);
        driver.accept_turn(self);
        self.run_ready();
        self.handshake_turn();
        self.run_blocked();
        if self.has_mail() {
            self.take_mail(driver);
        }
        self.send_away(driver);
        self.sweep();
        self.reload_turn();
        self.fanout_turn();
        self.catch_up_turn();
        self.drain_turn();
        self.inquiry_turn();
        self.batch_turn();
        self.question_turn();
        self.forward_turn();
        self.replaced_turn();
        if self.take_drain_asked() {
            driver.on_drain_asked();
        }
        for _ in 0..self.take_reloads_asked() {
            driver.on_reload_asked();
        }
        self.give_back(driver);
    }

    /// The last look into the mailbox of a loop that has ended: whoever has asked it before is answered.
    pub fn last_turn(&mut self, driver: &mut impl Driver<S>) {
        // A look takes so many entries and no more; behind them may be somebody's question.
        while self.take_mail(driver) > 0 {}
        self.answer_last();
        if self.admin.is_some() {
            // Nobody is left who would take what room it waits for.
            self.edition.router.end_first();
        }
    }

    /// Begins the part of a turn that is the events'.
    pub(super) fn begin_events(&mut self, now_ns: u64) {
        self.slice = self.reading_slice(now_ns, super::core::EVENT_BYTES_PER_TURN);
    }

    /// Whether the events of this turn have taken what they may.
    #[must_use]
    pub fn has_had_events(&self) -> bool {
        self.slice.is_over()
    }

    pub(super) fn reading_slice(&self, now_ns: u64, bytes_max: u64) -> Slice {
        let time = if self.topics.has_work() { READING_BESIDE_FANOUT_NS } else { READING_NS };
        Slice::new(now_ns, time, bytes_max)
    }

    /// Whether the mailbox is worth its lock. What comes a moment later raises the loop again.
    fn has_mail(&self) -> bool {
        self.topics.has_work()
            || self.edition.router.mailbox(self.index).is_some_and(|mailbox| !mailbox.is_empty())
    }

    /// Takes entries of the mailbox, and returns how many.
    fn take_mail(&mut self, driver: &mut impl Driver<S>) -> usize {
        let mut orders = Orders::default();
        let count = self.drain_mailbox(|control| match control {
            Control::Drain => orders.drain = true,
            Control::Stop => orders.stop = true,
            Control::Relocate => orders.relocate = true,
            Control::Reload => orders.reload = true,
            // The core answers these itself.
            Control::Inquire(_) => {}
        });
        if orders.relocate {
            self.start_relocation();
        }
        if orders.reload {
            let edition = driver.on_reload(self);
            self.on_reload(edition);
            self.answer_reloads();
        }
        if orders.drain {
            driver.leave(self);
        }
        if orders.stop {
            driver.stop();
        }
        count
    }

    /// Sends clients away once nobody of them could come back to this server.
    fn send_away(&mut self, driver: &mut impl Driver<S>) {
        if driver.has_left() {
            let spread = self.edition.settings.drain.length.as_millis() as u64 / TICK_MS;
            self.start_drain(u32::try_from(spread).unwrap_or(u32::MAX));
        }
    }

    /// After a peak the allocator holds pages that nobody uses: a handshake storm leaves half as much again.
    fn give_back(&mut self, driver: &mut impl Driver<S>) {
        self.note_peak();
        if self.trim_owed {
            self.trim_owed = !driver.try_trim(TrimRequest::AfterPeak);
        }
        if self.relocation_turn() {
            // Where another request waits already, it serves this one, too.
            driver.try_trim(TrimRequest::AfterMove);
        }
    }
}
