//! Why there is no result, and the exit code that says so.

use std::fmt;

/// Why a command has no result.
#[derive(Debug)]
pub(crate) enum Failure {
    /// What was asked for makes no sense: exit code 2.
    Usage(String),
    /// It could not be done: exit code 1.
    Failed(String),
}

impl Failure {
    /// The exit code it stands for.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::Failed(_) => 1,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(what) | Self::Failed(what) => out.write_str(what),
        }
    }
}

/// What goes wrong while running is no usage error.
impl From<String> for Failure {
    fn from(what: String) -> Self {
        Self::Failed(what)
    }
}
