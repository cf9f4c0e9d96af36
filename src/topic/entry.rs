//! What travels to an event loop: deliveries, joins, replies and control entries. Pure data; made by the
//! router, consumed by the loop that owns the mailbox. What is controlled and replied, the rooms above say.

use std::fmt;

use super::form::Form;
use super::message::Message;
use super::state::Topic;

/// Names one connection of one loop for as long as it lives. A slot is reused, a generation is
/// not, so a key that outlived its connection is recognised and ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// Index in the loop's slot table.
    pub slot: u32,
    /// The loop's accept counter at the time the slot was taken.
    pub generation: u32,
}

/// Where a subscription is: its position in the topic's list, or, while its join waits, the join's ticket. What
/// the connection remembers; four bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place(pub(super) u32);

impl Place {
    /// Where nothing is subscribed to.
    pub const NONE: Self = Self(u32::MAX);

    /// Marks a ticket. No list has as many subscribers.
    const WAITS: u32 = 1 << 31;

    /// A position in a list.
    pub(super) fn listed(position: usize) -> Self {
        Self(position as u32)
    }

    /// A ticket; after 2^31 joins it is given again.
    pub(super) fn ticket(number: u32) -> Self {
        let ticket = Self(number | Self::WAITS);
        if ticket == Self::NONE { Self(Self::WAITS) } else { ticket }
    }

    /// Whether the subscription is listed: its join does not wait any more.
    #[must_use]
    pub fn is_listed(self) -> bool {
        self.0 & Self::WAITS == 0
    }
}

/// The kinds of mail that mean nothing here, and the forms that messages are delivered in.
pub trait Mail {
    /// How subscribers may want a message.
    type Form: Form;
    /// An order to a loop that concerns no topic.
    type Control: fmt::Debug + Send;
    /// What a connection is answered that has asked something.
    type Reply: fmt::Debug + Send;
}

/// A connection is to be listed: every message before this entry is not the joiner's, every one behind is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Join {
    /// Index of the topic in the loop's own table.
    pub local: u32,
    /// The slot of the connection that joins.
    pub slot: u32,
    /// Tells this join from every other that may wait: a connection that left and joined again is listed at its
    /// second join, not at its first.
    pub ticket: Place,
}

/// A message of a topic that the loop has not met, or does not know by an index yet.
#[derive(Debug)]
pub struct Found {
    /// The topic.
    pub topic: Topic,
    /// Its message.
    pub message: Message,
}

/// The answer to a question, to a connection of the loop.
#[derive(Debug)]
pub struct Reply<R> {
    /// The connection that asked.
    pub key: Key,
    /// Which of its questions.
    pub ticket: u32,
    /// The answer.
    pub answer: R,
}

/// One entry of a loop's mailbox.
#[derive(Debug)]
pub enum Entry<M: Mail> {
    /// A message for the subscribers of one of the loop's topics.
    Deliver {
        /// Index of the topic in the loop's own table.
        local: u32,
        /// Whether the loop has a subscriber of a pattern that fits the topic.
        watched: bool,
        /// The encoded message; it knows its topic, so a stale `local` is recognised.
        message: Message,
    },
    /// A message for subscribers of patterns that fit its topic. Boxed, so that no other entry is larger for it.
    Found(Box<Found>),
    /// A connection of the loop has subscribed.
    Join(Join),
    /// An answer. Boxed, so that no other entry is larger for it.
    Reply(Box<Reply<M::Reply>>),
    /// An order to the loop itself.
    Control(M::Control),
}

/// Mail that the loop's topics only pass on.
#[derive(Debug)]
pub enum Letter<M: Mail> {
    /// To a connection.
    Reply(Box<Reply<M::Reply>>),
    /// To the loop.
    Control(M::Control),
}
