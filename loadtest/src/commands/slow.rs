//! `slow`: `fanout` with subscribers that do not read, or at a trickle. What did the others see, and what
//! did the server's memory do?

use std::collections::BTreeMap;

use fantail::sys::process;
use serde::Serialize;

use crate::base::failure::Failure;
use crate::cli::args::SlowArgs;
use crate::engine::connection::Role;
use crate::engine::run::{Run, Special};
use crate::engine::worker::Slow;
use crate::observe::server_process::ServerProcess;
use crate::result::report::{self, Common, Finished, LatencyReport, Report, Table, number_text};
use crate::result::tally::Tally;

use super::fanout::{FanoutReport, Urls, measure, options, special, tell_topic};
use super::watched;

/// The result file of `slow`: that of `fanout`, about those that read, and what is said here.
#[derive(Debug, Serialize)]
struct SlowReport {
    #[serde(flatten)]
    others: FanoutReport,
    /// The slow subscribers.
    slow: SlowPart,
    /// The server; null without `--pid` or `--server-metrics`.
    server: Option<ServerPart>,
    /// The kernel's TCP memory; null if it can't be read.
    tcp: Option<TcpPart>,
}

/// What became of the slow subscribers.
#[derive(Debug, Serialize)]
struct SlowPart {
    /// Share of the connections.
    fraction: f64,
    /// Bytes each read in a second; 0 for none.
    bytes_per_second: u64,
    /// How many there were when messages began to flow.
    connections: u64,
    /// Of these, those whose connection the server ended.
    closed: u64,
    /// The same by kind.
    errors: BTreeMap<String, u64>,
    /// Messages that they read while messages flowed.
    deliveries: u64,
    /// Messages that they read afterwards, when they read all there was.
    caught_up: u64,
    /// Messages that they never got: dropped by the server, or lost with their connection.
    missing: u64,
    /// From the planned send time to the reading, when they caught up included.
    latency: Option<LatencyReport>,
}

/// The server's memory: RssAnon + Shmem + HugeTLB + Swap. The kernel's socket buffers are not in it.
#[derive(Clone, Copy, Debug, Serialize)]
struct ServerPart {
    /// Its id; null if it is on another machine.
    pid: Option<u32>,
    /// Before the first message.
    user_bytes_before: Option<u64>,
    /// The highest reading while messages flowed.
    user_bytes_peak: Option<u64>,
    /// When all had been sent and had arrived.
    user_bytes_after: Option<u64>,
    /// `user_bytes_peak` less `user_bytes_before`.
    user_bytes_grown: Option<u64>,
    /// Resident memory, file pages included, before the first message.
    resident_bytes_before: Option<u64>,
    /// The highest reading of it while messages flowed.
    resident_bytes_peak: Option<u64>,
    /// The same when all had been sent and had arrived.
    resident_bytes_after: Option<u64>,
}

/// TCP memory of the whole machine: both ends if the server is on it, and every other program.
#[derive(Clone, Copy, Debug, Serialize)]
struct TcpPart {
    machine_bytes_before: u64,
    machine_bytes_peak: u64,
}

/// Runs the command.
pub(crate) fn run(args: &SlowArgs) -> Result<Finished, Failure> {
    let fanout = &args.fanout;
    if fanout.resuming.resume {
        return Err(Failure::Usage(
            "slow: what subscribers never read is compared: leave out --resume".into(),
        ));
    }
    let urls = Urls::new(fanout)?;
    let server = watched(&fanout.common)?;
    let slow = Slow { fraction: args.slow_fraction, bytes_per_second: args.slow_rate };
    let special = Special { slow: Some(slow), ..special(fanout) };
    let mut run = Run::start_special(
        &options(fanout, &urls),
        urls.target.clone(),
        Role::Subscribe,
        fanout.load.shape(),
        special,
    )?;
    tell_topic(&urls, &run);
    // The first reading is made with all connections open, before the first message of the schedule.
    let mut memory = Memory { server, ..Memory::default() };
    let mut outcome = measure(fanout, &urls, server, &mut run, &mut || memory.on_look())?;
    let apart = outcome.tally.slow.take();
    let slow = SlowPart::new(slow, apart.as_deref(), outcome.slow_in_time);
    let others = FanoutReport::new("slow", fanout, &run, urls, outcome);
    let report = SlowReport { others, slow, server: memory.server(), tcp: memory.tcp };
    report::finish(report, &fanout.common.judging())
}

/// Readings while messages flow.
#[derive(Debug, Default)]
struct Memory {
    server: Option<ServerProcess>,
    user: Readings,
    resident: Readings,
    tcp: Option<TcpPart>,
}

/// Readings of one kind of memory.
#[derive(Clone, Copy, Debug, Default)]
struct Readings {
    before: Option<u64>,
    peak: Option<u64>,
    last: Option<u64>,
}

impl Readings {
    fn add(&mut self, now: Option<u64>) {
        let Some(now) = now else { return };
        self.before.get_or_insert(now);
        self.peak = self.peak.max(Some(now));
        self.last = Some(now);
    }
}

impl Memory {
    fn on_look(&mut self) {
        let now = self.server.map(ServerProcess::user_and_resident_bytes).unwrap_or_default();
        self.user.add(now.0);
        self.resident.add(now.1);
        if let Ok(now) = process::tcp_memory() {
            let now = now.memory_bytes;
            let tcp = self.tcp.get_or_insert(TcpPart { machine_bytes_before: now, machine_bytes_peak: now });
            tcp.machine_bytes_peak = tcp.machine_bytes_peak.max(now);
        }
    }

    fn server(&self) -> Option<ServerPart> {
        Some(ServerPart {
            pid: self.server?.pid(),
            user_bytes_before: self.user.before,
            user_bytes_peak: self.user.peak,
            user_bytes_after: self.user.last,
            user_bytes_grown: self.user.peak.zip(self.user.before).map(|(peak, before)| peak - before),
            resident_bytes_before: self.resident.before,
            resident_bytes_peak: self.resident.peak,
            resident_bytes_after: self.resident.last,
        })
    }
}

impl SlowPart {
    fn new(slow: Slow, apart: Option<&Tally>, in_time: u64) -> Self {
        let counts = apart.map(|apart| apart.counts.clone()).unwrap_or_default();
        Self {
            fraction: slow.fraction,
            bytes_per_second: slow.bytes_per_second,
            connections: counts.opened,
            closed: counts.lost,
            errors: counts.troubles.iter().map(|(trouble, count)| (trouble.name(), *count)).collect(),
            deliveries: in_time,
            caught_up: counts.unique.saturating_sub(in_time),
            missing: counts.missing,
            latency: apart.and_then(|apart| LatencyReport::new(&apart.latency)),
        }
    }
}

impl Report for SlowReport {
    fn common(&mut self) -> &mut Common {
        &mut self.others.common
    }

    fn table(&self) -> Table {
        let mut table = Table::default();
        self.others.rows(&mut table);
        let SlowPart { connections, closed, bytes_per_second, .. } = self.slow;
        let how = match bytes_per_second {
            0 => "not reading".to_owned(),
            bytes => format!("reading {bytes} bytes/s"),
        };
        table.row("slow subscribers", format!("{connections}, {how}"));
        table.row("  closed by the server", closed);
        for (name, count) in &self.slow.errors {
            table.row(&format!("    {name}"), count);
        }
        let SlowPart { deliveries, caught_up, missing, .. } = self.slow;
        table.row("  read / afterwards / never", format!("{deliveries} / {caught_up} / {missing}"));
        let kib = |bytes: Option<u64>| number_text(bytes.map(|bytes| bytes as f64 / 1024.0), 0, " KiB");
        if let Some(server) = &self.server {
            let mut row = |name: &str, before, peak, after| {
                table.row(
                    name,
                    format!("{} before, {} at most, {} after", kib(before), kib(peak), kib(after)),
                );
            };
            row("server memory", server.user_bytes_before, server.user_bytes_peak, server.user_bytes_after);
            if server.user_bytes_before.is_none() {
                let (before, peak) = (server.resident_bytes_before, server.resident_bytes_peak);
                row("  resident, with file pages", before, peak, server.resident_bytes_after);
            }
        } else {
            table.row("server memory", "n/a, see --pid and --server-metrics");
        }
        let (before, peak) =
            (self.tcp.map(|tcp| tcp.machine_bytes_before), self.tcp.map(|tcp| tcp.machine_bytes_peak));
        table.row("TCP memory, whole machine", format!("{} before, {} at most", kib(before), kib(peak)));
        self.others.common.closing_rows(&mut table);
        table
    }
}
