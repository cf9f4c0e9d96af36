//! The server under test, seen from outside: memory, processor time, context switches of `--pid`, or what the server
//! of `--server-metrics` tells of itself.
//!
//! Reads procfs through `sys::process`. What can't be read is `None`, never 0.

use std::io;
use std::time::{Duration, Instant};

use fantail::sys::process::{self, MemoryUse};
use serde::Serialize;

use crate::observe::server_metrics::{EVERY, Remote};
use crate::result::report::FilesReport;
use crate::tls;

/// Memory counts as settled when it has moved by no more than this for [`STABLE_FOR`].
const STABLE_BYTES: u64 = 64 * 1024;
const STABLE_FOR: Duration = Duration::from_millis(500);
const SETTLE_AT_MOST: Duration = Duration::from_secs(10);
/// Threads whose descriptor tables are looked at.
const TASKS_MAX: usize = 256;

/// The process to watch.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ServerProcess {
    /// On this machine, by its id.
    Local(u32),
    /// On another one, by what it tells of itself.
    Remote(&'static Remote),
}

/// Which server is to be watched, as it was asked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Watched {
    /// A process of this machine.
    pub(crate) pid: Option<u32>,
    /// Where a server tells its metrics.
    pub(crate) server_metrics: Option<String>,
    /// Fields sent when these are read.
    pub(crate) metrics_header: Vec<String>,
    /// How TLS is spoken then.
    pub(crate) tls: tls::Wanted,
}

/// Memory of the server at one moment.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct MemoryReport {
    /// Open connections at that moment.
    pub(crate) connections: u64,
    /// RssAnon + Shmem + HugeTLB + Swap; this and the next ones are null if the server's metrics do not tell.
    pub(crate) user_bytes: Option<u64>,
    /// Resident anonymous memory.
    pub(crate) rss_anon_bytes: Option<u64>,
    /// Resident shared memory.
    pub(crate) rss_shmem_bytes: Option<u64>,
    /// Huge pages from the reserved pool.
    pub(crate) hugetlb_bytes: Option<u64>,
    /// Swapped out.
    pub(crate) swap_bytes: Option<u64>,
    /// Resident file pages, not part of `user_bytes`.
    pub(crate) rss_file_bytes: Option<u64>,
    /// All resident memory: anonymous, shared and file pages.
    pub(crate) resident_bytes: Option<u64>,
}

impl ServerProcess {
    /// The server that the flags name, if they do. It must be there and readable.
    pub(crate) fn of(wanted: &Watched) -> Result<Option<Self>, String> {
        if let Some(url) = &wanted.server_metrics {
            return Remote::start(url, &wanted.metrics_header, &wanted.tls).map(Self::Remote).map(Some);
        }
        wanted.pid.map(Self::new).transpose()
    }

    /// The process with this id, which must be there and readable.
    pub(crate) fn new(pid: u32) -> Result<Self, String> {
        match process::memory(Some(pid)) {
            Ok(_) => Ok(Self::Local(pid)),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                Err(format!("--pid {pid}: it has no memory, so it has ended or belongs to the kernel"))
            }
            Err(error) => Err(format!("--pid {pid}: {error}")),
        }
    }

    /// Its id, if it is on this machine.
    pub(crate) fn pid(self) -> Option<u32> {
        match self {
            Self::Local(pid) => Some(pid),
            Self::Remote(_) => None,
        }
    }

    /// How often there is something new to read.
    pub(crate) fn read_every(self) -> Duration {
        match self {
            Self::Local(_) => Duration::ZERO,
            Self::Remote(_) => EVERY,
        }
    }

    /// Memory once it has stopped moving, at the latest after ten seconds.
    pub(crate) fn settled_memory(self, connections: u64) -> Option<MemoryReport> {
        let begin = Instant::now();
        let mut base = self.anonymous_bytes()?;
        let mut base_at = begin;
        // A figure that is read once a second has to be the same in two readings.
        let stable_for = STABLE_FOR + self.read_every() * 2;
        loop {
            std::thread::sleep(Duration::from_millis(50));
            let now = self.anonymous_bytes()?;
            if now.abs_diff(base) > STABLE_BYTES {
                (base, base_at) = (now, Instant::now());
            }
            if base_at.elapsed() >= stable_for || begin.elapsed() >= SETTLE_AT_MOST {
                return Some(MemoryReport::new(connections, self.memory(), self.resident_bytes()));
            }
        }
    }

    /// What is watched until it settles: user memory, or where that is unknown resident memory.
    fn anonymous_bytes(self) -> Option<u64> {
        self.user_bytes().or_else(|| self.resident_bytes())
    }

    /// Processor time it has used so far.
    pub(crate) fn cpu_time(self) -> Option<Duration> {
        match self {
            Self::Local(pid) => process::cpu_time(Some(pid)).ok(),
            Self::Remote(remote) => remote.fresh().cpu,
        }
    }

    /// The same, without waiting for it: of a server on another machine as it was up to a second ago.
    pub(crate) fn latest_cpu_time(self) -> Option<Duration> {
        match self {
            Self::Local(_) => self.cpu_time(),
            Self::Remote(remote) => remote.latest().cpu,
        }
    }

    /// Voluntary context switches of its living threads.
    pub(crate) fn context_switches(self) -> Option<u64> {
        process::context_switches(Some(self.pid()?)).ok()
    }

    /// Open files in the fullest of its descriptor tables, and how many there may be. What Linux before 6.2 does not say
    /// in the size of `fd` is unknown.
    pub(crate) fn open_files(self) -> Option<FilesReport> {
        let pid = self.pid()?;
        let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).ok()?;
        let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).ok()?;
        let open = |task: std::fs::DirEntry| Some(std::fs::metadata(task.path().join("fd")).ok()?.len());
        let most =
            tasks.filter_map(Result::ok).take(TASKS_MAX).filter_map(open).max().filter(|open| *open > 0)?;
        Some(FilesReport { most, limit: line.split_whitespace().next()?.parse().ok()? })
    }

    /// User memory as it is now.
    pub(crate) fn user_bytes(self) -> Option<u64> {
        self.memory().map(|memory| memory.user_bytes())
    }

    /// User and resident memory as they are now, by one reading.
    pub(crate) fn user_and_resident_bytes(self) -> (Option<u64>, Option<u64>) {
        let memory = self.memory();
        let resident = match self {
            Self::Local(_) => memory.map(resident),
            Self::Remote(_) => self.resident_bytes(),
        };
        (memory.map(|memory| memory.user_bytes()), resident)
    }

    /// Resident memory as it is now, file pages included.
    pub(crate) fn resident_bytes(self) -> Option<u64> {
        match self {
            Self::Local(_) => self.memory().map(resident),
            Self::Remote(remote) => {
                let offered = remote.latest();
                offered.resident_bytes.or_else(|| offered.memory.map(resident))
            }
        }
    }

    /// Memory by kind as it is now.
    pub(crate) fn memory(self) -> Option<MemoryUse> {
        match self {
            Self::Local(pid) => process::memory(Some(pid)).ok(),
            Self::Remote(remote) => remote.latest().memory,
        }
    }
}

fn resident(memory: MemoryUse) -> u64 {
    memory.rss_anon.saturating_add(memory.rss_shmem).saturating_add(memory.rss_file)
}

/// Bytes per connection between two readings of one kind of memory; `None` unless both are known and the number of
/// connections grew.
pub(crate) fn slope(
    low: &MemoryReport,
    high: &MemoryReport,
    kind: fn(&MemoryReport) -> Option<u64>,
) -> Option<f64> {
    let connections = high.connections.checked_sub(low.connections).filter(|grown| *grown > 0)?;
    Some((kind(high)? as f64 - kind(low)? as f64) / connections as f64)
}

/// The time between two readings of a processor clock.
pub(crate) fn cpu_between(from: Option<Duration>, to: Option<Duration>) -> Option<Duration> {
    to?.checked_sub(from?)
}

impl MemoryReport {
    fn new(connections: u64, memory: Option<MemoryUse>, resident_bytes: Option<u64>) -> Self {
        Self {
            connections,
            user_bytes: memory.map(|memory| memory.user_bytes()),
            rss_anon_bytes: memory.map(|memory| memory.rss_anon),
            rss_shmem_bytes: memory.map(|memory| memory.rss_shmem),
            hugetlb_bytes: memory.map(|memory| memory.hugetlb),
            swap_bytes: memory.map(|memory| memory.swap),
            rss_file_bytes: memory.map(|memory| memory.rss_file),
            resident_bytes,
        }
    }

    /// User memory, or where it is unknown resident memory.
    pub(crate) fn text(&self) -> String {
        let kib = |bytes: u64| format!("{:.0} KiB", bytes as f64 / 1024.0);
        let resident = || self.resident_bytes.map(|bytes| kib(bytes) + " resident, file pages included");
        self.user_bytes.map(kib).or_else(resident).unwrap_or_else(|| "n/a".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slope_needs_growth() {
        let at = |connections, user| {
            let memory = MemoryUse { rss_anon: user, ..MemoryUse::default() };
            MemoryReport::new(connections, Some(memory), None)
        };
        let user = |low: &MemoryReport, high: &MemoryReport| slope(low, high, |memory| memory.user_bytes);
        assert_eq!(user(&at(10, 1000), &at(20, 1500)), Some(50.0));
        assert_eq!(user(&at(10, 2000), &at(20, 1500)), Some(-50.0));
        assert_eq!(user(&at(10, 1000), &at(10, 1500)), None);
        assert_eq!(slope(&at(10, 1000), &at(20, 1500), |memory| memory.resident_bytes), None, "not known");
    }

    #[test]
    fn the_own_process_is_readable_and_none_is_named() {
        assert!(ServerProcess::new(std::process::id()).is_ok());
        assert!(ServerProcess::new(u32::MAX).unwrap_err().contains("--pid"));
        assert_eq!(cpu_between(None, Some(Duration::ZERO)), None);
        // Linux before 6.2 says nothing.
        if let Some(files) = ServerProcess::Local(std::process::id()).open_files() {
            assert!(files.most > 2 && files.limit >= files.most, "{files:?}");
        }
    }
}
