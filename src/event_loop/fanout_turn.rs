//! The fan-out turn: the next few deliveries, each a single `send` where the kernel takes it.
//!
//! A fan-out is cut into turns, and the loop polls between them, so that an echo does not wait for a
//! broadcast to end. Small topics share a turn, so that many of them cost no more polls than a large one.
//! The cursor is the topic's; see `topic::subscriptions`.

use std::io::ErrorKind;

#[cfg(test)]
use fantail_test_support::planted::{self, Planted};

use super::catch_up_turn::{is_behind, place_of};
use super::closing::Words;
use super::core::Core;
use super::inquiry_turn::watches;
use super::slots::SlotTable;
use super::turn::Clock;
use crate::connection::outbox::{Admitted, Outbox};
use crate::connection::session::Session;
use crate::connection::{Connection, Flags};
use crate::dialect::{Cx, Dialect, Effects, Form, Outcome, Tag, Tools};
use crate::metrics::{CloseReason, DropReason};
use crate::topic::subscriptions::TURN_DELIVERIES;
use crate::topic::{
    Choice, Encoding, Gap, GapKind, Join, Key, Message, Moved, Place, Topic, Turn, TurnBudget,
};
use crate::topic::{SlowPolicy, TopicPolicy};
use crate::transport::Socket;

/// Nanoseconds after which a turn ends although deliveries are left.
const TURN_NS: u64 = 500_000;

/// Deliveries between two looks at the time.
const CLOCK_EVERY: u32 = 32;

/// When the turn ends, and when to look at the time again.
struct Timer {
    clock: Clock,
    ends_ns: u64,
    until_look: u32,
}

impl Timer {
    /// Called after each delivery. Whether the turn's time is over, as far as it was looked at.
    fn is_over(&mut self) -> bool {
        self.until_look -= 1;
        if self.until_look > 0 {
            return false;
        }
        self.until_look = CLOCK_EVERY;
        (self.clock)() > self.ends_ns
    }
}

/// What connections get of a batch that is not different for each, by what they speak.
#[derive(Default)]
struct Usual {
    plain: Option<(Dialect, Choice)>,
    /// Of those that are sent it deflated, by how far.
    deflated: Option<(Dialect, Encoding, Choice)>,
}

impl<S: Socket> Core<S> {
    /// Delivers what topics have to deliver, one after the other, until the turn's budget is used up.
    pub fn fanout_turn(&mut self) {
        if !self.topics.has_work() {
            return;
        }
        let chunked = self.edition.chunked;
        let clock = self.clock;
        let mut timer = Timer { clock, ends_ns: clock() + TURN_NS, until_look: CLOCK_EVERY };
        let mut budget = TurnBudget::new(if chunked { TURN_DELIVERIES } else { u32::MAX });
        loop {
            let slots = &mut self.slots;
            let listed = |join, place| listed(slots, join, place);
            let Some(mut turn) = self.topics.begin_turn(&mut budget, listed) else { return };
            let in_time = self.topic_turn(&mut turn, &mut budget, &mut timer);
            let slots = &mut self.slots;
            self.topics.end_turn(turn, |local, change| moved(slots, local, change));
            if chunked && !in_time {
                return;
            }
        }
    }

    /// Delivers to the topic's subscribers. `false`: the turn's time is over.
    fn topic_turn(&mut self, turn: &mut Turn<Form>, budget: &mut TurnBudget, timer: &mut Timer) -> bool {
        let index = self.index;
        if tracing::enabled!(tracing::Level::TRACE)
            && let Some(topic) = self.topics.topic(turn.local())
        {
            let messages = turn.batch().messages().len();
            tracing::trace!(loop_index = index, topic = topic.name(), messages, "delivering");
        }
        let mut usual = Usual::default();
        while let Some(slot) = self.topics.next_subscriber(turn, budget) {
            self.deliver(slot, turn, &mut usual);
            if timer.is_over() && self.edition.chunked {
                return false;
            }
        }
        !turn.is_watched() || self.watchers_turn(turn, budget, timer, &mut usual)
    }

    /// Delivers to those who have a pattern that means the topic.
    #[inline(never)]
    fn watchers_turn(
        &mut self,
        turn: &mut Turn<Form>,
        budget: &mut TurnBudget,
        timer: &mut Timer,
        usual: &mut Usual,
    ) -> bool {
        while let Some(slot) = self.topics.next_watcher(turn, budget) {
            if self.is_meant(slot, turn) {
                self.deliver(slot, turn, usual);
            }
            if timer.is_over() && self.edition.chunked {
                return false;
            }
        }
        true
    }

    /// Whether a connection gets these messages by a pattern, and not by a subscription to their topic.
    fn is_meant(&mut self, index: u32, turn: &Turn<Form>) -> bool {
        let Some(slot) = self.slots.at(index) else { return false };
        let (connection, local) = (&mut slot.connection, turn.local());
        let place = place_of(connection, local).copied();
        !(place.is_some() && is_behind(connection, local))
            && self.topics.means(turn, index, watches(connection), place)
    }

    // Inlined, with the write of those who are like the ones before them: who delivers has more than one way here, and a
    // call with all that it takes costs as much as everything else before the send.
    /// Delivers to one subscriber. `usual` is what those of its dialect get who have asked for nothing special, once it
    /// is known.
    #[inline(always)]
    fn deliver(&mut self, index: u32, turn: &mut Turn<Form>, usual: &mut Usual) {
        let Some(slot) = self.slots.at(index) else { return };
        let connection = &slot.connection;
        if let Some((dialect, choice)) = usual.plain
            && dialect == connection.dialect
            && !is_special(connection)
        {
            return self.deliver_batch(index, turn, choice);
        }
        self.deliver_chosen(index, turn, usual);
    }

    /// Delivers to a subscriber what it has to be asked for.
    #[inline(never)]
    fn deliver_chosen(&mut self, index: u32, turn: &mut Turn<Form>, usual: &mut Usual) {
        let loop_index = self.index;
        let Some(slot) = self.slots.at(index) else { return };
        let connection = &slot.connection;
        let (dialect, filters) = (connection.dialect, connection.flags.has(Flags::NO_ECHO));
        // Who gets some of them only can't have them as a run.
        let encoding = if filters { connection.encoding().alone() } else { connection.encoding() };
        if let Some((usual, of, choice)) = usual.deflated
            && (usual, of, filters) == (dialect, encoding, false)
        {
            return self.deliver_batch(index, turn, choice);
        }
        let form = connection.form();
        let tools = Tools { deflater: &mut self.deflater, counters: &self.counters, wall: &self.wall };
        let choice = self.topics.choose(turn, form, || encoding, tools);
        if dialect.is_own() {
            return if dialect.is_placed() {
                self.deliver_placed(index, turn, choice);
            } else {
                self.deliver_to_poll(index, turn.local(), turn.batch().messages());
            };
        }
        if !is_special(connection) {
            usual.plain = Some((dialect, choice));
        } else if !filters {
            usual.deflated = Some((dialect, encoding, choice));
        }
        if filters {
            let encoding = connection.encoding();
            let generation = slot.generation;
            let own = |message: &Message| {
                message.origin().is_some_and(|origin| {
                    usize::from(origin.loop_index) == loop_index
                        && origin.slot == index
                        && origin.generation == generation
                })
            };
            if turn.batch().messages().iter().any(own) {
                let local = turn.local();
                for message in turn.messages_of(choice).iter().filter(|message| !own(message)) {
                    // The one before may have closed it as a slow consumer; nothing goes behind a close frame.
                    let Some(slot) = self.slots.at(index) else { return };
                    if is_behind(&slot.connection, local) {
                        // It reads the others itself.
                        return;
                    }
                    if slot.connection.is_open() {
                        let encoding = match choice {
                            Choice::Raw(_) => message.form(encoding),
                            Choice::Derived(_) => choice.encoding(),
                        };
                        if let Some(sent) = self.write_frames(index, message.frame_as(encoding), 1) {
                            self.queue_messages(index, local, encoding, std::slice::from_ref(message), sent);
                        }
                    } else {
                        self.counters.dropped(DropReason::Disconnect, 1);
                    }
                }
                return;
            }
        }
        self.deliver_batch(index, turn, choice);
    }

    /// Delivers all messages of the turn.
    #[inline(always)]
    fn deliver_batch(&mut self, index: u32, turn: &mut Turn<Form>, choice: Choice) {
        let batch = turn.batch();
        if let Some(sent) = self.write_frames(index, batch.frames(choice), batch.messages().len()) {
            if turn.batch().rest_of_run(choice, sent).is_some() {
                return self.queue_rest_of_run(index, turn, choice, sent);
            }
            let local = turn.local();
            self.queue_messages(index, local, choice.encoding(), turn.messages_of(choice), sent);
        }
    }

    /// Queues what the kernel refused of a run: the message that has begun, which refers to those before it, and the others
    /// as they are by themselves, because some of them may be dropped.
    #[inline(never)]
    fn queue_rest_of_run(&mut self, index: u32, turn: &mut Turn<Form>, run: Choice, sent: usize) {
        let Some(slot) = self.slots.at(index) else { return };
        let (form, encoding) = (slot.connection.form(), slot.connection.encoding().alone());
        let tools = Tools { deflater: &mut self.deflater, counters: &self.counters, wall: &self.wall };
        let alone = self.topics.choose(turn, form, || encoding, tools);
        let Some((whole, ..)) = turn.batch().rest_of_run(run, sent) else { return };
        let mut rest = turn.messages_of(alone).get(whole..).unwrap_or_default().to_vec();
        let Some((_, piece, begun)) = turn.batch().rest_of_run(run, sent) else { return };
        if begun > 0
            && let Some(first) = rest.first_mut()
        {
            *first = first.rewritten(piece);
        }
        self.counters.deliveries.add(whole as u64);
        self.queue_messages(index, turn.local(), alone.encoding(), &rest, begun);
    }

    // Inlined: a call with all that it takes costs as much as everything else before the send.
    /// Writes the frames of so many messages, which stand in a row. How many bytes the kernel has taken if they are to be
    /// queued.
    #[inline(always)]
    fn write_frames(&mut self, index: u32, frames: &[u8], messages: usize) -> Option<usize> {
        let slot = self.slots.at(index)?;
        let mut sent = 0;
        if !slot.connection.has_backlog() {
            match slot.stream.write(&mut self.transport, frames) {
                Ok(count) if count == frames.len() => {
                    self.counters.deliveries.add(messages as u64);
                    self.counters.bytes_sent.add(count as u64);
                    if slot.stream.pending(&self.transport) {
                        let key = Key { slot: index, generation: slot.generation };
                        self.keep_pending(key);
                    }
                    return None;
                }
                Ok(count) => sent = count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => {
                    let key = Key { slot: index, generation: slot.generation };
                    self.abort(key, CloseReason::PeerReset);
                    return None;
                }
            }
            self.counters.would_blocks.add(1);
            self.counters.bytes_sent.add(sent as u64);
        }
        Some(sent)
    }

    /// Queues what the kernel refused; the first `sent` bytes of the messages, in this encoding, are with it already.
    #[inline(never)]
    pub(super) fn queue_messages(
        &mut self,
        index: u32,
        local: u32,
        of: Encoding,
        messages: &[Message],
        mut sent: usize,
    ) {
        let now = self.now;
        let budget = &self.edition.outbox_budget;
        let Some(policy) = self.topics.policy(local).copied() else { return };
        let Some(slot) = self.slots.at(index) else { return };
        let policy = policy_for(&mut slot.connection, local, policy);
        let key = Key { slot: index, generation: slot.generation };
        // A frame that has begun goes on in the encoding that it began in, and so does all that comes behind it.
        let encoding = if of == Encoding::Plain { of } else { slot.connection.encoding() };
        let dialect = slot.connection.dialect;
        let outbox = slot.connection.outbox.get_or_insert_with(|| Box::new(Outbox::new(now, encoding)));
        let before = outbox.bytes();
        let (mut delivered, mut dropped, mut closed, mut cut, mut behind) = (0, 0, None, None, None);
        for (at, message) in messages.iter().enumerate() {
            let len = message.frame_as(of).len();
            if sent >= len {
                sent -= len;
                delivered += 1;
            } else if sent > 0 {
                if !outbox.push_rest(message.clone(), sent, budget) {
                    cut = Some((messages.len() - at) as u64);
                    break;
                }
                sent = 0;
            } else {
                let admitted = outbox.admit(message, &policy, budget);
                if let Some(oldest) = tells_of(policy.slow, admitted)
                    && outbox.is_untold(message.topic_id(), oldest)
                    && let Some(topic) = self.topics.topic(local)
                {
                    let tools =
                        Tools { deflater: &mut self.deflater, counters: &self.counters, wall: &self.wall };
                    let words = dropped_words(dialect, topic, tools);
                    outbox.push_note(&words, message.topic_id(), oldest, budget);
                }
                match admitted {
                    Admitted::Admitted { displaced } => dropped += displaced,
                    Admitted::Dropped => dropped += 1,
                    Admitted::Behind => {
                        behind = Some(message.offset());
                        break;
                    }
                    Admitted::Close { dropped } => {
                        // The rest of the batch was published to it, too.
                        closed = Some(dropped + (messages.len() - at - 1) as u64);
                        break;
                    }
                }
            }
        }
        self.counters.outbox_bytes.moved(before, outbox.bytes());
        self.counters.deliveries.add(delivered);
        self.counters.dropped(drop_reason(policy.slow), dropped);
        self.settle_layer();
        if let Some(dropped) = cut {
            // In the middle of a frame there is no place for a close frame.
            self.counters.dropped(DropReason::Disconnect, dropped);
            return self.abort(key, CloseReason::OutboxFull);
        }
        if let Some(next) = behind {
            self.fall_behind(key, local, next);
        }
        let Some(dropped) = closed else { return self.rearm(index) };
        self.counters.dropped(DropReason::Disconnect, dropped);
        let reason = CloseReason::SlowConsumer;
        self.end(key, reason, Words::Own);
    }
}

/// What holds for messages of the loop's topic `local` to this connection.
fn policy_for(connection: &mut Connection, local: u32, policy: TopicPolicy) -> TopicPolicy {
    if policy.slow == SlowPolicy::CatchUp && place_of(connection, local).is_none() {
        // A subscriber by pattern has no place in the topic to read on from.
        return TopicPolicy { slow: SlowPolicy::DropNewest, ..policy };
    }
    policy
}

/// Whether something was dropped that is told, and if so whether it was the oldest that waited. Under `latest` drops are
/// what it promises, and the others have none.
fn tells_of(policy: SlowPolicy, admitted: Admitted) -> Option<bool> {
    match (policy, admitted) {
        (SlowPolicy::DropNewest | SlowPolicy::DropOldest, Admitted::Dropped) => Some(false),
        (SlowPolicy::DropNewest | SlowPolicy::DropOldest, Admitted::Admitted { displaced: 1.. }) => {
            Some(true)
        }
        _ => None,
    }
}

/// What a dialect says of messages that were dropped.
fn dropped_words(dialect: Dialect, topic: &Topic, tools: Tools<'_>) -> Vec<u8> {
    let (mut out, mut effects) = (Vec::new(), Effects::default());
    let gap = Gap { kind: GapKind::Dropped, oldest: topic.oldest() };
    let tag = Tag::default();
    let mut cx = Cx { out: &mut out, effects: &mut effects, tools, deflates_up_to: 0, tag: &tag };
    dialect.on_outcome(&mut cx, Outcome::Gap { topic, gap });
    out
}

/// Whether a connection has asked for what others of its dialect have not.
#[inline(always)]
fn is_special(connection: &Connection) -> bool {
    connection.flags.has_any(&[Flags::NO_ECHO, Flags::DEFLATE])
}

fn drop_reason(policy: SlowPolicy) -> DropReason {
    match policy {
        SlowPolicy::DropNewest => DropReason::DropNewest,
        SlowPolicy::DropOldest => DropReason::DropOldest,
        SlowPolicy::Latest => DropReason::Latest,
        SlowPolicy::Disconnect => DropReason::Disconnect,
        // It drops nothing; what is gone when it is read, is told where it is read.
        SlowPolicy::CatchUp => DropReason::Expired,
    }
}

/// A join has come up: lists the connection if it still waits for this one.
fn listed<S>(slots: &mut SlotTable<S>, join: Join, place: Place) -> bool {
    let own = |at: Place| at == join.ticket;
    #[cfg(test)]
    let own = |at| own(at) || planted::strikes(Planted::LostTicket);
    set_place(slots, join.local, join.slot, own, place)
}

/// A subscriber was moved within its topic's list.
pub(super) fn moved<S>(slots: &mut SlotTable<S>, local: u32, moved: Moved) {
    set_place(slots, local, moved.slot, |_| true, moved.place);
}

/// Writes where a slot is in the list of topic `local`, if it has that topic and `allow` agrees.
fn set_place<S>(
    slots: &mut SlotTable<S>,
    local: u32,
    slot: u32,
    allow: impl Fn(Place) -> bool,
    place: Place,
) -> bool {
    let Some(slot) = slots.at(slot) else { return false };
    let connection = &mut slot.connection;
    let at = if connection.topic == local {
        &mut connection.place
    } else {
        let more = connection.session.as_deref_mut().map(Session::more_topics_mut).unwrap_or_default();
        match more.iter_mut().find(|subscription| subscription.topic == local) {
            Some(subscription) => &mut subscription.place,
            None => return false,
        }
    };
    let allowed = allow(*at);
    if allowed {
        *at = place;
    }
    allowed
}
