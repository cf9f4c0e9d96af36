//! One topic: its next offset, which loops have a subscriber, and under one short lock the two
//! protocols that give every subscriber the messages in order: publish and join. Driven by the
//! router. Never wakes a loop, never looks up a name, never encodes.
//!
//! Lock order: directory → topic → mailbox.

use triomphe::ThinArc;

use super::entry::{Entry, Found, Join, Mail};
use super::history::{Change, History, HistoryBounds};
use super::interest::{TopicState, UNKNOWN, reserve_everywhere};
use super::mailbox::Mailbox;
use super::message::{Draft, Message};
use super::name::TopicName;
use super::patterns::{Matched, Patterns};
use super::position::{Gap, GapKind, Since, offset_end};
use super::rules::{PolicyCell, TopicPolicy, TopicRules};
use super::sync::{Arc, AtomicU32, Mutex, Ordering, lock};
use super::tap::Tap;

/// Most event loops one router serves: a topic keeps its interested loops in one word.
pub const LOOPS_MAX: usize = 64;

/// The offset of a topic's first message, so that 0 can stand for "nothing seen yet".
pub const FIRST_OFFSET: u64 = 1;

/// A named stream of messages, shared by all loops: one allocation with the name in it. A clone is a reference.
#[derive(Clone, Debug)]
pub struct Topic(ThinArc<Shared, u8>);

#[derive(Debug)]
struct Shared {
    id: u64,
    epoch: u64,
    policy: PolicyCell,
    /// Subscribers that negotiated compression, for publishers to decide by; never part of an order.
    deflate_subscribers: AtomicU32,
    /// By whom its maker is counted; 0 for nobody.
    maker: u32,
    state: Mutex<TopicState>,
}

/// What a publisher is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// The topic's epoch; offsets of different epochs are not comparable.
    pub epoch: u64,
    /// The message's offset.
    pub offset: u64,
    /// Subscribers at the time of publishing.
    pub subscribers: u64,
}

/// A topic's numbers at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopicSummary {
    /// The offset the next message will get.
    pub next_offset: u64,
    /// Subscribers on all loops.
    pub subscribers: u64,
    /// Loops that have one or are about to.
    pub loops: u32,
    /// Messages that are kept.
    pub kept_messages: u64,
    /// Bytes of them, and of what stands beside each.
    pub kept_bytes: u64,
}

/// Where a subscriber's messages begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Joined {
    /// The topic's epoch.
    pub epoch: u64,
    /// The first offset that is the joiner's; every message behind it is too.
    pub next_offset: u64,
    /// It asked for what it missed, and all of that is the joiner's.
    pub recovered: bool,
    /// What it asked for and can't have.
    pub gap: Option<Gap>,
    /// It has messages to read before it is listed: those that are kept from `next_offset` on.
    pub behind: bool,
    /// The offset of the topic's newest message; 0 before the first.
    pub newest: u64,
}

/// One step of a subscriber that reads what is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CaughtUp {
    /// Messages were read, the first of them this one: what was asked for, or the newest where only that matters.
    Read {
        /// Its offset.
        next: u64,
    },
    /// That one is not kept any more.
    Gap(Gap),
    /// There was nothing more, and from here on it is as every other subscriber: its join is in the mailbox.
    Joined,
}

/// Some of what a topic keeps, as of one moment.
#[derive(Clone, Debug)]
pub struct Page {
    /// The topic's epoch.
    pub epoch: u64,
    /// The offset of the newest message of the topic, kept or not; 0 before the first.
    pub newest: u64,
    /// What was asked for and is not kept.
    pub gap: Option<Gap>,
    /// The messages, in the order that was asked for.
    pub messages: Vec<Message>,
}

/// From where a page is read, and in which direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageFrom {
    /// From here on, oldest first.
    Since(Since),
    /// The newest first; with a place, those before it.
    Newest(Option<u64>),
}

/// In whose turn a publish asks for room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rank {
    /// Before everybody else.
    First,
    /// Behind others who wait for these loops' mailboxes, one bit each.
    Behind(u64),
}

impl Rank {
    /// Whenever there is room.
    pub const USUAL: Self = Self::Behind(0);
}

/// Why a topic did not take a message; the draft comes back.
#[derive(Debug)]
pub(super) enum PublishRefused {
    /// The mailbox of this interested loop has no room, or it is others' turn to find some there.
    Full {
        loop_index: usize,
        draft: Draft,
    },
    Retired(Draft),
}

impl Topic {
    /// A topic nobody listens to, made for whoever is counted as `maker`. The caller never reuses an id.
    pub fn new(id: u64, epoch: u64, name: &TopicName<'_>, maker: u32) -> Self {
        let shared = Shared {
            id,
            epoch,
            policy: PolicyCell::new(),
            deflate_subscribers: AtomicU32::new(0),
            maker,
            state: Mutex::new(TopicState::new()),
        };
        Self(ThinArc::from_header_and_slice(shared, name.as_str().as_bytes()))
    }

    /// Unique for the life of the process.
    pub fn id(&self) -> u64 {
        self.shared().id
    }

    /// Random per creation of a topic.
    pub fn epoch(&self) -> u64 {
        self.shared().epoch
    }

    /// The name it is found by.
    pub fn name(&self) -> &str {
        // It was made of text; looking at it again costs less than what it takes to find the name.
        std::str::from_utf8(self.name_bytes()).unwrap_or_default()
    }

    /// Whether this is its name.
    pub fn is_named(&self, name: &str) -> bool {
        self.name_bytes() == name.as_bytes()
    }

    /// Whether its messages tell who is on another topic.
    #[inline]
    pub fn is_of_presence(&self) -> bool {
        TopicName::is_of_presence(self.name_bytes())
    }

    pub(super) fn name_bytes(&self) -> &[u8] {
        &self.0.slice
    }

    /// The same as the router takes it.
    pub fn topic_name(&self) -> TopicName<'_> {
        TopicName::checked(self.name())
    }

    /// By whom its maker is counted; 0 for nobody.
    pub(super) fn maker(&self) -> u32 {
        self.shared().maker
    }

    /// Whether `rules` ask nothing of what clients publish to it; no lock.
    pub fn is_free(&self, rules: &TopicRules) -> bool {
        self.shared().policy.is_free(|| self.name(), rules)
    }

    /// What `rules` say of it; no lock.
    pub fn policy<'r>(&self, rules: &'r TopicRules) -> &'r TopicPolicy {
        self.shared().policy.policy(|| self.name(), rules)
    }

    /// Subscribers on all loops.
    pub fn subscribers(&self) -> u64 {
        lock(&self.shared().state).subscribers.into()
    }

    /// Whether anybody would get a deflated frame. A hint: a publisher that reads it a moment too early or too
    /// late sends everybody the plain frame, or deflates for nobody.
    pub fn has_deflate(&self) -> bool {
        self.shared().deflate_subscribers.load(Ordering::Relaxed) > 0
    }

    /// A subscriber that negotiated compression has joined.
    pub fn join_deflate(&self) {
        self.shared().deflate_subscribers.fetch_add(1, Ordering::Relaxed);
    }

    /// A subscriber that negotiated compression is leaving.
    pub fn leave_deflate(&self) {
        self.shared().deflate_subscribers.fetch_sub(1, Ordering::Relaxed);
    }

    /// The offset the next message will get.
    pub fn next_offset(&self) -> u64 {
        lock(&self.shared().state).next_offset
    }

    /// What a listing shows, as of one moment.
    pub fn summary(&self) -> TopicSummary {
        let state = lock(&self.shared().state);
        TopicSummary {
            next_offset: state.next_offset,
            subscribers: state.subscribers.into(),
            loops: state.interest.count_ones(),
            kept_messages: state.history().map_or(0, |history| history.len() as u64),
            kept_bytes: state.history().map_or(0, History::bytes),
        }
    }

    /// The topic's index in the loop's own table, while that loop is interested.
    pub fn local_of(&self, loop_index: usize) -> Option<u32> {
        let state = lock(&self.shared().state);
        state.local_of(loop_index)
    }

    /// The loop has found the topic by a message that is no other subscriber's, and has this index for it.
    pub(super) fn set_local(&self, loop_index: usize, local: u32) {
        lock(&self.shared().state).open(loop_index, local);
    }

    /// The patterns that mean it, as of the last publish.
    pub(super) fn matched(&self) -> Option<Arc<Matched>> {
        lock(&self.shared().state).more.as_deref()?.matched.clone()
    }

    /// Gives the message an offset and a place in every interested mailbox, or changes nothing. Keeps it, if the topic
    /// keeps messages; no more bytes than before where all histories have no `room`. Loops with subscribers of `patterns` that
    /// mean it are interested until they have dealt with the message.
    /// Also returns the loops that are owed a wake-up, one bit each, and what became of its history, if it has one.
    // A call with all that it takes and gives back is a part of a small publish that shows.
    #[inline(always)]
    pub(super) fn publish<M: Mail>(
        &self,
        draft: Draft,
        mailboxes: &[Mailbox<Entry<M>>],
        rank: Rank,
        room: impl FnOnce(u64) -> bool,
        patterns: &Patterns,
        told: impl FnOnce(&Self, &Message),
    ) -> Result<(Published, u64, Option<Change>), PublishRefused> {
        let bytes = draft.frame_len();
        let mut state = lock(&self.shared().state);
        if state.retired {
            return Err(PublishRefused::Retired(draft));
        }
        let edition = patterns.edition();
        if state.patterns_edition != edition {
            state.set_matched(edition, patterns.matching(self.name()));
        }
        let watched = state.watched();
        // All or none: a refused message must not take an offset, or subscribers would see a gap.
        if let Err(loop_index) = reserve_everywhere(state.interest | watched, bytes, mailboxes, rank) {
            return Err(PublishRefused::Full { loop_index, draft });
        }
        if watched & !state.interest != 0 {
            state.open_watched(watched);
        }
        let offset = state.next_offset;
        state.next_offset += 1;
        let message = draft.stamp(self.id(), offset);
        let (mut owed, mut rest) = (0, state.interest);
        // Step by step: pairs of two iterators cost a tenth of a publish.
        for &local in state.locals() {
            let this = rest & rest.wrapping_neg();
            rest ^= this;
            let Some(mailbox) = mailboxes.get(this.trailing_zeros() as usize) else { break };
            let message = message.clone();
            let entry = if local == UNKNOWN {
                Entry::Found(Box::new(Found { topic: self.clone(), message }))
            } else {
                Entry::Deliver { local, watched: watched & this != 0, message }
            };
            if mailbox.push(entry) {
                owed |= this;
            }
        }
        told(self, &message);
        let change = state.history_mut().map(|history| history.push(message, room));
        let published = Published { epoch: self.epoch(), offset, subscribers: state.subscribers.into() };
        Ok((published, owed, change))
    }

    /// Counts a subscriber, marks its loop interested and puts its `Join` into the loop's mailbox,
    /// all under one lock, so that its messages begin exactly at the returned offset. One that has to read what is kept
    /// first gets its `Join` from [`Self::catch_up`]. `None`: the topic is retired, and nothing was done.
    pub(super) fn join<M: Mail>(
        &self,
        loop_index: usize,
        join: Join,
        since: Since,
        own: &Mailbox<Entry<M>>,
        tap: Option<&dyn Tap>,
    ) -> Option<Joined> {
        let mut state = lock(&self.shared().state);
        if state.retired {
            return None;
        }
        let joined = state.joined(self.epoch(), since);
        if !joined.behind {
            // The loop that joins is the one that drains this mailbox: it is awake, nobody is to wake it.
            own.push_join(Entry::Join(join));
        }
        if state.local_of(loop_index).is_none() {
            state.open(loop_index, join.local);
        }
        state.subscribers += 1;
        if let Some(tap) = tap.filter(|_| state.subscribers == 1) {
            tap.on_occupied(self);
        }
        Some(joined)
    }

    /// Where a subscription would begin now.
    #[must_use]
    pub fn look(&self, since: Since) -> Joined {
        lock(&self.shared().state).joined(self.epoch(), since)
    }

    /// One step of a subscriber that was told to read from `next` on: appends kept messages to `into`, so many and so
    /// many bytes of frames, but at least one. When there is none more, its `Join` is pushed under the same lock, so
    /// that what is published next is delivered to it and nothing is delivered twice.
    pub(super) fn catch_up<M: Mail>(
        &self,
        next: u64,
        join: Join,
        own: &Mailbox<Entry<M>>,
        bounds: (usize, usize),
        into: &mut Vec<Message>,
    ) -> CaughtUp {
        let state = lock(&self.shared().state);
        let newest_only = state.history().is_some_and(|history| history.bounds().newest_only);
        let next = if newest_only { next.max(state.next_offset - 1) } else { next };
        if next >= state.next_offset {
            own.push_join(Entry::Join(join));
            return CaughtUp::Joined;
        }
        let oldest = state.oldest();
        if next < oldest {
            return CaughtUp::Gap(Gap { kind: GapKind::Expired, oldest });
        }
        let (messages_max, bytes_max) = bounds;
        let mut bytes = 0;
        let kept = state.history().into_iter().flat_map(|history| history.from((next - oldest) as usize));
        for message in kept.take(messages_max) {
            bytes += message.frame_len();
            if !into.is_empty() && bytes > bytes_max {
                break;
            }
            into.push(message.clone());
        }
        CaughtUp::Read { next }
    }

    /// Up to `limit` kept messages with up to `bytes_max` bytes of frames, but at least one.
    pub fn page(&self, from: PageFrom, limit: usize, bytes_max: usize) -> Page {
        let state = lock(&self.shared().state);
        let (oldest, next) = (state.oldest(), state.next_offset);
        let mut page = Page { epoch: self.epoch(), newest: next - 1, gap: None, messages: Vec::new() };
        let mut bytes = 0;
        let mut fits = |message: &&Message| {
            bytes += message.frame_len();
            bytes <= bytes_max || bytes == message.frame_len()
        };
        let Some(history) = state.history() else {
            if let PageFrom::Since(since) = from {
                page.gap = state.start(self.epoch(), since).gap;
            }
            return page;
        };
        match from {
            PageFrom::Since(since) => {
                // Whoever asks sees all that is kept, whatever a subscriber would get.
                let start = since.start(self.epoch(), oldest, next);
                page.gap = start.gap;
                let kept = history.from((start.next - oldest) as usize).take(limit);
                page.messages = kept.take_while(&mut fits).cloned().collect();
            }
            PageFrom::Newest(before) => {
                let upto = before.unwrap_or(next).clamp(oldest, next) - oldest;
                let kept = history.from(0).take(upto as usize).rev();
                page.messages = kept.take(limit).take_while(&mut fits).cloned().collect();
            }
        }
        page
    }

    /// Takes other bounds for what it keeps; with 0 messages it keeps nothing. Also whether the caller is to queue it as
    /// idle.
    pub(super) fn set_history(&self, bounds: HistoryBounds) -> (Change, bool) {
        let mut state = lock(&self.shared().state);
        let change = match state.history_mut() {
            Some(history) if history.bounds() == bounds => Change::default(),
            Some(history) if bounds.messages > 0 => history.set_bounds(bounds),
            Some(history) => {
                let change = history.trim(0);
                state.forget_history();
                change
            }
            None if bounds.messages == 0 => Change::default(),
            None => {
                state.more.get_or_insert_default().history = Some(Box::new(History::new(bounds)));
                Change::default()
            }
        };
        (change, state.mark_idle())
    }

    /// The keeper's step: lets go what is too old at `now_ms`, and what is beyond `bytes_max` where that is given.
    pub(super) fn keep(&self, now_ms: u64, bytes_max: Option<u64>) -> Kept {
        let mut state = lock(&self.shared().state);
        let Some(history) = state.history_mut() else { return Kept::default() };
        let expired = history.expire(now_ms);
        let trimmed = bytes_max.map(|most| history.trim(most)).unwrap_or_default();
        let due = history.next_due();
        let gone = history.unlist();
        Kept { expired, trimmed, due, gone, idle: gone && state.mark_idle() }
    }

    /// The offset of the oldest message that can be had; of the next one where none is kept.
    pub fn oldest(&self) -> u64 {
        lock(&self.shared().state).oldest()
    }

    /// Bytes that it keeps.
    pub(super) fn kept_bytes(&self) -> u64 {
        lock(&self.shared().state).history().map_or(0, History::bytes)
    }

    /// One subscriber less.
    pub(super) fn leave(&self, tap: Option<&dyn Tap>) {
        let mut state = lock(&self.shared().state);
        if let Some(tap) = tap.filter(|_| state.subscribers == 1) {
            tap.on_vacated(self);
        }
        state.subscribers = state.subscribers.saturating_sub(1);
    }

    /// The loop has neither a subscriber nor a waiting join any more. True when the topic is now
    /// idle and the caller is to queue it as such.
    pub(super) fn clear_interest(&self, loop_index: usize) -> bool {
        let mut state = lock(&self.shared().state);
        if state.is_interested(loop_index) {
            state.close(loop_index);
        }
        state.mark_idle()
    }

    /// The same, unless a message behind the one whose offset ends in `last` is on its way to the loop. `None`: one is, and
    /// nothing has changed.
    pub(super) fn clear_interest_behind(&self, loop_index: usize, last: u32) -> Option<bool> {
        let mut state = lock(&self.shared().state);
        if offset_end(state.next_offset - 1) != last {
            return None;
        }
        if state.is_interested(loop_index) {
            state.close(loop_index);
        }
        Some(state.mark_idle())
    }

    /// True when nobody is interested and it was not queued as idle yet; it counts as queued now.
    pub(super) fn try_mark_idle(&self) -> bool {
        lock(&self.shared().state).mark_idle()
    }

    /// Takes it off the idle queue. True when it is idle still and therefore retired from now on:
    /// the caller, who holds the directory, forgets it.
    pub(super) fn try_retire(&self) -> bool {
        let mut state = lock(&self.shared().state);
        state.queued_idle = false;
        state.retired = state.interest == 0 && !state.keeps();
        state.retired
    }

    fn shared(&self) -> &Shared {
        &self.0.header.header
    }

    /// A planted fault for the model checker: the interest is read under one lock and written
    /// under another, so that a second loop's bit can get lost.
    #[cfg(test)]
    #[allow(dead_code, reason = "used by tests/loom.rs, which compiles this file too")]
    pub(super) fn join_with_split_lock<M: Mail>(
        &self,
        loop_index: usize,
        join: Join,
        own: &Mailbox<Entry<M>>,
    ) {
        let (interest, locals) = {
            let state = lock(&self.shared().state);
            (state.interest, state.locals().to_vec())
        };
        own.push_join(Entry::Join(join));
        let mut state = lock(&self.shared().state);
        state.interest = interest;
        state.set_locals(locals);
        state.open(loop_index, join.local);
    }

    /// A planted fault for the model checker: the `Join` is pushed after the lock was given up, so
    /// that messages from the returned offset on can come before it.
    #[cfg(test)]
    #[allow(dead_code, reason = "used by tests/loom.rs, which compiles this file too")]
    pub(super) fn join_pushing_late<M: Mail>(
        &self,
        loop_index: usize,
        join: Join,
        own: &Mailbox<Entry<M>>,
    ) -> Joined {
        let next_offset = {
            let mut state = lock(&self.shared().state);
            state.open(loop_index, join.local);
            state.next_offset
        };
        own.push_join(Entry::Join(join));
        let newest = next_offset - 1;
        Joined { epoch: self.epoch(), next_offset, recovered: false, gap: None, behind: false, newest }
    }
}

/// What the keeper finds of a topic.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Kept {
    /// What was too old.
    pub(super) expired: Change,
    /// What was too much.
    pub(super) trimmed: Change,
    /// When there is something to do again, in milliseconds since 1970; `None` for never.
    pub(super) due: Option<u64>,
    /// It keeps nothing any more, and the keeper forgets it.
    pub(super) gone: bool,
    /// The caller is to queue it as idle.
    pub(super) idle: bool,
}

/// Bytes that a topic of a name this long asks of the allocator.
#[must_use]
pub fn allocation(name_bytes: usize) -> usize {
    // In front of a ThinArc's slice: the reference counter, the header and the slice's length.
    2 * size_of::<usize>() + size_of::<Shared>() + name_bytes
}
