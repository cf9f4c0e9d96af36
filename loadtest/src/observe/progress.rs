//! How the run goes, once a second on standard error: a screen where somebody sits at a terminal, elsewhere a plain line.
//! Never on standard output.

use std::collections::VecDeque;
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::base::note::note;
use crate::base::schedule::Clock;
use crate::observe::screen::picture::Snapshot;
use crate::observe::screen::{self, Screen};
use crate::result::report::{carried, microseconds_text};
use crate::result::tally::Tally;

const EVERY_NS: u64 = 1_000_000_000;
/// Seconds that the percentiles of the screen are of.
const LAST_SECONDS: usize = 5;
/// Seconds that the screen has a bar for.
const BARS_MAX: usize = 300;

/// State of the line or the screen.
#[derive(Debug)]
pub(crate) struct Progress {
    screen: Option<Screen>,
    silent: bool,
    url: String,
    wanted: u64,
    last_ns: u64,
    last_opened: u64,
    last_messages: u64,
    last_sent: u64,
    last_due: f64,
    /// Latencies as they were in the last seconds, the oldest first.
    before: VecDeque<Histogram<u64>>,
    by_second: VecDeque<Option<f64>>,
}

/// What the plan of a run says of now.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Outlook {
    /// Deliveries that are due by now; `None` without a plan.
    pub(crate) due: Option<f64>,
    /// Whether connections send themselves.
    pub(crate) sends: bool,
    /// Time until the load or the hold ends.
    pub(crate) left: Option<Duration>,
}

impl Progress {
    /// The first line comes after a second. `wanted` is the number of connections to open. A run whose frames are shown
    /// has no screen.
    pub(crate) fn new(clock: Clock, wanted: u64, url: String, traced: bool) -> Self {
        let wants = !traced && screen::is_wanted();
        let screen = if wants { Screen::start() } else { None };
        Self {
            // A bystander's run goes on behind the screen of the other.
            silent: wants && screen.is_none(),
            screen,
            url,
            wanted,
            last_ns: clock.now_ns(),
            last_opened: 0,
            last_messages: 0,
            last_sent: 0,
            last_due: 0.0,
            before: VecDeque::new(),
            by_second: VecDeque::new(),
        }
    }

    /// Whether a second has passed since the last line.
    pub(crate) fn is_due(&self, now_ns: u64) -> bool {
        now_ns.saturating_sub(self.last_ns) >= EVERY_NS
    }

    /// Shows the state of the run.
    pub(crate) fn show(&mut self, now_ns: u64, tally: &Tally, outlook: Outlook) {
        let seconds = now_ns.saturating_sub(self.last_ns) as f64 / 1e9;
        match &self.screen {
            Some(_) => {
                let snapshot = self.snapshot(seconds, tally, outlook);
                if let Some(screen) = &self.screen {
                    screen.show(snapshot);
                }
            }
            None if self.silent => {}
            None => note(&self.line(seconds, tally)),
        }
        self.last_ns = now_ns;
        self.last_opened = tally.counts.opened;
        self.last_messages = tally.counts.unique;
        self.last_sent = tally.counts.sent;
        self.last_due = outlook.due.unwrap_or(0.0);
    }

    /// Gives the terminal back.
    pub(crate) fn finish(&mut self) {
        self.screen = None;
    }

    fn snapshot(&mut self, seconds: f64, tally: &Tally, outlook: Outlook) -> Snapshot {
        let counts = &tally.counts;
        let per_second = |now: f64, last: f64| (now - last).max(0.0) / seconds.max(1e-3);
        let (latency_name, of) = match tally.latency.is_empty() {
            true => ("connects", &tally.connect),
            false => ("last seconds", &tally.latency),
        };
        let since = |before: Option<&Histogram<u64>>| {
            let mut grown = of.clone();
            // One of connects says nothing of messages.
            match before {
                Some(before) if grown.subtract(before).is_ok() => grown,
                _ => of.clone(),
            }
        };
        let second = since(self.before.back());
        let longest = |of: &Histogram<u64>| (!of.is_empty()).then(|| of.max() as f64 / 1e3);
        if self.by_second.len() >= BARS_MAX {
            self.by_second.pop_front();
        }
        self.by_second.push_back(longest(&second).filter(|_| !tally.latency.is_empty()));
        let last = since(self.before.front());
        self.before.push_back(of.clone());
        if self.before.len() > LAST_SECONDS {
            self.before.pop_front();
        }
        Snapshot {
            url: self.url.clone(),
            wanted: self.wanted,
            open: counts.open(),
            opened_per_second: per_second(counts.opened as f64, self.last_opened as f64),
            failed: counts.failed,
            lost: counts.lost,
            asked_per_second: outlook.due.map(|due| per_second(due, self.last_due)),
            sent_per_second: outlook.sends.then(|| per_second(counts.sent as f64, self.last_sent as f64)),
            received_per_second: per_second(counts.unique as f64, self.last_messages as f64),
            outstanding: outlook.due.map(|due| (due - counts.unique as f64).max(0.0) as u64),
            late_sends: counts.late_sends,
            latency_name,
            latency_count: last.len(),
            percentiles: [0.5, 0.9, 0.99].map(|quantile| carried(&last, quantile)),
            longest: longest(&last),
            by_second: self.by_second.iter().copied().collect(),
            errors: counts.troubles.iter().map(|(trouble, count)| (trouble.name(), *count)).collect(),
            left: outlook.left,
        }
    }

    fn line(&self, seconds: f64, tally: &Tally) -> String {
        let counts = &tally.counts;
        let per_second = |now: u64, last: u64| ((now - last.min(now)) as f64 / seconds).round();
        let mut line = format!("open {}", counts.open());
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
    use crate::base::trouble::Trouble;

    fn progress() -> Progress {
        Progress { screen: None, ..Progress::new(Clock::start(), 100, "ws://h/".into(), true) }
    }

    #[test]
    fn the_line_names_rates_and_troubles() {
        let mut tally = Tally::new();
        tally.counts.opened = 100;
        tally.counts.lost = 1;
        tally.counts.troubles.insert(Trouble::LostEof, 1);
        tally.connect.saturating_record(2_000_000);
        let line = progress().line(2.0, &tally);
        assert!(line.starts_with("open 99  +50/s  connect p99 2"), "{line}");
        assert!(line.ends_with("lost_eof=1"), "{line}");
    }

    #[test]
    fn the_screen_is_told_of_the_last_seconds_and_not_of_the_whole_run() {
        let mut progress = progress();
        let mut tally = Tally::new();
        let outlook = |due: f64| Outlook { due: Some(due), sends: true, left: None };
        for second in 1..=10_u64 {
            let took_ns = if second == 2 { 2_000_000_000 } else { 1_000_000 };
            tally.latency.saturating_record_n(took_ns, 100);
            (tally.counts.sent, tally.counts.unique) = (second * 100, second * 100 - 3);
            let now_ns = progress.last_ns + EVERY_NS;
            let snapshot = progress.snapshot(1.0, &tally, outlook(second as f64 * 100.0));
            progress.show(now_ns, &tally, outlook(second as f64 * 100.0));
            assert_eq!((snapshot.asked_per_second, snapshot.sent_per_second), (Some(100.0), Some(100.0)));
            assert_eq!(snapshot.outstanding, Some(3));
            if second == 10 {
                assert_eq!(snapshot.latency_count, 500);
                assert!(snapshot.longest.unwrap() < 1_100.0, "the second that was slow is long past");
                assert!(snapshot.by_second[1].unwrap() > 1.9e6 && snapshot.by_second.len() == 10);
            }
        }
    }
}
