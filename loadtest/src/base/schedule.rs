//! The open model: when each message is planned to leave, whatever the server does meanwhile.
//!
//! Latency is counted from the planned time, so a server (or a generator) that stalls is charged for
//! every message that should have left meanwhile. Pure arithmetic; the clock is [`Clock`].

use std::sync::Arc;
use std::time::Duration;

use fantail::sys::clock;

use crate::base::pace::Pace;

/// A send that leaves later than this after its planned time is counted as late.
pub(crate) const LATE_NS: u64 = 1_000_000;

/// How soon a sleeping sender notices that the run ends early.
const STOP_LATENCY: Duration = Duration::from_millis(50);

/// Nanoseconds since the start of the process, the same in every thread.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    base_ns: u64,
}

impl Clock {
    /// Starts counting now.
    pub(crate) fn start() -> Self {
        Self { base_ns: clock::system_monotonic_ns() }
    }

    /// Nanoseconds since the start.
    #[inline]
    pub(crate) fn now_ns(&self) -> u64 {
        clock::system_monotonic_ns().saturating_sub(self.base_ns)
    }

    /// Sleeps until the planned time; returns at once if it has passed. False if `stop` became true before.
    pub(crate) fn sleep_until(&self, planned_ns: u64, stop: impl Fn() -> bool) -> bool {
        loop {
            if stop() {
                return false;
            }
            let wait = Duration::from_nanos(planned_ns.saturating_sub(self.now_ns()));
            if wait.is_zero() {
                return true;
            }
            std::thread::sleep(wait.min(STOP_LATENCY));
        }
    }
}

/// Ticks of a plan whose times are kept, because they follow no formula: 8 bytes each.
const TICKS_KEPT_MAX: f64 = 10_000_000.0;

/// The plan of a run: `count` messages in ticks of `burst`.
#[derive(Clone, Debug)]
pub(crate) struct Schedule {
    start_ns: u64,
    times: Times,
    burst: u64,
    count: u64,
}

/// When ticks are, from the start.
#[derive(Clone, Debug)]
enum Times {
    /// At even distances.
    Even {
        /// From one to the next, in ns.
        tick_ns: f64,
    },
    /// At these times, in ns; the whole takes longer than the last.
    Listed {
        /// They rise, or stay where they are.
        ticks: Arc<[u64]>,
        /// From the start to the end of the last stage.
        span_ns: u64,
    },
}

impl Schedule {
    /// `rate` messages a second for `duration`, `burst` of them at a time; at least one message.
    pub(crate) fn new(start_ns: u64, rate: f64, burst: u32, duration: Duration) -> Self {
        let burst = u64::from(burst.max(1));
        let count = ((rate * duration.as_secs_f64()).round() as u64).clamp(1, u64::from(u32::MAX - 1));
        Self { start_ns, times: Times::Even { tick_ns: burst as f64 * 1e9 / rate }, burst, count }
    }

    /// As `pace` says, `burst` messages at a time; `random` gives numbers from 0 to below 1.
    pub(crate) fn paced(pace: &Pace, burst: u32, random: impl FnMut() -> f64) -> Result<Self, String> {
        if let Some(rate) = pace.flat() {
            return Ok(Self::new(0, rate, burst, Duration::from_secs_f64(pace.seconds())));
        }
        let burst = u64::from(burst.max(1));
        let expected = pace.messages() / burst as f64;
        if expected > TICKS_KEPT_MAX {
            return Err(format!(
                "{:.0} messages by stages or by chance are more than {TICKS_KEPT_MAX}: make the run shorter, or use --burst",
                pace.messages()
            ));
        }
        let mut ticks = pace.ticks(burst as f64, random);
        if ticks.is_empty() {
            // By chance there may be none, and a run of none says nothing.
            ticks.push(0);
        }
        let span_ns = (pace.seconds() * 1e9) as u64;
        let count = ticks.len() as u64 * burst;
        Ok(Self { start_ns: 0, times: Times::Listed { ticks: ticks.into(), span_ns }, burst, count })
    }

    /// The same plan from another moment on.
    pub(crate) fn starting(self, start_ns: u64) -> Self {
        Self { start_ns, ..self }
    }

    /// The same plan with no message that is planned later than `now_ns`.
    pub(crate) fn cut(mut self, now_ns: u64) -> Self {
        let passed_ns = now_ns.saturating_sub(self.start_ns);
        let begun = match &self.times {
            _ if now_ns < self.start_ns => 0,
            Times::Even { tick_ns } => (passed_ns as f64 / tick_ns) as u64 + 1,
            Times::Listed { ticks, .. } => ticks.partition_point(|tick_ns| *tick_ns <= passed_ns) as u64,
        };
        self.count = self.count.min(begun.saturating_mul(self.burst));
        self
    }

    /// The same plan with the first `count` messages at most.
    pub(crate) fn first(mut self, count: u64) -> Self {
        self.count = self.count.min(count);
        self
    }

    /// Messages in the plan.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// Ticks in the plan.
    pub(crate) fn ticks(&self) -> u64 {
        self.count.div_ceil(self.burst)
    }

    /// From the first planned time to the end of the last tick.
    pub(crate) fn planned_span_ns(&self) -> u64 {
        match &self.times {
            Times::Even { tick_ns } => (self.ticks() as f64 * tick_ns) as u64,
            Times::Listed { ticks, span_ns } => match ticks.get(self.ticks() as usize) {
                // It was cut: up to the first that is left out.
                Some(next_ns) => *next_ns,
                None => *span_ns,
            },
        }
    }

    /// When message `index` is planned to leave.
    pub(crate) fn planned_ns(&self, index: u64) -> u64 {
        let tick = index / self.burst;
        let since_ns = match &self.times {
            Times::Even { tick_ns } => (tick as f64 * tick_ns) as u64,
            Times::Listed { ticks, span_ns } => ticks.get(tick as usize).copied().unwrap_or(*span_ns),
        };
        self.start_ns + since_ns
    }

    /// Messages of one tick (the last may be short).
    pub(crate) fn messages_of_tick(&self, tick: u64) -> std::ops::Range<u64> {
        (tick * self.burst)..((tick + 1) * self.burst).min(self.count)
    }

    /// The tick a planned time belongs to; `None` outside the plan.
    pub(crate) fn tick_of(&self, planned_ns: u64) -> Option<u64> {
        let since = planned_ns.checked_sub(self.start_ns)?;
        let tick = match &self.times {
            Times::Even { tick_ns } => (since as f64 / tick_ns).round() as u64,
            // Of several at the same time the last, which nobody can tell from the others.
            Times::Listed { ticks, .. } => {
                (ticks.partition_point(|tick_ns| *tick_ns <= since) as u64).checked_sub(1)?
            }
        };
        (tick < self.ticks()).then_some(tick)
    }
}

/// Parses "5s", "500ms", "2m", "1.5s"; a bare number is refused, because its unit would be a guess.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let seconds_per_unit = match unit {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        "" => return Err("a duration needs a unit, as in 500ms, 5s, 2m".into()),
        _ => return Err(format!("unknown unit {unit:?}; use ms, s, m or h")),
    };
    let number: f64 = number.parse().map_err(|_| format!("{text:?} is not a duration such as 5s"))?;
    let duration = Duration::try_from_secs_f64(number * seconds_per_unit).map_err(|e| e.to_string())?;
    if duration > Duration::from_secs(7 * 24 * 3600) {
        return Err("more than a week".into());
    }
    Ok(duration)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_parse_with_a_unit_only() {
        assert_eq!(parse_duration("5s"), Ok(Duration::from_secs(5)));
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(parse_duration("1.5s"), Ok(Duration::from_millis(1500)));
        for wrong in ["", "5", "s", "5 s", "-1s", "1d", "1.2.3s", "999999h"] {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_plan_is_even_and_bursts_share_a_time() {
        let plan = Schedule::new(1000, 100.0, 1, Duration::from_secs(2));
        assert_eq!((plan.count(), plan.ticks()), (200, 200));
        assert_eq!(plan.planned_ns(0), 1000);
        assert_eq!(plan.planned_ns(3), 1000 + 30_000_000);

        let bursts = Schedule::new(0, 100.0, 30, Duration::from_secs(1));
        assert_eq!((bursts.count(), bursts.ticks()), (100, 4));
        assert_eq!(bursts.planned_ns(29), 0);
        assert_eq!(bursts.planned_ns(30), 300_000_000);
        assert_eq!(bursts.messages_of_tick(3), 90..100);
    }

    #[test]
    fn a_plan_can_end_early() {
        let plan = Schedule::new(1_000, 1_000.0, 3, Duration::from_secs(1));
        assert_eq!(plan.clone().cut(999).count(), 0);
        assert_eq!(plan.clone().cut(1_000).count(), 3);
        assert_eq!(plan.clone().cut(3_001_000).count(), 6);
        assert_eq!(plan.clone().cut(u64::MAX).count(), 1_000);
        let first = plan.clone().first(7);
        assert_eq!((first.count(), first.ticks()), (7, 3));
        for now_ns in (0..40_000_000).step_by(333_333) {
            let cut = plan.clone().cut(now_ns);
            assert!((0..cut.count()).all(|index| plan.planned_ns(index) <= now_ns));
            assert!(cut.count() == plan.count() || plan.planned_ns(cut.count()) > now_ns);
        }
    }

    #[test]
    fn a_planned_time_leads_back_to_its_tick() {
        for rate in [0.5, 3.0, 7.7, 1000.0, 99_999.0] {
            let plan = Schedule::new(123_456_789, rate, 3, Duration::from_secs(20));
            for index in 0..plan.count() {
                assert_eq!(plan.tick_of(plan.planned_ns(index)), Some(index / 3), "rate {rate}");
            }
            assert_eq!(plan.tick_of(0), None);
            assert_eq!(plan.tick_of(u64::MAX), None);
        }
    }

    #[test]
    fn a_plan_of_stages_keeps_the_same_rules() {
        let stages = Pace::parse_stages("1s@10,1s@0,1s@20..40").unwrap();
        let pace = Pace { stages, arrivals: crate::base::pace::Arrivals::Even };
        let plan = Schedule::paced(&pace, 2, || unreachable!("it is even")).unwrap().starting(1_000);
        assert_eq!((plan.count(), plan.ticks(), plan.planned_span_ns()), (40, 20, 3_000_000_000));
        assert_eq!((plan.planned_ns(0), plan.planned_ns(3)), (1_000, 1_000 + 200_000_000));
        for index in 0..plan.count() {
            assert_eq!(plan.tick_of(plan.planned_ns(index)), Some(index / 2));
        }
        for now_ns in (0..3_500_000_000).step_by(33_333_333) {
            let cut = plan.clone().cut(now_ns);
            assert!((0..cut.count()).all(|index| plan.planned_ns(index) <= now_ns));
            assert!(cut.count() == plan.count() || plan.planned_ns(cut.count()) > now_ns);
        }
        assert_eq!(plan.clone().first(4).planned_span_ns(), 400_000_000);
        let many = Pace::even(1e7, Duration::from_secs(9), Duration::from_secs(1), pace.arrivals);
        assert!(Schedule::paced(&many, 1, || 0.5).unwrap_err().contains("--burst"));
        // Nothing by chance is one message all the same.
        let rare =
            Pace::even(0.1, Duration::from_secs(1), Duration::ZERO, crate::base::pace::Arrivals::Poisson);
        assert_eq!(Schedule::paced(&rare, 1, || 0.9).unwrap().count(), 1);
    }

    #[test]
    fn a_slow_plan_still_has_one_message() {
        assert_eq!(Schedule::new(0, 0.1, 1, Duration::from_secs(1)).count(), 1);
    }
}
