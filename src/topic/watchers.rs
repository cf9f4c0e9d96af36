//! One loop's subscribers by pattern, and the part of a pass that is theirs. Owned by the loop's topics; knows slots and
//! tickets by number only.
//!
//! A subscriber by pattern is on no topic's list: behind the list of the topic a pass goes through the numbers of the
//! slots that have one of its patterns, in ascending order, so that nobody is met twice however many of them fit. Who
//! comes meanwhile is told by its ticket from those that were there when the pass began, and who leaves is gone.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use super::level_pattern::LevelPattern;
use super::patterns::Matched;
use super::sync::Arc;

/// Slots that are looked up at a time.
const CHUNK: usize = 128;

/// A connection's subscription by pattern, as it remembers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watch {
    /// Which pattern.
    pub(super) pattern: u64,
    /// Tells it from any other, and the older of two by the lower number.
    pub(super) ticket: u64,
}

/// The patterns that connections of a loop subscribe to.
#[derive(Debug, Default)]
pub(super) struct Watchers {
    patterns: BTreeMap<u64, Watched>,
    /// Subscriptions by pattern.
    pub(super) subscriptions: usize,
    next_ticket: u64,
}

#[derive(Debug)]
struct Watched {
    pattern: LevelPattern,
    slots: BTreeSet<u32>,
}

/// The part of a pass that is theirs.
#[derive(Debug)]
pub(super) struct Watching {
    matched: Arc<Matched>,
    /// The first ticket that came behind the beginning of the pass.
    tickets_end: u64,
    /// Slots from this one on have not been looked up.
    from: Option<u32>,
    /// Those that were, the next one last.
    chunk: Vec<u32>,
    /// Slots that were on the topic's list when they were served, or have read these messages, and are not there now.
    pub(super) served: Vec<u32>,
}

impl Watchers {
    pub(super) fn is_empty(&self) -> bool {
        self.subscriptions == 0
    }

    /// A slot subscribes to a pattern that it does not have.
    pub(super) fn add(&mut self, id: u64, pattern: &LevelPattern, slot: u32) -> Watch {
        let watched = self
            .patterns
            .entry(id)
            .or_insert_with(|| Watched { pattern: pattern.clone(), slots: BTreeSet::new() });
        self.subscriptions += usize::from(watched.slots.insert(slot));
        self.next_ticket += 1;
        Watch { pattern: id, ticket: self.next_ticket - 1 }
    }

    /// A slot leaves a pattern. Returns the pattern if it was the last one.
    pub(super) fn remove(&mut self, watch: Watch, slot: u32) -> Option<LevelPattern> {
        let watched = self.patterns.get_mut(&watch.pattern)?;
        self.subscriptions -= usize::from(watched.slots.remove(&slot));
        if !watched.slots.is_empty() {
            return None;
        }
        self.patterns.remove(&watch.pattern).map(|watched| watched.pattern)
    }

    pub(super) fn pattern(&self, watch: Watch) -> Option<&LevelPattern> {
        self.patterns.get(&watch.pattern).map(|watched| &watched.pattern)
    }

    /// The part of a pass for a topic of these patterns; `None` if nobody here has one of them.
    pub(super) fn watching(&self, matched: Arc<Matched>) -> Option<Box<Watching>> {
        let known = matched.ids.iter().any(|id| self.patterns.contains_key(id));
        known.then(|| {
            let (chunk, served) = (Vec::new(), Vec::new());
            Box::new(Watching { matched, tickets_end: self.next_ticket, from: Some(0), chunk, served })
        })
    }

    /// The next slots of all the patterns, each once.
    fn look_up(&self, watching: &mut Watching, most: usize) {
        let Some(from) = watching.from.take() else { return };
        let sets = watching.matched.ids.iter().filter_map(|id| self.patterns.get(id));
        let mut sets: Vec<_> = sets.map(|watched| watched.slots.range(from..)).collect();
        if let [only] = sets.as_mut_slice() {
            watching.chunk.extend(only.take(most));
        } else {
            let firsts =
                sets.iter_mut().enumerate().filter_map(|(at, set)| Some(Reverse((*set.next()?, at))));
            let mut firsts: BinaryHeap<_> = firsts.collect();
            while watching.chunk.len() < most
                && let Some(Reverse((slot, at))) = firsts.pop()
            {
                if watching.chunk.last() != Some(&slot) {
                    watching.chunk.push(slot);
                }
                let next = sets.get_mut(at).and_then(Iterator::next);
                firsts.extend(next.map(|next| Reverse((*next, at))));
            }
        }
        if watching.chunk.len() == most {
            watching.from = watching.chunk.last().and_then(|last| last.checked_add(1));
        }
        watching.chunk.reverse();
    }

    /// The next slot of a pass that may be meant, and the budget counts each of them.
    pub(super) fn next(&self, watching: &mut Watching, deliveries: &mut u32) -> Option<u32> {
        if *deliveries == 0 {
            return None;
        }
        if watching.chunk.is_empty() {
            self.look_up(watching, CHUNK.min(*deliveries as usize));
        }
        let slot = watching.chunk.pop()?;
        *deliveries -= 1;
        Some(slot)
    }
}

impl Watching {
    /// Whether everybody was met.
    pub(super) fn is_over(&self) -> bool {
        self.chunk.is_empty() && self.from.is_none()
    }

    /// Whether a connection with these subscriptions had one of the patterns when the pass began, and has it still.
    pub(super) fn means(&self, watches: &[Watch]) -> bool {
        watches.iter().any(|watch| {
            watch.ticket < self.tickets_end && self.matched.ids.binary_search(&watch.pattern).is_ok()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> LevelPattern {
        LevelPattern::parse(text).unwrap()
    }

    fn all(watchers: &Watchers, ids: &[u64]) -> Vec<u32> {
        let matched = Arc::new(Matched { loops: 1, ids: ids.into() });
        let Some(mut watching) = watchers.watching(matched) else { return Vec::new() };
        let mut met = Vec::new();
        while !watching.is_over() {
            // Turns of every length.
            let mut deliveries = (met.len() % 7) as u32 * 29 + 1;
            while let Some(slot) = watchers.next(&mut watching, &mut deliveries) {
                met.push(slot);
            }
        }
        met
    }

    #[test]
    fn a_pass_meets_whoever_has_one_of_the_patterns_once() {
        let mut watchers = Watchers::default();
        let (mut random, mut twins) = (1_u32, [(); 4].map(|()| BTreeSet::new()));
        for _ in 0..3_000 {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let (id, slot) = ((random >> 8) as usize % 4, (random >> 12) % 700);
            if twins[id].insert(slot) {
                watchers.add(id as u64, &pattern("*"), slot);
            } else if random >> 30 == 0 {
                twins[id].remove(&slot);
                watchers.remove(Watch { pattern: id as u64, ticket: 0 }, slot);
            }
        }
        assert_eq!(watchers.subscriptions, twins.iter().map(BTreeSet::len).sum::<usize>());
        for ids in [&[2][..], &[0, 1], &[0, 1, 2, 3], &[1, 9], &[9]] {
            let mine = ids.iter().filter_map(|id| twins.get(*id as usize));
            let expected: BTreeSet<u32> = mine.flatten().copied().collect();
            assert_eq!(all(&watchers, ids), expected.into_iter().collect::<Vec<_>>(), "{ids:?}");
        }
    }

    #[test]
    fn who_comes_behind_the_beginning_of_a_pass_is_not_meant_by_it() {
        let mut watchers = Watchers::default();
        let before = watchers.add(1, &pattern("a/*"), 5);
        let matched = Arc::new(Matched { loops: 1, ids: [1, 2].into() });
        let watching = watchers.watching(matched.clone()).unwrap();
        let (again, other) = (watchers.add(2, &pattern("**"), 5), watchers.add(3, &pattern("*"), 5));
        assert!(watching.means(&[before]) && watching.means(&[other, again, before]));
        assert!(!watching.means(&[again]) && !watching.means(&[other]) && !watching.means(&[]));
        assert_eq!(watchers.pattern(before).map(LevelPattern::as_str), Some("a/*"));
        assert_eq!(watchers.remove(before, 5), Some(pattern("a/*")));
        assert_eq!(watchers.remove(again, 5), Some(pattern("**")));
        assert!(watchers.watching(matched).is_none() && !watchers.is_empty());
    }

    #[test]
    fn the_last_slot_number_is_no_end_without_end() {
        let mut watchers = Watchers::default();
        for slot in (u32::MAX - 127)..=u32::MAX {
            watchers.add(1, &pattern("*"), slot);
        }
        let matched = Arc::new(Matched { loops: 1, ids: [1].into() });
        let mut watching = watchers.watching(matched).unwrap();
        let mut deliveries = 128;
        while watchers.next(&mut watching, &mut deliveries).is_some() {}
        assert!(deliveries == 0 && watching.is_over());
    }
}
