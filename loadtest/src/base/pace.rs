//! How many messages a second leave as time goes on: stages one after the other, each at a rate or from one to another,
//! and whether they leave evenly or as they come by chance. Pure.

use std::time::Duration;

use crate::base::stages::{self, Stage};

/// When messages leave within a stage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Arrivals {
    /// At even distances.
    #[default]
    Even,
    /// By chance, each independent of the others, as the messages of many people do.
    Poisson,
}

/// See the module's head.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Pace {
    /// At least one.
    pub(crate) stages: Vec<Stage>,
    /// Within them.
    pub(crate) arrivals: Arrivals,
}

impl Stage {
    fn messages(&self) -> f64 {
        (self.from + self.to) / 2.0 * self.seconds
    }

    /// When so many messages have left since its beginning, in seconds.
    fn seconds_of(&self, messages: f64) -> f64 {
        let slope = (self.to - self.from) / self.seconds;
        if slope.abs() < 1e-9 {
            return messages / self.from.max(f64::MIN_POSITIVE);
        }
        // Messages by time are a parabola. This form of its root loses no digits where it is nearly a line.
        let root = (self.from * self.from + 2.0 * slope * messages).max(0.0).sqrt();
        2.0 * messages / (self.from + root).max(f64::MIN_POSITIVE)
    }
}

impl Pace {
    /// One rate all the time, behind a ramp up to it.
    pub(crate) fn even(rate: f64, duration: Duration, ramp: Duration, arrivals: Arrivals) -> Self {
        let ramp = Stage { seconds: ramp.as_secs_f64(), from: 0.0, to: rate };
        let flat = Stage { seconds: duration.as_secs_f64(), from: rate, to: rate };
        let stages = [ramp, flat].into_iter().filter(|stage| stage.seconds > 0.0).collect();
        Self { stages, arrivals }
    }

    /// Stages of rates, as [`stages::parse`] reads them; they have to have a message.
    pub(crate) fn parse_stages(text: &str) -> Result<Vec<Stage>, String> {
        let stages = stages::parse(text, "a rate", 10_000_000.0)?;
        let messages: f64 = stages.iter().map(Stage::messages).sum();
        if messages < 1.0 { Err("these stages have no message".into()) } else { Ok(stages) }
    }

    /// From the first to the last moment.
    pub(crate) fn seconds(&self) -> f64 {
        stages::seconds(&self.stages)
    }

    /// Messages in all, on average if they come by chance.
    pub(crate) fn messages(&self) -> f64 {
        // The sum of nothing is -0.
        self.stages.iter().map(Stage::messages).sum::<f64>() + 0.0
    }

    /// The highest rate.
    pub(crate) fn peak(&self) -> f64 {
        stages::peak(&self.stages)
    }

    /// Messages a second over the whole time.
    pub(crate) fn mean(&self) -> f64 {
        self.messages() / self.seconds().max(f64::MIN_POSITIVE)
    }

    /// The one rate there is; `None` if it changes, or messages come by chance.
    pub(crate) fn flat(&self) -> Option<f64> {
        match self.stages[..] {
            [Stage { from, to, .. }] if from == to && self.arrivals == Arrivals::Even => Some(from),
            _ => None,
        }
    }

    /// When ticks of `burst` messages leave, in ns from the beginning; `random` gives numbers from 0 to below 1.
    pub(crate) fn ticks(&self, burst: f64, mut random: impl FnMut() -> f64) -> Vec<u64> {
        let mut ticks = Vec::new();
        // Messages up to the next tick, those before the stage, and its beginning.
        let (mut next, mut before, mut begun) = (0.0, 0.0, 0.0);
        let mut gap = || match self.arrivals {
            Arrivals::Even => burst,
            // Distances of independent events are exponential.
            Arrivals::Poisson => -burst * (1.0 - random()).ln(),
        };
        if self.arrivals == Arrivals::Poisson {
            next = gap();
        }
        for stage in &self.stages {
            let messages = stage.messages();
            // What rounding leaves must not move a tick into the next stage, or behind the end.
            while next < before + messages - 1e-6 {
                let seconds = begun + stage.seconds_of(next - before).min(stage.seconds);
                ticks.push((seconds * 1e9) as u64);
                next += gap();
            }
            before += messages;
            begun += stage.seconds;
        }
        ticks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticks(text: &str) -> Vec<u64> {
        let stages = Pace::parse_stages(text).unwrap();
        Pace { stages, arrivals: Arrivals::Even }.ticks(1.0, || unreachable!("they are even"))
    }

    fn between(ticks: &[u64], from: f64, to: f64) -> usize {
        ticks.iter().filter(|ns| (from * 1e9..to * 1e9).contains(&(**ns as f64))).count()
    }

    #[test]
    fn stages_follow_each_other_at_their_rates() {
        let ticks = ticks("2s@100,1s@0,3s@1000");
        assert_eq!(ticks.len(), 3_200);
        assert_eq!(
            [between(&ticks, 0.0, 2.0), between(&ticks, 2.0, 3.0), between(&ticks, 3.0, 6.0)],
            [200, 0, 3_000]
        );
        assert_eq!(ticks[1] - ticks[0], 10_000_000);
        assert!(ticks.is_sorted());
    }

    #[test]
    fn a_ramp_grows_evenly() {
        let ticks = ticks("10s@0..1000");
        assert_eq!(ticks.len(), 5_000);
        // The area below the line: a hundredth in the first tenth, a quarter in the first half.
        assert_eq!([between(&ticks, 0.0, 1.0), between(&ticks, 0.0, 5.0)], [50, 1_250]);
        let down = self::ticks("10s@1000..0");
        assert_eq!([between(&down, 0.0, 5.0), between(&down, 9.0, 10.0)], [3_750, 50]);
        assert!(down.is_sorted() && down.last().is_some_and(|last| *last < 10_000_000_000));
        let pace = Pace::even(100.0, Duration::from_secs(5), Duration::from_secs(2), Arrivals::Even);
        assert_eq!((pace.messages(), pace.seconds(), pace.peak(), pace.flat()), (600.0, 7.0, 100.0, None));
        assert_eq!(Pace::even(7.0, Duration::from_secs(5), Duration::ZERO, Arrivals::Even).flat(), Some(7.0));
    }

    #[test]
    fn messages_by_chance_are_as_many_and_as_independent() {
        let mut state = 1u64;
        let random = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 11) as f64 / (1u64 << 53) as f64
        };
        let pace = Pace::even(1_000.0, Duration::from_secs(20), Duration::ZERO, Arrivals::Poisson);
        let ticks = pace.ticks(1.0, random);
        assert!((19_500..20_500).contains(&ticks.len()), "{}", ticks.len());
        let gaps: Vec<f64> = ticks.windows(2).map(|pair| (pair[1] - pair[0]) as f64 / 1e6).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let deviation = (gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64).sqrt();
        // Of an exponential distribution both are the same, and e to the power of -1 of the gaps are longer.
        let longer = gaps.iter().filter(|gap| **gap > mean).count() as f64 / gaps.len() as f64;
        assert!((mean - 1.0).abs() < 0.03 && (deviation - 1.0).abs() < 0.05, "{mean} {deviation}");
        assert!((longer - (-1.0f64).exp()).abs() < 0.02, "{longer}");
    }

    #[test]
    fn stages_without_a_message_are_refused() {
        for wrong in ["10s@0", "1s@0.5", "10s@x"] {
            assert!(Pace::parse_stages(wrong).is_err(), "{wrong}");
        }
        assert_eq!(Pace::parse_stages("1s@..2k,1s@1").unwrap().len(), 2);
    }
}
