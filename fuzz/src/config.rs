//! The configuration file and the environment: any text gives settings that fit or errors that say where.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::OnceLock;

use fantail::config::{Sources, load};

/// Reads the bytes as a TOML file, and lines of the form `#NAME=VALUE` as the environment too.
pub fn check(data: &[u8]) {
    let path = file();
    std::fs::write(path, data).expect("the temporary directory takes a file");
    let environment = String::from_utf8_lossy(data)
        .lines()
        .filter_map(|line| line.strip_prefix('#')?.split_once('='))
        .map(|(name, value)| (OsString::from(name), OsString::from(value)))
        .collect();
    let sources = Sources { file: Some(path.clone()), environment, ..Sources::default() };
    match load(&sources) {
        Ok(_) => {}
        Err(errors) => {
            let text = errors.to_string();
            assert!(!text.trim().is_empty(), "an error that says nothing");
        }
    }
}

/// One file for the process: the name is all that the errors quote of it.
fn file() -> &'static PathBuf {
    static FILE: OnceLock<PathBuf> = OnceLock::new();
    FILE.get_or_init(|| std::env::temp_dir().join(format!("fantail-fuzz-{}.toml", std::process::id())))
}
