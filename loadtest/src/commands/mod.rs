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
pub(crate) mod staged;
pub(crate) mod storm;

use std::time::Duration;

use crate::base::failure::Failure;
use crate::base::interrupt;
use crate::base::pace::Pace;
use crate::base::schedule::Schedule;
use crate::cli::args::Common;
use crate::engine::conversation::Client;
use crate::engine::message;
use crate::engine::run::Run;
use crate::net::target::{Scheme, Target};
use crate::net::ways::Ways;
use crate::observe::server_process::ServerProcess;
use crate::publish;

/// How long a run looks for duplicates after everything has arrived.
const LINGER: Duration = Duration::from_millis(200);

/// When no further subscription has seen a probe for so long, another is sent.
const PROBE_QUIET: Duration = Duration::from_secs(1);
/// Probes before those that have seen none are given up.
const PROBES: usize = 10;

/// Has probes published until every open connection has seen one of each of its topics, and returns how many have been
/// seen. A 101 says that a connection is open; with most servers it is subscribed only a moment later.
fn probe(run: &mut Run, mut publish: impl FnMut(&Run) -> Result<(), Failure>) -> Result<u64, Failure> {
    for _ in 0..PROBES {
        publish(run)?;
        let all_seen = run.wait_while_moving(PROBE_QUIET, |run| {
            let counts = run.counts();
            (counts.probed >= counts.subscriptions || counts.lost >= counts.opened, counts.probed)
        })?;
        if all_seen || interrupt::requested() {
            break;
        }
    }
    Ok(run.counts().probed)
}

/// A little ahead of now, so that every worker knows the plan before the first message is due.
fn soon_ns(run: &Run) -> u64 {
    run.plan.clock.now_ns() + 20_000_000
}

/// When messages leave, from a moment that is to be said later.
fn planned(pace: &Pace, burst: u32) -> Result<Schedule, Failure> {
    let mut state = message::random_u64();
    // xorshift64*: its high bits are as random as arrivals have to be.
    let random = || {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) as f64 / (1u64 << 53) as f64
    };
    Schedule::paced(pace, burst, random).map_err(Failure::Usage)
}

/// The server of `--pid` or `--server-metrics`.
fn watched(common: &Common) -> Result<Option<ServerProcess>, Failure> {
    ServerProcess::of(&common.watched()).map_err(Failure::Usage)
}

/// Where clients connect: `ws://` and `wss://`, or for those that listen by HTTP `http://` and `https://`.
fn clients_target(url: &str, common: &Common) -> Result<Target, Failure> {
    if common.listen.client.unwrap_or_default() == Client::Ws {
        return ws_target(url, common);
    }
    let target = target(url, common)?;
    if target.scheme == Scheme::Ws {
        return Err(Failure::Usage(format!("{url}: event streams and polls need http:// or https://")));
    }
    if common.deflate {
        return Err(Failure::Usage("--deflate: it is about WebSockets".into()));
    }
    if let Some(resume) = &common.listen.resume_url {
        let there = self::target(resume, common)?;
        if (there.secure, &there.authority) != (target.secure, &target.authority) {
            return Err(Failure::Usage(format!("--resume-url {resume}: not on the server of {url}")));
        }
    }
    Ok(target)
}

/// A `ws://` or `wss://` target.
fn ws_target(url: &str, common: &Common) -> Result<Target, Failure> {
    let target = target(url, common)?;
    match target.scheme {
        Scheme::Ws => Ok(target),
        Scheme::Http => Err(Failure::Usage(format!("{url}: connections need ws:// or wss://"))),
    }
}

/// How messages are posted to a `--publish-url`, as they are.
fn posting(url: &str, headers: &[String], common: &Common) -> Result<publish::Wanted, Failure> {
    let target = target(url, common)?;
    if target.scheme != Scheme::Http {
        return Err(Failure::Usage(format!("--publish-url {url}: needs http:// or https://")));
    }
    Ok(publish::Wanted {
        target,
        publishers: None,
        method: "POST".into(),
        headers: headers.to_vec(),
        body: None,
        tls: common.tls.wanted(),
    })
}

/// Where a URL leads, by the way that `--connect-to` says.
fn target(url: &str, common: &Common) -> Result<Target, Failure> {
    let ways = Ways::parse(&common.connect_to).map_err(Failure::Usage)?;
    Target::parse_by(url, &ways).map_err(Failure::Usage)
}
