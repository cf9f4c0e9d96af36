//! `[drain]`: how the server leaves.

use std::time::Duration;

use super::section::{Checker, section};
use super::value::Seconds;

section! {
    /// How the server leaves when it is asked to.
    Drain ["drain"] {
        /// How long it says "not ready" before it stops accepting, so that a load balancer can turn away.
        live "delay_seconds" => delay: Duration as Seconds = Duration::ZERO,
        /// The time over which clients are told to go (1001), evenly, however few they are, so that they don't all
        /// reconnect at once; 0 tells all at once.
        live "seconds" => length: Duration as Seconds = Duration::from_secs(10),
    }
}

impl Drain {
    fn check_values(&self, check: &mut Checker<'_>) {
        check.time("delay_seconds", self.delay, Some("no delay"));
        check.time("seconds", self.length, Some("all at once"));
    }
}
