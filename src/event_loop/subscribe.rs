//! Joining and leaving topics: the loop's half of the protocol in `fanout`.

use super::core::Core;
use super::fanout_turn::place;
use crate::connection::NONE;
use crate::connection::session::{OpenState, Session, Subscription};
use crate::metrics::RefuseReason;
use crate::topic::{Encoding, Key, TopicName};
use crate::transport::Socket;

impl<S: Socket> Core<S> {
    /// Subscribes a connection to all of `names`, or to none. Its encoding must not change any more.
    ///
    /// # Errors
    /// No room for another topic or waiting join; the connection is to be refused.
    pub(super) fn subscribe(&mut self, key: Key, names: &[TopicName<'_>]) -> Result<(), RefuseReason> {
        for name in names {
            let Ok((topic, _)) = self.topics.join(name, key) else {
                self.unsubscribe_all(key.slot);
                return Err(RefuseReason::Busy);
            };
            let Some(slot) = self.slots.get(key) else { return Err(RefuseReason::Busy) };
            let connection = &mut slot.connection;
            if connection.encoding() == Encoding::Deflated
                && let Some(topic) = self.topics.topic(topic)
            {
                topic.join_deflate();
            }
            if connection.topic == NONE {
                connection.topic = topic;
                connection.position = NONE;
                continue;
            }
            let more = Subscription { topic, position: NONE };
            match connection.session.as_deref_mut() {
                Some(Session::Open(open)) => open.topics.push(more),
                _ => {
                    let open = OpenState { topics: vec![more], ..OpenState::default() };
                    connection.session = Some(Box::new(Session::Open(open)));
                }
            }
        }
        Ok(())
    }

    /// Ends one subscription of a slot.
    pub(super) fn leave(&mut self, slot: u32, subscription: Subscription) {
        let Subscription { topic, position } = subscription;
        if self.slots.at(slot).is_some_and(|slot| slot.connection.encoding() == Encoding::Deflated)
            && let Some(topic) = self.topics.topic(topic)
        {
            topic.leave_deflate();
        }
        if let Some(moved) = self.topics.leave(topic, slot, position) {
            place(&mut self.slots, topic, moved.slot, |_| true, moved.position);
        }
    }
}
