//! Who is on a topic, as far as a loop has to do with it: its connections enter the list of a topic and leave it, and ask
//! what is on it.
//!
//! Driven by joins and leaves, which have one place each: a connection that ends, however it ends, leaves all of its topics,
//! and with each the list. A topic without presence, and a connection that does not ask, has nothing here.

use std::convert::Infallible;
use std::sync::Arc;

#[cfg(test)]
use fantail_test_support::planted::{self, Planted};

use super::core::Core;
use super::effects::{Sink, Speaker, Then};
use super::frames_turn::remember;
use super::inquiry_turn::{subscription_count, subscriptions};
use super::subscribe::denial;
use super::write_turn::Asked;
use crate::connection::TICK_MS;
use crate::connection::behind::Listing;
use crate::dialect::{Denial, Effects, Opening, Outcome, PresenceQuestion, StateWish, Tag};
use crate::topic::{
    Joined, Key, MemberId, Message, PageFrom, Position, PresenceMode, PresencePage, PresencePolicy,
    RouterError, Saying, Since, StateDenial, Topic, TopicName,
};
use crate::transport::Socket;

/// Members that a stream, or a poll, is told of in one piece.
const PIECE_MEMBERS_MAX: usize = 1_000;

/// Events of one answer to a poll, and bytes of them, unless a single one is larger.
const EVENTS_MAX: usize = 64;
const EVENTS_BYTES_MAX: usize = 256 * 1024;

/// What a poll is told at once of who is on its topic.
#[derive(Debug)]
pub(super) struct PolledEvents<'a> {
    /// The version that it has come to with it.
    pub(super) at: Position,
    /// What has changed since it asked last.
    pub(super) events: Vec<Message>,
    /// Some of the list, and as whom its client is on it, if it has asked for more of it or does not know it.
    pub(super) list: Option<(PresencePage, Option<MemberId>)>,
    /// Behind whom the list goes on; `None` where it begins.
    pub(super) after: Option<&'a str>,
}

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
            Some(identity) if self.edition.has_several_issuers() => {
                // No issuer's name has that sign.
                let name = format!("{}|{}", identity.issuer().unwrap_or_default(), identity.sub());
                MemberId::text_of(&name).into_owned().into()
            }
            Some(identity) => MemberId::text_of(identity.sub()),
            None => presences.anonymous(self.index, key).into(),
        };
        if let Some(seat) = presences.join(topic.name(), policy, &member, self.now_ms()) {
            self.seats.keep(local, key.slot, seat);
        }
    }

    /// The connection in this slot leaves the topic of this index.
    pub(super) fn unlist_member(&mut self, slot: u32, local: u32) {
        #[cfg(test)]
        if self.seats.member(local, slot).is_some() && planted::strikes(Planted::SeatKept) {
            return;
        }
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
        let (wanted, now_ms) = ((None, PIECE_MEMBERS_MAX), Some(self.now_ms()));
        let page = edition.presences.page(of, policy, wanted, now_ms, |events| {
            // Where events are missing between, the list tells more than what is left of them.
            let known = self.knows(events, since);
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

    /// Whether all events behind this place are kept.
    fn knows(&self, events: &TopicName<'_>, since: Since) -> bool {
        self.edition.router.find(events).is_some_and(|topic| topic.look(since).recovered)
    }

    /// Joins the events of a topic from now on, for a poll that knows the list as of `since`, and reads what there is to tell
    /// it at once.
    pub(super) fn poll_events<'a>(
        &mut self,
        key: Key,
        of: &str,
        since: Since,
        after: Option<&'a str>,
    ) -> Result<PolledEvents<'a>, RouterError> {
        let policy = self.topics.rules().policy_of(of).presence;
        let edition = Arc::clone(&self.edition);
        // Before anything of the list is read: what changes from then on is behind it, or in both.
        let (topic, joined) = self.join(key, &TopicName::of_presence(of), Since::Now)?;
        let missed = topic.page(PageFrom::Since(since), EVENTS_MAX, EVENTS_BYTES_MAX);
        let known = matches!(since, Since::After(_)) && missed.gap.is_none();
        let events = if known { missed.messages } else { Vec::new() };
        // Who knows nothing begins with the beginning.
        let after = after.filter(|_| known);
        let mut list = None;
        if after.is_some() || !known {
            let (wanted, now_ms) = ((after, PIECE_MEMBERS_MAX), Some(self.now_ms()));
            let page = edition
                .presences
                .page(of, policy, wanted, now_ms, |_| Ok::<_, RouterError>(topic.clone()))?;
            let own = if after.is_none() { self.own_member(key, of) } else { None };
            list = Some((page, own));
        }
        let newest = events.last().map_or(joined.next_offset - 1, Message::offset);
        let at = Position { epoch: topic.epoch(), offset: newest };
        Ok(PolledEvents { at, events, list, after })
    }

    /// The list goes on, for a connection that is told its changes by the loop's topic `events`, as soon as it has nothing
    /// else to send.
    pub(super) fn start_listing(&mut self, key: Key, events: u32, after: Option<MemberId>) {
        let Some(slot) = self.slots.get(key).filter(|slot| slot.connection.is_open()) else { return };
        remember(&mut slot.connection.session, |open| {
            open.behind.get_or_insert_default().list(Listing { events, after });
        });
        if let Some(places) = self.places.get_mut(&key.slot) {
            places.set_epoch(events, 0);
        }
        self.list_catch_up(key);
    }

    /// The rest of the lists of who is there, for a stream that has just opened.
    pub(super) fn start_listings(&mut self, key: Key, lists: &[(PresencePage, Option<MemberId>)]) {
        for (page, _) in lists {
            if let Some(after) = page.next()
                && let Some(events) = self.local_of(key, TopicName::of_presence(&page.topic).as_str())
            {
                self.start_listing(key, events, Some(after.clone()));
            }
        }
    }

    /// Tells the next piece of a list, to who has nothing else to send.
    pub(super) fn list_on(&mut self, key: Key, Listing { events, after }: Listing) {
        let Some(topic) = self.topics.topic(events).cloned() else { return };
        let of = TopicName::presence_of(topic.name()).unwrap_or_default();
        let policy = self.topics.rules().policy_of(of).presence;
        if policy.mode == PresenceMode::Off {
            // It ends without an end, and who comes back is told why.
            return self.end_listing(key, events);
        }
        let edition = Arc::clone(&self.edition);
        let after = after.as_ref().map(MemberId::as_str);
        let (wanted, now_ms) = ((after, PIECE_MEMBERS_MAX), Some(self.now_ms()));
        let page = edition.presences.page(of, policy, wanted, now_ms, |_| Ok::<_, Infallible>(topic.clone()));
        let Ok(page) = page;
        match page.next() {
            Some(next) => self.start_listing(key, events, Some(next.clone())),
            None => {
                self.end_listing(key, events);
                if let Some(places) = self.places.get_mut(&key.slot) {
                    places.set_epoch(events, topic.epoch());
                }
            }
        }
        let own = if after.is_none() { self.own_member(key, of) } else { None };
        let own = own.as_ref().map(MemberId::as_str);
        let Some(from) = self.speaker(key) else { return };
        let at = self.places.get(&key.slot).map(|places| places.text().to_vec()).unwrap_or_default();
        let (mut out, mut effects) = (Vec::new(), Effects::default());
        let mut sink = Sink { out: &mut out, effects: &mut effects, tag: Tag::default() };
        self.tell(from, Outcome::Listed { page: &page, own, after, at: &at }, &mut sink);
        self.send_own(key, &out, Asked::Once);
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
