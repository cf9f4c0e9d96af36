//! One loop's side of the fan-out: which of its connections listen to which topic, the messages and
//! joins that wait, and the cursor of every running pass. Owned and driven by one event loop, which
//! does the writing. Never touches a socket or a connection; it knows slots by number only.
//!
//! A *pass* delivers one batch of a topic's messages to everybody listed when it began. The loop delivers in
//! *turns* of a few deliveries: a turn serves one topic after the other until its budget is used up, and a pass
//! that is not through by then goes on behind the other topics with work. While a pass is under way
//! leaving writes a tombstone and joining appends behind the end the pass has fixed, so nobody is
//! skipped and nobody is served twice; the list is compacted when the pass ends.
//!
//! Messages and joins of a topic wait in the order of the mailbox: a connection is listed after the
//! messages before its join were given to a pass and before those behind it are.
//!
//! Subscribers by pattern are on no topic's list; a pass meets them behind it. A topic that only they have is open for as
//! long as a message of it is on its way.
//!
//! Where a topic's rule has an interval, its pass waits until its time has come, fixed to those listed at its message, and
//! a newer message takes the place of the one that waits.

mod behind;
mod pace;
mod watch;
mod work;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::mem;

#[cfg(test)]
use fantail_test_support::planted::{self, Planted};
use slab::Slab;

use super::batch::{BATCH_BYTES_MAX, Batch, Choice};
use super::entry::{Entry, Join, Letter, Mail, Place};
use super::form::{Deflate, Encoding, Form};
use super::list::{List, TOMBSTONE};
use super::mailbox::{CAPACITY_KEPT, Mailbox};
use super::message::Message;
use super::name::TopicName;
use super::outdated::Outdated;
use super::pacer::Pacer;
use super::position::{Since, offset_end};
use super::replay::Replays;
use super::router::{LOOKUPS_MAX, Maker, Router, RouterError};
use super::rules::{TopicPolicy, TopicRules};
use super::state::{Joined, Topic};
use super::sync::Arc;
use super::watchers::{Watchers, Watching};
pub(super) use work::Pending;
use work::{Next, Work};

/// Deliveries of one turn over all topics, unless the event loop has less time.
pub const TURN_DELIVERIES: u32 = 128;

/// Joins and undeliverable messages handled before the loop polls again.
pub const STEPS_PER_TURN: u32 = 1_024;

/// Entries of the mailbox filed before the loop polls again.
pub const ENTRIES_PER_TURN: usize = 4_096;

/// Topics with work beyond which no more entries are filed before some were served: what is filed and
/// served at once is in the processor's caches still.
const ACTIVE_FILED: usize = 256;

/// Entries that are filed however many topics have work.
const ENTRIES_FILED_MIN: usize = 128;

/// Work areas kept for the next topics that have something to deliver.
const WORKS_KEPT: usize = ACTIVE_FILED;

/// Messages, and bytes of them, whose room is given back to the mailbox at once: publishers on other loops count there
/// all the time.
const GIVEN_BACK_MESSAGES: u64 = 32;
const GIVEN_BACK_BYTES: u64 = 64 << 10;

/// Marks that a topic has nothing to do, and instead of the index of its work area the end of an offset.
const AT_REST: u32 = 1 << 31;

/// A subscriber was moved within its topic's list: the slot must remember the new position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moved {
    /// The moved subscriber.
    pub slot: u32,
    /// Its position from now on.
    pub place: Place,
}

/// What one turn of the loop may do over all its topics before the loop polls again.
#[derive(Clone, Copy, Debug)]
pub struct TurnBudget {
    deliveries: u32,
    /// Joins, messages without a subscriber, and topics that turn out to need nothing.
    steps: u32,
}

/// One topic's part of a turn: deliveries of its running pass, as far as the budget goes. Hand it back with
/// [`LocalTopics::end_turn`], or the topic is stuck.
#[derive(Debug)]
#[must_use = "a turn that is not ended stops its topic"]
pub struct Turn<F> {
    local: u32,
    batch: Batch<F>,
    watched: bool,
}

/// The topics of one loop.
pub struct LocalTopics<M: Mail> {
    router: Arc<Router<M>>,
    /// As of the last look into the mailbox.
    rules: Arc<TopicRules>,
    /// Rules before these that have allowed more.
    outdated: Outdated,
    loop_index: usize,
    topics: Slab<LocalTopic>,
    /// Topics with a work area, except the one whose turn is in hand.
    active: VecDeque<u32>,
    /// Taken out of the mailbox and not filed yet: what a turn had no time for.
    drained: VecDeque<Entry<M>>,
    /// Work areas, of which those in `free_works` are nobody's.
    works: Vec<Work<M::Form>>,
    free_works: Vec<u32>,
    buffers: Vec<Vec<u8>>,
    /// Messages of passes that are over, and their bytes, whose room the mailbox has not got back.
    owed: (u64, u64),
    /// Who subscribes by pattern.
    watchers: Watchers,
    /// Tickets of waiting joins whose subscribers have read all that is before them: it does not come by a pattern, too.
    read_up: BTreeSet<u32>,
    /// The tickets of those among them whose subscriptions have ended, by the topic's index and the slot.
    left: BTreeMap<(u32, u32), u32>,
    /// When topics may be delivered whose rules have an interval.
    pacer: Pacer,
    /// What those who catch up read.
    replays: Replays<M::Form>,
    /// Subscriptions that are behind.
    behind: usize,
    joins_waiting: usize,
    next_ticket: u32,
    /// Subscribers of all topics, waiting joins included.
    subscriptions: usize,
    /// Entries of the mailbox that were filed, ever.
    filed: u64,
    batch_bytes_max: usize,
    #[cfg(test)]
    forget_tombstones: bool,
    /// Planted faults of subscriptions by pattern.
    #[cfg(test)]
    forget_mail: bool,
    #[cfg(test)]
    forget_served: bool,
    /// Messages that arrived after the loop had lost its last subscriber.
    #[cfg(test)]
    stale_messages: u64,
}

/// A topic this loop has to do with. Small, because a loop may have a million of them.
struct LocalTopic {
    topic: Topic,
    /// The lower half of the topic's id, which no topic shares with one whose messages may still be on their way.
    /// Publishers on other loops write to the topic itself all the time, so a delivery does not look there.
    id: u32,
    /// And the joins in the mailbox or in `pending`, and subscriptions that are behind: the topic must stay for them.
    list: List,
    /// Its work area, only while messages or joins wait or a pass is under way. Otherwise [`AT_REST`] and the end of the
    /// offset of the message that the loop had last of it.
    work: u32,
}

/// Bytes of one topic in a loop's own table, without its subscriber list. The table's vacant entries have
/// the same size.
pub const LOCAL_TOPIC_BYTES: usize = size_of::<Result<LocalTopic, usize>>();

impl TurnBudget {
    /// So many deliveries; a tombstone counts as one.
    #[must_use]
    pub fn new(deliveries: u32) -> Self {
        Self { deliveries, steps: STEPS_PER_TURN }
    }
}

impl<F: Form> Turn<F> {
    /// The topic's index on this loop.
    pub fn local(&self) -> u32 {
        self.local
    }

    /// What every subscriber of this turn gets.
    pub fn batch(&self) -> &Batch<F> {
        &self.batch
    }

    /// As [`Batch::messages_of`].
    pub fn messages_of(&mut self, choice: Choice) -> &[Message] {
        self.batch.messages_of(choice)
    }

    /// Whether the pass has a part for subscribers by pattern, behind the topic's own.
    pub fn is_watched(&self) -> bool {
        self.watched
    }
}

impl<M: Mail> LocalTopics<M> {
    /// No topics yet. The router must serve a loop of this index.
    pub fn new(router: Arc<Router<M>>, loop_index: usize) -> Result<Self, RouterError> {
        if loop_index >= router.loops() {
            return Err(RouterError::LoopCount);
        }
        Ok(Self {
            rules: router.rules(),
            outdated: Outdated::default(),
            router,
            loop_index,
            topics: Slab::new(),
            active: VecDeque::new(),
            drained: VecDeque::new(),
            works: Vec::new(),
            free_works: Vec::new(),
            buffers: Vec::new(),
            owed: (0, 0),
            watchers: Watchers::default(),
            read_up: BTreeSet::new(),
            left: BTreeMap::new(),
            pacer: Pacer::default(),
            replays: Replays::default(),
            behind: 0,
            joins_waiting: 0,
            next_ticket: 0,
            subscriptions: 0,
            filed: 0,
            batch_bytes_max: BATCH_BYTES_MAX,
            #[cfg(test)]
            forget_tombstones: false,
            #[cfg(test)]
            forget_mail: false,
            #[cfg(test)]
            forget_served: false,
            #[cfg(test)]
            stale_messages: 0,
        })
    }

    /// Joins fewer bytes than [`BATCH_BYTES_MAX`] into one write; with 0 every message has a pass of its own.
    pub fn set_batch_bytes_max(&mut self, bytes_max: usize) {
        self.batch_bytes_max = bytes_max.min(BATCH_BYTES_MAX);
    }

    /// Whether newcomers may join now. Those who may not wait until the joins before them are listed.
    pub fn has_room_for_joins(&self) -> bool {
        self.joins_waiting < self.router.joins_max()
    }

    /// Subscribes a connection of this loop; a topic that has to be made first is made for `maker`. The connection
    /// is listed, and `listed` of [`Self::begin_turn`] is called, when its join comes up behind the messages before
    /// it. Returns the topic's index and what the connection is to remember until then. A join is not refused for
    /// want of room, so whoever lets newcomers in asks [`Self::has_room_for_joins`] before.
    pub fn join(
        &mut self,
        name: &TopicName<'_>,
        slot: u32,
        since: Since,
        maker: &dyn Maker,
    ) -> Result<(u32, Place, Joined), RouterError> {
        let ticket = Place::ticket(self.next_ticket);
        for _ in 0..LOOKUPS_MAX {
            let topic = self.router.topic_for(name, maker)?;
            // Only this loop sets and clears its interest, so the answer holds.
            let known = topic.local_of(self.loop_index);
            let local = known.unwrap_or_else(|| self.open(topic.clone()));
            if let Some(joined) =
                self.router.join(&topic, self.loop_index, Join { local, slot, ticket }, since)
            {
                self.next_ticket = self.next_ticket.wrapping_add(1);
                // Who is behind waits for no other join; it is bounded by what it costs, as a subscription.
                self.joins_waiting += usize::from(!joined.behind);
                self.behind += usize::from(joined.behind);
                self.subscriptions += 1;
                if let Some(entry) = self.topics.get_mut(local as usize) {
                    entry.list.joins_waiting += 1;
                    if known.is_none() {
                        entry.work = AT_REST | offset_end(joined.newest);
                    }
                }
                return Ok((local, ticket, joined));
            }
            // It retired: there is another of this name, or room for one.
            if known.is_none() {
                self.topics.try_remove(local as usize);
            }
        }
        Err(RouterError::Contended)
    }

    /// Ends a subscription; `place` is what the subscriber remembers. A join that still waits `listed` has to
    /// decline. Returns whom this has moved.
    pub fn leave(&mut self, local: u32, slot: u32, place: Place) -> Option<Moved> {
        let entry = self.topics.get_mut(local as usize)?;
        let mut moved = None;
        if place.is_listed() {
            // A position that is not the slot's would take somebody else off the list.
            let position = place.0 as usize;
            debug_assert_eq!(entry.list.get(position), Some(slot));
            if entry.list.get(position) != Some(slot) {
                return None;
            }
            moved = self.unlist(local, place);
        }
        let entry = self.topics.get(local as usize)?;
        if self.read_up.contains(&place.0) {
            self.left.insert((local, slot), place.0);
        }
        self.router.leave(&entry.topic);
        self.subscriptions -= 1;
        self.close_if_idle(local);
        moved
    }

    /// Takes whoever is listed at a place off the list.
    fn unlist(&mut self, local: u32, place: Place) -> Option<Moved> {
        let entry = self.topics.get_mut(local as usize)?;
        let position = place.0 as usize;
        #[cfg(test)]
        let forget = self.forget_tombstones;
        #[cfg(not(test))]
        let forget = false;
        if let Some(work) =
            self.works.get_mut(entry.work as usize).filter(|work| work.pass.is_some() && !forget)
        {
            let served = work.pass.is_some_and(|pass| place.0 < pass.cursor);
            #[cfg(test)]
            let served = served && !self.forget_served;
            if let Some(watching) = work.watching.as_deref_mut().filter(|_| served) {
                watching.served.extend(entry.list.get(position));
            }
            entry.list.set(position, TOMBSTONE);
            work.holes.push(place.0);
            return None;
        }
        entry.list.swap_remove(position);
        let moved = entry.list.get(position).map(|slot| Moved { slot, place });
        entry.list.shrink();
        moved
    }

    /// Takes new rules if there are any, files up to [`ENTRIES_PER_TURN`] entries of the loop's mailbox and hands the letters
    /// among them to `on_letter`. Returns the number of entries; what is left is [work](Self::has_work).
    pub fn drain_mailbox(&mut self, mut on_letter: impl FnMut(Letter<M>)) -> usize {
        self.take_rules();
        if self.drained.is_empty()
            && let Some(mailbox) = self.router.mailbox(self.loop_index)
        {
            // The mailbox is looked at only when the rest of its last drain is filed, which keeps the order;
            // its wake flag stays up until then. Neither conversion copies an entry.
            let mut entries = Vec::from(mem::take(&mut self.drained));
            mailbox.drain(&mut entries);
            self.drained = entries.into();
        }
        let mut count = 0;
        while count < ENTRIES_PER_TURN && (count < ENTRIES_FILED_MIN || self.active.len() < ACTIVE_FILED) {
            let Some(entry) = self.drained.pop_front() else { break };
            count += 1;
            self.filed += 1;
            match entry {
                Entry::Deliver { local, watched, message } => self.file_message(local, watched, message),
                Entry::Found(found) => self.file_found(*found),
                Entry::Join(join) => {
                    self.file(join.local, Pending::Join(join));
                }
                Entry::Reply(reply) => on_letter(Letter::Reply(reply)),
                Entry::Control(control) => on_letter(Letter::Control(control)),
            }
        }
        if self.drained.is_empty() {
            self.drained.shrink_to(CAPACITY_KEPT);
        }
        count
    }

    /// True while a call of [`Self::begin_turn`] or [`Self::drain_mailbox`] has something to do. A loop
    /// with work, or with a mailbox that is not empty, does not sleep.
    pub fn has_work(&self) -> bool {
        !self.active.is_empty() || !self.drained.is_empty()
    }

    /// A mark behind all that was published so far, in the mailbox or out of it: once [`Self::delivered`] has reached
    /// it, everything before has been given to its subscribers.
    pub fn mark(&self) -> u64 {
        let waiting = self.router.mailbox(self.loop_index).map_or(0, Mailbox::waiting);
        self.filed + (self.drained.len() + waiting) as u64
    }

    /// Marks up to this one are reached. Looks at every topic that has work, and must not be called during a turn.
    pub fn delivered(&self) -> u64 {
        let works = self.active.iter().filter_map(|&local| {
            let entry = self.topics.get(local as usize)?;
            self.works.get(entry.work as usize)
        });
        works.map(|work| work.delivered).min().unwrap_or(self.filed)
    }

    /// The next topic with deliveries, while the budget has any. `listed(join, place)`
    /// is called for every join that comes up; it returns false when the connection is gone or does not wait
    /// for this very join any more. None may also mean that the budget is used up:
    /// ask [`Self::has_work`].
    pub fn begin_turn(
        &mut self,
        budget: &mut TurnBudget,
        mut listed: impl FnMut(Join, Place) -> bool,
    ) -> Option<Turn<M::Form>> {
        while budget.deliveries > 0
            && let Some(local) = self.active.pop_front()
        {
            match self.prepare(local, &mut budget.steps, &mut listed) {
                Next::Pass => {
                    let entry = self.topics.get_mut(local as usize)?;
                    let work = self.works.get_mut(entry.work as usize)?;
                    let watched = work.watching.is_some();
                    return Some(Turn { local, batch: mem::take(&mut work.batch), watched });
                }
                Next::Rest => self.rest(local),
                Next::Waits => {}
                Next::OutOfSteps => {
                    self.active.push_back(local);
                    break;
                }
            }
        }
        // Nothing may be owed when there is no more work.
        self.give_back();
        None
    }

    /// The topic's next subscriber, or none when the budget or its list is used up. Between
    /// two calls the loop may join, leave and publish as it likes.
    pub fn next_subscriber(&mut self, turn: &Turn<M::Form>, budget: &mut TurnBudget) -> Option<u32> {
        let entry = self.topics.get(turn.local as usize)?;
        let pass = self.works.get_mut(entry.work as usize)?.pass.as_mut()?;
        while budget.deliveries > 0 && pass.cursor < pass.end {
            let slot = entry.list.get(pass.cursor as usize).unwrap_or(TOMBSTONE);
            pass.cursor += 1;
            // A tombstone costs a step too, or a list of them would never let the loop poll.
            budget.deliveries -= 1;
            if slot != TOMBSTONE {
                return Some(slot);
            }
        }
        None
    }

    /// What a connection that wants this form, and may be sent this encoding of it, gets of the batch. What is
    /// not there yet is made: with the first connection of a form its messages, once for all connections of the
    /// loop, and with the first that wants them deflated that; `deflate` appends what a payload becomes if that saves
    /// anything. What is made counts in the mailbox, though it is never refused there, until the pass is over.
    #[inline]
    pub fn choose(
        &mut self,
        turn: &mut Turn<M::Form>,
        form: M::Form,
        encoding: impl FnOnce() -> Encoding,
        deflate: impl Deflate,
    ) -> Choice {
        if form != M::Form::RAW {
            let encoding = encoding();
            if encoding == Encoding::Plain
                && let Some(choice) = turn.batch.latest_plain(form)
            {
                return choice;
            }
            return self.choose_derived(turn, form, encoding, deflate);
        }
        // Where nothing is deflated, nobody's encoding has to be known.
        let encoding = if turn.batch.is_plain() { Encoding::Plain } else { encoding() };
        turn.batch.choose_raw(encoding, &mut self.buffers)
    }

    #[inline(never)]
    fn choose_derived(
        &mut self,
        turn: &mut Turn<M::Form>,
        form: M::Form,
        encoding: Encoding,
        deflate: impl Deflate,
    ) -> Choice {
        let Some(entry) = self.topics.get(turn.local as usize) else { return Choice::Raw(Encoding::Plain) };
        let before = turn.batch.bytes();
        let choice = turn.batch.choose_derived(form, encoding, &entry.topic, deflate, &mut self.buffers);
        let made = turn.batch.bytes() - before;
        #[cfg(test)]
        let made = if made > 0 && planted::strikes(Planted::MiscountedForm) { 0 } else { made };
        if made > 0
            && let Some(mailbox) = self.router.mailbox(self.loop_index)
        {
            mailbox.charge(made);
        }
        choice
    }

    /// Ends a topic's part of a turn, used up or not. When it was the last of its pass, `moved(local, moved)` tells who
    /// is listed elsewhere from now on, and the mailbox gets the room of the messages back.
    pub fn end_turn(&mut self, turn: Turn<M::Form>, mut moved: impl FnMut(u32, Moved)) {
        let Turn { local, mut batch, .. } = turn;
        let Some(entry) = self.topics.get_mut(local as usize) else { return };
        let Some(work) = self.works.get_mut(entry.work as usize) else { return };
        let all_met = work.watching.as_deref().is_none_or(Watching::is_over);
        if all_met && work.pass.is_none_or(|pass| pass.cursor >= pass.end) {
            let (messages, bytes) = (batch.messages().len() as u64, batch.bytes());
            batch.clear(&mut self.buffers);
            (work.pass, work.watching) = (None, None);
            work.delivered = work.pass_delivers.take().unwrap_or(work.delivered);
            entry.list.compact(&mut work.holes, |slot, at| {
                moved(local, Moved { slot, place: Place::listed(at) });
            });
            self.owed = (self.owed.0 + messages, self.owed.1 + bytes);
        }
        work.batch = batch;
        if work.pass.is_some() || !work.pending.is_empty() {
            self.active.push_back(local);
        } else {
            self.rest(local);
        }
        let (messages, bytes) = self.owed;
        if messages >= GIVEN_BACK_MESSAGES || bytes >= GIVEN_BACK_BYTES || self.active.is_empty() {
            self.give_back();
        }
    }

    fn give_back(&mut self) {
        let (messages, bytes) = mem::take(&mut self.owed);
        if messages > 0 {
            release(&self.router, self.loop_index, messages, bytes);
        }
    }

    /// The topic at this index.
    pub fn topic(&self, local: u32) -> Option<&Topic> {
        self.topics.get(local as usize).map(|entry| &entry.topic)
    }

    /// Takes the rules in force over.
    pub fn take_rules(&mut self) {
        if let Some(rules) = self.router.rules_if_new(&self.rules) {
            let before = mem::replace(&mut self.rules, rules);
            self.outdated.push(before, &self.rules);
            self.release_waiting();
        }
    }

    /// Takes the rules that were in force since the last call, but for those of now.
    pub fn take_outdated(&mut self) -> Outdated {
        mem::take(&mut self.outdated)
    }

    /// The rules as of the last look into the mailbox, or of the last reload.
    pub fn rules(&self) -> &TopicRules {
        &self.rules
    }

    /// What holds for the topic at this index.
    pub fn policy(&self, local: u32) -> Option<&TopicPolicy> {
        Some(self.topic(local)?.policy(&self.rules))
    }

    /// Topics this loop has to do with.
    pub fn len(&self) -> usize {
        self.topics.len()
    }

    /// True when this loop has to do with no topic.
    pub fn is_empty(&self) -> bool {
        self.topics.is_empty()
    }

    /// Subscriptions of this loop's connections to topics, waiting joins included.
    pub fn subscriptions(&self) -> usize {
        self.subscriptions
    }

    /// Opens a topic whose last message the loop is told of next.
    fn open(&mut self, topic: Topic) -> u32 {
        let id = topic.id() as u32;
        self.topics.insert(LocalTopic { topic, id, list: List::new(), work: AT_REST }) as u32
    }
}

fn release<M: Mail>(router: &Router<M>, loop_index: usize, entries: u64, bytes: u64) {
    if let Some(mailbox) = router.mailbox(loop_index) {
        mailbox.release(entries, bytes);
    }
}

#[cfg(test)]
#[path = "subscriptions_tests.rs"]
mod tests;
