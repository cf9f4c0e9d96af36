//! What a connection has still to read of topics that keep messages, before their new ones are delivered to it, and of lists
//! of who is there.
//!
//! Boxed, there only meanwhile. Made and moved on by the event loop's catch-up turn. Never holds a message or a page: each is
//! read when there is room for it.

use crate::topic::MemberId;

/// One subscription that is behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CatchUp {
    /// The loop's index of the topic.
    pub topic: u32,
    /// The offset of the next message it gets.
    pub next: u64,
}

/// The list of a topic that a connection has not had all of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// The loop's index of the topic that tells of its changes.
    pub events: u32,
    /// Behind whom it goes on; `None` for its beginning.
    pub after: Option<MemberId>,
}

/// Subscriptions of a connection that are behind, and its lists, the next to have a turn first.
#[derive(Debug, Default)]
pub struct Behind {
    topics: Vec<CatchUp>,
    lists: Vec<Listing>,
    /// The last turn was a list's.
    listing: bool,
    /// It waits for its turn, and is not listed for it a second time.
    pub listed: bool,
}

impl Behind {
    /// Whether nothing is left to read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.topics.is_empty() && self.lists.is_empty()
    }

    /// How many subscriptions are behind.
    #[must_use]
    pub fn len(&self) -> usize {
        self.topics.len()
    }

    /// One more.
    pub fn push(&mut self, one: CatchUp) {
        self.topics.push(one);
    }

    /// Whether the subscription to this topic is.
    #[must_use]
    pub fn has(&self, topic: u32) -> bool {
        self.topics.iter().any(|one| one.topic == topic)
    }

    /// The one whose turn it is; the others have theirs before it has another.
    pub fn next_turn(&mut self) -> Option<CatchUp> {
        let first = self.topics.first().copied()?;
        self.topics.rotate_left(1);
        Some(first)
    }

    /// The list whose turn it is; where subscriptions are behind, too, they have every other turn.
    pub fn next_listing(&mut self) -> Option<Listing> {
        self.listing = !self.lists.is_empty() && (self.topics.is_empty() || !self.listing);
        self.lists.first().filter(|_| self.listing).cloned()
    }

    /// A list goes on here, behind the others that have a turn before it has another.
    pub fn list(&mut self, listing: Listing) {
        self.end_listing(listing.events);
        self.lists.push(listing);
    }

    /// Nothing is left of a list, or nobody wants it any more.
    pub fn end_listing(&mut self, events: u32) {
        self.lists.retain(|listing| listing.events != events);
    }

    /// The subscription to `topic` goes on at `next`.
    pub fn move_to(&mut self, topic: u32, next: u64) {
        if let Some(one) = self.topics.iter_mut().find(|one| one.topic == topic) {
            one.next = next;
        }
    }

    /// The subscription to `topic` is not behind any more. `false`: it was not.
    pub fn remove(&mut self, topic: u32) -> bool {
        let place = self.topics.iter().position(|one| one.topic == topic);
        place.map(|place| self.topics.remove(place)).is_some()
    }

    /// Bytes of memory.
    #[must_use]
    pub fn memory(&self) -> usize {
        size_of::<Self>()
            + self.topics.capacity() * size_of::<CatchUp>()
            + self.lists.capacity() * size_of::<Listing>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_have_their_turns_one_after_the_other() {
        let mut behind = Behind::default();
        (0..3).for_each(|topic| behind.push(CatchUp { topic, next: 1 }));
        let turns = |behind: &mut Behind, count: usize| -> Vec<(u32, u64)> {
            (0..count).filter_map(|_| behind.next_turn()).map(|one| (one.topic, one.next)).collect()
        };
        behind.move_to(1, 5);
        assert_eq!(turns(&mut behind, 4), [(0, 1), (1, 5), (2, 1), (0, 1)]);
        assert!(behind.remove(1) && !behind.remove(1) && !behind.has(1) && behind.has(2));
        assert_eq!((turns(&mut behind, 2).len(), behind.len(), behind.is_empty()), (2, 2, false));
    }

    #[test]
    fn lists_and_topics_take_turns() {
        let mut behind = Behind::default();
        let listing = |events, after: Option<&str>| Listing { events, after: after.map(MemberId::of) };
        behind.list(listing(7, None));
        behind.list(listing(8, None));
        behind.list(listing(7, Some("a")));
        // Alone they have every turn.
        assert_eq!(behind.next_listing(), Some(listing(8, None)));
        behind.list(listing(8, Some("b")));
        assert_eq!(behind.next_listing(), Some(listing(7, Some("a"))));
        behind.push(CatchUp { topic: 1, next: 1 });
        let turns: Vec<bool> = (0..4).map(|_| behind.next_listing().is_some()).collect();
        assert_eq!(turns, [false, true, false, true]);
        behind.end_listing(7);
        behind.end_listing(8);
        assert!(
            behind.next_listing().is_none() && !behind.is_empty() && behind.remove(1) && behind.is_empty()
        );
    }
}
