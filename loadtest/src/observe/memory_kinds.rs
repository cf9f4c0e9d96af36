//! The kinds of memory that `memory` watches, which end of the connections each belongs to, and reading them.
//!
//! Everything comes from procfs, also of servers that know nothing of this program, or for a server on another machine
//! from what `--server-metrics` tells. What can't be read is
//! `None`, never 0. Never decides what a connection costs.

use std::path::Path;

use fantail::sys::{memory, process};
use serde::Serialize;

use crate::observe::server_process::ServerProcess;

/// Which end of the connections a figure belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum End {
    /// The server's process.
    Server,
    /// This process.
    Generator,
    /// The kernel of the machine both are on; a connection has two sockets in it.
    Both,
}

impl End {
    /// As the table and the result file name it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Generator => "generator",
            Self::Both => "both",
        }
    }
}

/// One kind of memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kind {
    /// Stable name, without the end.
    pub(crate) name: &'static str,
    /// What it is.
    pub(crate) what: &'static str,
    source: Source,
}

/// Where a kind is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Process(Part),
    /// A line of `/proc/meminfo`.
    MemInfo(&'static str),
    /// One cache of `/proc/slabinfo`, which only root may read.
    Cache(&'static str),
    TcpQueues,
    /// MemTotal - MemAvailable.
    Used,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    User,
    RssAnon,
    RssShmem,
    HugeTlb,
    Swap,
    RssFile,
    Resident,
    Pss,
}

const fn kind(name: &'static str, what: &'static str, source: Source) -> Kind {
    Kind { name, what, source }
}

/// Kinds of a process: read for the server and for the generator.
const OF_A_PROCESS: [Kind; 8] = [
    kind("user", "RssAnon + RssShmem + HugeTLB + swap", Source::Process(Part::User)),
    kind("rss_anon", "heap and stacks", Source::Process(Part::RssAnon)),
    kind("rss_shmem", "shared memory", Source::Process(Part::RssShmem)),
    kind("hugetlb", "reserved huge pages", Source::Process(Part::HugeTlb)),
    kind("swap", "swapped out", Source::Process(Part::Swap)),
    kind("rss_file", "file pages, the program among them", Source::Process(Part::RssFile)),
    kind("resident", "all resident: heap, stacks, shared and file pages", Source::Process(Part::Resident)),
    kind("pss", "resident, shared pages by their share", Source::Process(Part::Pss)),
];

/// Kinds of the machine's kernel.
const OF_THE_KERNEL: [Kind; 10] = [
    kind("slab", "all kernel objects", Source::MemInfo("Slab")),
    kind("slab_tcp", "TCP sockets", Source::Cache("TCP")),
    kind("slab_tcp6", "TCP sockets of IPv6", Source::Cache("TCPv6")),
    kind("slab_sock_inode", "their inodes", Source::Cache("sock_inode_cache")),
    kind("slab_dentry", "directory entries, one a socket", Source::Cache("dentry")),
    kind("slab_file", "open files", Source::Cache("filp")),
    kind("slab_epoll", "epoll items", Source::Cache("eventpoll_epi")),
    kind("tcp_queues", "unread and unsent bytes, in whole pages", Source::TcpQueues),
    kind("page_tables", "page tables of all processes", Source::MemInfo("PageTables")),
    kind("used", "all memory in use: MemTotal - MemAvailable", Source::Used),
];

/// A kind at one end: one figure of the study.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Figure {
    /// The kind.
    pub(crate) kind: Kind,
    /// Where it belongs.
    pub(crate) end: End,
}

/// All figures of a study. `server_here` says whether the server is on this machine: then the kernel's memory is
/// that of both ends, else of the generator's alone.
pub(crate) fn figures(server_here: bool) -> Vec<Figure> {
    let kernel_end = if server_here { End::Both } else { End::Generator };
    let at = |kinds: &[Kind], end| kinds.iter().map(|kind| Figure { kind: *kind, end }).collect::<Vec<_>>();
    let server = at(&OF_A_PROCESS, End::Server);
    let generator = at(&OF_A_PROCESS, End::Generator);
    [server, generator, at(&OF_THE_KERNEL, kernel_end)].concat()
}

/// Whether a kind of this name is a process's own memory, not the machine's.
pub(crate) fn is_of_a_process(name: &str) -> bool {
    OF_A_PROCESS.iter().any(|kind| kind.name == name)
}

/// Reads every figure now, in their order.
pub(crate) fn read(figures: &[Figure], server: Option<ServerProcess>) -> Vec<Option<u64>> {
    let server = server.map(Process::of_server);
    let generator = Process::read(None);
    let text = |path: &str| std::fs::read_to_string(Path::new(path)).ok();
    let meminfo = text("/proc/meminfo");
    let slabinfo = text("/proc/slabinfo");
    let of = |figure: &Figure| match figure.kind.source {
        Source::Process(part) if figure.end == End::Server => server.as_ref()?.part(part),
        Source::Process(part) => generator.part(part),
        Source::MemInfo(key) => kib_line(meminfo.as_deref()?, key),
        Source::Cache(name) => cache_bytes(slabinfo.as_deref()?, name, memory::page_bytes()),
        Source::TcpQueues => process::tcp_memory().ok().map(|tcp| tcp.memory_bytes),
        Source::Used => {
            let meminfo = meminfo.as_deref()?;
            kib_line(meminfo, "MemTotal")?.checked_sub(kib_line(meminfo, "MemAvailable")?)
        }
    };
    figures.iter().map(of).collect()
}

/// What one reading of a process gave.
struct Process {
    memory: Option<process::MemoryUse>,
    resident: Option<u64>,
    pss: Option<u64>,
}

impl Process {
    fn read(pid: Option<u32>) -> Self {
        let folder = pid.map_or_else(|| "self".to_owned(), |pid| pid.to_string());
        let rollup = std::fs::read_to_string(format!("/proc/{folder}/smaps_rollup")).ok();
        let memory = process::memory(pid).ok();
        let resident = memory.map(|memory| memory.rss_anon + memory.rss_shmem + memory.rss_file);
        Self { memory, resident, pss: rollup.and_then(|rollup| kib_line(&rollup, "Pss")) }
    }

    fn of_server(server: ServerProcess) -> Self {
        match server.pid() {
            Some(pid) => Self::read(Some(pid)),
            None => Self { memory: server.memory(), resident: server.resident_bytes(), pss: None },
        }
    }

    fn part(&self, part: Part) -> Option<u64> {
        let memory = self.memory.as_ref();
        match part {
            Part::User => memory.map(process::MemoryUse::user_bytes),
            Part::RssAnon => memory.map(|memory| memory.rss_anon),
            Part::RssShmem => memory.map(|memory| memory.rss_shmem),
            Part::HugeTlb => memory.map(|memory| memory.hugetlb),
            Part::Swap => memory.map(|memory| memory.swap),
            Part::RssFile => memory.map(|memory| memory.rss_file),
            Part::Resident => self.resident,
            Part::Pss => self.pss,
        }
    }
}

/// The bytes behind `key:`, which procfs tells in KiB.
fn kib_line(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim_end().parse().ok()?;
    kib.checked_mul(1024)
}

/// The bytes of one cache. A kernel that keeps objects of several kinds in one cache has no line for some of them.
fn cache_bytes(slabinfo: &str, name: &str, page_bytes: u64) -> Option<u64> {
    // slabinfo(5): name, active objects, objects, bytes each, objects a slab, pages a slab : tunables … :
    // slabdata, active slabs, slabs.
    let line = slabinfo.lines().find(|line| line.split_whitespace().next() == Some(name))?;
    let pages: u64 = line.split_whitespace().nth(5)?.parse().ok()?;
    let slabs: u64 = line.rsplit_once("slabdata")?.1.split_whitespace().nth(1)?.parse().ok()?;
    slabs.checked_mul(pages)?.checked_mul(page_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_say_which_end_they_belong_to() {
        let ends = |here, name: &str| -> Vec<End> {
            figures(here).iter().filter(|figure| figure.kind.name == name).map(|figure| figure.end).collect()
        };
        assert_eq!(ends(true, "slab"), [End::Both]);
        assert_eq!(ends(false, "slab"), [End::Generator]);
        assert_eq!(ends(true, "user"), [End::Server, End::Generator]);
    }

    #[test]
    fn without_a_process_id_the_server_is_unknown_and_not_zero() {
        let figures = figures(true);
        let read_now = read(&figures, None);
        for (figure, bytes) in figures.iter().zip(&read_now) {
            match (figure.end, figure.kind.name) {
                (End::Server, _) => assert_eq!(*bytes, None, "{}", figure.kind.name),
                (End::Generator, "user" | "rss_anon") => assert!(bytes.unwrap() > 0),
                _ => {}
            }
        }
        let own = ServerProcess::new(std::process::id()).unwrap();
        let own = read(&figures, Some(own));
        assert!(own.first().unwrap().unwrap() > 0, "the first figure is the server's user memory");
    }

    #[test]
    fn lines_are_found_by_their_whole_name() {
        let text =
            "MemTotal:       100 kB\nSlab:            7 kB\nSReclaimable:    3 kB\nHugePages_Total:  0\n";
        assert_eq!(kib_line(text, "Slab"), Some(7 * 1024));
        assert_eq!(kib_line(text, "Mem"), None);
        assert_eq!(kib_line(text, "HugePages_Total"), None, "it has no unit");
    }

    #[test]
    fn a_cache_counts_its_slabs() {
        let text = "slabinfo - version: 2.1\n# name <active_objs> …\n\
            TCPv6  0 0 2368 13 8 : tunables 0 0 0 : slabdata 0 0 0\n\
            TCP 90 117 2240 13 8 : tunables 0 0 0 : slabdata 9 10 0\n";
        assert_eq!(cache_bytes(text, "TCP", 4096), Some(10 * 8 * 4096));
        assert_eq!(cache_bytes(text, "TCPv6", 4096), Some(0));
        assert_eq!(cache_bytes(text, "filp", 4096), None);
    }
}
