//! SIGHUP, or a request on the admin port: the configuration is read again and, if it has no mistake, given to every
//! loop.
//!
//! A thread reads, one reading at a time, because files may block: whoever waits for them must not hold up signals. The
//! main thread applies what was read. A configuration with a mistake changes nothing. What a running server can't
//! change keeps its running value and is named in the log, so that nobody believes it took effect.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use serde_json::json;

use super::{Event, Server, capacity, key_log};
use crate::config::{Change, ConfigErrors, Loaded, LogLevel, Reloaded};
use crate::edition::{Control, Edition, ReloadAnswer};

/// Reads the same sources as at the start.
pub type Read = Box<dyn FnMut() -> Result<Loaded, ConfigErrors> + Send>;

/// Stack of the thread that reads: a parser goes down into what is nested.
const STACK_BYTES: usize = 4 << 20;

/// What a reload needs from whoever started the server.
pub struct Reload {
    /// Reads the configuration anew.
    pub read: Read,
    /// Applies a level to the running log.
    pub set_log_level: Box<dyn FnMut(LogLevel)>,
}

/// What was read, as it would be applied.
pub(super) struct Next {
    edition: Edition,
    applied: Vec<Change>,
    needs_restart: Vec<Change>,
    warnings: Vec<String>,
}

/// What a reading came to, or what is wrong.
pub(super) type Reading = Result<Box<Next>, Vec<String>>;

/// The readings of a server: one under way at the most.
pub(super) struct Readings {
    read: Arc<Mutex<Read>>,
    set_log_level: Box<dyn FnMut(LogLevel)>,
    events: Sender<Event>,
    under_way: bool,
    /// Requests that the one under way is for.
    requests: usize,
    /// Another one is wanted, for so many requests.
    next: Option<usize>,
}

impl Readings {
    /// None yet; what they come to goes to `events`.
    pub(super) fn new(reload: Reload, events: Sender<Event>) -> Self {
        let Reload { read, set_log_level } = reload;
        let read = Arc::new(Mutex::new(read));
        Self { read, set_log_level, events, under_way: false, requests: 0, next: None }
    }

    /// Requests that wait for an answer. They are forgotten.
    fn take_requests(&mut self) -> usize {
        std::mem::take(&mut self.requests) + self.next.take().unwrap_or(0)
    }
}

/// What becomes of a reading, for the log and for whoever has asked.
enum Outcome {
    Applied { applied: Vec<Change>, needs_restart: Vec<Change>, keys_changed: bool, warnings: Vec<String> },
    Refused(Vec<String>),
}

impl Server {
    /// Reads the configuration anew, for so many requests of the admin port; once more if it is being read already, since
    /// it may have changed since.
    pub(super) fn read_anew(&mut self, readings: &mut Readings, requests: usize) {
        if readings.under_way {
            readings.next = Some(readings.next.unwrap_or(0) + requests);
            return;
        }
        readings.requests = requests;
        let read = Arc::clone(&readings.read);
        self.prepare(readings, move |edition| {
            // The closure keeps nothing between two calls that a panic could leave half done.
            let loaded = (read.lock().unwrap_or_else(PoisonError::into_inner))();
            prepared(edition, loaded)
        });
    }

    /// Reads the files of certificates anew, and nothing else: what else was written into the configuration waits for
    /// whoever asks for it. A reading that is under way may have read them before they changed.
    pub(super) fn renew_certificates(&mut self, readings: &mut Readings) {
        if readings.under_way {
            readings.next = Some(readings.next.unwrap_or(0));
            return;
        }
        self.prepare(readings, |edition| {
            let next = edition.with_settings(edition.settings.clone());
            let edition = next.map_err(|error| vec![error.to_string()])?;
            Ok(Box::new(Next {
                edition,
                applied: Vec::new(),
                needs_restart: Vec::new(),
                warnings: Vec::new(),
            }))
        });
    }

    /// Has a thread read what the next edition is made of.
    fn prepare(&mut self, readings: &mut Readings, read: impl FnOnce(&Edition) -> Reading + Send + 'static) {
        self.supervisor.reloading();
        let events = readings.events.clone();
        let edition = Arc::clone(&self.edition);
        let work = move || {
            let reading = catch_unwind(AssertUnwindSafe(|| read(&edition)));
            let reading =
                reading.unwrap_or_else(|_| Err(vec!["reading it failed; the log has why".to_owned()]));
            // The receiver is gone only when the server is.
            let _ = events.send(Event::Read(reading));
        };
        let builder = thread::Builder::new().name("reload".to_owned()).stack_size(STACK_BYTES);
        readings.under_way = true;
        if let Err(error) = builder.spawn(work) {
            self.on_read(readings, Err(vec![format!("no thread can be started to read it: {error}")]));
        }
    }

    /// A reading is over.
    pub(super) fn on_read(&mut self, readings: &mut Readings, reading: Reading) {
        readings.under_way = false;
        let outcome = match reading {
            Ok(next) => self.apply(*next, &mut readings.set_log_level),
            Err(problems) => Outcome::Refused(problems),
        };
        self.tell_reload(&outcome);
        for _ in 0..std::mem::take(&mut readings.requests) {
            self.answer_reload(&outcome);
        }
        match readings.next.take() {
            Some(requests) => self.read_anew(readings, requests),
            None => self.tell_ready(),
        }
    }

    /// Says to all who wait for a reading that nothing is read any more.
    pub(super) fn refuse_readings(&self, readings: &mut Readings) {
        (0..readings.take_requests()).for_each(|_| self.refuse_reload());
    }

    /// Says that to one who has asked.
    pub(super) fn refuse_reload(&self) {
        self.answer_reload(&Outcome::Refused(vec!["the server is on its way out".to_owned()]));
    }

    fn apply(&mut self, next: Next, set_log_level: &mut dyn FnMut(LogLevel)) -> Outcome {
        let Next { edition, applied, needs_restart, warnings } = next;
        // A file of keys may change under its name, which no key of the configuration tells.
        let keys_changed = edition.keys != self.edition.keys;
        let certificates =
            |edition: &Edition| edition.all_tls().map(|tls| tls.certificates.clone()).collect::<Vec<_>>();
        let certificates_changed = certificates(&edition) != certificates(&self.edition);
        if edition.totals != self.edition.totals {
            capacity::tell_totals(&edition.totals, self.allowance.as_ref());
        }
        self.edition = Arc::new(edition);
        self.latest.set(Arc::clone(&self.edition));
        self.edition.keep_key_sets();
        for index in 0..=self.edition.loops() {
            self.control(index, Control::Reload);
        }
        set_log_level(self.edition.settings.log.level);
        if certificates_changed {
            self.tell_certificates();
        }
        Outcome::Applied { applied, needs_restart, keys_changed, warnings }
    }

    /// Counts and logs it.
    fn tell_reload(&self, outcome: &Outcome) {
        match outcome {
            Outcome::Applied { applied, needs_restart, keys_changed, warnings } => {
                self.edition.reloads.on_applied();
                key_log::warn(&self.edition.settings);
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

/// The next edition, made of what was read.
fn prepared(edition: &Edition, loaded: Result<Loaded, ConfigErrors>) -> Reading {
    let loaded = loaded.map_err(|errors| errors.0.iter().map(ToString::to_string).collect::<Vec<_>>())?;
    let reloaded = edition.settings.reloaded(&loaded.settings, edition.totals.mailbox)?;
    let Reloaded { settings, applied, needs_restart } = reloaded;
    let edition = edition.with_settings(settings).map_err(|error| vec![error.to_string()])?;
    Ok(Box::new(Next { edition, applied, needs_restart, warnings: loaded.warnings }))
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
