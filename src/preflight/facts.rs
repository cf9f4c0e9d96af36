//! What the machine is like, out of the text of its files. Pure: whoever calls brings the files.
//!
//! A file that is not there is a fact that is not known, and no limit is made up for it.

use std::collections::BTreeMap;

use super::cgroup::{self, Group};
use super::list::{Setting, numbers};
use crate::config::Tables;

/// What the process itself knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Process {
    /// Open files that one descriptor table may hold: the hard limit, to which the server raises the soft one.
    pub nofile: u64,
    /// Whether each loop gets a table of its own here.
    pub tables: Tables,
    /// Processors that the process may use.
    pub cores: usize,
}

/// Everything that is known of the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The process's own limits.
    pub process: Process,
    /// Kernel settings by their name with dots.
    pub settings: BTreeMap<String, Vec<u64>>,
    /// Files open on the whole machine.
    pub files_open: u64,
    /// Connections that the firewall tracks now; 0 if it does not track any.
    pub tracked: u64,
    /// Bytes of memory that can be had without swapping.
    pub memory_available: Option<u64>,
    /// Bytes of memory that the machine has.
    pub memory_total: Option<u64>,
    /// Bytes of address space that the process may have, if that is limited (RLIMIT_AS).
    pub address_space: Option<u64>,
    /// The control group that leaves the least memory.
    pub group: Option<Group>,
    /// What kind of container this is, if it is one.
    pub container: Option<&'static str>,
}

impl Facts {
    /// Gathers them. `read` gives the text of a file by its path without the leading slash.
    pub fn gather(process: Process, list: &[Setting], mut read: impl FnMut(&str) -> Option<String>) -> Self {
        let mut settings = BTreeMap::new();
        for setting in list {
            let path = format!("proc/sys/{}", setting.key.replace('.', "/"));
            if let Some(values) = read(&path).and_then(|text| numbers(&text)) {
                settings.insert(setting.key.clone(), values);
            }
        }
        let mut first = |path: &str| read(path).and_then(|text| numbers(&text)?.first().copied());
        let files_open = first("proc/sys/fs/file-nr").unwrap_or(0);
        let tracked = first("proc/sys/net/netfilter/nf_conntrack_count").unwrap_or(0);
        let meminfo = read("proc/meminfo").unwrap_or_default();
        Self {
            process,
            settings,
            files_open,
            tracked,
            memory_available: kibibytes(&meminfo, "MemAvailable:"),
            memory_total: kibibytes(&meminfo, "MemTotal:"),
            address_space: read("proc/self/limits").and_then(|text| address_space(&text)),
            group: cgroup::tightest(&mut read),
            container: container(&mut read),
        }
    }
}

/// The memory that a process may have at the most, and what says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allowance {
    /// Bytes.
    pub bytes: u64,
    /// The machine, a control group or a limit.
    pub of: String,
}

impl Facts {
    /// How much memory the process may have, whoever has it now; `None` where nothing is known.
    #[must_use]
    pub fn allowance(&self) -> Option<Allowance> {
        let machine = self.memory_total.map(|bytes| Allowance { bytes, of: "the machine".to_owned() });
        let group = self.group.as_ref().map(|group| {
            let of = format!("the control group {}", group.path);
            Allowance { bytes: group.limit, of }
        });
        let limit = self.address_space.map(|bytes| Allowance { bytes, of: "the address space".to_owned() });
        [machine, group, limit].into_iter().flatten().min_by_key(|allowance| allowance.bytes)
    }
}

/// The soft limit in /proc/self/limits; "unlimited" is no number.
fn address_space(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max address space"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// A line of /proc/meminfo in bytes.
fn kibibytes(meminfo: &str, name: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib.saturating_mul(1024))
}

/// The signs that container engines leave.
fn container(read: &mut impl FnMut(&str) -> Option<String>) -> Option<&'static str> {
    if read(".dockerenv").is_some() {
        return Some("docker");
    }
    if read("run/.containerenv").is_some() {
        return Some("podman");
    }
    let signs = [
        ("kubepods", "kubernetes"),
        ("docker", "docker"),
        ("containerd", "containerd"),
        ("libpod", "podman"),
        ("lxc", "lxc"),
    ];
    let said = [read("run/systemd/container"), read("proc/1/cgroup")];
    let text = said.into_iter().flatten().collect::<String>();
    match signs.into_iter().find(|(sign, _)| text.contains(sign)) {
        Some((_, name)) => Some(name),
        None => read("run/systemd/container").map(|_| "container"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn available_memory_is_read_by_name() {
        let text = "MemTotal:       1000 kB\nMemFree:         1 kB\nMemAvailable:   900 kB\n";
        assert_eq!(kibibytes(text, "MemAvailable:"), Some(900 * 1024));
        assert_eq!(kibibytes(text, "MemTotal:"), Some(1000 * 1024));
        assert_eq!(kibibytes("MemTotal: 1 kB\n", "MemAvailable:"), None);
    }

    #[test]
    fn the_tightest_limit_is_what_the_process_may_have() {
        let gather = |files: &[(&str, &str)]| {
            let process = Process { nofile: 64, tables: Tables::Shared, cores: 1 };
            let read = |path: &str| {
                files.iter().find(|(known, _)| *known == path).map(|(_, text)| (*text).to_owned())
            };
            Facts::gather(process, &[], read)
                .allowance()
                .map(|allowance| (allowance.bytes >> 20, allowance.of))
        };
        let machine = ("proc/meminfo", "MemTotal: 1048576 kB\nMemAvailable: 900 kB\n");
        let group = ("sys/fs/cgroup/memory.max", "50331648\n");
        let limits =
            "Limit  Soft Limit  Hard Limit  Units\nMax address space         33554432 unlimited  bytes\n";
        assert_eq!(gather(&[]), None);
        assert_eq!(gather(&[machine]), Some((1_024, "the machine".to_owned())));
        let grouped = [machine, group, ("proc/self/cgroup", "0::/\n")];
        assert_eq!(gather(&grouped), Some((48, "the control group sys/fs/cgroup".to_owned())));
        let limited = [machine, ("proc/self/limits", limits)];
        assert_eq!(gather(&limited), Some((32, "the address space".to_owned())));
        let free = [machine, ("proc/self/limits", "Max address space  unlimited  unlimited  bytes\n")];
        assert_eq!(gather(&free).map(|(bytes, _)| bytes), Some(1_024));
    }

    #[test]
    fn containers_are_known_by_their_signs() {
        let with = |path: &'static str, text: &'static str| {
            container(&mut |asked: &str| (asked == path).then(|| text.to_owned()))
        };
        assert_eq!(with(".dockerenv", ""), Some("docker"));
        assert_eq!(with("run/.containerenv", ""), Some("podman"));
        assert_eq!(with("proc/1/cgroup", "0::/kubepods/besteffort/pod1/2\n"), Some("kubernetes"));
        assert_eq!(with("run/systemd/container", "systemd-nspawn\n"), Some("container"));
        assert_eq!(with("proc/1/cgroup", "0::/init.scope\n"), None);
    }
}
