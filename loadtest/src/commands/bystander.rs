//! A bystander of a storm: one echo connection that sends a small message every 10 ms, whatever happens to
//! the others, and so feels what they do to the server.
//!
//! It is a run of its own with one worker; its messages are planned like those of `echo`.

use std::time::Duration;

use hdrhistogram::Histogram;

use crate::base::failure::Failure;
use crate::base::interrupt;
use crate::base::schedule::Schedule;
use crate::base::secrets;
use crate::cli::args::Common;
use crate::engine::connection::Role;
use crate::engine::conversation::Talk;
use crate::engine::message::{Filler, Shape};
use crate::engine::pacing::Pacer;
use crate::engine::run::{Options, Run};
use crate::engine::sizes::Sizes;
use crate::engine::worker::Published;
use crate::net::target::Target;
use crate::result::tally::Tally;
use crate::tls;

const PER_SECOND: f64 = 100.0;
const BYTES: usize = 64;
/// Longer than any storm; the schedule is cut when the storm is over.
const LONGEST: Duration = Duration::from_secs(24 * 3600);
/// How long echoes may be on their way at the end.
const ARRIVAL_DEADLINE: Duration = Duration::from_secs(10);

/// A bystander under way.
#[derive(Debug)]
pub(crate) struct Bystander {
    run: Run,
    pacer: Pacer,
    schedule: Schedule,
}

impl Bystander {
    /// Connects to the echo server and begins to send; `None` if the run was ended before it was connected. Headers are
    /// those of the storm's connections.
    pub(crate) fn start(common: &Common, target: Target, url: &str) -> Result<Option<Self>, Failure> {
        let options = common.options();
        let talk = Talk {
            vars: options.talk.vars.clone(),
            header: options.talk.header.clone(),
            subprotocol: options.talk.subprotocol.clone(),
            ..Talk::default()
        };
        let options =
            Options { connections: 1, threads: Some(1), connect_rate: None, deflate: false, talk, ..options };
        let shape = Shape { sizes: Sizes::One(BYTES), filler: Filler::Letters, binary: false };
        let mut run = Run::start(&options, target, Role::Echo, shape)?;
        run.open(1)?;
        let counts = run.counts();
        if counts.opened == 0 && interrupt::requested() {
            run.stop(Published::Own)?;
            return Ok(None);
        }
        if counts.opened == 0 {
            let why: Vec<String> = counts
                .troubles
                .keys()
                .map(|trouble| match tls::hint(*trouble, run.plan.tls.is_some()) {
                    Some(hint) => format!("{}, {hint}", trouble.name()),
                    None => trouble.name(),
                })
                .collect();
            return Err(Failure::Failed(format!(
                "--bystander {}: {}; `--bystander none` does without",
                secrets::url(url),
                why.join(", ")
            )));
        }
        let schedule = Schedule::new(run.plan.clock.now_ns() + 20_000_000, PER_SECOND, 1, LONGEST);
        run.order(|order| order.schedule = Some(schedule.clone()));
        let pacer = Pacer::start(&run, schedule.clone());
        Ok(Some(Self { run, pacer, schedule }))
    }

    /// Round trips so far, from the planned send time.
    pub(crate) fn latency(&self) -> Histogram<u64> {
        self.run.merged().latency
    }

    /// What its clock says now.
    pub(crate) fn now_ns(&self) -> u64 {
        self.run.plan.clock.now_ns()
    }

    /// Sends no more, waits for what is on its way, and returns what was counted.
    pub(crate) fn stop(mut self) -> Result<Tally, Failure> {
        self.pacer.stop()?;
        let cut = self.schedule.clone().cut(self.run.plan.clock.now_ns());
        self.run.order(|order| order.schedule = Some(cut.clone()));
        self.run.wait(ARRIVAL_DEADLINE, |run| {
            let counts = run.counts();
            counts.sent + counts.unsent >= cut.count() && counts.unique >= counts.sent
        })?;
        Ok(self.run.stop(Published::Own)?)
    }
}
