//! The only door through which the fan-out protocols reach locks and atomics. Owns nothing; it
//! exists so that `tests/loom.rs` can compile the very same protocol files against loom's versions
//! and explore every interleaving. Never adds behaviour of its own.

pub use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
pub use std::sync::{Arc, Mutex, MutexGuard};

/// Locks, ignoring poison: a panicking loop aborts the process, so no half-made state is ever seen.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
