//! Finds topics by name and carries messages to the loops that have a subscriber. Shared by every
//! thread; owns the directory of topics, the mailboxes and the way to wake a loop. Never touches a
//! connection, never writes to a socket, never wakes the loop that publishes. It holds
//! the rules that say what holds for which topic.
//!
//! Lock order: directory → topic → mailbox. A loop is woken when no lock is held.
//!
//! A topic nobody is interested in stays in the directory, so that its offsets go on when somebody
//! comes back; the oldest of these retire when there are too many. A retired topic is never used
//! again: whoever still holds it finds out under its lock and looks the name up once more.

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet, VecDeque, btree_map};
use std::hash::{BuildHasher, RandomState};
use std::ops::Bound;
use std::sync::OnceLock;

use super::entry::{Entry, Join, Mail, Reply};
use super::history::Change;
use super::interest::bit;
use super::keeper::Histories;
use super::level_pattern::LevelPattern;
use super::mailbox::{Mailbox, MailboxLimits, ReserveFull};
use super::message::{Draft, Message};
use super::name::TopicName;
use super::patterns::{PATTERNS_MAX, Patterns, Unwatched};
use super::position::Since;
use super::rules::TopicRules;
use super::state::{CaughtUp, Joined, LOOPS_MAX, PublishRefused, Published, Rank, Topic};
use super::sync::{Arc, AtomicU32, Mutex, Ordering, lock};
use super::tap::Tap;

/// Topics that may exist at once where nobody says.
const TOPICS_MAX: usize = 1_000_000;

/// Joins of one loop that may wait where nobody says.
const JOINS_MAX: usize = 65_536;

/// Bytes that all topics may keep of their messages where nobody says.
const HISTORY_BYTES_MAX: u64 = 256 << 20;

/// Topics kept although nobody is interested, so that their offsets go on.
pub const IDLE_TOPICS_MAX: usize = 1_024;

/// How often a publish or a join looks a name up again because the topic retired under its hands.
pub(super) const LOOKUPS_MAX: usize = 16;

/// Interrupts a loop's poll. The event loops implement it; it must be callable from every thread.
pub trait Wake: Send + Sync {
    /// Makes the loop's current or next poll return.
    fn wake(&self, loop_index: usize);
}

/// The named bounds of a router.
#[derive(Clone, Copy, Debug)]
pub struct RouterLimits {
    /// Topics that may exist at once.
    pub topics_max: usize,
    /// Topics kept although nobody is interested.
    pub idle_topics_max: usize,
    /// Joins of one loop that may wait before newcomers do.
    pub joins_max: usize,
    /// Patterns that may be subscribed to at once.
    pub patterns_max: usize,
    /// Bytes that all topics together may keep of their messages.
    pub history_bytes_max: u64,
    /// What may wait for one loop.
    pub mailbox: MailboxLimits,
}

impl Default for RouterLimits {
    fn default() -> Self {
        Self {
            topics_max: TOPICS_MAX,
            idle_topics_max: IDLE_TOPICS_MAX,
            joins_max: JOINS_MAX,
            patterns_max: PATTERNS_MAX,
            history_bytes_max: HISTORY_BYTES_MAX,
            mailbox: MailboxLimits::default(),
        }
    }
}

/// Why a router or a topic could not be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouterError {
    /// No loop, or more than `LOOPS_MAX`.
    LoopCount,
    /// `topics_max` topics exist and none of them is idle. If some are only there for what they keep, the keeper makes
    /// room.
    TopicsFull,
    /// `patterns_max` patterns are subscribed to.
    PatternsFull,
    /// As many topics exist as were made for this client's address and may be.
    ShareFull,
    /// Its address makes topics or patterns too fast.
    TooFast,
    /// The topic retired again and again while it was looked up.
    Contended,
}

/// A refused message: it took no offset, and nobody got it. The caller may try the draft again.
#[derive(Debug)]
pub struct Busy {
    /// The loop in whose mailbox there was no room; `None` if the topic could not be had.
    pub full: Option<usize>,
    /// The message as it was given.
    pub draft: Draft,
}

/// For whom a topic is looked up that may have to be made first.
pub trait Maker {
    /// What it is counted by; 0 for nobody.
    fn handle(&self) -> u32;
    /// Topics of its handle that may exist at once.
    fn topics_max(&self) -> usize;
    /// Asked, with the directory locked, before one is made: whether its rate allows that.
    fn may_make(&self) -> bool;
}

/// The operator makes as many topics as there may be.
#[derive(Clone, Copy, Debug)]
pub struct Operator;

impl Maker for Operator {
    fn handle(&self) -> u32 {
        0
    }

    fn topics_max(&self) -> usize {
        usize::MAX
    }

    fn may_make(&self) -> bool {
        true
    }
}

/// Routes messages from publishers to loops.
pub struct Router<M: Mail> {
    directory: Mutex<Directory>,
    mailboxes: Box<[Mailbox<Entry<M>>]>,
    waker: Box<dyn Wake>,
    rules: Mutex<Arc<TopicRules>>,
    /// The edition of `rules`, for a look without the lock.
    rules_edition: AtomicU32,
    topics_max: usize,
    idle_topics_max: usize,
    joins_max: usize,
    patterns: Patterns,
    histories: Histories,
    /// Called when the keeper has something to do.
    keeper: Mutex<Option<Box<dyn Fn() + Send>>>,
    /// Hears what happens to topics, if somebody does.
    tap: OnceLock<Box<dyn Tap>>,
}

struct Directory {
    /// In the order of names, so that a listing goes on by name and peers, who choose the names, have no hash
    /// to attack.
    topics: BTreeSet<ByName>,
    /// Topics that were idle when they were queued, oldest first; some may be in use again.
    idle: VecDeque<Topic>,
    /// What was made for each handle that is counted.
    made: BTreeMap<u32, Made>,
    next_id: u64,
    epochs: RandomState,
}

/// Topics made for one handle.
#[derive(Clone, Copy, Debug, Default)]
struct Made {
    /// All there are.
    topics: u32,
    /// Of these, those in the queue of idle ones.
    queued: u32,
}

/// A topic under its own name, so that a name is stored once.
struct ByName(Topic);

impl<M: Mail> Router<M> {
    /// A router for this many loops, without topics.
    pub fn new(loops: usize, limits: RouterLimits, waker: Box<dyn Wake>) -> Result<Self, RouterError> {
        if loops == 0 || loops > LOOPS_MAX {
            return Err(RouterError::LoopCount);
        }
        let directory = Directory {
            topics: BTreeSet::new(),
            idle: VecDeque::new(),
            made: BTreeMap::new(),
            next_id: 1,
            epochs: RandomState::new(),
        };
        let none = TopicRules::default();
        let rules = none.clone().following(&none);
        Ok(Self {
            rules_edition: AtomicU32::new(rules.edition()),
            rules: Mutex::new(Arc::new(rules)),
            directory: Mutex::new(directory),
            mailboxes: (0..loops).map(|_| Mailbox::new(limits.mailbox)).collect(),
            waker,
            topics_max: limits.topics_max.max(1),
            // With none at all a topic would retire before its first join.
            idle_topics_max: limits.idle_topics_max.max(1),
            joins_max: limits.joins_max.max(1),
            patterns: Patterns::new(limits.patterns_max),
            histories: Histories::new(limits.history_bytes_max),
            keeper: Mutex::new(None),
            tap: OnceLock::new(),
        })
    }

    /// What all topics keep together.
    pub fn histories(&self) -> &Histories {
        &self.histories
    }

    /// `wake` is called from now on when a [`Keeper`](super::keeper::Keeper) is to have a turn before the time it said.
    pub fn set_keeper(&self, wake: Box<dyn Fn() + Send>) {
        *lock(&self.keeper) = Some(wake);
    }

    /// `tap` hears from now on what happens to topics. There is one at most: a second one is not taken.
    pub fn set_tap(&self, tap: Box<dyn Tap>) -> Result<(), Box<dyn Tap>> {
        self.tap.set(tap)
    }

    /// Who hears what happens to this topic. One that tells who is on another is nobody's business.
    fn tap_of(&self, topic: &Topic) -> Option<&dyn Tap> {
        self.tap.get().filter(|_| !topic.is_of_presence()).map(|tap| &**tap)
    }

    /// Wakes whoever keeps what topics keep.
    #[cold]
    fn wake_keeper(&self) {
        if let Some(wake) = &*lock(&self.keeper) {
            wake();
        }
    }

    /// How many loops it serves.
    pub fn loops(&self) -> usize {
        self.mailboxes.len()
    }

    /// How many topics exist, idle ones included.
    pub fn topics(&self) -> usize {
        lock(&self.directory).topics.len()
    }

    /// Joins of one loop that may wait before newcomers do.
    pub fn joins_max(&self) -> usize {
        self.joins_max
    }

    /// Finds the topic or creates it for the operator.
    pub fn topic(&self, name: &TopicName<'_>) -> Result<Topic, RouterError> {
        self.topic_for(name, &Operator)
    }

    /// Finds the topic or creates it for `maker`, who is counted until the topic retires: what others do with it
    /// meanwhile, it can't know.
    pub fn topic_for(&self, name: &TopicName<'_>, maker: &dyn Maker) -> Result<Topic, RouterError> {
        let mut directory = lock(&self.directory);
        if let Some(ByName(topic)) = directory.topics.get(name.as_str().as_bytes()) {
            return Ok(topic.clone());
        }
        let handle = maker.handle();
        while directory.made_for(handle) >= maker.topics_max() {
            if !directory.retire_oldest_of(handle) {
                self.histories.crowd(Some(handle));
                self.wake_keeper();
                return Err(RouterError::ShareFull);
            }
        }
        while directory.topics.len() >= self.topics_max {
            if !directory.retire_oldest() {
                self.histories.crowd(None);
                self.wake_keeper();
                return Err(RouterError::TopicsFull);
            }
        }
        if !maker.may_make() {
            return Err(RouterError::TooFast);
        }
        let id = directory.next_id;
        directory.next_id += 1;
        // Ids never repeat and the hash is keyed at random, so neither do epochs, restarts included.
        let epoch = directory.epochs.hash_one(id);
        let topic = Topic::new(id, epoch, name, handle);
        let history = topic.policy(&lock(&self.rules)).history;
        // Whoever gives it a history marks it as idle, too.
        let marked = history.messages > 0 && topic.set_history(history).1;
        directory.insert(&topic);
        if marked || topic.try_mark_idle() {
            directory.push_idle(topic.clone(), self.idle_topics_max);
        }
        Ok(topic)
    }

    /// Replaces the rules, for topics that exist too: each looks its policy up when it is next used, so nobody
    /// waits, however many topics and rules there are.
    pub fn set_rules(&self, rules: TopicRules) {
        let mut current = lock(&self.rules);
        let next = rules.following(&current);
        self.rules_edition.store(next.edition(), Ordering::Release);
        *current = Arc::new(next);
        drop(current);
        // It gives topics that exist what the new rules say of their histories.
        self.wake_keeper();
    }

    /// The rules in force. Locks them; a loop keeps its own reference and asks [`Self::rules_if_new`].
    pub fn rules(&self) -> Arc<TopicRules> {
        lock(&self.rules).clone()
    }

    /// The rules in force if they are others than `known`; a look at one number if they are not.
    pub fn rules_if_new(&self, known: &TopicRules) -> Option<Arc<TopicRules>> {
        (self.rules_edition.load(Ordering::Acquire) != known.edition()).then(|| self.rules())
    }

    /// Finds the topic if it exists.
    pub fn find(&self, name: &TopicName<'_>) -> Option<Topic> {
        lock(&self.directory).topics.get(name.as_str().as_bytes()).map(|ByName(topic)| topic.clone())
    }

    /// Up to `count` topics in the order of their names: those that begin with `prefix` and come behind
    /// `after`. Topics that exist all the while are neither skipped nor seen twice by going on from the last
    /// name. The directory is locked for as long as `count` entries take.
    pub fn topics_from(&self, prefix: &str, after: Option<&str>, count: usize) -> Vec<Topic> {
        // The order of bytes is the order of UTF-8 text.
        let start = match after.filter(|after| *after >= prefix) {
            Some(after) => Bound::Excluded(after.as_bytes()),
            None => Bound::Included(prefix.as_bytes()),
        };
        let directory = lock(&self.directory);
        let behind = directory.topics.range::<[u8], _>((start, Bound::Unbounded));
        let topics = behind
            .map(|ByName(topic)| topic)
            .take_while(|topic| topic.name_bytes().starts_with(prefix.as_bytes()));
        topics.take(count).cloned().collect()
    }

    /// Publishes to every subscriber or, when one interested mailbox has no room, to none. A loop
    /// that publishes names itself in `from_loop`: it finds the message in its own mailbox before it
    /// sleeps and is not woken.
    pub fn publish(&self, topic: &Topic, draft: Draft, from_loop: Option<usize>) -> Result<Published, Busy> {
        self.publish_as(topic, draft, from_loop, Rank::USUAL)
    }

    /// Nobody who comes first waits for room any more, in whichever mailbox.
    pub fn end_first(&self) {
        self.mailboxes.iter().for_each(Mailbox::end_first);
    }

    // Inlined, because a call with all that it gives back costs as much as a small message's encoding.
    /// The same in a turn of its own: who waits for room comes before who has just come.
    #[inline(always)]
    pub fn publish_as(
        &self,
        topic: &Topic,
        draft: Draft,
        from_loop: Option<usize>,
        rank: Rank,
    ) -> Result<Published, Busy> {
        self.publish_and(topic, draft, from_loop, rank, |_, _| {})
    }

    /// The same, and `told` hears of it under the topic's lock, with the message as it has its place there: what it hears of one
    /// topic comes in the order of the offsets. It must not block or lock a topic.
    #[inline(always)]
    pub fn publish_and(
        &self,
        topic: &Topic,
        draft: Draft,
        from_loop: Option<usize>,
        rank: Rank,
        told: impl Fn(&Topic, &Message),
    ) -> Result<Published, Busy> {
        let room = |bytes| self.histories.take(bytes);
        match topic.publish(draft, &self.mailboxes, rank, room, &self.patterns, &told) {
            Ok((published, owed, change)) => {
                self.published(topic, owed, change, from_loop);
                Ok(published)
            }
            Err(PublishRefused::Full { loop_index, draft }) => Err(Busy { full: Some(loop_index), draft }),
            Err(PublishRefused::Retired(draft)) => self.publish_anew(topic, draft, from_loop, rank, &told),
        }
    }

    /// The topic is retired: publishes to the one that has its name now.
    #[cold]
    fn publish_anew(
        &self,
        retired: &Topic,
        mut draft: Draft,
        from_loop: Option<usize>,
        rank: Rank,
        told: &dyn Fn(&Topic, &Message),
    ) -> Result<Published, Busy> {
        for _ in 1..LOOKUPS_MAX {
            let Ok(found) = self.topic(&retired.topic_name()) else { break };
            let room = |bytes| self.histories.take(bytes);
            draft = match found.publish(draft, &self.mailboxes, rank, room, &self.patterns, told) {
                Ok((published, owed, change)) => {
                    self.published(&found, owed, change, from_loop);
                    return Ok(published);
                }
                Err(PublishRefused::Full { loop_index, draft }) => {
                    return Err(Busy { full: Some(loop_index), draft });
                }
                Err(PublishRefused::Retired(draft)) => draft,
            };
        }
        Err(Busy { full: None, draft })
    }

    /// What is to be done behind a publish, when no lock is held.
    #[inline(always)]
    fn published(&self, topic: &Topic, owed: u64, change: Option<Change>, from_loop: Option<usize>) {
        if change.is_some_and(|change| self.histories.count(topic, change)) {
            self.wake_keeper();
        }
        self.wake_owed(owed, from_loop);
    }

    /// Reads on in what the topic keeps, for a subscriber of the calling loop that is to be listed when it has all of
    /// it. At most as many messages and bytes as `bounds` says go `into` the list. `None`: the loop is none of the router's.
    pub fn catch_up(
        &self,
        topic: &Topic,
        next: u64,
        loop_index: usize,
        join: Join,
        bounds: (usize, usize),
        into: &mut Vec<Message>,
    ) -> Option<CaughtUp> {
        Some(topic.catch_up(next, join, self.mailboxes.get(loop_index)?, bounds, into))
    }

    /// Queues a topic as idle that was marked so.
    pub(super) fn queue_idle(&self, topic: &Topic) {
        lock(&self.directory).push_idle(topic.clone(), self.idle_topics_max);
    }

    /// Subscribes a connection of the calling loop, which lists it when it drains the join. `None`: the topic is
    /// retired, or the loop is none of the router's.
    pub fn join(&self, topic: &Topic, loop_index: usize, join: Join, since: Since) -> Option<Joined> {
        topic.join(loop_index, join, since, self.mailboxes.get(loop_index)?, self.tap_of(topic))
    }

    /// Counts a subscriber out, listed or still waiting to be.
    pub fn leave(&self, topic: &Topic) {
        topic.leave(self.tap_of(topic));
    }

    /// The calling loop has no subscriber and no waiting join on this topic any more. When no other
    /// loop has either, the topic becomes idle.
    pub fn clear_interest(&self, topic: &Topic, loop_index: usize) {
        if topic.clear_interest(loop_index) {
            self.queue_idle(topic);
        }
    }

    /// The same, unless a message behind the one whose offset ends in `last` is on its way to the loop. `false`: one is.
    pub(super) fn clear_interest_behind(&self, topic: &Topic, loop_index: usize, last: u32) -> bool {
        let cleared = topic.clear_interest_behind(loop_index, last);
        if cleared == Some(true) {
            self.queue_idle(topic);
        }
        cleared.is_some()
    }

    /// The calling loop has a subscriber of the pattern: what is published from now on to any topic of it comes to its
    /// mailbox, too. Returns the pattern's id. A pattern that nobody else has is made for `maker`.
    pub(super) fn watch(
        &self,
        pattern: &LevelPattern,
        loop_index: usize,
        maker: &dyn Maker,
    ) -> Result<u64, RouterError> {
        self.patterns.watch(pattern, bit(loop_index), || maker.may_make()).map_err(|why| match why {
            Unwatched::Full => RouterError::PatternsFull,
            Unwatched::TooFast => RouterError::TooFast,
        })
    }

    /// The calling loop has no subscriber of the pattern any more.
    pub(super) fn unwatch(&self, pattern: &LevelPattern, loop_index: usize) {
        self.patterns.unwatch(pattern, bit(loop_index));
    }

    /// How many patterns are subscribed to.
    pub fn patterns(&self) -> usize {
        self.patterns.count()
    }

    /// A loop's mailbox; only the loop itself drains it.
    pub fn mailbox(&self, loop_index: usize) -> Option<&Mailbox<Entry<M>>> {
        self.mailboxes.get(loop_index)
    }

    /// Sends an order to a loop and wakes it, unless it is the caller.
    pub fn send_control(
        &self,
        loop_index: usize,
        control: M::Control,
        from_loop: Option<usize>,
    ) -> Result<(), ReserveFull> {
        let mailbox = self.mailboxes.get(loop_index).ok_or(ReserveFull)?;
        if mailbox.push_control(Entry::Control(control))? {
            self.wake_owed(1 << loop_index, from_loop);
        }
        Ok(())
    }

    /// Takes the room of one reply in a loop's mailbox; whoever asks a question does so first.
    pub fn reserve_reply(&self, loop_index: usize) -> Result<(), ReserveFull> {
        self.mailboxes
            .get(loop_index)
            .filter(|mailbox| mailbox.try_reserve_reply())
            .map(drop)
            .ok_or(ReserveFull)
    }

    /// Gives the room of one reply back that will not come.
    pub fn release_reply(&self, loop_index: usize) {
        if let Some(mailbox) = self.mailboxes.get(loop_index) {
            mailbox.release_reply();
        }
    }

    /// Sends a reply whose room was reserved, and wakes the loop unless it is the caller.
    pub fn send_reply(&self, loop_index: usize, reply: Reply<M::Reply>, from_loop: Option<usize>) {
        let Some(mailbox) = self.mailboxes.get(loop_index) else { return };
        if mailbox.push_reply(Entry::Reply(Box::new(reply))) {
            self.wake_owed(1 << loop_index, from_loop);
        }
    }

    /// Sends the answer of a service to a loop that has asked, and wakes it. As many may wait as the loop asks.
    pub fn send_answer(&self, loop_index: usize, answer: Reply<M::Reply>) {
        let Some(mailbox) = self.mailboxes.get(loop_index) else { return };
        if mailbox.push_answer(Entry::Reply(Box::new(answer))) {
            self.wake_owed(1 << loop_index, None);
        }
    }

    fn wake_owed(&self, mut owed: u64, from_loop: Option<usize>) {
        if let Some(own) = from_loop.filter(|own| *own < LOOPS_MAX) {
            owed &= !(1 << own);
        }
        while owed != 0 {
            self.waker.wake(owed.trailing_zeros() as usize);
            owed &= owed - 1;
        }
    }
}

impl Directory {
    fn made_for(&self, handle: u32) -> usize {
        self.made.get(&handle).map_or(0, |made| made.topics as usize)
    }

    fn insert(&mut self, topic: &Topic) {
        self.topics.insert(ByName(topic.clone()));
        if topic.maker() != 0 {
            self.made.entry(topic.maker()).or_default().topics += 1;
        }
    }

    fn remove(&mut self, topic: &Topic) {
        self.topics.remove(topic.name_bytes());
        if let btree_map::Entry::Occupied(mut made) = self.made.entry(topic.maker()) {
            made.get_mut().topics -= 1;
            if made.get().topics == 0 {
                made.remove();
            }
        }
    }

    fn push_idle(&mut self, topic: Topic, idle_max: usize) {
        if let Some(made) = self.made.get_mut(&topic.maker()) {
            made.queued += 1;
        }
        self.idle.push_back(topic);
        while self.idle.len() > idle_max {
            self.pop_idle();
        }
    }

    /// Retires the topic that has been idle for longest; false when there is none.
    fn retire_oldest(&mut self) -> bool {
        while !self.idle.is_empty() {
            if self.pop_idle() {
                return true;
            }
        }
        false
    }

    /// Retires the topic of this handle that has been idle for longest; false when it has none. Those that are in use
    /// again leave the queue, so that nobody makes this look at them twice.
    fn retire_oldest_of(&mut self, handle: u32) -> bool {
        let mut at = 0;
        while self.made.get(&handle).is_some_and(|made| made.queued > 0) {
            match self.idle.get(at) {
                Some(topic) if topic.maker() != handle => at += 1,
                Some(_) => {
                    if self.take_idle(at) {
                        return true;
                    }
                }
                None => break,
            }
        }
        false
    }

    /// Takes the oldest topic off the idle queue; true when it was idle still and is retired now.
    fn pop_idle(&mut self) -> bool {
        self.take_idle(0)
    }

    fn take_idle(&mut self, at: usize) -> bool {
        let Some(topic) = self.idle.remove(at) else { return false };
        if let Some(made) = self.made.get_mut(&topic.maker()) {
            made.queued -= 1;
        }
        let retired = topic.try_retire();
        if retired {
            self.remove(&topic);
        }
        retired
    }
}

impl Borrow<[u8]> for ByName {
    fn borrow(&self) -> &[u8] {
        self.0.name_bytes()
    }
}

impl PartialEq for ByName {
    fn eq(&self, other: &Self) -> bool {
        self.0.name_bytes() == other.0.name_bytes()
    }
}

impl Eq for ByName {}

impl Ord for ByName {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.name_bytes().cmp(other.0.name_bytes())
    }
}

impl PartialOrd for ByName {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
