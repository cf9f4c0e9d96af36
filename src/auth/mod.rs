//! Who may do what: origin policy, admin guard, publish policy, admission by address, tokens. Never blocks a loop.
//!
//! Policies are compiled from the settings and then only read; each check is a pure function of a few
//! header fields, allocates nothing, and answers with a reason instead of a string. Only [`admission`]
//! counts, and loops share its table.

pub mod admin_guard;
pub mod admin_keys;
pub mod admission;
mod authority;
pub mod forwarded;
pub mod identity;
pub mod network;
pub mod origin;
pub mod revoked;
pub mod share;
pub mod token;

pub use identity::Identity;

use std::fmt;

/// A pattern of the configuration that cannot be compiled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PatternError {
    /// The pattern as written.
    pub pattern: String,
    /// What a pattern looks like, and what is wrong with this one.
    pub problem: &'static str,
}

impl PatternError {
    fn new(pattern: &str, problem: &'static str) -> Self {
        Self { pattern: pattern.to_owned(), problem }
    }
}

impl fmt::Display for PatternError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, got {:?}", self.problem, self.pattern)
    }
}

impl std::error::Error for PatternError {}
