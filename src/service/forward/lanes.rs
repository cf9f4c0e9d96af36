//! Messages that wait for one application: a lane for each connection, of which one batch at a time takes a part.
//!
//! Driven by [`Upstream`](super::Upstream) under its lock, with the time given. Pure; makes no calls. That no two batches
//! have messages of one lane is what keeps the order of each connection, however often a batch is tried. No step looks at
//! more than the messages that it moves, however many wait.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use super::message::{Message, Sender};
use super::shares::{Holder, Shares};

/// What a message takes beside its own bytes.
const BESIDE_BYTES: usize = 256;

/// Lanes for which room is kept when almost nobody has one.
const KEPT: usize = 64;

/// Messages that are taken out at a time because their time is over: about as long as a batch is looked at.
pub(super) const EXPIRED_AT_A_TIME: usize = 1_024;

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
    /// When the oldest of them came.
    pub(super) since_ms: u64,
    /// How often it was tried.
    pub(super) tries: u32,
}

impl Batch {
    fn new(number: u64, messages: Vec<Message>) -> Self {
        let since_ms = messages.iter().map(|message| message.taken_ms).min().unwrap_or(0);
        Self { number, messages, since_ms, tries: 0 }
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
    /// Those with something that waits, and nothing under way, by the number of the first that does: the oldest is first.
    ready: BTreeMap<u64, Sender>,
    /// Batches that are tried again, by when and by number.
    again: BTreeMap<(u64, u64), Batch>,
    /// The same by their age: since when, and their place.
    aging: BTreeSet<(u64, (u64, u64))>,
    /// Those that are tried again are due, whenever that was to be.
    hurries: bool,
    shares: Shares,
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
            ready: BTreeMap::new(),
            again: BTreeMap::new(),
            aging: BTreeSet::new(),
            hurries: false,
            shares: Shares::new(bounds.messages_max, bounds.bytes_max),
            next_number: 0,
        }
    }

    /// Takes a message behind those of its connection. `false`: too many wait, or too many of its address.
    pub(super) fn push(&mut self, message: Message) -> bool {
        if !self.shares.try_take(Holder::of(&message), bytes_of(&message)) {
            return false;
        }
        let (sender, number) = (message.sender, message.number);
        let lane = self.by_sender.entry(sender).or_default();
        lane.waiting.push_back(message);
        if !lane.under_way && lane.waiting.len() == 1 {
            self.ready.insert(number, sender);
        }
        true
    }

    /// Messages that are not answered yet, and their bytes.
    pub(super) fn held(&self) -> (usize, usize) {
        self.shares.held()
    }

    /// Whether something could be told now.
    pub(super) fn has_due(&self, now_ms: u64) -> bool {
        !self.ready.is_empty() || self.next_due().is_some_and(|due| due <= now_ms)
    }

    /// When the first batch is tried again.
    pub(super) fn next_due(&self) -> Option<u64> {
        let ((due, _), _) = self.again.first_key_value()?;
        Some(if self.hurries { 0 } else { *due })
    }

    /// Everything that is to be tried again is due.
    pub(super) fn hurry(&mut self) {
        self.hurries = true;
    }

    /// What is to be told next: a batch that is due again, or what has come since, the oldest first.
    pub(super) fn take(&mut self, now_ms: u64) -> Option<Batch> {
        if self.next_due().is_some_and(|due| due <= now_ms) {
            let (place, batch) = self.again.pop_first()?;
            self.aging.remove(&(batch.since_ms, place));
            return Some(batch);
        }
        let mut messages: Vec<Message> = Vec::new();
        let mut bytes = 0;
        while let Some(entry) = self.ready.first_entry() {
            let Some(lane) = self.by_sender.get_mut(entry.get()) else {
                entry.remove();
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
            entry.remove();
            if lane.alone || !lane.waiting.is_empty() {
                break;
            }
        }
        if messages.is_empty() {
            return None;
        }
        self.next_number += 1;
        Some(Batch::new(self.next_number, messages))
    }

    /// A batch is done with, taken or not: what its connections have sent since is next.
    pub(super) fn settle(&mut self, batch: &Batch) {
        for run in batch.messages.chunk_by(|one, next| one.sender == next.sender) {
            run.iter().for_each(|message| self.shares.give_back(Holder::of(message), bytes_of(message)));
            let Some(sender) = run.first().map(|message| message.sender) else { continue };
            self.free(sender);
        }
    }

    /// A fault: the connections of a batch go on although it is not done with.
    #[cfg(test)]
    pub(super) fn free_all(&mut self, batch: &Batch) {
        batch.messages.iter().for_each(|message| self.free(message.sender));
    }

    /// The batch in hand of this connection is gone.
    fn free(&mut self, sender: Sender) {
        let Some(lane) = self.by_sender.get_mut(&sender) else { return };
        (lane.under_way, lane.alone) = (false, false);
        if let Some(first) = lane.waiting.front() {
            self.ready.insert(first.number, sender);
            return;
        }
        self.by_sender.remove(&sender);
        if self.by_sender.len() < self.by_sender.capacity() / 4 {
            self.by_sender.shrink_to((self.by_sender.len() * 2).max(KEPT));
        }
    }

    /// A batch is tried again, as it is, when its time comes.
    pub(super) fn again(&mut self, due_ms: u64, batch: Batch) {
        let place = (due_ms, batch.number);
        self.aging.insert((batch.since_ms, place));
        self.again.insert(place, batch);
    }

    /// A batch comes apart: each of its messages goes by itself, so that one that can't be taken holds up no other.
    pub(super) fn split(&mut self, batch: Batch) {
        for message in batch.messages.into_iter().rev() {
            let (sender, number) = (message.sender, message.number);
            let lane = self.by_sender.entry(sender).or_default();
            if let Some(first) = lane.waiting.front() {
                self.ready.remove(&first.number);
            }
            lane.waiting.push_front(message);
            (lane.under_way, lane.alone) = (false, true);
            self.ready.insert(number, sender);
        }
    }

    /// Takes some of what came before `before_ms` and is not under way, the oldest first: nobody can be asked whether it may
    /// be told. Nothing: there is no more of it.
    pub(super) fn expired(&mut self, before_ms: u64) -> Vec<Batch> {
        let mut over: Vec<Batch> = Vec::new();
        let mut count = 0;
        while count < EXPIRED_AT_A_TIME
            && let Some((since_ms, place)) =
                self.aging.first().copied().filter(|(since, _)| *since < before_ms)
        {
            self.aging.remove(&(since_ms, place));
            let Some(batch) = self.again.remove(&place) else { continue };
            count += batch.messages.len();
            over.push(batch);
        }
        while count < EXPIRED_AT_A_TIME
            && let Some(entry) = self.ready.first_entry()
        {
            let Some(lane) = self.by_sender.get_mut(entry.get()) else {
                entry.remove();
                continue;
            };
            let is_over = |message: &&Message| message.taken_ms < before_ms;
            let own = lane.waiting.iter().take(EXPIRED_AT_A_TIME - count).take_while(is_over).count();
            if own == 0 {
                break;
            }
            entry.remove();
            count += own;
            lane.under_way = true;
            over.push(Batch::new(0, lane.waiting.drain(..own).collect()));
        }
        over
    }
}

#[cfg(test)]
#[path = "lanes_tests.rs"]
mod tests;
