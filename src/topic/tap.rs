//! Who hears what happens to topics without being a connection.
//!
//! Called under the topic's lock, so that what is heard of one topic comes in the order in which it happened. It must not
//! block, lock a topic, or refuse: what it has no room for it counts.

use super::state::Topic;

/// Hears of topics.
pub trait Tap: Send + Sync {
    /// The topic has its first subscriber.
    fn on_occupied(&self, topic: &Topic);

    /// The topic has lost its last one.
    fn on_vacated(&self, topic: &Topic);
}
