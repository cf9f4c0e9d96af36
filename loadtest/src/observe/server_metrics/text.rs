//! What of a page of metrics is used: memory and processor time of the process that serves it. Pure.
//!
//! The text format of Prometheus, version 0.0.4, and what OpenMetrics shares with it. Names are those that client
//! libraries of all languages use for their process, and Fantail's for the kinds of its memory.

use std::time::Duration;

use fantail::sys::process::MemoryUse;

/// What one page said; `None` for what it does not.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Offered {
    /// `process_resident_memory_bytes`: file pages included.
    pub(crate) resident_bytes: Option<u64>,
    /// `process_cpu_seconds_total`.
    pub(crate) cpu: Option<Duration>,
    /// `fantail_memory_bytes`, all of its kinds.
    pub(crate) memory: Option<MemoryUse>,
}

impl Offered {
    /// Reads a page. What is not a sample of a known name is skipped.
    pub(crate) fn read(page: &str) -> Self {
        let resident = value(page, "process_resident_memory_bytes", None);
        let cpu = value(page, "process_cpu_seconds_total", None);
        let kind = |kind| value(page, "fantail_memory_bytes", Some(kind)).and_then(bytes);
        let memory = || {
            Some(MemoryUse {
                rss_anon: kind("kind=\"anon\"")?,
                rss_file: kind("kind=\"file\"")?,
                rss_shmem: kind("kind=\"shmem\"")?,
                hugetlb: kind("kind=\"hugetlb\"")?,
                swap: kind("kind=\"swap\"")?,
            })
        };
        Self {
            resident_bytes: resident.and_then(bytes),
            cpu: cpu.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()),
            memory: memory(),
        }
    }

    /// The names of what it said.
    pub(crate) fn names(&self) -> Vec<&'static str> {
        let names = [
            (self.resident_bytes.is_some(), "process_resident_memory_bytes"),
            (self.cpu.is_some(), "process_cpu_seconds_total"),
            (self.memory.is_some(), "fantail_memory_bytes"),
        ];
        names.into_iter().filter_map(|(there, name)| there.then_some(name)).collect()
    }
}

/// The value of the first sample of that name, with that label if one is given.
fn value(page: &str, name: &str, label: Option<&str>) -> Option<f64> {
    page.lines().find_map(|line| {
        let rest = line.trim_start().strip_prefix(name)?;
        let (labels, rest) = match rest.strip_prefix('{') {
            Some(rest) => rest.split_once('}')?,
            None if rest.starts_with([' ', '\t']) => ("", rest),
            None => return None,
        };
        let wanted = label.is_none_or(|label| labels.split(',').any(|one| one.trim() == label));
        // Behind the value there may be a time.
        wanted.then(|| rest.split_whitespace().next())??.parse().ok()
    })
}

fn bytes(value: f64) -> Option<u64> {
    (value.is_finite() && value >= 0.0).then_some(value as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_client_libraries_are_read() {
        let page = "# HELP process_resident_memory_bytes Resident memory size in bytes.\n\
            # TYPE process_resident_memory_bytes gauge\n\
            process_resident_memory_bytes_x 7\n\
            process_resident_memory_bytes 4.7353856e+07 1395066363000\n\
            process_cpu_seconds_total{app=\"a b\"} 1.25\n";
        let offered = Offered::read(page);
        assert_eq!(offered.resident_bytes, Some(47_353_856));
        assert_eq!(offered.cpu, Some(Duration::from_millis(1_250)));
        assert_eq!(offered.memory, None);
        assert_eq!(offered.names(), ["process_resident_memory_bytes", "process_cpu_seconds_total"]);
    }

    #[test]
    fn fantails_kinds_of_memory_count_only_together() {
        let kinds = [("anon", 5), ("file", 4), ("shmem", 3), ("hugetlb", 2), ("swap", 1)];
        let lines = kinds.map(|(kind, bytes)| format!("fantail_memory_bytes{{kind=\"{kind}\"}} {bytes}\n"));
        let memory = Offered::read(&lines.concat()).memory.unwrap();
        assert_eq!((memory.user_bytes(), memory.rss_file), (11, 4));
        assert_eq!(Offered::read(&lines[1..].concat()).memory, None);
    }

    #[test]
    fn what_is_not_there_or_no_number_is_unknown() {
        for page in [
            "",
            "<html>",
            "process_cpu_seconds_total",
            "process_cpu_seconds_total{a=\"b\" 3",
            "process_resident_memory_bytes NaN\nprocess_cpu_seconds_total -1\n",
            "process_resident_memory_bytes +Inf\nprocess_cpu_seconds_total x\n",
        ] {
            assert_eq!(Offered::read(page), Offered::default(), "{page:?}");
        }
    }
}
