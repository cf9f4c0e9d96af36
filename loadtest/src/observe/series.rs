//! What a run looked like over time: a sample a second, in a bounded list.
//!
//! The main thread takes the samples while it waits, and at the edges of a phase. Counts are running sums,
//! so a sample that is thinned out takes nothing with it but its place; percentiles are those of the time since
//! the sample before. Never touches a worker.

use std::time::{SystemTime, UNIX_EPOCH};

use fantail::sys::process;
use hdrhistogram::Histogram;

use crate::observe::kernel_counts::KernelCounts;
use crate::observe::quota::Quota;
use crate::observe::server_process::ServerProcess;
use crate::result::histogram_columns::{HistogramColumns, Interval};
use crate::result::report::{self, FilesReport, KernelReport, QuotaReport};
use crate::result::samples::{Columns, Sample};
use crate::result::strain::Strain;
use crate::result::tally::Tally;

/// Samples kept. When they are full every second one goes, and the time between two doubles.
const SAMPLES_MAX: usize = 1_800;
/// Seconds whose latencies are kept apart; each takes some kilobytes.
const INTERVALS_MAX: usize = 600;
/// Time between two samples at first.
const EVERY_NS: u64 = 1_000_000_000;

/// Takes the samples of a run.
#[derive(Debug)]
pub(crate) struct Series {
    samples: Vec<Sample>,
    server: Option<ServerProcess>,
    begin_ns: Option<u64>,
    begin_unix_seconds: Option<f64>,
    last_ns: u64,
    every_ns: u64,
    connect: Histogram<u64>,
    latency: Histogram<u64>,
    strain: Strain,
    files: Option<FilesReport>,
    kernel: KernelCounts,
    quota: Quota,
    intervals: Vec<Interval>,
}

impl Series {
    /// No sample yet; `server` is the process to watch.
    pub(crate) fn new(server: Option<ServerProcess>) -> Self {
        let empty = Tally::new();
        Self {
            samples: Vec::new(),
            server,
            begin_ns: None,
            begin_unix_seconds: None,
            last_ns: 0,
            every_ns: EVERY_NS,
            connect: empty.connect,
            latency: empty.latency,
            strain: Strain::default(),
            files: None,
            kernel: KernelCounts::now(),
            quota: Quota::now(),
            intervals: Vec::new(),
        }
    }

    /// Takes a sample if the last one is old enough; none before the first.
    pub(crate) fn take_if_due(&mut self, now_ns: u64, tally: &Tally) {
        // What drives this is due each second itself, a little early or late.
        let slack_ns = EVERY_NS / 4;
        if self.begin_ns.is_some() && now_ns.saturating_sub(self.last_ns) + slack_ns >= self.every_ns {
            self.take(now_ns, tally);
        }
    }

    /// Takes a sample now. The first one is the beginning of the run.
    pub(crate) fn take(&mut self, now_ns: u64, tally: &Tally) {
        let begin_ns = *self.begin_ns.get_or_insert(now_ns);
        self.begin_unix_seconds.get_or_insert_with(unix_seconds);
        let from_ns = std::mem::replace(&mut self.last_ns, now_ns).max(begin_ns);
        let connect = since(&tally.connect, &mut self.connect);
        let latency = since(&tally.latency, &mut self.latency);
        if let Some(latency) = &latency {
            self.keep(latency, from_ns.saturating_sub(begin_ns), now_ns.saturating_sub(begin_ns));
        }
        let at = |histogram: &Option<Histogram<u64>>, quantile| {
            histogram.as_ref().and_then(|histogram| report::carried(histogram, quantile))
        };
        let counts = &tally.counts;
        let strain = tally.strain.since(&self.strain);
        self.strain = tally.strain;
        let files = self.server.and_then(ServerProcess::open_files);
        self.files = files.into_iter().chain(self.files).max_by_key(|files| files.most);
        let server_memory = self.server.map(ServerProcess::user_and_resident_bytes).unwrap_or_default();
        self.samples.push(Sample {
            at_seconds: now_ns.saturating_sub(begin_ns) as f64 / 1e9,
            open: counts.open(),
            opened: counts.opened,
            failed: counts.failed,
            lost: counts.lost,
            messages: counts.unique,
            late_sends: counts.late_sends,
            connect_p50_microseconds: at(&connect, 0.5),
            connect_p99_microseconds: at(&connect, 0.99),
            latency_p50_microseconds: at(&latency, 0.5),
            latency_p99_microseconds: at(&latency, 0.99),
            latency_max_microseconds: latency.as_ref().map(|latency| latency.max() as f64 / 1e3),
            generator_busy_share: strain.busy_share(),
            generator_processor_wait_share: strain.processor_wait_share(),
            generator_cpu_seconds: process::cpu_time(None).ok().map(|time| time.as_secs_f64()),
            server_cpu_seconds: self
                .server
                .and_then(ServerProcess::latest_cpu_time)
                .map(|time| time.as_secs_f64()),
            generator_user_bytes: process::memory(None).ok().map(|memory| memory.user_bytes()),
            server_user_bytes: server_memory.0,
            server_resident_bytes: server_memory.1,
        });
        self.thin();
    }

    /// Keeps what came between two samples; when there are too many of these, two become one.
    fn keep(&mut self, latency: &Histogram<u64>, from_ns: u64, until_ns: u64) {
        self.intervals.push(Interval {
            from_seconds: from_ns as f64 / 1e9,
            seconds: until_ns.saturating_sub(from_ns) as f64 / 1e9,
            histogram: HistogramColumns::new(latency),
        });
        if self.intervals.len() < INTERVALS_MAX {
            return;
        }
        let mut joined: Vec<Interval> = Vec::with_capacity(INTERVALS_MAX);
        for (index, interval) in std::mem::take(&mut self.intervals).into_iter().enumerate() {
            match joined.last_mut() {
                Some(last) if index % 2 == 1 => last.join(&interval),
                _ => joined.push(interval),
            }
        }
        self.intervals = joined;
    }

    /// The latencies of messages, second by second.
    pub(crate) fn intervals(&self) -> Vec<Interval> {
        self.intervals.clone()
    }

    /// Open files of the server at most.
    pub(crate) fn server_files(&self) -> Option<FilesReport> {
        self.files
    }

    /// What processor time the generator is allowed, and how long it was held back since the run was made.
    pub(crate) fn quota(&self) -> QuotaReport {
        self.quota.report()
    }

    /// What the kernel has counted since the run was made.
    pub(crate) fn kernel(&self) -> KernelReport {
        KernelCounts::now().since(self.kernel)
    }

    /// The wall clock when the run began; null if it never did.
    pub(crate) fn begin_unix_seconds(&self) -> Option<f64> {
        self.begin_unix_seconds
    }

    /// All samples.
    pub(crate) fn columns(&self) -> Columns {
        Columns::new(&self.samples)
    }

    /// Halves a full list. The percentiles of a sample that goes pass to the next one where they are higher,
    /// so that a short stall is not thinned out.
    fn thin(&mut self) {
        if self.samples.len() < SAMPLES_MAX {
            return;
        }
        self.every_ns *= 2;
        let mut kept: Vec<Sample> = Vec::with_capacity(SAMPLES_MAX);
        let mut gone: Option<Sample> = None;
        for (index, mut sample) in std::mem::take(&mut self.samples).into_iter().enumerate() {
            if index % 2 == 1 {
                gone = Some(sample);
                continue;
            }
            if let Some(gone) = gone.take() {
                keep_higher(&mut sample, &gone);
            }
            kept.push(sample);
        }
        kept.extend(gone);
        self.samples = kept;
    }
}

fn keep_higher(sample: &mut Sample, gone: &Sample) {
    for (kept, other) in [
        (&mut sample.connect_p50_microseconds, gone.connect_p50_microseconds),
        (&mut sample.connect_p99_microseconds, gone.connect_p99_microseconds),
        (&mut sample.latency_p50_microseconds, gone.latency_p50_microseconds),
        (&mut sample.latency_p99_microseconds, gone.latency_p99_microseconds),
        (&mut sample.latency_max_microseconds, gone.latency_max_microseconds),
        (&mut sample.generator_busy_share, gone.generator_busy_share),
        (&mut sample.generator_processor_wait_share, gone.generator_processor_wait_share),
    ] {
        *kept = match (*kept, other) {
            (Some(one), Some(two)) => Some(one.max(two)),
            (one, two) => one.or(two),
        };
    }
}

/// What `now` has more than `before`, which becomes `now`; `None` if it is nothing.
fn since(now: &Histogram<u64>, before: &mut Histogram<u64>) -> Option<Histogram<u64>> {
    if now.len() == before.len() {
        return None;
    }
    let mut grown = now.clone();
    if grown.subtract(&*before).is_err() {
        // A histogram that shrank was begun anew, and all of it is new.
        grown = now.clone();
    }
    before.clone_from(now);
    (!grown.is_empty()).then_some(grown)
}

fn unix_seconds() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = EVERY_NS;

    #[test]
    fn percentiles_are_of_the_time_since_the_last_sample() {
        let mut series = Series::new(None);
        let mut tally = Tally::new();
        series.take(5 * SECOND, &tally);
        tally.counts.opened = 3;
        tally.counts.lost = 1;
        tally.latency.saturating_record(1_000_000);
        series.take(6 * SECOND, &tally);
        tally.latency.saturating_record(9_000_000);
        series.take(7 * SECOND, &tally);
        let columns = series.columns();
        assert_eq!(columns.at_seconds, [0.0, 1.0, 2.0]);
        assert_eq!(columns.open, [0, 2, 2]);
        let p50: Vec<_> =
            columns.latency_p50_microseconds.iter().map(|us| us.map(|us| us.round() as u64 / 1000)).collect();
        assert_eq!(p50, [None, Some(1), Some(9)]);
        assert_eq!(columns.server_cpu_seconds, [None; 3], "unknown is not zero");
        assert!(series.begin_unix_seconds().unwrap() > 1e9);
        let spans: Vec<(f64, f64)> =
            series.intervals().iter().map(|interval| (interval.from_seconds, interval.seconds)).collect();
        assert_eq!(spans, [(0.0, 1.0), (1.0, 1.0)]);
    }

    #[test]
    fn a_day_of_samples_stays_bounded_and_keeps_its_stall() {
        let mut series = Series::new(None);
        let mut tally = Tally::new();
        series.take_if_due(7 * SECOND, &tally);
        assert!(series.columns().at_seconds.is_empty(), "the run has not begun");
        series.take(0, &tally);
        for second in 1..24 * 3600_u64 {
            tally.counts.unique = second;
            if second == 1_801 {
                tally.latency.saturating_record(2_000_000_000);
            }
            series.take_if_due(second * SECOND, &tally);
        }
        let columns = series.columns();
        assert!(columns.at_seconds.len() < SAMPLES_MAX && columns.at_seconds.len() > SAMPLES_MAX / 3);
        assert!(columns.at_seconds.is_sorted());
        let stalls: Vec<f64> = columns.latency_max_microseconds.iter().flatten().copied().collect();
        assert_eq!(stalls.len(), 1, "{stalls:?}");
        assert!(stalls[0] > 1.9e6);
        for (at, messages) in columns.at_seconds.iter().zip(&columns.messages) {
            assert_eq!(*at as u64, *messages, "a sum does not change by thinning");
        }
    }
}
