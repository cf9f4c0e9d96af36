//! Joining and leaving topics: the loop's half of the protocol in `topic`.

use super::core::Core;
use super::effects::{Sink, Speaker, Then};
use super::fanout_turn::moved;
use super::frames_turn::remember;
use super::inquiry_turn::subscriptions;
use crate::auth::admission::Admission;
use crate::connection::session::{Session, Subscription};
use crate::connection::{Connection, NONE, Tick};
use crate::dialect::{Denial, Form, Outcome};
use crate::metrics::RefuseReason;
use crate::topic::{Encoding, Joined, Key, Maker, Place, RouterError, Topic, TopicName};
use crate::transport::Socket;

/// Makes topics for a connection, counted by its address.
struct Client<'a> {
    handle: u32,
    admission: &'a Admission,
    now: Tick,
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

/// What a dialect is told of a topic that can't be had.
fn denial(error: RouterError) -> Denial {
    match error {
        RouterError::ShareFull => Denial::TopicShare,
        RouterError::TooFast => Denial::TopicRate,
        RouterError::TopicsFull | RouterError::Contended | RouterError::LoopCount => Denial::Busy,
    }
}

impl<S: Socket> Core<S> {
    /// Subscribes a connection to all of `names`, or to none. Its form must not change any more.
    ///
    /// # Errors
    /// No room for another topic; the connection is to be refused.
    pub(super) fn subscribe(&mut self, key: Key, names: &[TopicName<'_>]) -> Result<(), RefuseReason> {
        for name in names {
            if let Err(error) = self.join(key, name) {
                self.unsubscribe_all(key.slot);
                return Err(match error {
                    RouterError::ShareFull => RefuseReason::TopicShare,
                    RouterError::TooFast => RefuseReason::TopicRate,
                    RouterError::TopicsFull | RouterError::Contended | RouterError::LoopCount => {
                        RefuseReason::Busy
                    }
                });
            }
        }
        Ok(())
    }

    /// The topic of this name, made for the connection's address if there is none.
    pub(super) fn topic_for(&mut self, key: Key, name: &TopicName<'_>) -> Result<Topic, Denial> {
        let handle = self.slots.get(key).map_or(0, |slot| slot.connection.admission);
        let client = Client { handle, admission: &self.edition.admission, now: self.now };
        self.edition.router.topic_for(name, &client).map_err(denial)
    }

    /// Joins one topic: the loop's index of it, and where the messages begin.
    fn join(&mut self, key: Key, name: &TopicName<'_>) -> Result<(u32, Joined), RouterError> {
        let Some(slot) = self.slots.get(key) else { return Err(RouterError::Contended) };
        let connection = &mut slot.connection;
        let admission = &self.edition.admission;
        let client = Client { handle: connection.admission, admission, now: self.now };
        let (topic, place, joined) = self.topics.join(name, key.slot, &client)?;
        if wants_deflated(connection)
            && let Some(topic) = self.topics.topic(topic)
        {
            topic.join_deflate();
        }
        if connection.topic == NONE {
            connection.topic = topic;
            connection.place = place;
        } else {
            let more = Subscription { topic, place };
            remember(&mut connection.session, |open| open.topics.push(more));
        }
        Ok((topic, joined))
    }

    /// Joins a topic that a dialect asks for, and tells it what came of it.
    pub(super) fn subscribe_one(&mut self, from: Speaker, name: &TopicName<'_>, sink: &mut Sink<'_>) -> Then {
        let Some(slot) = self.slots.get(from.key) else { return Then::Go };
        let topics = &self.topics;
        let named = |local: u32| topics.topic(local).is_some_and(|topic| topic.name() == name.as_str());
        let joined = if subscriptions(&slot.connection).any(named) {
            Err(Denial::Already)
        } else if subscriptions(&slot.connection).count() >= self.edition.settings.limits.subscriptions_max {
            Err(Denial::TooMany)
        } else {
            self.join(from.key, name).map_err(denial)
        };
        match joined {
            Ok((local, joined)) => {
                if let Some(topic) = self.topics.topic(local).cloned() {
                    self.tell(from, Outcome::Joined { topic: &topic, offset: joined.next_offset - 1 }, sink);
                }
            }
            Err(denial) => self.tell(from, Outcome::Refused { topic: name.as_str(), denial }, sink),
        }
        Then::Go
    }

    /// Leaves a topic that a dialect does not want any more, and tells it.
    pub(super) fn unsubscribe_one(
        &mut self,
        from: Speaker,
        name: &TopicName<'_>,
        sink: &mut Sink<'_>,
    ) -> Then {
        let name = name.as_str();
        let left = self.leave_topic(from.key, name);
        let outcome = if left {
            Outcome::Left { topic: name }
        } else {
            Outcome::Refused { topic: name, denial: Denial::NoTopic }
        };
        self.tell(from, outcome, sink);
        Then::Go
    }

    /// Ends the subscription to the topic of this name; `false` if there is none. None of the
    /// other topics takes the place of a first one: what goes to the connection's first topic goes nowhere until it joins
    /// one again.
    pub(super) fn leave_topic(&mut self, key: Key, name: &str) -> bool {
        let topics = &self.topics;
        let named = |local: u32| topics.topic(local).is_some_and(|topic| topic.name() == name);
        let Some(slot) = self.slots.get(key) else { return false };
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
        let Some(ended) = ended else { return false };
        self.leave(key.slot, ended);
        true
    }

    /// Ends one subscription of a slot.
    pub(super) fn leave(&mut self, slot: u32, subscription: Subscription) {
        let Subscription { topic, place } = subscription;
        if self.slots.at(slot).is_some_and(|slot| wants_deflated(&slot.connection))
            && let Some(topic) = self.topics.topic(topic)
        {
            topic.leave_deflate();
        }
        if let Some(change) = self.topics.leave(topic, slot, place) {
            moved(&mut self.slots, topic, change);
        }
    }
}
