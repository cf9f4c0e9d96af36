//! A topic's subscribers on one loop: slot numbers in a row, tombstones among them while a pass is under way.
//! One subscriber lies in the list itself, because most topics of a loop that has very many have one. Driven by
//! `subscriptions`; knows nothing of passes.

/// Stands in a list for a subscriber that left during a pass.
pub(super) const TOMBSTONE: u32 = u32::MAX;

/// Slot numbers. As large as a `Vec`.
#[derive(Debug)]
pub(super) enum List {
    One(u32),
    Many(Vec<u32>),
}

impl List {
    /// Nobody.
    pub(super) const fn new() -> Self {
        Self::Many(Vec::new())
    }

    pub(super) fn as_slice(&self) -> &[u32] {
        match self {
            Self::One(slot) => std::slice::from_ref(slot),
            Self::Many(slots) => slots,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.as_slice().len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.as_slice().is_empty()
    }

    /// The slot, or tombstone, at a place.
    pub(super) fn get(&self, place: usize) -> Option<u32> {
        self.as_slice().get(place).copied()
    }

    /// Puts another slot, or a tombstone, there.
    pub(super) fn set(&mut self, place: usize, slot: u32) {
        let slots = match self {
            Self::One(only) => std::slice::from_mut(only),
            Self::Many(slots) => slots,
        };
        if let Some(at) = slots.get_mut(place) {
            *at = slot;
        }
    }

    pub(super) fn push(&mut self, slot: u32) {
        match self {
            Self::One(first) => *self = Self::Many(vec![*first, slot]),
            Self::Many(slots) if slots.capacity() == 0 => *self = Self::One(slot),
            Self::Many(slots) => slots.push(slot),
        }
    }

    pub(super) fn pop(&mut self) -> Option<u32> {
        match self {
            Self::One(only) => {
                let only = *only;
                *self = Self::new();
                Some(only)
            }
            Self::Many(slots) => slots.pop(),
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

    /// Gives memory back after a peak, with room to grow so that it is not asked for again at once.
    pub(super) fn shrink(&mut self) {
        let Self::Many(slots) = self else { return };
        if slots.is_empty() {
            *slots = Vec::new();
        } else if slots.len() < slots.capacity() / 4 {
            slots.shrink_to(slots.len() * 2);
        }
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        match self {
            Self::One(_) => 0,
            Self::Many(slots) => slots.capacity(),
        }
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
        assert_eq!(size_of::<List>(), size_of::<Vec<u32>>());
        (0..100).for_each(|slot| list.push(slot));
        (0..98).for_each(|_| assert!(list.pop().is_some()));
        list.shrink();
        assert!(list.capacity() <= 8, "{}", list.capacity());
    }
}
