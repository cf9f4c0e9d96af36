//! Every figure of every command's result by its path, as the schemas in `schema/` describe them: what `--fail-if` may
//! name. Pure.
//!
//! A path is the names of the fields with dots between, as in `connections.connect_latency.p99_microseconds`. The parts
//! of a list are named by their `end` and `name`, as in `kinds.server.user.bytes_per_connection`; what is counted by
//! kind has a name that nobody knows beforehand, as in `connections.errors.lost_eof`.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use serde_json::Value;

use super::threshold::Kind;

/// Stands for a name that is known only once there is a result.
pub(crate) const ANY: &str = "*";
/// Figures that say nothing about a run.
const NO_FIGURES: [&str; 7] = [
    "format",
    "started_unix_seconds",
    "pid",
    "repeats",
    "findings",
    "latency_by_send_time",
    "away_by_return_time",
];

/// The commands whose results are judged, with their schemas.
const SCHEMAS: [(&str, &str); 8] = [
    ("idle", include_str!("../../schema/idle.json")),
    ("fanout", include_str!("../../schema/fanout.json")),
    ("echo", include_str!("../../schema/echo.json")),
    ("ping", include_str!("../../schema/ping.json")),
    ("storm", include_str!("../../schema/storm.json")),
    ("slow", include_str!("../../schema/slow.json")),
    ("memory", include_str!("../../schema/memory.json")),
    ("rolling", include_str!("../../schema/rolling.json")),
];
const COMMON: &str = include_str!("../../schema/common.json");

/// The figures of a command: their paths, with [`ANY`] for names that nobody knows beforehand.
pub(crate) fn of(command: &str) -> &'static [String] {
    static ALL: OnceLock<BTreeMap<&str, Vec<String>>> = OnceLock::new();
    let all = ALL.get_or_init(|| SCHEMAS.iter().map(|(command, schema)| (*command, read(schema))).collect());
    all.get(command).map(Vec::as_slice).unwrap_or_default()
}

/// The figures of all commands.
pub(crate) fn all() -> impl Iterator<Item = &'static str> {
    SCHEMAS.iter().flat_map(|(command, _)| of(command)).map(String::as_str)
}

/// Whether a command has a figure of this path.
pub(crate) fn has(command: &str, path: &str) -> bool {
    of(command).iter().any(|pattern| fits(pattern, path))
}

/// Whether `path` is what `pattern` describes.
pub(crate) fn fits(pattern: &str, path: &str) -> bool {
    let (mut patterns, mut names) = (pattern.split('.'), path.split('.'));
    loop {
        match (patterns.next(), names.next()) {
            (None, None) => return true,
            (Some(pattern), Some(name)) if pattern == name || (pattern == ANY && !name.is_empty()) => {}
            _ => return false,
        }
    }
}

/// What a figure measures and how many of its unit are one of the base unit, as its name says.
pub(crate) fn kind(path: &str) -> (Kind, f64) {
    let name = path.rsplit('.').next().unwrap_or(path);
    match name {
        name if name.ends_with("_per_second") => (Kind::Rate, 1.0),
        name if name.contains("nanoseconds") => (Kind::Time, 1e9),
        name if name.contains("microseconds") => (Kind::Time, 1e6),
        name if name.ends_with("_seconds") => (Kind::Time, 1.0),
        name if name.ends_with("_share") || name == "fraction" => (Kind::Share, 1.0),
        name if name.contains("bytes") => (Kind::Bytes, 1.0),
        _ => (Kind::Count, 1.0),
    }
}

/// The figure at a path of a result; `None` if it is null or not there. The length of a list is a figure, too.
pub(crate) fn value_in(report: &Value, path: &str) -> Option<f64> {
    let mut at = report;
    let mut names = path.split('.');
    while let Some(name) = names.next() {
        at = match at {
            Value::Array(parts) => {
                let is = |part: &&Value, field: &str, text: &str| {
                    part.get(field).and_then(Value::as_str) == Some(text)
                };
                let part_name = names.next()?;
                parts.iter().find(|part| is(part, "end", name) && is(part, "name", part_name))?
            }
            // What was not counted did not happen.
            Value::Object(counts) if !counts.contains_key(name) && is_of_a_kind(path) => return Some(0.0),
            other => other.get(name)?,
        };
    }
    match at {
        Value::Array(list) => Some(list.len() as f64),
        number => number.as_f64().map(|number| number / kind(path).1),
    }
}

/// Whether a path ends with a name that nobody knows beforehand.
fn is_of_a_kind(path: &str) -> bool {
    all().any(|pattern| {
        let of_kinds = pattern.strip_suffix(ANY).and_then(|before| before.strip_suffix('.'));
        of_kinds.zip(path.rsplit_once('.')).is_some_and(|(of_kinds, (before, _))| fits(of_kinds, before))
    })
}

fn read(schema: &str) -> Vec<String> {
    // The files are part of the program, and a test reads all of them.
    let parse = |text| serde_json::from_str::<Value>(text).unwrap_or_default();
    let (root, common) = (parse(schema), parse(COMMON));
    let mut found = Vec::new();
    collect(&root, &root, &common, String::new(), &mut found);
    found.sort_unstable();
    found.dedup();
    found
}

/// Adds the figures that `schema` describes; `root` is the file that it is from.
fn collect(schema: &Value, root: &Value, common: &Value, path: String, found: &mut Vec<String>) {
    if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
        let Some((file, pointer)) = reference.split_once('#') else { return };
        let root = if file.is_empty() { root } else { common };
        if let Some(referred) = root.pointer(pointer) {
            collect(referred, root, common, path, found);
        }
        return;
    }
    for key in ["allOf", "anyOf"] {
        for part in schema.get(key).and_then(Value::as_array).into_iter().flatten() {
            collect(part, root, common, path.clone(), found);
        }
    }
    let under = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    for (name, field) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
        if !NO_FIGURES.contains(&name.as_str()) {
            collect(field, root, common, under(name), found);
        }
    }
    if let Some(more) = schema.get("additionalProperties").filter(|more| more.is_object()) {
        collect(more, root, common, under(ANY), found);
    }
    let is = |name: &str| match schema.get("type") {
        Some(Value::Array(types)) => types.iter().any(|one| one == name),
        Some(one) => one == name,
        None => false,
    };
    if is("integer") || is("number") {
        found.push(path);
    } else if is("array") {
        list(schema.get("items").unwrap_or(&Value::Null), root, common, path, found);
    }
}

/// A list of sentences has a length; one of named parts has their figures; one of numbers is a course over time.
fn list(items: &Value, root: &Value, common: &Value, path: String, found: &mut Vec<String>) {
    if items.get("type").is_some_and(|of| of == "string") {
        found.push(path);
        return;
    }
    let pointer = items.get("$ref").and_then(Value::as_str).and_then(|reference| reference.strip_prefix('#'));
    let part = pointer.map_or(Some(items), |pointer| root.pointer(pointer));
    let named =
        |field: &str| part.is_some_and(|part| part.pointer(&format!("/properties/{field}")).is_some());
    if named("end") && named("name") {
        collect(items, root, common, format!("{path}.{ANY}.{ANY}"), found);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_command_has_the_figures_of_its_schema() {
        for (command, _) in SCHEMAS {
            for path in [
                "connections.opened",
                "connections.connect_latency.p99_microseconds",
                "connections.errors.lost_eof",
            ] {
                assert!(has(command, path), "{command}: {path}");
            }
            assert!(!has(command, "connections.open") && !has(command, "format"), "{command}");
            let courses =
                of(command).iter().filter(|path| path.starts_with("series") || path.contains("histogram"));
            assert_eq!(courses.count(), 0, "{command}: a course is no figure");
        }
        assert!(
            has("idle", "server.user_bytes_per_connection")
                && !has("echo", "server.user_bytes_per_connection")
        );
        assert!(has("memory", "kinds.server.user.bytes_per_connection"));
        assert!(has("storm", "bystander.during.max_microseconds") && has("echo", "generator.bottleneck"));
        assert!(of("squall").is_empty());
    }

    #[test]
    fn a_figure_is_read_in_its_base_unit() {
        let report = json!({
            "connections": { "errors": { "lost_eof": 3 }, "open_seconds": 2.5, "advice": ["a", "b"] },
            "latency": { "p99_microseconds": 1500.0, "p999_microseconds": null },
            "kinds": [{ "name": "user", "end": "server", "bytes_per_connection": 61.5 }],
            "server_cpu_nanoseconds_per_message": 5000.0,
        });
        for (path, value) in [
            ("connections.errors.lost_eof", Some(3.0)),
            ("connections.errors.lost_reset", Some(0.0)),
            ("connections.open_seconds", Some(2.5)),
            ("connections.advice", Some(2.0)),
            ("latency.p99_microseconds", Some(0.0015)),
            ("latency.p999_microseconds", None),
            ("kinds.server.user.bytes_per_connection", Some(61.5)),
            ("kinds.server.slab.bytes_per_connection", None),
            ("nothing.at.all", None),
        ] {
            assert_eq!(value_in(&report, path), value, "{path}");
        }
        assert!((value_in(&report, "server_cpu_nanoseconds_per_message").unwrap() - 5e-6).abs() < 1e-12);
        assert_eq!(kind("a.returned_per_second").0, Kind::Rate);
        assert_eq!(kind("server.user_bytes_per_connection").0, Kind::Bytes);
        assert_eq!(kind("generator.late_share").0, Kind::Share);
    }
}
