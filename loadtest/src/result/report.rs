//! What every command reports alike: the JSON parts, the verdict, and how a result is finished.
//!
//! Field names of the JSON are stable and carry their unit; what is unknown is `null` there and `n/a` in
//! the table, never 0. Pure but for [`finish`] and [`publish`], which print and write by `files`.

mod files;
mod latency;
mod table;
mod tls;

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use serde_json::Value;

use crate::base::failure::Failure;
use crate::base::secrets;
use crate::result::findings::{self, Findings};
use crate::result::histogram_columns::Interval;
use crate::result::json_text;
use crate::result::metrics_report::MetricsReport;
use crate::result::samples::Columns;
use crate::result::strain::{StrainReport, Waits};
use crate::result::tally::{Counts, Tally};
use crate::result::threshold::Threshold;

pub(crate) use files::{Files, all_of, print_line, publish_value, write};
pub(crate) use latency::{LatencyReport, carried};
pub(crate) use table::{Table, count_text, microseconds_text, number_text};
pub(crate) use tls::{TlsFacts, TlsReport};

/// Version of the result file's layout; it changes when a field changes its meaning or goes.
pub(crate) const FORMAT: u32 = 1;

/// The `$id` of the schema of a command's result: a name, and no place where anything can be had (RFC 2606, `.invalid`).
/// The file of that name is in `schema/`.
pub(crate) fn schema_id(command: &str) -> String {
    format!("https://fantail.invalid/loadtest/{FORMAT}/{command}.json")
}

/// The commit that this generator was built of; `None` if the build does not know.
pub(crate) fn commit() -> Option<&'static str> {
    Some(fantail::BUILT_OF_COMMIT).filter(|commit| *commit != "unknown")
}

/// The part of a result file that all commands share.
#[derive(Debug, Serialize)]
pub(crate) struct Common {
    /// See [`FORMAT`].
    pub(crate) format: u32,
    /// The `$id` of the schema that describes this result; see [`schema_id`].
    pub(crate) schema: String,
    /// Version of the generator.
    pub(crate) generator_version: &'static str,
    /// The commit it was built of; null if the build does not know.
    pub(crate) generator_commit: Option<&'static str>,
    /// The command.
    pub(crate) command: &'static str,
    /// Whether nothing in `problems` is listed.
    pub(crate) ok: bool,
    /// What makes the result not ok, one sentence each.
    pub(crate) problems: Vec<String>,
    /// Whether the run was ended early.
    pub(crate) interrupted: bool,
    /// The URL connected to, with the topic filled in.
    pub(crate) url: String,
    /// The wall clock when the first connect began.
    pub(crate) started_unix_seconds: Option<f64>,
    /// Opening and losing connections.
    pub(crate) connections: ConnectionsReport,
    /// The generator itself.
    pub(crate) generator: GeneratorReport,
    /// How TLS was spoken; null without TLS.
    pub(crate) tls: Option<TlsReport>,
    /// The machine that the generator ran on.
    pub(crate) machine: Machine,
    /// What `--label` calls the run; null without it.
    pub(crate) label: Option<String>,
    /// Where the server's figures are from; null without `--server-metrics`.
    pub(crate) server_metrics: Option<MetricsReport>,
    /// Open files of the server at most; null without `--pid`, or where the kernel does not say.
    pub(crate) server_files: Option<FilesReport>,
    /// What the kernel counted meanwhile.
    pub(crate) kernel: KernelReport,
    /// The run over time.
    pub(crate) series: Columns,
    /// The latencies of messages, about a second each; empty if none came.
    pub(crate) latency_intervals: Vec<Interval>,
}

/// Open files of the server in the fullest of its descriptor tables.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct FilesReport {
    /// The most that a sample saw.
    pub(crate) most: u64,
    /// As many as there may be: its RLIMIT_NOFILE, soft.
    pub(crate) limit: u64,
}

/// What the kernel of this machine counted of TCP during the run, of all programs; null where it does not say.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct KernelReport {
    /// Segments that were sent again.
    pub(crate) retransmitted_segments: Option<u64>,
    /// Connections that found the queue of whoever listens full.
    pub(crate) listen_overflows: Option<u64>,
}

/// The processor time that the generator is allowed; null where no control group limits it.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct QuotaReport {
    /// Processors that its control group allows at once; null if it is not limited.
    pub(crate) processors_allowed: Option<f64>,
    /// How long its control group held its members back during the run because that was used up, on each processor by
    /// itself; null if it is not limited.
    pub(crate) held_back_seconds: Option<f64>,
}

/// What a report has to know of a run beside what it counted.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    /// Worker threads.
    pub(crate) threads: usize,
    /// How they came to their descriptor tables.
    pub(crate) descriptor_tables: String,
    /// Descriptors per table.
    pub(crate) descriptors_per_table: Option<u64>,
    /// Source addresses in use; `None` if the kernel chooses.
    pub(crate) sources: Option<usize>,
    /// From the first connect until all were open or failed, without pauses in between.
    pub(crate) open_ns: u64,
    /// Whether the run was ended early.
    pub(crate) interrupted: bool,
    /// The wall clock when the first connect began.
    pub(crate) started_unix_seconds: Option<f64>,
    /// The run over time.
    pub(crate) series: Columns,
    /// The latencies of messages, second by second.
    pub(crate) intervals: Vec<Interval>,
    /// The machine that the generator ran on.
    pub(crate) machine: Machine,
    /// What to do about what went wrong.
    pub(crate) advice: Vec<String>,
    /// Where the server's figures are from.
    pub(crate) server_metrics: Option<MetricsReport>,
    /// Open files of the server at most.
    pub(crate) server_files: Option<FilesReport>,
    /// What the kernel counted meanwhile.
    pub(crate) kernel: KernelReport,
    /// The processor time that it is allowed.
    pub(crate) quota: QuotaReport,
    /// How TLS was spoken; `None` without TLS.
    pub(crate) tls: Option<TlsFacts>,
}

/// The machine that the generator ran on; what can't be read is null.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Machine {
    /// Release of its kernel.
    pub(crate) kernel: Option<String>,
    /// Model of its processors.
    pub(crate) processor: Option<String>,
    /// Processors that the generator may use.
    pub(crate) processors: Option<u64>,
    /// All its memory.
    pub(crate) memory_bytes: Option<u64>,
    /// RLIMIT_NOFILE, hard.
    pub(crate) files_hard: Option<u64>,
}

/// How a result is judged, and where it goes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Judging {
    /// The result is not ok if one of these is so.
    pub(crate) fail_if: Vec<Threshold>,
    /// What the run is called.
    pub(crate) label: Option<String>,
    /// Whether nothing is printed.
    pub(crate) quiet: bool,
    /// Files to write.
    pub(crate) files: Files,
    /// The flags it was made with.
    pub(crate) settings: BTreeMap<String, String>,
    /// The same as it was typed.
    pub(crate) command_line: String,
}

/// Opening and losing connections.
#[derive(Debug, Serialize)]
pub(crate) struct ConnectionsReport {
    /// Asked for.
    pub(crate) wanted: u64,
    /// Got their 101.
    pub(crate) opened: u64,
    /// Could not be opened.
    pub(crate) failed: u64,
    /// Were open and ended before the run did.
    pub(crate) lost: u64,
    /// From the first connect until all were open or failed.
    pub(crate) open_seconds: f64,
    /// `opened` by `open_seconds`.
    pub(crate) opened_per_second: Option<f64>,
    /// From the start of `connect` to the 101.
    pub(crate) connect_latency: Option<LatencyReport>,
    /// Failures and losses by kind.
    pub(crate) errors: BTreeMap<String, u64>,
    /// Close frames that ended connections which should have stayed, by code and reason.
    pub(crate) closes: BTreeMap<String, u64>,
    /// What to do about errors, where that is not plain from their names.
    pub(crate) advice: Vec<String>,
    /// Source addresses used in turn; null if the kernel chose.
    pub(crate) source_addresses: Option<usize>,
}

/// The generator itself: whether it was able to produce the load it claims.
#[derive(Debug, Serialize)]
pub(crate) struct GeneratorReport {
    /// Worker threads.
    pub(crate) threads: usize,
    /// How they came to their descriptor tables.
    pub(crate) descriptor_tables: String,
    /// RLIMIT_NOFILE in force; null if it can't be read.
    pub(crate) descriptors_per_table: Option<u64>,
    /// Sends that left more than 1 ms after their planned time; null if the command sends nothing.
    pub(crate) late_sends: Option<u64>,
    /// How late the latest send left; null if nothing was sent.
    pub(crate) late_max_microseconds: Option<f64>,
    /// Processor time of the generator, over the whole run.
    pub(crate) cpu_seconds: Option<f64>,
    /// The processor time that it is allowed.
    #[serde(flatten)]
    pub(crate) quota: QuotaReport,
    /// Whether it was the bottleneck.
    #[serde(flatten)]
    pub(crate) strain: StrainReport,
}

/// A result that can be judged and shown.
pub(crate) trait Report: Serialize {
    /// The shared part.
    fn common(&mut self) -> &mut Common;
    /// What is printed.
    fn table(&self) -> Table;
}

/// What a command leaves behind when it has printed its result.
#[derive(Debug)]
pub(crate) struct Finished {
    /// Whether all was well.
    pub(crate) ok: bool,
    /// The result file's content.
    pub(crate) value: serde_json::Value,
}

/// Judges a result by `--fail-if`, prints it and writes the result file.
pub(crate) fn finish(mut report: impl Report, judging: &Judging) -> Result<Finished, Failure> {
    let json = |report: &_| serde_json::to_value(report).map_err(|error| error.to_string());
    let value = json(&report)?;
    let broken = judging.fail_if.iter().filter_map(|threshold| threshold.broken_by(&value));
    let common = report.common();
    common.label.clone_from(&judging.label);
    common.problems.extend(broken);
    let ok = common.judge();
    let whole = WithSettings::new(&report, judging)?;
    let mut table = if judging.quiet { Table::default() } else { report.table() };
    if let Some(findings) = whole.findings.as_ref().filter(|_| !judging.quiet) {
        table.findings(findings);
    }
    let (value, text) = whole.written()?;
    publish_value(&value, &text, &table, &judging.files)?;
    Ok(Finished { ok, value })
}

impl Common {
    /// Collects the shared part; `sends` says whether lateness has a meaning for the command.
    pub(crate) fn new(
        command: &'static str,
        url: &str,
        wanted: u32,
        facts: Facts,
        tally: &Tally,
        sends: bool,
    ) -> Self {
        let counts = &tally.counts;
        let open_seconds = facts.open_ns as f64 / 1e9;
        Self {
            format: FORMAT,
            schema: schema_id(command),
            generator_version: env!("CARGO_PKG_VERSION"),
            generator_commit: commit(),
            command,
            ok: false,
            problems: problems_of_connections(asked_for(wanted, facts.interrupted, counts), counts),
            interrupted: facts.interrupted,
            url: secrets::url(url),
            started_unix_seconds: facts.started_unix_seconds,
            connections: ConnectionsReport {
                wanted: u64::from(wanted),
                opened: counts.opened,
                failed: counts.failed,
                lost: counts.lost,
                open_seconds,
                opened_per_second: (open_seconds > 0.0).then(|| counts.opened as f64 / open_seconds),
                connect_latency: LatencyReport::new(&tally.connect),
                errors: counts.troubles.iter().map(|(trouble, count)| (trouble.name(), *count)).collect(),
                closes: counts
                    .closes
                    .iter()
                    .map(|((code, reason), count)| (format!("{code} {reason}").trim_end().to_owned(), *count))
                    .collect(),
                advice: facts.advice,
                source_addresses: facts.sources,
            },
            tls: facts.tls.map(|tls| TlsReport::new(tls, tally)),
            machine: facts.machine,
            label: None,
            server_metrics: facts.server_metrics,
            server_files: facts.server_files,
            kernel: facts.kernel,
            generator: GeneratorReport {
                threads: facts.threads,
                descriptor_tables: facts.descriptor_tables,
                descriptors_per_table: facts.descriptors_per_table,
                late_sends: sends.then_some(counts.late_sends),
                late_max_microseconds: (sends && counts.sends > 0).then(|| counts.late_max_ns as f64 / 1e3),
                cpu_seconds: fantail::sys::process::cpu_time(None).ok().map(|time| time.as_secs_f64()),
                quota: facts.quota,
                strain: tally.strain.judge(
                    counts.sends,
                    counts.late_own,
                    Waits { messages: counts.waited_sends, ns: counts.waiting_ns, of_ns: counts.sending_ns },
                ),
            },
            series: facts.series,
            latency_intervals: facts.intervals,
        }
    }

    /// Adds a problem for each count that should be 0.
    pub(crate) fn expect_none(&mut self, counts: &[(u64, impl fmt::Display)]) {
        let bad = counts.iter().filter(|(count, _)| *count > 0);
        self.problems.extend(bad.map(|(count, what)| format!("{count} {what}")));
    }

    /// Settles the verdict.
    pub(crate) fn judge(&mut self) -> bool {
        self.ok = self.problems.is_empty();
        self.ok
    }

    /// The shared rows of the table.
    pub(crate) fn rows(&self, table: &mut Table) {
        let connections = &self.connections;
        if let Some(label) = &self.label {
            table.row("label", label);
        }
        table.row("url", &self.url);
        table.row("connections", format!("{} of {}", connections.opened, connections.wanted));
        table.row("  failed / lost", format!("{} / {}", connections.failed, connections.lost));
        for (name, count) in &connections.errors {
            table.row(&format!("  {name}"), count);
        }
        for (close, count) in &connections.closes {
            table.row("  closed with", format!("{close}: {count}"));
        }
        for advice in &connections.advice {
            table.row("  what to do", advice);
        }
        let rate = number_text(connections.opened_per_second, 0, "/s");
        let took = microseconds_text(Some(connections.open_seconds * 1e6));
        table.row("  opened in", format!("{took}, {rate}"));
        table.latency("connect latency", connections.connect_latency.as_ref());
        if let Some(tls) = &self.tls {
            tls.rows(table);
        }
        if let Some(metrics) = &self.server_metrics {
            table.row("server's figures", metrics.text());
        }
    }

    /// The rows about the generator and the verdict, at the end of the table.
    pub(crate) fn closing_rows(&self, table: &mut Table) {
        let generator = &self.generator;
        let (threads, tables) = (generator.threads, &generator.descriptor_tables);
        table.row("generator", format!("{threads} thread(s), descriptor tables {tables}"));
        if let Some(late) = generator.late_sends {
            let latest = microseconds_text(generator.late_max_microseconds);
            table.row("  late sends (> 1 ms)", format!("{late}, latest by {latest}"));
        }
        table.row("  processor time", number_text(generator.cpu_seconds, 2, " s"));
        if let (Some(allowed), Some(held)) =
            (generator.quota.processors_allowed, generator.quota.held_back_seconds)
        {
            table.row("    allowed", format!("{allowed:.2} processors, held back for {held:.2} s"));
        }
        table.row("  was the bottleneck", generator.strain.text());
        if self.interrupted {
            table.row("interrupted", "yes, the figures are of the part that was run");
        }
        table.row("verdict", if self.ok { "ok".to_owned() } else { self.problems.join("; ") });
    }
}

/// Prints the table and writes the files that are wanted.
pub(crate) fn publish(report: &impl Serialize, table: &Table, judging: &Judging) -> Result<(), String> {
    let (value, text) = WithSettings::new(report, judging)?.written()?;
    publish_value(&value, &text, table, &judging.files)
}

/// A result with the flags it was made with and what is found in it.
#[derive(Serialize)]
struct WithSettings<'a, R> {
    #[serde(flatten)]
    report: &'a R,
    #[serde(skip_serializing_if = "Option::is_none")]
    findings: Option<Findings>,
    settings: &'a BTreeMap<String, String>,
    command_line: &'a str,
}

impl<'a, R: Serialize> WithSettings<'a, R> {
    fn new(report: &'a R, judging: &'a Judging) -> Result<Self, String> {
        let value = serde_json::to_value(report).map_err(|error| error.to_string())?;
        // A plan has opened nothing, so there is nothing to be found.
        let ran = value.get("series").is_some() || value.get("steps").is_some();
        let findings = ran.then(|| findings::find(&value));
        Ok(Self { report, findings, settings: &judging.settings, command_line: &judging.command_line })
    }

    /// As a value and as the file's text, in which fields have the order that they are declared in.
    fn written(&self) -> Result<(Value, String), String> {
        let value = serde_json::to_value(self).map_err(|error| error.to_string())?;
        Ok((value, json_text::to_text(self)?))
    }
}

/// A run that ended early is judged by what came of what it began: who was still on the way has not failed.
fn asked_for(wanted: u32, interrupted: bool, counts: &Counts) -> u64 {
    if interrupted { counts.opened + counts.failed } else { u64::from(wanted) }
}

fn problems_of_connections(wanted: u64, counts: &Counts) -> Vec<String> {
    let mut problems = Vec::new();
    if counts.opened < wanted {
        problems.push(format!("{} connections could not be opened", wanted - counts.opened));
    }
    if counts.lost > 0 {
        problems.push(format!("{} connections were lost", counts.lost));
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_few_and_lost_connections_are_problems() {
        let mut counts = Counts { opened: 3, ..Counts::default() };
        assert!(problems_of_connections(3, &counts).is_empty());
        counts.lost = 1;
        assert_eq!(problems_of_connections(4, &counts).len(), 2);
    }
}
