//! Webhooks: tells a URL what happens to topics and connections, in signed batches, one after the other.
//!
//! Events come from whoever holds a topic's lock ([`Tap`]) and from loops, into a queue that is bounded in bytes: one that finds no room is
//! counted and lost, and nobody ever waits for the URL. One thread posts them, tries a batch again for five minutes, and never
//! has two under way, so that their order is that of the events.

mod event;
mod outgoing;
mod post;

use std::net::IpAddr;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::caller::{Caller, Plan};
use crate::metrics::{CloseReason, WebhookCounts};
use crate::sys;
use crate::topic::{Message, Tap, Topic};
use event::{Data, Event, What};
use outgoing::Outgoing;
use post::{Batch, pause};
pub(in crate::service) use post::{Secret, signed_request};

pub use event::{Bearer, Wanted, Who};

/// Events in one batch, and bytes that they are counted by but for one alone: even where each byte of a text is six in JSON that
/// stays below 1 MiB, which is what most receivers take.
const BATCH_EVENTS_MAX: usize = 1_000;
const BATCH_BYTES_MAX: usize = 256 << 10;

/// How long one try may take.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// Bytes of a file with a secret.
const SECRET_FILE_BYTES_MAX: u64 = 4_096;

/// What is called, and what signs.
pub struct Target {
    caller: Caller,
    secret: Secret,
}

impl Target {
    /// Reads the secret and the authorities.
    ///
    /// # Errors
    /// The key of the configuration at fault, and what is wrong.
    pub fn new(url: &str, secret_file: &str, ca: Option<&str>) -> Result<Self, (&'static str, String)> {
        let secret = read_secret(secret_file).map_err(|problem| ("webhook.secret_file", problem))?;
        let plan = Plan { url: url.to_owned(), ca: ca.map(Into::into), deadline: DEADLINE, idle_max: 1 };
        let caller = Caller::new(&plan).map_err(|problem| ("webhook.url", problem))?;
        Ok(Self { caller, secret })
    }
}

/// The secret in a file.
pub(in crate::service) fn read_secret(file: &str) -> Result<Secret, String> {
    use std::io::Read;
    let mut text = String::new();
    sys::file::open(file)
        .and_then(|opened| opened.take(SECRET_FILE_BYTES_MAX).read_to_string(&mut text))
        .map_err(|error| format!("{file:?} can't be read: {error}"))?;
    Secret::parse(&text).map_err(|problem| format!("{file:?} {problem}"))
}

/// What may wait, and be told.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Bytes of events that wait.
    pub queue_bytes: usize,
    /// Bytes of a client's message that is told in full.
    pub message_bytes: usize,
}

/// The sending end of webhooks.
pub struct Webhook {
    shared: Arc<Shared>,
    wanted: Wanted,
    message_bytes_max: usize,
    /// Disconnected when the thread is at its end.
    ended: Receiver<()>,
}

/// The receiving end: what topics and loops tell goes into the queue.
#[derive(Clone)]
pub struct Ear {
    shared: Arc<Shared>,
    wanted: Wanted,
    message_bytes_max: usize,
}

struct Shared {
    state: Mutex<State>,
    /// Since when times are counted that no clock's setting changes.
    started: Instant,
    /// There is something new, or it is to end.
    news: Condvar,
    counts: Arc<WebhookCounts>,
}

struct State {
    outgoing: Outgoing,
    /// Events that were moved out last, and are posted.
    under_way: usize,
    ends: bool,
}

impl Webhook {
    /// Starts the thread. `process` tells this one's batches from those of another start.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub fn start(
        target: Target,
        process: String,
        bounds: Bounds,
        wanted: Wanted,
        counts: Arc<WebhookCounts>,
    ) -> std::io::Result<Self> {
        let outgoing = Outgoing::new(bounds.queue_bytes, wanted);
        let state = Mutex::new(State { outgoing, under_way: 0, ends: false });
        let shared = Arc::new(Shared { state, started: Instant::now(), news: Condvar::new(), counts });
        let (end, ended) = mpsc::channel();
        let poster = Poster { target, shared: Arc::clone(&shared), process, number: 0 };
        thread::Builder::new().name("webhook".to_owned()).stack_size(1 << 20).spawn(move || {
            poster.run();
            drop::<mpsc::Sender<()>>(end);
        })?;
        Ok(Self { shared, wanted, message_bytes_max: bounds.message_bytes, ended })
    }

    /// What topics and loops are to tell.
    #[must_use]
    pub fn ear(&self) -> Ear {
        let Self { wanted, message_bytes_max, .. } = *self;
        Ear { shared: Arc::clone(&self.shared), wanted, message_bytes_max }
    }

    /// Tells what is left, held back or not, each batch with one more try, and waits for that as long as it may. How many
    /// events are left nevertheless.
    pub fn finish(&self, most: Duration) -> usize {
        self.shared.lock().ends = true;
        self.shared.news.notify_all();
        match self.ended.recv_timeout(most) {
            Err(RecvTimeoutError::Timeout) => {
                let state = self.shared.lock();
                state.outgoing.len() + state.under_way
            }
            Err(RecvTimeoutError::Disconnected) | Ok(()) => 0,
        }
    }
}

impl Tap for Ear {
    fn on_occupied(&self, topic: &Topic) {
        if self.wanted.occupied || self.wanted.vacated {
            self.shared.take(What::occupied(topic.name()));
        }
    }

    fn on_vacated(&self, topic: &Topic) {
        if self.wanted.occupied || self.wanted.vacated {
            self.shared.take(What::vacated(topic.name()));
        }
    }
}

impl Ear {
    /// What is told without a rule of a topic that asks for it.
    #[must_use]
    pub fn wanted(&self) -> &Wanted {
        &self.wanted
    }

    /// A connection was let in; `address` is its client's, as far as that is known.
    pub fn on_connected(&self, who: Who, address: Option<IpAddr>, dialect: &'static str) {
        self.shared.take(What::Connected { who, address, dialect });
    }

    /// A connection that was let in has ended.
    pub fn on_disconnected(&self, who: Who, dialect: &'static str, reason: CloseReason) {
        self.shared.take(What::Disconnected { who, dialect, reason: reason.label() });
    }

    /// A connection has subscribed to a topic whose rule asks for that.
    pub fn on_subscribed(&self, who: Who, topic: &str) {
        self.shared.take(What::Subscribed { who, topic: topic.into() });
    }

    /// A connection has left a topic whose rule asks for that.
    pub fn on_unsubscribed(&self, who: Who, topic: &str) {
        self.shared.take(What::Unsubscribed { who, topic: topic.into() });
    }

    /// A client has published to a topic whose rule asks for that. Called under the topic's lock, as a [`Tap`] is.
    pub fn on_published(&self, who: Who, topic: &Topic, message: &Message) {
        let bytes = message.payload().len();
        let data = (bytes <= self.message_bytes_max).then(|| Data(message.clone()));
        let (epoch, offset) = (topic.epoch(), message.offset());
        self.shared.take(What::Published { who, topic: topic.name().into(), epoch, offset, bytes, data });
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Each change is made whole or not at all.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    fn take(&self, what: What) {
        let mut state = self.lock();
        let idle = !state.outgoing.has_ready();
        let taken = state.outgoing.take(what, wall_ms(), self.now_ms());
        self.counts.queue_bytes.store(state.outgoing.bytes() as u64, Ordering::Relaxed);
        drop(state);
        if !taken {
            self.counts.overflowed.fetch_add(1, Ordering::Relaxed);
        } else if idle {
            self.news.notify_one();
        }
    }

    /// Waits for events and moves them out, with how many were missed before them. `None`: it is to end, and all is told.
    fn next(&self, events: &mut Vec<Event>) -> Option<u64> {
        let mut state = self.lock();
        state.under_way = 0;
        loop {
            let now = self.now_ms();
            let due = if state.ends {
                state.outgoing.ripen_all();
                None
            } else {
                state.outgoing.ripen(now)
            };
            if state.outgoing.has_ready() {
                let missed = state.outgoing.batch((BATCH_EVENTS_MAX, BATCH_BYTES_MAX), events);
                state.under_way = events.len();
                self.counts.queue_bytes.store(state.outgoing.bytes() as u64, Ordering::Relaxed);
                return Some(missed);
            }
            if state.ends {
                return None;
            }
            let wait =
                due.map_or(Duration::from_secs(3_600), |due| Duration::from_millis(due.saturating_sub(now)));
            let waited = self.news.wait_timeout(state, wait);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits so long, or until it is to end. `true`: it is.
    fn rest(&self, pause: Duration) -> bool {
        let until = Instant::now() + pause;
        let mut state = self.lock();
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if state.ends || left.is_zero() {
                return state.ends;
            }
            state = self.news.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// What the thread has.
struct Poster {
    target: Target,
    shared: Arc<Shared>,
    process: String,
    number: u64,
}

impl Poster {
    fn run(mut self) {
        let mut events = Vec::new();
        while let Some(missed) = self.shared.next(&mut events) {
            self.number += 1;
            let batch = Batch::new(&self.process, self.number, missed, &events);
            let counts = &self.shared.counts;
            let of_it = events.len() as u64;
            if self.deliver(&batch, of_it) {
                counts.delivered.fetch_add(of_it, Ordering::Relaxed);
            } else {
                counts.undelivered.fetch_add(of_it, Ordering::Relaxed);
                // What it had to say of those before it is as lost as they are.
                self.shared.lock().outgoing.lose(missed.saturating_add(of_it));
            }
            events.clear();
        }
    }

    /// Tries until it is taken, or no more.
    fn deliver(&self, batch: &Batch, events: u64) -> bool {
        let (started, mut failures) = (Instant::now(), 0);
        loop {
            let asked = match self.target.caller.ask(&batch.request(&self.target.secret, wall_ms() / 1_000)) {
                Ok(answer) if (200..300).contains(&answer.status) => {
                    if failures > 0 {
                        tracing::info!(failures, "the webhook is taken again");
                    }
                    return true;
                }
                Ok(answer) => {
                    self.failed(failures, &format!("it answers {}", answer.status));
                    answer.retry_after
                }
                Err(error) => {
                    self.failed(failures, &error.to_string());
                    None
                }
            };
            failures += 1;
            // In the end each batch has one try more.
            let ends = self.shared.lock().ends;
            let Some(pause) = pause(failures, asked, started.elapsed()).filter(|_| !ends) else {
                tracing::error!(events, failures, "the webhook was not taken; its events are lost");
                return false;
            };
            self.shared.rest(pause);
        }
    }

    fn failed(&self, before: u32, why: &str) {
        self.shared.counts.failed_calls.fetch_add(1, Ordering::Relaxed);
        if before == 0 {
            let url = self.target.caller.shown();
            tracing::warn!(url, "the webhook was not taken, and is tried again: {why}");
        }
    }
}

fn wall_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

#[cfg(test)]
mod tests;
