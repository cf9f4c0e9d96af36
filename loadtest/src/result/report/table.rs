//! The table on standard output, and how a figure is written in it. What is unknown is `n/a`. Pure.

use serde_json::Value;

use super::latency::{LatencyReport, P999_LEAST};
use crate::result::findings::{Fault, Findings};
use crate::result::histogram_columns;

/// Two columns on standard output.
#[derive(Debug, Default)]
pub(crate) struct Table {
    pub(super) rows: Vec<(String, String)>,
}

impl Table {
    /// Adds a row.
    pub(crate) fn row(&mut self, name: &str, value: impl ToString) {
        self.rows.push((name.to_owned(), value.to_string()));
    }

    /// Adds what was found in front of the verdict, if anything was.
    pub(crate) fn findings(&mut self, findings: &Findings) {
        let verdict = self.rows.pop();
        if findings.fault != Fault::Nobody {
            self.row("whose fault", findings.fault.text());
            if let Some(stalled) = findings.stalled.as_ref().filter(|_| !findings.stalls.is_empty()) {
                self.row("  when it stalled", stalled);
            }
            if let Some(limit) = &findings.limit {
                self.row("  which limit", limit);
            }
        }
        self.rows.extend(verdict);
    }

    /// Adds a row of percentiles.
    pub(crate) fn latency(&mut self, name: &str, latency: Option<&LatencyReport>) {
        let value = latency.map_or_else(
            || "n/a".to_owned(),
            |latency| {
                let at = |microseconds| microseconds_text(Some(microseconds));
                let tails = [
                    ("p90", latency.p90_microseconds),
                    ("p99", latency.p99_microseconds),
                    ("p99.9", latency.p999_microseconds),
                ];
                let carried = tails.iter().filter_map(|(name, value)| Some((name, (*value)?)));
                let tails: String = carried.map(|(name, value)| format!("{name} {}, ", at(value))).collect();
                let (p50, max) = (at(latency.p50_microseconds), at(latency.max_microseconds));
                let few =
                    if latency.count < P999_LEAST { format!(", n {}", latency.count) } else { String::new() };
                format!("p50 {p50}, {tails}max {max}{few}")
            },
        );
        self.row(name, value);
    }

    /// The same of a latency in a result file.
    pub(crate) fn latency_of(&mut self, name: &str, latency: Option<&Value>) {
        let read = latency.and_then(histogram_columns::read);
        self.latency(name, read.as_ref().and_then(LatencyReport::new).as_ref());
    }

    /// The table as text.
    pub(crate) fn text(&self) -> String {
        let width = self.rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        self.rows.iter().map(|(name, value)| format!("{name:width$}  {value}\n")).collect()
    }
}

/// A time with a readable unit, or `n/a`.
pub(crate) fn microseconds_text(microseconds: Option<f64>) -> String {
    match microseconds {
        None => "n/a".into(),
        Some(us) if us < 1_000.0 => format!("{us:.0} us"),
        Some(us) if us < 1_000_000.0 => format!("{:.2} ms", us / 1e3),
        Some(us) => format!("{:.2} s", us / 1e6),
    }
}

/// A number with its unit, or `n/a`.
pub(crate) fn number_text(number: Option<f64>, digits: usize, unit: &str) -> String {
    number.map_or_else(|| "n/a".to_owned(), |number| format!("{number:.digits$}{unit}"))
}

/// A count, or `n/a`.
pub(crate) fn count_text(count: Option<u64>) -> String {
    count.map_or_else(|| "n/a".to_owned(), |count| count.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::tally::Tally;

    #[test]
    fn unknown_is_not_zero() {
        assert_eq!(microseconds_text(None), "n/a");
        assert_eq!(number_text(None, 1, " B"), "n/a");
        assert!(LatencyReport::new(&Tally::new().latency).is_none());
        let mut table = Table::default();
        table.latency("latency", None);
        assert_eq!(table.text(), "latency  n/a\n");
    }

    #[test]
    fn percentiles_that_the_values_can_not_carry_are_left_out_everywhere() {
        let of = |count: u64| {
            let mut histogram = Tally::new().latency;
            histogram.saturating_record_n(5_000_000, count);
            let report = LatencyReport::new(&histogram).unwrap();
            let mut table = Table::default();
            table.latency("latency", Some(&report));
            let json = serde_json::to_value(&report).unwrap();
            let nulls = json.as_object().unwrap().values().filter(|value| value.is_null()).count();
            (nulls, table.text())
        };
        for (count, nulls, left) in [
            (9, 3, "p50 5.00 ms, max"),
            (10, 2, "p90 5.00 ms, max"),
            (99, 2, "p90 5.00 ms, max"),
            (100, 1, "p99 5.00 ms, max"),
        ] {
            let (unknown, text) = of(count);
            assert_eq!(unknown, nulls, "of {count}");
            assert!(text.contains(left) && text.contains(&format!(", n {count}")), "{text}");
        }
        let (unknown, text) = of(1_000);
        assert!(unknown == 0 && text.contains("p99.9") && !text.contains(", n "), "{text}");
    }

    #[test]
    fn times_get_a_readable_unit() {
        assert_eq!(microseconds_text(Some(12.3)), "12 us");
        assert_eq!(microseconds_text(Some(1234.0)), "1.23 ms");
        assert_eq!(microseconds_text(Some(2_500_000.0)), "2.50 s");
    }
}
