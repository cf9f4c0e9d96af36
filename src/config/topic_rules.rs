//! The compiled rules of topics: which policy a topic has, by its name. Pure; the router asks when it
//! creates a topic and when rules are replaced.

use crate::auth::PatternError;
use crate::auth::publish::{PublishPolicy, TopicPattern};

use super::outbox::SlowPolicy;
use super::settings::Settings;
use super::topic::{Publishers, TopicRule};

/// What holds for one topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TopicPolicy {
    /// Whether clients may publish to it.
    pub client_publish: bool,
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
}

/// All rules, in the order of the file, and what holds where none fits.
#[derive(Debug, Clone)]
pub struct TopicRules {
    rules: Box<[(TopicPattern, TopicRule)]>,
    publish: PublishPolicy,
    base: TopicPolicy,
}

impl TopicRules {
    /// Compiles the rules of checked settings.
    ///
    /// # Errors
    /// A pattern does not compile; checked settings have none such.
    pub fn compile(settings: &Settings) -> Result<Self, PatternError> {
        let rules =
            settings.topics.iter().map(|rule| Ok((TopicPattern::compile(&rule.pattern)?, rule.clone())));
        Ok(Self {
            rules: rules.collect::<Result<_, _>>()?,
            publish: PublishPolicy::compile(&settings.publish.topics)?,
            base: base(settings),
        })
    }

    /// What holds for the topic of this name: the first rule that fits, and for what it leaves open the
    /// other sections.
    #[must_use]
    pub fn policy_of(&self, name: &str) -> TopicPolicy {
        let rule = self.rules.iter().find(|(pattern, _)| pattern.fits(name)).map(|(_, rule)| rule);
        let base = self.base;
        let publish = rule.and_then(|rule| rule.publish);
        let client_publish = match publish {
            Some(publishers) => publishers == Publishers::Anyone,
            None => self.publish.allows(name),
        };
        let Some(rule) = rule else { return TopicPolicy { client_publish, ..base } };
        TopicPolicy {
            client_publish,
            slow: rule.policy.unwrap_or(base.slow),
            messages_max: rule.messages_max.map_or(base.messages_max, narrow),
            bytes_max: rule.bytes_max.unwrap_or(base.bytes_max),
            message_bytes_max: rule.message_bytes_max.unwrap_or(base.message_bytes_max),
            disconnect_after_drops: rule.disconnect_after_drops.map_or(base.disconnect_after_drops, narrow),
        }
    }
}

impl Default for TopicRules {
    /// No rules, no publishing clients, every bound as it is by default.
    fn default() -> Self {
        Self { rules: Box::default(), publish: PublishPolicy::default(), base: base(&Settings::default()) }
    }
}

fn base(settings: &Settings) -> TopicPolicy {
    TopicPolicy {
        client_publish: false,
        slow: settings.outbox.policy,
        messages_max: narrow(settings.outbox.messages_max),
        bytes_max: settings.outbox.bytes_max,
        message_bytes_max: settings.limits.message_bytes_max,
        disconnect_after_drops: narrow(settings.outbox.disconnect_after_drops),
    }
}

/// Checked values fit; what was not checked is cut instead of wrapped.
fn narrow(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(pattern: &str) -> TopicRule {
        TopicRule { pattern: pattern.to_owned(), ..TopicRule::default() }
    }

    #[test]
    fn the_first_rule_that_fits_holds_and_leaves_the_rest_to_the_sections() {
        let mut settings = Settings::default();
        settings.publish.topics = vec!["prices/eur".to_owned()];
        settings.outbox.messages_max = 7;
        settings.topics = vec![
            TopicRule { publish: Some(Publishers::Anyone), ..rule("prices/open") },
            TopicRule { policy: Some(SlowPolicy::Latest), bytes_max: Some(1000), ..rule("prices/*") },
            TopicRule {
                policy: Some(SlowPolicy::Disconnect),
                publish: Some(Publishers::Nobody),
                ..rule("*")
            },
        ];
        let rules = TopicRules::compile(&settings).unwrap();
        let of = |name: &str| {
            let policy = rules.policy_of(name);
            (policy.slow, policy.client_publish, policy.messages_max, policy.bytes_max)
        };
        assert_eq!(of("prices/open"), (SlowPolicy::DropNewest, true, 7, 256 << 10));
        assert_eq!(of("prices/eur"), (SlowPolicy::Latest, true, 7, 1000));
        assert_eq!(of("prices/usd"), (SlowPolicy::Latest, false, 7, 1000));
        assert_eq!(of("lobby"), (SlowPolicy::Disconnect, false, 7, 256 << 10));
    }

    #[test]
    fn without_rules_the_sections_hold() {
        let mut settings = Settings::default();
        settings.limits.message_bytes_max = 5;
        settings.outbox.disconnect_after_drops = 3;
        let policy = TopicRules::compile(&settings).unwrap().policy_of("lobby");
        assert!(policy.client_publish);
        assert_eq!((policy.message_bytes_max, policy.disconnect_after_drops), (5, 3));
        assert!(!TopicRules::default().policy_of("lobby").client_publish);
    }
}
