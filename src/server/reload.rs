//! SIGHUP, or a request on the admin port: the configuration is read again and, if it has no mistake, given to every loop.
//!
//! Runs on the main thread. A configuration with a mistake changes nothing. What a running server can't
//! change keeps its running value and is named in the log, so that nobody believes it took effect.

use std::sync::Arc;

use serde_json::json;

use super::{Server, capacity};
use crate::config::{Change, ConfigErrors, Loaded, LogLevel, Reloaded};
use crate::edition::Control;
use crate::edition::ReloadAnswer;

/// Reads the same sources as at the start.
pub type Read = Box<dyn FnMut() -> Result<Loaded, ConfigErrors>>;

/// What a reload needs from whoever started the server.
pub struct Reload {
    /// Reads the configuration anew.
    pub read: Read,
    /// Applies a level to the running log.
    pub set_log_level: Box<dyn FnMut(LogLevel)>,
}

/// What becomes of a reading, for the log and for whoever has asked.
enum Outcome {
    Applied { applied: Vec<Change>, needs_restart: Vec<Change>, keys_changed: bool, warnings: Vec<String> },
    Refused(Vec<String>),
}

impl Server {
    /// Reads the configuration anew and applies what can be applied; says the rest.
    pub(super) fn reload(&mut self, reload: &mut Reload) {
        let outcome = self.read_and_apply(reload);
        self.tell_reload(&outcome);
    }

    /// The same for a request on the admin port, which waits for the answer.
    pub(super) fn reload_as_asked(&mut self, reload: &mut Reload) {
        let outcome = self.read_and_apply(reload);
        self.tell_reload(&outcome);
        self.answer_reload(&outcome);
    }

    /// Says to whoever has asked that nothing is read any more.
    pub(super) fn refuse_reload(&self) {
        self.answer_reload(&Outcome::Refused(vec!["the server is on its way out".to_owned()]));
    }

    fn read_and_apply(&mut self, reload: &mut Reload) -> Outcome {
        let loaded = match (reload.read)() {
            Ok(loaded) => loaded,
            Err(errors) => return Outcome::Refused(errors.0.iter().map(ToString::to_string).collect()),
        };
        match self.edition.settings.reloaded(&loaded.settings, self.edition.totals.mailbox) {
            Ok(reloaded) => self.apply(reloaded, loaded.warnings, reload),
            Err(problems) => Outcome::Refused(problems),
        }
    }

    fn apply(&mut self, reloaded: Reloaded, warnings: Vec<String>, reload: &mut Reload) -> Outcome {
        let Reloaded { settings, applied, needs_restart } = reloaded;
        let level = settings.log.level;
        let edition = match self.edition.with_settings(settings) {
            Ok(edition) => Arc::new(edition),
            Err(error) => return Outcome::Refused(vec![error.to_string()]),
        };
        // A file of keys may change under its name, which no key of the configuration tells.
        let keys_changed = edition.keys != self.edition.keys;
        if edition.totals != self.edition.totals {
            capacity::tell_totals(&edition.totals, self.allowance.as_ref());
        }
        self.edition = Arc::clone(&edition);
        self.latest.set(edition);
        for index in 0..=self.edition.loops() {
            self.control(index, Control::Reload);
        }
        (reload.set_log_level)(level);
        Outcome::Applied { applied, needs_restart, keys_changed, warnings }
    }

    /// Counts and logs it.
    fn tell_reload(&self, outcome: &Outcome) {
        match outcome {
            Outcome::Applied { applied, needs_restart, keys_changed, warnings } => {
                self.edition.reloads.on_applied();
                for warning in warnings {
                    tracing::warn!("{warning}");
                }
                if *keys_changed {
                    tracing::info!(keys = self.edition.keys.len(), "admin keys changed");
                }
                for change in applied {
                    tracing::info!(
                        key = change.key,
                        from = change.from,
                        to = change.to,
                        "configuration changed"
                    );
                }
                for change in needs_restart {
                    tracing::warn!(
                        key = change.key,
                        running = change.from,
                        configured = change.to,
                        "needs a restart to take effect"
                    );
                }
                let (changed, need_restart) = (applied.len(), needs_restart.len());
                tracing::info!(changed, need_restart, "configuration reloaded");
            }
            Outcome::Refused(problems) => {
                self.edition.reloads.on_refused();
                for problem in problems {
                    tracing::error!("configuration: {problem}");
                }
                tracing::error!(mistakes = problems.len(), "configuration not reloaded; nothing has changed");
            }
        }
    }

    fn answer_reload(&self, outcome: &Outcome) {
        let applied = matches!(outcome, Outcome::Applied { .. });
        self.edition.reload_answers.push(ReloadAnswer { applied, body: outcome.json() });
        self.control(self.edition.loops(), Control::Reload);
    }
}

impl Outcome {
    fn json(&self) -> Vec<u8> {
        let change = |change: &Change| json!({ "key": change.key, "from": change.from, "to": change.to });
        let changes = |changes: &[Change]| changes.iter().map(change).collect::<Vec<_>>();
        let value = match self {
            Self::Applied { applied, needs_restart, keys_changed, warnings } => json!({
                "reloaded": true,
                "changed": changes(applied),
                "needs_restart": changes(needs_restart),
                "keys_changed": keys_changed,
                "warnings": warnings,
            }),
            Self::Refused(problems) => json!({ "reloaded": false, "mistakes": problems }),
        };
        format!("{value}\n").into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_became_of_it_is_told_as_json() {
        let text = |text: &str| text.to_owned();
        let change = Change { key: text("topic \"a\" policy"), from: text("unset"), to: text("\"latest\"") };
        let applied = Outcome::Applied {
            applied: vec![change.clone(), change],
            needs_restart: Vec::new(),
            keys_changed: true,
            warnings: vec![text("w")],
        };
        let parsed: serde_json::Value = serde_json::from_slice(&applied.json()).unwrap();
        assert_eq!((&parsed["reloaded"], &parsed["keys_changed"]), (&true.into(), &true.into()));
        assert_eq!(parsed["changed"][1]["key"], "topic \"a\" policy");
        assert_eq!(
            (parsed["needs_restart"].as_array().map(Vec::len), &parsed["warnings"][0]),
            (Some(0), &"w".into())
        );
        let refused = Outcome::Refused(vec![text("f.toml:1: \"x\""), text("y")]).json();
        let parsed: serde_json::Value = serde_json::from_slice(&refused).unwrap();
        assert_eq!((&parsed["reloaded"], &parsed["mistakes"][0]), (&false.into(), &"f.toml:1: \"x\"".into()));
    }
}
