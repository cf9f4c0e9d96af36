//! What holds for a topic: the slow-consumer policy, bounds, and who may publish, by the first rule whose
//! pattern fits the topic's name. Pure data, made by the configuration and replaced as a whole.
//!
//! A topic does not hold its policy but the place of it in the newest rules it was used under; see `PolicyCell`.

use super::check::{self, Check, Invalid};
use super::history::HistoryBounds;
use super::level_pattern::LevelPattern;
use super::name::TopicName;
use super::pattern::TopicPattern;
use super::schema::Schema;
use super::state::Topic;
use super::sync::{Arc, AtomicU64, Ordering};

/// What happens to a message for a peer whose outbox has no room for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum SlowPolicy {
    /// The new message is dropped.
    DropNewest,
    /// Waiting messages of the same topic are dropped, oldest first, until the new one fits.
    DropOldest,
    /// A new message takes the place of the one that waits: at most one of a topic does.
    Latest,
    /// The connection is closed with 1013.
    Disconnect,
    /// The subscriber goes on behind the others, and reads what it has not got out of the topic's history.
    CatchUp,
}

impl SlowPolicy {
    /// Every policy, in the order of their numbers.
    pub const ALL: [Self; 5] =
        [Self::DropNewest, Self::DropOldest, Self::Latest, Self::Disconnect, Self::CatchUp];

    /// The word of the configuration.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::DropNewest => "drop-newest",
            Self::DropOldest => "drop-oldest",
            Self::Latest => "latest",
            Self::Disconnect => "disconnect",
            Self::CatchUp => "catch-up",
        }
    }
}

/// Who may do something with a topic over their connection, strictest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Access {
    /// No client.
    Nobody,
    /// Clients whose token names the topic.
    Claim,
    /// Clients that have shown a token, unless it names topics and not this one.
    Identified,
    /// Every client.
    Anyone,
}

/// What is told of who is on a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PresenceMode {
    /// Nothing, and nobody is listed.
    Off,
    /// How many they are.
    Counts,
    /// Who they are.
    Full,
}

/// Presence of one topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PresencePolicy {
    /// What is told.
    pub mode: PresenceMode,
    /// For how long whose last connection has gone stays, in milliseconds.
    pub grace_ms: u32,
    /// How often changes are told at most, in milliseconds.
    pub interval_ms: u32,
    /// For how long what a member says of itself holds, in milliseconds; 0 where none says anything.
    pub state_ms: u32,
}

/// What of a topic somebody is told who is no connection, beside whether it has subscribers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tapped {
    /// Who subscribes to it.
    pub subscribed: bool,
    /// Who leaves it.
    pub unsubscribed: bool,
    /// What clients publish to it.
    pub published: bool,
}

/// What holds for one topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TopicPolicy {
    /// Which clients may publish to it.
    pub publish: Access,
    /// Which clients may subscribe to it, and read what it keeps.
    pub subscribe: Access,
    /// What happens to a message for a slow consumer.
    pub slow: SlowPolicy,
    /// Its messages that may wait for one connection.
    pub messages_max: u32,
    /// Bytes of its messages that may wait for one connection.
    pub bytes_max: usize,
    /// Bytes its largest message may have.
    pub message_bytes_max: usize,
    /// Drops in a row after which a connection is closed; 0 for never.
    pub disconnect_after_drops: u32,
    /// What it keeps of its messages.
    pub history: HistoryBounds,
    /// Each loop delivers at most one message in so many milliseconds, the newest; 0 for each of them.
    pub interval_ms: u32,
    /// Whether and how it is told who is there.
    pub presence: PresencePolicy,
    /// What its messages are.
    pub check: Check,
    /// What of it webhooks are told.
    pub tapped: Tapped,
    /// The application that what clients publish goes to, instead of into the topic: its place in the rules.
    pub forward: Option<u32>,
}

/// What a policy has done with a message of a client who may publish it. Small, so that a policy is looked up once for a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Handling {
    /// What it has to be.
    pub check: Check,
    /// The application that it goes to instead of into the topic: its place in the rules.
    pub forward: Option<u32>,
    /// Whether webhooks are told of it.
    pub told: bool,
}

impl TopicPolicy {
    /// What it has done with a message of a client who may publish it.
    #[inline]
    #[must_use]
    pub fn handling(&self) -> Handling {
        Handling { check: self.check, forward: self.forward, told: self.tapped.published }
    }

    /// Whether whatever a client publishes goes into the topic, and nobody but its subscribers is told.
    #[must_use]
    pub fn is_free(&self) -> bool {
        self.publish == Access::Anyone
            && self.check == Check::Nothing
            && self.forward.is_none()
            && !self.tapped.published
    }
}

impl Default for TopicPolicy {
    /// The defaults of the configuration, but no client may publish.
    fn default() -> Self {
        Self {
            publish: Access::Nobody,
            subscribe: Access::Anyone,
            slow: SlowPolicy::DropNewest,
            messages_max: 64,
            bytes_max: 256 << 10,
            message_bytes_max: 1 << 20,
            disconnect_after_drops: 0,
            history: HistoryBounds { messages: 0, seconds: 3_600, bytes: 1 << 20, newest_only: false },
            interval_ms: 0,
            presence: PresencePolicy {
                mode: PresenceMode::Off,
                grace_ms: 5_000,
                interval_ms: 500,
                state_ms: 0,
            },
            check: Check::Nothing,
            tapped: Tapped::default(),
            forward: None,
        }
    }
}

/// One rule: what it leaves out comes from the base policy.
#[derive(Debug, Clone)]
pub struct Rule {
    /// The topics it is for.
    pub pattern: TopicPattern,
    /// See [`TopicPolicy::publish`]; left out, the list of topics open to clients says.
    pub publish: Option<Access>,
    /// See [`TopicPolicy::subscribe`].
    pub subscribe: Option<Access>,
    /// See [`TopicPolicy::slow`].
    pub slow: Option<SlowPolicy>,
    /// See [`TopicPolicy::messages_max`].
    pub messages_max: Option<u32>,
    /// See [`TopicPolicy::bytes_max`].
    pub bytes_max: Option<usize>,
    /// See [`TopicPolicy::message_bytes_max`].
    pub message_bytes_max: Option<usize>,
    /// See [`TopicPolicy::disconnect_after_drops`].
    pub disconnect_after_drops: Option<u32>,
    /// See [`HistoryBounds::messages`].
    pub history_messages: Option<u32>,
    /// See [`HistoryBounds::bytes`].
    pub history_bytes: Option<u64>,
    /// See [`HistoryBounds::seconds`].
    pub history_seconds: Option<u32>,
    /// See [`TopicPolicy::interval_ms`].
    pub interval_ms: Option<u32>,
    /// See [`PresencePolicy::mode`].
    pub presence: Option<PresenceMode>,
    /// See [`PresencePolicy::grace_ms`].
    pub presence_grace_ms: Option<u32>,
    /// See [`PresencePolicy::interval_ms`].
    pub presence_interval_ms: Option<u32>,
    /// See [`PresencePolicy::state_ms`].
    pub presence_state_ms: Option<u32>,
    /// See [`TopicPolicy::check`].
    pub check: Option<Check>,
    /// See [`TopicPolicy::tapped`].
    pub tapped: Option<Tapped>,
    /// See [`TopicPolicy::forward`].
    pub forward: Option<u32>,
}

impl Rule {
    /// A rule that leaves everything out.
    #[must_use]
    pub fn of(pattern: TopicPattern) -> Self {
        Self {
            pattern,
            publish: None,
            subscribe: None,
            slow: None,
            messages_max: None,
            bytes_max: None,
            message_bytes_max: None,
            disconnect_after_drops: None,
            history_messages: None,
            history_bytes: None,
            history_seconds: None,
            interval_ms: None,
            presence: None,
            presence_grace_ms: None,
            presence_interval_ms: None,
            presence_state_ms: None,
            check: None,
            tapped: None,
            forward: None,
        }
    }

    fn policy(&self, base: &TopicPolicy) -> TopicPolicy {
        let messages = self.history_messages.unwrap_or(base.history.messages);
        // Where something is kept nobody has to lose anything, unless the rule says so.
        let slow = self.slow.unwrap_or(if messages > 0 { SlowPolicy::CatchUp } else { base.slow });
        let check = self.check.unwrap_or(base.check);
        TopicPolicy {
            publish: self.publish.unwrap_or(base.publish),
            subscribe: self.subscribe.unwrap_or(base.subscribe),
            slow,
            messages_max: self.messages_max.unwrap_or(base.messages_max),
            bytes_max: self.bytes_max.unwrap_or(base.bytes_max),
            message_bytes_max: self
                .message_bytes_max
                .unwrap_or(base.message_bytes_max)
                .min(check.bytes_max()),
            disconnect_after_drops: self.disconnect_after_drops.unwrap_or(base.disconnect_after_drops),
            history: HistoryBounds {
                messages,
                seconds: self.history_seconds.unwrap_or(base.history.seconds),
                bytes: self.history_bytes.unwrap_or(base.history.bytes),
                newest_only: slow == SlowPolicy::Latest,
            },
            interval_ms: self.interval_ms.unwrap_or(base.interval_ms),
            presence: PresencePolicy {
                mode: self.presence.unwrap_or(base.presence.mode),
                grace_ms: self.presence_grace_ms.unwrap_or(base.presence.grace_ms),
                interval_ms: self.presence_interval_ms.unwrap_or(base.presence.interval_ms),
                state_ms: self.presence_state_ms.unwrap_or(base.presence.state_ms),
            },
            check,
            tapped: self.tapped.unwrap_or(base.tapped),
            forward: self.forward.or(base.forward),
        }
    }
}

/// Events of presence that are kept for who falls behind; and for how long, in seconds, and in how many bytes.
const EVENTS_KEPT: HistoryBounds =
    HistoryBounds { messages: 64, seconds: 60, bytes: 256 << 10, newest_only: false };

/// What holds for the topics that tell who is on another.
fn policy_of_events(base: &TopicPolicy) -> TopicPolicy {
    TopicPolicy {
        publish: Access::Nobody,
        slow: SlowPolicy::CatchUp,
        disconnect_after_drops: 0,
        history: EVENTS_KEPT,
        interval_ms: 0,
        presence: PresencePolicy { mode: PresenceMode::Off, ..base.presence },
        ..*base
    }
}

/// All rules, in their order, and what holds where none fits.
#[derive(Debug, Clone)]
pub struct TopicRules {
    /// Which replacement of the router's rules these are; 0 before they are the router's.
    edition: u32,
    /// Patterns, and whether the rule says who may publish.
    rules: Box<[(TopicPattern, bool)]>,
    /// Topics that clients may publish to where no rule says.
    open: Box<[TopicPattern]>,
    /// Two for each rule and two for none: where the list of topics open to clients has not the topic, and where it has.
    /// The last is that of topics which tell who is on another.
    policies: Box<[TopicPolicy]>,
    /// For each of them whether it asks nothing of what clients publish.
    free: Box<[bool]>,
    /// For a place that is none of them.
    fallback: TopicPolicy,
    /// Those that policies name.
    schemas: Box<[Arc<Schema>]>,
    /// Of applications, in the order of their places.
    urls: Box<[Box<str>]>,
    /// Whether any of them has an interval.
    has_intervals: bool,
    /// Whether there is a topic that not everybody may subscribe to.
    limits_subscribers: bool,
    /// Whether any topic has presence.
    has_presence: bool,
}

impl TopicRules {
    /// Puts them together; `open` names the topics that every client may publish to where no rule says.
    #[must_use]
    pub fn new(rules: Vec<Rule>, open: Vec<TopicPattern>, base: TopicPolicy) -> Self {
        Self::open_to(rules, open, Access::Anyone, base)
    }

    /// The same where it is those clients who may publish to what `open` names.
    #[must_use]
    pub fn open_to(rules: Vec<Rule>, open: Vec<TopicPattern>, clients: Access, base: TopicPolicy) -> Self {
        let listed = TopicPolicy { publish: clients, ..base };
        let both = |rule: &Rule| [rule.policy(&base), rule.policy(&listed)];
        let policies: Box<[TopicPolicy]> =
            rules.iter().flat_map(both).chain([base, listed, policy_of_events(&base)]).collect();
        Self {
            edition: 0,
            has_intervals: policies.iter().any(|policy| policy.interval_ms > 0),
            limits_subscribers: policies.iter().any(|policy| policy.subscribe != Access::Anyone),
            has_presence: policies.iter().any(|policy| policy.presence.mode != PresenceMode::Off),
            free: policies.iter().map(TopicPolicy::is_free).collect(),
            policies,
            fallback: TopicPolicy::default(),
            schemas: Box::default(),
            urls: Box::default(),
            rules: rules.into_iter().map(|rule| (rule.pattern, rule.publish.is_some())).collect(),
            open: open.into(),
        }
    }

    /// The same with the schemas that its rules name by their places.
    #[must_use]
    pub fn with_schemas(self, schemas: Vec<Arc<Schema>>) -> Self {
        Self { schemas: schemas.into(), ..self }
    }

    /// The same with the URLs of applications that its rules name by their places.
    #[must_use]
    pub fn forwarding_to(self, urls: Vec<Box<str>>) -> Self {
        Self { urls: urls.into(), ..self }
    }

    /// How many rules there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.rules.len()
    }

    /// The URL of the application at this place.
    #[must_use]
    pub fn url(&self, place: u32) -> Option<&str> {
        self.urls.get(place as usize).map(|url| &**url)
    }

    /// Whether a message is what a topic of a policy with this check takes. It is of at most
    /// [`message_bytes_max`](TopicPolicy::message_bytes_max).
    ///
    /// # Errors
    /// It is not.
    #[inline]
    pub fn check(&self, check: Check, binary: bool, payload: &[u8]) -> Result<(), Box<Invalid>> {
        match check {
            Check::Nothing => Ok(()),
            what => check::check(what, &self.schemas, binary, payload),
        }
    }

    /// What holds for the topic of this name: the first rule that fits, and for what it leaves open the base.
    #[must_use]
    pub fn policy_of(&self, name: &str) -> &TopicPolicy {
        self.policy_at(self.place_of(name))
    }

    /// Which clients may subscribe to the topic of this name.
    #[must_use]
    pub fn subscribers_of(&self, name: &str) -> Access {
        // Who may subscribe may see who is there. Where everybody may, no name is looked at.
        let name = TopicName::presence_of(name).unwrap_or(name);
        if self.limits_subscribers { self.policy_of(name).subscribe } else { Access::Anyone }
    }

    /// Which clients may subscribe to a pattern: those who may to each topic that it can mean, and some that it can't may
    /// count with them.
    #[must_use]
    pub fn watchers_of(&self, pattern: &LevelPattern) -> Access {
        if !self.limits_subscribers {
            return Access::Anyone;
        }
        self.met_by(pattern).map(|(_, access)| access).min().unwrap_or(Access::Anyone)
    }

    /// The least strict of the rules that a pattern, or a part of one, can meet; of some that it can't meet, too.
    #[must_use]
    pub fn loosest_of(&self, pattern: &LevelPattern) -> Access {
        if !self.limits_subscribers || pattern.is_topic() {
            return self.subscribers_of(pattern.as_str());
        }
        self.met_by(pattern).map(|(_, access)| access).max().unwrap_or(Access::Nobody)
    }

    /// The rules that a pattern can meet, in their order and as far as one that means all of it, and whom each lets subscribe. Where
    /// none does, the last is the base, which has no pattern.
    fn met_by<'r>(
        &'r self,
        pattern: &'r LevelPattern,
    ) -> impl Iterator<Item = (Option<&'r TopicPattern>, Access)> {
        let access = |place: usize| self.policy_at(place as u32 * 2).subscribe;
        let last = self.rules.iter().position(|(rule, _)| rule.covers_pattern(pattern));
        let count = last.map_or(self.rules.len(), |last| last + 1);
        let met = self.rules.iter().take(count).enumerate();
        let met = met.filter(move |(_, (rule, _))| rule.may_meet(pattern));
        let base = last.is_none().then(|| (None, access(self.rules.len())));
        met.map(move |(place, (rule, _))| (Some(rule), access(place))).chain(base)
    }

    /// Which clients may subscribe to a topic; its name is looked at once, and where everybody may, never.
    pub(super) fn subscribers_to(&self, topic: &Topic) -> Access {
        if self.limits_subscribers { topic.policy(self).subscribe } else { Access::Anyone }
    }

    /// Whether these may let somebody subscribe to fewer topics than those before: their patterns and who may subscribe are
    /// compared, and no topic is looked at.
    pub(super) fn may_close_topics_of(&self, before: &Self) -> bool {
        if !self.limits_subscribers {
            return false;
        }
        let of = |rules: &Self, place: usize| rules.policy_at(place as u32 * 2).subscribe;
        let same_patterns = self.rules.len() == before.rules.len()
            && self.rules.iter().zip(&before.rules).all(|((own, _), (other, _))| own == other);
        !same_patterns || (0..=self.rules.len()).any(|place| of(self, place) < of(before, place))
    }

    /// Whether under these less of a pattern may come than under those before, to somebody to whom `comes` of a topic with a rule of
    /// such access comes. The rules that the pattern can meet are compared, and no topic is looked at: where these have other patterns,
    /// it may.
    #[must_use]
    pub fn may_narrow(&self, before: &Self, pattern: &LevelPattern, comes: impl Fn(Access) -> u8) -> bool {
        if !self.limits_subscribers {
            return false;
        }
        let (mut own, mut others) = (self.met_by(pattern), before.met_by(pattern));
        loop {
            match (own.next(), others.next()) {
                (None, None) => return false,
                (Some((rule, access)), Some((other, was))) if rule == other => {
                    if comes(access) < comes(was) {
                        return true;
                    }
                }
                _ => return true,
            }
        }
    }

    /// The router's next rules.
    pub(super) fn following(self, before: &Self) -> Self {
        // 0 is nobody's edition, so that a new topic has none.
        Self { edition: before.edition.wrapping_add(1).max(1), ..self }
    }

    /// Which replacement they are.
    pub(super) fn edition(&self) -> u32 {
        self.edition
    }

    /// Whether any topic may have an interval: where none has, no topic is asked.
    pub(super) fn has_intervals(&self) -> bool {
        self.has_intervals
    }

    /// Whether any topic may have presence: where none has, no topic is asked.
    #[must_use]
    pub fn has_presence(&self) -> bool {
        self.has_presence
    }

    fn place_of(&self, name: &str) -> u32 {
        if TopicName::presence_of(name).is_some() {
            return self.policies.len().saturating_sub(1) as u32;
        }
        let rule = self.rules.iter().position(|(pattern, _)| pattern.fits(name));
        let says = rule.and_then(|at| self.rules.get(at)).is_some_and(|rule| rule.1);
        let listed = !says && self.open.iter().any(|pattern| pattern.fits(name));
        (rule.unwrap_or(self.rules.len()) * 2 + usize::from(listed)) as u32
    }

    // Borrowed, since a publish looks at a few words of it only.
    fn policy_at(&self, place: u32) -> &TopicPolicy {
        self.policies.get(place as usize).unwrap_or(&self.fallback)
    }
}

impl Default for TopicRules {
    /// No rules, no publishing clients, every bound as it is by default.
    fn default() -> Self {
        Self::new(Vec::new(), Vec::new(), TopicPolicy::default())
    }
}

/// Where a topic's policy is in the rules it was last used under: edition and place in one word, so that no
/// mixture of two editions is ever seen. Rules are replaced without a look at any topic; each looks its place
/// up again when it is next used.
#[derive(Debug, Default)]
pub(super) struct PolicyCell(AtomicU64);

impl PolicyCell {
    /// A place in no rules.
    pub(super) fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// The policy that `rules` have for the topic of this name, always the same one. No lock; under rules
    /// that were seen before, no look at the name either.
    pub(super) fn policy<'n, 'r>(
        &self,
        name: impl FnOnce() -> &'n str,
        rules: &'r TopicRules,
    ) -> &'r TopicPolicy {
        rules.policy_at(self.place(name, rules))
    }

    /// Whether that policy asks nothing of what clients publish.
    pub(super) fn is_free<'n>(&self, name: impl FnOnce() -> &'n str, rules: &TopicRules) -> bool {
        rules.free.get(self.place(name, rules) as usize).is_some_and(|free| *free)
    }

    #[inline]
    fn place<'n>(&self, name: impl FnOnce() -> &'n str, rules: &TopicRules) -> u32 {
        let seen = self.0.load(Ordering::Relaxed);
        if (seen >> 32) as u32 == rules.edition && rules.edition != 0 {
            return seen as u32;
        }
        let place = rules.place_of(name());
        // Whoever still has older rules gets their policy and leaves the place of the newer.
        self.0.fetch_max(u64::from(rules.edition) << 32 | u64::from(place), Ordering::Relaxed);
        place
    }
}
