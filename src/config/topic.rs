//! `[[topic]]`: rules for topics by pattern, as the file gives them. `topic_rules` compiles them.
//!
//! Driven by `load`. Only the file can give rules: an order of rules has no place in the environment.

use super::backend::Text;
use super::error::ConfigError;
use super::forward::unfit_url;
use super::outbox::{BYTES_MAX, DROPS_MAX, MESSAGES_MAX, Policy};
use super::section::{Checker, section};
use super::table::Table;
use super::value::{Bytes, Count, Kind, Names, Optional, Pattern, RawValue, quoted};
use crate::topic::check::JSON_BYTES_MAX;
use crate::topic::rules::Tapped;
use crate::topic::{Access, PresenceMode, SlowPolicy, TopicPattern};

/// Who may publish or subscribe to a topic over their connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clients {
    /// No client.
    Nobody,
    /// Clients whose token names the topic.
    Claim,
    /// Clients that have shown a token.
    Identified,
    /// Every client.
    Anyone,
}

impl Clients {
    /// The word of the configuration.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Nobody => "nobody",
            Self::Claim => "claim",
            Self::Identified => "identified",
            Self::Anyone => "anyone",
        }
    }

    /// Whether it is about tokens.
    pub(super) fn needs_tokens(self) -> bool {
        matches!(self, Self::Claim | Self::Identified)
    }

    /// The same as topics have it.
    pub(super) fn access(self) -> Access {
        match self {
            Self::Nobody => Access::Nobody,
            Self::Claim => Access::Claim,
            Self::Identified => Access::Identified,
            Self::Anyone => Access::Anyone,
        }
    }
}

/// What a topic's messages have to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Validate {
    /// Text.
    Text,
    /// JSON.
    Json,
    /// JSON that fits the schema in this file.
    Schema(String),
}

impl Validate {
    /// Bytes that a message may have so that it can be looked at on the way.
    fn bytes_max(&self) -> usize {
        match self {
            Self::Text => usize::MAX,
            Self::Json | Self::Schema(_) => JSON_BYTES_MAX,
        }
    }
}

/// Most messages that a topic may be told to keep.
const HISTORY_MESSAGES_MAX: usize = 1 << 24;

/// The longest interval between two updates of a topic: while one waits, who leaves keeps a place in its list.
const INTERVAL_MS_MAX: usize = 60_000;

/// The most often that changes of who is there are told: each is a message to all who want them.
const PRESENCE_INTERVAL_MS_MIN: usize = 100;

/// The longest that somebody counts as there who is gone.
const PRESENCE_GRACE_SECONDS_MAX: usize = 3_600;

/// The longest that a member's state holds.
const PRESENCE_STATE_SECONDS_MAX: usize = 3_600;

/// A hundred years, so that no sum of times overflows.
const SECONDS_MAX: usize = 100 * 366 * 24 * 3_600;

type OptionalBytes = Optional<Bytes>;
type OptionalCount = Optional<Count>;
type OptionalPolicy = Optional<Policy>;
type OptionalClients = Optional<ClientsKind>;
type OptionalPresence = Optional<PresenceKind>;
type OptionalValidate = Optional<ValidateKind>;
type OptionalTapped = Optional<TappedKind>;
type OptionalText = Optional<Text>;

section! {
    /// Rules for topics by pattern, only in the file. The first rule whose pattern fits a topic's name holds
    /// for it; what a rule leaves out comes from the other sections. See "Topic rules".
    TopicRule ["topic"] {
        /// Topic name, exact or with a trailing "*"; every rule needs one.
        "pattern" => pattern: String as Pattern = String::new(),
        /// Which clients may publish over their connection: nobody, claim (those whose token names the topic), identified
        /// (those with a token, unless it names topics and not this one) or anyone. Unset, publish.topics says; with an
        /// [[auth.issuer]] those it lists are for identified, the others for claim.
        "publish" => publish: Option<Clients> as OptionalClients = None,
        /// Which clients may subscribe and read what is kept: nobody, claim, identified or anyone, as for publish. Unset,
        /// anyone; with an [[auth.issuer]], identified. It holds for subscriptions from then on; those that there are stay.
        "subscribe" => subscribe: Option<Clients> as OptionalClients = None,
        /// As outbox.policy; or catch-up, which is the default where messages are kept: who falls behind reads on from
        /// those, and loses none.
        "policy" => policy: Option<SlowPolicy> as OptionalPolicy = None,
        /// As outbox.messages_max.
        "messages_max" => messages_max: Option<usize> as OptionalCount = None,
        /// As outbox.bytes_max.
        "bytes_max" => bytes_max: Option<usize> as OptionalBytes = None,
        /// As limits.message_bytes_max: a client's larger message closes its connection with 1009, one on the
        /// admin port is answered 413.
        "message_bytes_max" => message_bytes_max: Option<usize> as OptionalBytes = None,
        /// As outbox.disconnect_after_drops.
        "disconnect_after_drops" => disconnect_after_drops: Option<usize> as OptionalCount = None,
        /// Newest messages that a topic keeps for who resumes or falls behind; 0 for none. Unset, none.
        "history_messages" => history_messages: Option<usize> as OptionalCount = None,
        /// Bytes of them, 80 for each message besides. Unset, 1 MiB.
        "history_bytes" => history_bytes: Option<usize> as OptionalBytes = None,
        /// Seconds after which a message is not kept any more; 0 for never. Unset, an hour.
        "history_seconds" => history_seconds: Option<usize> as OptionalCount = None,
        /// Milliseconds of which each has at most one update for a topic's subscribers, the newest, counted in steps of 100;
        /// 0 for every message. What is kept is kept whole. Unset, 0.
        "interval_ms" => interval_ms: Option<usize> as OptionalCount = None,
        /// Who is on a topic: full lists its members and tells who comes and goes, counts tells how many there are, off
        /// nothing. It holds for subscriptions from then on. Unset, off.
        "presence" => presence: Option<PresenceMode> as OptionalPresence = None,
        /// Seconds for which a member stays whose last connection has gone, up to 3,600, so that a page that is loaded again
        /// makes no noise. Unset, 5.
        "presence_grace_seconds" => presence_grace_seconds: Option<usize> as OptionalCount = None,
        /// Milliseconds of which each has at most one event of who came and went, 100 to 60,000. Unset, 500.
        "presence_interval_ms" => presence_interval_ms: Option<usize> as OptionalCount = None,
        /// Seconds after which a member's state ends that is not set anew, up to 3,600; 0 where members have none. Members of
        /// a topic with presence = "full" may tell all others what they like in it. Unset, 0.
        "presence_state_seconds" => presence_state_seconds: Option<usize> as OptionalCount = None,
        /// What messages have to be, whoever publishes them: text, json, or the name of a file with a JSON Schema, which ends in
        /// .json. JSON may have 64 KiB. Unset, anything.
        "validate" => validate: Option<Validate> as OptionalValidate = None,
        /// What of these topics webhook.url is told, too: a list of subscribed and unsubscribed, or one of them. Unset, neither.
        "webhook" => webhook: Option<Tapped> as OptionalTapped = None,
        /// URL, http or https, that what clients publish goes to instead of into the topic. What the admin port publishes goes
        /// into the topic. Unset, none.
        "forward" => forward: Option<String> as OptionalText = None,
    }
}

impl TopicRule {
    /// Whether anything is kept by it: messages, or the events of who comes and goes, for who comes back or falls behind.
    pub(super) fn keeps(&self) -> bool {
        self.history_messages.is_some_and(|count| count > 0)
            || self.presence.is_some_and(|mode| mode != PresenceMode::Off)
    }

    fn check_values(&self, check: &mut Checker<'_>) {
        if let Err(error) = TopicPattern::compile(&self.pattern) {
            check.report("pattern", error.to_string());
        }
        let mut within = |key, value: Option<usize>, range| {
            if let Some(value) = value {
                check.within(key, value, range);
            }
        };
        within("messages_max", self.messages_max, 1..=MESSAGES_MAX);
        within("bytes_max", self.bytes_max, 1..=BYTES_MAX);
        within("message_bytes_max", self.message_bytes_max, 1..=BYTES_MAX);
        within("disconnect_after_drops", self.disconnect_after_drops, 0..=DROPS_MAX);
        within("history_messages", self.history_messages, 0..=HISTORY_MESSAGES_MAX);
        within("history_bytes", self.history_bytes, 1..=BYTES_MAX);
        within("history_seconds", self.history_seconds, 0..=SECONDS_MAX);
        within("interval_ms", self.interval_ms, 0..=INTERVAL_MS_MAX);
        within("presence_grace_seconds", self.presence_grace_seconds, 0..=PRESENCE_GRACE_SECONDS_MAX);
        within("presence_interval_ms", self.presence_interval_ms, PRESENCE_INTERVAL_MS_MIN..=INTERVAL_MS_MAX);
        within("presence_state_seconds", self.presence_state_seconds, 0..=PRESENCE_STATE_SECONDS_MAX);
        if let Some((most, given)) =
            self.validate.as_ref().map(Validate::bytes_max).zip(self.message_bytes_max)
            && given > most
        {
            let problem = format!("expects at most {most} beside this rule's validate, got {given}");
            check.report("message_bytes_max", problem);
        }
        if let Some(problem) = self.forward.as_deref().and_then(unfit_url) {
            check.report("forward", problem);
        }
        let keeps = self.history_messages.is_some_and(|messages| messages > 0);
        if self.policy == Some(SlowPolicy::CatchUp) && !keeps {
            check.report("policy", "catch-up needs history_messages in the same rule".to_owned());
        }
        if (self.history_bytes.is_some() || self.history_seconds.is_some()) && self.history_messages.is_none()
        {
            let key = if self.history_bytes.is_some() { "history_bytes" } else { "history_seconds" };
            check.report(key, "needs history_messages in the same rule".to_owned());
        }
    }
}

/// Checks every table by itself; a rule that an earlier one hides is only warned about.
pub(super) fn read(
    tables: &[Table],
    errors: &mut Vec<ConfigError>,
    warnings: &mut Vec<String>,
) -> Vec<TopicRule> {
    let mut rules = Vec::new();
    let mut patterns: Vec<TopicPattern> = Vec::new();
    for table in tables {
        let mut rule = TopicRule::default();
        if !table.fill(&mut rule, errors) {
            continue;
        }
        if let Ok(pattern) = TopicPattern::compile(&rule.pattern) {
            if patterns.iter().any(|earlier| earlier.covers(&pattern)) {
                let (place, pattern) = (&table.place, &rule.pattern);
                warnings
                    .push(format!("{place}: topic.pattern: a rule before {pattern:?} fits all its topics"));
            }
            patterns.push(pattern);
        }
        rules.push(rule);
    }
    rules
}

struct PresenceKind;

impl Kind for PresenceKind {
    type Out = PresenceMode;
    const EXPECTS: &'static str = "off, counts or full";

    fn parse(raw: &RawValue) -> Option<PresenceMode> {
        match raw.word()?.as_str() {
            "off" => Some(PresenceMode::Off),
            "counts" => Some(PresenceMode::Counts),
            "full" => Some(PresenceMode::Full),
            _ => None,
        }
    }

    fn show(value: &PresenceMode) -> String {
        match value {
            PresenceMode::Off => "\"off\"".to_owned(),
            PresenceMode::Counts => "\"counts\"".to_owned(),
            PresenceMode::Full => "\"full\"".to_owned(),
        }
    }
}

struct ValidateKind;

impl Kind for ValidateKind {
    type Out = Validate;
    const EXPECTS: &'static str =
        "text, json, or the name of a file with a JSON Schema, such as \"order.json\"";

    fn parse(raw: &RawValue) -> Option<Validate> {
        match raw {
            RawValue::String(text) if text == "text" => Some(Validate::Text),
            RawValue::String(text) if text == "json" => Some(Validate::Json),
            RawValue::String(text) if text.ends_with(".json") => Some(Validate::Schema(text.clone())),
            _ => None,
        }
    }

    fn show(value: &Validate) -> String {
        match value {
            Validate::Text => "\"text\"".to_owned(),
            Validate::Json => "\"json\"".to_owned(),
            Validate::Schema(file) => quoted(file),
        }
    }
}

struct TappedKind;

impl Kind for TappedKind {
    type Out = Tapped;
    const EXPECTS: &'static str = "a list of subscribed and unsubscribed, or of one of them";

    fn parse(raw: &RawValue) -> Option<Tapped> {
        let mut tapped = Tapped::default();
        for word in Names::parse(raw)? {
            match word.as_str() {
                "subscribed" => tapped.subscribed = true,
                "unsubscribed" => tapped.unsubscribed = true,
                _ => return None,
            }
        }
        Some(tapped)
    }

    fn show(value: &Tapped) -> String {
        let Tapped { subscribed, unsubscribed } = *value;
        let words = [("subscribed", subscribed), ("unsubscribed", unsubscribed)];
        Names::show(&words.iter().filter(|(_, is)| *is).map(|(word, _)| (*word).to_owned()).collect())
    }
}

struct ClientsKind;

impl Kind for ClientsKind {
    type Out = Clients;
    const EXPECTS: &'static str = "nobody, claim, identified or anyone";

    fn parse(raw: &RawValue) -> Option<Clients> {
        match raw.word()?.as_str() {
            "nobody" => Some(Clients::Nobody),
            "claim" => Some(Clients::Claim),
            "identified" => Some(Clients::Identified),
            "anyone" => Some(Clients::Anyone),
            _ => None,
        }
    }

    fn show(value: &Clients) -> String {
        format!("\"{}\"", value.word())
    }
}
