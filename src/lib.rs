//! Fantail: a WebSocket fan-out server.
//!
//! Rooms, from the bytes up: [`wire`] knows bytes, [`sys`] knows system calls; the rest needs the
//! `server` feature. Calls point down only; everything upward or sideways is a mailbox entry.
//!
//! What tests, fuzzing or the load generator name is public. Other rooms are private, so that the compiler finds what is
//! dead in them; `pub` in there is for other rooms.
#![deny(missing_docs)]

pub mod sys;
pub mod wire;

/// The commit that this was built of; "unknown" if the build does not know it.
pub const BUILT_OF_COMMIT: &str = env!("BUILT_OF_COMMIT");

#[cfg(feature = "server")]
pub mod auth;
#[cfg(feature = "server")]
pub mod cli;
#[cfg(feature = "server")]
#[allow(unreachable_pub)]
mod client;
#[cfg(feature = "server")]
pub mod config;
#[cfg(feature = "server")]
pub mod connection;
#[cfg(feature = "server")]
#[allow(unreachable_pub)]
mod dev_cert;
#[cfg(feature = "server")]
pub mod dialect;
#[cfg(feature = "server")]
pub mod edition;
#[cfg(feature = "server")]
pub mod event_loop;
#[cfg(feature = "server")]
#[allow(unreachable_pub)]
mod http;
#[cfg(feature = "server")]
#[allow(unreachable_pub)]
mod logging;
#[cfg(feature = "server")]
pub mod metrics;
#[cfg(feature = "server")]
#[allow(unreachable_pub)]
mod preflight;
#[cfg(feature = "server")]
#[allow(unreachable_pub)]
mod server;
#[cfg(feature = "server")]
pub mod service;
#[cfg(feature = "server")]
pub mod topic;
#[cfg(feature = "server")]
pub mod transport;

#[cfg(test)]
#[path = "../tests/skip/mod.rs"]
mod skip;

// The simulation names the library as other programs do.
#[cfg(test)]
extern crate self as fantail;
#[cfg(all(test, feature = "server"))]
mod simulation_tests;
