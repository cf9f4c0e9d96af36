//! Times in which messages waited much longer than usual, found in the latencies by send time. Pure.

use serde::Serialize;
use serde_json::Value;

use super::{Fault, Finding, Weight, column, number, suspects};
use crate::result::html::grouped;
use crate::result::report::microseconds_text;

/// Nobody notices a shorter wait.
const SLOW_LEAST_US: f64 = 100_000.0;
/// Nobody overlooks a longer one.
const LONG_US: f64 = 1e6;
/// How many times as long as usual.
const SLOW_TIMES: f64 = 10.0;
/// How many times as long as usual messages wait already at the beginning of a wait that grows.
const GROWING_TIMES: f64 = 2.0;
/// Share of the columns that are at least as fast as what is usual: few, since a queue may grow from the first message on.
const USUAL_SHARE: f64 = 0.02;

/// A time in which messages waited.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Stall {
    /// When the first message that waited was planned to leave, in seconds since the first connect.
    pub(crate) from_seconds: f64,
    /// When the last of them had come.
    pub(crate) until_seconds: f64,
    /// The longest wait.
    pub(crate) longest_microseconds: f64,
    /// Messages that waited for longer than is usual.
    pub(crate) waited: u64,
    /// Whether waits became longer and longer, as where more comes than is taken, and did not end all at once.
    pub(crate) grew: bool,
    /// Who is to blame.
    pub(crate) fault: Fault,
    /// Why that is known, or why not.
    pub(crate) evidence: String,
    /// The limit that it met, if one is known.
    pub(crate) limit: Option<String>,
}

/// One column of latencies by send time in which there were any.
#[derive(Clone, Copy, Debug)]
struct Slice {
    median_us: f64,
    highest_us: f64,
    highest_at: f64,
    waited: u64,
}

/// The latencies by send time of whatever sends in a run.
fn course(run: &Value) -> Option<(&'static str, &Value)> {
    let paths = ["/latency_by_send_time", "/bystander/latency_by_send_time"];
    paths.into_iter().find_map(|path| Some((path, run.pointer(path).filter(|course| course.is_object())?)))
}

/// Whether a run has latencies by send time.
pub(super) fn has_course(run: &Value) -> bool {
    course(run).is_some()
}

/// All of a run, the longest first.
pub(super) fn stalls(run: &Value) -> Vec<Stall> {
    let Some((_, course)) = course(run) else { return Vec::new() };
    let usual_us = usual_us(&slices(course, f64::INFINITY));
    let slow_us = (usual_us * SLOW_TIMES).max(SLOW_LEAST_US);
    let growing_us = (usual_us * GROWING_TIMES).max(SLOW_LEAST_US);
    let (slow, growing) = (slices(course, slow_us), slices(course, growing_us));
    let mut stalls: Vec<Stall> = Vec::new();
    let mut from = 0;
    for group in slow.chunk_by(|a, b| (a.highest_us >= slow_us) == (b.highest_us >= slow_us)) {
        let until = from + group.len();
        let mut stall = of_group(group).filter(|stall| stall.longest_microseconds >= slow_us);
        if stall.as_ref().is_some_and(|stall| stall.grew) {
            // It began before it was so long: with the first of those that led to it.
            let before = growing.get(..from).unwrap_or_default().iter().rev();
            let led = before.take_while(|slice| slice.highest_us >= growing_us).count();
            stall = growing.get(from - led..until).and_then(of_group);
        }
        stalls.extend(stall);
        from = until;
    }
    let mut joined: Vec<Stall> = Vec::new();
    for stall in stalls {
        match joined.last_mut() {
            // The next one began before this one's messages had come: it is the same.
            Some(last) if stall.from_seconds <= last.until_seconds => last.join(&stall),
            _ => joined.push(stall),
        }
    }
    for stall in &mut joined {
        let blamed = suspects::blame(run, course, stall);
        (stall.fault, stall.evidence, stall.limit) = (blamed.fault, blamed.evidence, blamed.limit);
    }
    joined.sort_by(|a, b| b.longest_microseconds.total_cmp(&a.longest_microseconds));
    joined
}

/// What messages took when nothing made them wait, as far as a run shows it.
fn usual_us(slices: &[Slice]) -> f64 {
    let mut medians: Vec<f64> = slices.iter().map(|slice| slice.median_us).collect();
    medians.sort_by(f64::total_cmp);
    medians.get((medians.len() as f64 * USUAL_SHARE) as usize).copied().unwrap_or(0.0)
}

fn slices(course: &Value, slow_us: f64) -> Vec<Slice> {
    let (highest, at) = (column(course, "/highest_microseconds"), column(course, "/highest_at_seconds"));
    let (of, lowest, count) = (
        column(course, "/cells/column"),
        column(course, "/cells/lowest_nanoseconds"),
        column(course, "/cells/count"),
    );
    let mut cells: Vec<Vec<(f64, f64)>> = vec![Vec::new(); highest.len()];
    for ((of, lowest), count) in of.into_iter().zip(lowest).zip(count) {
        let (Some(of), Some(lowest), Some(count)) = (of, lowest, count) else { continue };
        if let Some(column) = cells.get_mut(of as usize) {
            column.push((lowest / 1e3, count));
        }
    }
    let slice = |highest: Option<f64>, at: Option<f64>, cells: &[(f64, f64)]| {
        let all: f64 = cells.iter().map(|(_, count)| count).sum();
        let mut below = 0.0;
        let median = cells.iter().find(|(_, count)| {
            below += count;
            below * 2.0 >= all
        });
        let waited: f64 = cells.iter().filter(|(lowest, _)| *lowest >= slow_us).map(|(_, count)| count).sum();
        Some(Slice { median_us: median?.0, highest_us: highest?, highest_at: at?, waited: waited as u64 })
    };
    highest
        .into_iter()
        .zip(at)
        .zip(&cells)
        .filter_map(|((highest, at), cells)| slice(highest, at, cells))
        .collect()
}

/// The stall of neighbouring slices in all of which something waited.
fn of_group(group: &[Slice]) -> Option<Stall> {
    let (first, last) = (group.first()?, group.last()?);
    let longest = group.iter().max_by(|a, b| a.highest_us.total_cmp(&b.highest_us))?;
    let end = |slice: &Slice| slice.highest_at + slice.highest_us / 1e6;
    let until_seconds = group.iter().map(end).fold(0.0, f64::max);
    let middle = f64::midpoint(first.highest_at, last.highest_at);
    Some(Stall {
        from_seconds: first.highest_at,
        until_seconds,
        longest_microseconds: longest.highest_us,
        waited: group.iter().map(|slice| slice.waited).sum::<u64>().max(1),
        grew: longest.highest_at > middle,
        fault: Fault::Unknown,
        evidence: String::new(),
        limit: None,
    })
}

impl Stall {
    fn join(&mut self, next: &Self) {
        self.grew = next.longest_microseconds > self.longest_microseconds;
        self.until_seconds = self.until_seconds.max(next.until_seconds);
        self.longest_microseconds = self.longest_microseconds.max(next.longest_microseconds);
        self.waited += next.waited;
    }

    /// When it was and how long.
    pub(super) fn text(&self, run: &Value) -> String {
        let clock = number(run, "/started_unix_seconds").map(|begin| {
            let at = |seconds: f64| crate::result::html::clock(begin + seconds);
            format!(" ({} to {} UTC)", at(self.from_seconds), at(self.until_seconds))
        });
        let longest = microseconds_text(Some(self.longest_microseconds));
        let waited = grouped(self.waited as f64);
        let what = match (self.grew, self.waited) {
            (true, 2..) => format!("{waited} messages waited longer and longer, up to {longest}"),
            (_, ..=1) => format!("a message waited for {longest}"),
            (false, _) => format!("{waited} messages waited, up to {longest}"),
        };
        let (from, until) = (self.from_seconds, self.until_seconds);
        format!(
            "from {from:.2} s to {until:.2} s after the first connect{}, {what}",
            clock.unwrap_or_default()
        )
    }

    /// The same as something that was found.
    pub(super) fn finding(&self, run: &Value) -> Finding {
        let mut text = self.text(run);
        if let Some(first) = text.get_mut(..1) {
            first.make_ascii_uppercase();
        }
        let weight =
            if self.longest_microseconds >= LONG_US { Weight::LongStall } else { Weight::ShortStall };
        let (text, limit) = (format!("{text}. {}.", self.evidence), self.limit.clone());
        Finding { fault: self.fault, text, limit, weight }
    }
}

/// An answer to "When did it stall?".
pub(super) fn sentence(stalls: &[Stall], run: &Value) -> String {
    match stalls.split_first() {
        None => {
            let path = course(run).map_or("", |(path, _)| path.trim_end_matches("_by_send_time"));
            let longest = number(run, &format!("{path}/max_microseconds"));
            let longest = longest
                .map_or_else(String::new, |us| format!("; the longest took {}", microseconds_text(Some(us))));
            format!(
                "Never: no message waited ten times as long as usual and for {} or more{longest}",
                microseconds_text(Some(SLOW_LEAST_US))
            )
        }
        Some((longest, others)) => {
            let mut text = longest.text(run);
            if let Some(first) = text.get_mut(..1) {
                first.make_ascii_uppercase();
            }
            match others.len() {
                0 => text,
                1 => format!("{text}; and once more for a shorter time"),
                more => format!("{text}; and {more} more times, each shorter"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::schedule::Schedule;
    use crate::result::course::Course;
    use serde_json::json;
    use std::time::Duration;

    const MS: u64 = 1_000_000;

    /// A run of six seconds, 500 messages a second, of which each took what `took_ms` says of its time.
    pub(crate) fn run_of(took_ms: impl Fn(u64) -> u64) -> Value {
        let schedule = Schedule::new(500 * MS, 500.0, 1, Duration::from_secs(6));
        let mut course = Course::default();
        for index in 0..schedule.count() {
            let planned_ns = schedule.planned_ns(index);
            course.on_left(planned_ns, 0);
            course.record(planned_ns, took_ms(planned_ns / MS) * MS);
        }
        json!({ "command": "echo", "ok": true, "url": "ws://127.0.0.1:1/", "started_unix_seconds": 1_795_280_709.0,
            "latency": { "max_microseconds": 4000.0 }, "latency_by_send_time": course.report(0, Some(&schedule)) })
    }

    #[test]
    fn a_stop_of_two_seconds_is_told_to_the_hundredth() {
        let run = run_of(|at| if (3_000..5_000).contains(&at) { 5_000 - at } else { 2 });
        let stalls = stalls(&run);
        assert_eq!(stalls.len(), 1, "{stalls:?}");
        let stall = &stalls[0];
        assert!(
            (stall.from_seconds - 3.0).abs() < 0.01 && (stall.until_seconds - 5.0).abs() < 0.01,
            "{stall:?}"
        );
        assert!(!stall.grew && stall.longest_microseconds == 2e6, "{stall:?}");
        assert!((900..1_000).contains(&stall.waited), "{stall:?}");
        let said = sentence(&stalls, &run);
        assert!(
            said.starts_with("From 3.00 s to 5.00 s after the first connect (17:05:12 to 17:05:14 UTC)"),
            "{said}"
        );
    }

    #[test]
    fn a_queue_that_grows_is_no_stop_and_an_even_run_neither() {
        let run = run_of(|at| if at < 2_000 { 3 } else { (at - 2_000) / 2 + 3 });
        let found = stalls(&run);
        assert!(found.len() == 1 && found[0].grew, "{found:?}");
        assert!(
            sentence(&found, &run).contains("longer and longer, up to 2.25 s"),
            "{}",
            sentence(&found, &run)
        );
        // From the first message on, so that hardly any shows what is usual.
        let run = run_of(|at| at - 490);
        let found = stalls(&run);
        assert!(found.len() == 1 && found[0].grew && found[0].waited > 2_500, "{found:?}");
        assert!(found[0].from_seconds < 1.0 && found[0].until_seconds > 11.9, "{found:?}");
        for even in [2, 90, 3_000] {
            let run = run_of(|at| even + at % 3);
            assert!(stalls(&run).is_empty(), "{even} ms all the time");
            assert!(sentence(&[], &run).starts_with("Never"));
        }
    }

    #[test]
    fn two_stops_are_two_and_the_longer_is_first() {
        let stopped = |at: u64, from: u64, until: u64| (from..until).contains(&at).then(|| until - at);
        let run = run_of(|at| stopped(at, 1_500, 1_900).or(stopped(at, 4_000, 5_200)).unwrap_or(1));
        let stalls = stalls(&run);
        assert_eq!(
            stalls.iter().map(|stall| stall.from_seconds.round()).collect::<Vec<_>>(),
            [4.0, 2.0],
            "{stalls:?}"
        );
        assert!(sentence(&stalls, &run).ends_with("and once more for a shorter time"));
    }
}
