//! Favoured and disfavoured processes, so that a busy machine does not decide what a test sees.
//!
//! Where it is allowed, the programs under test and the threads that time them run under SCHED_FIFO, which other
//! work cannot keep from a processor. Where it is not, what they see is judged by what the machine let others see.

use std::process::Command;
use std::sync::OnceLock;

/// The generator goes before the server: a server that answers late writes that down, a generator does not. Who looks
/// on goes between them: it is not in the generator's way, and the server is not in its.
const GENERATOR: &str = "20";
const WITNESS: &str = "15";
const SERVER: &str = "10";

/// Whether real-time scheduling is allowed here.
pub(crate) fn is_allowed() -> bool {
    static ALLOWED: OnceLock<bool> = OnceLock::new();
    *ALLOWED.get_or_init(|| {
        Command::new("chrt")
            .args(["-f", GENERATOR, "true"])
            .output()
            .is_ok_and(|output| output.status.success())
    })
}

/// The generator's command, favoured if that is allowed.
pub(crate) fn favoured(program: &str) -> Command {
    if !is_allowed() {
        return Command::new(program);
    }
    let mut command = Command::new("chrt");
    command.args(["-f", GENERATOR, program]);
    command
}

/// Favours the calling thread, which is one of a server.
pub(crate) fn favour_server() {
    favour_this_thread(SERVER);
}

/// Favours the calling thread, which sees what the machine lets a thread see.
pub(crate) fn favour_witness() {
    favour_this_thread(WITNESS);
}

fn favour_this_thread(priority: &str) {
    if !is_allowed() {
        return;
    }
    // The link ends in the thread's number.
    let link = std::fs::read_link("/proc/thread-self").unwrap();
    let number = link.file_name().unwrap().to_str().unwrap();
    let _ = Command::new("chrt").args(["-f", "-p", priority, number]).output();
}
