//! The limit on open descriptors (RLIMIT_NOFILE). It binds each descriptor table by itself.
//!
//! The server raises it before its threads start, because tables are made under the limit of that moment.

use std::io;

/// The limit on open descriptors of one table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nofile {
    /// What is enforced now.
    pub soft: u64,
    /// How far the process may raise `soft` by itself.
    pub hard: u64,
}

/// The limits in force for this process.
pub fn nofile() -> io::Result<Nofile> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a live, writable rlimit for the whole call; the call keeps no pointer to it.
    super::checked(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) })?;
    Ok(Nofile { soft: limit.rlim_cur, hard: limit.rlim_max })
}

/// Raises the soft limit to the hard one and returns what is in force afterwards.
///
/// No privilege is needed. Programs that use `select` with descriptors above 1,023 would break, so this
/// limit is not one for children that are other programs.
pub fn raise_nofile() -> io::Result<Nofile> {
    let current = nofile()?;
    if current.soft < current.hard {
        set_nofile(current.hard, current.hard)?;
    }
    nofile()
}

/// Sets both limits. Raising `hard` needs CAP_SYS_RESOURCE; lowering it can't be undone without.
///
/// Descriptors already open above a lower limit stay open; only new ones are refused.
fn set_nofile(soft: u64, hard: u64) -> io::Result<()> {
    let limit = libc::rlimit { rlim_cur: soft, rlim_max: hard };
    // SAFETY: `limit` is a live rlimit for the whole call, which only reads it.
    super::checked(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_reaches_the_hard_one() {
        let before = nofile().unwrap();
        let raised = raise_nofile().unwrap();
        assert_eq!(raised.hard, before.hard);
        assert_eq!(raised.soft, raised.hard);
        assert_eq!(nofile().unwrap(), raised);
    }

    #[test]
    fn setting_what_is_in_force_changes_nothing() {
        // The process-wide limit is shared with every other test, so real changes are made in children only.
        let current = raise_nofile().unwrap();
        set_nofile(current.soft, current.hard).unwrap();
        assert_eq!(nofile().unwrap(), current);
    }

    #[test]
    fn soft_above_hard_is_refused() {
        let hard = nofile().unwrap().hard;
        if let Some(above) = hard.checked_add(1) {
            let error = set_nofile(above, hard).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        }
    }
}
