//! The only unsafe code and the only libc: one file per family of system calls. Never policy.
//!
//! Everything here can be called from safe code. What a call asks of its caller beyond its types is said
//! at the call: above all [`tables::split_table`], which closes descriptors by number.

#[cfg(not(target_os = "linux"))]
compile_error!("Fantail needs Linux: epoll, close_range and procfs have no counterpart here");

pub mod claim;
pub mod clock;
pub mod eventfd;
pub mod file;
pub mod limits;
pub mod marked;
pub mod memory;
pub mod notify;
pub mod process;
pub mod secret_page;
pub mod signals;
pub mod socket;
pub mod tables;

use std::io;

/// Turns the `-1` of a C call into the error it left in `errno`.
fn checked(result: libc::c_int) -> io::Result<libc::c_int> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Repeats a call for as long as a signal interrupts it.
fn uninterrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// A process id as the kernel takes it. Zero and what overflows would name a whole group of processes.
fn single_process(pid: u32) -> io::Result<libc::pid_t> {
    match libc::pid_t::try_from(pid) {
        Ok(pid) if pid > 0 => Ok(pid),
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{pid} is not the id of one process"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs `work` in a process where nothing else happens: the test program again, with this test alone.
    pub(super) fn alone(test: &str, work: impl FnOnce()) {
        if std::env::var("FANTAIL_TEST_ALONE").is_ok_and(|running| running == test) {
            return work();
        }
        let mut command = std::process::Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", test, "--nocapture"]).env("FANTAIL_TEST_ALONE", test);
        let output = command.output().unwrap();
        let said =
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        assert!(said.contains("1 passed"), "no test has the name {test}: {said}");
    }

    #[test]
    fn a_process_id_names_one_process() {
        assert_eq!(single_process(17).ok(), Some(17));
        assert!(single_process(0).is_err(), "0 would be the caller's own group");
        assert!(single_process(u32::MAX).is_err(), "-1 would be every process");
    }

    #[test]
    fn an_interrupted_call_is_repeated() {
        let mut calls = 0;
        let result = uninterrupted(|| {
            calls += 1;
            if calls < 3 { Err(io::Error::from(io::ErrorKind::Interrupted)) } else { Ok(calls) }
        });
        assert_eq!(result.ok(), Some(3));
    }
}
