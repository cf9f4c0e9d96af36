//! What a connection has still to read of topics that keep messages, before their new ones are delivered to it.
//!
//! Boxed, there only meanwhile. Made and moved on by the event loop's catch-up turn. Never holds a message: each is
//! read when there is room for it.

/// One subscription that is behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CatchUp {
    /// The loop's index of the topic.
    pub topic: u32,
    /// The offset of the next message it gets.
    pub next: u64,
}

/// Subscriptions of a connection that are behind, the next to have a turn first.
#[derive(Debug, Default)]
pub struct Behind {
    topics: Vec<CatchUp>,
    /// It waits for its turn, and is not listed for it a second time.
    pub listed: bool,
}

impl Behind {
    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.topics.is_empty()
    }

    /// How many are.
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
        size_of::<Self>() + self.topics.capacity() * size_of::<CatchUp>()
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
}
