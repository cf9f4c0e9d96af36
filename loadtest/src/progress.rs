//! The line on standard error that says once a second how the run goes.
//!
//! On a terminal it rewrites itself; elsewhere it is one plain line a second. Never on standard output.

use std::io::{IsTerminal, Write};

use crate::report::microseconds_text;
use crate::schedule::Clock;
use crate::tally::Tally;

const EVERY_NS: u64 = 1_000_000_000;

/// State of the line.
#[derive(Debug)]
pub(crate) struct Progress {
    terminal: bool,
    shown: bool,
    last_ns: u64,
    last_opened: u64,
    last_messages: u64,
}

impl Progress {
    /// The first line comes after a second.
    pub(crate) fn new(clock: Clock) -> Self {
        Self {
            terminal: std::io::stderr().is_terminal(),
            shown: false,
            last_ns: clock.now_ns(),
            last_opened: 0,
            last_messages: 0,
        }
    }

    /// Whether a second has passed since the last line.
    pub(crate) fn is_due(&self, now_ns: u64) -> bool {
        now_ns.saturating_sub(self.last_ns) >= EVERY_NS
    }

    /// Shows the state of the run.
    pub(crate) fn show(&mut self, now_ns: u64, tally: &Tally) {
        let seconds = now_ns.saturating_sub(self.last_ns) as f64 / 1e9;
        let line = self.line(seconds, tally);
        self.last_ns = now_ns;
        self.last_opened = tally.counts.opened;
        self.last_messages = tally.counts.unique;
        self.shown = true;
        let (start, end) = if self.terminal { ("\r\x1b[2K", "") } else { ("", "\n") };
        let mut out = std::io::stderr().lock();
        // Nobody listens on a closed standard error, and the run goes on without.
        let _ = write!(out, "{start}{line}{end}").and_then(|()| out.flush());
    }

    /// Leaves the terminal's line.
    pub(crate) fn finish(&mut self) {
        if self.terminal && std::mem::take(&mut self.shown) {
            let _ = writeln!(std::io::stderr());
        }
    }

    fn line(&self, seconds: f64, tally: &Tally) -> String {
        let counts = &tally.counts;
        let per_second = |now: u64, last: u64| ((now - last.min(now)) as f64 / seconds).round();
        let mut line = format!("open {}", counts.opened - counts.lost.min(counts.opened));
        if counts.opened != self.last_opened {
            line += &format!("  +{}/s", per_second(counts.opened, self.last_opened));
        }
        if counts.unique > 0 {
            line += &format!("  messages {}/s", per_second(counts.unique, self.last_messages));
        }
        let (name, histogram) = match tally.latency.is_empty() {
            true => ("connect p99", &tally.connect),
            false => ("p99", &tally.latency),
        };
        if !histogram.is_empty() {
            let p99 = histogram.value_at_quantile(0.99) as f64 / 1e3;
            line += &format!("  {name} {}", microseconds_text(Some(p99)));
        }
        if counts.late_sends > 0 {
            line += &format!("  late sends {}", counts.late_sends);
        }
        for (trouble, count) in &counts.troubles {
            line += &format!("  {}={count}", trouble.name());
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tally::Trouble;

    #[test]
    fn the_line_names_rates_and_troubles() {
        let progress = Progress::new(Clock::start());
        let mut tally = Tally::new();
        tally.counts.opened = 100;
        tally.counts.lost = 1;
        tally.counts.troubles.insert(Trouble::LostEof, 1);
        tally.connect.saturating_record(2_000_000);
        let line = progress.line(2.0, &tally);
        assert!(line.starts_with("open 99  +50/s  connect p99 2"), "{line}");
        assert!(line.ends_with("lost_eof=1"), "{line}");
    }
}
