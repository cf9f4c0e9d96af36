//! What travels to an event loop: deliveries, joins and control entries. Pure data; made by the
//! router, consumed by the loop that owns the mailbox. Never says how an entry is handled.

use super::inquiry::Inquiry;
use super::message::Message;
use super::sync::Arc;

/// Names one connection of one loop for as long as it lives. A slot is reused, a generation is
/// not, so a key that outlived its connection is recognised and ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// Index in the loop's slot table.
    pub slot: u32,
    /// The loop's accept counter at the time the slot was taken.
    pub generation: u32,
}

/// An order to a loop that concerns no topic.
#[derive(Clone, Debug)]
pub enum Control {
    /// Give the listener up and send the clients away over the drain time.
    Drain,
    /// Stop at once.
    Stop,
    /// Move what connections hold, so that memory can be given back.
    Relocate,
    /// Other settings are in force; the loop fetches them.
    Reload,
    /// Answer a question of the admin loop.
    Inquire(Arc<Inquiry>),
    /// To the loop that asked: every loop has answered.
    Answered(Arc<Inquiry>),
}

/// One entry of a loop's mailbox.
#[derive(Clone, Debug)]
pub enum Entry {
    /// A message for the subscribers of one of the loop's topics.
    Deliver {
        /// Index of the topic in the loop's own table.
        local: u32,
        /// The encoded message; it knows its topic, so a stale `local` is recognised.
        message: Message,
    },
    /// List a connection: every message before this entry is not the joiner's, every one behind is.
    Join {
        /// Index of the topic in the loop's own table.
        local: u32,
        /// The connection that joins.
        key: Key,
    },
    /// An order to the loop itself.
    Control(Control),
}
