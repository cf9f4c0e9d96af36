//! Subscriptions by pattern on one loop: coming, going, and the part of a turn that is theirs.

#[cfg(test)]
use fantail_test_support::planted::{self, Planted};

use super::{LocalTopics, Pending, Turn, TurnBudget};
use crate::topic::entry::{Found, Mail, Place};
use crate::topic::level_pattern::LevelPattern;
use crate::topic::position::offset_end;
use crate::topic::router::{Maker, RouterError};
use crate::topic::watchers::{Reach, Watch};

impl<M: Mail> LocalTopics<M> {
    /// Subscribes a connection of this loop to a pattern; one that nobody has is made for `maker`.
    /// What is published from now on to a topic of it comes to the connection, as far as that reaches. What it is to remember.
    pub fn watch(
        &mut self,
        pattern: &LevelPattern,
        reach: Reach,
        slot: u32,
        maker: &dyn Maker,
    ) -> Result<Watch, RouterError> {
        let id = self.router.watch(pattern, self.loop_index, maker)?;
        Ok(self.watchers.add(id, pattern, slot, reach))
    }

    /// Remembers a pattern that a connection of this loop has subscribed to, and of which nothing comes by itself.
    pub fn watch_aside(&mut self, pattern: &LevelPattern, reach: Reach, slot: u32) -> Watch {
        self.watchers.add_aside(pattern, slot, reach)
    }

    /// Ends a subscription by pattern; `still`: the connection has another one of the same pattern.
    pub fn unwatch(&mut self, watch: Watch, slot: u32, still: bool) {
        if let Some(pattern) = self.watchers.remove(watch, slot, still) {
            self.router.unwatch(&pattern, self.loop_index);
        }
    }

    /// The pattern of a subscription.
    pub fn pattern(&self, watch: Watch) -> Option<&LevelPattern> {
        self.watchers.pattern(watch)
    }

    /// Whether messages of the topic of this name come by a subscription by pattern.
    pub fn brings(&self, watch: Watch, name: &str) -> bool {
        self.pattern(watch).is_some_and(|pattern| pattern.fits(name))
            && self.rules.subscribers_of(name) >= watch.reach().upto
    }

    /// Subscriptions of which nothing comes by themselves: the bound of all loops' patterns does not count them.
    pub fn asides(&self) -> usize {
        self.watchers.asides
    }

    /// Subscriptions by pattern, without parts.
    pub fn watches(&self) -> usize {
        self.watchers.subscriptions
    }

    /// The next connection, behind those on the topic's list, that may have a pattern which means the topic. Ask
    /// [`Self::means`] whether it is to get the messages.
    pub fn next_watcher(&mut self, turn: &Turn<M::Form>, budget: &mut TurnBudget) -> Option<u32> {
        let entry = self.topics.get(turn.local as usize)?;
        let work = self.works.get_mut(entry.work as usize)?;
        if work.pass.is_some_and(|pass| pass.cursor < pass.end) {
            return None;
        }
        self.watchers.next(work.watching.as_deref_mut()?, &mut budget.deliveries)
    }

    /// Whether a connection with these subscriptions by pattern is to get the messages of the pass: it had one that means
    /// the topic when the pass began, and does not get them by `place`, that of its own subscription to the topic.
    pub fn means(&self, turn: &Turn<M::Form>, slot: u32, watches: &[Watch], place: Option<Place>) -> bool {
        let Some(entry) = self.topics.get(turn.local as usize) else { return false };
        let Some(work) = self.works.get(entry.work as usize) else { return false };
        let Some(watching) = work.watching.as_deref() else { return false };
        #[cfg(test)]
        let place = place.filter(|_| !planted::strikes(Planted::PatternTwice));
        let listed = |place: Place| work.pass.is_some_and(|pass| place.0 < pass.end);
        let by_place = |place: Place| match place.is_listed() {
            true => listed(place),
            // Its join waits behind these messages: they are not its own, unless it has read them.
            false => self.read_up.contains(&place.0),
        };
        watching.means(watches)
            && !watching.served.contains(&slot)
            && !self.left.contains_key(&(turn.local, slot))
            && !place.is_some_and(by_place)
    }

    /// Files a message of a topic that is not known by an index yet.
    pub(super) fn file_found(&mut self, found: Found) {
        let Found { topic, message } = found;
        let local = topic.local_of(self.loop_index).unwrap_or_else(|| {
            let local = self.open(topic.clone());
            topic.set_local(self.loop_index, local);
            local
        });
        let last = offset_end(message.offset());
        if let Some(work) = self.file(local, Pending::Message(message)) {
            (work.last, work.watched) = (last, true);
        }
    }
}
