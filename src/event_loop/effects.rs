//! Carrying out what dialects ask for: the one executor of effects, and publishes that wait for room in a mailbox.
//!
//! Driven by the frame turn after each message, and by whoever lets those go on that have waited. The only code that
//! turns a dialect's wish into a change of the loop; it never asks what a dialect is.

#[cfg(test)]
use fantail_test_support::planted::{self, Planted};

use super::blocked::BlockedQueues;
use super::closing::Words;
use super::core::{Core, READY_BYTES_PER_TURN};
use super::frames_turn::remember;
use super::write_turn::Asked;
use crate::auth::identity::{Denied, Right};
use crate::connection::Flags;
use crate::connection::session::{Blocked, Session, Waiting};
use crate::dialect::{Cx, Denial, Dialect, Effect, Effects, Incoming, Meaning, Outcome, Tag, Tools, Wish};
use crate::metrics::CloseReason;
use crate::topic::{
    Access, Busy, Draft, Handling, Invalid, Joined, Key, LevelPattern, Origin, PageFrom, Published, Rank,
    Topic, TopicName,
};
use crate::transport::Socket;

/// Frames of kept messages that one answer tells, in bytes, but for a longer one alone: whoever asks goes on behind them.
const HISTORY_BYTES: usize = 64 * 1024;

/// How the connection goes on behind a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    /// With the next one.
    Go,
    /// A publish waits for room in a mailbox, and what is behind it waits with it.
    Wait,
    /// Not at all.
    End(CloseReason),
}

/// Whose effects they are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Speaker {
    /// The connection.
    pub(super) key: Key,
    /// What it speaks.
    pub(super) dialect: Dialect,
    /// The longest message that may be compressed for it, in bytes; 0 if it has not negotiated that.
    pub(super) deflates_up_to: usize,
}

/// What a dialect is told of a publish that is not allowed.
fn publish_denial(denied: Denied) -> Denial {
    match denied {
        Denied::Nobody => Denial::NotOpen,
        Denied::Anonymous => Denial::NoToken,
        Denied::Scope => Denial::NotByToken,
    }
}

/// Where answers and further effects of one message go.
pub(super) struct Sink<'a> {
    /// Bytes for the connection alone.
    pub(super) out: &'a mut Vec<u8>,
    /// What is asked for.
    pub(super) effects: &'a mut Effects,
    /// For which request of the peer what is done now was asked.
    pub(super) tag: Tag,
}

impl<S: Socket> Core<S> {
    /// Asks the dialect what a message means, and does it.
    #[inline(always)]
    pub(super) fn on_message(&mut self, from: Speaker, message: Incoming<'_>, sink: &mut Sink<'_>) -> Then {
        let tools = Tools { deflater: &mut self.deflater, counters: &self.counters, wall: &self.wall };
        let Speaker { dialect, deflates_up_to, .. } = from;
        let mut cx = Cx { out: sink.out, effects: sink.effects, tools, deflates_up_to, tag: &sink.tag };
        match dialect.on_message(&mut cx, message) {
            Meaning::Said if sink.effects.is_empty() => Then::Go,
            Meaning::Said => self.execute(from, message.payload, sink),
            Meaning::Relay => self.relay(from, message, sink),
        }
    }

    /// Publishes a message as it is to its sender's first topic.
    fn relay(&mut self, from: Speaker, message: Incoming<'_>, sink: &mut Sink<'_>) -> Then {
        let Some(slot) = self.slots.get(from.key) else { return Then::Go };
        let Some(topic) = self.topics.topic(slot.connection.topic) else { return Then::Go };
        let topic = topic.clone();
        let then = self.publish(from, topic, !message.text, message.payload, sink);
        if sink.effects.is_empty() || then != Then::Go {
            return then;
        }
        self.execute(from, message.payload, sink)
    }

    /// Does what was asked for, in order. What an outcome asks for comes behind what was asked for before.
    pub(super) fn execute(&mut self, from: Speaker, message: &[u8], sink: &mut Sink<'_>) -> Then {
        while let Some(Wish { effect, tag }) = sink.effects.pop() {
            sink.tag = tag;
            let then = match effect {
                Effect::Publish { topic, binary, payload } => {
                    let then = self.publish_to(from, &topic, binary, payload.of(message), sink);
                    #[cfg(test)]
                    if then == Then::Go && planted::strikes(Planted::EffectTwice) {
                        self.publish_to(from, &topic, binary, payload.of(message), sink);
                    }
                    then
                }
                Effect::Subscribe { topic, since } => self.subscribe_one(from, &topic, since, sink),
                Effect::Unsubscribe(name) => self.unsubscribe_one(from, name.as_str(), sink),
                Effect::Watch(pattern) => self.watch_one(from, &pattern, sink),
                Effect::Unwatch(pattern) => self.unsubscribe_one(from, pattern.as_str(), sink),
                Effect::ReadHistory { topic, from: place, limit } => {
                    self.read_history(from, &topic, place, limit, sink)
                }
                Effect::Presence(asked) => self.presence_one(from, &asked, sink),
                Effect::State(wish) => self.state_one(from, &wish, sink),
                Effect::Identify { token, again } => self.identify_one(from, &token, again, sink),
                Effect::Ignore => self.ignore(from.key),
                Effect::CountBad => self.count_bad(from.key),
                Effect::Close(reason) => Then::End(reason),
            };
            match then {
                Then::Go => {}
                Then::Wait => {
                    let rest = sink.effects.take_rest(message);
                    self.with_blocked(from.key, |blocked| blocked.rest = rest);
                    return Then::Wait;
                }
                Then::End(reason) => {
                    sink.effects.clear();
                    return Then::End(reason);
                }
            }
        }
        Then::Go
    }

    // Inlined, because most dialects have nothing to say to most outcomes.
    /// Tells the dialect what became of an effect.
    #[inline(always)]
    pub(super) fn tell(&mut self, from: Speaker, outcome: Outcome<'_>, sink: &mut Sink<'_>) {
        let tools = Tools { deflater: &mut self.deflater, counters: &self.counters, wall: &self.wall };
        let Speaker { dialect, deflates_up_to, .. } = from;
        let mut cx = Cx { out: sink.out, effects: sink.effects, tools, deflates_up_to, tag: &sink.tag };
        dialect.on_outcome(&mut cx, outcome);
    }

    /// Tells the dialect of a connection that has just opened what became of its subscriptions.
    pub(super) fn tell_opened(&mut self, key: Key, joined: &[(Topic, Joined)], patterns: &[LevelPattern]) {
        let topics = joined.iter().map(|(topic, joined)| Outcome::of_joined(topic, *joined));
        let limited: Vec<_> = patterns.iter().map(|pattern| self.share_of(key, pattern).is_limited).collect();
        let patterns = patterns.iter().map(LevelPattern::as_str).zip(limited);
        let patterns = patterns.map(|(pattern, limited)| Outcome::Watching { pattern, limited });
        self.tell_unasked(key, topics.chain(patterns));
    }

    /// Tells the dialect of a connection what no message of it has asked for.
    pub(super) fn tell_unasked<'o>(&mut self, key: Key, outcomes: impl IntoIterator<Item = Outcome<'o>>) {
        let Some(from) = self.speaker(key) else { return };
        let (mut out, mut effects) = (Vec::new(), Effects::default());
        let mut sink = Sink { out: &mut out, effects: &mut effects, tag: Tag::default() };
        outcomes.into_iter().for_each(|outcome| self.tell(from, outcome, &mut sink));
        let then = self.execute(from, &[], &mut sink);
        self.send_own(key, &out, Asked::No);
        if let Then::End(reason) = then {
            self.end(key, reason, Words::Own);
        }
    }

    /// Whose effects those of this connection are.
    pub(super) fn speaker(&mut self, key: Key) -> Option<Speaker> {
        let connection = &self.slots.get(key)?.connection;
        let deflates_up_to = connection.encoding().deflates_up_to();
        Some(Speaker { key, dialect: connection.dialect, deflates_up_to })
    }

    /// Publishes to a topic by its name. One that clients may not publish to does not come into being by that.
    fn publish_to(
        &mut self,
        from: Speaker,
        name: &TopicName<'_>,
        binary: bool,
        payload: &[u8],
        sink: &mut Sink<'_>,
    ) -> Then {
        let policy = self.topics.rules().policy_of(name.as_str());
        let allowed = self.bearers.permit(from.key, policy.publish, Right::Publish(name.as_str()));
        let denial = if let Err(denied) = allowed {
            publish_denial(denied)
        } else if payload.len() > policy.message_bytes_max {
            Denial::TooLong
        } else if let Some(place) = policy.forward {
            if let Err(invalid) = self.topics.rules().check(policy.check, binary, payload) {
                return self.refuse_invalid(from, name.as_str(), &invalid, sink);
            }
            // What is the application's needs no topic.
            return self.forward(from, name.as_str(), place, binary, payload, sink);
        } else {
            let (is_free, handling) = (policy.is_free(), policy.handling());
            match self.topic_for(from.key, name) {
                Ok(topic) if is_free => return self.publish_free(from, topic, binary, payload, sink),
                // Who may was looked at above.
                Ok(topic) => return self.publish_checked(from, topic, handling, binary, payload, sink),
                Err(denial) => denial,
            }
        };
        self.tell(from, Outcome::Refused { topic: name.as_str(), denial }, sink);
        Then::Go
    }

    /// Reads some of what a topic keeps. It comes into being by that, as by a subscription: its first place is the one
    /// to go on from.
    fn read_history(
        &mut self,
        from: Speaker,
        name: &TopicName<'_>,
        place: PageFrom,
        limit: u16,
        sink: &mut Sink<'_>,
    ) -> Then {
        if let Err(denial) = self.may_subscribe(from.key, name) {
            self.tell(from, Outcome::Refused { topic: name.as_str(), denial }, sink);
            return Then::Go;
        }
        match self.topic_for(from.key, name) {
            Ok(topic) => {
                let page = topic.page(place, usize::from(limit), HISTORY_BYTES);
                self.tell(from, Outcome::History { topic: &topic, page: &page }, sink);
            }
            Err(denial) => self.tell(from, Outcome::Refused { topic: name.as_str(), denial }, sink),
        }
        Then::Go
    }

    // Inlined, as what it calls, because it is all that most messages of most clients mean.
    /// Publishes as a client may.
    #[inline(always)]
    fn publish(
        &mut self,
        from: Speaker,
        topic: Topic,
        binary: bool,
        payload: &[u8],
        sink: &mut Sink<'_>,
    ) -> Then {
        // One look for all that rules may ask, since most ask nothing.
        if !topic.is_free(self.topics.rules()) {
            return self.publish_by_rule(from, topic, binary, payload, sink);
        }
        self.publish_free(from, topic, binary, payload, sink)
    }

    /// Publishes to a topic whose rule asks nothing.
    #[inline(always)]
    fn publish_free(
        &mut self,
        from: Speaker,
        topic: Topic,
        binary: bool,
        payload: &[u8],
        sink: &mut Sink<'_>,
    ) -> Then {
        let draft = self.draft(from, &topic, binary, payload);
        let (retried, rank) = self.rank();
        let published = self.edition.router.publish_as(&topic, draft, Some(self.index), rank);
        self.after_publish(from, topic, published, retried, sink)
    }

    /// Publishes as the topic's rule says that a client may, if it may at all.
    #[inline(never)]
    fn publish_by_rule(
        &mut self,
        from: Speaker,
        topic: Topic,
        binary: bool,
        payload: &[u8],
        sink: &mut Sink<'_>,
    ) -> Then {
        let policy = topic.policy(self.topics.rules());
        let handling = policy.handling();
        // Who may is looked at where it is not everybody.
        if policy.publish != Access::Anyone
            && let Err(denied) = self.bearers.permit(from.key, policy.publish, Right::Publish(topic.name()))
        {
            let outcome = Outcome::Refused { topic: topic.name(), denial: publish_denial(denied) };
            self.tell(from, outcome, sink);
            return Then::Go;
        }
        self.publish_checked(from, topic, handling, binary, payload, sink)
    }

    /// Publishes what the topic's rule takes of who may.
    #[inline(never)]
    fn publish_checked(
        &mut self,
        from: Speaker,
        topic: Topic,
        handling: Handling,
        binary: bool,
        payload: &[u8],
        sink: &mut Sink<'_>,
    ) -> Then {
        if let Err(invalid) = self.topics.rules().check(handling.check, binary, payload) {
            return self.refuse_invalid(from, topic.name(), &invalid, sink);
        }
        if let Some(place) = handling.forward {
            return self.forward(from, topic.name(), place, binary, payload, sink);
        }
        let draft = self.draft(from, &topic, binary, payload);
        self.publish_draft(from, topic, handling.told, draft, sink)
    }

    #[inline(always)]
    fn draft(&mut self, from: Speaker, topic: &Topic, binary: bool, payload: &[u8]) -> Draft {
        let Key { slot, generation } = from.key;
        let origin = Origin { loop_index: self.index as u8, slot, generation };
        let mut tools = Tools { deflater: &mut self.deflater, counters: &self.counters, wall: &self.wall };
        tools.encode(topic, Some(origin), binary, payload)
    }

    /// Whether this is a message that is tried again, of which queue, and behind whom it is.
    #[inline(always)]
    fn rank(&mut self) -> (Option<usize>, Rank) {
        let retried = self.retrying.take();
        // Who comes now is behind those who wait, and who is tried again has waited longest.
        let others = if retried.is_some() { 0 } else { self.blocked.loops() };
        (retried, Rank::Behind(others))
    }

    #[cold]
    fn refuse_invalid(&mut self, from: Speaker, topic: &str, invalid: &Invalid, sink: &mut Sink<'_>) -> Then {
        self.counters.found_invalid(invalid.reason);
        self.tell(from, Outcome::Invalid { topic, invalid }, sink);
        Then::Go
    }

    /// Gives a message to the router and tells webhooks of it where they are to be told, or keeps it until there is room.
    fn publish_draft(
        &mut self,
        from: Speaker,
        topic: Topic,
        told: bool,
        draft: Draft,
        sink: &mut Sink<'_>,
    ) -> Then {
        let (retried, rank) = self.rank();
        let published = match told {
            false => self.edition.router.publish_as(&topic, draft, Some(self.index), rank),
            true => self.publish_and_tell(from.key, &topic, draft, rank),
        };
        self.after_publish(from, topic, published, retried, sink)
    }

    /// Tells the dialect of a publish, or keeps what there is no room for.
    #[inline(always)]
    fn after_publish(
        &mut self,
        from: Speaker,
        topic: Topic,
        published: Result<Published, Busy>,
        retried: Option<usize>,
        sink: &mut Sink<'_>,
    ) -> Then {
        match published {
            Ok(published) => {
                self.counters.publishes.add(1);
                tracing::trace!(topic = topic.name(), offset = published.offset, "published by a client");
                let outcome = Outcome::Published { topic: &topic, offset: published.offset };
                self.tell(from, outcome, sink);
                Then::Go
            }
            Err(busy) => {
                let tag = std::mem::take(&mut sink.tag);
                self.wait_for_room(from.key, topic, busy, tag, retried)
            }
        }
    }

    #[cold]
    fn wait_for_room(
        &mut self,
        key: Key,
        topic: Topic,
        busy: Busy,
        tag: Tag,
        retried: Option<usize>,
    ) -> Then {
        self.counters.publishes_busy.add(1);
        tracing::trace!(slot = key.slot, topic = topic.name(), "publish waits for room in a mailbox");
        let what = Waiting::Room { topic, draft: busy.draft };
        self.keep_blocked(key, Blocked { what, tag, rest: Vec::new() });
        let Some(slot) = self.slots.get(key) else { return Then::Go };
        // A flag and not a look at what waits: a publish that another turn got through may have been followed by one
        // that waits again, while the list still has the connection.
        if !slot.connection.flags.has(Flags::WAITS_FOR_ROOM) {
            slot.connection.flags.set(Flags::WAITS_FOR_ROOM);
            let is_first = retried.is_some_and(|queue| BlockedQueues::is_queue_of(queue, busy.full));
            self.retry_failed = is_first;
            self.blocked.push(busy.full, key, is_first);
        }
        Then::Wait
    }

    /// Keeps a publish that waits; nothing more is read from its connection.
    pub(super) fn keep_blocked(&mut self, key: Key, blocked: Blocked) {
        let all = self.edition.inbox_bytes_of(self.port);
        let Some(slot) = self.slots.get(key) else { return };
        self.held.moved(all, 0, blocked.bytes());
        remember(&mut slot.connection.session, |open| open.blocked = Some(Box::new(blocked)));
    }

    /// Counts a message that meant nothing here.
    fn ignore(&mut self, key: Key) -> Then {
        self.counters.ignored_publishes.add(1);
        let most = self.edition.settings.limits.ignored_publishes_max;
        self.fault(key, most, CloseReason::IgnoredPublishes)
    }

    /// Counts a message that was no command, or showed a token that is not taken.
    pub(super) fn count_bad(&mut self, key: Key) -> Then {
        self.counters.bad_commands.add(1);
        self.fault(key, self.edition.settings.limits.bad_commands_max, CloseReason::BadCommands)
    }

    /// Ends a conversation with more than `most` messages that meant nothing.
    fn fault(&mut self, key: Key, most: usize, reason: CloseReason) -> Then {
        let Some(slot) = self.slots.get(key) else { return Then::Go };
        let faults = remember(&mut slot.connection.session, |open| {
            open.faults = open.faults.saturating_add(1);
            open.faults
        });
        if faults as usize > most { Then::End(reason) } else { Then::Go }
    }

    /// Tries a publish again that had to wait, and goes on with what waited behind it. `false`: still
    /// none, or the connection has ended.
    pub(super) fn retry_blocked(&mut self, key: Key) -> bool {
        let Some(slot) = self.slots.get(key) else { return false };
        let Some(Session::Open(open)) = slot.connection.session.as_deref_mut() else { return true };
        let waits_for_answers = |blocked: &Blocked| matches!(blocked.what, Waiting::Answers { .. });
        let most = self.edition.settings.forward.connection_messages_max;
        if open.blocked.as_deref().is_some_and(waits_for_answers) && usize::from(open.unanswered) >= most {
            return false;
        }
        let Some(blocked) = open.blocked.take() else { return true };
        self.held.moved(self.edition.inbox_bytes_of(self.port), blocked.bytes(), 0);
        if open.is_empty() {
            slot.connection.session = None;
        }
        let Some(from) = self.speaker(key) else { return false };
        let Blocked { what, tag, rest } = *blocked;
        let mut effects = Effects::default();
        let mut out = Vec::new();
        effects.restore(rest);
        let mut sink = Sink { out: &mut out, effects: &mut effects, tag };
        let mut then = match what {
            Waiting::Room { topic, draft } => {
                let told = self.tapped(&topic).published;
                self.publish_draft(from, topic, told, draft, &mut sink)
            }
            // By the rules of now.
            Waiting::Answers { topic, binary, payload } => {
                self.publish_to(from, &topic, binary, &payload, &mut sink)
            }
        };
        if then == Then::Go {
            then = self.execute(from, &[], &mut sink);
        } else {
            let rest = effects.take_rest(&[]);
            self.with_blocked(key, |blocked| blocked.rest = rest);
        }
        self.send_own(key, &out, Asked::Yes);
        match then {
            Then::Go => self.slots.get(key).is_some(),
            Then::Wait => false,
            Then::End(reason) => {
                self.end(key, reason, Words::Own);
                false
            }
        }
    }

    fn with_blocked(&mut self, key: Key, change: impl FnOnce(&mut Blocked)) {
        if let Some(slot) = self.slots.get(key)
            && let Some(Session::Open(open)) = slot.connection.session.as_deref_mut()
            && let Some(blocked) = open.blocked.as_deref_mut()
        {
            let before = blocked.bytes();
            change(blocked);
            self.held.moved(self.edition.inbox_bytes_of(self.port), before, blocked.bytes());
        }
    }

    /// Lets those go on who wait for room in a mailbox, each queue in the order of waiting and until the first for whom
    /// there still is none.
    pub fn run_blocked(&mut self) {
        self.blocked_left = false;
        if self.blocked.is_empty() {
            return;
        }
        let mut slice = self.reading_slice((self.clock)(), READY_BYTES_PER_TURN);
        for queue in 0..self.blocked.queues() {
            while let Some(key) = self.blocked.pop(queue) {
                let before = self.bytes_moved();
                if !self.try_blocked(queue, key) {
                    break;
                }
                // Who gets through is read on, too, which takes longer than the try.
                slice.charge(self.bytes_moved().wrapping_sub(before), self.clock);
                if slice.is_over() {
                    self.blocked_left = !self.blocked.is_empty();
                    return;
                }
            }
        }
    }

    /// One more try for whoever has waited longest in a queue. `false`: nobody behind it would find room either.
    fn try_blocked(&mut self, queue: usize, key: Key) -> bool {
        let Some(slot) = self.slots.get(key) else { return true };
        slot.connection.flags.clear(Flags::WAITS_FOR_ROOM);
        if !slot.connection.is_blocked() {
            return true;
        }
        self.retrying = Some(queue);
        self.retry_failed = false;
        self.read_turn(key, true);
        // Still there if it was not read from at all: then nothing can be said of the others.
        self.retrying.take().is_some() || !self.retry_failed
    }
}
