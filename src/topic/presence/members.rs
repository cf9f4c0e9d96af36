//! The members of one topic: who is there, who is about to leave, and what of that was told. Pure: knows no lock, no clock
//! and no connection. Driven by the topic's presence, under its lock.
//!
//! A member is there while it has a connection, and for the grace behind its last one. What was *told* is what a reader of
//! the list and of all changes since knows: it moves by folds only, each of which becomes one event.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::mem;
use std::ops::Bound;

use super::member::MemberId;
use super::pages::PresenceMember;
use super::states::{Known, Said, StateText, States};

/// Changes that one fold has at most, and bytes of ids in them: what is more waits for the next one.
pub(super) const CHANGES_MAX: usize = 2_000;
const CHANGES_BYTES_MAX: usize = 64 << 10;

/// Bytes of ids and states in one page.
const PAGE_BYTES_MAX: usize = 64 << 10;

/// Bytes that a member takes beside its id, with a connection of it: entries of two maps and an allocation.
pub const MEMBER_BYTES: u64 = 128;

/// All members of one topic.
#[derive(Debug, Default)]
pub(super) struct Members {
    by_id: BTreeMap<MemberId, Member>,
    /// Whose presence may be another than what was told, each once, oldest first.
    untold: VecDeque<MemberId>,
    /// Whose last connection has gone, by when they leave.
    leaving: BTreeSet<(u64, MemberId)>,
    /// Members that were told to be there.
    told: usize,
    /// What they say of themselves.
    states: States,
}

#[derive(Debug, Default)]
struct Member {
    /// When it leaves unless it comes back, in milliseconds; means something while it is in `leaving`.
    leaves_at: u64,
    connections: u32,
    here: bool,
    told: bool,
    /// Whether it is in `untold`.
    queued: bool,
    /// Whether it is in `leaving`.
    leaving: bool,
}

/// What one event tells.
#[derive(Debug, Default)]
pub(super) struct Fold {
    pub(super) joined: Vec<MemberId>,
    pub(super) left: Vec<MemberId>,
    /// Who says something else of itself, or nothing any more.
    pub(super) states: Vec<Said>,
    /// Members that are told to be there, with it.
    pub(super) count: usize,
    /// How many of those that were untold it has dealt with.
    taken: usize,
    /// The number of the first state that it has not.
    states_before: u64,
}

impl Members {
    /// Whether nobody is listed, told or not.
    pub(super) fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// All that are listed, those among them who have left and of whom that was not told.
    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Members that were told to be there.
    pub(super) fn told(&self) -> usize {
        self.told
    }

    /// Whether there may be something to tell.
    pub(super) fn has_untold(&self) -> bool {
        !self.untold.is_empty() || self.states.has_untold()
    }

    /// When somebody may leave next, or a state end, in milliseconds.
    pub(super) fn next_end(&self) -> Option<u64> {
        self.next_leave().into_iter().chain(self.states.next_end()).min()
    }

    fn next_leave(&self) -> Option<u64> {
        self.leaving.first().map(|(at, _)| *at)
    }

    /// What they say of themselves.
    pub(super) fn states(&self) -> &States {
        &self.states
    }

    /// One who is listed says this of itself until `ends_at`, or nothing any more.
    pub(super) fn say(&mut self, id: &MemberId, state: Option<StateText>, ends_at: u64) {
        if self.by_id.contains_key(id) {
            self.states.set(id, state, ends_at);
        }
    }

    /// The id as it is listed, if it is.
    pub(super) fn find(&self, id: &str) -> Option<MemberId> {
        self.by_id.get_key_value(id.as_bytes()).map(|(id, _)| id.clone())
    }

    /// One more connection of a member.
    pub(super) fn join(&mut self, id: &MemberId) {
        let member = match self.by_id.get_mut(id) {
            Some(member) => member,
            None => self.by_id.entry(id.clone()).or_default(),
        };
        member.connections += 1;
        if mem::take(&mut member.leaving) {
            self.leaving.remove(&(member.leaves_at, id.clone()));
        }
        if !mem::replace(&mut member.here, true) && !mem::replace(&mut member.queued, true) {
            self.untold.push_back(id.clone());
        }
    }

    /// One connection less; whose last it was leaves at `leaves_at` unless it comes back.
    pub(super) fn leave(&mut self, id: &MemberId, leaves_at: u64) {
        let Some(member) = self.by_id.get_mut(id) else { return };
        member.connections = member.connections.saturating_sub(1);
        if member.connections == 0 && !mem::replace(&mut member.leaving, true) {
            member.leaves_at = leaves_at;
            self.leaving.insert((leaves_at, id.clone()));
        }
    }

    /// Those leave, and those states end, whose time has come at `now`.
    pub(super) fn expire(&mut self, now: u64) {
        self.states.expire(now);
        while self.next_leave().is_some_and(|at| at <= now) {
            let Some((_, id)) = self.leaving.pop_first() else { break };
            let Some(member) = self.by_id.get_mut(&id) else { continue };
            (member.leaving, member.here) = (false, false);
            // It ends with the member, who may be there again before anybody is told.
            self.states.set(&id, None, 0);
            if !mem::replace(&mut member.queued, true) {
                self.untold.push_back(id);
            }
        }
    }

    /// What is to be told next. Changes nothing before it is [told](Self::tell).
    pub(super) fn fold(&self) -> Fold {
        let mut fold = Fold { count: self.told, ..Fold::default() };
        let mut bytes = 0;
        for id in self.untold.iter().take(CHANGES_MAX) {
            bytes += id.len();
            if bytes > CHANGES_BYTES_MAX && fold.taken > 0 {
                break;
            }
            fold.taken += 1;
            match self.by_id.get(id) {
                Some(Member { here: true, told: false, .. }) => fold.joined.push(id.clone()),
                Some(Member { here: false, told: true, .. }) => fold.left.push(id.clone()),
                _ => {}
            }
        }
        fold.count = (fold.count + fold.joined.len()).saturating_sub(fold.left.len());
        let all = fold.taken == self.untold.len();
        (fold.states, fold.states_before) = self.states.fold(|id| match self.by_id.get(id) {
            Some(member) if all && member.here || !all && member.told => Known::Yes,
            Some(_) if !all => Known::Later,
            _ => Known::Gone,
        });
        fold
    }

    /// That was told. Bytes of ids, and how many members, that are not listed any more.
    pub(super) fn tell(&mut self, fold: &Fold) -> (usize, usize) {
        let (mut bytes, mut gone) = (0, 0);
        for id in self.untold.drain(..fold.taken.min(self.untold.len())) {
            let Some(member) = self.by_id.get_mut(&id) else { continue };
            member.queued = false;
            member.told = member.here;
            if !member.here {
                self.by_id.remove(&id);
                self.states.remove(&id);
                bytes += id.len();
                gone += 1;
            }
        }
        self.told = fold.count;
        self.states.tell(fold.states_before);
        if self.untold.is_empty() {
            self.untold = VecDeque::new();
        }
        (bytes, gone)
    }

    /// Up to `limit` members that were told to be there, in the order of their ids, behind `after`; and whether there are
    /// more.
    pub(super) fn page(&self, after: Option<&str>, limit: usize) -> (Vec<PresenceMember>, bool) {
        let from = after.map_or(Bound::Unbounded, |after| Bound::Excluded(after.as_bytes()));
        let mut page = Vec::new();
        let mut bytes = 0;
        let behind = self.by_id.range::<[u8], _>((from, Bound::Unbounded));
        for (id, _) in behind.filter(|(_, member)| member.told) {
            let state = self.states.told(id).cloned();
            bytes += id.len() + state.as_ref().map_or(0, |state| state.as_str().len());
            if page.len() >= limit || (bytes > PAGE_BYTES_MAX && !page.is_empty()) {
                return (page, true);
            }
            page.push(PresenceMember { id: id.clone(), state });
        }
        (page, false)
    }
}

#[cfg(test)]
#[path = "members_tests.rs"]
mod tests;
