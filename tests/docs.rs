//! The reference pages name everything there is: each configuration key, variable and metric. Reads the pages
//! as text; whether what they say is right is for people to read.

#[path = "docs/operations.rs"]
mod operations;

use std::fs;
use std::path::Path;

use fantail::config::{Settings, reference};
use fantail::metrics::names;
use fantail::metrics::{CloseReason, DropReason, RefuseReason};

fn page(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(name)).expect("the page")
}

/// `section.key`, its default and its variable, out of the reference of `--help`.
fn keys() -> Vec<(String, String, String)> {
    let mut section = String::new();
    let mut keys = Vec::new();
    for line in reference(&Settings::default()).lines() {
        if let Some(rest) = line.strip_prefix('[') {
            // `[[topic]]` is a list of tables.
            section = rest.trim_start_matches('[').split(']').next().expect("a section").to_owned();
        } else if let Some((key, rest)) = line.trim_start().split_once(" = ")
            && let Some((value, variable)) = rest.rsplit_once("  (")
        {
            keys.push((
                format!("{section}.{key}"),
                value.to_owned(),
                variable.trim_end_matches(')').to_owned(),
            ));
        }
    }
    keys
}

#[test]
fn every_key_is_in_the_configuration_page_with_its_default() {
    let page = page("configuration.md");
    let keys = keys();
    assert!(keys.len() > 30, "the reference was not understood: {keys:?}");
    let rows: Vec<_> = page.lines().filter(|line| line.starts_with("| `")).collect();
    let missing: Vec<_> = keys
        .iter()
        .filter(|(key, value, _)| {
            !rows.iter().any(|row| row.starts_with(&format!("| `{key}` | `{value}` |")))
        })
        .collect();
    assert!(missing.is_empty(), "no row with key and default: {missing:?}");
    let unknown: Vec<_> = rows
        .iter()
        .filter(|row| {
            row.contains('.') && !keys.iter().any(|(key, ..)| row.starts_with(&format!("| `{key}` |")))
        })
        .filter(|row| !row.starts_with("| `--"))
        .collect();
    assert!(unknown.is_empty(), "rows of no key: {unknown:?}");
}

#[test]
fn every_variable_follows_the_rule_the_page_gives() {
    for (key, _, variable) in keys().into_iter().filter(|(key, ..)| !key.starts_with("topic.")) {
        assert_eq!(variable, format!("FANTAIL_{}", key.replace('.', "_").to_ascii_uppercase()));
    }
}

#[test]
fn every_metric_and_reason_is_in_the_metrics_page() {
    let page = page("metrics.md");
    let metrics = names::all();
    let reasons = CloseReason::ALL.iter().map(|reason| reason.label());
    let refusals = RefuseReason::ALL.iter().map(|reason| reason.label());
    let policies = DropReason::ALL.map(DropReason::label);
    let missing: Vec<_> = metrics
        .chain(reasons)
        .chain(refusals)
        .chain(policies)
        .filter(|name| !page.contains(&format!("| `{name}` |")))
        .collect();
    assert!(missing.is_empty(), "no row for {missing:?}");
}
