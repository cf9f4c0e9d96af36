//! Signals: blocked before the first thread starts, then taken one at a time by whoever calls [`wait`].
//!
//! There is no handler and no self-pipe: with split descriptor tables the pipe's number means a client's
//! socket in another thread, and a handler runs in any thread. What a signal means is not decided here.

use std::os::unix::process::CommandExt;
use std::process::Command;
use std::{io, mem, ptr};

/// The signals the server takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM: a supervisor asks for the end.
    Terminate,
    /// SIGINT: Ctrl-C on a terminal.
    Interrupt,
    /// SIGHUP: the terminal went away, or an operator asks for a reload. Under `nohup` it arrives all the
    /// same, because a blocked signal is kept even where it is set to be ignored.
    Hangup,
}

const HANDLED: [(libc::c_int, Signal); 3] =
    [(libc::SIGTERM, Signal::Terminate), (libc::SIGINT, Signal::Interrupt), (libc::SIGHUP, Signal::Hangup)];

/// Blocks every [`Signal`] in the calling thread and in all threads it spawns from then on.
///
/// Call it in `main` before the first thread. A blocked signal is not lost: it waits for [`wait`].
///
/// Children inherit the mask, through `exec` too; see [`restore_for_child`]. SIGPIPE needs nothing here: std
/// ignores it in the process and restores it in children.
pub fn block_all() -> io::Result<()> {
    set_mask(libc::SIG_BLOCK, &handled_set()?)
}

/// Waits for the next [`Signal`] to the process or to the calling thread. Needs [`block_all`] before.
pub fn wait() -> io::Result<Signal> {
    let set = handled_set()?;
    // EINTR comes from being stopped and continued, for example by a debugger.
    let number = super::uninterrupted(|| {
        // SAFETY: `set` is initialised and lives through the call, which only reads it; a null second
        // argument says that the details are not wanted.
        super::checked(unsafe { libc::sigwaitinfo(&set, ptr::null_mut()) })
    })?;
    HANDLED
        .iter()
        .find(|(handled, _)| *handled == number)
        .map(|(_, signal)| *signal)
        .ok_or_else(|| io::Error::other(format!("signal {number} was not asked for")))
}

/// Empties the signal mask in the child of `command`.
///
/// After [`block_all`] a child that is another program needs this, or it could not be ended but by SIGKILL:
/// a mask outlives `exec`, and `std::process::Command` passes it on as it is.
pub fn restore_for_child(command: &mut Command) {
    // SAFETY: between fork and exec the closure makes two async-signal-safe calls on its own stack; nothing
    // allocates, and its errors are built from plain numbers.
    unsafe { command.pre_exec(|| set_mask(libc::SIG_SETMASK, &empty_set()?)) };
}

/// Sends a [`Signal`] to one process.
pub fn send(pid: u32, signal: Signal) -> io::Result<()> {
    let number = match signal {
        Signal::Terminate => libc::SIGTERM,
        Signal::Interrupt => libc::SIGINT,
        Signal::Hangup => libc::SIGHUP,
    };
    send_number(pid, number)
}

/// Ends a process at once (SIGKILL).
pub fn kill(pid: u32) -> io::Result<()> {
    send_number(pid, libc::SIGKILL)
}

/// Stops a process where it is (SIGSTOP), to see what its peers make of it.
pub fn stop(pid: u32) -> io::Result<()> {
    send_number(pid, libc::SIGSTOP)
}

/// Lets a stopped process go on (SIGCONT).
pub fn resume(pid: u32) -> io::Result<()> {
    send_number(pid, libc::SIGCONT)
}

fn send_number(pid: u32, number: libc::c_int) -> io::Result<()> {
    let pid = super::single_process(pid)?;
    // SAFETY: the call takes no pointer, and `pid` is positive, so it names one process and not a group.
    super::checked(unsafe { libc::kill(pid, number) })?;
    Ok(())
}

fn set_mask(how: libc::c_int, set: &libc::sigset_t) -> io::Result<()> {
    // SAFETY: `set` is initialised and lives through the call, which only reads it; a null third argument
    // says that the old mask is not wanted.
    let code = unsafe { libc::pthread_sigmask(how, set, ptr::null_mut()) };
    // This family returns its error instead of leaving it in errno.
    if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(code)) }
}

fn empty_set() -> io::Result<libc::sigset_t> {
    // SAFETY: sigset_t is plain integers, for which all zeroes is a valid value.
    let mut set: libc::sigset_t = unsafe { mem::zeroed() };
    // SAFETY: `set` is live and writable for the call.
    super::checked(unsafe { libc::sigemptyset(&mut set) })?;
    Ok(set)
}

fn handled_set() -> io::Result<libc::sigset_t> {
    let mut set = empty_set()?;
    for (number, _) in HANDLED {
        // SAFETY: `set` is live, writable and initialised by sigemptyset.
        super::checked(unsafe { libc::sigaddset(&mut set, number) })?;
    }
    Ok(set)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader};
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Child, Stdio};
    use std::time::{Duration, Instant};

    fn until(what: &str, mut holds: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !holds() {
            assert!(Instant::now() < deadline, "{what}");
            std::thread::yield_now();
        }
    }

    fn sleeper() -> Child {
        Command::new("sleep").arg("60").spawn().unwrap()
    }

    /// The state letter of procfs: S sleeping, T stopped, and so on.
    fn state(pid: u32) -> Option<char> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit(") ").next()?.chars().next()
    }

    #[test]
    fn a_signal_to_the_thread_is_waited_for() {
        // Threads of their own: the mask is theirs and ends with them.
        for (number, signal) in HANDLED {
            let taken = std::thread::spawn(move || {
                block_all().unwrap();
                // SAFETY: raise takes no pointer; the signal is blocked here, so it stays pending.
                assert_eq!(unsafe { libc::raise(number) }, 0);
                wait().unwrap()
            });
            assert_eq!(taken.join().unwrap(), signal);
        }
    }

    /// Not a test by itself: the process that `a_signal_to_the_process_is_waited_for` starts.
    #[test]
    fn child_that_waits() {
        if std::env::var_os("FANTAIL_TEST_WAITS").is_some() {
            println!("waits");
            println!("took {:?}", wait().unwrap());
        }
    }

    #[test]
    fn a_signal_to_the_process_is_waited_for() {
        for signal in [Signal::Terminate, Signal::Interrupt, Signal::Hangup] {
            let mut command = Command::new(std::env::current_exe().unwrap());
            command.args(["--exact", "sys::signals::tests::child_that_waits", "--nocapture"]);
            command.env("FANTAIL_TEST_WAITS", "1").stdout(Stdio::piped());
            // SAFETY: block_all makes only async-signal-safe calls. The mask goes through exec into
            // every thread of the test program.
            unsafe { command.pre_exec(block_all) };
            let mut child = command.spawn().unwrap();
            let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
            // The test program writes the test's name on the same line.
            assert!(lines.any(|line| line.ends_with("waits")), "it never got there");
            // An interruption in between must not end the waiting.
            stop(child.id()).unwrap();
            until("it never stopped", || state(child.id()) == Some('T'));
            resume(child.id()).unwrap();
            send(child.id(), signal).unwrap();
            let told = lines.find(|line| line.starts_with("took"));
            assert_eq!(told, Some(format!("took {signal:?}")));
            assert!(child.wait().unwrap().success());
        }
    }

    #[test]
    fn children_inherit_the_mask_unless_it_is_restored() {
        fn blocked(status: &str) -> String {
            status.lines().find(|line| line.starts_with("SigBlk:")).unwrap().to_owned()
        }
        let masks = std::thread::spawn(|| {
            block_all().unwrap();
            [false, true].map(|restore| {
                let mut command = Command::new("cat");
                command.arg("/proc/self/status");
                if restore {
                    restore_for_child(&mut command);
                }
                blocked(&String::from_utf8(command.output().unwrap().stdout).unwrap())
            })
        });
        let [inherited, restored] = masks.join().unwrap();
        // Signal n is bit n - 1: HUP 1, INT 2, TERM 15.
        assert_eq!(inherited, "SigBlk:\t0000000000004003");
        assert_eq!(restored, "SigBlk:\t0000000000000000");
    }

    #[test]
    fn processes_are_stopped_continued_and_ended() {
        let mut child = sleeper();
        stop(child.id()).unwrap();
        until("it never stopped", || state(child.id()) == Some('T'));
        resume(child.id()).unwrap();
        until("it never went on", || state(child.id()) == Some('S'));
        kill(child.id()).unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGKILL));

        let mut child = sleeper();
        send(child.id(), Signal::Terminate).unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGTERM));
        assert!(send(0, Signal::Terminate).is_err(), "that would be our own group");
    }
}
