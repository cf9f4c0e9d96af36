//! The build script: which compiler and which commit `fantail_build_info` tells. Asks nothing of the network, and reads
//! git's files without the program, so that a packaged source builds the same; what is not known is "unknown".

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

/// What cargo puts into a package that was made from a clean checkout.
const PACKAGED: &str = ".cargo_vcs_info.json";

fn main() {
    println!("cargo::rerun-if-changed=src/build.rs");
    println!("cargo::rerun-if-env-changed=FANTAIL_COMMIT");
    // `cargo run` hands these variables on to the program, which knows those that begin with FANTAIL_.
    println!("cargo::rustc-env=BUILT_WITH_RUSTC={}", compiler().as_deref().unwrap_or("unknown"));
    println!("cargo::rustc-env=BUILT_OF_COMMIT={}", commit().as_deref().unwrap_or("unknown"));
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
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR")?);
    if let Ok(info) = fs::read_to_string(root.join(PACKAGED)) {
        let (_, rest) = info.split_once("\"sha1\"")?;
        return word(rest.split('"').nth(1)?);
    }
    // Each commit makes this crate anew, which those who develop it do not have to wait for.
    if env::var_os("PROFILE").is_none_or(|profile| profile == "debug") {
        return None;
    }
    let (commit, files) = checked_out(&root)?;
    files.iter().for_each(|file| println!("cargo::rerun-if-changed={}", file.display()));
    Some(commit)
}

/// The commit that is checked out here, and the files that say so.
pub(crate) fn checked_out(root: &Path) -> Option<(String, Vec<PathBuf>)> {
    let mut folder = root.join(".git");
    // In a worktree or submodule it is a file that names the folder.
    if let Ok(text) = fs::read_to_string(&folder) {
        folder = root.join(text.trim().strip_prefix("gitdir:")?.trim());
    }
    let head = folder.join("HEAD");
    let text = fs::read_to_string(&head).ok()?;
    let Some(name) = text.trim().strip_prefix("ref: ") else {
        return Some((hash(text.trim())?, vec![head]));
    };
    // Branches of a worktree are in the folder of the repository that it belongs to.
    let common = fs::read_to_string(folder.join("commondir"));
    let common = common.map_or_else(|_| folder.clone(), |common| folder.join(common.trim()));
    let loose = common.join(name);
    if let Some(commit) = fs::read_to_string(&loose).ok().and_then(|text| hash(text.trim())) {
        return Some((commit, vec![head, loose]));
    }
    let packed = common.join("packed-refs");
    let text = fs::read_to_string(&packed).ok()?;
    let line = text.lines().find_map(|line| line.strip_suffix(name)?.strip_suffix(' '))?;
    Some((hash(line)?, vec![head, packed]))
}

fn hash(text: &str) -> Option<String> {
    let hex = text.len() >= 40 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    word(text).filter(|_| hex)
}

/// Only what needs no escaping in a label.
fn word(text: &str) -> Option<String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'+' | b'_');
    (!text.is_empty() && text.len() <= 64 && text.bytes().all(plain)).then(|| text.to_owned())
}
