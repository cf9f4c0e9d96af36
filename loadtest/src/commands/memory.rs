//! `memory`: opens connections in steps, lets memory settle at each, and tells what one connection costs by kind
//! of memory, with the interval that figure is sure to. For any server.

use std::net::{IpAddr, UdpSocket};
use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use crate::base::failure::Failure;
use crate::base::interrupt;
use crate::cli::args::MemoryArgs;
use crate::engine::connection::Role;
use crate::engine::message::{Filler, MESSAGE_BYTES_MIN, Shape};
use crate::engine::run::Run;
use crate::engine::sizes::Sizes;
use crate::engine::worker::Published;
use crate::observe::memory_kinds::{self, End, Figure};
use crate::observe::server_process::ServerProcess;
use crate::result::regression::{self, Line};
use crate::result::report::{self, Common, Finished, Report, Table};

use super::{clients_target, watched};

/// Time between two readings while a step is held.
const READ_EVERY: Duration = Duration::from_millis(250);
/// Readings before the first connection.
const READINGS_BEFORE: usize = 4;
/// A step counts as settled when memory has moved by no more than this for [`SETTLED_FOR`].
const SETTLED_BYTES: u64 = 64 * 1024;
const SETTLED_FOR: Duration = Duration::from_millis(750);
const SETTLE_AT_MOST: Duration = Duration::from_secs(10);

/// The result file of `memory`.
#[derive(Debug, Serialize)]
struct MemoryStudy {
    #[serde(flatten)]
    common: Common,
    /// The server's process; null without `--pid`. Without `--server-metrics` too, all its figures are.
    pid: Option<u32>,
    /// Whether the kernel's figures are those of both ends.
    server_on_this_machine: bool,
    /// How long memory was read at each step.
    hold_seconds: f64,
    /// Connections open at each step.
    steps_connections: Vec<u64>,
    /// Whether memory had stopped moving before it was read.
    steps_settled: Vec<bool>,
    /// Readings at each step.
    steps_readings: Vec<usize>,
    /// What one connection costs, by kind of memory.
    kinds: Vec<KindReport>,
}

/// One kind of memory at one end.
#[derive(Debug, Serialize)]
struct KindReport {
    /// The kind.
    name: &'static str,
    /// The end it belongs to.
    end: End,
    /// What it is.
    what: &'static str,
    /// Median before the first connection; null if it can't be read.
    before_bytes: Option<f64>,
    /// Median at each step.
    steps_bytes: Vec<Option<f64>>,
    /// Slope of the line through the steps.
    bytes_per_connection: Option<f64>,
    /// Half its 95 % confidence interval; null with fewer than three steps.
    bytes_per_connection_plus_minus: Option<f64>,
    /// Where the line meets zero connections.
    intercept_bytes: Option<f64>,
    /// Half its 95 % confidence interval.
    intercept_plus_minus_bytes: Option<f64>,
}

/// One reading of all figures.
struct Reading {
    at_seconds: f64,
    step: usize,
    connections: u64,
    bytes: Vec<Option<u64>>,
}

/// Readings so far, and how to take one.
struct Study {
    figures: Vec<Figure>,
    server: Option<ServerProcess>,
    readings: Vec<Reading>,
    settled: Vec<bool>,
}

/// Runs the command.
pub(crate) fn run(args: &MemoryArgs) -> Result<Finished, Failure> {
    let target = clients_target(&args.url, &args.common)?;
    let server = watched(&args.common)?;
    let steps = steps(args)?;
    let last = steps.last().copied().unwrap_or(0);
    let server_here =
        server.is_some_and(|server| server.pid().is_some()) || is_own_address(target.address.ip());
    let mut study = Study {
        figures: memory_kinds::figures(server_here),
        server,
        readings: Vec::new(),
        settled: Vec::new(),
    };
    let shape = Shape { sizes: Sizes::One(MESSAGE_BYTES_MIN), filler: Filler::Letters, binary: false };
    let mut run = Run::start(&args.common.options(), target, Role::Idle, shape)?;
    let begin_ns = run.plan.clock.now_ns();
    for _ in 0..READINGS_BEFORE {
        run.wait(READ_EVERY, |_| false)?;
        study.read(&run, begin_ns, 0);
    }
    for (index, connections) in steps.iter().enumerate() {
        run.open(*connections as usize)?;
        if interrupt::requested() {
            break;
        }
        study.settle(&mut run)?;
        let until_ns = run.plan.clock.now_ns() + args.common.duration.as_nanos() as u64;
        loop {
            study.read(&run, begin_ns, index + 1);
            if run.plan.clock.now_ns() >= until_ns || interrupt::requested() {
                break;
            }
            run.wait(READ_EVERY.min(args.common.duration), |_| false)?;
        }
    }
    let tally = run.stop(Published::Count(0))?;
    let mut common = Common::new("memory", &args.url, last, run.facts(&tally.counts), &tally, false);
    if common.interrupted {
        let steps = steps.len();
        common.problems.push(format!("interrupted: the readings of {steps} steps are not all there"));
    }
    let csv = args.csv.as_deref().map_or(Ok(()), |path| study.write_csv(path));
    match report::finish(study.report(common, server_here, args.common.duration), &args.common.judging()) {
        Ok(finished) => csv.map(|()| finished).map_err(Failure::Failed),
        Err(Failure::Failed(why)) => {
            Err(Failure::Failed(report::all_of([csv, Err(why)]).err().unwrap_or_default()))
        }
        usage => usage,
    }
}

impl Study {
    fn read(&mut self, run: &Run, begin_ns: u64, step: usize) {
        let counts = run.counts();
        self.readings.push(Reading {
            at_seconds: run.plan.clock.now_ns().saturating_sub(begin_ns) as f64 / 1e9,
            step,
            connections: counts.opened.saturating_sub(counts.lost),
            bytes: memory_kinds::read(&self.figures, self.server),
        });
    }

    /// Waits until the memory of both processes has stopped moving, and notes whether it has.
    fn settle(&mut self, run: &mut Run) -> Result<(), String> {
        // Where the server's user memory is not known, its resident memory is.
        let server = self.server;
        let other = server.is_some_and(|server| server.user_bytes().is_none());
        let name = |end| if end == End::Server && other { "resident" } else { "user" };
        let user = |figure: &Figure| figure.kind.name == name(figure.end);
        let watched: Vec<Figure> = self.figures.iter().copied().filter(user).collect();
        // What a server tells of itself may be anything.
        let sum = || memory_kinds::read(&watched, server).into_iter().flatten().fold(0, u64::saturating_add);
        // A figure that is read once a second has to be the same in two readings.
        let settled_for = SETTLED_FOR + server.map_or(Duration::ZERO, |server| server.read_every() * 2);
        let clock = run.plan.clock;
        let (mut base, mut base_ns) = (sum(), clock.now_ns());
        let settled = run.wait(SETTLE_AT_MOST, |_| {
            let (now, now_ns) = (sum(), clock.now_ns());
            if now.abs_diff(base) > SETTLED_BYTES {
                (base, base_ns) = (now, now_ns);
            }
            now_ns - base_ns >= settled_for.as_nanos() as u64
        })?;
        self.settled.push(settled);
        Ok(())
    }

    /// The median of a figure at a step; null unless every reading has it.
    fn median(&self, step: usize, figure: usize) -> Option<f64> {
        let readings = self.readings.iter().filter(|reading| reading.step == step);
        let bytes: Option<Vec<f64>> =
            readings.map(|reading| Some((*reading.bytes.get(figure)?)? as f64)).collect();
        regression::median(&mut bytes?)
    }

    fn report(&self, common: Common, server_here: bool, hold: Duration) -> MemoryStudy {
        let steps = 1..=self.settled.len();
        let at = |step: usize| self.readings.iter().filter(move |reading| reading.step == step);
        let connections: Vec<u64> = steps
            .clone()
            .map(|step| at(step).map(|reading| reading.connections).min().unwrap_or(0))
            .collect();
        let kinds = self.figures.iter().enumerate().map(|(index, figure)| {
            let bytes: Vec<Option<f64>> = steps.clone().map(|step| self.median(step, index)).collect();
            let points: Option<Vec<(f64, f64)>> = connections
                .iter()
                .zip(&bytes)
                .map(|(connections, bytes)| bytes.map(|bytes| (*connections as f64, bytes)))
                .collect();
            let line = points.and_then(|points| regression::fit(&points));
            KindReport::new(*figure, self.median(0, index), bytes, line)
        });
        MemoryStudy {
            common,
            pid: self.server.and_then(ServerProcess::pid),
            server_on_this_machine: server_here,
            hold_seconds: hold.as_secs_f64(),
            kinds: kinds.collect(),
            steps_connections: connections.clone(),
            steps_settled: self.settled.clone(),
            steps_readings: steps.clone().map(|step| at(step).count()).collect(),
        }
    }

    /// A line for each reading; what could not be read is `n/a`.
    fn write_csv(&self, path: &Path) -> Result<(), String> {
        let names =
            self.figures.iter().map(|figure| format!("{}_{}_bytes", figure.end.name(), figure.kind.name));
        let head = ["at_seconds", "step", "connections"].map(str::to_owned).into_iter().chain(names);
        let mut text = head.collect::<Vec<_>>().join(",") + "\n";
        for reading in &self.readings {
            text += &format!("{:.3},{},{}", reading.at_seconds, reading.step, reading.connections);
            for bytes in &reading.bytes {
                text.push(',');
                text += &report::count_text(*bytes);
            }
            text.push('\n');
        }
        report::write("--csv", path, &text)
    }
}

impl KindReport {
    fn new(figure: Figure, before: Option<f64>, steps_bytes: Vec<Option<f64>>, line: Option<Line>) -> Self {
        Self {
            name: figure.kind.name,
            end: figure.end,
            what: figure.kind.what,
            before_bytes: before,
            steps_bytes,
            bytes_per_connection: line.map(|line| line.slope),
            bytes_per_connection_plus_minus: line.and_then(|line| line.slope_plus_minus),
            intercept_bytes: line.map(|line| line.intercept),
            intercept_plus_minus_bytes: line.and_then(|line| line.intercept_plus_minus),
        }
    }

    /// "57.3 ± 0.4, 8.10 MiB at 0".
    fn text(&self) -> String {
        let (Some(slope), Some(intercept)) = (self.bytes_per_connection, self.intercept_bytes) else {
            return "n/a".into();
        };
        let sure = self.bytes_per_connection_plus_minus.map_or_else(
            || "(± n/a: needs three steps)".to_owned(),
            |plus_minus| format!("± {plus_minus:.1}"),
        );
        // Other programs move the machine's memory, too.
        let lost = self.bytes_per_connection_plus_minus.is_some_and(|sure| sure > slope.abs());
        if slope < 0.0 && !lost {
            let fell = -slope;
            return format!("n/a: fell by {fell:.1} {sure} for each, which is something else's doing");
        }
        let lost = if lost { ", lost in the noise" } else { "" };
        format!("{slope:.1} {sure}{lost}, {:.2} MiB at 0", intercept / f64::from(1 << 20))
    }
}

impl Report for MemoryStudy {
    fn common(&mut self) -> &mut Common {
        &mut self.common
    }

    fn table(&self) -> Table {
        let mut table = Table::default();
        self.common.rows(&mut table);
        let steps: Vec<String> = self.steps_connections.iter().map(ToString::to_string).collect();
        table.row("steps", steps.join(", "));
        if self.steps_settled.contains(&false) {
            table.row("  not settled", "memory was still moving after 10 s at a step; read the CSV");
        }
        let heads = [
            (End::Server, "server's process"),
            (End::Generator, "generator's process"),
            (End::Both, "kernel, both ends"),
        ];
        for (end, head) in heads {
            let of_end: Vec<&KindReport> = self.kinds.iter().filter(|kind| kind.end == end).collect();
            if of_end.is_empty() {
                continue;
            }
            if end == End::Server && self.pid.is_none() && self.common.server_metrics.is_none() {
                table.row(head, "n/a without --pid or --server-metrics");
                continue;
            }
            table.row(head, "bytes per connection ± 95 %");
            let elsewhere = end == End::Server && self.pid.is_none();
            // A server's own metrics do not tell most kinds.
            for kind in of_end.iter().filter(|kind| !elsewhere || kind.before_bytes.is_some()) {
                table.row(&format!("  {}", kind.name), format!("{}  ({})", kind.text(), kind.what));
            }
        }
        self.common.closing_rows(&mut table);
        table
    }
}

/// The same flags with `--connections` at the last step, for whoever plans the run.
pub(crate) fn with_steps(mut args: MemoryArgs) -> Result<MemoryArgs, Failure> {
    args.common.connections = steps(&args)?.last().copied().unwrap_or(0);
    Ok(args)
}

/// The steps asked for, or five even ones up to `--connections`.
fn steps(args: &MemoryArgs) -> Result<Vec<u32>, Failure> {
    let steps = match &args.steps {
        Some(steps) => steps.clone(),
        None => (1..=5).map(|fifth| (u64::from(args.common.connections) * fifth / 5) as u32).collect(),
    };
    let rising = steps.iter().zip(steps.iter().skip(1)).all(|(one, next)| one < next);
    if steps.len() < 2 || !rising || steps.first() == Some(&0) {
        return Err(Failure::Usage(format!("--steps {steps:?}: must be two or more rising numbers above 0")));
    }
    Ok(steps)
}

/// Whether the address is one of this machine's: only on those can a socket be bound.
fn is_own_address(address: IpAddr) -> bool {
    UdpSocket::bind((address, 0)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_addresses_are_known() {
        assert!(is_own_address("127.0.0.1".parse().unwrap()));
        // RFC 5737: for documentation, nobody's.
        assert!(!is_own_address("192.0.2.1".parse().unwrap()));
    }

    #[test]
    fn a_figure_missing_at_a_step_has_no_slope() {
        let mut study = Study {
            figures: memory_kinds::figures(true),
            server: None,
            readings: Vec::new(),
            settled: vec![true; 3],
        };
        let count = study.figures.len();
        for step in 0..4_u64 {
            let mut bytes = vec![Some(1_000 + 640 * step); count];
            if let Some(first) = bytes.first_mut().filter(|_| step == 2) {
                *first = None;
            }
            let reading = Reading { at_seconds: 0.0, step: step as usize, connections: step * 10, bytes };
            study.readings.push(reading);
        }
        assert_eq!(study.median(2, 0), None);
        assert_eq!(study.median(2, 1), Some(2_280.0));
        let figure = study.figures[1];
        let points: Vec<(f64, f64)> =
            (1..4).map(|step| (step as f64 * 10.0, study.median(step, 1).unwrap())).collect();
        let kind = KindReport::new(figure, None, Vec::new(), regression::fit(&points));
        assert_eq!(kind.bytes_per_connection, Some(64.0));
        assert!(kind.text().contains("64.0 ± 0.0,"), "{}", kind.text());
        assert_eq!(KindReport::new(figure, None, Vec::new(), None).text(), "n/a");
        let noisy = regression::fit(&[(1.0, 5.0), (2.0, 1.0), (3.0, 6.0)]);
        let text = KindReport::new(figure, None, Vec::new(), noisy).text();
        assert!(text.contains("lost in the noise"), "{text}");
        let falling = regression::fit(&[(1.0, 9_000.0), (2.0, 6_000.0), (3.0, 3_010.0)]);
        let text = KindReport::new(figure, None, Vec::new(), falling).text();
        assert!(text.starts_with("n/a: fell by 2995.0 ± "), "{text}");
    }
}
