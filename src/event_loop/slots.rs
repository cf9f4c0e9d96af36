//! The slot table: every connection of one loop, in pages that come and go.
//!
//! Owns the slots and finds which are due. Driven by the loop core only. A page is a `slab::Slab` of fixed
//! capacity: a plain slab of everything can't give memory back while one straggler sits at its end, so the
//! lowest page with room is filled first and an empty page is dropped.

use std::collections::VecDeque;

use slab::Slab;

use crate::connection::{SLOT_ENTRY_BYTES, Slot, Tick};
use crate::topic::Key;

/// Slots of one page.
pub const PAGE_SLOTS: usize = 1_024;

/// Pages looked through by one call of [`SlotTable::take_due`]: at sixteen, a quarter of a millisecond out of cold memory.
const PAGES_PER_LOOK: usize = 16;

/// Due keys after which it looks through no further page.
const DUE_PER_LOOK: usize = PAGE_SLOTS;

/// Ticks between two looks at one page. Deadlines strike at most this much late.
pub const SWEEP_PERIOD: Tick = 5;

#[derive(Debug)]
struct Page<S> {
    slots: Slab<Slot<S>>,
    /// The page's turn at or after its nearest deadline; `Tick::MAX` when it has none.
    due: Tick,
}

/// All slots of one loop.
#[derive(Debug)]
pub struct SlotTable<S> {
    pages: Vec<Option<Page<S>>>,
    /// No page below this one has room.
    first_with_room: usize,
    len: usize,
    /// Pages that hold memory.
    mapped: usize,
    /// No page is due before this tick.
    next_due: Tick,
    /// The page that the next look for what is due begins with.
    look_from: usize,
}

impl<S> Default for SlotTable<S> {
    fn default() -> Self {
        Self { pages: Vec::new(), first_with_room: 0, len: 0, mapped: 0, next_due: Tick::MAX, look_from: 0 }
    }
}

impl<S> SlotTable<S> {
    /// Connections in the table.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Pages that hold memory.
    #[cfg(test)]
    fn pages_mapped(&self) -> usize {
        self.mapped
    }

    /// Bytes of the pages.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.mapped * PAGE_SLOTS * SLOT_ENTRY_BYTES
    }

    /// Stores a slot in the lowest page with room and returns its index.
    pub fn insert(&mut self, slot: Slot<S>) -> u32 {
        let mut page_index = self.first_with_room;
        while self.pages.get(page_index).is_some_and(|page| page.as_ref().is_some_and(Page::is_full)) {
            page_index += 1;
        }
        self.first_with_room = page_index;
        if page_index == self.pages.len() {
            self.pages.push(None);
        }
        let page = self.pages[page_index].get_or_insert_with(|| {
            self.mapped += 1;
            Page { slots: Slab::with_capacity(PAGE_SLOTS), due: Tick::MAX }
        });
        self.len += 1;
        (page_index * PAGE_SLOTS + page.slots.insert(slot)) as u32
    }

    /// The slot at `index`, whatever its generation.
    #[must_use]
    pub fn at(&mut self, index: u32) -> Option<&mut Slot<S>> {
        let (page, entry) = split(index);
        self.pages.get_mut(page)?.as_mut()?.slots.get_mut(entry)
    }

    /// The slot that `key` names, unless the key is stale.
    #[must_use]
    pub fn get(&mut self, key: Key) -> Option<&mut Slot<S>> {
        self.at(key.slot).filter(|slot| slot.generation == key.generation)
    }

    /// Whether the connection of this key is still there.
    #[must_use]
    pub fn has(&self, key: Key) -> bool {
        let (page, entry) = split(key.slot);
        let slot = self.pages.get(page).and_then(|page| page.as_ref()?.slots.get(entry));
        slot.is_some_and(|slot| slot.generation == key.generation)
    }

    /// Every slot with its index, in the order of the table.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &Slot<S>)> {
        let pages = self.pages.iter().enumerate();
        pages.filter_map(|(index, page)| Some((index * PAGE_SLOTS, page.as_ref()?))).flat_map(
            |(first, page)| page.slots.iter().map(move |(entry, slot)| ((first + entry) as u32, slot)),
        )
    }

    /// Takes a slot out; its page is dropped with its last slot.
    pub fn remove(&mut self, index: u32) -> Option<Slot<S>> {
        let (page_index, entry) = split(index);
        let place = self.pages.get_mut(page_index)?;
        let page = place.as_mut()?;
        let slot = page.slots.try_remove(entry)?;
        if page.slots.is_empty() {
            *place = None;
            self.mapped -= 1;
            while matches!(self.pages.last(), Some(None)) {
                self.pages.pop();
            }
            if self.pages.is_empty() {
                self.pages = Vec::new();
            }
        }
        self.first_with_room = self.first_with_room.min(page_index).min(self.pages.len());
        self.len -= 1;
        Some(slot)
    }

    /// Stores when `index` is due next.
    pub fn set_deadline(&mut self, index: u32, deadline: Tick) {
        let (page_index, entry) = split(index);
        let Some(Some(page)) = self.pages.get_mut(page_index) else { return };
        let Some(slot) = page.slots.get_mut(entry) else { return };
        slot.connection.deadline = deadline;
        if deadline != Tick::MAX {
            page.due = page.due.min(turn_of(page_index, deadline));
            self.next_due = self.next_due.min(page.due);
        }
    }

    /// The next tick at which some page has its turn and may have something due.
    #[must_use]
    pub fn next_due(&self) -> Option<Tick> {
        (self.next_due != Tick::MAX).then_some(self.next_due)
    }

    /// Collects the keys whose deadline has struck by `now` on the pages whose turn has come, up to a bound. When it is
    /// met, [`Self::next_due`] stays in the past, and the next call goes on where this one has ended.
    ///
    /// A page has its turn at ticks congruent to its index modulo [`SWEEP_PERIOD`], so the growth of the
    /// table neither skips nor doubles anybody, and heartbeats of a page go out together.
    pub fn take_due(&mut self, now: Tick, into: &mut VecDeque<Key>) {
        if self.next_due > now {
            return;
        }
        // In turns from where the last look has ended: the first pages, due again, must not keep the last ones waiting.
        let from = if self.look_from < self.pages.len() { self.look_from } else { 0 };
        let mut looked = 0;
        for page_index in (from..self.pages.len()).chain(0..from) {
            let Some(Some(page)) = self.pages.get_mut(page_index) else { continue };
            if page.due > now {
                continue;
            }
            page.sweep(page_index, now, into);
            self.look_from = page_index + 1;
            looked += 1;
            if looked == PAGES_PER_LOOK || into.len() >= DUE_PER_LOOK {
                break;
            }
        }
        let due = |page: &Option<Page<S>>| page.as_ref().map_or(Tick::MAX, |page| page.due);
        self.next_due = self.pages.iter().map(due).min().unwrap_or(Tick::MAX);
    }

    /// Keys of up to `count` slots from index `from` on, and where to go on; `None` at the end.
    pub fn keys_from(&self, from: u32, count: usize, into: &mut Vec<Key>) -> Option<u32> {
        let mut index = from;
        let end = (self.pages.len() * PAGE_SLOTS) as u32;
        while index < end {
            let (page, entry) = split(index);
            let Some(page) = self.pages.get(page).and_then(Option::as_ref) else {
                index = ((page + 1) * PAGE_SLOTS) as u32;
                continue;
            };
            if let Some(slot) = page.slots.get(entry) {
                if into.len() == count {
                    return Some(index);
                }
                into.push(Key { slot: index, generation: slot.generation });
            }
            index += 1;
        }
        None
    }
}

impl<S> Page<S> {
    fn is_full(&self) -> bool {
        self.slots.len() == PAGE_SLOTS
    }

    fn sweep(&mut self, page_index: usize, now: Tick, into: &mut VecDeque<Key>) {
        let mut earliest = Tick::MAX;
        for (entry, slot) in &self.slots {
            if slot.connection.deadline <= now {
                let index = (page_index * PAGE_SLOTS + entry) as u32;
                into.push_back(Key { slot: index, generation: slot.generation });
            } else {
                earliest = earliest.min(slot.connection.deadline);
            }
        }
        self.due = if earliest == Tick::MAX { Tick::MAX } else { turn_of(page_index, earliest) };
    }
}

fn split(index: u32) -> (usize, usize) {
    (index as usize / PAGE_SLOTS, index as usize % PAGE_SLOTS)
}

/// The first tick at or after `deadline` that is the turn of this page.
fn turn_of(page_index: usize, deadline: Tick) -> Tick {
    let phase = (page_index % SWEEP_PERIOD as usize) as Tick;
    deadline.saturating_add((SWEEP_PERIOD + phase - deadline % SWEEP_PERIOD) % SWEEP_PERIOD)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::Connection;

    fn filled(count: u32) -> SlotTable<()> {
        let mut table = SlotTable::default();
        for generation in 0..count {
            let slot = Slot { stream: (), generation, connection: Connection::new(0) };
            assert_eq!(table.insert(slot), generation);
        }
        table
    }

    #[test]
    fn empty_pages_are_dropped_and_low_pages_filled_first() {
        let mut table = filled(3 * PAGE_SLOTS as u32);
        for index in PAGE_SLOTS as u32..3 * PAGE_SLOTS as u32 - 1 {
            table.remove(index);
        }
        assert_eq!(table.pages_mapped(), 2, "one straggler pins its own page only");
        table.remove(7);
        let slot = Slot { stream: (), generation: 9, connection: Connection::new(0) };
        assert_eq!(table.insert(slot), 7);
        let slot = Slot { stream: (), generation: 10, connection: Connection::new(0) };
        assert_eq!(table.insert(slot), PAGE_SLOTS as u32);
    }

    #[test]
    fn a_stale_key_finds_nothing() {
        let mut table = filled(2);
        assert!(table.get(Key { slot: 1, generation: 1 }).is_some());
        assert!(table.get(Key { slot: 1, generation: 0 }).is_none());
        table.remove(1);
        assert!(table.get(Key { slot: 1, generation: 1 }).is_none());
    }

    #[test]
    fn each_deadline_strikes_once_and_at_most_a_period_late() {
        let mut table = filled(4_000);
        for index in 0..4_000 {
            table.set_deadline(index, 10 + index % 300);
        }
        let mut seen = vec![0; 4_000];
        let mut due = VecDeque::new();
        for now in 0..400 {
            table.take_due(now, &mut due);
            for key in due.drain(..) {
                let at = 10 + key.slot % 300;
                assert!(now >= at && now < at + SWEEP_PERIOD, "due at {at}, struck at {now}");
                seen[key.slot as usize] += 1;
                table.set_deadline(key.slot, Tick::MAX);
            }
        }
        assert!(seen.iter().all(|&count| count == 1));
        assert_eq!(table.next_due(), None, "nothing due means no timeout at all");
    }

    #[test]
    fn one_look_is_bounded_and_the_next_ones_go_on_with_other_pages() {
        const PAGES: u32 = 50;
        const SLOTS: u32 = PAGES * PAGE_SLOTS as u32;
        let mut table = filled(SLOTS);
        // Every page has two that are due, and those of the first page stay due.
        for index in (0..SLOTS).filter(|index| index % PAGE_SLOTS as u32 >= PAGE_SLOTS as u32 - 2) {
            table.set_deadline(index, 3);
        }
        let mut due = VecDeque::new();
        let mut struck = Vec::new();
        for look in 1..=4 {
            assert_eq!(table.next_due().is_some_and(|at| at <= 100), look <= 4, "look {look}");
            table.take_due(100, &mut due);
            assert!(due.len() <= 2 * PAGES_PER_LOOK, "{} in one look", due.len());
            for key in due.drain(..) {
                table.set_deadline(key.slot, Tick::MAX);
                struck.extend((key.slot != 0).then_some(key.slot));
            }
            table.set_deadline(0, 4);
        }
        assert_eq!(struck.len(), 2 * PAGES as usize, "the first page does not keep the others waiting");
        table.take_due(100, &mut due);
        due.clear();
        assert_eq!(table.next_due(), None);
        // Full pages are as bounded.
        (0..SLOTS).for_each(|index| table.set_deadline(index, 3));
        table.take_due(100, &mut due);
        assert!((1..2 * PAGE_SLOTS).contains(&due.len()), "{}", due.len());
    }
}
