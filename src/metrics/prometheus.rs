//! The text of `/metrics`, in Prometheus' exposition format 0.0.4. Reads counters; never resets one.

use std::fmt::Write;
use std::sync::Arc;

use super::counters::LoopCounters;
use super::names::{self, Kind};
use super::reasons::{CloseReason, DropReason, RefuseReason};

/// Writes every metric. The last of `loops` is the admin loop.
pub fn render(loops: &[Arc<LoopCounters>], resident_bytes: Option<u64>, out: &mut String) {
    head(out, names::BUILD_INFO, Kind::Gauge, "Version of the server, always 1.");
    line(out, names::BUILD_INFO, &format!("version=\"{}\"", env!("CARGO_PKG_VERSION")), 1);
    if let Some(bytes) = resident_bytes {
        head(out, names::RESIDENT, Kind::Gauge, "Resident memory in bytes.");
        line(out, names::RESIDENT, "", bytes);
    }
    head(out, names::CONNECTIONS, Kind::Gauge, "Connections open now.");
    for (label, counters) in labelled(loops) {
        let open = counters.accepted.value().saturating_sub(counters.connections_closed.value());
        line(out, names::CONNECTIONS, &label, open);
    }
    for metric in names::LOOP_METRICS {
        head(out, metric.name, metric.kind, metric.help);
        for (label, counters) in labelled(loops) {
            line(out, metric.name, &label, (metric.of)(counters).value());
        }
    }
    head(out, names::CLOSES, Kind::Counter, "Connections ended, by reason.");
    for reason in CloseReason::ALL {
        let sum = loops.iter().map(|counters| counters.closes(*reason)).sum();
        line(out, names::CLOSES, &format!("reason=\"{}\"", reason.label()), sum);
    }
    head(out, names::DROPS, Kind::Counter, "Messages that slow consumers missed, by policy.");
    for reason in DropReason::ALL {
        let sum = loops.iter().map(|counters| counters.drops(reason)).sum();
        line(out, names::DROPS, &format!("policy=\"{}\"", reason.label()), sum);
    }
    head(out, names::REFUSALS, Kind::Counter, "Requests refused, by reason.");
    for reason in RefuseReason::ALL {
        let sum = loops.iter().map(|counters| counters.refusals(*reason)).sum();
        line(out, names::REFUSALS, &format!("reason=\"{}\"", reason.label()), sum);
    }
}

/// Writes what all outboxes together hold, which no loop counts by itself.
pub fn render_outbox_total(held_bytes: u64, met_full: u64, out: &mut String) {
    head(out, names::OUTBOX_HELD, Kind::Gauge, "Bytes that count towards outbox.bytes_total now.");
    line(out, names::OUTBOX_HELD, "", held_bytes);
    head(
        out,
        names::OUTBOX_FULL,
        Kind::Counter,
        "Messages and answers that found outbox.bytes_total used up.",
    );
    line(out, names::OUTBOX_FULL, "", met_full);
}

fn labelled(loops: &[Arc<LoopCounters>]) -> impl Iterator<Item = (String, &Arc<LoopCounters>)> {
    loops.iter().enumerate().map(|(index, counters)| {
        let name = if index + 1 == loops.len() { "admin".to_owned() } else { index.to_string() };
        (format!("loop=\"{name}\""), counters)
    })
}

fn head(out: &mut String, name: &str, kind: Kind, help: &str) {
    let kind = match kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
    };
    // Writing to a String cannot fail.
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn line(out: &mut String, name: &str, labels: &str, value: u64) {
    let _ = if labels.is_empty() {
        writeln!(out, "{name} {value}")
    } else {
        writeln!(out, "{name}{{{labels}}} {value}")
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_a_comment_or_a_sample_of_a_declared_metric() {
        let loops = [Arc::new(LoopCounters::default()), Arc::new(LoopCounters::default())];
        loops[0].closed(CloseReason::Drain);
        loops[0].deliveries.add(7);
        let mut out = String::new();
        loops[1].dropped(DropReason::Latest, 3);
        render(&loops, Some(5), &mut out);
        render_outbox_total(9, 1, &mut out);
        let mut declared = Vec::new();
        for text in out.lines() {
            if let Some(rest) = text.strip_prefix("# TYPE ") {
                declared.push(rest.split(' ').next().unwrap_or_default().to_owned());
            } else if !text.starts_with("# HELP ") {
                let (name, value) = text.rsplit_once(' ').expect("a value");
                value.parse::<u64>().expect("a number");
                let name = name.split('{').next().unwrap_or_default();
                assert!(declared.iter().any(|known| known == name), "{name} was not declared");
            }
        }
        assert!(out.contains("fantail_deliveries_total{loop=\"0\"} 7\n"));
        assert!(out.contains("fantail_drops_total{policy=\"latest\"} 3\n"));
        assert!(out.contains("fantail_closes_total{reason=\"drain\"} 1\n"));
    }
}
