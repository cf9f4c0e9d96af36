//! When to try again: exponential backoff with full jitter. Pure; time and chance are passed in.
//!
//! Full jitter draws the whole delay at random below an exponentially growing bound. Clients that lost
//! their server at the same moment come back spread over the bound and not in waves around it.

use std::time::Duration;

/// How the bound grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackoffLimits {
    /// The bound of the first delay.
    pub first: Duration,
    /// The bound never grows above this.
    pub cap: Duration,
    /// A connection that lived so long was a good one: the next delay starts over.
    pub stable: Duration,
}

impl Default for BackoffLimits {
    fn default() -> Self {
        Self {
            first: Duration::from_millis(500),
            cap: Duration::from_secs(30),
            stable: Duration::from_secs(10),
        }
    }
}

/// The attempts so far.
#[derive(Debug, Clone)]
pub struct Backoff {
    limits: BackoffLimits,
    failures: u32,
}

impl Backoff {
    /// No attempt yet.
    #[must_use]
    pub fn new(limits: BackoffLimits) -> Self {
        Self { limits, failures: 0 }
    }

    /// Attempts and short-lived connections in a row.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// A connection ended that had lived for `lived`; one that lived long enough wipes the slate.
    pub fn on_ended(&mut self, lived: Duration) {
        if lived >= self.limits.stable {
            self.failures = 0;
        }
    }

    /// The delay before the next attempt: `random` of 2^32 parts of the present bound.
    pub fn next_delay(&mut self, random: u32) -> Duration {
        let bound = self.bound();
        self.failures = self.failures.saturating_add(1);
        let nanos = (bound.as_nanos() * u128::from(random)) >> 32;
        // Below the bound, which is a Duration itself.
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// Delays are drawn from zero to this.
    #[must_use]
    pub fn bound(&self) -> Duration {
        let factor = 1_u32.checked_shl(self.failures).unwrap_or(u32::MAX);
        self.limits.first.saturating_mul(factor).min(self.limits.cap)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn limits() -> BackoffLimits {
        BackoffLimits {
            first: Duration::from_millis(100),
            cap: Duration::from_secs(2),
            stable: Duration::from_secs(5),
        }
    }

    #[test]
    fn the_bound_doubles_up_to_the_cap() {
        let mut backoff = Backoff::new(limits());
        let mut bounds = Vec::new();
        for _ in 0..7 {
            bounds.push(backoff.bound().as_millis());
            backoff.next_delay(0);
        }
        assert_eq!(bounds, [100, 200, 400, 800, 1600, 2000, 2000]);
        backoff.failures = u32::MAX;
        backoff.next_delay(0);
        assert_eq!((backoff.bound(), backoff.failures()), (limits().cap, u32::MAX));
    }

    #[test]
    fn only_a_stable_connection_starts_over() {
        let mut backoff = Backoff::new(limits());
        for _ in 0..3 {
            backoff.next_delay(0);
        }
        backoff.on_ended(Duration::from_millis(4_999));
        assert_eq!(backoff.failures(), 3);
        backoff.on_ended(Duration::from_secs(5));
        assert_eq!(backoff.bound(), limits().first);
    }

    #[test]
    fn the_whole_range_is_used() {
        let middle = |random| Backoff::new(limits()).next_delay(random);
        assert_eq!(middle(0), Duration::ZERO);
        assert_eq!(middle(1 << 31), limits().first / 2);
        assert!(middle(u32::MAX) > limits().first.mul_f64(0.999));
    }

    proptest! {
        #[test]
        fn a_delay_is_below_its_bound(failures in 0_u32..200, random: u32) {
            let mut backoff = Backoff { limits: limits(), failures };
            let bound = backoff.bound();
            prop_assert!(backoff.next_delay(random) < bound);
        }
    }
}
