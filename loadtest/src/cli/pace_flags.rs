//! Flags of when messages leave.

use std::time::Duration;

use clap::Args;

use crate::base::pace::{Arrivals, Pace};
use crate::base::schedule::parse_duration;
use crate::base::stages::{self, Stage};

/// When messages leave, beside their rate.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Pace")]
pub(crate) struct PaceFlags {
    /// Let the rate grow evenly from nothing to --rate for so long first
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = parse_duration, hide_default_value = true)]
    pub(crate) ramp: Duration,

    /// Stages instead of --rate and --duration, as in 10s@100,30s@1000: how long, and the rate or, as in 30s@100..1k,
    /// the rates from the one to the other of which it grows; ..1k goes on from where the stage before has ended
    #[arg(long, value_name = "LIST", value_parser = Stages::parse, conflicts_with_all = ["rate", "duration", "ramp"])]
    pub(crate) stages: Option<Stages>,

    /// When messages leave: at even distances, or by chance, as those of many people do
    #[arg(long, value_enum, default_value_t = Arrivals::Even)]
    pub(crate) arrivals: Arrivals,

    /// Send at the first rate for so long before the run; nothing of it counts, neither latencies nor losses
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = parse_duration, hide_default_value = true)]
    pub(crate) warm_up: Duration,
}

/// The value of `--stages`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Stages(Vec<Stage>);

impl Stages {
    fn parse(text: &str) -> Result<Self, String> {
        Pace::parse_stages(text).map(Self)
    }
}

/// The value of `--connection-stages`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ConnectionStages(pub(crate) Vec<Stage>);

impl ConnectionStages {
    /// Reads stages that have at least one connection.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let stages = stages::parse(text, "a number of connections", 10_000_000.0)?;
        if stages::peak(&stages) < 1.0 {
            Err("these stages have no connection".into())
        } else {
            Ok(Self(stages))
        }
    }
}

impl PaceFlags {
    /// The pace of a run at `rate` for `duration`, unless there are stages.
    pub(crate) fn pace(&self, rate: f64, duration: Duration) -> Pace {
        match &self.stages {
            Some(Stages(stages)) => Pace { stages: stages.clone(), arrivals: self.arrivals },
            None => Pace::even(rate, duration, self.ramp, self.arrivals),
        }
    }

    /// The pace of the warm-up of a run at this pace; `None` without one.
    pub(crate) fn warm_up(&self, pace: &Pace) -> Option<Pace> {
        let rate = match (self.ramp.is_zero(), pace.stages.first()) {
            (true, Some(stage)) => stage.from.max(stage.to),
            _ => pace.peak(),
        };
        let wanted = !self.warm_up.is_zero() && rate > 0.0;
        wanted.then(|| Pace::even(rate, self.warm_up, Duration::ZERO, self.arrivals))
    }
}
