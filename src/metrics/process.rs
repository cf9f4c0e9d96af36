//! Facts of the process that are asked for and not counted. Never on a hot path.

use crate::sys::{clock, process};

/// Resident memory in bytes, all kinds; `None` where procfs does not tell.
#[must_use]
pub fn resident_bytes() -> Option<u64> {
    process::memory(None).ok().map(|memory| memory.rss_anon + memory.rss_file + memory.rss_shmem)
}

/// Milliseconds on the clock that the loops' turns are stamped with.
#[must_use]
pub fn now_ms() -> u64 {
    clock::monotonic_ms()
}
