//! How a figure went over time, as a heat map holds it: times along, durations up, and in each cell how often.
//!
//! Bounded, however long a run is: when there are as many columns as there may be, two become one and twice as wide. So
//! a short run has columns of a millisecond, and a stall of a long one still shows where it was. Each worker has one of
//! its own and records each message once, with two comparisons and an addition. Times are those of the run's clock.

use serde::{Deserialize, Serialize};

use crate::base::schedule::{LATE_NS, Schedule};

/// Columns kept.
const COLUMNS_MAX: usize = 240;
/// Width of a column at first.
const WIDTH_NS: u64 = 1_000_000;
/// The lowest cell holds all below twice this, 8 us.
const LOW_POWER: u32 = 13;
/// No column begins there: what is recorded begins before.
const NEVER_NS: u64 = u64::MAX / 2;
/// Two cells for each doubling, the highest for 9 minutes and more.
const ROWS: usize = 54;

/// See the module's head.
#[derive(Clone, Debug)]
pub(crate) struct Course {
    /// The number of the first column; column `n` begins at `n` times the width.
    first: u64,
    width_ns: u64,
    columns: Vec<Column>,
    /// Place and beginning of the column that was used last.
    last: (usize, u64),
}

/// What happened in one span of time.
#[derive(Clone, Debug)]
struct Column {
    cells: [u32; ROWS],
    /// The longest duration, and when it began.
    highest: Option<(u64, u64)>,
    /// Messages planned for this span, where no schedule says it.
    planned: u32,
    /// Messages that left in this span.
    left: u32,
    /// Messages planned for this span that the generator itself made late.
    late: u32,
    /// How late the latest of them left.
    latest_ns: u64,
    /// The longest that one of those planned for this span waited for a connection of the publisher; 0 if none did.
    waited_ns: u64,
    /// The longest that the server took to answer one of them, or did not; 0 if none was asked for an answer.
    answered_ns: u64,
}

/// A course as result files have it; columns of time, all lists but those of `cells` of one length.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct CourseReport {
    /// When the first column begins, in seconds since the first connect.
    begin_seconds: f64,
    /// Width of a column.
    column_seconds: f64,
    /// Messages that were planned to leave in the span.
    planned: Vec<u64>,
    /// Messages that left in it.
    left: Vec<u32>,
    /// Messages planned for it that the generator itself sent more than 1 ms late.
    late: Vec<u32>,
    /// How late the latest of these left; null if none did.
    latest_microseconds: Vec<Option<f64>>,
    /// The longest duration of those that began in it; null if nothing did.
    highest_microseconds: Vec<Option<f64>>,
    /// When that began, in seconds since the first connect.
    highest_at_seconds: Vec<Option<f64>>,
    /// The longest wait of a message planned for it until a connection of the publisher was free; null if none waited.
    #[serde(default)]
    waited_microseconds: Vec<Option<f64>>,
    /// The longest time that the server took to answer the publisher one of these; null if none was answered.
    #[serde(default)]
    answered_microseconds: Vec<Option<f64>>,
    /// How many durations there were, by column and length.
    cells: Cells,
}

/// Only those cells that hold something.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Cells {
    /// Number of the column, from 0.
    column: Vec<u64>,
    /// The shortest duration that falls into the cell; the longest is below the next cell's, 4/3 or 3/2 of it.
    lowest_nanoseconds: Vec<u64>,
    /// Durations in it.
    count: Vec<u32>,
}

impl Default for Course {
    fn default() -> Self {
        Self { first: 0, width_ns: WIDTH_NS, columns: Vec::new(), last: (0, NEVER_NS) }
    }
}

impl Course {
    /// Counts what began at `at_ns` and took `took_ns`.
    #[inline]
    pub(crate) fn record(&mut self, at_ns: u64, took_ns: u64) {
        let Some(column) = self.column(at_ns) else { return };
        if let Some(cell) = column.cells.get_mut(row(took_ns)) {
            *cell = cell.saturating_add(1);
        }
        if column.highest.is_none_or(|(highest, _)| took_ns > highest) {
            column.highest = Some((took_ns, at_ns));
        }
    }

    /// Counts a message that was planned for `planned_ns` and left `late_ns` later.
    pub(crate) fn on_left(&mut self, planned_ns: u64, late_ns: u64) {
        if let Some(column) = self.column(planned_ns.saturating_add(late_ns)) {
            column.left = column.left.saturating_add(1);
        }
    }

    /// Counts a message that the generator itself made late by so much.
    pub(crate) fn on_turn(&mut self, planned_ns: u64, late_ns: u64) {
        if late_ns <= LATE_NS {
            return;
        }
        let Some(column) = self.column(planned_ns) else { return };
        column.late = column.late.saturating_add(1);
        column.latest_ns = column.latest_ns.max(late_ns);
    }

    /// Counts a message that was planned for `planned_ns` and waited so long for a connection of the publisher.
    pub(crate) fn on_waited(&mut self, planned_ns: u64, waited_ns: u64) {
        if let Some(column) = self.column(planned_ns) {
            column.waited_ns = column.waited_ns.max(waited_ns);
        }
    }

    /// The server took so long to answer a message that was planned for `planned_ns`.
    pub(crate) fn on_answered(&mut self, planned_ns: u64, answered_ns: u64) {
        if let Some(column) = self.column(planned_ns) {
            column.answered_ns = column.answered_ns.max(answered_ns);
        }
    }

    /// Of another course of the same clock, adds how long messages waited and were answered, and nothing else.
    pub(crate) fn merge_waits(&mut self, other: &Self) {
        let mut waits = other.clone();
        for column in &mut waits.columns {
            let Column { waited_ns, answered_ns, .. } = *column;
            *column = Column { waited_ns, answered_ns, ..Column::default() };
        }
        self.merge(&waits);
    }

    /// Adds another course of the same clock.
    pub(crate) fn merge(&mut self, other: &Self) {
        if other.columns.is_empty() {
            return;
        }
        while self.width_ns < other.width_ns {
            self.halve();
        }
        let mut other = other.clone();
        while other.width_ns < self.width_ns {
            other.halve();
        }
        let width_ns = other.width_ns;
        for (number, column) in (other.first..).zip(&other.columns) {
            // Its own room may double the width meanwhile; the place is looked up by time.
            if let Some(mine) = self.column(number.saturating_mul(width_ns)) {
                mine.add(column);
            }
        }
    }

    /// The same course seen from a clock that is `by_ns` ahead of this one.
    pub(crate) fn seen_from(&self, by_ns: i64) -> Self {
        let by = by_ns.div_euclid(i64::try_from(self.width_ns).unwrap_or(i64::MAX));
        let mut seen = self.clone();
        seen.first = seen.first.saturating_add_signed(by);
        seen.last = (0, NEVER_NS);
        for column in &mut seen.columns {
            column.highest = column.highest.map(|(took, at)| (took, at.saturating_add_signed(by_ns)));
        }
        seen
    }

    /// As a result file has it; `begin_ns` is when the first connect began. `None` if nothing was recorded.
    pub(crate) fn report(&self, begin_ns: u64, schedule: Option<&Schedule>) -> Option<CourseReport> {
        if self.columns.is_empty() {
            return None;
        }
        let seconds = |at_ns: u64| (at_ns as f64 - begin_ns as f64) / 1e9;
        let starts = || (self.first..).map(|number| number.saturating_mul(self.width_ns));
        let due_by = |schedule: &Schedule, at_ns: u64| {
            at_ns.checked_sub(1).map_or(0, |at| schedule.clone().cut(at).count())
        };
        let planned = |(at, column): (u64, &Column)| match schedule {
            None => u64::from(column.planned),
            Some(schedule) => due_by(schedule, at.saturating_add(self.width_ns)) - due_by(schedule, at),
        };
        let microseconds = |ns: u64| ns as f64 / 1e3;
        let any = |ns: u64| (ns > 0).then(|| microseconds(ns));
        let mut cells = Cells::default();
        for (number, column) in (0..).zip(&self.columns) {
            for (row, count) in column.cells.iter().enumerate().filter(|(_, count)| **count > 0) {
                cells.column.push(number);
                cells.lowest_nanoseconds.push(lowest(row));
                cells.count.push(*count);
            }
        }
        let columns = || self.columns.iter();
        Some(CourseReport {
            begin_seconds: seconds(self.first.saturating_mul(self.width_ns)),
            column_seconds: self.width_ns as f64 / 1e9,
            planned: starts().zip(&self.columns).map(planned).collect(),
            left: columns().map(|column| column.left).collect(),
            late: columns().map(|column| column.late).collect(),
            latest_microseconds: columns()
                .map(|column| (column.late > 0).then(|| microseconds(column.latest_ns)))
                .collect(),
            highest_microseconds: columns().map(|column| Some(microseconds(column.highest?.0))).collect(),
            highest_at_seconds: columns().map(|column| Some(seconds(column.highest?.1))).collect(),
            waited_microseconds: columns().map(|column| any(column.waited_ns)).collect(),
            answered_microseconds: columns().map(|column| any(column.answered_ns)).collect(),
            cells,
        })
    }

    /// What a result file has, as seen from the same moment as there; `None` if it is no course. Columns begin at multiples
    /// of their width here, so each may be moved by half of it.
    pub(crate) fn read(report: &CourseReport) -> Option<Self> {
        let ns = |seconds: f64| (seconds * 1e9).round().max(0.0) as u64;
        let width_ns = ns(report.column_seconds);
        let doubled = width_ns.checked_div(WIDTH_NS)?;
        let count = report.left.len();
        let lengths = [
            report.planned.len(),
            report.late.len(),
            report.latest_microseconds.len(),
            report.highest_microseconds.len(),
            report.highest_at_seconds.len(),
        ];
        // Results of earlier versions have none of these.
        let waits = [report.waited_microseconds.len(), report.answered_microseconds.len()];
        if !doubled.is_power_of_two()
            || doubled * WIDTH_NS != width_ns
            || count > COLUMNS_MAX
            || lengths.iter().any(|length| *length != count)
            || waits.iter().any(|length| *length != count && *length != 0)
        {
            return None;
        }
        let nanoseconds = |microseconds: f64| ns(microseconds / 1e6);
        let known = |list: &[Option<f64>], index: usize| list.get(index).copied().flatten();
        let column = |index: usize| {
            let highest =
                (*report.highest_microseconds.get(index)?).zip(*report.highest_at_seconds.get(index)?);
            Some(Column {
                cells: [0; ROWS],
                highest: highest.map(|(took, at)| (nanoseconds(took), ns(at))),
                planned: u32::try_from(*report.planned.get(index)?).unwrap_or(u32::MAX),
                left: *report.left.get(index)?,
                late: *report.late.get(index)?,
                latest_ns: report.latest_microseconds.get(index)?.map_or(0, nanoseconds),
                waited_ns: known(&report.waited_microseconds, index).map_or(0, nanoseconds),
                answered_ns: known(&report.answered_microseconds, index).map_or(0, nanoseconds),
            })
        };
        let mut columns = (0..count).map(column).collect::<Option<Vec<_>>>()?;
        let Cells { column, lowest_nanoseconds, count } = &report.cells;
        for ((column, lowest_ns), count) in column.iter().zip(lowest_nanoseconds).zip(count) {
            let column = columns.get_mut(usize::try_from(*column).ok()?)?;
            *column.cells.get_mut(row(*lowest_ns))? += *count;
        }
        let first = (report.begin_seconds * 1e9 / width_ns as f64).round().max(0.0) as u64;
        Some(Self { first, width_ns, columns, last: (0, NEVER_NS) })
    }

    /// The column of a time, made if there is none.
    #[inline]
    fn column(&mut self, at_ns: u64) -> Option<&mut Column> {
        let (place, begin_ns) = self.last;
        let place = if at_ns.wrapping_sub(begin_ns) < self.width_ns { place } else { self.find(at_ns) };
        self.columns.get_mut(place)
    }

    #[inline(never)]
    fn find(&mut self, at_ns: u64) -> usize {
        let mut number = at_ns / self.width_ns;
        if self.columns.is_empty() {
            self.first = number;
        }
        let reach = |course: &Self, number: u64| {
            let end = course.first + course.columns.len() as u64;
            end.max(number + 1) - course.first.min(number)
        };
        while reach(self, number) > COLUMNS_MAX as u64 {
            self.halve();
            number = at_ns / self.width_ns;
        }
        if number < self.first {
            let before = (self.first - number) as usize;
            self.columns.splice(0..0, std::iter::repeat_n(Column::default(), before));
            self.first = number;
        }
        let place = (number - self.first) as usize;
        if place >= self.columns.len() {
            self.columns.resize(place + 1, Column::default());
        }
        self.last = (place, number * self.width_ns);
        place
    }

    /// Makes one column of two.
    fn halve(&mut self) {
        let odd = self.first % 2;
        let mut halved: Vec<Column> = Vec::with_capacity(self.columns.len() / 2 + 1);
        for (index, column) in self.columns.drain(..).enumerate() {
            match halved.last_mut() {
                Some(last) if (index as u64 + odd) % 2 == 1 => last.add(&column),
                _ => halved.push(column),
            }
        }
        self.columns = halved;
        self.first /= 2;
        self.width_ns *= 2;
        self.last = (0, NEVER_NS);
    }
}

impl Default for Column {
    fn default() -> Self {
        Self {
            cells: [0; ROWS],
            highest: None,
            planned: 0,
            left: 0,
            late: 0,
            latest_ns: 0,
            waited_ns: 0,
            answered_ns: 0,
        }
    }
}

impl Column {
    fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.cells.iter_mut().zip(&other.cells) {
            *mine = mine.saturating_add(*theirs);
        }
        // The longest one, whenever it began.
        self.highest = self.highest.max(other.highest);
        self.planned = self.planned.saturating_add(other.planned);
        self.left = self.left.saturating_add(other.left);
        self.late = self.late.saturating_add(other.late);
        self.latest_ns = self.latest_ns.max(other.latest_ns);
        self.waited_ns = self.waited_ns.max(other.waited_ns);
        self.answered_ns = self.answered_ns.max(other.answered_ns);
    }
}

/// The row of a duration: its power of two and whether it is in the upper half above it.
fn row(ns: u64) -> usize {
    let ns = ns.max(1 << LOW_POWER);
    let power = ns.ilog2();
    let upper = (ns >> (power - 1)) & 1;
    (2 * (power - LOW_POWER) as usize + upper as usize).min(ROWS - 1)
}

/// The shortest duration of a row; of the lowest nothing is known but that it is below the next.
fn lowest(row: usize) -> u64 {
    (2 + row as u64 % 2) << (row as u32 / 2 + LOW_POWER - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const MS: u64 = 1_000_000;

    fn sums(course: &Course) -> (usize, u64) {
        let cells = course.columns.iter().flat_map(|column| column.cells).map(u64::from);
        (course.columns.len(), cells.sum())
    }

    #[test]
    fn rows_are_halves_of_a_doubling_and_hold_what_they_say() {
        for row_number in 0..ROWS {
            assert_eq!(row(lowest(row_number)), row_number);
            if row_number > 0 {
                assert_eq!(row(lowest(row_number) - 1), row_number - 1);
                let step = lowest(row_number) as f64 / lowest(row_number - 1) as f64;
                assert!((1.3..=1.51).contains(&step), "{step}");
            }
        }
        assert_eq!((row(0), row(u64::MAX)), (0, ROWS - 1));
    }

    #[test]
    fn an_hour_stays_bounded_and_its_stall_where_it_was() {
        let mut course = Course::default();
        for at_ms in (0..3_600_000).step_by(10) {
            let took_ms = if (1_800_000..1_802_000).contains(&at_ms) { 1_802_000 - at_ms } else { 1 };
            course.record(at_ms * MS, took_ms * MS);
        }
        let (columns, all) = sums(&course);
        assert!((COLUMNS_MAX / 2..=COLUMNS_MAX).contains(&columns), "{columns}");
        assert_eq!(all, 360_000, "nothing is lost when columns are joined");
        let highest = course.columns.iter().filter_map(|column| column.highest).max().unwrap();
        assert_eq!(highest, (2_000 * MS, 1_800_000 * MS));
    }

    #[test]
    fn courses_of_workers_add_up_whatever_their_widths_and_order() {
        let (mut one, mut two, mut both) = (Course::default(), Course::default(), Course::default());
        for number in 0..20_000_u64 {
            let at_ns = 7_000 * MS + number * 3 * MS / 2;
            let short = number < 100;
            let of = if short { &mut one } else { &mut two };
            of.record(at_ns, number * 1_000);
            both.record(at_ns, number * 1_000);
        }
        // What was planned before everything else comes last.
        one.record(6_990 * MS, 5);
        both.record(6_990 * MS, 5);
        assert!(one.width_ns < two.width_ns);
        for (mut first, second) in [(one.clone(), &two), (two.clone(), &one)] {
            first.merge(second);
            assert_eq!(sums(&first).1, 20_001);
            assert_eq!((first.width_ns, first.first), (both.width_ns, both.first));
            let cells =
                |course: &Course| course.columns.iter().map(|column| column.cells).collect::<Vec<_>>();
            assert_eq!(cells(&first), cells(&both));
        }
    }

    #[test]
    fn the_report_has_times_since_the_first_connect_and_what_was_planned() {
        let schedule = Schedule::new(1_000 * MS, 1_000.0, 1, Duration::from_millis(10));
        let mut course = Course::default();
        for index in 0..10 {
            let late_ns = if index == 4 { 3 * MS } else { 0 };
            course.on_turn(schedule.planned_ns(index), late_ns);
            course.on_left(schedule.planned_ns(index), late_ns);
            course.record(schedule.planned_ns(index), 2 * MS + late_ns);
        }
        let report = course.report(400 * MS, Some(&schedule)).unwrap();
        assert_eq!((report.begin_seconds, report.column_seconds), (0.6, 0.001));
        assert_eq!(report.planned, [1; 10]);
        assert_eq!(report.left, [1, 1, 1, 1, 0, 1, 1, 2, 1, 1], "what is late leaves later");
        assert_eq!((report.late[4], report.latest_microseconds[4]), (1, Some(3_000.0)));
        assert_eq!(
            (report.highest_microseconds[4], report.highest_at_seconds[4]),
            (Some(5_000.0), Some(0.604))
        );
        assert_eq!(report.cells.count.iter().sum::<u32>(), 10);
        assert!(Course::default().report(0, None).is_none());
    }

    #[test]
    fn what_was_written_is_read_back() {
        let schedule = Schedule::new(1_000 * MS, 1_000.0, 1, Duration::from_secs(2));
        let mut course = Course::default();
        for index in 0..2_000 {
            let late_ns = if index % 50 == 4 { 3 * MS } else { 0 };
            course.on_turn(schedule.planned_ns(index), late_ns);
            course.on_left(schedule.planned_ns(index), late_ns);
            course.record(schedule.planned_ns(index), (index + 1) * 10_000);
            course.on_waited(schedule.planned_ns(index), late_ns);
            course.on_answered(schedule.planned_ns(index), (index + 1) * 5_000);
        }
        let report = course.report(0, Some(&schedule)).unwrap();
        let text = |report: &CourseReport| serde_json::to_value(report).unwrap();
        assert_eq!(text(&Course::read(&report).unwrap().report(0, None).unwrap()), text(&report));
        // One of a version that did not know how long messages waited.
        let mut old = text(&report);
        old.as_object_mut()
            .unwrap()
            .retain(|name, _| !name.starts_with("waited") && !name.starts_with("answered"));
        let old = Course::read(&serde_json::from_value(old).unwrap()).unwrap().report(0, None).unwrap();
        assert!(old.left == report.left && old.waited_microseconds.iter().all(Option::is_none));
        let broken: [fn(&mut CourseReport); 6] = [
            |report| report.waited_microseconds.truncate(1),
            |report| report.column_seconds = 0.003,
            |report| report.column_seconds = 0.0,
            |report| report.late.truncate(1),
            |report| report.cells.column[0] = 9_999,
            |report| report.column_seconds = f64::NAN,
        ];
        for break_it in broken {
            let mut report = report.clone();
            break_it(&mut report);
            assert!(Course::read(&report).is_none());
        }
    }

    #[test]
    fn another_clock_sees_the_same_later() {
        let mut course = Course::default();
        course.record(5 * MS, 7 * MS);
        let seen = course.seen_from(20 * MS as i64).report(0, None).unwrap();
        assert_eq!((seen.begin_seconds, seen.highest_at_seconds[0]), (0.025, Some(0.025)));
    }
}
