//! When messages were published, as far as the order in which they may arrive depends on it.
//!
//! A publisher with several connections has several messages on their way at once, and no server owes anybody an
//! order of these: message 5 may arrive before message 4 if 4 was not answered when 5 left. The publisher writes it,
//! workers look when a message arrives behind a later one, which is rare.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

/// Messages of a topic that are kept; one that arrives behind so many others is late by any measure.
const KEPT: usize = 65_536;
/// The same of all topics together.
const KEPT_OF_ALL: usize = 1_048_576;

/// See the module's head.
#[derive(Debug)]
pub(crate) struct Ledger {
    topics: Mutex<Vec<Topic>>,
    kept: usize,
}

#[derive(Debug, Default)]
struct Topic {
    /// The number of the first one that is kept.
    first: u32,
    messages: VecDeque<Message>,
}

#[derive(Clone, Copy, Debug)]
struct Message {
    begun_ns: u64,
    /// `u64::MAX` until it is answered.
    done_ns: u64,
}

impl Ledger {
    /// For so many topics.
    pub(crate) fn new(topics: u32) -> Self {
        let kept = (KEPT_OF_ALL / topics.max(1) as usize).clamp(16, KEPT);
        Self { topics: Mutex::new((0..topics).map(|_| Topic::default()).collect()), kept }
    }

    /// Message `number` of a topic leaves; numbers come in order, and one that was refused may come again.
    pub(crate) fn on_begin(&self, topic: u32, number: u32, now_ns: u64) {
        let mut topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(topic) = topics.get_mut(topic as usize) else { return };
        let message = Message { begun_ns: now_ns, done_ns: u64::MAX };
        match topic.get_mut(number) {
            Some(again) => *again = message,
            None => topic.messages.push_back(message),
        }
        if topic.messages.len() > self.kept {
            topic.messages.pop_front();
            topic.first += 1;
        }
    }

    /// It was answered.
    pub(crate) fn on_done(&self, topic: u32, number: u32, now_ns: u64) {
        let mut topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(message) = topics.get_mut(topic as usize).and_then(|topic| topic.get_mut(number)) {
            message.done_ns = now_ns;
        }
    }

    /// Whether message `late` was not answered yet when message `later` left, so that they may arrive in any order.
    pub(crate) fn overlapped(&self, topic: u32, late: u32, later: u32) -> bool {
        let mut topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(topic) = topics.get_mut(topic as usize) else { return false };
        let (late, later) = (topic.get_mut(late).copied(), topic.get_mut(later).copied());
        // What waits for a connection leaves in the moment in which the answer on it is taken.
        late.zip(later).is_some_and(|(late, later)| later.begun_ns < late.done_ns)
    }
}

impl Topic {
    fn get_mut(&mut self, number: u32) -> Option<&mut Message> {
        self.messages.get_mut(number.checked_sub(self.first)? as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_messages_on_their_way_together_may_overtake_each_other() {
        let ledger = Ledger::new(2);
        ledger.on_begin(1, 0, 10);
        ledger.on_begin(1, 1, 20);
        assert!(ledger.overlapped(1, 0, 1), "0 is not answered");
        ledger.on_done(1, 0, 30);
        assert!(ledger.overlapped(1, 0, 1), "1 left before 0 was answered");
        ledger.on_begin(1, 2, 40);
        assert!(!ledger.overlapped(1, 0, 2) && ledger.overlapped(1, 1, 2));
        ledger.on_done(1, 2, 50);
        ledger.on_begin(1, 3, 50);
        assert!(!ledger.overlapped(1, 2, 3), "3 waited for the answer to 2");
        assert!(!ledger.overlapped(0, 0, 1) && !ledger.overlapped(9, 0, 1), "another topic");
    }

    #[test]
    fn what_is_long_ago_is_not_kept() {
        let ledger = Ledger::new(1_000_000);
        for number in 0..100 {
            ledger.on_begin(3, number, u64::from(number));
        }
        assert!(!ledger.overlapped(3, 10, 99) && ledger.overlapped(3, 95, 99));
        ledger.on_begin(3, 99, 1_000);
        ledger.on_done(3, 99, 1_001);
        assert!(ledger.overlapped(3, 98, 99));
    }
}
