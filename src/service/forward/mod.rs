//! Messages of clients that go to the application instead of into a topic: in the order of each connection, at least once.
//!
//! Loops give messages and go on; what became of them is told by mail, through what [`Forward::start`] was given. Each URL has
//! threads, a queue and a breaker of its own, so that a slow application holds up nobody but those who send to it. The threads
//! live in the descriptor table of whoever makes the list of URLs: main, or the thread of a reload. Under the lock of a queue
//! nobody calls or waits.

mod desk;
mod lanes;
mod message;
mod shares;
mod upstream;
mod words;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

pub use lanes::Bounds;
pub use message::{Fate, Message, Payload, Sender, Told};
use upstream::{Common, Upstream};
pub use words::{Said, read as read_answer};

use super::webhook::{Secret, read_secret};
use crate::metrics::forward::{ForwardCounts, ForwardFacts, MessageOutcome};
use crate::topic::TopicName;

/// Different URLs that there may be: each has threads.
pub const URLS_MAX: usize = 16;

/// How messages are forwarded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForwardPlan {
    /// File with the secret that signs batches.
    pub secret_file: String,
    /// Trust the authorities in this PEM file, and not those of the system.
    pub ca: Option<PathBuf>,
    /// Calls at a time to one URL.
    pub calls_max: usize,
    /// How long a call may take.
    pub deadline: Duration,
    /// How long a message is tried.
    pub tried_for: Duration,
    /// What may wait for one URL, and how much one batch has.
    pub bounds: Bounds,
}

/// Tells a loop what became of messages of one connection.
type Tell = dyn Fn(Sender, Vec<Told>) + Send + Sync;

/// Publishes for the application, as an operator may. `false`: it can't be.
type Publish = dyn Fn(&TopicName<'static>, &Payload) -> bool + Send + Sync;

/// The applications that messages go to.
pub struct Forward {
    plan: ForwardPlan,
    common: Arc<Common>,
    upstreams: Mutex<Upstreams>,
    numbers: AtomicU64,
}

#[derive(Default)]
struct Upstreams {
    /// Those that settings in use name.
    by_url: HashMap<Box<str>, Weak<Named>>,
    /// All that may have something to tell yet.
    all: Vec<Weak<Upstream>>,
}

/// An application that settings in use name: whoever has this may send there. When nobody has it any more, its threads end as
/// soon as nothing waits.
pub struct Named(Arc<Upstream>);

impl Drop for Named {
    fn drop(&mut self) {
        self.0.retire();
    }
}

impl Forward {
    /// Reads the secret. Nobody is called before [`Self::start`].
    ///
    /// # Errors
    /// The key of the configuration at fault, and what is wrong.
    pub fn new(plan: ForwardPlan, process: String) -> Result<Self, (&'static str, String)> {
        let secret: Secret =
            read_secret(&plan.secret_file).map_err(|problem| ("forward.secret_file", problem))?;
        let common = Common {
            secret,
            process,
            counts: ForwardCounts::default(),
            began: Instant::now(),
            tell: OnceLock::new(),
            publish: OnceLock::new(),
        };
        Ok(Self { plan, common: Arc::new(common), upstreams: Mutex::default(), numbers: AtomicU64::new(0) })
    }

    /// Whom to tell what became of messages, and how to publish what the application wants: before any loop runs.
    pub fn start(
        &self,
        tell: impl Fn(Sender, Vec<Told>) + Send + Sync + 'static,
        publish: impl Fn(&TopicName<'static>, &Payload) -> bool + Send + Sync + 'static,
    ) {
        // Nobody starts it twice.
        let _ = self.common.tell.set(Box::new(tell));
        let _ = self.common.publish.set(Box::new(publish));
    }

    /// Looks whether these URLs could be called, and with what authorities.
    ///
    /// # Errors
    /// The key of the configuration at fault, and what is wrong.
    pub fn check<'u>(&self, urls: impl IntoIterator<Item = &'u str>) -> Result<(), (&'static str, String)> {
        urls.into_iter().try_for_each(|url| upstream::caller(url, &self.plan).map(drop))
    }

    /// Makes these URLs ready to be called, for as long as somebody has what this returns.
    ///
    /// # Errors
    /// The key of the configuration at fault, and what is wrong.
    pub fn prepare<'u>(
        &self,
        urls: impl IntoIterator<Item = &'u str>,
    ) -> Result<Vec<Arc<Named>>, (&'static str, String)> {
        let named = urls.into_iter().map(|url| {
            if let Some(named) = self.of(url) {
                return Ok(named);
            }
            let upstream = Upstream::start(url, &self.plan, &self.common)?;
            let mut upstreams = self.lock();
            upstreams.all.retain(|upstream| upstream.strong_count() > 0);
            upstreams.all.push(Arc::downgrade(&upstream));
            let named = Arc::new(Named(upstream));
            upstreams.by_url.retain(|_, named| named.strong_count() > 0);
            upstreams.by_url.insert(url.into(), Arc::downgrade(&named));
            Ok(named)
        });
        named.collect()
    }

    /// Takes a message for the application at this URL. `false`: too many wait for it.
    pub fn send(&self, url: &str, message: Message) -> bool {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let taken_ms = self.common.now_ms();
        let taken = self.of(url).is_some_and(|named| named.0.push(Message { number, taken_ms, ..message }));
        if !taken {
            self.common.counts.told(MessageOutcome::Full, 1);
        }
        taken
    }

    /// Tells what is left, each batch with one more try, and waits for that as long as it may. How many messages are left
    /// nevertheless.
    pub fn finish(&self, most: Duration) -> usize {
        let upstreams = self.all();
        let until = Instant::now() + most;
        upstreams.iter().for_each(|upstream| upstream.end());
        upstreams.iter().map(|upstream| upstream.wait_until_empty(until)).sum()
    }

    /// What it came to so far.
    #[must_use]
    pub fn facts(&self) -> ForwardFacts {
        let mut facts = self.common.counts.reading();
        self.all().iter().for_each(|upstream| upstream.add_to(&mut facts));
        facts
    }

    fn all(&self) -> Vec<Arc<Upstream>> {
        self.lock().all.iter().filter_map(Weak::upgrade).collect()
    }

    fn of(&self, url: &str) -> Option<Arc<Named>> {
        self.lock().by_url.get(url)?.upgrade()
    }

    fn lock(&self) -> MutexGuard<'_, Upstreams> {
        // Each change is made whole or not at all.
        self.upstreams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
