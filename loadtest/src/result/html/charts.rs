//! Which charts a result has: read from the result file's fields, whatever the command. Pure.
//!
//! A field that is missing or null makes no chart, so a command need not know about charts.

use serde_json::Value;

use crate::result::histogram_columns;

use super::axis::{Scale, Unit};
use super::chart::{AxisName, Chart, Line, Style};

const TIME: AxisName =
    AxisName { label: "time since the first connect (s)", unit: Unit::Seconds, scale: Scale::Linear };
const SINCE_DROP: AxisName =
    AxisName { label: "time since the first drop (s)", unit: Unit::Seconds, scale: Scale::Linear };
/// Intervals that are shorter have too few events for a rate.
const RATE_SECONDS_MIN: f64 = 0.5;
/// Spans over which what left is counted, at most.
const SPANS_MAX: f64 = 60.0;
/// Points of a curve of percentiles.
const CURVE_POINTS: u32 = 72;

/// All charts of a result.
pub(super) fn charts(report: &Value) -> Vec<Chart> {
    let command = report.get("command").and_then(Value::as_str).unwrap_or_default();
    let mut charts = vec![connections(report)];
    for (path, histogram) in histogram_columns::latencies(report) {
        let next = percentiles(&path, command, &histogram);
        // A bystander's echo before and during the storm belong side by side.
        match charts.last_mut().filter(|last| last.title == next.title) {
            Some(last) => last.lines.extend(next.lines.into_iter().map(|line| Line { colour: 2, ..line })),
            None => charts.push(next),
        }
    }
    charts.push(by_step(report));
    charts.push(achieved(report));
    charts.push(came_back(report));
    charts.push(latency_over_time(report, command));
    charts.push(Chart {
        title: if command == "fanout" { "Deliveries per second" } else { "Messages received per second" }
            .into(),
        x: TIME,
        y: AxisName { label: "messages/s, all connections", unit: Unit::Count, scale: Scale::Linear },
        lines: vec![rate_line(report, "messages", "received", 1)],
    });
    charts.push(Chart {
        title: "Processor".into(),
        x: TIME,
        y: AxisName { label: "cores in use", unit: Unit::Count, scale: Scale::Linear },
        lines: vec![
            rate_line(report, "generator_cpu_seconds", "generator", 1),
            rate_line(report, "server_cpu_seconds", "server", 2),
        ],
    });
    charts.push(Chart {
        title: "User memory over time".into(),
        x: TIME,
        y: AxisName { label: "RssAnon + Shmem + HugeTLB + swap", unit: Unit::Bytes, scale: Scale::Linear },
        lines: vec![
            series_line(report, "generator_user_bytes", "generator", 1),
            series_line(report, "server_user_bytes", "server", 2),
        ],
    });
    // A server on another machine may tell its resident memory only, which is another thing than user memory.
    if series(report, "server_user_bytes").iter().all(|(_, bytes)| bytes.is_none()) {
        charts.push(Chart {
            title: "Server's resident memory over time".into(),
            x: TIME,
            y: AxisName { label: "all resident, file pages too", unit: Unit::Bytes, scale: Scale::Linear },
            lines: vec![series_line(report, "server_resident_bytes", "server", 2)],
        });
    }
    charts.extend(memory_by_connections(report));
    for chart in &mut charts {
        // A figure that was 0 or unknown all along needs no line where there are others.
        chart.lines.retain(|line| line.points.iter().any(|(_, value)| value.is_some()));
    }
    charts
}

fn connections(report: &Value) -> Chart {
    let mut lines = vec![series_line(report, "open", "open", 1)];
    for (name, colour) in [("failed", 2), ("lost", 4)] {
        let line = series_line(report, name, name, colour);
        if line.points.iter().any(|(_, value)| value.is_some_and(|value| value > 0.0)) {
            lines.push(line);
        }
    }
    Chart {
        title: "Connections".into(),
        x: TIME,
        y: AxisName { label: "connections", unit: Unit::Count, scale: Scale::Linear },
        lines,
    }
}

fn percentiles(path: &str, command: &str, histogram: &hdrhistogram::Histogram<u64>) -> Chart {
    let (what, name) = match path {
        "connections.connect_latency" => ("Connect latency".to_owned(), "latency"),
        "reconnect_latency" => ("Reconnect latency".to_owned(), "latency"),
        "away" => ("Time away, waits included,".to_owned(), "time"),
        "bystander.before" => ("Bystander's echo".to_owned(), "before"),
        "bystander.during" => ("Bystander's echo".to_owned(), "while the others came back"),
        "slow.latency" => ("Latency of slow subscribers".to_owned(), "latency"),
        "publish_latency" => ("Answers to the publisher".to_owned(), "latency"),
        "tls.handshake_latency" => ("TLS handshake".to_owned(), "latency"),
        "latency" => (latency_name(command).to_owned(), "latency"),
        other => (other.replace(['.', '_'], " "), "latency"),
    };
    let title = format!("{what} by percentile");
    // Beyond the last single value a percentile says nothing new.
    let most = (histogram.len().max(1) as f64).log10().max(1.0);
    let at = |index: u32| {
        let nines = most * f64::from(index) / f64::from(CURVE_POINTS);
        1.0 - 10_f64.powf(-nines)
    };
    let value = |quantile| Some(histogram.value_at_quantile(quantile) as f64 / 1e3);
    Chart {
        title,
        x: AxisName { label: "percentile of all values", unit: Unit::Count, scale: Scale::Nines },
        y: AxisName { label: "latency, logarithmic", unit: Unit::Time, scale: Scale::Log },
        lines: vec![Line {
            name: name.into(),
            style: Style::Line,
            colour: 1,
            points: (0..=CURVE_POINTS).map(at).map(|quantile| (quantile, value(quantile))).collect(),
        }],
    }
}

/// What `capacity` raised, and the latencies at each step.
fn by_step(report: &Value) -> Chart {
    let steps = report.get("steps").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let points = |path: &str| -> Vec<(f64, Option<f64>)> {
        let at = |step: &Value| Some((step.get("value")?.as_f64()?, step.pointer(path)?.as_f64()));
        steps.iter().filter_map(at).collect()
    };
    let mut lines = Vec::new();
    for (name, path, colour) in [
        ("p50", "/result/latency/p50_microseconds", 1),
        ("p99", "/result/latency/p99_microseconds", 3),
        ("connect, p99", "/result/connections/connect_latency/p99_microseconds", 2),
    ] {
        lines.push(Line { name: name.into(), style: Style::Points, colour, points: points(path) });
        lines.push(Line { name: String::new(), style: Style::Line, colour, points: points(path) });
    }
    let label = match report.get("variable").and_then(Value::as_str) {
        Some("rate") => "rate (per second)",
        _ => "connections",
    };
    Chart {
        title: "Latency by step".into(),
        x: AxisName { label, unit: Unit::Count, scale: Scale::Linear },
        y: AxisName { label: "latency, logarithmic", unit: Unit::Time, scale: Scale::Log },
        lines,
    }
}

/// Spans of a course so wide that each has something to count.
fn spans(course: &Value, per_span: f64, columns: &[f64]) -> Option<(f64, f64, usize)> {
    let number = |name: &str| course.get(name).and_then(Value::as_f64);
    let (begin, width) = (number("begin_seconds")?, number("column_seconds")?);
    let all: f64 = columns.iter().sum();
    let wanted = (all / per_span).clamp(1.0, SPANS_MAX);
    Some((begin, width, (columns.len() as f64 / wanted).ceil().max(1.0) as usize))
}

/// How much of a column of a course there was each second.
fn per_second(course: &Value, values: &[f64], per_span: f64, of: &[f64]) -> Vec<(f64, Option<f64>)> {
    let Some((begin, width, every)) = spans(course, per_span, of) else { return Vec::new() };
    // The last span ends where the load ended, which nobody knows to the column.
    let last = values.len().div_ceil(every).saturating_sub(1);
    let wholes = values.chunks(every).enumerate().filter(|(index, _)| *index < last || last < 3);
    let point = |(index, span): (usize, &[f64])| {
        let middle = begin + (index as f64 * every as f64 + span.len() as f64 / 2.0) * width;
        (middle, Some(span.iter().sum::<f64>() / (span.len() as f64 * width)))
    };
    wholes.map(point).collect()
}

/// The rate that was asked for and the one that left.
fn achieved(report: &Value) -> Chart {
    let course = report.get("latency_by_send_time").unwrap_or(&Value::Null);
    let list = |name: &str| -> Vec<f64> {
        course
            .get(name)
            .map(numbers)
            .unwrap_or_default()
            .into_iter()
            .map(|value| value.unwrap_or(0.0))
            .collect()
    };
    let planned = list("planned");
    let line = |name: &str, values: &[f64], colour| Line {
        name: name.to_owned(),
        style: Style::Line,
        colour,
        points: if planned.iter().any(|count| *count > 0.0) {
            per_second(course, values, 20.0, &planned)
        } else {
            Vec::new()
        },
    };
    Chart {
        title: "Rate asked for and achieved".into(),
        x: TIME,
        y: AxisName { label: "messages/s that left", unit: Unit::Count, scale: Scale::Linear },
        lines: vec![line("asked for", &planned, 2), line("achieved", &list("left"), 1)],
    }
}

/// How many clients came back, at the resolution of their storm.
fn came_back(report: &Value) -> Chart {
    let course = report.get("away_by_return_time").unwrap_or(&Value::Null);
    let mut counts = vec![0.0; course.get("late").map(numbers).unwrap_or_default().len()];
    let cells = |name: &str| course.pointer(&format!("/cells/{name}")).map(numbers).unwrap_or_default();
    for (of, count) in cells("column").into_iter().zip(cells("count")) {
        let (Some(of), Some(count)) = (of, count) else { continue };
        if let Some(sum) = counts.get_mut(of as usize) {
            *sum += count;
        }
    }
    let mut points = per_second(course, &counts, 30.0, &counts);
    // A storm is a moment of its run: what counts is the time since it began.
    let dropped = report.get("dropped_at_seconds").and_then(Value::as_f64);
    if let Some(dropped) = dropped {
        points.iter_mut().for_each(|(at, _)| *at -= dropped);
    }
    Chart {
        title: "Clients that came back per second".into(),
        x: if dropped.is_some() { SINCE_DROP } else { TIME },
        y: AxisName { label: "clients/s", unit: Unit::Count, scale: Scale::Linear },
        lines: vec![Line { name: "came back".into(), style: Style::Line, colour: 3, points }],
    }
}

fn latency_over_time(report: &Value, command: &str) -> Chart {
    Chart {
        title: format!("{} over time", latency_name(command)),
        x: TIME,
        y: AxisName { label: "latency, logarithmic", unit: Unit::Time, scale: Scale::Log },
        lines: vec![
            series_line(report, "latency_max_microseconds", "highest", 2),
            series_line(report, "latency_p99_microseconds", "p99", 3),
            series_line(report, "latency_p50_microseconds", "p50", 1),
        ],
    }
}

pub(super) fn latency_name(command: &str) -> &'static str {
    match command {
        "fanout" | "slow" | "rolling" => "Delivery latency",
        "echo" | "storm" => "Round trip",
        _ => "Message latency",
    }
}

/// What `memory` found: medians of the steps and the line through them. The kernel's without what it had before the
/// first connection, beside which the connections would not be seen.
fn memory_by_connections(report: &Value) -> Vec<Chart> {
    let chart = |title: &str, label, kinds: &[(&str, &str, &str)], grown| Chart {
        title: title.to_owned(),
        x: AxisName { label: "open connections", unit: Unit::Count, scale: Scale::Linear },
        y: AxisName { label, unit: Unit::Bytes, scale: Scale::Linear },
        lines: kinds
            .iter()
            .enumerate()
            .flat_map(|(index, (end, kind, name))| step_lines(report, (end, kind), name, index + 1, grown))
            .collect(),
    };
    vec![
        chart(
            "User memory by connections",
            "RssAnon + Shmem + HugeTLB + swap",
            &[("generator", "user", "generator"), ("server", "user", "server")],
            false,
        ),
        chart(
            "Kernel memory by connections, both ends",
            "more than without connections",
            &[("both", "slab", "kernel objects"), ("both", "tcp_queues", "TCP queues")],
            true,
        ),
        chart(
            "Kernel memory by connections, generator's end",
            "more than without connections",
            &[("generator", "slab", "kernel objects"), ("generator", "tcp_queues", "TCP queues")],
            true,
        ),
    ]
}

/// The points of one kind of memory and their line, which has no name of its own.
fn step_lines(report: &Value, of: (&str, &str), name: &str, colour: usize, grown: bool) -> Vec<Line> {
    let is = |kind: &Value, field: &str, text: &str| kind.get(field).and_then(Value::as_str) == Some(text);
    let kinds = report.get("kinds").and_then(Value::as_array);
    let kind = kinds.and_then(|all| all.iter().find(|kind| is(kind, "end", of.0) && is(kind, "name", of.1)));
    let number = |field: &str| kind.and_then(|kind| kind.get(field)?.as_f64());
    let (Some(slope), Some(intercept)) = (number("bytes_per_connection"), number("intercept_bytes")) else {
        return Vec::new();
    };
    let steps = report.get("steps_connections").map(numbers).unwrap_or_default();
    let bytes = kind.and_then(|kind| kind.get("steps_bytes")).map(numbers).unwrap_or_default();
    let base = if grown { intercept } else { 0.0 };
    let points: Vec<(f64, Option<f64>)> =
        steps.iter().zip(bytes).filter_map(|(at, bytes)| Some(((*at)?, Some(bytes? - base)))).collect();
    let places = std::iter::once(0.0).chain(points.iter().map(|(place, _)| *place));
    let fitted = places.map(|place| (place, Some(intercept + slope * place - base))).collect();
    vec![
        Line { name: name.to_owned(), style: Style::Points, colour, points },
        Line { name: String::new(), style: Style::Line, colour, points: fitted },
    ]
}

/// A column of the series as it is.
fn series_line(report: &Value, column: &str, name: &str, colour: usize) -> Line {
    Line { name: name.to_owned(), style: Style::Line, colour, points: series(report, column) }
}

/// How much a running sum grows each second.
fn rate_line(report: &Value, column: &str, name: &str, colour: usize) -> Line {
    let sums = series(report, column);
    let mut points = Vec::new();
    let mut from: Option<(f64, f64)> = None;
    for (index, (at, sum)) in sums.iter().enumerate() {
        let Some(sum) = *sum else {
            from = None;
            continue;
        };
        let Some((from_at, from_sum)) = from else {
            from = Some((*at, sum));
            continue;
        };
        let seconds = at - from_at;
        let only_one = index + 1 == sums.len() && points.is_empty();
        if seconds >= RATE_SECONDS_MIN || (only_one && seconds > 0.0) {
            points.push((*at, Some((sum - from_sum).max(0.0) / seconds)));
            from = Some((*at, sum));
        }
    }
    // Something that never grew is no rate worth a chart: a command that sends nothing receives nothing.
    let grew = points.iter().any(|(_, rate)| rate.is_some_and(|rate| rate > 0.0));
    Line { name: name.to_owned(), style: Style::Line, colour, points: if grew { points } else { Vec::new() } }
}

fn series(report: &Value, column: &str) -> Vec<(f64, Option<f64>)> {
    let read = |name: &str| report.get("series").and_then(|series| series.get(name)).map(numbers);
    let (Some(at), Some(values)) = (read("at_seconds"), read(column)) else { return Vec::new() };
    at.iter().zip(values).filter_map(|(at, value)| Some(((*at)?, value))).collect()
}

fn numbers(column: &Value) -> Vec<Option<f64>> {
    column.as_array().map(|values| values.iter().map(Value::as_f64).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn rates_are_differences_over_long_enough_intervals() {
        let report = json!({ "series": { "at_seconds": [0.0, 1.0, 1.1, 2.0, 4.0], "messages": [0, 100, 105, 200, null] } });
        let line = rate_line(&report, "messages", "received", 1);
        assert_eq!(line.points, [(1.0, Some(100.0)), (2.0, Some(100.0))]);
        let short = json!({ "series": { "at_seconds": [0.0, 0.2], "messages": [0, 10] } });
        assert_eq!(rate_line(&short, "messages", "received", 1).points, [(0.2, Some(50.0))]);
        let nothing = json!({ "series": { "at_seconds": [0.0, 1.0], "messages": [0, 0] } });
        assert!(rate_line(&nothing, "messages", "received", 1).points.is_empty());
    }

    #[test]
    fn a_result_without_a_field_has_no_such_chart() {
        assert!(charts(&json!({})).iter().all(|chart| chart.card().is_empty()));
    }

    #[test]
    fn steps_are_points_with_a_line_through_them() {
        let step = |value: f64, p99: f64| json!({ "value": value, "result": { "latency": { "p99_microseconds": p99 } } });
        let report = json!({ "variable": "rate", "steps": [step(100.0, 5.0), step(200.0, 7.0)] });
        let all = charts(&report);
        let chart = all.iter().find(|chart| chart.title == "Latency by step").unwrap();
        assert_eq!(chart.lines.len(), 2, "what no step has makes no line");
        assert_eq!(chart.lines[0].points, [(100.0, Some(5.0)), (200.0, Some(7.0))]);
        assert_eq!(chart.x.label, "rate (per second)");
    }

    #[test]
    fn the_study_draws_points_and_their_line() {
        let report = json!({
            "steps_connections": [10, 20],
            "kinds": [
                { "name": "user", "end": "server", "steps_bytes": [1500, 2500],
                  "bytes_per_connection": 100.0, "intercept_bytes": 500.0 },
                { "name": "slab", "end": "both", "steps_bytes": [null, null],
                  "bytes_per_connection": null, "intercept_bytes": null },
            ],
        });
        let charts = memory_by_connections(&report);
        assert_eq!(charts[0].lines.len(), 2, "what is unknown has no line");
        assert_eq!(
            charts[0].lines[1].points,
            [(0.0, Some(500.0)), (10.0, Some(1500.0)), (20.0, Some(2500.0))]
        );
        assert!(charts[1].lines.is_empty());
        let grown = step_lines(&report, ("server", "user"), "server", 1, true);
        assert_eq!(grown[0].points, [(10.0, Some(1000.0)), (20.0, Some(2000.0))]);
    }
}
