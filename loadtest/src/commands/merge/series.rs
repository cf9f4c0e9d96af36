//! Runs side by side on the wall clock: whether they were together, and what all had in a second. Pure.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

/// A problem if there was no moment at which all were running: then nothing was "together".
pub(super) fn did_not_overlap(runs: &[(String, Value)]) -> Option<String> {
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

/// How long a run took, by its last sample.
pub(super) fn seconds(report: &Value) -> Option<f64> {
    report.pointer("/series/at_seconds")?.as_array()?.last()?.as_f64()
}

/// The runs with the times of their courses counted from the first of their beginnings. Where one does not say when it
/// began, nobody knows when its columns were: they are gone.
pub(super) fn on_one_clock(reports: &[&Value]) -> Vec<Value> {
    let start = |report: &Value| report.get("started_unix_seconds").and_then(Value::as_f64);
    let first = reports.iter().filter_map(|report| start(report)).fold(f64::INFINITY, f64::min);
    let place = |report: &&Value| {
        let mut report = (*report).clone();
        let by = start(&report).map(|start| start - first);
        move_courses(&mut report, by);
        report
    };
    reports.iter().map(place).collect()
}

fn move_courses(value: &mut Value, by: Option<f64>) {
    let Value::Object(fields) = value else { return };
    if !fields.contains_key("column_seconds") {
        return fields.values_mut().for_each(|value| move_courses(value, by));
    }
    let moved = |time: &Value| json!(time.as_f64().zip(by).map(|(time, by)| time + by));
    if let Some(begin) = fields.get_mut("begin_seconds") {
        *begin = moved(begin);
    }
    if let Some(Value::Array(times)) = fields.get_mut("highest_at_seconds") {
        times.iter_mut().for_each(|time| *time = moved(time));
    }
}

/// What all had in a second together. Percentiles of single seconds can't be merged, so only the highest latency
/// stays of them.
pub(super) fn series(reports: &[&Value]) -> Value {
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
