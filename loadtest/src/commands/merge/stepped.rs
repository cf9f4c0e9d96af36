//! Results that have steps: `capacity`, whose steps are whole results, and `memory`, whose steps are points of a line.
//! Pure.

use serde_json::{Value, json};

use super::{Merged, merge};
use crate::observe::memory_kinds;
use crate::result::regression::{self, Line};
use crate::result::result_file;

const ONLY_OWN: &str = "its slope needs every connection that was open at a reading, and each run counted only its own; hold the \
    others' with `idle` and run `memory` on one machine";
const WHOLE_MACHINE: &str = "it is of a whole machine, and results do not say which runs shared one";

/// Merges `capacity` step by step: a step held if it held for every run, at the same time.
pub(super) fn merge_capacity(runs: &[(String, Value)]) -> Result<Merged, String> {
    let first = runs.first().map(|(_, report)| report).ok_or("no result to merge")?;
    for name in ["of", "variable"] {
        if runs.iter().any(|(_, report)| report.get(name) != first.get(name)) {
            return Err(format!("{name} differs between the results"));
        }
    }
    let (mut steps, mut merged) = (Vec::new(), Merged::default());
    let mut limited_by_generator = false;
    for index in 0.. {
        let of_step: Vec<(String, &Value)> = runs
            .iter()
            .filter_map(|(file, report)| Some((file.clone(), report.get("steps")?.get(index)?)))
            .collect();
        if of_step.len() < runs.len() {
            if !of_step.is_empty() {
                merged.without.insert(format!("steps[{index}]"), "not every run came to this step");
            }
            break;
        }
        let value = of_step.iter().filter_map(|(_, step)| step.get("value")?.as_f64()).sum::<f64>();
        let results: Vec<(String, Value)> =
            of_step.iter().map(|(file, step)| (file.clone(), step["result"].clone())).collect();
        // A step that one run could not even make has no result of all.
        let failed = of_step.iter().any(|(_, step)| result_file::command(&step["result"]).is_none());
        let all = if failed { failure(&of_step) } else { merge(&results)? };
        let (ok, problems) = (all["ok"] == true, all["problems"].clone());
        limited_by_generator =
            !ok && all.pointer("/generator/bottleneck").is_some_and(|list| *list != json!([]));
        let result = if failed { json!({}) } else { all };
        let cut_short = result["interrupted"] == true;
        steps.push(json!({ "value": value, "ok": ok, "problems": problems, "result": result }));
        if !ok || cut_short {
            break;
        }
    }
    let value = |step: Option<&Value>| step.map(|step| step["value"].clone()).unwrap_or_default();
    // One that was ended early has neither held nor broken.
    let ended = |step: &&Value| step["result"]["interrupted"] != true;
    let highest_held = value(steps.iter().filter(ended).rev().find(|step| step["ok"] == true));
    let broke = steps.last().filter(ended).filter(|step| step["ok"] != true);
    if highest_held.is_null() {
        merged.problems = match broke {
            Some(step) => super::texts_of(&step["problems"]).map(str::to_owned).collect(),
            None => vec!["there is no step that every run came to the end of".to_owned()],
        };
    }
    let interrupted = runs.iter().any(|(_, report)| report["interrupted"] == true);
    let sum = "sum of all runs' values at the step; it held if it held in every run and there was a moment at which all ran it";
    for field in ["highest_held", "broke_at", "steps[].value"] {
        merged.meaning.insert(field.to_owned(), sum);
    }
    merged.fields = json!({
        "format": first["format"], "command": "capacity", "generator_version": first["generator_version"],
        "generator_commit": first["generator_commit"],
        "interrupted": interrupted, "of": first["of"], "variable": first["variable"],
        "highest_held": highest_held, "broke_at": value(broke), "limited_by_generator": limited_by_generator,
        "steps": steps,
    });
    Ok(merged)
}

/// What is wrong with a step that some could not make.
fn failure(of_step: &[(String, &Value)]) -> Value {
    let problems = of_step.iter().flat_map(|(file, step)| {
        super::texts_of(&step["problems"]).map(move |problem| format!("{file}: {problem}"))
    });
    json!({ "ok": false, "problems": problems.collect::<Vec<_>>() })
}

/// Adds what `memory` has beside every command's fields.
pub(super) fn merge_memory(reports: &[&Value], merged: &mut Merged) -> Result<(), String> {
    let lists = |name: &str| -> Vec<&Vec<Value>> {
        reports.iter().filter_map(|report| report.get(name)?.as_array()).collect()
    };
    let connections = lists("steps_connections");
    let steps = connections.first().map_or(0, |steps| steps.len());
    if connections.len() < reports.len() || connections.iter().any(|list| list.len() != steps) {
        return Err("steps_connections: the results have different numbers of steps".into());
    }
    let connections = sums(&connections, steps);
    let points: Vec<Option<f64>> = connections.iter().map(Value::as_f64).collect();
    let mut kinds = Vec::new();
    for kind in lists("kinds").first().into_iter().flat_map(|kinds| kinds.iter()) {
        let (name, end) =
            (kind["name"].as_str().unwrap_or_default(), kind["end"].as_str().unwrap_or_default());
        let same = |report: &&Value| {
            let kinds = report.get("kinds")?.as_array()?.iter();
            kinds.clone().find(|other| other["name"] == kind["name"] && other["end"] == kind["end"]).cloned()
        };
        let of_kind: Vec<Value> = reports.iter().filter_map(same).collect();
        let own = end == "generator" && memory_kinds::is_of_a_process(name);
        if !own || of_kind.len() < reports.len() {
            let reason = if end == "generator" && !own { WHOLE_MACHINE } else { ONLY_OWN };
            merged.without.insert(format!("kinds.{end}.{name}"), reason);
            kinds.push(kind_of(kind, Value::Null, vec![Value::Null; steps], None));
            continue;
        }
        let bytes: Vec<&Vec<Value>> =
            of_kind.iter().filter_map(|kind| kind["steps_bytes"].as_array()).collect();
        let bytes = sums(&bytes, steps);
        let at = |(connections, bytes): (&Option<f64>, &Value)| Some(((*connections)?, bytes.as_f64()?));
        let points: Option<Vec<(f64, f64)>> = points.iter().zip(&bytes).map(at).collect();
        let before: Option<f64> = of_kind.iter().map(|kind| kind["before_bytes"].as_f64()).sum();
        kinds.push(kind_of(kind, json!(before), bytes, points.and_then(|points| regression::fit(&points))));
    }
    let fewest =
        |step: usize| lists("steps_readings").iter().filter_map(|list| list.get(step)?.as_u64()).min();
    let settled = lists("steps_settled");
    let all_settled = |step: usize| settled.iter().all(|list| list.get(step) == Some(&json!(true)));
    let settled: Vec<bool> = (0..steps).map(all_settled).collect();
    let readings: Vec<Option<u64>> = (0..steps).map(fewest).collect();
    for (field, meaning) in [
        ("steps_connections", "sum of all runs at the step"),
        ("steps_settled", "whether memory had settled in every run"),
        ("steps_readings", "fewest of any run"),
        (
            "kinds.generator",
            "the line through the sums of all generators' processes and of their connections",
        ),
    ] {
        merged.meaning.insert(field.to_owned(), meaning);
    }
    for (field, value) in [
        ("steps_connections", Value::Array(connections)),
        ("steps_settled", json!(settled)),
        ("steps_readings", json!(readings)),
        ("kinds", Value::Array(kinds)),
    ] {
        merged.fields[field] = value;
    }
    Ok(())
}

/// The sum of the lists at each place; null where a list does not know its part.
fn sums(lists: &[&Vec<Value>], len: usize) -> Vec<Value> {
    let at = |place: usize| {
        let parts: Vec<&Value> = lists.iter().map(|list| list.get(place).unwrap_or(&Value::Null)).collect();
        super::folded(&parts, |sum, part| sum + part)
    };
    (0..len).map(at).collect()
}

fn kind_of(kind: &Value, before: Value, steps_bytes: Vec<Value>, line: Option<Line>) -> Value {
    json!({
        "name": kind["name"], "end": kind["end"], "what": kind["what"],
        "before_bytes": before,
        "steps_bytes": steps_bytes,
        "bytes_per_connection": line.map(|line| line.slope),
        "bytes_per_connection_plus_minus": line.and_then(|line| line.slope_plus_minus),
        "intercept_bytes": line.map(|line| line.intercept),
        "intercept_plus_minus_bytes": line.and_then(|line| line.intercept_plus_minus),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(value: f64, ok: bool, started: f64) -> Value {
        let problems = if ok { json!([]) } else { json!(["p99>50ms: it is 61 ms"]) };
        json!({ "value": value, "ok": ok, "problems": problems, "result": {
            "format": 1, "command": "echo", "ok": ok, "problems": problems, "rate_per_second": value,
            "started_unix_seconds": started, "series": { "at_seconds": [0.0, 2.0] },
            "generator": { "bottleneck": if ok { json!([]) } else { json!(["late"]) } },
        } })
    }

    fn capacity(name: &str, steps: &[Value]) -> (String, Value) {
        let report = json!({ "format": 1, "command": "capacity", "of": "echo", "variable": "rate",
            "interrupted": false, "generator_version": "1", "steps": steps });
        (name.to_owned(), report)
    }

    #[test]
    fn a_step_holds_if_it_held_everywhere_and_values_add_up() {
        let a = capacity("a", &[step(100.0, true, 10.0), step(200.0, true, 20.0), step(400.0, true, 30.0)]);
        let b = capacity("b", &[step(100.0, true, 10.5), step(200.0, false, 21.0)]);
        let merged = merge(&[a.clone(), b]).unwrap();
        assert_eq!((&merged["ok"], &merged["command"]), (&json!(true), &json!("capacity")));
        assert_eq!(
            (merged["highest_held"].as_f64(), merged["broke_at"].as_f64()),
            (Some(200.0), Some(400.0))
        );
        assert_eq!(
            (&merged["limited_by_generator"], merged["steps"].as_array().unwrap().len()),
            (&json!(true), 2)
        );
        assert_eq!(merged["steps"][0]["result"]["rate_per_second"], 200.0);
        assert!(merged["merged_meaning"]["highest_held"].as_str().unwrap().contains("every run"));
        // Steps that were not at the same time did not load the server together.
        let late = capacity("late", &[step(100.0, true, 50.0)]);
        let merged = merge(&[a.clone(), late]).unwrap();
        assert!(merged["ok"] == false && merged["problems"].to_string().contains("not at the same time"));
        let failed = json!({ "value": 200.0, "ok": false, "problems": ["refused"], "result": {} });
        let unable = capacity("unable", &[step(100.0, true, 10.0), failed]);
        let merged = merge(&[a.clone(), unable]).unwrap();
        assert_eq!(
            (merged["highest_held"].as_f64(), merged["broke_at"].as_f64()),
            (Some(200.0), Some(400.0))
        );
        assert_eq!(merged["steps"][1]["problems"], json!(["unable: refused"]));
        let mut cut_short = step(200.0, true, 20.0);
        cut_short["result"]["interrupted"] = json!(true);
        let merged = merge(&[a.clone(), capacity("ended", &[step(100.0, true, 10.0), cut_short])]).unwrap();
        assert_eq!((merged["highest_held"].as_f64(), &merged["broke_at"]), (Some(200.0), &Value::Null));
        let short = capacity("short", &[step(100.0, true, 10.0)]);
        let merged = merge(&[a, short]).unwrap();
        assert_eq!((&merged["ok"], &merged["merged_without"]), (&json!(true), &json!(["steps[1]"])));
    }

    #[test]
    fn generators_memory_adds_up_and_the_servers_does_not() {
        let memory = |base: f64, each: f64| {
            let bytes: Vec<f64> = (1..4).map(|step| base + each * 10.0 * f64::from(step)).collect();
            let kind = |name: &str, end: &str| json!({ "name": name, "end": end, "what": "x", "before_bytes": base, "steps_bytes": bytes });
            let report = json!({ "format": 1, "command": "memory", "ok": true, "problems": [],
                "steps_connections": [10, 20, 30], "steps_settled": [true, true, base < 500.0], "steps_readings": [4, 4, 4],
                "kinds": [kind("user", "generator"), kind("user", "server"), kind("slab", "generator"), kind("slab", "both")] });
            (format!("{base}.json"), report)
        };
        let merged = merge(&[memory(100.0, 60.0), memory(900.0, 80.0)]).unwrap();
        assert_eq!(merged["steps_connections"], json!([20, 40, 60]));
        assert_eq!(merged["steps_settled"], json!([true, true, false]));
        let kinds = merged["kinds"].as_array().unwrap();
        let slope = kinds[0]["bytes_per_connection"].as_f64().unwrap();
        assert!((slope - 70.0).abs() < 1e-9, "{slope}");
        assert_eq!(
            (&kinds[0]["before_bytes"], kinds[0]["intercept_bytes"].as_f64().unwrap().round()),
            (&json!(1000.0), 1000.0)
        );
        for kind in &kinds[1..] {
            assert!(kind["bytes_per_connection"].is_null() && kind["steps_bytes"][0].is_null(), "{kind}");
        }
        assert_eq!(
            merged["merged_without"],
            json!(["kinds.both.slab", "kinds.generator.slab", "kinds.server.user"])
        );
        assert!(
            merged["merged_without_reasons"]["kinds.server.user"].as_str().unwrap().contains("only its own")
        );
        let (name, mut other) = memory(1.0, 1.0);
        other["steps_connections"] = json!([10]);
        assert!(merge(&[memory(1.0, 1.0), (name, other)]).unwrap_err().contains("steps_connections"));
    }
}
