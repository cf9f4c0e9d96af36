//! One loop's mailbox: a bounded queue with one coalesced wake flag. Any thread pushes, only the
//! owning loop drains. Never holds a waker, never blocks for room and never makes a system call.
//!
//! Room is reserved before an entry is made, so that a publish can ask every interested mailbox
//! first and then push without failing. The room of a message comes back when the loop has finished
//! with it (`release`), not when it is drained: what waits behind a long fan-out stays within the
//! same bound. Replies and control entries have a reserve each and take none of that room: a question takes the
//! room of its reply before it is asked, so that no reply is ever without. Joins are the owning loop's own, as are
//! its questions to services: it bounds them itself.
//!
//! The operator comes first: while it waits for room, publishers of the loops leave it what comes free. There are
//! thousands of them, who would otherwise always be there before.
//!
//! The wake flag is raised by a push and lowered by a drain. Whoever raises it from 0 to 1 owes the
//! loop a wake-up, unless it is the loop itself, which looks at `is_empty` before it sleeps.

use std::mem;

use super::sync::{AtomicBool, AtomicU64, Mutex, Ordering, lock};

/// Control entries that may wait in one mailbox, on top of its messages.
pub const CONTROL_ENTRIES_MAX: usize = 4_096;

/// Replies that may be awaited or wait besides. Not those of control entries: peers ask, and must not keep the
/// server's own orders out.
pub const REPLIES_MAX: usize = 4_096;

/// Entries whose storage a mailbox keeps between drains; what a burst needed beyond is given back.
pub const CAPACITY_KEPT: usize = 1_024;

/// Low bits of the packed counter: reserved bytes. The bits above count reserved entries.
const BYTES_BITS: u32 = 40;
const BYTES_MASK: u64 = (1 << BYTES_BITS) - 1;
const ENTRIES_MASK: u64 = (1 << (64 - BYTES_BITS)) - 1;

/// How much may wait for one loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MailboxLimits {
    /// Bytes of encoded messages; counted up to one tebibyte.
    pub bytes_max: u64,
    /// Messages; counted up to 2^24 − 1.
    pub entries_max: u64,
}

impl Default for MailboxLimits {
    fn default() -> Self {
        Self { bytes_max: 64 << 20, entries_max: 65_536 }
    }
}

/// The reserve for entries of this kind is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReserveFull;

/// A bounded queue towards one loop. Aligned so that two loops' flags never share a cache line.
#[repr(align(128))]
#[derive(Debug)]
pub struct Mailbox<E> {
    /// Reserved entries and bytes, packed so that one atomic step checks and takes both.
    reserved: AtomicU64,
    /// Raised by the first push after a drain.
    wake: AtomicBool,
    /// Somebody who comes first waits for room: the others take none meanwhile.
    first_waits: AtomicBool,
    bytes_max: u64,
    entries_max: u64,
    queue: Mutex<Queue<E>>,
}

#[derive(Debug)]
struct Queue<E> {
    entries: Vec<E>,
    controls: usize,
    /// Replies that have room: awaited, or waiting here.
    replies_reserved: usize,
    /// Those of them that wait here.
    replies: usize,
}

impl<E> Mailbox<E> {
    /// An empty mailbox with these bounds.
    pub fn new(limits: MailboxLimits) -> Self {
        Self {
            reserved: AtomicU64::new(0),
            wake: AtomicBool::new(false),
            first_waits: AtomicBool::new(false),
            bytes_max: limits.bytes_max.min(BYTES_MASK),
            entries_max: limits.entries_max.clamp(1, ENTRIES_MASK),
            queue: Mutex::new(Queue { entries: Vec::new(), controls: 0, replies_reserved: 0, replies: 0 }),
        }
    }

    /// Takes room for one message, unless somebody who comes first waits for it. A message larger than the
    /// whole bound fits only when no other is waiting; otherwise it could never be sent at all.
    pub fn try_reserve(&self, bytes: usize) -> bool {
        // A hint: who reads it a moment too early or too late takes room one message sooner or later.
        !self.first_waits.load(Ordering::Relaxed) && self.try_take(bytes)
    }

    /// The same for whoever comes first: until it has found room here, or [`Self::end_first`], others find none.
    pub fn try_reserve_first(&self, bytes: usize) -> bool {
        let taken = self.try_take(bytes);
        self.first_waits.store(!taken, Ordering::Relaxed);
        taken
    }

    /// Nobody who comes first waits any more.
    pub fn end_first(&self) {
        self.first_waits.store(false, Ordering::Relaxed);
    }

    fn try_take(&self, bytes: usize) -> bool {
        let bytes = bytes as u64;
        let take = |reserved: u64| {
            let (entries, used) = unpack(reserved);
            let fits =
                if entries == 0 { bytes <= BYTES_MASK } else { used.saturating_add(bytes) <= self.bytes_max };
            (fits && entries < self.entries_max).then(|| pack(entries + 1, used + bytes))
        };
        // The counter guards no memory, the queue's lock does that: relaxed is enough.
        self.reserved.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }

    /// Counts bytes that the loop has made of messages it has room for: what is there can't be refused, but
    /// others wait for it.
    pub fn charge(&self, bytes: u64) {
        self.reserved.fetch_add(pack(0, bytes & BYTES_MASK), Ordering::Relaxed);
    }

    /// Gives back the room of `entries` messages that had `bytes` bytes together: a publish that was
    /// refused elsewhere, or messages the loop has finished with.
    pub fn release(&self, entries: u64, bytes: u64) {
        let before = self.reserved.fetch_sub(pack(entries, bytes), Ordering::Relaxed);
        let (held_entries, held_bytes) = unpack(before);
        debug_assert!(held_entries >= entries && held_bytes >= bytes, "released more than was reserved");
    }

    /// Reserved messages and their bytes, for metrics.
    pub fn reserved(&self) -> (u64, u64) {
        unpack(self.reserved.load(Ordering::Relaxed))
    }

    /// Appends a message whose room was reserved. True when the caller owes the loop a wake-up.
    #[inline(always)]
    pub fn push(&self, entry: E) -> bool {
        lock(&self.queue).entries.push(entry);
        self.raise()
    }

    /// Appends a control entry from its reserve. True when the caller owes a wake-up.
    pub fn push_control(&self, entry: E) -> Result<bool, ReserveFull> {
        let mut queue = lock(&self.queue);
        if queue.controls >= CONTROL_ENTRIES_MAX {
            return Err(ReserveFull);
        }
        queue.controls += 1;
        queue.entries.push(entry);
        drop(queue);
        Ok(self.raise())
    }

    /// Appends a join of the owning loop, which bounds them. True when the caller owes a wake-up.
    pub fn push_join(&self, entry: E) -> bool {
        self.push(entry)
    }

    /// Appends the answer of a service; the owning loop has asked, and bounds what it asks. True when the caller owes a
    /// wake-up.
    pub fn push_answer(&self, entry: E) -> bool {
        self.push(entry)
    }

    /// Takes the room of one reply.
    pub fn try_reserve_reply(&self) -> bool {
        let mut queue = lock(&self.queue);
        let fits = queue.replies_reserved < REPLIES_MAX;
        queue.replies_reserved += usize::from(fits);
        fits
    }

    /// Gives the room of one reply back that will not come.
    pub fn release_reply(&self) {
        let mut queue = lock(&self.queue);
        debug_assert!(queue.replies_reserved > queue.replies, "released a reply that was not reserved");
        queue.replies_reserved = queue.replies_reserved.saturating_sub(1);
    }

    /// Appends a reply whose room was reserved; the drain that moves it gives the room back. True when the
    /// caller owes a wake-up.
    pub fn push_reply(&self, entry: E) -> bool {
        let mut queue = lock(&self.queue);
        debug_assert!(queue.replies_reserved > queue.replies, "a reply whose room nobody took");
        queue.replies += 1;
        queue.entries.push(entry);
        drop(queue);
        self.raise()
    }

    /// False when a drain may find something: the loop must not sleep. True means that nothing is
    /// there or that a wake-up is on its way.
    pub fn is_empty(&self) -> bool {
        !self.wake.load(Ordering::Acquire)
    }

    /// Entries that the next drain moves, at least.
    pub fn waiting(&self) -> usize {
        lock(&self.queue).entries.len()
    }

    /// Moves everything that waits behind what is in `into`. Called by the owning loop only.
    pub fn drain(&self, into: &mut Vec<E>) {
        // Lowered before the queue is emptied: a push that comes between the two is taken along and
        // its wake-up merely finds nothing. The other way round its wake-up would be lost.
        self.lower();
        self.take(into);
    }

    fn raise(&self) -> bool {
        !self.wake.swap(true, Ordering::AcqRel)
    }

    fn lower(&self) {
        // A swap and not a store: it must see every push that found the flag already raised.
        self.wake.swap(false, Ordering::AcqRel);
    }

    fn take(&self, into: &mut Vec<E>) {
        if into.is_empty() {
            into.shrink_to(CAPACITY_KEPT);
        }
        let mut queue = lock(&self.queue);
        queue.controls = 0;
        queue.replies_reserved = queue.replies_reserved.saturating_sub(mem::take(&mut queue.replies));
        if into.is_empty() {
            mem::swap(&mut queue.entries, into);
        } else {
            into.append(&mut queue.entries);
        }
    }

    /// Takes the room of many replies at once: a model does not spend its steps on it.
    #[cfg(test)]
    #[allow(dead_code, reason = "used by tests/loom.rs, which compiles this file too")]
    pub(super) fn reserve_replies(&self, count: usize) {
        lock(&self.queue).replies_reserved += count;
    }

    /// A planted fault for the model checker: the flag is lowered after the queue was emptied.
    #[cfg(test)]
    #[allow(dead_code, reason = "used by tests/loom.rs, which compiles this file too")]
    pub(super) fn drain_lowering_late(&self, into: &mut Vec<E>) {
        self.take(into);
        self.lower();
    }
}

fn pack(entries: u64, bytes: u64) -> u64 {
    (entries << BYTES_BITS) | bytes
}

fn unpack(reserved: u64) -> (u64, u64) {
    (reserved >> BYTES_BITS, reserved & BYTES_MASK)
}
