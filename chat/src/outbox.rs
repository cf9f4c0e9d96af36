//! Tells the edge what was written: takes tokens back, publishes, in that order, again and again until the edge has it.
//! One task. What is published a second time, since its answer was lost, pages know by its change and leave out.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::edge::{Edge, Failure, LIVES_SECONDS, Outcome};
use crate::store::{self, Store};

/// Messages of one call.
const BATCH: i64 = 200;
/// How often it looks without being asked: another process may have written, or been ended before it told.
const LOOK: Duration = Duration::from_secs(1);
/// How often it asks the edge whether it was started anew, and has forgotten what it was told to take back.
const ASK: Duration = Duration::from_secs(5);
/// After a failure: the first wait, and the longest.
const WAITS: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(2));

/// The task's state.
pub(crate) struct Teller {
    pub(crate) store: Store,
    pub(crate) edge: Arc<Edge>,
    /// Something was written.
    pub(crate) written: Arc<Notify>,
}

enum Trouble {
    Edge(Failure),
    Store(store::Error),
}

impl From<store::Error> for Trouble {
    fn from(error: store::Error) -> Self {
        Self::Store(error)
    }
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Self::Edge(failure)
    }
}

impl Teller {
    /// Tells for ever.
    pub(crate) async fn run(self) {
        let mut process = String::new();
        let mut asked: Option<Instant> = None;
        let mut wait = None;
        loop {
            let look = wait.unwrap_or(LOOK);
            // Behind a failure it waits even if there is something new.
            if wait.is_some() {
                tokio::time::sleep(look).await;
            } else {
                let _ = tokio::time::timeout(look, self.written.notified()).await;
            }
            let is_due = wait.is_some() || asked.is_none_or(|asked| asked.elapsed() >= ASK);
            match self.round(&mut process, is_due).await {
                Ok(()) => {
                    if is_due {
                        asked = Some(Instant::now());
                    }
                    if wait.take().is_some() {
                        tracing::info!("what was written reaches the edge again");
                    }
                }
                Err(trouble) => {
                    if wait.is_none() {
                        let (what, why) = match trouble {
                            Trouble::Edge(Failure(why)) => ("the edge does not take what was written", why),
                            Trouble::Store(error) => ("what was written can't be read", format!("{error:?}")),
                        };
                        tracing::warn!("{what}, and is told later: {why}");
                    }
                    wait = Some(wait.map_or(WAITS.0, |wait: Duration| (wait * 2).min(WAITS.1)));
                }
            }
        }
    }

    async fn round(&self, process: &mut String, asks: bool) -> Result<(), Trouble> {
        let mut is_new = false;
        if asks {
            let started = self.edge.admin.started().await?;
            is_new = *process != started;
            self.revoke(is_new).await?;
            *process = started;
        }
        if !is_new {
            self.revoke(false).await?;
        }
        loop {
            let waiting = self.store.waiting(BATCH).await?;
            if waiting.is_empty() {
                return Ok(());
            }
            let (mut ids, mut batch) = (Vec::new(), Vec::new());
            for one in waiting {
                ids.push(one.id);
                batch.push((one.topic, one.payload));
            }
            let outcomes = self.edge.admin.publish(batch).await?;
            let mut busy = false;
            let mut done = Vec::new();
            for (id, outcome) in ids.into_iter().zip(outcomes) {
                match outcome {
                    Outcome::Published => done.push(id),
                    // What follows of the same topic has been published, and pages see that a number is missing.
                    Outcome::Busy => busy = true,
                    Outcome::Refused(why) => {
                        tracing::error!(
                            "the edge refuses a message, which pages read from the history: {why}"
                        );
                        done.push(id);
                    }
                }
            }
            self.store.published(&done).await?;
            if busy {
                return Err(Failure("a loop of the edge is too far behind".to_owned()).into());
            }
        }
    }

    async fn revoke(&self, all: bool) -> Result<(), Trouble> {
        for (id, person) in self.store.revocations(all).await? {
            self.edge.admin.revoke(&person, 2 * LIVES_SECONDS).await?;
            self.store.revoked(&id, store::now()).await?;
        }
        Ok(())
    }
}
