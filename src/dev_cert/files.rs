//! Files of keys and certificates: private ones for the owner alone from their first byte on, none half written.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::wrong;

/// Who may read a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Readers {
    /// Its owner (0600).
    Owner,
    /// Everybody (0644).
    Everybody,
}

pub(super) fn is_there(path: &Path) -> bool {
    // A symbolic link that leads nowhere is there, too.
    path.symlink_metadata().is_ok()
}

pub(super) fn read(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|error| wrong(path, "read", &error))
}

/// Writes a file that is not there.
pub(super) fn write_new(path: &Path, content: &str, readers: Readers) -> Result<(), String> {
    create(path, content, readers).map_err(|error| wrong(path, "written", &error))
}

/// Writes a file, in place of one that is there. Whoever reads it meanwhile has the old one or the new one.
pub(super) fn put(path: &Path, content: &str, readers: Readers) -> Result<(), String> {
    let beside = path.with_extension(format!("new-{}", std::process::id()));
    let put = create(&beside, content, readers).and_then(|()| fs::rename(&beside, path));
    put.map_err(|error| {
        // What was begun is not left; the error is the one to tell.
        let _ = fs::remove_file(&beside);
        wrong(path, "written", &error)
    })
}

fn create(path: &Path, content: &str, readers: Readers) -> io::Result<()> {
    let mode = match readers {
        Readers::Owner => 0o600,
        Readers::Everybody => 0o644,
    };
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(content.as_bytes())?;
    file.sync_all()
}
