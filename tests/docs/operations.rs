//! What operators load into other programs, and the page it links to: every metric that is named exists, every
//! alert has its section and every section its alert, and every panel of the dashboard asks for something.

use std::collections::BTreeSet;

use fantail::metrics::names::{self, Kind};
use fantail::metrics::{CloseReason, RefuseReason, TlsFailure};
use serde_json::Value;

use super::{anchors, page};

/// Every word of the text that looks like a metric of ours.
fn named(text: &str) -> BTreeSet<&str> {
    let words = text.split(|part: char| !part.is_ascii_alphanumeric() && part != '_');
    words.filter(|word| word.starts_with("fantail_") || word.starts_with("process_")).collect()
}

/// Whether a name is a metric, or one of the three that a histogram has.
fn exists(name: &str) -> bool {
    let histograms = names::OTHER_METRICS.iter().filter(|metric| metric.kind == Kind::Histogram);
    names::all().any(|known| known == name)
        || histograms.map(|metric| metric.name).any(|known| {
            name.strip_prefix(known).is_some_and(|rest| ["_bucket", "_sum", "_count"].contains(&rest))
        })
}

/// Names in the text that are no metric; `fantail_` and what ends in an underscore are prefixes.
fn unknown(text: &str) -> Vec<&str> {
    named(text).into_iter().filter(|name| !name.ends_with('_') && !exists(name)).collect()
}

#[test]
fn every_metric_that_is_named_exists() {
    for name in ["metrics.md", "operations.md", "alerts.yml", "grafana.json"] {
        let text = page(name);
        assert!(!named(&text).is_empty(), "{name} names none");
        assert!(unknown(&text).is_empty(), "{name} names what there is not: {:?}", unknown(&text));
    }
    assert_eq!(unknown("rate(fantail_nonsense_total[5m]) `fantail_`"), ["fantail_nonsense_total"]);
}

#[test]
fn every_metric_that_can_worry_has_something_to_do() {
    let operations = page("operations.md");
    let told = named(&operations);
    let metrics = page("metrics.md");
    for name in names::all() {
        let row = metrics.lines().find(|line| line.starts_with(&format!("| `{name}` |")));
        let row = row.unwrap_or_else(|| panic!("metrics.md has no row for {name}"));
        let worry = row.trim_end_matches('|').rsplit('|').next().expect("cells").trim();
        let does = told.contains(name) || told.iter().any(|word| word.starts_with(&format!("{name}_")));
        assert!(worry.is_empty() || does, "operations.md does not say what to do about {name}: {worry}");
    }
}

/// The rules of the file, which is written one way: a key and its value a line, two spaces a level.
fn alerts(text: &str) -> Vec<Vec<(&str, &str)>> {
    let mut alerts: Vec<Vec<(&str, &str)>> = Vec::new();
    for line in text.lines() {
        let (line, begins) = match line.trim_start().strip_prefix("- alert:") {
            Some(name) => (name, true),
            None => (line.trim_start(), false),
        };
        if begins {
            alerts.push(vec![("alert", line.trim())]);
        } else if let (Some(alert), Some((key, value))) = (alerts.last_mut(), line.split_once(':'))
            && key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
        {
            alert.push((key, value.trim()));
        }
    }
    alerts
}

#[test]
fn every_alert_is_whole_and_has_its_section() {
    let (text, operations) = (page("alerts.yml"), page("operations.md"));
    let alerts = alerts(&text);
    assert!(alerts.len() > 10, "the file was not understood");
    let sections = anchors(&operations);
    let mut seen = BTreeSet::new();
    for alert in &alerts {
        let name = alert[0].1;
        let value = |key: &str| alert.iter().find(|(known, _)| *known == key).map(|(_, value)| *value);
        assert!(seen.insert(name.to_lowercase()), "{name} twice");
        for key in ["expr", "for", "severity", "summary", "runbook_url"] {
            assert!(value(key).is_some_and(|value| !value.is_empty()), "{name} has no {key}");
        }
        assert!(["critical", "warning", "info"].contains(&value("severity").unwrap_or("")), "{name}");
        let anchor = format!("docs/operations.md#{}", name.to_lowercase());
        assert_eq!(value("runbook_url"), Some(anchor.as_str()), "{name}");
        assert!(sections.contains(&name.to_lowercase()), "operations.md has no section {name}");
    }
    let orphans: Vec<_> = sections
        .iter()
        .filter(|section| section.starts_with("fantail") && !seen.contains(*section))
        .collect();
    assert!(orphans.is_empty(), "sections of no alert: {orphans:?}");
}

#[test]
fn reasons_that_are_selected_exist() {
    let known: BTreeSet<_> = CloseReason::ALL
        .iter()
        .map(|reason| reason.label())
        .chain(RefuseReason::ALL.iter().map(|reason| reason.label()))
        .chain(TlsFailure::ALL.iter().map(|reason| reason.label()))
        .collect();
    let text = page("alerts.yml") + &page("grafana.json").replace("\\\"", "\"");
    let text = text.replace("reason=~\"", "reason=\"");
    let selections = text.split("reason=\"").skip(1).filter_map(|rest| rest.split('"').next());
    // One, or several of which any.
    let selected: Vec<_> = selections.flat_map(|selection| selection.split('|')).collect();
    assert!(!selected.is_empty());
    for reason in selected {
        assert!(known.contains(reason), "no reason {reason}");
    }
}

#[test]
fn every_panel_asks_for_something_of_the_chosen_instance() {
    let dashboard: Value = serde_json::from_str(&page("grafana.json")).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let of = |kind: &str| panels.iter().filter(|panel| panel["type"] == kind).count();
    assert!(panels.len() > 20 && of("row") >= 5, "{} panels", panels.len());
    let mut ids = BTreeSet::new();
    for panel in panels {
        let title = panel["title"].as_str().expect("a title");
        assert!(ids.insert(panel["id"].as_u64().expect("an id")), "{title}: its id is taken");
        if panel["type"] == "row" {
            continue;
        }
        let targets = panel["targets"].as_array().expect(title);
        assert!(!targets.is_empty(), "{title} asks for nothing");
        for target in targets {
            let expression = target["expr"].as_str().expect(title);
            assert!(!named(expression).is_empty(), "{title}: no metric in {expression}");
            assert!(expression.contains("instance=~\"$instance\""), "{title}: {expression}");
            let (open, close) = (expression.matches('(').count(), expression.matches(')').count());
            assert_eq!(open, close, "{title}: {expression}");
        }
    }
    let variables = dashboard["templating"]["list"].as_array().expect("variables");
    assert!(variables.iter().any(|variable| variable["name"] == "instance"), "no variable for the instance");
}
