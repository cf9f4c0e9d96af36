//! How many connections this machine allows the server: read once at the start, and by `fantail preflight`.
//!
//! Here the pure `preflight` meets the machine's files and the predicted sizes. It reads and tells; it changes
//! nothing.

use std::fs;
use std::path::Path;
use std::thread;

use super::sizes::{Load, kernel_bytes_estimate, user_parts};
use super::{ServeError, failed, tables_here};
use crate::config::{Limits, Settings, Tables, Totals};
use crate::preflight::{Allowance, Facts, Plan, Process, Report, assess, list};
use crate::sys::limits;

/// What is known of the machine whose files are below `root`, for a process with the limits of this one.
///
/// # Errors
/// The limit on open files is not to be had, or no thread can be started to try a descriptor table.
pub fn facts_of(root: &Path) -> Result<Facts, ServeError> {
    let nofile = limits::nofile().map_err(|error| failed("read the open files limit", error))?;
    Ok(facts_with(root, nofile.hard, tables_here()?))
}

/// Bytes that so many idle connections on so many loops take, of user and kernel memory.
#[must_use]
pub fn memory_bytes(connections: u64, loops: usize) -> u64 {
    let connections = usize::try_from(connections).unwrap_or(usize::MAX);
    let load = Load { connections, topics: 1, backlog: 0, message_bytes: 0, loops };
    let user: u64 = user_parts(&load).iter().map(|part| part.bytes).sum();
    user.saturating_add(kernel_bytes_estimate(&load))
}

/// The same for this machine, when what the process may do is known already.
pub(super) fn facts_here(nofile: usize, tables: Tables) -> Facts {
    facts_with(Path::new("/"), nofile as u64, tables)
}

/// Says in one line what may wait and which memory that is a share of, and warns if it could be more than there is.
pub(super) fn tell_totals(totals: &Totals, allowance: Option<&Allowance>) {
    let mebibytes = |bytes: u64| format!("{} MiB", bytes.div_ceil(1 << 20));
    let Some(Allowance { bytes, of }) = allowance else { return };
    tracing::info!(
        memory = mebibytes(*bytes),
        of,
        outbox = mebibytes(totals.outbox as u64),
        inbox = mebibytes(totals.inbox as u64),
        admin_bodies = mebibytes(totals.admin_bodies as u64),
        replies = mebibytes(totals.replies as u64),
        contexts = mebibytes(totals.contexts as u64),
        mailbox = mebibytes(totals.mailbox as u64),
        "what may wait"
    );
    if totals.all() > *bytes {
        tracing::warn!(
            "up to {} may wait, which is more than the {} of {of}: lower outbox.bytes_total, \
             limits.inbox_bytes_total (of each port), limits.admin_body_bytes_total, \
             admin.idempotency_bytes_max, deflate.context_bytes_total or mailbox.bytes_max (of each loop), where they are set, or the largest messages; see: fantail preflight",
            mebibytes(totals.all()),
            mebibytes(*bytes)
        );
    }
}

/// Says in one line what the server can hold, and warns when that is less than it was told to.
pub(super) fn tell(settings: &Settings, derived: &Limits, facts: &Facts) {
    let mut settings = settings.clone();
    settings.server.loops = Some(derived.loops);
    let plan = Plan { connections: derived.connections_max.max(1) as u64, settings: &settings, memory_bytes };
    let report = assess(&plan, facts, &list::embedded());
    tracing::info!(
        loops = derived.loops,
        connections_max = derived.connections_max,
        per_loop = derived.loop_connections_max,
        tables = %match facts.process.tables {
            Tables::PerLoop => "split",
            Tables::Shared => "shared",
        },
        holds = report.highest.min(plan.connections),
        first_limit = %first_limit(&report),
        "serving"
    );
    if settings.server.connections_max.is_some()
        && let Some(warning) = warning(&report)
    {
        tracing::warn!("{warning}");
    }
}

/// What is in the way of the connections that the server was told to hold.
fn warning(report: &Report) -> Option<String> {
    (!report.holds()).then(|| {
        format!(
            "server.connections_max = {0} is not reachable here: {1} is enough for {2}; see: fantail preflight \
             --connections {0}",
            report.connections, report.binds, report.highest
        )
    })
}

/// What newcomers meet first: the limit the server was given, or one of the machine.
fn first_limit(report: &Report) -> &str {
    if report.connections < report.highest { "server.connections_max" } else { &report.binds }
}

fn facts_with(root: &Path, nofile: u64, tables: Tables) -> Facts {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let process = Process { nofile, tables, cores };
    Facts::gather(process, &list::embedded(), |path| fs::read_to_string(root.join(path)).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_grows_with_connections_and_loops() {
        assert!(memory_bytes(0, 1) < memory_bytes(0, 2));
        let each = (memory_bytes(1_000_000, 2) - memory_bytes(0, 2)) / 1_000_000;
        assert!((4_000..5_000).contains(&each), "{each}");
    }

    #[test]
    fn what_is_not_reachable_is_warned_of() {
        let process = Process { nofile: 1 << 20, tables: Tables::PerLoop, cores: 2 };
        let meminfo = |path: &str| (path == "proc/meminfo").then(|| "MemAvailable: 1048576 kB\n".to_owned());
        let facts = Facts::gather(process, &list::embedded(), meminfo);
        let settings = Settings::default();
        let ask = |connections| {
            assess(&Plan { connections, settings: &settings, memory_bytes }, &facts, &list::embedded())
        };
        let told = warning(&ask(1_000_000)).unwrap();
        assert!(told.contains("= 1000000 is not reachable here: memory is enough for 2"), "{told}");
        assert_eq!(warning(&ask(200_000)), None);
        assert_eq!(first_limit(&ask(1_000_000)), "memory");
        assert_eq!(first_limit(&ask(200_000)), "server.connections_max");
    }

    #[test]
    fn this_machine_is_understood() {
        let facts = facts_of(Path::new("/")).unwrap();
        assert!(facts.process.nofile > 64 && facts.files_open > 0, "{facts:?}");
        assert!(facts.memory_available > Some(1 << 20), "{facts:?}");
        assert!(facts.settings.contains_key("net.core.somaxconn"), "{facts:?}");
    }
}
