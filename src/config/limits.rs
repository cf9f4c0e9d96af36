//! Numbers derived from the settings and the machine: loops and connections. A pure function.
//!
//! RLIMIT_NOFILE binds per descriptor table. A loop that has a table of its own holds `nofile − 64`
//! connections; loops that share the process's table share that number. Nothing here asks the
//! machine: `server` passes the facts in.

use std::fmt;

use super::server::Server;

/// Descriptors of a table that are not for connections: standard streams, epoll, wakers, listeners, and
/// room to answer over capacity.
const RESERVED_DESCRIPTORS: usize = 64;

/// Descriptors of a loop's own table beside the wakers of all loops, which every table has: standard streams, the
/// admin loop's waker, epoll, the listener, one that is being refused and one that was just accepted.
const DESCRIPTORS_BESIDE_WAKERS: usize = 8;

/// Descriptors each further loop needs for itself in a table that loops share.
const DESCRIPTORS_PER_LOOP: usize = 4;

/// One automatic loop for so many descriptors of a table.
const DESCRIPTORS_FOR_A_LOOP: usize = 16;

/// What the number of loops is chosen for when nobody says how many connections there will be.
const CONNECTIONS_TARGET: usize = 50_000;

/// SO_REUSEPORT spreads connections by hash: of 50,000 the fullest of a few loops gets up to 3 % more than its
/// share.
const SPREAD_PERCENT: usize = 103;

/// Whether each loop has a descriptor table of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tables {
    /// Each loop split its own off.
    PerLoop,
    /// All loops use the process's table.
    Shared,
}

/// The numbers that follow from settings and machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Number of event loops.
    pub loops: usize,
    /// Most connections over all loops.
    pub connections_max: usize,
    /// Most connections one loop may hold: what its table has room for. The sum over the loops may be more
    /// than `connections_max`, because no spread is even.
    pub loop_connections_max: usize,
}

/// A combination that cannot work, with the way out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitsError {
    /// The key at fault, as `section.key`.
    pub key: &'static str,
    /// What cannot work, and what would.
    pub problem: String,
}

impl fmt::Display for LimitsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.problem)
    }
}

impl std::error::Error for LimitsError {}

impl Limits {
    /// Chooses loops and connections for `cores` cores and tables of `nofile` descriptors.
    ///
    /// Without a given number of loops it is `max(cores, ⌈connections_max ÷ (nofile − 64) × 1.03⌉)`.
    ///
    /// # Errors
    /// When the given loops, connections and descriptors cannot fit together.
    pub fn derive(server: &Server, cores: usize, nofile: usize, tables: Tables) -> Result<Self, LimitsError> {
        match tables {
            Tables::PerLoop => split(server, cores.max(1), nofile),
            Tables::Shared => shared(server, cores.max(1), nofile),
        }
    }
}

fn split(server: &Server, cores: usize, nofile: usize) -> Result<Limits, LimitsError> {
    let table = room(nofile, RESERVED_DESCRIPTORS)?;
    let wanted = server.connections_max.unwrap_or(CONNECTIONS_TARGET);
    let needed = wanted.saturating_mul(SPREAD_PERCENT).div_ceil(table.saturating_mul(100));
    let loops = match (server.loops, server.connections_max) {
        (Some(loops), _) => loops,
        (None, Some(_)) if needed > Server::LOOPS_MAX => {
            let nofile = wanted.saturating_mul(SPREAD_PERCENT).div_ceil(Server::LOOPS_MAX * 100);
            return Err(LimitsError {
                key: "server.connections_max",
                problem: format!(
                    "{wanted} connections need {needed} loops with tables of {table} connections each, and {} is the \
                     most; raise the open files limit to at least {} (ulimit -n), or lower connections_max to {}",
                    Server::LOOPS_MAX,
                    nofile + RESERVED_DESCRIPTORS,
                    Server::LOOPS_MAX * table * 100 / SPREAD_PERCENT
                ),
            });
        }
        // Nobody asked for the target: as many as make sense, and the cap tells the truth.
        // Each loop takes descriptors of every table, so small tables carry few loops.
        (None, None) => needed
            .min(Server::LOOPS_MAX)
            .min(nofile / DESCRIPTORS_FOR_A_LOOP)
            .max(cores.min(Server::LOOPS_MAX)),
        (None, _) => needed.max(cores.min(Server::LOOPS_MAX)),
    };
    let reserved = RESERVED_DESCRIPTORS.max(loops + DESCRIPTORS_BESIDE_WAKERS);
    let table = room(nofile, reserved)?;
    let capacity = loops.saturating_mul(table);
    if wanted > capacity && server.connections_max.is_some() {
        let more_loops = match needed {
            ..=Server::LOOPS_MAX => format!("leave loops automatic or set {needed}, "),
            _ => String::new(),
        };
        return Err(LimitsError {
            key: "server.connections_max",
            problem: format!(
                "{wanted} connections do not fit: {loops} loops × {table} ({nofile} open files − \
                 {reserved}) hold {capacity}; {more_loops}raise the open files limit to {} \
                 (ulimit -n), or lower connections_max to {capacity}",
                wanted.saturating_mul(SPREAD_PERCENT).div_ceil(loops.saturating_mul(100)) + reserved,
            ),
        });
    }
    let connections_max = server.connections_max.unwrap_or(capacity);
    Ok(Limits { loops, connections_max, loop_connections_max: table })
}

fn shared(server: &Server, cores: usize, nofile: usize) -> Result<Limits, LimitsError> {
    let loops = server.loops.unwrap_or(cores);
    let reserved =
        RESERVED_DESCRIPTORS.saturating_add(DESCRIPTORS_PER_LOOP.saturating_mul(loops.saturating_sub(1)));
    let table = room(nofile, reserved)?;
    let connections_max = server.connections_max.unwrap_or(table);
    if connections_max > table {
        return Err(LimitsError {
            key: "server.connections_max",
            problem: format!(
                "{connections_max} connections do not fit: the loops share one descriptor table, because the kernel \
                 refused to give each its own, and {nofile} open files − {reserved} leave {table}; raise the open \
                 files limit to {} (ulimit -n), or lower connections_max to {table}",
                connections_max.saturating_add(reserved)
            ),
        });
    }
    Ok(Limits { loops, connections_max, loop_connections_max: connections_max })
}

fn room(nofile: usize, reserved: usize) -> Result<usize, LimitsError> {
    match nofile.checked_sub(reserved) {
        Some(table) if table > 0 => Ok(table),
        _ => Err(LimitsError {
            key: "server.loops",
            problem: format!(
                "an open files limit of {nofile} leaves no room for connections, because {reserved} descriptors are \
                 the server's own; raise it (ulimit -n), best to 65536 or more"
            ),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(loops: Option<usize>, connections_max: Option<usize>) -> Server {
        Server { loops, connections_max, ..Server::default() }
    }

    fn derive(loops: Option<usize>, connections: Option<usize>, cores: usize, nofile: usize) -> Limits {
        Limits::derive(&server(loops, connections), cores, nofile, Tables::PerLoop).unwrap()
    }

    fn refused(loops: Option<usize>, connections: Option<usize>, nofile: usize, tables: Tables) -> String {
        Limits::derive(&server(loops, connections), 2, nofile, tables).unwrap_err().to_string()
    }

    #[test]
    fn plenty_of_descriptors_needs_one_loop_a_core() {
        let limits = derive(None, None, 2, 1 << 20);
        assert_eq!(limits.loops, 2);
        assert_eq!(limits.connections_max, 2 * ((1 << 20) - 64));
        assert_eq!(limits.loop_connections_max, (1 << 20) - 64);
    }

    #[test]
    fn few_descriptors_need_more_loops_for_the_target() {
        // 50,000 ÷ 19,936 × 1.03 = 2.58
        assert_eq!(derive(None, None, 2, 20_000).loops, 3);
        // 50,000 ÷ 960 × 1.03 = 53.6
        let limits = derive(None, None, 2, 1024);
        assert_eq!((limits.loops, limits.connections_max), (54, 54 * 960));
    }

    #[test]
    fn given_connections_decide_the_loops() {
        assert_eq!(derive(None, Some(1_000_000), 4, 65_536).loops, 16);
        let limits = derive(None, Some(100), 4, 1024);
        assert_eq!((limits.loops, limits.connections_max), (4, 100));
        // Exactly full would leave nothing for the uneven spread.
        assert_eq!(derive(None, Some(960), 1, 1024).loops, 2);
    }

    #[test]
    fn given_loops_are_kept_if_they_fit() {
        assert_eq!(derive(Some(1), Some(960), 8, 1024).loops, 1);
        let limits = derive(Some(3), None, 8, 1024);
        assert_eq!((limits.loops, limits.connections_max), (3, 2880));
        let text = refused(Some(1), Some(961), 1024, Tables::PerLoop);
        assert!(
            text.starts_with("server.connections_max: 961 connections do not fit: 1 loops × 960"),
            "{text}"
        );
        assert!(text.contains("set 2") && text.contains("ulimit -n") && text.contains("to 960"), "{text}");
    }

    #[test]
    fn no_room_and_too_many_loops_are_refused() {
        assert!(refused(None, None, 64, Tables::PerLoop).contains("leaves no room"));
        assert!(refused(None, None, 0, Tables::Shared).contains("leaves no room"));
        let text = refused(None, Some(10_000_000), 1024, Tables::PerLoop);
        assert!(text.contains("63 is the most"), "{text}");
        // Unasked, the target gives way instead.
        assert_eq!(derive(None, None, 2, 70).loops, 4);
    }

    #[test]
    fn an_unlimited_table_does_not_overflow() {
        assert_eq!(derive(None, None, 2, usize::MAX).loops, 2);
        assert_eq!(derive(Some(63), None, 2, usize::MAX).connections_max, usize::MAX);
        assert_eq!(derive(None, Some(100_000_000), 2, usize::MAX).loops, 2);
    }

    #[test]
    fn a_full_table_has_room_for_the_wakers_of_many_loops() {
        for loops in 1..=Server::LOOPS_MAX {
            let limits = derive(Some(loops), None, 2, 1024);
            // Standard streams, wakers of the loops and the admin loop, epoll, listener, refused, accepted.
            let own = 3 + (loops + 1) + 1 + 1 + 1 + 1;
            assert!(limits.loop_connections_max + own <= 1024, "{loops} loops");
        }
    }

    #[test]
    fn a_shared_table_is_counted_once() {
        let limits = Limits::derive(&server(None, None), 2, 1024, Tables::Shared).unwrap();
        assert_eq!((limits.loops, limits.connections_max), (2, 1024 - 64 - 4));
        assert!(refused(Some(4), Some(1024), 1024, Tables::Shared).contains("share one descriptor table"));
    }

    /// The advice of a refusal, followed, is accepted.
    #[test]
    fn the_fixes_that_are_named_work() {
        let number_after = |text: &str, mark: &str| -> usize {
            let rest = text.split_once(mark).unwrap().1;
            rest.chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap()
        };
        for (loops, connections, nofile) in [(1, 5000, 1024), (2, 100_000, 4096), (7, 50_000, 1024)] {
            let text = refused(Some(loops), Some(connections), nofile, Tables::PerLoop);
            derive(Some(number_after(&text, "or set ")), Some(connections), 2, nofile);
            derive(Some(loops), Some(connections), 2, number_after(&text, "limit to "));
            derive(Some(loops), Some(number_after(&text, "connections_max to ")), 2, nofile);
        }
        let text = refused(None, Some(10_000_000), 1024, Tables::PerLoop);
        derive(None, Some(10_000_000), 2, number_after(&text, "limit to at least "));
        derive(None, Some(number_after(&text, "connections_max to ")), 2, 1024);
    }
}
