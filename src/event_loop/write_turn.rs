//! Writing: the kernel first, the outbox for what it refuses, the write turn when there is room again.

use super::closing::Words;
use super::core::{Core, JOINED_BYTES};
use crate::connection::outbox::Outbox;
use crate::connection::{Flags, Phase};
use crate::edition::Port;
use crate::metrics::CloseReason;
use crate::topic::Key;
use crate::transport::Socket;

/// `send` calls of one write turn; a peer that takes more at once is fast enough to wait for the next turn.
const WRITES_PER_TURN: usize = 16;

/// Answers of an open connection that may wait while it is read on, each of at most [`SMALL_ANSWER_BYTES`]: a ping
/// behind messages that the peer is still reading must not hold up its next ones, nor what it publishes.
const UNREAD_ANSWERS: u16 = 16;

/// An answer that is longer has to be read before anything else is.
const SMALL_ANSWER_BYTES: usize = 1024;

/// Whether bytes were asked for by the peer, who then has to read them before it is read from again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// An echo, a pong, an answer.
    Yes,
    /// The same, but there is one at a time and no more before it is read, so that the peer is read from meanwhile.
    Once,
    /// A ping or a close of our own.
    No,
}

impl<S: Socket> Core<S> {
    /// Sends bytes of this connection alone.
    pub(super) fn send_own(&mut self, key: Key, bytes: &[u8], asked: Asked) {
        let Some(slot) = self.slots.get(key) else { return };
        if bytes.is_empty() || slot.connection.flags.has(Flags::WRITE_SHUT) {
            return;
        }
        let mut sent = 0;
        if !slot.connection.has_backlog() {
            sent = match slot.stream.write(&mut self.transport, bytes) {
                Ok(count) => count,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => 0,
                Err(_) => return self.abort(key, CloseReason::PeerReset),
            };
        }
        self.counters.bytes_sent.add(sent as u64);
        let Some(rest) = bytes.get(sent..).filter(|rest| !rest.is_empty()) else {
            if slot.stream.pending(&self.transport) {
                self.keep_pending(key);
            }
            return;
        };
        let now = self.now;
        let encoding = slot.connection.encoding();
        let outbox = slot.connection.outbox.get_or_insert_with(|| Box::new(Outbox::new(now, encoding)));
        self.counters.would_blocks.add(1);
        let budget = &self.edition.outbox_budget;
        // The operator's answers are few; they have to come just when clients have used up everything.
        if asked == Asked::No || self.port == Port::Admin {
            outbox.push_own(rest, budget);
        } else if !outbox.try_push_own(rest, budget) {
            return self.end_unanswered(key, sent > 0);
        }
        let small = rest.len() <= SMALL_ANSWER_BYTES && outbox.own() <= UNREAD_ANSWERS;
        if asked == Asked::Yes && !(small && slot.connection.phase() == Phase::Open) {
            slot.connection.flags.set(Flags::PAUSED);
        }
        self.counters.outbox_bytes.add(rest.len() as u64);
        self.rearm(key.slot);
    }

    /// What all connections together may have waiting is used up, and this one does not read what it asks for.
    fn end_unanswered(&mut self, key: Key, begun: bool) {
        let reason = CloseReason::OutboxFull;
        if begun {
            // The peer has the beginning of a frame whose end will never come: nothing can follow it.
            self.abort(key, reason);
        } else {
            self.end(key, reason, Words::Own);
        }
    }

    /// Flushes an outbox as far as the kernel takes it; then whatever waited for that happens.
    pub(super) fn write_turn(&mut self, key: Key) {
        self.counters.write_turns.add(1);
        let mut joined = std::mem::take(&mut self.joined);
        let outcome = self.flush(key, &mut joined);
        self.joined = joined;
        self.settle_layer();
        match outcome {
            Flushed::Broken => self.abort(key, CloseReason::PeerReset),
            Flushed::Blocked => self.after_flush(key),
            Flushed::Empty => self.after_last_byte(key),
        }
    }

    /// The stream has taken bytes that are not with the kernel: an outbox, empty as it is, stands for them until they
    /// are, so that the connection counts as one with something to send.
    pub(super) fn keep_pending(&mut self, key: Key) {
        self.settle_layer();
        let now = self.now;
        let Some(slot) = self.slots.get(key) else { return };
        let encoding = slot.connection.encoding();
        slot.connection.outbox.get_or_insert_with(|| Box::new(Outbox::new(now, encoding)));
        self.rearm(key.slot);
    }

    fn flush(&mut self, key: Key, joined: &mut Vec<u8>) -> Flushed {
        let now = self.now;
        for _ in 0..WRITES_PER_TURN {
            let Some(slot) = self.slots.get(key) else { return Flushed::Blocked };
            let Some(outbox) = slot.connection.outbox.as_deref_mut() else { return Flushed::Empty };
            if outbox.is_empty() && !slot.stream.pending(&self.transport) {
                // Only drops were counted in it while the kernel was full.
                slot.connection.outbox = None;
                return Flushed::Empty;
            }
            let bytes = outbox.next_bytes(joined, JOINED_BYTES);
            match slot.stream.write(&mut self.transport, bytes) {
                Ok(count) => {
                    let delivered = outbox.advance(count, now, &self.edition.outbox_budget);
                    self.counters.deliveries.add(delivered);
                    self.counters.outbox_bytes.sub(count as u64);
                    self.counters.bytes_sent.add(count as u64);
                    if outbox.is_empty() && !slot.stream.pending(&self.transport) {
                        slot.connection.outbox = None;
                        return Flushed::Empty;
                    }
                    // A short write does not prove that the queue is full; only WouldBlock promises an edge.
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    self.counters.would_blocks.add(1);
                    return Flushed::Blocked;
                }
                Err(_) => return Flushed::Broken,
            }
        }
        // Out of budget without WouldBlock: no edge will come, so the ready list has to.
        self.list_ready(key);
        Flushed::Blocked
    }

    /// Everything is with the kernel.
    fn after_last_byte(&mut self, key: Key) {
        if self.slots.get(key).is_some_and(|slot| slot.connection.phase() == Phase::Lingering) {
            return self.end_writing(key);
        }
        self.after_flush(key);
    }

    /// Reads on if the peer has taken its own answers; messages of topics may still wait.
    fn after_flush(&mut self, key: Key) {
        let now = self.now;
        let Some(slot) = self.slots.get(key) else { return };
        if !slot.connection.has_backlog() && slot.connection.session.is_some() {
            self.list_catch_up(key);
        }
        let Some(slot) = self.slots.get(key) else { return };
        let connection = &mut slot.connection;
        if connection.outbox.as_deref().is_some_and(|outbox| outbox.own() > 0) {
            return self.rearm(key.slot);
        }
        let paused = connection.flags.clear(Flags::PAUSED);
        if paused && matches!(connection.phase(), Phase::Head | Phase::Body | Phase::Parked) {
            // What was not read, or not answered further, meanwhile has its whole time from here on.
            connection.resume_at(now);
        }
        // The read turn clears it: it tells that what was put off is to be taken first.
        let owed = connection.flags.has(Flags::READ_OWED);
        self.rearm(key.slot);
        if owed {
            // Not run in place: the read turn may be what called us.
            self.list_ready(key);
        }
    }
}

enum Flushed {
    Empty,
    Blocked,
    Broken,
}
