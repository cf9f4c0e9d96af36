//! Whether the generator itself was the bottleneck, so that its figures are its own and not the server's.
//!
//! Each worker watches itself: how much of every tenth of a second it was awake, how long it waited for a processor
//! although it had something to do, and how often more events waited than one turn takes. The judgement is pure;
//! it never stops a run.

use std::fs::File;
use std::os::unix::fs::FileExt;

use serde::Serialize;

/// The span over which a worker's own load is measured.
const WINDOW_NS: u64 = 100_000_000;
/// A worker that was awake for this much of a window had no time left.
const BUSY_PERCENT: u64 = 90;
/// Shares from which the generator counts as the bottleneck.
const BUSY_SHARE_MAX: f64 = 0.1;
const LATE_SHARE_MAX: f64 = 0.01;
const BACKLOG_SHARE_MAX: f64 = 0.1;
const WAIT_SHARE_MAX: f64 = 0.1;
/// Turns with a backlog that may happen to anybody.
const BACKLOG_TURNS_MIN: u64 = 3;

/// What workers noticed of their own load while messages flowed (or clients came back).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Strain {
    /// Tenths of a second.
    pub(crate) windows: u64,
    /// Of these, those in which a worker had no time left.
    pub(crate) busy_windows: u64,
    /// How long workers waited for a processor.
    pub(crate) waited_ns: u64,
    /// Of how long that is known.
    pub(crate) waited_of_ns: u64,
    /// Turns in which anything happened.
    pub(crate) turns: u64,
    /// Of these, those that began with as many events as a turn takes.
    pub(crate) backlog_turns: u64,
    /// The longest turn; what came at its beginning may have waited that long.
    pub(crate) turn_max_ns: u64,
}

/// One worker's view of itself.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    /// What the kernel's scheduler says of this thread; `None` where it says nothing.
    schedule: Option<File>,
    waited_ns: Option<u64>,
    window_ns: u64,
    /// Whether a load was on when the window began: one that began before it says little about it.
    window_loaded: bool,
    awake_ns: u64,
    woke_ns: u64,
}

/// What the report says about the generator's own load.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct StrainReport {
    /// Why the generator was the bottleneck; empty if it was not.
    pub(crate) bottleneck: Vec<String>,
    /// Share of the tenths of a second under load in which a worker was awake for 90 %; null without load.
    pub(crate) busy_share: Option<f64>,
    /// Share of the load for which workers waited for a processor; null without load or where the kernel does not say.
    pub(crate) processor_wait_share: Option<f64>,
    /// Share of turns under load that began with more events than one turn takes; null without load.
    pub(crate) backlog_share: Option<f64>,
    /// The longest turn under load; null without load.
    pub(crate) turn_max_microseconds: Option<f64>,
    /// Share of sends that left more than 1 ms late although they had not to wait for an answer of the server;
    /// null if nothing was sent.
    pub(crate) late_share: Option<f64>,
}

impl Watch {
    /// A watch over the calling thread.
    pub(crate) fn start() -> Self {
        let schedule = File::open("/proc/thread-self/schedstat").ok();
        let waited_ns = schedule.as_ref().and_then(waited_ns);
        Self { schedule, waited_ns, ..Self::default() }
    }

    /// The worker woke up; `loaded` says whether a load is on.
    pub(crate) fn on_wake(&mut self, now_ns: u64, loaded: bool, strain: &mut Strain) {
        self.close_window(now_ns, loaded, strain);
        self.woke_ns = now_ns;
    }

    /// The worker's turn is over.
    pub(crate) fn on_turn_end(
        &mut self,
        now_ns: u64,
        events: usize,
        full: bool,
        loaded: bool,
        strain: &mut Strain,
    ) {
        let turn_ns = now_ns.saturating_sub(self.woke_ns);
        self.awake_ns += turn_ns;
        if loaded && events > 0 {
            strain.turns += 1;
            strain.backlog_turns += u64::from(full);
            strain.turn_max_ns = strain.turn_max_ns.max(turn_ns);
        }
        self.close_window(now_ns, loaded, strain);
    }

    fn close_window(&mut self, now_ns: u64, loaded: bool, strain: &mut Strain) {
        let passed_ns = now_ns.saturating_sub(self.window_ns);
        if passed_ns < WINDOW_NS {
            return;
        }
        let counts = loaded && self.window_loaded;
        if counts {
            let windows = passed_ns / WINDOW_NS;
            strain.windows += windows;
            if self.awake_ns * 100 >= passed_ns * BUSY_PERCENT {
                strain.busy_windows += windows;
            }
        }
        let waited_ns = self.schedule.as_ref().and_then(waited_ns);
        if let (true, Some(before_ns), Some(now_ns)) = (counts, self.waited_ns, waited_ns) {
            strain.waited_ns += now_ns.saturating_sub(before_ns);
            strain.waited_of_ns += passed_ns;
        }
        self.waited_ns = waited_ns;
        self.window_ns = now_ns;
        self.window_loaded = loaded;
        self.awake_ns = 0;
    }
}

/// How long a thread has waited for a processor in all: the second of three numbers.
fn waited_ns(schedule: &File) -> Option<u64> {
    let mut text = [0; 96];
    let length = schedule.read_at(&mut text, 0).ok()?;
    let text = std::str::from_utf8(text.get(..length)?).ok()?;
    text.split_ascii_whitespace().nth(1)?.parse().ok()
}

impl Strain {
    /// Adds another worker's.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.windows += other.windows;
        self.busy_windows += other.busy_windows;
        self.waited_ns += other.waited_ns;
        self.waited_of_ns += other.waited_of_ns;
        self.turns += other.turns;
        self.backlog_turns += other.backlog_turns;
        self.turn_max_ns = self.turn_max_ns.max(other.turn_max_ns);
    }

    /// Judges it. `sent` and `late` are messages of the generator, 0 where it sends none.
    pub(crate) fn judge(&self, sent: u64, late: u64) -> StrainReport {
        let share = |part: u64, all: u64| (all > 0).then(|| part as f64 / all as f64);
        let mut report = StrainReport {
            bottleneck: Vec::new(),
            busy_share: share(self.busy_windows, self.windows),
            processor_wait_share: share(self.waited_ns, self.waited_of_ns),
            backlog_share: share(self.backlog_turns, self.turns),
            turn_max_microseconds: (self.turns > 0).then(|| self.turn_max_ns as f64 / 1e3),
            late_share: share(late, sent),
        };
        let percent = |share: f64| share * 100.0;
        if let Some(busy) = report.busy_share.filter(|share| *share > BUSY_SHARE_MAX) {
            let text = format!("its threads had no time left for {:.0} % of the load", percent(busy));
            report.bottleneck.push(text);
        }
        if let Some(wait) = report.processor_wait_share.filter(|share| *share > WAIT_SHARE_MAX) {
            let text = format!("its threads waited for a processor for {:.0} % of the load", percent(wait));
            report.bottleneck.push(text);
        }
        if let Some(late) = report.late_share.filter(|share| *share > LATE_SHARE_MAX) {
            report.bottleneck.push(format!("{:.1} % of its sends left more than 1 ms late", percent(late)));
        }
        let backlog = report.backlog_share.filter(|share| *share > BACKLOG_SHARE_MAX);
        if let Some(backlog) = backlog.filter(|_| self.backlog_turns >= BACKLOG_TURNS_MIN) {
            let text =
                format!("more events waited than it takes at once in {:.0} % of its turns", percent(backlog));
            report.bottleneck.push(text);
        }
        report
    }
}

impl StrainReport {
    /// One line for the table.
    pub(crate) fn text(&self) -> String {
        match self.bottleneck.is_empty() {
            true if self.busy_share.is_none() && self.late_share.is_none() => "n/a, no load".into(),
            true => "no".into(),
            false => format!("YES: {}", self.bottleneck.join("; ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    /// A worker that is awake for `awake_ms` of every 10.
    fn worked(awake_ms: u64, full: bool) -> Strain {
        let (mut watch, mut strain) = (Watch::default(), Strain::default());
        for turn in 1..=200 {
            let now_ns = turn * 10 * MS;
            watch.on_wake(now_ns, true, &mut strain);
            watch.on_turn_end(now_ns + awake_ms * MS, 1, full, true, &mut strain);
        }
        strain
    }

    #[test]
    fn a_generator_with_time_left_is_none() {
        let strain = worked(5, false);
        assert!(strain.windows >= 18 && strain.busy_windows == 0, "{strain:?}");
        let report = strain.judge(1_000, 10);
        assert!(report.bottleneck.is_empty(), "{report:?}");
        assert_eq!((report.text().as_str(), report.turn_max_microseconds), ("no", Some(5_000.0)));
    }

    #[test]
    fn a_starved_one_says_why() {
        let report = worked(10, true).judge(1_000, 11);
        assert_eq!(report.bottleneck.len(), 3, "{report:?}");
        assert!(report.text().starts_with("YES: "), "{}", report.text());
        assert_eq!(report.busy_share, Some(1.0));
    }

    #[test]
    fn the_time_before_a_load_is_no_part_of_it() {
        let (mut watch, mut strain) = (Watch::default(), Strain::default());
        watch.on_wake(100 * MS, false, &mut strain);
        watch.on_turn_end(101 * MS, 1, false, false, &mut strain);
        // Asleep until the load begins, and from then on awake.
        for turn in 0..20 {
            let now_ns = (9_000 + turn * 50) * MS;
            watch.on_wake(now_ns, true, &mut strain);
            watch.on_turn_end(now_ns + 50 * MS, 1, false, true, &mut strain);
        }
        assert_eq!((strain.windows, strain.busy_windows), (10, 10), "{strain:?}");
    }

    #[test]
    fn waiting_for_a_processor_is_told_and_unknown_is_not_zero() {
        let strain = Strain { waited_ns: 11 * MS, waited_of_ns: 100 * MS, ..worked(5, false) };
        let report = strain.judge(0, 0);
        assert_eq!(report.processor_wait_share, Some(0.11));
        assert!(report.text().contains("waited for a processor for 11 % of the load"), "{}", report.text());
        let little = Strain { waited_ns: 9 * MS, ..strain };
        assert!(little.judge(0, 0).bottleneck.is_empty());
        assert_eq!(worked(5, false).judge(0, 0).processor_wait_share, None);
    }

    #[test]
    fn the_kernel_says_how_long_this_thread_waited() {
        let (mut watch, mut strain) = (Watch::start(), Strain::default());
        assert!(watch.waited_ns.is_some());
        watch.on_wake(10 * MS, true, &mut strain);
        watch.on_turn_end(200 * MS, 1, false, true, &mut strain);
        assert_eq!(strain.waited_of_ns, 0, "nobody knows when the first window began");
        watch.on_turn_end(390 * MS, 1, false, true, &mut strain);
        assert_eq!(strain.waited_of_ns, 190 * MS, "{strain:?}");
    }

    #[test]
    fn a_long_sleep_is_not_a_busy_one_and_no_load_is_unknown() {
        let (mut watch, mut strain) = (Watch::default(), Strain::default());
        watch.on_wake(10 * MS, true, &mut strain);
        watch.on_turn_end(109 * MS, 1, false, true, &mut strain);
        watch.on_wake(5_000 * MS, true, &mut strain);
        watch.on_turn_end(5_001 * MS, 1, false, true, &mut strain);
        assert_eq!(strain.busy_windows, 0, "{strain:?}");
        let none = Strain::default().judge(0, 0);
        assert_eq!((none.busy_share, none.late_share, none.text().as_str()), (None, None, "n/a, no load"));
    }
}
