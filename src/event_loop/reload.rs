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

/// A subscription that is looked at again, in bytes of a slice: the first of its topic looks through the rules.
const REVIEW_BYTES: u64 = 1_024;

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
            slice.charge(REVIEW_BYTES * self.review(key) as u64, self.clock);
            self.count_late(key);
            self.reach_further(key);
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
