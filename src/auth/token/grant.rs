//! Which topics a token is for: names and patterns, compared with a topic's name. Pure.
//!
//! Where a pattern says `{sub}`, it is kept so and filled in when it is looked at: then the lists of all whose tokens say
//! the same are equal, whoever they are, and one of them serves for all.

use std::borrow::Cow;

use crate::topic::{LevelPattern, TopicName};

/// Names and patterns that one claim may list.
pub const GRANTS_MAX: usize = 64;

/// What stands for the bearer's own `sub` in a pattern.
const SUB: &str = "{sub}";

#[derive(Clone, Debug, PartialEq, Eq)]
enum Grant {
    Topic(TopicName<'static>),
    Pattern(LevelPattern),
    /// A topic or a pattern once `{sub}` is filled in.
    Template(Box<str>),
}

/// The topics that a claim lists, for a bearer who is told with each question.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grants(Box<[Grant]>);

/// What is wrong with a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::auth) enum GrantFault {
    /// One is neither a topic nor a pattern, or there are too many.
    Pattern,
    /// A `sub` that has no place in a pattern.
    Substitution,
}

impl Grants {
    /// Reads a list; `sub` has to fit wherever it says `{sub}`.
    pub(in crate::auth) fn parse(texts: &[String], sub: &str) -> Result<Self, GrantFault> {
        if texts.len() > GRANTS_MAX {
            return Err(GrantFault::Pattern);
        }
        texts.iter().map(|text| Grant::parse(text, sub)).collect::<Result<_, _>>().map(Self)
    }

    /// Whether the topic of this name is among them.
    #[must_use]
    pub fn has(&self, name: &str, sub: &str) -> bool {
        self.0.iter().any(|grant| match grant {
            Grant::Topic(topic) => topic.as_str() == name,
            Grant::Pattern(pattern) => pattern.fits(name),
            Grant::Template(text) => match filled(text, sub) {
                Filled::Topic(topic) => topic == name,
                Filled::Pattern(pattern) => pattern.fits(name),
                Filled::Nothing => false,
            },
        })
    }

    /// Whether one of them means every topic that `wanted` means.
    #[must_use]
    pub fn covers(&self, wanted: &LevelPattern, sub: &str) -> bool {
        self.0.iter().any(|grant| match grant {
            Grant::Topic(_) => false,
            Grant::Pattern(pattern) => pattern.covers(wanted),
            Grant::Template(text) => match filled(text, sub) {
                Filled::Pattern(pattern) => pattern.covers(wanted),
                Filled::Topic(_) | Filled::Nothing => false,
            },
        })
    }

    /// What of `wanted` they mean, a part for each that means some of it.
    #[must_use]
    pub fn parts_of(&self, wanted: &LevelPattern, sub: &str) -> Vec<LevelPattern> {
        let topic = |name: &str| {
            let name = TopicName::parse(name.to_owned()).ok().filter(|name| wanted.fits(name.as_str()));
            name.map(|name| LevelPattern::of_topic(&name))
        };
        let part = |grant: &Grant| match grant {
            Grant::Topic(name) => topic(name.as_str()),
            Grant::Pattern(pattern) => wanted.meet(pattern),
            Grant::Template(text) => match filled(text, sub) {
                Filled::Topic(name) => topic(&name),
                Filled::Pattern(pattern) => wanted.meet(&pattern),
                Filled::Nothing => None,
            },
        };
        let mut parts: Vec<_> = self.0.iter().filter_map(part).collect();
        parts.sort_unstable();
        parts.dedup();
        parts
    }

    /// Whether it lists nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Each as text, with `{sub}` filled in.
    pub fn texts<'a>(&'a self, sub: &'a str) -> impl Iterator<Item = Cow<'a, str>> {
        self.0.iter().map(move |grant| match grant {
            Grant::Topic(topic) => Cow::Borrowed(topic.as_str()),
            Grant::Pattern(pattern) => Cow::Borrowed(pattern.as_str()),
            Grant::Template(text) => Cow::Owned(text.replace(SUB, sub)),
        })
    }
}

/// A template with its bearer.
enum Filled {
    Topic(String),
    Pattern(LevelPattern),
    /// The bearer has no place in it; who was read with the list has.
    Nothing,
}

fn filled(template: &str, sub: &str) -> Filled {
    // Of the sub "bob/x" users/{sub}/** would be topics of bob, and of "*" those of everybody.
    if sub.contains(['/', '*']) {
        return Filled::Nothing;
    }
    let text = template.replace(SUB, sub);
    if !LevelPattern::is_meant(&text) {
        let is_topic = TopicName::parse(text.as_str()).is_ok();
        return if is_topic { Filled::Topic(text) } else { Filled::Nothing };
    }
    LevelPattern::parse(&text).map_or(Filled::Nothing, Filled::Pattern)
}

impl Grant {
    fn parse(text: &str, sub: &str) -> Result<Self, GrantFault> {
        if text.contains(SUB) {
            return match filled(text, sub) {
                Filled::Nothing if sub.contains(['/', '*']) => Err(GrantFault::Substitution),
                Filled::Nothing => Err(GrantFault::Pattern),
                Filled::Topic(_) | Filled::Pattern(_) => Ok(Self::Template(text.into())),
            };
        }
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
            assert!(of.has(name, "alice"), "{name}");
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
            assert!(!of.has(name, "alice"), "{name}");
        }
        assert_eq!(of.texts("alice").nth(2).as_deref(), Some("users/alice/**"));
        // The same list is somebody else's, too.
        assert!(of == grants(&["lobby", "chat/*", "users/{sub}/**", "{sub}"], "bob").unwrap());
        assert!(of.has("users/bob/inbox", "bob") && !of.has("users/alice/inbox", "bob"));
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
        assert!(of.has("users/{sub}/a", "{sub}") && !of.has("users/bob/a", "{sub}"));
        // Dots mean nothing in names of topics.
        let dots = grants(&["users/{sub}/**"], "..").unwrap();
        assert!(dots.has("users/../a", "..") && !dots.has("a", "..") && !dots.has("users/bob/a", ".."));
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

    #[test]
    fn the_parts_of_a_pattern_mean_what_the_list_and_the_pattern_mean() {
        let of =
            grants(&["lobby", "chat/b", "chat/a/*", "users/{sub}/**", "{sub}", "*/x", "chat/b"], "alice")
                .unwrap();
        for (pattern, expected) in [
            ("chat/**", &["chat/a/*", "chat/b", "chat/x"][..]),
            ("chat/*", &["chat/b", "chat/x"]),
            ("*/*", &["*/x", "chat/b"]),
            ("users/*/inbox", &["users/alice/inbox"]),
            ("users/bob/**", &[]),
            ("users/alice/**", &["users/alice/**"]),
            ("*", &["alice", "lobby"]),
            ("**", &["*/x", "alice", "chat/a/*", "chat/b", "lobby", "users/alice/**"]),
            ("chatx/a/*", &[]),
        ] {
            let wanted = LevelPattern::parse(pattern).unwrap();
            let parts = of.parts_of(&wanted, "alice");
            let texts: Vec<_> = parts.iter().map(LevelPattern::as_str).collect();
            assert_eq!(texts, expected, "{pattern}");
            for name in
                ["lobby", "chat/b", "chat/a/1", "chat/a", "users/alice/inbox", "users/bob/inbox", "q/x"]
            {
                let by_parts = parts.iter().any(|part| part.fits(name));
                assert_eq!(by_parts, wanted.fits(name) && of.has(name, "alice"), "{pattern} {name}");
            }
        }
        // A template is nobody's there; the others are everybody's.
        let parts = of.parts_of(&LevelPattern::parse("users/**").unwrap(), "a/b");
        assert_eq!(parts.iter().map(LevelPattern::as_str).collect::<Vec<_>>(), ["users/x"]);
    }

    #[test]
    fn a_pattern_is_covered_by_one_that_means_all_of_it() {
        let of = grants(&["lobby", "chat/**", "users/{sub}/*", "*/eur"], "alice").unwrap();
        for (pattern, covered) in [
            ("chat/**", true),
            ("chat/*", true),
            ("chat/*/x", true),
            ("users/alice/*", true),
            ("users/alice/**", false),
            ("users/bob/*", false),
            ("users/*/*", false),
            ("*/eur", true),
            ("*/*", false),
            ("*", false),
            ("**", false),
            ("chatx/*", false),
        ] {
            assert_eq!(of.covers(&LevelPattern::parse(pattern).unwrap(), "alice"), covered, "{pattern}");
        }
    }
}
