//! How many connections each bearer has, over all loops, where that is limited, and which of them is the oldest.
//!
//! Shared by all loops; told when a connection has shown its first token and when it ends, never in between. Bounded by the
//! connections that there are: who has none has no entry. Never blocks longer than one shard's lock, which is held for a look-up,
//! or for as many entries as a bearer may have where the oldest is looked for.

use std::hash::{BuildHasher, RandomState};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::rates::Rates;
use super::{SHARD_BITS, SHARDS};
use crate::auth::identity::Identity;

/// Connections of one bearer that newcomers may replace per second. To replace one costs more than to be refused, so who comes back
/// in a loop is soon refused.
const REPLACED_PER_SECOND: usize = 1;

/// Connections that they may replace at once after a pause, or all that they may have: a browser comes back with all its pages.
const REPLACED_AT_ONCE: usize = 16;

/// What becomes of a connection more than a bearer may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenFull {
    /// It is refused.
    Refuse,
    /// It replaces the oldest of theirs.
    CloseOldest,
}

/// A connection that has to make room: by loop and slot, which may be another's when it is looked for, and by the bearer's handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Which loop's it is.
    pub loop_index: usize,
    /// Its slot.
    pub slot: u32,
    /// Whose it was; see [`Holders::is_taken`].
    pub handle: u64,
    /// Under which limit that was: how often nothing was limited before.
    pub period: u32,
}

/// The table of bearers. One is known by 54 bits of a keyed hash: two with the same would give way to each other, so that there must
/// be none. 32 bits, as of an address, make pairs by chance among 100,000; these make one among a million once in 30,000 such tables.
/// Nobody outside can look for pairs.
pub struct Holders {
    /// Connections of one bearer; 0 for as many as they like.
    most: AtomicU32,
    closes_oldest: AtomicBool,
    /// Whether there was a limit at any time, so that some may be counted.
    is_used: AtomicBool,
    /// The order of the next one that comes; it wraps around, and what counts is the distance to it.
    next: AtomicU32,
    /// The order of the first one that came since something is limited.
    first: AtomicU32,
    /// How often a limit came where there was none.
    period: AtomicU32,
    key: RandomState,
    shards: Box<[Mutex<Shard>]>,
}

#[derive(Default)]
struct Shard {
    /// Sorted, so that a bearer's stand beside each other. Fourteen bytes each and no more: a connection that belongs to somebody is to
    /// cost little, and 64 of these lists are short enough to move a part of one.
    entries: Vec<Entry>,
    bearers: usize,
    replaced: Rates,
}

/// A connection that is counted.
#[derive(Clone, Copy)]
#[repr(Rust, packed(2))]
struct Entry {
    /// Of the handle's bits what the shard does not tell.
    upper: u32,
    lower: u16,
    /// Its loop, and below that its slot.
    place: u32,
    order: u32,
}

/// Bits of a handle: the shard's, and those that an entry has.
const HANDLE_BITS: u32 = SHARD_BITS + ENTRY_BITS;
const ENTRY_BITS: u32 = u32::BITS + u16::BITS;

/// Entries for which a shard keeps room.
const KEPT: usize = 8;

/// Bits of a place that are the slot's.
const SLOT_BITS: u32 = 26;

/// Before the first one that comes under a limit there is room for so many ticks of those who were there.
const LATE: u32 = 1 << 30;

impl Holders {
    /// An empty table.
    #[must_use]
    pub fn new(most: usize, when_full: WhenFull) -> Self {
        let table = Self {
            most: AtomicU32::new(0),
            closes_oldest: AtomicBool::new(false),
            is_used: AtomicBool::new(false),
            next: AtomicU32::new(0),
            first: AtomicU32::new(0),
            period: AtomicU32::new(0),
            key: RandomState::new(),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
        };
        table.set(most, when_full);
        table
    }

    /// From now on each bearer may have so many connections, 0 for as many as they like. Those that there are stay until
    /// [`Self::enter_late`] and [`Self::take_oldest`] were asked about them; where nothing was limited, all of them are to be.
    pub fn set(&self, most: usize, when_full: WhenFull) {
        if most > 0 && !self.are_limited() {
            // Who came in between is not counted, and among those who are it could not be told who is older.
            self.shards.iter().for_each(|shard| lock_shard(shard).clear());
            self.first.store(self.next.load(Ordering::Relaxed), Ordering::Relaxed);
            self.period.fetch_add(1, Ordering::Relaxed);
        }
        self.is_used.fetch_or(most > 0, Ordering::Relaxed);
        self.closes_oldest.store(when_full == WhenFull::CloseOldest, Ordering::Relaxed);
        self.most.store(u32::try_from(most).unwrap_or(u32::MAX), Ordering::Relaxed);
    }

    /// Whether anything is limited.
    #[must_use]
    pub fn are_limited(&self) -> bool {
        self.most() > 0
    }

    /// Counts a connection of this bearer in at tick `now`; `may_replace`: whether it is one that others give way to. `false`: it has
    /// as many as it may, and nothing was counted. Who was let in though there are too many asks for [`Self::take_oldest`] once
    /// nothing else stands in the way.
    #[must_use]
    pub fn try_enter(
        &self,
        who: &Identity,
        loop_index: usize,
        slot: u32,
        now: u32,
        may_replace: bool,
    ) -> bool {
        let most = self.most();
        if most == 0 {
            return true;
        }
        let (handle, mut shard) = self.shard(who);
        if shard.of(handle).len() >= most as usize {
            let at_once = REPLACED_AT_ONCE.max(most as usize);
            let replaces = may_replace
                && self.closes_oldest.load(Ordering::Relaxed)
                && shard.replaced.try_take(
                    (handle >> (HANDLE_BITS - u32::BITS)) as u32,
                    now,
                    REPLACED_PER_SECOND,
                    at_once,
                );
            if !replaces {
                return false;
            }
        }
        let order = self.next.fetch_add(1, Ordering::Relaxed);
        shard.insert(handle, place_of(loop_index, slot), order);
        true
    }

    /// Counts a connection in that came at tick `came`, before there was a limit, unless it was.
    pub fn enter_late(&self, who: &Identity, loop_index: usize, slot: u32, came: u32) {
        if self.are_limited() {
            let (handle, mut shard) = self.shard(who);
            // Before whoever came under the limit, and behind who came before it.
            let order =
                self.first.load(Ordering::Relaxed).wrapping_sub(LATE).wrapping_add(came.min(LATE - 1));
            shard.insert(handle, place_of(loop_index, slot), order);
        }
    }

    /// Counts the oldest connection of this bearer out if they have more than they may, and newcomers replace old ones: whoever asks
    /// has it closed. Each is given once.
    #[must_use]
    pub fn take_oldest(&self, who: &Identity) -> Option<Taken> {
        let most = self.most();
        if most == 0 || !self.closes_oldest.load(Ordering::Relaxed) {
            return None;
        }
        let (handle, mut shard) = self.shard(who);
        let own = shard.of(handle);
        if own.len() <= most as usize {
            return None;
        }
        let next = self.next.load(Ordering::Relaxed);
        let oldest = shard.entries.get(own)?.iter().max_by_key(|entry| next.wrapping_sub(entry.order))?;
        let place = oldest.place;
        shard.remove(handle, place);
        let (loop_index, slot) = ((place >> SLOT_BITS) as usize, place & ((1 << SLOT_BITS) - 1));
        Some(Taken { loop_index, slot, handle, period: self.period.load(Ordering::Relaxed) })
    }

    /// Whether the connection of this bearer that is in the slot now is the one that was taken: another one would be counted.
    /// Only under the limit that it was taken by: once that was lifted nobody has to go, and who came since was not counted.
    #[must_use]
    pub fn is_taken(&self, who: &Identity, taken: &Taken) -> bool {
        if !self.are_limited() || self.period.load(Ordering::Relaxed) != taken.period {
            return false;
        }
        let (handle, shard) = self.shard(who);
        handle == taken.handle && shard.find(handle, place_of(taken.loop_index, taken.slot)).is_err()
    }

    /// Counts a connection out, if it was counted in and has not been since.
    pub fn leave(&self, who: &Identity, loop_index: usize, slot: u32) {
        if self.is_used.load(Ordering::Relaxed) {
            let (handle, mut shard) = self.shard(who);
            shard.remove(handle, place_of(loop_index, slot));
        }
    }

    /// Bearers that have a connection now, where that is limited. Locks one shard after the other.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| lock_shard(shard).bearers).sum()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn most(&self) -> u32 {
        self.most.load(Ordering::Relaxed)
    }

    fn shard(&self, who: &Identity) -> (u64, MutexGuard<'_, Shard>) {
        let handle = self.key.hash_one((who.issuer(), who.sub())) >> (u64::BITS - HANDLE_BITS);
        // The shift leaves SHARD_BITS bits.
        (handle, lock_shard(&self.shards[(handle >> ENTRY_BITS) as usize]))
    }
}

impl Entry {
    fn handle(&self) -> u64 {
        u64::from(self.upper) << u16::BITS | u64::from(self.lower)
    }
}

impl Shard {
    /// Nobody is counted any more.
    fn clear(&mut self) {
        (self.entries, self.bearers) = (Vec::new(), 0);
    }

    /// Where a bearer's entries are.
    fn of(&self, handle: u64) -> Range<usize> {
        let handle = within_shard(handle);
        let from = self.entries.partition_point(|entry| entry.handle() < handle);
        let rest = self.entries.get(from..).unwrap_or_default();
        from..from + rest.partition_point(|entry| entry.handle() == handle)
    }

    fn find(&self, handle: u64, place: u32) -> Result<usize, usize> {
        self.entries
            .binary_search_by_key(&(within_shard(handle), place), |entry| (entry.handle(), entry.place))
    }

    fn insert(&mut self, handle: u64, place: u32, order: u32) {
        if let Err(at) = self.find(handle, place) {
            self.bearers += usize::from(self.of(handle).is_empty());
            if self.entries.len() == self.entries.capacity() {
                // Not twice as much each time: half of that would be empty.
                let more = if self.entries.len() < KEPT { KEPT } else { self.entries.len().div_ceil(16) };
                self.entries.reserve_exact(more);
            }
            let handle = within_shard(handle);
            let (upper, lower) = ((handle >> u16::BITS) as u32, handle as u16);
            self.entries.insert(at, Entry { upper, lower, place, order });
        }
    }

    fn remove(&mut self, handle: u64, place: u32) {
        if let Ok(at) = self.find(handle, place) {
            self.entries.remove(at);
            self.bearers -= usize::from(self.of(handle).is_empty());
            if self.entries.len() < self.entries.capacity() / 2 {
                self.entries.shrink_to(self.entries.len() * 9 / 8 + KEPT);
            }
        }
    }
}

/// What of a handle its entries have.
fn within_shard(handle: u64) -> u64 {
    handle & ((1 << ENTRY_BITS) - 1)
}

fn place_of(loop_index: usize, slot: u32) -> u32 {
    // A loop has fewer slots than that, and there are fewer loops than places for them.
    (loop_index as u32) << SLOT_BITS | slot & ((1 << SLOT_BITS) - 1)
}

/// A poisoned shard is whole: nothing in here panics half-way.
fn lock_shard(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[path = "holders_tests.rs"]
mod tests;
