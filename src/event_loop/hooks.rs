//! What webhooks hear of connections: that they are there and gone, and who comes to topics, leaves them and publishes to them
//! where the rules of those ask for it.
//!
//! Driven by the one place in which each of these happens. Where nobody is told, each is a look at one pointer; nothing is kept
//! for a connection. Never waits: what the queue has no room for is counted there.

use super::core::Core;
use crate::connection::Phase;
use crate::metrics::CloseReason;
use crate::service::webhook::{Bearer, Ear, Who};
use crate::topic::rules::Tapped;
use crate::topic::{Busy, Draft, Joined, Key, Message, Origin, Published, Rank, Topic};
use crate::transport::Socket;
use crate::wire::http::head::Head;

impl<S: Socket> Core<S> {
    /// A connection was let in and has joined what its request named.
    pub(super) fn hear_of_opening(&mut self, key: Key, head: &Head<'_>, joined: &[(Topic, Joined)]) {
        let Some(ear) = self.edition.ear().cloned() else { return };
        if ear.wanted().connected
            && let Some(slot) = self.slots.get(key)
        {
            let dialect = slot.connection.dialect.label();
            let address = self.address_of(key, head);
            ear.on_connected(self.who(key), address, dialect);
        }
        joined.iter().for_each(|(topic, _)| self.hear_of_join(key, topic));
    }

    /// A connection ends for this reason. Only one that is or was open was ever told of, and each has one end.
    pub(super) fn hear_of_end(&mut self, key: Key, reason: CloseReason) {
        let wanted = |ear: &&Ear| ear.wanted().disconnected;
        let Some(ear) = self.edition.ear().filter(wanted).cloned() else { return };
        let Some(slot) = self.slots.get(key) else { return };
        let connection = &slot.connection;
        if matches!(connection.phase(), Phase::Open | Phase::Closing) {
            let dialect = connection.dialect.label();
            ear.on_disconnected(self.who(key), dialect, reason);
        }
    }

    /// An open connection has joined a topic.
    pub(super) fn hear_of_join(&mut self, key: Key, topic: &Topic) {
        if let Some(ear) = self.edition.ear()
            && self.tapped(topic).subscribed
        {
            ear.on_subscribed(self.who(key), topic.name());
        }
    }

    /// The connection in this slot leaves a topic. Polls, which come and go with each answer, were not told of.
    pub(super) fn hear_of_leave(&mut self, slot: u32, local: u32) {
        let Some(ear) = self.edition.ear().cloned() else { return };
        let Some(at) = self.slots.at(slot).filter(|at| at.connection.phase() == Phase::Open) else { return };
        let key = Key { slot, generation: at.generation };
        if let Some(topic) = self.topics.topic(local)
            && self.tapped(topic).unsubscribed
        {
            ear.on_unsubscribed(self.who(key), topic.name());
        }
    }

    /// Publishes for a connection, and tells of it.
    #[inline(never)]
    pub(super) fn publish_and_tell(
        &mut self,
        key: Key,
        topic: &Topic,
        draft: Draft,
        rank: Rank,
    ) -> Result<Published, Busy> {
        let ear = self.edition.ear().cloned();
        let who = self.who(key);
        let told = |topic: &Topic, message: &Message| {
            if let Some(ear) = &ear {
                ear.on_published(who.clone(), topic, message);
            }
        };
        self.edition.router.publish_and(topic, draft, Some(self.index), rank, told)
    }

    /// What webhooks are told of a topic.
    pub(super) fn tapped(&self, topic: &Topic) -> Tapped {
        topic.policy(self.topics.rules()).tapped
    }

    fn who(&self, key: Key) -> Who {
        let Key { slot, generation } = key;
        let connection = Origin { loop_index: self.index as u8, slot, generation };
        Who { connection, bearer: self.bearers.identity(slot).cloned().map(Bearer) }
    }
}
