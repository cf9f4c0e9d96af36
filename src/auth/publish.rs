//! Patterns of topic names, and which topics a client may publish to over its own connection. Compiled
//! from the settings; the admin port is not asked here, it may publish everywhere.

use super::PatternError;

/// Longest topic name.
const TOPIC_BYTES_MAX: usize = 200;

/// A topic's name, or a prefix of names: `lobby`, `room-*`, `*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicPattern {
    /// Without the `*`; the empty prefix fits every topic.
    name: String,
    is_prefix: bool,
}

/// The compiled policy; shared by all loops, never changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PublishPolicy {
    patterns: Vec<TopicPattern>,
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
        let fail = |problem| Err(PatternError::new(pattern, problem));
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
}

impl PublishPolicy {
    /// Compiles topic names, each exact or with one trailing `*`.
    ///
    /// # Errors
    /// When an entry could never be a topic's name.
    pub fn compile(topics: &[String]) -> Result<Self, PatternError> {
        let patterns = topics.iter().map(|topic| TopicPattern::compile(topic));
        Ok(Self { patterns: patterns.collect::<Result<_, _>>()? })
    }

    /// Whether a client may publish to `topic`.
    pub fn allows(&self, topic: &str) -> bool {
        self.patterns.iter().any(|pattern| pattern.fits(topic))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(topics: &[&str]) -> Result<PublishPolicy, PatternError> {
        PublishPolicy::compile(&topics.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn exact_names_and_prefixes_allow_only_theirs() {
        let some = policy(&["lobby", "room-*"]).unwrap();
        for yes in ["lobby", "room-1", "room-"] {
            assert!(some.allows(yes), "{yes}");
        }
        for no in ["lobby2", "Lobby", "lobb", "room", "xroom-1", ""] {
            assert!(!some.allows(no), "{no}");
        }
        assert!(!policy(&[]).unwrap().allows("lobby"));
        assert!(policy(&["*"]).unwrap().allows("anything"));
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
            assert!(policy(&[bad]).is_err(), "{bad:?}");
        }
        assert!(policy(&["é", &"x".repeat(200)]).is_ok());
    }
}
