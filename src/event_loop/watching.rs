//! Subscribing to patterns: what of one is whose, and what becomes of subscriptions as tokens and rules change.
//!
//! Driven by effects, by the opening of a connection and by reloads. Where a token allows some of a pattern, the connection
//! gets the parts that it allows, each like a pattern of its own that was not asked for: so the index of patterns finds
//! out which topics are for it, once a topic and not once a message. What a topic's rule allows is looked at by each
//! pass over its subscribers. No topic is looked at here.

use std::collections::HashSet;
use std::sync::Arc;

use super::core::Core;
use super::effects::{Sink, Speaker, Then};
use super::frames_turn::remember;
use super::inquiry_turn::{patterns, subscription_count, subscriptions, watches};
use super::subscribe::{Client, Left, denial, subscribe_denial};
use crate::auth::Identity;
use crate::auth::identity::{Right, permit};
use crate::auth::share::{Share, may_watch};
use crate::connection::session::Session;
use crate::dialect::{Denial, Outcome};
use crate::topic::{Access, Key, LevelPattern, Reach, RouterError, TopicName, Watch};
use crate::transport::Socket;

/// Parts that the patterns of one connection may have together: a message of a topic that one of them means is compared with all.
pub(super) const PARTS_MAX: usize = 128;

/// A part of a pattern.
const PART: Reach = Reach { upto: Access::Claim, is_part: true };

impl<S: Socket> Core<S> {
    /// What of a pattern comes to a connection.
    pub(super) fn share_of(&self, key: Key, pattern: &LevelPattern) -> Share {
        let who = self.bearers.identity(key.slot).map(Arc::as_ref);
        Share::of(pattern, who, self.topics.rules())
    }

    /// Subscribes to a pattern, as far as it is for the connection.
    pub(super) fn watch(&mut self, key: Key, pattern: &LevelPattern) -> Result<Share, RouterError> {
        let share = self.share_of(key, pattern);
        if self.parts_of(key) + share.parts.len() > PARTS_MAX {
            return Err(RouterError::PatternsFull);
        }
        let mut made = Vec::with_capacity(1 + share.parts.len());
        let reach = Reach { upto: share.upto, is_part: false };
        let wanted = share.parts.iter().map(|part| (part, PART, true));
        for (wanted, reach, indexed) in [(pattern, reach, share.is_whole_somewhere)].into_iter().chain(wanted)
        {
            match self.watch_one_part(key, wanted, reach, indexed) {
                Ok(watch) => made.push(watch),
                Err(error) => {
                    self.unwatch(key, made);
                    return Err(error);
                }
            }
        }
        let Some(slot) = self.slots.get(key) else { return Err(RouterError::Contended) };
        remember(&mut slot.connection.session, |open| open.watches.extend(made));
        Ok(share)
    }

    fn parts_of(&mut self, key: Key) -> usize {
        let is_part = |watch: &&Watch| watch.reach().is_part;
        self.slots.get(key).map_or(0, |slot| watches(&slot.connection).iter().filter(is_part).count())
    }

    fn watch_one_part(
        &mut self,
        key: Key,
        pattern: &LevelPattern,
        reach: Reach,
        indexed: bool,
    ) -> Result<Watch, RouterError> {
        if !indexed {
            if self.topics.asides() >= self.edition.settings.limits.patterns_max {
                return Err(RouterError::PatternsFull);
            }
            return Ok(self.topics.watch_aside(pattern, reach, key.slot));
        }
        let Some(slot) = self.slots.get(key) else { return Err(RouterError::Contended) };
        let (handle, admission) = (slot.connection.admission, &self.edition.admission);
        let client = Client { handle, admission, now: self.now };
        self.topics.watch(pattern, reach, key.slot, &client)
    }

    /// Ends subscriptions by pattern that the connection does not remember any more.
    fn unwatch(&mut self, key: Key, gone: impl IntoIterator<Item = Watch>) {
        let Some(slot) = self.slots.get(key) else { return };
        let left = watches(&slot.connection);
        for watch in gone {
            let still = left.iter().any(|other| other.is_like(watch));
            self.topics.unwatch(watch, key.slot, still);
        }
    }

    /// Subscribes to a pattern that a dialect asks for, and tells it what came of it.
    pub(super) fn watch_one(&mut self, from: Speaker, pattern: &LevelPattern, sink: &mut Sink<'_>) -> Then {
        let Some(slot) = self.slots.get(from.key) else { return Then::Go };
        let known = patterns(&slot.connection).any(|watch| self.topics.pattern(*watch) == Some(pattern));
        let watched = if known {
            Err(Denial::Already)
        } else if subscription_count(&slot.connection) >= self.edition.settings.limits.subscriptions_max {
            Err(Denial::TooMany)
        } else {
            let who = self.bearers.identity(from.key.slot).map(Arc::as_ref);
            let allowed = may_watch(pattern, who, self.topics.rules(), from.dialect.tells_limits());
            let allowed = allowed.map_err(subscribe_denial);
            allowed.and_then(|()| self.watch(from.key, pattern).map_err(denial))
        };
        let pattern = pattern.as_str();
        match watched {
            Ok(share) => {
                self.tell(from, Outcome::Watching { pattern, limited: share.is_limited }, sink);
            }
            Err(denial) => self.tell(from, Outcome::Refused { topic: pattern, denial }, sink),
        }
        Then::Go
    }

    /// Ends the subscription to this pattern; `false` if there is none. What waits for the connection comes still.
    pub(super) fn leave_pattern(&mut self, key: Key, pattern: &str) -> bool {
        let topics = &self.topics;
        let Some(slot) = self.slots.get(key) else { return false };
        let session = &mut slot.connection.session;
        let Some(Session::Open(open)) = session.as_deref_mut() else { return false };
        let Some((place, parts)) =
            place_of(&open.watches, |watch| topics.pattern(watch).is_some_and(|of| of.as_str() == pattern))
        else {
            return false;
        };
        let gone: Vec<Watch> = open.watches.drain(place..=place + parts).collect();
        if open.is_empty() {
            *session = None;
        }
        self.unwatch(key, gone);
        true
    }

    /// Makes a subscription by pattern one to this share of it: `prune` takes the parts out that are not in it. `false`: there is
    /// no room for it.
    fn set_share(&mut self, key: Key, pattern: &LevelPattern, share: &Share, prune: bool) -> bool {
        let topics = &self.topics;
        let Some(slot) = self.slots.get(key) else { return false };
        let own = watches(&slot.connection);
        let Some((place, parts)) = place_of(own, |watch| topics.pattern(watch) == Some(pattern)) else {
            return false;
        };
        let own = own.get(place..=place + parts).unwrap_or_default();
        let Some((&asked, parts)) = own.split_first() else { return false };
        let is = |watch: &Watch, part: &LevelPattern| topics.pattern(*watch) == Some(part);
        let new: Vec<_> =
            share.parts.iter().filter(|part| !parts.iter().any(|watch| is(watch, part))).cloned().collect();
        let wanted = |watch: &Watch| !prune || share.parts.iter().any(|part| is(watch, part));
        let (mut kept, mut gone): (Vec<Watch>, Vec<Watch>) = parts.iter().copied().partition(wanted);
        let end = place + parts.len();
        if self.parts_of(key) - gone.len() + new.len() > PARTS_MAX {
            return false;
        }
        let mut first = asked.reaching(share.upto);
        let mut made = Vec::new();
        let aside = share.is_whole_somewhere && !asked.is_indexed();
        let wanted = aside.then_some((pattern, first.reach())).into_iter();
        for (pattern, reach) in wanted.chain(new.iter().map(|part| (part, PART))) {
            let Ok(watch) = self.watch_one_part(key, pattern, reach, true) else {
                self.unwatch(key, made);
                return false;
            };
            made.push(watch);
        }
        if aside {
            gone.push(asked);
            first = made.remove(0);
        }
        kept.extend(made);
        let Some(slot) = self.slots.get(key) else { return false };
        remember(&mut slot.connection.session, |open| {
            let behind = open.watches.split_off(end + 1);
            open.watches.truncate(place);
            open.watches.push(first);
            open.watches.extend(kept);
            open.watches.extend(behind);
        });
        self.unwatch(key, gone);
        true
    }

    /// Ends what a connection could subscribe to as who it was before, and can't with its next token; what is for it by that is
    /// more of its patterns from now on.
    pub(super) fn end_what_is_lost(&mut self, from: Speaker, before: Option<&Identity>, sink: &mut Sink<'_>) {
        let Some(slot) = self.slots.get(from.key) else { return };
        let of_watch = |watch: &Watch| self.topics.pattern(*watch).cloned();
        let own: Vec<LevelPattern> = patterns(&slot.connection).filter_map(of_watch).collect();
        let mut lost = Vec::new();
        for pattern in own {
            let share = self.share_of(from.key, &pattern);
            let covers = share.covers(&Share::of(&pattern, before, self.topics.rules()));
            let stays = !share.is_limited || covers;
            if !stays || !self.set_share(from.key, &pattern, &share, !covers) {
                lost.push((pattern.as_str().to_owned(), Denial::NotByToken));
            }
        }
        let Some(slot) = self.slots.get(from.key) else { return };
        let who = self.bearers.identity(from.key.slot).map(Arc::as_ref);
        let mut noted = HashSet::new();
        for topic in subscriptions(&slot.connection).filter_map(|local| self.topics.topic(local)) {
            let name = TopicName::presence_of(topic.name()).unwrap_or(topic.name());
            let access = self.topics.rules().subscribers_of(name);
            let may = |who| permit(access, who, Right::Subscribe(name)).is_ok();
            // What the application has given beside the token stays.
            if may(before) && !may(who) && noted.insert(name) {
                lost.push((name.to_owned(), Denial::NotByToken));
            }
        }
        self.end_lost(from, &lost, sink);
    }

    /// Ends these subscriptions of a connection, and tells it that they are not allowed any more.
    pub(super) fn end_lost(&mut self, from: Speaker, lost: &[(String, Denial)], sink: &mut Sink<'_>) {
        // It answers nothing, but comes behind the answers to what was asked for before.
        let tag = std::mem::take(&mut sink.tag);
        for (name, denial) in lost {
            if let Some(Left { missing: Some((topic, gap)) }) = self.leave_topic(from.key, name) {
                self.tell(from, Outcome::Gap { topic: &topic, gap }, sink);
            }
            if !LevelPattern::is_meant(name) {
                self.leave_topic(from.key, TopicName::of_presence(name).as_str());
            }
            self.tell(from, Outcome::Lost { topic: name, denial: *denial }, sink);
        }
        sink.tag = tag;
    }

    /// After a reload patterns reach topics that no rule let them have before. What a rule takes from them comes no more by itself.
    pub(super) fn reach_further(&mut self, key: Key) {
        let Some(slot) = self.slots.get(key) else { return };
        let aside = patterns(&slot.connection).filter(|watch| !watch.is_indexed());
        let aside: Vec<LevelPattern> =
            aside.filter_map(|watch| self.topics.pattern(*watch).cloned()).collect();
        for pattern in aside {
            let share = self.share_of(key, &pattern);
            // Where there is no room, the next reload tries again.
            let _ = share.is_whole_somewhere && self.set_share(key, &pattern, &share, false);
        }
    }
}

/// Where a subscription that was asked for is among those of a connection, and how many parts stand behind it.
fn place_of(watches: &[Watch], is: impl Fn(Watch) -> bool) -> Option<(usize, usize)> {
    let place = watches.iter().position(|watch| !watch.reach().is_part && is(*watch))?;
    let parts = watches.iter().skip(place + 1).take_while(|watch| watch.reach().is_part).count();
    Some((place, parts))
}
