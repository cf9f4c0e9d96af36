//! A loop in the simulation: the code under test with a poll, a listener and a clock that are made up.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use fantail::connection::{TICK_MS, Tick};
use fantail::edition::{Edition, Latest, Port};
use fantail::event_loop::core::{Core, Readiness};
use fantail::event_loop::listener::{Acceptor, Which};
use fantail::event_loop::run::{STOOD_STILL_MS, TrimRequest};
use fantail::event_loop::turn::Driver;
use fantail::topic::Key;

use super::net::{FakeListener, FakeSocket, Hub, Link, Queue};
use super::rng::Rng;
use super::world::Checked;

const NS_PER_MS: u64 = 1_000_000;

thread_local! {
    /// What the clock of the turn in hand shows, and by how much each look moves it at most.
    static CLOCK: (Cell<u64>, Cell<u64>, RefCell<Rng>) = (Cell::new(0), Cell::new(0), RefCell::new(Rng::new(0)));
}

/// Nanoseconds; time passes by being asked for.
fn clock() -> u64 {
    CLOCK.with(|(now, step, rng)| {
        now.set(now.get() + rng.borrow_mut().below(1 + step.get() as usize) as u64);
        now.get()
    })
}

/// Starts the clock of a run.
pub(crate) fn seed_clock(seed: u64) {
    CLOCK.with(|(now, step, rng)| {
        let mut fresh = Rng::new(seed ^ 0xC10C);
        now.set(0);
        // From turns that are never cut to those that are cut at each look.
        step.set(fresh.pick(&[0, 10_000, 300_000, 3_000_000]));
        *rng.borrow_mut() = fresh;
    });
}

/// One loop and whether it sleeps.
pub(crate) struct LoopSim {
    /// The code under test.
    pub(crate) core: Core<FakeSocket>,
    /// When its poll returns by itself.
    pub(crate) sleeps_until: Option<u64>,
    /// Links that have connected and are not accepted yet.
    pub(crate) queue: Rc<Queue>,
    /// It was stopped, or drained and nobody is left.
    pub(crate) ended: bool,
    kernel: Kernel,
    index: usize,
}

/// What requests have asked the main thread for.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    /// Reloads, each of which waits for an answer.
    pub(crate) reloads: Cell<usize>,
    /// Drains.
    pub(crate) drains: Cell<usize>,
}

/// What drives its turns.
struct Kernel {
    events: VecDeque<(Key, Readiness)>,
    acceptor: Acceptor<FakeListener>,
    latest: Arc<Latest>,
    asked: Rc<Asked>,
    stopping: bool,
    rng: Rng,
}

impl LoopSim {
    /// Loop `index` of `port`, which may hold `capacity` connections.
    pub(crate) fn new(
        index: usize,
        port: Port,
        edition: &Arc<Edition>,
        latest: &Arc<Latest>,
        asked: &Rc<Asked>,
        (hub, capacity): (&Rc<Hub>, usize),
        seed: u64,
    ) -> Checked<Self> {
        let mut core =
            Core::new(index, port, Arc::clone(edition)).map_err(|error| format!("core: {error:?}"))?;
        core.set_clock(clock);
        let listener = FakeListener::new(Rc::clone(hub));
        let queue = Rc::clone(&listener.queue);
        let kernel = Kernel {
            events: VecDeque::new(),
            acceptor: Acceptor::new(listener, capacity),
            latest: Arc::clone(latest),
            asked: Rc::clone(asked),
            stopping: false,
            rng: Rng::new(seed ^ index as u64),
        };
        Ok(Self { core, sleeps_until: Some(0), queue, ended: false, kernel, index })
    }

    /// One turn, once the poll has returned at `now_ms`; and the last look into the mailbox, if it was the last one.
    pub(crate) fn turn(&mut self, now_ms: u64, hub: &Hub, links: &[Rc<Link>], edition: &Edition) {
        if self.kernel.events.is_empty() {
            for id in hub.take_ready(self.index) {
                let link = &links[id];
                self.kernel.events.extend(link.key.get().map(|key| (key, link.readiness())));
            }
            if !self.queue.is_empty() {
                self.kernel.acceptor.on_event(Which::First);
            }
        }
        if self.sleeps_until.is_some_and(|due| now_ms >= due + STOOD_STILL_MS) {
            self.core.on_resumed((now_ms / TICK_MS) as Tick);
        }
        let began = now_ms * NS_PER_MS;
        CLOCK.with(|(now, _, _)| now.set(began));
        self.core.turn(began, &mut self.kernel);
        self.ended = self.kernel.stopping || self.core.is_drained();
        if self.ended {
            edition.health[self.index].ends();
            self.core.last_turn(&mut self.kernel);
        }
        self.sleeps_until = self.sleep_ms(now_ms, edition).map(|sleep_ms| now_ms + sleep_ms);
    }

    /// Milliseconds until the poll returns by itself.
    pub(crate) fn sleep_ms(&self, now_ms: u64, edition: &Edition) -> Option<u64> {
        if self.ended {
            return None;
        }
        let mailbox = edition.router.mailbox(self.index).is_some_and(|mailbox| !mailbox.is_empty());
        if mailbox || !self.kernel.events.is_empty() || self.kernel.acceptor.has_work(&self.core) {
            return Some(0);
        }
        let accepts = self.kernel.acceptor.next_tick(&self.core);
        let accepts = accepts.map(|tick| (u64::from(tick) * TICK_MS).saturating_sub(now_ms));
        [self.core.sleep_ms(now_ms), accepts].into_iter().flatten().min()
    }
}

impl Driver<FakeSocket> for Kernel {
    fn take_events(&mut self, core: &mut Core<FakeSocket>) {
        while !core.has_had_events()
            && let Some((key, readiness)) = self.events.pop_front()
        {
            core.on_event(key, readiness);
        }
    }

    fn accept_turn(&mut self, core: &mut Core<FakeSocket>) {
        self.acceptor.turn(core, &());
    }

    fn on_reload(&mut self, _: &mut Core<FakeSocket>) -> Arc<Edition> {
        self.latest.current()
    }

    fn leave(&mut self, core: &mut Core<FakeSocket>) {
        self.acceptor.leave(core, &());
    }

    fn has_left(&self) -> bool {
        self.acceptor.is_gone()
    }

    fn stop(&mut self) {
        self.stopping = true;
    }

    fn on_drain_asked(&mut self) {
        self.asked.drains.set(self.asked.drains.get() + 1);
    }

    fn on_reload_asked(&mut self) {
        self.asked.reloads.set(self.asked.reloads.get() + 1);
    }

    fn try_trim(&mut self, _: TrimRequest) -> bool {
        !self.rng.one_in(3)
    }
}
