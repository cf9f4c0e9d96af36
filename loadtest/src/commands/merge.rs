//! `merge`: the results of several machines that loaded one server together, as one result.
//!
//! Counts add up; latencies are merged as histograms, so that percentiles are those of all values and no average of
//! percentiles. What has no meaning for several runs together becomes null and is named.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::args::MergeArgs;
use crate::failure::Failure;
use crate::report::{self, LatencyReport, Table, number_text};
use crate::tally::new_histogram;
use crate::{histogram_columns, json_text, result_file};

/// Commands whose runs several machines can make together.
const COMMANDS: [&str; 3] = ["idle", "fanout", "echo"];

/// What the merged result says about clocks.
const CLOCKS: &str = "Latencies need no common clock: each was measured by the clock of one machine, which planned \
    the message and received it. Rates and the series add what happened in the same second, so the machines' wall \
    clocks have to agree within a second, as with NTP, and the runs have to have begun together.";

/// What becomes of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    /// Must be equal.
    Same,
    /// Equal, or the different texts with commas between.
    Texts,
    Sum,
    Highest,
    Lowest,
    /// Objects of counts.
    Counts,
    /// Lists, one behind the other.
    Lists,
    /// True if any is.
    Any,
    /// True if all that are known are.
    All,
    /// Made of other fields afterwards.
    Made,
    /// An object whose fields have rules.
    Fields,
    /// A latency.
    Latency,
    /// Nothing that can be said of all together.
    Nothing,
}

/// The rule of each field, by its name.
const RULES: [(&str, Rule); 60] = [
    ("format", Rule::Same),
    ("command", Rule::Same),
    ("publish", Rule::Same),
    ("burst", Rule::Same),
    ("size_bytes", Rule::Same),
    ("generator_version", Rule::Texts),
    ("url", Rule::Texts),
    ("publish_url", Rule::Texts),
    ("topic", Rule::Texts),
    ("descriptor_tables", Rule::Texts),
    ("wanted", Rule::Sum),
    ("opened", Rule::Sum),
    ("failed", Rule::Sum),
    ("lost", Rule::Sum),
    ("source_addresses", Rule::Sum),
    ("threads", Rule::Sum),
    ("late_sends", Rule::Sum),
    ("cpu_seconds", Rule::Sum),
    ("rate_per_second", Rule::Sum),
    ("subscribed", Rule::Sum),
    ("planned", Rule::Sum),
    ("published", Rule::Sum),
    ("published_unknown", Rule::Sum),
    ("sent", Rule::Sum),
    ("unsent", Rule::Sum),
    ("returned", Rule::Sum),
    ("deliveries_expected", Rule::Sum),
    ("deliveries", Rule::Sum),
    ("missing", Rule::Sum),
    ("duplicate", Rule::Sum),
    ("reordered", Rule::Sum),
    ("unclassified", Rule::Sum),
    ("corrupt", Rule::Sum),
    ("foreign", Rule::Sum),
    ("deflated", Rule::Sum),
    ("deflated_bytes", Rule::Sum),
    ("deliveries_per_second", Rule::Sum),
    ("fan_outs_complete", Rule::Sum),
    ("lost_during_hold", Rule::Sum),
    ("open_seconds", Rule::Highest),
    ("hold_seconds", Rule::Highest),
    ("late_max_microseconds", Rule::Highest),
    ("fan_out_max_microseconds", Rule::Highest),
    ("busy_share", Rule::Highest),
    ("backlog_share", Rule::Highest),
    ("late_share", Rule::Highest),
    ("turn_max_microseconds", Rule::Highest),
    ("started_unix_seconds", Rule::Lowest),
    ("bottleneck", Rule::Lists),
    ("advice", Rule::Lists),
    ("interrupted", Rule::Any),
    ("resumes", Rule::Any),
    ("verified", Rule::All),
    ("server_name", Rule::Texts),
    ("trust", Rule::Texts),
    ("agreed", Rule::Texts),
    ("handshakes", Rule::Sum),
    ("resumed", Rule::Sum),
    ("errors", Rule::Counts),
    ("publish_errors", Rule::Counts),
];
const MADE: [&str; 5] = ["ok", "problems", "opened_per_second", "series", "settings"];
const OBJECTS: [&str; 2] = ["connections", "generator"];

/// Runs the command.
pub(crate) fn run(args: &MergeArgs) -> Result<bool, Failure> {
    let mut runs = Vec::new();
    for path in &args.files {
        let report = result_file::load(path)?;
        let command = result_file::command(&report).unwrap_or_default();
        if !COMMANDS.contains(&command) || report.get("repeats").is_some() {
            return Err(Failure::Usage(format!(
                "{}: only single runs of {} can be merged",
                path.display(),
                COMMANDS.join(", ")
            )));
        }
        runs.push((path.display().to_string(), report));
    }
    let merged = merge(&runs).map_err(Failure::Usage)?;
    let table = table(&merged);
    report::publish_value(&merged, &json_text::to_text(&merged)?, &table, &args.outputs)?;
    Ok(merged.get("ok").and_then(Value::as_bool).unwrap_or(false))
}

/// All runs as one result.
fn merge(runs: &[(String, Value)]) -> Result<Value, String> {
    let reports: Vec<&Value> = runs.iter().map(|(_, report)| report).collect();
    let mut nothing = BTreeSet::new();
    let Value::Object(mut merged) = merge_fields(&reports, "", &mut nothing)? else {
        return Err("no result to merge".into());
    };
    let mut problems = Vec::new();
    for (file, report) in runs {
        let of_run = report.get("problems").and_then(Value::as_array).into_iter().flatten();
        problems.extend(of_run.filter_map(Value::as_str).map(|problem| format!("{file}: {problem}")));
    }
    problems.extend(did_not_overlap(runs));
    if let Some(connections) = merged.get_mut("connections").and_then(Value::as_object_mut) {
        let number = |name: &str| connections.get(name).and_then(Value::as_f64);
        let rate = number("opened").zip(number("open_seconds")).filter(|(_, seconds)| *seconds > 0.0);
        connections.insert("opened_per_second".into(), json!(rate.map(|(opened, seconds)| opened / seconds)));
    }
    merged.insert("ok".into(), json!(problems.is_empty()));
    merged.insert("problems".into(), json!(problems));
    merged.insert("series".into(), series(&reports));
    merged.insert("settings".into(), settings(&reports));
    let of_run = |(file, report): &(String, Value)| {
        json!({
            "file": file,
            "url": report.get("url"),
            "started_unix_seconds": report.get("started_unix_seconds"),
            "seconds": seconds(report),
            "opened": report.pointer("/connections/opened"),
        })
    };
    merged.insert("merged".into(), runs.iter().map(of_run).collect());
    merged.insert("merged_clocks".into(), json!(CLOCKS));
    merged.insert("merged_without".into(), json!(nothing));
    Ok(Value::Object(merged))
}

fn merge_fields(objects: &[&Value], path: &str, nothing: &mut BTreeSet<String>) -> Result<Value, String> {
    let names: BTreeSet<&String> =
        objects.iter().filter_map(|object| object.as_object()).flat_map(Map::keys).collect();
    let mut merged = Map::new();
    for name in names {
        let values: Vec<&Value> =
            objects.iter().map(|object| object.get(name).unwrap_or(&Value::Null)).collect();
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        let value = match rule(name, &values) {
            Rule::Made => continue,
            Rule::Same => same(&values).ok_or_else(|| format!("{path} differs between the results"))?,
            Rule::Texts => texts(&values),
            Rule::Sum => folded(&values, |sum, value| sum + value),
            Rule::Highest => folded(&values, f64::max),
            Rule::Lowest => folded(&values, f64::min),
            Rule::Counts => counts(&values),
            Rule::Lists => values.iter().filter_map(|value| value.as_array()).flatten().cloned().collect(),
            Rule::Any => json!(values.iter().any(|value| value.as_bool() == Some(true))),
            Rule::All => json!(values.iter().filter_map(|value| value.as_bool()).all(|value| value)),
            Rule::Fields => merge_fields(&values, &path, nothing)?,
            Rule::Latency => latency(&values),
            Rule::Nothing => {
                if values.iter().any(|value| !value.is_null()) {
                    nothing.insert(path);
                }
                Value::Null
            }
        };
        merged.insert(name.clone(), value);
    }
    Ok(Value::Object(merged))
}

fn rule(name: &str, values: &[&Value]) -> Rule {
    if MADE.contains(&name) {
        Rule::Made
    } else if OBJECTS.contains(&name) || (name == "tls" && values.iter().any(|value| value.is_object())) {
        Rule::Fields
    } else if values.iter().any(|value| value.get("histogram").is_some()) {
        Rule::Latency
    } else {
        RULES.iter().find(|(field, _)| *field == name).map_or(Rule::Nothing, |(_, rule)| *rule)
    }
}

fn same(values: &[&Value]) -> Option<Value> {
    let first = values.first()?;
    values.iter().all(|value| value == first).then(|| (*first).clone())
}

fn texts(values: &[&Value]) -> Value {
    let texts: BTreeSet<&str> = values.iter().filter_map(|value| value.as_str()).collect();
    if texts.is_empty() { Value::Null } else { json!(texts.into_iter().collect::<Vec<_>>().join(", ")) }
}

/// Null if a run does not know its value: a sum without it would be too small.
fn folded(values: &[&Value], with: impl Fn(f64, f64) -> f64) -> Value {
    let whole = values.iter().all(|value| value.is_u64());
    let numbers: Option<Vec<f64>> = values.iter().map(|value| value.as_f64()).collect();
    match numbers.and_then(|numbers| numbers.into_iter().reduce(with)) {
        Some(number) if whole => json!(number as u64),
        number => json!(number),
    }
}

fn counts(values: &[&Value]) -> Value {
    let mut sums = Map::new();
    for (name, count) in values.iter().filter_map(|value| value.as_object()).flatten() {
        let so_far = sums.get(name).and_then(Value::as_u64).unwrap_or(0);
        sums.insert(name.clone(), json!(so_far + count.as_u64().unwrap_or(0)));
    }
    Value::Object(sums)
}

fn latency(values: &[&Value]) -> Value {
    let mut sum = new_histogram();
    for histogram in values.iter().filter_map(|value| histogram_columns::read(value)) {
        // All are made with the same bounds, the only way in which adding can fail.
        let _ = sum.add(&histogram);
    }
    json!(LatencyReport::new(&sum))
}

/// A problem if there was no moment at which all were running: then nothing was "together".
fn did_not_overlap(runs: &[(String, Value)]) -> Option<String> {
    let begin = |report: &Value| report.get("started_unix_seconds").and_then(Value::as_f64);
    let times: Option<Vec<(f64, f64)>> =
        runs.iter().map(|(_, report)| Some((begin(report)?, begin(report)? + seconds(report)?))).collect();
    let times = times?;
    let last_begin = times.iter().map(|(begin, _)| *begin).fold(f64::NEG_INFINITY, f64::max);
    let first_end = times.iter().map(|(_, end)| *end).fold(f64::INFINITY, f64::min);
    (last_begin > first_end).then(|| {
        let apart = last_begin - first_end;
        format!("the runs were not at the same time: one ended {apart:.1} s before another began")
    })
}

fn seconds(report: &Value) -> Option<f64> {
    report.pointer("/series/at_seconds")?.as_array()?.last()?.as_f64()
}

/// What all had in a second together. Percentiles of single seconds can't be merged, so only the highest latency
/// stays of them.
fn series(reports: &[&Value]) -> Value {
    let starts: Option<Vec<f64>> =
        reports.iter().map(|report| report.get("started_unix_seconds").and_then(Value::as_f64)).collect();
    let Some(starts) = starts else { return Value::Null };
    let first = starts.iter().copied().fold(f64::INFINITY, f64::min);
    let ends =
        starts.iter().zip(reports).map(|(start, report)| start - first + seconds(report).unwrap_or(0.0));
    // A day of seconds at most: what is longer would be of runs that were not together.
    let end = ends.fold(0.0, f64::max).ceil().min(86_400.0) as u32;
    let columns: BTreeSet<&String> = reports
        .iter()
        .filter_map(|report| report.get("series")?.as_object())
        .flat_map(Map::keys)
        .filter(|name| *name != "at_seconds")
        .collect();
    let mut merged = Map::new();
    merged.insert("at_seconds".into(), (0..=end).map(|second| json!(f64::from(second))).collect());
    for column in columns {
        let highest = column == "latency_max_microseconds";
        let percentile = !highest && column.ends_with("_microseconds");
        let at = |second: u32| {
            let at = f64::from(second);
            let values: Vec<Option<f64>> = starts
                .iter()
                .zip(reports)
                .map(|(start, report)| value_at(report, column, at - (start - first), highest))
                .collect();
            if percentile || column.starts_with("server_") {
                Value::Null
            } else if highest {
                json!(values.into_iter().flatten().reduce(f64::max))
            } else {
                // Null if a run does not know its part.
                values.into_iter().sum::<Option<f64>>().map_or(Value::Null, |sum| match sum.fract() == 0.0 {
                    true if !column.ends_with("_seconds") => json!(sum as u64),
                    _ => json!(sum),
                })
            }
        };
        merged.insert(column.clone(), (0..=end).map(at).collect());
    }
    Value::Object(merged)
}

/// A column's value at a time: the last one up to then (0 before the run began), or with `within` the highest of the
/// second before.
fn value_at(report: &Value, column: &str, at: f64, within: bool) -> Option<f64> {
    let numbers = |name: &str| report.get("series")?.get(name)?.as_array();
    let (times, values) = (numbers("at_seconds")?, numbers(column)?);
    let samples = times.iter().filter_map(Value::as_f64).zip(values.iter().map(Value::as_f64));
    let before = samples.take_while(|(time, _)| *time <= at);
    if within {
        return before.filter(|(time, _)| *time > at - 1.0).filter_map(|(_, value)| value).reduce(f64::max);
    }
    before.last().map_or(Some(0.0), |(_, value)| value)
}

fn settings(reports: &[&Value]) -> Value {
    let all: Vec<&Map<String, Value>> =
        reports.iter().filter_map(|report| report.get("settings")?.as_object()).collect();
    let names: BTreeSet<&String> = all.iter().flat_map(|settings| settings.keys()).collect();
    let mut merged = Map::new();
    for name in names {
        let texts: BTreeSet<&str> = all
            .iter()
            .map(|settings| settings.get(name).and_then(Value::as_str).unwrap_or("not given"))
            .collect();
        merged.insert(name.clone(), json!(texts.into_iter().collect::<Vec<_>>().join(" | ")));
    }
    Value::Object(merged)
}

fn table(merged: &Value) -> Table {
    let mut table = Table::default();
    let number = |path: &str| merged.pointer(path).and_then(Value::as_f64);
    let text = |path: &str| merged.pointer(path).and_then(Value::as_str).unwrap_or("n/a").to_owned();
    table.row("merged", format!("{}, {}", text("/command"), text("/url")));
    for run in merged.get("merged").and_then(Value::as_array).into_iter().flatten() {
        let opened = number_text(run.get("opened").and_then(Value::as_f64), 0, " connections");
        table
            .row("  from", format!("{}, {opened}", run.get("file").and_then(Value::as_str).unwrap_or("n/a")));
    }
    let count = |path: &str| number_text(number(path), 0, "");
    table.row("connections", format!("{} of {}", count("/connections/opened"), count("/connections/wanted")));
    table
        .row("  failed / lost", format!("{} / {}", count("/connections/failed"), count("/connections/lost")));
    for (name, count) in
        merged.pointer("/connections/errors").and_then(Value::as_object).into_iter().flatten()
    {
        table.row(&format!("  {name}"), count);
    }
    table.latency_of("connect latency", merged.pointer("/connections/connect_latency"));
    for (name, path) in [
        ("messages published", "/published"),
        ("messages sent", "/sent"),
        ("messages returned", "/returned"),
        ("deliveries", "/deliveries"),
        ("  missing", "/missing"),
        ("  duplicate", "/duplicate"),
        ("  out of order", "/reordered"),
        ("  corrupt", "/corrupt"),
        ("  per second", "/deliveries_per_second"),
    ] {
        if merged.pointer(path).is_some() {
            table.row(name, count(path));
        }
    }
    if merged.get("latency").is_some() {
        table.latency_of("latency", merged.get("latency"));
    }
    let without: Vec<&str> = merged
        .get("merged_without")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    if !without.is_empty() {
        table.row("not merged (n/a)", without.join(", "));
    }
    table.row("clocks", CLOCKS);
    let problems: Vec<&str> = merged
        .get("problems")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    table.row("verdict", if problems.is_empty() { "ok".to_owned() } else { problems.join("; ") });
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::histogram_columns::HistogramColumns;

    fn one(started: f64, opened: u64, latency_ms: u64) -> (String, Value) {
        let mut histogram = new_histogram();
        histogram.saturating_record_n(latency_ms * 1_000_000, opened);
        assert!(serde_json::to_value(HistogramColumns::new(&histogram)).is_ok());
        let report = json!({
            "format": 1, "command": "echo", "ok": true, "problems": [], "size_bytes": 64, "url": "ws://a/",
            "started_unix_seconds": started, "missing": 0, "server_cpu_nanoseconds_per_message": 5.0,
            "connections": { "wanted": opened, "opened": opened, "open_seconds": 2.0, "errors": { "lost_eof": 1 } },
            "generator": { "late_sends": null },
            "latency": LatencyReport::new(&histogram),
            "series": { "at_seconds": [0.0, 1.0, 4.0], "open": [0, opened, opened],
                        "latency_max_microseconds": [null, 7.0, null], "latency_p50_microseconds": [null, 3.0, null] },
            "settings": { "rate": started.to_string() },
        });
        (format!("{started}.json"), report)
    }

    #[test]
    fn histograms_are_merged_and_counts_added() {
        let merged = merge(&[one(100.0, 90, 1), one(101.0, 10, 50)]).unwrap();
        assert_eq!((&merged["connections"]["opened"], &merged["ok"]), (&json!(100), &json!(true)));
        assert_eq!(merged["connections"]["opened_per_second"], 50.0);
        assert_eq!(merged["connections"]["errors"]["lost_eof"], 2);
        let p = |name: &str| merged["latency"][name].as_f64().unwrap() / 1e3;
        assert!((p("p50_microseconds") - 1.0).abs() < 0.01, "no mean of two medians");
        assert!((p("p99_microseconds") - 50.0).abs() < 0.1);
        assert_eq!(merged["latency"]["count"], 100);
        assert_eq!(merged["generator"]["late_sends"], Value::Null, "unknown stays unknown");
        assert_eq!(merged["merged_without"], json!(["server_cpu_nanoseconds_per_message"]));
        assert_eq!(merged["started_unix_seconds"], 100.0);
        assert_eq!(merged["series"]["at_seconds"].as_array().unwrap().len(), 6);
        assert_eq!(merged["series"]["open"], json!([0, 90, 100, 100, 100, 100]));
        assert_eq!(merged["series"]["latency_max_microseconds"], json!([null, 7.0, 7.0, null, null, null]));
        assert_eq!(merged["series"]["latency_p50_microseconds"][1], Value::Null);
        assert!(merged["merged_clocks"].as_str().unwrap().contains("wall clocks"));
        let text = table(&merged).text();
        assert!(text.contains("100 of 100") && text.trim_end().ends_with("ok"), "{text}");
    }

    #[test]
    fn runs_that_were_not_together_are_told() {
        let merged = merge(&[one(100.0, 1, 1), one(200.0, 1, 1)]).unwrap();
        assert_eq!(merged["ok"], false);
        assert!(merged["problems"][0].as_str().unwrap().contains("not at the same time"), "{merged:#}");
    }

    #[test]
    fn different_tests_are_not_merged() {
        let (name, mut other) = one(100.0, 1, 1);
        other["size_bytes"] = json!(128);
        assert!(merge(&[one(100.0, 1, 1), (name, other)]).unwrap_err().contains("size_bytes"));
    }
}
