//! `[outbox]`: what may wait for a peer that reads slowly, and what happens to a slow consumer.

use super::section::{Checker, section};
use super::value::{Bytes, BytesOrAutomatic, Count, Kind, RawValue};
use crate::topic::SlowPolicy;

section! {
    /// What may wait for a peer that does not read as fast as its topics speak.
    Outbox ["outbox"] {
        /// What happens to a message that finds no room: drop-newest, drop-oldest, latest or disconnect; see
        /// "Slow consumers".
        live "policy" => policy: SlowPolicy as Policy = SlowPolicy::DropNewest,
        /// Most messages of one topic waiting for one connection.
        live "messages_max" => messages_max: usize as Count = 64,
        /// Most bytes of one topic waiting for one connection; a single larger message may still wait alone.
        live "bytes_max" => bytes_max: usize as Bytes = 256 << 10,
        /// Close a connection with 1013 that misses so many messages of a topic in a row; 0 never does. In a
        /// row means: without a message queued in between that cost no other.
        live "disconnect_after_drops" => disconnect_after_drops: usize as Count = 0,
        /// Most bytes waiting over all connections; a message that many wait for counts once, and 16 bytes for
        /// each. An eighth is kept for answers and control frames. 0 takes a quarter of the memory that the process may
        /// have, at most 256 MiB.
        live "bytes_total" => bytes_total: Option<usize> as BytesOrAutomatic = None,
    }
}

/// Most messages of one topic that a bound may allow to wait.
pub(super) const MESSAGES_MAX: usize = 65_535;

/// Most bytes of one topic that a bound may allow to wait.
pub(super) const BYTES_MAX: usize = 1 << 30;

/// Most drops in a row that can be counted.
pub(super) const DROPS_MAX: usize = 1_000_000_000;

impl Outbox {
    fn check_values(&self, check: &mut Checker<'_>) {
        check.within("messages_max", self.messages_max, 1..=MESSAGES_MAX);
        check.within("bytes_max", self.bytes_max, 1..=BYTES_MAX);
        check.within("disconnect_after_drops", self.disconnect_after_drops, 0..=DROPS_MAX);
        if self.policy == SlowPolicy::CatchUp {
            let problem =
                "catch-up is for topics that keep messages: say it in [[topic]], beside history_messages";
            check.report("policy", problem.to_owned());
        }
    }
}

/// The word of a [`SlowPolicy`].
pub(super) struct Policy;

impl Kind for Policy {
    type Out = SlowPolicy;
    const EXPECTS: &'static str = "drop-newest, drop-oldest, latest, disconnect or catch-up";

    fn parse(raw: &RawValue) -> Option<SlowPolicy> {
        let word = raw.word()?;
        SlowPolicy::ALL.into_iter().find(|policy| policy.word() == word)
    }

    fn show(value: &SlowPolicy) -> String {
        format!("\"{}\"", value.word())
    }
}
