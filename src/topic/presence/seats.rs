//! Which of a loop's connections are on which list: what each remembers, apart from the connections, so that who is on none
//! pays nothing. Owned by one loop.

use std::collections::BTreeMap;

use super::member::MemberId;
use super::{List, Seat};
use crate::topic::sync::Arc;

/// The seats of one loop, by the topic's index there and the connection's slot.
#[derive(Debug, Default)]
pub struct Seats {
    /// All seats of a topic are on one list: it is given up when nobody is on it.
    topics: BTreeMap<u32, (Arc<List>, BTreeMap<u32, MemberId>)>,
}

impl Seats {
    /// Keeps the seat of a connection. It has none there.
    pub fn keep(&mut self, local: u32, slot: u32, seat: Seat) {
        let Seat { list, member } = seat;
        self.topics.entry(local).or_insert_with(|| (list, BTreeMap::new())).1.insert(slot, member);
    }

    /// Takes the seat of a connection, to be handed back.
    #[inline]
    pub fn take(&mut self, local: u32, slot: u32) -> Option<Seat> {
        if self.topics.is_empty() {
            return None;
        }
        let (list, members) = self.topics.get_mut(&local)?;
        let member = members.remove(&slot)?;
        let seat = Seat { list: list.clone(), member };
        if members.is_empty() {
            self.topics.remove(&local);
        }
        Some(seat)
    }

    /// As whom a connection is on the list.
    #[must_use]
    pub fn member(&self, local: u32, slot: u32) -> Option<&MemberId> {
        self.topics.get(&local)?.1.get(&slot)
    }
}
