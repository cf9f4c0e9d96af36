//! SIGHUP: the configuration is read again and, if it has no mistake, given to every loop.
//!
//! Runs on the main thread. A configuration with a mistake changes nothing. What a running server can't
//! change keeps its running value and is named in the log, so that nobody believes it took effect.

use std::sync::Arc;

use super::{Server, capacity};
use crate::config::{ConfigErrors, Loaded, LogLevel, Reloaded};
use crate::edition::Control;

/// Reads the same sources as at the start.
pub type Read = Box<dyn FnMut() -> Result<Loaded, ConfigErrors>>;

/// What a reload needs from whoever started the server.
pub struct Reload {
    /// Reads the configuration anew.
    pub read: Read,
    /// Applies a level to the running log.
    pub set_log_level: Box<dyn FnMut(LogLevel)>,
}

impl Server {
    /// Reads the configuration anew and applies what can be applied; says the rest.
    pub(super) fn reload(&mut self, reload: &mut Reload) {
        let loaded = match (reload.read)() {
            Ok(loaded) => loaded,
            Err(errors) => {
                let errors: Vec<_> = errors.0.iter().map(ToString::to_string).collect();
                return self.refuse_reload(&errors);
            }
        };
        for warning in &loaded.warnings {
            tracing::warn!("{warning}");
        }
        match self.edition.settings.reloaded(&loaded.settings, self.edition.totals.mailbox) {
            Ok(reloaded) => self.apply(reloaded, reload),
            Err(problems) => self.refuse_reload(&problems),
        }
    }

    fn apply(&mut self, reloaded: Reloaded, reload: &mut Reload) {
        let Reloaded { settings, applied, needs_restart } = reloaded;
        let level = settings.log.level;
        let edition = match self.edition.with_settings(settings) {
            Ok(edition) => Arc::new(edition),
            Err(error) => return self.refuse_reload(&[error.to_string()]),
        };
        if edition.keys != self.edition.keys {
            // A file of keys may change under its name, which no key of the configuration tells.
            tracing::info!(keys = edition.keys.len(), "admin keys changed");
        }
        if edition.totals != self.edition.totals {
            capacity::tell_totals(&edition.totals, self.allowance.as_ref());
        }
        self.edition = Arc::clone(&edition);
        self.latest.set(edition);
        for index in 0..=self.edition.loops() {
            self.control(index, Control::Reload);
        }
        (reload.set_log_level)(level);
        self.edition.reloads.on_applied();
        for change in &applied {
            tracing::info!(key = change.key, from = change.from, to = change.to, "configuration changed");
        }
        for change in &needs_restart {
            tracing::warn!(
                key = change.key,
                running = change.from,
                configured = change.to,
                "needs a restart to take effect"
            );
        }
        tracing::info!(changed = applied.len(), need_restart = needs_restart.len(), "configuration reloaded");
    }

    fn refuse_reload(&self, problems: &[String]) {
        self.edition.reloads.on_refused();
        for problem in problems {
            tracing::error!("configuration: {problem}");
        }
        tracing::error!(mistakes = problems.len(), "configuration not reloaded; nothing has changed");
    }
}
