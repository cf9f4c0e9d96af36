//! Asking the application about handshakes: a pool of threads that call, as many as there is work for.
//!
//! Loops ask and go on; who waits is told by mail, through what [`Backend::start`] was given. The threads live in the
//! descriptor table of whoever starts it: main. What is asked and kept is the desk's, under one lock that nobody holds
//! during a call, and that is on no delivery's way.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::caller::{self, Answer, CallError, Caller, Request};
use super::desk::{Asked, Asker, Bounds, Called, Desk, Digest, Next, Outcome, Verdict};
use super::question::digest;
use crate::auth::token::Told;
use crate::metrics::backend::{BackendCounts, BackendFacts, QuestionWay};
use crate::metrics::calls::{CallOutcome, Labelled};

/// How long a thread waits for work before it ends.
const IDLE: Duration = Duration::from_secs(10);

/// A call goes down a few frames of ureq and rustls.
const STACK_BYTES: usize = 512 * 1024;

/// What is asked, and the bounds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendPlan {
    /// The address, and how long a call may take.
    pub call: caller::Plan,
    /// Calls at a time.
    pub calls_max: usize,
    /// Handshakes that may wait at a time.
    pub waiting_max: usize,
    /// How long an answer holds for equal questions.
    pub keep: Duration,
    /// Members of an answer that are kept as claims.
    pub claims: Vec<String>,
}

type Tell = dyn Fn(Asker, Arc<Verdict>) + Send + Sync;

/// The application, for whoever has to ask it.
pub struct Backend {
    shared: Arc<Shared>,
}

struct Shared {
    caller: Caller,
    calls_max: usize,
    claims: Vec<String>,
    counts: BackendCounts,
    began: Instant,
    tell: OnceLock<Box<Tell>>,
    work: Mutex<Work>,
    /// For threads that call.
    asked: Condvar,
    /// For the thread that makes them.
    behind: Condvar,
}

struct Work {
    desk: Desk,
    threads: usize,
    /// Those of them that wait for work.
    idle: usize,
    calling: usize,
    ended: bool,
}

impl Backend {
    /// For this address. Nobody is called before [`Self::start`].
    ///
    /// # Errors
    /// The address or the authorities are of no use: one line that says why.
    pub fn new(plan: &BackendPlan) -> Result<Self, String> {
        let bounds = Bounds { waiting_max: plan.waiting_max, keep: plan.keep };
        let work = Work { desk: Desk::new(bounds), threads: 0, idle: 0, calling: 0, ended: false };
        let shared = Shared {
            caller: Caller::new(&plan.call)?,
            calls_max: plan.calls_max.max(1),
            claims: plan.claims.clone(),
            counts: BackendCounts::default(),
            began: Instant::now(),
            tell: OnceLock::new(),
            work: Mutex::new(work),
            asked: Condvar::new(),
            behind: Condvar::new(),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Begins to call; whoever waits is told through `tell`, by the threads that call.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub fn start(&self, tell: impl Fn(Asker, Arc<Verdict>) + Send + Sync + 'static) -> io::Result<()> {
        // Nobody starts it twice.
        let _ = self.shared.tell.set(Box::new(tell));
        let shared = Arc::clone(&self.shared);
        spawn("backend", move || shared.make_threads())
    }

    /// Asks. Who is to wait is told later, and once, unless [`Self::forget`] says otherwise.
    pub fn ask(&self, request: Request, asker: Asker) -> (Digest, Asked) {
        let digest = digest(&request);
        let now_ms = self.shared.now_ms();
        let mut work = self.shared.lock();
        let before = work.desk.queued();
        let asked = work.desk.ask(now_ms, digest, request, asker);
        let queued = work.desk.queued() > before;
        drop(work);
        let way = match &asked {
            Asked::Waits if queued => QuestionWay::Call,
            Asked::Waits => QuestionWay::Joined,
            Asked::Answered(verdict) if **verdict == Verdict::Down => QuestionWay::Down,
            Asked::Answered(_) => QuestionWay::Kept,
            Asked::Full => QuestionWay::Full,
        };
        self.shared.counts.asked(way);
        if queued {
            self.shared.asked.notify_one();
            self.shared.behind.notify_one();
        }
        (digest, asked)
    }

    /// Whoever asked is gone. `false`: the answer is on its way already.
    pub fn forget(&self, digest: &Digest, asker: &Asker) -> bool {
        self.shared.lock().desk.forget(digest, asker)
    }

    /// What it came to so far.
    #[must_use]
    pub fn facts(&self) -> BackendFacts {
        let work = self.shared.lock();
        BackendFacts {
            calling: work.calling as u64,
            waiting: work.desk.waiting() as u64,
            left_alone: !work.desk.is_open(self.shared.now_ms()),
            ..self.shared.counts.reading()
        }
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.shared.lock().ended = true;
        self.shared.asked.notify_all();
        self.shared.behind.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Work> {
        // Every change under it is whole before anything that could panic.
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn tell(&self, askers: Vec<Asker>, verdict: &Arc<Verdict>) {
        if let Some(tell) = self.tell.get() {
            askers.into_iter().for_each(|asker| tell(asker, Arc::clone(verdict)));
        }
    }

    /// Makes a thread whenever more waits than there are threads without work.
    fn make_threads(self: Arc<Self>) {
        let mut work = self.lock();
        while !work.ended {
            if work.desk.queued() <= work.idle || work.threads >= self.calls_max {
                work = self.behind.wait(work).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            work.threads += 1;
            drop(work);
            let shared = Arc::clone(&self);
            let made = spawn("backend-call", move || shared.call_on());
            work = self.lock();
            if let Err(error) = made {
                work.threads -= 1;
                tracing::error!("cannot start a thread to ask the backend: {error}");
                // Those that there are go on; where there is none, the next question tries again.
                work = self.behind.wait(work).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }

    /// Calls as long as there is work.
    fn call_on(&self) {
        let mut work = self.lock();
        loop {
            match work.desk.next(self.now_ms()) {
                Next::Call(digest, request) => {
                    work.calling += 1;
                    drop(work);
                    self.call(digest, &request);
                    work = self.lock();
                }
                Next::Down(askers) => {
                    drop(work);
                    self.tell(askers, &Arc::new(Verdict::Down));
                    work = self.lock();
                }
                Next::Nothing => {
                    work.idle += 1;
                    let (woken, timed) =
                        self.asked.wait_timeout(work, IDLE).unwrap_or_else(PoisonError::into_inner);
                    work = woken;
                    work.idle -= 1;
                    if work.ended || (timed.timed_out() && !work.desk.has_work()) {
                        work.threads -= 1;
                        return;
                    }
                }
            }
        }
    }

    fn call(&self, digest: Digest, request: &Request) {
        let began = Instant::now();
        // What it says is not newer than the question: who is revoked meanwhile is so by an answer that comes later, too.
        let asked = wall();
        // A fault in there must not leave those without an answer who wait.
        let answer =
            catch_unwind(AssertUnwindSafe(|| self.caller.ask(request))).unwrap_or(Err(CallError::NotHttp));
        let Read { outcome, ended, problem } = read(answer, asked, &self.claims);
        self.counts.called(ended, u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX));
        let mut work = self.lock();
        let Called { askers, verdict, opened } = work.desk.called(self.now_ms(), digest, outcome, wall());
        work.calling -= 1;
        drop(work);
        let url = self.caller.shown();
        if let Some(problem) = problem {
            let reason = ended.label();
            tracing::warn!(url, reason, "the backend has not answered a question: {problem}");
        }
        if opened {
            tracing::warn!(url, "the backend is left alone for a while");
        }
        self.tell(askers, &verdict);
    }
}

/// What an answer means.
struct Read {
    outcome: Outcome,
    ended: CallOutcome,
    /// For the log; nothing of what was sent or answered.
    problem: Option<String>,
}

/// Reads an answer to what was asked at `wall`, in seconds since 1970: a server that is there and says nothing useful of
/// one handshake has not failed.
fn read(answer: Result<Answer, CallError>, wall: u64, claims: &[String]) -> Read {
    let without = |outcome, ended, problem: String| Read { outcome, ended, problem: Some(problem) };
    let said =
        |verdict, bytes, ended| Read { outcome: Outcome::Verdict(verdict, bytes), ended, problem: None };
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) => {
            let outcome = match error {
                CallError::Redirect(_) | CallError::TooLong => Outcome::Useless,
                _ => Outcome::Failed(None),
            };
            return without(outcome, error.outcome(), error.to_string());
        }
    };
    let of_status = |outcome, status| without(outcome, CallOutcome::Status, format!("it answers {status}"));
    match answer.status {
        200 => match Told::read(&answer.body, wall, claims) {
            Ok(Some(told)) => said(Verdict::Allow(Box::new(told)), answer.body.len(), CallOutcome::Allow),
            Ok(None) => said(Verdict::Deny, 0, CallOutcome::Deny),
            Err(problem) => without(Outcome::Useless, CallOutcome::Nonsense, format!("its answer {problem}")),
        },
        401 => said(Verdict::Unidentified, 0, CallOutcome::Unidentified),
        403 => said(Verdict::Deny, 0, CallOutcome::Deny),
        // RFC 6585, 4: too many requests are ours, all of them.
        status @ (429 | 500..) => of_status(Outcome::Failed(answer.retry_after), status),
        status => of_status(Outcome::Useless, status),
    }
}

/// Now, in seconds since 1970.
fn wall() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<()> {
    thread::Builder::new().name(name.to_owned()).stack_size(STACK_BYTES).spawn(body).map(drop)
}

#[cfg(test)]
#[path = "backend_tests.rs"]
mod tests;
