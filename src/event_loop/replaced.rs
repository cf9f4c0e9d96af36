//! Connections that make room for another one of their bearer, where `auth.connections_per_identity_full` says so.
//!
//! Driven by whatever has opened a connection, by the walk of a reload, and by what comes in the mail. The table of bearers
//! (`auth::admission::holders`) says who is the oldest, on whichever loop; here they are told and closed, by their own loop and in a
//! turn of its own. As many wait for that as there are connections at most.

use std::collections::VecDeque;

use super::closing::Words;
use super::core::Core;
use crate::auth::admission::holders::Taken;
use crate::connection::Phase;
use crate::edition::Answered;
use crate::metrics::CloseReason;
use crate::topic::{Key, Reply};
use crate::transport::Socket;

/// Connections that one turn closes: each is a `send`, and leaving the topics.
const CLOSED_PER_TURN: usize = 64;

/// Old connections that one newcomer replaces at most: more than one only where the limit was lowered and the walk of that reload is
/// under way.
const REPLACED_BY_ONE: usize = 4;

/// Room that is kept when there is nothing to do.
const KEPT: usize = 64;

/// Who has to make room.
#[derive(Debug, Default)]
pub(super) struct Replaced(VecDeque<Taken>);

impl Replaced {
    /// Whether anybody has.
    pub(super) fn has_work(&self) -> bool {
        !self.0.is_empty()
    }

    /// This connection has; it is closed in a turn of its own.
    pub(super) fn push(&mut self, taken: Taken) {
        self.0.push_back(taken);
    }
}

impl<S: Socket> Core<S> {
    /// A connection is open, or has shown its first token: the oldest of its bearer gives way, if they have more than they may.
    pub(super) fn replace_oldest(&mut self, slot: u32) {
        for _ in 0..REPLACED_BY_ONE {
            if !self.replace_one(slot) {
                return;
            }
        }
    }

    /// After a reload: counts a connection that came while nothing was limited, and has one of its bearer give way for it if they
    /// have more than they may now. One that another loop has just had told to close is counted again by that, so that more than one
    /// may have to go for it.
    pub(super) fn count_late(&mut self, key: Key) {
        let holders = &self.edition.holders;
        if !holders.are_limited() {
            return;
        }
        let Some(who) = self.bearers.identity(key.slot) else { return };
        let (came, _) = self.accepts.accepted(key.generation, self.generation, self.now);
        holders.enter_late(who, self.index, key.slot, came);
        self.replace_oldest(key.slot);
    }

    /// Has the oldest connection of a bearer told to close. `false`: they have no more than they may.
    fn replace_one(&self, slot: u32) -> bool {
        let Some(who) = self.bearers.identity(slot) else { return false };
        let Some(taken) = self.edition.holders.take_oldest(who) else { return false };
        // Nobody knows its generation here. Its own loop looks whether it is there still.
        let key = Key { slot: taken.slot, generation: 0 };
        let answer = Reply { key, ticket: 0, answer: Answered::Replaced(taken) };
        self.edition.router.send_answer(taken.loop_index, answer);
        true
    }

    /// Closes some of those who have to make room.
    pub fn replaced_turn(&mut self) {
        for _ in 0..CLOSED_PER_TURN {
            let Some(taken) = self.replaced.0.pop_front() else { break };
            let Some(who) = self.bearers.identity(taken.slot) else { continue };
            // Not where the limit was lifted since, and the slot may be another's who was never counted.
            if !self.edition.holders.is_taken(who, &taken) {
                continue;
            }
            let Some(slot) = self.slots.at(taken.slot) else { continue };
            let key = Key { slot: taken.slot, generation: slot.generation };
            match slot.connection.phase() {
                Phase::Open => self.close(key, CloseReason::OldestOfIdentity, Words::Own),
                // A poll is told that nothing has come; the next one is refused.
                Phase::Parked => drop(self.answer_poll(key)),
                Phase::Head | Phase::Body | Phase::Closing | Phase::Lingering => {}
            }
        }
        if self.replaced.0.is_empty() && self.replaced.0.capacity() > KEPT {
            self.replaced.0.shrink_to(KEPT);
        }
    }
}
