//! The certificates thread: looks now and then whether the files of certificates are others than before, and has them
//! read anew.
//!
//! A file may be written in place, replaced, or reached by a symbolic link that is turned to another folder, as Kubernetes
//! does with secrets: what the names lead to in the end is looked at. Certificate and key may be written one after the
//! other, so a change is acted on once it has stood still for one look. Runs on a thread of its own, which may block.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::thread;
use std::time::Duration;

use super::{Event, ServeError, spawn};
use crate::config::Settings;
use crate::edition::Latest;

/// How long it sleeps while it is not to look.
const PAUSE: Duration = Duration::from_secs(1);

/// What one file is: its device and number, its length, when it was changed. `None`: there is none.
type Mark = Option<(u64, u64, u64, i64, i64)>;

/// What was seen of the files.
struct Watch {
    /// The files as they were read.
    taken: Vec<Mark>,
    /// The files at the last look.
    seen: Vec<Mark>,
}

impl Watch {
    /// Whether the files are others than those that were read, and are written to no more.
    fn look(&mut self, now: Vec<Mark>) -> bool {
        let stands_still = now == self.seen;
        self.seen = now;
        let changed = stands_still && self.seen != self.taken;
        if changed {
            self.taken.clone_from(&self.seen);
        }
        changed
    }
}

/// Starts it. It ends when nobody hears it any more.
///
/// # Errors
/// There is no thread to be had.
pub(super) fn start(latest: &Arc<Latest>, events: Sender<Event>) -> Result<(), ServeError> {
    let latest = Arc::clone(latest);
    let marks = |settings: &Settings| marks_of(settings);
    let now = marks(&latest.current().settings);
    let mut watch = Watch { taken: now.clone(), seen: now };
    spawn("certificates", move || {
        loop {
            let pause = latest.current().settings.tls.watch;
            thread::sleep(if pause.is_zero() { PAUSE } else { pause });
            let settings = &latest.current().settings;
            if !settings.tls.watch.is_zero()
                && watch.look(marks(settings))
                && events.send(Event::CertificatesChanged).is_err()
            {
                return;
            }
        }
    })
    .map(drop)
}

fn marks_of(settings: &Settings) -> Vec<Mark> {
    let mark = |file: &str| {
        let of = fs::metadata(file).ok()?;
        Some((of.dev(), of.ino(), of.size(), of.mtime(), of.mtime_nsec()))
    };
    settings.tls.watched().into_iter().chain(settings.admin.tls_watched()).map(mark).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_told_once_and_not_while_it_goes_on() {
        let mark = |number: u64| vec![Some((1, number, 2, 3, 4)), Some((1, 9, 2, 3, 4))];
        let mut watch = Watch { taken: mark(1), seen: mark(1) };
        assert!(!watch.look(mark(1)));
        assert!(!watch.look(mark(2)), "it may be written to yet");
        assert!(!watch.look(mark(3)), "it was");
        assert!(watch.look(mark(3)));
        assert!(!watch.look(mark(3)), "once");
        assert!(!watch.look(vec![None, mark(3)[1]]), "gone for a moment");
        assert!(!watch.look(mark(3)), "and back: nothing has changed");
    }
}
