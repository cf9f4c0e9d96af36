//! Which topics a token is for: names and patterns, compared with a topic's name. Pure.

use crate::topic::{LevelPattern, TopicName};

/// Names and patterns that one claim may list.
pub const GRANTS_MAX: usize = 64;

/// What stands for the bearer's own `sub` in a pattern.
const SUB: &str = "{sub}";

#[derive(Clone, Debug, PartialEq, Eq)]
enum Grant {
    Topic(TopicName<'static>),
    Pattern(LevelPattern),
}

/// The topics that a claim lists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grants(Box<[Grant]>);

/// What is wrong with a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GrantFault {
    /// One is neither a topic nor a pattern, or there are too many.
    Pattern,
    /// A `sub` that has no place in a pattern.
    Substitution,
}

impl Grants {
    /// Reads a list, with `sub` wherever it says `{sub}`.
    pub(super) fn parse(texts: &[String], sub: &str) -> Result<Self, GrantFault> {
        if texts.len() > GRANTS_MAX {
            return Err(GrantFault::Pattern);
        }
        texts.iter().map(|text| Grant::parse(text, sub)).collect::<Result<_, _>>().map(Self)
    }

    /// Whether the topic of this name is among them.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|grant| match grant {
            Grant::Topic(topic) => topic.as_str() == name,
            Grant::Pattern(pattern) => pattern.fits(name),
        })
    }

    /// Whether it lists nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Each as text, with `{sub}` filled in.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|grant| match grant {
            Grant::Topic(topic) => topic.as_str(),
            Grant::Pattern(pattern) => pattern.as_str(),
        })
    }
}

impl Grant {
    fn parse(text: &str, sub: &str) -> Result<Self, GrantFault> {
        let filled;
        let text = if text.contains(SUB) {
            // Of the sub "bob/x" users/{sub}/** would be topics of bob, and of "*" those of everybody.
            if sub.contains(['/', '*']) {
                return Err(GrantFault::Substitution);
            }
            filled = text.replace(SUB, sub);
            filled.as_str()
        } else {
            text
        };
        if LevelPattern::is_meant(text) {
            LevelPattern::parse(text).map(Self::Pattern).map_err(|_| GrantFault::Pattern)
        } else {
            let name = TopicName::parse(text.to_owned());
            name.map(Self::Topic).map_err(|_| GrantFault::Pattern)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grants(texts: &[&str], sub: &str) -> Result<Grants, GrantFault> {
        let texts: Vec<String> = texts.iter().map(ToString::to_string).collect();
        Grants::parse(&texts, sub)
    }

    #[test]
    fn a_topic_is_itself_and_a_pattern_its_levels() {
        let of = grants(&["lobby", "chat/*", "users/{sub}/**", "{sub}"], "alice").unwrap();
        for name in ["lobby", "chat/a", "chat/", "users/alice/inbox", "users/alice/a/b", "alice"] {
            assert!(of.has(name), "{name}");
        }
        // Neither what begins like a topic, nor another spelling of one, nor what a template stands for.
        for name in [
            "lobby/a",
            "lobbyx",
            "Lobby",
            "chat",
            "chat/a/b",
            "chatx/a",
            "users/bob/inbox",
            "users/alice",
            "users/alicex/inbox",
            "users/{sub}/inbox",
            "users/*/inbox",
            "users%2Falice/inbox",
            "users/alic\u{435}/inbox",
            "",
        ] {
            assert!(!of.has(name), "{name}");
        }
        assert_eq!(of.texts().nth(2), Some("users/alice/**"));
        assert!(grants(&[], "alice").unwrap().is_empty());
    }

    #[test]
    fn a_sub_is_one_level_or_the_list_is_refused() {
        for sub in ["bob/x", "/", "*", "**", "a*"] {
            assert_eq!(grants(&["users/{sub}/**"], sub), Err(GrantFault::Substitution), "{sub}");
            assert!(grants(&["users/x/**"], sub).is_ok(), "it stands nowhere");
        }
        // What looks like a template in the sub stays text: it is filled in once.
        let of = grants(&["users/{sub}/a"], "{sub}").unwrap();
        assert!(of.has("users/{sub}/a") && !of.has("users/bob/a"));
        // Dots mean nothing in names of topics.
        let dots = grants(&["users/{sub}/**"], "..").unwrap();
        assert!(dots.has("users/../a") && !dots.has("a") && !dots.has("users/bob/a"));
    }

    #[test]
    fn what_is_no_topic_is_refused_and_so_are_too_many() {
        let long = "x".repeat(201);
        for bad in ["", "a*", "a/**/b", "***", "a\n", "*/*/*/*/*", &long] {
            assert_eq!(grants(&[bad], "alice"), Err(GrantFault::Pattern), "{bad:?}");
        }
        assert_eq!(
            grants(&["{sub}{sub}"], &"x".repeat(101)),
            Err(GrantFault::Pattern),
            "filled in, too long"
        );
        assert!(grants(&["a"; GRANTS_MAX], "alice").is_ok());
        assert_eq!(grants(&["a"; GRANTS_MAX + 1], "alice"), Err(GrantFault::Pattern));
    }
}
