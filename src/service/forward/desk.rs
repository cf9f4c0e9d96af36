//! What becomes of the messages for one application: which batch is called with next, and what an answer does to it.
//!
//! Driven by [`Upstream`](super::Upstream) under its lock, with the time given. Pure; makes no calls. A batch is tried until it is
//! taken, its time is over, or it shows that it never will be; only when its connections were told is what they have sent since next.

use std::time::Duration;

#[cfg(test)]
use fantail_test_support::planted::{self, Planted};

use super::lanes::{Batch, Bounds, Lanes};
use super::message::Message;
use super::words::Said;
use crate::service::breaker::{Breaker, State as Gate};

/// The pause behind a batch's first failure; each further one is twice as long.
const PAUSE_MS: u64 = 100;

/// The longest.
const PAUSE_MS_MAX: u64 = 5_000;

/// How often it is looked whether messages have waited for too long while the application is left alone.
const LOOK_MS: u64 = 250;

/// What waits, and what is under way.
#[derive(Debug)]
pub(super) struct Desk {
    lanes: Lanes,
    breaker: Breaker,
    tried_for_ms: u64,
    /// Calls under way.
    calling: usize,
    /// When it was last looked for what has waited for too long.
    looked_ms: u64,
    /// Whatever is left is tried once more.
    ends: bool,
    /// Nothing comes any more; threads end when nothing is left.
    retired: bool,
}

/// What a thread does next.
#[derive(Debug)]
pub(super) enum Next {
    /// Calls, and says what came of it ([`Desk::called`]).
    Call(Batch),
    /// Tells that these are given up, and then that it has ([`Desk::gave_up`]).
    GiveUp(Vec<Batch>),
    /// Waits for news, or so many milliseconds.
    Wait(Option<u64>),
    /// Ends.
    End,
}

/// What a call has shown of its batch.
#[derive(Debug)]
pub(super) enum Verdict {
    /// It is taken, and this is said of its messages.
    Said(Vec<Said>),
    /// It may be taken another time; not before that, if the application says so.
    Later(Option<Duration>),
    /// The application can't take all of it; perhaps the parts.
    Apart,
    /// It will not be told what has become of it.
    Never,
}

/// What a call does to its batch.
#[derive(Debug)]
pub(super) enum Called {
    /// It is tried again, as it is or in parts.
    Kept,
    /// Its connections are told this; then it is [settled](Desk::settle).
    Told(Batch, Vec<Said>),
    /// They are told that nobody knows; then it is settled.
    Failed(Batch),
}

impl Desk {
    /// Nothing.
    pub(super) fn new(bounds: Bounds, tried_for: Duration) -> Self {
        Self {
            lanes: Lanes::new(bounds),
            breaker: Breaker::default(),
            tried_for_ms: u64::try_from(tried_for.as_millis()).unwrap_or(u64::MAX),
            calling: 0,
            looked_ms: 0,
            ends: false,
            retired: false,
        }
    }

    /// Takes a message. `false`: too many wait, or nothing comes any more.
    pub(super) fn push(&mut self, message: Message) -> bool {
        !self.retired && self.lanes.push(message)
    }

    /// Nothing comes any more.
    pub(super) fn retire(&mut self) {
        self.retired = true;
    }

    /// What is left is tried once more, all of it now.
    pub(super) fn end(&mut self) {
        (self.ends, self.retired) = (true, true);
        self.lanes.hurry();
    }

    /// Whether nothing comes any more.
    pub(super) fn is_retired(&self) -> bool {
        self.retired
    }

    /// Messages that are not answered yet, and their bytes.
    pub(super) fn held(&self) -> (usize, usize) {
        self.lanes.held()
    }

    /// Calls under way.
    pub(super) fn calling(&self) -> usize {
        self.calling
    }

    /// Whether the application is not called for a while.
    pub(super) fn is_left_alone(&self, now: u64) -> bool {
        matches!(self.breaker.state(now), Gate::Open(1..))
    }

    /// Whether something could be told now.
    pub(super) fn has_due(&self, now: u64) -> bool {
        self.lanes.has_due(now)
    }

    /// What is to be done now.
    pub(super) fn next(&mut self, now: u64) -> Next {
        if self.ends {
            return match self.lanes.take(now) {
                Some(batch) => self.call(batch),
                // Whoever calls has perhaps more to do behind that.
                None if self.calling > 0 => Next::Wait(None),
                None => Next::End,
            };
        }
        if self.retired && self.lanes.held().0 == 0 {
            return Next::End;
        }
        if !self.lanes.has_due(now) && self.lanes.next_due().is_none() {
            return Next::Wait(None);
        }
        if let Gate::Open(left) = self.breaker.state(now) {
            // 0: the outcome of a trial is awaited.
            let wait = Next::Wait(Some(if left == 0 { LOOK_MS } else { left.min(LOOK_MS) }));
            if now.saturating_sub(self.looked_ms) < LOOK_MS {
                return wait;
            }
            let over = self.lanes.expired(now.saturating_sub(self.tried_for_ms));
            if over.is_empty() {
                self.looked_ms = now;
                return wait;
            }
            return Next::GiveUp(over);
        }
        match self.lanes.take(now) {
            Some(batch) => {
                // Not open: it makes a call, which may be the one that shows whether others may follow.
                self.breaker.try_call(now);
                self.call(batch)
            }
            None => {
                let due = self.lanes.next_due();
                Next::Wait(due.map(|due| due.saturating_sub(now).max(1)))
            }
        }
    }

    fn call(&mut self, batch: Batch) -> Next {
        self.calling += 1;
        Next::Call(batch)
    }

    /// A call has shown this of its batch. Beside what that does, whether the application is left alone from now on.
    pub(super) fn called(&mut self, now: u64, batch: Batch, verdict: Verdict) -> (Called, bool) {
        match verdict {
            Verdict::Said(said) => {
                self.breaker.succeeded();
                (Called::Told(batch, said), false)
            }
            Verdict::Later(asked) => {
                let opened = self.breaker.failed(now);
                if let Some(asked) = asked {
                    self.breaker.leave_alone(now, asked);
                }
                let Some(due) = self.again_at(&batch, now).filter(|_| !self.ends) else {
                    return (Called::Failed(batch), opened);
                };
                #[cfg(test)]
                if planted::strikes(Planted::LanesFreed) {
                    self.lanes.free_all(&batch);
                }
                self.lanes.again(due, Batch { tries: batch.tries + 1, ..batch });
                self.calling -= 1;
                (Called::Kept, opened)
            }
            Verdict::Apart if batch.messages.len() > 1 => {
                // It answers: what is wrong is in what it was told, or all of it fails one by one.
                self.breaker.succeeded();
                self.lanes.split(batch);
                self.calling -= 1;
                (Called::Kept, false)
            }
            Verdict::Apart | Verdict::Never => {
                self.breaker.succeeded();
                (Called::Failed(batch), false)
            }
        }
    }

    /// The connections of a batch that was called with were told. `true`: nothing is left.
    pub(super) fn settle(&mut self, batch: &Batch) -> bool {
        self.lanes.settle(batch);
        self.calling -= 1;
        self.lanes.held().0 == 0
    }

    /// Those of batches that were given up were told.
    pub(super) fn gave_up(&mut self, batches: &[Batch]) {
        batches.iter().for_each(|batch| self.lanes.settle(batch));
    }

    /// When a batch that has failed is tried again: twice as late each time, and for the last time when its time is over.
    fn again_at(&self, batch: &Batch, now: u64) -> Option<u64> {
        let over = batch.since_ms.saturating_add(self.tried_for_ms);
        let pause = PAUSE_MS.saturating_mul(1 << batch.tries.min(10)).min(PAUSE_MS_MAX);
        (now < over).then(|| now.saturating_add(pause).min(over))
    }
}

#[cfg(test)]
#[path = "desk_tests.rs"]
mod tests;
