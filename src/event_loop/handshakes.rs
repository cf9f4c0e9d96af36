//! Handshakes of a layer wait behind those who are served, and have a part of a turn of their own.
//!
//! Driven by the turn. Whatever wants to read from a connection that is shaking hands only lists it here: a poll may tell of
//! hundreds, each of which takes as long as dozens of messages, and whoever is served would wait behind them all. Only the
//! sweep takes such steps, too, and has a part of a turn for them. Never knows what a handshake is.

use super::core::{Core, EVENT_BYTES_PER_TURN};
use crate::connection::{Connection, Flags, Phase, Slot};
use crate::topic::Key;
use crate::transport::Socket;

/// Whether a read from a connection may have to take a step of a handshake. The phase comes first: whoever is open has shaken
/// hands, and of most layers that is asked by looking it up.
#[inline]
pub(super) fn is_shaking_hands<S: Socket>(stream: &S, connection: &Connection, shared: &S::Shared) -> bool {
    matches!(connection.phase(), Phase::Head | Phase::Lingering) && stream.is_shaking_hands(shared)
}

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
            // What it has said since it has shaken hands, or has given that up, no other list was told of: its end may be there.
            let shakes = |slot: &Slot<S>| is_shaking_hands(&slot.stream, &slot.connection, &self.transport);
            let to_the_end = to_the_end || self.slots.get(key).is_some_and(|slot| !shakes(slot));
            self.listed_turn(key, &mut slice, |core| core.read_now(key, to_the_end));
        }
        if self.handshakes.is_empty() && self.handshakes.capacity() > KEPT {
            self.handshakes.shrink_to(KEPT);
        }
    }
}
