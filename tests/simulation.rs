//! A seeded simulation of the real loop core over a fake kernel: two client loops and the admin loop, each turned in
//! the production order, one router, peers that come, publish whole and in fragments, echo, read slowly, leave in
//! every way, are drained or stopped, operators that publish, list and reload, and a shadow model that knows what
//! each must get.
//!
//! `FANTAIL_SIM_SEED=N` replays one seed; `FANTAIL_SIM_SEEDS=COUNT` runs more of them.

#[path = "simulation/check.rs"]
mod check;
#[path = "simulation/loops.rs"]
mod loops;
#[path = "simulation/net.rs"]
mod net;
#[path = "simulation/operator.rs"]
mod operator;
#[path = "simulation/peer.rs"]
mod peer;
#[path = "simulation/rng.rs"]
mod rng;
#[path = "simulation/world.rs"]
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

use check::{Stats, run};
use net::Fault;

/// Seeds that run when nobody asks for others.
const SEEDS: u64 = 200;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// A run whose panics are findings, too.
fn caught(seed: u64, fault: Fault) -> Result<Stats, String> {
    catch_unwind(AssertUnwindSafe(|| run(seed, fault))).unwrap_or_else(|_| Err("panicked".to_owned()))
}

#[test]
fn everybody_gets_exactly_what_is_theirs() {
    let seeds = match number("FANTAIL_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("FANTAIL_SIM_SEEDS").unwrap_or(SEEDS),
    };
    let many = seeds.end - seeds.start >= SEEDS;
    let mut total = Stats::default();
    let mut problems = Vec::new();
    for seed in seeds {
        match caught(seed, Fault::None) {
            Ok(stats) => {
                total.published += stats.published;
                total.delivered += stats.delivered;
                for (total, count) in total.dropped.iter_mut().zip(stats.dropped) {
                    *total += count;
                }
                total.closed += stats.closed;
                total.busy += stats.busy;
                total.echoes += stats.echoes;
                total.large_echoes += stats.large_echoes;
                total.drained += stats.drained;
                total.stopped += stats.stopped;
                total.answered += stats.answered;
                total.reloads += stats.reloads;
            }
            Err(problem) => problems.push(format!("{problem}; replay with FANTAIL_SIM_SEED={seed}")),
        }
    }
    assert!(problems.is_empty(), "{} seeds failed:\n{}", problems.len(), problems.join("\n"));
    // A simulation in which nothing happens would find nothing either.
    if many {
        assert!(total.delivered > total.published && total.busy > 0, "{total:?}");
        assert!(total.closed > 0 && total.dropped.iter().all(|count| *count > 0), "{total:?}");
        assert!(total.echoes > total.large_echoes && total.large_echoes > 0, "{total:?}");
        assert!(total.drained > 0 && total.stopped > 0, "{total:?}");
        assert!(total.answered > 1_000 && total.reloads > 100, "{total:?}");
    }
}

/// Of the runs in which the fault struck, how many were found out.
fn found(fault: Fault, seeds: u64) -> (usize, usize) {
    let (mut found, mut missed) = (0, 0);
    for seed in 0..seeds {
        match caught(seed, fault) {
            Err(_) => found += 1,
            Ok(stats) if stats.struck > 0 => missed += 1,
            Ok(_) => {}
        }
    }
    (found, missed)
}

#[test]
fn a_lost_wake_up_is_found() {
    // Without a subscriber on the loop nobody is owed a wake-up; most runs have some on both.
    let (found, _) = found(Fault::LostWake, 20);
    assert!(found >= 15, "found in {found} of 20 runs");
}

#[test]
fn bytes_written_twice_or_never_are_found() {
    for fault in [Fault::DoubledWrite, Fault::LostWrite] {
        let (found, missed) = found(fault, 20);
        assert!(found >= 18, "{fault:?}: found in {found} runs, missed in {missed}");
    }
}

#[test]
fn an_edge_that_never_comes_is_found() {
    let (found, missed) = found(Fault::LostEdge, 20);
    assert!(found >= 15, "found in {found} runs, missed in {missed}");
}
