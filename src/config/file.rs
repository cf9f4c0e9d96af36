//! The TOML file as raw assignments and `[[topic]]` tables. Reads a text it is given; knows no key but by its
//! shape.

use std::borrow::Cow;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{ConfigError, Place};
use super::load::Assignment;
use super::table::Table;
use super::value::RawValue;
use crate::wire::nearest::nearest;

/// The names that are written with double brackets.
pub(super) const TOPIC: &str = "topic";
pub(super) const ISSUER: &str = "auth.issuer";

/// The section that has a list inside, and the list's name there.
const AUTH: &str = "auth";
const AUTH_LIST: &str = "issuer";

/// What the file says.
#[derive(Debug, Default)]
pub(super) struct FileContent {
    /// Every `[section] key = value`, with its line.
    pub(super) assignments: Vec<Assignment>,
    /// Every `[[topic]]`, in the order of the file.
    pub(super) topics: Vec<Table>,
    /// Every `[[auth.issuer]]`, likewise.
    pub(super) issuers: Vec<Table>,
}

/// Reads `text`; what is no TOML or sits outside a section is an error.
pub(super) fn content(path: &str, text: &str, errors: &mut Vec<ConfigError>) -> FileContent {
    let place = |offset: usize| Place::File { path: path.to_owned(), line: Some(line_of(text, offset)) };
    let (table, mistakes) = DeTable::parse_recoverable(text);
    // A broken line leaves half-read keys behind, which would only be reported a second time.
    if !mistakes.is_empty() {
        errors.extend(mistakes.iter().map(|mistake| {
            let offset = mistake.span().map_or(0, |span| span.start);
            ConfigError {
                place: place(offset),
                key: None,
                problem: format!("is not TOML: {}", mistake.message()),
            }
        }));
        // Each level of a nesting that does not end is a mistake of its own.
        errors.dedup();
        return FileContent::default();
    }
    let mut found = FileContent::default();
    for (name, value) in table.get_ref() {
        let section = name.get_ref().to_string();
        let at = place(name.span().start);
        match value.get_ref() {
            DeValue::Array(tables) if section == TOPIC && tables.iter().all(is_table) => {
                found.topics.extend(list(TOPIC, tables, &place));
            }
            _ if section == TOPIC => errors.push(ConfigError {
                place: at,
                key: Some(section),
                problem: "rules are tables of a list: write [[topic]] on a line of its own for each"
                    .to_owned(),
            }),
            DeValue::Array(tables) if !tables.is_empty() && tables.iter().all(is_table) => {
                errors.push(ConfigError { place: at, problem: no_list(&section), key: Some(section) });
            }
            // An empty section is still a name that may be misspelt.
            DeValue::Table(table) if table.is_empty() => {
                found.assignments.push(Assignment { section, key: None, value: None, place: at });
            }
            DeValue::Table(table) => {
                let mut own = keys(&section, value, &place);
                if section == AUTH
                    && let Some((name, issuers)) = table.get_key_value(AUTH_LIST)
                {
                    own.retain(|assignment| assignment.key.as_deref() != Some(AUTH_LIST));
                    match issuers.get_ref() {
                        DeValue::Array(tables) if tables.iter().all(is_table) => {
                            found.issuers.extend(list(ISSUER, tables, &place));
                        }
                        _ => errors.push(ConfigError {
                            place: place(name.span().start),
                            key: Some(ISSUER.to_owned()),
                            problem: format!(
                                "issuers are tables of a list: write [[{ISSUER}]] on a line of its own for each"
                            ),
                        }),
                    }
                }
                found.assignments.extend(own);
            }
            _ => found.assignments.push(Assignment {
                section: String::new(),
                key: Some(section),
                value: Some(raw(value)),
                place: at,
            }),
        }
    }
    found
}

/// The tables of a list.
fn list(name: &str, tables: &[Spanned<DeValue<'_>>], place: &impl Fn(usize) -> Place) -> Vec<Table> {
    let table =
        |table: &Spanned<_>| Table { place: place(table.span().start), keys: keys(name, table, place) };
    tables.iter().map(table).collect()
}

/// The keys of a table with their values and places.
fn keys(section: &str, table: &Spanned<DeValue<'_>>, place: &impl Fn(usize) -> Place) -> Vec<Assignment> {
    let DeValue::Table(keys) = table.get_ref() else { return Vec::new() };
    let assignment = |(key, value): (&Spanned<_>, &Spanned<DeValue<'_>>)| Assignment {
        section: section.to_owned(),
        key: Some(Cow::to_string(key.get_ref())),
        value: Some(raw(value)),
        place: place(key.span().start),
    };
    keys.iter().map(assignment).collect()
}

fn is_table(value: &Spanned<DeValue<'_>>) -> bool {
    matches!(value.get_ref(), DeValue::Table(_))
}

fn no_list(name: &str) -> String {
    match nearest(name, [TOPIC, ISSUER]) {
        Some(meant) => format!("unknown list [[{name}]]; did you mean [[{meant}]]?"),
        None => format!("[[{name}]] is no list of tables; only [[{TOPIC}]] and [[{ISSUER}]] are"),
    }
}

fn raw(value: &Spanned<DeValue<'_>>) -> RawValue {
    match value.get_ref() {
        DeValue::String(text) => RawValue::String(text.to_string()),
        DeValue::Integer(number) => {
            let digits = number.as_str().replace('_', "");
            let parsed = i64::from_str_radix(&digits, number.radix());
            parsed.map_or_else(|_| RawValue::Other(number.as_str().to_owned()), RawValue::Integer)
        }
        DeValue::Float(number) => {
            let parsed = number.as_str().replace('_', "").parse();
            parsed.map_or_else(|_| RawValue::Other(number.as_str().to_owned()), RawValue::Float)
        }
        DeValue::Boolean(switch) => RawValue::Bool(*switch),
        DeValue::Array(items) => RawValue::List(items.iter().map(raw).collect()),
        DeValue::Datetime(date) => RawValue::Other(format!("the date {date}")),
        DeValue::Table(_) => RawValue::Other("a table".to_owned()),
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    let before = text.as_bytes().get(..offset).unwrap_or(text.as_bytes());
    before.iter().filter(|byte| **byte == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_with_their_lines() {
        let mut errors = Vec::new();
        let text = "# comment\n[server]\nlisten = \"127.0.0.1:1\"\n\n[limits]\nfragments_max = 0x10\n";
        let found = content("f.toml", text, &mut errors).assignments;
        assert_eq!(errors, []);
        let lines: Vec<_> =
            found.iter().map(|a| (a.section.as_str(), a.key.as_deref(), a.place.to_string())).collect();
        assert!(lines.contains(&("server", Some("listen"), "f.toml:3".into())), "{lines:?}");
        assert!(lines.contains(&("limits", Some("fragments_max"), "f.toml:6".into())), "{lines:?}");
        let hex = found.iter().find(|a| a.section == "limits").and_then(|a| a.value.clone());
        assert_eq!(hex, Some(RawValue::Integer(16)));
    }

    #[test]
    fn what_is_no_toml_names_its_line() {
        let mut errors = Vec::new();
        assert!(content("f.toml", "[server]\nlisten = \n", &mut errors).assignments.is_empty());
        assert!(errors.iter().all(|e| e.to_string().starts_with("f.toml:2: is not TOML: ")), "{errors:?}");
        assert!(!errors.is_empty());
    }

    #[test]
    fn a_nesting_without_an_end_is_told_in_a_few_lines() {
        let mut errors = Vec::new();
        content("f.toml", &format!("a = {}", "[".repeat(100_000)), &mut errors);
        assert!((1..10).contains(&errors.len()), "{}", errors.len());
    }

    #[test]
    fn numbers_beyond_64_bits_are_kept_as_text() {
        let mut errors = Vec::new();
        let found = content("f", "[a]\nb = 99999999999999999999\n", &mut errors).assignments;
        assert_eq!(found.len() + errors.len(), 1, "{found:?} {errors:?}");
    }
}
