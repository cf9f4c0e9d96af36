//! Puts the rooms together: threads, signals, drain, stop.

use std::fmt;

use crate::config::{LimitsError, Settings};

/// Why the server did not run to a proper end.
#[derive(Debug)]
pub enum ServeError {
    /// The settings do not fit this machine.
    Limits(LimitsError),
    /// Anything else.
    Failed(String),
}

impl ServeError {
    /// Whether the configuration is at fault, which is exit code 2.
    pub fn is_configuration(&self) -> bool {
        matches!(self, Self::Limits(_))
    }
}

impl fmt::Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Limits(error) => error.fmt(f),
            Self::Failed(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for ServeError {}

/// Serves until told to stop.
///
/// # Errors
/// When the settings do not fit the machine, or a thread or listener cannot be had.
pub fn run(_settings: Settings) -> Result<(), ServeError> {
    Err(ServeError::Failed("this build has no server".to_owned()))
}
