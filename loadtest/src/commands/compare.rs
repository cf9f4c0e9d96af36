//! `compare`: the ratio of every figure of two results, and whether it is more than the noise.
//!
//! The noise is what repeats of the same run differ by. With one run on a side nobody knows it, and the table says
//! so instead of calling a difference real.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;
use serde_json::Value;

use crate::base::failure::Failure;
use crate::cli::args::CompareArgs;
use crate::cli::settings::command_line;
use crate::result::html;
use crate::result::json_text;
use crate::result::regression::median;
use crate::result::report;
use crate::result::result_file;

mod words;

/// Chance at most that two equal sides are called different.
const ERROR_MAX: f64 = 0.05;
/// Fields that are no figures.
const NO_FIGURES: [&str; 15] = [
    "findings",
    "series",
    "latency_by_send_time",
    "away_by_return_time",
    "dropped_at_seconds",
    "histogram",
    "settings",
    "format",
    "pid",
    "started_unix_seconds",
    "merged",
    "steps_connections",
    "steps_readings",
    "steps_settled",
    "steps_bytes",
];
/// Figures that are set and not measured: where they differ, ratios mean little.
const SET: [&str; 11] = [
    "wanted",
    "rate_per_second",
    "burst",
    "size_bytes",
    "planned",
    "threads",
    "descriptors_per_table",
    "processors_allowed",
    "source_addresses",
    "hold_seconds",
    "connections",
];
/// Settings that may differ between two results of the same test.
const FREE: [&str; 12] = [
    "url",
    "publish-url",
    "pid",
    "json",
    "html",
    "hdr",
    "junit",
    "csv",
    "server",
    "source",
    "repeat",
    "label",
];

/// The result file of `compare`.
#[derive(Debug, Serialize)]
struct Comparison {
    format: u32,
    schema: String,
    generator_version: &'static str,
    generator_commit: Option<&'static str>,
    command: &'static str,
    command_line: String,
    /// The command whose results are compared.
    compared: String,
    /// Runs of the first result.
    a_runs: usize,
    /// Runs of the second.
    b_runs: usize,
    /// Whether there are repeats enough to tell a difference from the noise.
    noise_known: bool,
    /// What was set differently, one sentence each.
    differing_settings: Vec<String>,
    /// What is known of the differences, one sentence each; what is within the noise has none.
    words: Vec<String>,
    /// Every figure that both have.
    figures: Vec<Figure>,
}

/// One figure on both sides.
#[derive(Clone, Debug, Serialize)]
struct Figure {
    /// Its path in the result file.
    name: String,
    /// Median of the first result's runs.
    a: f64,
    /// Median of the second's.
    b: f64,
    /// `b` by `a`; null if `a` is 0.
    ratio: Option<f64>,
    /// Highest less lowest of the first result's runs by their median; null of one run.
    a_spread: Option<f64>,
    /// The same of the second's.
    b_spread: Option<f64>,
    /// What is known of the difference.
    verdict: Verdict,
}

/// What is known of a difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    /// All runs on both sides gave the same value.
    Same,
    /// The sides' runs overlap.
    WithinNoise,
    /// Every run of the second is lower than every one of the first, and that is unlikely by chance.
    Lower,
    /// The same, higher.
    Higher,
    /// Too few runs to know the noise.
    CannotTell,
}

/// Runs the command.
pub(crate) fn run(args: &CompareArgs) -> Result<bool, Failure> {
    let (a, b) = (side(&args.a)?, side(&args.b)?);
    let names: Vec<Option<&str>> = a.iter().chain(&b).map(result_file::command).collect();
    let compared = match names.first() {
        Some(Some(first)) if names.iter().all(|name| *name == Some(*first)) => (*first).to_owned(),
        _ => return Err(Failure::Usage("results of different commands can't be compared".into())),
    };
    let comparison = compare(&a, &b, compared);
    let text = json_text::to_text(&comparison)?;
    let value = serde_json::to_value(&comparison).map_err(|error| error.to_string())?;
    report::all_of([
        print(&comparison.text()),
        args.json.as_deref().map_or(Ok(()), |path| report::write("--json", path, &text)),
        args.html.as_deref().map_or(Ok(()), |path| report::write("--html", path, &html::page(&value, &[]))),
    ])?;
    Ok(true)
}

/// The runs of one side: of one result file, or of several with commas between.
fn side(list: &str) -> Result<Vec<Value>, Failure> {
    let mut all = Vec::new();
    for path in list.split(',').filter(|path| !path.is_empty()) {
        all.extend(result_file::runs(result_file::load(&PathBuf::from(path))?));
    }
    if all.is_empty() { Err(Failure::Usage(format!("{list:?}: no result file"))) } else { Ok(all) }
}

fn compare(a: &[Value], b: &[Value], compared: String) -> Comparison {
    let (mut a_figures, mut b_figures) = (gathered(a), gathered(b));
    let noise_known = tells(a.len(), b.len());
    let mut figures = Vec::new();
    let mut differing_settings = settings_that_differ(a, b);
    for (name, a_values) in &mut a_figures {
        let Some(b_values) = b_figures.get_mut(name) else { continue };
        let (Some(a_median), Some(b_median)) = (median(a_values), median(b_values)) else { continue };
        let leaf = name.rsplit('.').next().unwrap_or(name);
        if SET.contains(&leaf) {
            if a_median != b_median {
                differing_settings.push(format!("{name}: {} and {}", short(a_median), short(b_median)));
            }
            continue;
        }
        figures.push(Figure {
            name: name.clone(),
            a: a_median,
            b: b_median,
            ratio: (a_median != 0.0).then(|| b_median / a_median),
            a_spread: spread(a_values),
            b_spread: spread(b_values),
            verdict: verdict(a_values, b_values, noise_known),
        });
    }
    let words = words::words(&figures, noise_known);
    Comparison {
        words,
        format: report::FORMAT,
        schema: report::schema_id("compare"),
        generator_version: env!("CARGO_PKG_VERSION"),
        generator_commit: report::commit(),
        command: "compare",
        command_line: command_line(),
        compared,
        a_runs: a.len(),
        b_runs: b.len(),
        noise_known,
        differing_settings,
        figures,
    }
}

/// Every number of the runs by its path; only those that every run has.
fn gathered(runs: &[Value]) -> BTreeMap<String, Vec<f64>> {
    let mut all: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for run in runs {
        collect(run, "", &mut all);
    }
    all.retain(|_, values| values.len() == runs.len());
    all
}

fn collect(value: &Value, path: &str, all: &mut BTreeMap<String, Vec<f64>>) {
    let under = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    match value {
        Value::Number(number) => {
            if let Some(number) = number.as_f64() {
                all.entry(path.to_owned()).or_default().push(number);
            }
        }
        Value::Object(fields) => {
            for (name, field) in fields.iter().filter(|(name, _)| !NO_FIGURES.contains(&name.as_str())) {
                collect(field, &under(name), all);
            }
        }
        // The kinds of the memory study are a list of objects with names.
        Value::Array(items) => {
            for item in items {
                let text = |field: &str| item.get(field).and_then(Value::as_str);
                if let (Some(end), Some(name)) = (text("end"), text("name")) {
                    collect(item, &under(&format!("{end}_{name}")), all);
                }
            }
        }
        _ => {}
    }
}

fn settings_that_differ(a: &[Value], b: &[Value]) -> Vec<String> {
    let settings = |runs: &[Value]| runs.first().and_then(|run| run.get("settings")?.as_object().cloned());
    let (Some(a), Some(b)) = (settings(a), settings(b)) else { return Vec::new() };
    let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or("not given").to_owned();
    let mut names: Vec<&String> = a.keys().chain(b.keys()).collect();
    names.sort();
    names.dedup();
    let differing =
        names.into_iter().filter(|name| !FREE.contains(&name.as_str()) && a.get(*name) != b.get(*name));
    differing.map(|name| format!("--{name}: {} and {}", text(a.get(name)), text(b.get(name)))).collect()
}

/// Whether so many runs can tell anything: if both sides were the same, all of one would lie on one side of all of
/// the other in 2 of C(a + b, a) orders.
fn tells(a: usize, b: usize) -> bool {
    let orders: f64 = (1..=a).map(|i| (b + i) as f64 / i as f64).product();
    a > 1 && b > 1 && 2.0 / orders <= ERROR_MAX
}

fn verdict(a: &[f64], b: &[f64], noise_known: bool) -> Verdict {
    let least = |values: &[f64]| values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = |values: &[f64]| values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if least(a) == most(a) && least(b) == most(b) && least(a) == least(b) {
        Verdict::Same
    } else if !noise_known {
        Verdict::CannotTell
    } else if most(b) < least(a) {
        Verdict::Lower
    } else if least(b) > most(a) {
        Verdict::Higher
    } else {
        Verdict::WithinNoise
    }
}

/// `values` are sorted.
fn spread(values: &[f64]) -> Option<f64> {
    let (least, most) = (values.first()?, values.last()?);
    let middle = median(&mut values.to_vec())?;
    (values.len() > 1 && middle != 0.0).then(|| (most - least) / middle.abs())
}

impl Comparison {
    fn text(&self) -> String {
        let mut rows =
            vec![["figure", "A", "B", "B/A", "spread A", "spread B", "verdict"].map(str::to_owned)];
        for figure in &self.figures {
            rows.push([
                figure.name.clone(),
                short(figure.a),
                short(figure.b),
                report::number_text(figure.ratio, 3, ""),
                report::number_text(figure.a_spread.map(|spread| spread * 100.0), 1, " %"),
                report::number_text(figure.b_spread.map(|spread| spread * 100.0), 1, " %"),
                figure.verdict.text().to_owned(),
            ]);
        }
        let mut widths = [0; 7];
        for row in &rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let mut text =
            format!("{}: A of {} run(s), B of {} run(s)\n", self.compared, self.a_runs, self.b_runs);
        for differing in &self.differing_settings {
            text += &format!("warning: set differently, so ratios mean little: {differing}\n");
        }
        for sentence in &self.words {
            text += &format!("  {sentence}\n");
        }
        for row in &rows {
            let mut line = String::new();
            for (index, (cell, width)) in row.iter().zip(widths).enumerate() {
                line += &if (1..=5).contains(&index) {
                    format!("{cell:>width$}  ")
                } else {
                    format!("{cell:width$}  ")
                };
            }
            text += line.trim_end();
            text.push('\n');
        }
        text += match self.noise_known {
            true => {
                "lower and higher: all runs of B lie on that side of all runs of A; by chance in at most 1 of 20 cases\n"
            }
            false => {
                "The noise is unknown: a difference can be told from it with 4 runs on each side or more (--repeat 5, \
                 or files with commas between)\n"
            }
        };
        text
    }
}

impl Verdict {
    fn text(self) -> &'static str {
        match self {
            Self::Same => "same",
            Self::WithinNoise => "within the noise",
            Self::Lower => "lower",
            Self::Higher => "higher",
            Self::CannotTell => "can't tell",
        }
    }
}

/// Whole numbers whole, others with four significant digits.
fn short(value: f64) -> String {
    if value.fract() == 0.0 && value.abs() < 1e15 {
        return format!("{value:.0}");
    }
    let digits = (3.0 - value.abs().log10().floor()).clamp(0.0, 9.0) as usize;
    format!("{value:.digits$}")
}

fn print(text: &str) -> Result<(), String> {
    use std::io::Write;
    std::io::stdout().write_all(text.as_bytes()).map_err(|error| format!("standard output: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn runs(p99: &[f64]) -> Vec<Value> {
        let run = |p99: &f64| {
            json!({ "format": 1, "command": "echo", "missing": 0, "size_bytes": 64,
                    "latency": { "p99_microseconds": p99, "histogram": { "counts": [1] } },
                    "series": { "open": [1] } })
        };
        p99.iter().map(run).collect()
    }

    fn verdict_of(a: &[f64], b: &[f64]) -> Verdict {
        let comparison = compare(&runs(a), &runs(b), "echo".into());
        let names: Vec<&str> = comparison.figures.iter().map(|figure| figure.name.as_str()).collect();
        assert_eq!(names, ["latency.p99_microseconds", "missing"], "set and series are no figures");
        assert_eq!(comparison.figures[1].verdict, Verdict::Same);
        comparison.figures[0].verdict
    }

    #[test]
    fn a_difference_counts_only_beyond_the_noise() {
        assert_eq!(verdict_of(&[10.0, 11.0, 12.0, 13.0], &[20.0, 21.0, 22.0, 23.0]), Verdict::Higher);
        assert_eq!(verdict_of(&[10.0, 11.0, 12.0, 13.0], &[1.0, 2.0, 3.0, 4.0]), Verdict::Lower);
        assert_eq!(verdict_of(&[10.0, 11.0, 12.0, 13.0], &[12.5, 21.0, 22.0, 23.0]), Verdict::WithinNoise);
        assert_eq!(verdict_of(&[10.0], &[20.0]), Verdict::CannotTell);
        assert_eq!(
            verdict_of(&[10.0, 11.0, 12.0], &[20.0, 21.0, 22.0]),
            Verdict::CannotTell,
            "1 of 10 by chance"
        );
        assert_eq!(verdict_of(&[10.0], &[10.0]), Verdict::Same);
    }

    #[test]
    fn the_table_says_what_it_does_not_know() {
        let comparison = compare(&runs(&[10.0]), &runs(&[15.0]), "echo".into());
        assert_eq!(comparison.figures[0].ratio, Some(1.5));
        assert_eq!(comparison.figures[1].ratio, None, "nothing by nothing");
        let text = comparison.text();
        assert!(
            text.contains("The noise is unknown") && text.contains("1.500") && text.contains("n/a"),
            "{text}"
        );
    }

    #[test]
    fn different_settings_are_named() {
        let with = |size: u32, rate: &str| {
            vec![json!({ "size_bytes": size, "settings": { "rate": rate, "pid": rate }, "missing": 1 })]
        };
        let comparison = compare(&with(64, "5"), &with(128, "6"), "echo".into());
        assert_eq!(comparison.differing_settings, ["--rate: 5 and 6", "size_bytes: 64 and 128"]);
    }
}
