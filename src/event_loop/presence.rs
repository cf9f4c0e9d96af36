//! Who is on a topic, as far as a loop has to do with it: its connections enter the list of a topic and leave it, and ask
//! what is on it.
//!
//! Driven by joins and leaves, which have one place each: a connection that ends, however it ends, leaves all of its topics,
//! and with each the list. A topic without presence, and a connection that does not ask, has nothing here.

use std::sync::Arc;

use super::core::Core;
use super::effects::{Sink, Speaker, Then};
use super::inquiry_turn::{subscription_count, subscriptions};
use super::subscribe::denial;
use crate::connection::TICK_MS;
use crate::dialect::{Denial, Opening, Outcome, PresenceQuestion, StateWish};
use crate::topic::{
    Joined, Key, MemberId, PresenceMode, PresencePage, PresencePolicy, RouterError, Saying, Since,
    StateDenial, Topic, TopicName,
};
use crate::transport::Socket;

/// Members that a stream is told of as it begins.
const STREAM_MEMBERS_MAX: usize = 1_000;

impl<S: Socket> Core<S> {
    /// A connection has subscribed to a topic of this index.
    pub(super) fn list_member(&mut self, key: Key, local: u32, topic: &Topic) {
        // Where no rule has presence, no topic is asked.
        if !self.topics.rules().has_presence() {
            return;
        }
        let policy = topic.policy(self.topics.rules()).presence;
        if policy.mode == PresenceMode::Off {
            return;
        }
        let presences = &self.edition.presences;
        // As whom it has come: a later token changes nothing of that before it subscribes again.
        let member = match self.bearers.identity(key.slot) {
            Some(identity) => MemberId::text_of(identity.sub()),
            None => presences.anonymous(self.index, key).into(),
        };
        if let Some(seat) = presences.join(topic.name(), policy, &member, self.now_ms()) {
            self.seats.keep(local, key.slot, seat);
        }
    }

    /// The connection in this slot leaves the topic of this index.
    pub(super) fn unlist_member(&mut self, slot: u32, local: u32) {
        if let Some(seat) = self.seats.take(local, slot) {
            self.edition.presences.leave(seat, self.now_ms());
        }
    }

    fn now_ms(&self) -> u64 {
        u64::from(self.now) * TICK_MS
    }

    /// Tells a dialect who is on a topic, and begins or ends to tell it who comes and goes.
    pub(super) fn presence_one(
        &mut self,
        from: Speaker,
        asked: &PresenceQuestion,
        sink: &mut Sink<'_>,
    ) -> Then {
        match self.ask_presence(from.key, asked) {
            Ok(page) => {
                let own = self.own_member(from.key, asked.topic.as_str());
                let own = own.as_ref().map(MemberId::as_str);
                self.tell(from, Outcome::Presence { page: &page, own }, sink);
            }
            Err(denial) => {
                self.tell(from, Outcome::Refused { topic: asked.topic.as_str(), denial }, sink);
            }
        }
        Then::Go
    }

    /// As whom the connection is on the topic of this name.
    fn own_member(&mut self, key: Key, topic: &str) -> Option<MemberId> {
        let local = self.local_of(key, topic)?;
        self.seats.member(local, key.slot).cloned()
    }

    /// The index of a topic of this name that the connection is subscribed to.
    fn local_of(&mut self, key: Key, topic: &str) -> Option<u32> {
        let topics = &self.topics;
        let named = |local: &u32| topics.topic(*local).is_some_and(|of| of.name() == topic);
        subscriptions(&self.slots.get(key)?.connection).find(named)
    }

    /// A connection says something of its member on a topic.
    pub(super) fn state_one(&mut self, from: Speaker, wish: &StateWish, sink: &mut Sink<'_>) -> Then {
        let topic = wish.topic.as_str();
        let outcome = match self.set_state(from.key, wish) {
            Ok(()) => Outcome::Stated { topic },
            Err(denial) => Outcome::Refused { topic, denial },
        };
        self.tell(from, outcome, sink);
        Then::Go
    }

    fn set_state(&mut self, key: Key, wish: &StateWish) -> Result<(), Denial> {
        self.may_subscribe(key, &wish.topic)?;
        let topic = wish.topic.as_str();
        let policy = self.topics.rules().policy_of(topic).presence;
        let local = self.local_of(key, topic).ok_or(Denial::NotListed)?;
        let said = Saying { state: wish.state.as_deref(), seconds: wish.seconds };
        let now_ms = self.now_ms();
        let taken = self.seats.say(&self.edition.presences, (local, key.slot), policy, said, now_ms);
        taken.map_err(|denied| match denied {
            StateDenial::NotListed => Denial::NotListed,
            StateDenial::NoStates => Denial::NoStates,
            StateDenial::TooFast => Denial::StateRate,
            StateDenial::NoRoom => Denial::StatesFull,
        })
    }

    /// Whether it asks who is on a topic where nobody is told.
    pub(super) fn lacks_presence(&self, opening: &Opening) -> bool {
        let of = opening.topics.iter().filter_map(|(name, _)| TopicName::presence_of(name.as_str()));
        of.map(|of| self.topics.rules().policy_of(of).presence.mode).any(|mode| mode == PresenceMode::Off)
    }

    /// Joins the events of a topic where their reader was, or from now on, behind the list as it is.
    pub(super) fn join_events(
        &mut self,
        key: Key,
        of: &str,
        since: Since,
        lists: &mut Vec<(PresencePage, Option<MemberId>)>,
    ) -> Result<(Topic, Joined), RouterError> {
        let policy = self.topics.rules().policy_of(of).presence;
        let edition = Arc::clone(&self.edition);
        let mut done = None;
        let (wanted, now_ms) = ((None, STREAM_MEMBERS_MAX), Some(self.now_ms()));
        let page = edition.presences.page(of, policy, wanted, now_ms, |events| {
            // Where events are missing between, the list tells more than what is left of them.
            let known = edition.router.find(events).is_some_and(|topic| topic.look(since).recovered);
            let (topic, joined) = self.join(key, events, if known { since } else { Since::Now })?;
            done = Some((topic.clone(), joined));
            Ok(topic)
        })?;
        let done = done.ok_or(RouterError::Contended)?;
        if !done.1.recovered {
            let own = self.own_member(key, of);
            lists.push((page, own));
        }
        Ok(done)
    }

    fn ask_presence(&mut self, key: Key, asked: &PresenceQuestion) -> Result<PresencePage, Denial> {
        let events = TopicName::of_presence(asked.topic.as_str());
        if asked.events == Some(false) {
            // Before anything is refused: a token or a rule that is another now is no reason to go on with them.
            self.leave_topic(key, events.as_str());
        }
        let policy = self.topics.rules().policy_of(asked.topic.as_str()).presence;
        self.may_subscribe(key, &asked.topic)?;
        if policy.mode == PresenceMode::Off {
            return Err(Denial::NoPresence);
        }
        let topics = &self.topics;
        let named = |local: u32| topics.topic(local).is_some_and(|topic| topic.name() == events.as_str());
        let slot = self.slots.get(key).ok_or(Denial::Busy)?;
        let has_events = subscriptions(&slot.connection).any(named);
        let wants_more = asked.events == Some(true) && !has_events;
        let most = self.edition.settings.limits.subscriptions_max;
        if wants_more && subscription_count(&slot.connection) >= most {
            return Err(Denial::TooMany);
        }
        self.presence_page(key, asked, policy, wants_more)
    }

    /// The page; with `joins` the events begin behind it, because nothing is told while it is read.
    fn presence_page(
        &mut self,
        key: Key,
        asked: &PresenceQuestion,
        policy: PresencePolicy,
        joins: bool,
    ) -> Result<PresencePage, Denial> {
        let edition = Arc::clone(&self.edition);
        let wanted = (asked.after.as_deref(), usize::from(asked.limit));
        let now_ms = Some(self.now_ms());
        edition.presences.page(asked.topic.as_str(), policy, wanted, now_ms, |events| match joins {
            true => self.join(key, events, Since::Now).map(|(topic, _)| topic).map_err(denial),
            false => self.topic_for(key, events),
        })
    }
}
