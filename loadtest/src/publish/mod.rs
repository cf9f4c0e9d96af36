//! The publisher of `fanout`: sends messages at their planned times, over HTTP or WebSocket, whatever the server does
//! meanwhile.
//!
//! Two threads in main's descriptor table. The one that calls [`Publisher::run`] sleeps until a message is due and sends it
//! on a connection that has nothing to do; another one reads what comes back. So a slow answer holds up one connection
//! and no message, until there are as many connections as there may be.

mod account;
mod error;
mod posts;
mod request;
pub(crate) mod several;
mod talks;

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token, Waker};

use crate::base::interrupt;
use crate::base::schedule::Schedule;
use crate::engine::worker::Plan;
use crate::net::target::{Scheme, Target};
use crate::tls::{self, Tls};
use account::{Account, Job};
use posts::Posts;
use request::Request;
use several::Board;
use talks::Talks;

pub(crate) use account::Published;
pub(crate) use error::PublishError;

/// How long anything may take: connecting, one answer, a message's wait for a connection.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How often the reader looks for what has taken too long.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Connections to post on, unless told otherwise: what an admin port takes that is meant for a few tools, 256 with
/// Fantail.
pub(super) const PUBLISHERS_MAX: u32 = 240;
/// The same while probes are published, all of which are due at once.
const PROBING_MAX: usize = 16;
/// Probes that are due at once.
const PROBES_AT_ONCE: u32 = 512;
/// Token of the waker; connections have their index.
const WAKER: Token = Token(usize::MAX);
const EVENTS: usize = 256;

/// What publishing is told.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    /// Where to publish.
    pub(crate) target: Target,
    /// Connections to post on at most; `None` for as many as the rate needs.
    pub(crate) publishers: Option<u32>,
    /// The method of a request.
    pub(crate) method: String,
    /// Fields of a request: `NAME: VALUE`.
    pub(crate) headers: Vec<String>,
    /// What is posted instead of the message alone; holds `{marker}`.
    pub(crate) body: Option<String>,
    /// How TLS is spoken.
    pub(crate) tls: tls::Wanted,
}

/// See the module's head.
#[derive(Debug)]
pub(crate) struct Publisher {
    shared: Arc<Shared>,
    waker: Waker,
    reader: Option<JoinHandle<()>>,
}

/// What both threads work on.
#[derive(Debug)]
struct Shared {
    plan: Arc<Plan>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    lanes: Lanes,
    account: Account,
    stop: bool,
}

/// The connections.
#[derive(Debug)]
enum Lanes {
    Posts(Box<Posts>),
    Talks(Box<Talks>),
}

impl Publisher {
    /// Reads what is to be said; over WebSocket also connects, and has the whole conversation first.
    pub(crate) fn start(plan: Arc<Plan>, wanted: &Wanted) -> Result<Self, PublishError> {
        Self::start_sharing(plan, wanted, None)
    }

    /// The same; with a `board` other servers get the messages, too, and it says their numbers.
    fn start_sharing(
        plan: Arc<Plan>,
        wanted: &Wanted,
        board: Option<Arc<Board>>,
    ) -> Result<Self, PublishError> {
        let tls = Tls::of(&wanted.target, &wanted.tls, 1).map_err(PublishError::Usage)?;
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), WAKER)?;
        let registry = poll.registry().try_clone()?;
        let keyed = board.is_some();
        let account = match board {
            Some(board) => Account::sharing(board),
            None => Account::new(plan.conversation.topics().count(), plan.ledger.clone()),
        };
        let lanes = match wanted.target.scheme {
            Scheme::Http => {
                let request = Request::read(wanted, &plan).map_err(PublishError::Usage)?;
                Lanes::Posts(Box::new(Posts::new(wanted, request, registry, tls, keyed)))
            }
            Scheme::Ws => {
                Lanes::Talks(Box::new(Talks::new(wanted, &plan, registry, tls).map_err(PublishError::Usage)?))
            }
        };
        let state = Mutex::new(State { lanes, account, stop: false });
        let shared = Arc::new(Shared { plan, state });
        let reading = shared.clone();
        let thread = std::thread::Builder::new().name("publisher-reader".into());
        let reader = thread.spawn(move || reading.read_all(poll))?;
        let publisher = Self { shared, waker, reader: Some(reader) };
        publisher.wait_to_begin(|state| state.lanes.opened())?;
        Ok(publisher)
    }

    /// Publishes to each topic the message that tells who is subscribed and counts nowhere.
    pub(crate) fn probe(&mut self) -> Result<(), PublishError> {
        let limited = self.shared.lock().lanes.limit(Some(PROBING_MAX));
        let topics = self.shared.plan.conversation.topics().count();
        let mut outcome = Ok(());
        // Not all at once: what waits for a connection has its time, too.
        for first in (0..topics).step_by(PROBES_AT_ONCE as usize) {
            for topic in first..topics.min(first + PROBES_AT_ONCE) {
                let now_ns = self.shared.plan.clock.now_ns();
                let mut state = self.shared.lock();
                state.submit(&self.shared.plan, Job::probe(topic, now_ns), now_ns);
            }
            outcome = self.wait_to_begin(|state| state.account.take_probes());
            if outcome.is_err() || interrupt::requested() {
                break;
            }
        }
        self.shared.lock().lanes.limit(limited);
        outcome
    }

    /// Opens as many connections as the rate is going to need, as far as the probes tell, so that the first messages do
    /// not wait for them.
    pub(crate) fn prepare(&mut self, rate: f64, burst: u32) -> Result<(), PublishError> {
        let mut state = self.shared.lock();
        let answer_ns = state.account.published.answers.value_at_quantile(0.5);
        let at_once = (rate * answer_ns as f64 / 1e9 * 1.5).ceil() as u32;
        if let Lanes::Posts(posts) = &mut state.lanes {
            posts.prepare(at_once.max(burst), self.shared.plan.clock.now_ns());
        }
        // Those of the probes tell nothing of the run.
        state.account.published.answers.reset();
        drop(state);
        self.wait_to_begin(|state| {
            match &state.lanes {
                Lanes::Posts(posts) => posts.connecting() == 0,
                Lanes::Talks(_) => true,
            }
            .then_some(Ok(()))
        })
    }

    /// Publishes what is planned when it is due, and nobody counts it.
    pub(crate) fn warm_up(&mut self, schedule: &Schedule) {
        let plan = self.shared.plan.clone();
        let topics = plan.conversation.topics().count();
        for index in 0..schedule.count() {
            if !plan.clock.sleep_until(schedule.planned_ns(index), interrupt::requested) {
                break;
            }
            let now_ns = plan.clock.now_ns();
            let topic = u32::try_from(index % u64::from(topics.max(1))).unwrap_or(0);
            self.shared.lock().submit(&plan, Job::probe(topic, now_ns), now_ns);
        }
        // Whether a server takes what nobody counts is nobody's business either.
        let _ = self.wait(|state| state.account.take_probes().map(|_| Ok(())));
        self.shared.lock().account.published.answers.reset();
    }

    /// Publishes what is planned when it is due and returns what became of it.
    pub(crate) fn run(&mut self, schedule: &Schedule) -> Published {
        let plan = self.shared.plan.clone();
        let topics = u64::from(plan.conversation.topics().count());
        let mut free_ns = 0;
        'plan: for tick in 0..schedule.ticks() {
            let messages = schedule.messages_of_tick(tick);
            for index in messages.clone() {
                let planned_ns = schedule.planned_ns(index);
                if !plan.clock.sleep_until(planned_ns, interrupt::requested) {
                    break 'plan;
                }
                let now_ns = plan.clock.now_ns();
                let mut state = self.shared.lock();
                // Of a burst only the first one can leave when it was planned.
                let could_ns = if index == messages.start { planned_ns } else { planned_ns.max(free_ns) };
                state.account.on_turn(planned_ns, now_ns.saturating_sub(could_ns));
                let topic = u32::try_from(index % topics.max(1)).unwrap_or(0);
                state.submit(&plan, Job::new(topic, planned_ns), now_ns);
                drop(state);
                free_ns = plan.clock.now_ns();
            }
        }
        self.finish()
    }

    /// A message is due, and came to its turn so much later than it was planned.
    fn submit(&mut self, job: Job, late_ns: u64) {
        let now_ns = self.shared.plan.clock.now_ns();
        let mut state = self.shared.lock();
        state.account.on_turn(job.planned_ns, late_ns);
        state.submit(&self.shared.plan, job, now_ns);
    }

    /// Waits for what is under way, and tells what became of all messages.
    fn finish(&mut self) -> Published {
        // Each ends by its own timeout.
        let _ = self.wait(|state| (state.account.under_way == 0).then_some(Ok(())));
        let mut state = self.shared.lock();
        let State { lanes, account, .. } = &mut *state;
        account.published.connections = lanes.count();
        account.close()
    }

    /// Waits until there is an outcome.
    fn wait(
        &self,
        mut outcome: impl FnMut(&mut State) -> Option<Result<(), PublishError>>,
    ) -> Result<(), PublishError> {
        loop {
            if let Some(outcome) = outcome(&mut self.shared.lock()) {
                return outcome;
            }
            if self.reader.as_ref().is_none_or(JoinHandle::is_finished) {
                return Err(PublishError::Unknown(io::Error::other("the publisher's reader has ended")));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// The same before the first message, and no longer than [`interrupt::GRACE`] once the run is to end early: there is
    /// nothing yet whose fate has to be known.
    fn wait_to_begin(
        &self,
        mut outcome: impl FnMut(&mut State) -> Option<Result<(), PublishError>>,
    ) -> Result<(), PublishError> {
        let mut ending = None;
        self.wait(|state| {
            let over = interrupt::requested()
                && ending.get_or_insert_with(Instant::now).elapsed() > interrupt::GRACE;
            let given_up = || over.then(|| Err(PublishError::Unreached(io::ErrorKind::Interrupted.into())));
            outcome(state).or_else(given_up)
        })
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        {
            let mut state = self.shared.lock();
            state.stop = true;
            if let Lanes::Talks(talks) = &mut state.lanes {
                talks.close();
            }
        }
        // It looks every few milliseconds anyway.
        let _ = self.waker.wake();
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

impl Shared {
    /// A panic elsewhere must not hide what was counted.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read_all(&self, mut poll: Poll) {
        let mut events = Events::with_capacity(EVENTS);
        let mut looked = Instant::now();
        loop {
            if let Err(error) = poll.poll(&mut events, Some(LOOK_EVERY))
                && error.kind() != io::ErrorKind::Interrupted
            {
                return;
            }
            let mut state = self.lock();
            if state.stop {
                return;
            }
            for event in events.iter().filter(|event| event.token() != WAKER) {
                state.on_event(&self.plan, event.token().0, event.is_read_closed());
            }
            if looked.elapsed() >= LOOK_EVERY {
                looked = Instant::now();
                state.on_look(&self.plan);
            }
        }
    }
}

impl State {
    fn submit(&mut self, plan: &Plan, mut job: Job, now_ns: u64) {
        self.account.under_way += 1;
        job.submitted_ns = now_ns;
        match &mut self.lanes {
            Lanes::Posts(posts) => posts.submit(plan, &mut self.account, job, now_ns),
            Lanes::Talks(talks) => talks.submit(plan, &mut self.account, job, now_ns),
        }
    }

    fn on_event(&mut self, plan: &Plan, index: usize, read_closed: bool) {
        match &mut self.lanes {
            Lanes::Posts(posts) => posts.on_event(plan, &mut self.account, index),
            Lanes::Talks(talks) => talks.on_event(plan, &mut self.account, index, read_closed),
        }
    }

    fn on_look(&mut self, plan: &Plan) {
        let now_ns = plan.clock.now_ns();
        match &mut self.lanes {
            Lanes::Posts(posts) => posts.on_look(plan, &mut self.account, now_ns),
            Lanes::Talks(talks) => talks.on_look(plan, &mut self.account, now_ns),
        }
    }
}

impl Lanes {
    /// Set once all that have to be open before the first message are, or one can't be.
    fn opened(&mut self) -> Option<Result<(), PublishError>> {
        match self {
            Self::Posts(_) => Some(Ok(())),
            Self::Talks(talks) => talks.opened(),
        }
    }

    /// Lets no more connections be opened than so many, and tells how many it was; none where that has no meaning.
    fn limit(&mut self, connections: Option<usize>) -> Option<usize> {
        match self {
            Self::Posts(posts) => connections.map(|limit| posts.limit(limit)),
            Self::Talks(_) => None,
        }
    }

    fn count(&self) -> u64 {
        match self {
            Self::Posts(posts) => posts.most() as u64,
            Self::Talks(talks) => talks.count() as u64,
        }
    }
}
