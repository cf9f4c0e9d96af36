//! What became of log lines that were not written. Static, because whatever logs has nothing else in hand;
//! written by whoever logs, read by `/metrics`.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

static DROPPED: AtomicU64 = AtomicU64::new(0);
static SUPPRESSED: AtomicU64 = AtomicU64::new(0);

/// `lines` were lost: the queue was full, or standard error took nothing.
pub fn dropped(lines: u64) {
    DROPPED.fetch_add(lines, Relaxed);
}

/// One line more of its kind than may be written in a second.
pub fn suppressed() {
    SUPPRESSED.fetch_add(1, Relaxed);
}

/// Lines dropped and lines suppressed since the start.
#[must_use]
pub fn counts() -> (u64, u64) {
    (DROPPED.load(Relaxed), SUPPRESSED.load(Relaxed))
}
