//! One file per command, each with one `run` that says whether all was well.

pub(crate) mod echo;
pub(crate) mod fanout;
pub(crate) mod idle;

use std::time::Duration;

use crate::failure::Failure;
use crate::server_process::ServerProcess;

/// How long after the last send a message may still arrive.
pub(crate) const ARRIVAL_DEADLINE: Duration = Duration::from_secs(10);

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
