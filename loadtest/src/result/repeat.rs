//! `--repeat`: several results as one, with the median of every number and how far they spread. Pure.
//!
//! The merged result has the layout of a single one, so whatever reads results reads it too; `repeats`
//! holds the single ones.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::result::report::Table;
use crate::result::threshold::{Kind, METRICS, Threshold};

/// One metric over all runs, in its base unit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    /// The middle value, or the mean of the two middle ones.
    pub(crate) median: f64,
    /// The lowest.
    pub(crate) min: f64,
    /// The highest.
    pub(crate) max: f64,
}

impl Spread {
    /// `None` without values.
    pub(crate) fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let upper = *sorted.get(sorted.len() / 2)?;
        let median = match sorted.len() % 2 {
            0 => (sorted.get(sorted.len() / 2 - 1)? + upper) / 2.0,
            _ => upper,
        };
        Some(Self { median, min, max })
    }
}

/// The runs as one result: numbers are medians, `problems` are those of all runs, and a number that any run
/// does not know is null.
pub(crate) fn merge(runs: Vec<Value>, thresholds: &[Threshold]) -> Value {
    let mut merged = median_of(&runs.iter().collect::<Vec<_>>());
    let mut problems: Vec<String> = Vec::new();
    for (index, run) in runs.iter().enumerate() {
        let of_run = run.get("problems").and_then(Value::as_array).into_iter().flatten();
        let of_run = of_run.filter_map(Value::as_str);
        problems.extend(of_run.map(|problem| format!("run {} of {}: {problem}", index + 1, runs.len())));
    }
    problems.extend(thresholds.iter().filter_map(|threshold| broken_by(threshold, &merged, &runs)));
    if let Value::Object(fields) = &mut merged {
        fields.insert("ok".into(), problems.is_empty().into());
        fields.insert("problems".into(), json!(problems));
        fields.insert("repeats".into(), Value::Array(runs));
    }
    merged
}

/// The table of a merged result.
pub(crate) fn table(merged: &Value) -> Table {
    let mut table = Table::default();
    let runs = merged.get("repeats").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    table.row("runs", runs.len());
    for metric in METRICS {
        let values: Vec<f64> = runs.iter().filter_map(|run| metric.value_in(run)).collect();
        let Some(Spread { median, min, max }) = Spread::of(&values) else { continue };
        let mut text =
            format!("median {}, {} to {}", metric.text(median), metric.text(min), metric.text(max));
        if median > 0.0 {
            text.push_str(&format!(" (spread {:.0} %)", (max - min) / median * 100.0));
        }
        if values.len() < runs.len() {
            text.push_str(&format!(", n/a in {}", runs.len() - values.len()));
        }
        table.row(metric.name, text);
    }
    let problems = merged.get("problems").and_then(Value::as_array).into_iter().flatten();
    let problems: Vec<&str> = problems.filter_map(Value::as_str).collect();
    table.row("verdict", if problems.is_empty() { "ok".to_owned() } else { problems.join("; ") });
    table
}

/// What happened once happened, so counts are judged in every run; what is noisy is judged by its median.
fn broken_by(threshold: &Threshold, merged: &Value, runs: &[Value]) -> Option<String> {
    if threshold.kind() == Kind::Count {
        return runs.iter().find_map(|run| threshold.broken_by(run));
    }
    threshold.broken_by(merged).map(|broken| format!("{broken} in the median"))
}

fn median_of(values: &[&Value]) -> Value {
    match values.first() {
        Some(Value::Object(_)) => {
            let keys: BTreeSet<&String> =
                values.iter().filter_map(|value| value.as_object()).flat_map(Map::keys).collect();
            // All runs have the same fields, but for counts by kind: what did not happen has none.
            let none = json!(0);
            let of_key =
                |key: &str| -> Vec<&Value> { values.iter().map(|value| field(value, key, &none)).collect() };
            keys.into_iter().map(|key| (key.clone(), median_of(&of_key(key)))).collect()
        }
        // Parts that every run has as many of: the kinds of `memory`, the servers of `rolling`.
        Some(Value::Array(first)) if first.first().is_some_and(Value::is_object) => {
            let lists: Option<Vec<&Vec<Value>>> = values
                .iter()
                .map(|value| value.as_array().filter(|list| list.len() == first.len()))
                .collect();
            let Some(lists) = lists else { return json!([]) };
            let at = |place: usize| lists.iter().filter_map(|list| list.get(place)).collect::<Vec<_>>();
            (0..first.len()).map(|place| median_of(&at(place))).collect()
        }
        // Whether anything was so.
        Some(Value::Bool(_)) => json!(values.iter().any(|value| **value == json!(true))),
        Some(Value::Number(_)) => {
            let numbers: Option<Vec<f64>> = values.iter().map(|value| value.as_f64()).collect();
            let whole = values.iter().all(|value| value.is_u64());
            match numbers.and_then(|numbers| Spread::of(&numbers)) {
                // A count stays one, also between two of them.
                Some(Spread { median, .. }) if whole => json!(median.round() as u64),
                Some(Spread { median, .. }) => json!(median),
                None => Value::Null,
            }
        }
        // A list of sentences becomes that of all runs; one of numbers has no median.
        Some(Value::Array(_)) => {
            let mut all: Vec<Value> =
                values.iter().filter_map(|value| value.as_array()).flatten().cloned().collect();
            all.retain(Value::is_string);
            all.dedup();
            Value::Array(all)
        }
        None => Value::Null,
        Some(Value::Null) => Value::Null,
        // A text is that of the first run.
        Some(other) => (*other).clone(),
    }
}

/// A field of an object, `none` if it has no such field, and null if it is no object.
fn field<'v>(object: &'v Value, key: &str, none: &'v Value) -> &'v Value {
    object.as_object().map_or(&Value::Null, |fields| fields.get(key).unwrap_or(none))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(p99: Option<f64>, missing: u64) -> Value {
        let problems: Vec<String> = (missing > 0).then(|| "bad".to_owned()).into_iter().collect();
        json!({ "command": "echo", "ok": missing == 0, "problems": problems, "missing": missing,
            "latency": { "p99_microseconds": p99 } })
    }

    #[test]
    fn medians_keep_the_layout_and_the_single_runs() {
        let merged = merge(vec![run(Some(30.0), 0), run(Some(10.0), 0), run(Some(20.0), 0)], &[]);
        assert_eq!(merged["latency"]["p99_microseconds"], 20.0);
        assert_eq!(
            (&merged["ok"], &merged["command"], &merged["missing"]),
            (&json!(true), &json!("echo"), &json!(0))
        );
        assert_eq!(merged["repeats"].as_array().unwrap().len(), 3);
        let text = table(&merged).text();
        assert!(text.contains("median 20 us, 10 us to 30 us (spread 100 %)"), "{text}");
        assert!(text.trim_end().ends_with("ok"), "{text}");
    }

    #[test]
    fn one_bad_run_of_three_is_told_and_unknown_stays_unknown() {
        let runs = vec![run(Some(1.0), 0), run(None, 7), run(Some(3.0), 0)];
        let thresholds = [Threshold::parse("missing>0").unwrap(), Threshold::parse("p99>1s").unwrap()];
        let merged = merge(runs, &thresholds);
        assert_eq!((&merged["ok"], &merged["missing"]), (&json!(false), &json!(0)));
        assert!(merged["latency"]["p99_microseconds"].is_null());
        let problems = merged["problems"].to_string();
        for says in ["run 2 of 3: bad", "missing>0: it is 7", "p99>1s can't be judged"] {
            assert!(problems.contains(says), "{problems}");
        }
        assert!(table(&merged).text().contains("n/a in 1"));
    }

    #[test]
    fn kinds_that_one_run_has_and_another_not_are_counted_and_parts_are_merged() {
        let run = |errors: Value, interrupted: bool, slope: Option<f64>| {
            json!({ "ok": true, "problems": [], "interrupted": interrupted, "errors": errors, "server": null,
                "kinds": [{ "name": "user", "bytes_per_connection": slope, "steps_bytes": [1, 2] }] })
        };
        let runs = vec![
            run(json!({ "connect_refused": 4 }), false, Some(60.0)),
            run(json!({ "connect_refused": 2, "lost_eof": 6 }), false, Some(64.0)),
            run(json!({ "lost_eof": 8 }), true, Some(70.0)),
        ];
        let merged = merge(runs.clone(), &[]);
        assert_eq!(merged["errors"], json!({ "connect_refused": 2, "lost_eof": 6 }));
        assert_eq!((&merged["interrupted"], &merged["server"]), (&json!(true), &Value::Null));
        let kind = json!({ "name": "user", "bytes_per_connection": 64.0, "steps_bytes": [] });
        assert_eq!(merged["kinds"], json!([kind]));
        let more = json!({ "ok": true, "problems": [], "kinds": [{}, {}] });
        assert_eq!(merge(vec![runs[0].clone(), more], &[])["kinds"], json!([]));
    }

    #[test]
    fn noise_is_judged_by_its_median() {
        let threshold = [Threshold::parse("p99>1ms").unwrap()];
        let runs = |each: [f64; 3]| each.map(|p99| run(Some(p99), 0)).to_vec();
        assert_eq!(merge(runs([10.0, 9e9, 20.0]), &threshold)["ok"], true);
        assert_eq!(merge(runs([10.0, 2e3, 3e3]), &threshold)["ok"], false);
    }

    #[test]
    fn an_even_number_of_runs_has_a_median_too() {
        assert_eq!(Spread::of(&[4.0, 1.0]), Some(Spread { median: 2.5, min: 1.0, max: 4.0 }));
        assert_eq!(Spread::of(&[]), None);
    }
}
