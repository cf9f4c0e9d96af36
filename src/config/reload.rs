//! Which keys a running server can change, and what a newly read configuration changes. Pure: `server`
//! reads the sources and gives the result to the loops.

use super::section::{Section, Unfit};
use super::settings::Settings;

/// Keys that take effect without a restart, by section. A key that is not here needs one: that is the
/// safe answer for a key nobody has thought about.
const LIVE: [(&str, &[&str]); 11] = [
    ("server", &["subprotocols"]),
    (
        "limits",
        &[
            "message_bytes_max",
            "echo_bytes_max",
            "fragments_max",
            "head_bytes_max",
            "head_fields_max",
            "admin_body_bytes_max",
            "admin_body_bytes_total",
            "subscriptions_max",
            "ignored_publishes_max",
            "inbox_bytes_total",
        ],
    ),
    (
        "timeouts",
        &[
            "handshake_seconds",
            "close_seconds",
            "heartbeat_seconds",
            "pong_seconds",
            "write_timeout_seconds",
            "linger_seconds",
            "keep_alive_seconds",
        ],
    ),
    ("outbox", &["policy", "messages_max", "bytes_max", "disconnect_after_drops", "bytes_total"]),
    ("deflate", &["enabled", "min_bytes", "level"]),
    ("drain", &["delay_seconds", "seconds"]),
    ("origin", &["allowed", "required"]),
    ("admin", &["hosts", "keys", "keys_file"]),
    ("publish", &["topics"]),
    ("admission", &["messages_per_second", "messages_burst", "bytes_per_second", "bytes_burst"]),
    ("log", &["level"]),
];

/// Whether a reload applies the key.
pub(super) fn is_live(section: &str, key: &str) -> bool {
    LIVE.iter().any(|(name, keys)| *name == section && keys.contains(&key))
}

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
    /// What becomes of these running settings when `configured` is read.
    ///
    /// # Errors
    /// One line for each key that does not fit the running values of keys which need a restart.
    pub fn reloaded(&self, configured: &Self) -> Result<Reloaded, Vec<String>> {
        let mut settings = self.clone();
        let (mut applied, mut needs_restart) = (Vec::new(), Vec::new());
        for (running, wanted) in settings.sections_mut().into_iter().zip(configured.sections()) {
            for (change, key) in differences(running, wanted) {
                if is_live(running.name(), key) {
                    running.adopt(key, wanted);
                    applied.push(change);
                } else {
                    needs_restart.push(change);
                }
            }
        }
        if self.topics != configured.topics {
            let rules = |settings: &Self| format!("{} rules", settings.topics.len());
            applied.push(Change { key: "topic".to_owned(), from: rules(self), to: rules(configured) });
            settings.topics.clone_from(&configured.topics);
        }
        let unfit = settings.unfit();
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn every_live_key_exists() {
        let settings = Settings::default();
        for (section, keys) in LIVE {
            let found = settings.sections().into_iter().find(|known| known.name() == section);
            for key in keys {
                assert!(found.is_some_and(|known| known.keys().contains(key)), "{section}.{key}");
            }
        }
    }

    #[test]
    fn live_keys_change_and_others_keep_their_running_value() {
        let running = Settings::default();
        let mut wanted = running.clone();
        wanted.timeouts.heartbeat = Duration::from_secs(3);
        wanted.origin.allowed = vec!["https://a.example".to_owned()];
        wanted.server.backlog = 7;
        let reloaded = running.reloaded(&wanted).unwrap();
        assert_eq!(reloaded.settings.timeouts.heartbeat, Duration::from_secs(3));
        assert_eq!(reloaded.settings.origin, wanted.origin);
        assert_eq!(reloaded.settings.server, running.server);
        let heartbeat =
            Change { key: "timeouts.heartbeat_seconds".into(), from: "25".into(), to: "3".into() };
        assert!(reloaded.applied.contains(&heartbeat), "{reloaded:?}");
        assert_eq!(reloaded.applied.len(), 2);
        let backlog = Change { key: "server.backlog".into(), from: "4096".into(), to: "7".into() };
        assert_eq!(reloaded.needs_restart, [backlog]);
        assert_eq!(running.reloaded(&running).unwrap().applied, []);
    }

    #[test]
    fn what_does_not_fit_beside_the_running_values_is_refused() {
        let running = Settings::default();
        let mut wanted = running.clone();
        wanted.limits.message_bytes_max = 128 << 20;
        wanted.mailbox.bytes_max = 256 << 20;
        assert_eq!(wanted.unfit(), [], "it fits together, but not with the mailboxes that run");
        let problems = running.reloaded(&wanted).unwrap_err();
        assert!(problems[0].starts_with("mailbox.bytes_max: expects at least"), "{problems:?}");
    }
}
