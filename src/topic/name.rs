//! A topic's name: the one place that says which names there can be. Everything that takes a name from outside
//! makes one of these of it; the rooms behind take nothing else.

use std::borrow::Cow;
use std::fmt;

/// Bytes a topic name may have.
pub const TOPIC_BYTES_MAX: usize = 200;

/// What the names of those topics begin with whose messages tell who is on another. No name from outside has it, because
/// of the `*`.
const PRESENCE: &str = "*presence:";

/// A name that a topic can have: 1 to [`TOPIC_BYTES_MAX`] bytes, no control characters, no `*`, which patterns
/// are made with.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicName<'a>(Cow<'a, str>);

/// What no topic can be called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameError {
    /// Empty, or longer than [`TOPIC_BYTES_MAX`].
    Length,
    /// A control character or a `*`.
    Characters,
}

impl<'a> TopicName<'a> {
    /// Checks a name.
    ///
    /// # Errors
    /// No topic can have it.
    pub fn parse(name: impl Into<Cow<'a, str>>) -> Result<Self, NameError> {
        let name = name.into();
        if name.is_empty() || name.len() > TOPIC_BYTES_MAX {
            return Err(NameError::Length);
        }
        if name.chars().any(|c| c.is_control() || c == '*') {
            return Err(NameError::Characters);
        }
        Ok(Self(name))
    }

    /// The name of a topic that exists.
    pub(super) fn checked(name: &'a str) -> Self {
        Self(Cow::Borrowed(name))
    }

    /// The name of the topic whose messages tell who is on the topic of this name.
    #[must_use]
    pub fn of_presence(topic: &str) -> TopicName<'static> {
        TopicName(Cow::Owned([PRESENCE, topic].concat()))
    }

    /// Of which topic the messages of the topic of this name tell who is on it, if they do.
    #[must_use]
    #[inline]
    pub fn presence_of(name: &str) -> Option<&str> {
        name.strip_prefix(PRESENCE)
    }

    /// Whether there is such a topic, by the bytes of the name.
    #[inline]
    pub(super) fn is_of_presence(name: &[u8]) -> bool {
        name.starts_with(PRESENCE.as_bytes())
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The same name, borrowed from nobody.
    #[must_use]
    pub fn into_owned(self) -> TopicName<'static> {
        TopicName(Cow::Owned(self.0.into_owned()))
    }
}

impl TopicName<'static> {
    /// A name that the program itself gives.
    ///
    /// # Panics
    /// No topic can have it; in a constant that is found out when the program is built.
    #[must_use]
    pub const fn of(name: &'static str) -> Self {
        let bytes = name.as_bytes();
        assert!(!bytes.is_empty() && bytes.len() <= TOPIC_BYTES_MAX, "a topic name has 1 to 200 bytes");
        let mut at = 0;
        while at < bytes.len() {
            assert!(bytes[at] > b' ' && bytes[at] != b'*' && bytes[at] < 0x7f, "a plain name");
            at += 1;
        }
        Self(Cow::Borrowed(name))
    }
}

impl NameError {
    /// One line for whoever gave the name.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Length => "a topic name has 1 to 200 bytes",
            Self::Characters => "a topic name has no control characters and no '*'",
        }
    }
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason())
    }
}

impl std::error::Error for NameError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_1_to_200_bytes_and_no_special_characters() {
        for good in ["a", "a/b c", "é", &"x".repeat(TOPIC_BYTES_MAX)] {
            assert_eq!(TopicName::parse(good).unwrap().into_owned().as_str(), good);
        }
        for (bad, error) in [
            ("", NameError::Length),
            (&*"x".repeat(TOPIC_BYTES_MAX + 1), NameError::Length),
            (&"é".repeat(101), NameError::Length),
            ("*", NameError::Characters),
            ("a\n", NameError::Characters),
            ("a\u{85}b", NameError::Characters),
        ] {
            assert_eq!(TopicName::parse(bad), Err(error), "{bad:?}");
        }
        assert_eq!(TopicName::of("lobby"), TopicName::parse("lobby".to_owned()).unwrap());
        let presence = TopicName::of_presence("a/b");
        assert_eq!(TopicName::presence_of(presence.as_str()), Some("a/b"));
        assert_eq!(TopicName::presence_of("a/b"), None);
        assert_eq!(TopicName::parse(presence.as_str()), Err(NameError::Characters), "nobody can ask for it");
    }
}
