//! The eventfd that wakes a loop: written by any thread, never read.
//!
//! Registered edge-triggered, each write is an event of its own, so the counter only has to be kept from
//! overflowing. Never decides when to wake.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, RawFd};

/// One eventfd.
#[derive(Debug)]
pub struct EventFd(File);

impl EventFd {
    /// Makes one: non-blocking, closed on exec.
    ///
    /// # Errors
    /// The kernel's, when descriptors run out.
    pub fn new() -> io::Result<Self> {
        // SAFETY: no pointers; the call only returns a number.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just made this descriptor and nobody else owns it.
        Ok(Self(unsafe { File::from_raw_fd(fd) }))
    }

    /// Makes the poll it is registered with return, now or at its next call.
    ///
    /// # Errors
    /// The kernel's; none is known for an eventfd that is open.
    pub fn raise(&self) -> io::Result<()> {
        let one = 1_u64.to_ne_bytes();
        match (&self.0).write(&one) {
            // The counter is full after 2^64 − 2 writes: empty it and start again.
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let _ = (&self.0).read(&mut [0; 8]);
                (&self.0).write(&one).map(drop)
            }
            other => other.map(drop),
        }
    }
}

impl AsRawFd for EventFd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raising_counts_up() {
        let event = EventFd::new().expect("an eventfd");
        event.raise().expect("room");
        event.raise().expect("room");
        let mut count = [0; 8];
        (&event.0).read_exact(&mut count).expect("a count");
        assert_eq!(u64::from_ne_bytes(count), 2);
    }
}
