//! Logging that never makes an event loop wait: lines go through a bounded queue to one thread that writes
//! them to standard error.
//!
//! Whoever logs formats its own line and offers it; a full queue drops the line and counts it, and the
//! thread tells the count when it gets through. What one place in the code says too often is counted
//! instead of written, and told once a second. A standard error that takes nothing, be it a full pipe, a full
//! disk or closed, costs lines and nothing else. `cli` starts it before anything else runs. The thread
//! inherits the caller's signal mask, so signals are blocked first where main alone shall take them.

mod cut;
mod rate;
mod writer;

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{self, IsTerminal, Write};
use std::panic::PanicHookInfo;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::fmt::{self, MakeWriter};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::{Registry, reload};

use crate::config::{LogFormat, LogLevel};
use crate::metrics::logs;

use cut::cut;
use rate::{Rate, Verdict};
use writer::{Entry, Shared};

/// Lines that may wait for the thread.
const QUEUE_LINES: usize = 1024;

/// Longest line; a longer one is cut and marked, so that the queue is bounded in bytes too.
const LINE_BYTES_MAX: usize = 8 << 10;

/// How long the guard waits for a standard error that nobody reads.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a thread that panics waits for its last words to be written.
const PANIC_TIMEOUT: Duration = Duration::from_secs(1);

/// Flushes what was logged when it is finished or dropped; `main` holds it to its end.
#[derive(Debug)]
pub struct LogGuard {
    queue: SyncSender<Entry>,
    done: Receiver<()>,
    stopped: bool,
}

/// Changes the level of the running log.
#[derive(Debug, Clone)]
pub struct LevelSwitch(reload::Handle<LevelFilter, Registry>);

impl LevelSwitch {
    /// From now on this level.
    pub fn set(&self, level: LogLevel) {
        // It fails only when the logger is gone, and then there is nothing to set.
        let _ = self.0.reload(filter(level));
    }
}

/// Starts the logging thread and makes it the process's logger, for panics too. `lines_per_second` is for each
/// place in the code, 0 for no limit.
///
/// # Errors
/// When the thread cannot be started or the process already has a logger.
pub fn start(
    level: LogLevel,
    format: LogFormat,
    lines_per_second: usize,
) -> io::Result<(LogGuard, LevelSwitch)> {
    let stderr = io::stderr();
    // https://no-color.org: set and not empty means no colour.
    let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let ansi = stderr.is_terminal() && !plain;
    let (queue, guard) = spawn(stderr, QUEUE_LINES, format, lines_per_second as u64)?;
    let sender = queue.queue.clone();
    let (dispatch, switch) = dispatch(queue, level, format, ansi);
    tracing::dispatcher::set_global_default(dispatch).map_err(io::Error::other)?;
    std::panic::set_hook(Box::new(move |info| on_panic(info, &sender)));
    Ok((guard, switch))
}

/// The offering side, shared by all threads that log.
#[derive(Clone)]
struct LogQueue {
    queue: SyncSender<Entry>,
    shared: Arc<Shared>,
    format: LogFormat,
}

impl Write for LogQueue {
    /// Takes one formatted event, always whole: what could not be taken was dropped and counted.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let kept = cut(line, self.format, LINE_BYTES_MAX);
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) =
            self.queue.try_send(Entry::Line(kept))
        {
            self.shared.lost(1);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for LogQueue {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// Holds back what one place in the code says too often, before it is formatted.
impl<S: tracing::Subscriber> Layer<S> for LogQueue {
    fn event_enabled(&self, event: &tracing::Event<'_>, _: Context<'_, S>) -> bool {
        match self.shared.rate.admit(event.metadata()) {
            Verdict::Written => true,
            Verdict::Suppressed { first } => {
                logs::suppressed();
                if first {
                    // The thread may be waiting with nothing to tell. Where the queue is full it is not.
                    let _ = self.queue.try_send(Entry::Owing);
                }
                false
            }
        }
    }
}

impl LogGuard {
    /// Says why the process ends, as plain lines, and waits up to two seconds for everything to be written.
    /// Whoever wrote to standard error directly would wait for ever where that is a full pipe.
    pub fn finish(mut self, message: &str) {
        for line in message.lines() {
            // A full queue at the end of the process has nobody reading it.
            let _ = self.queue.try_send(Entry::Line(format!("fantail: {line}\n").into_bytes()));
        }
        self.stop();
    }

    fn stop(&mut self) {
        self.stopped = true;
        let deadline = Instant::now() + FLUSH_TIMEOUT;
        let mut entry = Entry::Stop;
        // A blocking send would hang for ever where standard error is a full pipe.
        while let Err(TrySendError::Full(back)) = self.queue.try_send(entry) {
            if Instant::now() >= deadline {
                return;
            }
            entry = back;
            thread::sleep(Duration::from_millis(1));
        }
        let left = deadline.saturating_duration_since(Instant::now());
        // The thread sends nothing; its end disconnects.
        let ended: Result<(), RecvTimeoutError> = self.done.recv_timeout(left);
        let _ = ended;
    }
}

impl Drop for LogGuard {
    fn drop(&mut self) {
        if !self.stopped {
            self.stop();
        }
    }
}

/// The standard hook writes to standard error in place, and would wait for ever where that is a full pipe:
/// a loop that panics must get on to abort the process.
fn on_panic(info: &PanicHookInfo<'_>, queue: &SyncSender<Entry>) {
    let location = info.location().map(ToString::to_string).unwrap_or_default();
    let payload = info.payload();
    let text = payload.downcast_ref::<&str>().copied();
    let payload =
        text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("(no text)");
    let thread = thread::current();
    let thread = thread.name().unwrap_or("(no name)");
    let trace = Backtrace::capture();
    if trace.status() == BacktraceStatus::Captured {
        tracing::error!(thread, location, "panicked: {payload}\n{trace}");
    } else {
        tracing::error!(thread, location, "panicked: {payload}");
    }
    let (written, done) = sync_channel(1);
    if queue.try_send(Entry::Flush(written)).is_ok() {
        let _ = done.recv_timeout(PANIC_TIMEOUT);
    }
}

fn spawn(
    out: impl Write + Send + 'static,
    lines: usize,
    format: LogFormat,
    lines_per_second: u64,
) -> io::Result<(LogQueue, LogGuard)> {
    let (queue, entries) = sync_channel(lines);
    let (end, done) = sync_channel::<()>(0);
    let shared = Arc::new(Shared { lost: AtomicU64::new(0), rate: Rate::new(lines_per_second) });
    let of_thread = Arc::clone(&shared);
    thread::Builder::new().name("logging".to_owned()).spawn(move || {
        writer::run(&entries, out, &of_thread, format);
        drop(end);
    })?;
    Ok((LogQueue { queue: queue.clone(), shared, format }, LogGuard { queue, done, stopped: false }))
}

fn dispatch(
    queue: LogQueue,
    level: LogLevel,
    format: LogFormat,
    ansi: bool,
) -> (tracing::Dispatch, LevelSwitch) {
    // An event above the level costs one comparison: a change of the level rebuilds what each place knows.
    let (level, handle) = reload::Layer::new(filter(level));
    let limit = queue.clone();
    let lines = fmt::layer().with_writer(queue).with_target(false);
    let lines = match format {
        LogFormat::Text => lines.with_ansi(ansi).boxed(),
        LogFormat::Json => {
            let json = lines.with_ansi(false).json().flatten_event(true);
            json.with_current_span(false).with_span_list(false).boxed()
        }
    };
    (Registry::default().with(level).with(lines).with(limit).into(), LevelSwitch(handle))
}

fn filter(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering::Relaxed;
    use std::sync::{Condvar, Mutex};

    #[derive(Default)]
    struct Held {
        shut: bool,
        written: Vec<u8>,
    }

    /// An output that can be held shut.
    #[derive(Clone, Default)]
    struct Gate(Arc<(Mutex<Held>, Condvar)>);

    impl Gate {
        fn shut(&self, shut: bool) {
            self.0.0.lock().unwrap().shut = shut;
            self.0.1.notify_all();
        }

        fn text(&self) -> String {
            String::from_utf8(self.0.0.lock().unwrap().written.clone()).unwrap()
        }
    }

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let held = self.0.0.lock().unwrap();
            let mut open = self.0.1.wait_while(held, |held| held.shut).unwrap();
            open.written.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(level: LogLevel, format: LogFormat, events: impl FnOnce()) -> String {
        let gate = Gate::default();
        let (queue, guard) = spawn(gate.clone(), 64, format, 0).unwrap();
        tracing::dispatcher::with_default(&dispatch(queue, level, format, false).0, events);
        drop(guard);
        gate.text()
    }

    #[test]
    fn the_guard_flushes_every_line() {
        let text = logged(LogLevel::Info, LogFormat::Text, || {
            for number in 0..50 {
                tracing::info!(number, "counted");
            }
            tracing::debug!("hidden");
        });
        assert_eq!(text.lines().count(), 50, "{text}");
        assert!(text.contains("INFO counted number=49") && !text.contains("hidden"), "{text}");
        assert!(!text.contains('\u{1b}'), "no escape codes where there is no terminal");
    }

    #[test]
    fn the_level_changes_while_running() {
        let gate = Gate::default();
        let (queue, guard) = spawn(gate.clone(), 64, LogFormat::Text, 0).unwrap();
        let (dispatch, switch) = dispatch(queue, LogLevel::Warn, LogFormat::Text, false);
        tracing::dispatcher::with_default(&dispatch, || {
            for (level, number) in [(LogLevel::Debug, 1), (LogLevel::Error, 2), (LogLevel::Info, 3)] {
                tracing::debug!(number, "debug");
                tracing::info!(number, "info");
                switch.set(level);
            }
        });
        drop(guard);
        let text = gate.text();
        assert!(text.contains("debug number=2") && text.contains("info number=2"), "{text}");
        assert_eq!(text.lines().count(), 2, "{text}");
    }

    #[test]
    fn json_is_one_object_a_line() {
        let text = logged(LogLevel::Debug, LogFormat::Json, || tracing::debug!(reason = "a\"b\n", "closed"));
        let value: serde_json::Value = serde_json::from_str(text.trim()).unwrap();
        assert_eq!((value["message"].as_str(), value["level"].as_str()), (Some("closed"), Some("DEBUG")));
        assert_eq!(value["reason"], "a\"b\n");
    }

    #[test]
    fn a_full_queue_drops_counts_and_reports() {
        let gate = Gate::default();
        gate.shut(true);
        let (mut queue, guard) = spawn(gate.clone(), 4, LogFormat::Text, 0).unwrap();
        // The thread takes some before it meets the shut gate; then the queue fills and the rest is dropped.
        let deadline = Instant::now() + Duration::from_secs(60);
        let mut offered = 0u64;
        while queue.shared.lost.load(Relaxed) < 3 && Instant::now() < deadline {
            // Larger than the thread's buffer, so that the gate is met.
            queue.write_all(&[b'x'; LINE_BYTES_MAX]).unwrap();
            offered += 1;
        }
        assert!(offered > 4);
        gate.shut(false);
        drop(guard);
        assert!(gate.text().contains(" WARN log lines were lost: "), "{}", gate.text());
    }

    #[test]
    fn long_lines_are_cut() {
        let text = logged(LogLevel::Info, LogFormat::Text, || tracing::info!("{}", "y".repeat(100_000)));
        assert!(text.len() <= LINE_BYTES_MAX && text.ends_with("y…\n"), "{}", text.len());
        let text = logged(LogLevel::Info, LogFormat::Json, || {
            tracing::info!(path = "\"\u{1}".repeat(50_000), reason = "kept", "{}", "é".repeat(50_000));
        });
        assert!(text.len() <= LINE_BYTES_MAX && text.len() > LINE_BYTES_MAX - 20, "{}", text.len());
        let value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!((&value["reason"], &value["level"]), (&"kept".into(), &"INFO".into()));
        for field in ["path", "message"] {
            assert!(
                value[field].as_str().is_some_and(|text| text.len() > 500 && text.ends_with('…')),
                "{field}"
            );
        }
    }

    #[test]
    fn what_comes_too_often_is_counted_and_told() {
        for format in [LogFormat::Text, LogFormat::Json] {
            let gate = Gate::default();
            let (queue, guard) = spawn(gate.clone(), 64, format, 5).unwrap();
            let began = Instant::now();
            tracing::dispatcher::with_default(&dispatch(queue, LogLevel::Info, format, false).0, || {
                for _ in 0..1_000 {
                    tracing::info!("the same");
                }
                tracing::info!("another");
            });
            // Those that had begun while they came.
            let seconds = began.elapsed().as_secs() as usize + 2;
            let text = || gate.text();
            // Without a further line: the thread comes back by itself.
            let deadline = Instant::now() + Duration::from_secs(60);
            while !text().contains("suppressed log lines") {
                assert!(Instant::now() < deadline, "never told: {}", text());
                thread::park_timeout(Duration::from_millis(5));
            }
            drop(guard);
            let same = text().matches("the same").count();
            assert!((5..=5 * seconds).contains(&same), "{same} in {seconds} seconds");
            assert_eq!(text().matches("another").count(), 1);
            let told: usize = text().lines().filter_map(|line| suppressed(line, format)).sum();
            assert_eq!(same + told, 1_000, "{}", text());
        }
    }

    fn suppressed(line: &str, format: LogFormat) -> Option<usize> {
        if !line.contains("suppressed log lines") {
            return None;
        }
        assert!(line.contains("logging::tests:"), "{line}");
        match format {
            LogFormat::Text => line.split("lines=").nth(1)?.split(' ').next()?.parse().ok(),
            LogFormat::Json => {
                let value: serde_json::Value = serde_json::from_str(line).expect("JSON");
                value["lines"].as_u64().map(|lines| lines as usize)
            }
        }
    }

    #[test]
    fn an_output_that_fails_loses_lines_and_nothing_else() {
        struct Full(Gate, usize);
        impl Write for Full {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                if self.1 > 0 {
                    self.1 -= 1;
                    return Err(io::ErrorKind::StorageFull.into());
                }
                self.0.write(bytes)
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let gate = Gate::default();
        let (mut queue, guard) = spawn(Full(gate.clone(), 1), 64, LogFormat::Text, 0).unwrap();
        queue.write_all(b"lost\n").unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        while queue.shared.lost.load(Relaxed) == 0 {
            assert!(Instant::now() < deadline, "the failure was not seen");
            thread::park_timeout(Duration::from_millis(1));
        }
        queue.write_all(b"kept\n").unwrap();
        guard.finish("bye\nbye");
        let text = gate.text();
        assert!(text.starts_with("kept\n") && text.contains(" lines=1\n"), "{text}");
        assert!(text.contains("\nfantail: bye\nfantail: bye\n"), "{text}");
    }

    #[test]
    fn an_output_that_hangs_is_waited_for_two_seconds() {
        let gate = Gate::default();
        gate.shut(true);
        let (mut queue, guard) = spawn(gate.clone(), 4, LogFormat::Text, 0).unwrap();
        queue.write_all(b"never\n").unwrap();
        let started = Instant::now();
        guard.finish("never either");
        assert!(started.elapsed() >= FLUSH_TIMEOUT && gate.text().is_empty());
        gate.shut(false);
    }

    /// The test program again, with this test alone: the hook and the logger are the process's.
    #[test]
    fn a_panic_is_a_line_of_the_log() {
        const NAME: &str = "logging::tests::a_panic_is_a_line_of_the_log";
        if std::env::var("FANTAIL_TEST_ALONE").is_ok_and(|running| running == NAME) {
            let guard = start(LogLevel::Error, LogFormat::Json, 0).unwrap();
            let ended = thread::Builder::new().name("loop-7".into()).spawn(|| panic!("on purpose")).unwrap();
            assert!(ended.join().is_err());
            return drop(guard);
        }
        let mut command = std::process::Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", NAME, "--nocapture"]).env("FANTAIL_TEST_ALONE", NAME);
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        let line = said.lines().find(|line| line.starts_with('{')).unwrap_or_else(|| panic!("{said}"));
        let value: serde_json::Value = serde_json::from_str(line).expect("JSON");
        assert_eq!((&value["thread"], &value["level"]), (&"loop-7".into(), &"ERROR".into()));
        let message = value["message"].as_str().unwrap_or_default();
        assert!(message.starts_with("panicked: on purpose"), "{message}");
        assert!(value["location"].as_str().unwrap_or_default().contains("logging.rs:"), "{line}");
    }
}
