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
        Self {
            process,
            settings,
            files_open,
            tracked,
            memory_available: read("proc/meminfo").and_then(|text| available(&text)),
            group: cgroup::tightest(&mut read),
            container: container(&mut read),
        }
    }
}

/// `MemAvailable` in bytes.
fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
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
        assert_eq!(available(text), Some(900 * 1024));
        assert_eq!(available("MemTotal: 1 kB\n"), None);
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
