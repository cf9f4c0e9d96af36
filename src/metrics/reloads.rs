//! How reloads of the configuration went. Written by the main thread, read by `/metrics`.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use super::names;

/// Counts reloads by outcome and remembers when a configuration was last taken.
#[derive(Debug)]
pub struct Reloads {
    applied: AtomicU64,
    refused: AtomicU64,
    last_success_seconds: AtomicU64,
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

    /// Appends both metrics in Prometheus' text format.
    pub fn render(&self, out: &mut String) {
        let (total, last) = (names::CONFIG_RELOADS, names::CONFIG_LAST_SUCCESS);
        let applied = self.applied.load(Ordering::Relaxed);
        let refused = self.refused.load(Ordering::Relaxed);
        let seconds = self.last_success_seconds.load(Ordering::Relaxed);
        // Writing to a String cannot fail.
        let _ = write!(
            out,
            "# HELP {total} Reloads of the configuration, by outcome.\n# TYPE {total} counter\n\
             {total}{{outcome=\"applied\"}} {applied}\n{total}{{outcome=\"refused\"}} {refused}\n\
             # HELP {last} When a configuration was last taken, in seconds since 1970.\n# TYPE {last} gauge\n\
             {last} {seconds}\n"
        );
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
        let mut out = String::new();
        reloads.render(&mut out);
        assert!(out.contains("fantail_config_reloads_total{outcome=\"applied\"} 1\n"), "{out}");
        assert!(out.contains("fantail_config_reloads_total{outcome=\"refused\"} 2\n"), "{out}");
        let last = out.lines().last().and_then(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
        assert!(last.is_some_and(|seconds| seconds > 1_700_000_000), "{out}");
    }
}
