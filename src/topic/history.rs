//! What a topic keeps of its messages: a ring of references, the newest last, each message once for all loops. Lies
//! under its topic's lock; driven by publishes, by who catches up, and by the keeper. Never reads a clock.
//!
//! What is kept is one run up to the topic's newest message: it is only ever shortened from its old end, so that the
//! offset of the oldest one says everything about what can be had.

use std::collections::VecDeque;

use super::message::Message;

/// What is counted for a kept message beside its frames: what stands in front of them, and its place in the ring.
pub const KEPT_BESIDE_BYTES: u64 = 80;

/// Places of a ring that stay although they are empty; more go back when most are.
const PLACES_KEPT: usize = 8;

/// How much a topic keeps. All of them hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HistoryBounds {
    /// Messages; 0 for none at all.
    pub messages: u32,
    /// Seconds since a message was published; 0 for as long as the others allow.
    pub seconds: u32,
    /// Bytes of frames, and [`KEPT_BESIDE_BYTES`] for each message.
    pub bytes: u64,
    /// Only the newest message matters: who has missed some gets that one.
    pub newest_only: bool,
}

/// How a change of a history changed what all of them count together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Messages more, or less.
    pub messages: i64,
    /// Bytes more, or less.
    pub bytes: i64,
    /// It has messages, and the keeper does not know it: it is to be told.
    pub unlisted: bool,
}

/// The kept messages of one topic.
#[derive(Debug)]
pub(super) struct History {
    ring: VecDeque<Message>,
    bytes: u64,
    bounds: HistoryBounds,
    /// The keeper has the topic, and looks after it until it finds nothing kept.
    listed: bool,
}

impl History {
    pub(super) fn new(bounds: HistoryBounds) -> Self {
        Self { ring: VecDeque::new(), bytes: 0, bounds, listed: false }
    }

    pub(super) fn bounds(&self) -> HistoryBounds {
        self.bounds
    }

    pub(super) fn len(&self) -> usize {
        self.ring.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ring.is_empty()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Keeps one more, and no more than the bounds allow. `take` takes room for so many bytes of what all histories may have
    /// together; where there is none, it keeps no more bytes than before. The change that is returned leaves out what was
    /// taken.
    pub(super) fn push(&mut self, message: Message, take: impl FnOnce(u64) -> bool) -> Change {
        let before = self.measure();
        let comes = kept_bytes(&message);
        let taken = take(comes);
        let bytes_max = if taken { self.bounds.bytes } else { self.bounds.bytes.min(self.bytes) };
        self.bytes += comes;
        if self.bounds.messages > 0 && self.ring.len() >= self.bounds.messages as usize {
            // Before it comes, or a full ring would double for one place.
            self.pop();
        }
        if self.ring.capacity() == 0 {
            // Most topics of very many keep one; the usual first step has room for four.
            self.ring.reserve_exact(1);
        }
        self.ring.push_back(message);
        while self.ring.len() > self.bounds.messages as usize || self.bytes > bytes_max {
            self.pop();
        }
        let unlisted = !self.ring.is_empty() && !std::mem::replace(&mut self.listed, true);
        let change = self.since(before);
        let taken = if taken { comes as i64 } else { 0 };
        Change { unlisted, bytes: change.bytes - taken, ..change }
    }

    /// Lets go what is older than the bound says at `now_ms`.
    pub(super) fn expire(&mut self, now_ms: u64) -> Change {
        let before = self.measure();
        while self.next_due().is_some_and(|due| due <= now_ms) {
            self.pop();
        }
        self.shrink();
        self.since(before)
    }

    /// When the oldest message expires, in milliseconds since 1970; `None` for never.
    pub(super) fn next_due(&self) -> Option<u64> {
        let seconds = self.bounds.seconds;
        let oldest = self.ring.front().filter(|_| seconds > 0)?;
        Some(oldest.time_ms().saturating_add(u64::from(seconds) * 1_000))
    }

    /// Keeps no more than so many bytes.
    pub(super) fn trim(&mut self, bytes_max: u64) -> Change {
        let before = self.measure();
        while self.bytes > bytes_max {
            self.pop();
        }
        self.shrink();
        self.since(before)
    }

    /// Takes other bounds.
    pub(super) fn set_bounds(&mut self, bounds: HistoryBounds) -> Change {
        let before = self.measure();
        self.bounds = bounds;
        while self.ring.len() > bounds.messages as usize || self.bytes > bounds.bytes {
            self.pop();
        }
        self.shrink();
        self.since(before)
    }

    /// The keeper forgets a topic that keeps nothing. `false`: it keeps something.
    pub(super) fn unlist(&mut self) -> bool {
        self.listed &= !self.ring.is_empty();
        !self.listed
    }

    /// The messages from the `skip`th oldest on.
    pub(super) fn from(&self, skip: usize) -> impl DoubleEndedIterator<Item = &Message> + ExactSizeIterator {
        self.ring.range(skip.min(self.ring.len())..)
    }

    fn pop(&mut self) {
        match self.ring.pop_front() {
            Some(gone) => self.bytes -= kept_bytes(&gone),
            None => self.bytes = 0,
        }
    }

    fn shrink(&mut self) {
        if self.ring.capacity() > PLACES_KEPT && self.ring.len() < self.ring.capacity() / 4 {
            self.ring.shrink_to((self.ring.len() * 2).max(PLACES_KEPT));
        }
    }

    fn measure(&self) -> (usize, u64) {
        (self.ring.len(), self.bytes)
    }

    fn since(&self, (messages, bytes): (usize, u64)) -> Change {
        Change {
            messages: self.ring.len() as i64 - messages as i64,
            bytes: self.bytes as i64 - bytes as i64,
            unlisted: false,
        }
    }
}

/// What a kept message counts.
fn kept_bytes(message: &Message) -> u64 {
    message.frame_len() as u64 + KEPT_BESIDE_BYTES
}
