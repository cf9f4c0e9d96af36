//! `{i}` and `{name}` in URLs, headers and payloads: the number of a connection and the columns of `--vars`.
//!
//! Filled in when a connection is made or a message leaves, so that nothing is kept per connection. Braces
//! that hold no known name stay as they are, because JSON is full of them.

use std::borrow::Cow;

/// Rows that a file may have; more than connections that one generator can hold.
const ROWS_MAX: usize = 10_000_000;

/// The rows of `--vars`, one for each connection; fewer rows than connections are used again.
#[derive(Debug, Default)]
pub(crate) struct Vars {
    names: Vec<String>,
    rows: Vec<Vec<String>>,
}

/// How a value is written where it is put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spelling {
    /// As it is.
    Plain,
    /// Percent-encoded, for URLs (RFC 3986 section 2.1).
    Url,
}

impl Vars {
    /// Parses CSV (RFC 4180, without line breaks inside quotes) whose first line names the columns.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        let (_, first) = lines.next().ok_or("the file is empty")?;
        let names = fields(first.trim_start_matches('\u{feff}'))?;
        if let Some(wrong) = names.iter().find(|name| !is_name(name) || *name == "i") {
            return Err(format!("line 1: {wrong:?} can't be a column's name"));
        }
        let mut rows = Vec::new();
        for (number, line) in lines {
            let row = fields(line).map_err(|error| format!("line {}: {error}", number + 1))?;
            if row.len() != names.len() {
                return Err(format!("line {}: {} fields, not {}", number + 1, row.len(), names.len()));
            }
            if rows.len() == ROWS_MAX {
                return Err(format!("more than {ROWS_MAX} rows"));
            }
            rows.push(row);
        }
        if rows.is_empty() {
            return Err("no row behind the names".into());
        }
        Ok(Self { names, rows })
    }

    /// `text` as connection `number` says it.
    pub(crate) fn fill<'t>(&self, text: &'t str, number: u64, spelling: Spelling) -> Cow<'t, str> {
        if !text.contains('{') {
            return Cow::Borrowed(text);
        }
        let mut filled = String::with_capacity(text.len() + 16);
        let mut rest = text;
        while let Some((before, behind)) = rest.split_once('{') {
            filled.push_str(before);
            rest = behind;
            let known = behind
                .split_once('}')
                .and_then(|(name, after)| self.value(name, number).map(|value| (value, after)));
            match known {
                Some((value, after)) => {
                    push_value(&mut filled, &value, spelling);
                    rest = after;
                }
                None => filled.push('{'),
            }
        }
        filled.push_str(rest);
        Cow::Owned(filled)
    }

    /// The first `{name}` in `text` that is neither a column nor `i`.
    pub(crate) fn unknown_in<'t>(&self, text: &'t str) -> Option<&'t str> {
        text.split('{')
            .skip(1)
            .filter_map(|part| part.split_once('}').map(|(name, _)| name))
            .find(|name| is_name(name) && *name != "i" && !self.names.iter().any(|known| known == name))
    }

    fn value(&self, name: &str, number: u64) -> Option<Cow<'_, str>> {
        if name == "i" {
            return Some(number.to_string().into());
        }
        let column = self.names.iter().position(|known| known == name)?;
        let row = usize::try_from(number % self.rows.len().max(1) as u64).ok()?;
        self.rows.get(row)?.get(column).map(|value| value.as_str().into())
    }
}

fn is_name(text: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    text.bytes().next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
        && text.bytes().all(word)
}

fn push_value(out: &mut String, value: &str, spelling: Spelling) {
    if spelling == Spelling::Plain {
        return out.push_str(value);
    }
    for byte in value.bytes() {
        // RFC 3986 section 2.3: these and no others need no encoding anywhere.
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
}

/// The fields of one line; a quoted one may hold commas and doubled quotes.
fn fields(line: &str) -> Result<Vec<String>, String> {
    let mut fields = Vec::new();
    let mut rest = line;
    loop {
        let Some(quoted) = rest.trim_start().strip_prefix('"') else {
            match rest.split_once(',') {
                Some((field, after)) => {
                    fields.push(field.trim().to_owned());
                    rest = after;
                    continue;
                }
                None => {
                    fields.push(rest.trim().to_owned());
                    return Ok(fields);
                }
            }
        };
        let mut field = String::new();
        let mut tail = quoted;
        loop {
            let (part, after) = tail.split_once('"').ok_or("a quote is not closed")?;
            field.push_str(part);
            match after.strip_prefix('"') {
                Some(more) => {
                    field.push('"');
                    tail = more;
                }
                None => {
                    tail = after.trim_start();
                    break;
                }
            }
        }
        fields.push(field);
        match tail.strip_prefix(',') {
            Some(after) => rest = after,
            None if tail.is_empty() => return Ok(fields),
            None => return Err("text behind a closing quote".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_filled_in_and_rows_are_used_again() {
        let vars = Vars::parse("user,token\nann,a b\nbob,\"x,\"\"y\"\"\"\n\n").unwrap();
        let plain = |text: &str, number| vars.fill(text, number, Spelling::Plain).into_owned();
        assert_eq!(plain("{\"auth\":\"{token}\",\"n\":{i}}", 0), "{\"auth\":\"a b\",\"n\":0}");
        assert_eq!(plain("{user}-{i}", 3), "bob-3");
        assert_eq!(plain("{token}", 1), "x,\"y\"");
        assert_eq!(vars.fill("/ws/{user}?t={token}", 2, Spelling::Url), "/ws/ann?t=a%20b");
        assert_eq!(plain("{other} {} {{user}}", 0), "{other} {} {ann}");
    }

    #[test]
    fn unknown_names_are_told() {
        let vars = Vars::parse("user\nann\n").unwrap();
        assert_eq!(vars.unknown_in("/{user}/{i}/{tokn}"), Some("tokn"));
        assert_eq!(vars.unknown_in("/{user}/{i}"), None);
        assert_eq!(Vars::default().unknown_in("{user}"), Some("user"));
        assert_eq!(Vars::default().fill("{user}{i}", 7, Spelling::Plain), "{user}7");
    }

    #[test]
    fn broken_files_are_refused_with_their_line() {
        for (wrong, says) in [
            ("", "empty"),
            ("a,b\n", "no row"),
            ("a,b\n1\n", "line 2: 1 fields"),
            ("a\n\"x\n", "line 2: a quote"),
            ("a\n\"x\"y\n", "line 2: text behind"),
            ("i\n1\n", "line 1"),
            ("a b\n1\n", "line 1"),
        ] {
            let error = Vars::parse(wrong).unwrap_err();
            assert!(error.contains(says), "{wrong:?}: {error}");
        }
    }
}
