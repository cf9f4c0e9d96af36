//! The pages name everything there is: each configuration key, variable, metric and command. Reads the pages as
//! text, and writes the generated part of one when UPDATE_DOCS is set; whether what they say is right is for people
//! to read.

#[path = "docs/deploy.rs"]
mod deploy;
#[path = "docs/links.rs"]
mod links;
#[path = "docs/memory.rs"]
mod memory;
#[path = "docs/operations.rs"]
mod operations;
#[path = "docs/security.rs"]
mod security;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use fantail::config::{Settings, markdown_tables, reference};
use fantail::dialect::Dialect;
use fantail::metrics::names;
use fantail::metrics::{CloseReason, DropReason, InvalidReason, RefuseReason, TlsFailure};

fn page(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(name)).expect("the page")
}

/// The anchors of a page's headings, as GitHub makes them.
fn anchors(page: &str) -> BTreeSet<String> {
    let headings = page.lines().filter(|line| line.starts_with('#'));
    let anchor = |heading: &str| {
        let text = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = text.chars().filter(|kept| kept.is_alphanumeric() || " -_".contains(*kept));
        kept.map(|kept| if kept == ' ' { '-' } else { kept }).collect()
    };
    headings.map(anchor).collect()
}

/// `section.key` and its variable, out of the reference of `--help`.
fn keys() -> Vec<(String, String)> {
    let mut section = String::new();
    let mut keys = Vec::new();
    for line in reference(&Settings::default()).lines() {
        if let Some(rest) = line.strip_prefix('[') {
            // `[[topic]]` is a list of tables.
            section = rest.trim_start_matches('[').split(']').next().expect("a section").to_owned();
        } else if let Some((key, rest)) = line.trim_start().split_once(" = ")
            && let Some((_, variable)) = rest.rsplit_once("  (")
        {
            keys.push((format!("{section}.{key}"), variable.trim_end_matches(')').to_owned()));
        }
    }
    keys
}

#[test]
fn every_dialect_has_a_section() {
    let anchors = anchors(&page("dialects.md"));
    for dialect in Dialect::ALL.iter().filter(|dialect| **dialect != Dialect::Http) {
        assert!(anchors.contains(dialect.label()), "docs/dialects.md has no section \"{}\"", dialect.label());
    }
}

/// What stands between the markers of the configuration page.
const KEYS_BEGIN: &str =
    "<!-- keys: the rest of this page is written by `UPDATE_DOCS=1 cargo test --test docs` -->\n\n";
const KEYS_END: &str = "<!-- end of keys -->\n";

#[test]
fn the_configuration_page_is_what_the_sections_say() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
    let page = page("configuration.md");
    let (before, rest) = page.split_once(KEYS_BEGIN).expect("the marker of the beginning");
    let (_, after) = rest.split_once(KEYS_END).expect("the marker of the end");
    let generated = markdown_tables(&Settings::default());
    let wanted = format!("{before}{KEYS_BEGIN}{generated}{KEYS_END}{after}");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, &wanted).expect("the page can be written");
        return;
    }
    let differs = page.lines().zip(wanted.lines()).find(|(is, should)| is != should);
    assert!(
        page == wanted,
        "docs/configuration.md is out of date, first at {differs:?}; run UPDATE_DOCS=1 cargo test --test docs"
    );
}

#[test]
fn every_variable_follows_the_rule_the_page_gives() {
    assert!(keys().len() > 30, "the reference was not understood: {:?}", keys());
    for (key, variable) in keys() {
        // No variable names a table of a list.
        if ["topic.", "auth.issuer."].iter().any(|list| key.starts_with(list)) {
            assert_eq!(variable, "only in the file", "{key}");
            continue;
        }
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
    let failures = TlsFailure::ALL.map(TlsFailure::label);
    let invalid = InvalidReason::ALL.map(InvalidReason::label);
    let missing: Vec<_> = metrics
        .chain(reasons)
        .chain(refusals)
        .chain(policies)
        .chain(failures)
        .chain(invalid)
        .filter(|name| !page.contains(&format!("| `{name}` |")))
        .collect();
    assert!(missing.is_empty(), "no row for {missing:?}");
}

#[test]
fn every_command_is_in_the_readme() {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_fantail"))
        .arg("-h")
        .output()
        .expect("the binary runs");
    let help = String::from_utf8(output.stdout).expect("UTF-8");
    let (_, commands) = help.split_once("Commands:\n").expect("a list of commands");
    let names = commands.lines().take_while(|line| !line.is_empty());
    let names: Vec<_> = names
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .collect();
    assert!(names.len() >= 5, "the help was not understood: {help}");
    let readme = page("../README.md");
    let missing: Vec<_> =
        names.iter().filter(|name| !readme.contains(&format!("| `fantail {name}"))).collect();
    assert!(missing.is_empty(), "no row in README's table of commands: {missing:?}");
}
