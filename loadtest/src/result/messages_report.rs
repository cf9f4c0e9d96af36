//! What `echo` and the commands that publish report alike: the plan of the messages and the account of those that
//! arrived. Pure.

use serde::Serialize;

use crate::base::schedule::Schedule;
use crate::result::course::CourseReport;
use crate::result::report::{LatencyReport, Table};
use crate::result::tally::Tally;

/// The load that was asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Offered {
    /// Messages per second.
    pub(crate) rate: f64,
    /// Messages at each planned time.
    pub(crate) burst: u32,
    /// Bytes of a message.
    pub(crate) size: usize,
}

/// The part of a result file that is about messages.
#[derive(Debug, Serialize)]
pub(crate) struct MessagesReport {
    /// Planned messages per second; in echo of all connections together.
    rate_per_second: f64,
    /// Messages at each planned time.
    burst: u32,
    /// Bytes of a message, without what `--message` puts around it.
    size_bytes: usize,
    /// Messages the plan had.
    pub(crate) planned: u64,
    /// Messages that did not arrive: nothing came any more for ten seconds.
    missing: u64,
    /// Messages that arrived again.
    duplicate: u64,
    /// Messages that arrived after a later one.
    reordered: u64,
    /// Late or duplicate, too many to tell.
    unclassified: u64,
    /// Messages of this run that arrived changed or cut, or in echo were never sent.
    corrupt: u64,
    /// Payloads without a message of this run (in echo: of this connection).
    foreign: u64,
    /// Of the messages that arrived, those whose payload was what was sent, to the last byte.
    unchanged: u64,
    /// Those that the server had put other things around: their marker was read and the rest not compared.
    wrapped: u64,
    /// Messages that stood in one payload more than once, each time beyond the first.
    repeated: u64,
    /// From the planned send time to the arrival.
    latency: Option<LatencyReport>,
    /// The same by the planned send time; null if nothing was sent.
    latency_by_send_time: Option<CourseReport>,
}

impl MessagesReport {
    /// The account of a run whose first connect began at `begin_ns`.
    pub(crate) fn new(load: Offered, schedule: &Schedule, tally: &Tally, begin_ns: u64) -> Self {
        let counts = &tally.counts;
        Self {
            rate_per_second: load.rate,
            burst: load.burst,
            size_bytes: load.size,
            planned: schedule.count(),
            missing: counts.missing,
            duplicate: counts.duplicate,
            reordered: counts.reordered,
            unclassified: counts.unclassified,
            corrupt: counts.corrupt,
            foreign: counts.foreign,
            unchanged: (counts.unique + counts.duplicate + counts.unclassified)
                .saturating_sub(counts.wrapped),
            wrapped: counts.wrapped,
            repeated: counts.repeated,
            latency: LatencyReport::new(&tally.latency),
            latency_by_send_time: tally.by_send.report(begin_ns, Some(schedule)),
        }
    }

    /// Counts that should be 0; `what` arrives.
    pub(crate) fn problems(&self, what: &str) -> Vec<(u64, String)> {
        let both = if self.unchanged > 0 { self.wrapped } else { 0 };
        [
            (self.missing, "missing"),
            (self.duplicate, "duplicate"),
            (self.reordered, "out of order"),
            (self.unclassified, "late or duplicate"),
            (self.corrupt, "corrupt"),
            (both, "with something around them, where others came as they were sent"),
        ]
        .map(|(count, how)| (count, format!("{what} {how}")))
        .to_vec()
    }

    /// The row of the plan.
    pub(crate) fn plan_row(&self, table: &mut Table) {
        let plan =
            format!("{} bytes, {}/s in bursts of {}", self.size_bytes, self.rate_per_second, self.burst);
        table.row("messages", plan);
    }

    /// The rows of what arrived.
    pub(crate) fn rows(&self, table: &mut Table) {
        table.row("  missing", self.missing);
        table.row("  duplicate", self.duplicate);
        table.row("  out of order", self.reordered);
        if self.unclassified > 0 {
            table.row("  late or duplicate", self.unclassified);
        }
        table.row("  corrupt / foreign", format!("{} / {}", self.corrupt, self.foreign));
        let payloads = match (self.unchanged, self.wrapped) {
            (0, 0) => "n/a".to_owned(),
            (_, 0) => "as they were sent".to_owned(),
            (0, _) => "wrapped by the server; only markers were checked".to_owned(),
            (unchanged, wrapped) => format!("{unchanged} as they were sent, {wrapped} wrapped"),
        };
        table.row("  payloads", payloads);
        if self.repeated > 0 {
            table.row("  repeated in a payload", self.repeated);
        }
    }

    /// The row of the latency under its name.
    pub(crate) fn latency_row(&self, name: &str, table: &mut Table) {
        table.latency(name, self.latency.as_ref());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn it_says_how_payloads_came_and_what_is_wrong() {
        let load = Offered { rate: 10.0, burst: 1, size: 64 };
        let schedule = Schedule::new(0, 10.0, 1, Duration::from_secs(1));
        let report = |unique, wrapped, corrupt| {
            let mut tally = Tally::new();
            (tally.counts.unique, tally.counts.wrapped, tally.counts.corrupt) = (unique, wrapped, corrupt);
            let report = MessagesReport::new(load, &schedule, &tally, 0);
            let mut table = Table::default();
            report.rows(&mut table);
            let wrong: Vec<String> = report
                .problems("messages")
                .into_iter()
                .filter_map(|(count, what)| (count > 0).then(|| format!("{count} {what}")))
                .collect();
            (table.text(), wrong.join("; "))
        };
        for (counts, row, wrong) in [
            ((0, 0, 0), "n/a", ""),
            ((9, 0, 0), "as they were sent", ""),
            ((9, 9, 0), "only markers were checked", ""),
            ((9, 0, 1), "as they were sent", "1 messages corrupt"),
            (
                (9, 2, 0),
                "7 as they were sent, 2 wrapped",
                "2 messages with something around them, where others came as they were sent",
            ),
        ] {
            let (text, said) = report(counts.0, counts.1, counts.2);
            assert!(text.contains(row), "{text}");
            assert_eq!(said, wrong);
        }
    }
}
