//! Handshakes of a layer wait behind those who are served, and have a part of a turn of their own.
//!
//! Driven by the turn. An event of a connection that can't hear us yet only lists it here: a poll may tell of hundreds,
//! each of which takes as long as dozens of messages, and whoever is served would wait behind them all. Never knows what a
//! handshake is.

use super::core::{Core, EVENT_BYTES_PER_TURN};
use crate::connection::Flags;
use crate::topic::Key;
use crate::transport::Socket;

/// Entries for which room is kept while nobody waits.
const KEPT: usize = 256;

impl<S: Socket> Core<S> {
    /// Puts a connection aside whose layer is still shaking hands; `to_the_end` as for a read turn.
    pub(super) fn put_aside(&mut self, key: Key, to_the_end: bool) {
        let Some(slot) = self.slots.get(key) else { return };
        let listed = slot.connection.flags.has(Flags::LISTED);
        slot.connection.flags.set(Flags::LISTED);
        // Listed for what it has said, it may not be read as far as its end, which comes once.
        if !listed || to_the_end {
            self.handshakes.push_back((key, to_the_end));
        }
    }

    /// Gives those that were put aside their turns, until together they have taken enough. A step of a handshake counts as
    /// so much that the clock is looked at behind each: an RSA key of 4,096 bits takes milliseconds.
    pub(super) fn handshake_turn(&mut self) {
        if self.handshakes.is_empty() {
            return;
        }
        let mut slice = self.reading_slice((self.clock)(), EVENT_BYTES_PER_TURN);
        while !slice.is_over() {
            let Some((key, to_the_end)) = self.handshakes.pop_front() else { break };
            self.listed_turn(key, to_the_end, &mut slice);
        }
        if self.handshakes.is_empty() && self.handshakes.capacity() > KEPT {
            self.handshakes.shrink_to(KEPT);
        }
    }
}
