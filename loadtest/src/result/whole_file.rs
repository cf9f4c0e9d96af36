//! Files that are there whole or not at all: what is written goes beside, and takes the place of what was there only when
//! all of it is on the disk. Devices and pipes are written to as they are. Never leaves a part of a result behind.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

/// Makes `bytes` the content of the file. What was there stays if that fails, as on a disk that is full.
pub(crate) fn put(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // Through a link, so that the link stays one.
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let there = fs::metadata(&path).ok();
    if there.as_ref().is_some_and(|there| !there.is_file()) {
        return fs::write(&path, bytes);
    }
    let beside = beside(&path);
    let mut file = match File::options().write(true).create_new(true).open(&beside) {
        // A file that may be written in a folder that may not.
        Err(error) if matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem) => {
            return fs::write(&path, bytes);
        }
        opened => opened?,
    };
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    let kept = written.and_then(|()| there.map_or(Ok(()), |there| file.set_permissions(there.permissions())));
    kept.and_then(|()| fs::rename(&beside, &path)).inspect_err(|_| drop(fs::remove_file(&beside)))
}

/// The name under which it is written: of this process, so that no other writes to it.
fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.part", std::process::id()));
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_link_and_permissions_stay_and_nothing_else_is_left() {
        let folder = std::env::temp_dir().join(format!("fantail-whole-file-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        let (file, link) = (folder.join("result.json"), folder.join("latest.json"));
        put(&file, b"first").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        symlink("result.json", &link).unwrap();
        put(&link, b"second").unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read(&file).unwrap(), b"second");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o640);
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 2);
        // Where there is no room beside it, what is there is not touched.
        fs::create_dir(beside(&file)).unwrap();
        assert!(put(&file, b"third").is_err());
        assert_eq!(fs::read(&file).unwrap(), b"second");
        fs::remove_dir_all(&folder).unwrap();
        assert!(put(&file, b"third").is_err() && put(Path::new("/dev/full"), b"third").is_err());
    }
}
