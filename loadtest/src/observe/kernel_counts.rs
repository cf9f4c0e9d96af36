//! What the kernel of this machine counted of TCP meanwhile: segments sent again, connections that found no room with
//! whoever listens. Of all programs of the machine. What it does not say is `None`.

use crate::result::report::KernelReport;

/// The counters at one moment, each since the machine was started.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct KernelCounts {
    retransmitted: Option<u64>,
    overflowed: Option<u64>,
}

impl KernelCounts {
    /// Reads them.
    pub(crate) fn now() -> Self {
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        Self {
            retransmitted: counter(&read("/proc/net/snmp"), "Tcp:", "RetransSegs"),
            overflowed: counter(&read("/proc/net/netstat"), "TcpExt:", "ListenOverflows"),
        }
    }

    /// What has been counted since.
    pub(crate) fn since(self, before: Self) -> KernelReport {
        let grown = |now: Option<u64>, before: Option<u64>| now?.checked_sub(before?);
        KernelReport {
            retransmitted_segments: grown(self.retransmitted, before.retransmitted),
            listen_overflows: grown(self.overflowed, before.overflowed),
        }
    }
}

/// A counter of one of these files, in which a line of names stands over one of numbers.
fn counter(text: &str, group: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(group));
    let (names, numbers) = (lines.next()?, lines.next()?);
    let mut pairs = names.split_whitespace().zip(numbers.split_whitespace());
    pairs.find(|(of, _)| *of == name)?.1.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_found_by_their_names() {
        let text = "Ip: Forwarding\nIp: 1\nTcp: ActiveOpens RetransSegs\nTcp: 7 42\n";
        assert_eq!(counter(text, "Tcp:", "RetransSegs"), Some(42));
        assert_eq!((counter(text, "Tcp:", "InSegs"), counter("", "Tcp:", "RetransSegs")), (None, None));
        let now = KernelCounts::now();
        assert!(now.retransmitted.is_some() && now.overflowed.is_some(), "{now:?}");
        assert_eq!(now.since(now).retransmitted_segments, Some(0));
        assert_eq!(now.since(KernelCounts::default()).listen_overflows, None, "unknown is not zero");
    }
}
