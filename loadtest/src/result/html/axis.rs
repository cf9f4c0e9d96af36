//! Where values lie on an axis, and what its ticks say. Pure.

/// What an axis measures; decides how its ticks are divided and written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    /// A plain number.
    Count,
    /// Seconds.
    Seconds,
    /// A time, held in microseconds and written in what fits.
    Time,
    /// Bytes, written in powers of 1024.
    Bytes,
}

/// How values become places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scale {
    /// Even, from zero.
    Linear,
    /// Each power of ten the same length. Only values above zero have a place.
    Log,
    /// Values are quantiles below 1; each further nine has the same length.
    Nines,
}

/// One axis of a chart.
#[derive(Clone, Debug)]
pub(super) struct Axis {
    unit: Unit,
    scale: Scale,
    /// In scaled terms.
    low: f64,
    high: f64,
    ticks: Vec<f64>,
}

impl Axis {
    /// An axis that has room for every value. A `tight` one ends at the highest, the others at a tick.
    pub(super) fn new(unit: Unit, scale: Scale, tight: bool, values: impl Iterator<Item = f64>) -> Self {
        let (mut least, mut most) = (f64::INFINITY, f64::NEG_INFINITY);
        for value in values.filter(|value| value.is_finite()) {
            if let Some(place) = scaled(scale, value) {
                (least, most) = (least.min(place), most.max(place));
            }
        }
        if least > most {
            (least, most) = (0.0, 1.0);
        }
        match scale {
            Scale::Linear => Self::linear(unit, most, tight),
            Scale::Log => Self::log(unit, least, most),
            Scale::Nines => {
                let places = [0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999, 0.999_999];
                let ticks = places.into_iter().filter(|q| nines(*q) <= most + 1e-9).collect();
                Self { unit, scale, low: 0.0, high: most.max(1.0), ticks }
            }
        }
    }

    /// A logarithmic axis from a power of ten to another, with a tick at each.
    pub(super) fn decades(unit: Unit, values: impl Iterator<Item = f64>) -> Self {
        let (mut least, mut most) = (f64::INFINITY, f64::NEG_INFINITY);
        for place in values.filter_map(|value| scaled(Scale::Log, value)) {
            (least, most) = (least.min(place), most.max(place));
        }
        if least > most {
            (least, most) = (0.0, 1.0);
        }
        let low = (least + 1e-9).floor();
        let high = (most - 1e-9).ceil().max(low + 1.0);
        let ticks = (low as i32..=high as i32).map(|power| 10_f64.powi(power)).collect();
        Self { unit, scale: Scale::Log, low, high, ticks }
    }

    /// Where a value lies, 0 at the low end and 1 at the high end.
    pub(super) fn place(&self, value: f64) -> Option<f64> {
        let place = (scaled(self.scale, value)? - self.low) / (self.high - self.low);
        place.is_finite().then(|| place.clamp(0.0, 1.0))
    }

    /// The ticks with their text, from the low end on.
    pub(super) fn ticks(&self) -> impl Iterator<Item = (f64, String)> + '_ {
        self.ticks.iter().map(|tick| {
            let text = match self.scale {
                Scale::Nines => format!("p{}", number(tick * 100.0)),
                _ => text(self.unit, *tick),
            };
            (*tick, text)
        })
    }

    fn linear(unit: Unit, most: f64, tight: bool) -> Self {
        let most = if most > 0.0 { most } else { 1.0 };
        // Ticks are round in the unit they are written in.
        let one = if unit == Unit::Bytes { binary_unit(most).0 } else { 1.0 };
        let mut step = round_up(most / one / 5.0) * one;
        if unit == Unit::Count && most >= 5.0 {
            step = step.max(1.0);
        }
        let count = if tight { most / step + 1e-9 } else { (most / step - 1e-9).ceil().max(1.0) };
        let ticks = (0..=count as u32).map(|index| f64::from(index) * step).collect();
        Self { unit, scale: Scale::Linear, low: 0.0, high: if tight { most } else { count * step }, ticks }
    }

    fn log(unit: Unit, least: f64, most: f64) -> Self {
        // Ends on 1, 2 or 5 times a power of ten, with ticks there or, over many powers, on some of these.
        let rounds = |power: i32| [1.0, 2.0, 5.0].map(|round| round * 10_f64.powi(power));
        let powers = least.floor() as i32..=most.ceil() as i32;
        let all: Vec<f64> = powers.clone().flat_map(rounds).collect();
        let below = all.iter().copied().filter(|tick| tick.log10() <= least + 1e-9).fold(f64::NAN, f64::max);
        let above = all.iter().copied().filter(|tick| tick.log10() >= most - 1e-9 && *tick > below);
        let (low, high) = (below, above.fold(f64::NAN, f64::min));
        let inside = all.into_iter().filter(|tick| (low..=high).contains(tick));
        let mut ticks: Vec<f64> = inside.collect();
        if ticks.len() > 8 {
            let every = powers.count().div_ceil(6) as f64;
            ticks.retain(|tick| (tick.log10() / every).fract().abs() < 1e-9);
        }
        Self { unit, scale: Scale::Log, low: low.log10(), high: high.log10(), ticks }
    }
}

/// A value with its unit, short.
pub(super) fn text(unit: Unit, value: f64) -> String {
    match unit {
        Unit::Count => match value.abs() {
            size if size >= 1e6 => format!("{}M", number(value / 1e6)),
            size if size >= 1e4 => format!("{}k", number(value / 1e3)),
            _ => number(value),
        },
        Unit::Seconds => number(value),
        Unit::Time => match value.abs() {
            size if size >= 1e6 => format!("{} s", number(value / 1e6)),
            size if size >= 1e3 => format!("{} ms", number(value / 1e3)),
            _ => format!("{} µs", number(value)),
        },
        Unit::Bytes => {
            let (one, name) = binary_unit(value.abs());
            format!("{} {name}", number(value / one))
        }
    }
}

fn binary_unit(size: f64) -> (f64, &'static str) {
    match size {
        size if size >= 1024.0 * 1024.0 * 1024.0 => (1024.0 * 1024.0 * 1024.0, "GiB"),
        size if size >= 1024.0 * 1024.0 => (1024.0 * 1024.0, "MiB"),
        size if size >= 1024.0 => (1024.0, "KiB"),
        _ => (1.0, "B"),
    }
}

/// A number with three significant digits or, if it is a whole one, all of it, and no trailing zeros.
fn number(value: f64) -> String {
    if value.fract().abs() < 1e-9 {
        return format!("{value:.0}");
    }
    let digits = match value.abs() {
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 1.0 => 2,
        _ => 3,
    };
    // Percentiles such as 99.99 keep their nines.
    let digits = if value > 99.0 && value < 100.0 { 4 } else { digits };
    let text = format!("{value:.digits$}");
    if text.contains('.') {
        return text.trim_end_matches('0').trim_end_matches('.').to_owned();
    }
    text
}

/// The next of 1, 2, 5, 10, 20, …
fn round_up(step: f64) -> f64 {
    let power = 10_f64.powf(step.log10().floor());
    let rounded = [1.0, 2.0, 5.0, 10.0].into_iter().find(|round| round * power >= step * (1.0 - 1e-9));
    rounded.unwrap_or(10.0) * power
}

fn scaled(scale: Scale, value: f64) -> Option<f64> {
    match scale {
        Scale::Linear => Some(value),
        Scale::Log => (value > 0.0).then(|| value.log10()),
        Scale::Nines => (value < 1.0).then(|| nines(value)),
    }
}

fn nines(quantile: f64) -> f64 {
    -(1.0 - quantile).log10()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticks(unit: Unit, scale: Scale, values: &[f64]) -> Vec<String> {
        Axis::new(unit, scale, false, values.iter().copied()).ticks().map(|(_, text)| text).collect()
    }

    #[test]
    fn ticks_are_round_in_their_unit() {
        assert_eq!(ticks(Unit::Count, Scale::Linear, &[50_000.0]), ["0", "10k", "20k", "30k", "40k", "50k"]);
        assert_eq!(
            ticks(Unit::Bytes, Scale::Linear, &[9.3 * 1024.0 * 1024.0]),
            ["0 B", "2 MiB", "4 MiB", "6 MiB", "8 MiB", "10 MiB"]
        );
        assert_eq!(ticks(Unit::Time, Scale::Log, &[300.0, 7e6]), ["1 ms", "10 ms", "100 ms", "1 s", "10 s"]);
        assert_eq!(ticks(Unit::Time, Scale::Log, &[3e4, 9e4]), ["20 ms", "50 ms", "100 ms"]);
        assert_eq!(
            ticks(Unit::Time, Scale::Log, &[5e4, 5e4]),
            ["50 ms", "100 ms"],
            "one value makes an axis"
        );
        assert_eq!(ticks(Unit::Count, Scale::Nines, &[0.0, 0.9995]), ["p50", "p90", "p99", "p99.9"]);
        assert_eq!(ticks(Unit::Count, Scale::Linear, &[3.0]), ["0", "1", "2", "3"]);
    }

    #[test]
    fn places_are_between_the_ends() {
        let axis = Axis::new(Unit::Time, Scale::Log, false, [100.0, 10_000.0].into_iter());
        assert_eq!(axis.place(1_000.0), Some(0.5));
        assert_eq!(axis.place(0.0), None, "a logarithm has no zero");
        let tight = Axis::new(Unit::Seconds, Scale::Linear, true, [13.0].into_iter());
        assert_eq!((tight.place(13.0), tight.ticks().count()), (Some(1.0), 3), "0, 5, 10");
        let linear = Axis::new(Unit::Count, Scale::Linear, false, [10.0].into_iter());
        assert_eq!((linear.place(0.0), linear.place(5.0)), (Some(0.0), Some(0.5)));
    }

    #[test]
    fn nothing_and_zeros_still_make_an_axis() {
        for values in [&[][..], &[0.0], &[f64::NAN]] {
            for scale in [Scale::Linear, Scale::Log, Scale::Nines] {
                let axis = Axis::new(Unit::Count, scale, false, values.iter().copied());
                assert!(axis.ticks().all(|(tick, _)| tick.is_finite()), "{scale:?} {values:?}");
            }
        }
    }

    #[test]
    fn values_are_short() {
        assert_eq!(text(Unit::Time, 1_234.0), "1.23 ms");
        assert_eq!(text(Unit::Bytes, 57.34), "57.3 B");
        assert_eq!(text(Unit::Count, 1_250_000.0), "1.25M");
        assert_eq!(text(Unit::Count, 0.0), "0");
    }
}
