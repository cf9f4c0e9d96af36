//! The text exposition format 0.0.4 (`text/plain; version=0.0.4`). Appends to a string; asks nothing.

use std::fmt::Write;
use std::sync::Arc;

use super::counters::{Counter, LoopCounters};
use super::names::{self, Metric, Type};
use super::process::ProcessFacts;
use super::reasons::{CloseReason, DropReason, RefuseReason};

/// Appends all metrics: sums over the loops, and by loop what tells whether their shares are even.
pub fn render(counters: &[Arc<LoopCounters>], facts: &ProcessFacts, out: &mut String) {
    let labels = format!("version=\"{}\"", escaped(env!("CARGO_PKG_VERSION")));
    family(out, names::BUILD_INFO, [(labels, 1)]);
    single(out, names::LOOPS, counters.len() as u64);
    family(out, names::CONNECTIONS, by_loop(counters.iter().map(|loop_| loop_.connections_open())));
    if !facts.descriptors.is_empty() {
        family(out, names::DESCRIPTORS, by_loop(facts.descriptors.iter().copied()));
    }
    let sum = |out: &mut String, metric, counter: fn(&LoopCounters) -> &Counter| {
        single(out, metric, counters.iter().map(|loop_| counter(loop_).load()).sum());
    };
    sum(out, names::ACCEPTED, |c| &c.accepted);
    sum(out, names::ACCEPT_ERRORS, |c| &c.accept_errors);
    sum(out, names::OPENED, |c| &c.connections_opened);
    sum(out, names::UPGRADES, |c| &c.upgrades);
    family(
        out,
        names::REFUSALS,
        RefuseReason::ALL.map(|reason| {
            let total = counters.iter().map(|loop_| loop_.refusals().load(reason.index())).sum();
            (label("reason", reason.label()), total)
        }),
    );
    family(
        out,
        names::CLOSES,
        CloseReason::ALL.map(|reason| {
            let total = counters.iter().map(|loop_| loop_.closes().load(reason.index())).sum();
            (label("reason", reason.label()), total)
        }),
    );
    sum(out, names::MESSAGES_RECEIVED, |c| &c.messages_received);
    sum(out, names::PUBLISHES, |c| &c.publishes);
    sum(out, names::PUBLISHES_BUSY, |c| &c.publishes_busy);
    sum(out, names::IGNORED_PUBLISHES, |c| &c.ignored_publishes);
    sum(out, names::DELIVERIES, |c| &c.deliveries);
    family(
        out,
        names::DROPS,
        DropReason::ALL.map(|reason| {
            let total = counters.iter().map(|loop_| loop_.drops().load(reason.index())).sum();
            (label("policy", reason.label()), total)
        }),
    );
    sum(out, names::WOULD_BLOCKS, |c| &c.would_blocks);
    sum(out, names::OUTBOX_BYTES, |c| &c.outbox_bytes);
    sum(out, names::HEARTBEATS_SENT, |c| &c.heartbeats_sent);
    sum(out, names::HEARTBEATS_UNANSWERED, |c| &c.heartbeats_unanswered);
    sum(out, names::WAKEUPS, |c| &c.wakeups);
    sum(out, names::TURNS, |c| &c.turns);
    sum(out, names::STALE_KEYS, |c| &c.stale_keys);
    if let Some(bytes) = facts.resident_memory_bytes {
        single(out, names::RESIDENT_MEMORY, bytes);
    }
    if let Some(started) = facts.started {
        single(out, names::START_TIME, started.as_secs());
    }
}

fn by_loop(values: impl Iterator<Item = u64>) -> impl Iterator<Item = (String, u64)> {
    values.enumerate().map(|(index, value)| (label("loop", &index.to_string()), value))
}

fn label(name: &str, value: &str) -> String {
    format!("{name}=\"{}\"", escaped(value))
}

/// Label values quote backslash, quote and newline.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

fn single(out: &mut String, metric: Metric, value: u64) {
    family(out, metric, [(String::new(), value)]);
}

fn family(out: &mut String, metric: Metric, samples: impl IntoIterator<Item = (String, u64)>) {
    let Metric { name, kind, help } = metric;
    let kind = match kind {
        Type::Counter => "counter",
        Type::Gauge => "gauge",
    };
    // Writing to a string cannot fail.
    let _ = write!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    for (labels, value) in samples {
        let _ = match labels.as_str() {
            "" => writeln!(out, "{name} {value}"),
            labels => writeln!(out, "{name}{{{labels}}} {value}"),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::time::Duration;

    /// Reads the format line by line and holds it to its rules: HELP, TYPE, then that family's samples.
    fn parse(text: &str) -> BTreeMap<String, f64> {
        assert!(text.ends_with('\n'));
        let (mut samples, mut families) = (BTreeMap::new(), Vec::<String>::new());
        let (mut helped, mut typed) = (String::new(), String::new());
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').unwrap();
                assert!(!help.is_empty() && !families.contains(&name.to_owned()), "{line}");
                helped = name.to_owned();
                families.push(helped.clone());
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap();
                assert!(name == helped && ["counter", "gauge"].contains(&kind), "{line}");
                typed = name.to_owned();
            } else {
                let (series, value) = line.rsplit_once(' ').unwrap();
                let name = series.split('{').next().unwrap();
                assert_eq!(name, typed, "{line}");
                if let Some(labels) = series.strip_prefix(name).filter(|labels| !labels.is_empty()) {
                    let labels = labels.strip_prefix('{').and_then(|l| l.strip_suffix('}')).unwrap();
                    let (label, value) = labels.split_once('=').unwrap();
                    assert!(label.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{line}");
                    assert!(value.len() >= 2 && value.starts_with('"') && value.ends_with('"'), "{line}");
                }
                assert!(samples.insert(series.to_owned(), value.parse().unwrap()).is_none(), "{line}");
            }
        }
        samples
    }

    #[test]
    fn every_line_parses_and_sums_over_loops() {
        let loops: Vec<_> = (0..2).map(|_| Arc::new(LoopCounters::default())).collect();
        for counters in &loops {
            counters.connections_opened.add(10);
            counters.deliveries.add(7);
            counters.close(CloseReason::SlowConsumer);
        }
        loops[1].refuse(RefuseReason::Busy);
        loops[0].drop_messages(DropReason::DropNewest, 3);
        let facts = ProcessFacts {
            resident_memory_bytes: Some(12 << 20),
            started: Some(Duration::from_secs(1_700_000_000)),
            descriptors: vec![20, 21],
        };
        let mut text = String::new();
        render(&loops, &facts, &mut text);
        let samples = parse(&text);
        for (series, value) in [
            ("fantail_loops", 2.0),
            ("fantail_connections{loop=\"0\"}", 9.0),
            ("fantail_connections{loop=\"1\"}", 9.0),
            ("fantail_descriptors{loop=\"1\"}", 21.0),
            ("fantail_deliveries_total", 14.0),
            ("fantail_closes_total{reason=\"slow_consumer\"}", 2.0),
            ("fantail_closes_total{reason=\"drain\"}", 0.0),
            ("fantail_refusals_total{reason=\"busy\"}", 1.0),
            ("fantail_drops_total{policy=\"drop_newest\"}", 3.0),
            ("process_resident_memory_bytes", f64::from(12 << 20)),
            ("process_start_time_seconds", 1.7e9),
        ] {
            assert_eq!(samples.get(series), Some(&value), "{series}");
        }
        assert!(samples.keys().any(|series| series.starts_with("fantail_build_info{version=")));
        let families = text.lines().filter_map(|l| l.strip_prefix("# TYPE ")?.split(' ').next());
        let expected: Vec<_> = names::ALL.iter().map(|metric| metric.name).collect();
        assert_eq!(families.collect::<Vec<_>>(), expected, "a metric is not rendered, or out of order");
    }

    #[test]
    fn unknown_facts_are_left_out() {
        let mut text = String::new();
        render(&[], &ProcessFacts::default(), &mut text);
        parse(&text);
        assert!(!text.contains("process_") && !text.contains("fantail_descriptors"));
    }

    #[test]
    fn label_values_are_escaped() {
        assert_eq!(escaped("a\"b\\c\nd"), "a\\\"b\\\\c\\nd");
    }
}
