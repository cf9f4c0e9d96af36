//! One file per command, each with one `run` that measures, prints and returns its result.

pub(crate) mod bystander;
pub(crate) mod capacity;
pub(crate) mod compare;
pub(crate) mod drive;
pub(crate) mod echo;
pub(crate) mod fanout;
pub(crate) mod idle;
pub(crate) mod memory;
pub(crate) mod merge;
pub(crate) mod planning;
pub(crate) mod rolling;
pub(crate) mod slow;
pub(crate) mod storm;

use std::time::Duration;

use crate::base::failure::Failure;
use crate::cli::args::Common;
use crate::engine::run::Run;
use crate::observe::server_process::ServerProcess;

/// How long a run looks for duplicates after everything has arrived.
const LINGER: Duration = Duration::from_millis(200);

/// A little ahead of now, so that every worker knows the plan before the first message is due.
fn soon_ns(run: &Run) -> u64 {
    run.plan.clock.now_ns() + 20_000_000
}

/// The server of `--pid` or `--server-metrics`.
fn watched(common: &Common) -> Result<Option<ServerProcess>, Failure> {
    ServerProcess::of(&common.watched()).map_err(Failure::Usage)
}

/// A `ws://` or `wss://` target.
fn ws_target(url: &str) -> Result<crate::net::target::Target, Failure> {
    let target = crate::net::target::Target::parse(url).map_err(Failure::Usage)?;
    match target.scheme {
        crate::net::target::Scheme::Ws => Ok(target),
        crate::net::target::Scheme::Http => {
            Err(Failure::Usage(format!("{url}: connections need ws:// or wss://")))
        }
    }
}
