//! Whether the generator tells the truth: against a server whose delays are known, one that is stopped for two
//! seconds, and with too little of a processor for itself.
//!
//! `cargo test --release -p fantail-loadtest --test honest -- --nocapture` prints the tables of docs/loadtest.md.

mod accuracy;
mod delaying;
mod favour;
mod starved;
mod stopped;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

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

/// The server's binary: beside the generator's in a workspace build, built where only this crate is tested.
fn fantail() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| {
        let path = Path::new(env!("CARGO_BIN_EXE_fantail-loadtest")).with_file_name("fantail");
        if !path.exists() {
            let mut build = Command::new(env!("CARGO"));
            build.args(["build", "--quiet", "--package", "fantail", "--bin", "fantail"]);
            if !cfg!(debug_assertions) {
                build.arg("--release");
            }
            build.current_dir(env!("CARGO_MANIFEST_DIR"));
            assert!(build.status().unwrap().success());
        }
        path
    })
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
