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
use std::collections::{BTreeSet, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::ops::Bound;

use super::entry::{Control, Entry, Key};
use super::mailbox::{ControlFull, Mailbox, MailboxLimits};
use super::message::Draft;
use super::name::TopicName;
use super::rules::TopicRules;
use super::state::{JoinRefused, Joined, LOOPS_MAX, PublishRefused, Published, Topic};
use super::sync::{Arc, AtomicU32, Mutex, Ordering, lock};

/// Topics that may exist at once.
pub const TOPICS_MAX: usize = 1_000_000;

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
    /// What may wait for one loop.
    pub mailbox: MailboxLimits,
}

impl Default for RouterLimits {
    fn default() -> Self {
        Self { topics_max: TOPICS_MAX, idle_topics_max: IDLE_TOPICS_MAX, mailbox: MailboxLimits::default() }
    }
}

/// Why a router or a topic could not be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouterError {
    /// No loop, or more than `LOOPS_MAX`.
    LoopCount,
    /// `topics_max` topics exist and none of them is idle.
    TopicsFull,
    /// The topic retired again and again while it was looked up.
    Contended,
}

/// Why a message was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BusyReason {
    /// The mailbox of this loop has no room.
    MailboxFull {
        /// The loop that is behind.
        loop_index: usize,
    },
    /// The topic could not be had.
    Topic(RouterError),
}

/// A refused message: it took no offset, and nobody got it. The caller may try the draft again.
#[derive(Debug)]
pub struct Busy {
    /// Why.
    pub reason: BusyReason,
    /// The message as it was given.
    pub draft: Draft,
}

/// Why a connection could not join.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JoinError {
    /// Too many joins wait in the loop's mailbox or behind its running fan-outs.
    JoinsFull,
    /// The topic could not be had.
    Topic(RouterError),
    /// The topic was retired: look its name up again.
    Retired,
}

/// Routes messages from publishers to loops.
pub struct Router {
    directory: Mutex<Directory>,
    mailboxes: Box<[Mailbox<Entry>]>,
    waker: Box<dyn Wake>,
    rules: Mutex<Arc<TopicRules>>,
    /// The edition of `rules`, for a look without the lock.
    rules_edition: AtomicU32,
    topics_max: usize,
    idle_topics_max: usize,
}

struct Directory {
    /// In the order of names, so that a listing goes on by name and peers, who choose the names, have no hash
    /// to attack.
    topics: BTreeSet<ByName>,
    /// Topics that were idle when they were queued, oldest first; some may be in use again.
    idle: VecDeque<Arc<Topic>>,
    next_id: u64,
    epochs: RandomState,
}

/// A topic under its own name, so that a name is stored once.
struct ByName(Arc<Topic>);

impl Router {
    /// A router for this many loops, without topics.
    pub fn new(loops: usize, limits: RouterLimits, waker: Box<dyn Wake>) -> Result<Self, RouterError> {
        if loops == 0 || loops > LOOPS_MAX {
            return Err(RouterError::LoopCount);
        }
        let directory = Directory {
            topics: BTreeSet::new(),
            idle: VecDeque::new(),
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
        })
    }

    /// How many loops it serves.
    pub fn loops(&self) -> usize {
        self.mailboxes.len()
    }

    /// How many topics exist, idle ones included.
    pub fn topics(&self) -> usize {
        lock(&self.directory).topics.len()
    }

    /// Finds the topic or creates it.
    pub fn topic(&self, name: &TopicName<'_>) -> Result<Arc<Topic>, RouterError> {
        let mut directory = lock(&self.directory);
        if let Some(ByName(topic)) = directory.topics.get(name.as_str()) {
            return Ok(topic.clone());
        }
        while directory.topics.len() >= self.topics_max {
            directory.retire_oldest().then_some(()).ok_or(RouterError::TopicsFull)?;
        }
        let id = directory.next_id;
        directory.next_id += 1;
        // Ids never repeat and the hash is keyed at random, so neither do epochs, restarts included.
        let epoch = directory.epochs.hash_one(id);
        let topic = Arc::new(Topic::new(id, epoch, name));
        directory.topics.insert(ByName(topic.clone()));
        directory.queue_idle(&topic, self.idle_topics_max);
        Ok(topic)
    }

    /// Replaces the rules, for topics that exist too: each looks its policy up when it is next used, so nobody
    /// waits, however many topics and rules there are.
    pub fn set_rules(&self, rules: TopicRules) {
        let mut current = lock(&self.rules);
        let next = rules.following(&current);
        self.rules_edition.store(next.edition(), Ordering::Release);
        *current = Arc::new(next);
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
    pub fn find(&self, name: &TopicName<'_>) -> Option<Arc<Topic>> {
        lock(&self.directory).topics.get(name.as_str()).map(|ByName(topic)| topic.clone())
    }

    /// Up to `count` topics in the order of their names: those that begin with `prefix` and come behind
    /// `after`. Topics that exist all the while are neither skipped nor seen twice by going on from the last
    /// name. The directory is locked for as long as `count` entries take.
    pub fn topics_from(&self, prefix: &str, after: Option<&str>, count: usize) -> Vec<Arc<Topic>> {
        let start = match after.filter(|after| *after >= prefix) {
            Some(after) => Bound::Excluded(after),
            None => Bound::Included(prefix),
        };
        let directory = lock(&self.directory);
        let behind = directory.topics.range::<str, _>((start, Bound::Unbounded));
        let topics = behind.map(|ByName(topic)| topic).take_while(|topic| topic.name().starts_with(prefix));
        topics.take(count).cloned().collect()
    }

    /// Publishes to every subscriber or, when one interested mailbox has no room, to none. A loop
    /// that publishes names itself in `from_loop`: it finds the message in its own mailbox before it
    /// sleeps and is not woken.
    pub fn publish(
        &self,
        topic: &Arc<Topic>,
        mut draft: Draft,
        from_loop: Option<usize>,
    ) -> Result<Published, Busy> {
        let mut found = topic.clone();
        for _ in 0..LOOKUPS_MAX {
            draft = match found.publish(draft, &self.mailboxes) {
                Ok((published, owed)) => {
                    self.wake_owed(owed, from_loop);
                    return Ok(published);
                }
                Err(PublishRefused::Full { loop_index, draft }) => {
                    return Err(Busy { reason: BusyReason::MailboxFull { loop_index }, draft });
                }
                Err(PublishRefused::Retired(draft)) => draft,
            };
            found = match self.topic(&topic.topic_name()) {
                Ok(found) => found,
                Err(error) => return Err(Busy { reason: BusyReason::Topic(error), draft }),
            };
        }
        Err(Busy { reason: BusyReason::Topic(RouterError::Contended), draft })
    }

    /// Subscribes a connection of the calling loop. `local` is the topic's index in that loop's own
    /// table; the loop lists the connection when it drains the `Join`.
    pub fn join(
        &self,
        topic: &Arc<Topic>,
        loop_index: usize,
        local: u32,
        key: Key,
    ) -> Result<Joined, JoinError> {
        let own = self.mailboxes.get(loop_index).ok_or(JoinError::Topic(RouterError::LoopCount))?;
        topic.join(loop_index, local, key, own).map_err(|refused| match refused {
            JoinRefused::Full => JoinError::JoinsFull,
            JoinRefused::Retired => JoinError::Retired,
        })
    }

    /// Counts a subscriber out, listed or still waiting to be.
    pub fn leave(&self, topic: &Topic) {
        topic.leave();
    }

    /// The calling loop has no subscriber and no waiting join on this topic any more. When no other
    /// loop has either, the topic becomes idle.
    pub fn clear_interest(&self, topic: &Arc<Topic>, loop_index: usize) {
        if topic.clear_interest(loop_index) {
            lock(&self.directory).push_idle(topic.clone(), self.idle_topics_max);
        }
    }

    /// A loop's mailbox; only the loop itself drains it.
    pub fn mailbox(&self, loop_index: usize) -> Option<&Mailbox<Entry>> {
        self.mailboxes.get(loop_index)
    }

    /// Sends an order to a loop and wakes it, unless it is the caller.
    pub fn send_control(
        &self,
        loop_index: usize,
        control: Control,
        from_loop: Option<usize>,
    ) -> Result<(), ControlFull> {
        let mailbox = self.mailboxes.get(loop_index).ok_or(ControlFull)?;
        if mailbox.push_control(Entry::Control(control))? {
            self.wake_owed(1 << loop_index, from_loop);
        }
        Ok(())
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
    /// Queues the topic as idle if it is and was not queued before.
    fn queue_idle(&mut self, topic: &Arc<Topic>, idle_max: usize) {
        if topic.try_mark_idle() {
            self.push_idle(topic.clone(), idle_max);
        }
    }

    fn push_idle(&mut self, topic: Arc<Topic>, idle_max: usize) {
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

    /// Takes the oldest topic off the idle queue; true when it was idle still and is retired now.
    fn pop_idle(&mut self) -> bool {
        let Some(topic) = self.idle.pop_front() else { return false };
        let retired = topic.try_retire();
        if retired {
            self.topics.remove(topic.name());
        }
        retired
    }
}

impl Borrow<str> for ByName {
    fn borrow(&self) -> &str {
        self.0.name()
    }
}

impl PartialEq for ByName {
    fn eq(&self, other: &Self) -> bool {
        self.0.name() == other.0.name()
    }
}

impl Eq for ByName {}

impl Ord for ByName {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.name().cmp(other.0.name())
    }
}

impl PartialOrd for ByName {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
