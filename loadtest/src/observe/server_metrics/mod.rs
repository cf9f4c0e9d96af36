//! `--server-metrics`: memory and processor time of a server on another machine, as it tells them itself.
//!
//! A thread of its own reads the page once a second, and at once when the edge of a phase asks for it; each reading
//! is bounded in time, and nobody who loads the server waits for one. What a page does not offer is unknown, never 0.

mod text;

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use crate::base::secrets;
use crate::net::http_answer;
use crate::net::target::{Scheme, Target};
use crate::result::metrics_report::MetricsReport;
use crate::tls::{self, Tls, Wire};

pub(crate) use text::Offered;

/// Time between two readings.
pub(crate) const EVERY: Duration = Duration::from_secs(1);
/// Connecting, and each read and write of one reading.
const TIMEOUT: Duration = Duration::from_secs(3);
/// How long an edge of a phase waits for a reading of its own.
const FRESH_WITHIN: Duration = Duration::from_secs(5);
/// A reading older than this says nothing about now.
const OLD: Duration = Duration::from_millis(2_500);
const PAGE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The one server whose metrics this process reads; the command line has one flag for it.
static REMOTE: OnceLock<Remote> = OnceLock::new();

/// See the module's head.
#[derive(Debug)]
pub(crate) struct Remote {
    url: String,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    last: Option<(Instant, Offered)>,
    names: Vec<&'static str>,
    readings: u64,
    failed: u64,
    last_error: Option<String>,
    /// Readings asked for, and those finished that began after they were asked for.
    asked: u64,
    answered: u64,
}

impl Remote {
    /// Reads the page once and starts the thread that goes on; the first call's answer stands for all later ones.
    pub(crate) fn start(url: &str, headers: &[String], tls: &tls::Wanted) -> Result<&'static Self, String> {
        if let Some(remote) = REMOTE.get() {
            return Ok(remote);
        }
        let mut reader = Reader::new(url, headers, tls)?;
        let wrong =
            |error: &dyn std::fmt::Display| format!("--server-metrics {}: {error}", secrets::url(url));
        let offered = reader.read().map_err(|error| wrong(&error))?;
        let names = offered.names();
        if names.is_empty() {
            return Err(wrong(
                &"the page has neither process_resident_memory_bytes nor process_cpu_seconds_total nor \
                  fantail_memory_bytes",
            ));
        }
        let state = State { last: Some((Instant::now(), offered)), names, readings: 1, ..State::default() };
        let made = Self { url: url.to_owned(), state: Mutex::new(state), changed: Condvar::new() };
        let remote = REMOTE.get_or_init(|| made);
        let thread = std::thread::Builder::new().name("server-metrics".into());
        thread.spawn(move || remote.keep_reading(reader)).map_err(|error| wrong(&error))?;
        Ok(remote)
    }

    /// What the reader was told last, unless that is too long ago.
    pub(crate) fn latest(&self) -> Offered {
        let state = self.state();
        state.last.filter(|(at, _)| at.elapsed() < OLD).map_or_else(Offered::default, |(_, offered)| offered)
    }

    /// What a reading says that begins now; it takes some seconds at most.
    pub(crate) fn fresh(&self) -> Offered {
        let mut state = self.state();
        state.asked += 1;
        let mine = state.asked;
        self.changed.notify_all();
        let waited = self.changed.wait_timeout_while(state, FRESH_WITHIN, |state| state.answered < mine);
        let in_time = waited.is_ok_and(|(_, timeout)| !timeout.timed_out());
        if in_time { self.latest() } else { Offered::default() }
    }

    fn keep_reading(&self, mut reader: Reader) {
        let mut due = Instant::now() + EVERY;
        loop {
            let state = self.state();
            let wait = due.saturating_duration_since(Instant::now());
            let woken = self.changed.wait_timeout_while(state, wait, |state| state.asked == state.answered);
            let asked = woken.map_or_else(|poisoned| poisoned.into_inner().0.asked, |(state, _)| state.asked);
            let outcome = reader.read();
            let mut state = self.state();
            state.readings += 1;
            match outcome {
                Ok(offered) => state.last = Some((Instant::now(), offered)),
                Err(error) => {
                    state.failed += 1;
                    state.last_error = Some(error.to_string());
                    // An edge that asked is not answered with what was before.
                    state.last = None;
                }
            }
            state.answered = asked;
            drop(state);
            self.changed.notify_all();
            due = Instant::now().max(due) + EVERY;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the report says of it; `None` without `--server-metrics`.
pub(crate) fn report() -> Option<MetricsReport> {
    let remote = REMOTE.get()?;
    let state = remote.state();
    Some(MetricsReport {
        url: secrets::url(&remote.url),
        names: state.names.clone(),
        readings: state.readings,
        failed: state.failed,
        last_error: state.last_error.clone(),
    })
}

/// Reads the page over a kept connection.
#[derive(Debug)]
struct Reader {
    target: Target,
    tls: Option<Arc<Tls>>,
    request: Vec<u8>,
    wire: Option<Wire>,
    answer: Vec<u8>,
}

impl Reader {
    fn new(url: &str, headers: &[String], tls: &tls::Wanted) -> Result<Self, String> {
        let target = Target::parse(url).map_err(|error| format!("--server-metrics {error}"))?;
        if target.scheme != Scheme::Http {
            return Err(format!("--server-metrics {url}: needs http:// or https://"));
        }
        let tls = Tls::of(&target, tls, 1)?;
        let mut request = Vec::new();
        let Target { path, authority, .. } = &target;
        // Writing to memory does not fail.
        let _ = write!(
            request,
            "GET {path} HTTP/1.1\r\nHost: {authority}\r\nAccept: text/plain;version=0.0.4\r\n"
        );
        for header in headers {
            let (name, value) = crate::net::header::parse_header("--metrics-header", header)?;
            let _ = write!(request, "{name}: {value}\r\n");
        }
        request.extend_from_slice(b"\r\n");
        Ok(Self { target, tls, request, wire: None, answer: Vec::new() })
    }

    fn read(&mut self) -> io::Result<Offered> {
        let wire = match self.wire.take().filter(Wire::is_quiet) {
            Some(wire) => wire,
            None => Wire::connect(&self.target, self.tls.as_deref(), TIMEOUT)?,
        };
        wire.write_all(&self.request)?;
        let mut timed = wire.within(TIMEOUT, "no end of the page within three seconds");
        let head = http_answer::read(&mut timed, PAGE_BYTES_MAX, &mut self.answer)?;
        if head.status != 200 {
            return Err(io::Error::other(format!("status {}", head.status)));
        }
        let page = http_answer::body(&head, &self.answer);
        let offered = Offered::read(&String::from_utf8_lossy(&page));
        if !head.close {
            self.wire = Some(wire);
        }
        Ok(offered)
    }
}
