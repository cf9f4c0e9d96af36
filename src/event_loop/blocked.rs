//! Publishers that wait for room in a mailbox, by the loop whose mailbox it is, each in the order of waiting.
//!
//! Owned by the loop core, which lets them go on once a turn. Whoever is first in a queue is tried, and with it fails
//! everybody behind it: thousands may wait at the cost of one try. Never looks at a connection.

use std::collections::VecDeque;

use crate::topic::Key;

/// Entries a queue keeps room for when it is empty.
const KEPT: usize = 64;

/// The queues.
#[derive(Debug, Default)]
pub(super) struct BlockedQueues {
    /// By loop. The first is of those whose topic could not be had, which is nobody's mailbox.
    queues: Vec<VecDeque<Key>>,
    /// Loops for whose mailbox somebody waits, one bit each.
    loops: u64,
    len: usize,
    /// Of these, those whose connection is gone.
    gone: usize,
}

impl BlockedQueues {
    /// Whether nobody waits.
    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many do.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// How many queues there may be somebody in.
    pub(super) fn queues(&self) -> usize {
        self.queues.len()
    }

    /// Loops for whose mailbox somebody waits, one bit each: who comes now is behind them.
    pub(super) fn loops(&self) -> u64 {
        self.loops
    }

    /// Waits behind all others, or before them who has been first already.
    pub(super) fn push(&mut self, full: Option<usize>, key: Key, is_first: bool) {
        let queue = queue_of(full);
        if self.queues.len() <= queue {
            self.queues.resize_with(queue + 1, VecDeque::new);
        }
        let Some(entries) = self.queues.get_mut(queue) else { return };
        if is_first {
            entries.push_front(key);
        } else {
            entries.push_back(key);
        }
        self.len += 1;
        self.loops |= bit(queue);
    }

    /// Whoever has waited longest in this queue.
    pub(super) fn pop(&mut self, queue: usize) -> Option<Key> {
        let entries = self.queues.get_mut(queue)?;
        let key = entries.pop_front()?;
        self.len -= 1;
        if entries.is_empty() {
            self.loops &= !bit(queue);
            entries.shrink_to(KEPT);
        }
        if self.len == 0 {
            self.gone = 0;
        }
        Some(key)
    }

    /// Somebody who waits is gone. While the first of a queue finds no room nobody behind it is looked at, and so whoever
    /// comes and goes meanwhile would stay in there; once most are gone, the others move up.
    pub(super) fn note_gone(&mut self, is_there: impl Fn(Key) -> bool) {
        self.gone += 1;
        if self.gone <= KEPT.max(self.len / 2) {
            return;
        }
        (self.gone, self.len, self.loops) = (0, 0, 0);
        for (queue, entries) in self.queues.iter_mut().enumerate() {
            entries.retain(|key| is_there(*key));
            entries.shrink_to(KEPT);
            self.len += entries.len();
            self.loops |= if entries.is_empty() { 0 } else { bit(queue) };
        }
    }

    /// Whether this is the queue of those who wait for that loop's mailbox.
    pub(super) fn is_queue_of(queue: usize, full: Option<usize>) -> bool {
        queue == queue_of(full)
    }
}

fn queue_of(full: Option<usize>) -> usize {
    full.map_or(0, |loop_index| loop_index + 1)
}

fn bit(queue: usize) -> u64 {
    let shift = queue.checked_sub(1).and_then(|shift| u32::try_from(shift).ok());
    shift.and_then(|shift| 1_u64.checked_shl(shift)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_gone_does_not_stay_behind_one_that_finds_no_room() {
        let mut queues = BlockedQueues::default();
        let key = |slot| Key { slot, generation: 1 };
        queues.push(Some(0), key(0), false);
        for slot in 1..10_000 {
            queues.push(Some(slot as usize % 3), key(slot), false);
            queues.note_gone(|key| key.slot == 0);
            assert!(queues.len() <= 2 * KEPT + 2, "{} after {slot}", queues.len());
        }
        assert_eq!(queues.pop(1), Some(key(0)));
        while queues.pop(1).is_some() || queues.pop(2).is_some() || queues.pop(3).is_some() {}
        assert_eq!((queues.len(), queues.loops(), queues.gone), (0, 0, 0));
    }

    #[test]
    fn each_queue_keeps_its_order_and_tells_whom_it_waits_for() {
        let mut queues = BlockedQueues::default();
        let key = |slot| Key { slot, generation: 1 };
        for slot in 0..3 {
            queues.push(Some(63), key(slot), false);
        }
        queues.push(None, key(9), false);
        assert_eq!((queues.len(), queues.loops()), (4, 1 << 63));
        assert_eq!(queues.pop(64), Some(key(0)));
        queues.push(Some(63), key(0), true);
        assert_eq!(queues.pop(64), Some(key(0)));
        assert_eq!((queues.pop(64), queues.pop(64), queues.pop(64)), (Some(key(1)), Some(key(2)), None));
        assert_eq!(queues.loops(), 0);
        assert!(!queues.is_empty(), "no mailbox is waited for, and one who waits all the same");
        assert_eq!((queues.pop(0), queues.is_empty()), (Some(key(9)), true));
    }
}
