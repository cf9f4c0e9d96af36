//! How often a loop's topics are delivered whose rule has an interval: when each may be again, and which wait for that
//! with a message. Owned by the loop's topics; knows time by ticks only, and topics by number.
//!
//! The entry of a topic is there until it may be delivered again, and nothing is there for its subscribers.

use std::collections::{BTreeMap, BTreeSet};

/// Milliseconds of a tick.
const TICK_MS: u32 = 100;

/// Entries kept before those are looked for that are over.
const KEPT_MIN: usize = 1_024;

/// When topics may be delivered.
#[derive(Debug, Default)]
pub(super) struct Pacer {
    now: u32,
    /// By the topic's id, the tick from which on it may be delivered again.
    again: BTreeMap<u64, u32>,
    /// Topics that wait with a message, by the tick at which they are due and the loop's index.
    waiting: BTreeSet<(u32, u32)>,
    /// Entries beyond which those that are over are let go.
    looked_at: usize,
    /// Nothing waits any more: the server drains.
    pub(super) flushing: bool,
    /// Messages that a newer one has replaced.
    pub(super) replaced: u64,
}

impl Pacer {
    /// Tells the time; never goes back.
    pub(super) fn set_now(&mut self, now: u32) {
        self.now = self.now.max(now);
    }

    /// When a topic of this interval may be delivered that has a message now; `None` for at once, and then it is noted.
    pub(super) fn due(&mut self, topic: u64, interval_ms: u32) -> Option<u32> {
        if interval_ms == 0 || self.flushing {
            return None;
        }
        if let Some(due) = self.again.get(&topic).copied().filter(|due| *due > self.now) {
            // A rule with a shorter interval holds at once.
            let due = due.min(self.now.saturating_add(ticks(interval_ms)));
            self.again.insert(topic, due);
            return Some(due);
        }
        if self.again.len() >= self.looked_at.max(KEPT_MIN) {
            let now = self.now;
            self.again.retain(|_, due| *due > now);
            self.looked_at = self.again.len() * 2;
        }
        self.again.insert(topic, self.now.saturating_add(ticks(interval_ms)));
        None
    }

    /// The loop's topic `local` waits until `due`.
    pub(super) fn wait(&mut self, due: u32, local: u32) {
        self.waiting.insert((due, local));
    }

    /// It does not wait any more.
    pub(super) fn stop_waiting(&mut self, due: u32, local: u32) {
        self.waiting.remove(&(due, local));
    }

    /// The next topic whose time has come, or with `all` any that waits.
    pub(super) fn next(&mut self, all: bool) -> Option<u32> {
        let (due, local) = self.waiting.first().copied()?;
        if due > self.now && !all {
            return None;
        }
        self.waiting.pop_first();
        Some(local)
    }

    /// When the next one's time comes, in ticks.
    pub(super) fn next_due(&self) -> Option<u32> {
        self.waiting.first().map(|first| first.0)
    }
}

/// Ticks of an interval, which is not shorter for being counted in them.
fn ticks(interval_ms: u32) -> u32 {
    interval_ms.div_ceil(TICK_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_has_its_turn_once_an_interval() {
        let mut pacer = Pacer::default();
        pacer.set_now(50);
        assert_eq!(pacer.due(7, 0), None);
        assert_eq!(pacer.due(7, 250), None, "the first one goes at once");
        assert_eq!((pacer.due(7, 250), pacer.due(8, 250)), (Some(53), None));
        pacer.set_now(52);
        assert_eq!(pacer.due(7, 250), Some(53));
        assert_eq!(pacer.due(7, 50), Some(53), "not later than the rule before");
        pacer.set_now(53);
        assert_eq!(pacer.due(7, 60_000), None);
        assert_eq!(pacer.due(7, 60_000), Some(653));
        assert_eq!(pacer.due(7, 100), Some(54), "another rule");
        pacer.flushing = true;
        assert_eq!(pacer.due(7, 100), None);
    }

    #[test]
    fn who_waits_comes_in_the_order_of_time() {
        let mut pacer = Pacer::default();
        pacer.set_now(10);
        for (due, local) in [(14, 1), (12, 2), (12, 3), (13, 4)] {
            pacer.wait(due, local);
        }
        assert_eq!((pacer.next_due(), pacer.next(false)), (Some(12), None));
        pacer.stop_waiting(12, 3);
        pacer.set_now(13);
        assert_eq!([pacer.next(false), pacer.next(false), pacer.next(false)], [Some(2), Some(4), None]);
        assert_eq!((pacer.next(true), pacer.next(true), pacer.next_due()), (Some(1), None, None));
    }

    #[test]
    fn entries_that_are_over_go() {
        let mut pacer = Pacer::default();
        for topic in 0..100_000 {
            pacer.set_now(topic as u32 / 100);
            assert_eq!(pacer.due(topic, 200), None);
        }
        assert!(pacer.again.len() <= KEPT_MIN, "{}", pacer.again.len());
    }
}
