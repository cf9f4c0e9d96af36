//! Messages that wait for one application: a lane for each connection, of which one batch at a time takes a part.
//!
//! Driven by [`Upstream`](super::Upstream) under its lock, with the time given. Pure; makes no calls. That no two batches
//! have messages of one lane is what keeps the order of each connection, however often a batch is tried.

use std::collections::{BTreeMap, HashMap, VecDeque};

use super::message::{Message, Sender};

/// What a message takes beside its own bytes.
const BESIDE_BYTES: usize = 256;

/// Lanes for which room is kept when almost nobody has one.
const KEPT: usize = 64;

/// Bounds of what waits, and of one batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Messages that are not answered yet.
    pub messages_max: usize,
    /// Their bytes.
    pub bytes_max: usize,
    /// Messages in one batch.
    pub batch_messages_max: usize,
    /// Bytes of a batch's messages, unless one alone has more.
    pub batch_bytes_max: usize,
}

/// Messages that are told together, those of one connection one behind the other.
#[derive(Debug)]
pub(super) struct Batch {
    /// Its number: the same each time that it is tried.
    pub(super) number: u64,
    /// In the order of each connection.
    pub(super) messages: Vec<Message>,
    /// How often it was tried.
    pub(super) tries: u32,
}

impl Batch {
    /// When the oldest of them came.
    pub(super) fn since_ms(&self) -> u64 {
        self.messages.iter().map(|message| message.taken_ms).min().unwrap_or(0)
    }
}

/// What waits of one connection.
#[derive(Debug, Default)]
struct Lane {
    waiting: VecDeque<Message>,
    /// A batch has the messages before these.
    under_way: bool,
    /// A batch with the first of these was not taken: that one goes by itself.
    alone: bool,
}

/// All lanes of one application.
#[derive(Debug)]
pub(super) struct Lanes {
    bounds: Bounds,
    by_sender: HashMap<Sender, Lane>,
    /// Those with something that waits, and nothing under way. Each is in here once.
    ready: VecDeque<Sender>,
    /// Batches that are tried again, by when and by number.
    again: BTreeMap<(u64, u64), Batch>,
    messages: usize,
    bytes: usize,
    next_number: u64,
}

/// Bytes that a message is counted by.
fn bytes_of(message: &Message) -> usize {
    BESIDE_BYTES + message.bytes()
}

impl Lanes {
    /// Nothing.
    pub(super) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            by_sender: HashMap::new(),
            ready: VecDeque::new(),
            again: BTreeMap::new(),
            messages: 0,
            bytes: 0,
            next_number: 0,
        }
    }

    /// Takes a message behind those of its connection. `false`: too many wait. One alone always fits.
    pub(super) fn push(&mut self, message: Message) -> bool {
        let bytes = bytes_of(&message);
        let full = self.messages >= self.bounds.messages_max || self.bytes + bytes > self.bounds.bytes_max;
        if full && self.messages > 0 {
            return false;
        }
        self.messages += 1;
        self.bytes += bytes;
        let sender = message.sender;
        let lane = self.by_sender.entry(sender).or_default();
        lane.waiting.push_back(message);
        if !lane.under_way && lane.waiting.len() == 1 {
            self.ready.push_back(sender);
        }
        true
    }

    /// Messages that are not answered yet, and their bytes.
    pub(super) fn held(&self) -> (usize, usize) {
        (self.messages, self.bytes)
    }

    /// Whether something could be told now.
    pub(super) fn has_due(&self, now_ms: u64) -> bool {
        !self.ready.is_empty() || self.next_due().is_some_and(|due| due <= now_ms)
    }

    /// When the first batch is tried again.
    pub(super) fn next_due(&self) -> Option<u64> {
        self.again.first_key_value().map(|((due, _), _)| *due)
    }

    /// Everything that is to be tried again is due.
    pub(super) fn hurry(&mut self) {
        let waiting = std::mem::take(&mut self.again);
        self.again = waiting.into_iter().map(|((_, number), batch)| ((0, number), batch)).collect();
    }

    /// What is to be told next: a batch that is due again, or what has come since.
    pub(super) fn take(&mut self, now_ms: u64) -> Option<Batch> {
        if self.next_due().is_some_and(|due| due <= now_ms) {
            return self.again.pop_first().map(|(_, batch)| batch);
        }
        let mut messages: Vec<Message> = Vec::new();
        let mut bytes = 0;
        while let Some(sender) = self.ready.front().copied() {
            let Some(lane) = self.by_sender.get_mut(&sender) else {
                self.ready.pop_front();
                continue;
            };
            if lane.alone && !messages.is_empty() {
                break;
            }
            let before = messages.len();
            while let Some(first) = lane.waiting.front() {
                let fits = messages.len() < self.bounds.batch_messages_max
                    && bytes + bytes_of(first) <= self.bounds.batch_bytes_max;
                if !fits && !messages.is_empty() {
                    break;
                }
                bytes += bytes_of(first);
                messages.extend(lane.waiting.pop_front());
                if lane.alone {
                    break;
                }
            }
            if messages.len() == before {
                break;
            }
            lane.under_way = true;
            self.ready.pop_front();
            if lane.alone || !lane.waiting.is_empty() {
                break;
            }
        }
        if messages.is_empty() {
            return None;
        }
        self.next_number += 1;
        Some(Batch { number: self.next_number, messages, tries: 0 })
    }

    /// A batch is done with, taken or not: what its connections have sent since is next.
    pub(super) fn settle(&mut self, batch: &Batch) {
        for run in batch.messages.chunk_by(|one, next| one.sender == next.sender) {
            self.messages -= run.len();
            self.bytes -= run.iter().map(bytes_of).sum::<usize>();
            let Some(sender) = run.first().map(|message| message.sender) else { continue };
            self.free(sender);
        }
    }

    /// The batch in hand of this connection is gone.
    fn free(&mut self, sender: Sender) {
        let Some(lane) = self.by_sender.get_mut(&sender) else { return };
        (lane.under_way, lane.alone) = (false, false);
        if !lane.waiting.is_empty() {
            self.ready.push_back(sender);
            return;
        }
        self.by_sender.remove(&sender);
        if self.by_sender.len() < self.by_sender.capacity() / 4 {
            self.by_sender.shrink_to((self.by_sender.len() * 2).max(KEPT));
        }
    }

    /// A batch is tried again, as it is, when its time comes.
    pub(super) fn again(&mut self, due_ms: u64, batch: Batch) {
        self.again.insert((due_ms, batch.number), batch);
    }

    /// A batch comes apart: each of its messages goes by itself, so that one that can't be taken holds up no other.
    pub(super) fn split(&mut self, batch: Batch) {
        let mut senders: Vec<Sender> = Vec::new();
        for message in batch.messages.into_iter().rev() {
            let sender = message.sender;
            let lane = self.by_sender.entry(sender).or_default();
            lane.waiting.push_front(message);
            if senders.last() != Some(&sender) {
                senders.push(sender);
            }
        }
        for sender in senders {
            if let Some(lane) = self.by_sender.get_mut(&sender) {
                (lane.under_way, lane.alone) = (false, true);
                self.ready.push_front(sender);
            }
        }
    }

    /// Takes what came before `before_ms` and is not under way: nobody can be asked whether it may be told.
    pub(super) fn expired(&mut self, before_ms: u64) -> Vec<Batch> {
        let mut over: Vec<Batch> = Vec::new();
        let kept = std::mem::take(&mut self.again);
        for (place, batch) in kept {
            if batch.since_ms() < before_ms {
                over.push(batch);
            } else {
                self.again.insert(place, batch);
            }
        }
        let ready = std::mem::take(&mut self.ready);
        for sender in ready {
            let Some(lane) = self.by_sender.get_mut(&sender) else { continue };
            let count = lane.waiting.iter().take_while(|message| message.taken_ms < before_ms).count();
            if count == 0 {
                self.ready.push_back(sender);
                continue;
            }
            lane.under_way = true;
            let messages = lane.waiting.drain(..count).collect();
            over.push(Batch { number: 0, messages, tries: 0 });
        }
        over
    }
}

#[cfg(test)]
#[path = "lanes_tests.rs"]
mod tests;
