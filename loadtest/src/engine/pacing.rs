//! Wakes workers when a message of their share is due.
//!
//! A thread of its own, because a poll's timeout is in whole milliseconds and a sleep is exact to some
//! microseconds. It sends nothing itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use fantail::sys::clock;

use crate::base::failure::Failure;
use crate::base::interrupt;
use crate::base::schedule::Schedule;
use crate::engine::run::Run;

/// The pacing of one schedule.
#[derive(Debug)]
pub(crate) struct Pacer {
    thread: JoinHandle<()>,
    stop: Arc<AtomicBool>,
}

impl Pacer {
    /// Paces the workers of `run` until the schedule is through or the run is ended early.
    pub(crate) fn start(run: &Run, schedule: Schedule) -> Self {
        let links = run.links().to_vec();
        let run_clock = run.plan.clock;
        let stop = Arc::new(AtomicBool::new(false));
        let told = stop.clone();
        let thread = std::thread::spawn(move || {
            // Where it is refused, sleeps are a little longer.
            let _ = clock::sleep_precisely();
            let stop = || told.load(Ordering::Relaxed) || interrupt::requested();
            let mut next = 0;
            while next < schedule.count() && run_clock.sleep_until(schedule.planned_ns(next), stop) {
                let first = next;
                let now_ns = run_clock.now_ns();
                while next < schedule.count() && schedule.planned_ns(next) <= now_ns {
                    next += 1;
                }
                // Message i is worker i modulo N's, so the due ones are of neighbouring workers.
                for index in (first..next).take(links.len()) {
                    if let Some(link) = links.get(index as usize % links.len()) {
                        link.wake();
                    }
                }
            }
        });
        Self { thread, stop }
    }

    /// Whether it is through.
    pub(crate) fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// Ends it, if it is not through, and waits for its end.
    pub(crate) fn stop(self) -> Result<(), Failure> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| Failure::Failed("the pacing thread panicked".into()))
    }
}
