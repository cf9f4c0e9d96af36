//! The JSON of `/stats` through a real reader.

use serde_json::Value;

use super::super::prometheus::tests::facts;
use super::*;
use crate::metrics::LoopCounters;

fn rendered(fill: impl FnOnce(&[LoopCounters; 3])) -> Value {
    let counters: [LoopCounters; 3] = Default::default();
    fill(&counters);
    let mut out = Vec::new();
    render(&facts(&counters), &mut out);
    assert_eq!(out.iter().filter(|byte| **byte == b'\n').count(), 1, "one line");
    serde_json::from_slice(&out).expect("JSON")
}

#[test]
fn what_a_connection_costs_is_told_by_part() {
    let stats = rendered(|counters| {
        counters[0].accepted.add(8);
        counters[1].accepted.add(3);
        counters[1].connections_closed.add(1);
        counters[0].slot_bytes.set(1_000);
        counters[0].subscriptions.set(25);
        counters[1].inbox_bytes.set(500);
    });
    assert_eq!(stats["connections"], 10);
    let each = &stats["bytes_per_connection"];
    // 4,607 bytes of which 1,607 were there before anybody came.
    assert_eq!((each["user"].as_f64(), each["above_empty"].as_f64()), (Some(460.7), Some(300.0)));
    assert_eq!((each["slots"].as_f64(), each["subscriptions"].as_f64()), (Some(100.0), Some(10.0)));
    assert_eq!((each["inboxes"].as_f64(), each["rest"].as_f64()), (Some(50.0), Some(140.0)));
}

#[test]
fn nobody_costs_nothing_that_could_be_divided() {
    let stats = rendered(|_| {});
    assert_eq!(stats["connections"], 0);
    assert!(stats["bytes_per_connection"]["user"].is_null());
}

#[test]
fn every_loop_metric_is_there_for_each_loop_and_in_total() {
    let stats = rendered(|counters| {
        counters[0].deliveries.add(3);
        counters[1].deliveries.add(4);
        counters[1].turn_times.observe(20_000);
        counters[2].refused(RefuseReason::NotFound);
    });
    let loops = stats["loops"].as_array().expect("an array");
    let labels: Vec<_> = loops.iter().map(|facts| facts["loop"].as_str().expect("a label")).collect();
    assert_eq!(labels, ["0", "1", "admin"]);
    for metric in names::LOOP_METRICS {
        let key = short(metric.name);
        assert!(stats["totals"][key].is_u64() && loops.iter().all(|facts| facts[key].is_u64()), "{key}");
    }
    assert_eq!((&stats["totals"]["deliveries"], &loops[1]["deliveries"]), (&7.into(), &4.into()));
    assert_eq!(loops[1]["turn_seconds"]["p99_at_most"], 0.00003);
    assert_eq!(stats["refusals"]["not_found"], 1);
    assert_eq!(stats["closes"]["drain"], 0);
}
