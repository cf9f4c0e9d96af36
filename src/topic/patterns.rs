//! Which loops have subscribers of which patterns: an index of patterns by level that all loops share, under one short
//! lock. Asked with a topic's name when the topic is published to for the first time, and once more after the patterns
//! have changed; the topic keeps the answer. Never knows a connection.
//!
//! Lock order: a topic's lock may be held when this one is taken, and none is taken behind it.

use std::collections::BTreeMap;

use super::level_pattern::LevelPattern;
use super::name::TopicName;
use super::sync::{Arc, AtomicU32, Mutex, Ordering, lock};

/// Patterns that may be subscribed to at once where nobody says.
pub const PATTERNS_MAX: usize = 65_536;

/// The patterns of all loops.
#[derive(Debug)]
pub struct Patterns {
    /// How often they have changed; never 0 again after the first change.
    edition: AtomicU32,
    index: Mutex<Index>,
}

#[derive(Debug)]
struct Index {
    root: Node,
    patterns: usize,
    patterns_max: usize,
    /// Ids are never used again, so that what a topic remembers of a pattern that is gone means nobody.
    next_id: u64,
    /// The latest answer: topics of one pattern, of which there may be very many, share it.
    latest: Option<Arc<Matched>>,
}

/// The patterns that begin with the same levels. In the order of their text: peers choose it, and have no hash to attack.
#[derive(Debug, Default)]
struct Node {
    /// The pattern that ends here.
    own: Option<Pattern>,
    /// By the next level, `*` and `**` among them: no name has these.
    below: BTreeMap<Box<str>, Node>,
}

#[derive(Clone, Copy, Debug)]
struct Pattern {
    id: u64,
    /// Loops that have a subscriber of it, one bit each.
    loops: u64,
}

/// The patterns that mean one topic.
#[derive(Debug, PartialEq, Eq)]
pub struct Matched {
    /// Loops that have a subscriber of any of them, one bit each.
    pub loops: u64,
    /// Which they are.
    pub ids: Box<[u64]>,
}

/// Why a pattern can't be subscribed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unwatched {
    /// As many patterns are subscribed to as may be.
    Full,
    /// Whoever asks makes new ones too fast.
    TooFast,
}

impl Patterns {
    /// None yet, and so many at most.
    pub fn new(patterns_max: usize) -> Self {
        let index = Index { root: Node::default(), patterns: 0, patterns_max, next_id: 1, latest: None };
        Self { edition: AtomicU32::new(0), index: Mutex::new(index) }
    }

    /// How many different ones are subscribed to.
    pub fn count(&self) -> usize {
        lock(&self.index).patterns
    }

    /// Changes whenever a loop has its first or its last subscriber of a pattern; 0 before all of them.
    pub(super) fn edition(&self) -> u32 {
        self.edition.load(Ordering::Acquire)
    }

    /// A loop has a subscriber of the pattern: whatever is published from now on to a topic of it goes to that loop, too.
    /// Returns the pattern's id. `may_make` is asked if nobody else has the pattern.
    pub(super) fn watch(
        &self,
        pattern: &LevelPattern,
        loops: u64,
        may_make: impl FnOnce() -> bool,
    ) -> Result<u64, Unwatched> {
        let mut index = lock(&self.index);
        if index.root.find(pattern.as_str()).is_none() {
            if index.patterns >= index.patterns_max {
                return Err(Unwatched::Full);
            }
            if !may_make() {
                return Err(Unwatched::TooFast);
            }
        }
        let (id, is_new) = index.add(pattern, loops);
        if is_new {
            self.changed(&mut index);
        }
        Ok(id)
    }

    /// A loop has no subscriber of the pattern any more.
    pub(super) fn unwatch(&self, pattern: &LevelPattern, loops: u64) {
        let mut index = lock(&self.index);
        let gone = index.root.remove(pattern.as_str(), loops);
        index.patterns -= usize::from(gone);
        self.changed(&mut index);
    }

    fn changed(&self, index: &mut Index) {
        index.latest = None;
        let next = self.edition.load(Ordering::Relaxed).wrapping_add(1).max(1);
        self.edition.store(next, Ordering::Release);
    }

    /// The patterns that mean the topic of this name; `None` if none does.
    pub(super) fn matching(&self, name: &str) -> Option<Arc<Matched>> {
        if TopicName::presence_of(name).is_some() {
            return None;
        }
        let mut index = lock(&self.index);
        let (mut loops, mut ids) = (0, Vec::new());
        index.root.matching(Some(name), &mut |pattern| {
            loops |= pattern.loops;
            ids.push(pattern.id);
        });
        if ids.is_empty() {
            return None;
        }
        ids.sort_unstable();
        let matched = Matched { loops, ids: ids.into() };
        if let Some(latest) = index.latest.as_ref().filter(|latest| ***latest == matched) {
            return Some(latest.clone());
        }
        let matched = Arc::new(matched);
        index.latest = Some(matched.clone());
        Some(matched)
    }
}

#[cfg(test)]
#[allow(dead_code, reason = "tests/loom.rs compiles this file, too")]
impl Patterns {
    /// A planted fault: the change is told before it is made.
    pub(super) fn watch_telling_early(&self, pattern: &LevelPattern, loops: u64) {
        self.changed(&mut lock(&self.index));
        lock(&self.index).add(pattern, loops);
    }

    /// Whether nothing stays of patterns that are gone.
    pub(super) fn is_bare(&self) -> bool {
        lock(&self.index).root.below.is_empty()
    }
}

impl Index {
    /// The pattern's id, and whether one of the loops had no subscriber of it before.
    fn add(&mut self, pattern: &LevelPattern, loops: u64) -> (u64, bool) {
        let mut node = &mut self.root;
        for level in pattern.as_str().split('/') {
            node = node.below.entry(level.into()).or_default();
        }
        let (patterns, next_id) = (&mut self.patterns, &mut self.next_id);
        let own = node.own.get_or_insert_with(|| {
            *patterns += 1;
            *next_id += 1;
            Pattern { id: *next_id - 1, loops: 0 }
        });
        let is_new = own.loops & loops != loops;
        own.loops |= loops;
        (own.id, is_new)
    }
}

impl Node {
    fn find(&self, text: &str) -> Option<&Pattern> {
        let node = text.split('/').try_fold(self, |node, level| node.below.get(level))?;
        node.own.as_ref()
    }

    /// Calls `found` with each pattern that means a name whose further levels are `rest`. Goes as deep as patterns do,
    /// which have few levels.
    fn matching(&self, rest: Option<&str>, found: &mut impl FnMut(&Pattern)) {
        let Some(rest) = rest else {
            if let Some(own) = &self.own {
                found(own);
            }
            return;
        };
        if self.below.is_empty() {
            return;
        }
        let (level, behind) = match rest.split_once('/') {
            Some((level, behind)) => (level, Some(behind)),
            None => (rest, None),
        };
        if let Some(own) = self.below.get("**").and_then(|all| all.own.as_ref()) {
            found(own);
        }
        for next in [level, "*"] {
            if let Some(next) = self.below.get(next) {
                next.matching(behind, found);
            }
        }
    }

    /// Takes the loops from a pattern, and what is empty then out of the index. Whether the pattern is gone.
    fn remove(&mut self, rest: &str, loops: u64) -> bool {
        let (level, behind) = match rest.split_once('/') {
            Some((level, behind)) => (level, Some(behind)),
            None => (rest, None),
        };
        let Some(next) = self.below.get_mut(level) else { return false };
        let gone = match behind {
            Some(behind) => next.remove(behind, loops),
            None => match &mut next.own {
                Some(own) => {
                    own.loops &= !loops;
                    let gone = own.loops == 0;
                    if gone {
                        next.own = None;
                    }
                    gone
                }
                None => false,
            },
        };
        if next.own.is_none() && next.below.is_empty() {
            self.below.remove(level);
        }
        gone
    }
}
