//! How large messages are: all alike, or each as a distribution or a file says. Both ends know a message's size by its
//! number, so that it can be checked without a word. Pure but for the file.

use super::message::{MESSAGE_BYTES_MAX, MESSAGE_BYTES_MIN, TEXT_BYTES_MIN};

/// Sizes that stand for a distribution which is no formula of whole numbers.
const DRAWN: usize = 16_384;
/// Sizes of one file.
const LISTED_MAX: usize = 1_000_000;

/// See the module's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sizes {
    /// All alike.
    One(usize),
    /// Each from the first to the last is as likely.
    Uniform(usize, usize),
    /// Each of these is as likely, the smallest first; made once in a process, of its command line.
    Drawn(&'static [u32]),
}

impl Sizes {
    /// Reads `64`, `uniform:64..4096`, `lognormal:512,1.2` and `@FILE`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix('@') {
            let file = std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?;
            let words = file.split(|letter: char| letter.is_whitespace() || letter == ',');
            let sizes = words.filter(|word| !word.is_empty()).map(size).collect::<Result<Vec<_>, _>>();
            let sizes = sizes.map_err(|error| format!("{path}: {error}"))?;
            if sizes.is_empty() || sizes.len() > LISTED_MAX {
                return Err(format!("{path}: has to hold 1 to {LISTED_MAX} sizes"));
            }
            return Ok(Self::drawn(sizes));
        }
        let Some((kind, values)) = text.split_once(':') else { return size(text).map(Self::One) };
        match kind {
            "uniform" => {
                let (least, most) = values.split_once("..").ok_or("has to be as in uniform:64..4096")?;
                let (least, most) = (size(least)?, size(most)?);
                if least > most {
                    return Err("the first size is above the last".into());
                }
                Ok(Self::Uniform(least, most))
            }
            "lognormal" => {
                let (median, sigma) = values.split_once(',').unwrap_or((values, "1"));
                let sigma = sigma.trim().parse::<f64>().ok().filter(|sigma| (0.0..=5.0).contains(sigma));
                let sigma = sigma.ok_or("has to be as in lognormal:512,1.2, with a sigma from 0 to 5")?;
                Ok(Self::drawn(lognormal(size(median)? as f64, sigma)))
            }
            _ => Err(format!("nothing is called {kind}: use uniform:64..4096, lognormal:512,1.2 or @FILE")),
        }
    }

    /// Kept until the process ends: there is one command line, and it is read once.
    fn drawn(mut sizes: Vec<usize>) -> Self {
        // The smallest is asked for with every message.
        sizes.sort_unstable();
        Self::Drawn(Vec::leak(sizes.into_iter().map(|size| size as u32).collect()))
    }

    /// Bytes of the message of this number.
    #[inline]
    pub(crate) fn of(self, stream: u64, sequence: u64) -> usize {
        match self {
            Self::One(size) => size,
            Self::Uniform(least, most) => {
                least + (mixed(stream, sequence) % (most - least + 1) as u64) as usize
            }
            Self::Drawn(sizes) => {
                let turn = mixed(stream, sequence) % sizes.len().max(1) as u64;
                sizes.get(turn as usize).map_or(MESSAGE_BYTES_MIN, |size| *size as usize)
            }
        }
    }

    /// The smallest there is.
    #[inline]
    pub(crate) fn least(self) -> usize {
        match self {
            Self::One(size) | Self::Uniform(size, _) => size,
            Self::Drawn(sizes) => sizes.first().map_or(MESSAGE_BYTES_MIN, |size| *size as usize),
        }
    }

    /// What one has on average.
    pub(crate) fn mean(self) -> usize {
        match self {
            Self::One(size) => size,
            Self::Uniform(least, most) => usize::midpoint(least, most),
            Self::Drawn(sizes) => {
                let sum: u64 = sizes.iter().map(|size| u64::from(*size)).sum();
                (sum / sizes.len().max(1) as u64) as usize
            }
        }
    }
}

fn size(text: &str) -> Result<usize, String> {
    match text.trim().parse::<usize>() {
        Ok(size) if (MESSAGE_BYTES_MIN..=MESSAGE_BYTES_MAX).contains(&size) => Ok(size),
        Ok(_) => Err(format!(
            "must be {MESSAGE_BYTES_MIN} to {MESSAGE_BYTES_MAX}; a message holds its run, number and planned time"
        )),
        Err(_) => Err(format!(
            "{text:?} is not a number of bytes, nor uniform:64..4096, lognormal:512,1.2 or @FILE"
        )),
    }
}

/// Sizes of a lognormal distribution, the same each time; what would be no text is raised to the least that is.
fn lognormal(median: f64, sigma: f64) -> Vec<usize> {
    let unit = |number: u64| (mixed(number, 1) >> 11) as f64 / (1u64 << 53) as f64;
    let sizes = (0..DRAWN as u64).map(|number| {
        // Box and Muller 1958: two even numbers make a normal one.
        let (one, two) = (unit(number * 2), unit(number * 2 + 1));
        let normal = (-2.0 * (1.0 - one).ln()).sqrt() * (std::f64::consts::TAU * two).cos();
        let size = (median * (sigma * normal).exp()).round();
        // A float that is too large becomes the largest number.
        (size as usize).clamp(TEXT_BYTES_MIN, MESSAGE_BYTES_MAX)
    });
    sizes.collect()
}

/// Splitmix64 of both numbers: neighbours have nothing in common.
fn mixed(stream: u64, sequence: u64) -> u64 {
    let value = stream ^ sequence.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(sizes: Sizes) -> Vec<usize> {
        let mut all: Vec<usize> = (0..20_000).map(|sequence| sizes.of(7, sequence)).collect();
        all.sort_unstable();
        all
    }

    #[test]
    fn sizes_are_as_they_were_asked_for() {
        assert_eq!(Sizes::parse("64"), Ok(Sizes::One(64)));
        let uniform = all(Sizes::parse("uniform:100..299").unwrap());
        assert_eq!((uniform[0], uniform[19_999]), (100, 299));
        let mean = uniform.iter().sum::<usize>() / 20_000;
        assert!((195..205).contains(&mean) && (145..155).contains(&uniform[5_000]), "{mean}");
        let sizes = Sizes::parse("lognormal:1000,0.5").unwrap();
        let lognormal = all(sizes);
        // The median, and one standard deviation around it: 1,000 times e to the power of -0.5 and 0.5.
        for (place, expected) in [(10_000, 1_000.0), (3_173, 606.5), (16_827, 1_648.7)] {
            let found = lognormal[place] as f64;
            assert!((found / expected - 1.0).abs() < 0.05, "{found} at {place}, not {expected}");
        }
        assert!((1_100..1_170).contains(&sizes.mean()), "{}", sizes.mean());
        assert_eq!(Sizes::parse("lognormal:48,5").unwrap().least(), 48);
    }

    #[test]
    fn the_same_message_has_the_same_size_and_its_neighbour_another() {
        let sizes = Sizes::parse("uniform:16..16777216").unwrap();
        assert_eq!(sizes.of(3, 9), sizes.of(3, 9));
        assert!(sizes.of(3, 9) != sizes.of(3, 10) && sizes.of(3, 9) != sizes.of(4, 9));
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for wrong in [
            "15",
            "",
            "x",
            "uniform:64",
            "uniform:99..64",
            "uniform:1..64",
            "lognormal:512,x",
            "lognormal:9",
            "normal:5",
            "@/nonexistent",
            "99999999999",
            "lognormal:512,-1",
        ] {
            assert!(Sizes::parse(wrong).is_err(), "{wrong}");
        }
    }
}
