//! Patterns of topic names. Compiled from the settings, never changed.

use std::fmt;

use super::level_pattern::LevelPattern;
use super::name::TOPIC_BYTES_MAX;

/// A pattern that could never be a topic's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PatternError {
    /// The pattern as written.
    pub pattern: String,
    /// What a pattern looks like, and what is wrong with this one.
    pub problem: &'static str,
}

/// A topic's name, or a prefix of names: `lobby`, `room-*`, `*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicPattern {
    /// Without the `*`; the empty prefix fits every topic.
    name: String,
    is_prefix: bool,
}

impl TopicPattern {
    /// Compiles a topic name, exact or with one trailing `*`.
    ///
    /// # Errors
    /// When it could never be a topic's name.
    pub fn compile(pattern: &str) -> Result<Self, PatternError> {
        let (name, is_prefix) = match pattern.strip_suffix('*') {
            Some(prefix) => (prefix, true),
            None => (pattern, false),
        };
        let fail = |problem| Err(PatternError { pattern: pattern.to_owned(), problem });
        if pattern.is_empty() {
            return fail("expects a topic name of 1 to 200 bytes");
        }
        if name.len() > TOPIC_BYTES_MAX {
            return fail("expects a topic name of at most 200 bytes");
        }
        if name.contains('*') {
            return fail("expects at most one * and only at the end");
        }
        if name.chars().any(char::is_control) {
            return fail("expects a topic name without control characters");
        }
        Ok(Self { name: name.to_owned(), is_prefix })
    }

    /// Whether the topic of this name is meant.
    #[must_use]
    pub fn fits(&self, topic: &str) -> bool {
        if self.is_prefix { topic.starts_with(&self.name) } else { topic == self.name }
    }

    /// Whether it fits every topic that `other` fits.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        if self.is_prefix { other.name.starts_with(&self.name) } else { self == other }
    }

    /// Whether it fits every topic that a pattern of subscriptions means.
    #[must_use]
    pub fn covers_pattern(&self, pattern: &LevelPattern) -> bool {
        self.is_prefix && pattern.begins_with().starts_with(&self.name)
    }

    /// Whether it may fit a topic that a pattern of subscriptions means: never wrong where it says no.
    #[must_use]
    pub fn may_meet(&self, pattern: &LevelPattern) -> bool {
        let begins_with = pattern.begins_with();
        match self.is_prefix {
            true => self.name.starts_with(begins_with) || begins_with.starts_with(&self.name),
            false => pattern.fits(&self.name),
        }
    }
}

impl fmt::Display for PatternError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, got {:?}", self.problem, self.pattern)
    }
}

impl std::error::Error for PatternError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exact_names_and_prefixes_fit_only_theirs() {
        let fits = |pattern: &str, name: &str| TopicPattern::compile(pattern).unwrap().fits(name);
        for (pattern, yes) in [("lobby", "lobby"), ("room-*", "room-1"), ("room-*", "room-"), ("*", "x")] {
            assert!(fits(pattern, yes), "{pattern} {yes}");
        }
        for no in ["lobby2", "Lobby", "lobb", ""] {
            assert!(!fits("lobby", no), "{no}");
        }
        for no in ["room", "xroom-1", ""] {
            assert!(!fits("room-*", no), "{no}");
        }
    }

    #[test]
    fn a_pattern_covers_what_it_fits() {
        let pattern = |text: &str| TopicPattern::compile(text).unwrap();
        for (wide, narrow) in [("*", "a"), ("*", "*"), ("a*", "ab*"), ("a*", "a"), ("a", "a")] {
            assert!(pattern(wide).covers(&pattern(narrow)), "{wide} {narrow}");
        }
        for (one, other) in [("a", "a*"), ("ab*", "a*"), ("a", "b"), ("a*", "*")] {
            assert!(!pattern(one).covers(&pattern(other)), "{one} {other}");
        }
    }

    #[test]
    fn names_that_no_topic_has_are_refused() {
        let long = "x".repeat(201);
        for bad in ["", "a*b", "**", "*a", "a\n", &long] {
            assert!(TopicPattern::compile(bad).is_err(), "{bad:?}");
        }
        for good in ["é", &"x".repeat(200), &("x".repeat(200) + "*")] {
            assert!(TopicPattern::compile(good).is_ok(), "{good:?}");
        }
    }
}
