//! Lines to send, read on a thread of their own and never further ahead than a bound.

use std::io::{self, BufRead, Read};
use std::sync::{Condvar, Mutex, PoisonError};

/// Longest line that is sent as one message.
pub(super) const LINE_BYTES_MAX: usize = 16 << 20;

/// Lines read and not yet sent.
pub(super) const LINES_AHEAD: usize = 64;

/// Permits to read a line: taken by the reader, given back by whoever has sent one.
#[derive(Debug)]
pub(super) struct Credits {
    left: Mutex<usize>,
    given: Condvar,
}

impl Default for Credits {
    fn default() -> Self {
        Self { left: Mutex::new(LINES_AHEAD), given: Condvar::new() }
    }
}

impl Credits {
    /// Waits for a permit.
    pub(super) fn take(&self) {
        let left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let mut left = self.given.wait_while(left, |left| *left == 0).unwrap_or_else(PoisonError::into_inner);
        *left -= 1;
    }

    /// Gives one back.
    pub(super) fn give(&self) {
        *self.left.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.given.notify_one();
    }
}

/// The next line without its end; `None` at the end of the input.
///
/// # Errors
/// The input cannot be read, the line is too long, or it is not UTF-8 (a text message must be: RFC 6455, 5.6).
pub(super) fn read_line(input: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    if input.by_ref().take(LINE_BYTES_MAX as u64 + 1).read_until(b'\n', &mut line)? == 0 {
        return Ok(None);
    }
    if line.ends_with(b"\n") {
        line.pop();
        if line.ends_with(b"\r") {
            line.pop();
        }
    } else if line.len() > LINE_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a line of more than 16 MiB"));
    }
    match String::from_utf8(line) {
        Ok(line) => Ok(Some(line)),
        Err(_) => Err(io::Error::new(io::ErrorKind::InvalidData, "a line that is not UTF-8")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_with_either_line_end_or_the_input() {
        let mut input = &b"one\r\n\ntwo"[..];
        let mut lines = Vec::new();
        while let Some(line) = read_line(&mut input).unwrap() {
            lines.push(line);
        }
        assert_eq!(lines, ["one", "", "two"]);
        assert!(read_line(&mut &b"\xff\n"[..]).is_err());
        assert!(read_line(&mut &vec![b'x'; LINE_BYTES_MAX + 1][..]).is_err());
    }
}
