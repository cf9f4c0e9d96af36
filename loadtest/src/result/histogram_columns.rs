//! Histograms in result files: a column of values and a column of counts, from which they can be made again
//! without loss, so that several runs can be merged; and the HdrHistogram log of `--hdr`.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use hdrhistogram::Histogram;
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};
use serde::Serialize;
use serde_json::Value;

use crate::result::tally::new_histogram;
use crate::result::whole_file;

/// A histogram as a result file holds it. Only buckets that were hit are in it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct HistogramColumns {
    /// A value of each bucket, rising. Buckets have three significant digits.
    values_nanoseconds: Vec<u64>,
    /// How many values the bucket holds.
    counts: Vec<u64>,
}

impl HistogramColumns {
    /// All of `histogram`, whose values are nanoseconds.
    pub(crate) fn new(histogram: &Histogram<u64>) -> Self {
        let buckets = || histogram.iter_recorded();
        Self {
            values_nanoseconds: buckets().map(|bucket| bucket.value_iterated_to()).collect(),
            counts: buckets().map(|bucket| bucket.count_at_value()).collect(),
        }
    }
}

/// What came in a span of a run, about a second.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Interval {
    /// When it begins, in seconds since the first connect.
    pub(crate) from_seconds: f64,
    /// How long it is.
    pub(crate) seconds: f64,
    /// The latencies of what came in it.
    pub(crate) histogram: HistogramColumns,
}

impl Interval {
    /// Adds the one behind it.
    pub(crate) fn join(&mut self, next: &Self) {
        self.seconds = next.from_seconds + next.seconds - self.from_seconds;
        let mut sums: BTreeMap<u64, u64> = BTreeMap::new();
        for columns in [&self.histogram, &next.histogram] {
            for (value, count) in columns.values_nanoseconds.iter().zip(&columns.counts) {
                *sums.entry(*value).or_default() += count;
            }
        }
        let (values_nanoseconds, counts) = sums.into_iter().unzip();
        self.histogram = HistogramColumns { values_nanoseconds, counts };
    }
}

/// The histogram of a latency in a result file, if it has one that is well formed.
pub(crate) fn read(latency: &Value) -> Option<Histogram<u64>> {
    let columns = latency.get("histogram")?;
    let column = |name: &str| columns.get(name)?.as_array();
    let (values, counts) = (column("values_nanoseconds")?, column("counts")?);
    if values.len() != counts.len() {
        return None;
    }
    let mut histogram = new_histogram();
    for (value, count) in values.iter().zip(counts) {
        histogram.saturating_record_n(value.as_u64()?, count.as_u64()?);
    }
    Some(histogram)
}

/// The runs that hold the values of a result: those of `--repeat`, those of each step of `capacity`, or itself.
fn single_runs(report: &Value) -> Vec<&Value> {
    let list = |name: &str| report.get(name).and_then(Value::as_array).filter(|list| !list.is_empty());
    if let Some(repeats) = list("repeats") {
        return repeats.iter().collect();
    }
    match list("steps") {
        Some(steps) => steps.iter().filter_map(|step| step.get("result")).flat_map(single_runs).collect(),
        None => vec![report],
    }
}

/// Writes the latencies of each run as intervals of an HdrHistogram log, under the latency's name as its tag: of messages
/// one for each second, so that viewers show a course, and one each of the others.
/// Values are nanoseconds; the log's maximum is in milliseconds, as with the Java tools.
pub(crate) fn write_log(path: &Path, report: &Value) -> Result<(), String> {
    let wrong = |error: String| format!("--hdr {}: {error}", path.display());
    let begin_of =
        |run: &Value| run.get("started_unix_seconds").and_then(Value::as_f64).unwrap_or(0.0).max(0.0);
    let seconds_of = |run: &Value| {
        let column = run.pointer("/series/at_seconds").and_then(Value::as_array);
        column.and_then(|column| column.last()?.as_f64()).unwrap_or(0.0).max(0.0)
    };
    let runs = single_runs(report);
    let mut bytes = Vec::new();
    let mut serializer = V2DeflateSerializer::new();
    let mut builder = IntervalLogWriterBuilder::new();
    builder
        .add_comment("[Values are nanoseconds; the maximum of a line is in milliseconds]")
        .with_start_time(UNIX_EPOCH + Duration::from_secs_f64(runs.first().map_or(0.0, |run| begin_of(run))))
        .with_max_value_divisor(1e6);
    let mut log =
        builder.begin_log_with(&mut bytes, &mut serializer).map_err(|error| wrong(error.to_string()))?;
    for run in runs {
        let (begin, seconds) =
            (Duration::from_secs_f64(begin_of(run)), Duration::from_secs_f64(seconds_of(run)));
        let intervals = intervals(run);
        for (name, histogram) in latencies(run) {
            if name == "latency" && !intervals.is_empty() {
                continue;
            }
            let tag = Tag::new(&name).ok_or_else(|| wrong(format!("{name} is no name for a tag")))?;
            log.write_histogram(&histogram, begin, seconds, Some(tag))
                .map_err(|error| wrong(format!("{error:?}")))?;
        }
        for (from, seconds, histogram) in intervals {
            let tag = Tag::new("latency");
            log.write_histogram(&histogram, begin + from, seconds, tag)
                .map_err(|error| wrong(format!("{error:?}")))?;
        }
    }
    drop(log);
    whole_file::put(path, &bytes).map_err(|error| wrong(error.to_string()))
}

/// The latencies of messages second by second, with when each begins and how long it is.
fn intervals(run: &Value) -> Vec<(Duration, Duration, Histogram<u64>)> {
    let list = run.get("latency_intervals").and_then(Value::as_array);
    let seconds = |interval: &Value, name: &str| {
        Duration::try_from_secs_f64(interval.get(name)?.as_f64()?.max(0.0)).ok()
    };
    let read = |interval: &Value| {
        Some((seconds(interval, "from_seconds")?, seconds(interval, "seconds")?, read(interval)?))
    };
    list.into_iter().flatten().filter_map(read).collect()
}

/// Every latency of a result by its path, as in `connections.connect_latency`.
pub(crate) fn latencies(report: &Value) -> Vec<(String, Histogram<u64>)> {
    let mut found = Vec::new();
    collect(report, "", &mut found);
    found
}

fn collect(value: &Value, path: &str, found: &mut Vec<(String, Histogram<u64>)>) {
    let Some(fields) = value.as_object() else { return };
    if let Some(histogram) = read(value) {
        found.push((path.to_owned(), histogram));
        return;
    }
    // By name, whatever order the fields were written in.
    let mut fields: Vec<_> = fields.iter().collect();
    fields.sort_unstable_by_key(|(name, _)| *name);
    for (name, field) in fields {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        collect(field, &path, found);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    fn sample() -> Histogram<u64> {
        let mut histogram = new_histogram();
        for value in [1_000, 1_001, 12_345, 999_999_937, 3_600_000_000_000] {
            histogram.saturating_record_n(value, value % 7 + 1);
        }
        histogram
    }

    #[test]
    fn columns_lose_nothing() {
        let histogram = sample();
        let columns = serde_json::json!({ "histogram": HistogramColumns::new(&histogram) });
        assert_eq!(read(&columns).unwrap(), histogram);
        assert_eq!(read(&columns).unwrap().max(), histogram.max());
        assert_eq!(read(&columns).unwrap().min(), histogram.min());
        let broken = serde_json::json!({ "histogram": { "values_nanoseconds": [1], "counts": [] } });
        assert!(read(&broken).is_none());
    }

    #[test]
    fn the_log_has_a_tagged_line_for_each_latency() {
        let path = std::env::temp_dir().join(format!("fantail-hdr-{}.log", std::process::id()));
        let latency = serde_json::json!({ "histogram": HistogramColumns::new(&sample()) });
        let report = serde_json::json!({
            "latency": latency, "connections": { "connect_latency": latency },
            "started_unix_seconds": 1.5e9, "series": { "at_seconds": [0.0, 2.5] },
        });
        write_log(&path, &report).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let mut tags = Vec::new();
        for entry in IntervalLogIterator::new(&bytes) {
            if let LogEntry::Interval(interval) = entry.unwrap() {
                assert_eq!(interval.duration(), Duration::from_secs_f64(2.5));
                assert!(interval.encoded_histogram().starts_with("HIST"));
                tags.push(interval.tag().unwrap().as_str().to_owned());
            }
        }
        assert_eq!(tags, ["connections.connect_latency", "latency"]);
    }

    #[test]
    fn messages_have_an_interval_a_second_and_lose_none_when_two_are_joined() {
        let of = |value: u64, count: u64| {
            let mut histogram = new_histogram();
            histogram.saturating_record_n(value, count);
            HistogramColumns::new(&histogram)
        };
        let interval =
            |from: f64, value: u64| Interval { from_seconds: from, seconds: 1.0, histogram: of(value, 3) };
        let mut joined = interval(0.0, 5_000);
        joined.join(&interval(1.0, 5_000));
        joined.join(&interval(2.0, 70_000));
        assert_eq!((joined.seconds, &joined.histogram.counts[..]), (3.0, &[6, 3][..]));
        let latency = serde_json::json!({ "histogram": of(9_000, 12) });
        let report = serde_json::json!({ "latency": latency, "connections": { "connect_latency": latency },
            "started_unix_seconds": 100.0, "latency_intervals": [joined, interval(3.0, 9_000)] });
        let path = std::env::temp_dir().join(format!("fantail-hdr-seconds-{}.log", std::process::id()));
        write_log(&path, &report).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let mut found = Vec::new();
        for entry in IntervalLogIterator::new(&bytes) {
            if let LogEntry::Interval(interval) = entry.unwrap() {
                let tag = interval.tag().unwrap().as_str().to_owned();
                found.push((tag, interval.start_timestamp().as_secs(), interval.duration().as_secs()));
            }
        }
        let latency = |from, seconds| ("latency".to_owned(), from, seconds);
        assert_eq!(found[1..], [latency(100, 3), latency(103, 1)]);
        assert_eq!(found.len(), 3);
    }

    #[test]
    fn the_log_of_repeats_and_steps_has_the_values_of_every_run() {
        let path = std::env::temp_dir().join(format!("fantail-hdr-runs-{}.log", std::process::id()));
        let run = |begin: f64| {
            let latency = serde_json::json!({ "histogram": HistogramColumns::new(&sample()) });
            serde_json::json!({ "latency": latency, "started_unix_seconds": begin })
        };
        // Medians of several runs have no values of their own.
        let medians = serde_json::json!({ "histogram": { "values_nanoseconds": [], "counts": [] } });
        let repeated = serde_json::json!({ "latency": medians, "repeats": [run(10.0), run(20.0)] });
        let steps = serde_json::json!({ "steps": [{ "result": run(5.0) }, { "result": repeated.clone() }] });
        for (report, begins) in [(repeated, &[10.0, 20.0][..]), (steps, &[5.0, 10.0, 20.0])] {
            write_log(&path, &report).unwrap();
            let bytes = std::fs::read(&path).unwrap();
            std::fs::remove_file(&path).unwrap();
            let mut found = Vec::new();
            for entry in IntervalLogIterator::new(&bytes) {
                if let LogEntry::Interval(interval) = entry.unwrap() {
                    assert!(interval.max() > 0.0, "it has values");
                    found.push(interval.start_timestamp().as_secs_f64());
                }
            }
            assert_eq!(found, begins);
        }
    }
}
