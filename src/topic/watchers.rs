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
use super::rules::Access;
use super::sync::Arc;

/// Slots that are looked up at a time.
const CHUNK: usize = 128;

/// Numbers from this one on are of patterns that the index of all loops does not have.
const ASIDE: u64 = 1 << 63;

/// A connection's subscription by pattern, as it remembers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watch {
    /// Which pattern.
    pub(super) pattern: u64,
    /// Tells it from any other, and the older of two by the lower number.
    pub(super) ticket: u64,
    reach: Reach,
}

/// Which of the topics that a pattern means come to a subscriber of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reach {
    /// Those whose rule is this strict or less.
    pub upto: Access,
    /// It was not asked for, but is what a token allows of the pattern in front of it.
    pub is_part: bool,
}

impl Reach {
    /// Whatever no rule closes to all clients.
    pub const WHOLE: Self = Self { upto: Access::Claim, is_part: false };
}

impl Watch {
    /// Which of the pattern's topics come.
    #[must_use]
    pub fn reach(self) -> Reach {
        self.reach
    }

    /// Whether topics of the pattern can come at all: it is in the index of all loops.
    #[must_use]
    pub fn is_indexed(self) -> bool {
        self.pattern < ASIDE
    }

    /// The same subscription where less strict rules, or stricter ones, let topics come.
    #[must_use]
    pub fn reaching(self, upto: Access) -> Self {
        Self { reach: Reach { upto, ..self.reach }, ..self }
    }

    /// Whether both are of one pattern.
    #[must_use]
    pub fn is_like(self, other: Self) -> bool {
        self.pattern == other.pattern
    }
}

/// The patterns that connections of a loop subscribe to.
#[derive(Debug, Default)]
pub(super) struct Watchers {
    patterns: BTreeMap<u64, Watched>,
    /// Subscriptions by pattern, without parts.
    pub(super) subscriptions: usize,
    /// Those that the index of all loops does not have.
    pub(super) asides: usize,
    next_ticket: u64,
    next_aside: u64,
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
    /// Who may subscribe to the topic.
    access: Access,
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
        self.patterns.is_empty()
    }

    /// A slot subscribes to a pattern.
    pub(super) fn add(&mut self, id: u64, pattern: &LevelPattern, slot: u32, reach: Reach) -> Watch {
        let watched = self
            .patterns
            .entry(id)
            .or_insert_with(|| Watched { pattern: pattern.clone(), slots: BTreeSet::new() });
        watched.slots.insert(slot);
        self.subscriptions += usize::from(!reach.is_part);
        self.next_ticket += 1;
        Watch { pattern: id, ticket: self.next_ticket - 1, reach }
    }

    /// A slot subscribes to a pattern of which nothing comes but what its parts bring.
    pub(super) fn add_aside(&mut self, pattern: &LevelPattern, slot: u32, reach: Reach) -> Watch {
        self.next_aside += 1;
        self.asides += 1;
        self.add(ASIDE + self.next_aside, pattern, slot, reach)
    }

    /// A slot leaves a pattern, which it has `still` by another subscription. Returns the pattern if it was the last one, and
    /// all loops know of it.
    pub(super) fn remove(&mut self, watch: Watch, slot: u32, still: bool) -> Option<LevelPattern> {
        self.subscriptions -= usize::from(!watch.reach.is_part);
        let watched = self.patterns.get_mut(&watch.pattern)?;
        if still || !watched.slots.remove(&slot) || !watched.slots.is_empty() {
            return None;
        }
        let gone = self.patterns.remove(&watch.pattern)?;
        self.asides -= usize::from(!watch.is_indexed());
        watch.is_indexed().then_some(gone.pattern)
    }

    pub(super) fn pattern(&self, watch: Watch) -> Option<&LevelPattern> {
        self.patterns.get(&watch.pattern).map(|watched| &watched.pattern)
    }

    /// The part of a pass for a topic of these patterns, to which clients of this kind may subscribe; `None` if nobody here
    /// has one of them, or no client may.
    pub(super) fn watching(&self, matched: Arc<Matched>, access: Access) -> Option<Box<Watching>> {
        let known = access != Access::Nobody && matched.ids.iter().any(|id| self.patterns.contains_key(id));
        known.then(|| {
            let (chunk, served) = (Vec::new(), Vec::new());
            let tickets_end = self.next_ticket;
            Box::new(Watching { matched, access, tickets_end, from: Some(0), chunk, served })
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

    /// Whether a connection with these subscriptions had one of the patterns when the pass began, has it still, and may have
    /// the topic by it.
    pub(super) fn means(&self, watches: &[Watch]) -> bool {
        watches.iter().any(|watch| {
            watch.ticket < self.tickets_end
                && self.access >= watch.reach.upto
                && self.matched.ids.binary_search(&watch.pattern).is_ok()
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
        let Some(mut watching) = watchers.watching(matched, Access::Anyone) else { return Vec::new() };
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
                watchers.add(id as u64, &pattern("*"), slot, Reach::WHOLE);
            } else if random >> 30 == 0 {
                twins[id].remove(&slot);
                watchers.remove(Watch { pattern: id as u64, ticket: 0, reach: Reach::WHOLE }, slot, false);
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
        let before = watchers.add(1, &pattern("a/*"), 5, Reach::WHOLE);
        let matched = Arc::new(Matched { loops: 1, ids: [1, 2].into() });
        let watching = watchers.watching(matched.clone(), Access::Anyone).unwrap();
        let (again, other) = (
            watchers.add(2, &pattern("**"), 5, Reach::WHOLE),
            watchers.add(3, &pattern("*"), 5, Reach::WHOLE),
        );
        assert!(watching.means(&[before]) && watching.means(&[other, again, before]));
        assert!(!watching.means(&[again]) && !watching.means(&[other]) && !watching.means(&[]));
        assert_eq!(watchers.pattern(before).map(LevelPattern::as_str), Some("a/*"));
        assert_eq!(watchers.remove(before, 5, false), Some(pattern("a/*")));
        assert_eq!(watchers.remove(again, 5, false), Some(pattern("**")));
        assert!(watchers.watching(matched, Access::Anyone).is_none() && !watchers.is_empty());
    }

    #[test]
    fn a_topic_comes_by_a_pattern_that_reaches_its_rule() {
        let mut watchers = Watchers::default();
        let of = |upto, is_part| Reach { upto, is_part };
        let aside = watchers.add_aside(&pattern("chat/**"), 5, of(Access::Anyone, false));
        let part = watchers.add(1, &pattern("chat/a/*"), 5, of(Access::Claim, true));
        let open = watchers.add(2, &pattern("**"), 5, of(Access::Anyone, false));
        assert_eq!(watchers.subscriptions, 2, "a part is none of its own");
        assert!(!aside.is_indexed() && part.is_indexed() && watchers.asides == 1);
        let means = |watchers: &Watchers, access, watches: &[Watch]| {
            let matched = Arc::new(Matched { loops: 1, ids: [1, 2].into() });
            watchers.watching(matched, access).is_some_and(|watching| watching.means(watches))
        };
        for (access, by_part, by_open) in [
            (Access::Nobody, false, false),
            (Access::Claim, true, false),
            (Access::Identified, true, false),
            (Access::Anyone, true, true),
        ] {
            assert!(!means(&watchers, access, &[aside]), "{access:?}");
            assert_eq!(means(&watchers, access, &[part]), by_part, "{access:?}");
            assert_eq!(means(&watchers, access, &[open]), by_open, "{access:?}");
        }
        assert!(means(&watchers, Access::Identified, &[open.reaching(Access::Identified)]));
        // Who has a pattern twice keeps it until the second goes.
        let asked = watchers.add(1, &pattern("chat/a/*"), 5, Reach::WHOLE);
        assert!(asked.is_like(part) && !asked.is_like(open));
        assert_eq!(watchers.remove(part, 5, true), None);
        assert!(means(&watchers, Access::Claim, &[asked]));
        assert_eq!(watchers.remove(asked, 5, false), Some(pattern("chat/a/*")));
        assert_eq!(watchers.remove(aside, 5, false), None, "no other loop knows of it");
        assert_eq!(watchers.remove(open, 5, false), Some(pattern("**")));
        assert!(watchers.is_empty() && watchers.subscriptions == 0 && watchers.asides == 0);
    }

    #[test]
    fn the_last_slot_number_is_no_end_without_end() {
        let mut watchers = Watchers::default();
        for slot in (u32::MAX - 127)..=u32::MAX {
            watchers.add(1, &pattern("*"), slot, Reach::WHOLE);
        }
        let matched = Arc::new(Matched { loops: 1, ids: [1].into() });
        let mut watching = watchers.watching(matched, Access::Anyone).unwrap();
        let mut deliveries = 128;
        while watchers.next(&mut watching, &mut deliveries).is_some() {}
        assert!(deliveries == 0 && watching.is_over());
    }
}
