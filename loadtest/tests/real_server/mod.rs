//! The server's binary for tests that need the real one. Several test programs share this file.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Where it is: beside the generator's in a workspace build, built where only this crate is tested.
pub(crate) fn fantail() -> &'static Path {
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
