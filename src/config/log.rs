//! `[log]`: what is logged, and how.

use super::section::{Checker, section};
use super::value::{Count, Kind, RawValue};

/// How much is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// What stops or harms the service.
    Error,
    /// What an operator should look at.
    Warn,
    /// The course of the process: start, ready, drain, stop.
    Info,
    /// Refusals and closes with their reasons.
    Debug,
    /// Each message, too: for looking at a few connections.
    Trace,
}

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people; in colour on a terminal.
    Text,
    /// One JSON object a line.
    Json,
}

section! {
    /// What is logged to standard error.
    Log ["log"] {
        /// The least severe level that is logged: error, warn, info, debug or trace. At debug each upgrade,
        /// refusal and close is told, at trace each message too.
        live "level" => level: LogLevel as Level = LogLevel::Info,
        /// text, or json for one object a line.
        "format" => format: LogFormat as Format = LogFormat::Text,
        /// Lines a second of one kind, which is one place in the code. What comes beyond is counted, and told
        /// once a second in one line. 0 for no limit.
        "lines_per_second" => lines_per_second: usize as Count = 50,
    }
}

impl Log {
    fn check_values(&self, check: &mut Checker<'_>) {
        check.within("lines_per_second", self.lines_per_second, 0..=1_000_000);
    }
}

struct Level;

impl Kind for Level {
    type Out = LogLevel;
    const EXPECTS: &'static str = "error, warn, info, debug or trace";

    fn parse(raw: &RawValue) -> Option<LogLevel> {
        Some(match raw.word()?.as_str() {
            "error" => LogLevel::Error,
            "warn" => LogLevel::Warn,
            "info" => LogLevel::Info,
            "debug" => LogLevel::Debug,
            "trace" => LogLevel::Trace,
            _ => return None,
        })
    }

    fn show(value: &LogLevel) -> String {
        let word = match value {
            LogLevel::Error => "error",
            LogLevel::Warn => "warn",
            LogLevel::Info => "info",
            LogLevel::Debug => "debug",
            LogLevel::Trace => "trace",
        };
        format!("\"{word}\"")
    }
}

struct Format;

impl Kind for Format {
    type Out = LogFormat;
    const EXPECTS: &'static str = "text or json";

    fn parse(raw: &RawValue) -> Option<LogFormat> {
        match raw.word()?.as_str() {
            "text" => Some(LogFormat::Text),
            "json" => Some(LogFormat::Json),
            _ => None,
        }
    }

    fn show(value: &LogFormat) -> String {
        match value {
            LogFormat::Text => "\"text\"".to_owned(),
            LogFormat::Json => "\"json\"".to_owned(),
        }
    }
}
