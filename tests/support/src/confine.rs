//! Children under stricter rules than their parent: system calls refused by seccomp, a lower descriptor limit.
//!
//! Tests drive it, to run the server as a sandbox or a small machine would.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::ptr;

/// A system call that a child gets EPERM for, as from a container's default profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// `close_range`, with any flags.
    CloseRange,
    /// `unshare`, of anything.
    Unshare,
}

/// Makes the child of `command` get EPERM from `calls`, in every thread and in its own children.
///
/// The filter goes with `no_new_privs`, so it needs no privilege and can't be undone. On a machine that is
/// neither x86_64 nor aarch64 starting the child fails with `Unsupported`.
pub fn refuse_in_child(command: &mut Command, calls: &[Refused]) {
    let filter = refusing_filter(calls);
    let install = move || {
        if AUDIT_ARCHITECTURE.is_none() {
            return Err(io::Error::from(io::ErrorKind::Unsupported));
        }
        install_filter(&filter)
    };
    // SAFETY: between fork and exec the closure makes two prctl calls on memory allocated before the fork. It
    // allocates nothing and takes no lock; its errors are built from plain numbers.
    unsafe { command.pre_exec(install) };
}

/// Gives the child of `command` its own RLIMIT_NOFILE. A `hard` above the parent's needs CAP_SYS_RESOURCE.
pub fn lower_nofile_in_child(command: &mut Command, soft: u64, hard: u64) {
    // SAFETY: between fork and exec the closure makes one setrlimit call on its own stack; nothing allocates.
    unsafe { command.pre_exec(move || set_nofile(soft, hard)) };
}

/// Sets both limits. Descriptors already open above a lower limit stay open; only new ones are refused.
fn set_nofile(soft: u64, hard: u64) -> io::Result<()> {
    let limit = libc::rlimit { rlim_cur: soft, rlim_max: hard };
    // SAFETY: `limit` is a live rlimit for the whole call, which only reads it.
    super::checked(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) })?;
    Ok(())
}

// Classic BPF as seccomp takes it (linux/filter.h, linux/bpf_common.h, linux/seccomp.h, linux/audit.h).
// The program sees `struct seccomp_data`: the call's number at offset 0, the architecture at 4.
const LOAD_WORD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
const JUMP_IF_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const RETURN: u16 = 0x06; // BPF_RET | BPF_K
const OFFSET_NUMBER: u32 = 0;
const OFFSET_ARCHITECTURE: u32 = 4;
const ALLOW: u32 = 0x7fff_0000; // SECCOMP_RET_ALLOW
const KILL_PROCESS: u32 = 0x8000_0000; // SECCOMP_RET_KILL_PROCESS
const GIVE_ERROR: u32 = 0x0005_0000; // SECCOMP_RET_ERRNO, the error in the low 16 bits

/// What the kernel calls the machine this was compiled for: ELF number, 64 bits, little-endian.
const AUDIT_ARCHITECTURE: Option<u32> = if cfg!(target_arch = "x86_64") {
    Some(0xC000_003E)
} else if cfg!(target_arch = "aarch64") {
    Some(0xC000_00B7)
} else {
    None
};

impl Refused {
    /// The call's number. The x32 variant of it is not refused: nothing we start is built so.
    fn number(self) -> u32 {
        let number = match self {
            Self::CloseRange => libc::SYS_close_range,
            Self::Unshare => libc::SYS_unshare,
        };
        // Numbers are small and never negative.
        number as u32
    }
}

fn statement(code: u16, k: u32) -> libc::sock_filter {
    libc::sock_filter { code, jt: 0, jf: 0, k }
}

/// Jumps over `when_equal` or `otherwise` instructions.
fn jump(k: u32, when_equal: u8, otherwise: u8) -> libc::sock_filter {
    libc::sock_filter { code: JUMP_IF_EQUAL, jt: when_equal, jf: otherwise, k }
}

/// Numbers differ between architectures, so a call of a foreign one can't be judged: the child is killed.
fn refusing_filter(calls: &[Refused]) -> Vec<libc::sock_filter> {
    let mut filter = vec![
        statement(LOAD_WORD, OFFSET_ARCHITECTURE),
        jump(AUDIT_ARCHITECTURE.unwrap_or(0), 1, 0),
        statement(RETURN, KILL_PROCESS),
        statement(LOAD_WORD, OFFSET_NUMBER),
    ];
    for call in calls {
        filter.push(jump(call.number(), 0, 1));
        filter.push(statement(RETURN, GIVE_ERROR | libc::EPERM as u32));
    }
    filter.push(statement(RETURN, ALLOW));
    filter
}

fn install_filter(filter: &[libc::sock_filter]) -> io::Result<()> {
    let length = u16::try_from(filter.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    // The kernel only reads through the pointer; its type is mutable by the C declaration.
    let program = libc::sock_fprog { len: length, filter: filter.as_ptr().cast_mut() };
    let (on, unused): (libc::c_ulong, libc::c_ulong) = (1, 0);
    // SAFETY: PR_SET_NO_NEW_PRIVS takes numbers only, each passed as the unsigned long the kernel reads.
    super::checked(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, on, unused, unused, unused) })?;
    let mode = libc::c_ulong::from(libc::SECCOMP_MODE_FILTER);
    // SAFETY: `program` and the instructions it points to live through the call, which copies them; `len` is
    // their number.
    super::checked(unsafe { libc::prctl(libc::PR_SET_SECCOMP, mode, ptr::from_ref(&program)) })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Not a test by itself: it says what the process it runs in is refused.
    #[test]
    fn child_that_tries() {
        if std::env::var_os("FANTAIL_TEST_TRIES").is_none() {
            return;
        }
        // SAFETY: it closes nothing: no descriptor has such a number.
        let close_range = unsafe { libc::syscall(libc::SYS_close_range, u32::MAX, u32::MAX, 0) };
        println!("\nclose_range {}", refusal(close_range));
        // SAFETY: no pointer; this thread's table becomes a copy, and the thread ends with the test.
        let unshare = unsafe { libc::unshare(libc::CLONE_FILES) };
        println!("unshare {}", refusal(unshare.into()));
        println!("nofile {:?}", nofile());
    }

    /// This process's soft and hard limit.
    fn nofile() -> (u64, u64) {
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: `limit` is a live, writable rlimit for the whole call.
        crate::checked(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) }).unwrap();
        (limit.rlim_cur, limit.rlim_max)
    }

    fn refusal(code: libc::c_long) -> &'static str {
        let error = io::Error::last_os_error();
        match code {
            0 => "allowed",
            _ if error.raw_os_error() == Some(libc::EPERM) => "refused",
            _ => "failed",
        }
    }

    fn tries(prepare: impl FnOnce(&mut Command)) -> Vec<String> {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "confine::tests::child_that_tries", "--nocapture"]);
        command.env("FANTAIL_TEST_TRIES", "1");
        prepare(&mut command);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
    }

    #[test]
    fn only_what_is_named_is_refused() {
        let open = tries(|_| ());
        let one = tries(|command| refuse_in_child(command, &[Refused::CloseRange]));
        assert!(one.contains(&"close_range refused".to_owned()), "{one:?}");
        let unshare = |lines: &[String]| lines.iter().find(|line| line.starts_with("unshare")).cloned();
        assert_eq!(unshare(&one), unshare(&open), "what is not named stays as it was");
        let both = tries(|command| refuse_in_child(command, &[Refused::CloseRange, Refused::Unshare]));
        assert!(both.contains(&"close_range refused".to_owned()), "{both:?}");
        assert!(both.contains(&"unshare refused".to_owned()), "{both:?}");
    }

    #[test]
    fn the_child_alone_gets_the_lower_limit() {
        let before = nofile();
        let lines = tries(|command| lower_nofile_in_child(command, 100, 120));
        assert!(lines.contains(&"nofile (100, 120)".to_owned()), "{lines:?}");
        assert_eq!(nofile(), before);
    }
}
