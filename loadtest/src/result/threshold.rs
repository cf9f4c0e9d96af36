//! `--fail-if`: conditions under which a result is not ok, and the short names of the figures that are named most.
//!
//! Whatever is judged is a figure of the result file and can be looked up there; see `figures`. Pure.

use std::fmt;

use serde_json::Value;

use crate::result::figures;
use crate::result::report::microseconds_text;

/// What a metric measures; it decides the units that a value may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A duration.
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

/// A figure with a short name.
#[derive(Debug, PartialEq)]
pub(crate) struct Metric {
    /// Its name in `--fail-if`.
    pub(crate) name: &'static str,
    /// What it measures.
    pub(crate) kind: Kind,
    /// Its path in the result file, or paths with blanks between: the first that a result knows.
    paths: &'static str,
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
const COSTING: &[&str] = &["idle", "memory"];

macro_rules! metrics {
    ($($name:literal $kind:ident $paths:literal $commands:ident $what:literal;)*) => {
        [$(Metric { name: $name, kind: Kind::$kind, paths: $paths, commands: $commands, what: $what }),*]
    };
}

/// All short names, in the order of the help.
pub(crate) static METRICS: &[Metric] = &metrics! {
    "p50" Time "latency.p50_microseconds" SENDING "delivery latency or round trip";
    "p90" Time "latency.p90_microseconds" SENDING "the same, 90th percentile";
    "p99" Time "latency.p99_microseconds" SENDING "the same, 99th percentile";
    "p999" Time "latency.p999_microseconds" SENDING "the same, 99.9th percentile";
    "max" Time "latency.max_microseconds" SENDING "the same, longest";
    "missing" Count "missing" SENDING "messages that did not come";
    "duplicate" Count "duplicate" SENDING "messages that came again";
    "reordered" Count "reordered" ORDERED "messages that came after a later one";
    "corrupt" Count "corrupt" SENDING "messages that came changed";
    "wrapped" Count "wrapped" ORDERED "messages that the server put other things around";
    "deliveries_rate" Rate "deliveries_per_second" PUBLISHING "deliveries a second";
    "connect_p50" Time "connections.connect_latency.p50_microseconds" ALL "from connect to open";
    "connect_p99" Time "connections.connect_latency.p99_microseconds" ALL "the same, 99th percentile";
    "connect_max" Time "connections.connect_latency.max_microseconds" ALL "the same, longest";
    "handshake_p99" Time "tls.handshake_latency.p99_microseconds" ALL "TLS handshake, 99th percentile";
    "failed" Count "connections.failed" ALL "connections that could not be opened";
    "lost" Count "connections.lost" ALL "connections that were open and ended";
    "opened_rate" Rate "connections.opened_per_second" ALL "connections opened a second";
    "late_sends" Count "generator.late_sends" SENDING "sends more than 1 ms after their time";
    "late_share" Share "generator.late_share" SENDING "share of sends that the generator itself made late";
    "busy_share" Share "generator.busy_share" LOADED "share of the load in which the generator had no time left";
    "processor_wait_share" Share "generator.processor_wait_share" LOADED "share of the load for which the generator waited for a processor";
    "bottleneck" Count "generator.bottleneck" ALL "reasons why the generator was the bottleneck";
    "served_again" Time "served_again_seconds" STORM "until all were open again";
    "unserved" Count "unserved" RETURNING "clients that did not come back in time";
    "refused" Count "refused" RETURNING "attempts to come back that failed";
    "away_p99" Time "away.p99_microseconds" RETURNING "from a client's end to its return";
    "away_max" Time "away.max_microseconds" RETURNING "the same, longest";
    "bystander_p99" Time "bystander.during.p99_microseconds" STORM "a bystander's echo meanwhile";
    "bystander_max" Time "bystander.during.max_microseconds" STORM "the same, longest";
    "slow_closed" Count "slow.closed" SLOW "slow subscribers that the server closed";
    "memory_grown" Bytes "server.user_bytes_grown" SLOW "what the server's memory grew by at its peak";
    "bytes_per_connection" Bytes "server.user_bytes_per_connection kinds.server.user.bytes_per_connection" COSTING "user memory of the server per connection";
};

/// One `--fail-if`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Threshold {
    figure: Figure,
    comparison: Comparison,
    /// In the base unit: seconds, bytes, or a plain number.
    value: f64,
    text: String,
}

/// The number that a threshold looks at.
#[derive(Clone, Debug, PartialEq)]
enum Figure {
    /// By its short name.
    Named(&'static Metric),
    /// By its path.
    At(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Above,
    AtLeast,
    Below,
    AtMost,
    Equal,
    Unequal,
}

/// How they are written; what begins like another comes before it.
const COMPARISONS: [(&str, Comparison); 6] = [
    (">=", Comparison::AtLeast),
    ("<=", Comparison::AtMost),
    ("==", Comparison::Equal),
    ("!=", Comparison::Unequal),
    (">", Comparison::Above),
    ("<", Comparison::Below),
];

impl Threshold {
    /// Parses `FIGURE>VALUE`; also `>=`, `<`, `<=`, `==` and `!=`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let at = text.find(['<', '>', '=', '!']).ok_or("needs a comparison, as in p99>50ms")?;
        let (name, rest) = text.split_at(at);
        let (comparison, value) = COMPARISONS
            .iter()
            .find_map(|(written, comparison)| Some((*comparison, rest.strip_prefix(written)?)))
            .ok_or("compares with >, >=, <, <=, == or !=, as in p99>50ms")?;
        let figure = Figure::parse(name.trim())?;
        let value = parse_value(figure.kind(), value.trim())?;
        Ok(Self { figure, comparison, value, text: text.to_owned() })
    }

    /// What its figure measures.
    pub(crate) fn kind(&self) -> Kind {
        self.figure.kind()
    }

    /// Refuses a figure that `command` does not have.
    pub(crate) fn check_command(&self, command: &str) -> Result<(), String> {
        let has = match &self.figure {
            Figure::Named(metric) => metric.commands.contains(&command),
            Figure::At(path) => figures::has(command, path),
        };
        if has {
            return Ok(());
        }
        Err(format!("--fail-if {}: {command} does not measure {}", self.text, self.figure.name()))
    }

    /// What is wrong with a result, if it breaks this. A number that is unknown breaks it too: nobody can
    /// say that it holds.
    pub(crate) fn broken_by(&self, report: &Value) -> Option<String> {
        let Some(value) = self.figure.value_in(report) else {
            let few = self.figure.count_in(report).map(|count| format!(", {count} values are too few"));
            let name = self.figure.name();
            return Some(format!(
                "{} can't be judged: {name} is not known{}",
                self.text,
                few.unwrap_or_default()
            ));
        };
        let broken = match self.comparison {
            Comparison::Above => value > self.value,
            Comparison::AtLeast => value >= self.value,
            Comparison::Below => value < self.value,
            Comparison::AtMost => value <= self.value,
            Comparison::Equal => value == self.value,
            Comparison::Unequal => value != self.value,
        };
        broken.then(|| format!("{}: it is {}", self.text, self.figure.text(value)))
    }
}

impl Figure {
    /// By a short name or a path; the error names the nearest.
    fn parse(name: &str) -> Result<Self, String> {
        if let Some(metric) = METRICS.iter().find(|metric| metric.name == name) {
            return Ok(Self::Named(metric));
        }
        if figures::all().any(|pattern| figures::fits(pattern, name)) {
            return Ok(Self::At(name.to_owned()));
        }
        let known = METRICS.iter().map(|metric| metric.name).chain(figures::all());
        // Behind a path's last dot is what a person remembers of it.
        let last = |path: &'static str| path.rsplit('.').next().unwrap_or(path);
        let far = |path: &'static str| {
            strsim::damerau_levenshtein(name, path).min(strsim::damerau_levenshtein(name, last(path)) + 1)
        };
        let nearest = known.min_by_key(|path| far(path)).filter(|_| !name.is_empty()).unwrap_or("p99");
        Err(format!(
            "there is no figure {name:?}; the nearest is {nearest}, and --help lists the short names"
        ))
    }

    fn kind(&self) -> Kind {
        match self {
            Self::Named(metric) => metric.kind,
            Self::At(path) => figures::kind(path).0,
        }
    }

    fn name(&self) -> &str {
        match self {
            Self::Named(metric) => metric.name,
            Self::At(path) => path,
        }
    }

    fn value_in(&self, report: &Value) -> Option<f64> {
        match self {
            Self::Named(metric) => metric.value_in(report),
            Self::At(path) => figures::value_in(report, path),
        }
    }

    /// Of how many values a percentile would be.
    fn count_in(&self, report: &Value) -> Option<f64> {
        let path = match self {
            Self::Named(metric) => metric.paths,
            Self::At(path) => path,
        };
        let (latency, percentile) = path.rsplit_once('.')?;
        let count = figures::value_in(report, &format!("{latency}.count"));
        count.filter(|_| percentile.starts_with('p'))
    }

    fn text(&self, value: f64) -> String {
        text(self.kind(), value)
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
        self.paths.split(' ').find_map(|path| figures::value_in(report, path))
    }

    /// A value of it with its unit.
    pub(crate) fn text(&self, value: f64) -> String {
        text(self.kind, value)
    }
}

/// A value in its base unit, with a unit to be read.
pub(crate) fn text(kind: Kind, value: f64) -> String {
    match kind {
        Kind::Time => microseconds_text(Some(value * 1e6)),
        Kind::Count => format!("{value:.0}"),
        Kind::Rate => format!("{value:.0}/s"),
        Kind::Bytes => format!("{value:.0} bytes"),
        Kind::Share => format!("{value:.3}"),
    }
}

/// The part of the help that lists the metrics.
pub(crate) fn help() -> String {
    let mut help = String::from(
        "Figures for --fail-if: any of the result file by its path, as in\n\
         'connections.errors.lost_eof > 0' or 'kinds.server.user.bytes_per_connection > 100', and\n\
         by short names (times need a unit, as in 500us, 50ms, 2s):\n",
    );
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
        for wrong in [
            "p99",
            "p99=5ms",
            "p99!5ms",
            "p99>5",
            "p99>",
            "p99>x",
            "p98>5ms",
            "missing>5ms",
            "p99>5h",
            "",
            ">5",
        ] {
            assert!(Threshold::parse(wrong).is_err(), "{wrong}");
        }
        let threshold = Threshold::parse("served_again>2s").unwrap();
        assert!(threshold.check_command("storm").is_ok());
        assert!(threshold.check_command("echo").unwrap_err().contains("echo does not measure"));
    }

    #[test]
    fn whoever_may_name_a_metric_has_it() {
        for command in ALL {
            for metric in METRICS.iter().filter(|metric| metric.commands.contains(command)) {
                let there = metric.paths.split(' ').any(|path| figures::has(command, path));
                assert!(there, "{command} has no {}", metric.name);
            }
        }
        for metric in METRICS {
            for path in metric.paths.split(' ') {
                assert_eq!(figures::kind(path).0, metric.kind, "{}", metric.name);
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
    fn every_figure_can_be_named_and_a_wrong_name_tells_the_nearest() {
        let report = json!({ "server": { "user_bytes_per_connection": 75.0 },
            "kinds": [{ "name": "user", "end": "server", "bytes_per_connection": 61.0 }],
            "connections": { "errors": {}, "connect_latency": { "count": 7, "p99_microseconds": null } } });
        assert_eq!(broken("server.user_bytes_per_connection > 80", &report), None);
        assert!(broken("bytes_per_connection > 70", &report).unwrap().ends_with("it is 75 bytes"));
        assert!(broken("kinds.server.user.bytes_per_connection>60", &report).is_some());
        assert_eq!(broken("connections.errors.lost_eof>0", &report), None, "what did not happen is 0");
        assert!(broken("connections.errors.lost_eof != 2", &report).is_some());
        assert_eq!(broken("connections.errors.lost_eof == 2", &report), None);
        let few = broken("connect_p99 > 1s", &report).unwrap();
        assert!(few.ends_with("not known, 7 values are too few"), "{few}");
        for (wrong, nearest) in [
            ("p98>5ms", "p9"),
            ("mising>0", "missing"),
            ("latency.p99_microsecond>5ms", "latency.p99_microseconds"),
            ("user_bytes_per_conection>5", "user_bytes_per_connection"),
        ] {
            let error = Threshold::parse(wrong).unwrap_err();
            assert!(error.contains(nearest) && error.contains("the nearest is"), "{error}");
        }
        let of_memory = Threshold::parse("kinds.server.user.bytes_per_connection>60").unwrap();
        assert!(of_memory.check_command("memory").is_ok() && of_memory.check_command("echo").is_err());
    }

    #[test]
    fn names_are_unique_and_in_the_help() {
        let names: std::collections::BTreeSet<_> = METRICS.iter().map(|metric| metric.name).collect();
        assert_eq!(names.len(), METRICS.len());
        let help = help();
        for metric in METRICS {
            assert!(help.contains(&format!("  {}  ", metric.name)), "{help}");
        }
    }
}
