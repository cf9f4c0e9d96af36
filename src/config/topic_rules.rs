//! The rules of topics as the topics take them, made of checked settings.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{self, Read};

use super::settings::Settings;
use super::topic::{Clients, Validate};
use crate::sys;
use crate::topic::check::Check;
use crate::topic::pattern::PatternError;
use crate::topic::rules::{Rule, TopicPolicy, TopicRules};
use crate::topic::schema::FILE_BYTES_MAX;
use crate::topic::sync::Arc;
use crate::topic::{Access, Schema, TopicPattern};

impl Settings {
    /// Compiles the rules of checked settings, and reads the schemas that they name.
    ///
    /// # Errors
    /// A schema can't be read or used. Or a pattern does not compile; checked settings have none such.
    pub fn topic_rules(&self) -> Result<TopicRules, KeyError> {
        let mut schemas = Schemas::default();
        let urls: BTreeSet<&str> = self.forward_urls().collect();
        let rules = self.topics.iter().map(|rule| {
            Ok(Rule {
                pattern: TopicPattern::compile(&rule.pattern)?,
                publish: rule.publish.map(Clients::access),
                subscribe: rule.subscribe.map(Clients::access),
                slow: rule.policy,
                messages_max: rule.messages_max.map(narrow),
                bytes_max: rule.bytes_max,
                message_bytes_max: rule.message_bytes_max,
                disconnect_after_drops: rule.disconnect_after_drops.map(narrow),
                history_messages: rule.history_messages.map(narrow),
                history_bytes: rule.history_bytes.map(|bytes| bytes as u64),
                history_seconds: rule.history_seconds.map(narrow),
                interval_ms: rule.interval_ms.map(narrow),
                presence: rule.presence,
                presence_grace_ms: rule
                    .presence_grace_seconds
                    .map(|seconds| narrow(seconds.saturating_mul(1_000))),
                presence_interval_ms: rule.presence_interval_ms.map(narrow),
                presence_state_ms: rule
                    .presence_state_seconds
                    .map(|seconds| narrow(seconds.saturating_mul(1_000))),
                check: match &rule.validate {
                    None => None,
                    Some(Validate::Text) => Some(Check::Text),
                    Some(Validate::Json) => Some(Check::Json),
                    Some(Validate::Schema(file)) => Some(Check::Schema(schemas.place_of(file)?)),
                },
                tapped: rule.webhook,
                forward: rule
                    .forward
                    .as_deref()
                    .and_then(|url| urls.iter().position(|known| *known == url).map(narrow)),
            })
        });
        let open = self.publish.topics.iter().map(|topic| TopicPattern::compile(topic));
        // Where somebody says who clients are, that is what a client needs.
        let (unlisted, listed) = match self.issuers.is_empty() && !self.auth.has_backend() {
            true => (Access::Nobody, Access::Anyone),
            false => (Access::Claim, Access::Identified),
        };
        let base = TopicPolicy {
            publish: unlisted,
            subscribe: listed,
            slow: self.outbox.policy,
            messages_max: narrow(self.outbox.messages_max),
            bytes_max: self.outbox.bytes_max,
            message_bytes_max: self.limits.message_bytes_max,
            disconnect_after_drops: narrow(self.outbox.disconnect_after_drops),
            history: TopicPolicy::default().history,
            interval_ms: TopicPolicy::default().interval_ms,
            presence: TopicPolicy::default().presence,
            check: Check::Nothing,
            tapped: TopicPolicy::default().tapped,
            forward: None,
        };
        let (rules, open) = (rules.collect::<Result<_, KeyError>>()?, open.collect::<Result<_, _>>()?);
        Ok(TopicRules::open_to(rules, open, listed, base)
            .with_schemas(schemas.read)
            .forwarding_to(urls.iter().copied().map(Into::into).collect()))
    }
}

/// What a key of the configuration names is of no use.
#[derive(Debug)]
pub struct KeyError {
    /// The key of the configuration that is at fault.
    pub key: &'static str,
    /// What is wrong, and what to do.
    pub problem: String,
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.problem)
    }
}

impl std::error::Error for KeyError {}

impl From<PatternError> for KeyError {
    fn from(error: PatternError) -> Self {
        Self { key: "topic.pattern", problem: error.to_string() }
    }
}

/// Schemas by file, each read and compiled once.
#[derive(Default)]
struct Schemas<'a> {
    places: BTreeMap<&'a str, u32>,
    read: Vec<Arc<Schema>>,
}

impl<'a> Schemas<'a> {
    fn place_of(&mut self, file: &'a str) -> Result<u32, KeyError> {
        if let Some(place) = self.places.get(file) {
            return Ok(*place);
        }
        let wrong = |problem| KeyError { key: "topic.validate", problem: format!("{file:?} {problem}") };
        let bytes = read_schema(file).map_err(|error| wrong(format!("can't be read: {error}")))?;
        let schema = Schema::compile(&bytes).map_err(wrong)?;
        let place = narrow(self.read.len());
        self.read.push(Arc::new(schema));
        self.places.insert(file, place);
        Ok(place)
    }
}

/// One byte more than a schema may have tells that it has more.
fn read_schema(file: &str) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    sys::file::open(file)?.take(FILE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Checked values fit; what was not checked is cut instead of wrapped.
fn narrow(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::TopicRule;
    use crate::topic::SlowPolicy;

    #[test]
    fn rules_come_first_and_the_sections_fill_them_up() {
        let mut settings = Settings::default();
        settings.publish.topics = vec!["prices/eur".to_owned()];
        settings.outbox.messages_max = 7;
        let rule = |pattern: &str| TopicRule { pattern: pattern.to_owned(), ..TopicRule::default() };
        settings.topics = vec![
            TopicRule { publish: Some(Clients::Anyone), ..rule("prices/open") },
            TopicRule { policy: Some(SlowPolicy::Latest), bytes_max: Some(1000), ..rule("prices/*") },
        ];
        let rules = settings.topic_rules().unwrap();
        let of = |name: &str| {
            let policy = rules.policy_of(name);
            (policy.slow, policy.publish == Access::Anyone, policy.messages_max, policy.bytes_max)
        };
        assert_eq!(of("prices/open"), (SlowPolicy::DropNewest, true, 7, 256 << 10));
        assert_eq!(of("prices/eur"), (SlowPolicy::Latest, true, 7, 1000));
        assert_eq!(of("lobby"), (SlowPolicy::DropNewest, false, 7, 256 << 10));
    }

    #[test]
    fn what_is_read_on_the_way_is_no_longer_than_it_may_be() {
        let mut settings = Settings::default();
        let rule = |pattern: &str, validate| TopicRule {
            pattern: pattern.to_owned(),
            validate: Some(validate),
            ..TopicRule::default()
        };
        settings.topics = vec![rule("json", Validate::Json), rule("text", Validate::Text)];
        let of =
            |settings: &Settings, name| settings.topic_rules().unwrap().policy_of(name).message_bytes_max;
        assert_eq!((of(&settings, "json"), of(&settings, "text")), (64 << 10, 1 << 20));
        settings.limits.message_bytes_max = 5;
        assert_eq!(of(&settings, "json"), 5);
        settings.topics.push(rule("missing", Validate::Schema("/nowhere/a.json".to_owned())));
        let error = settings.topic_rules().unwrap_err().to_string();
        assert!(error.starts_with("topic.validate: \"/nowhere/a.json\" can't be read: "), "{error}");
    }

    #[test]
    fn without_rules_the_sections_hold() {
        let mut settings = Settings::default();
        settings.limits.message_bytes_max = 5;
        settings.outbox.disconnect_after_drops = 3;
        let rules = settings.topic_rules().unwrap();
        let policy = rules.policy_of("lobby");
        assert_eq!(policy.publish, Access::Anyone);
        assert_eq!((policy.message_bytes_max, policy.disconnect_after_drops), (5, 3));
    }

    #[test]
    fn a_router_without_settings_has_their_defaults() {
        let settings = Settings::default().topic_rules().unwrap();
        assert_eq!(settings.policy_of("x"), TopicRules::default().policy_of("x"));
    }
}
