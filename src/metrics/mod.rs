//! Counters per loop, the reasons things end for, and both texts made of them. Never a lock on a hot path.

pub mod backend;
pub mod calls;
mod counters;
pub mod facts;
pub mod forward;
pub mod histogram;
mod json;
pub mod jwks;
pub mod logs;
pub mod names;
mod process;
pub mod prometheus;
pub mod reasons;
mod reloads;
pub mod stats;
mod webhook;

pub use counters::{Counter, LoopCounters};
pub use process::{COMMIT, RUSTC, VERSION, cpu_time, memory, now_ms};
pub use reasons::{CloseReason, DropReason, InvalidReason, RefuseReason, TlsFailure};
pub use reloads::{ReloadCounts, Reloads};
pub use webhook::{WebhookCounts, WebhookReading};
