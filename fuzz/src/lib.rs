//! What must hold for any bytes: one module for each reader of a stranger's input.
//!
//! Every `check` takes arbitrary bytes and panics when the code under test breaks its word: it must not panic
//! itself, must not hold more than has arrived, and must say the same however the bytes are cut. Driven by
//! libFuzzer (`fuzz/run`) and by `tests/seeds.rs`, which mutates the seeds with a fixed generator. Never opens
//! a socket but for the pair between the two ends of `tls`.
#![deny(missing_docs)]

pub mod answers;
pub mod commands;
pub mod config;
pub mod forwarded;
pub mod frames;
pub mod head;
pub mod jwks;
pub mod messages;
pub mod proxy;
pub mod records;
pub mod tls;
pub mod tokens;

/// A check over arbitrary bytes; it panics when something does not hold.
pub type Check = fn(&[u8]);

/// Every check by name: the name is that of the folder with its seeds.
pub const CHECKS: &[(&str, Check)] = &[
    ("answers", answers::check),
    ("commands", commands::check),
    ("config", config::check),
    ("forwarded", forwarded::check),
    ("frames", frames::check),
    ("head", head::check),
    ("jwks", jwks::check),
    ("messages", messages::check),
    ("proxy", proxy::check),
    ("records", records::check),
    ("tls", tls::check),
    ("tokens", tokens::check),
];

/// Takes the first byte off, as a choice; 0 when there is none.
fn choice(data: &[u8]) -> (usize, &[u8]) {
    data.split_first().map_or((0, data), |(first, rest)| (usize::from(*first), rest))
}
