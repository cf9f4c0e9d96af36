//! What the kernel refused: the write queue of a connection that does not keep up.
//!
//! Boxed, there only while something is queued or while drops are counted because the kernel is full and
//! nothing may be queued. The event loop appends what a `send` left over and flushes in write turns.
//! [`Outbox::admit`] is the only place that decides about a slow consumer, by the policy of the message's
//! topic. Bounds hold for each topic of the connection by itself, so that a busy topic does not take a quiet
//! one's room. Never drops, replaces or cuts a frame whose first byte has left.

use std::collections::VecDeque;

use super::Tick;
use super::layout::{Layout, layout};
use crate::topic::budget::REFERENCE_BYTES;
use crate::topic::{Encoding, Fill, Message, OutboxBudget};
use crate::topic::{SlowPolicy, TopicPolicy};

/// The verdict on one more message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admitted {
    /// Queued, in place of so many older ones.
    Admitted {
        /// Messages of the same topic that the consumer misses for it.
        displaced: u64,
    },
    /// Not queued; the consumer misses it.
    Dropped,
    /// Not queued, and neither is any behind it: the consumer is to read on from what the topic keeps.
    Behind,
    /// The connection is to be closed with 1013. Messages whose first byte has not left are thrown away
    /// already, so that the close frame is the next thing behind the frame under way.
    Close {
        /// Messages that the consumer misses, this one included.
        dropped: u64,
    },
}

#[derive(Clone, Debug)]
enum Queued {
    /// A frame shared with every other subscriber.
    Message(Message),
    /// Bytes of this connection alone: echoes, answers, control frames. They may begin in the middle of a
    /// frame, so they are never taken back.
    Own(Box<[u8]>),
}

const _: () = assert!(size_of::<Queued>() as u64 <= REFERENCE_BYTES, "a reference counts what it takes");

/// What one topic has waiting here.
#[derive(Clone, Copy, Debug)]
struct Tally {
    topic_id: u64,
    messages: u32,
    bytes: usize,
    /// Messages dropped since the last one that was queued without a loss.
    drops_in_row: u32,
    /// Notes pushed behind a message since one of the topic has begun to leave.
    notes: u16,
    /// Of those that wait, the ones that came before the connection joined the topic last: by a pattern, or by a subscription
    /// that has ended while a pattern meant it.
    before_join: u32,
    /// Whether a note is the last thing of the topic that waits.
    told_behind: bool,
    /// Whether a note comes before the first message of the topic that waits.
    told_before: bool,
}

/// Notes of one topic behind messages while none of its messages leaves: with more, holes go untold. Where messages are
/// now dropped and now displaced, each drop may be told and what it was told behind be gone.
const NOTES_MAX: u16 = 64;

/// What is to happen to a message, before anything has.
enum Plan {
    Push,
    /// Drop waiting ones of the topic, oldest first and at least one, until it fits.
    DropOldest,
    /// Take the place of the one that waits.
    Replace,
    Drop,
    FallBehind,
    Close,
}

/// The write queue. Units are bytes on the wire.
#[derive(Clone, Debug)]
pub struct Outbox {
    /// Which frame of a message the connection gets; the same for as long as the outbox lives.
    encoding: Encoding,
    queue: VecDeque<Queued>,
    /// Bytes of the first entry that the kernel has taken.
    sent_of_first: usize,
    bytes: usize,
    /// At most one entry a subscription: what waits, and topics that drop without anything waiting.
    tallies: Vec<Tally>,
    /// Messages that the present backlog has cost the peer.
    drops: u64,
    /// When the kernel last took something.
    pub progress: Tick,
    /// Entries that are this connection's own.
    own: u16,
}

impl Tally {
    /// Nothing waits, and nothing was dropped.
    fn of(topic_id: u64) -> Self {
        let (told_behind, told_before) = (false, false);
        let (messages, before_join) = (0, 0);
        Self {
            topic_id,
            messages,
            bytes: 0,
            drops_in_row: 0,
            notes: 0,
            before_join,
            told_behind,
            told_before,
        }
    }
}

impl Queued {
    fn bytes(&self, encoding: Encoding) -> &[u8] {
        match self {
            Self::Message(message) => message.frame_as(encoding),
            Self::Own(bytes) => bytes,
        }
    }

    fn is_of(&self, topic_id: u64) -> bool {
        matches!(self, Self::Message(message) if message.topic_id() == topic_id)
    }
}

impl Outbox {
    /// What it is made of.
    pub const LAYOUT: Layout = layout!(Outbox, "while the kernel takes no more for it", {
        encoding, queue, sent_of_first, bytes, tallies, drops, progress, own
    });

    /// What it counts by topic.
    pub const TALLY_LAYOUT: Layout = layout!(Tally, "in an outbox, for each topic that waits or drops", {
        topic_id, messages, bytes, drops_in_row, notes, before_join, told_behind, told_before
    });

    /// Bytes of a place in its queue.
    pub const QUEUED_BYTES: usize = size_of::<Queued>();

    /// An empty queue of a connection that gets frames of this encoding, first without progress at `now`.
    #[must_use]
    pub fn new(now: Tick, encoding: Encoding) -> Self {
        Self {
            encoding,
            queue: VecDeque::new(),
            sent_of_first: 0,
            bytes: 0,
            tallies: Vec::new(),
            drops: 0,
            progress: now,
            own: 0,
        }
    }

    /// Unsent bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Answers, echoes and control frames that have not left to the last byte. Messages of topics are not among
    /// them, however many wait.
    #[must_use]
    pub fn own(&self) -> u16 {
        self.own
    }

    /// Messages that the present backlog has cost the peer.
    #[must_use]
    pub fn drops(&self) -> u64 {
        self.drops
    }

    /// Bytes of memory that are this connection's alone; of a shared message only the reference.
    #[must_use]
    pub fn memory(&self) -> usize {
        let own = self.queue.iter().map(|queued| match queued {
            Queued::Message(_) => 0,
            Queued::Own(bytes) => bytes.len(),
        });
        let lists =
            self.queue.capacity() * size_of::<Queued>() + self.tallies.capacity() * size_of::<Tally>();
        size_of::<Self>() + lists + own.sum::<usize>()
    }

    /// Whether everything was sent.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Decides about one more message of a topic and does what follows from it.
    ///
    /// A message is admitted where no other of its topic waits, whatever its size: the bound is on waiting
    /// behind something, and a topic's message size has its own limit. Under `drop-oldest` and `latest` the
    /// newest message finds room behind a frame that has begun to leave, too. When all outboxes together are
    /// full, nothing is added, but one message may still take another's place.
    pub fn admit(&mut self, message: &Message, policy: &TopicPolicy, budget: &OutboxBudget) -> Admitted {
        let fill = budget.charge(message);
        let at = self.tally_of(message.topic_id());
        let displaced = match self.plan(message, policy, fill, at) {
            Plan::Push => 0,
            Plan::DropOldest => self.drop_oldest(message, policy, budget, at),
            Plan::Replace => {
                let displaced = self.replace(message, budget, at);
                return self.lost(at, displaced, policy, budget, Admitted::Admitted { displaced });
            }
            Plan::Drop => {
                budget.release(message);
                return self.lost(at, 1, policy, budget, Admitted::Dropped);
            }
            Plan::FallBehind => {
                budget.release(message);
                return Admitted::Behind;
            }
            Plan::Close => {
                budget.release(message);
                return Admitted::Close { dropped: 1 + self.discard_waiting(budget) };
            }
        };
        self.push_charged(message.clone(), 0, at);
        self.lost(at, displaced, policy, budget, Admitted::Admitted { displaced })
    }

    /// Queues the rest of a message whose first `sent` bytes the kernel took: the peer has the beginning of the frame,
    /// so nothing can go in its place. `false`: all outboxes together are beyond their total with it, and the
    /// connection can't go on.
    #[must_use]
    pub fn push_rest(&mut self, message: Message, sent: usize, budget: &OutboxBudget) -> bool {
        debug_assert!(self.queue.is_empty(), "the rest of a frame goes first");
        let fill = budget.charge(&message);
        let at = self.tally_of(message.topic_id());
        self.push_charged(message, sent, at);
        self.sent_of_first = sent;
        fill < Fill::Over
    }

    /// Queues bytes of this connection alone, whatever else waits: control frames are few and short.
    pub fn push_own(&mut self, bytes: &[u8], budget: &OutboxBudget) {
        budget.charge_own(bytes.len());
        self.push_own_charged(bytes);
    }

    /// Queues bytes that the peer has asked for. `false`: all outboxes together are full, the reserve
    /// included, and nothing was queued.
    #[must_use]
    pub fn try_push_own(&mut self, bytes: &[u8], budget: &OutboxBudget) -> bool {
        let fits = budget.try_charge_own(bytes.len());
        if fits {
            self.push_own_charged(bytes);
        }
        fits
    }

    /// Messages of the topic dropped since the last one that was queued without a loss.
    #[must_use]
    pub fn drops_in_row(&self, topic_id: u64) -> u32 {
        let tally = self.tallies.iter().find(|tally| tally.topic_id == topic_id);
        tally.map_or(0, |tally| tally.drops_in_row)
    }

    /// Whether messages of a topic that were dropped now are to be told: no note stands where they would have come, in
    /// front of those that wait if they were the `oldest`, and behind everything otherwise.
    #[must_use]
    pub fn is_untold(&self, topic_id: u64, oldest: bool) -> bool {
        let tally = self.tallies.iter().find(|tally| tally.topic_id == topic_id);
        tally.is_some_and(|tally| match oldest {
            true => !tally.told_before,
            false => !tally.told_behind && tally.notes < NOTES_MAX,
        })
    }

    /// Tells the peer of messages of a topic that were dropped, where they would have come. Without words they count as
    /// told.
    pub fn push_note(&mut self, bytes: &[u8], topic_id: u64, oldest: bool, budget: &OutboxBudget) {
        let waiting = self.queue.iter().skip(self.begun()).position(|entry| entry.is_of(topic_id));
        if let Some(tally) = self.tallies.iter_mut().find(|tally| tally.topic_id == topic_id) {
            match oldest && waiting.is_some() {
                true => tally.told_before = true,
                false => {
                    tally.told_behind = true;
                    tally.notes = tally.notes.saturating_add(1);
                }
            }
        }
        if bytes.is_empty() {
            return;
        }
        budget.charge_own(bytes.len());
        self.push_own_charged(bytes);
        if let Some(first) = waiting.filter(|_| oldest)
            && let Some(note) = self.queue.pop_back()
        {
            // Not in front of everything: there may be answers that the peer has to get first.
            self.queue.insert(self.begun() + first, note);
        }
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

    /// Notes that the kernel took `count` bytes of what [`Outbox::next_bytes`] gave. Returns how many
    /// messages it now has to the last byte.
    pub fn advance(&mut self, count: usize, now: Tick, budget: &OutboxBudget) -> u64 {
        self.progress = now;
        self.bytes = self.bytes.saturating_sub(count);
        let mut taken = self.sent_of_first + count;
        let mut messages = 0;
        while let Some(first) = self.queue.front() {
            let len = first.bytes(self.encoding).len();
            if taken < len {
                break;
            }
            taken -= len;
            if let Some(gone) = self.queue.pop_front() {
                if let Queued::Message(message) = &gone {
                    messages += 1;
                    self.begins(message.topic_id());
                }
                self.forget(&gone, budget);
            }
        }
        self.sent_of_first = if self.queue.is_empty() { 0 } else { taken };
        if self.sent_of_first > 0
            && let Some(Queued::Message(message)) = self.queue.front()
        {
            self.begins(message.topic_id());
        }
        messages
    }

    /// The connection has left the topic: what waits of it goes nowhere, but for a frame that has begun. Otherwise what
    /// is published once it is back could take the place of what came before, ahead of the answers between.
    pub fn forget_topic(&mut self, topic_id: u64, budget: &OutboxBudget) {
        let Some(at) = self.tallies.iter().position(|tally| tally.topic_id == topic_id) else { return };
        if self.waits(topic_id, at) {
            let (begun, mut index) = (self.begun(), 0);
            let mut kept = VecDeque::with_capacity(self.queue.len());
            while let Some(entry) = self.queue.pop_front() {
                if index >= begun && entry.is_of(topic_id) {
                    self.bytes -= entry.bytes(self.encoding).len();
                    self.forget(&entry, budget);
                } else {
                    kept.push_back(entry);
                }
                index += 1;
            }
            self.queue = kept;
        }
        if let Some(tally) = self.tallies.get_mut(at) {
            *tally = Tally { messages: tally.messages, bytes: tally.bytes, ..Tally::of(topic_id) };
        }
    }

    /// The connection has joined a topic of which something waited, or was dropped, that came by a pattern: what it misses from
    /// now on is told anew, because what it was told is before the answer.
    pub fn tell_anew(&mut self, topic_id: u64) {
        if let Some(tally) = self.tallies.iter_mut().find(|tally| tally.topic_id == topic_id) {
            (tally.told_behind, tally.before_join) = (false, tally.messages);
            tally.told_before &= tally.messages > 0;
        }
    }

    /// Gives back what everything in it counts; the connection is gone.
    pub fn give_up(mut self, budget: &OutboxBudget) {
        while let Some(gone) = self.queue.pop_front() {
            self.forget(&gone, budget);
        }
    }

    /// A message of the topic has begun to leave, and so has every note before it.
    fn begins(&mut self, topic_id: u64) {
        if let Some(tally) = self.tallies.iter_mut().find(|tally| tally.topic_id == topic_id) {
            tally.told_before = false;
            tally.notes = 0;
        }
    }

    fn plan(&self, message: &Message, policy: &TopicPolicy, fill: Fill, at: usize) -> Plan {
        let waits = self.waits(message.topic_id(), at);
        let room = fill == Fill::Room;
        // Taking another's place adds nothing but what the new message is larger, for which half of the
        // reserve is there.
        let place = waits && fill <= Fill::Full;
        match policy.slow {
            SlowPolicy::Latest if place => Plan::Replace,
            SlowPolicy::Latest | SlowPolicy::DropOldest if room && !waits => Plan::Push,
            SlowPolicy::Latest => Plan::Drop,
            _ if room && self.fits(message, policy, at) => Plan::Push,
            SlowPolicy::DropOldest if place => Plan::DropOldest,
            SlowPolicy::DropNewest | SlowPolicy::DropOldest => Plan::Drop,
            SlowPolicy::CatchUp => Plan::FallBehind,
            SlowPolicy::Disconnect => Plan::Close,
        }
    }

    /// Whether the topic's bounds have room for one more message.
    fn fits(&self, message: &Message, policy: &TopicPolicy, at: usize) -> bool {
        let Some(tally) = self.tallies.get(at) else { return true };
        let bytes = tally.bytes + message.frame_as(self.encoding).len();
        tally.messages == 0 || (tally.messages < policy.messages_max && bytes <= policy.bytes_max)
    }

    /// Whether a message of the topic waits whose first byte has not left.
    fn waits(&self, topic_id: u64, at: usize) -> bool {
        self.tallies.get(at).is_some_and(|tally| tally.messages > self.begun_of(topic_id))
    }

    /// Messages of the topic whose first byte has left.
    fn begun_of(&self, topic_id: u64) -> u32 {
        u32::from(self.begun() > 0 && self.queue.front().is_some_and(|first| first.is_of(topic_id)))
    }

    /// Entries at the front whose first byte has left.
    fn begun(&self) -> usize {
        usize::from(self.sent_of_first > 0)
    }

    fn drop_oldest(
        &mut self,
        message: &Message,
        policy: &TopicPolicy,
        budget: &OutboxBudget,
        at: usize,
    ) -> u64 {
        let topic_id = message.topic_id();
        let mut from = self.begun();
        let mut displaced = 0;
        while displaced == 0 || !self.fits(message, policy, at) {
            let Some(oldest) = self.queue.iter().skip(from).position(|entry| entry.is_of(topic_id)) else {
                break;
            };
            from += oldest;
            self.remove(from, budget);
            displaced += 1;
        }
        displaced
    }

    /// Puts `message` where the first waiting one of its topic is, or behind everything if that came before the answer to a
    /// join. There are more than one only if the policy was another when they came; they go, too.
    fn replace(&mut self, message: &Message, budget: &OutboxBudget, at: usize) -> u64 {
        let topic_id = message.topic_id();
        // What waits of those before the join, but for one that has begun.
        let begun = self.begun_of(topic_id);
        let joined = self.tallies.get(at).is_some_and(|tally| tally.before_join > begun);
        let mut place = None;
        let mut displaced = 0;
        let mut index = self.begun();
        while let Some(entry) = self.queue.get(index) {
            if !entry.is_of(topic_id) {
                index += 1;
                continue;
            }
            self.remove(index, budget);
            displaced += 1;
            place = place.or(Some(index));
        }
        let len = message.frame_as(self.encoding).len();
        let place = place.filter(|_| !joined).unwrap_or(self.queue.len());
        self.queue.insert(place, Queued::Message(message.clone()));
        self.count(len, at);
        self.bytes += len;
        displaced
    }

    /// Throws away every message whose first byte has not left; returns how many.
    fn discard_waiting(&mut self, budget: &OutboxBudget) -> u64 {
        let mut discarded = 0;
        let mut index = self.begun();
        while let Some(entry) = self.queue.get(index) {
            if matches!(entry, Queued::Message(_)) {
                self.remove(index, budget);
                discarded += 1;
            } else {
                index += 1;
            }
        }
        discarded
    }

    /// Counts what the topic has lost in a row, and closes when that is too much.
    fn lost(
        &mut self,
        at: usize,
        count: u64,
        policy: &TopicPolicy,
        budget: &OutboxBudget,
        verdict: Admitted,
    ) -> Admitted {
        self.drops += count;
        let Some(tally) = self.tallies.get_mut(at) else { return verdict };
        let more = u32::try_from(count).unwrap_or(u32::MAX);
        tally.drops_in_row = if count == 0 { 0 } else { tally.drops_in_row.saturating_add(more) };
        if policy.disconnect_after_drops == 0 || tally.drops_in_row < policy.disconnect_after_drops {
            return verdict;
        }
        // What was displaced is lost, and so is the message itself, queued or not.
        let lost = if verdict == Admitted::Dropped { 1 } else { count };
        Admitted::Close { dropped: lost + self.discard_waiting(budget) }
    }

    fn push_own_charged(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.bytes += bytes.len();
            // Whoever has so many is not read from; at the end of what can be counted it would be too early.
            self.own = self.own.saturating_add(1);
            self.queue.push_back(Queued::Own(bytes.into()));
        }
    }

    fn push_charged(&mut self, message: Message, sent: usize, at: usize) {
        let len = message.frame_as(self.encoding).len();
        self.bytes += len - sent;
        self.count(len, at);
        self.queue.push_back(Queued::Message(message));
    }

    fn count(&mut self, len: usize, at: usize) {
        if let Some(tally) = self.tallies.get_mut(at) {
            // What was told behind the last one comes before this one now, which may be the first that waits.
            tally.told_before |= tally.told_behind && tally.messages == 0;
            tally.told_behind = false;
            tally.messages += 1;
            tally.bytes += len;
        }
    }

    /// Takes back an entry that has not begun to leave.
    fn remove(&mut self, index: usize, budget: &OutboxBudget) {
        debug_assert!(index >= self.begun(), "a frame under way is never taken back");
        if let Some(gone) = self.queue.remove(index) {
            self.bytes -= gone.bytes(self.encoding).len();
            if let Queued::Message(message) = &gone {
                self.tell_behind_answers(index, message.topic_id());
            }
            self.forget(&gone, budget);
        }
    }

    /// A waiting message of the topic, the oldest, is taken back, and `index` is where it was. What is dropped behind the answer
    /// to a join is not told by a note before it. There may be several joins before the last; that some other answer counts as
    /// theirs costs a note, and no more of them than there are messages from before the last join.
    fn tell_behind_answers(&mut self, index: usize, topic_id: u64) {
        let begun = self.begun_of(topic_id);
        let Some(at) = self.tallies.iter().position(|tally| tally.topic_id == topic_id) else { return };
        let Some(tally) = self.tallies.get_mut(at).filter(|tally| tally.before_join > begun) else { return };
        let mut until_next = self.queue.iter().skip(index).take_while(|entry| !entry.is_of(topic_id));
        tally.told_before &= !until_next.any(|entry| matches!(entry, Queued::Own(_)));
    }

    fn forget(&mut self, gone: &Queued, budget: &OutboxBudget) {
        match gone {
            Queued::Message(message) => {
                let topic_id = message.topic_id();
                if let Some(tally) = self.tallies.iter_mut().find(|tally| tally.topic_id == topic_id) {
                    tally.messages -= 1;
                    tally.bytes -= gone.bytes(self.encoding).len();
                    // Oldest first.
                    tally.before_join = tally.before_join.saturating_sub(1);
                }
                budget.release(message);
            }
            Queued::Own(bytes) => {
                self.own = self.own.saturating_sub(1);
                budget.release_own(bytes.len());
            }
        }
    }

    /// The place of the topic's tally, made if there is none. The others stay as long as they say something.
    fn tally_of(&mut self, topic_id: u64) -> usize {
        if let Some(at) = self.tallies.iter().position(|tally| tally.topic_id == topic_id) {
            return at;
        }
        self.tallies.retain(|tally| tally.messages > 0 || tally.drops_in_row > 0);
        self.tallies.push(Tally::of(topic_id));
        self.tallies.len() - 1
    }
}

/// What an outbox with `messages` queued entries asks of the allocator: the box and the queue's storage,
/// which doubles from 4. The frames are shared and not in it.
#[must_use]
pub fn allocations(messages: usize) -> [usize; 2] {
    let slots = if messages == 0 { 0 } else { messages.next_power_of_two().max(4) };
    [size_of::<Outbox>(), slots * size_of::<Queued>()]
}

#[cfg(test)]
mod tests;
