//! Facts about the process that no loop counts. Read when somebody asks, from /proc.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What `/metrics` tells about the process as a whole; what is `None` or empty is left out.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ProcessFacts {
    /// Resident memory.
    pub resident_memory_bytes: Option<u64>,
    /// When the process started, since the Unix epoch.
    pub started: Option<Duration>,
    /// Descriptors in use by each loop, in the order of the counters.
    pub descriptors: Vec<u64>,
}

impl ProcessFacts {
    /// Reads what /proc tells; `started` is what the caller noted at its start.
    pub fn read(started: SystemTime, descriptors: Vec<u64>) -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        Self {
            resident_memory_bytes: resident_bytes(&status),
            started: started.duration_since(UNIX_EPOCH).ok(),
            descriptors,
        }
    }
}

/// The line `VmRSS:   1234 kB`.
fn resident_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resident_memory_is_read_from_status() {
        assert_eq!(resident_bytes("VmPeak:\t 9 kB\nVmRSS:\t    12 kB\n"), Some(12 * 1024));
        for bad in ["", "VmRSS:", "VmRSS: x kB", "VmRSS: 12", "VmRSS: 99999999999999999999 kB"] {
            assert_eq!(resident_bytes(bad), None, "{bad:?}");
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_has_memory_and_a_start() {
        let facts = ProcessFacts::read(SystemTime::now(), vec![]);
        assert!(facts.resident_memory_bytes.is_some_and(|bytes| bytes > 100_000));
        assert!(facts.started.is_some());
    }
}
