//! Who is on a topic, for topics whose rule says so: the members of each, and the events that tell of their coming and
//! going. Owned by all loops together; a loop reports joins and leaves, a thread of its own folds them into events.
//! Never on the way of a message: nothing here is looked at when one is published or delivered.
//!
//! The events of a topic are the messages of another, whose name no client can give (`TopicName::of_presence`): order,
//! slow consumers and forms are those of messages, and the place of an event is the version of the list. It is published
//! with the list locked, so that list and version always fit.
//!
//! Lock order: presence → directory → topic → mailbox.

mod member;
mod members;
mod pages;
mod seats;
mod states;
mod words;

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};

use data_encoding::BASE64URL_NOPAD;

use super::entry::{Key, Mail};
use super::message::Draft;
use super::name::TopicName;
use super::position::Position;
use super::router::Router;
use super::rules::{PresenceMode, PresencePolicy};
use super::state::Topic;
use super::sync::{Arc, AtomicU64, Mutex, Ordering, lock};
pub use member::MemberId;
pub use members::MEMBER_BYTES;
use members::Members;
use pages::Pages;
pub use pages::{PresenceMember, PresenceMembers};
pub use seats::{Saying, Seats};
pub use states::{STATE_BYTES, StateText};

/// How often a join looks again for a list that was given up under its hands.
const LOOKUPS_MAX: usize = 16;

/// Lists that one turn goes through before the time is asked for again.
const LISTS_PER_TURN: usize = 256;

/// What all presence together is bounded by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PresenceLimits {
    /// Members of one topic.
    pub members_max: u64,
    /// Bytes that the members of all topics take.
    pub bytes_max: u64,
}

/// Presence of all topics that have it.
pub struct Presences {
    lists: Mutex<BTreeMap<Box<str>, Arc<List>>>,
    /// By when each is to be looked at, in milliseconds, and its number; some may be earlier than need be.
    schedule: Mutex<BTreeMap<(u64, u64), Arc<List>>>,
    wake: Mutex<Option<Box<dyn Fn() + Send>>>,
    members_max: AtomicU64,
    bytes_max: AtomicU64,
    bytes: AtomicU64,
    members: AtomicU64,
    events: AtomicU64,
    unlisted: AtomicU64,
    states: AtomicU64,
    states_refused: AtomicU64,
    next_id: AtomicU64,
    anonymous: [RandomState; 2],
}

/// The list of one topic.
#[derive(Debug)]
struct List {
    id: u64,
    topic: Box<str>,
    state: Mutex<ListState>,
}

#[derive(Debug)]
struct ListState {
    members: Members,
    pages: Pages,
    policy: PresencePolicy,
    /// Before when nothing is told.
    quiet_until: u64,
    /// For when it is in the schedule; `u64::MAX` for never.
    due: u64,
    /// Nobody was on it any more, and another of its name may be there.
    closed: bool,
}

/// That a connection is on a list. To be handed back, however the connection ends.
#[derive(Debug)]
#[must_use = "a seat that is not handed back is a member for ever"]
pub struct Seat {
    list: Arc<List>,
    member: MemberId,
}

/// Some of a list, as of one version.
#[derive(Debug)]
pub struct PresencePage {
    /// The topic.
    pub topic: Box<str>,
    /// The version: the place of the last event that the list has in it.
    pub version: Position,
    /// Members in all.
    pub count: usize,
    /// Some of them; `None` where only their number is told.
    pub members: Option<Arc<PresenceMembers>>,
}

impl PresencePage {
    /// Behind whom the list goes on, if it does.
    #[must_use]
    pub fn next(&self) -> Option<&MemberId> {
        let members = self.members.as_deref().filter(|members| members.has_more())?;
        members.as_slice().last().map(|last| &last.id)
    }
}

/// What is counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PresenceCounts {
    /// Members of all topics.
    pub members: u64,
    /// Bytes that they take.
    pub bytes: u64,
    /// Events published.
    pub events: u64,
    /// Subscribers that found no room in a list.
    pub unlisted: u64,
    /// Members that have a state, or had one of which it is not told yet that it has ended.
    pub states: u64,
    /// States that were refused for lack of room, or because they came too fast.
    pub states_refused: u64,
}

/// Why a member's state is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateDenial {
    /// The connection is not on the topic's list.
    NotListed,
    /// Members of the topic have none.
    NoStates,
    /// They come too fast.
    TooFast,
    /// There is no room for it.
    NoRoom,
}

impl Presences {
    /// Nobody anywhere.
    #[must_use]
    pub fn new(limits: PresenceLimits) -> Self {
        Self {
            lists: Mutex::default(),
            schedule: Mutex::default(),
            wake: Mutex::default(),
            members_max: AtomicU64::new(limits.members_max),
            bytes_max: AtomicU64::new(limits.bytes_max),
            bytes: AtomicU64::new(0),
            members: AtomicU64::new(0),
            events: AtomicU64::new(0),
            unlisted: AtomicU64::new(0),
            states: AtomicU64::new(0),
            states_refused: AtomicU64::new(0),
            next_id: AtomicU64::new(0),
            anonymous: [RandomState::new(), RandomState::new()],
        }
    }

    /// Takes other bounds; who is listed stays.
    pub fn set_limits(&self, limits: PresenceLimits) {
        self.members_max.store(limits.members_max, Ordering::Relaxed);
        self.bytes_max.store(limits.bytes_max, Ordering::Relaxed);
    }

    /// `wake` is called from now on when [`Self::turn`] is due earlier than it said.
    pub fn set_waker(&self, wake: Box<dyn Fn() + Send>) {
        *lock(&self.wake) = Some(wake);
    }

    /// What is counted, as of now.
    #[must_use]
    pub fn counts(&self) -> PresenceCounts {
        let of = |number: &AtomicU64| number.load(Ordering::Relaxed);
        PresenceCounts {
            members: of(&self.members),
            bytes: of(&self.bytes),
            events: of(&self.events),
            unlisted: of(&self.unlisted),
            states: of(&self.states),
            states_refused: of(&self.states_refused),
        }
    }

    /// The id of a connection of which nobody says who it is: random, and no other connection's while the process lives.
    /// Begins with `~`.
    #[must_use]
    pub fn anonymous(&self, loop_index: usize, key: Key) -> String {
        let [high, low] = self.anonymous.each_ref().map(|random| random.hash_one((loop_index, key)));
        let mut bytes = [0; 12];
        bytes
            .iter_mut()
            .zip(high.to_le_bytes().into_iter().chain(low.to_le_bytes()))
            .for_each(|(to, from)| *to = from);
        format!("~{}", BASE64URL_NOPAD.encode(&bytes))
    }

    /// A connection has subscribed to the topic. `None`: there is no room for another member, and it is not listed.
    pub fn join(&self, topic: &str, policy: PresencePolicy, member: &str, now_ms: u64) -> Option<Seat> {
        for _ in 0..LOOKUPS_MAX {
            let list = self.list(topic, policy);
            let mut state = lock(&list.state);
            if state.closed {
                drop(state);
                self.forget(&list);
                continue;
            }
            state.policy = policy;
            let known = state.members.find(member);
            let is_new = known.is_none();
            if is_new && !self.take_room(&state.members, member) {
                let empty = state.close_if_empty();
                drop(state);
                if empty {
                    self.forget(&list);
                }
                self.unlisted.fetch_add(1, Ordering::Relaxed);
                return None;
            }
            let member = known.unwrap_or_else(|| MemberId::of(member));
            state.members.join(&member);
            let earlier = self.schedule(&list, &mut state, now_ms);
            drop(state);
            self.wake_if(earlier);
            return Some(Seat { list, member });
        }
        self.unlisted.fetch_add(1, Ordering::Relaxed);
        None
    }

    /// The subscription has ended.
    pub fn leave(&self, seat: Seat, now_ms: u64) {
        let Seat { list, member } = seat;
        let mut state = lock(&list.state);
        let leaves_at = now_ms.saturating_add(state.policy.grace_ms.into());
        state.members.leave(&member, leaves_at);
        let earlier = self.schedule(&list, &mut state, now_ms);
        drop(state);
        self.wake_if(earlier);
    }

    /// The connection with this seat says this of its member, as JSON on one line, or nothing any more; it ends by itself
    /// after `seconds`, or sooner by the rule.
    ///
    /// # Errors
    /// It is not taken, and the member's state is what it was.
    fn say(
        &self,
        (list, member): (&Arc<List>, &MemberId),
        policy: PresencePolicy,
        Saying { state, seconds }: Saying<'_>,
        now_ms: u64,
    ) -> Result<(), StateDenial> {
        if policy.mode != PresenceMode::Full || policy.state_ms == 0 {
            return Err(StateDenial::NoStates);
        }
        let lasts =
            seconds.map_or(policy.state_ms, |seconds| policy.state_ms.min(u32::from(seconds) * 1_000));
        let state = state.map(StateText::of);
        let mut of = lock(&list.state);
        let (had, bytes) = (of.members.states().len(), of.members.states().bytes());
        let grows = state.as_ref().map_or(0, |state| of.members.states().grows(member, state));
        if grows > 0 && !self.take_bytes(grows) {
            drop(of);
            self.states_refused.fetch_add(1, Ordering::Relaxed);
            return Err(StateDenial::NoRoom);
        }
        of.members.say(member, state, now_ms.saturating_add(lasts.into()));
        self.states_gave_back(had, bytes + grows, &of.members);
        let earlier = self.schedule(list, &mut of, now_ms);
        drop(of);
        self.wake_if(earlier);
        Ok(())
    }

    /// Counts states anew where there were so many, in so many bytes.
    fn states_gave_back(&self, had: usize, bytes: u64, members: &Members) {
        let states = members.states();
        self.states.fetch_add(states.len() as u64, Ordering::Relaxed);
        self.states.fetch_sub(had as u64, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes.saturating_sub(states.bytes()), Ordering::Relaxed);
    }

    /// Some of a topic's list: those that are `wanted`, behind an id and at most so many. With a
    /// time what was read is kept for whoever asks next. `events` has or makes the topic of its events, and
    /// may subscribe to it: behind the page follows every change.
    ///
    /// # Errors
    /// Those of `events`.
    pub fn page<E>(
        &self,
        topic: &str,
        policy: PresencePolicy,
        wanted: (Option<&str>, usize),
        now_ms: Option<u64>,
        events: impl FnOnce(&TopicName<'static>) -> Result<Topic, E>,
    ) -> Result<PresencePage, E> {
        let mut list = self.list(topic, policy);
        let mut state = lock(&list.state);
        while state.closed {
            drop(state);
            self.forget(&list);
            list = self.list(topic, policy);
            state = lock(&list.state);
        }
        let page = events(&TopicName::of_presence(topic)).map(|events| {
            let ListState { members, pages, .. } = &mut *state;
            let (listed, told) = (members.len(), members.told());
            let read = || members.page(wanted.0, wanted.1);
            let members =
                (policy.mode == PresenceMode::Full).then(|| pages.get(wanted, (listed, now_ms), read));
            let version = Position { epoch: events.epoch(), offset: events.next_offset() - 1 };
            PresencePage { topic: topic.into(), version, count: told, members }
        });
        if state.close_if_empty() {
            drop(state);
            self.forget(&list);
        } else if let Some(now_ms) = now_ms {
            let earlier = self.schedule(&list, &mut state, now_ms);
            drop(state);
            self.wake_if(earlier);
        }
        page
    }

    /// Lets members leave whose time has come and tells what has changed, as far as that is due at `now_ms`. `wall_ms` is
    /// the date, in milliseconds since 1970. When it is due again, if at all.
    pub fn turn<M: Mail>(&self, router: &Router<M>, now_ms: u64, wall_ms: u64) -> Option<u64> {
        for _ in 0..LISTS_PER_TURN {
            let mut schedule = lock(&self.schedule);
            let first = schedule.first_entry().filter(|first| first.key().0 <= now_ms);
            let Some(list) = first.map(|first| first.remove()) else {
                return schedule.first_key_value().map(|((due, _), _)| *due);
            };
            drop(schedule);
            let mut state = lock(&list.state);
            state.due = u64::MAX;
            let (had, bytes) = (state.members.states().len(), state.members.states().bytes());
            state.members.expire(now_ms);
            if state.pages.due().is_some_and(|due| due <= now_ms) {
                state.pages.clear();
            }
            if state.members.has_untold() && state.quiet_until <= now_ms {
                self.tell(&list, &mut state, router, wall_ms);
                state.quiet_until = now_ms.saturating_add(state.policy.interval_ms.into());
            }
            self.states_gave_back(had, bytes, &state.members);
            if state.close_if_empty() {
                drop(state);
                self.forget(&list);
            } else {
                self.schedule(&list, &mut state, now_ms);
            }
        }
        Some(now_ms)
    }

    /// Tells what has changed, in one event if anybody may hear it. Where there is no room for that, all stays as it is.
    fn tell<M: Mail>(&self, list: &List, state: &mut ListState, router: &Router<M>, wall_ms: u64) {
        let fold = state.members.fold();
        let changes = !fold.joined.is_empty() || !fold.left.is_empty() || !fold.states.is_empty();
        // Nobody has asked for events or for a version since the topic of events was there last.
        if changes && let Some(events) = router.find(&TopicName::of_presence(&list.topic)) {
            // As the rule is now: whoever may only be counted is named to nobody any more, though it came before.
            let mode = router.rules().policy_of(&list.topic).presence.mode;
            if let Some(event) = words::event(&fold, mode) {
                let draft = Draft::encode_at(wall_ms, None, false, &event, None);
                if router.publish(&events, draft, None).is_err() {
                    return;
                }
                self.events.fetch_add(1, Ordering::Relaxed);
            }
        }
        state.pages.clear();
        let (bytes, gone) = state.members.tell(&fold);
        self.members.fetch_sub(gone as u64, Ordering::Relaxed);
        self.bytes.fetch_sub(gone as u64 * MEMBER_BYTES + bytes as u64, Ordering::Relaxed);
    }

    /// The list of the topic, made if there is none.
    fn list(&self, topic: &str, policy: PresencePolicy) -> Arc<List> {
        let mut lists = lock(&self.lists);
        if let Some(list) = lists.get(topic) {
            return list.clone();
        }
        let state = ListState {
            members: Members::default(),
            pages: Pages::default(),
            policy,
            quiet_until: 0,
            due: u64::MAX,
            closed: false,
        };
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let list = Arc::new(List { id, topic: topic.into(), state: Mutex::new(state) });
        lists.insert(topic.into(), list.clone());
        list
    }

    /// The list is closed: another may take its place.
    fn forget(&self, list: &List) {
        let mut lists = lock(&self.lists);
        if lists.get(&list.topic).is_some_and(|other| other.id == list.id) {
            lists.remove(&list.topic);
        }
    }

    /// Takes the room of one more member.
    fn take_room(&self, members: &Members, member: &str) -> bool {
        if members.len() as u64 >= self.members_max.load(Ordering::Relaxed) {
            return false;
        }
        let fits = self.take_bytes(MEMBER_BYTES + member.len() as u64);
        if fits {
            self.members.fetch_add(1, Ordering::Relaxed);
        }
        fits
    }

    /// Takes so many bytes of what all may have.
    fn take_bytes(&self, bytes: u64) -> bool {
        let max = self.bytes_max.load(Ordering::Relaxed);
        let more = |taken: u64| Some(taken + bytes).filter(|sum| *sum <= max);
        self.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    /// Has the list looked at when it is due. Whether that is before all others.
    fn schedule(&self, list: &Arc<List>, state: &mut ListState, now_ms: u64) -> bool {
        let tell = state.members.has_untold().then(|| state.quiet_until.max(now_ms));
        let due = [tell, state.members.next_end(), state.pages.due()].into_iter().flatten().min();
        let Some(due) = due.filter(|due| *due < state.due) else { return false };
        let mut schedule = lock(&self.schedule);
        if state.due != u64::MAX {
            schedule.remove(&(state.due, list.id));
        }
        state.due = due;
        let earlier = schedule.first_key_value().is_none_or(|((first, _), _)| due < *first);
        schedule.insert((due, list.id), list.clone());
        earlier
    }

    fn wake_if(&self, earlier: bool) {
        if earlier && let Some(wake) = &*lock(&self.wake) {
            wake();
        }
    }
}

impl ListState {
    /// Gives it up if nobody is on it, told or not.
    fn close_if_empty(&mut self) -> bool {
        self.closed = self.members.is_empty();
        self.closed
    }
}

#[cfg(test)]
mod tests;
