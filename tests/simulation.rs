//! The simulation of the server as it is built; see `simulation/mod.rs`.
//!
//! `FANTAIL_SIM_SEED=N` replays one seed; `FANTAIL_SIM_SEEDS=COUNT` runs more of them.

#[path = "simulation/mod.rs"]
mod simulation;

use simulation::{Fault, Plan, caught, run_all};

#[test]
fn everybody_gets_exactly_what_is_theirs() {
    let Some(total) = run_all(false) else { return };
    // A simulation in which nothing happens would find nothing either.
    assert!(total.delivered > total.published && total.busy > 0, "{total:?}");
    assert!(total.closed > 0 && total.dropped.iter().all(|count| *count > 0), "{total:?}");
    assert!(total.echoes > total.large_echoes && total.large_echoes > 0, "{total:?}");
    assert!(total.told[0] > 250, "{total:?}");
    assert!(total.drained > 0 && total.stopped > 0, "{total:?}");
    assert!(total.history.iter().all(|count| *count > 25), "{total:?}");
    assert!(total.presence > 500, "{total:?}");
    assert!(total.answered > 250 && total.reloads > 25, "{total:?}");
}

/// Of the runs in which the fault struck, how many were found out.
fn found(fault: Fault, seeds: u64) -> (usize, usize) {
    let (mut found, mut missed) = (0, 0);
    for seed in 0..seeds {
        match caught(seed, Plan { fault, test_dialects: false, patient: true }) {
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
