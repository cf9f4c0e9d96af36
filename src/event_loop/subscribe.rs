//! Joining and leaving topics: the loop's half of the protocol in `topic`.

#[cfg(test)]
use fantail_test_support::planted;

use super::catch_up_turn::is_behind;
use super::core::Core;
use super::effects::{Sink, Speaker, Then};
use super::fanout_turn::moved;
use super::frames_turn::remember;
use super::inquiry_turn::{subscription_count, subscriptions, watches};
use crate::auth::admission::Admission;
use crate::auth::identity::{Denied, Right};
use crate::connection::session::{Session, Subscription};
use crate::connection::{Connection, NONE, Tick};
use crate::dialect::{Denial, Form, Outcome};
use crate::metrics::RefuseReason;
use crate::topic::{
    Encoding, Gap, GapKind, Joined, Key, LevelPattern, Maker, MemberId, Place, PresencePage, RouterError,
    Since, Topic, TopicName, Watch,
};
use crate::transport::Socket;

/// A topic or a pattern that a connection has left.
#[derive(Debug)]
pub(super) struct Left {
    /// Messages of the topic that it has not read and does not get by a pattern either, to be told before it is told that it
    /// has left.
    pub(super) missing: Option<(Topic, Gap)>,
}

/// What became of a connection's subscriptions as it opened, in the order of its topics.
#[derive(Debug, Default)]
pub(super) struct Subscribed {
    pub(super) joined: Vec<(Topic, Joined)>,
    /// Who is on topics whose events it has joined from now on.
    pub(super) lists: Vec<(PresencePage, Option<MemberId>)>,
}

/// Makes topics for a connection, counted by its address.
pub(super) struct Client<'a> {
    pub(super) handle: u32,
    pub(super) admission: &'a Admission,
    pub(super) now: Tick,
}

impl Maker for Client<'_> {
    fn handle(&self) -> u32 {
        self.handle
    }

    fn topics_max(&self) -> usize {
        match self.admission.rules().topics_max {
            0 => usize::MAX,
            _ if self.handle == 0 => usize::MAX,
            most => most,
        }
    }

    fn may_make(&self) -> bool {
        self.admission.try_make_topic(self.handle, self.now)
    }
}

/// Whether publishers are to deflate for it: what is made of their messages is deflated where it is made.
fn wants_deflated(connection: &Connection) -> bool {
    connection.form() == Form::Raw && connection.encoding() != Encoding::Plain
}

/// Why a connection is refused whose topics can't be had.
fn refusal(error: RouterError) -> RefuseReason {
    match error {
        RouterError::ShareFull => RefuseReason::TopicShare,
        RouterError::TooFast => RefuseReason::TopicRate,
        RouterError::TopicsFull
        | RouterError::PatternsFull
        | RouterError::Contended
        | RouterError::LoopCount => RefuseReason::Busy,
    }
}

/// What a dialect is told of a topic that can't be had.
pub(super) fn denial(error: RouterError) -> Denial {
    match error {
        RouterError::ShareFull => Denial::TopicShare,
        RouterError::TooFast => Denial::TopicRate,
        RouterError::PatternsFull => Denial::PatternsFull,
        RouterError::TopicsFull | RouterError::Contended | RouterError::LoopCount => Denial::Busy,
    }
}

/// What a dialect is told of a subscription that is not allowed.
pub(super) fn subscribe_denial(denied: Denied) -> Denial {
    match denied {
        Denied::Nobody => Denial::NotForYou,
        Denied::Anonymous => Denial::NoToken,
        Denied::Scope => Denial::NotByToken,
    }
}

impl<S: Socket> Core<S> {
    /// Subscribes a connection to all of `topics` and `patterns`, or to none. Its form must not change any more. What came of each is
    /// returned in their order, to be told to the dialect behind its first words.
    ///
    /// # Errors
    /// No room for another topic; the connection is to be refused.
    pub(super) fn subscribe(
        &mut self,
        key: Key,
        topics: &[(TopicName<'_>, Since)],
        patterns: &[LevelPattern],
    ) -> Result<Subscribed, RefuseReason> {
        self.try_subscribe(key, topics, patterns).map_err(|error| self.refused_topics(key, error))
    }

    /// A connection can't have one of its topics, and gets none.
    pub(super) fn refused_topics(&mut self, key: Key, error: RouterError) -> RefuseReason {
        self.unsubscribe_all(key.slot);
        refusal(error)
    }

    fn try_subscribe(
        &mut self,
        key: Key,
        topics: &[(TopicName<'_>, Since)],
        patterns: &[LevelPattern],
    ) -> Result<Subscribed, RouterError> {
        let mut subscribed = Subscribed::default();
        for (name, since) in topics {
            let joined = match TopicName::presence_of(name.as_str()) {
                Some(of) => self.join_events(key, of, *since, &mut subscribed.lists)?,
                None => self.join(key, name, *since)?,
            };
            subscribed.joined.push(joined);
        }
        patterns.iter().try_for_each(|pattern| self.watch(key, pattern).map(drop))?;
        Ok(subscribed)
    }

    /// Whether a client may subscribe to the topic of this name, and read what it keeps.
    pub(super) fn may_subscribe(&self, key: Key, name: &TopicName<'_>) -> Result<(), Denial> {
        let access = self.topics.rules().subscribers_of(name.as_str());
        self.bearers.permit(key, access, Right::Subscribe(name.as_str())).map_err(subscribe_denial)
    }

    /// The topic of this name, made for the connection's address if there is none.
    pub(super) fn topic_for(&mut self, key: Key, name: &TopicName<'_>) -> Result<Topic, Denial> {
        let handle = self.slots.get(key).map_or(0, |slot| slot.connection.admission);
        let client = Client { handle, admission: &self.edition.admission, now: self.now };
        self.edition.router.topic_for(name, &client).map_err(denial)
    }

    /// Joins one topic.
    pub(super) fn join(
        &mut self,
        key: Key,
        name: &TopicName<'_>,
        since: Since,
    ) -> Result<(Topic, Joined), RouterError> {
        let Some(slot) = self.slots.get(key) else { return Err(RouterError::Contended) };
        let connection = &mut slot.connection;
        let admission = &self.edition.admission;
        let client = Client { handle: connection.admission, admission, now: self.now };
        let (local, place, joined) = self.topics.join(name, key.slot, since, &client)?;
        let topic = self.topics.topic(local).cloned().ok_or(RouterError::Contended)?;
        if wants_deflated(connection) {
            topic.join_deflate();
        }
        if let Some(outbox) = &mut connection.outbox {
            outbox.tell_anew(topic.id());
        }
        if connection.topic == NONE {
            connection.topic = local;
            connection.place = place;
        } else {
            let more = Subscription { topic: local, place };
            remember(&mut connection.session, |open| open.topics.push(more));
        }
        if joined.behind {
            let next = joined.next_offset;
            #[cfg(test)]
            let next = next + u64::from(planted::strikes(planted::Planted::LateStart));
            self.start_catch_up(key, local, next);
        }
        self.list_member(key, local, &topic);
        Ok((topic, joined))
    }

    /// Joins a topic that a dialect asks for, and tells it what came of it.
    pub(super) fn subscribe_one(
        &mut self,
        from: Speaker,
        name: &TopicName<'_>,
        since: Since,
        sink: &mut Sink<'_>,
    ) -> Then {
        let Some(slot) = self.slots.get(from.key) else { return Then::Go };
        let topics = &self.topics;
        let named = |local: u32| topics.topic(local).is_some_and(|topic| topic.name() == name.as_str());
        let joined = if subscriptions(&slot.connection).any(named) {
            Err(Denial::Already)
        } else if subscription_count(&slot.connection) >= self.edition.settings.limits.subscriptions_max {
            Err(Denial::TooMany)
        } else {
            let allowed = self.may_subscribe(from.key, name);
            allowed.and_then(|()| self.join(from.key, name, since).map_err(denial))
        };
        match joined {
            Ok((topic, joined)) => {
                self.hear_of_join(from.key, &topic);
                self.tell(from, Outcome::of_joined(&topic, joined), sink);
            }
            Err(denial) => self.tell(from, Outcome::Refused { topic: name.as_str(), denial }, sink),
        }
        Then::Go
    }

    /// Leaves a topic or a pattern that a dialect does not want any more, and tells it.
    pub(super) fn unsubscribe_one(&mut self, from: Speaker, name: &str, sink: &mut Sink<'_>) -> Then {
        let Some(Left { missing }) = self.leave_topic(from.key, name) else {
            self.tell(from, Outcome::Refused { topic: name, denial: Denial::NoTopic }, sink);
            return Then::Go;
        };
        if let Some((topic, gap)) = missing {
            // It answers nothing, but comes behind the answers to what was asked for before.
            let tag = std::mem::take(&mut sink.tag);
            self.tell(from, Outcome::Gap { topic: &topic, gap }, sink);
            sink.tag = tag;
        }
        self.tell(from, Outcome::Left { topic: name }, sink);
        Then::Go
    }

    /// Ends the subscription to the topic of this name, or to this pattern; `None` if there is none. None of the
    /// other topics takes the place of a first one: what goes to the connection's first topic goes nowhere until it joins
    /// one again.
    pub(super) fn leave_topic(&mut self, key: Key, name: &str) -> Option<Left> {
        if LevelPattern::is_meant(name) && TopicName::presence_of(name).is_none() {
            return self.leave_pattern(key, name).then_some(Left { missing: None });
        }
        let topics = &self.topics;
        let named = |local: u32| topics.topic(local).is_some_and(|topic| topic.name() == name);
        let slot = self.slots.get(key)?;
        let connection = &mut slot.connection;
        let ended = if named(connection.topic) {
            let topic = std::mem::replace(&mut connection.topic, NONE);
            Some(Subscription { topic, place: std::mem::replace(&mut connection.place, Place::NONE) })
        } else if let Some(Session::Open(open)) = connection.session.as_deref_mut() {
            let place = open.topics.iter().position(|more| named(more.topic));
            let ended = place.map(|place| open.topics.remove(place));
            if open.is_empty() {
                connection.session = None;
            }
            ended
        } else {
            None
        };
        let ended = ended?;
        let behind = is_behind(connection, ended.topic);
        let brings = |watch: &Watch| topics.brings(*watch, name);
        // What waits of the topic is to come all the same where a pattern means it.
        let wanted = watches(connection).iter().any(brings);
        if let Some(outbox) = connection.outbox.as_deref_mut().filter(|_| !wanted)
            && let Some(topic) = topics.topic(ended.topic)
        {
            let before = outbox.bytes();
            outbox.forget_topic(topic.id(), &self.edition.outbox_budget);
            self.counters.outbox_bytes.moved(before, outbox.bytes());
        }
        // What it has not read of the topic does not come by the pattern.
        let missing = self.topics.topic(ended.topic).filter(|_| wanted && behind);
        let missing =
            missing.map(|topic| (topic.clone(), Gap { kind: GapKind::Dropped, oldest: topic.oldest() }));
        #[cfg(test)]
        let missing = missing.filter(|_| !planted::strikes(planted::Planted::UntoldGap));
        self.leave(key.slot, ended);
        Some(Left { missing })
    }

    /// Ends one subscription of a slot.
    pub(super) fn leave(&mut self, slot: u32, subscription: Subscription) {
        let Subscription { topic, place } = subscription;
        self.hear_of_leave(slot, topic);
        self.unlist_member(slot, topic);
        if self.slots.at(slot).is_some_and(|slot| wants_deflated(&slot.connection))
            && let Some(topic) = self.topics.topic(topic)
        {
            topic.leave_deflate();
        }
        let key = self.slots.at(slot).map(|at| Key { slot, generation: at.generation });
        if let Some(key) = key {
            self.end_listing(key, topic);
        }
        if key.is_some_and(|key| self.end_catch_up(key, topic)) {
            return self.topics.leave_behind(topic, slot, place);
        }
        if let Some(change) = self.topics.leave(topic, slot, place) {
            moved(&mut self.slots, topic, change);
        }
    }
}
