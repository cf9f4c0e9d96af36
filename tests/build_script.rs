//! The build script's reading of a checkout, in its kinds: a branch, a packed one, a worktree, a commit by itself.

use std::fs;
use std::path::{Path, PathBuf};

#[allow(dead_code)]
#[path = "../src/build.rs"]
mod build;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// A folder with these files, gone when dropped.
struct Checkout(PathBuf);

impl Checkout {
    fn new(name: &str, files: &[(&str, &str)]) -> Self {
        let root = std::env::temp_dir().join(format!("fantail-checkout-{}-{name}", std::process::id()));
        for (path, text) in files {
            let path = root.join(path);
            fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            fs::write(path, text).expect("a file");
        }
        Self(root)
    }

    fn commit(&self, below: &str) -> Option<String> {
        build::checked_out(&self.0.join(below)).map(|(commit, files)| {
            assert!(files.iter().all(|file| file.is_file()), "{files:?}");
            commit
        })
    }
}

impl Drop for Checkout {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn the_commit_is_found_wherever_git_keeps_it() {
    let line = format!("{COMMIT}\n");
    let packed =
        format!("# pack-refs with: peeled\n{} refs/heads/other\n{COMMIT} refs/heads/main\n", "f".repeat(40));
    let branch =
        Checkout::new("loose", &[(".git/HEAD", "ref: refs/heads/main\n"), (".git/refs/heads/main", &line)]);
    let packed =
        Checkout::new("packed", &[(".git/HEAD", "ref: refs/heads/main\n"), (".git/packed-refs", &packed)]);
    let detached = Checkout::new("detached", &[(".git/HEAD", &line)]);
    for checkout in [&branch, &packed, &detached] {
        assert_eq!(checkout.commit("").as_deref(), Some(COMMIT), "{}", checkout.0.display());
    }
    let worktree = Checkout::new(
        "worktree",
        &[
            ("tree/.git", "gitdir: ../main/.git/worktrees/tree\n"),
            ("main/.git/worktrees/tree/HEAD", "ref: refs/heads/side/way\n"),
            ("main/.git/worktrees/tree/commondir", "../..\n"),
            ("main/.git/refs/heads/side/way", &line),
        ],
    );
    assert_eq!(worktree.commit("tree").as_deref(), Some(COMMIT));
}

#[test]
fn what_is_no_checkout_has_no_commit() {
    let strange = Checkout::new("strange", &[(".git/HEAD", "ref: refs/heads/main\n"), ("file", "x")]);
    assert_eq!(strange.commit(""), None, "a branch without a commit");
    assert_eq!(strange.commit("nowhere"), None);
    let odd = Checkout::new("odd", &[(".git/HEAD", "main\n")]);
    assert_eq!(odd.commit(""), None);
    assert_eq!(build::checked_out(Path::new("/nonexistent")), None);
}

/// `cargo run` hands on what the build script sets, and the program would warn of what begins as its own keys do.
#[test]
fn what_it_sets_is_nothing_that_the_program_looks_for() {
    let script = include_str!("../src/build.rs");
    let set: Vec<_> = script.split("cargo::rustc-env=").skip(1).collect();
    assert!(set.len() >= 2 && set.iter().all(|variable| !variable.starts_with("FANTAIL_")), "{set:?}");
}
