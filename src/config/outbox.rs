//! `[outbox]`: what may wait for a peer that reads slowly.

use super::section::{Checker, section};
use super::value::{Bytes, Count};

section! {
    /// What may wait for a peer that does not read as fast as its topics speak.
    Outbox ["outbox"] {
        /// Most messages waiting for one connection. At the bound a new message is dropped for this connection
        /// only and counted.
        "messages_max" => messages_max: usize as Count = 64,
        /// Most bytes waiting for one connection; a single larger message may still wait alone.
        "bytes_max" => bytes_max: usize as Bytes = 256 << 10,
    }
}

impl Outbox {
    fn check_values(&self, check: &mut Checker<'_>) {
        check.within("messages_max", self.messages_max, 1..=65_535);
        check.within("bytes_max", self.bytes_max, 1..=1 << 30);
    }
}
