//! Opening the files that a configuration names: whatever one of them is, nobody waits for somebody at its other end, and
//! nothing is read that has no end.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Opens a file to be read.
///
/// # Errors
/// The kernel's; or it is a pipe, a device or a socket. A directory is refused where it is read.
pub fn open(path: impl AsRef<Path>) -> io::Result<File> {
    // A pipe is opened at once even if nobody writes to it; of a file the flag says nothing.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let kind = file.metadata()?.file_type();
    if kind.is_file() || kind.is_dir() {
        return Ok(file);
    }
    Err(io::Error::new(ErrorKind::InvalidInput, "it is a pipe or a device, and no file"))
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixListener;
    use std::process::Command;

    use super::*;

    #[test]
    fn what_is_no_file_is_refused_at_once() {
        let folder = std::env::temp_dir().join(format!("fantail-open-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let (plain, pipe, socket) = (folder.join("plain"), folder.join("pipe"), folder.join("socket"));
        std::fs::write(&plain, "text").unwrap();
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let _listener = UnixListener::bind(&socket).unwrap();
        let mut text = String::new();
        open(&plain).unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "text");
        assert_eq!(open(&pipe).unwrap_err().kind(), ErrorKind::InvalidInput);
        assert_eq!(open("/dev/zero").unwrap_err().kind(), ErrorKind::InvalidInput);
        assert!(open(&socket).is_err());
        let read = open(&folder).and_then(|mut folder| folder.read(&mut [0; 8]));
        assert_eq!(read.unwrap_err().kind(), ErrorKind::IsADirectory);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
