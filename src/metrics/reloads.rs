//! How reloads of the configuration went. Written by the main thread, read by `/metrics` and `/stats`.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// Counts reloads by outcome and remembers when a configuration was last taken.
#[derive(Debug)]
pub struct Reloads {
    applied: AtomicU64,
    refused: AtomicU64,
    last_success_seconds: AtomicU64,
}

/// One reading of [`Reloads`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReloadCounts {
    /// Configurations that were read and taken, the one of the start not among them.
    pub applied: u64,
    /// Configurations with a mistake.
    pub refused: u64,
    /// When one was last taken, in seconds since 1970; at first the start.
    pub last_success_seconds: u64,
}

impl Default for Reloads {
    /// The configuration of the start was just taken.
    fn default() -> Self {
        Self {
            applied: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            last_success_seconds: AtomicU64::new(unix_seconds()),
        }
    }
}

impl Reloads {
    /// A configuration was read and taken, whether or not it changed anything.
    pub fn on_applied(&self) {
        self.applied.fetch_add(1, Ordering::Relaxed);
        self.last_success_seconds.store(unix_seconds(), Ordering::Relaxed);
    }

    /// A configuration had mistakes and changed nothing.
    pub fn on_refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// What is counted now.
    #[must_use]
    pub fn reading(&self) -> ReloadCounts {
        ReloadCounts {
            applied: self.applied.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
            last_success_seconds: self.last_success_seconds.load(Ordering::Relaxed),
        }
    }
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_are_counted_apart() {
        let reloads = Reloads::default();
        reloads.on_applied();
        reloads.on_refused();
        reloads.on_refused();
        let counts = reloads.reading();
        assert_eq!((counts.applied, counts.refused), (1, 2));
        assert!(counts.last_success_seconds > 1_700_000_000, "{counts:?}");
    }
}
