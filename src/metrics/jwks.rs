//! Sets of keys that are fetched: how old they are, and how fetches end. Written by the service, read by `/metrics`.

use std::sync::atomic::{AtomicU64, Ordering};

/// How fetches end, by their labels: two that bring a set, and what else may come of one.
pub const FETCH_OUTCOMES: [&str; 11] = [
    "changed",
    "same",
    "status",
    "nonsense",
    "deadline",
    "name",
    "connection",
    "tls",
    "redirect",
    "too_long",
    "not_http",
];

/// Counts them.
#[derive(Debug, Default)]
pub struct JwksCounts([AtomicU64; FETCH_OUTCOMES.len()]);

/// One reading of all sets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JwksFacts {
    /// Fetches, in the order of [`FETCH_OUTCOMES`].
    pub fetches: [u64; FETCH_OUTCOMES.len()],
    /// The sets.
    pub sets: Vec<JwksSet>,
}

/// One set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JwksSet {
    /// Where it is fetched.
    pub url: String,
    /// Keys in it; none until it was fetched once.
    pub keys: u64,
    /// Seconds since it was fetched, or since it was first asked for.
    pub age_seconds: u64,
}

impl JwksCounts {
    /// A fetch has ended so, one of [`FETCH_OUTCOMES`].
    pub fn fetched(&self, outcome: &str) {
        let place = FETCH_OUTCOMES.iter().position(|other| *other == outcome);
        debug_assert!(place.is_some(), "{outcome}");
        if let Some(counter) = place.and_then(|place| self.0.get(place)) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What was counted so far.
    #[must_use]
    pub fn reading(&self) -> [u64; FETCH_OUTCOMES.len()] {
        self.0.each_ref().map(|counter| counter.load(Ordering::Relaxed))
    }
}
