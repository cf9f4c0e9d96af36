//! One application that messages go to: its queue, its breaker, and the threads that call it.
//!
//! Driven by its own threads, and by whoever has a message for it. A batch is tried until it is taken, its time is over, or it
//! shows that it never will be; then each of its connections is told, and what they have sent since is next.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::lanes::{Batch, Lanes};
use super::message::{Fate, Message, Told};
use super::words::{self, Said};
use super::{ForwardPlan, Publish, Tell};
use crate::metrics::forward::{ForwardCounts, ForwardFacts};
use crate::service::breaker::{Breaker, State as Gate};
use crate::service::caller::{Answer, CallError, Caller, Plan};
use crate::service::webhook::{Secret, signed_request};

/// A call goes down a few frames of ureq and rustls.
const STACK_BYTES: usize = 512 * 1024;

/// The pause behind a batch's first failure; each further one is twice as long.
const PAUSE_MS: u64 = 100;

/// The longest.
const PAUSE_MS_MAX: u64 = 5_000;

/// How often it is looked whether messages have waited for too long while the application is left alone.
const LOOK_MS: u64 = 250;

/// What all upstreams have.
pub(super) struct Common {
    pub(super) secret: Secret,
    pub(super) process: String,
    pub(super) tried_for: Duration,
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
    lanes: Lanes,
    breaker: Breaker,
    /// Calls under way.
    calling: usize,
    /// When it was last looked for what has waited for too long.
    looked_ms: u64,
    /// Threads that wait for something to do.
    idle: usize,
    /// Whatever is left is tried once more.
    ends: bool,
    /// Nothing comes any more; threads end when nothing is left.
    retired: bool,
}

/// What a thread does next.
enum Next {
    Call(Batch),
    GiveUp(Vec<Batch>),
    Wait(Option<u64>),
    End,
}

/// What a call has shown of its batch.
enum Verdict {
    /// It is taken, and this is said of its messages.
    Said(Vec<Said>),
    /// It may be taken another time; not before that, if the application says so.
    Later(Option<Duration>),
    /// The application can't take all of it; perhaps the parts.
    Apart,
    /// It will not be told what has become of it.
    Never,
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
        let state = State {
            lanes: Lanes::new(plan.bounds),
            breaker: Breaker::default(),
            calling: 0,
            looked_ms: 0,
            idle: 0,
            ends: false,
            retired: false,
        };
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
        let taken = !state.retired && !state.ends && state.lanes.push(message);
        let wake = taken && state.idle > 0;
        drop(state);
        if wake {
            self.news.notify_one();
        }
        taken
    }

    /// Nothing comes any more.
    pub(super) fn retire(&self) {
        self.lock().retired = true;
        self.news.notify_all();
    }

    /// What is left is tried once more, all of it now.
    pub(super) fn end(&self) {
        let mut state = self.lock();
        (state.ends, state.retired) = (true, true);
        state.lanes.hurry();
        drop(state);
        self.news.notify_all();
    }

    /// Waits until nothing is left. How many messages are nevertheless.
    pub(super) fn wait_until_empty(&self, until: Instant) -> usize {
        let mut state = self.lock();
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let (messages, _) = state.lanes.held();
            if messages == 0 || left.is_zero() {
                return messages;
            }
            state = self.emptied.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    pub(super) fn add_to(&self, facts: &mut ForwardFacts) {
        let state = self.lock();
        let (messages, bytes) = state.lanes.held();
        facts.waiting += messages as u64;
        facts.waiting_bytes += bytes as u64;
        facts.calling += state.calling as u64;
        facts.left_alone += u64::from(matches!(state.breaker.state(self.common.now_ms()), Gate::Open(1..)));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Each change is made whole or not at all.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        let mut state = self.lock();
        loop {
            match self.next(&mut state) {
                Next::Call(batch) => {
                    state.calling += 1;
                    self.wake_next(&state);
                    drop(state);
                    let verdict = self.call(&batch);
                    state = self.settle(batch, verdict);
                    state.calling -= 1;
                    if state.retired {
                        // They may be at their end.
                        self.news.notify_all();
                    }
                }
                Next::GiveUp(batches) => {
                    drop(state);
                    batches.iter().for_each(|batch| self.give_up(&batch.messages));
                    state = self.lock();
                    // Only now: what its connections have sent since is told about behind it.
                    batches.iter().for_each(|batch| state.lanes.settle(batch));
                    self.emptied.notify_all();
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
        if state.idle > 0 && state.lanes.has_due(self.common.now_ms()) {
            self.news.notify_one();
        }
    }

    fn next(&self, state: &mut State) -> Next {
        let now = self.common.now_ms();
        if state.ends {
            return match state.lanes.take(now) {
                Some(batch) => Next::Call(batch),
                // Whoever calls has perhaps more to do behind that.
                None if state.calling > 0 => Next::Wait(None),
                None => Next::End,
            };
        }
        if state.retired && state.lanes.held().0 == 0 {
            return Next::End;
        }
        if !state.lanes.has_due(now) && state.lanes.next_due().is_none() {
            return Next::Wait(None);
        }
        if let Gate::Open(left) = state.breaker.state(now) {
            // 0: the outcome of a trial is awaited.
            let wait = Next::Wait(Some(if left == 0 { LOOK_MS } else { left.min(LOOK_MS) }));
            if now.saturating_sub(state.looked_ms) < LOOK_MS {
                return wait;
            }
            let over = state.lanes.expired(now.saturating_sub(self.tried_for_ms()));
            if over.is_empty() {
                state.looked_ms = now;
                return wait;
            }
            return Next::GiveUp(over);
        }
        match state.lanes.take(now) {
            Some(batch) => {
                // Not open: it makes a call, which may be the one that shows whether others may follow.
                state.breaker.try_call(now);
                Next::Call(batch)
            }
            None => {
                let due = state.lanes.next_due();
                Next::Wait(due.map(|due| due.saturating_sub(now).max(1)))
            }
        }
    }

    fn call(&self, batch: &Batch) -> Verdict {
        let body = words::body(&self.common.process, &batch.messages);
        let id = format!("msg_{}_batch_{}", self.common.process, batch.number);
        let request = signed_request(&self.common.secret, &id, body, wall_s());
        // A fault in there must not leave senders waiting for ever.
        let answer =
            catch_unwind(AssertUnwindSafe(|| self.caller.ask(&request))).unwrap_or(Err(CallError::NotHttp));
        let (verdict, label, problem) = self.read(batch, answer);
        self.common.counts.called(label);
        if let Some(problem) = problem {
            let url = self.caller.shown();
            tracing::warn!(url, reason = label, messages = batch.messages.len(), "not forwarded: {problem}");
        }
        verdict
    }

    fn read(
        &self,
        batch: &Batch,
        answer: Result<Answer, CallError>,
    ) -> (Verdict, &'static str, Option<String>) {
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                let verdict = match error {
                    CallError::Redirect(_) | CallError::TooLong => Verdict::Never,
                    _ => Verdict::Later(None),
                };
                return (verdict, error.label(), Some(error.to_string()));
            }
        };
        let status = answer.status;
        match status {
            200..=299 => {
                // RFC 9110, 15.3.5: 204 has no content.
                let body = if status == 204 { &[][..] } else { &answer.body };
                match words::read(&self.common.process, &batch.messages, body) {
                    Ok(said) => (Verdict::Said(said), "taken", None),
                    Err(problem) => (Verdict::Never, "nonsense", Some(format!("its answer {problem}"))),
                }
            }
            // RFC 6585, 4, and RFC 9110, 15.6.3 to 15.6.5: it is not there, or too busy, whatever it is told.
            429 | 502..=504 => {
                (Verdict::Later(answer.retry_after), "status", Some(format!("it answers {status}")))
            }
            500.. if batch.messages.len() == 1 => {
                (Verdict::Later(answer.retry_after), "status", Some(format!("it answers {status}")))
            }
            _ => (Verdict::Apart, "status", Some(format!("it answers {status}"))),
        }
    }

    /// Does what a verdict asks for; the lock is taken for it.
    fn settle(&self, batch: Batch, verdict: Verdict) -> MutexGuard<'_, State> {
        let mut state = match verdict {
            Verdict::Said(said) => {
                self.tell(&batch.messages, said);
                let mut state = self.lock();
                state.breaker.succeeded();
                state
            }
            Verdict::Later(asked) => {
                let mut state = self.lock();
                let now = self.common.now_ms();
                let opened = state.breaker.failed(now);
                if let Some(asked) = asked {
                    state.breaker.leave_alone(now, asked);
                }
                if opened {
                    tracing::warn!(url = self.caller.shown(), "the application is left alone for a while");
                }
                if let Some(due) = self.again_at(&batch, now).filter(|_| !state.ends) {
                    state.lanes.again(due, Batch { tries: batch.tries + 1, ..batch });
                    return state;
                }
                drop(state);
                self.give_up(&batch.messages);
                self.lock()
            }
            Verdict::Apart if batch.messages.len() > 1 => {
                let mut state = self.lock();
                // It answers: what is wrong is in what it was told, or all of it fails one by one.
                state.breaker.succeeded();
                state.lanes.split(batch);
                return state;
            }
            Verdict::Apart | Verdict::Never => {
                self.give_up(&batch.messages);
                let mut state = self.lock();
                state.breaker.succeeded();
                state
            }
        };
        state.lanes.settle(&batch);
        if state.lanes.held().0 == 0 {
            self.emptied.notify_all();
        }
        state
    }

    fn tried_for_ms(&self) -> u64 {
        u64::try_from(self.common.tried_for.as_millis()).unwrap_or(u64::MAX)
    }

    /// When a batch that has failed is tried again: twice as late each time, and for the last time when its time is over.
    fn again_at(&self, batch: &Batch, now: u64) -> Option<u64> {
        let over = batch.since_ms.saturating_add(self.tried_for_ms());
        let pause = PAUSE_MS.saturating_mul(1 << batch.tries.min(10)).min(PAUSE_MS_MAX);
        (now < over).then(|| now.saturating_add(pause).min(over))
    }

    /// Publishes what the application wants, and tells its senders what it says.
    fn tell(&self, messages: &[Message], said: Vec<Said>) {
        let mut told: Vec<Told> = Vec::with_capacity(messages.len());
        for (message, Said { fate, publish, close }) in messages.iter().zip(said) {
            for (topic, payload) in &publish {
                let done = self.common.publish.get().is_some_and(|publish| publish(topic, payload));
                self.common.counts.published(done);
            }
            let outcome = if matches!(fate, Fate::Refused { .. }) { "refused" } else { "taken" };
            self.common.counts.told(outcome, 1);
            told.push(Told::of(message, fate, close));
        }
        self.send(messages, told);
    }

    /// Tells their senders that nobody knows what became of these.
    fn give_up(&self, messages: &[Message]) {
        self.common.counts.told("failed", messages.len() as u64);
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
