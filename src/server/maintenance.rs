//! The maintenance thread: waits until a peak is over, then lets the allocator give back what nobody uses.
//!
//! Driven by what loops ask for. After the first trim the loops move what their connections still hold out of
//! pages that are almost empty, and the rest goes back a quiet moment after they are through.

use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use crate::edition::Control;
use crate::edition::Edition;
use crate::event_loop::run::TrimRequest;
use crate::sys::memory;

/// How long after the last request the allocator gives memory back: once, when a peak is over.
const TRIM_QUIET: Duration = Duration::from_secs(1);

/// The longest a trim is put off while requests keep coming.
const TRIM_AT_LATEST: Duration = Duration::from_secs(5);

/// Runs until every loop has ended.
pub(super) fn run(requests: &Receiver<TrimRequest>, edition: &Edition) {
    while let Ok(mut request) = requests.recv() {
        let at_latest = Instant::now() + TRIM_AT_LATEST;
        while Instant::now() < at_latest
            && let Ok(next) = requests.recv_timeout(TRIM_QUIET)
        {
            if next == TrimRequest::AfterPeak {
                request = next;
            }
        }
        memory::trim();
        if request == TrimRequest::AfterPeak {
            for index in 0..edition.loops() {
                // A loop that has no room for it has more urgent work; the next peak will ask again.
                let _ = edition.router.send_control(index, Control::Relocate, None);
            }
        }
    }
}
