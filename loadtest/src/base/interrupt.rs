//! Ctrl-C and SIGTERM: the first one ends the load early, and the report still comes; the second ends the
//! process at once, with the server it started.
//!
//! The signals are blocked before the first thread starts and taken by a thread of their own, so no system
//! call of a run is ever interrupted by one.

use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use fantail::sys::signals;

use super::note::note;

static REQUESTED: AtomicBool = AtomicBool::new(false);
static CHILD: AtomicU32 = AtomicU32::new(0);

static LAST: OnceLock<fn()> = OnceLock::new();

/// How long what is under way may take to come to an end once the run is to end early.
pub(crate) const GRACE: Duration = Duration::from_secs(1);

/// What a shell reports for a process that SIGINT ended.
const EXIT_CODE: i32 = 130;

/// Blocks the signals and starts the thread that takes them. Call it before any other thread starts.
pub(crate) fn catch() -> io::Result<()> {
    signals::block_all()?;
    std::thread::Builder::new().name("signals".into()).spawn(|| {
        while signals::wait().is_ok() {
            if REQUESTED.swap(true, Ordering::SeqCst) {
                let child = CHILD.load(Ordering::SeqCst);
                if child != 0 {
                    // It may have ended by itself, and then there is nothing to end.
                    let _ = signals::kill(child);
                }
                if let Some(last) = LAST.get() {
                    last();
                }
                std::process::exit(EXIT_CODE);
            }
            note("ending early; once more ends at once");
        }
    })?;
    Ok(())
}

/// Has this done before the process is ended at once.
pub(crate) fn set_last(last: fn()) {
    let _ = LAST.set(last);
}

/// Ends the load early, as the first signal does.
pub(crate) fn request() {
    REQUESTED.store(true, Ordering::SeqCst);
}

/// Whether the run is to end early.
pub(crate) fn requested() -> bool {
    REQUESTED.load(Ordering::SeqCst)
}

/// The process to end when this one is ended at once; 0 for none.
pub(crate) fn set_child(pid: u32) {
    CHILD.store(pid, Ordering::SeqCst);
}
