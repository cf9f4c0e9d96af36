//! The history thread: lets go what topics have kept for too long, or too much of together.
//!
//! Sleeps until something is due, or until a publish or a reload makes it so. Never on the way of a message: it locks
//! one topic at a time.

use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use super::{ServeError, spawn};
use crate::edition::Router;
use crate::sys::clock::wall_ns;
use crate::topic::Keeper;

/// The least time between two turns: what comes due meanwhile is done together.
const PAUSE: Duration = Duration::from_millis(50);

/// The longest sleep while something is kept: the clock of the wall may have been set.
const SLEEP_MAX: Duration = Duration::from_secs(60);

/// Starts it; it ends with the router.
///
/// # Errors
/// There is no thread to be had.
pub(super) fn start(router: &Arc<Router>) -> Result<(), ServeError> {
    let (wake, woken) = mpsc::sync_channel::<()>(1);
    // Where one waits already, it serves this one, too.
    router.set_keeper(Box::new(move || {
        let _ = wake.try_send(());
    }));
    // Its sender is the router's, so that it ends with that.
    let router = Arc::downgrade(router);
    spawn("history", move || {
        let mut keeper = Keeper::new();
        while let Some(router) = router.upgrade() {
            let now = wall_ns() / 1_000_000;
            let due = keeper.turn(&router, now);
            drop(router);
            thread::sleep(PAUSE);
            let ended = match due {
                Some(due) => {
                    let sleep =
                        Duration::from_millis(due.saturating_sub(now)).clamp(PAUSE, SLEEP_MAX) - PAUSE;
                    woken.recv_timeout(sleep) == Err(RecvTimeoutError::Disconnected)
                }
                None => woken.recv().is_err(),
            };
            if ended {
                return;
            }
        }
    })
    .map(drop)
}
