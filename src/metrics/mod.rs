//! Counters per loop and their Prometheus text. Never a lock on a hot path.
//!
//! Each loop owns one [`LoopCounters`] and is its only writer; the admin endpoint reads all of them
//! whenever it is asked and adds up what it finds. Names are in `names`, reasons in `reasons`.

mod counters;
pub mod names;
mod process;
mod prometheus;
mod reasons;

pub use counters::{Counter, LoopCounters, PerReason};
pub use process::ProcessFacts;
pub use prometheus::render;
pub use reasons::{CloseReason, DropReason, RefuseReason};
