//! Subscriptions that are behind: they are on no list, and read what their topic keeps until there is nothing more.

#[cfg(test)]
use fantail_test_support::planted;

use super::{LocalTopics, Moved};
use crate::topic::batch::BATCH_BYTES_MAX;
use crate::topic::entry::{Join, Mail, Place};
use crate::topic::form::{Deflate, Encoding};
use crate::topic::replay::Piece;
use crate::topic::state::CaughtUp;

/// Messages of one run of what a topic keeps, for subscribers who catch up.
const RUN_MESSAGES_MAX: usize = 1_024;

impl<M: Mail> LocalTopics<M> {
    /// Takes a listed subscriber off the list, without ending its subscription: it reads on from what the topic keeps.
    /// What it is to remember, and whom this has moved.
    pub fn fall_behind(&mut self, local: u32, slot: u32, place: Place) -> Option<(Place, Option<Moved>)> {
        let entry = self.topics.get_mut(local as usize)?;
        if !place.is_listed() || entry.list.get(place.0 as usize) != Some(slot) {
            return None;
        }
        entry.list.joins_waiting += 1;
        self.behind += 1;
        let ticket = Place::ticket(self.next_ticket);
        self.next_ticket = self.next_ticket.wrapping_add(1);
        Some((ticket, self.unlist(local, place)))
    }

    /// Reads a run of what the topic keeps, from `next` on, for a subscriber that is behind and remembers `ticket`. With
    /// nothing more to read it is to be listed as every other: its join waits.
    pub fn catch_up(&mut self, local: u32, slot: u32, ticket: Place, next: u64) -> Option<CaughtUp> {
        let topic = self.topics.get(local as usize)?.topic.clone();
        if self.replays.has(&topic, next) {
            return Some(CaughtUp::Read { next });
        }
        let mut messages = Vec::new();
        #[cfg(test)]
        let ticket = if planted::strikes(planted::Planted::SeamTicket) { Place::listed(0) } else { ticket };
        let join = Join { local, slot, ticket };
        let bounds = (RUN_MESSAGES_MAX, BATCH_BYTES_MAX);
        let done = self.router.catch_up(&topic, next, self.loop_index, join, bounds, &mut messages)?;
        if done == CaughtUp::Joined {
            self.joins_waiting += 1;
            // Though nobody has a pattern yet: who has one by the time that these messages are delivered does not get
            // them once more.
            self.read_up.insert(ticket.0);
            self.end_behind();
        }
        self.replays.add(&topic, messages);
        Some(done)
    }

    /// What a connection that wants this form gets of a run that was read, from the message at `next` on.
    pub fn replay(
        &mut self,
        local: u32,
        next: u64,
        form: M::Form,
        encoding: Encoding,
        deflate: impl Deflate,
    ) -> Option<Piece<'_>> {
        let topic = &self.topics.get(local as usize)?.topic;
        self.replays.piece(topic, next, form, encoding, deflate)
    }

    /// Ends a subscription that is behind; `place` is what the subscriber remembers.
    pub fn leave_behind(&mut self, local: u32, slot: u32, place: Place) {
        let Some(entry) = self.topics.get_mut(local as usize) else { return };
        // What it has read is not to come once more by a pattern, which it may have only later. A join that nobody waits for
        // says how far that is.
        let join = Join { local, slot, ticket: place };
        self.router.catch_up(&entry.topic, u64::MAX, self.loop_index, join, (0, 0), &mut Vec::new());
        self.joins_waiting += 1;
        self.read_up.insert(place.0);
        self.left.insert((local, slot), place.0);
        self.router.leave(&entry.topic);
        self.subscriptions -= 1;
        self.end_behind();
        self.close_if_idle(local);
    }

    fn end_behind(&mut self) {
        self.behind -= 1;
        if self.behind == 0 {
            self.replays.clear();
        }
    }

    /// Subscriptions that are behind.
    pub fn behind(&self) -> usize {
        self.behind
    }

    /// Bytes of old messages that are held in the forms of who catches up.
    pub fn replay_bytes(&self) -> u64 {
        self.replays.bytes()
    }

    /// How many there may be.
    pub fn set_replay_bytes_max(&mut self, bytes_max: u64) {
        self.replays.set_bytes_max(bytes_max);
    }
}
