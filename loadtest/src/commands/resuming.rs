//! Clients of `fanout` that come back and go on where they were: who is dropped when, and what became of all of them.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::base::failure::Failure;
use crate::base::schedule::Schedule;
use crate::cli::args::FanoutArgs;
use crate::engine::conversation::Client;
use crate::engine::run::Run;
use crate::result::report::{LatencyReport, Table};
use crate::result::tally::Tally;

/// What became of clients that come back.
#[derive(Debug, Serialize)]
pub(super) struct Resumed {
    /// Connections that the generator dropped.
    dropped: u64,
    /// Connections that ended otherwise.
    left: u64,
    /// These by how they ended.
    endings: BTreeMap<String, u64>,
    /// Of both, those that were open again in time.
    returned: u64,
    /// Those that were not.
    pub(super) unserved: u64,
    /// Attempts to come back that failed; each was followed by another.
    refused: u64,
    /// The same by kind.
    refusals: BTreeMap<String, u64>,
    /// From the start of the attempt that succeeded to the open connection.
    reconnect_latency: Option<LatencyReport>,
    /// From the end of a client's connection to its return, waits included.
    away: Option<LatencyReport>,
}

/// Drops connections as they are due.
#[derive(Clone, Copy, Debug)]
pub(super) struct Drops {
    rate: f64,
    from_ns: u64,
    span_ns: u64,
    so_far: usize,
}

/// Refuses what can't resume.
pub(super) fn check(args: &FanoutArgs) -> Result<(), Failure> {
    if args.resuming.resume && args.common.listen.client.unwrap_or_default() == Client::Ws {
        let what =
            "--resume: clients of a WebSocket have no position to go on at: use an event stream or polls";
        return Err(Failure::Usage(what.into()));
    }
    Ok(())
}

impl Drops {
    /// None unless they were asked for.
    pub(super) fn new(args: &FanoutArgs, schedule: &Schedule) -> Self {
        let rate = args.resuming.drop_rate.unwrap_or(0.0);
        Self { rate, from_ns: schedule.planned_ns(0), span_ns: schedule.planned_span_ns(), so_far: 0 }
    }

    /// Has dropped what is due by now.
    pub(super) fn on_look(&mut self, run: &Run) {
        let passed_ns = run.plan.clock.now_ns().saturating_sub(self.from_ns).min(self.span_ns);
        let due = (self.rate * passed_ns as f64 / 1e9) as usize;
        if due > self.so_far {
            self.so_far = due;
            run.drop_up_to(due);
        }
    }
}

/// Waits until everybody is back, as long as somebody comes.
pub(super) fn await_returns(args: &FanoutArgs, run: &mut Run) -> Result<(), Failure> {
    if args.resuming.resume {
        run.wait_while_moving(args.common.kit.wait_late, |run| {
            let counts = run.counts();
            let gone = counts.dropped + counts.left;
            let ordered = run.drops_ordered();
            (counts.dropped + counts.not_dropped >= ordered && counts.returned >= gone, counts.returned)
        })?;
    }
    Ok(())
}

impl Resumed {
    /// `None` unless clients were to come back.
    pub(super) fn new(args: &FanoutArgs, tally: &Tally) -> Option<Self> {
        if !args.resuming.resume {
            return None;
        }
        let counts = &tally.counts;
        let returns = tally.returns.as_deref();
        Some(Self {
            dropped: counts.dropped,
            left: counts.left,
            endings: counts.endings.iter().map(|(ending, count)| (ending.name(), *count)).collect(),
            returned: counts.returned,
            unserved: (counts.dropped + counts.left).saturating_sub(counts.returned),
            refused: counts.refusals.values().sum(),
            refusals: counts.refusals.iter().map(|(trouble, count)| (trouble.name(), *count)).collect(),
            reconnect_latency: returns.and_then(|returns| LatencyReport::new(&returns.attempt)),
            away: returns.and_then(|returns| LatencyReport::new(&returns.away)),
        })
    }

    /// Its rows of the table.
    pub(super) fn rows(&self, table: &mut Table) {
        table.row("dropped / ended", format!("{} / {}", self.dropped, self.left));
        for (name, count) in &self.endings {
            table.row(&format!("  {name}"), count);
        }
        table.row("  resumed", format!("{}, {} did not", self.returned, self.unserved));
        table.row("  refused attempts", self.refused);
        for (name, count) in &self.refusals {
            table.row(&format!("    {name}"), count);
        }
        table.latency("  reconnect latency", self.reconnect_latency.as_ref());
        table.latency("  away, waits included", self.away.as_ref());
    }
}
