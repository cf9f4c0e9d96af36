//! `merge`: the results of several machines that loaded one server together, as one result.
//!
//! Counts add up; latencies are merged as histograms, so that percentiles are those of all values and no average of
//! percentiles. The result says what each merged figure means. What has no meaning for several runs together becomes
//! null and is named with the reason.

mod rules;
mod series;
mod stepped;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use crate::base::failure::Failure;
use crate::cli::args::MergeArgs;
use crate::cli::settings::command_line;
use crate::result::course::Course;
use crate::result::findings;
use crate::result::histogram_columns;
use crate::result::json_text;
use crate::result::report::{self, LatencyReport, Table, number_text};
use crate::result::result_file;
use crate::result::tally::new_histogram;
use rules::Rule;

/// What the merged result says about clocks.
const CLOCKS: &str = "Latencies need no common clock: each was measured by the clock of one machine, which planned \
    the message and received it. Rates and the series add what happened in the same second, so the machines' wall \
    clocks have to agree within a second, as with NTP, and the runs have to have begun together.";

/// Counts that have a row if a result has them.
const COUNTED: [(&str, &str); 18] = [
    ("messages published", "/published"),
    ("messages sent", "/sent"),
    ("deliveries", "/deliveries"),
    ("dropped", "/dropped"),
    ("returned", "/returned"),
    ("  did not come back", "/unserved"),
    ("  refused attempts", "/refused"),
    ("missing", "/missing"),
    ("duplicate", "/duplicate"),
    ("out of order", "/reordered"),
    ("corrupt", "/corrupt"),
    ("wrapped", "/wrapped"),
    ("deliveries per second", "/deliveries_per_second"),
    ("slow subscribers", "/slow/connections"),
    ("  closed by the server", "/slow/closed"),
    ("  read in time", "/slow/deliveries"),
    ("  read afterwards", "/slow/caught_up"),
    ("  never got", "/slow/missing"),
];

/// Latencies that have a row if a result has them.
const LATENCIES: [(&str, &str); 5] = [
    ("latency", "/latency"),
    ("reconnect latency", "/reconnect_latency"),
    ("away, waits included", "/away"),
    ("bystanders' echo before", "/bystander/before"),
    ("bystanders' echo during", "/bystander/during"),
];

/// Results as one, and what is to be said of that.
#[derive(Debug, Default)]
struct Merged {
    fields: Value,
    /// What makes the whole not ok, beside what did so in a run.
    problems: Vec<String>,
    /// What a figure means, by its path.
    meaning: BTreeMap<String, &'static str>,
    /// Why a figure is null, by its path.
    without: BTreeMap<String, &'static str>,
}

/// Runs the command.
pub(crate) fn run(args: &MergeArgs) -> Result<bool, Failure> {
    let mut runs: Vec<(String, Value)> = Vec::new();
    for path in &args.files {
        let report = result_file::load(path)?;
        // A pattern of a shell and a name beside it, say: it would count twice.
        if let Some((same, _)) = runs.iter().find(|(_, known)| *known == report) {
            let path = path.display();
            return Err(Failure::Usage(format!("{path}: is the same result as {same}")));
        }
        runs.push((path.display().to_string(), report));
    }
    let mut merged = merge(&runs).map_err(Failure::Usage)?;
    findings::add(&mut merged);
    merged["command_line"] = json!(command_line());
    let table = table(&merged);
    report::publish_value(&merged, &json_text::to_text(&merged)?, &table, &args.outputs.files())?;
    Ok(merged.get("ok").and_then(Value::as_bool).unwrap_or(false))
}

/// All runs as one result.
fn merge(runs: &[(String, Value)]) -> Result<Value, String> {
    let reports: Vec<&Value> = runs.iter().map(|(_, report)| report).collect();
    for (file, report) in runs {
        let command = result_file::command(report).unwrap_or_default();
        if let Some(reason) = rules::refusal(command, report.get("repeats").is_some()) {
            return Err(format!("{file}: {command}: {reason}"));
        }
    }
    let command = reports.first().and_then(|report| result_file::command(report)).unwrap_or_default();
    if reports.iter().any(|report| result_file::command(report) != Some(command)) {
        return Err("command differs between the results".into());
    }
    let mut merged = match command {
        "capacity" => stepped::merge_capacity(runs)?,
        _ => merge_runs(command, runs)?,
    };
    if command == "memory" {
        stepped::merge_memory(&reports, &mut merged)?;
    }
    let Merged { fields, problems, meaning, without } = merged;
    let Value::Object(mut fields) = fields else { return Err("no result to merge".into()) };
    fields.insert("schema".into(), json!(report::schema_id("merge")));
    fields.insert("ok".into(), json!(problems.is_empty()));
    fields.insert("problems".into(), json!(problems));
    fields.insert("settings".into(), settings(&reports));
    fields.insert("merged".into(), runs.iter().map(part).collect());
    fields.insert("merged_clocks".into(), json!(CLOCKS));
    fields.insert("merged_meaning".into(), json!(meaning));
    fields.insert("merged_without".into(), without.keys().map(|path| json!(path)).collect());
    fields.insert("merged_without_reasons".into(), json!(without));
    Ok(Value::Object(fields))
}

/// What is said of one run; the first step speaks for a run with steps.
fn part((file, report): &(String, Value)) -> Value {
    let run = report.pointer("/steps/0/result").unwrap_or(report);
    json!({
        "file": file,
        "url": run.get("url"),
        "started_unix_seconds": run.get("started_unix_seconds"),
        "seconds": series::seconds(run),
        "opened": run.pointer("/connections/opened"),
    })
}

/// Everything that single runs of a command have.
fn merge_runs(command: &str, runs: &[(String, Value)]) -> Result<Merged, String> {
    let reports: Vec<&Value> = runs.iter().map(|(_, report)| report).collect();
    let mut merged = Merged::default();
    let placed = series::on_one_clock(&reports);
    merged.fields = merge_fields(command, &placed.iter().collect::<Vec<_>>(), "", &mut merged)?;
    for (file, report) in runs {
        merged.problems.extend(texts_of(&report["problems"]).map(|problem| format!("{file}: {problem}")));
    }
    merged.problems.extend(series::did_not_overlap(runs));
    if let Some(connections) = merged.fields.get_mut("connections").and_then(Value::as_object_mut) {
        let number = |name: &str| connections.get(name).and_then(Value::as_f64);
        let rate = number("opened").zip(number("open_seconds")).filter(|(_, seconds)| *seconds > 0.0);
        connections.insert("opened_per_second".into(), json!(rate.map(|(opened, seconds)| opened / seconds)));
        let path = "connections.opened_per_second";
        merged.meaning.insert(path.to_owned(), rules::meaning(command, path, Rule::Made));
    }
    merged.fields["series"] = series::series(&reports);
    Ok(merged)
}

fn merge_fields(command: &str, objects: &[&Value], path: &str, merged: &mut Merged) -> Result<Value, String> {
    let names: BTreeSet<&String> =
        objects.iter().filter_map(|object| object.as_object()).flat_map(Map::keys).collect();
    let mut fields = Map::new();
    for name in names {
        let values: Vec<&Value> =
            objects.iter().map(|object| object.get(name).unwrap_or(&Value::Null)).collect();
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        let known = values.iter().filter(|value| !value.is_null()).count();
        let rule = match rules::rule(command, &path) {
            Rule::Made => continue,
            // A latency is known by what is in it, whatever its name.
            _ if values.iter().any(|value| value.get("histogram").is_some()) => Rule::Latency,
            rule => rule,
        };
        let value = match rule {
            _ if known == 0 => Value::Null,
            Rule::Same => same(&values).ok_or_else(|| format!("{path} differs between the results"))?,
            Rule::Texts => texts(&values),
            Rule::Sum => folded(&values, |sum, value| sum + value),
            Rule::Highest => folded(&values, f64::max),
            Rule::Lowest => folded(&values, f64::min),
            Rule::Counts => counts(&values),
            Rule::Lists => values.iter().filter_map(|value| value.as_array()).flatten().cloned().collect(),
            Rule::Any => json!(values.iter().any(|value| value.as_bool() == Some(true))),
            Rule::All => json!(values.iter().filter_map(|value| value.as_bool()).all(|value| value)),
            Rule::Only if known == 1 => {
                values.iter().find(|value| !value.is_null()).map_or(Value::Null, |v| (*v).clone())
            }
            Rule::Fields => {
                // Only some runs may have had a bystander.
                let objects: Vec<&Value> = values.iter().copied().filter(|value| value.is_object()).collect();
                merge_fields(command, &objects, &path, merged)?
            }
            Rule::Latency => latency(&values),
            Rule::Course => course(&values),
            Rule::Only | Rule::Made | Rule::Nothing => Value::Null,
        };
        if known > 0 && value.is_null() {
            let some = !matches!(rule, Rule::Nothing | Rule::Only);
            let reason = if some { rules::NOT_ALL_KNOW } else { rules::reason(command, &path) };
            merged.without.insert(path, reason);
        } else if known > 0 {
            let meaning = rules::meaning(command, &path, rule);
            if !meaning.is_empty() {
                merged.meaning.insert(path, meaning);
            }
        }
        fields.insert(name.clone(), value);
    }
    Ok(Value::Object(fields))
}

/// The texts of a list.
fn texts_of(list: &Value) -> impl Iterator<Item = &str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str)
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

/// Null if one can't be read, or says of no moment when it was.
fn course(values: &[&Value]) -> Value {
    let known = values.iter().filter(|value| !value.is_null());
    let courses: Option<Vec<Course>> =
        known.map(|value| Course::read(&serde_json::from_value((*value).clone()).ok()?)).collect();
    let merged = courses.map(|courses| {
        let mut sum = Course::default();
        courses.iter().for_each(|course| sum.merge(course));
        sum
    });
    json!(merged.and_then(|merged| merged.report(0, None)))
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
    let text = |path: &str| merged.pointer(path).and_then(Value::as_str).unwrap_or("n/a").to_owned();
    let what = if merged.get("of").is_some() { text("/of") } else { text("/url") };
    table.row("merged", format!("{}, {what}", text("/command")));
    for run in merged.get("merged").and_then(Value::as_array).into_iter().flatten() {
        let opened = number_text(run.get("opened").and_then(Value::as_f64), 0, " connections");
        table
            .row("  from", format!("{}, {opened}", run.get("file").and_then(Value::as_str).unwrap_or("n/a")));
    }
    if merged.get("connections").is_some() {
        connection_rows(merged, &mut table);
    }
    for (name, path) in COUNTED {
        if let Some(value) = merged.pointer(path) {
            table.row(name, number_text(value.as_f64(), 0, ""));
        }
    }
    for (name, path) in LATENCIES {
        if merged.pointer(path).is_some() {
            table.latency_of(name, merged.pointer(path));
        }
    }
    let again = merged.get("served_again_seconds");
    if let Some(seconds) = again {
        table.row("all served again in", number_text(seconds.as_f64(), 3, " s, the slowest run's"));
    }
    stepped_rows(merged, &mut table);
    let mut paths: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (path, reason) in
        merged.get("merged_without_reasons").and_then(Value::as_object).into_iter().flatten()
    {
        paths.entry(reason.as_str().unwrap_or_default()).or_default().push(path);
    }
    for (reason, paths) in paths {
        table.row("not merged (n/a)", format!("{}: {reason}", paths.join(", ")));
    }
    table.row("clocks", CLOCKS);
    let problems: Vec<&str> = texts_of(merged.get("problems").unwrap_or(&Value::Null)).collect();
    table.row("verdict", if problems.is_empty() { "ok".to_owned() } else { problems.join("; ") });
    table
}

fn connection_rows(merged: &Value, table: &mut Table) {
    let count = |path: &str| number_text(merged.pointer(path).and_then(Value::as_f64), 0, "");
    table.row("connections", format!("{} of {}", count("/connections/opened"), count("/connections/wanted")));
    table
        .row("  failed / lost", format!("{} / {}", count("/connections/failed"), count("/connections/lost")));
    let errors = merged.pointer("/connections/errors").and_then(Value::as_object);
    for (name, count) in errors.into_iter().flatten() {
        table.row(&format!("  {name}"), count);
    }
    table.latency_of("connect latency", merged.pointer("/connections/connect_latency"));
}

/// What only results with steps have.
fn stepped_rows(merged: &Value, table: &mut Table) {
    if merged.get("highest_held").is_some() {
        let text = |name: &str| {
            merged.get(name).and_then(Value::as_f64).map_or("none".to_owned(), |value| value.to_string())
        };
        table.row("highest step that held", text("highest_held"));
        table.row("first that broke", text("broke_at"));
        if merged.get("limited_by_generator") == Some(&json!(true)) {
            table.row("note", "a generator was the bottleneck there; the server's limit may be higher");
        }
    }
    for kind in merged.get("kinds").and_then(Value::as_array).into_iter().flatten() {
        let text = |name: &str| kind.get(name).and_then(Value::as_str).unwrap_or_default();
        let slope = kind.get("bytes_per_connection").and_then(Value::as_f64);
        if slope.is_some() {
            let name = format!("{}'s {}", text("end"), text("name"));
            let sure =
                number_text(kind.get("bytes_per_connection_plus_minus").and_then(Value::as_f64), 1, "");
            table.row(&name, format!("{} ± {sure} bytes per connection", number_text(slope, 1, "")));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::histogram_columns::HistogramColumns;

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
