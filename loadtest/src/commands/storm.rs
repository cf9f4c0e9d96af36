//! `storm`: connections are dropped, all at once or so many a second, and come back.
//!
//! A dropped connection ends with a reset, as when a client's network goes away, and comes back at once; one
//! that is refused tries again with backoff until it is served. Where messages can be published, whether all are in their
//! topics again is asked by one to each.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::base::failure::Failure;
use crate::base::interrupt;
use crate::base::secrets;
use crate::cli::args::StormArgs;
use crate::commands::bystander::Bystander;
use crate::engine::connection::Role;
use crate::engine::message::{Filler, Shape};
use crate::engine::run::{Run, Special};
use crate::engine::sizes::Sizes;
use crate::engine::worker::Published;
use crate::observe::server_process::{ServerProcess, cpu_between};
use crate::publish::{self, PublishError, Publisher};
use crate::result::course::CourseReport;
use crate::result::report::{
    self, Common, Finished, LatencyReport, Report, Table, microseconds_text, number_text,
};
use crate::result::tally::Tally;

use super::{clients_target, watched, ws_target};

/// Bytes of a message that tells who is subscribed: enough to travel as text.
const PROBE_BYTES: usize = 64;
/// How long the bystander is listened to before the storm.
const CALM: Duration = Duration::from_secs(1);

/// The result file of `storm`.
#[derive(Debug, Serialize)]
struct StormReport {
    #[serde(flatten)]
    common: Common,
    /// Drops per second; null if all were dropped at once.
    rate_per_second: Option<f64>,
    /// Connections dropped; one may be dropped more than once if there is a rate.
    dropped: u64,
    /// Drops that were due when no connection was open.
    not_dropped: u64,
    /// Dropped connections that were open again in time.
    returned: u64,
    /// Those that were not.
    unserved: u64,
    /// From the last drop until the last one was open again; null if some did not come back.
    served_again_seconds: Option<f64>,
    /// `returned` by the time from the first drop to the last return.
    returned_per_second: Option<f64>,
    /// Attempts to come back that failed; each was followed by another.
    refused: u64,
    /// The same by kind.
    refusals: BTreeMap<String, u64>,
    /// Topics of connections, each counted once a connection, of which a message came before the storm; null without
    /// `--publish-url`.
    subscribed: Option<u64>,
    /// The same when all were back, of those that were dropped only what came since.
    subscribed_again: Option<u64>,
    /// Messages that came to connections of other topics.
    stray: u64,
    /// From the start of the attempt that succeeded to the open connection.
    reconnect_latency: Option<LatencyReport>,
    /// From a client's drop to its return, waits between attempts included.
    away: Option<LatencyReport>,
    /// The same by when they were open again; null if none came back.
    away_by_return_time: Option<CourseReport>,
    /// When the first was dropped, in seconds since the first connect; null if none was.
    dropped_at_seconds: Option<f64>,
    /// An echo connection that took no part; null with `--bystander none`.
    bystander: Option<BystanderReport>,
    /// Processor time of the server from the first drop until all were back; null without `--pid` or `--server-metrics`.
    server_cpu_seconds: Option<f64>,
}

/// What the bystander saw.
#[derive(Debug, Serialize)]
struct BystanderReport {
    url: String,
    /// Round trips in the second before the storm.
    before: Option<LatencyReport>,
    /// Round trips from the first drop until all were back.
    during: Option<LatencyReport>,
    /// All of them by the planned send time; null if nothing was sent.
    latency_by_send_time: Option<CourseReport>,
    /// Echoes that did not come, of the whole run.
    missing: u64,
    /// Whether the bystander itself lost its connection.
    lost: bool,
}

/// When what happened, in ns.
#[derive(Clone, Copy, Debug)]
struct Times {
    first_drop: u64,
    last_drop: u64,
    /// Whether it was ended early, before all were back.
    cut_short: bool,
}

/// Runs the command.
pub(crate) fn run(args: &StormArgs) -> Result<Finished, Failure> {
    let target = clients_target(&args.url, &args.common)?;
    let bystander_target =
        (args.bystander != "none").then(|| ws_target(&args.bystander, &args.common)).transpose()?;
    let server = watched(&args.common)?;
    let connections = args.common.connections;
    let publishing = publishing(args)?;
    let role = if publishing.is_some() { Role::Subscribe } else { Role::Idle };
    let shape = Shape { sizes: Sizes::One(PROBE_BYTES), filler: Filler::Letters, binary: false };
    let special = Special { returning_max: connections as usize, ..Special::default() };
    let mut run = Run::start_special(&args.common.options(), target, role, shape, special)?;
    run.open(connections as usize)?;
    let mut publisher = publishing
        .map(|wanted| Publisher::start(run.plan.clone(), &wanted).map_err(|error| failure(args, &error)))
        .transpose()?;
    let mut subscribed = |run: &mut Run| match &mut publisher {
        Some(publisher) => {
            super::probe(run, |_| publisher.probe().map_err(|error| failure(args, &error))).map(Some)
        }
        None => Ok(None),
    };
    let subscribed_before = subscribed(&mut run)?;

    let bystander = bystander_target
        .map(|target| Bystander::start(&args.common, target, &args.bystander))
        .transpose()?
        .flatten();
    if bystander.is_some() {
        run.wait(CALM, |_| interrupt::requested())?;
    }
    // A server on another machine takes its time to tell it, and the bystander goes on meanwhile.
    let cpu_from = server.and_then(ServerProcess::cpu_time);
    let before = bystander.as_ref().map(Bystander::latency);
    let times = if interrupt::requested() { None } else { Some(drop_and_wait(args, &mut run)?) };
    let cpu = cpu_between(cpu_from, server.and_then(ServerProcess::cpu_time));
    let subscribed_again = subscribed(&mut run)?;
    let bystander =
        bystander.zip(before).map(|(bystander, before)| heard(args, &run, bystander, before)).transpose()?;
    if args.rate.is_none() {
        run.wait(args.common.duration, |_| interrupt::requested())?;
    }
    let tally = run.stop(Published::Count(0))?;
    let mut report = StormReport::new(args, &run, &tally, times, bystander, cpu);
    (report.subscribed, report.subscribed_again) = (subscribed_before, subscribed_again);
    let all = tally.counts.subscriptions;
    let unheard = |seen: Option<u64>| seen.map_or(0, |seen| all.saturating_sub(seen));
    report.common.expect_none(&[
        (unheard(subscribed_before), "subscriptions saw no message before the storm"),
        (unheard(subscribed_again), "subscriptions saw no message after the storm"),
        (tally.counts.stray, "deliveries to connections that nobody owed them"),
    ]);
    report::finish(report, &args.common.judging())
}

/// How messages are published that tell who is subscribed; `None` if nobody asked.
fn publishing(args: &StormArgs) -> Result<Option<publish::Wanted>, Failure> {
    let Some(url) = &args.publish_url else { return Ok(None) };
    super::posting(url, &args.publish_header, &args.common).map(Some)
}

fn failure(args: &StormArgs, error: &PublishError) -> Failure {
    let url = args.publish_url.as_deref().unwrap_or_default();
    match error {
        PublishError::Usage(what) => Failure::Usage(what.clone()),
        error => Failure::Failed(format!("{}: {error}", secrets::url(url))),
    }
}

/// Drops, and waits until all are back.
fn drop_and_wait(args: &StormArgs, run: &mut Run) -> Result<Times, Failure> {
    // Drops count from their orders: a worker may be done with them before this thread goes on.
    let first_drop = run.plan.clock.now_ns();
    let mut last_drop = first_drop;
    match args.rate {
        None => run.drop_up_to(args.common.connections as usize),
        Some(rate) => {
            let seconds = args.common.duration.as_secs_f64();
            let mut so_far = 0;
            let mut drop_due = |run: &Run| {
                let now_ns = run.plan.clock.now_ns();
                // Who looks late drops no more than the rate allows.
                let due = (rate * ((now_ns - first_drop) as f64 / 1e9).min(seconds)) as usize;
                if due > so_far {
                    (so_far, last_drop) = (due, now_ns);
                    run.drop_up_to(due);
                }
            };
            let interrupted = run.wait(args.common.duration, |run| {
                drop_due(run);
                interrupt::requested()
            })?;
            if !interrupted {
                drop_due(run);
            }
        }
    }
    // The orders are taken in the workers' next turn, and then nobody is away without being counted.
    let ordered = run.drops_ordered();
    run.wait(args.within, |run| {
        let counts = run.counts();
        counts.dropped + counts.not_dropped >= ordered && counts.returned >= counts.dropped
            || interrupt::requested()
    })?;
    Ok(Times { first_drop, last_drop, cut_short: interrupt::requested() })
}

/// What the bystander heard since `before`.
fn heard(
    args: &StormArgs,
    run: &Run,
    bystander: Bystander,
    before: Histogram<u64>,
) -> Result<BystanderReport, Failure> {
    // Each run counts from its own start.
    let behind_ns = run.plan.clock.now_ns().cast_signed() - bystander.now_ns().cast_signed();
    let tally = bystander.stop()?;
    let mut during = tally.latency.clone();
    // Both have the same bounds and `during` has all that `before` has, so this can't fail.
    let _ = during.subtract(&before);
    Ok(BystanderReport {
        url: args.bystander.clone(),
        before: LatencyReport::new(&before),
        during: LatencyReport::new(&during),
        latency_by_send_time: tally.by_send.seen_from(behind_ns).report(run.started_ns, None),
        missing: tally.counts.missing,
        lost: tally.counts.lost > 0,
    })
}

impl StormReport {
    fn new(
        args: &StormArgs,
        run: &Run,
        tally: &Tally,
        times: Option<Times>,
        bystander: Option<BystanderReport>,
        cpu: Option<Duration>,
    ) -> Self {
        let counts = &tally.counts;
        let mut common =
            Common::new("storm", &args.url, args.common.connections, run.facts(&tally.counts), tally, false);
        let unserved = counts.dropped.saturating_sub(counts.returned);
        // Whoever is away then had not all the time there was.
        let cut_short = times.is_none_or(|times| times.cut_short);
        if cut_short {
            common.problems.push("interrupted: the storm was not seen to its end".into());
        }
        let deaf = bystander.as_ref().map_or(0, |bystander| bystander.missing);
        let lost = bystander.as_ref().is_some_and(|bystander| bystander.lost);
        common.expect_none(&[
            (if cut_short { 0 } else { unserved }, "clients did not come back in time"),
            (counts.not_dropped, "drops were due when no connection was open"),
            (deaf, "echoes of the bystander missing"),
            (u64::from(lost), "bystander lost its connection"),
        ]);
        let returns = tally.returns.as_deref();
        let last_ns = returns.map(|returns| returns.last_ns);
        let since = |from: fn(&Times) -> u64| {
            times.as_ref().zip(last_ns).map(|(times, last)| last.saturating_sub(from(times)) as f64 / 1e9)
        };
        let in_seconds = since(|times| times.first_drop).filter(|seconds| *seconds > 0.0);
        Self {
            common,
            rate_per_second: args.rate,
            dropped: counts.dropped,
            not_dropped: counts.not_dropped,
            returned: counts.returned,
            unserved,
            served_again_seconds: since(|times| times.last_drop).filter(|_| unserved == 0),
            returned_per_second: in_seconds.map(|seconds| counts.returned as f64 / seconds),
            refused: counts.refusals.values().sum(),
            subscribed: None,
            subscribed_again: None,
            stray: counts.stray,
            refusals: counts.refusals.iter().map(|(trouble, count)| (trouble.name(), *count)).collect(),
            reconnect_latency: returns.and_then(|returns| LatencyReport::new(&returns.attempt)),
            away: returns.and_then(|returns| LatencyReport::new(&returns.away)),
            away_by_return_time: returns.and_then(|returns| returns.by_return.report(run.started_ns, None)),
            dropped_at_seconds: times
                .as_ref()
                .map(|times| times.first_drop.saturating_sub(run.started_ns) as f64 / 1e9),
            bystander,
            server_cpu_seconds: cpu.map(|cpu| cpu.as_secs_f64()),
        }
    }
}

impl Report for StormReport {
    fn common(&mut self) -> &mut Common {
        &mut self.common
    }

    fn table(&self) -> Table {
        let mut table = Table::default();
        self.common.rows(&mut table);
        let how = match self.rate_per_second {
            Some(rate) => format!("{} at {rate}/s", self.dropped),
            None => format!("{} at once", self.dropped),
        };
        table.row("dropped", how);
        table.row("  came back", format!("{}, {} did not", self.returned, self.unserved));
        let again = microseconds_text(self.served_again_seconds.map(|seconds| seconds * 1e6));
        table.row(
            "  all served again in",
            format!("{again}, {}", number_text(self.returned_per_second, 0, "/s")),
        );
        table.row("  refused attempts", self.refused);
        for (name, count) in &self.refusals {
            table.row(&format!("    {name}"), count);
        }
        if let Some((before, again)) = self.subscribed.zip(self.subscribed_again) {
            table.row("  subscribed", format!("{again} of {before} again"));
        }
        if self.stray > 0 {
            table.row("  owed to nobody", self.stray);
        }
        table.latency("reconnect latency", self.reconnect_latency.as_ref());
        table.latency("away, waits included", self.away.as_ref());
        match &self.bystander {
            Some(bystander) => {
                table.latency("bystander's echo before", bystander.before.as_ref());
                table.latency("bystander's echo during", bystander.during.as_ref());
            }
            None => table.row("bystander's echo", "n/a"),
        }
        table.row("server processor time", number_text(self.server_cpu_seconds, 3, " s"));
        self.common.closing_rows(&mut table);
        table
    }
}
