//! Which of a loop's connections are on which list: what each remembers, apart from the connections, so that who is on none
//! pays nothing. Owned by one loop.

use std::collections::BTreeMap;

use super::member::MemberId;
use super::{List, Presences, Seat, StateDenial};
use crate::topic::rules::PresencePolicy;
use crate::topic::sync::{Arc, Ordering};

/// States that a connection may set on one topic within a second: faster than people do anything, and each takes the lock
/// of the list.
const STATES_PER_SECOND: u8 = 10;

/// The seats of one loop, by the topic's index there and the connection's slot.
#[derive(Debug, Default)]
pub struct Seats {
    /// All seats of a topic are on one list: it is given up when nobody is on it.
    topics: BTreeMap<u32, (Arc<List>, BTreeMap<u32, MemberId>)>,
    /// How many states were set within which second, by those who have set any.
    rates: BTreeMap<(u32, u32), (u64, u8)>,
}

/// What a connection says of its member.
#[derive(Clone, Copy, Debug)]
pub struct Saying<'a> {
    /// JSON on one line; `None` for nothing any more.
    pub state: Option<&'a str>,
    /// After how many seconds it ends, if that is sooner than the rule's.
    pub seconds: Option<u16>,
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
        if !self.rates.is_empty() {
            self.rates.remove(&(local, slot));
        }
        Some(seat)
    }

    /// As whom a connection is on the list.
    #[must_use]
    pub fn member(&self, local: u32, slot: u32) -> Option<&MemberId> {
        self.topics.get(&local)?.1.get(&slot)
    }

    /// A connection says something of its member on the topic of this index.
    ///
    /// # Errors
    /// It is not taken, and what was said before still holds.
    pub fn say(
        &mut self,
        presences: &Presences,
        (local, slot): (u32, u32),
        policy: PresencePolicy,
        said: Saying<'_>,
        now_ms: u64,
    ) -> Result<(), StateDenial> {
        let (list, members) = self.topics.get(&local).ok_or(StateDenial::NotListed)?;
        let member = members.get(&slot).ok_or(StateDenial::NotListed)?;
        let (second, count) = self.rates.entry((local, slot)).or_default();
        if std::mem::replace(second, now_ms / 1_000) != now_ms / 1_000 {
            *count = 0;
        }
        if *count >= STATES_PER_SECOND {
            presences.states_refused.fetch_add(1, Ordering::Relaxed);
            return Err(StateDenial::TooFast);
        }
        *count += 1;
        presences.say((list, member), policy, said, now_ms)
    }
}
