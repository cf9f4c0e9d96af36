//! Other settings for a running loop: swapped in between two turns, then every deadline is looked at again.
//!
//! Driven by the shell when a reload was announced. What a connection holds already stays as it is: a
//! smaller outbox bound drops nothing that waits, a smaller message bound binds from the next frame on.

use std::sync::Arc;

use super::core::{Core, rate_limits, timeout_ticks};
use super::http_turn::spread_within;
use super::slice::Slice;
use crate::connection::deadline::{self, Due};
use crate::edition::Edition;
use crate::topic::Outdated;
use crate::transport::Socket;
use crate::wire::deflate::Deflater;

/// Connections looked at in one turn.
const REARMED_PER_TURN: usize = 1_024;

/// How long that may take: rules may be many, and whoever loses a topic is told.
const REVIEW_NS: u64 = 500_000;

/// A connection or a subscription of it that is looked at again, in bytes of a slice.
const REVIEW_BYTES: u64 = 1_024;

/// Rules that are looked through in the time of that: a pattern meets all of them, a topic those in front of its own, and what is lost
/// is looked for in rules before, too.
const RULES_A_LOOK: usize = 16;

/// What it costs to look at a connection with so many subscriptions again.
fn review_bytes(looks: usize, rules: usize) -> u64 {
    (looks as u64)
        .saturating_mul(1 + (rules / RULES_A_LOOK) as u64)
        .saturating_add(1)
        .saturating_mul(REVIEW_BYTES)
}

impl<S: Socket> Core<S> {
    /// Takes the next edition of settings; deadlines follow in `reload_turn`.
    pub fn on_reload(&mut self, edition: Arc<Edition>) {
        self.timeouts = timeout_ticks(&edition);
        self.rates = rate_limits(&edition, self.port);
        let deflate = &edition.settings.deflate;
        self.deflater = Deflater::new(deflate.level as u32, deflate.min_bytes);
        self.topics.set_replay_bytes_max(edition.totals.history_forms as u64);
        self.edition = edition;
        self.topics.take_rules();
        // What is left of a walk under way is looked at by this one, by all rules since.
        self.reviewing.append(self.topics.take_outdated());
        self.rearming = Some(0);
    }

    /// Recomputes some deadlines: a shorter timeout must not wait for the longer one to strike, and one that
    /// was off has no deadline that could.
    pub fn reload_turn(&mut self) {
        let Some(from) = self.rearming else { return };
        let mut keys = Vec::new();
        self.rearming = self.slots.keys_from(from, REARMED_PER_TURN, &mut keys);
        let mut slice = Slice::new((self.clock)(), REVIEW_NS, u64::MAX);
        for key in keys {
            if slice.is_over() {
                self.rearming = Some(key.slot);
                return;
            }
            let looks = self.review(key);
            self.count_late(key);
            self.reach_further(key);
            slice.charge(review_bytes(looks, self.topics.rules().count()), self.clock);
            let Some(slot) = self.slots.get(key) else { continue };
            let (mut at, due) =
                deadline::next(&slot.connection, &self.timeouts, self.bearers.due(key.slot, &self.timeouts));
            if due == Due::Ping && at <= self.now {
                let heartbeat = self.timeouts.heartbeat_of(slot.connection.dialect);
                // Everybody who is overdue by a shorter heartbeat would be pinged at once, and again at once
                // whenever it is over.
                let due_at = self.now.saturating_add(spread_within(key, heartbeat));
                slot.connection.heard = due_at.saturating_sub(heartbeat);
                (at, _) = deadline::next(
                    &slot.connection,
                    &self.timeouts,
                    self.bearers.due(key.slot, &self.timeouts),
                );
            }
            if at != slot.connection.deadline {
                self.slots.set_deadline(key.slot, at);
            }
        }
        if self.rearming.is_none() {
            self.reviewing = Outdated::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    thread_local! {
        static LOOKS: Cell<u64> = const { Cell::new(0) };
    }

    fn clock() -> u64 {
        LOOKS.set(LOOKS.get() + 1);
        0
    }

    /// How often the clock is read while so many connections are looked at.
    fn read(connections: usize, looks: usize, rules: usize) -> u64 {
        LOOKS.set(0);
        let mut slice = Slice::new(0, 1, u64::MAX);
        (0..connections).for_each(|_| slice.charge(review_bytes(looks, rules), clock));
        LOOKS.get()
    }

    #[test]
    fn the_more_there_is_to_look_at_the_sooner_the_clock_is_read() {
        assert_eq!(read(1_024, 0, 1_000), 64, "nothing to look at");
        assert!((64..=128).contains(&read(1_024, 1, 10)));
        assert_eq!(read(1_024, 100, 10), 1_024, "many subscriptions");
        assert_eq!(read(1_024, 1, 1_000), 1_024, "many rules");
        assert_eq!(review_bytes(usize::MAX, usize::MAX), u64::MAX);
    }
}
