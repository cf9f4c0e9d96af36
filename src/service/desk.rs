//! Questions to the application: who waits for which, what is under way, what was answered lately. Pure: the time is told.
//!
//! Owned by [`super::backend::Backend`] under its lock. Questions are told apart by a digest of every byte that is sent, so
//! that nobody is answered what was said of another's credentials, and no credentials are kept with answers. Every question
//! is answered once to each who asks, unless they were forgotten before.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::breaker::{Breaker, State};
use super::caller::Request;
use crate::auth::token::Told;
use crate::topic::Key;

/// Bytes of answers that are kept.
const KEPT_BYTES_MAX: usize = 16 << 20;

/// What an answer costs beside what its server has said.
const KEPT_BYTES: usize = 512;

/// Bytes of questions that wait to be sent: they are copies of what clients have sent, which is theirs to choose.
const WAITING_BYTES_MAX: usize = 64 << 20;

/// Places of questions that were forgotten, before the queue is gone through for them.
const QUEUE_SLACK: usize = 1_024;

/// Tells a question from every other.
pub type Digest = [u8; 32];

/// A connection that waits for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asker {
    /// Its loop.
    pub loop_index: usize,
    /// Which of the loop's.
    pub key: Key,
    /// Which of its questions.
    pub ticket: u32,
}

/// What was answered.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// They may come in, as this.
    Allow(Box<Told>),
    /// They may not.
    Deny,
    /// Nobody knows who they are.
    Unidentified,
    /// The application could not be asked.
    Down,
    /// It has answered something that says nothing. That may be for the sake of what they have sent, so that they come in
    /// by no other way either.
    Useless,
}

/// What became of a question at once.
#[derive(Debug, PartialEq, Eq)]
pub enum Asked {
    /// It was answered.
    Answered(Arc<Verdict>),
    /// The answer comes by mail.
    Waits,
    /// Too many wait.
    Full,
}

/// How a call went.
pub(super) enum Outcome {
    /// It was answered, in so many bytes.
    Verdict(Verdict, usize),
    /// It has failed, and the server wants to be left alone for so long, if it says so.
    Failed(Option<Duration>),
    /// The server is there, and its answer to this question is of no use. Of others that says nothing: whoever can have
    /// such an answer made for themselves must not have everybody else refused by it.
    Useless,
}

struct Pending {
    /// What is to be sent; taken by whoever calls.
    request: Option<Request>,
    askers: Vec<Asker>,
}

impl Pending {
    /// Bytes of what is to be sent still.
    fn bytes(&self) -> usize {
        self.request.as_ref().map_or(0, Request::bytes)
    }
}

struct Kept {
    verdict: Arc<Verdict>,
    until_ms: u64,
    bytes: usize,
}

/// The bounds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Who may wait at a time.
    pub(super) waiting_max: usize,
    /// How long an answer holds; zero: no longer than for those who wait for it.
    pub(super) keep: Duration,
}

/// The state of it all.
pub(super) struct Desk {
    bounds: Bounds,
    pending: HashMap<Digest, Pending>,
    /// Those that no call is made for yet, the first asked first.
    queue: VecDeque<Digest>,
    kept: HashMap<Digest, Kept>,
    /// In the order of their making; those that have gone since are skipped.
    kept_order: VecDeque<(Digest, u64)>,
    kept_bytes: usize,
    waiting: usize,
    waiting_bytes: usize,
    breaker: Breaker,
}

impl Desk {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            pending: HashMap::new(),
            queue: VecDeque::new(),
            kept: HashMap::new(),
            kept_order: VecDeque::new(),
            kept_bytes: 0,
            waiting: 0,
            waiting_bytes: 0,
            breaker: Breaker::default(),
        }
    }

    /// Who waits now.
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    /// Whether calls are made for what is asked now.
    pub(super) fn is_open(&self, now_ms: u64) -> bool {
        !matches!(self.breaker.state(now_ms), State::Open(_))
    }

    /// Whether somebody should call.
    pub(super) fn has_work(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Places in the queue; one that was forgotten keeps its own until it is met.
    pub(super) fn queued(&self) -> usize {
        self.queue.len()
    }

    pub(super) fn ask(&mut self, now_ms: u64, digest: Digest, request: Request, asker: Asker) -> Asked {
        if let Some(kept) = self.kept.get(&digest)
            && now_ms < kept.until_ms
        {
            return Asked::Answered(Arc::clone(&kept.verdict));
        }
        if self.waiting >= self.bounds.waiting_max {
            return Asked::Full;
        }
        if let Some(pending) = self.pending.get_mut(&digest) {
            pending.askers.push(asker);
            self.waiting += 1;
            return Asked::Waits;
        }
        // While one call tries whether it is back, the others are told at once that it is not.
        if let State::Open(_) = self.breaker.state(now_ms) {
            return Asked::Answered(Arc::new(Verdict::Down));
        }
        let bytes = request.bytes();
        if self.waiting_bytes + bytes > WAITING_BYTES_MAX {
            return Asked::Full;
        }
        self.waiting_bytes += bytes;
        self.pending.insert(digest, Pending { request: Some(request), askers: vec![asker] });
        self.queue.push_back(digest);
        self.waiting += 1;
        Asked::Waits
    }

    /// Whoever asked is gone. `true`: no answer comes; `false`: one is on its way already.
    pub(super) fn forget(&mut self, digest: &Digest, asker: &Asker) -> bool {
        let Some(pending) = self.pending.get_mut(digest) else { return false };
        let Some(place) = pending.askers.iter().position(|other| other == asker) else { return false };
        pending.askers.swap_remove(place);
        self.waiting -= 1;
        if pending.askers.is_empty() && pending.request.is_some() {
            self.waiting_bytes -= pending.bytes();
            // Its place in the queue is skipped; but who come and go must not make it ever longer.
            self.pending.remove(digest);
            if self.queue.len() > 2 * self.pending.len() + QUEUE_SLACK {
                let pending = &self.pending;
                self.queue.retain(|digest| pending.get(digest).is_some_and(|one| one.request.is_some()));
            }
        }
        true
    }

    /// The next question to call for; or, where no calls are made, who is to be told so.
    pub(super) fn next(&mut self, now_ms: u64) -> Next {
        while let Some(digest) = self.queue.front().copied() {
            // One that was forgotten, or asked again and called for since.
            let Some(pending) = self.pending.get_mut(&digest).filter(|pending| pending.request.is_some())
            else {
                self.queue.pop_front();
                continue;
            };
            if let State::Open(_) = self.breaker.try_call(now_ms) {
                self.queue.pop_front();
                let askers = std::mem::take(&mut pending.askers);
                self.waiting_bytes -= pending.bytes();
                self.pending.remove(&digest);
                self.waiting -= askers.len();
                return Next::Down(askers);
            }
            self.queue.pop_front();
            self.waiting_bytes -= pending.bytes();
            if let Some(request) = pending.request.take() {
                return Next::Call(digest, request);
            }
        }
        Next::Nothing
    }

    /// A call is over. Who is to be told what; and whether no calls will be made for a while because of it.
    pub(super) fn called(&mut self, now_ms: u64, digest: Digest, outcome: Outcome, wall: u64) -> Called {
        let askers = self.pending.remove(&digest).map_or_else(Vec::new, |pending| pending.askers);
        self.waiting -= askers.len();
        match outcome {
            Outcome::Verdict(verdict, bytes) => {
                self.breaker.succeeded();
                let verdict = Arc::new(verdict);
                self.keep(now_ms, digest, &verdict, bytes, wall);
                Called { askers, verdict, opened: false }
            }
            Outcome::Failed(pause) => {
                let mut opened = self.breaker.failed(now_ms);
                if let Some(pause) = pause.filter(|pause| !pause.is_zero()) {
                    self.breaker.leave_alone(now_ms, pause);
                    opened = true;
                }
                Called { askers, verdict: Arc::new(Verdict::Down), opened }
            }
            Outcome::Useless => {
                self.breaker.succeeded();
                Called { askers, verdict: Arc::new(Verdict::Useless), opened: false }
            }
        }
    }

    fn keep(&mut self, now_ms: u64, digest: Digest, verdict: &Arc<Verdict>, bytes: usize, wall: u64) {
        let keep = u64::try_from(self.bounds.keep.as_millis()).unwrap_or(u64::MAX);
        let left = match &**verdict {
            Verdict::Allow(told) => told.claims.expires.saturating_sub(wall).saturating_mul(1_000),
            _ => u64::MAX,
        };
        let keep = keep.min(left);
        let bytes = bytes + KEPT_BYTES;
        if keep == 0 || bytes > KEPT_BYTES_MAX {
            return;
        }
        let until_ms = now_ms.saturating_add(keep);
        let kept = Kept { verdict: Arc::clone(verdict), until_ms, bytes };
        if let Some(before) = self.kept.insert(digest, kept) {
            self.kept_bytes -= before.bytes;
        }
        self.kept_bytes += bytes;
        self.kept_order.push_back((digest, until_ms));
        // The oldest go, whether they still hold or not.
        while let Some((oldest, until)) = self.kept_order.front().copied() {
            if until > now_ms && self.kept_bytes <= KEPT_BYTES_MAX {
                break;
            }
            self.kept_order.pop_front();
            if self.kept.get(&oldest).is_some_and(|kept| kept.until_ms == until)
                && let Some(gone) = self.kept.remove(&oldest)
            {
                self.kept_bytes -= gone.bytes;
            }
        }
    }
}

/// What a thread that has nothing to do does next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// This call.
    Call(Digest, Request),
    /// Tell these that the application can't be asked.
    Down(Vec<Asker>),
    /// Wait.
    Nothing,
}

/// What follows from a call.
#[derive(Debug)]
pub(super) struct Called {
    pub(super) askers: Vec<Asker>,
    pub(super) verdict: Arc<Verdict>,
    /// No calls are made for a while.
    pub(super) opened: bool,
}

#[cfg(test)]
#[path = "desk_tests.rs"]
mod tests;
