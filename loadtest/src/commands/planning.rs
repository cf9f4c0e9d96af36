//! `--plan`: what a run needs, and whether this machine has it. Opens nothing.
//!
//! Facts are read in one function; what follows from them is pure arithmetic.

use std::path::Path;

use fantail::sys::limits;
use serde::Serialize;

use crate::base::failure::Failure;
use crate::cli::args::Common;
use crate::engine::connection::Connection;
use crate::engine::run::{DESCRIPTORS_RESERVED, default_threads};
use crate::net::target;
use crate::result::report::{self, Table, count_text};
use crate::tls;

/// What the kernel takes for one established TCP socket with nothing in its buffers: socket, inode,
/// dentry, file and epoll item. Measured on Linux 6.18; it differs by some hundred bytes between kernels.
const KERNEL_BYTES_PER_SOCKET: u64 = 4_300;
/// The generator without a connection: code, histograms, scratch buffers of a few threads.
const GENERATOR_BYTES: u64 = 16 * 1024 * 1024;

/// What is known about the machine; `None` for what can't be read.
#[derive(Clone, Copy, Debug, Default)]
struct Facts {
    nofile_hard: Option<u64>,
    files_max: Option<u64>,
    files_open: Option<u64>,
    ports: Option<(u64, u64)>,
    memory_available: Option<u64>,
}

/// The result of `--plan`.
#[derive(Debug, Serialize)]
pub(crate) struct PlanReport {
    format: u32,
    schema: String,
    generator_version: &'static str,
    generator_commit: Option<&'static str>,
    command: &'static str,
    /// The command whose run is planned.
    of: &'static str,
    /// Whether nothing in `problems` is listed.
    pub(crate) ok: bool,
    /// What this machine lacks, one sentence each.
    problems: Vec<String>,
    connections: u64,
    /// Worker threads, each with a descriptor table of its own where the kernel allows it.
    threads: u64,
    /// Descriptors of the fullest table, with some in reserve.
    descriptors_per_table: u64,
    /// RLIMIT_NOFILE, hard; null if it can't be read.
    descriptors_per_table_limit: Option<u64>,
    /// Open files of the whole machine: at this end, and at the server's if it is on this machine.
    files: u64,
    /// Open files that the machine has left; null if it can't be read.
    files_left: Option<u64>,
    /// Source addresses that would be used; null if the kernel chooses.
    source_addresses: Option<u64>,
    /// Connections from the address that has most.
    ports_per_source: u64,
    /// Ports that an address has (net.ipv4.ip_local_port_range); null if it can't be read.
    ports_per_source_limit: Option<u64>,
    /// The generator's own memory.
    generator_bytes: u64,
    /// The kernel's memory for the generator's sockets.
    kernel_bytes: u64,
    /// The same for the server's sockets if it is on this machine; null if it is elsewhere.
    kernel_server_bytes: Option<u64>,
    /// Memory that can be had without swapping; null if it can't be read.
    memory_available_bytes: Option<u64>,
}

/// Makes, prints and writes the plan of one command.
pub(crate) fn run(command: &'static str, url: &str, common: &Common) -> Result<PlanReport, Failure> {
    let target = super::target(url, common)?;
    let connections = common.connections as usize;
    let sources = target::source_addresses(common.source.as_deref(), target.address, connections)
        .map_err(Failure::Usage)?;
    let facts = Facts::read();
    let threads = common
        .threads
        .map_or_else(|| default_threads(connections, facts.nofile_hard), |threads| threads as usize);
    let sources = sources.map(|sources| sources.len());
    let local = target.address.ip().is_loopback();
    let mut report = PlanReport::new(command, connections, threads, sources, local, &facts);
    if target.secure {
        report.add_tls();
    }
    report::publish(&report, &report.table(), &common.judging())?;
    Ok(report)
}

impl PlanReport {
    fn new(
        of: &'static str,
        connections: usize,
        threads: usize,
        sources: Option<usize>,
        local: bool,
        facts: &Facts,
    ) -> Self {
        let each = connections.div_ceil(threads.max(1)) as u64;
        let connections = connections as u64;
        // Where the kernel chooses, there is one address for all of them.
        let ports_per_source = connections.div_ceil(sources.unwrap_or(1).max(1) as u64);
        let kernel_bytes = connections * KERNEL_BYTES_PER_SOCKET;
        let mut report = Self {
            format: report::FORMAT,
            schema: report::schema_id("plan"),
            generator_version: env!("CARGO_PKG_VERSION"),
            generator_commit: report::commit(),
            command: "plan",
            of,
            ok: false,
            problems: Vec::new(),
            connections,
            threads: threads as u64,
            descriptors_per_table: each + DESCRIPTORS_RESERVED,
            descriptors_per_table_limit: facts.nofile_hard,
            files: if local { connections * 2 } else { connections },
            files_left: facts.files_max.zip(facts.files_open).map(|(max, open)| max.saturating_sub(open)),
            source_addresses: sources.map(|sources| sources as u64),
            ports_per_source,
            ports_per_source_limit: facts.ports.map(|(low, high)| (high + 1).saturating_sub(low)),
            generator_bytes: GENERATOR_BYTES + connections * size_of::<Connection>() as u64,
            kernel_bytes,
            kernel_server_bytes: local.then_some(kernel_bytes),
            memory_available_bytes: facts.memory_available,
        };
        report.judge();
        report
    }

    /// Adds what sessions of TLS take in this process.
    fn add_tls(&mut self) {
        self.generator_bytes += self.connections * tls::BYTES_PER_CONNECTION;
        self.problems.clear();
        self.judge();
    }

    fn judge(&mut self) {
        let memory = self.generator_bytes + self.kernel_bytes + self.kernel_server_bytes.unwrap_or(0);
        for (need, have, what, remedy) in [
            (
                self.descriptors_per_table,
                self.descriptors_per_table_limit,
                "descriptors in a table",
                "raise `ulimit -Hn`, or use more --threads",
            ),
            (self.files, self.files_left, "open files", "raise fs.file-max"),
            (
                self.ports_per_source,
                self.ports_per_source_limit,
                "ports of one source address",
                "name more addresses with --source",
            ),
            (memory, self.memory_available_bytes, "bytes of memory", "use fewer --connections"),
        ] {
            if let Some(have) = have.filter(|have| *have < need) {
                self.problems.push(format!("{need} {what} needed, {have} there are: {remedy}"));
            }
        }
        self.ok = self.problems.is_empty();
    }

    fn table(&self) -> Table {
        let mut table = Table::default();
        let of = |need: u64, have: Option<u64>| format!("{need} of {}", count_text(have));
        let mib = |bytes: u64| format!("{:.1} MiB", bytes as f64 / (1024.0 * 1024.0));
        table.row("plan of", self.of);
        table.row("connections", self.connections);
        table.row("threads", self.threads);
        table.row("descriptors per table", of(self.descriptors_per_table, self.descriptors_per_table_limit));
        table.row("open files", of(self.files, self.files_left));
        let sources = self.source_addresses.map_or_else(|| "the kernel's choice".into(), |n| n.to_string());
        table.row("source addresses", sources);
        table.row("ports per address", of(self.ports_per_source, self.ports_per_source_limit));
        table.row("memory of the generator", mib(self.generator_bytes));
        table.row("  the kernel, this end", mib(self.kernel_bytes));
        let server = self.kernel_server_bytes.map_or_else(|| "n/a, another machine".into(), mib);
        table.row("  the kernel, the server", server);
        table.row("  available", self.memory_available_bytes.map_or_else(|| "n/a".into(), mib));
        table.row("verdict", if self.ok { "fits".to_owned() } else { self.problems.join("; ") });
        table
    }
}

impl Facts {
    fn read() -> Self {
        let file = |path: &str| std::fs::read_to_string(Path::new(path)).ok();
        let numbers = |path: &str| -> Vec<u64> {
            let text = file(path).unwrap_or_default();
            text.split_whitespace().map_while(|word| word.parse().ok()).collect()
        };
        let file_nr = numbers("/proc/sys/fs/file-nr");
        let ports = match numbers("/proc/sys/net/ipv4/ip_local_port_range")[..] {
            [low, high] => Some((low, high)),
            _ => None,
        };
        Self {
            nofile_hard: limits::nofile().ok().map(|limit| limit.hard),
            files_open: file_nr.first().copied(),
            files_max: file_nr.get(2).copied(),
            ports,
            memory_available: file("/proc/meminfo").as_deref().and_then(memory_available),
        }
    }
}

fn memory_available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn facts() -> Facts {
        Facts {
            nofile_hard: Some(20_000),
            files_max: Some(1_000_000),
            files_open: Some(1_000),
            ports: Some((32_768, 60_999)),
            memory_available: Some(8 * GIB),
        }
    }

    #[test]
    fn a_run_that_fits_is_ok() {
        let plan = PlanReport::new("idle", 50_000, 3, Some(5), true, &facts());
        assert!(plan.ok, "{:?}", plan.problems);
        assert_eq!(
            (plan.descriptors_per_table, plan.ports_per_source, plan.files),
            (16_731, 10_000, 100_000)
        );
        assert_eq!(plan.ports_per_source_limit, Some(28_232));
        assert_eq!(plan.kernel_server_bytes, Some(50_000 * 4_300));
        let remote = PlanReport::new("idle", 50_000, 3, Some(5), false, &facts());
        assert_eq!((remote.files, remote.kernel_server_bytes), (50_000, None));
    }

    #[test]
    fn tls_takes_memory_of_the_generator() {
        let mut plan = PlanReport::new("idle", 100_000, 6, Some(9), false, &facts());
        let plain = plan.generator_bytes;
        plan.add_tls();
        assert_eq!(plan.generator_bytes - plain, 100_000 * tls::BYTES_PER_CONNECTION);
        assert!(plan.ok, "{:?}", plan.problems);
        let mut small = Facts { memory_available: Some(GIB), ..facts() };
        small.files_max = None;
        let mut plan = PlanReport::new("idle", 150_000, 9, Some(13), false, &small);
        assert!(plan.ok, "{:?}", plan.problems);
        plan.add_tls();
        assert!(!plan.ok && plan.problems.len() == 1, "{:?}", plan.problems);
    }

    #[test]
    fn each_thing_that_lacks_is_named() {
        let problem = |connections, threads, sources, facts: &Facts| {
            PlanReport::new("idle", connections, threads, sources, true, facts).problems.join("; ")
        };
        assert!(problem(50_000, 2, Some(5), &facts()).contains("25064 descriptors in a table"));
        assert!(problem(50_000, 3, None, &facts()).contains("50000 ports"));
        assert!(problem(600_000, 60, Some(60), &facts()).contains("open files"));
        let small = Facts { memory_available: Some(GIB / 4), ..facts() };
        assert!(problem(50_000, 3, Some(5), &small).contains("bytes of memory"));
    }

    #[test]
    fn what_is_not_known_is_no_problem_and_not_zero() {
        let plan = PlanReport::new("idle", 50_000, 3, None, false, &Facts::default());
        assert!(plan.ok, "{:?}", plan.problems);
        assert!(plan.table().text().contains("of n/a"), "{}", plan.table().text());
    }

    #[test]
    fn the_facts_of_this_machine_can_be_read() {
        let facts = Facts::read();
        assert!(facts.memory_available.is_some() && facts.nofile_hard.is_some() && facts.ports.is_some());
        assert_eq!(memory_available("MemTotal: 9 kB\nMemAvailable:   3 kB\n"), Some(3_072));
    }
}
