//! `[mailbox]`: what may wait for a loop.

use super::section::{Checker, section};
use super::value::{Bytes, Count};

section! {
    /// What publishers may have waiting for one event loop; a publish that does not fit is answered with 503.
    Mailbox ["mailbox"] {
        /// Most bytes waiting for one loop.
        "bytes_max" => bytes_max: usize as Bytes = 64 << 20,
        /// Most messages waiting for one loop.
        "entries_max" => entries_max: usize as Count = 65_536,
    }
}

impl Mailbox {
    fn check_values(&self, check: &mut Checker<'_>) {
        check.within("bytes_max", self.bytes_max, 1..=64 << 30);
        check.within("entries_max", self.entries_max, 1..=1 << 24);
    }
}
