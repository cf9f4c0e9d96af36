//! The files that a result is written to, and standard output: what is printed, what can't be written.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::table::Table;
use crate::result::histogram_columns;
use crate::result::html;
use crate::result::junit;
use crate::result::whole_file;

/// Files that a result is written to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Files {
    /// The result.
    pub(crate) json: Option<PathBuf>,
    /// A page with charts.
    pub(crate) html: Option<PathBuf>,
    /// Latencies as an HdrHistogram log.
    pub(crate) hdr: Option<PathBuf>,
    /// The verdict as JUnit XML.
    pub(crate) junit: Option<PathBuf>,
}

impl Files {
    /// Whether all can be written, and `csv` beside them.
    pub(crate) fn check(&self, csv: Option<&Path>) -> Result<(), String> {
        let files =
            [("--json", &self.json), ("--html", &self.html), ("--hdr", &self.hdr), ("--junit", &self.junit)];
        let named = files.into_iter().filter_map(|(flag, path)| Some((flag, path.as_deref()?)));
        let named: Vec<(&str, &Path)> = named.chain(csv.map(|path| ("--csv", path))).collect();
        all_of(named.iter().map(|(flag, path)| check_writable(flag, path)))?;
        let mut earlier = named.iter().enumerate().flat_map(|(index, file)| {
            let before = named.get(..index).unwrap_or_default();
            before.iter().map(move |first| (first, file))
        });
        // The later one would take the place of the earlier; a device or a pipe takes both.
        let twice =
            earlier.find(|((_, first), (_, second))| first == second && (!first.exists() || first.is_file()));
        match twice {
            Some(((first, path), (second, _))) => {
                Err(format!("{first} and {second} name the same file, {}", path.display()))
            }
            None => Ok(()),
        }
    }
}

/// The same of a result that is JSON already; `text` is how `--json` writes it.
pub(crate) fn publish_value(report: &Value, text: &str, table: &Table, files: &Files) -> Result<(), String> {
    use std::io::Write;
    // A run of several prints nothing itself, and standard output may still hold what nobody takes.
    let text_of_table = table.text();
    let printed = match text_of_table.is_empty() {
        true => Ok(()),
        false => std::io::stdout().write_all(text_of_table.as_bytes()),
    };
    all_of([
        printed.map_err(|error| format!("standard output: {error}")),
        files.json.as_deref().map_or(Ok(()), |path| write("--json", path, text)),
        files.html.as_deref().map_or(Ok(()), |path| write("--html", path, &html::page(report, &table.rows))),
        files.hdr.as_deref().map_or(Ok(()), |path| histogram_columns::write_log(path, report)),
        files.junit.as_deref().map_or(Ok(()), |path| write("--junit", path, &junit::text(report))),
    ])
}

/// Prints a line of what is still under way. Whether anybody reads it shows when the result is printed.
pub(crate) fn print_line(line: &str) {
    use std::io::Write;
    drop(writeln!(std::io::stdout(), "{line}"));
}

/// Writes the file that `flag` names.
pub(crate) fn write(flag: &str, path: &Path, text: &str) -> Result<(), String> {
    whole_file::put(path, text.as_bytes()).map_err(|error| format!("{flag} {}: {error}", path.display()))
}

/// Whether a file can be written, so that this is not found out when the run is over.
fn check_writable(flag: &str, path: &Path) -> Result<(), String> {
    let there = path.exists();
    let opened = std::fs::OpenOptions::new().append(true).create(true).open(path);
    opened.map_err(|error| format!("{flag} {}: {error}", path.display()))?;
    if !there {
        // Only the attempt was wanted.
        let _ = std::fs::remove_file(path);
    }
    Ok(())
}

/// What of several things went wrong. All are tried before: a disk that is full must not take the rest of a result along.
pub(crate) fn all_of(outcomes: impl IntoIterator<Item = Result<(), String>>) -> Result<(), String> {
    let wrong: Vec<String> = outcomes.into_iter().filter_map(Result::err).collect();
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("; ")) }
}
