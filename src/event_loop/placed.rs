//! Messages that name the connection's own places: what they have in common is made once a loop, and the rest is written
//! behind it for each connection.
//!
//! Driven by the fan-out turn. One write a connection and turn, as for everybody; memory of its own is asked for only by
//! what the kernel refuses.

use std::io::ErrorKind;

use super::core::Core;
use crate::connection::session::Session;
use crate::dialect::sse::Places;
use crate::dialect::{Form, Outcome};
use crate::metrics::CloseReason;
use crate::topic::{Choice, Encoding, Joined, Key, Message, Position, Topic, Turn};
use crate::transport::Socket;

impl<S: Socket> Core<S> {
    /// Keeps where each subscription of a connection begins that has just joined its topics.
    pub(super) fn note_places(&mut self, key: Key, joined: &[(Topic, Joined)]) {
        let Some(slot) = self.slots.get(key) else { return };
        let connection = &slot.connection;
        let more: Vec<u32> = match connection.session.as_deref() {
            Some(Session::Open(open)) => open.topics.iter().map(|more| more.topic).collect(),
            _ => Vec::new(),
        };
        let locals = [connection.topic].into_iter().chain(more);
        let begins = joined.iter().map(|(topic, joined)| {
            let offset = match Outcome::of_joined(topic, *joined) {
                Outcome::Joined { offset, .. } => offset,
                _ => 0,
            };
            Position { epoch: topic.epoch(), offset }
        });
        let places = Places::new(locals.zip(begins));
        self.places.insert(key.slot, places);
    }

    /// The connection is gone.
    pub(super) fn forget_places(&mut self, slot: u32) {
        self.places.remove(&slot);
        if self.places.len() < self.places.capacity() / 4 {
            self.places.shrink_to(self.places.len() * 2);
        }
    }

    /// Delivers the messages of the turn, each with the places that the connection has come to with it.
    #[inline(never)]
    pub(super) fn deliver_placed(&mut self, index: u32, turn: &Turn<Form>, choice: Choice) {
        let (local, batch) = (turn.local(), turn.batch());
        let mut out = std::mem::take(&mut self.out);
        out.clear();
        let mut ends = std::mem::take(&mut self.placed_ends);
        ends.clear();
        if let Some(slot) = self.slots.at(index) {
            let dialect = slot.connection.dialect;
            if let Some(places) = self.places.get_mut(&index) {
                for (message, bytes) in batch.pieces(choice) {
                    dialect.push_placed(bytes, places.advance(local, message.offset()), &mut out);
                    ends.push(out.len());
                }
            }
            self.deliver_own(index, local, batch.messages(), &out, &ends);
        }
        if out.capacity() > super::core::SCRATCH_BYTES {
            out = Vec::new();
        }
        self.out = out;
        self.placed_ends = ends;
    }

    /// Writes what is in `out`, of which each message ends at its place in `ends`, and queues what the kernel refuses.
    fn deliver_own(&mut self, index: u32, local: u32, messages: &[Message], out: &[u8], ends: &[usize]) {
        let Some(slot) = self.slots.at(index) else { return };
        let key = Key { slot: index, generation: slot.generation };
        let mut sent = 0;
        if !slot.connection.has_backlog() {
            match slot.stream.write(&mut self.transport, out) {
                Ok(count) => sent = count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => return self.abort(key, CloseReason::PeerReset),
            }
            self.counters.bytes_sent.add(sent as u64);
            if sent == out.len() {
                self.counters.deliveries.add(ends.len() as u64);
                if slot.stream.pending(&self.transport) {
                    self.keep_pending(key);
                }
                return;
            }
            self.counters.would_blocks.add(1);
        }
        let whole = ends.partition_point(|&end| end <= sent);
        let mut from = whole.checked_sub(1).and_then(|last| ends.get(last)).copied().unwrap_or(0);
        sent -= from;
        self.counters.deliveries.add(whole as u64);
        let left = messages.iter().zip(ends).skip(whole).map(|(message, &end)| {
            let bytes = out.get(from..end).unwrap_or_default();
            from = end;
            message.rewritten(bytes)
        });
        let left: Vec<Message> = left.collect();
        self.queue_messages(index, local, Encoding::Plain, &left, sent);
    }
}
