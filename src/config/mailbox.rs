//! `[mailbox]`: what may wait for a loop.

use super::section::{Checker, section};
use super::value::{BytesOrAutomatic, Count};

section! {
    /// What may wait for one event loop; a publish that does not fit is answered with 503.
    Mailbox ["mailbox"] {
        /// Most bytes waiting for one loop. 0 takes a sixteenth of the memory that the process may have for all loops
        /// together, at most 64 MiB for each.
        "bytes_max" => bytes_max: Option<usize> as BytesOrAutomatic = None,
        /// Most messages waiting for one loop.
        "entries_max" => entries_max: usize as Count = 65_536,
        /// Joins waiting in one loop, a client's each topic one, above which further requests of clients wait until
        /// the joins before them are listed; those that came in one request are never torn apart.
        "joins_max" => joins_max: usize as Count = 65_536,
    }
}

impl Mailbox {
    fn check_values(&self, check: &mut Checker<'_>) {
        if let Some(bytes_max) = self.bytes_max {
            check.within("bytes_max", bytes_max, 1..=64 << 30);
        }
        check.within("entries_max", self.entries_max, 1..=1 << 24);
        check.within("joins_max", self.joins_max, 1..=1 << 24);
    }
}
