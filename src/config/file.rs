//! The TOML file as raw assignments. Reads a text it is given; knows no key but by its shape.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{ConfigError, Place};
use super::load::Assignment;
use super::value::RawValue;

/// Every `[section] key = value` of `text`, with its line; what is no TOML or sits outside a section is an error.
pub(super) fn assignments(path: &str, text: &str, errors: &mut Vec<ConfigError>) -> Vec<Assignment> {
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
        return Vec::new();
    }
    let mut found = Vec::new();
    for (name, value) in table.get_ref() {
        let section = name.get_ref().to_string();
        match value.get_ref() {
            DeValue::Table(keys) => {
                // An empty section is still a name that may be misspelt.
                if keys.is_empty() {
                    found.push(Assignment {
                        section,
                        key: None,
                        value: None,
                        place: place(name.span().start),
                    });
                    continue;
                }
                found.extend(keys.iter().map(|(key, value)| Assignment {
                    section: section.clone(),
                    key: Some(key.get_ref().to_string()),
                    value: Some(raw(value)),
                    place: place(key.span().start),
                }));
            }
            _ => found.push(Assignment {
                section: String::new(),
                key: Some(section),
                value: Some(raw(value)),
                place: place(name.span().start),
            }),
        }
    }
    found
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
        let found = assignments("f.toml", text, &mut errors);
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
        assert!(assignments("f.toml", "[server]\nlisten = \n", &mut errors).is_empty());
        assert!(errors.iter().all(|e| e.to_string().starts_with("f.toml:2: is not TOML: ")), "{errors:?}");
        assert!(!errors.is_empty());
    }

    #[test]
    fn numbers_beyond_64_bits_are_kept_as_text() {
        let mut errors = Vec::new();
        let found = assignments("f", "[a]\nb = 99999999999999999999\n", &mut errors);
        assert_eq!(found.len() + errors.len(), 1, "{found:?} {errors:?}");
    }
}
