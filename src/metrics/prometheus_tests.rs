//! The text of `/metrics` through a strict reader of the exposition format: what it accepts, Prometheus does.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::*;
use crate::metrics::backend::BackendFacts;
use crate::metrics::calls::CallReading;
use crate::metrics::facts::{HistoryFacts, LoopFacts, PresenceFacts, TableFacts};
use crate::metrics::forward::ForwardFacts;
use crate::metrics::jwks::{JwksFacts, JwksSet};
use crate::metrics::{LoopCounters, ReloadCounts, WebhookCounts};
use crate::sys::process::MemoryUse;

/// A server with two client loops and something counted.
pub(in crate::metrics) fn facts(counters: &[LoopCounters; 3]) -> Facts<'_> {
    let labels = ["0", "1", "admin"];
    let loops = labels.iter().zip(counters).map(|(label, counters)| LoopFacts {
        label: (*label).to_owned(),
        counters,
        mailbox_entries: 2,
        mailbox_bytes: 300,
    });
    let table = |label: &&str| TableFacts { label: (*label).to_owned(), used: 9 };
    Facts {
        loops: loops.collect(),
        tables: labels.iter().map(table).collect(),
        descriptors_max: Some(1024),
        connections_max: 1920,
        topics: 5,
        patterns: 2,
        revocations: 3,
        context_bytes: 70_000,
        context_bytes_max: 1 << 26,
        deflate_declined: 2,
        admission_addresses: 3,
        identities: 0,
        admission_bytes: 4_096,
        outbox_held_bytes: 70,
        outbox_held_bytes_max: 1 << 28,
        outbox_full: 3,
        history: HistoryFacts { messages: 4, bytes: 500, bytes_max: 1 << 28, expired: 7, trimmed: 6 },
        presence: PresenceFacts {
            members: 3,
            bytes: 444,
            events: 9,
            unlisted: 2,
            states: 1,
            states_refused: 5,
        },
        mailbox_bytes_max: 1 << 26,
        mailbox_entries_max: 65_536,
        memory: Some(MemoryUse { rss_anon: 4_000, rss_file: 50, rss_shmem: 600, hugetlb: 0, swap: 7 }),
        empty_user_bytes: Some(1_607),
        cpu_time: Some(Duration::from_millis(1_250)),
        started: Duration::from_millis(1_700_000_000_500),
        uptime: Duration::from_secs(60),
        draining: false,
        certificates: vec![("a.pem".to_owned(), 4_000_000_000)],
        authorities: vec![("ca.pem".to_owned(), 3_500_000_000)],
        backend: Some(BackendFacts { call_ms: 1_500, left_alone: true, ..BackendFacts::default() }),
        forward: Some(ForwardFacts { waiting: 3, ..ForwardFacts::default() }),
        jwks: JwksFacts {
            fetches: CallReading::default(),
            sets: vec![JwksSet { url: "https://a.example/keys#2".to_owned(), keys: 2, age_seconds: 30 }],
        },
        ocsp: vec![("a.ocsp".to_owned(), 3_000_000_000)],
        admin_tls: false,
        tls_key_log: false,
        reloads: ReloadCounts { applied: 2, refused: 1, last_success_seconds: 1_700_000_000 },
        webhook: WebhookCounts::default().reading(),
        log_lines_dropped: 1,
        log_lines_suppressed: 12,
    }
}

/// Samples by name and labels; what is not the format is a panic with the line.
fn parse(text: &str) -> BTreeMap<String, f64> {
    assert!(text.ends_with('\n'), "the last line needs an end");
    let mut samples = BTreeMap::new();
    let (mut helped, mut typed) = (BTreeSet::new(), BTreeMap::new());
    let mut family = String::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').expect(line);
            assert!(!help.is_empty() && !help.contains('\\'), "{line}");
            assert!(helped.insert(name.to_owned()), "a second HELP: {line}");
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect(line);
            assert!(helped.contains(name), "TYPE without HELP: {line}");
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert!(typed.insert(name.to_owned(), kind.to_owned()).is_none(), "a second TYPE: {line}");
            family = name.to_owned();
        } else {
            let (series, value) = line.rsplit_once(' ').expect(line);
            let value: f64 = value.parse().expect(line);
            let name = name_of(series);
            let kind = &typed[&family];
            let allowed: &[&str] = if kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
            let suffix = name.strip_prefix(family.as_str()).expect("a sample stands below its TYPE");
            assert!(allowed.contains(&suffix), "{line} below {family}");
            assert_eq!(kind == "counter", family.ends_with("_total"), "{family} is a {kind}");
            assert!(value >= 0.0 && value.is_finite(), "{line}");
            assert!(samples.insert(series.to_owned(), value).is_none(), "twice: {line}");
        }
    }
    samples
}

/// The name of a series, whose labels must be well formed.
fn name_of(series: &str) -> &str {
    let legal = |name: &str| {
        let rest = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        name.bytes().all(rest) && name.starts_with(|first: char| first.is_ascii_alphabetic())
    };
    let (name, labels) = series.split_once('{').unwrap_or((series, ""));
    assert!(legal(name), "{series}");
    if labels.is_empty() {
        return name;
    }
    let mut seen = BTreeSet::new();
    for pair in labels.strip_suffix('}').expect(series).split(',') {
        let (label, value) = pair.split_once('=').expect(series);
        let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).expect(series);
        assert!(legal(label) && !value.contains(['"', '\\', '\n']), "{series}");
        assert!(seen.insert(label), "a label twice: {series}");
    }
    name
}

fn rendered() -> BTreeMap<String, f64> {
    let counters: [LoopCounters; 3] = Default::default();
    counters[0].closed(CloseReason::Drain);
    counters[1].closed(CloseReason::Drain);
    counters[0].deliveries.add(7);
    counters[0].accepted.add(3);
    counters[0].connections_closed.add(1);
    for ns in [5_000, 20_000, 9_000_000_000] {
        counters[1].turn_times.observe(ns);
    }
    let mut out = String::new();
    render(&facts(&counters), &mut out);
    parse(&out)
}

#[test]
fn every_line_is_what_the_format_allows_and_tells_the_numbers() {
    let samples = rendered();
    for (series, value) in [
        ("fantail_deliveries_total{loop=\"0\"}", 7.0),
        ("fantail_connections{loop=\"0\"}", 2.0),
        ("fantail_closes_total{reason=\"drain\"}", 2.0),
        ("fantail_refusals_total{reason=\"busy\"}", 0.0),
        ("fantail_descriptors{table=\"admin\"}", 9.0),
        ("process_max_fds", 1024.0),
        ("process_resident_memory_bytes", 4_650.0),
        ("fantail_memory_bytes{kind=\"swap\"}", 7.0),
        ("process_cpu_seconds_total", 1.25),
        ("process_start_time_seconds", 1_700_000_000.5),
        ("fantail_mailbox_bytes{loop=\"1\"}", 300.0),
        ("fantail_log_lines_suppressed_total", 12.0),
    ] {
        assert_eq!(samples.get(series), Some(&value), "{series}");
    }
    let build = samples.keys().find(|series| series.starts_with("fantail_build_info{")).expect("a sample");
    let version = format!("version=\"{}\"", env!("CARGO_PKG_VERSION"));
    assert!(build.contains(&version) && build.contains("rustc=\"1."), "{build}");
}

#[test]
fn every_metric_has_a_sample() {
    let samples = rendered();
    for name in names::all() {
        let of = |series: &String| {
            let rest = series.strip_prefix(name).unwrap_or("-");
            rest.is_empty() || rest.starts_with('{') || rest.starts_with("_bucket{")
        };
        assert!(samples.keys().any(of), "no sample of {name}");
    }
}

#[test]
fn buckets_of_a_histogram_grow_to_its_count() {
    let samples = rendered();
    let bucket =
        |bound: &str| samples[&format!("fantail_loop_turn_seconds_bucket{{loop=\"1\",le=\"{bound}\"}}")];
    let bounds = TURN_BOUNDS.iter().map(|(_, bound)| *bound).chain(["+Inf"]);
    let values: Vec<f64> = bounds.map(bucket).collect();
    assert!(values.is_sorted(), "{values:?}");
    assert_eq!((values[0], values[1], values[11], values[12]), (1.0, 2.0, 2.0, 3.0));
    assert_eq!(samples["fantail_loop_turn_seconds_count{loop=\"1\"}"], 3.0);
    assert!((samples["fantail_loop_turn_seconds_sum{loop=\"1\"}"] - 9.000_025).abs() < 1e-9);
}

#[test]
fn the_reader_refuses_what_is_not_the_format() {
    let head = "# HELP a_total Some.\n# TYPE a_total counter\n";
    parse(&format!("{head}a_total{{x=\"1\"}} 2\n"));
    for wrong in
        ["a_total 1", "b_total 1\n", "a_total{x=1} 2\n", "a_total{x=\"1\",x=\"2\"} 2\n", "a_total -1\n"]
    {
        let text = format!("{head}{wrong}");
        assert!(std::panic::catch_unwind(|| parse(&text)).is_err(), "{wrong:?} was taken");
    }
}

#[test]
fn without_procfs_the_rest_is_told() {
    let counters: [LoopCounters; 3] = Default::default();
    let mut facts = facts(&counters);
    (facts.memory, facts.cpu_time, facts.descriptors_max) = (None, None, None);
    let mut out = String::new();
    render(&facts, &mut out);
    let samples = parse(&out);
    assert!(!samples.contains_key("process_resident_memory_bytes"));
    assert!(samples.contains_key("fantail_topics"));
}
