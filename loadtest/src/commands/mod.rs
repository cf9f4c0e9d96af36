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
pub(crate) mod resuming;
pub(crate) mod rolling;
pub(crate) mod slow;
pub(crate) mod storm;

use std::time::Duration;

use crate::base::failure::Failure;
use crate::cli::args::Common;
use crate::engine::conversation::Client;
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

/// Where clients connect: `ws://` and `wss://`, or for those that listen by HTTP `http://` and `https://`.
fn clients_target(url: &str, common: &Common) -> Result<crate::net::target::Target, Failure> {
    if common.listen.client.unwrap_or_default() == Client::Ws {
        return ws_target(url);
    }
    let parse = |url: &str| crate::net::target::Target::parse(url).map_err(Failure::Usage);
    let target = parse(url)?;
    if target.scheme == crate::net::target::Scheme::Ws {
        return Err(Failure::Usage(format!("{url}: event streams and polls need http:// or https://")));
    }
    if common.deflate {
        return Err(Failure::Usage("--deflate: it is about WebSockets".into()));
    }
    if let Some(resume) = &common.listen.resume_url {
        let there = parse(resume)?;
        if (there.secure, &there.authority) != (target.secure, &target.authority) {
            return Err(Failure::Usage(format!("--resume-url {resume}: not on the server of {url}")));
        }
    }
    Ok(target)
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
