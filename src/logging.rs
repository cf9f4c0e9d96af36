//! Logging that never makes an event loop wait: lines go through a bounded queue to one thread that writes
//! them to standard error.
//!
//! Whoever logs formats its own line and offers it; a full queue drops the line and counts it, and the
//! thread reports the count when it gets through. `cli` starts it before anything else runs. The thread
//! inherits the caller's signal mask, so signals are blocked first where main alone shall take them.

use std::io::{self, BufWriter, IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::fmt::{self, MakeWriter};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::{Registry, reload};

use crate::config::{LogFormat, LogLevel};

/// Lines that may wait for the thread.
const QUEUE_LINES: usize = 1024;

/// Longest line; what is beyond is cut, so that the queue is bounded in bytes too.
const LINE_BYTES_MAX: usize = 8 << 10;

/// How long the guard waits for a standard error that nobody reads.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// Flushes what was logged when it is dropped; `main` holds it to its end.
#[derive(Debug)]
pub struct LogGuard {
    queue: SyncSender<Entry>,
    done: Receiver<()>,
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

/// Starts the logging thread and makes it the process's logger.
///
/// # Errors
/// When the thread cannot be started or the process already has a logger.
pub fn start(level: LogLevel, format: LogFormat) -> io::Result<(LogGuard, LevelSwitch)> {
    let stderr = io::stderr();
    // https://no-color.org: set and not empty means no colour.
    let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let ansi = stderr.is_terminal() && !plain;
    let (queue, guard) = spawn(stderr, QUEUE_LINES)?;
    let (dispatch, switch) = dispatch(queue, level, format, ansi);
    tracing::dispatcher::set_global_default(dispatch).map_err(io::Error::other)?;
    Ok((guard, switch))
}

enum Entry {
    Line(Vec<u8>),
    Stop,
}

/// The offering side, shared by all threads that log.
#[derive(Clone)]
struct LogQueue {
    queue: SyncSender<Entry>,
    dropped: Arc<AtomicU64>,
}

impl Write for LogQueue {
    /// Takes one formatted event, always whole: what could not be taken was dropped and counted.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut kept = line.get(..LINE_BYTES_MAX).unwrap_or(line).to_vec();
        if kept.len() < line.len() {
            kept.extend_from_slice("…\n".as_bytes());
        }
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) =
            self.queue.try_send(Entry::Line(kept))
        {
            self.dropped.fetch_add(1, Relaxed);
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

impl Drop for LogGuard {
    fn drop(&mut self) {
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

fn spawn(out: impl Write + Send + 'static, lines: usize) -> io::Result<(LogQueue, LogGuard)> {
    let (queue, entries) = sync_channel(lines);
    let (end, done) = sync_channel::<()>(0);
    let dropped = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&dropped);
    thread::Builder::new().name("logging".to_owned()).spawn(move || {
        write_lines(&entries, out, &counted);
        drop(end);
    })?;
    Ok((LogQueue { queue: queue.clone(), dropped }, LogGuard { queue, done }))
}

/// Writes until told to stop. Errors of the output are ignored: there is nowhere to report them.
fn write_lines(entries: &Receiver<Entry>, out: impl Write, dropped: &AtomicU64) {
    let mut out = BufWriter::new(out);
    while let Ok(first) = entries.recv() {
        // Whatever waits goes out in as few writes as possible.
        let mut stop = false;
        for entry in std::iter::once(first).chain(entries.try_iter().take(QUEUE_LINES)) {
            match entry {
                Entry::Line(line) => drop(out.write_all(&line)),
                Entry::Stop => stop = true,
            }
        }
        let lost = dropped.swap(0, Relaxed);
        if lost > 0 {
            let _ = writeln!(out, "{lost} log lines dropped: the log queue was full");
        }
        let _ = out.flush();
        if stop {
            return;
        }
    }
}

fn dispatch(
    queue: LogQueue,
    level: LogLevel,
    format: LogFormat,
    ansi: bool,
) -> (tracing::Dispatch, LevelSwitch) {
    // An event above the level costs one comparison: a change of the level rebuilds what each place knows.
    let (level, handle) = reload::Layer::new(filter(level));
    let lines = fmt::layer().with_writer(queue).with_target(false);
    let lines = match format {
        LogFormat::Text => lines.with_ansi(ansi).boxed(),
        LogFormat::Json => {
            let json = lines.with_ansi(false).json().flatten_event(true);
            json.with_current_span(false).with_span_list(false).boxed()
        }
    };
    (Registry::default().with(level).with(lines).into(), LevelSwitch(handle))
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
        let (queue, guard) = spawn(gate.clone(), 64).unwrap();
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
        let (queue, guard) = spawn(gate.clone(), 64).unwrap();
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
        let (mut queue, guard) = spawn(gate.clone(), 4).unwrap();
        // The thread takes some before it meets the shut gate; then the queue fills and the rest is dropped.
        let deadline = Instant::now() + Duration::from_secs(10);
        let mut offered = 0u64;
        while queue.dropped.load(Relaxed) < 3 && Instant::now() < deadline {
            // Larger than the thread's buffer, so that the gate is met.
            queue.write_all(&[b'x'; LINE_BYTES_MAX]).unwrap();
            offered += 1;
        }
        assert!(offered > 4);
        gate.shut(false);
        drop(guard);
        assert!(gate.text().contains(" log lines dropped: the log queue was full"));
    }

    #[test]
    fn long_lines_are_cut() {
        let text = logged(LogLevel::Info, LogFormat::Text, || tracing::info!("{}", "y".repeat(100_000)));
        assert!(text.len() < LINE_BYTES_MAX + 10 && text.ends_with("…\n"), "{}", text.len());
    }
}
