//! What of a pattern is somebody's: all of it, or under stricter rules only the parts that their token lists.
//!
//! Pure. Whoever subscribes to a pattern gets a share of it once; whether a topic is in it is then decided where the
//! topic finds out about its patterns, and by its own rule.

use super::identity::{Denied, Identity, Right, permit};
use crate::topic::{Access, LevelPattern, TopicRules};

/// What somebody gets of a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// All of it under rules that are this strict or less.
    pub upto: Access,
    /// Patterns and topics within it, of which all under rules that ask for a claim.
    pub parts: Vec<LevelPattern>,
    /// Whether by the rules as they are all of it comes for any topic.
    pub is_whole_somewhere: bool,
    /// Whether by the rules as they are less than all of it comes.
    pub is_limited: bool,
    /// Whether by the rules as they are nothing of it can come.
    pub is_empty: bool,
}

impl Share {
    /// What of a pattern is somebody's.
    #[must_use]
    pub fn of(pattern: &LevelPattern, who: Option<&Identity>, rules: &TopicRules) -> Self {
        let (upto, parts) = match who.map(|who| (who, &who.rights().subscribe)) {
            None => (Access::Anyone, Vec::new()),
            Some((_, None)) => (Access::Identified, Vec::new()),
            Some((who, Some(grants))) if grants.covers(pattern, who.sub()) => (Access::Claim, Vec::new()),
            // Under a rule for everybody a list limits nobody.
            Some((who, Some(grants))) => (Access::Anyone, grants.parts_of(pattern, who.sub())),
        };
        let is_whole_somewhere = rules.loosest_of(pattern) >= upto;
        let is_limited = rules.watchers_of(pattern) < upto;
        let part = |part| rules.loosest_of(part) >= Access::Claim;
        let is_empty = is_limited && !is_whole_somewhere && !parts.iter().any(part);
        Self { upto, parts, is_whole_somewhere, is_limited, is_empty }
    }

    /// Whether by the rules as they are less of it may come than by those before, which is not all.
    #[must_use]
    pub fn is_narrowed(&self, pattern: &LevelPattern, rules: &TopicRules, before: &TopicRules) -> bool {
        let comes = |access| match () {
            () if access >= self.upto => 2,
            () if access >= Access::Claim && !self.parts.is_empty() => 1,
            () => 0,
        };
        self.is_limited && rules.may_narrow(before, pattern, comes)
    }

    /// Whether it has all that another share of the same pattern has, whatever the rules.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        let part = |part| self.upto <= Access::Claim || self.parts.iter().any(|own| own.covers(part));
        self.upto <= other.upto && other.parts.iter().all(part)
    }
}

/// Whether somebody may subscribe to a pattern; `limits`: who is told, if they get less than all of it.
///
/// # Errors
/// Nothing of it is for them, or not all of it, and they would not know.
pub fn may_watch(
    pattern: &LevelPattern,
    who: Option<&Identity>,
    rules: &TopicRules,
    limits: bool,
) -> Result<(), Denied> {
    let share = Share::of(pattern, who, rules);
    match (share.is_limited, share.is_empty || !limits) {
        (true, true) if limits => permit(rules.loosest_of(pattern), who, Right::Watch(pattern)),
        (true, true) => permit(rules.watchers_of(pattern), who, Right::Watch(pattern)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::identity::SharedRights;
    use crate::auth::identity::tests::identity;
    use crate::topic::{TopicPattern, TopicPolicy, rules::Rule};

    #[test]
    fn a_share_is_what_would_be_permitted_topic_by_topic() {
        let mut shared = SharedRights::default();
        let pattern = |text| LevelPattern::parse(text).unwrap();
        let listed = identity(&mut shared, "alice", None, Some(&["chat/*", "users/{sub}/**"]));
        let narrow = identity(&mut shared, "alice", None, Some(&["chat/b"]));
        let silent = identity(&mut shared, "alice", None, None);
        let names = ["chat/a", "chat/b", "users/alice/x", "users/bob/x", "lobby"];
        for text in ["**", "chat/*", "*/*", "users/*/x", "chat/a/*"] {
            let wanted = pattern(text);
            let shares = [None, Some(&*listed), Some(&*narrow), Some(&*silent)].map(|who| {
                let share = Share::of(&wanted, who, &TopicRules::default());
                for name in names.into_iter().filter(|name| wanted.fits(name)) {
                    for access in [Access::Nobody, Access::Claim, Access::Identified, Access::Anyone] {
                        let part = || share.parts.iter().any(|part| part.fits(name));
                        let has = access >= share.upto || access >= Access::Claim && part();
                        let permitted = permit(access, who, Right::Subscribe(name)).is_ok();
                        assert_eq!(has, permitted, "{text} {name} {access:?} {who:?}");
                    }
                }
                share
            });
            for share in &shares {
                assert!(share.covers(share) && share.covers(&shares[0]), "{text}");
            }
            let [nobody, listed, narrow, _] = &shares;
            assert!(listed.covers(narrow), "{text}");
            assert_eq!(narrow.covers(listed), *narrow == *listed, "{text}");
            assert_eq!(nobody.covers(narrow), narrow.parts.is_empty(), "{text}");
        }
    }

    #[test]
    fn a_pattern_is_refused_where_nothing_of_it_can_come() {
        let mut shared = SharedRights::default();
        let listed = identity(&mut shared, "alice", None, Some(&["chat/*", "staff/rota", "lobby/x"]));
        let silent = identity(&mut shared, "alice", None, None);
        let rule = |pattern: &str, subscribe| Rule {
            subscribe: Some(subscribe),
            ..Rule::of(TopicPattern::compile(pattern).unwrap())
        };
        let base = TopicPolicy { subscribe: Access::Identified, ..TopicPolicy::default() };
        let rules = vec![
            rule("open/*", Access::Anyone),
            rule("staff/*", Access::Nobody),
            rule("chat/secret", Access::Nobody),
            rule("listed/*", Access::Claim),
        ];
        let rules = TopicRules::new(rules, Vec::new(), base);
        let (nobody, anonymous, scope) = (Err(Denied::Nobody), Err(Denied::Anonymous), Err(Denied::Scope));
        // By who they are: what is said where limits are told, and where they are not.
        for (pattern, of_none, of_listed, of_silent) in [
            ("**", [Ok(()), nobody], [Ok(()), nobody], [Ok(()), nobody]),
            ("open/**", [Ok(()), Ok(())], [Ok(()), Ok(())], [Ok(()), Ok(())]),
            ("staff/*", [nobody, nobody], [nobody, nobody], [nobody, nobody]),
            ("chat/*", [anonymous, nobody], [Ok(()), nobody], [Ok(()), nobody]),
            ("chat/**", [anonymous, nobody], [Ok(()), nobody], [Ok(()), nobody]),
            ("listed/*", [anonymous, anonymous], [scope, scope], [scope, scope]),
            ("lobby/*", [anonymous, anonymous], [Ok(()), scope], [Ok(()), Ok(())]),
            ("users/*", [anonymous, anonymous], [scope, scope], [Ok(()), Ok(())]),
        ] {
            let wanted = LevelPattern::parse(pattern).unwrap();
            for (who, expected) in [(None, of_none), (Some(&*listed), of_listed), (Some(&*silent), of_silent)]
            {
                let got = [true, false].map(|limits| may_watch(&wanted, who, &rules, limits));
                assert_eq!(got, expected, "{pattern} {who:?}");
            }
        }
    }
}
