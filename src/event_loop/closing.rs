//! How connections end: `close` politely, `end` without waiting for the peer, `abort` at once.
//!
//! Nobody is closed with bytes unread or unsent if it can be helped, because `close()` with unread input
//! makes the kernel throw the send queue away: last bytes, end of stream, read until the peer's end, close.

use std::io::ErrorKind;

use super::core::Core;
use super::write_turn::Asked;
use crate::connection::session::Session;
use crate::connection::{Flags, Phase};
use crate::dialect::{Carrier, Farewell};
use crate::metrics::CloseReason;
use crate::topic::{Key, Place};
use crate::transport::Socket;

/// Slots of one loop that may linger at a time; above it a finished connection is closed at once.
const LINGERING_MAX: usize = 1_024;

/// What the peer is told at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Words<'a> {
    /// Nothing, or it was said already.
    Nothing,
    /// What its dialect has for the reason.
    Own,
    /// This code and text.
    Given(u16, &'a str),
    /// The same, in answer to the peer's last words.
    Answer(u16, &'a str),
}

impl<S: Socket> Core<S> {
    /// Closes an open connection politely (RFC 6455, 7.1.2): last words, then the peer's are awaited. One that is
    /// already on its way out goes on as it does.
    pub(super) fn close(&mut self, key: Key, reason: CloseReason, words: Words<'_>) {
        let Some(slot) = self.slots.get(key) else { return };
        if slot.connection.phase() != Phase::Open {
            return;
        }
        if slot.connection.dialect.carrier() != Carrier::Frames {
            // The end of an answer is not answered.
            return self.end(key, reason, words);
        }
        self.unsubscribe_all(key.slot);
        let Some(slot) = self.slots.get(key) else { return };
        let held = slot.connection.held_bytes();
        slot.connection.start_closing(reason, self.now);
        // A publish that waited is dropped with the session.
        self.held.moved(self.edition.inbox_bytes_of(self.port), held, slot.connection.held_bytes());
        self.say(key, reason, words);
        if self.slots.get(key).is_some() {
            // A publish that waited for room is given up; what was stashed behind it has to be read on.
            self.list_ready(key);
        }
        self.rearm(key.slot);
    }

    /// Says what is to be said to a peer that is still listening.
    fn say(&mut self, key: Key, reason: CloseReason, words: Words<'_>) {
        let Some(slot) = self.slots.get(key) else { return };
        let dialect = slot.connection.dialect;
        let (code, text) = match words {
            Words::Nothing => return,
            Words::Own => (dialect.close_code(reason).unwrap_or(1000), reason.text()),
            Words::Given(code, text) | Words::Answer(code, text) => (code, text),
        };
        let mut last = Vec::with_capacity(128);
        // Who is sent away with all others would come back with all others.
        let again_ms = (reason == CloseReason::Drain).then(|| self.again_after_drain_ms(key));
        dialect.push_close(&Farewell { code, text, again_ms }, &mut last);
        self.send_own(key, &last, Asked::No);
    }

    /// Ends a connection without waiting for the peer's words (RFC 6455, 7.1.7): last words to one that is open, flush,
    /// end our side, linger until the peer ends its own.
    pub(super) fn end(&mut self, key: Key, reason: CloseReason, words: Words<'_>) {
        let mut parts = false;
        if let Some(slot) = self.slots.get(key)
            && slot.connection.phase() == Phase::Open
        {
            let is_answered = slot.connection.dialect.carrier() == Carrier::Frames
                && !matches!(words, Words::Nothing | Words::Answer(..));
            parts = is_answered && slot.stream.parts_in_turn();
            self.say(key, reason, words);
        }
        let Some(slot) = self.slots.get(key) else { return };
        if slot.connection.phase() == Phase::Lingering {
            return;
        }
        // Whoever started the closing handshake gave the reason for it.
        let reason = match slot.connection.session.as_deref() {
            Some(Session::Closing(started)) if reason == CloseReason::Normal => *started,
            _ => reason,
        };
        self.unsubscribe_all(key.slot);
        self.end_handshake(key);
        self.counters.closed(reason);
        self.hear_of_end(key, reason);
        // Who comes back meets a peer that lingers no more as one of theirs.
        self.forget_bearer(key.slot);
        tracing::debug!(slot = key.slot, generation = key.generation, reason = reason.label(), "closing");
        let full = self.lingering >= LINGERING_MAX;
        let now = self.now;
        let Some(slot) = self.slots.get(key) else { return };
        let connection = &mut slot.connection;
        self.held.moved(self.edition.inbox_bytes_of(self.port), connection.held_bytes(), 0);
        match connection.parked().and_then(|parked| parked.handshake.take()) {
            Some(handshake) => self.questions.forget(&self.edition, self.index, key, &handshake),
            None => self.parked -= usize::from(connection.phase() == Phase::Parked),
        }
        self.body_bytes -= connection.linger(now).map_or(0, |session| session.body_bytes());
        self.lingering += 1;
        if parts {
            connection.session = Some(Box::new(Session::Parting));
        }
        if full {
            return self.abort(key, reason);
        }
        if !connection.has_backlog() {
            self.end_writing(key);
        }
        self.rearm(key.slot);
    }

    /// The last byte is with the kernel: end our side; done if the peer's has ended too.
    pub(super) fn end_writing(&mut self, key: Key) {
        let now = self.now;
        let Some(slot) = self.slots.get(key) else { return };
        if slot.connection.flags.has(Flags::EOF_SEEN) {
            return self.end_behind(key, CloseReason::Normal);
        }
        if matches!(slot.connection.session.as_deref(), Some(Session::Parting)) {
            // The peer has its answer to our last words first.
            slot.connection.heard = now;
            return self.rearm(key.slot);
        }
        match slot.stream.end(&mut self.transport) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return self.keep_pending(key),
            Err(_) => return self.abort(key, CloseReason::PeerReset),
        }
        slot.connection.flags.set(Flags::WRITE_SHUT);
        slot.connection.heard = now;
        self.rearm(key.slot);
        // Input may have been left in the queue by whatever ended the conversation.
        self.list_ready(key);
    }

    /// Closes behind the peer's end: all is said but what a layer has to say of ours (RFC 8446, 6.1: each side closes with a
    /// close_notify). That goes if the kernel takes it; nobody may be left to read it.
    pub(super) fn end_behind(&mut self, key: Key, reason: CloseReason) {
        if let Some(slot) = self.slots.get(key)
            && slot.stream.parts_in_turn()
        {
            let _ = slot.stream.end(&mut self.transport);
        }
        self.abort(key, reason);
    }

    /// The lingering peer has had its time. If that was for its last words, what follows them comes without them.
    pub(super) fn on_linger_due(&mut self, key: Key) {
        if !self.end_parting(key) {
            self.abort(key, CloseReason::Normal);
        }
    }

    /// Ends our side if the peer's answer to our last words was awaited. `false`: it was not.
    pub(super) fn end_parting(&mut self, key: Key) -> bool {
        let Some(slot) = self.slots.get(key) else { return false };
        let place = &mut slot.connection.session;
        let parted = place.take_if(|session| matches!(**session, Session::Parting)).is_some();
        if parted && !slot.connection.has_backlog() {
            self.end_writing(key);
        }
        parted
    }

    /// Closes at once: nothing can be said to the peer, or all is. Gives the slot back and closes the stream.
    pub(super) fn abort(&mut self, key: Key, reason: CloseReason) {
        let index = key.slot;
        if self.slots.get(key).is_none() {
            return;
        }
        self.unsubscribe_all(index);
        self.hear_of_end(key, reason);
        let Some(mut slot) = self.slots.remove(index) else { return };
        slot.stream.forget(&mut self.transport);
        self.settle_layer();
        if slot.connection.flags.has(Flags::WAITS_FOR_ROOM) {
            self.blocked.note_gone(|key| self.slots.has(key));
        }
        self.held.moved(self.edition.inbox_bytes_of(self.port), slot.connection.held_bytes(), 0);
        match slot.connection.parked().and_then(|parked| parked.handshake.take()) {
            Some(handshake) => self.questions.forget(&self.edition, self.index, key, &handshake),
            None => self.parked -= usize::from(slot.connection.phase() == Phase::Parked),
        }
        if slot.connection.phase() == Phase::Lingering {
            self.lingering -= 1;
        } else {
            self.counters.closed(reason);
            tracing::debug!(slot = index, generation = slot.generation, reason = reason.label(), "closed");
        }
        self.body_bytes -= slot.connection.session.as_deref().map_or(0, Session::body_bytes);
        self.release(&slot.connection);
        if slot.connection.dialect.is_placed() {
            self.forget_places(index);
        }
        self.forget_bearer(index);
        self.addresses.forget(index);
        if let Some(outbox) = slot.connection.outbox {
            self.counters.outbox_bytes.sub(outbox.bytes() as u64);
            outbox.give_up(&self.edition.outbox_budget);
        }
        self.counters.connections_closed.add(1);
    }

    /// Ends every subscription of a slot, waiting joins included.
    pub(super) fn unsubscribe_all(&mut self, index: u32) {
        let Some(slot) = self.slots.at(index) else { return };
        let connection = &mut slot.connection;
        let first = crate::connection::session::Subscription {
            topic: std::mem::replace(&mut connection.topic, crate::connection::NONE),
            place: std::mem::replace(&mut connection.place, Place::NONE),
        };
        let (more, watches) = match connection.session.as_deref_mut() {
            Some(Session::Open(open)) => {
                (std::mem::take(&mut open.topics), std::mem::take(&mut open.watches))
            }
            Some(Session::Parked(parked)) => (std::mem::take(&mut parked.topics), Default::default()),
            _ => Default::default(),
        };
        // The first may have been ended by the admin port while others go on.
        let first = (first.topic != crate::connection::NONE).then_some(first);
        for subscription in first.into_iter().chain(more) {
            self.leave(index, subscription);
        }
        for watch in watches {
            self.topics.unwatch(watch, index, false);
        }
    }
}
