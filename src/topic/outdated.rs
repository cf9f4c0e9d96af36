//! Rules that were in force before those of now, for as long as there is somebody whose subscriptions were not looked at again.
//!
//! Filled as a loop takes new rules, asked and emptied by its walk over the connections. Pure.

use super::rules::TopicRules;
use super::sync::Arc;

/// Replaced rules that are kept. More reloads than that during one walk, and everything counts as allowed before: what is not
/// allowed now is ended then, whoever had given it.
const KEPT_MAX: usize = 4;

/// What was in force before.
#[derive(Debug, Default)]
pub struct Outdated {
    kept: Vec<Arc<TopicRules>>,
    forgotten: bool,
}

impl Outdated {
    /// These rules gave way to others.
    pub(super) fn push(&mut self, before: Arc<TopicRules>, now: &TopicRules) {
        if !now.may_close_topics_of(&before) && self.is_empty() {
            return;
        }
        if self.kept.len() == KEPT_MAX {
            self.kept.remove(0);
            self.forgotten = true;
        }
        self.kept.push(before);
    }

    /// What others have, too.
    pub fn append(&mut self, others: Self) {
        self.forgotten |= others.forgotten || self.kept.len() + others.kept.len() > KEPT_MAX;
        self.kept.extend(others.kept);
        let surplus = self.kept.len().saturating_sub(KEPT_MAX);
        self.kept.drain(..surplus);
    }

    /// Whether nothing was in force that allowed more.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty() && !self.forgotten
    }

    /// Whether any of the rules allowed something.
    #[must_use]
    pub fn any(&self, allowed: impl Fn(&TopicRules) -> bool) -> bool {
        self.forgotten || self.kept.iter().any(|rules| allowed(rules))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topic::rules::Rule;
    use crate::topic::{Access, TopicPattern, TopicPolicy};

    fn rules(pattern: &str, subscribe: Option<Access>, base: Access) -> Arc<TopicRules> {
        let rule = Rule { subscribe, ..Rule::of(TopicPattern::compile(pattern).unwrap()) };
        let base = TopicPolicy { subscribe: base, ..TopicPolicy::default() };
        Arc::new(TopicRules::new(vec![rule], Vec::new(), base))
    }

    #[test]
    fn only_rules_that_may_have_closed_something_are_kept() {
        let open = rules("a/*", None, Access::Anyone);
        let closed = rules("a/*", Some(Access::Nobody), Access::Anyone);
        let elsewhere = rules("b/*", Some(Access::Nobody), Access::Anyone);
        let strict = rules("a/*", None, Access::Identified);
        for (before, now, is_kept) in [
            (&open, &open, false),
            (&open, &closed, true),
            (&closed, &open, false),
            (&closed, &closed, false),
            (&closed, &elsewhere, true),
            (&open, &strict, true),
            (&strict, &strict, false),
        ] {
            let mut outdated = Outdated::default();
            outdated.push(Arc::clone(before), now);
            assert_eq!(!outdated.is_empty(), is_kept, "{before:?} {now:?}");
        }
    }

    #[test]
    fn of_too_many_nothing_is_known_and_everything_counts_as_allowed() {
        let (open, closed) =
            (rules("a/*", None, Access::Anyone), rules("a/*", Some(Access::Nobody), Access::Anyone));
        let mut outdated = Outdated::default();
        outdated.push(Arc::clone(&open), &closed);
        assert!(outdated.any(|rules| rules.subscribers_of("a/1") == Access::Anyone));
        assert!(!outdated.any(|rules| rules.subscribers_of("a/1") == Access::Nobody));
        let mut more = Outdated::default();
        (0..KEPT_MAX).for_each(|_| more.push(Arc::clone(&open), &closed));
        assert!(!more.forgotten);
        outdated.append(more);
        assert_eq!(outdated.kept.len(), KEPT_MAX);
        assert!(outdated.any(|_| false));
    }
}
