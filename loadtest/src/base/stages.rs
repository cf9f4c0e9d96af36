//! Stages, one after the other: how long each is, and at what level it stays, or from which to which it goes. Of the rate
//! of messages and of the number of open connections alike. Pure.

use crate::base::schedule::parse_duration;

/// A stretch of time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Stage {
    /// How long it is, in seconds.
    pub(crate) seconds: f64,
    /// The level at its beginning.
    pub(crate) from: f64,
    /// The level at its end.
    pub(crate) to: f64,
}

/// Reads `10s@100,30s@100..1k,30s@..0`: the time of each stage and its level, or the levels between which it goes; without
/// the first of these it goes on from where the stage before has ended, the first one from 0. `what` a level is says the
/// error, `most` the highest there may be.
pub(crate) fn parse(text: &str, what: &str, most: f64) -> Result<Vec<Stage>, String> {
    let mut last = 0.0;
    let stage = |text: &str| {
        let (time, levels) =
            text.split_once('@').ok_or("a stage is as 10s@100, 30s@100..1000 or 30s@..1000")?;
        let seconds = parse_duration(time.trim())?.as_secs_f64();
        let (from, to) = match levels.split_once("..") {
            Some((from, to)) if from.trim().is_empty() => (last, level(to, what, most)?),
            Some((from, to)) => (level(from, what, most)?, level(to, what, most)?),
            None => (level(levels, what, most)?, level(levels, what, most)?),
        };
        last = to;
        if seconds > 0.0 {
            Ok(Stage { seconds, from, to })
        } else {
            Err(format!("{text}: a stage takes its time"))
        }
    };
    text.split(',').map(stage).collect()
}

/// A number, perhaps with k or m behind it.
fn level(text: &str, what: &str, most: f64) -> Result<f64, String> {
    let lower = text.trim().to_ascii_lowercase();
    let (digits, by) = match lower.strip_suffix('k') {
        Some(digits) => (digits, 1e3),
        None => lower.strip_suffix('m').map_or((lower.as_str(), 1.0), |digits| (digits, 1e6)),
    };
    let level = digits.parse::<f64>().ok().map(|number| number * by);
    level
        .filter(|level| (0.0..=most).contains(level))
        .ok_or_else(|| format!("{text:?} is not {what} from 0 to {most}"))
}

/// The level so many seconds after the beginning; behind the last stage it stays.
pub(crate) fn at(stages: &[Stage], seconds: f64) -> f64 {
    let mut begun = 0.0;
    for stage in stages {
        if seconds < begun + stage.seconds {
            let share = ((seconds - begun) / stage.seconds).clamp(0.0, 1.0);
            return stage.from + (stage.to - stage.from) * share;
        }
        begun += stage.seconds;
    }
    stages.last().map_or(0.0, |stage| stage.to)
}

/// The highest level.
pub(crate) fn peak(stages: &[Stage]) -> f64 {
    stages.iter().map(|stage| stage.from.max(stage.to)).fold(0.0, f64::max)
}

/// From the first to the last moment, in seconds.
pub(crate) fn seconds(stages: &[Stage]) -> f64 {
    stages.iter().map(|stage| stage.seconds).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_follow_each_other_and_go_on_from_where_they_were() {
        let stages = parse("2s@..1k, 1s@1k,4s@1k..200,1s@..0,1s@..0.5k", "a level", 1e6).unwrap();
        assert_eq!((seconds(&stages), peak(&stages)), (9.0, 1_000.0));
        for (after, level) in [
            (-1.0, 0.0),
            (0.0, 0.0),
            (1.0, 500.0),
            (2.0, 1_000.0),
            (2.9, 1_000.0),
            (3.0, 1_000.0),
            (5.0, 600.0),
            (7.5, 100.0),
            (8.0, 0.0),
            (8.5, 250.0),
            (9.0, 500.0),
            (99.0, 500.0),
        ] {
            assert!((at(&stages, after) - level).abs() < 1e-9, "{after}: {}", at(&stages, after));
        }
        // One that does not go on jumps.
        let stages = parse("1s@5,1s@10", "a level", 10.0).unwrap();
        assert_eq!((at(&stages, 0.99), at(&stages, 1.0)), (5.0, 10.0));
    }

    #[test]
    fn what_is_no_stage_is_refused() {
        for wrong in [
            "", "100", "10@5", "10s", "10s@", "10s@x", "10s@-1", "0s@10", "10s@5,", "5s@1..x", "5s@1..",
            "5s@..", "5s@11", "5s@0.1k", "5s@kk",
        ] {
            assert!(parse(wrong, "a level", 10.0).is_err(), "{wrong}");
        }
        assert!(parse("1s@11", "a level", 10.0).unwrap_err().contains("is not a level from 0 to 10"));
    }
}
