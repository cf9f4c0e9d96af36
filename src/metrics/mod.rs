//! Counters per loop, the reasons things end for, and the Prometheus text. Never a lock on a hot path.

mod counters;
pub mod names;
mod process;
pub mod prometheus;
pub mod reasons;
mod reloads;

pub use counters::{Counter, LoopCounters};
pub use process::{now_ms, resident_bytes};
pub use reasons::{CloseReason, RefuseReason};
pub use reloads::Reloads;
