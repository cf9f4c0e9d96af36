//! The build script: which compiler and which commit `fantail_build_info` tells. Asks nothing of the network or
//! of git, so that a packaged source builds the same; what is not known is "unknown".

use std::path::Path;
use std::process::Command;
use std::{env, fs};

/// What cargo puts into a package that was made from a clean checkout.
const PACKAGED: &str = ".cargo_vcs_info.json";

fn main() {
    println!("cargo::rerun-if-changed=src/build.rs");
    println!("cargo::rerun-if-env-changed=FANTAIL_COMMIT");
    println!("cargo::rustc-env=FANTAIL_BUILD_RUSTC={}", compiler().as_deref().unwrap_or("unknown"));
    println!("cargo::rustc-env=FANTAIL_BUILD_COMMIT={}", commit().as_deref().unwrap_or("unknown"));
}

/// "1.88.0" of "rustc 1.88.0 (6b00bc388 2025-06-23)".
fn compiler() -> Option<String> {
    let output = Command::new(env::var_os("RUSTC")?).arg("--version").output().ok()?;
    let line = String::from_utf8(output.stdout).ok()?;
    line.split_whitespace().nth(1).and_then(word)
}

/// Whoever builds may say it; a package knows it by itself.
fn commit() -> Option<String> {
    if let Some(given) = env::var("FANTAIL_COMMIT").ok().and_then(|given| word(given.trim())) {
        return Some(given);
    }
    let info = fs::read_to_string(Path::new(&env::var_os("CARGO_MANIFEST_DIR")?).join(PACKAGED)).ok()?;
    let (_, rest) = info.split_once("\"sha1\"")?;
    word(rest.split('"').nth(1)?)
}

/// Only what needs no escaping in a label.
fn word(text: &str) -> Option<String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'+' | b'_');
    (!text.is_empty() && text.len() <= 64 && text.bytes().all(plain)).then(|| text.to_owned())
}
