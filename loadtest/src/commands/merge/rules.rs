//! What becomes of each field of a result when several are merged, what the merged figure means, and why some have no
//! meaning. Tables only; a field that no table has becomes null and is named.

/// What becomes of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rule {
    /// Must be equal.
    Same,
    /// Equal, or the different texts with commas between.
    Texts,
    Sum,
    Highest,
    Lowest,
    /// Objects of counts.
    Counts,
    /// Lists, one behind the other.
    Lists,
    /// True if any is.
    Any,
    /// True if it is so in all that know it.
    All,
    /// The value of the only run that knows it.
    Only,
    /// Made of other fields afterwards.
    Made,
    /// An object whose fields have rules.
    Fields,
    /// A latency.
    Latency,
    /// A course over time, on one clock by now.
    Course,
    /// Nothing that can be said of all together.
    Nothing,
}

impl Rule {
    /// What a figure made by it means; empty where the field is no figure.
    pub(super) fn meaning(self) -> &'static str {
        match self {
            Self::Sum => "sum of all runs",
            Self::Counts => "sum of all runs, by kind",
            Self::Highest => "highest of any run",
            Self::Lowest => "lowest of any run",
            Self::Latency => "all values of all runs, as one histogram",
            Self::Course => {
                "all values of all runs in one map, by the wall clocks of their machines, each column within half of its width"
            }
            Self::Any => "whether it is so in any run",
            Self::All => "whether it is so in every run",
            Self::Same
            | Self::Texts
            | Self::Lists
            | Self::Only
            | Self::Made
            | Self::Fields
            | Self::Nothing => "",
        }
    }
}

/// The rule of each field: by `COMMAND/path`, by its path, or by its name alone, in this order.
const RULES: &[(&str, Rule)] = &[
    ("format", Rule::Same),
    ("command", Rule::Same),
    ("publish", Rule::Same),
    ("burst", Rule::Same),
    ("size_bytes", Rule::Same),
    ("slow.fraction", Rule::Same),
    ("slow.bytes_per_second", Rule::Same),
    ("generator_version", Rule::Texts),
    ("generator_commit", Rule::Texts),
    ("url", Rule::Texts),
    ("publish_url", Rule::Texts),
    ("topic", Rule::Texts),
    ("label", Rule::Texts),
    ("machine", Rule::Nothing),
    ("server_files", Rule::Nothing),
    ("kernel", Rule::Nothing),
    ("latency_by_send_time", Rule::Course),
    ("away_by_return_time", Rule::Course),
    ("dropped_at_seconds", Rule::Nothing),
    ("stages", Rule::Nothing),
    ("latency_intervals", Rule::Nothing),
    ("topics", Rule::Same),
    ("topics_per_connection", Rule::Highest),
    ("descriptor_tables", Rule::Texts),
    ("slow.connections", Rule::Sum),
    ("wanted", Rule::Sum),
    ("opened", Rule::Sum),
    ("failed", Rule::Sum),
    ("bystander.lost", Rule::Any),
    ("lost", Rule::Sum),
    ("source_addresses", Rule::Sum),
    ("threads", Rule::Sum),
    ("late_sends", Rule::Sum),
    ("cpu_seconds", Rule::Sum),
    ("rate_per_second", Rule::Sum),
    ("subscribed", Rule::Sum),
    ("subscribed_again", Rule::Sum),
    ("planned", Rule::Sum),
    ("published", Rule::Sum),
    ("published_unknown", Rule::Sum),
    ("published_refused", Rule::Sum),
    ("published_not_sent", Rule::Sum),
    ("published_per_second", Rule::Sum),
    ("publish_connections", Rule::Sum),
    ("sent", Rule::Sum),
    ("unsent", Rule::Sum),
    ("returned", Rule::Sum),
    ("skipped", Rule::Sum),
    ("deliveries_expected", Rule::Sum),
    ("deliveries", Rule::Sum),
    ("missing", Rule::Sum),
    ("duplicate", Rule::Sum),
    ("reordered", Rule::Sum),
    ("unclassified", Rule::Sum),
    ("corrupt", Rule::Sum),
    ("foreign", Rule::Sum),
    ("stray", Rule::Sum),
    ("overtaken", Rule::Sum),
    ("unchanged", Rule::Sum),
    ("wrapped", Rule::Sum),
    ("repeated", Rule::Sum),
    ("deflated", Rule::Sum),
    ("deflated_bytes", Rule::Sum),
    ("deliveries_per_second", Rule::Sum),
    ("fan_outs_complete", Rule::Sum),
    ("lost_during_hold", Rule::Sum),
    ("dropped", Rule::Sum),
    ("not_dropped", Rule::Sum),
    ("left", Rule::Sum),
    ("endings", Rule::Counts),
    ("unserved", Rule::Sum),
    ("refused", Rule::Sum),
    ("returned_per_second", Rule::Sum),
    ("closed", Rule::Sum),
    ("caught_up", Rule::Sum),
    ("open_seconds", Rule::Highest),
    ("hold_seconds", Rule::Highest),
    ("served_again_seconds", Rule::Highest),
    ("late_max_microseconds", Rule::Highest),
    ("fan_out_max_microseconds", Rule::Highest),
    ("busy_share", Rule::Highest),
    ("processor_wait_share", Rule::Highest),
    ("processors_allowed", Rule::Lowest),
    ("held_back_seconds", Rule::Highest),
    ("backlog_share", Rule::Highest),
    ("late_share", Rule::Highest),
    ("waited_share", Rule::Highest),
    ("turn_max_microseconds", Rule::Highest),
    ("started_unix_seconds", Rule::Lowest),
    ("bottleneck", Rule::Lists),
    ("advice", Rule::Lists),
    ("tls.server_name", Rule::Texts),
    ("tls.trust", Rule::Texts),
    ("tls.agreed", Rule::Texts),
    ("tls.verified", Rule::All),
    ("tls.resumes", Rule::Any),
    ("tls.handshakes", Rule::Sum),
    ("tls.resumed", Rule::Sum),
    ("interrupted", Rule::Any),
    ("server_on_this_machine", Rule::Any),
    ("errors", Rule::Counts),
    ("closes", Rule::Counts),
    ("publish_errors", Rule::Counts),
    ("refusals", Rule::Counts),
    ("slow/server", Rule::Only),
    ("schema", Rule::Made),
    ("findings", Rule::Made),
    ("command_line", Rule::Made),
    ("ok", Rule::Made),
    ("problems", Rule::Made),
    ("opened_per_second", Rule::Made),
    ("series", Rule::Made),
    ("settings", Rule::Made),
    ("steps_connections", Rule::Made),
    ("steps_settled", Rule::Made),
    ("steps_readings", Rule::Made),
    ("kinds", Rule::Made),
];

/// Objects whose fields have rules of their own.
const OBJECTS: [&str; 6] = ["connections", "generator", "tls", "slow", "bystander", "resumed"];

/// What a figure means where its rule does not say enough.
const MEANINGS: [(&str, &str); 10] = [
    ("rate_per_second", "sum of all runs: the whole load"),
    ("open_seconds", "the longest of any run, each from its own first connect"),
    ("opened_per_second", "all that were opened, by the longest open_seconds"),
    (
        "served_again_seconds",
        "the slowest run's, each from its own last drop; null if anybody did not come back",
    ),
    ("returned_per_second", "sum of the runs' rates, each over its own time"),
    ("deliveries_per_second", "sum of the runs' rates, each over its own time"),
    ("fan_out_max_microseconds", "the longest among the runs, each to its own subscribers"),
    ("bystander.before", "all echoes of all bystanders, each in the second before its own run's first drop"),
    (
        "bystander.during",
        "all echoes of all bystanders, each while its own run's connections were coming back",
    ),
    ("slow/server", "as the one run read it that watched the server; it holds the load of all of them"),
];

/// Why a figure has no meaning for several runs together.
const REASONS: [(&str, &str); 15] = [
    ("latency_intervals", "each run has seconds of its own; its file has them"),
    ("server_files", "each run watched the server for itself; its file has it"),
    ("kernel", "each run's machine counted for itself, of all its programs"),
    ("dropped_at_seconds", "each run counts from its own first connect"),
    ("stages", "each run has stages of its own; its file has them"),
    ("machine", "there are several; each run's file has its own"),
    ("server_metrics", "each run has its own readings of the server's metrics"),
    ("server_cpu_seconds", "a run's time with the server, in which it served the other runs, too"),
    ("server_cpu_nanoseconds_per_delivery", "the server's time went into the other runs' deliveries, too"),
    ("server_cpu_nanoseconds_per_message", "the server's time went into the other runs' messages, too"),
    ("fan_out_median_microseconds", "a median of medians is not that of all fan-outs"),
    ("descriptors_per_table", "each machine has its own limit"),
    ("slow/server", "more than one run watched a server, and each reading holds the load of all"),
    ("server", "a run divides by its own connections, and the server's memory holds those of all"),
    ("tcp", "it is of a whole machine, and results do not say which runs shared one"),
];

/// Why a figure is null that only some runs know.
pub(super) const NOT_ALL_KNOW: &str = "not every run knows its part";
const NOT_KNOWN: &str = "nothing is known that it could mean for several runs together";

/// The rule of a field of a command's result.
pub(super) fn rule(command: &str, path: &str) -> Rule {
    if OBJECTS.contains(&path) {
        return Rule::Fields;
    }
    find(RULES, command, path).unwrap_or(Rule::Nothing)
}

/// What the merged figure means; empty where it is no figure.
pub(super) fn meaning(command: &str, path: &str, rule: Rule) -> &'static str {
    find(&MEANINGS, command, path).unwrap_or_else(|| rule.meaning())
}

/// Why there is no merged figure.
pub(super) fn reason(command: &str, path: &str) -> &'static str {
    find(&REASONS, command, path).unwrap_or(NOT_KNOWN)
}

/// Why results of a command are not merged at all; `None` if they are.
pub(super) fn refusal(command: &str, repeated: bool) -> Option<&'static str> {
    match command {
        "idle" | "fanout" | "echo" | "storm" | "slow" | "capacity" | "memory" if repeated => {
            Some("medians of --repeat are no values that add up; merge single runs")
        }
        "idle" | "fanout" | "echo" | "storm" | "slow" | "capacity" | "memory" => None,
        "compare" => Some("a comparison is no run"),
        "plan" => Some("a plan is no run"),
        _ => Some("no command that can be merged"),
    }
}

fn find<T: Copy>(table: &[(&str, T)], command: &str, path: &str) -> Option<T> {
    let name = path.rsplit('.').next().unwrap_or(path);
    let by = |wanted: &dyn Fn(&str) -> bool| {
        table.iter().find(|(field, _)| wanted(field)).map(|(_, found)| *found)
    };
    by(&|field| field.split_once('/') == Some((command, path)))
        .or_else(|| by(&|field| field == path))
        .or_else(|| by(&|field| field == name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_rule_counts() {
        for (command, path, expected) in [
            ("storm", "connections", Rule::Fields),
            ("slow", "slow.connections", Rule::Sum),
            ("slow", "slow", Rule::Fields),
            ("slow", "server", Rule::Only),
            ("idle", "server", Rule::Nothing),
            ("storm", "bystander.lost", Rule::Any),
            ("storm", "connections.lost", Rule::Sum),
            ("echo", "connections.errors", Rule::Counts),
            ("echo", "something.new", Rule::Nothing),
        ] {
            assert_eq!(rule(command, path), expected, "{command} {path}");
        }
        assert_eq!(meaning("echo", "missing", Rule::Sum), "sum of all runs");
        assert!(meaning("storm", "served_again_seconds", Rule::Highest).contains("last drop"));
        assert!(reason("idle", "server").contains("its own connections"));
        assert!(reason("slow", "server").contains("more than one"));
        assert_eq!(reason("echo", "something.new"), NOT_KNOWN);
        assert!(refusal("echo", false).is_none() && refusal("echo", true).is_some());
    }
}
