//! The columns of `--vars`: what each connection says in place of `{name}`.
//!
//! Looked up when a connection is made or a message leaves, so that nothing is kept per connection.

use super::text::is_name;

/// Names that mean something of their own.
const OWN_NAMES: [&str; 10] =
    ["i", "topic", "topics", "marker", "seq", "size", "now", "uuid", "random", "hmac_sha256"];
/// Rows that a file may have; more than connections that one generator can hold.
const ROWS_MAX: usize = 10_000_000;

/// The rows of `--vars`, one for each connection; fewer rows than connections are used again.
#[derive(Debug, Default)]
pub(crate) struct Vars {
    names: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Vars {
    /// Parses CSV (RFC 4180, without line breaks inside quotes) whose first line names the columns.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        let (_, first) = lines.next().ok_or("the file is empty")?;
        let names = fields(first.trim_start_matches('\u{feff}'))?;
        if let Some(wrong) = names.iter().find(|name| !is_name(name) || OWN_NAMES.contains(&name.as_str())) {
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

    /// The columns' names.
    pub(crate) fn names(&self) -> &[String] {
        &self.names
    }

    /// How many rows there are.
    pub(crate) fn rows(&self) -> u64 {
        self.rows.len() as u64
    }

    /// What a column has in the row of connection `number`; nothing if there is none.
    pub(crate) fn value(&self, column: usize, number: u64) -> &str {
        let row = usize::try_from(number % self.rows.len().max(1) as u64).unwrap_or(0);
        self.rows.get(row).and_then(|row| row.get(column)).map_or("", String::as_str)
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
    fn rows_are_used_again() {
        let vars = Vars::parse("user,token\nann,a b\nbob,\"x,\"\"y\"\"\"\n\n").unwrap();
        assert_eq!((vars.value(0, 3), vars.value(1, 0), vars.value(1, 1)), ("bob", "a b", "x,\"y\""));
        assert_eq!((vars.rows(), vars.names().len()), (2, 2));
        assert_eq!((Vars::default().value(0, 7), Vars::default().rows()), ("", 0));
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
