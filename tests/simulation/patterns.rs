//! What subscriptions by pattern owe a peer that speaks JSON: each message of each topic that one of them means, once, however
//! many mean it and whether or not the peer subscribes to the topic, too, from the answer on until it leaves; of topics that
//! come and go meanwhile as of those that stay. The topics that come and go are here, too.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use fantail::topic::{LevelPattern, SlowPolicy};

use super::check::Missing;
use super::world::{Checked, World};

/// What peers subscribe to.
pub(crate) const PATTERNS: [&str; 7] = ["*", "**", "v/*", "v/**", "*/b", "v/a/*", "*/*"];

/// Topics that nobody subscribes to by name: they come with a message, and go when others idle.
pub(crate) const PASSING: [&str; 5] = ["v/a", "v/b", "w/b", "v/a/x", "v/a/b/c"];

/// The moments of a command: how much was published when everything was delivered last before it was written, and when the
/// answer to it was read. What was published between may come: it was on its way, perhaps.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moments {
    pub(crate) rested: u64,
    pub(crate) answered: u64,
}

/// What came of one topic, and what had to.
#[derive(Debug, Default)]
struct Heard {
    came: BTreeSet<u64>,
    /// The newest of it.
    last: u64,
    /// Nothing is owed up to this one.
    forgiven: u64,
    /// The first offset that any subscription to the topic itself began at: what follows is counted there.
    own_from: Option<u64>,
    /// When the last answer was read to a subscription to the topic itself that went on from a place. What was published
    /// before may have been dropped on its way by a pattern, and counted, and was read from there all the same.
    resumed: u64,
    /// What came by a pattern.
    by_pattern: BTreeSet<u64>,
    /// Had to come, unless it was dropped and counted.
    owed: BTreeSet<u64>,
    /// Might have come.
    allowed: BTreeSet<u64>,
}

/// A peer's subscriptions by pattern, as its conversation is gone through.
pub(crate) struct Watches<'a> {
    world: &'a World,
    id: usize,
    open: BTreeMap<usize, Moments>,
    heard: HashMap<usize, Heard>,
    /// Names of the topics of which messages are missing, as it was told, before the next one.
    told: HashSet<String>,
}

impl<'a> Watches<'a> {
    pub(crate) fn new(world: &'a World, id: usize) -> Self {
        Self { world, id, open: BTreeMap::new(), heard: HashMap::new(), told: HashSet::new() }
    }

    pub(crate) fn has(&self, pattern: usize) -> bool {
        self.open.contains_key(&pattern)
    }

    /// Whether an open one means a topic of this name.
    pub(crate) fn mean(&self, name: &str) -> bool {
        self.open.keys().any(|pattern| fits(*pattern, name))
    }

    /// Whether it is possible that messages of a topic are missing that a subscription to the topic itself does not owe.
    pub(crate) fn may_miss(&self, topic: usize) -> bool {
        self.mean(self.world.topics[topic].name()) || self.heard.contains_key(&topic)
    }

    /// It was told that messages are missing. Whether one that is open means the topic.
    pub(crate) fn on_gap(&mut self, name: &str) -> bool {
        let mean = self.mean(name);
        if mean {
            self.told.insert(name.to_owned());
        }
        mean
    }

    pub(crate) fn on_subscribed(&mut self, pattern: usize, moments: Moments) {
        self.open.insert(pattern, moments);
    }

    /// It has left one: what was published and not delivered yet is nobody's.
    pub(crate) fn on_unsubscribed(&mut self, pattern: usize) {
        if let Some(moments) = self.open.remove(&pattern) {
            self.settle(pattern, moments, false);
        }
    }

    /// It has subscribed to a topic itself, from `first` on. Whoever goes on from a place has what is before it.
    pub(crate) fn on_joined(&mut self, topic: usize, first: u64, resumes: bool, moments: Moments) {
        let heard = self.heard.entry(topic).or_default();
        heard.own_from = Some(heard.own_from.map_or(first, |own| own.min(first)));
        if resumes {
            heard.resumed = moments.answered;
            self.forgive(topic, first - 1);
        }
    }

    /// It has left a topic itself. Where no pattern means it, what still waits does not come.
    pub(crate) fn on_left(&mut self, topic: usize, moments: Moments) {
        if !self.mean(self.world.topics[topic].name()) {
            let log = &self.world.truth[topic];
            let until = log.iter().take_while(|message| message.at <= moments.answered).count();
            self.forgive(topic, until as u64);
        }
    }

    /// Nothing is owed any more up to this offset.
    fn forgive(&mut self, topic: usize, until: u64) {
        let heard = self.heard.entry(topic).or_default();
        heard.owed = heard.owed.split_off(&(until + 1));
        heard.forgiven = heard.forgiven.max(until);
    }

    /// A message came that is due to a subscription to the topic itself.
    pub(crate) fn on_own(&mut self, topic: usize, offset: u64) {
        self.told.remove(self.world.topics[topic].name());
        let heard = self.heard.entry(topic).or_default();
        heard.came.insert(offset);
        heard.last = heard.last.max(offset);
    }

    /// A message came that is due to none.
    pub(crate) fn on_message(&mut self, topic: usize, offset: u64) -> Checked {
        let (id, name, log) = (self.id, self.world.topics[topic].name(), &self.world.truth[topic]);
        let told = self.told.remove(name);
        let at = |offset: u64| log[offset as usize - 1].at;
        let means = |pattern: usize| fits(pattern, name);
        if !self.open.iter().any(|(pattern, moments)| means(*pattern) && moments.rested < at(offset)) {
            let (at, open, own) = (at(offset), &self.open, self.heard.get(&topic));
            return Err(format!(
                "peer {id} got {offset} of {name}, published at {at}, without asking for it: {open:?}, {own:?}"
            ));
        }
        let heard = self.heard.entry(topic).or_default();
        if offset <= heard.last {
            let last = heard.last;
            return Err(format!("peer {id} got {offset} of {name} behind {last}, by a pattern"));
        }
        let silent = slow(self.world, topic) == SlowPolicy::Latest;
        let from = heard.last.max(heard.forgiven) + 1;
        let missing = (from..offset).find(|missing| {
            self.open.iter().any(|(pattern, moments)| means(*pattern) && moments.answered < at(*missing))
        });
        if let Some(missing) = missing.filter(|_| !told && !silent) {
            return Err(format!("peer {id}: {missing} of {name} is missing before {offset} without a word"));
        }
        heard.came.insert(offset);
        heard.by_pattern.insert(offset);
        heard.last = offset;
        Ok(())
    }

    /// What a subscription by pattern owes of all topics, until its end or, where it `goes_on`, all that there is.
    fn settle(&mut self, pattern: usize, moments: Moments, goes_on: bool) {
        for topic in 0..self.world.topics.len() {
            if fits(pattern, self.world.topics[topic].name()) {
                let last = self.heard.get(&topic).map_or(0, |heard| heard.last);
                self.settle_topic(topic, moments, if goes_on { u64::MAX } else { last });
            }
        }
    }

    fn settle_topic(&mut self, topic: usize, moments: Moments, owed_until: u64) {
        let heard = self.heard.entry(topic).or_default();
        for message in &self.world.truth[topic] {
            if message.at > moments.rested {
                heard.allowed.insert(message.offset);
            }
            if message.at > moments.answered && (heard.forgiven + 1..=owed_until).contains(&message.offset) {
                heard.owed.insert(message.offset);
            }
        }
    }

    /// The end of the conversation; `asked` are subscriptions that were not answered.
    pub(crate) fn finish(mut self, stays: bool, asked: &[usize], missing: &mut Missing) {
        for (pattern, moments) in std::mem::take(&mut self.open) {
            self.settle(pattern, moments, stays);
        }
        for pattern in asked {
            // It may have been subscribed and have left before it read so.
            self.settle(*pattern, Moments { rested: 0, answered: u64::MAX }, false);
        }
        for (topic, heard) in &self.heard {
            let own = heard.own_from.unwrap_or(u64::MAX);
            let least = heard.owed.difference(&heard.came).filter(|offset| stays && **offset < own).count();
            let log = &self.world.truth[*topic];
            let reread = |offset: u64| {
                log[offset as usize - 1].at <= heard.resumed && !heard.by_pattern.contains(&offset)
            };
            let may_be_dropped = |offset: &&u64| !heard.came.contains(offset) || reread(**offset);
            let most = heard.allowed.iter().filter(may_be_dropped).count();
            missing.add_by_pattern(self.world, *topic, (least as u64, most as u64), heard.own_from.is_some());
        }
    }
}

/// What holds for who is slow to read a topic.
pub(crate) fn slow(world: &World, topic: usize) -> SlowPolicy {
    world.topics[topic].policy(&world.edition.router.rules()).slow
}

/// Whether a pattern means a topic of this name.
fn fits(pattern: usize, name: &str) -> bool {
    LevelPattern::parse(PATTERNS[pattern]).is_ok_and(|pattern| pattern.fits(name))
}
