//! The server under test, seen from outside: memory, processor time, context switches of `--pid`.
//!
//! Reads procfs through `sys::process`. What can't be read is `None`, never 0.

use std::time::{Duration, Instant};

use fantail::sys::process::{self, MemoryUse};
use serde::Serialize;

/// Memory counts as settled when it has moved by no more than this for [`STABLE_FOR`].
const STABLE_BYTES: u64 = 64 * 1024;
const STABLE_FOR: Duration = Duration::from_millis(500);
const SETTLE_AT_MOST: Duration = Duration::from_secs(10);

/// The process to watch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ServerProcess {
    pid: u32,
}

/// Memory of the server at one moment.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct MemoryReport {
    /// Open connections at that moment.
    pub(crate) connections: u64,
    /// RssAnon + Shmem + HugeTLB + Swap.
    pub(crate) user_bytes: u64,
    /// Resident anonymous memory.
    pub(crate) rss_anon_bytes: u64,
    /// Resident shared memory.
    pub(crate) rss_shmem_bytes: u64,
    /// Huge pages from the reserved pool.
    pub(crate) hugetlb_bytes: u64,
    /// Swapped out.
    pub(crate) swap_bytes: u64,
    /// Resident file pages, not part of `user_bytes`.
    pub(crate) rss_file_bytes: u64,
}

impl ServerProcess {
    /// The process with this id, which must be there and readable.
    pub(crate) fn new(pid: u32) -> Result<Self, String> {
        match process::memory(Some(pid)) {
            Ok(_) => Ok(Self { pid }),
            Err(error) => Err(format!("--pid {pid}: {error}")),
        }
    }

    /// Its id.
    pub(crate) fn pid(self) -> u32 {
        self.pid
    }

    /// Memory once it has stopped moving, at the latest after ten seconds.
    pub(crate) fn settled_memory(self, connections: u64) -> Option<MemoryReport> {
        let begin = Instant::now();
        let mut base = self.read()?;
        let mut base_at = begin;
        loop {
            std::thread::sleep(Duration::from_millis(50));
            let now = self.read()?;
            if now.user_bytes().abs_diff(base.user_bytes()) > STABLE_BYTES {
                (base, base_at) = (now, Instant::now());
            }
            if base_at.elapsed() >= STABLE_FOR || begin.elapsed() >= SETTLE_AT_MOST {
                return Some(report(now, connections));
            }
        }
    }

    /// Processor time it has used so far.
    pub(crate) fn cpu_time(self) -> Option<Duration> {
        process::cpu_time(Some(self.pid)).ok()
    }

    /// Voluntary context switches of its living threads.
    pub(crate) fn context_switches(self) -> Option<u64> {
        process::context_switches(Some(self.pid)).ok()
    }

    /// Memory as it is now.
    pub(crate) fn user_bytes(self) -> Option<u64> {
        self.read().map(|memory| memory.user_bytes())
    }

    fn read(self) -> Option<MemoryUse> {
        process::memory(Some(self.pid)).ok()
    }
}

/// Bytes per connection between two readings; `None` unless the number of connections grew.
pub(crate) fn slope(low: &MemoryReport, high: &MemoryReport) -> Option<f64> {
    let connections = high.connections.checked_sub(low.connections).filter(|grown| *grown > 0)?;
    Some((high.user_bytes as f64 - low.user_bytes as f64) / connections as f64)
}

/// The time between two readings of a processor clock.
pub(crate) fn cpu_between(from: Option<Duration>, to: Option<Duration>) -> Option<Duration> {
    to?.checked_sub(from?)
}

fn report(memory: MemoryUse, connections: u64) -> MemoryReport {
    MemoryReport {
        connections,
        user_bytes: memory.user_bytes(),
        rss_anon_bytes: memory.rss_anon,
        rss_shmem_bytes: memory.rss_shmem,
        hugetlb_bytes: memory.hugetlb,
        swap_bytes: memory.swap,
        rss_file_bytes: memory.rss_file,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slope_needs_growth() {
        let at =
            |connections, user| report(MemoryUse { rss_anon: user, ..MemoryUse::default() }, connections);
        assert_eq!(slope(&at(10, 1000), &at(20, 1500)), Some(50.0));
        assert_eq!(slope(&at(10, 2000), &at(20, 1500)), Some(-50.0));
        assert_eq!(slope(&at(10, 1000), &at(10, 1500)), None);
    }

    #[test]
    fn the_own_process_is_readable_and_none_is_named() {
        assert!(ServerProcess::new(std::process::id()).is_ok());
        assert!(ServerProcess::new(u32::MAX).unwrap_err().contains("--pid"));
        assert_eq!(cpu_between(None, Some(Duration::ZERO)), None);
    }
}
