//! A course over time as a heat map: times along, durations up in decades, each cell as dark as it is full. Pure.
//!
//! The cells are an SVG that is stretched to its card; what is to be read stands beside it as text of its own size, on a
//! phone as on a desktop. Whoever does not see it has the same as a table.

use std::fmt::Write as _;

use serde_json::Value;

use super::axis::{Axis, Unit, text};
use super::{escape, grouped};

/// Steps of darkness.
const SHADES: f64 = 7.0;
/// Rows of the table.
const ROWS_MAX: usize = 40;
/// Places that show their values on hovering.
const HOVERS_MAX: usize = 120;
/// Labels along the time axis.
const TIMES_MAX: usize = 9;

/// What a heat map is of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Heat<'a> {
    /// The heading.
    pub(super) title: &'a str,
    /// One sentence below it.
    pub(super) note: &'a str,
    /// What is counted, in the plural.
    pub(super) what: &'a str,
    /// What the times are.
    pub(super) time: &'a str,
    /// The course of the result.
    pub(super) course: &'a Value,
    /// Spans to be marked, with what they are called.
    pub(super) marks: &'a [(f64, f64, String)],
}

/// One column, read.
#[derive(Clone, Debug, Default)]
struct Column {
    cells: Vec<(f64, f64)>,
    highest: Option<f64>,
    late: f64,
    left: f64,
}

impl Heat<'_> {
    /// The map as a card over the whole width; empty if it has nothing to show.
    pub(super) fn card(&self) -> String {
        let columns = self.columns();
        let values = || columns.iter().flat_map(|column| &column.cells);
        if values().next().is_none() {
            return String::new();
        }
        let number = |name: &str| self.course.get(name).and_then(Value::as_f64).unwrap_or(0.0);
        let (begin, width) = (number("begin_seconds"), number("column_seconds"));
        let ends = values().flat_map(|(lowest, _)| [*lowest, next(*lowest)]);
        let y = Axis::decades(Unit::Time, ends);
        let most = values().map(|(_, count)| *count).fold(1.0, f64::max);
        let mut out = String::from("<figure class=\"card wide\"><figcaption>");
        let _ = write!(out, "<h2>{}</h2><p class=\"note\">{}</p>", escape(self.title), escape(self.note));
        let any_late = columns.iter().any(|column| column.late > 0.0);
        self.legend(any_late, &mut out);
        out.push_str("</figcaption><div class=\"heat\"><div class=\"heat-y\" aria-hidden=\"true\">");
        for (tick, label) in y.ticks() {
            let Some(place) = y.place(tick) else { continue };
            let _ =
                write!(out, "<span style=\"top:{:.2}%\">{}</span>", (1.0 - place) * 100.0, escape(&label));
        }
        out.push_str("</div><div class=\"heat-plot\">");
        self.cells(&columns, &y, most, (begin, width), &mut out);
        if any_late {
            late_strip(&columns, &mut out);
        }
        times(begin, width * columns.len() as f64, &mut out);
        let _ =
            write!(out, "<div class=\"heat-x-name\" aria-hidden=\"true\">{} (s)</div>", escape(self.time));
        out.push_str("</div></div>");
        self.table(&columns, begin, width, &mut out);
        out.push_str("</figure>\n");
        out
    }

    fn legend(&self, any_late: bool, out: &mut String) {
        let _ = write!(out, "<ul class=\"legend\"><li>few <span class=\"ramp\" aria-hidden=\"true\">");
        for shade in 1..=SHADES as u32 {
            let _ = write!(out, "<i class=\"b{shade}\"></i>");
        }
        let _ = write!(out, "</span> many {}</li>", escape(self.what));
        if any_late {
            out.push_str("<li><i class=\"swatch late\"></i>sent late by the generator itself</li>");
        }
        if !self.marks.is_empty() {
            out.push_str("<li><i class=\"swatch mark\"></i>marked spans</li>");
        }
        out.push_str("</ul>");
    }

    fn columns(&self) -> Vec<Column> {
        let list = |path: &str| -> Vec<Option<f64>> {
            let list = self.course.pointer(path).and_then(Value::as_array);
            list.into_iter().flatten().map(Value::as_f64).collect()
        };
        let (late, left) = (list("/late"), list("/left"));
        let mut columns: Vec<Column> = list("/highest_microseconds")
            .into_iter()
            .map(|highest| Column { highest, ..Column::default() })
            .collect();
        for ((column, late), left) in columns.iter_mut().zip(late).zip(left) {
            (column.late, column.left) = (late.unwrap_or(0.0), left.unwrap_or(0.0));
        }
        let cells = list("/cells/column")
            .into_iter()
            .zip(list("/cells/lowest_nanoseconds"))
            .zip(list("/cells/count"));
        for ((of, lowest), count) in cells {
            let (Some(of), Some(lowest), Some(count)) = (of, lowest, count) else { continue };
            if let Some(column) = columns.get_mut(of as usize) {
                column.cells.push((lowest / 1e3, count));
            }
        }
        columns
    }

    /// The drawing: one path for each shade, so that thousands of cells stay small.
    fn cells(&self, columns: &[Column], y: &Axis, most: f64, (begin, width): (f64, f64), out: &mut String) {
        let (wide, span) = (columns.len() as f64, width * columns.len() as f64);
        let _ = write!(
            out,
            "<svg class=\"map\" viewBox=\"0 0 {wide} 100\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"{}\">",
            escape(&self.description(columns, begin, width))
        );
        for (tick, _) in y.ticks() {
            if let Some(place) = y.place(tick) {
                let _ = write!(out, "<path class=\"grid\" d=\"M0 {:.2}H{wide}\"/>", (1.0 - place) * 100.0);
            }
        }
        for (from, until, name) in
            self.marks.iter().filter(|(from, until, _)| *until >= begin && *from <= begin + span)
        {
            let at = |seconds: f64| ((seconds - begin) / span * wide).clamp(0.0, wide);
            let (from, until) = (at(*from), at(*until));
            let _ = write!(
                out,
                "<rect class=\"span\" x=\"{from:.2}\" y=\"0\" width=\"{:.2}\" height=\"100\"><title>{}</title></rect>",
                (until - from).max(wide / 400.0),
                escape(name)
            );
        }
        let mut paths = vec![String::new(); SHADES as usize];
        for (index, column) in columns.iter().enumerate() {
            for (lowest, count) in &column.cells {
                let (Some(low), Some(high)) = (y.place(*lowest), y.place(next(*lowest))) else { continue };
                let shade = shade(*count, most);
                if let Some(path) = paths.get_mut(shade - 1) {
                    let (top, height) = ((1.0 - high) * 100.0, (high - low) * 100.0);
                    let _ = write!(path, "M{index} {top:.1}h1v{height:.1}h-1z");
                }
            }
        }
        for (shade, path) in (1..).zip(&paths).filter(|(_, path)| !path.is_empty()) {
            let _ = write!(out, "<path class=\"h{shade}\" d=\"{path}\"/>");
        }
        let every = columns.len().div_ceil(HOVERS_MAX).max(1);
        for (group, first) in columns.chunks(every).zip((0..).step_by(every)) {
            let said = self.said(group, begin + first as f64 * width, width);
            let _ = write!(
                out,
                "<rect class=\"hover\" x=\"{first}\" y=\"0\" width=\"{}\" height=\"100\"><title>{}</title></rect>",
                group.len(),
                escape(&said)
            );
        }
        out.push_str("</svg>");
    }

    /// What some neighbouring columns hold, in a line.
    fn said(&self, group: &[Column], begin: f64, width: f64) -> String {
        let end = begin + width * group.len() as f64;
        let of = Column::joined(group);
        let mut said = format!("{begin:.3} s to {end:.3} s: {} {}", grouped(of.count()), self.what);
        if let (Some(median), Some(highest)) = (of.median(), of.highest) {
            let (median, highest) = (text(Unit::Time, median), text(Unit::Time, highest));
            let _ = write!(said, ", half within {median}, longest {highest}");
        }
        if of.late > 0.0 {
            let _ = write!(said, ", {} sent late", grouped(of.late));
        }
        said
    }

    /// For readers who do not see it.
    fn description(&self, columns: &[Column], begin: f64, width: f64) -> String {
        let longest = columns
            .iter()
            .enumerate()
            .max_by(|(_, a), (_, b)| a.highest.unwrap_or(0.0).total_cmp(&b.highest.unwrap_or(0.0)));
        let longest =
            longest.and_then(|(index, column)| Some((begin + index as f64 * width, column.highest?)));
        let longest = longest.map_or_else(String::new, |(at, highest)| {
            format!(" The longest, {}, began at {at:.2} s.", text(Unit::Time, highest))
        });
        let marks: String = self.marks.iter().map(|(_, _, name)| format!(" Marked: {name}.")).collect();
        format!("Heat map, {} by {}.{longest}{marks} A table of it follows.", self.title, self.time)
    }

    fn table(&self, columns: &[Column], begin: f64, width: f64, out: &mut String) {
        out.push_str("<details><summary>The same as a table</summary><div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"");
        let _ = write!(out, "{} as a table\"><table class=\"kinds\"><tr>", escape(self.title));
        let any_left = columns.iter().any(|column| column.left > 0.0);
        let mut heads = vec!["from (s)", self.what, "half within", "longest"];
        if any_left {
            heads.extend(["left", "late"]);
        }
        for head in heads {
            let _ = write!(out, "<th scope=\"col\" class=\"number\">{}</th>", escape(head));
        }
        out.push_str("</tr>");
        let every = columns.len().div_ceil(ROWS_MAX).max(1);
        for (group, first) in columns.chunks(every).zip((0..).step_by(every)) {
            let of = Column::joined(group);
            let time =
                |value: Option<f64>| value.map_or_else(|| "n/a".to_owned(), |value| text(Unit::Time, value));
            let mut cells = vec![
                format!("{:.3}", begin + first as f64 * width),
                grouped(of.count()),
                time(of.median()),
                time(of.highest),
            ];
            if any_left {
                cells.extend([grouped(of.left), grouped(of.late)]);
            }
            out.push_str("<tr>");
            for cell in cells {
                let _ = write!(out, "<td class=\"number\">{}</td>", escape(&cell));
            }
            out.push_str("</tr>");
        }
        out.push_str("</table></div></details>");
    }
}

impl Column {
    fn joined(group: &[Self]) -> Self {
        let mut sum = Self::default();
        for column in group {
            sum.cells.extend(&column.cells);
            sum.highest = match (sum.highest, column.highest) {
                (Some(one), Some(two)) => Some(one.max(two)),
                (one, two) => one.or(two),
            };
            sum.late += column.late;
            sum.left += column.left;
        }
        sum.cells.sort_by(|a, b| a.0.total_cmp(&b.0));
        sum
    }

    fn count(&self) -> f64 {
        self.cells.iter().map(|(_, count)| count).sum()
    }

    /// The end of the cell that the median is in, so that at least half took no longer.
    fn median(&self) -> Option<f64> {
        let mut below = 0.0;
        let all = self.count();
        let cell = self.cells.iter().find(|(_, count)| {
            below += count;
            below * 2.0 >= all
        })?;
        Some(next(cell.0).min(self.highest.unwrap_or(f64::INFINITY)))
    }
}

/// Which of the shades a count has: each as many times the one before.
fn shade(count: f64, most: f64) -> usize {
    let place = if most > 1.0 { count.max(1.0).ln() / most.ln() } else { 1.0 };
    (place * (SHADES - 1.0)).round().clamp(0.0, SHADES - 1.0) as usize + 1
}

/// Where the next cell begins: cells are halves of a doubling, from 1 to 1.5 and from 1.5 to 2 of a power of two.
fn next(lowest_us: f64) -> f64 {
    let power = 2_f64.powf((lowest_us * 1e3).log2().floor()) / 1e3;
    if lowest_us < power * 1.25 { power * 1.5 } else { power * 2.0 }
}

/// A strip below the map that says where the generator was late.
fn late_strip(columns: &[Column], out: &mut String) {
    let _ = write!(
        out,
        "<svg class=\"strip\" viewBox=\"0 0 {} 10\" preserveAspectRatio=\"none\" aria-hidden=\"true\"><path class=\"late\" d=\"",
        columns.len()
    );
    for (index, _) in columns.iter().enumerate().filter(|(_, column)| column.late > 0.0) {
        let _ = write!(out, "M{index} 0h1v10h-1z");
    }
    out.push_str("\"/></svg>");
}

/// The times along the map.
fn times(begin: f64, span: f64, out: &mut String) {
    out.push_str("<div class=\"heat-x\" aria-hidden=\"true\">");
    let raw = span / TIMES_MAX as f64;
    let power = 10_f64.powf(raw.log10().floor());
    let step =
        [1.0, 2.0, 5.0, 10.0].into_iter().map(|round| round * power).find(|step| *step >= raw).unwrap_or(raw);
    let digits = (-step.log10().floor()).clamp(0.0, 3.0) as usize;
    // Not -0 for what begins a little before.
    let mut at = (begin / step).ceil() * step + 0.0;
    while at <= begin + span * 0.97 {
        let place = (at - begin) / span * 100.0;
        // A wide one in the middle of its place would run off the map, as the first one would.
        let end = if place > 90.0 { " class=\"end\"" } else { "" };
        let _ = write!(out, "<span{end} style=\"left:{place:.2}%\">{at:.digits$}</span>");
        at += step;
    }
    out.push_str("</div>");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::course::Course;

    const MS: u64 = 1_000_000;

    fn course() -> Value {
        let mut course = Course::default();
        for at in 0..1_000_u64 {
            let took = if (400..600).contains(&at) { 600 - at } else { 1 };
            course.on_turn(at * MS, if at == 700 { 5 * MS } else { 0 });
            course.on_left(at * MS, 0);
            course.record(at * MS, took * MS);
        }
        serde_json::to_value(course.report(0, None)).unwrap()
    }

    fn card(course: &Value, marks: &[(f64, f64, String)]) -> String {
        Heat { title: "Round trip <by>", note: "n", what: "messages", time: "time", course, marks }.card()
    }

    #[test]
    fn a_stall_is_a_triangle_and_a_row_of_the_table() {
        let card = card(&course(), &[(0.4, 0.6, "stall <1>".into())]);
        assert!(
            card.contains("Round trip &lt;by&gt;")
                && card.contains("stall &lt;1&gt;")
                && !card.contains("<by>")
        );
        for decade in [">1 ms<", ">10 ms<", ">100 ms<"] {
            assert!(card.contains(decade), "{decade}: {card}");
        }
        assert!(card.contains("The longest, 200 ms, began at 0.40 s."), "{card}");
        assert!(card.contains("class=\"strip\"") && card.contains("1 sent late"));
        assert!((20..=ROWS_MAX + 1).contains(&card.matches("<tr>").count()));
        assert!(card.matches("class=\"hover\"").count() <= HOVERS_MAX);
        assert!(card.len() < 100_000, "{}", card.len());
        assert_eq!(
            super::Heat { title: "", note: "", what: "", time: "", course: &Value::Null, marks: &[] }.card(),
            ""
        );
    }

    #[test]
    fn shades_go_from_one_to_the_most() {
        assert_eq!((shade(1.0, 1.0), shade(1.0, 1000.0), shade(1000.0, 1000.0)), (7, 1, 7));
        assert!(shade(30.0, 1000.0) > 2 && shade(30.0, 1000.0) < 6);
    }

    #[test]
    fn cells_end_where_the_next_begins() {
        for (lowest, end) in [(8.192, 12.288), (12.288, 16.384), (16.384, 24.576)] {
            assert!((next(lowest) - end).abs() < 1e-6, "{lowest}");
        }
    }

    #[test]
    fn the_last_time_ends_before_the_map_does() {
        let mut out = String::new();
        times(1.168, 0.039, &mut out);
        let last = out.rsplit("<span").next().unwrap_or_default();
        assert!(last.starts_with(" class=\"end\" style=\"left:9") && last.contains(">1.205<"), "{out}");
        assert_eq!(out.matches("class=\"end\"").count(), 1, "{out}");
    }
}
