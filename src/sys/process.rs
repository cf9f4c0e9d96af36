//! What a process uses, read from procfs: memory, processor time, context switches.
//!
//! Metrics and the load generator read it, at most a few times a second. Client loops never call it.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::clock;

/// Ticks a second in `/proc/PID/stat`. It is part of the kernel's interface (USER_HZ) on every 64-bit machine.
const STAT_TICKS_PER_SECOND: u64 = 100;

/// Memory of one process, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryUse {
    /// Resident anonymous memory: heap and stacks.
    pub rss_anon: u64,
    /// Resident pages of files, the program itself among them; the kernel can drop and reread them.
    pub rss_file: u64,
    /// Resident shared memory, such as a ring shared with the kernel or memfd pages.
    pub rss_shmem: u64,
    /// Huge pages from the reserved pool, which RSS does not count.
    pub hugetlb: u64,
    /// What was swapped out.
    pub swap: u64,
}

impl MemoryUse {
    /// What the process made the machine hold, wherever it lies now: everything but file pages.
    pub fn user_bytes(&self) -> u64 {
        [self.rss_shmem, self.hugetlb, self.swap]
            .iter()
            .fold(self.rss_anon, |sum, part| sum.saturating_add(*part))
    }
}

/// The memory of a process (`None`: this one).
pub fn memory(pid: Option<u32>) -> io::Result<MemoryUse> {
    let status = read(&process_folder(pid).join("status"))?;
    // A kernel built without huge pages or swap leaves the line out; then there is none of it.
    let bytes = |key: &str| field(&status, key).map(|kib| kib.saturating_mul(1024));
    let rss_anon = bytes("RssAnon").ok_or_else(|| incomplete("RssAnon in the process's status"))?;
    Ok(MemoryUse {
        rss_anon,
        rss_file: bytes("RssFile").unwrap_or(0),
        rss_shmem: bytes("RssShmem").unwrap_or(0),
        hugetlb: bytes("HugetlbPages").unwrap_or(0),
        swap: bytes("VmSwap").unwrap_or(0),
    })
}

/// Processor time of a process (`None`: this one), user and system, of all threads living and ended.
///
/// The process's clock tells it in nanoseconds. Where a sandbox refuses that clock, `/proc/PID/stat` tells
/// it in steps of 10 ms. The sum over `task/*/schedstat` is not used: it loses the time of ended threads,
/// so a difference of two readings can be negative, and it lags by up to a scheduler tick.
pub fn cpu_time(pid: Option<u32>) -> io::Result<Duration> {
    clock::process_cpu_time(pid).or_else(|_| stat_cpu_time(&read(&process_folder(pid).join("stat"))?))
}

/// Processor time of the calling thread, user and system.
pub fn thread_cpu_time() -> io::Result<Duration> {
    clock::thread_cpu_time()
}

/// How often the living threads of a process (`None`: this one) gave the processor up by themselves.
///
/// Each sleep counts one, so two equal readings mean that nothing woke up in between. A thread that ends
/// takes its count with it.
pub fn context_switches(pid: Option<u32>) -> io::Result<u64> {
    let mut sum: u64 = 0;
    for thread in std::fs::read_dir(process_folder(pid).join("task"))? {
        match read(&thread?.path().join("status")) {
            Ok(status) => {
                let count = field(&status, "voluntary_ctxt_switches")
                    .ok_or_else(|| incomplete("voluntary_ctxt_switches in a thread's status"))?;
                sum = sum.saturating_add(count);
            }
            // It ended between the listing and the reading.
            Err(error) if has_ended(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(sum)
}

fn process_folder(pid: Option<u32>) -> PathBuf {
    pid.map_or_else(|| PathBuf::from("/proc/self"), |pid| PathBuf::from(format!("/proc/{pid}")))
}

fn has_ended(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH)
}

fn read(path: &Path) -> io::Result<String> {
    // A process may name itself with bytes that are no UTF-8.
    let bytes = std::fs::read(path)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn incomplete(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("could not read {what}"))
}

/// The number behind `key:`, without its unit.
fn field(status: &str, key: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    line.split_whitespace().next()?.parse().ok()
}

fn stat_cpu_time(stat: &str) -> io::Result<Duration> {
    // The name in parentheses may hold spaces and parentheses itself; nothing behind it does. Fields 14
    // and 15 of proc_pid_stat(5) are utime and stime; the first one behind the name is field 3.
    let ticks = stat.rsplit_once(')').and_then(|(_, rest)| {
        let mut fields = rest.split_whitespace().skip(11);
        let user: u64 = fields.next()?.parse().ok()?;
        let system: u64 = fields.next()?.parse().ok()?;
        user.checked_add(system)
    });
    let ticks = ticks.ok_or_else(|| incomplete("the times of the process's stat"))?;
    Ok(Duration::from_millis(ticks.saturating_mul(1000 / STAT_TICKS_PER_SECOND)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::tests::alone;
    use std::io::{Read, Write};
    use std::process::{Command, Stdio};
    use std::time::Instant;

    #[test]
    fn user_bytes_leave_file_pages_out() {
        let memory = MemoryUse { rss_anon: 1, rss_file: 10, rss_shmem: 100, hugetlb: 1000, swap: 10_000 };
        assert_eq!(memory.user_bytes(), 11_101);
    }

    #[test]
    fn anonymous_memory_is_seen() {
        alone("sys::process::tests::anonymous_memory_is_seen", || {
            let before = memory(None).unwrap();
            let held = vec![1_u8; 64 << 20];
            let after = memory(Some(std::process::id())).unwrap();
            assert!(after.rss_anon >= before.rss_anon + (48 << 20), "{before:?} then {after:?}");
            assert!(after.rss_file > 0);
            assert_eq!(held.len(), 64 << 20);
        });
    }

    #[test]
    fn a_process_that_is_not_there_is_an_error() {
        // Above the kernel's largest process id.
        let absent = Some(4_194_305);
        assert_eq!(memory(absent).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(cpu_time(absent).is_err());
        assert!(context_switches(absent).is_err());
    }

    #[test]
    fn both_ways_to_processor_time_agree() {
        let start = thread_cpu_time().unwrap();
        while thread_cpu_time().unwrap() - start < Duration::from_millis(50) {
            std::hint::spin_loop();
        }
        let coarse = stat_cpu_time(&read(Path::new("/proc/self/stat")).unwrap()).unwrap();
        let exact = cpu_time(None).unwrap();
        assert!(coarse >= Duration::from_millis(10));
        // Both of stat's numbers are rounded down, and it was read first.
        assert!(exact >= coarse, "{exact:?} and {coarse:?}");
    }

    #[test]
    fn stat_is_read_behind_the_name() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194304 900 0 0 0 12 3 0 0 20 0 1 0 100 0 0";
        assert_eq!(stat_cpu_time(stat).unwrap(), Duration::from_millis(150));
        assert!(stat_cpu_time("7 (a) S 1").is_err());
        assert!(stat_cpu_time("").is_err());
    }

    #[test]
    fn status_fields_are_whole_names() {
        let status = "VmRSS:\t  12 kB\nRssAnon:\t    5 kB\nnonvoluntary_ctxt_switches:\t9\nvoluntary_ctxt_switches:\t4\n";
        assert_eq!(field(status, "RssAnon"), Some(5));
        assert_eq!(field(status, "voluntary_ctxt_switches"), Some(4));
        assert_eq!(field(status, "Rss"), None);
    }

    #[test]
    fn a_sleep_is_one_switch() {
        let mut echo = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (mut input, mut output) = (echo.stdin.take().unwrap(), echo.stdout.take().unwrap());
        let pid = echo.id();
        let wait_until_asleep = || {
            let deadline = Instant::now() + Duration::from_secs(20);
            let asleep = || read(&process_folder(Some(pid)).join("stat")).unwrap().contains(") S ");
            while !asleep() {
                assert!(Instant::now() < deadline, "it never slept");
            }
        };
        // One round trip first, so that the program has been loaded.
        let mut round_trip = || {
            input.write_all(b"x").unwrap();
            output.read_exact(&mut [0]).unwrap();
            wait_until_asleep();
        };
        round_trip();
        let before = context_switches(Some(pid)).unwrap();
        assert_eq!(context_switches(Some(pid)).unwrap(), before, "asleep it makes none");
        for _ in 0..10 {
            round_trip();
        }
        let after = context_switches(Some(pid)).unwrap();
        drop(input);
        echo.wait().unwrap();
        assert!(after >= before + 10, "{before} then {after}");
    }
}
