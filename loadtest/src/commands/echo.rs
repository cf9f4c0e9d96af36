//! `echo`: every connection sends in turn, at a planned rate, and checks what comes back.

use std::time::Duration;

use serde::Serialize;

use crate::args::EchoArgs;
use crate::connection::Role;
use crate::failure::Failure;
use crate::interrupt;
use crate::pacing::Pacer;
use crate::report::{self, Common, Finished, LatencyReport, Report, Table, number_text};
use crate::run::Run;
use crate::schedule::Schedule;
use crate::server_process::{ServerProcess, cpu_between};
use crate::worker::Published;

use super::{ARRIVAL_DEADLINE, LINGER, soon_ns, watched, ws_target};

/// The result file of `echo`.
#[derive(Debug, Serialize)]
struct EchoReport {
    #[serde(flatten)]
    common: Common,
    /// Planned messages per second of all connections together.
    rate_per_second: f64,
    /// Messages sent at each planned time.
    burst: u32,
    /// Bytes of a message.
    size_bytes: usize,
    /// Messages the plan had.
    planned: u64,
    /// Messages sent.
    sent: u64,
    /// Messages not sent, because their connection was lost or took no more.
    unsent: u64,
    /// Messages that came back.
    returned: u64,
    /// Messages that did not come back within ten seconds of the last send.
    missing: u64,
    /// Messages that came back again.
    duplicate: u64,
    /// Messages that came back after a later one.
    reordered: u64,
    /// Late or duplicate, too many to tell.
    unclassified: u64,
    /// Messages that came back changed, or were never sent.
    corrupt: u64,
    /// Messages of somebody else.
    foreign: u64,
    /// From the planned send time to the arrival.
    latency: Option<LatencyReport>,
    /// Processor time of the server per message that came back; null without `--pid`.
    server_cpu_nanoseconds_per_message: Option<f64>,
}

/// Runs the command.
pub(crate) fn run(args: &EchoArgs) -> Result<Finished, Failure> {
    let target = ws_target(&args.url)?;
    let server = watched(&args.common)?;
    let connections = args.common.connections;
    let mut run = Run::start(&args.common, target, Role::Echo, args.load.shape())?;
    run.open(connections as usize)?;

    let cpu_from = server.and_then(ServerProcess::cpu_time);
    let schedule = Schedule::new(soon_ns(&run), args.rate, args.load.burst, args.common.duration);
    run.order(|order| order.schedule = Some(schedule));
    let pacer = Pacer::start(&run, schedule);
    run.wait(Duration::MAX, |_| pacer.is_finished())?;
    pacer.stop()?;
    let schedule = if interrupt::requested() { end_early(&run, schedule) } else { schedule };
    run.wait(ARRIVAL_DEADLINE, |run| {
        let counts = run.counts();
        counts.sent + counts.unsent >= schedule.count() && counts.unique >= counts.sent
    })?;
    let cpu_to = server.and_then(ServerProcess::cpu_time);
    run.wait(LINGER, |_| false)?;
    let tally = run.stop(Published::Own)?;

    let counts = &tally.counts;
    let mut common = Common::new("echo", &args.url, connections, &run, &tally, true);
    common.expect_none(&[
        (schedule.count() - counts.sent.min(schedule.count()), "messages not sent"),
        (counts.missing, "messages missing"),
        (counts.duplicate, "messages duplicate"),
        (counts.reordered, "messages out of order"),
        (counts.unclassified, "messages late or duplicate"),
        (counts.corrupt, "messages corrupt"),
    ]);
    let cpu = cpu_between(cpu_from, cpu_to).filter(|_| counts.unique > 0);
    let report = EchoReport {
        common,
        rate_per_second: args.rate,
        burst: args.load.burst,
        size_bytes: args.load.size,
        planned: schedule.count(),
        sent: counts.sent,
        unsent: counts.unsent,
        returned: counts.unique,
        missing: counts.missing,
        duplicate: counts.duplicate,
        reordered: counts.reordered,
        unclassified: counts.unclassified,
        corrupt: counts.corrupt,
        foreign: counts.foreign,
        latency: LatencyReport::new(&tally.latency),
        server_cpu_nanoseconds_per_message: cpu.map(|cpu| cpu.as_nanos() as f64 / counts.unique as f64),
    };
    report::finish(report, &args.common)
}

/// Takes back what is not due yet.
fn end_early(run: &Run, schedule: Schedule) -> Schedule {
    let cut = schedule.cut(run.plan.clock.now_ns());
    run.order(|order| order.schedule = Some(cut));
    cut
}

impl Report for EchoReport {
    fn common(&mut self) -> &mut Common {
        &mut self.common
    }

    fn table(&self) -> Table {
        let mut table = Table::default();
        self.common.rows(&mut table);
        let plan =
            format!("{} bytes, {}/s in bursts of {}", self.size_bytes, self.rate_per_second, self.burst);
        table.row("messages", plan);
        table.row("  sent / unsent", format!("{} / {} of {}", self.sent, self.unsent, self.planned));
        table.row("  returned", self.returned);
        table.row("  missing", self.missing);
        table.row("  duplicate", self.duplicate);
        table.row("  out of order", self.reordered);
        if self.unclassified > 0 {
            table.row("  late or duplicate", self.unclassified);
        }
        table.row("  corrupt / foreign", format!("{} / {}", self.corrupt, self.foreign));
        table.latency("round trip", self.latency.as_ref());
        table.row("server cpu per message", number_text(self.server_cpu_nanoseconds_per_message, 0, " ns"));
        self.common.closing_rows(&mut table);
        table
    }
}
