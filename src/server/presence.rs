//! The presence thread: lets members leave whose time has come, and tells who came and went.
//!
//! Sleeps until something is due, or until a join or a leave makes it so. Never on the way of a message: what it tells is
//! published as any message is.

use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use super::{ServeError, spawn};
use crate::edition::Edition;
use crate::sys::clock::{monotonic_ms, wall_ns};

/// Starts it; it ends with what all editions share.
///
/// # Errors
/// There is no thread to be had.
pub(super) fn start(edition: &Edition) -> Result<(), ServeError> {
    let (wake, woken) = mpsc::sync_channel::<()>(1);
    // Where one waits already, it serves this one, too.
    edition.presences.set_waker(Box::new(move || {
        let _ = wake.try_send(());
    }));
    let router = Arc::downgrade(&edition.router);
    let presences = Arc::downgrade(&edition.presences);
    spawn("presence", move || {
        loop {
            let (Some(router), Some(presences)) = (router.upgrade(), presences.upgrade()) else { return };
            let now = monotonic_ms();
            let due = presences.turn(&router, now, wall_ns() / 1_000_000);
            // Its waker is theirs, so that it ends with them.
            drop((router, presences));
            let ended = match due {
                Some(due) => {
                    let sleep = Duration::from_millis(due.saturating_sub(monotonic_ms()));
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
