//! Whether the generator itself was the bottleneck, so that its figures are its own and not the server's.
//!
//! Each worker watches itself: how much of every tenth of a second it was awake, how long it waited for a processor
//! although it had something to do, and how often more events waited than one turn takes. The judgement is pure;
//! it never stops a run.

use std::fs::File;
use std::os::unix::fs::FileExt;

use crate::result::strain::Strain;

/// The span over which a worker's own load is measured.
const WINDOW_NS: u64 = 100_000_000;
/// A worker that was awake for this much of a window had no time left.
const BUSY_PERCENT: u64 = 90;

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::strain::Waits;

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
        let report = strain.judge(1_000, 10, Waits::default());
        assert!(report.bottleneck.is_empty(), "{report:?}");
        assert_eq!((report.text().as_str(), report.turn_max_microseconds), ("no", Some(5_000.0)));
    }

    #[test]
    fn a_starved_one_says_why() {
        let report = worked(10, true).judge(1_000, 11, Waits::default());
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
        let report = strain.judge(0, 0, Waits::default());
        assert_eq!(report.processor_wait_share, Some(0.11));
        assert!(report.text().contains("waited for a processor for 11 % of the load"), "{}", report.text());
        let little = Strain { waited_ns: 9 * MS, ..strain };
        assert!(little.judge(0, 0, Waits::default()).bottleneck.is_empty());
        assert_eq!(worked(5, false).judge(0, 0, Waits::default()).processor_wait_share, None);
    }

    #[test]
    fn a_publisher_that_waited_through_one_pause_is_not_saturated() {
        let judged = |messages, waiting_ms, of_ms| {
            let waits = Waits { messages, ns: waiting_ms * MS, of_ns: of_ms * MS };
            worked(5, false).judge(40, 0, waits).saturated()
        };
        assert_eq!(judged(1, 20, 5_000), None);
        assert_eq!(judged(16, 200, 5_000), None, "all that came in one pause");
        assert!(judged(16, 300, 5_000).is_some_and(|why| why.contains("40.0 % of its messages waited")));
        assert_eq!(judged(0, 0, 5_000), None);
        // A short run has no time for more; half of it is no pause.
        assert_eq!(judged(16, 90, 200), None);
        assert!(judged(16, 110, 200).is_some());
        assert_eq!(judged(1, 40, 20), None, "not even of one message");
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
        let none = Strain::default().judge(0, 0, Waits::default());
        assert_eq!((none.busy_share, none.late_share, none.text().as_str()), (None, None, "n/a, no load"));
    }
}
