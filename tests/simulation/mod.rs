//! A seeded simulation of the real loop core over a fake kernel: two client loops and the admin loop, each turned in
//! the production order, one router, peers that come, publish whole and in fragments, echo, read slowly, leave in
//! every way, are drained or stopped, operators that publish, list, reload and give up, and a shadow model that knows
//! what each must get.
//!
//! Compiled twice: `tests/simulation.rs` runs the server as it is built, and the library's own tests run one that speaks
//! the dialect of tests, too, and can have faults planted.

mod check;
mod json;
mod loops;
mod net;
mod operator;
mod patterns;
mod peer;
mod polls;
mod presence;
mod rng;
mod stream;
mod talk;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

pub(crate) use check::Stats;
pub(crate) use net::{Fault, Plan};

/// Seeds that run when nobody asks for others. Without optimization each takes a while; with it, `.ci/nightly simulate` runs
/// a thousand in CI, too.
pub(crate) const SEEDS: u64 = 50;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// A run whose panics are findings, too.
pub(crate) fn caught(seed: u64, plan: Plan) -> Result<Stats, String> {
    catch_unwind(AssertUnwindSafe(|| check::run(seed, plan))).unwrap_or_else(|_| Err("panicked".to_owned()))
}

/// Runs as many seeds as are asked for, with nothing wrong; panics if something is. What all of them did together, if
/// they were many.
pub(crate) fn run_all(test_dialects: bool) -> Option<Stats> {
    let seeds = match number("FANTAIL_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("FANTAIL_SIM_SEEDS").unwrap_or(SEEDS),
    };
    let many = seeds.end - seeds.start >= SEEDS;
    let mut total = Stats::default();
    let mut problems = Vec::new();
    for seed in seeds {
        match caught(seed, Plan { fault: Fault::None, test_dialects, patient: false }) {
            Ok(stats) => total.add(&stats),
            Err(problem) => problems.push(format!("{problem}; replay with FANTAIL_SIM_SEED={seed}")),
        }
    }
    assert!(problems.is_empty(), "{} seeds failed:\n{}", problems.len(), problems.join("\n"));
    many.then_some(total)
}
