//! One file per command, each with one `run` that says whether all was well.

pub(crate) mod echo;
pub(crate) mod fanout;
pub(crate) mod idle;

use std::fmt;
use std::time::Duration;

use crate::server_process::ServerProcess;

/// How long after the last send a message may still arrive.
pub(crate) const ARRIVAL_DEADLINE: Duration = Duration::from_secs(10);

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

/// The server process of `--pid`.
fn watched(pid: Option<u32>) -> Result<Option<ServerProcess>, Failure> {
    pid.map(ServerProcess::new).transpose().map_err(Failure::Usage)
}

/// A `ws://` target.
fn ws_target(url: &str) -> Result<crate::target::Target, Failure> {
    let target = crate::target::Target::parse(url).map_err(Failure::Usage)?;
    match target.scheme {
        crate::target::Scheme::Ws => Ok(target),
        crate::target::Scheme::Http => Err(Failure::Usage(format!("{url}: connections need ws://"))),
    }
}
