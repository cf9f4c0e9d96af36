//! What the kernel refused: the write queue of a connection that does not keep up.
//!
//! Boxed, there only while something is queued. The event loop appends what a `send` left over and flushes
//! in write turns. [`Outbox::admit`] is the only place that decides about a slow consumer. Never touches a
//! frame whose first byte has left.

use std::collections::VecDeque;

use super::Tick;
use crate::fanout::{Encoding, Message};

/// Bounds of one outbox and what happens at them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutboxLimits {
    /// Messages of topics that may wait.
    pub messages_max: u32,
    /// Bytes of topic messages that may wait.
    pub bytes_max: usize,
}

/// The verdict on one more message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admitted {
    /// Queued.
    Admitted,
    /// Not queued; the consumer misses it (`drop-newest`).
    Dropped,
}

#[derive(Debug)]
enum Queued {
    /// A frame shared with every other subscriber.
    Message(Message),
    /// Bytes of this connection alone: echoes, answers, control frames.
    Own(Box<[u8]>),
}

impl Queued {
    fn bytes(&self, encoding: Encoding) -> &[u8] {
        match self {
            Self::Message(message) => message.frame_as(encoding),
            Self::Own(bytes) => bytes,
        }
    }
}

/// The write queue. Units are bytes on the wire.
#[derive(Debug)]
pub struct Outbox {
    /// Which frame of a message the connection gets; the same for as long as the outbox lives.
    encoding: Encoding,
    queue: VecDeque<Queued>,
    /// Bytes of the first entry that the kernel has taken.
    sent_of_first: usize,
    bytes: usize,
    message_bytes: usize,
    messages: u32,
    /// When the kernel last took something.
    pub progress: Tick,
}

impl Outbox {
    /// An empty queue of a connection that gets frames of this encoding, first without progress at `now`.
    #[must_use]
    pub fn new(now: Tick, encoding: Encoding) -> Self {
        Self {
            encoding,
            queue: VecDeque::new(),
            sent_of_first: 0,
            bytes: 0,
            message_bytes: 0,
            messages: 0,
            progress: now,
        }
    }

    /// Unsent bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether everything was sent.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Queues one more message of a topic if the limits allow it (`drop-newest`).
    ///
    /// A message is admitted to an outbox that holds no other, whatever its size: the bound is on waiting
    /// behind something, and a topic's message size has its own limit.
    pub fn admit(&mut self, message: &Message, limits: &OutboxLimits) -> Admitted {
        let len = message.frame_as(self.encoding).len();
        let full = self.messages >= limits.messages_max || self.message_bytes + len > limits.bytes_max;
        if full && self.messages > 0 {
            return Admitted::Dropped;
        }
        self.push_message(message.clone(), 0);
        Admitted::Admitted
    }

    /// Queues the rest of a message whose first `sent` bytes the kernel took. Never refused: the peer has
    /// the beginning of the frame.
    pub fn push_rest(&mut self, message: Message, sent: usize) {
        debug_assert!(self.queue.is_empty(), "the rest of a frame goes first");
        self.push_message(message, sent);
        self.sent_of_first = sent;
    }

    /// Queues bytes of this connection alone.
    pub fn push_own(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.bytes += bytes.len();
            self.queue.push_back(Queued::Own(bytes.into()));
        }
    }

    fn push_message(&mut self, message: Message, sent: usize) {
        let len = message.frame_as(self.encoding).len();
        self.bytes += len - sent;
        self.message_bytes += len;
        self.messages += 1;
        self.queue.push_back(Queued::Message(message));
    }

    /// The next bytes to send in one contiguous piece: the first entry's rest as it lies, or several
    /// entries joined in `joined` up to about its capacity.
    pub fn next_bytes<'a>(&'a self, joined: &'a mut Vec<u8>, joined_max: usize) -> &'a [u8] {
        let mut entries = self.queue.iter();
        let Some(first) = entries.next() else { return &[] };
        let first = first.bytes(self.encoding).get(self.sent_of_first..).unwrap_or_default();
        let Some(second) =
            entries.next().filter(|next| first.len() + next.bytes(self.encoding).len() <= joined_max)
        else {
            return first;
        };
        joined.clear();
        joined.extend_from_slice(first);
        joined.extend_from_slice(second.bytes(self.encoding));
        for entry in entries {
            if joined.len() + entry.bytes(self.encoding).len() > joined_max {
                break;
            }
            joined.extend_from_slice(entry.bytes(self.encoding));
        }
        joined
    }

    /// Notes that the kernel took `count` bytes of what [`Outbox::next_bytes`] gave.
    pub fn advance(&mut self, count: usize, now: Tick) {
        self.progress = now;
        self.bytes = self.bytes.saturating_sub(count);
        let mut taken = self.sent_of_first + count;
        while let Some(first) = self.queue.front() {
            let len = first.bytes(self.encoding).len();
            if taken < len {
                break;
            }
            taken -= len;
            if let Some(Queued::Message(_)) = self.queue.pop_front() {
                self.messages -= 1;
                self.message_bytes -= len;
            }
        }
        self.sent_of_first = if self.queue.is_empty() { 0 } else { taken };
    }
}
