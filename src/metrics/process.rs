//! Facts of the process and of the build that are asked for and not counted. Never on a hot path.

use std::time::Duration;

use crate::sys::process::MemoryUse;
use crate::sys::{clock, process};

/// The version of the server.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The commit it was built from, or "unknown".
pub const COMMIT: &str = crate::BUILT_OF_COMMIT;
/// The version of the compiler.
pub const RUSTC: &str = env!("BUILT_WITH_RUSTC");

/// Memory by kind, in bytes; `None` where procfs does not tell.
#[must_use]
pub fn memory() -> Option<MemoryUse> {
    process::memory(None).ok()
}

/// Processor time used so far, user and system.
#[must_use]
pub fn cpu_time() -> Option<Duration> {
    process::cpu_time(None).ok()
}

/// Milliseconds on the clock that the loops' turns are stamped with.
#[must_use]
pub fn now_ms() -> u64 {
    clock::monotonic_ms()
}
