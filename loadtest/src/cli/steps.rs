//! `--step`: which values `capacity` tries, lowest first. Pure.

/// Steps of one run.
const STEPS_MAX: usize = 1_000;

/// What is raised from step to step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Variable {
    /// `--connections`
    Connections,
    /// `--rate`
    Rate,
}

/// The values of one `capacity`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Steps {
    /// What is raised.
    pub(crate) variable: Variable,
    /// Ascending.
    pub(crate) values: Vec<f64>,
}

impl Variable {
    /// Its name in `--step` and in the result file.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::Rate => "rate",
        }
    }
}

impl Steps {
    /// Parses `rate=100,200,400`, `rate=100..6400*2` and `connections=1k..10k+1k`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (name, values) = text.split_once('=').ok_or("needs a name, as in rate=100..6400*2")?;
        let variable = match name.trim() {
            "connections" => Variable::Connections,
            "rate" => Variable::Rate,
            other => return Err(format!("{other:?} can't be stepped; use connections or rate")),
        };
        let values = match values.split_once("..") {
            None => values.split(',').map(number).collect::<Result<Vec<_>, _>>()?,
            Some((from, rest)) => range(from, rest)?,
        };
        if !values.is_sorted_by(|low, high| low < high) {
            return Err("the values must rise".into());
        }
        let whole = |value: &f64| value.fract() == 0.0 && *value <= 10_000_000.0;
        if variable == Variable::Connections && !values.iter().all(whole) {
            return Err("connections are whole numbers up to 10000000".into());
        }
        Ok(Self { variable, values })
    }
}

fn range(from: &str, rest: &str) -> Result<Vec<f64>, String> {
    let at =
        rest.find(['*', '+']).ok_or("a range needs a factor or a step, as in 100..6400*2 or 100..500+100")?;
    let (to, by) = rest.split_at(at);
    let (factor, by) = (by.starts_with('*'), by.get(1..).unwrap_or_default());
    let (from, to, by) = (number(from)?, number(to)?, number(by)?);
    if factor && by <= 1.0 {
        return Err("a factor must be above 1".into());
    }
    let mut values = vec![from];
    let mut value = from;
    loop {
        value = if factor { value * by } else { value + by };
        // What rounding adds must not cost the last step.
        if value > to * (1.0 + 1e-9) {
            return Ok(values);
        }
        if values.len() == STEPS_MAX {
            return Err(format!("more than {STEPS_MAX} steps"));
        }
        values.push(value);
    }
}

fn number(text: &str) -> Result<f64, String> {
    let text = text.trim();
    let (digits, factor) = match text.strip_suffix('k') {
        Some(digits) => (digits, 1e3),
        None => (text, 1.0),
    };
    match digits.parse::<f64>() {
        Ok(number) if number > 0.0 && number * factor <= 10_000_000.0 => Ok(number * factor),
        _ => Err(format!("{text:?} is not a number above 0 and up to 10000000")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_ranges_parse() {
        let values = |text: &str| Steps::parse(text).unwrap().values;
        assert_eq!(values("rate=100,200,0.4k"), [100.0, 200.0, 400.0]);
        assert_eq!(values("rate=100..800*2"), [100.0, 200.0, 400.0, 800.0]);
        assert_eq!(values("rate=0.1..0.5+0.1").len(), 5);
        assert_eq!(values("connections=1k..3k+1k"), [1_000.0, 2_000.0, 3_000.0]);
        assert_eq!(values("rate=5"), [5.0]);
        assert_eq!(Steps::parse("connections=1").unwrap().variable, Variable::Connections);
    }

    #[test]
    fn wrong_steps_are_refused() {
        for wrong in [
            "",
            "100",
            "size=1",
            "rate=",
            "rate=2,1",
            "rate=1,1",
            "rate=0,1",
            "rate=1..9",
            "rate=1..9*1",
            "rate=1..9*0.5",
            "rate=1..1000000+1",
            "connections=1.5",
            "rate=nan",
            "rate=1..9*",
            "connections=1,2m",
        ] {
            assert!(Steps::parse(wrong).is_err(), "{wrong}");
        }
    }
}
