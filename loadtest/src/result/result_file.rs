//! Result files read back: for `compare` and `merge`, which take them as they are, whatever the command.

use std::path::Path;

use serde_json::Value;

use crate::base::failure::Failure;
use crate::result::report::FORMAT;

/// Reads a result file of this layout.
pub(crate) fn load(path: &Path) -> Result<Value, Failure> {
    let wrong = |what: String| Failure::Usage(format!("{}: {what}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    let report: Value =
        serde_json::from_str(&text).map_err(|error| wrong(format!("no result file: {error}")))?;
    match (report.get("format").and_then(Value::as_u64), command(&report)) {
        (Some(format), Some(_)) if format == u64::from(FORMAT) => Ok(report),
        (Some(format), Some(_)) => Err(wrong(format!("has layout {format}; this version reads {FORMAT}"))),
        _ => Err(wrong("no result file of --json".into())),
    }
}

/// The command that made a result.
pub(crate) fn command(report: &Value) -> Option<&str> {
    report.get("command").and_then(Value::as_str)
}

/// The single runs of a result: those of a repeated one, else the result itself.
pub(crate) fn runs(report: Value) -> Vec<Value> {
    match report.get("repeats").and_then(Value::as_array) {
        Some(runs) if !runs.is_empty() => runs.clone(),
        _ => vec![report],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(name: &str, text: &str) -> std::path::PathBuf {
        let path = std::env::temp_dir().join(format!("fantail-{name}-{}.json", std::process::id()));
        std::fs::write(&path, text).unwrap();
        path
    }

    #[test]
    fn what_is_no_result_is_a_usage_error() {
        for (name, text) in [
            ("empty", ""),
            ("list", "[]"),
            ("other", r#"{"format": 1}"#),
            ("newer", r#"{"format": 99, "command": "idle"}"#),
        ] {
            let path = written(name, text);
            assert_eq!(load(&path).unwrap_err().exit_code(), 2, "{name}");
            std::fs::remove_file(path).unwrap();
        }
        assert_eq!(load(Path::new("/nowhere/at/all.json")).unwrap_err().exit_code(), 2);
        let path = written("right", r#"{"format": 1, "command": "idle"}"#);
        assert_eq!(command(&load(&path).unwrap()), Some("idle"));
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_repeated_result_has_several_runs() {
        let runs_of = |text: &str| runs(serde_json::from_str(text).unwrap()).len();
        assert_eq!(runs_of(r#"{"repeats": [{"a": 1}, {"a": 2}]}"#), 2);
        assert_eq!(runs_of(r#"{"a": 1}"#), 1);
    }
}
