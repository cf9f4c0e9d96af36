//! What waits for one topic of the loop, and the pass over its subscribers: filed from the mailbox, prepared when the topic's
//! turn comes, given back when nothing is left. Driven by the loop's turns. Never delivers.

use std::collections::VecDeque;
use std::mem;

use super::{AT_REST, LocalTopic, LocalTopics, WORKS_KEPT, release};
use crate::topic::batch::Batch;
use crate::topic::entry::{Join, Mail, Place};
use crate::topic::mailbox::CAPACITY_KEPT;
use crate::topic::message::Message;
use crate::topic::position::offset_end;
use crate::topic::rules::TopicRules;
use crate::topic::state::Topic;
use crate::topic::watchers::{Watchers, Watching};

/// A topic's work area.
pub(super) struct Work<F> {
    pub(super) pending: VecDeque<Pending>,
    pub(super) pass: Option<Pass>,
    /// The pass is to begin when its time has come: no one has been served.
    pub(super) held: bool,
    /// The tick at which it is due, while it is not among the topics with work.
    pub(super) parked: Option<u32>,
    pub(super) batch: Batch<F>,
    /// Positions of tombstones.
    pub(super) holes: Vec<u32>,
    /// Whether patterns meant it when a message came, and the part of the pass under way that is theirs.
    pub(super) watched: bool,
    pub(super) watching: Option<Box<Watching>>,
    /// The end of the offset of the message that was filed last.
    pub(super) last: u32,
    /// What was filed before this many entries has been delivered.
    pub(super) delivered: u64,
    /// The same once the pass under way has ended, if it leaves nothing behind.
    pub(super) pass_delivers: Option<u64>,
}

impl<F> Default for Work<F> {
    fn default() -> Self {
        Self {
            pending: VecDeque::new(),
            pass: None,
            held: false,
            parked: None,
            batch: Batch::default(),
            holes: Vec::new(),
            watched: false,
            watching: None,
            last: 0,
            delivered: 0,
            pass_delivers: None,
        }
    }
}

/// What waits for a topic's next pass, in the order of the mailbox.
pub(in crate::topic) enum Pending {
    Message(Message),
    Join(Join),
}

#[derive(Clone, Copy)]
pub(super) struct Pass {
    pub(super) cursor: u32,
    pub(super) end: u32,
}

/// What a topic taken from the active queue turned out to need.
pub(super) enum Next {
    Pass,
    Rest,
    OutOfSteps,
    /// Its time comes, or another message.
    Waits,
}

impl<M: Mail> LocalTopics<M> {
    pub(super) fn file_message(&mut self, local: u32, watched: bool, message: Message) {
        let entry = self.topics.get(local as usize);
        if entry.is_some_and(|entry| entry.id == message.topic_id() as u32) {
            let last = offset_end(message.offset());
            if let Some(work) = self.file(local, Pending::Message(message)) {
                work.last = last;
                work.watched |= watched;
            }
        } else {
            // The loop has lost its last subscriber meanwhile.
            #[cfg(test)]
            (self.stale_messages += 1);
            release(&self.router, self.loop_index, 1, message.frame_len() as u64);
        }
    }

    pub(super) fn file(&mut self, local: u32, pending: Pending) -> Option<&mut Work<M::Form>> {
        let entry = self.topics.get_mut(local as usize)?;
        if entry.work & AT_REST != 0 {
            self.active.push_back(local);
            let last = entry.work & !AT_REST;
            entry.work = self.free_works.pop().unwrap_or_else(|| {
                self.works.push(Work::default());
                (self.works.len() - 1) as u32
            });
            if let Some(work) = self.works.get_mut(entry.work as usize) {
                // The entry that is being filed is counted already.
                (work.delivered, work.pass_delivers) = (self.filed.saturating_sub(1), None);
                (work.last, work.watched) = (last, false);
            }
        }
        let work = self.works.get_mut(entry.work as usize)?;
        if let Some(due) = work.parked.take() {
            self.pacer.stop_waiting(due, local);
            self.active.push_back(local);
        }
        work.pending.push_back(pending);
        Some(work)
    }

    /// Applies the joins at the head of what waits and, unless a pass is under way, starts one with
    /// the messages behind them.
    pub(super) fn prepare(
        &mut self,
        local: u32,
        steps: &mut u32,
        listed: &mut impl FnMut(Join, Place) -> bool,
    ) -> Next {
        let Some(entry) = self.topics.get_mut(local as usize) else { return Next::Rest };
        let Some(work) = self.works.get_mut(entry.work as usize) else { return Next::Rest };
        if work.watched && work.pass.is_none() {
            work.watching = watching_of(&entry.topic, &self.rules, &self.watchers);
        }
        loop {
            match work.pending.front() {
                Some(Pending::Message(_)) | None if work.pass.is_some() && !work.held => return Next::Pass,
                None if work.held => {
                    let due = self.pacer.due(entry.topic.id(), entry.topic.policy(&self.rules).interval_ms);
                    work.held = due.is_some();
                    let Some(due) = due else { return Next::Pass };
                    work.parked = Some(due);
                    self.pacer.wait(due, local);
                    return Next::Waits;
                }
                None => return Next::Rest,
                Some(Pending::Message(_))
                    if work.held
                        || self.rules.has_intervals()
                            && (!entry.list.is_empty() || work.watching.is_some())
                            && entry.topic.policy(&self.rules).interval_ms > 0 =>
                {
                    if work.watched {
                        // As of this message, not of the one before.
                        work.watching = watching_of(&entry.topic, &self.rules, &self.watchers);
                    }
                    let gone = work.batch.fill_newest(&mut work.pending);
                    self.owed = (self.owed.0 + gone.0, self.owed.1 + gone.1);
                    self.pacer.replaced += gone.0;
                    *steps = steps.saturating_sub(gone.0 as u32);
                    work.pass_delivers = work.pending.is_empty().then_some(self.filed);
                    work.pass = Some(Pass { cursor: 0, end: entry.list.len() as u32 });
                    work.held = true;
                    continue;
                }
                Some(Pending::Message(_)) if !entry.list.is_empty() || work.watching.is_some() => {
                    work.batch.fill(&mut work.pending, self.batch_bytes_max);
                    work.pass_delivers = work.pending.is_empty().then_some(self.filed);
                    work.pass = Some(Pass { cursor: 0, end: entry.list.len() as u32 });
                    return Next::Pass;
                }
                Some(_) => {}
            }
            if *steps == 0 {
                // A pass under way goes on; its joins are only listed a turn later.
                return if work.pass.is_some() && !work.held { Next::Pass } else { Next::OutOfSteps };
            }
            *steps -= 1;
            match work.pending.pop_front() {
                Some(Pending::Join(join)) => {
                    entry.list.joins_waiting -= 1;
                    self.joins_waiting -= 1;
                    let behind = !self.read_up.is_empty() && self.read_up.remove(&join.ticket.0);
                    if behind && self.left.get(&(local, join.slot)) == Some(&join.ticket.0) {
                        self.left.remove(&(local, join.slot));
                    }
                    let passing = work.watching.as_mut().filter(|_| behind && work.pass.is_some());
                    // What the pass under way delivers was before its place.
                    passing.into_iter().for_each(|watching| watching.served.push(join.slot));
                    if listed(join, Place::listed(entry.list.len())) {
                        entry.list.push(join.slot);
                    }
                }
                // Nobody is listed yet or any more.
                Some(Pending::Message(message)) => {
                    release(&self.router, self.loop_index, 1, message.frame_len() as u64);
                }
                None => {}
            }
        }
    }

    /// Takes the work area of a topic that has nothing to deliver.
    pub(super) fn rest(&mut self, local: u32) {
        if let Some(entry) = self.topics.get_mut(local as usize)
            && let Some(work) = self.works.get_mut(entry.work as usize)
        {
            work.pending.shrink_to(CAPACITY_KEPT);
            work.holes.shrink_to(CAPACITY_KEPT);
            work.watching = None;
            let at_rest = AT_REST | work.last;
            self.free_works.push(mem::replace(&mut entry.work, at_rest));
        }
        if self.works.len() > WORKS_KEPT && self.free_works.len() == self.works.len() {
            self.works.truncate(WORKS_KEPT);
            self.works.shrink_to_fit();
            self.free_works = (0..WORKS_KEPT as u32).collect();
        }
        if self.active.is_empty() {
            self.active.shrink_to(CAPACITY_KEPT);
        }
        self.close_if_idle(local);
    }

    /// Gives a topic up that has no subscriber, no waiting join and nothing under way. Messages that
    /// are still in the mailbox will be recognised as stale.
    pub(super) fn close_if_idle(&mut self, local: u32) {
        let idle = |entry: &&LocalTopic| {
            entry.work & AT_REST != 0 && entry.list.joins_waiting == 0 && entry.list.is_empty()
        };
        let Some(entry) = self.topics.get(local as usize).filter(idle) else { return };
        let unguarded = self.watchers.is_empty();
        #[cfg(test)]
        let unguarded = unguarded || self.forget_mail;
        if unguarded {
            self.router.clear_interest(&entry.topic, self.loop_index);
        } else if !self.router.clear_interest_behind(&entry.topic, self.loop_index, entry.work & !AT_REST) {
            // A message on its way may be for subscribers by pattern, and brings this here again.
            return;
        }
        self.topics.try_remove(local as usize);
        // Looked at only at powers of two: it may have to visit every entry.
        let len = self.topics.len();
        let much_free = self.topics.capacity() > CAPACITY_KEPT && len < self.topics.capacity() / 4;
        if much_free && (len == 0 || len.is_power_of_two()) {
            self.topics.shrink_to_fit();
        }
    }
}

/// The part of a pass over a topic's subscribers that is of those by pattern.
fn watching_of(topic: &Topic, rules: &TopicRules, watchers: &Watchers) -> Option<Box<Watching>> {
    watchers.watching(topic.matched()?, rules.subscribers_to(topic))
}
