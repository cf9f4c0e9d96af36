//! What one loop counts. Written by its loop (and, for publishes of the admin port, by the admin loop) with
//! relaxed atomics; read by `/metrics`.

use std::sync::atomic::{AtomicU64, Ordering};

use super::histogram::TurnTimes;
use super::reasons::{CloseReason, DropReason, InvalidReason, RefuseReason, TlsFailure};

/// One number that only its loop writes.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `count`.
    pub fn add(&self, count: u64) {
        // One writer: a load and a store cost less than a locked instruction and lose nothing.
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(count), Ordering::Relaxed);
    }

    /// Takes `count` away, for gauges.
    pub fn sub(&self, count: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).saturating_sub(count), Ordering::Relaxed);
    }

    /// What the gauge is about went from `before` to `after`.
    pub fn moved(&self, before: usize, after: usize) {
        match after.checked_sub(before) {
            Some(more) => self.add(more as u64),
            None => self.sub((before - after) as u64),
        }
    }

    /// Replaces the number, for gauges that are known as a whole.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// The number now.
    #[must_use]
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A counter for each reason, however many there are.
#[derive(Debug)]
struct PerReason<const N: usize>([Counter; N]);

impl<const N: usize> Default for PerReason<N> {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Counter::default()))
    }
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// One loop's counters, on cache lines of their own.
        #[derive(Debug, Default)]
        #[repr(align(128))]
        pub struct LoopCounters {
            $($(#[$doc])* pub $name: Counter,)*
            /// How long turns took.
            pub turn_times: TurnTimes,
            closes: PerReason<{ CloseReason::COUNT }>,
            refusals: PerReason<{ RefuseReason::COUNT }>,
            drops: PerReason<{ DropReason::COUNT }>,
            tls_failures: PerReason<{ TlsFailure::COUNT }>,
            invalid: PerReason<{ InvalidReason::COUNT }>,
        }
    };
}

counters! {
    /// Connections accepted.
    accepted,
    /// `accept` calls that failed for want of something.
    accept_errors,
    /// Connections refused without a slot: answered and closed as they were accepted.
    refused_at_once,
    /// Connections whose request has not arrived.
    handshakes,
    /// Connections closed and gone.
    connections_closed,
    /// Upgrades to WebSocket.
    upgrades,
    /// Bytes read.
    bytes_received,
    /// Bytes the kernel took.
    bytes_sent,
    /// WebSocket messages read.
    messages_received,
    /// Messages published by this loop's clients.
    publishes,
    /// Publishes that found a mailbox full.
    publishes_busy,
    /// Publishes to topics that clients may not publish to.
    ignored_publishes,
    /// Messages that had to wait until the application has answered those before them.
    forwards_blocked,
    /// Messages that were no command of their dialect.
    bad_commands,
    /// Signatures of tokens computed with public keys.
    signatures_computed,
    /// Those that were known to be right.
    signatures_known,
    /// Messages that the kernel took for a subscriber, to the last byte.
    deliveries,
    /// Of these, messages that were read out of what their topic keeps.
    replayed,
    /// Subscribers that went back to what their topic keeps because they had no room for a new message.
    fell_behind,
    /// Subscriptions that are behind now.
    behind,
    /// Bytes of old messages held in the forms of those who read them.
    replay_bytes,
    /// Messages that were compressed.
    deflated_messages,
    /// Bytes of these before.
    deflate_in_bytes,
    /// Bytes of these after.
    deflate_out_bytes,
    /// Compressed messages of clients that did not inflate.
    inflate_failures,
    /// Unsent bytes in outboxes now.
    outbox_bytes,
    /// Write turns.
    write_turns,
    /// Writes that the kernel took in part or not at all.
    would_blocks,
    /// Wake-ups by another thread.
    wakeups,
    /// Turns of the loop.
    turns,
    /// Times the loop went to sleep.
    sleeps,
    /// Keys that outlived their connection.
    stale_keys,
    /// Pings sent to silent peers.
    heartbeats_sent,
    /// Pings that nobody answered.
    heartbeats_unanswered,
    /// Pongs received.
    pongs_received,
    /// Subscriptions now, waiting joins included.
    subscriptions,
    /// Subscriptions by pattern now.
    watches,
    /// Messages that a newer one has replaced before they were delivered.
    replaced,
    /// Bytes of half-received heads and messages now, and of request bodies.
    inbox_bytes,
    /// Bytes of slot pages now.
    slot_bytes,
    /// Descriptors that the loop holds now.
    descriptors,
    /// Handshakes of TLS under way.
    tls_handshakes,
    /// Handshakes of TLS 1.2 in full.
    tls12_full,
    /// Handshakes of TLS 1.2 that took up a session.
    tls12_resumed,
    /// Handshakes of TLS 1.3 in full.
    tls13_full,
    /// Handshakes of TLS 1.3 that took up a session.
    tls13_resumed,
}

impl LoopCounters {
    /// Connections open now.
    #[must_use]
    pub fn connections(&self) -> u64 {
        // Closed first: a connection that comes and goes between the two reads must not be missing.
        let closed = self.connections_closed.value();
        self.accepted.value().saturating_sub(closed)
    }

    /// A connection ended for `reason`.
    pub fn closed(&self, reason: CloseReason) {
        self.closes.0[reason as usize].add(1);
    }

    /// A request was refused for `reason`.
    pub fn refused(&self, reason: RefuseReason) {
        self.refusals.0[reason as usize].add(1);
    }

    /// A slow consumer missed `count` messages.
    pub fn dropped(&self, reason: DropReason, count: u64) {
        self.drops.0[reason as usize].add(count);
    }

    /// A message was not what its topic takes.
    pub fn found_invalid(&self, reason: InvalidReason) {
        self.invalid.0[reason as usize].add(1);
    }

    /// Messages that were not, for `reason`.
    #[must_use]
    pub fn invalid(&self, reason: InvalidReason) -> u64 {
        self.invalid.0[reason as usize].value()
    }

    /// TLS came to nothing.
    pub fn tls_failed(&self, reason: TlsFailure) {
        self.tls_failures.0[reason as usize].add(1);
    }

    /// Replaces how often that was for this reason.
    pub fn set_tls_failed(&self, reason: TlsFailure, count: u64) {
        self.tls_failures.0[reason as usize].set(count);
    }

    /// How often it was.
    #[must_use]
    pub fn tls_failures(&self, reason: TlsFailure) -> u64 {
        self.tls_failures.0[reason as usize].value()
    }

    /// Messages that slow consumers missed for `reason`.
    #[must_use]
    pub fn drops(&self, reason: DropReason) -> u64 {
        self.drops.0[reason as usize].value()
    }

    /// Connections that ended for `reason`.
    #[must_use]
    pub fn closes(&self, reason: CloseReason) -> u64 {
        self.closes.0[reason as usize].value()
    }

    /// Requests refused for `reason`.
    #[must_use]
    pub fn refusals(&self, reason: RefuseReason) -> u64 {
        self.refusals.0[reason as usize].value()
    }
}
