//! One application that messages go to: its queue, and the threads that call it.
//!
//! Driven by its own threads, and by whoever has a message for it. What is to be done next the desk says, under the lock; calls are made
//! and connections are told without it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::desk::{Called, Desk, Next, Verdict};
use super::lanes::Batch;
use super::message::{Fate, Message, Told};
use super::words::{self, Said};
use super::{ForwardPlan, Publish, Tell};
use crate::metrics::calls::{CallOutcome, Labelled};
use crate::metrics::forward::{ForwardCounts, ForwardFacts, MessageOutcome};
use crate::service::caller::{Answer, CallError, Caller, Plan};
use crate::service::webhook::{Secret, signed_request};

/// A call goes down a few frames of ureq and rustls.
const STACK_BYTES: usize = 512 * 1024;

/// What all upstreams have.
pub(super) struct Common {
    pub(super) secret: Secret,
    pub(super) process: String,
    pub(super) counts: ForwardCounts,
    pub(super) began: Instant,
    pub(super) tell: OnceLock<Box<Tell>>,
    pub(super) publish: OnceLock<Box<Publish>>,
}

impl Common {
    pub(super) fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// One application.
pub(super) struct Upstream {
    common: Arc<Common>,
    caller: Caller,
    state: Mutex<State>,
    /// For threads that call.
    news: Condvar,
    /// For whoever waits for the end.
    emptied: Condvar,
}

struct State {
    desk: Desk,
    /// Threads that wait for something to do.
    idle: usize,
}

impl Upstream {
    /// Starts the threads.
    ///
    /// # Errors
    /// The key of the configuration at fault, and what is wrong.
    pub(super) fn start(
        url: &str,
        plan: &ForwardPlan,
        common: &Arc<Common>,
    ) -> Result<Arc<Self>, (&'static str, String)> {
        let caller = caller(url, plan)?;
        let state = State { desk: Desk::new(plan.bounds, plan.tried_for), idle: 0 };
        let upstream = Arc::new(Self {
            common: Arc::clone(common),
            caller,
            state: Mutex::new(state),
            news: Condvar::new(),
            emptied: Condvar::new(),
        });
        for _ in 0..plan.calls_max.max(1) {
            let worker = Arc::clone(&upstream);
            let thread = thread::Builder::new().name("forward".to_owned()).stack_size(STACK_BYTES);
            if let Err(error) = thread.spawn(move || worker.run()) {
                upstream.retire();
                return Err(("forward.calls_max", format!("no thread can be started: {error}")));
            }
        }
        Ok(upstream)
    }

    /// Takes a message. `false`: too many wait, or it is let go of.
    pub(super) fn push(&self, message: Message) -> bool {
        let mut state = self.lock();
        let taken = state.desk.push(message);
        let wake = taken && state.idle > 0;
        drop(state);
        if wake {
            self.news.notify_one();
        }
        taken
    }

    /// Nothing comes any more.
    pub(super) fn retire(&self) {
        self.lock().desk.retire();
        self.news.notify_all();
    }

    /// What is left is tried once more, all of it now.
    pub(super) fn end(&self) {
        self.lock().desk.end();
        self.news.notify_all();
    }

    /// Waits until nothing is left. How many messages are nevertheless.
    pub(super) fn wait_until_empty(&self, until: Instant) -> usize {
        let mut state = self.lock();
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let (messages, _) = state.desk.held();
            if messages == 0 || left.is_zero() {
                return messages;
            }
            state = self.emptied.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    pub(super) fn add_to(&self, facts: &mut ForwardFacts) {
        let state = self.lock();
        let (messages, bytes) = state.desk.held();
        facts.waiting += messages as u64;
        facts.waiting_bytes += bytes as u64;
        facts.calling += state.desk.calling() as u64;
        facts.left_alone += u64::from(state.desk.is_left_alone(self.common.now_ms()));
    }

    /// Threads that wait for something to do.
    #[cfg(test)]
    pub(super) fn idle(&self) -> usize {
        self.lock().idle
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Each change is made whole or not at all.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        let mut state = self.lock();
        loop {
            match state.desk.next(self.common.now_ms()) {
                Next::Call(batch) => {
                    self.wake_next(&state);
                    drop(state);
                    let verdict = self.call(&batch);
                    state = self.settle(batch, verdict);
                    if state.desk.is_retired() {
                        // They may be at their end.
                        self.news.notify_all();
                    }
                }
                Next::GiveUp(batches) => {
                    drop(state);
                    batches.iter().for_each(|batch| self.give_up(&batch.messages));
                    state = self.lock();
                    // Only now: what its connections have sent since is told about behind it.
                    state.desk.gave_up(&batches);
                    self.emptied.notify_all();
                    if state.desk.is_retired() {
                        // They may be at their end.
                        self.news.notify_all();
                    }
                }
                Next::Wait(due) => {
                    state.idle += 1;
                    let wait = due.map_or(Duration::from_secs(3_600), Duration::from_millis);
                    let waited = self.news.wait_timeout(state, wait);
                    state = waited.unwrap_or_else(PoisonError::into_inner).0;
                    state.idle -= 1;
                }
                Next::End => return,
            }
        }
    }

    /// Wakes a thread for what one does not take with it. Whoever waits for the outcome of a trial looks by itself.
    fn wake_next(&self, state: &State) {
        if state.idle > 0 && state.desk.has_due(self.common.now_ms()) {
            self.news.notify_one();
        }
    }

    fn call(&self, batch: &Batch) -> Verdict {
        let body = words::body(&self.common.process, &batch.messages);
        let id = format!("msg_{}_batch_{}", self.common.process, batch.number);
        let request = signed_request(&self.common.secret, &id, body, wall_s());
        // A fault in there must not leave senders waiting for ever.
        let answer =
            catch_unwind(AssertUnwindSafe(|| self.caller.ask(&request))).unwrap_or(Err(CallError::NotHttp));
        let (verdict, ended, problem) = self.read(batch, answer);
        self.common.counts.called(ended);
        if let Some(problem) = problem {
            let url = self.caller.shown();
            let reason = ended.label();
            tracing::warn!(url, reason, messages = batch.messages.len(), "not forwarded: {problem}");
        }
        verdict
    }

    fn read(
        &self,
        batch: &Batch,
        answer: Result<Answer, CallError>,
    ) -> (Verdict, CallOutcome, Option<String>) {
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                let verdict = match error {
                    CallError::Redirect(_) | CallError::TooLong => Verdict::Never,
                    _ => Verdict::Later(None),
                };
                return (verdict, error.outcome(), Some(error.to_string()));
            }
        };
        let status = answer.status;
        let of_status = |verdict| (verdict, CallOutcome::Status, Some(format!("it answers {status}")));
        match status {
            200..=299 => {
                // RFC 9110, 15.3.5: 204 has no content.
                let body = if status == 204 { &[][..] } else { &answer.body };
                match words::read(&self.common.process, &batch.messages, body) {
                    Ok(said) => (Verdict::Said(said), CallOutcome::Taken, None),
                    Err(problem) => {
                        (Verdict::Never, CallOutcome::Nonsense, Some(format!("its answer {problem}")))
                    }
                }
            }
            // RFC 6585, 4, and RFC 9110, 15.6.3 to 15.6.5: it is not there, or too busy, whatever it is told.
            429 | 502..=504 => of_status(Verdict::Later(answer.retry_after)),
            500.. if batch.messages.len() == 1 => of_status(Verdict::Later(answer.retry_after)),
            _ => of_status(Verdict::Apart),
        }
    }

    /// Does what a verdict asks for; the lock is taken for it.
    fn settle(&self, batch: Batch, verdict: Verdict) -> MutexGuard<'_, State> {
        let mut state = self.lock();
        let (called, opened) = state.desk.called(self.common.now_ms(), batch, verdict);
        if matches!(called, Called::Kept) && !opened {
            return state;
        }
        drop(state);
        if opened {
            tracing::warn!(url = self.caller.shown(), "the application is left alone for a while");
        }
        let batch = match called {
            Called::Kept => return self.lock(),
            Called::Told(batch, said) => {
                self.tell(&batch.messages, said);
                batch
            }
            Called::Failed(batch) => {
                self.give_up(&batch.messages);
                batch
            }
        };
        let mut state = self.lock();
        if state.desk.settle(&batch) {
            self.emptied.notify_all();
        }
        state
    }

    /// Publishes what the application wants, and tells its senders what it says.
    fn tell(&self, messages: &[Message], said: Vec<Said>) {
        let mut told: Vec<Told> = Vec::with_capacity(messages.len());
        for (message, Said { fate, publish, close }) in messages.iter().zip(said) {
            for (topic, payload) in &publish {
                let done = self.common.publish.get().is_some_and(|publish| publish(topic, payload));
                self.common.counts.published(done);
            }
            let outcome = match fate {
                Fate::Refused { .. } => MessageOutcome::Refused,
                _ => MessageOutcome::Taken,
            };
            self.common.counts.told(outcome, 1);
            told.push(Told::of(message, fate, close));
        }
        self.send(messages, told);
    }

    /// Tells their senders that nobody knows what became of these.
    fn give_up(&self, messages: &[Message]) {
        self.common.counts.told(MessageOutcome::Failed, messages.len() as u64);
        let url = self.caller.shown();
        tracing::error!(url, messages = messages.len(), "messages are given up; their senders are told");
        let told = messages.iter().map(|message| Told::of(message, Fate::Failed, None)).collect();
        self.send(messages, told);
    }

    /// Tells each connection of its own, which stand one behind the other.
    fn send(&self, messages: &[Message], told: Vec<Told>) {
        let Some(tell) = self.common.tell.get() else { return };
        let mut told = told.into_iter();
        for run in messages.chunk_by(|one, next| one.sender == next.sender) {
            let Some(sender) = run.first().map(|message| message.sender) else { continue };
            tell(sender, told.by_ref().take(run.len()).collect());
        }
    }
}

/// What calls this URL.
pub(super) fn caller(url: &str, plan: &ForwardPlan) -> Result<Caller, (&'static str, String)> {
    let call =
        Plan { url: url.to_owned(), ca: plan.ca.clone(), deadline: plan.deadline, idle_max: plan.calls_max };
    Caller::new(&call).map_err(|problem| ("forward.ca_file", problem))
}

/// Now, in seconds since 1970.
fn wall_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
