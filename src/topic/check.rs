//! What a topic takes: anything, text, JSON, or JSON that fits a schema. Decided before a message is encoded, so that one
//! that is refused takes no offset.
//!
//! Driven by whoever publishes, with the rules in force. Pure; never keeps a message. What it says of one is for
//! its sender alone.

use std::fmt;

use super::schema::{Misfit, Refused, Schema};
use super::strict;
use super::sync::Arc;
use crate::metrics::InvalidReason;

/// Bytes of a message that is read as JSON on the way: a loop that does it, 10 to 30 µs a KiB, serves nobody else meanwhile.
pub const JSON_BYTES_MAX: usize = 64 << 10;

/// What a topic takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Check {
    /// Anything.
    #[default]
    Nothing,
    /// Text messages.
    Text,
    /// Text that is JSON, and such that all readers take it for the same (RFC 7493).
    Json,
    /// JSON that fits the schema at this place of the rules.
    Schema(u32),
}

impl Check {
    /// Bytes of a message that it can be asked of.
    #[must_use]
    pub fn bytes_max(self) -> usize {
        match self {
            Self::Nothing | Self::Text => usize::MAX,
            Self::Json | Self::Schema(_) => JSON_BYTES_MAX,
        }
    }
}

/// Why a message is not what its topic takes, and where.
#[derive(Debug, PartialEq, Eq)]
pub struct Invalid {
    /// The kind of it.
    pub reason: InvalidReason,
    /// Where in the message, as a JSON pointer (RFC 6901), and which keyword of the schema says so.
    pub misfit: Option<Misfit>,
    /// What is wrong, for people.
    text: String,
}

impl Invalid {
    fn new(reason: InvalidReason, text: impl Into<String>) -> Box<Self> {
        Box::new(Self { reason, misfit: None, text: text.into() })
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Looks at a message that is to be published, of at most [`Check::bytes_max`] bytes.
///
/// # Errors
/// It is not what the topic takes. Boxed, because that is seldom.
#[cold]
pub(super) fn check(
    check: Check,
    schemas: &[Arc<Schema>],
    binary: bool,
    payload: &[u8],
) -> Result<(), Box<Invalid>> {
    if check == Check::Nothing {
        return Ok(());
    }
    let text = if binary { None } else { std::str::from_utf8(payload).ok() };
    let Some(text) = text else {
        return Err(Invalid::new(InvalidReason::NotText, "the message is binary; this topic takes text"));
    };
    if check == Check::Text {
        return Ok(());
    }
    let document = strict::read(text).map_err(|error| {
        Invalid::new(InvalidReason::NotJson, format!("the message is not JSON that all read alike: {error}"))
    })?;
    let Check::Schema(place) = check else { return Ok(()) };
    // Rules are made with the schemas that they name.
    let Some(schema) = schemas.get(place as usize) else { return Ok(()) };
    schema.check(&document).map_err(|refused| {
        let text = refused.to_string();
        Box::new(match refused {
            Refused::Misfit(misfit) => Invalid { reason: InvalidReason::Schema, misfit, text },
            Refused::TooDeep(_) | Refused::TooMuch => {
                Invalid { reason: InvalidReason::TooComplex, misfit: None, text }
            }
        })
    })
}
