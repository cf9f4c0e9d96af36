//! How many connections each handle holds: one shard's open-addressed table, 8 bytes an entry.
//!
//! Driven by [`super::Admission`] under the shard's lock. Holds an entry only while its count is not 0, so it is
//! as large as there are connections, whoever they come from.

/// Slots a table has at the least once it has any.
const SLOTS_MIN: usize = 16;

/// Bits of a handle below those that choose the shard.
const PLACE_BITS: u32 = u32::BITS - super::SHARD_BITS;

/// Entries are the handle in the upper half and its count in the lower one; 0 is an empty slot, since a handle
/// is never 0. Linear probing; a removal closes its gap, so there are no tombstones.
#[derive(Default)]
pub(super) struct Counts {
    slots: Vec<u64>,
    len: usize,
}

impl Counts {
    /// Handles with a count.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Bytes it holds.
    pub(super) fn bytes(&self) -> usize {
        self.slots.capacity() * size_of::<u64>()
    }

    /// Connections of `handle`.
    pub(super) fn count(&self, handle: u32) -> u32 {
        let Some(at) = self.find(handle) else { return 0 };
        self.slots.get(at).map_or(0, |entry| *entry as u32)
    }

    /// One more.
    pub(super) fn add(&mut self, handle: u32) {
        // At most four slots in five are taken: more would make probing long, fewer would cost memory.
        if (self.len + 1) * 5 > self.slots.len() * 4 {
            self.rebuild(self.slots.len() + self.slots.len() / 4);
        }
        let Some(at) = self.find(handle) else { return };
        let Some(entry) = self.slots.get_mut(at) else { return };
        if *entry == 0 {
            *entry = u64::from(handle) << 32;
            self.len += 1;
        }
        *entry += 1;
    }

    /// One less. A handle without a count is left alone.
    pub(super) fn sub(&mut self, handle: u32) {
        let Some(at) = self.find(handle) else { return };
        match self.slots.get_mut(at) {
            Some(entry) if *entry as u32 > 1 => *entry -= 1,
            Some(entry) if *entry != 0 => {
                self.len -= 1;
                self.close_gap(at);
                if self.slots.len() > SLOTS_MIN && self.len * 3 < self.slots.len() {
                    self.rebuild(self.len * 3 / 2);
                }
            }
            _ => {}
        }
    }

    /// The slot of `handle`, or the empty one where it would be; `None` in a table without slots.
    fn find(&self, handle: u32) -> Option<usize> {
        let mut at = home(handle, self.slots.len());
        for _ in 0..self.slots.len() {
            match self.slots.get(at) {
                Some(entry) if *entry == 0 || (*entry >> 32) as u32 == handle => return Some(at),
                _ => at = next(at, self.slots.len()),
            }
        }
        None
    }

    /// Empties the slot at `gap` and moves up what was pushed past it.
    fn close_gap(&mut self, mut gap: usize) {
        let slots = self.slots.len();
        let mut at = gap;
        loop {
            at = next(at, slots);
            let entry = self.slots.get(at).copied().unwrap_or(0);
            if entry == 0 {
                break;
            }
            // An entry may stand anywhere between its home and the first empty slot behind it.
            let from_home = distance(home((entry >> 32) as u32, slots), at, slots);
            if from_home >= distance(gap, at, slots) {
                self.slots.swap(gap, at);
                gap = at;
            }
        }
        if let Some(entry) = self.slots.get_mut(gap) {
            *entry = 0;
        }
    }

    fn rebuild(&mut self, slots: usize) {
        let old = std::mem::replace(&mut self.slots, vec![0; slots.max(SLOTS_MIN)]);
        for entry in old.into_iter().filter(|entry| *entry != 0) {
            if let Some(slot) = self.find((entry >> 32) as u32).and_then(|at| self.slots.get_mut(at)) {
                *slot = entry;
            }
        }
    }
}

/// Where the probing for `handle` begins: the bits below the shard's, spread over any number of slots.
fn home(handle: u32, slots: usize) -> usize {
    let place = u64::from(handle) & ((1 << PLACE_BITS) - 1);
    ((place * slots as u64) >> PLACE_BITS) as usize
}

fn next(at: usize, slots: usize) -> usize {
    if at + 1 == slots { 0 } else { at + 1 }
}

/// Steps from `from` forward to `to`.
fn distance(from: usize, to: usize, slots: usize) -> usize {
    if to >= from { to - from } else { to + slots - from }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn check(steps: &[(bool, u32)]) {
        let mut counts = Counts::default();
        let mut model: BTreeMap<u32, u32> = BTreeMap::new();
        for &(enters, handle) in steps {
            if enters {
                counts.add(handle);
                *model.entry(handle).or_default() += 1;
            } else {
                counts.sub(handle);
                if let Some(count) = model.get_mut(&handle) {
                    *count -= 1;
                    if *count == 0 {
                        model.remove(&handle);
                    }
                }
            }
            assert_eq!(counts.len(), model.len());
        }
        for handle in steps.iter().map(|step| step.1) {
            assert_eq!(counts.count(handle), model.get(&handle).copied().unwrap_or(0), "{handle:#x}");
        }
        assert_eq!(counts.slots.iter().filter(|entry| **entry != 0).count(), model.len());
    }

    proptest! {
        #[test]
        fn it_counts_as_a_map_does(steps in prop::collection::vec((any::<bool>(), 1_u32..200), 0..600)) {
            // Spread over all slots; and all with one home, or the last ones, where probing wraps around.
            let spread = |(enters, handle): (bool, u32)| (enters, handle.wrapping_mul(0x9E37_79B9).max(1));
            check(&steps.iter().copied().map(spread).collect::<Vec<_>>());
            check(&steps);
            let last = |(enters, handle): (bool, u32)| (enters, (1 << PLACE_BITS) - handle);
            check(&steps.iter().copied().map(last).collect::<Vec<_>>());
        }
    }

    #[test]
    fn it_shrinks_when_they_leave() {
        let handles = || (1..50_000_u32).map(|n| n.wrapping_mul(0x9E37_79B9).max(1));
        let mut counts = Counts::default();
        handles().for_each(|handle| counts.add(handle));
        let full = counts.bytes();
        assert!(full <= 50_000 * 13, "{full}");
        handles().for_each(|handle| counts.sub(handle));
        assert_eq!(counts.len(), 0);
        assert!(counts.bytes() <= SLOTS_MIN * 8, "{}", counts.bytes());
    }
}
