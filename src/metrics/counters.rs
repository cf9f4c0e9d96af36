//! What one loop counts. The loop is the only writer, so counting is a load and a store without a lock
//! prefix; readers on other threads see each counter whole, and all of them a little apart in time.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::reasons::{CloseReason, DropReason, RefuseReason};

/// A number that one thread changes and any thread reads.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds one; only for the owning loop.
    pub fn inc(&self) {
        self.add(1);
    }

    /// Adds `count`; only for the owning loop, because two writers would lose counts.
    pub fn add(&self, count: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(count), Relaxed);
    }

    /// Replaces the value of a gauge; only for the owning loop.
    pub fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    /// The present value.
    pub fn load(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// One counter for each reason of a table.
#[derive(Debug)]
pub struct PerReason<const COUNT: usize>([Counter; COUNT]);

impl<const COUNT: usize> Default for PerReason<COUNT> {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Counter::default()))
    }
}

impl<const COUNT: usize> PerReason<COUNT> {
    /// The value at a reason's index; 0 for an index of another table.
    pub fn load(&self, index: usize) -> u64 {
        self.0.get(index).map_or(0, Counter::load)
    }

    /// The sum over all reasons.
    pub fn total(&self) -> u64 {
        self.0.iter().map(Counter::load).sum()
    }

    fn add(&self, index: usize, count: u64) {
        if let Some(counter) = self.0.get(index) {
            counter.add(count);
        }
    }
}

/// The counters of one loop. Aligned to two cache lines, so that no loop's counting slows another's.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct LoopCounters {
    /// Connections taken into a slot.
    pub connections_opened: Counter,
    /// Slots given back.
    pub connections_closed: Counter,
    /// Connections accepted, those refused at once included.
    pub accepted: Counter,
    /// Errors of `accept` other than an empty queue.
    pub accept_errors: Counter,
    /// Upgrades to WebSocket.
    pub upgrades: Counter,
    /// Messages received whole.
    pub messages_received: Counter,
    /// Messages published that were taken in.
    pub publishes: Counter,
    /// Publishes refused because a mailbox was full.
    pub publishes_busy: Counter,
    /// Messages from clients that may not publish.
    pub ignored_publishes: Counter,
    /// Messages handed to the kernel or an outbox for one subscriber.
    pub deliveries: Counter,
    /// Writes that the kernel refused for now.
    pub would_blocks: Counter,
    /// Returns from poll.
    pub wakeups: Counter,
    /// Turns: bounded pieces of work for one connection.
    pub turns: Counter,
    /// Events for a connection that was gone.
    pub stale_keys: Counter,
    /// Pings sent.
    pub heartbeats_sent: Counter,
    /// Pings that nothing answered in time.
    pub heartbeats_unanswered: Counter,
    /// Bytes now waiting in outboxes; a gauge.
    pub outbox_bytes: Counter,
    refusals: PerReason<{ RefuseReason::COUNT }>,
    closes: PerReason<{ CloseReason::COUNT }>,
    drops: PerReason<{ DropReason::COUNT }>,
}

impl LoopCounters {
    /// Counts a refused request.
    pub fn refuse(&self, reason: RefuseReason) {
        self.refusals.add(reason.index(), 1);
    }

    /// Counts a connection that is gone; also counts its slot as given back.
    pub fn close(&self, reason: CloseReason) {
        self.closes.add(reason.index(), 1);
        self.connections_closed.inc();
    }

    /// Counts messages not delivered.
    pub fn drop_messages(&self, reason: DropReason, count: u64) {
        self.drops.add(reason.index(), count);
    }

    /// Refused requests by [`RefuseReason::index`].
    pub fn refusals(&self) -> &PerReason<{ RefuseReason::COUNT }> {
        &self.refusals
    }

    /// Closed connections by [`CloseReason::index`].
    pub fn closes(&self) -> &PerReason<{ CloseReason::COUNT }> {
        &self.closes
    }

    /// Dropped messages by [`DropReason::index`].
    pub fn drops(&self) -> &PerReason<{ DropReason::COUNT }> {
        &self.drops
    }

    /// Connections open now.
    pub fn connections_open(&self) -> u64 {
        // Closed is read first: what opens in between can only make the answer too large, never negative.
        let closed = self.connections_closed.load();
        self.connections_opened.load().saturating_sub(closed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_close_is_counted_by_reason_and_gives_the_slot_back() {
        let counters = LoopCounters::default();
        counters.connections_opened.add(3);
        counters.close(CloseReason::Drain);
        assert_eq!(counters.connections_open(), 2);
        assert_eq!(counters.closes().load(CloseReason::Drain.index()), 1);
        assert_eq!(counters.closes().load(CloseReason::Io.index()), 0);
        assert_eq!(counters.closes().total(), 1);
        assert_eq!(counters.closes().load(9999), 0);
        counters.refuse(RefuseReason::AtCapacity);
        counters.drop_messages(DropReason::DropNewest, 5);
        assert_eq!((counters.refusals().total(), counters.drops().total()), (1, 5));
    }

    #[test]
    fn loops_do_not_share_cache_lines() {
        assert_eq!(align_of::<LoopCounters>(), 128);
        assert_eq!(size_of::<LoopCounters>() % 128, 0);
    }
}
