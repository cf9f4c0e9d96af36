//! `capacity`: raises the rate or the connections of another command, step by step, until its result is not
//! ok, and says which step was the highest that held.

use serde::Serialize;

use crate::base::failure::Failure;
use crate::base::interrupt;
use crate::cli::args::{CapacityArgs, Outputs, Stepped};
use crate::cli::settings::{command_line, settings};
use crate::cli::steps::Variable;
use crate::commands::drive;
use crate::result::report::{self, FORMAT, Files, Finished, Judging, Table};

/// The result file of `capacity`.
#[derive(Debug, Serialize)]
struct CapacityReport {
    format: u32,
    schema: String,
    generator_version: &'static str,
    generator_commit: Option<&'static str>,
    command: &'static str,
    /// What `--label` calls the run; null without it.
    label: Option<String>,
    /// Whether any step held.
    ok: bool,
    /// Why not, one sentence each.
    problems: Vec<String>,
    /// Whether the run was ended early.
    interrupted: bool,
    /// The command that was run at each step.
    of: &'static str,
    /// What was raised: `rate` or `connections`.
    variable: &'static str,
    /// The highest value that held; null if none did.
    highest_held: Option<f64>,
    /// The value that did not; null if all held.
    broke_at: Option<f64>,
    /// Whether the generator was the bottleneck at `broke_at`: the limit may be its own.
    limited_by_generator: bool,
    /// All steps that were run.
    steps: Vec<StepReport>,
}

/// One step.
#[derive(Debug, Serialize)]
struct StepReport {
    value: f64,
    ok: bool,
    /// What broke, one sentence each.
    problems: Vec<String>,
    /// The result of the command; empty if it could not even be run.
    result: serde_json::Value,
}

/// Runs the command.
pub(crate) fn run(args: &CapacityArgs) -> Result<bool, Failure> {
    let variable = args.step.variable;
    let mut args = args.clone();
    args.command.read_preset().map_err(Failure::Usage)?;
    args.command.read_client().map_err(Failure::Usage)?;
    let args = &args;
    drive::check(&args.command)?;
    if args.command.common().kit.plan {
        return Err(Failure::Usage(format!(
            "capacity makes no plan; `{} --plan` makes one for its --connections",
            args.command.name()
        )));
    }
    let outputs = outputs(args)?;
    outputs.check(None)?;
    let label = one("--label", args.label.clone(), args.command.common().kit.label.clone())?;
    let mut steps = Vec::new();
    for value in &args.step.values {
        let mut command = args.command.clone();
        set(&mut command, variable, *value)?;
        command.common_mut().kit.quiet = true;
        // The steps' results are in the file of `capacity`.
        command.common_mut().outputs = Outputs::default();
        let step = match drive::run(&command) {
            Ok(finished) => StepReport::new(*value, finished),
            // The steps before it have held, and that is a result.
            Err(Failure::Failed(why)) if !steps.is_empty() => StepReport::failed(*value, why),
            Err(failure) => return Err(failure),
        };
        report::print_line(&format!("{:12}{}", format!("{} {value}", variable.name()), step.text()));
        let held = step.ok;
        steps.push(step);
        if !held || interrupt::requested() {
            break;
        }
    }
    let report = CapacityReport { label, ..CapacityReport::new(args.command.name(), variable, steps) };
    let judging =
        Judging { files: outputs, settings: settings(), command_line: command_line(), ..Judging::default() };
    report::publish(&report, &report.table(), &judging)?;
    Ok(report.ok)
}

/// What may be said in front of the inner command or behind it.
fn one<T>(flag: &str, own: Option<T>, inner: Option<T>) -> Result<Option<T>, Failure> {
    match (own, inner) {
        (Some(_), Some(_)) => {
            Err(Failure::Usage(format!("{flag} is given twice: there is one of all steps")))
        }
        (own, inner) => Ok(own.or(inner)),
    }
}

/// The files to write, which may be named behind the inner command as well.
fn outputs(args: &CapacityArgs) -> Result<Files, Failure> {
    let (own, inner) = (args.outputs.files(), args.command.common().outputs.files());
    Ok(Files {
        json: one("--json", own.json, inner.json)?,
        html: one("--html", own.html, inner.html)?,
        hdr: one("--hdr", own.hdr, inner.hdr)?,
        junit: one("--junit", own.junit, inner.junit)?,
    })
}

fn set(command: &mut Stepped, variable: Variable, value: f64) -> Result<(), Failure> {
    let staged = match command {
        Stepped::Fanout(args) => args.load.pace.stages.is_some(),
        Stepped::Slow(args) => args.fanout.load.pace.stages.is_some(),
        Stepped::Echo(args) => args.load.pace.stages.is_some(),
        Stepped::Ping(args) => args.pace.stages.is_some(),
        Stepped::Idle(_) | Stepped::Storm(_) | Stepped::Memory(_) | Stepped::Rolling(_) => false,
    };
    if staged && variable == Variable::Rate {
        return Err(Failure::Usage("--step rate: --stages say the rate: use one of them".into()));
    }
    if let (Variable::Connections, Stepped::Idle(args)) = (variable, &*command)
        && args.connection_stages.is_some()
    {
        let what = "--step connections: --connection-stages say how many there are: use one of them";
        return Err(Failure::Usage(what.into()));
    }
    match (variable, command) {
        (Variable::Connections, command) => command.common_mut().connections = value as u32,
        (Variable::Rate, Stepped::Fanout(args)) => args.rate = value,
        (Variable::Rate, Stepped::Slow(args)) => args.fanout.rate = value,
        (Variable::Rate, Stepped::Echo(args)) => args.rate = value,
        (Variable::Rate, Stepped::Ping(args)) => args.rate = value,
        (Variable::Rate, Stepped::Storm(args)) => args.rate = Some(value),
        (Variable::Rate, Stepped::Rolling(args)) => args.rate = value,
        (Variable::Rate, Stepped::Idle(_)) => {
            return Err(Failure::Usage("--step rate: idle has no rate; use connections".into()));
        }
        (Variable::Rate, Stepped::Memory(_)) => {
            return Err(Failure::Usage("--step rate: memory has no rate".into()));
        }
    }
    Ok(())
}

impl StepReport {
    fn new(value: f64, finished: Finished) -> Self {
        let Finished { ok, value: result } = finished;
        let problems = drive::problems(&result);
        Self { value, ok, problems, result }
    }

    /// One that could not be run.
    fn failed(value: f64, why: String) -> Self {
        Self { value, ok: false, problems: vec![why], result: serde_json::json!({}) }
    }

    fn text(&self) -> String {
        let figures = drive::key_figures(&self.result);
        match self.ok {
            _ if self.is_cut_short() => format!("ended early  {figures}"),
            true => format!("held   {figures}"),
            false => format!("broke  {figures}: {}", self.problems.join("; ")),
        }
    }

    /// Whether it was ended before its time: then it has neither held nor broken.
    fn is_cut_short(&self) -> bool {
        self.result.get("interrupted") == Some(&serde_json::Value::Bool(true))
    }

    fn is_limited_by_generator(&self) -> bool {
        let reasons = self.result.pointer("/generator/bottleneck").and_then(serde_json::Value::as_array);
        reasons.is_some_and(|reasons| !reasons.is_empty())
    }
}

impl CapacityReport {
    fn new(of: &'static str, variable: Variable, steps: Vec<StepReport>) -> Self {
        let highest_held =
            steps.iter().rev().find(|step| step.ok && !step.is_cut_short()).map(|step| step.value);
        let broke = steps.last().filter(|step| !step.ok && !step.is_cut_short());
        let limited_by_generator = broke.is_some_and(StepReport::is_limited_by_generator);
        let problems = match (highest_held, broke) {
            (None, Some(step)) => vec![format!("not even the first step held: {}", step.problems.join("; "))],
            (None, None) => vec!["no step was run to its end".to_owned()],
            _ => Vec::new(),
        };
        Self {
            format: FORMAT,
            schema: report::schema_id("capacity"),
            generator_version: env!("CARGO_PKG_VERSION"),
            generator_commit: report::commit(),
            command: "capacity",
            label: None,
            ok: highest_held.is_some(),
            problems,
            interrupted: interrupt::requested(),
            of,
            variable: variable.name(),
            highest_held,
            broke_at: broke.map(|step| step.value),
            limited_by_generator,
            steps,
        }
    }

    fn table(&self) -> Table {
        let mut table = Table::default();
        if let Some(label) = &self.label {
            table.row("label", label);
        }
        let value = |value: Option<f64>| value.map_or_else(|| "none".to_owned(), |value| value.to_string());
        table.row("raised", format!("{} of {}", self.variable, self.of));
        table.row("highest step that held", value(self.highest_held));
        let broke = if self.limited_by_generator { "generator's own limit at" } else { "first that broke" };
        table.row(broke, value(self.broke_at));
        if let Some(step) = self.steps.last().filter(|step| !step.ok && !step.is_cut_short()) {
            for problem in &step.problems {
                table.row("  what broke", problem);
            }
        }
        if self.limited_by_generator {
            table.row(
                "note",
                "the generator was the bottleneck there: the server's limit is not known, and may be higher",
            );
        }
        table.row("verdict", if self.ok { "ok".to_owned() } else { self.problems.join("; ") });
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn step(value: f64, ok: bool, bottleneck: &[&str]) -> StepReport {
        let problems = if ok { vec![] } else { vec!["p99>50ms: it is 61 ms"] };
        let value_of = json!({ "ok": ok, "problems": problems, "generator": { "bottleneck": bottleneck } });
        StepReport::new(value, Finished { ok, value: value_of })
    }

    #[test]
    fn the_highest_step_that_held_is_the_last_before_the_break() {
        let steps = vec![step(100.0, true, &[]), step(200.0, true, &["x"]), step(400.0, false, &[])];
        let report = CapacityReport::new("fanout", Variable::Rate, steps);
        assert!(report.ok && !report.limited_by_generator);
        assert_eq!((report.highest_held, report.broke_at), (Some(200.0), Some(400.0)));
        let text = report.table().text();
        assert!(text.contains("p99>50ms: it is 61 ms") && !text.contains("note"), "{text}");
    }

    #[test]
    fn a_step_that_was_ended_early_has_not_held_and_one_that_can_not_be_run_breaks() {
        let cut_short = |ok| {
            let mut step = step(200.0, ok, &[]);
            step.result["interrupted"] = json!(true);
            step
        };
        for ok in [true, false] {
            let report =
                CapacityReport::new("echo", Variable::Rate, vec![step(100.0, true, &[]), cut_short(ok)]);
            assert_eq!((report.highest_held, report.broke_at, report.ok), (Some(100.0), None, true));
            let report = CapacityReport::new("echo", Variable::Rate, vec![cut_short(ok)]);
            assert_eq!((report.highest_held, report.broke_at, report.ok), (None, None, false));
            assert!(report.problems[0].contains("to its end"), "{:?}", report.problems);
        }
        let failed = StepReport::failed(200.0, "refused".into());
        let report = CapacityReport::new("echo", Variable::Rate, vec![step(100.0, true, &[]), failed]);
        assert_eq!((report.highest_held, report.broke_at), (Some(100.0), Some(200.0)));
        assert!(report.table().text().contains("refused"), "{}", report.table().text());
    }

    #[test]
    fn none_that_held_is_not_ok_and_the_generators_limit_is_told() {
        let report = CapacityReport::new("echo", Variable::Rate, vec![step(100.0, false, &["late"])]);
        assert!(!report.ok && report.limited_by_generator && report.highest_held.is_none());
        assert!(report.table().text().contains("generator was the bottleneck"));
        let all = CapacityReport::new("echo", Variable::Rate, vec![step(100.0, true, &[])]);
        assert!(all.ok && all.broke_at.is_none());
    }
}
