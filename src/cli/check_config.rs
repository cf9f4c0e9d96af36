//! `fantail check-config`: reads the configuration exactly as `serve` does, says what is wrong with it or,
//! with `--print`, every key with its value and where that came from. Starts nothing.

use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};

use crate::config::{ConfigError, ConfigErrors, KeyValue, Place, UNSET, load};
use crate::server::{self, ServeError};

use super::serve::ServeArgs;
use super::{FAILED, MISUSED, fail, print};

pub(super) const EXAMPLES: &str = "\
Exit codes: 0 serve would start with this configuration here, 1 the answer cannot be written or the machine's limits \
not be read, 2 it would not.

Examples:
  fantail check-config --config fantail.toml
      Check file, environment and flags together, as serve would read them.
  fantail check-config --config fantail.toml --elsewhere
      Check it for another machine, whatever this one holds.
  fantail check-config --config fantail.toml --print
      Show every key, its value and its source: default, file:line, environment variable or flag.
  fantail check-config --print --json | jq '.keys[] | select(.source != \"default\")'
      Show what somebody has set.";

/// Flags of `check-config`: those of `serve`, and how to answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub(super) struct CheckConfigArgs {
    #[command(flatten)]
    serve: ServeArgs,
    /// Print every key with its value and source, as TOML; secrets are left out
    #[arg(long)]
    print: bool,
    /// Leave out what depends on this machine, such as its open files: the configuration is for another one
    #[arg(long)]
    elsewhere: bool,
    /// Answer as one JSON object
    #[arg(long)]
    json: bool,
}

/// Checks and reports.
pub(super) fn run(args: &CheckConfigArgs) -> ExitCode {
    let loaded = match load(&args.serve.sources(std::env::vars_os().collect())) {
        Ok(loaded) => loaded,
        Err(errors) if args.json => {
            let _ = print(&errors_as_json(&errors));
            return ExitCode::from(MISUSED);
        }
        Err(errors) => return fail(MISUSED, &errors.to_string()),
    };
    if !args.elsewhere
        && let Err(error) = server::check(&loaded.settings)
    {
        if args.json {
            let key = match &error {
                ServeError::Limits(error) => Some(error.key),
                ServeError::Tls(error) => Some(error.key),
                ServeError::Key(error) => Some(error.key),
                ServeError::Io { .. } => None,
            };
            let problem = error.to_string();
            let error = json!({ "source": "this machine", "key": key, "problem": problem });
            let _ = print(&format!("{}\n", json!({ "ok": false, "errors": [error] })));
        } else {
            fail(MISUSED, &format!("on this machine: {error}; --elsewhere leaves this out"));
        }
        return ExitCode::from(if error.is_configuration() { MISUSED } else { FAILED });
    }
    let warnings = &loaded.warnings;
    if args.json {
        return print(&as_json(args.print.then(|| loaded.values()), warnings));
    }
    for warning in warnings {
        fail(0, &format!("warning: {warning}"));
    }
    if args.print {
        print(&as_toml(&loaded.values()))
    } else {
        let set = loaded.values().iter().filter(|value| value.place != Place::Default).count();
        print(&format!("the configuration is good; {set} keys are set, the others have their defaults\n"))
    }
}

fn source(place: &Place) -> String {
    match place {
        Place::Default => "default".to_owned(),
        other => other.to_string(),
    }
}

fn as_toml(values: &[KeyValue]) -> String {
    let width = values.iter().map(|value| line_of(value).chars().count()).filter(|width| *width <= 60).max();
    let width = width.unwrap_or_default();
    let mut text = String::new();
    let mut open = None;
    for value in values {
        let table = (value.section, value.rule);
        if open != Some(table) {
            text.push_str(if open.is_none() { "" } else { "\n" });
            text.push_str(&match table {
                (section, None) => format!("[{section}]\n"),
                (section, Some(_)) => format!("[[{section}]]\n"),
            });
            open = Some(table);
        }
        text.push_str(&format!("{:width$}  # {}\n", line_of(value), source(&value.place)));
    }
    text
}

/// The assignment; a secret's is a comment, and that of a key without a value of its own, so that what is printed can be
/// read as a configuration.
fn line_of(value: &KeyValue) -> String {
    let comment = if value.secret || value.value == UNSET { "# " } else { "" };
    format!("{comment}{} = {}", value.key, value.value)
}

/// `section.key`, or `topic[0].key` for a rule.
fn name(value: &KeyValue) -> String {
    match value.rule {
        None => format!("{}.{}", value.section, value.key),
        Some(index) => format!("{}[{index}].{}", value.section, value.key),
    }
}

fn as_json(values: Option<Vec<KeyValue>>, warnings: &[String]) -> String {
    let mut report = json!({ "ok": true, "warnings": warnings });
    if let Some(values) = values {
        let key = |value: &KeyValue| json!({ "key": name(value), "value": value.value, "source": source(&value.place) });
        report["keys"] = values.iter().map(key).collect();
    }
    format!("{report}\n")
}

fn errors_as_json(errors: &ConfigErrors) -> String {
    let error = |error: &ConfigError| json!({ "source": source(&error.place), "key": error.key, "problem": error.problem });
    let errors: Vec<Value> = errors.0.iter().map(error).collect();
    format!("{}\n", json!({ "ok": false, "errors": errors }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(key: &'static str, value: &str, secret: bool, place: Place) -> KeyValue {
        KeyValue { section: "server", rule: None, key, value: value.to_owned(), secret, place }
    }

    #[test]
    fn what_is_printed_is_toml_with_sources() {
        let file = Place::File { path: "a.toml".into(), line: Some(3) };
        let text = as_toml(&[
            value("loops", "2", false, file),
            value("listen", "\"127.0.0.1:1\"", false, Place::Flag("--listen")),
            value("keys", "\"(not shown)\"", true, Place::Environment("FANTAIL_X".into())),
            value("other", UNSET, false, Place::Default),
        ]);
        let expected = "[server]\n\
                        loops = 2               # a.toml:3\n\
                        listen = \"127.0.0.1:1\"  # flag --listen\n\
                        # keys = \"(not shown)\"  # environment FANTAIL_X\n\
                        # other = unset         # default\n";
        assert_eq!(text, expected);
        assert!(toml::from_str::<toml::Table>(&text).is_ok());
    }

    #[test]
    fn json_answers_parse() {
        let text = as_json(Some(vec![value("loops", "2", false, Place::Default)]), &["a \"b\"".to_owned()]);
        let parsed: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(parsed["keys"][0]["key"], "server.loops");
        assert_eq!(
            (&parsed["keys"][0]["source"], &parsed["warnings"][0]),
            (&"default".into(), &"a \"b\"".into())
        );
    }
}
