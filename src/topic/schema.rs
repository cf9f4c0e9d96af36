//! A JSON Schema that messages of a topic are held against, compiled once.
//!
//! Made when rules are, by whoever reads the configuration; asked by loops. It reads nothing but what it is given: what a
//! schema refers to is in the same file. It never takes more stack or work than its constants say, whatever a client sends.

use std::fmt;

use jsonschema::{PatternOptions, Validator};

use super::schema_parts::{Costs, costs};
use super::strict::{self, DEPTH_MAX, Document};

/// Bytes of a file with a schema.
pub const FILE_BYTES_MAX: usize = 256 << 10;

/// Parts of a schema that may be applied inside one another. Each takes up to 1.3 KiB of the stack in a build with debug
/// assertions; a loop has 512 KiB of it.
const LEVELS_MAX: u32 = 128;

/// Applications of parts to values that one message may take, each 5 to 50 ns.
const WORK_MAX: u64 = 1 << 20;

/// Bytes of an expression that was compiled: it is matched in a time that grows with this and with the text.
const PATTERN_BYTES_MAX: usize = 256 << 10;

/// Bytes of a place that are told.
pub(super) const PLACE_BYTES_MAX: usize = 200;

/// A schema that is ready.
pub struct Schema {
    validator: Validator,
    /// Levels of a message that it can be held against.
    pub(super) depth_max: u32,
    costs: Costs,
}

/// Where a message does not fit.
#[derive(Debug, PartialEq, Eq)]
pub struct Misfit {
    /// The value, as a JSON pointer into the message (RFC 6901); empty for the whole.
    pub pointer: Box<str>,
    /// The keyword of the schema that does not hold there.
    pub keyword: Box<str>,
}

/// Why a message is refused.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// It does not fit. Where is only told where finding that out takes no more than finding out that it is so.
    Misfit(Option<Misfit>),
    /// It is deeper than it can be held against this schema, which takes so many levels.
    TooDeep(u32),
    /// It has more values than can be held against this schema.
    TooMuch,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Misfit(None) => f.write_str("the message does not fit the topic's schema"),
            Self::Misfit(Some(Misfit { pointer, keyword })) if pointer.is_empty() => {
                write!(f, "the message does not fit the topic's schema: {keyword}")
            }
            Self::Misfit(Some(Misfit { pointer, keyword })) => {
                write!(f, "the message does not fit the topic's schema at {pointer}: {keyword}")
            }
            Self::TooDeep(most) => {
                write!(
                    f,
                    "the message has more than the {most} levels that the topic's schema can be held against"
                )
            }
            Self::TooMuch => {
                f.write_str("the message has more values than the topic's schema can be held against")
            }
        }
    }
}

impl Schema {
    /// Compiles the bytes of a file.
    ///
    /// # Errors
    /// What is wrong with it, where (line and column, or a JSON pointer), and what to do.
    pub fn compile(bytes: &[u8]) -> Result<Self, String> {
        if bytes.len() > FILE_BYTES_MAX {
            return Err(format!("has more than {} KiB", FILE_BYTES_MAX >> 10));
        }
        let text = std::str::from_utf8(bytes).map_err(|_| "is not UTF-8")?;
        let schema = strict::read(text).map_err(|error| format!("is not JSON: {error}"))?.value;
        // First, because it tells best what is refused here and taken elsewhere.
        let costs = costs(&schema, DEPTH_MAX)?;
        let validator = jsonschema::options()
            .should_validate_formats(false)
            .with_pattern_options(PatternOptions::regex().size_limit(PATTERN_BYTES_MAX))
            .build(&schema)
            .map_err(|error| {
                let place = error.instance_path().to_string();
                let place = if place.is_empty() { "its top" } else { &place };
                let hint = match place.rsplit('/').next() {
                    Some("pattern") => {
                        "; an expression is one of RE2's kind: no look around, no back references, not too long"
                    }
                    _ => "",
                };
                format!("is no JSON Schema: at {place}: {}{hint}", cut(&error.to_string(), PLACE_BYTES_MAX))
            })?;
        let deep = costs.levels.iter().take_while(|levels| **levels <= LEVELS_MAX).count();
        let Some(depth_max) = deep.checked_sub(1).and_then(|depth| u32::try_from(depth).ok()) else {
            return Err(format!("has more than {LEVELS_MAX} schemas inside one another for one value"));
        };
        Ok(Self { validator, depth_max, costs })
    }

    /// Holds a message against it.
    pub(super) fn check(&self, document: &Document) -> Result<(), Refused> {
        if document.depth > self.depth_max {
            return Err(Refused::TooDeep(self.depth_max));
        }
        let within = |work: u64| work.saturating_mul(document.values) <= WORK_MAX;
        if !within(self.costs.shared_work) && !within(self.work_at(document.depth)) {
            return Err(Refused::TooMuch);
        }
        // Lists that are made of the same things have the same hash in the crate, however they are nested: whoever wants
        // to makes it compare each with each.
        if self.costs.compares_items && document.pairs > WORK_MAX {
            return Err(Refused::TooMuch);
        }
        // It keeps what it finds out about what `$ref` names, and so takes no longer than the schema by the message.
        if self.validator.is_valid(&document.value) {
            return Ok(());
        }
        // To find the place, the crate keeps nothing, and would take 2^n steps on some messages of n levels.
        if !within(self.work_at(document.depth)) {
            return Err(Refused::Misfit(None));
        }
        Err(Refused::Misfit(self.validator.validate(&document.value).err().map(|error| Misfit {
            pointer: cut(error.instance_path().as_str(), PLACE_BYTES_MAX).into(),
            keyword: cut(error.kind().keyword(), PLACE_BYTES_MAX).into(),
        })))
    }

    fn work_at(&self, depth: u32) -> u64 {
        self.costs.work.get(depth as usize).copied().unwrap_or(u64::MAX)
    }
}

impl fmt::Debug for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Schema").field("depth_max", &self.depth_max).finish_non_exhaustive()
    }
}

/// The beginning of a text.
fn cut(text: &str, bytes_max: usize) -> &str {
    let end = (0..=bytes_max.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
    text.get(..end.unwrap_or(0)).unwrap_or_default()
}
