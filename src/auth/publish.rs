//! Which topics a client may publish to over its own connection. Endpoints ask per message; the
//! admin port is not asked here, it may publish everywhere.

use super::PatternError;

/// Longest topic name.
const TOPIC_BYTES_MAX: usize = 200;

/// The compiled policy; shared by all loops, never changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PublishPolicy {
    exact: Vec<String>,
    /// Without their `*`; the empty one allows every topic.
    prefixes: Vec<String>,
}

impl PublishPolicy {
    /// Compiles topic names, each exact or with one trailing `*`.
    ///
    /// # Errors
    /// When an entry could never be a topic's name.
    pub fn compile(topics: &[String]) -> Result<Self, PatternError> {
        let mut policy = Self::default();
        for topic in topics {
            let (name, list) = match topic.strip_suffix('*') {
                Some(prefix) => (prefix, &mut policy.prefixes),
                None => (topic.as_str(), &mut policy.exact),
            };
            let fail = |problem| Err(PatternError::new(topic, problem));
            if topic.is_empty() {
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
            list.push(name.to_owned());
        }
        Ok(policy)
    }

    /// Whether a client may publish to `topic`.
    pub fn allows(&self, topic: &str) -> bool {
        self.exact.iter().any(|name| name == topic)
            || self.prefixes.iter().any(|prefix| topic.starts_with(prefix.as_str()))
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
    fn names_that_no_topic_has_are_refused() {
        let long = "x".repeat(201);
        for bad in ["", "a*b", "**", "*a", "a\n", &long] {
            assert!(policy(&[bad]).is_err(), "{bad:?}");
        }
        assert!(policy(&["é", &"x".repeat(200)]).is_ok());
    }
}
