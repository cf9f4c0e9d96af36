//! What a newly read configuration changes of a running one. Pure: `server`
//! reads the sources and gives the result to the loops.

use std::collections::BTreeMap;

use super::section::{Section, Unfit};
use super::settings::Settings;
use super::{IssuerRule, Mailbox, TopicRule};

/// Changes of topic rules that are told one by one.
const RULE_CHANGES_TOLD: usize = 20;

/// One key whose configured value differs from the running one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The key as `section.key`.
    pub key: String,
    /// The running value before the reload, as TOML; a secret's is not shown.
    pub from: String,
    /// The configured value, as TOML; a secret's is not shown.
    pub to: String,
}

/// What a reload comes to.
#[derive(Debug, Clone, PartialEq)]
pub struct Reloaded {
    /// The settings to run with from now on: what needs a restart has its running value.
    pub settings: Settings,
    /// What takes effect now.
    pub applied: Vec<Change>,
    /// What is configured otherwise than it runs, until a restart.
    pub needs_restart: Vec<Change>,
}

impl Settings {
    /// What becomes of these running settings when `configured` is read, with mailboxes that were made for so many
    /// bytes.
    ///
    /// # Errors
    /// One line for each key that does not fit the running values of keys which need a restart.
    pub fn reloaded(&self, configured: &Self, mailbox_bytes: usize) -> Result<Reloaded, Vec<String>> {
        let mut settings = self.clone();
        let (mut applied, mut needs_restart) = (Vec::new(), Vec::new());
        for (running, wanted) in settings.sections_mut().into_iter().zip(configured.sections()) {
            for (change, key) in differences(running, wanted) {
                if running.is_live(key) {
                    running.adopt(key, wanted);
                    applied.push(change);
                } else {
                    needs_restart.push(change);
                }
            }
        }
        // A port that is bound goes on with TLS, or without it.
        if settings.admin.speaks_tls() != self.admin.speaks_tls() {
            settings.admin.keep_tls_of(&self.admin);
            let (of_tls, others) =
                applied.into_iter().partition(|change| change.key.starts_with("admin.tls_"));
            applied = others;
            needs_restart.extend::<Vec<_>>(of_tls);
        }
        if self.topics != configured.topics {
            applied.append(&mut rule_differences(&self.topics, &configured.topics));
            settings.topics.clone_from(&configured.topics);
        }
        if self.issuers != configured.issuers {
            let told = |issuers: &[IssuerRule]| match issuers {
                [] => "none".to_owned(),
                some => {
                    some.iter().map(|issuer| format!("{:?}", issuer.issuer)).collect::<Vec<_>>().join(", ")
                }
            };
            let (from, to) = (told(&self.issuers), told(&configured.issuers));
            applied.push(Change { key: "auth.issuer".to_owned(), from, to });
            settings.issuers.clone_from(&configured.issuers);
        }
        // An automatic number of bytes was chosen at the start, for the messages of then.
        let running = Self {
            mailbox: Mailbox { bytes_max: Some(mailbox_bytes), ..settings.mailbox.clone() },
            ..settings
        };
        let unfit = running.unfit();
        let settings = Self { mailbox: self.mailbox.clone(), ..running };
        if unfit.is_empty() {
            return Ok(Reloaded { settings, applied, needs_restart });
        }
        let line = |unfit: Unfit| {
            let Unfit { section, key, problem } = unfit;
            format!("{section}.{key}: {problem}; restart the server to change both")
        };
        Err(unfit.into_iter().map(line).collect())
    }
}

fn differences(running: &dyn Section, wanted: &dyn Section) -> Vec<(Change, &'static str)> {
    let shown = running.reference().into_iter().zip(wanted.reference());
    shown
        .filter(|(old, _)| running.differs(old.key, wanted))
        .map(|(old, new)| {
            let key = format!("{}.{}", running.name(), old.key);
            (Change { key, from: old.value, to: new.value }, old.key)
        })
        .collect()
}

/// What differs between two lists of rules: which came, which went, whose keys have other values, and whether the
/// others have another order. There is at least one.
fn rule_differences(running: &[TopicRule], wanted: &[TopicRule]) -> Vec<Change> {
    let (old, new) = (by_pattern(running), by_pattern(wanted));
    let mut changes = Vec::new();
    for (pattern, rule) in &old {
        let name = format!("topic {pattern:?}");
        match new.get(pattern) {
            Some(other) => changes.extend(differences(*rule, *other).into_iter().map(|(change, key)| {
                let key = format!("{name} {key}");
                Change { key, ..change }
            })),
            None => changes.push(Change { key: name, from: told(rule), to: "no rule".to_owned() }),
        }
    }
    for (pattern, rule) in new.iter().filter(|(pattern, _)| !old.contains_key(*pattern)) {
        let key = format!("topic {pattern:?}");
        changes.push(Change { key, from: "no rule".to_owned(), to: told(rule) });
    }
    let order = |rules: &[TopicRule], others: &BTreeMap<&str, &TopicRule>| {
        let kept =
            rules.iter().map(|rule| rule.pattern.as_str()).filter(|pattern| others.contains_key(pattern));
        kept.map(|pattern| format!("{pattern:?}")).collect::<Vec<_>>().join(", ")
    };
    let (from, to) = (order(running, &new), order(wanted, &old));
    if from != to || changes.is_empty() {
        changes.push(Change { key: "order of topics".to_owned(), from, to });
    }
    if changes.len() > RULE_CHANGES_TOLD {
        let rules = |rules: &[TopicRule]| format!("{} rules", rules.len());
        let others = changes.len() - RULE_CHANGES_TOLD;
        changes.truncate(RULE_CHANGES_TOLD);
        let to = format!("{}, {others} more differences", rules(wanted));
        changes.push(Change { key: "topics".to_owned(), from: rules(running), to });
    }
    changes
}

/// The rule that holds for each pattern: the first one.
fn by_pattern(rules: &[TopicRule]) -> BTreeMap<&str, &TopicRule> {
    // The last one that is put in stays.
    rules.iter().rev().map(|rule| (rule.pattern.as_str(), rule)).collect()
}

/// The keys that a rule sets.
fn told(rule: &TopicRule) -> String {
    let unset = TopicRule { pattern: rule.pattern.clone(), ..TopicRule::default() };
    let keys = rule.reference().into_iter().filter(|key| rule.differs(key.key, &unset));
    let keys: Vec<_> = keys.map(|key| format!("{} = {}", key.key, key.value)).collect();
    if keys.is_empty() { "a rule that sets nothing".to_owned() } else { keys.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn live_keys_change_and_others_keep_their_running_value() {
        let running = Settings::default();
        let mut wanted = running.clone();
        wanted.timeouts.heartbeat = Duration::from_secs(3);
        wanted.origin.allowed = vec!["https://a.example".to_owned()];
        wanted.server.backlog = 7;
        let reloaded = running.reloaded(&wanted, 64 << 20).unwrap();
        assert_eq!(reloaded.settings.timeouts.heartbeat, Duration::from_secs(3));
        assert_eq!(reloaded.settings.origin, wanted.origin);
        assert_eq!(reloaded.settings.server, running.server);
        let heartbeat =
            Change { key: "timeouts.heartbeat_seconds".into(), from: "25".into(), to: "3".into() };
        assert!(reloaded.applied.contains(&heartbeat), "{reloaded:?}");
        assert_eq!(reloaded.applied.len(), 2);
        let backlog = Change { key: "server.backlog".into(), from: "4096".into(), to: "7".into() };
        assert_eq!(reloaded.needs_restart, [backlog]);
        assert_eq!(running.reloaded(&running, 64 << 20).unwrap().applied, []);
    }

    #[test]
    fn rules_are_told_by_what_changed_in_them() {
        let rule = |pattern: &str, messages_max| TopicRule {
            pattern: pattern.to_owned(),
            messages_max,
            ..TopicRule::default()
        };
        let told = |from: &[TopicRule], to: &[TopicRule]| {
            let settings = |rules: &[TopicRule]| Settings { topics: rules.to_vec(), ..Settings::default() };
            let applied = settings(from).reloaded(&settings(to), 64 << 20).unwrap().applied;
            applied
                .into_iter()
                .map(|change| [change.key, change.from, change.to].join(" | "))
                .collect::<Vec<_>>()
        };
        let [a, b, c] = ["a", "b*", "c"].map(|pattern| rule(pattern, Some(1)));
        assert_eq!(
            told(std::slice::from_ref(&a), &[rule("a", Some(2))]),
            ["topic \"a\" messages_max | 1 | 2"]
        );
        assert_eq!(
            told(&[a.clone(), b.clone()], &[b.clone(), rule("c", None)]),
            ["topic \"a\" | messages_max = 1 | no rule", "topic \"c\" | no rule | a rule that sets nothing"]
        );
        let turned = told(&[a.clone(), b.clone()], &[b.clone(), c.clone(), a.clone()]);
        assert_eq!(turned[1], "order of topics | \"a\", \"b*\" | \"b*\", \"a\"");
        // A rule behind another one of its pattern never held.
        assert_eq!(told(&[a.clone(), rule("a", Some(2))], std::slice::from_ref(&a)).len(), 1);
        let many: Vec<_> = (0..500).map(|number| rule(&format!("t{number}"), None)).collect();
        let all = told(&[], &many);
        assert_eq!((all.len(), all[20].as_str()), (21, "topics | 0 rules | 500 rules, 480 more differences"));
    }

    #[test]
    fn what_does_not_fit_beside_the_running_values_is_refused() {
        let running = Settings::default();
        let mut wanted = running.clone();
        wanted.limits.message_bytes_max = 128 << 20;
        wanted.mailbox.bytes_max = Some(256 << 20);
        assert_eq!(wanted.unfit(), [], "it fits together, but not with the mailboxes that run");
        let problems = running.reloaded(&wanted, 64 << 20).unwrap_err();
        assert!(problems[0].starts_with("mailbox.bytes_max: expects at least"), "{problems:?}");
    }
}
