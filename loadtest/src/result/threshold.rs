//! `--fail-if`: conditions under which a result is not ok, and the metrics they name.
//!
//! A metric is a place in the result file, so whatever is judged can also be looked up there. Pure.

use std::fmt;

use serde_json::Value;

use crate::result::report::microseconds_text;

/// What a metric measures; it decides the units that a value may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A duration. Its place in the result file ends in `_microseconds` or `_seconds`.
    Time,
    /// How often something happened.
    Count,
    /// Per second.
    Rate,
    /// Bytes.
    Bytes,
    /// Between 0 and 1.
    Share,
}

/// A number that a threshold may name.
#[derive(Debug, PartialEq)]
pub(crate) struct Metric {
    /// Its name in `--fail-if`.
    pub(crate) name: &'static str,
    /// What it measures.
    pub(crate) kind: Kind,
    /// JSON pointer into the result file.
    pub(crate) place: &'static str,
    /// Commands that have it.
    commands: &'static [&'static str],
    /// For the help.
    what: &'static str,
}

const ALL: &[&str] = &["idle", "fanout", "echo", "ping", "storm", "slow", "memory", "rolling"];
const SENDING: &[&str] = &["fanout", "echo", "ping", "slow", "rolling"];
/// Those that put a load on while the generator watches itself.
const LOADED: &[&str] = &["fanout", "echo", "ping", "storm", "slow", "rolling"];
const ORDERED: &[&str] = &["fanout", "echo", "ping", "slow"];
const PUBLISHING: &[&str] = &["fanout", "slow"];
const STORM: &[&str] = &["storm"];
const RETURNING: &[&str] = &["storm", "rolling"];
const SLOW: &[&str] = &["slow"];

macro_rules! metrics {
    ($($name:literal $kind:ident $place:literal $commands:ident $what:literal;)*) => {
        [$(Metric { name: $name, kind: Kind::$kind, place: $place, commands: $commands, what: $what }),*]
    };
}

/// All metrics, in the order of the help.
pub(crate) static METRICS: &[Metric] = &metrics! {
    "p50" Time "/latency/p50_microseconds" SENDING "delivery latency or round trip";
    "p90" Time "/latency/p90_microseconds" SENDING "the same, 90th percentile";
    "p99" Time "/latency/p99_microseconds" SENDING "the same, 99th percentile";
    "p999" Time "/latency/p999_microseconds" SENDING "the same, 99.9th percentile";
    "max" Time "/latency/max_microseconds" SENDING "the same, longest";
    "missing" Count "/missing" SENDING "messages that did not come";
    "duplicate" Count "/duplicate" SENDING "messages that came again";
    "reordered" Count "/reordered" ORDERED "messages that came after a later one";
    "corrupt" Count "/corrupt" SENDING "messages that came changed";
    "wrapped" Count "/wrapped" ORDERED "messages that the server put other things around";
    "deliveries_rate" Rate "/deliveries_per_second" PUBLISHING "deliveries a second";
    "connect_p50" Time "/connections/connect_latency/p50_microseconds" ALL "from connect to open";
    "connect_p99" Time "/connections/connect_latency/p99_microseconds" ALL "the same, 99th percentile";
    "connect_max" Time "/connections/connect_latency/max_microseconds" ALL "the same, longest";
    "handshake_p99" Time "/tls/handshake_latency/p99_microseconds" ALL "TLS handshake, 99th percentile";
    "failed" Count "/connections/failed" ALL "connections that could not be opened";
    "lost" Count "/connections/lost" ALL "connections that were open and ended";
    "opened_rate" Rate "/connections/opened_per_second" ALL "connections opened a second";
    "late_sends" Count "/generator/late_sends" SENDING "sends more than 1 ms after their time";
    "late_share" Share "/generator/late_share" SENDING "share of sends that the generator itself made late";
    "busy_share" Share "/generator/busy_share" LOADED "share of the load in which the generator had no time left";
    "processor_wait_share" Share "/generator/processor_wait_share" LOADED "share of the load for which the generator waited for a processor";
    "bottleneck" Count "/generator/bottleneck" ALL "reasons why the generator was the bottleneck";
    "served_again" Time "/served_again_seconds" STORM "until all were open again";
    "unserved" Count "/unserved" RETURNING "clients that did not come back in time";
    "refused" Count "/refused" RETURNING "attempts to come back that failed";
    "away_p99" Time "/away/p99_microseconds" RETURNING "from a client's end to its return";
    "away_max" Time "/away/max_microseconds" RETURNING "the same, longest";
    "bystander_p99" Time "/bystander/during/p99_microseconds" STORM "a bystander's echo meanwhile";
    "bystander_max" Time "/bystander/during/max_microseconds" STORM "the same, longest";
    "slow_closed" Count "/slow/closed" SLOW "slow subscribers that the server closed";
    "memory_grown" Bytes "/server/user_bytes_grown" SLOW "what the server's memory grew by at its peak";
};

/// One `--fail-if`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Threshold {
    /// The number it looks at.
    pub(crate) metric: &'static Metric,
    comparison: Comparison,
    /// In the base unit: seconds, bytes, or a plain number.
    value: f64,
    text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Above,
    AtLeast,
    Below,
    AtMost,
}

impl Threshold {
    /// Parses `METRIC>VALUE`; also `>=`, `<` and `<=`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let at = text.find(['<', '>']).ok_or("needs < or >, as in p99>50ms")?;
        let (name, rest) = text.split_at(at);
        let (comparison, value) = match rest {
            rest if rest.starts_with(">=") => (Comparison::AtLeast, rest.get(2..)),
            rest if rest.starts_with("<=") => (Comparison::AtMost, rest.get(2..)),
            rest if rest.starts_with('>') => (Comparison::Above, rest.get(1..)),
            rest => (Comparison::Below, rest.get(1..)),
        };
        let name = name.trim();
        let metric = METRICS
            .iter()
            .find(|metric| metric.name == name)
            .ok_or_else(|| format!("there is no metric {name:?}; --help lists them"))?;
        let value = parse_value(metric.kind, value.unwrap_or_default().trim())?;
        Ok(Self { metric, comparison, value, text: text.to_owned() })
    }

    /// Refuses a metric that `command` does not have.
    pub(crate) fn check_command(&self, command: &str) -> Result<(), String> {
        if self.metric.commands.contains(&command) {
            return Ok(());
        }
        Err(format!("--fail-if {}: {command} does not measure {}", self.text, self.metric.name))
    }

    /// What is wrong with a result, if it breaks this. A number that is unknown breaks it too: nobody can
    /// say that it holds.
    pub(crate) fn broken_by(&self, report: &Value) -> Option<String> {
        let Some(value) = self.metric.value_in(report) else {
            return Some(format!("{} can't be judged: {} is not known", self.text, self.metric.name));
        };
        let broken = match self.comparison {
            Comparison::Above => value > self.value,
            Comparison::AtLeast => value >= self.value,
            Comparison::Below => value < self.value,
            Comparison::AtMost => value <= self.value,
        };
        broken.then(|| format!("{}: it is {}", self.text, self.metric.text(value)))
    }
}

impl fmt::Display for Threshold {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.text)
    }
}

impl Metric {
    /// Its value in a result file, in the base unit; `None` if it is not there or null.
    pub(crate) fn value_in(&self, report: &Value) -> Option<f64> {
        match report.pointer(self.place)? {
            Value::Array(list) => Some(list.len() as f64),
            number if self.place.ends_with("_microseconds") => Some(number.as_f64()? / 1e6),
            number => number.as_f64(),
        }
    }

    /// A value of it with its unit.
    pub(crate) fn text(&self, value: f64) -> String {
        match self.kind {
            Kind::Time => microseconds_text(Some(value * 1e6)),
            Kind::Count => format!("{value:.0}"),
            Kind::Rate => format!("{value:.0}/s"),
            Kind::Bytes => format!("{value:.0} bytes"),
            Kind::Share => format!("{value:.3}"),
        }
    }
}

/// The part of the help that lists the metrics.
pub(crate) fn help() -> String {
    let mut help = String::from("Metrics for --fail-if (times need a unit, as in 500us, 50ms, 2s):\n");
    let width = METRICS.iter().map(|metric| metric.name.len()).max().unwrap_or(0) + 2;
    for Metric { name, commands, what, .. } in METRICS {
        let commands = if *commands == ALL { "all".to_owned() } else { commands.join(", ") };
        help.push_str(&format!("  {name:width$}{what} ({commands})\n"));
    }
    help
}

fn parse_value(kind: Kind, text: &str) -> Result<f64, String> {
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: f64 = number.parse().map_err(|_| format!("{text:?} is not a number"))?;
    let factor = match (kind, unit) {
        (Kind::Time, "us") => 1e-6,
        (Kind::Time, "ms") => 1e-3,
        (Kind::Time, "s") => 1.0,
        (Kind::Time, "m") => 60.0,
        (Kind::Time, "") => return Err("a time needs a unit, as in 50ms".into()),
        (Kind::Count | Kind::Rate | Kind::Bytes | Kind::Share, "") => 1.0,
        (Kind::Count | Kind::Rate | Kind::Bytes, "k") => 1e3,
        (Kind::Bytes, "KiB") => 1024.0,
        (Kind::Bytes, "MiB") => 1024.0 * 1024.0,
        (Kind::Share, "%") => 0.01,
        _ => return Err(format!("unknown unit {unit:?}")),
    };
    Ok(number * factor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn broken(threshold: &str, report: &Value) -> Option<String> {
        Threshold::parse(threshold).unwrap().broken_by(report)
    }

    #[test]
    fn a_threshold_is_broken_only_beyond_its_value() {
        let report = json!({ "latency": { "p99_microseconds": 50_000.0 }, "missing": 0,
            "served_again_seconds": 2.5, "generator": { "bottleneck": ["a", "b"], "late_share": 0.02 } });
        assert_eq!(broken("p99>50ms", &report), None);
        assert_eq!(broken("p99>=50ms", &report).unwrap(), "p99>=50ms: it is 50.00 ms");
        assert!(broken("p99 > 49.9ms", &report).is_some());
        assert!(broken("p99<51ms", &report).is_some() && broken("p99<=0.05s", &report).is_some());
        assert_eq!(broken("missing>0", &report), None);
        assert!(broken("missing<=0", &report).is_some());
        assert_eq!(broken("served_again>2s", &report).unwrap(), "served_again>2s: it is 2.50 s");
        assert_eq!(broken("bottleneck>0", &report).unwrap(), "bottleneck>0: it is 2");
        assert!(broken("late_share>1%", &report).is_some());
    }

    #[test]
    fn what_is_not_known_breaks_it() {
        for report in
            [json!({}), json!({ "latency": null }), json!({ "latency": { "p99_microseconds": null } })]
        {
            assert!(broken("p99>50ms", &report).unwrap().contains("not known"));
        }
    }

    #[test]
    fn wrong_thresholds_are_refused() {
        for wrong in
            ["p99", "p99=5ms", "p99>5", "p99>", "p99>x", "p98>5ms", "missing>5ms", "p99>5h", "", ">5"]
        {
            assert!(Threshold::parse(wrong).is_err(), "{wrong}");
        }
        let threshold = Threshold::parse("served_again>2s").unwrap();
        assert!(threshold.check_command("storm").is_ok());
        assert!(threshold.check_command("echo").unwrap_err().contains("echo does not measure"));
    }

    /// Whether a result that fits `schema` may have something at `path`; `root` is the file that `schema` is from.
    fn describes(schema: &Value, root: &Value, common: &Value, path: &[&str]) -> bool {
        let Some((first, rest)) = path.split_first() else { return true };
        if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
            let (file, pointer) = reference.split_once('#').unwrap();
            let root = if file.is_empty() { root } else { common };
            return describes(root.pointer(pointer).unwrap(), root, common, path);
        }
        let properties = schema.get("properties").and_then(|all| all.get(first));
        properties.is_some_and(|next| describes(next, root, common, rest))
            || ["allOf", "anyOf"]
                .iter()
                .filter_map(|key| schema.get(key)?.as_array())
                .flatten()
                .any(|one| describes(one, root, common, path))
    }

    #[test]
    fn whoever_may_name_a_metric_has_it() {
        let read = |name: &str| -> Value {
            let path = format!("{}/schema/{name}.json", env!("CARGO_MANIFEST_DIR"));
            serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
        };
        let common = read("common");
        for command in ALL {
            let schema = read(command);
            for metric in METRICS {
                let path: Vec<&str> = metric.place.split('/').skip(1).collect();
                let there = describes(&schema, &schema, &common, &path);
                assert!(there || !metric.commands.contains(command), "{command} has no {}", metric.name);
            }
        }
        // Without a load nobody watches it, so these could never be judged.
        for metric in ["busy_share>0.5", "processor_wait_share>0.5"] {
            let threshold = Threshold::parse(metric).unwrap();
            for command in ["idle", "memory"] {
                assert!(threshold.check_command(command).is_err(), "{command}: {metric}");
            }
        }
    }

    #[test]
    fn names_are_unique_and_in_the_help() {
        let names: std::collections::BTreeSet<_> = METRICS.iter().map(|metric| metric.name).collect();
        assert_eq!(names.len(), METRICS.len());
        let help = help();
        for metric in METRICS {
            assert!(help.contains(&format!("  {}  ", metric.name)), "{help}");
            let time = metric.place.ends_with("_microseconds") || metric.place.ends_with("_seconds");
            assert_eq!(metric.kind == Kind::Time, time, "{}", metric.name);
        }
    }
}
