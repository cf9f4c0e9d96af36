//! How the run goes, once a second on standard error.
//!
//! On a terminal it is a bar that redraws itself; elsewhere it is one plain line a second. Never on standard
//! output.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressStyle};

use crate::base::note::note;
use crate::base::schedule::Clock;
use crate::result::report::microseconds_text;
use crate::result::tally::Tally;

const EVERY_NS: u64 = 1_000_000_000;
/// The state of the run is wrapped under the bar, so that a narrow terminal does not cut the errors off.
const TEMPLATE: &str = "{elapsed_precise} [{bar:30}] {pos} of {len} open\n{wide_msg}";

/// State of the line.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    last_ns: u64,
    last_opened: u64,
    last_messages: u64,
}

impl Progress {
    /// The first line comes after a second. `wanted` is the number of connections to open.
    pub(crate) fn new(clock: Clock, wanted: u64) -> Self {
        Self {
            bar: std::io::stderr().is_terminal().then(|| styled(ProgressBar::new(wanted))),
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
        match &self.bar {
            Some(bar) => {
                bar.set_position(tally.counts.opened.saturating_sub(tally.counts.lost));
                bar.set_message(line);
            }
            None => note(&line),
        }
    }

    /// Leaves what the terminal shows as it is.
    pub(crate) fn finish(&mut self) {
        if let Some(bar) = self.bar.take().filter(|bar| !bar.message().is_empty()) {
            bar.abandon();
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

fn styled(bar: ProgressBar) -> ProgressBar {
    match ProgressStyle::with_template(TEMPLATE) {
        Ok(style) => bar.with_style(style.progress_chars("=> ")),
        Err(_) => bar,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::trouble::Trouble;

    #[test]
    fn the_line_names_rates_and_troubles() {
        let progress = Progress::new(Clock::start(), 100);
        let mut tally = Tally::new();
        tally.counts.opened = 100;
        tally.counts.lost = 1;
        tally.counts.troubles.insert(Trouble::LostEof, 1);
        tally.connect.saturating_record(2_000_000);
        let line = progress.line(2.0, &tally);
        assert!(line.starts_with("open 99  +50/s  connect p99 2"), "{line}");
        assert!(line.ends_with("lost_eof=1"), "{line}");
    }

    #[test]
    fn a_terminal_gets_a_bar_with_the_same_line() {
        assert!(ProgressStyle::with_template(TEMPLATE).is_ok());
        let bar = styled(ProgressBar::hidden());
        bar.set_length(100);
        let clock = Clock::start();
        let mut progress = Progress { bar: Some(bar.clone()), ..Progress::new(clock, 100) };
        let mut tally = Tally::new();
        tally.counts.opened = 40;
        tally.counts.lost = 1;
        progress.show(clock.now_ns() + EVERY_NS, &tally);
        assert_eq!((bar.position(), bar.length()), (39, Some(100)));
        assert!(bar.message().starts_with("open 39  +40/s"), "{}", bar.message());
        progress.finish();
        assert!(bar.is_finished());
    }
}
