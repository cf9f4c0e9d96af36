//! Connections in stages, for `idle`: opened and closed as time goes on, whatever the server does meanwhile.

use std::time::Duration;

use serde::Serialize;

use crate::base::failure::Failure;
use crate::base::interrupt;
use crate::base::stages::{self, Stage};
use crate::cli::args::IdleArgs;
use crate::cli::pace_flags::ConnectionStages;
use crate::engine::run::Run;
use crate::observe::server_process::ServerProcess;
use crate::result::report::{Common, Table, number_text};
use crate::result::tally::Counts;

/// Where a stage holds, so many may be too few or too many in its end: the share of them, and a few of a small run.
const APART_SHARE: f64 = 0.05;
const APART_LEAST: u64 = 10;

/// How often the number of connections is looked after.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// What a stage came to.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct StageReport {
    /// How long it was planned to be.
    seconds: f64,
    /// Connections that were to be open at its beginning.
    from: u64,
    /// The same at its end.
    to: u64,
    /// Connections that were open at its end.
    open: u64,
    /// Connections that were opened in it.
    opened: u64,
    /// Connections that were closed in it because there were to be fewer.
    closed: u64,
    /// Connections that could not be opened in it.
    failed: u64,
    /// Connections that ended by themselves in it.
    lost: u64,
    /// User memory of the server at its end; null without `--pid` or `--server-metrics`.
    server_user_bytes: Option<u64>,
    /// Resident memory of the server at its end, file pages included.
    server_resident_bytes: Option<u64>,
}

/// The same flags with `--connections` at the highest point of the stages, for whoever plans the run.
pub(crate) fn with_stages(mut args: IdleArgs) -> IdleArgs {
    if let Some(ConnectionStages(stages)) = &args.connection_stages {
        args.common.connections = stages::peak(stages).ceil() as u32;
    }
    args
}

/// Opens and closes as the stages say; each stage that was begun.
pub(super) fn follow(
    run: &mut Run,
    all: &[Stage],
    server: Option<ServerProcess>,
) -> Result<Vec<StageReport>, Failure> {
    let clock = run.plan.clock;
    let begin_ns = clock.now_ns();
    let (mut reports, mut end, mut before, mut wanted) = (Vec::new(), 0.0, Counts::default(), None);
    for stage in all {
        end += stage.seconds;
        // What is under way when a stage ends is under way in the next.
        while !interrupt::requested() {
            let seconds = (clock.now_ns() - begin_ns) as f64 / 1e9;
            // At its very end the next one has begun, which may be elsewhere.
            let level = if seconds < end { stages::at(all, seconds) } else { stage.to };
            if wanted.replace(level.round() as usize) != Some(level.round() as usize) {
                run.hold(level.round() as usize);
            }
            if seconds >= end {
                break;
            }
            run.wait(LOOK_EVERY.min(Duration::from_secs_f64(end - seconds)), |_| interrupt::requested())?;
        }
        let counts = run.counts();
        let (user, resident) = server.map(ServerProcess::user_and_resident_bytes).unwrap_or_default();
        reports.push(StageReport {
            seconds: stage.seconds,
            from: stage.from.round() as u64,
            to: stage.to.round() as u64,
            open: counts.open(),
            opened: counts.opened - before.opened,
            closed: counts.closed - before.closed,
            failed: counts.failed - before.failed,
            lost: counts.lost - before.lost,
            server_user_bytes: user,
            server_resident_bytes: resident,
        });
        before = counts;
        if interrupt::requested() {
            break;
        }
    }
    run.settle()?;
    Ok(reports)
}

/// Adds what the stages show that is not well. Those that failed or were lost have problems of their own.
pub(super) fn judge(stages: &[StageReport], common: &mut Common) {
    // One that was ended early is not judged by its end.
    let judged = stages.len() - usize::from(common.interrupted && !stages.is_empty());
    let mut gone = 0;
    for (number, stage) in (1..).zip(stages.iter().take(judged)) {
        gone += stage.failed + stage.lost;
        let apart = stage.open.abs_diff(stage.to).saturating_sub(gone);
        let most = ((stage.to as f64 * APART_SHARE) as u64).max(APART_LEAST);
        if stage.from == stage.to && apart > most {
            common.problems.push(format!(
                "{} connections were open at the end of stage {number} and not {}",
                stage.open, stage.to
            ));
        }
    }
}

/// A row for each stage.
pub(super) fn rows(stages: &[StageReport], table: &mut Table) {
    for (number, stage) in (1..).zip(stages) {
        let StageReport { seconds, from, to, open, opened, closed, .. } = stage;
        let memory = stage.server_user_bytes.map(|bytes| bytes as f64 / (1 << 20) as f64);
        let memory = memory.map_or(String::new(), |mib| {
            format!(", server {}", number_text(Some(mib), 2, " MiB of user memory"))
        });
        let levels = if from == to { to.to_string() } else { format!("{from} to {to}") };
        table.row(
            &format!("stage {number}"),
            format!(
                "{levels} in {seconds} s: {open} open at its end, {opened} opened, {closed} closed{memory}"
            ),
        );
    }
}
