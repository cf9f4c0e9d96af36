//! Patterns that connections subscribe to: levels of a name between slashes, of which `*` stands for any one and a `**`
//! at the end for all that follow. Pure; made of what peers say. Rules have patterns of their own kind, prefixes.

use std::fmt;

use super::name::{TOPIC_BYTES_MAX, TopicName};

/// Levels that a pattern may have: a look for those that fit a name goes no deeper.
pub const LEVELS_MAX: usize = 16;

/// Levels of it that may be wild. Together with the bound above it bounds what a look costs, whatever patterns there are:
/// at most so many ways lead through a name as there are choices of its wild levels.
pub const WILD_MAX: usize = 4;

/// A pattern of topic names by their levels. What peers give has at least one level that is wild; a
/// [part](LevelPattern::meet) of one may be a single topic.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LevelPattern(Box<str>);

/// What is no pattern to subscribe to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatternFault {
    /// Empty, or longer than a topic name.
    Length,
    /// A control character.
    Characters,
    /// A `*` that is a part of a level, or a `**` before the end.
    Star,
    /// More levels than [`LEVELS_MAX`], or more wild ones than [`WILD_MAX`].
    Levels,
}

impl LevelPattern {
    /// Whether a text can only be a pattern: no topic's name has a `*`.
    #[must_use]
    pub fn is_meant(text: &str) -> bool {
        text.contains('*')
    }

    /// Checks a pattern.
    ///
    /// # Errors
    /// It is none, or has more levels than one may have.
    pub fn parse(text: &str) -> Result<Self, PatternFault> {
        if text.is_empty() || text.len() > TOPIC_BYTES_MAX {
            return Err(PatternFault::Length);
        }
        if text.chars().any(char::is_control) {
            return Err(PatternFault::Characters);
        }
        let (mut levels, mut wild, mut ended) = (0, 0, false);
        for level in text.split('/') {
            let is_wild = level == "*" || level == "**";
            if ended || level.contains('*') && !is_wild {
                return Err(PatternFault::Star);
            }
            ended = level == "**";
            levels += 1;
            wild += usize::from(is_wild);
        }
        if wild == 0 {
            return Err(PatternFault::Star);
        }
        if levels > LEVELS_MAX || wild > WILD_MAX {
            return Err(PatternFault::Levels);
        }
        Ok(Self(text.into()))
    }

    /// The topic of this name, as the part of a pattern that it is.
    #[must_use]
    pub fn of_topic(name: &TopicName<'_>) -> Self {
        Self(name.as_str().into())
    }

    /// Whether it is one topic, and no pattern.
    #[must_use]
    pub fn is_topic(&self) -> bool {
        !Self::is_meant(&self.0)
    }

    /// What both mean, which one pattern or one topic always is; `None` if no topic is meant by both.
    #[must_use]
    pub fn meet(&self, other: &Self) -> Option<Self> {
        let (mut own, mut others) = (self.0.split('/'), other.0.split('/'));
        let mut levels = Vec::with_capacity(LEVELS_MAX);
        loop {
            match (own.next(), others.next()) {
                (None, None) => break,
                (Some("**"), Some(level)) => {
                    levels.push(level);
                    levels.extend(others);
                    break;
                }
                (Some(level), Some("**")) => {
                    levels.push(level);
                    levels.extend(own);
                    break;
                }
                (Some(level), Some(any)) | (Some(any), Some(level)) if any == "*" || any == level => {
                    levels.push(level);
                }
                _ => return None,
            }
        }
        let text = levels.join("/");
        // Each level is one of theirs, and a wild one is wild in the longer of both: what does not parse is longer than names are.
        if Self::is_meant(&text) {
            return Self::parse(&text).ok();
        }
        TopicName::parse(text).ok().map(|name| Self::of_topic(&name))
    }

    /// The pattern as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What all names begin with that it means: itself, up to its first wild level.
    #[must_use]
    pub fn begins_with(&self) -> &str {
        self.0.split_once('*').map_or(&*self.0, |(before, _)| before)
    }

    /// Whether it means every topic that `other` means.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        let mut levels = other.0.split('/');
        for own in self.0.split('/') {
            let Some(level) = levels.next() else { return false };
            match own {
                "**" => return true,
                "*" if level == "**" => return false,
                "*" => {}
                _ if own == level => {}
                _ => return false,
            }
        }
        levels.next().is_none()
    }

    /// Whether it means the topic of this name.
    #[must_use]
    pub fn fits(&self, name: &str) -> bool {
        if TopicName::presence_of(name).is_some() {
            return false;
        }
        let mut levels = name.split('/');
        for wanted in self.0.split('/') {
            let Some(level) = levels.next() else { return false };
            match wanted {
                "**" => return true,
                "*" => {}
                _ if wanted == level => {}
                _ => return false,
            }
        }
        levels.next().is_none()
    }
}

impl PatternFault {
    /// One line for whoever gave the pattern.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Length => "a pattern has 1 to 200 bytes",
            Self::Characters => "a pattern has no control characters",
            Self::Star => {
                "in a pattern * stands for one whole level between slashes and ** for the rest, at the end"
            }
            Self::Levels => "a pattern has at most 16 levels, 4 of them * or **",
        }
    }
}

impl fmt::Display for PatternFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason())
    }
}

impl std::error::Error for PatternFault {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_one_level_and_two_are_the_rest() {
        let fits = |pattern: &str, name: &str| LevelPattern::parse(pattern).unwrap().fits(name);
        for (pattern, name) in [
            ("*", "a"),
            ("**", "a"),
            ("**", "a/b/c"),
            ("prices/*", "prices/eur"),
            ("prices/*", "prices/"),
            ("prices/**", "prices/eur"),
            ("prices/**", "prices/eur/spot"),
            ("*/eur", "prices/eur"),
            ("a/*/c", "a/b/c"),
            ("a/*/c/**", "a//c/d/e"),
            ("/*", "/a"),
        ] {
            assert!(fits(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [
            ("*", "a/b"),
            ("*", "/a"),
            ("prices/*", "prices"),
            ("prices/*", "prices/eur/spot"),
            ("prices/**", "prices"),
            ("prices/**", "pricesx/eur"),
            ("a/*/c", "a/b/d"),
            ("a/*/c", "a/b/c/d"),
            ("a/*/c", "a/c"),
        ] {
            assert!(!fits(pattern, name), "{pattern} {name}");
        }
    }

    #[test]
    fn what_is_no_pattern_is_told_why() {
        let deep = format!("{}*", "a/".repeat(LEVELS_MAX));
        let long = format!("{}/*", "x".repeat(TOPIC_BYTES_MAX - 1));
        for (text, fault) in [
            ("", PatternFault::Length),
            (long.as_str(), PatternFault::Length),
            ("a/*\n", PatternFault::Characters),
            ("a", PatternFault::Star),
            ("a*", PatternFault::Star),
            ("a/b*/c", PatternFault::Star),
            ("***", PatternFault::Star),
            ("**/a", PatternFault::Star),
            ("a/**/*", PatternFault::Star),
            (deep.as_str(), PatternFault::Levels),
            ("*/*/*/*/**", PatternFault::Levels),
        ] {
            assert_eq!(LevelPattern::parse(text), Err(fault), "{text:?}");
        }
        for text in ["*", "**", "a/*/*/*/**", &format!("{}*", "a/".repeat(LEVELS_MAX - 1))] {
            assert_eq!(LevelPattern::parse(text).unwrap().as_str(), text);
        }
    }

    /// Many patterns, and names of topics that they mean or not.
    fn patterns_and_names() -> (Vec<LevelPattern>, Vec<String>) {
        let parts = ["a", "b", "*"];
        let mut texts: Vec<String> = parts.iter().map(ToString::to_string).collect();
        for first in parts {
            texts.extend(parts.iter().chain(&["**"]).map(|second| format!("{first}/{second}")));
            texts.extend(parts.iter().map(|second| format!("{first}/{second}/**")));
        }
        texts.push("**".to_owned());
        let patterns: Vec<_> = texts.iter().filter_map(|text| LevelPattern::parse(text).ok()).collect();
        let mut names: Vec<String> = Vec::new();
        for first in ["a", "b", "c"] {
            names.push(first.to_owned());
            for second in ["a", "b", "c"] {
                names.push(format!("{first}/{second}"));
                names.extend(["a", "c", "c/d"].map(|rest| format!("{first}/{second}/{rest}")));
            }
        }
        assert!(patterns.len() > 15, "{texts:?}");
        (patterns, names)
    }

    #[test]
    fn two_patterns_meet_in_what_both_mean() {
        let (patterns, names) = patterns_and_names();
        for one in &patterns {
            for other in &patterns {
                let met = one.meet(other);
                let fits = |name: &str| met.as_ref().is_some_and(|met| met.fits(name));
                for name in &names {
                    assert_eq!(fits(name), one.fits(name) && other.fits(name), "{one:?} {other:?} {name}");
                }
                assert_eq!(met, other.meet(one));
            }
        }
        let meet = |one: &str, other: &str| {
            let met = LevelPattern::parse(one).unwrap().meet(&LevelPattern::parse(other).unwrap());
            met.map(|met| met.as_str().to_owned())
        };
        assert_eq!(meet("a/**", "*/b/*/d/**").as_deref(), Some("a/b/*/d/**"));
        assert_eq!(meet("a/*", "*/b").as_deref(), Some("a/b"));
        assert_eq!(meet("/*", "**").as_deref(), Some("/*"));
        assert_eq!(meet("a/*", "a/*/**"), None);
        // As long as both are, no topic has such a name.
        let (one, other) = (format!("{}/*", "x".repeat(150)), format!("*/{}", "y".repeat(150)));
        assert_eq!(meet(&one, &other), None);
    }

    #[test]
    fn what_is_covered_fits_whatever_it_fits() {
        let (patterns, names) = patterns_and_names();
        for one in &patterns {
            for other in &patterns {
                let within = names.iter().all(|name| !other.fits(name) || one.fits(name));
                assert_eq!(one.covers(other), within, "{one:?} {other:?}");
            }
        }
    }
}
