//! Descriptor tables: giving the calling thread one of its own, and counting what is in it.
//!
//! RLIMIT_NOFILE binds each table by itself, so N loops with N tables hold N times as many connections.
//! A loop thread drives this once, as its first act. After that a number means different files in different
//! threads: no descriptor crosses threads any more, and `/proc/self/fd` shows the table of the main thread.
//! This file never decides what is worth keeping.

use std::os::fd::RawFd;
use std::{fmt, fs, io};

/// How the calling thread came to its descriptor table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableMode {
    /// A table of its own, by `close_range(CLOSE_RANGE_UNSHARE)` (Linux 5.9).
    SplitByCloseRange,
    /// A table of its own, by `unshare(CLONE_FILES)`, where `close_range` is missing or refused.
    SplitByUnshare,
    /// The process's table, shared with every thread that did not split: both calls were refused.
    Shared,
}

impl TableMode {
    /// Whether this thread's descriptors count against a limit of their own.
    pub fn is_split(self) -> bool {
        self != Self::Shared
    }
}

impl fmt::Display for TableMode {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::SplitByCloseRange => "split (close_range)",
            Self::SplitByUnshare => "split (unshare)",
            Self::Shared => "shared",
        })
    }
}

/// Gives the calling thread a descriptor table of its own that holds 0, 1, 2 and `keep`, and nothing else.
///
/// Everything else must go: a copy keeps its file alive, so that a peer would never see the end of a
/// connection another thread closed, and a dead listener would keep accepting. Where the kernel or a
/// sandbox refuses a table of one's own, nothing is closed, since closing would hit every thread.
///
/// Call it first thing in a thread that owns no descriptor but those in `keep`. What the thread owned
/// besides is closed under its owner, whose number may then come to mean another file.
///
/// The table ends with the thread, but a moment after `join` returned: the kernel tells the joiner first.
/// Whoever needs a descriptor gone by then, a listener's port say, closes it in the thread.
pub fn split_table(keep: &[RawFd]) -> TableMode {
    let kept = kept_numbers(keep);
    let above = kept.last().map_or(0, |last| last + 1);
    // The kernel copies only what is below `above`: a table that was large does not get copied to be closed.
    let mode = if close_range(above, u32::MAX, libc::CLOSE_RANGE_UNSHARE).is_ok() {
        TableMode::SplitByCloseRange
    } else if unshare_table().is_ok() {
        TableMode::SplitByUnshare
    } else {
        return TableMode::Shared;
    };
    close_all_but(&kept);
    mode
}

/// How many descriptors the calling thread's table holds.
pub fn open_in_table() -> io::Result<usize> {
    Ok(listed_in_table()?.len())
}

/// The sorted numbers that stay open; the standard streams are always among them.
fn kept_numbers(keep: &[RawFd]) -> Vec<u32> {
    let mut kept: Vec<u32> = keep.iter().filter_map(|fd| u32::try_from(*fd).ok()).chain(0..=2).collect();
    kept.sort_unstable();
    kept.dedup();
    kept
}

/// The closed ranges between and above the sorted numbers of `kept`.
fn gaps(kept: &[u32]) -> Vec<(u32, u32)> {
    let mut gaps = Vec::with_capacity(kept.len() + 1);
    let mut next = 0;
    for &fd in kept {
        if fd > next {
            gaps.push((next, fd - 1));
        }
        next = fd + 1;
    }
    gaps.push((next, u32::MAX));
    gaps
}

/// Closes everything but `kept` in a table that already belongs to the calling thread alone.
fn close_all_but(kept: &[u32]) {
    if gaps(kept).into_iter().all(|(first, last)| close_range(first, last, 0).is_ok()) {
        return;
    }
    // Without procfs every number that can be open is tried. Numbers are i32 to close().
    let listed = listed_in_table().unwrap_or_else(|_| {
        let limit = super::limits::nofile().map_or(1 << 20, |limit| limit.hard);
        (0..u32::try_from(limit).unwrap_or(i32::MAX as u32)).collect()
    });
    for fd in listed {
        if kept.binary_search(&fd).is_err() {
            close(fd);
        }
    }
}

/// The numbers in the calling thread's table, without the one this listing opened for itself.
fn listed_in_table() -> io::Result<Vec<u32>> {
    // `/proc/self` would be the main thread's table, which is another one after a split.
    let directory = fs::read_dir("/proc/thread-self/fd")?;
    let mut listed = Vec::new();
    for entry in directory {
        if let Some(fd) = entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) {
            listed.push(fd);
        }
    }
    // The listing's own descriptor was in it, and is closed by now.
    listed.retain(|fd| is_open(*fd));
    Ok(listed)
}

fn is_open(fd: u32) -> bool {
    let Ok(fd) = RawFd::try_from(fd) else { return false };
    // SAFETY: F_GETFD takes no pointer and changes nothing; a number that is not open gives EBADF.
    super::checked(unsafe { libc::fcntl(fd, libc::F_GETFD) }).is_ok()
}

fn close_range(first: u32, last: u32, flags: libc::c_uint) -> io::Result<()> {
    // SAFETY: the call takes no pointer. It closes descriptors of the calling thread's table only: with
    // CLOSE_RANGE_UNSHARE the kernel makes that table private first and closes nothing when it can't, and
    // without the flag `close_all_but` is the only caller, after the split. That nothing in this thread owns
    // what gets closed is the documented duty of `split_table`'s caller.
    let code = unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) };
    if code == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn unshare_table() -> io::Result<()> {
    // SAFETY: the call takes no pointer; with CLONE_FILES it only replaces the calling thread's table by a copy.
    super::checked(unsafe { libc::unshare(libc::CLONE_FILES) })?;
    Ok(())
}

fn close(fd: u32) {
    let Ok(fd) = RawFd::try_from(fd) else { return };
    // SAFETY: reached only from `close_all_but`, so the table is private to this thread, and by the duty of
    // `split_table`'s caller nothing in this thread owns the number. An error means it was not open.
    unsafe { libc::close(fd) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::skip::skipped;
    use std::fs::File;
    use std::os::fd::AsRawFd;

    #[test]
    fn gaps_are_what_is_not_kept() {
        assert_eq!(gaps(&kept_numbers(&[])), [(3, u32::MAX)]);
        assert_eq!(gaps(&kept_numbers(&[9, 4, 4, -1])), [(3, 3), (5, 8), (10, u32::MAX)]);
        assert_eq!(gaps(&kept_numbers(&[3, 4])), [(5, u32::MAX)]);
    }

    #[test]
    fn modes_read_as_the_start_log_says_them() {
        assert_eq!(TableMode::SplitByCloseRange.to_string(), "split (close_range)");
        assert_eq!(TableMode::SplitByUnshare.to_string(), "split (unshare)");
        assert_eq!(TableMode::Shared.to_string(), "shared");
        assert!(TableMode::SplitByUnshare.is_split() && !TableMode::Shared.is_split());
    }

    /// A thread of its own, so that the split ends with it.
    fn in_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
        std::thread::spawn(work).join().unwrap()
    }

    #[test]
    fn the_split_table_holds_what_was_kept() {
        let files: Vec<File> = (0..8).map(|_| File::open("/dev/null").unwrap()).collect();
        let keep = [files[1].as_raw_fd(), files[6].as_raw_fd()];
        let (mode, open, kept_are_open) = in_thread(move || {
            let mode = split_table(&keep);
            let kept_are_open = keep.iter().all(|fd| is_open(*fd as u32));
            (mode, open_in_table().unwrap(), kept_are_open)
        });
        assert!(kept_are_open);
        assert!(files.iter().all(|file| file.metadata().is_ok()), "the other threads keep theirs");
        // Where a sandbox refuses both calls there is nothing more to see; the children check each case.
        if mode.is_split() {
            assert_eq!(open, 5);
        }
    }

    #[test]
    fn closing_by_walking_leaves_the_same() {
        let files: Vec<File> = (0..8).map(|_| File::open("/dev/null").unwrap()).collect();
        let (kept, other) = (files[3].as_raw_fd() as u32, files[4].as_raw_fd() as u32);
        in_thread(move || {
            if unshare_table().is_err() {
                return skipped("unshare");
            }
            for fd in listed_in_table().unwrap() {
                if fd > 2 && fd != kept {
                    close(fd);
                }
            }
            assert!(is_open(kept) && !is_open(other));
            assert_eq!(listed_in_table().unwrap().len(), 4);
        });
    }
}
