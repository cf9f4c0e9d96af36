//! The catch-up turn: old messages for subscribers who resume, or have fallen behind, at the pace of each reader.
//!
//! A subscription that is behind is on no list and gets nothing out of the mailbox. Whenever its connection has
//! nothing else to send, it is given one write of what its topic keeps; nothing is queued for it but the rest of a
//! message that has begun to leave. With nothing more to read it joins under the topic's lock, as every other, so that
//! what is published next comes by the mailbox. The turn has a budget, so that live deliveries keep their share.

use std::collections::VecDeque;
use std::io::ErrorKind;

#[cfg(test)]
use fantail_test_support::planted::{self, Planted};

use super::core::{Core, READY_BYTES_PER_TURN};
use super::effects::Sink;
use super::fanout_turn::moved;
use super::frames_turn::remember;
use super::write_turn::Asked;
use crate::connection::behind::{Behind, CatchUp};
use crate::connection::outbox::Outbox;
use crate::connection::session::Session;
use crate::connection::{Connection, Flags};
use crate::dialect::{Effects, Outcome, Tag, Tools};
use crate::metrics::{CloseReason, DropReason};
use crate::topic::{CaughtUp, Encoding, Gap, Key, Message, Place, Topic};
use crate::transport::Socket;

/// Connections for which the list keeps room after a storm.
const LIST_KEPT: usize = 1_024;

/// Connections of this loop that are behind and have room to be written to, the next to have a turn first.
pub(super) type CatchUpList = VecDeque<Key>;

/// What the kernel took of some messages.
struct Taken {
    /// Messages that it has to the last byte.
    whole: usize,
    /// Bytes of the one behind them.
    begun: usize,
}

impl Taken {
    fn of(messages: &[Message], encoding: Encoding, mut bytes: usize) -> Self {
        let mut whole = 0;
        for message in messages {
            let len = message.frame_as(encoding).len();
            if bytes < len {
                break;
            }
            bytes -= len;
            whole += 1;
        }
        Self { whole, begun: bytes }
    }
}

impl<S: Socket> Core<S> {
    /// Gives those who are behind and have room one write each, until together they have taken enough.
    pub fn catch_up_turn(&mut self) {
        if self.catching_up.is_empty() {
            return;
        }
        let mut slice = self.reading_slice((self.clock)(), READY_BYTES_PER_TURN);
        for _ in 0..self.catching_up.len() {
            if slice.is_over() {
                break;
            }
            let Some(key) = self.catching_up.pop_front() else { break };
            let before = self.bytes_moved();
            if let Some(behind) = self.behind(key) {
                behind.listed = false;
                self.catch_up(key);
            }
            slice.charge(self.bytes_moved().wrapping_sub(before), self.clock);
        }
        if self.catching_up.is_empty() && self.catching_up.capacity() > LIST_KEPT {
            self.catching_up.shrink_to(LIST_KEPT);
        }
    }

    /// Lists a connection for a turn if it is behind with something.
    pub(super) fn list_catch_up(&mut self, key: Key) {
        if let Some(behind) = self.behind(key)
            && !std::mem::replace(&mut behind.listed, true)
        {
            self.catching_up.push_back(key);
        }
    }

    /// The subscription to the loop's topic `local` reads what it keeps from `next` on.
    pub(super) fn start_catch_up(&mut self, key: Key, local: u32, next: u64) {
        let Some(slot) = self.slots.get(key) else { return };
        remember(&mut slot.connection.session, |open| {
            open.behind.get_or_insert_default().push(CatchUp { topic: local, next });
        });
        self.list_catch_up(key);
    }

    /// A listed subscriber of the loop's topic `local` has no room for the message at `next`: it reads on from what the
    /// topic keeps.
    pub(super) fn fall_behind(&mut self, key: Key, local: u32, next: u64) {
        let Some(slot) = self.slots.get(key) else { return };
        let Some(place) = place_of(&mut slot.connection, local) else { return };
        let Some((ticket, change)) = self.topics.fall_behind(local, key.slot, *place) else { return };
        *place = ticket;
        if let Some(places) = self.places.get_mut(&key.slot) {
            // What it is told of its place must not be ahead of what it gets.
            places.advance(local, next - 1);
        }
        if let Some(change) = change {
            moved(&mut self.slots, local, change);
        }
        self.counters.fell_behind.add(1);
        self.start_catch_up(key, local, next);
    }

    fn behind(&mut self, key: Key) -> Option<&mut Behind> {
        match self.slots.get(key)?.connection.session.as_deref_mut() {
            Some(Session::Open(open)) => open.behind.as_deref_mut(),
            _ => None,
        }
    }

    /// One step of one connection.
    fn catch_up(&mut self, key: Key) {
        let Some(slot) = self.slots.get(key) else { return };
        let waits = slot.connection.outbox.as_deref().is_some_and(|outbox| !outbox.is_empty());
        if waits || slot.stream.pending(&self.transport) || slot.connection.flags.has(Flags::WRITE_SHUT) {
            // The write turn lists it again when everything is with the kernel.
            return;
        }
        if let Some(listing) = self.behind(key).and_then(Behind::next_listing) {
            self.list_on(key, listing);
            return self.list_catch_up(key);
        }
        let Some(CatchUp { topic: local, next }) = self.behind(key).and_then(|behind| behind.next_turn())
        else {
            return;
        };
        let Some(slot) = self.slots.get(key) else { return };
        let Some(&mut ticket) = place_of(&mut slot.connection, local) else { return };
        match self.topics.catch_up(local, key.slot, ticket, next) {
            Some(CaughtUp::Read { next }) if !self.replay(key, local, next) => return,
            Some(CaughtUp::Gap(gap)) => self.skip(key, local, next, gap),
            Some(CaughtUp::Joined) => {
                self.end_catch_up(key, local);
            }
            Some(CaughtUp::Read { .. }) | None => {}
        }
        self.list_catch_up(key);
    }

    /// Writes what was read from `next` on, as far as the kernel takes it. `false`: the kernel is full, and the write turn
    /// lists the connection again.
    fn replay(&mut self, key: Key, local: u32, next: u64) -> bool {
        let (index, now) = (self.index, self.now);
        let Some(slot) = self.slots.get(key) else { return false };
        let (form, encoding) = (slot.connection.form(), slot.connection.encoding());
        let tools = Tools { deflater: &mut self.deflater, counters: &self.counters, wall: &self.wall };
        let Some(piece) = self.topics.replay(local, next, form, encoding, tools) else { return true };
        let (mut messages, mut frames) = (piece.messages, piece.frames);
        if slot.connection.flags.has(Flags::NO_ECHO) {
            let own = |message: &&Message| is_own(message, index, key);
            let others = messages.iter().take_while(|message| !own(message)).count();
            if others == 0 {
                let passed = messages.iter().take_while(own).count();
                self.move_to(key, local, next + passed as u64);
                return true;
            }
            messages = messages.get(..others).unwrap_or_default();
            let bytes = messages.iter().map(|message| message.frame_as(piece.encoding).len()).sum();
            frames = frames.get(..bytes).unwrap_or_default();
        }
        let dialect = slot.connection.dialect;
        let (mut own_messages, mut own_frames) = (Vec::new(), Vec::new());
        if dialect.is_placed()
            && let Some(places) = self.places.get_mut(&key.slot)
        {
            for message in messages {
                let from = own_frames.len();
                let at = places.advance(local, message.offset());
                dialect.push_placed(message.frame(), at, &mut own_frames);
                own_messages.push(message.rewritten(own_frames.get(from..).unwrap_or_default()));
            }
            (messages, frames) = (&own_messages, &own_frames);
            // It has come no further than before until the kernel has taken some of it.
            places.advance(local, next - 1);
        }
        let count = match slot.stream.write(&mut self.transport, frames) {
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.counters.would_blocks.add(1);
                // Empty as it is, it brings the write turn that the kernel promises.
                slot.connection.outbox.get_or_insert_with(|| Box::new(Outbox::new(now, encoding)));
                self.rearm(key.slot);
                return false;
            }
            Err(_) => {
                self.abort(key, CloseReason::PeerReset);
                return false;
            }
        };
        let taken = Taken::of(messages, piece.encoding, count);
        let (mut fits, mut begins) = (true, false);
        slot.connection.outbox = None;
        let mut next = next + taken.whole as u64;
        if let Some(begun) = messages.get(taken.whole).filter(|_| taken.begun > 0) {
            // A frame that has begun goes on in the encoding that it began in.
            let of = if piece.encoding == Encoding::Plain { Encoding::Plain } else { encoding };
            let mut outbox = Box::new(Outbox::new(now, of));
            fits = outbox.push_rest(begun.clone(), taken.begun, &self.edition.outbox_budget);
            self.counters.outbox_bytes.add(outbox.bytes() as u64);
            slot.connection.outbox = Some(outbox);
            (next, begins) = (next + 1, true);
        }
        self.counters.deliveries.add(taken.whole as u64);
        self.counters.replayed.add(taken.whole as u64);
        self.counters.bytes_sent.add(count as u64);
        let pending = slot.stream.pending(&self.transport);
        self.move_to(key, local, next);
        if !fits {
            self.abort(key, CloseReason::OutboxFull);
            return false;
        }
        if pending && !begins {
            self.keep_pending(key);
        }
        self.rearm(key.slot);
        !begins && !pending
    }

    /// What comes before `gap.oldest` is not kept any more: says so, and goes on there.
    fn skip(&mut self, key: Key, local: u32, next: u64, gap: Gap) {
        self.counters.dropped(DropReason::Expired, gap.oldest.saturating_sub(next));
        self.move_to(key, local, gap.oldest);
        self.tell_gap(key, local, gap);
        let is_placed = self.slots.get(key).is_some_and(|slot| slot.connection.dialect.is_placed());
        if is_placed && self.topics.topic(local).is_some_and(Topic::is_of_presence) {
            // It has no words to ask for the list.
            self.start_listing(key, local, None);
        }
    }

    /// Tells a connection of messages of the loop's topic `local` that don't come.
    fn tell_gap(&mut self, key: Key, local: u32, gap: Gap) {
        #[cfg(test)]
        if planted::strikes(Planted::UntoldGap) {
            return;
        }
        let Some(topic) = self.topics.topic(local).cloned() else { return };
        let Some(from) = self.speaker(key) else { return };
        let (mut out, mut effects) = (Vec::new(), Effects::default());
        let mut sink = Sink { out: &mut out, effects: &mut effects, tag: Tag::default() };
        self.tell(from, Outcome::Gap { topic: &topic, gap }, &mut sink);
        self.send_own(key, &out, Asked::No);
    }

    /// The subscription goes on at `next`.
    fn move_to(&mut self, key: Key, local: u32, next: u64) {
        if let Some(places) = self.places.get_mut(&key.slot) {
            places.advance(local, next - 1);
        }
        if let Some(behind) = self.behind(key) {
            behind.move_to(local, next);
        }
    }

    /// The subscription is not behind any more.
    pub(super) fn end_catch_up(&mut self, key: Key, local: u32) -> bool {
        let Some(slot) = self.slots.get(key) else { return false };
        let session = &mut slot.connection.session;
        let Some(Session::Open(open)) = session.as_deref_mut() else { return false };
        let was = open.behind.as_deref_mut().is_some_and(|behind| behind.remove(local));
        tidy(session);
        was
    }

    /// The list of which the loop's topic `events` tells the changes is at its end.
    pub(super) fn end_listing(&mut self, key: Key, events: u32) {
        let Some(slot) = self.slots.get(key) else { return };
        let session = &mut slot.connection.session;
        if let Some(Session::Open(open)) = session.as_deref_mut()
            && let Some(behind) = open.behind.as_deref_mut()
        {
            behind.end_listing(events);
            tidy(session);
        }
    }
}

/// What nothing is left of does not stay.
fn tidy(session: &mut Option<Box<Session>>) {
    if let Some(Session::Open(open)) = session.as_deref_mut() {
        if open.behind.as_deref().is_some_and(|behind| behind.is_empty()) {
            open.behind = None;
        }
        if open.is_empty() {
            *session = None;
        }
    }
}

/// Whether a connection reads what the loop's topic `local` keeps, instead of what is delivered.
pub(super) fn is_behind(connection: &Connection, local: u32) -> bool {
    match connection.session.as_deref() {
        Some(Session::Open(open)) => open.behind.as_deref().is_some_and(|behind| behind.has(local)),
        _ => false,
    }
}

/// Whether the connection has published the message itself.
fn is_own(message: &Message, loop_index: usize, key: Key) -> bool {
    message.origin().is_some_and(|origin| {
        usize::from(origin.loop_index) == loop_index
            && origin.slot == key.slot
            && origin.generation == key.generation
    })
}

/// What a connection remembers of its subscription to the loop's topic `local`.
pub(super) fn place_of(connection: &mut Connection, local: u32) -> Option<&mut Place> {
    if connection.topic == local {
        return Some(&mut connection.place);
    }
    let more = connection.session.as_deref_mut().map(Session::more_topics_mut).unwrap_or_default();
    more.iter_mut().find(|more| more.topic == local).map(|more| &mut more.place)
}
