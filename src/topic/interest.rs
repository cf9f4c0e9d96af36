//! What a topic's lock guards: which loops are interested and where each has the topic in its own table, who is counted,
//! and what is kept. Driven by [`Topic`](super::state::Topic) under that lock, except for the loops' mailboxes, whose room
//! is reserved here. Never locks anything itself.

use thin_vec::ThinVec;

use super::history::History;
use super::mailbox::Mailbox;
use super::patterns::Matched;
use super::position::{Since, Start};
use super::state::{FIRST_OFFSET, Joined, Rank};
use super::sync::Arc;

/// Stands for the index that a loop which is to find the topic by a message has not given it yet.
pub(super) const UNKNOWN: u32 = u32::MAX;

#[derive(Debug)]
pub(super) struct TopicState {
    pub(super) next_offset: u64,
    /// Bit n: loop n has a subscriber or is about to have one.
    pub(super) interest: u64,
    /// The topic's index in the table of the only interested loop; 0 where there is none. Most topics of very many
    /// interest one loop and keep nothing.
    pub(super) local: u32,
    pub(super) subscribers: u32,
    /// What other topics have besides.
    pub(super) more: Option<Box<More>>,
    /// Out of the directory for good: whoever still holds it looks the name up again.
    pub(super) retired: bool,
    /// Waits in the router's queue of idle topics.
    pub(super) queued_idle: bool,
    /// The edition of the patterns that it was looked up in. Takes no room of its own.
    pub(super) patterns_edition: u32,
}

/// What a topic has that interests several loops, keeps messages, or is meant by patterns.
#[derive(Debug, Default)]
pub(super) struct More {
    /// The topic's index in each interested loop's own table, in the order of the interest bits; empty where at most
    /// one is interested.
    pub(super) locals: ThinVec<u32>,
    pub(super) history: Option<Box<History>>,
    /// The patterns that mean it, as of the edition above.
    pub(super) matched: Option<Arc<Matched>>,
}

impl TopicState {
    /// Of a topic nobody listens to.
    pub(super) fn new() -> Self {
        Self {
            next_offset: FIRST_OFFSET,
            interest: 0,
            local: 0,
            subscribers: 0,
            more: None,
            retired: false,
            queued_idle: false,
            patterns_edition: 0,
        }
    }

    pub(super) fn is_interested(&self, loop_index: usize) -> bool {
        self.interest & bit(loop_index) != 0
    }

    /// How many interested loops come before this one: its place in `locals`.
    pub(super) fn rank(&self, loop_index: usize) -> usize {
        (self.interest & below(loop_index)).count_ones() as usize
    }

    /// The loop's index of the topic, if it is interested and has told one.
    pub(super) fn local_of(&self, loop_index: usize) -> Option<u32> {
        let known = self.is_interested(loop_index).then(|| self.locals().get(self.rank(loop_index)).copied());
        known.flatten().filter(|local| *local != UNKNOWN)
    }

    /// Loops that have a subscriber of a pattern that means the topic, one bit each.
    pub(super) fn watched(&self) -> u64 {
        self.more.as_deref().and_then(|more| more.matched.as_deref()).map_or(0, |matched| matched.loops)
    }

    #[cold]
    pub(super) fn set_matched(&mut self, edition: u32, matched: Option<Arc<Matched>>) {
        self.patterns_edition = edition;
        if let Some(more) = &mut self.more {
            more.matched = matched;
            self.drop_empty_more();
        } else if matched.is_some() {
            self.more.get_or_insert_default().matched = matched;
        }
    }

    /// These loops are interested from now on, and find out by a message.
    #[cold]
    pub(super) fn open_watched(&mut self, loops: u64) {
        let mut unknown = loops & !self.interest;
        while unknown != 0 {
            self.open(unknown.trailing_zeros() as usize, UNKNOWN);
            unknown &= unknown - 1;
        }
    }

    pub(super) fn drop_empty_more(&mut self) {
        let nothing =
            |more: &More| more.locals.is_empty() && more.history.is_none() && more.matched.is_none();
        if self.more.as_deref().is_some_and(nothing) {
            self.more = None;
        }
    }

    /// The indices in the interested loops.
    pub(super) fn locals(&self) -> &[u32] {
        match &self.more {
            _ if self.interest == 0 => &[],
            Some(more) if !more.locals.is_empty() => &more.locals,
            _ => std::slice::from_ref(&self.local),
        }
    }

    pub(super) fn history(&self) -> Option<&History> {
        self.more.as_deref()?.history.as_deref()
    }

    pub(super) fn history_mut(&mut self) -> Option<&mut History> {
        self.more.as_deref_mut()?.history.as_deref_mut()
    }

    pub(super) fn forget_history(&mut self) {
        let Some(more) = &mut self.more else { return };
        more.history = None;
        self.drop_empty_more();
    }

    /// Whether messages are kept: then the topic stays although nobody is interested.
    pub(super) fn keeps(&self) -> bool {
        self.history().is_some_and(|history| !history.is_empty())
    }

    /// The offset of the oldest message that can be had; of the next one where none is kept.
    pub(super) fn oldest(&self) -> u64 {
        self.next_offset - self.history().map_or(0, |history| history.len() as u64)
    }

    /// Where a subscription begins that asks for this.
    pub(super) fn start(&self, epoch: u64, since: Since) -> Start {
        let (oldest, next) = (self.oldest(), self.next_offset);
        let newest_only = self.history().is_some_and(|history| history.bounds().newest_only);
        let start = since.start(epoch, oldest, next);
        if !newest_only || start.next >= next {
            return start;
        }
        // The newest message is all that matters of such a topic, so who has that has missed nothing.
        let recovered = matches!(since, Since::After(_));
        Start { next: next - 1, recovered, gap: None }
    }

    /// What a subscriber is told that asks for this.
    pub(super) fn joined(&self, epoch: u64, since: Since) -> Joined {
        let Start { next, recovered, gap } = self.start(epoch, since);
        let behind = next < self.next_offset;
        Joined { epoch, next_offset: next, recovered, gap, behind, newest: self.next_offset - 1 }
    }

    /// The loop is interested from now on, and has this index for the topic.
    pub(super) fn open(&mut self, loop_index: usize, local: u32) {
        let mut locals = self.locals().to_vec();
        let rank = self.rank(loop_index).min(locals.len());
        match locals.get_mut(rank).filter(|_| self.interest & bit(loop_index) != 0) {
            Some(known) => *known = local,
            None => locals.insert(rank, local),
        }
        self.set_locals(locals);
        self.interest |= bit(loop_index);
    }

    /// The loop, which is interested, is not any more.
    pub(super) fn close(&mut self, loop_index: usize) {
        let mut locals = self.locals().to_vec();
        let rank = self.rank(loop_index);
        if rank < locals.len() {
            locals.remove(rank);
        }
        self.set_locals(locals);
        self.interest &= !bit(loop_index);
    }

    pub(super) fn set_locals(&mut self, locals: Vec<u32>) {
        let (local, locals) = match locals.as_slice() {
            [] => (0, &[][..]),
            [only] => (*only, &[][..]),
            many => (0, many),
        };
        self.local = local;
        let mut exact = ThinVec::with_capacity(locals.len());
        exact.extend_from_slice(locals);
        if let Some(more) = &mut self.more {
            more.locals = exact;
            self.drop_empty_more();
        } else if !exact.is_empty() {
            self.more.get_or_insert_default().locals = exact;
        }
    }

    pub(super) fn mark_idle(&mut self) -> bool {
        let newly = self.interest == 0 && !self.keeps() && !self.queued_idle && !self.retired;
        self.queued_idle |= newly;
        newly
    }
}

/// The interest bit of a loop; of a loop that cannot be, none.
pub(super) fn bit(loop_index: usize) -> u64 {
    u32::try_from(loop_index).ok().and_then(|shift| 1u64.checked_shl(shift)).unwrap_or(0)
}

/// The interest bits of all loops before this one.
fn below(loop_index: usize) -> u64 {
    bit(loop_index).wrapping_sub(1)
}

/// Reserves in every interested mailbox; on the first refusal gives back what it took and names the loop.
// Inlined, because with a small message the call is a fiftieth of a publish.
#[inline(always)]
pub(super) fn reserve_everywhere<E>(
    interest: u64,
    bytes: usize,
    mailboxes: &[Mailbox<E>],
    rank: Rank,
) -> Result<(), usize> {
    if let Rank::Behind(others) = rank
        && interest & others != 0
    {
        return Err((interest & others).trailing_zeros() as usize);
    }
    for (loop_index, mailbox) in interested(interest, mailboxes) {
        let taken = match rank {
            Rank::First => mailbox.try_reserve_first(bytes),
            Rank::Behind(_) => mailbox.try_reserve(bytes),
        };
        if !taken {
            let taken = interest & below(loop_index);
            interested(taken, mailboxes).for_each(|(_, mailbox)| mailbox.release(1, bytes as u64));
            return Err(loop_index);
        }
    }
    Ok(())
}

/// The interested loops' mailboxes, lowest loop first.
fn interested<E>(interest: u64, mailboxes: &[Mailbox<E>]) -> impl Iterator<Item = (usize, &Mailbox<E>)> {
    let mut rest = interest;
    std::iter::from_fn(move || {
        let loop_index = rest.trailing_zeros() as usize;
        // A bit beyond the mailboxes cannot be: only loops of the router join.
        let mailbox = mailboxes.get(loop_index)?;
        rest &= rest - 1;
        Some((loop_index, mailbox))
    })
}
