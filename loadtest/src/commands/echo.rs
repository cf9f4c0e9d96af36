//! `echo`: every connection sends in turn, at a planned rate, and checks what comes back. `ping` is the same with
//! pings, which any server answers.

use std::time::Duration;

use serde::Serialize;

use crate::base::failure::Failure;
use crate::base::interrupt;
use crate::base::pace::Pace;
use crate::base::schedule::Schedule;
use crate::cli::args::{Common as Flags, EchoArgs, PingArgs};
use crate::engine::connection::Role;
use crate::engine::message::{Filler, Shape};
use crate::engine::pacing::Pacer;
use crate::engine::run::{Run, Special};
use crate::engine::sizes::Sizes;
use crate::engine::worker::Published;
use crate::observe::server_process::{ServerProcess, cpu_between};
use crate::result::messages_report::{MessagesReport, Offered};
use crate::result::report::{self, Common, Finished, Report, Table, number_text};

use super::{LINGER, planned, soon_ns, watched, ws_target};

/// The result file of `echo`.
#[derive(Debug, Serialize)]
struct EchoReport {
    #[serde(flatten)]
    common: Common,
    #[serde(flatten)]
    messages: MessagesReport,
    /// Messages sent.
    sent: u64,
    /// Messages not sent, because their connection was lost or took no more.
    unsent: u64,
    /// Messages that came back.
    returned: u64,
    /// Pings that were not answered, as may be (RFC 6455, 5.5.3), because a later one was; only of `ping`.
    #[serde(skip_serializing_if = "Option::is_none")]
    skipped: Option<u64>,
    /// Processor time of the server per message that came back; null without `--pid` or `--server-metrics`.
    server_cpu_nanoseconds_per_message: Option<f64>,
}

/// What is sent, and when.
struct Load {
    offered: Offered,
    pace: Pace,
    warm_up: Option<Pace>,
}

/// Runs the command.
pub(crate) fn run(args: &EchoArgs) -> Result<Finished, Failure> {
    let special = Special { message: args.load.message.as_deref(), keeps_kind: true, ..Special::default() };
    let pace = args.load.pace.pace(args.rate, args.common.duration);
    let load = Load { offered: args.load.offered(pace.mean()), warm_up: args.load.pace.warm_up(&pace), pace };
    measure("echo", (&args.url, &args.common), (Role::Echo, args.load.shape(), special), load)
}

/// Runs `ping`.
pub(crate) fn run_pings(args: &PingArgs) -> Result<Finished, Failure> {
    let shape = Shape { sizes: Sizes::One(args.size), filler: Filler::Letters, binary: true };
    let pace = args.pace.pace(args.rate, args.common.duration);
    let load = Load { offered: args.offered(pace.mean()), warm_up: args.pace.warm_up(&pace), pace };
    measure("ping", (&args.url, &args.common), (Role::Ping, shape, Special::default()), load)
}

fn measure(
    command: &'static str,
    (url, flags): (&str, &Flags),
    (role, shape, special): (Role, Shape, Special<'_>),
    load: Load,
) -> Result<Finished, Failure> {
    let target = ws_target(url, flags)?;
    let server = watched(flags)?;
    let connections = flags.connections;
    let schedule = planned(&load.pace, load.offered.burst)?;
    let warm_up = load.warm_up.map(|pace| planned(&pace, load.offered.burst)).transpose()?;
    let mut run = Run::start_special(&flags.options(), target, role, shape, special)?;
    run.open(connections as usize)?;

    if let Some(warm_up) = warm_up {
        let warm_up = warm_up.starting(soon_ns(&run));
        send(&mut run, &warm_up, false)?;
    }
    let cpu_from = server.and_then(ServerProcess::cpu_time);
    let schedule = schedule.starting(soon_ns(&run));
    send(&mut run, &schedule, true)?;
    let schedule = if interrupt::requested() { end_early(&run, schedule) } else { schedule };
    run.wait_while_moving(flags.kit.wait_late, |run| {
        let counts = run.counts();
        let done = counts.sent + counts.unsent >= schedule.count()
            && counts.unique + counts.overtaken >= counts.sent;
        // With everybody gone nothing comes any more.
        (done || counts.lost >= counts.opened, counts.sent + counts.unique)
    })?;
    let cpu_to = server.and_then(ServerProcess::cpu_time);
    run.wait(LINGER, |_| false)?;
    let tally = run.stop(Published::Own)?;

    let counts = &tally.counts;
    let mut common = Common::new(command, url, connections, run.facts(&tally.counts), &tally, true);
    let messages = MessagesReport::new(load.offered, &schedule, &tally, run.started_ns);
    common.expect_none(&[(schedule.count().saturating_sub(counts.sent), "messages not sent")]);
    common.expect_none(&messages.problems("messages"));
    let cpu = cpu_between(cpu_from, cpu_to).filter(|_| counts.unique > 0);
    let report = EchoReport {
        common,
        messages,
        sent: counts.sent,
        unsent: counts.unsent,
        returned: counts.unique,
        skipped: (role == Role::Ping).then_some(counts.overtaken),
        server_cpu_nanoseconds_per_message: cpu.map(|cpu| cpu.as_nanos() as f64 / counts.unique as f64),
    };
    report::finish(report, &flags.judging())
}

/// Lets workers send what is planned; `counts` unless it is the warm-up.
fn send(run: &mut Run, schedule: &Schedule, counts: bool) -> Result<(), Failure> {
    run.order(|order| match counts {
        true => order.schedule = Some(schedule.clone()),
        false => order.warm_up = Some(schedule.clone()),
    });
    let pacer = Pacer::start(run, schedule.clone());
    run.wait(Duration::MAX, |_| pacer.is_finished())?;
    pacer.stop()
}

/// Takes back what is not due yet.
fn end_early(run: &Run, schedule: Schedule) -> Schedule {
    let cut = schedule.cut(run.plan.clock.now_ns());
    run.order(|order| order.schedule = Some(cut.clone()));
    cut
}

impl Report for EchoReport {
    fn common(&mut self) -> &mut Common {
        &mut self.common
    }

    fn table(&self) -> Table {
        let mut table = Table::default();
        self.common.rows(&mut table);
        self.messages.plan_row(&mut table);
        table.row("  sent / unsent", format!("{} / {} of {}", self.sent, self.unsent, self.messages.planned));
        table.row("  returned", self.returned);
        if let Some(skipped) = self.skipped.filter(|skipped| *skipped > 0) {
            table.row("  answered with a later one", skipped);
        }
        self.messages.rows(&mut table);
        self.messages.latency_row("round trip", &mut table);
        table.row("server cpu per message", number_text(self.server_cpu_nanoseconds_per_message, 0, " ns"));
        self.common.closing_rows(&mut table);
        table
    }
}
