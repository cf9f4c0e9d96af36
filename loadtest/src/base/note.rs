//! Lines on standard error. While a screen is there they are held for it, and said when it is gone.

use std::collections::VecDeque;
use std::io::Write;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Lines held at most; the oldest go.
const HELD_MAX: usize = 200;

static HELD: Mutex<Option<VecDeque<String>>> = Mutex::new(None);

/// Says a line on standard error, if anybody listens: a pipe that is closed there must not end a run.
pub(crate) fn note(line: &str) {
    match held().as_mut() {
        Some(lines) => {
            if lines.len() >= HELD_MAX {
                lines.pop_front();
            }
            lines.push_back(line.to_owned());
        }
        None => drop(writeln!(std::io::stderr(), "{line}")),
    }
}

/// Holds what is said from now on.
pub(crate) fn hold() {
    held().get_or_insert_default();
}

/// Says what was held, and holds nothing any more.
pub(crate) fn release() {
    for line in held().take().into_iter().flatten() {
        drop(writeln!(std::io::stderr(), "{line}"));
    }
}

/// The last line that is held.
pub(crate) fn latest() -> Option<String> {
    held().as_ref()?.back().cloned()
}

fn held() -> MutexGuard<'static, Option<VecDeque<String>>> {
    HELD.lock().unwrap_or_else(PoisonError::into_inner)
}
