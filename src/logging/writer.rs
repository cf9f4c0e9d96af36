//! The logging thread: takes lines off the queue, writes as many as it can at once, and tells what was lost or
//! held back. The only code that waits for standard error.

use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};

use super::rate::Rate;
use crate::config::LogFormat;
use crate::metrics::logs;

/// Bytes gathered for one write.
const BATCH_BYTES: usize = 64 << 10;

/// How often it is told what was held back.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// What travels to the thread.
#[derive(Debug)]
pub(super) enum Entry {
    /// One line, with its end.
    Line(Vec<u8>),
    /// The first line of a kind was held back: look again in a second, whatever comes.
    Owing,
    /// Answer when everything before is written.
    Flush(SyncSender<()>),
    /// End, when everything before is written.
    Stop,
}

/// What whoever logs shares with the thread.
#[derive(Debug)]
pub(super) struct Shared {
    /// Lines lost and not told yet.
    pub(super) lost: AtomicU64,
    /// What is held back.
    pub(super) rate: Rate,
}

impl Shared {
    /// Counts lines that nobody will read.
    pub(super) fn lost(&self, lines: u64) {
        self.lost.fetch_add(lines, Relaxed);
        logs::dropped(lines);
    }
}

/// Writes until told to stop.
pub(super) fn run(entries: &Receiver<Entry>, out: impl Write, shared: &Shared, format: LogFormat) {
    let mut output = Output { out, shared, format, batch: Vec::new(), lines: 0, told: Instant::now() };
    loop {
        // Without a count to tell it sleeps until something comes: an idle server makes no wake-ups.
        let next = if shared.rate.is_owing() {
            entries.recv_timeout(TELL_EVERY)
        } else {
            entries.recv().map_err(|_| RecvTimeoutError::Disconnected)
        };
        let mut stop = matches!(next, Err(RecvTimeoutError::Disconnected));
        // Whatever waits goes out in as few writes as possible.
        for entry in next.ok().into_iter().chain(entries.try_iter().take(super::QUEUE_LINES)) {
            match entry {
                Entry::Line(line) => output.line(&line),
                Entry::Owing => {}
                Entry::Flush(done) => {
                    output.flush();
                    // Whoever asked may have given up.
                    let _ = done.try_send(());
                }
                Entry::Stop => stop = true,
            }
        }
        output.tell(stop);
        output.flush();
        if stop {
            return;
        }
    }
}

struct Output<'a, W> {
    out: W,
    shared: &'a Shared,
    format: LogFormat,
    batch: Vec<u8>,
    lines: u64,
    told: Instant,
}

impl<W: Write> Output<'_, W> {
    fn line(&mut self, line: &[u8]) {
        self.batch.extend_from_slice(line);
        self.lines += 1;
        if self.batch.len() >= BATCH_BYTES {
            self.flush();
        }
    }

    /// What could not be written is gone: there is nowhere else to put it, and keeping it would only lose
    /// what comes later.
    fn flush(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        if self.out.write_all(&self.batch).and_then(|()| self.out.flush()).is_err() {
            self.shared.lost(self.lines);
        }
        self.batch.clear();
        self.lines = 0;
    }

    /// Tells what was lost, and once a second what was held back.
    fn tell(&mut self, at_once: bool) {
        let lost = self.shared.lost.swap(0, Relaxed);
        if lost > 0 {
            self.notice("log lines were lost: standard error was not read or took nothing", lost, None);
        }
        if at_once || self.told.elapsed() >= TELL_EVERY {
            self.told = Instant::now();
            let mut held = Vec::new();
            self.shared.rate.take(|of, count| held.push((of, count)));
            for (of, count) in held {
                let place = format!("{}:{}", of.target(), of.line().unwrap_or(0));
                self.notice("suppressed log lines of one kind", count, Some(&place));
            }
        }
    }

    /// A line of the thread itself, in the shape of all others.
    fn notice(&mut self, message: &str, lines: u64, place: Option<&str>) {
        let mut time = String::new();
        // A clock before 1970 leaves the time out.
        let _ = SystemTime.format_time(&mut Writer::new(&mut time));
        let line = match (self.format, place) {
            (LogFormat::Text, None) => format!("{time}  WARN {message} lines={lines}\n"),
            (LogFormat::Text, Some(place)) => format!("{time}  WARN {message} lines={lines} place={place}\n"),
            (LogFormat::Json, None) => {
                let fields = format!("\"message\":\"{message}\",\"lines\":{lines}");
                format!("{{\"timestamp\":\"{time}\",\"level\":\"WARN\",{fields}}}\n")
            }
            (LogFormat::Json, Some(place)) => {
                // Places are paths of modules and a number: nothing in them needs escaping.
                let fields = format!("\"message\":\"{message}\",\"lines\":{lines},\"place\":\"{place}\"");
                format!("{{\"timestamp\":\"{time}\",\"level\":\"WARN\",{fields}}}\n")
            }
        };
        self.line(line.as_bytes());
    }
}
