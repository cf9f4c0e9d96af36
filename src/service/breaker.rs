//! When to make no calls: a server that fails again and again is left alone for a while, and one that asks for it, too.
//!
//! Driven by whoever makes calls to one address, under its lock; time is given in milliseconds and may be any clock that
//! only goes forward.

use std::time::Duration;

/// Failures in a row behind which no call is made for a while.
const FAILURES: u32 = 5;

/// How long the first time, in milliseconds; each further time is twice as long.
const PAUSE_MS: u64 = 1_000;

/// How long at most.
const PAUSE_MS_MAX: u64 = 30_000;

/// What may be done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Calls are made.
    Closed,
    /// None is made yet, for so many milliseconds.
    Open(u64),
    /// One is made, to see whether the others may follow.
    Trial,
}

/// Counts what failed, and says when calls are made.
#[derive(Debug, Default)]
pub struct Breaker {
    /// In a row.
    failures: u32,
    /// Nothing is called before.
    until_ms: u64,
    /// How long the latest pause was, while it has not been seen that the server is back.
    pause_ms: u64,
    /// Whether the one call that shows it is under way.
    trying: bool,
}

impl Breaker {
    /// Whether a call may be made at `now_ms`; if it may, whoever asks makes one and tells how it went.
    pub fn try_call(&mut self, now_ms: u64) -> State {
        let state = self.state(now_ms);
        self.trying |= state == State::Trial;
        state
    }

    /// What may be done at `now_ms`.
    #[must_use]
    pub fn state(&self, now_ms: u64) -> State {
        if now_ms < self.until_ms {
            State::Open(self.until_ms - now_ms)
        } else if self.pause_ms == 0 {
            State::Closed
        } else if self.trying {
            // Its outcome is a moment away.
            State::Open(0)
        } else {
            State::Trial
        }
    }

    /// A call was answered.
    pub fn succeeded(&mut self) {
        *self = Self { until_ms: self.until_ms, ..Self::default() };
    }

    /// A call has failed. `true`: none will be made for a while because of that.
    pub fn failed(&mut self, now_ms: u64) -> bool {
        let tried = std::mem::take(&mut self.trying);
        self.failures = self.failures.saturating_add(1);
        // Those that were under way when it opened say nothing new.
        let opens = tried || (self.pause_ms == 0 && self.failures >= FAILURES);
        if opens {
            self.pause_ms = (self.pause_ms * 2).clamp(PAUSE_MS, PAUSE_MS_MAX);
            self.until_ms = self.until_ms.max(now_ms + self.pause_ms);
        }
        opens
    }

    /// The server has asked to be left alone for so long (`Retry-After`).
    pub fn leave_alone(&mut self, now_ms: u64, pause: Duration) {
        self.trying = false;
        let pause = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
        self.until_ms = self.until_ms.max(now_ms.saturating_add(pause));
        self.pause_ms = self.pause_ms.max(PAUSE_MS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_failures_in_a_row_open_it_and_one_call_tries_again() {
        let mut breaker = Breaker::default();
        for _ in 0..FAILURES - 1 {
            assert!(!breaker.failed(0));
        }
        breaker.succeeded();
        for _ in 0..FAILURES - 1 {
            assert!(!breaker.failed(0));
        }
        assert_eq!(breaker.try_call(0), State::Closed);
        assert!(breaker.failed(10));
        assert!(!breaker.failed(10), "it was under way before");
        assert_eq!((breaker.try_call(10), breaker.try_call(1_009)), (State::Open(1_000), State::Open(1)));
        assert_eq!((breaker.try_call(1_010), breaker.try_call(1_010)), (State::Trial, State::Open(0)));
        assert!(breaker.failed(1_010), "twice as long now");
        assert_eq!(breaker.state(3_009), State::Open(1));
        assert_eq!(breaker.try_call(3_010), State::Trial);
        breaker.succeeded();
        assert_eq!((breaker.try_call(3_010), breaker.try_call(3_010)), (State::Closed, State::Closed));
    }

    #[test]
    fn pauses_grow_to_half_a_minute_and_a_server_may_ask_for_one() {
        let (mut breaker, mut now) = (Breaker::default(), 0);
        for _ in 0..FAILURES {
            breaker.failed(now);
        }
        for _ in 0..10 {
            let State::Open(left) = breaker.try_call(now) else { panic!("{breaker:?}") };
            now += left;
            assert_eq!(breaker.try_call(now), State::Trial);
            breaker.failed(now);
        }
        assert_eq!(breaker.state(now), State::Open(PAUSE_MS_MAX));
        let mut asked = Breaker::default();
        asked.leave_alone(5, Duration::from_secs(2));
        // What was under way is answered yet, and ends no pause that was asked for.
        asked.succeeded();
        assert_eq!((asked.state(2_004), asked.state(2_005)), (State::Open(1), State::Closed));
    }
}
