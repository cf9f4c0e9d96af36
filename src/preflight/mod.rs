//! Whether a number of connections will be held here, and what is in the way: facts of the machine in, findings
//! out. Pure: it reads no file and changes nothing.
//!
//! `fantail preflight` asks before the server is started, the server itself once when it starts. How many
//! connections the descriptor tables hold is decided by `config::Limits`, which the server obeys, and asked there
//! again and again: there is no second formula that could disagree.

mod cgroup;
mod facts;
mod findings;
pub mod list;

#[cfg(test)]
mod tests;

pub use facts::{Allowance, Facts, Process};
pub use findings::{Finding, Level};

use crate::config::{Limits, LimitsError, Server, Settings, Tables};
use list::{Effect, Setting};

/// More than this is never asked for: the bound of `server.connections_max`.
pub const CONNECTIONS_MOST: u64 = 100_000_000;

/// What shall be held, and under which configuration.
#[derive(Clone, Copy)]
pub struct Plan<'a> {
    /// Connections, at least 1.
    pub connections: u64,
    /// The configuration of the server: its loops, its backlog, its limit for one address.
    pub settings: &'a Settings,
    /// Bytes that so many idle connections on so many loops take, of user and kernel memory.
    pub memory_bytes: fn(u64, usize) -> u64,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// What was asked for.
    pub connections: u64,
    /// Event loops that the server would start for it.
    pub loops: usize,
    /// Whether each has a descriptor table of its own.
    pub tables: Tables,
    /// The most connections that hold now.
    pub highest: u64,
    /// The name of the finding that binds there.
    pub binds: String,
    /// What kind of container this is, if it is one.
    pub container: Option<&'static str>,
    /// What was looked at: first what is in the way, then hints, then what is well.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Whether what was asked for is held.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.connections <= self.highest
    }
}

/// Holds the plan against the facts.
#[must_use]
pub fn assess(plan: &Plan<'_>, facts: &Facts, list: &[Setting]) -> Report {
    let asked = Asked { plan, facts };
    let mut findings = vec![asked.open_files()];
    findings.extend(asked.memory());
    findings.extend(asked.waiting());
    findings.extend(list.iter().filter_map(|setting| asked.setting(setting)));
    findings.extend(asked.one_address());
    let binding = findings
        .iter()
        .filter(|finding| finding.effect == Effect::Binds)
        .filter_map(|finding| Some((finding.highest?, finding.name.clone())));
    // Of equals the first: the open files come before everything else.
    let (highest, binds) = binding.min_by_key(|(highest, _)| *highest).unwrap_or_default();
    findings.sort_by_key(|finding| finding.level);
    Report {
        connections: plan.connections,
        loops: asked.loops(plan.connections),
        tables: facts.process.tables,
        highest,
        binds,
        container: facts.container,
        findings,
    }
}

/// A plan on a machine.
struct Asked<'a> {
    plan: &'a Plan<'a>,
    facts: &'a Facts,
}

impl Asked<'_> {
    /// What the server would make of this many connections, with tables of `nofile` open files.
    fn derive(&self, connections: u64, loops: Option<usize>, nofile: u64) -> Result<Limits, LimitsError> {
        let server =
            Server { connections_max: Some(size(connections)), loops, ..self.plan.settings.server.clone() };
        let Process { tables, cores, .. } = self.facts.process;
        Limits::derive(&server, cores, size(nofile), tables)
    }

    /// Loops that it starts for them; the most there can be if even they do not suffice.
    fn loops(&self, connections: u64) -> usize {
        let given = self.plan.settings.server.loops;
        match self.derive(connections, given, self.facts.process.nofile) {
            Ok(limits) => limits.loops,
            Err(_) => given.unwrap_or(match self.facts.process.tables {
                Tables::PerLoop => Server::LOOPS_MAX,
                Tables::Shared => self.facts.process.cores.max(1),
            }),
        }
    }

    /// Open files that each table needs: with the loops that the server takes today, or if these tables do not suffice,
    /// with those that it would take then.
    fn table_files(&self, connections: u64) -> u64 {
        let given = self.plan.settings.server.loops;
        let today = self.derive(connections, given, self.facts.process.nofile);
        let loops = today.map_or(given, |limits| Some(limits.loops));
        let short = |nofile| self.derive(connections, loops, nofile).is_err();
        // The largest for which one less is too few.
        most_up_to(CONNECTIONS_MOST * 2, |nofile| short(nofile - 1))
    }
}

/// The largest number up to `bound` for which `holds`, which is true up to it and false beyond; 0 if it never is.
fn most_up_to(bound: u64, holds: impl Fn(u64) -> bool) -> u64 {
    let (mut low, mut high) = (0, bound + 1);
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if holds(middle) {
            low = middle;
        } else {
            high = middle;
        }
    }
    low
}

fn size(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
