//! Lines on standard error.

use std::io::Write;

/// Says a line on standard error, if anybody listens: a pipe that is closed there must not end a run.
pub(crate) fn note(line: &str) {
    drop(writeln!(std::io::stderr(), "{line}"));
}
