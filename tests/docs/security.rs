//! The page of security lists every limit that there is, as it is by default.

use std::collections::BTreeMap;

use fantail::config::{Settings, markdown_tables};

use crate::page;

/// The first two cells of rows that begin with a name in backquotes.
fn rows(text: &str) -> BTreeMap<String, String> {
    let cells = text.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| `")?.split(" | ");
        Some((cells.next()?.trim_end_matches('`').to_owned(), cells.next()?.trim_matches('`').to_owned()))
    });
    cells.collect()
}

/// Whether a key says how much or how long something may be. What rules of topics say of it stands for one of the others.
fn is_limit(key: &str) -> bool {
    const ENDS: [&str; 10] = [
        "_max",
        "_total",
        "_burst",
        "_rate",
        "_per_second",
        "_drops",
        "timeout_seconds",
        "wait_seconds",
        "retry_seconds",
        "per_address_max",
    ];
    !key.starts_with("topic.") && (key.starts_with("timeouts.") || ENDS.iter().any(|end| key.ends_with(end)))
}

#[test]
fn the_security_page_has_every_limit_with_its_default() {
    let keys = rows(&markdown_tables(&Settings::default()));
    let page = page("security.md");
    let (_, after) = page.split_once("## Every limit").expect("the section");
    let (table, _) = after.split_once("No key changes these").expect("its end");
    let told = rows(table);
    let limits: BTreeMap<_, _> = keys.into_iter().filter(|(key, _)| is_limit(key)).collect();
    assert!(limits.len() > 60, "the tables were not understood: {limits:?}");
    let missing: Vec<_> = limits.iter().filter(|(key, default)| told.get(*key) != Some(default)).collect();
    assert!(missing.is_empty(), "not in docs/security.md, or with another default: {missing:?}");
    let unknown: Vec<_> = told.keys().filter(|key| !limits.contains_key(*key)).collect();
    assert!(unknown.is_empty(), "no such limits: {unknown:?}");
    let unexplained: Vec<_> =
        table.lines().filter(|line| line.starts_with("| `") && line.ends_with("|  |")).collect();
    assert!(unexplained.is_empty(), "{unexplained:?}");
}
