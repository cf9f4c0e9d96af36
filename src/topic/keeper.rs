//! What all histories together may hold, and the keeper, who lets go what is too old or too much. Driven by a thread of
//! its own that may take its time: it locks one topic at a time, and never on the way of a message. Where there is no room
//! for another topic, it makes some.
//!
//! The bound holds at any time: where there is no room for one more message, its topic lets older ones of its own go, or
//! keeps none of it.

use std::cmp::Ordering as Order;
use std::collections::{BTreeSet, BinaryHeap};

use super::entry::Mail;
use super::history::{Change, HistoryBounds};
use super::router::Router;
use super::rules::TopicRules;
use super::state::{Kept, PageFrom, Topic};
use super::sync::{AtomicU32, AtomicU64, Mutex, Ordering, lock};

/// Topics looked up under one lock of the directory.
const TOPICS_PER_LOOK: usize = 256;

/// Where all histories are over their bound, they are trimmed to so many sixteenths of it.
const TRIMMED_TO: u64 = 15;

/// Where there is no room for another topic, so many of those that are only there for what they keep stay, in sixteenths.
const UNUSED_KEPT: usize = 15;

/// Milliseconds between two searches for room: each looks at every topic that keeps something.
const SEARCH_EACH_MS: u64 = 1_000;

/// What all topics keep together.
#[derive(Debug, Default)]
pub struct Histories {
    bytes: AtomicU64,
    messages: AtomicU64,
    bytes_max: AtomicU64,
    trimmed: AtomicU64,
    expired: AtomicU64,
    /// Whether there was no room for a message since the keeper made some: [`NOBODY`], or somebody, [`UNHEARD`] or [`HEARD`].
    wanted: AtomicU32,
    /// Topics that keep something and that the keeper does not know yet.
    newly: Mutex<Vec<Topic>>,
    /// By whom no other topic could be made, and one more; [`ANYBODY`] if by nobody at all, 0 if they can.
    crowded: AtomicU64,
}

const NOBODY: u32 = 0;
const UNHEARD: u32 = 1;
const HEARD: u32 = 2;

/// More than any handle, and one more.
const ANYBODY: u64 = u64::MAX;

impl Histories {
    /// Nothing, and this bound.
    pub fn new(bytes_max: u64) -> Self {
        Self { bytes_max: AtomicU64::new(bytes_max), ..Self::default() }
    }

    /// Bytes that are kept, with what stands beside each message.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Messages that are kept.
    pub fn messages(&self) -> u64 {
        self.messages.load(Ordering::Relaxed)
    }

    /// Bytes there may be.
    pub fn bytes_max(&self) -> u64 {
        self.bytes_max.load(Ordering::Relaxed)
    }

    /// Replaces the bound.
    pub fn set_bytes_max(&self, bytes_max: u64) {
        self.bytes_max.store(bytes_max, Ordering::Relaxed);
    }

    /// Messages let go before their time because all together were too much.
    pub fn trimmed(&self) -> u64 {
        self.trimmed.load(Ordering::Relaxed)
    }

    /// Messages let go because they were too old.
    pub fn expired(&self) -> u64 {
        self.expired.load(Ordering::Relaxed)
    }

    /// Takes room for so many bytes. `false`: there is none, and the keeper is to make some.
    pub(super) fn take(&self, bytes: u64) -> bool {
        let max = self.bytes_max();
        let more = |kept: u64| kept.checked_add(bytes).filter(|sum| *sum <= max);
        let fits = self.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok();
        if !fits && self.wanted.load(Ordering::Relaxed) == NOBODY {
            self.wanted.store(UNHEARD, Ordering::Relaxed);
        }
        fits
    }

    /// There was no room for another topic, of this maker's or at all. The keeper is to be woken.
    pub(super) fn crowd(&self, handle: Option<u32>) {
        let who = handle.map_or(ANYBODY, |handle| 1 + u64::from(handle));
        self.crowded.fetch_max(who, Ordering::Relaxed);
    }

    /// Counts what changed in a topic. Whether the keeper has something to do that it does not know of.
    pub(super) fn count(&self, topic: &Topic, change: Change) -> bool {
        let Change { messages, bytes, unlisted } = change;
        if messages != 0 {
            self.messages.fetch_add(messages as u64, Ordering::Relaxed);
        }
        if unlisted {
            lock(&self.newly).push(topic.clone());
        }
        if bytes != 0 {
            self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        }
        unlisted
            || (self.wanted.load(Ordering::Relaxed) == UNHEARD
                && self.wanted.swap(HEARD, Ordering::Relaxed) == UNHEARD)
    }
}

/// A topic that keeps something, and when to look at it again.
#[derive(Debug)]
struct Due {
    /// Milliseconds since 1970; the end of time for never.
    at_ms: u64,
    topic: Topic,
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.at_ms == other.at_ms
    }
}

impl Eq for Due {}

impl Ord for Due {
    /// The soonest is the greatest.
    fn cmp(&self, other: &Self) -> Order {
        other.at_ms.cmp(&self.at_ms)
    }
}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<Order> {
        Some(self.cmp(other))
    }
}

/// Looks after everything that is kept.
#[derive(Debug, Default)]
pub struct Keeper {
    /// Each topic that keeps something, once.
    topics: BinaryHeap<Due>,
    /// The edition of rules that every topic's bounds are of.
    rules_edition: u32,
    /// When it may look for room again, in milliseconds since 1970.
    search_at_ms: u64,
}

impl Keeper {
    /// A keeper that knows of nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Does all there is to do at `now_ms`, milliseconds since 1970. When it is to be called again at the latest, by
    /// the same clock; `None`: when it is woken.
    pub fn turn<M: Mail>(&mut self, router: &Router<M>, now_ms: u64) -> Option<u64> {
        let rules = router.rules();
        if rules.edition() != self.rules_edition {
            self.rules_edition = rules.edition();
            set_bounds(router, &rules);
            // They may be due sooner than before.
            let known = std::mem::take(&mut self.topics).into_iter();
            self.topics = known.map(|due| Due { at_ms: 0, ..due }).collect();
        }
        let newly = std::mem::take(&mut *lock(&router.histories().newly));
        self.topics.extend(newly.into_iter().map(|topic| Due { at_ms: 0, topic }));
        while self.topics.peek().is_some_and(|due| due.at_ms <= now_ms) {
            let Some(Due { topic, .. }) = self.topics.pop() else { break };
            let kept = topic.keep(now_ms, None);
            settle(router, &topic, kept);
            if !kept.gone {
                self.topics.push(Due { at_ms: kept.due.unwrap_or(u64::MAX), topic });
            }
        }
        let histories = router.histories();
        let wanted = histories.wanted.swap(NOBODY, Ordering::Relaxed) != NOBODY;
        if wanted || histories.bytes() >= histories.bytes_max() {
            self.trim(router, now_ms);
        }
        let crowded = router.histories().crowded.load(Ordering::Relaxed) > 0;
        if crowded && now_ms >= self.search_at_ms {
            self.search_at_ms = now_ms + SEARCH_EACH_MS;
            self.make_room(router);
        }
        self.topics.shrink_to(self.topics.len() * 2);
        let search =
            Some(self.search_at_ms).filter(|_| router.histories().crowded.load(Ordering::Relaxed) > 0);
        let due = self.topics.peek().map(|due| due.at_ms).filter(|at| *at < u64::MAX);
        [search, due].into_iter().flatten().min()
    }

    /// Makes room for other topics: of those that are only there for what they keep, whose last message is the oldest
    /// let it go, and are idle then as every topic that nobody wants.
    fn make_room<M: Mail>(&mut self, router: &Router<M>) {
        let who = router.histories().crowded.swap(0, Ordering::Relaxed);
        let topics = self.topics.iter().map(|due| &due.topic);
        let topics = topics.filter(|topic| who == ANYBODY || who == 1 + u64::from(topic.maker()));
        let mut unused: Vec<_> =
            topics.filter_map(|topic| Some((unused_since(topic)?, topic.clone()))).collect();
        unused.sort_unstable_by_key(|(since, _)| *since);
        let goes = unused.len() - unused.len() * UNUSED_KEPT / 16;
        let mut gone = BTreeSet::new();
        for (_, topic) in unused.into_iter().take(goes) {
            let kept = topic.keep(0, Some(0));
            settle(router, &topic, kept);
            if kept.gone {
                gone.insert(topic.id());
            }
        }
        self.topics.retain(|due| !gone.contains(&due.topic.id()));
    }

    /// Brings all together below the bound: the largest are cut to one size, the smaller ones keep what they have.
    fn trim<M: Mail>(&mut self, router: &Router<M>, now_ms: u64) {
        let goal = router.histories().bytes_max() / 16 * TRIMMED_TO;
        let mut sizes: Vec<u64> = self.topics.iter().map(|due| due.topic.kept_bytes()).collect();
        let most = level(&mut sizes, goal);
        let known = std::mem::take(&mut self.topics).into_iter();
        self.topics = known
            .filter_map(|Due { topic, .. }| {
                let kept = topic.keep(now_ms, Some(most));
                settle(router, &topic, kept);
                (!kept.gone).then(|| Due { at_ms: kept.due.unwrap_or(u64::MAX), topic })
            })
            .collect();
    }
}

/// When the last message was published, in milliseconds since 1970, if the topic is only there for what it keeps.
fn unused_since(topic: &Topic) -> Option<u64> {
    let newest = topic.page(PageFrom::Newest(None), 1, usize::MAX).messages.pop()?;
    (topic.subscribers() == 0).then(|| newest.time_ms())
}

/// The size to which the largest have to be cut so that all together have at most `goal`.
fn level(sizes: &mut [u64], goal: u64) -> u64 {
    sizes.sort_unstable();
    let mut left = goal;
    let mut count = sizes.len() as u64;
    for &size in sizes.iter() {
        // All from here on have at least this; where that is too much, they share what is left.
        if size.saturating_mul(count) > left {
            return left / count;
        }
        left -= size;
        count -= 1;
    }
    u64::MAX
}

/// Gives every topic the bounds that the rules have for it.
fn set_bounds<M: Mail>(router: &Router<M>, rules: &TopicRules) {
    let mut after: Option<String> = None;
    loop {
        let topics = router.topics_from("", after.as_deref(), TOPICS_PER_LOOK);
        for topic in &topics {
            let (change, idle) = topic.set_history(bounds(topic, rules));
            if change != Change::default() || idle {
                settle(router, topic, Kept { trimmed: change, idle, ..Kept::default() });
            }
        }
        match topics.last() {
            Some(last) if topics.len() == TOPICS_PER_LOOK => after = Some(last.name().to_owned()),
            _ => return,
        }
    }
}

fn bounds(topic: &Topic, rules: &TopicRules) -> HistoryBounds {
    topic.policy(rules).history
}

fn settle<M: Mail>(router: &Router<M>, topic: &Topic, kept: Kept) {
    let histories = router.histories();
    for (change, counter) in [(kept.expired, &histories.expired), (kept.trimmed, &histories.trimmed)] {
        counter.fetch_add(change.messages.unsigned_abs(), Ordering::Relaxed);
        histories.count(topic, change);
    }
    if kept.idle {
        router.queue_idle(topic);
    }
}

#[cfg(test)]
mod tests {
    use super::level;

    #[test]
    fn the_largest_are_cut_first_and_to_one_size() {
        assert_eq!(level(&mut [], 5), u64::MAX);
        assert_eq!(level(&mut [3, 4], 7), u64::MAX);
        assert_eq!(level(&mut [10, 1, 2], 12), 9);
        assert_eq!(level(&mut [10, 9, 2], 12), 5);
        assert_eq!(level(&mut [10, 10, 10], 0), 0);
        for goal in 0..40 {
            let mut sizes = [7, 1, 12, 0, 5, 9];
            let most = level(&mut sizes, goal);
            assert!(sizes.iter().map(|size| size.min(&most)).sum::<u64>() <= goal, "{goal}: {most}");
        }
    }
}
