//! Sets of keys that are fetched: how old they are, and how fetches end. Written by the service, read by `/metrics`.

use super::calls::{CallOutcome, CallReading};

/// What fetches are made for: see [`FAILURES`](super::calls::FAILURES) for what else they come to.
pub const FETCHES_BRING: [CallOutcome; 2] = [CallOutcome::Changed, CallOutcome::Same];

/// One reading of all sets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JwksFacts {
    /// How fetches have ended.
    pub fetches: CallReading,
    /// The sets.
    pub sets: Vec<JwksSet>,
}

/// One set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JwksSet {
    /// Where it is fetched, without what is behind a question mark; behind a `#` its number, if that is also another's.
    pub url: String,
    /// Keys in it; none until it was fetched once.
    pub keys: u64,
    /// Seconds since it was fetched, or since it was first asked for.
    pub age_seconds: u64,
}
