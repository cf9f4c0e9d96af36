//! `idle`: opens connections, holds them, and reads what they cost the server meanwhile.

use serde::Serialize;

use crate::base::failure::Failure;
use crate::base::interrupt;
use crate::cli::args::IdleArgs;
use crate::engine::connection::Role;
use crate::engine::message::{Filler, MESSAGE_BYTES_MIN, Shape};
use crate::engine::run::Run;
use crate::engine::sizes::Sizes;
use crate::engine::worker::Published;
use crate::observe::server_process::{MemoryReport, ServerProcess, cpu_between, slope};
use crate::result::report::{self, Common, Finished, Report, Table, count_text, number_text};

use super::staged::{self, StageReport};
use super::{clients_target, watched};

/// Connections at the lower point of the slope, where the run is large enough for that.
const LOWER_POINT: u32 = 10_000;

/// The result file of `idle`.
#[derive(Debug, Serialize)]
struct IdleReport {
    #[serde(flatten)]
    common: Common,
    /// How long the connections were held after all were open.
    hold_seconds: f64,
    /// Connections lost while they were held.
    lost_during_hold: u64,
    /// What the stages of `--connection-stages` came to; empty without them.
    stages: Vec<StageReport>,
    /// The server; null without `--pid` or `--server-metrics`.
    server: Option<IdleServerReport>,
}

/// The server process during `idle`.
#[derive(Debug, Serialize)]
struct IdleServerReport {
    /// Its id; null if it is on another machine.
    pid: Option<u32>,
    /// Memory before the first connection.
    memory_before: Option<MemoryReport>,
    /// Memory at the lower point of the slope; null if the run is too small to have one.
    memory_lower: Option<MemoryReport>,
    /// Memory with all connections open.
    memory_full: Option<MemoryReport>,
    /// Bytes per connection between the lower point and all.
    user_bytes_per_connection: Option<f64>,
    /// The same of resident memory, file pages included.
    resident_bytes_per_connection: Option<f64>,
    /// Processor time while connections were opened and memory settled.
    cpu_open_seconds: Option<f64>,
    /// Processor time while connections were held.
    cpu_hold_seconds: Option<f64>,
    /// Voluntary context switches while connections were held: 0 means that nothing woke up.
    context_switches_hold: Option<u64>,
}

/// Runs the command.
pub(crate) fn run(args: &IdleArgs) -> Result<Finished, Failure> {
    let target = clients_target(&args.url, &args.common)?;
    let server = watched(&args.common)?;
    let connections = args.common.connections;
    let memory_before = server.and_then(|server| server.settled_memory(0));
    let cpu_start = server.and_then(ServerProcess::cpu_time);
    let shape = Shape { sizes: Sizes::One(MESSAGE_BYTES_MIN), filler: Filler::Letters, binary: false };
    let mut run = Run::start(&args.common.options(), target, Role::Idle, shape)?;

    let (mut memory_lower, mut memory_full) = (None, None);
    let stages = args.connection_stages.as_ref().map(|stages| stages.0.as_slice());
    if stages.is_none() {
        if let (Some(server), Some(lower)) = (server, lower_point(connections)) {
            run.open(lower as usize)?;
            memory_lower = server.settled_memory(run.counts().open());
        }
        run.open(connections as usize)?;
        memory_full = server.and_then(|server| server.settled_memory(run.counts().open()));
    }

    let lost_before = run.counts().lost;
    let cpu_open = server.and_then(ServerProcess::cpu_time);
    let switches_from = server.and_then(ServerProcess::context_switches);
    let hold_from_ns = run.plan.clock.now_ns();
    let stages = match stages {
        Some(stages) => staged::follow(&mut run, stages, server)?,
        None => {
            run.wait(args.common.duration, |_| interrupt::requested())?;
            Vec::new()
        }
    };
    let hold_seconds = (run.plan.clock.now_ns() - hold_from_ns) as f64 / 1e9;
    let switches_to = server.and_then(ServerProcess::context_switches);
    let cpu_end = server.and_then(ServerProcess::cpu_time);
    let lost_during_hold = run.counts().lost - lost_before;
    let tally = run.stop(Published::Count(0))?;

    // In stages one place may be taken several times.
    let counts = &tally.counts;
    let wanted = if stages.is_empty() { connections } else { (counts.opened + counts.failed) as u32 };
    let mut common = Common::new("idle", &args.url, wanted, run.facts(counts), &tally, false);
    staged::judge(&stages, &mut common);
    let per_connection = |kind: fn(&MemoryReport) -> Option<u64>| {
        memory_lower.zip(memory_full).and_then(|(low, high)| slope(&low, &high, kind))
    };
    let server = server.map(|server| IdleServerReport {
        pid: server.pid(),
        memory_before,
        memory_lower,
        memory_full,
        user_bytes_per_connection: per_connection(|memory| memory.user_bytes),
        resident_bytes_per_connection: per_connection(|memory| memory.resident_bytes),
        cpu_open_seconds: cpu_between(cpu_start, cpu_open).map(|time| time.as_secs_f64()),
        cpu_hold_seconds: cpu_between(cpu_open, cpu_end).map(|time| time.as_secs_f64()),
        context_switches_hold: switches_to.zip(switches_from).and_then(|(to, from)| to.checked_sub(from)),
    });
    report::finish(
        IdleReport { common, hold_seconds, lost_during_hold, stages, server },
        &args.common.judging(),
    )
}

impl Report for IdleReport {
    fn common(&mut self) -> &mut Common {
        &mut self.common
    }

    fn table(&self) -> Table {
        let mut table = Table::default();
        self.common.rows(&mut table);
        table.row("held for", format!("{:.1} s, {} lost", self.hold_seconds, self.lost_during_hold));
        staged::rows(&self.stages, &mut table);
        if let Some(server) = &self.server {
            if let Some(pid) = server.pid {
                table.row("server", format!("pid {pid}"));
            }
            let staged = !self.stages.is_empty();
            // In stages there is no moment at which all are open.
            let memory = [server.memory_before, server.memory_lower, server.memory_full];
            for memory in memory.into_iter().take(if staged { 1 } else { 3 }) {
                let name = memory.map_or_else(
                    || "  memory".to_owned(),
                    |memory| format!("  memory at {}", memory.connections),
                );
                table.row(&name, memory.map_or_else(|| "n/a".to_owned(), |memory| memory.text()));
            }
            let user = number_text(server.user_bytes_per_connection, 1, " bytes");
            let resident = number_text(server.resident_bytes_per_connection, 1, " bytes");
            if !staged {
                table.row("  per connection", format!("{user} of user memory, {resident} resident"));
                table.row("  processor, opening", number_text(server.cpu_open_seconds, 3, " s"));
            }
            table.row("  processor, held", number_text(server.cpu_hold_seconds, 6, " s"));
            table.row("  context switches, held", count_text(server.context_switches_hold));
        }
        self.common.closing_rows(&mut table);
        table
    }
}

/// Where the slope begins: 10,000 connections, or a fifth of a smaller run.
fn lower_point(connections: u32) -> Option<u32> {
    let point = if connections >= LOWER_POINT * 5 { LOWER_POINT } else { connections / 5 };
    (point > 0).then_some(point)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slope_begins_at_ten_thousand_or_a_fifth() {
        assert_eq!(lower_point(1_000_000), Some(10_000));
        assert_eq!(lower_point(50_000), Some(10_000));
        assert_eq!(lower_point(20_000), Some(4_000));
        assert_eq!(lower_point(4), None);
    }
}
