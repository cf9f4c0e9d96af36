//! Subscriptions that rules of a reload take: looked at again once, as the walk of the reload comes by.
//!
//! Driven by the reload turn, which bounds how much of it is done at a time. Only where a rule became stricter; what was allowed
//! under rules before and is not any more ends. Who can be told is told, of patterns that go on with less, too, and goes on with
//! the rest; where the path is the topic the connection ends, since nobody would read it.

use std::collections::HashSet;
use std::sync::Arc;

use super::closing::Words;
use super::core::Core;
use super::effects::Sink;
use super::inquiry_turn::{patterns, subscriptions};
use super::write_turn::Asked;
use crate::auth::identity::{Denied, Right, permit};
use crate::auth::share::{Share, may_watch};
use crate::connection::Phase;
use crate::dialect::{Denial, Effects, Outcome, Tag};
use crate::metrics::CloseReason;
use crate::topic::{Key, TopicName};
use crate::transport::Socket;

/// What rules take from a connection.
#[derive(Debug, Default)]
struct Taken {
    /// Subscriptions that were looked at.
    looks: usize,
    /// Topics and patterns that it may not have any more, with why.
    lost: Vec<(String, Denial)>,
    /// Patterns of which less may come than before.
    limited: Vec<String>,
}

/// What is told of a subscription that rules have ended; both have one code.
fn loss(denied: Denied) -> Denial {
    match denied {
        Denied::Scope => Denial::NotByToken,
        Denied::Nobody | Denied::Anonymous => Denial::NotForYou,
    }
}

impl<S: Socket> Core<S> {
    /// Looks at the subscriptions of a connection again. Returns how many that were.
    pub(super) fn review(&mut self, key: Key) -> usize {
        if self.reviewing.is_empty() {
            return 0;
        }
        let taken = self.taken_by_rules(key);
        let Taken { looks, lost, limited } = &taken;
        if lost.is_empty() && limited.is_empty() {
            return *looks;
        }
        let told = looks + lost.len() + limited.len();
        let Some(slot) = self.slots.get(key) else { return told };
        let (phase, dialect) = (slot.connection.phase(), slot.connection.dialect);
        match phase {
            Phase::Open if dialect.tells_limits() => self.take_subscriptions(key, &taken),
            Phase::Open => self.close(key, CloseReason::TopicClosed, Words::Own),
            // A poll is told that nothing has come; the next one is refused.
            _ => drop(self.answer_poll(key)),
        }
        told
    }

    fn taken_by_rules(&mut self, key: Key) -> Taken {
        let mut taken = Taken::default();
        let Some(slot) = self.slots.get(key) else { return taken };
        let tells = slot.connection.dialect.tells_limits();
        let who = self.bearers.identity(key.slot).map(Arc::as_ref);
        let (rules, before) = (self.topics.rules(), &self.reviewing);
        let Taken { looks, lost, limited } = &mut taken;
        let mut noted = HashSet::new();
        for topic in subscriptions(&slot.connection).filter_map(|local| self.topics.topic(local)) {
            *looks += 1;
            // Who may subscribe may see who is there.
            let name = TopicName::presence_of(topic.name()).unwrap_or(topic.name());
            let access = match name.len() == topic.name().len() {
                true => topic.policy(rules).subscribe,
                false => rules.subscribers_of(name),
            };
            let may = |access| permit(access, who, Right::Subscribe(name));
            let Err(denied) = may(access) else { continue };
            // What the application has given beside the token was never allowed by that, and stays. It can't give what is nobody's,
            // nor anything to who is nobody.
            if denied != Denied::Scope || before.any(|rules| may(rules.subscribers_of(name)).is_ok()) {
                // With the topic goes what it tells of who is there.
                if noted.insert(name) {
                    lost.push((name.to_owned(), loss(denied)));
                }
            }
        }
        for pattern in patterns(&slot.connection).filter_map(|watch| self.topics.pattern(*watch)) {
            *looks += 1;
            let name = || pattern.as_str().to_owned();
            match may_watch(pattern, who, rules, tells) {
                Err(denied) => {
                    if before.any(|rules| may_watch(pattern, who, rules, tells).is_ok()) {
                        lost.push((name(), loss(denied)));
                    }
                }
                Ok(()) => {
                    let share = Share::of(pattern, who, rules);
                    if share.is_limited && before.any(|before| share.is_narrowed(pattern, rules, before)) {
                        limited.push(name());
                    }
                }
            }
        }
        taken
    }

    fn take_subscriptions(&mut self, key: Key, taken: &Taken) {
        let Some(from) = self.speaker(key) else { return };
        let (mut out, mut effects) = (Vec::new(), Effects::default());
        let mut sink = Sink { out: &mut out, effects: &mut effects, tag: Tag::default() };
        self.end_lost(from, &taken.lost, &mut sink);
        for pattern in &taken.limited {
            self.tell(from, Outcome::Limited { pattern }, &mut sink);
        }
        self.send_own(key, &out, Asked::No);
    }
}
