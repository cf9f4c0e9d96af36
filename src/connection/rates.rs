//! How fast one connection speaks: what it owes of its message and byte rates.
//!
//! Kept in the session only while something is owed, so that a connection at rest has nothing of it. Driven by
//! the read turn; never reads a clock.

use super::{TICK_MS, Tick};

/// Ticks in a second, and parts a token is counted in: at each tick a bucket gains `per_second` parts.
const PARTS: u64 = 1_000 / TICK_MS;

/// One rate and the burst it allows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rate {
    /// Tokens a second; 0 turns the limit off.
    pub per_second: u64,
    /// Tokens of a full bucket.
    pub burst: u64,
}

/// The rates connections are held to, each by itself but for the last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RateLimits {
    /// Messages and pings.
    pub messages: Rate,
    /// Bytes, headers included.
    pub bytes: Rate,
    /// Messages and pings of all connections of one bearer.
    pub of_bearer: Rate,
}

impl RateLimits {
    /// Whether messages are counted at all.
    #[inline(always)]
    #[must_use]
    pub fn count_messages(&self) -> bool {
        self.messages.per_second | self.of_bearer.per_second != 0
    }
}

/// What one connection owes; all zero when its buckets are full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Debts {
    messages: u64,
    bytes: u64,
    /// When they were last settled.
    settled: Tick,
    /// When nothing will be owed any more; 0 when nothing is.
    until: Tick,
}

impl Debts {
    /// Charges one message. `false`: that is more than the rate allows.
    #[must_use]
    pub fn charge_message(&mut self, now: Tick, limits: &RateLimits) -> bool {
        self.settle(now, limits);
        self.messages = self.messages.saturating_add(PARTS);
        self.foresee(now, limits);
        self.messages <= limits.messages.burst.saturating_mul(PARTS)
    }

    /// Charges bytes that were read. `false`: that is more than the rate allows.
    #[must_use]
    pub fn charge_bytes(&mut self, count: usize, now: Tick, limits: &RateLimits) -> bool {
        self.settle(now, limits);
        self.bytes = self.bytes.saturating_add((count as u64).saturating_mul(PARTS));
        self.foresee(now, limits);
        self.bytes <= limits.bytes.burst.saturating_mul(PARTS)
    }

    /// Whether there is anything to remember.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.until == 0
    }

    /// The tick at which nothing is owed any more, if something is.
    #[must_use]
    pub fn until(&self) -> Option<Tick> {
        (self.until != 0).then_some(self.until)
    }

    fn settle(&mut self, now: Tick, limits: &RateLimits) {
        let ticks = u64::from(now.saturating_sub(self.settled));
        self.messages = self.messages.saturating_sub(ticks.saturating_mul(limits.messages.per_second));
        self.bytes = self.bytes.saturating_sub(ticks.saturating_mul(limits.bytes.per_second));
        self.settled = self.settled.max(now);
    }

    fn foresee(&mut self, now: Tick, limits: &RateLimits) {
        let ticks = |owed: u64, rate: Rate| owed.div_ceil(rate.per_second.max(1));
        let longest = ticks(self.messages, limits.messages).max(ticks(self.bytes, limits.bytes));
        let longest = Tick::try_from(longest).unwrap_or(Tick::MAX);
        // Tick 0 stands for nothing, and at the earliest the next tick changes anything.
        self.until = now.saturating_add(longest.max(1)).min(Tick::MAX - 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: RateLimits = RateLimits {
        messages: Rate { per_second: 5, burst: 3 },
        bytes: Rate { per_second: 100, burst: 1_000 },
        of_bearer: Rate { per_second: 0, burst: 1 },
    };

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let mut debts = Debts::default();
        for _ in 0..3 {
            assert!(debts.charge_message(10, &LIMITS));
        }
        let full = debts;
        assert!(!debts.charge_message(10, &LIMITS), "the fourth at once");
        debts = full;
        assert!(!debts.charge_message(11, &LIMITS), "half a token came back");
        debts = full;
        assert!(debts.charge_message(12, &LIMITS), "five a second are one in two ticks");
        assert_eq!(full.until(), Some(16), "three tokens take six ticks");
    }

    #[test]
    fn bytes_are_a_bucket_of_their_own() {
        let mut debts = Debts::default();
        assert!(debts.charge_bytes(1_000, 5, &LIMITS));
        assert_eq!(debts.until(), Some(5 + 100));
        assert!(debts.charge_message(5, &LIMITS));
        assert_eq!(debts.until(), Some(5 + 100));
        assert!(!debts.charge_bytes(1, 5, &LIMITS));
        let mut later = Debts::default();
        assert!(later.charge_bytes(1_000, 5, &LIMITS) && later.charge_bytes(10, 6, &LIMITS));
        assert!(!later.charge_bytes(usize::MAX, 7, &LIMITS));
    }

    #[test]
    fn over_a_long_time_the_rate_holds() {
        let (mut debts, mut passed) = (Debts::default(), 0);
        for now in 0..1_000 {
            let mut tried = debts;
            while tried.charge_message(now, &LIMITS) {
                debts = tried;
                passed += 1;
            }
        }
        // 100 seconds.
        assert!((500..=503).contains(&passed), "{passed}");
    }
}
