//! Whether the generator tells the truth: against a server whose delays are known, one that is stopped for two
//! seconds, and with too little of a processor for itself.
//!
//! `cargo test --release -p fantail-loadtest --test honest -- --nocapture` prints the tables of docs/loadtest.md.

mod accuracy;
mod delaying;
mod favour;
#[path = "../real_server/mod.rs"]
mod real_server;
mod starved;
mod stopped;

use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use serde_json::Value;

static TESTS: RwLock<()> = RwLock::new(());

/// For a test that needs the machine as quiet as it can be: waits until no other test of this program runs.
fn alone() -> RwLockWriteGuard<'static, ()> {
    TESTS.write().unwrap_or_else(PoisonError::into_inner)
}

/// For a test that others do not disturb.
fn beside_others() -> RwLockReadGuard<'static, ()> {
    TESTS.read().unwrap_or_else(PoisonError::into_inner)
}

/// A result file of the generator.
fn result_file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("honest-{name}-{}.json", std::process::id()))
}

/// The generator, favoured.
fn generator() -> Command {
    favour::favoured(env!("CARGO_BIN_EXE_fantail-loadtest"))
}

fn take_result(file: &PathBuf, output: &Output) -> Value {
    let text = std::fs::read_to_string(file)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    std::fs::remove_file(file).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn microseconds(report: &Value, percentile: &str) -> f64 {
    report["latency"][format!("{percentile}_microseconds")].as_f64().unwrap()
}
