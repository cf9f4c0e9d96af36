//! A topic's subscribers on one loop: slot numbers in a row, tombstones among them while a pass is under way.
//! One subscriber lies in the list itself, because most topics of a loop that has very many have one. Driven by
//! `subscriptions`; knows nothing of passes.

use thin_vec::ThinVec;

/// Stands in a list for a subscriber that left during a pass.
pub(super) const TOMBSTONE: u32 = u32::MAX;

/// Stands for the only subscriber where there is none. No slot has this number.
const NOBODY: u32 = u32::MAX - 1;

/// Slot numbers: 16 bytes.
#[derive(Debug)]
pub(super) struct List {
    /// All of them, once there were two at a time; a pointer with the length behind it.
    many: Option<ThinVec<u32>>,
    /// The only one, while `many` is none.
    only: u32,
    /// Joins that wait to be listed; they lie in what would be padding.
    pub(super) joins_waiting: u32,
}

impl List {
    /// Nobody.
    pub(super) const fn new() -> Self {
        Self { many: None, only: NOBODY, joins_waiting: 0 }
    }

    pub(super) fn as_slice(&self) -> &[u32] {
        match &self.many {
            Some(slots) => slots,
            None if self.only == NOBODY => &[],
            None => std::slice::from_ref(&self.only),
        }
    }

    fn as_mut_slice(&mut self) -> &mut [u32] {
        match &mut self.many {
            Some(slots) => slots,
            None if self.only == NOBODY => &mut [],
            None => std::slice::from_mut(&mut self.only),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.as_slice().len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.as_slice().is_empty()
    }

    /// The slot, or tombstone, at a place.
    #[inline]
    pub(super) fn get(&self, place: usize) -> Option<u32> {
        // Asked for each delivery: of a list of many nothing else is looked at.
        match &self.many {
            Some(slots) => slots.get(place).copied(),
            None => (place == 0 && self.only != NOBODY).then_some(self.only),
        }
    }

    /// Puts another slot, or a tombstone, there.
    pub(super) fn set(&mut self, place: usize, slot: u32) {
        if let Some(at) = self.as_mut_slice().get_mut(place) {
            *at = slot;
        }
    }

    pub(super) fn push(&mut self, slot: u32) {
        debug_assert_ne!(slot, NOBODY);
        match &mut self.many {
            Some(slots) => slots.push(slot),
            None if self.only == NOBODY => self.only = slot,
            None => {
                let mut slots = ThinVec::with_capacity(2);
                slots.extend([self.only, slot]);
                (self.many, self.only) = (Some(slots), NOBODY);
            }
        }
    }

    pub(super) fn pop(&mut self) -> Option<u32> {
        match &mut self.many {
            Some(slots) => slots.pop(),
            None if self.only == NOBODY => None,
            None => Some(std::mem::replace(&mut self.only, NOBODY)),
        }
    }

    /// Takes a slot out; the last one takes its place.
    pub(super) fn swap_remove(&mut self, place: usize) {
        let last = self.len().checked_sub(1);
        if last.is_some_and(|last| place <= last)
            && let Some(slot) = self.pop()
            && Some(place) != last
        {
            self.set(place, slot);
        }
    }

    /// Drops tombstones from the end.
    pub(super) fn trim(&mut self) {
        while self.as_slice().last() == Some(&TOMBSTONE) {
            self.pop();
        }
    }

    /// Fills the holes with subscribers from the end, so that the work is bounded by the number of holes and not by the length
    /// of the list. `moved` is told each slot that has another place now.
    pub(super) fn compact(&mut self, holes: &mut Vec<u32>, mut moved: impl FnMut(u32, usize)) {
        for &position in holes.iter() {
            self.trim();
            let hole = position as usize;
            if hole < self.len() {
                // The last entry is a live one behind the hole, which is a tombstone itself.
                let Some(slot) = self.pop() else { break };
                self.set(hole, slot);
                moved(slot, hole);
            }
        }
        if !holes.is_empty() {
            self.trim();
            holes.clear();
            self.shrink();
        }
    }

    /// Gives memory back after a peak, with room to grow so that it is not asked for again at once.
    pub(super) fn shrink(&mut self) {
        let Some(slots) = &mut self.many else { return };
        if slots.len() < 2 {
            self.only = slots.first().copied().unwrap_or(NOBODY);
            self.many = None;
        } else if slots.len() < slots.capacity() / 4 {
            let mut fewer = ThinVec::with_capacity(slots.len() * 2);
            fewer.extend_from_slice(slots);
            *slots = fewer;
        }
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.many.as_ref().map_or(0, ThinVec::capacity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_vec_whatever_happens_to_it() {
        let (mut list, mut twin) = (List::new(), Vec::new());
        let mut random = 1_u32;
        for step in 0..20_000 {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let place = (random >> 8) as usize % (twin.len() + 1);
            match random >> 24 & 7 {
                0..3 if twin.len() < 6 => {
                    list.push(step);
                    twin.push(step);
                }
                0..5 if place < twin.len() => {
                    list.swap_remove(place);
                    twin.swap_remove(place);
                }
                5 if place < twin.len() => {
                    list.set(place, TOMBSTONE);
                    twin[place] = TOMBSTONE;
                }
                6 => {
                    list.trim();
                    while twin.last() == Some(&TOMBSTONE) {
                        twin.pop();
                    }
                    list.shrink();
                }
                7 => assert_eq!(list.pop(), twin.pop()),
                _ => {}
            }
            list.swap_remove(twin.len());
            list.set(twin.len(), 5);
            assert_eq!(list.as_slice(), twin, "step {step}");
            assert_eq!((list.len(), list.get(place)), (twin.len(), twin.get(place).copied()));
        }
    }

    #[test]
    fn one_subscriber_takes_no_memory_of_its_own() {
        let mut list = List::new();
        list.push(7);
        assert_eq!((list.capacity(), list.as_slice()), (0, &[7][..]));
        assert_eq!(size_of::<List>(), 16);
        (0..100).for_each(|slot| list.push(slot));
        (0..98).for_each(|_| assert!(list.pop().is_some()));
        list.shrink();
        assert!(list.capacity() <= 8, "{}", list.capacity());
        while list.len() > 1 {
            list.swap_remove(0);
        }
        list.shrink();
        // The last of several lies in the list again.
        assert_eq!((list.capacity(), list.as_slice()), (0, &[0][..]));
    }
}
