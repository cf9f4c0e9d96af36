//! Sets of public keys that are fetched: one thread and one set for each address, however many issuers name it.
//!
//! Whoever makes an edition asks for the set of an address ([`KeySets::of`]) and gets the one that there is. Its thread lives in the
//! descriptor table of who asked first, fetches at once, and again when the set is old or a token has shown a key that is not
//! in it, and ends when nobody holds the set any more or the server's edition does not name it ([`KeySets::keep`]). What a fetch does not bring leaves what there was, however old.

mod schedule;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use super::caller::{Answer, CallError, Caller, Plan, Request, parse, shown_of};
use crate::auth::token::FetchedKeys;
use crate::metrics::calls::{CallCounts, CallOutcome, Labelled};
use crate::metrics::jwks::{JwksFacts, JwksSet};
use schedule::Schedule;

/// How long a fetch may take.
const DEADLINE: Duration = Duration::from_secs(10);

/// A call goes down a few frames of ureq and rustls.
const STACK_BYTES: usize = 512 * 1024;

/// Bytes of an address, which is a label of metrics.
const URL_BYTES_MAX: usize = 1_024;

/// Milliseconds of a clock that only goes forward.
type Clock = dyn Fn() -> u64 + Send + Sync;

/// Whether a set of keys may be fetched from `url`: who could change it on its way could issue tokens.
///
/// # Errors
/// What it expects, for a sentence behind the key.
pub fn check_jwks_url(url: &str) -> Result<(), &'static str> {
    let uri = parse(url)?;
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let is_here = host.eq_ignore_ascii_case("localhost")
        || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
    if uri.scheme_str() != Some("https") && !is_here {
        return Err("expects https://, or http:// of this machine (127.0.0.1, [::1], localhost)");
    }
    let fits = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\' | b'#');
    if url.len() > URL_BYTES_MAX || !url.bytes().all(fits) {
        return Err("expects a URL of at most 1024 bytes without quotes, backslashes and #");
    }
    Ok(())
}

/// All sets that are fetched.
pub struct KeySets {
    sources: Mutex<Vec<Source>>,
    counts: Arc<CallCounts>,
    clock: Arc<Clock>,
}

/// What is known of one of them.
struct Source {
    plan: Plan,
    keys: Weak<FetchedKeys>,
    /// When the fetch began that brought it, or else when it was first asked for.
    since_ms: Arc<AtomicU64>,
}

impl fmt::Debug for KeySets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeySets")
    }
}

impl Default for KeySets {
    fn default() -> Self {
        let began = Instant::now();
        Self::by(Arc::new(move || u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX)))
    }
}

impl KeySets {
    fn by(clock: Arc<Clock>) -> Self {
        Self { sources: Mutex::default(), counts: Arc::default(), clock }
    }

    /// Whether [`Self::of`] would have it.
    ///
    /// # Errors
    /// The address or the authorities are of no use: one line that says why.
    pub fn check(url: &str, ca: Option<&Path>) -> Result<(), String> {
        Caller::new(&plan(url, ca)).map(drop)
    }

    /// The set of an address, fetched with these authorities. One that is there already is fetched anew, as soon as it may be.
    ///
    /// # Errors
    /// The address or the authorities are of no use, or there is no thread to be had: one line that says why.
    pub fn of(&self, url: &str, ca: Option<&Path>) -> Result<Arc<FetchedKeys>, String> {
        let plan = plan(url, ca);
        // A source is pushed whole.
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        sources.retain(|source| source.keys.strong_count() > 0);
        if let Some(known) = sources.iter().filter(|of| of.plan == plan).find_map(|of| of.keys.upgrade()) {
            known.want();
            return Ok(known);
        }
        let caller = Caller::new(&plan)?;
        let keys = Arc::new(FetchedKeys::default());
        let since_ms = Arc::new(AtomicU64::new((self.clock)()));
        let fetcher = Fetcher {
            plan: plan.clone(),
            caller,
            keys: Arc::downgrade(&keys),
            since_ms: Arc::clone(&since_ms),
            counts: Arc::clone(&self.counts),
            clock: Arc::clone(&self.clock),
            schedule: Schedule::default(),
            latest: Vec::new(),
        };
        let builder = thread::Builder::new().name("jwks".to_owned()).stack_size(STACK_BYTES);
        let thread = builder.spawn(move || fetcher.run());
        let thread = thread.map_err(|error| format!("no thread can be started to fetch it: {error}"))?;
        keys.set_fetcher(thread.thread().clone());
        sources.push(Source { plan, keys: Arc::downgrade(&keys), since_ms });
        Ok(keys)
    }

    /// Goes on with these alone; others may be held by those who run with earlier settings to their end.
    pub fn keep<'a>(&self, named: impl Iterator<Item = &'a FetchedKeys>) {
        let named: Vec<&FetchedKeys> = named.collect();
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        sources.retain(|source| {
            let Some(keys) = source.keys.upgrade() else { return false };
            let is_named = named.iter().any(|named| std::ptr::eq(*named, &*keys));
            if !is_named {
                keys.retire();
            }
            is_named
        });
    }

    /// What is fetched, and what that came to so far.
    #[must_use]
    pub fn facts(&self) -> JwksFacts {
        let now = (self.clock)();
        let sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        let mut sets: Vec<JwksSet> = Vec::with_capacity(sources.len());
        for source in sources.iter() {
            let Some(keys) = source.keys.upgrade() else { continue };
            let age_ms = now.saturating_sub(source.since_ms.load(Ordering::Relaxed));
            let shown = shown_of(&source.plan.url);
            // Sets that only differ in what is not shown are told apart by a number, behind what no address has.
            let url = match sets.iter().filter(|set| shown_of(&set.url) == shown).count() {
                0 => shown.to_owned(),
                others => format!("{shown}#{}", others + 1),
            };
            sets.push(JwksSet { url, keys: keys.count() as u64, age_seconds: age_ms / 1_000 });
        }
        JwksFacts { fetches: self.counts.reading(), sets }
    }
}

/// The set of an address, fetched once by who asks, who waits for it: as long as a fetch may take. `skipped` gets what is said of keys
/// that are left out.
///
/// # Errors
/// The address or the authorities are of no use, or what is fetched is no set: one line that says why.
pub fn fetch_once(
    url: &str,
    ca: Option<&Path>,
    skipped: &mut Vec<String>,
) -> Result<Arc<FetchedKeys>, String> {
    check_jwks_url(url)?;
    let caller = Caller::new(&plan(url, ca))?;
    let keys = Arc::new(FetchedKeys::default());
    let answer = good(caller.ask(&request())).map_err(|failed| failed.problem)?;
    keys.replace(&answer.body, skipped).map_err(|problem| format!("its answer {problem}"))?;
    // There is no next time.
    keys.settle(true);
    Ok(keys)
}

fn request() -> Request {
    let accept = ("accept".to_owned(), b"application/jwk-set+json, application/json".to_vec());
    Request { fields: vec![accept], body: None }
}

fn plan(url: &str, ca: Option<&Path>) -> Plan {
    Plan { url: url.to_owned(), ca: ca.map(PathBuf::from), deadline: DEADLINE, idle_max: 1 }
}

/// What a thread has.
struct Fetcher {
    plan: Plan,
    caller: Caller,
    keys: Weak<FetchedKeys>,
    since_ms: Arc<AtomicU64>,
    counts: Arc<CallCounts>,
    clock: Arc<Clock>,
    schedule: Schedule,
    /// The set as it came last, so that only changes are told.
    latest: Vec<u8>,
}

/// What a fetch came to when it brought no set.
struct Failed {
    ended: CallOutcome,
    problem: String,
    alone: Option<Duration>,
}

impl Fetcher {
    fn run(mut self) {
        // Whoever retires it or drops the last of it wakes this thread.
        while let Some(keys) = self.keys.upgrade().filter(|keys| !keys.is_retired()) {
            let now = (self.clock)();
            let settled_until = self.schedule.settled_until_ms();
            keys.settle(now < settled_until);
            let due = self.schedule.due_ms(keys.is_wanted());
            if now >= due {
                self.fetch(&keys, now);
                continue;
            }
            let next = if now < settled_until { due.min(settled_until) } else { due };
            drop(keys);
            thread::park_timeout(Duration::from_millis(next - now));
        }
    }

    fn fetch(&mut self, keys: &FetchedKeys, began_ms: u64) {
        // A fault in there must not leave the set as it is for ever.
        let fetched =
            catch_unwind(AssertUnwindSafe(|| take(self.caller.ask(&request()), keys, &self.latest)));
        let panicked = || {
            let problem = "reading it failed".to_owned();
            Failed { ended: CallOutcome::Nonsense, problem, alone: None }
        };
        match fetched.unwrap_or_else(|_| Err(panicked())) {
            Ok((answer, changed)) => {
                self.since_ms.store(began_ms, Ordering::Relaxed);
                self.schedule.succeeded(began_ms, answer.fresh);
                // In this order: who asks between the two is for the next fetch.
                keys.settle((self.clock)() < self.schedule.settled_until_ms());
                keys.answered();
                self.counts.count(if changed { CallOutcome::Changed } else { CallOutcome::Same });
                if changed {
                    tracing::info!(
                        url = self.caller.shown(),
                        keys = keys.count(),
                        "keys of an issuer fetched"
                    );
                    self.latest = answer.body;
                }
            }
            Err(Failed { ended, problem, alone }) => {
                self.schedule.failed(began_ms, (self.clock)(), alone);
                self.counts.count(ended);
                let (url, kept) = (self.caller.shown(), keys.count());
                tracing::warn!(
                    url,
                    kept,
                    reason = ended.label(),
                    "the keys of an issuer can't be fetched: {problem}"
                );
                if ended == CallOutcome::Tls
                    && let Ok(caller) = Caller::new(&self.plan)
                {
                    // The file of authorities may be another one by now.
                    self.caller = caller;
                }
            }
        }
    }
}

/// An answer that may be a set.
fn good(answer: Result<Answer, CallError>) -> Result<Answer, Failed> {
    match answer {
        Ok(answer) if answer.status == 200 => Ok(answer),
        Ok(answer) => Err(Failed {
            ended: CallOutcome::Status,
            problem: format!("it answers {}", answer.status),
            alone: answer.retry_after,
        }),
        Err(error) => Err(Failed { ended: error.outcome(), problem: error.to_string(), alone: None }),
    }
}

/// Puts what was answered in place, and says whether it is another set than the one before.
fn take(
    answer: Result<Answer, CallError>,
    keys: &FetchedKeys,
    latest: &[u8],
) -> Result<(Answer, bool), Failed> {
    let answer = good(answer)?;
    if answer.body == latest {
        return Ok((answer, false));
    }
    let mut skipped = Vec::new();
    keys.replace(&answer.body, &mut skipped).map_err(|problem| Failed {
        ended: CallOutcome::Nonsense,
        problem: format!("its answer {problem}"),
        alone: None,
    })?;
    for problem in skipped {
        tracing::warn!("keys of an issuer: {problem}");
    }
    Ok((answer, true))
}

#[cfg(test)]
mod tests;
