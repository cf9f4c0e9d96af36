//! What waits for slow consumers over all loops: one number, and the levels at which it is full. Touched
//! only for what the kernel refused, so its one shared word is on nobody's fast path. Never decides about
//! a message; `connection::outbox` does.
//!
//! A message that waits in many outboxes is there once: its frame counts with the first outbox that takes
//! it and is given back with the last one that lets it go, and each of them counts [`REFERENCE_BYTES`].

use super::message::Message;
use super::sync::{AtomicU64, Ordering};

/// What one outbox costs for a message it shares: its place in the queue.
pub const REFERENCE_BYTES: u64 = 16;

/// The share of the total that is kept from messages: one part in so many.
const RESERVE_SHARE: u64 = 8;

/// Bytes that wait over all loops.
#[derive(Debug)]
pub struct OutboxBudget {
    used: AtomicU64,
    total: AtomicU64,
    met_full: AtomicU64,
}

/// How full the total was with something charged to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fill {
    /// There is room for everybody.
    Room,
    /// Messages find no room; one that takes another's place does.
    Full,
    /// Only answers and control frames find room.
    Reserve,
    /// Nothing does. Control frames are queued all the same: they are few and short.
    Over,
}

impl OutboxBudget {
    /// A total of so many bytes.
    pub fn new(total: u64) -> Self {
        Self { used: AtomicU64::new(0), total: AtomicU64::new(total), met_full: AtomicU64::new(0) }
    }

    /// Bytes that count now.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Bytes there may be.
    pub fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    /// Messages that found no room, and answers that found not even the reserve.
    pub fn met_full(&self) -> u64 {
        self.met_full.load(Ordering::Relaxed)
    }

    /// Replaces the total; what waits already stays.
    pub fn set_total(&self, total: u64) {
        self.total.store(total, Ordering::Relaxed);
    }

    /// Charges one more outbox that holds `message`, and says how full that makes it. Whoever does not keep
    /// the message gives it back with [`Self::release`].
    pub fn charge(&self, message: &Message) -> Fill {
        // The one who finds nobody charges the frame, and the one who leaves nobody behind gives it back; in
        // between the count is never zero, so the frame counts exactly once.
        let first = message.waiting().fetch_add(1, Ordering::AcqRel) == 0;
        let fill = self.add(REFERENCE_BYTES + if first { message.frame_len() as u64 } else { 0 });
        if fill > Fill::Room {
            self.met_full.fetch_add(1, Ordering::Relaxed);
        }
        fill
    }

    /// One outbox less holds `message`.
    pub fn release(&self, message: &Message) {
        let last = message.waiting().fetch_sub(1, Ordering::AcqRel) == 1;
        self.sub(REFERENCE_BYTES + if last { message.frame_len() as u64 } else { 0 });
    }

    /// Charges bytes that belong to one connection alone, full or not.
    pub fn charge_own(&self, bytes: usize) {
        let _ = self.add(bytes as u64);
    }

    /// Charges such bytes unless they go beyond the total; `false`: nothing is charged.
    #[must_use]
    pub fn try_charge_own(&self, bytes: usize) -> bool {
        let fits = self.add(bytes as u64) < Fill::Over;
        if !fits {
            self.sub(bytes as u64);
            self.met_full.fetch_add(1, Ordering::Relaxed);
        }
        fits
    }

    /// Gives such bytes back.
    pub fn release_own(&self, bytes: usize) {
        self.sub(bytes as u64);
    }

    fn add(&self, bytes: u64) -> Fill {
        let used = self.used.fetch_add(bytes, Ordering::AcqRel).wrapping_add(bytes);
        let total = self.total.load(Ordering::Relaxed);
        let reserve = total / RESERVE_SHARE;
        match total.saturating_sub(used) {
            _ if used > total => Fill::Over,
            left if left >= reserve => Fill::Room,
            left if left >= reserve / 2 => Fill::Full,
            _ => Fill::Reserve,
        }
    }

    fn sub(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::AcqRel);
    }
}
