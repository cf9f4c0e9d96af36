//! A comparison in words: what fell, what rose, from what to what and how many times. Pure.

use super::{Figure, Verdict};
use crate::result::figures;
use crate::result::threshold;

/// Figures that are told of where nobody knows the noise: what a reader looks for first.
const FIRST: [&str; 6] = ["latency.p50", "latency.p99", "connect_latency.p99", "away.p99", "missing", "lost"];
/// Below this many times the difference is nothing to speak of where nobody knows the noise.
const TIMES_LEAST: f64 = 1.1;

/// A sentence for each figure that differs, the largest difference first.
pub(super) fn words(figures: &[Figure], noise_known: bool) -> Vec<String> {
    let mut told: Vec<&Figure> = figures.iter().filter(|figure| is_told(figure)).collect();
    told.sort_by(|a, b| times(b).total_cmp(&times(a)));
    let mut said: Vec<String> = told.into_iter().map(sentence).collect();
    if noise_known && said.is_empty() {
        said.push("Nothing differs by more than the noise".to_owned());
    }
    said
}

fn is_told(figure: &Figure) -> bool {
    match figure.verdict {
        Verdict::Lower | Verdict::Higher => true,
        Verdict::CannotTell => {
            times(figure) >= TIMES_LEAST && FIRST.iter().any(|first| figure.name.contains(first))
        }
        Verdict::Same | Verdict::WithinNoise => false,
    }
}

fn sentence(figure: &Figure) -> String {
    let (kind, divisor) = figures::kind(&figure.name);
    let value = |value: f64| threshold::text(kind, value / divisor);
    let verb = if figure.b < figure.a { "fell" } else { "rose" };
    let mut said = format!("{} {verb} from {} to {}", name(&figure.name), value(figure.a), value(figure.b));
    let times = times(figure);
    if times.is_finite() {
        said += &format!(", {times:.*} x", if times < 10.0 { 1 } else { 0 });
    }
    if figure.verdict == Verdict::CannotTell {
        said += "; too few runs to tell it from the noise";
    }
    said
}

/// How many times the smaller one the larger one is.
fn times(figure: &Figure) -> f64 {
    let (a, b) = (figure.a.abs(), figure.b.abs());
    if a == b { 1.0 } else { a.max(b) / a.min(b) }
}

/// A path as one says it: "connect latency p99", without its unit.
fn name(path: &str) -> String {
    let mut name = path.replace(['.', '_'], " ");
    for (from, to) in
        [("connections connect", "connect"), (" microseconds", ""), (" seconds", ""), ("p999", "p99.9")]
    {
        name = name.replace(from, to);
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(name: &str, a: f64, b: f64, verdict: Verdict) -> Figure {
        Figure { name: name.to_owned(), a, b, ratio: None, a_spread: None, b_spread: None, verdict }
    }

    #[test]
    fn differences_are_sentences_with_units_and_noise_is_none() {
        let figures = [
            figure("latency.p99_microseconds", 20_400.0, 12_000.0, Verdict::Lower),
            figure("connections.connect_latency.p99_microseconds", 10.0, 90.0, Verdict::Higher),
            figure("missing", 0.0, 3.0, Verdict::Higher),
            figure("latency.p50_microseconds", 1.0, 2.0, Verdict::WithinNoise),
        ];
        assert_eq!(
            words(&figures, true),
            [
                "missing rose from 0 to 3",
                "connect latency p99 rose from 10 us to 90 us, 9.0 x",
                "latency p99 fell from 20.40 ms to 12.00 ms, 1.7 x",
            ]
        );
        assert_eq!(words(&figures[3..], true), ["Nothing differs by more than the noise"]);
    }

    #[test]
    fn without_noise_only_what_matters_and_differs_is_told_with_a_reserve() {
        let figures = [
            figure("latency.p99_microseconds", 10.0, 25.0, Verdict::CannotTell),
            figure("latency.p50_microseconds", 10.0, 10.5, Verdict::CannotTell),
            figure("generator.cpu_seconds", 1.0, 9.0, Verdict::CannotTell),
        ];
        assert_eq!(
            words(&figures, false),
            ["latency p99 rose from 10 us to 25 us, 2.5 x; too few runs to tell it from the noise"]
        );
        assert!(words(&figures[1..], false).is_empty());
    }
}
