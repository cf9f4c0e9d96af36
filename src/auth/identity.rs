//! Who a connection belongs to: what is kept of the claims of its token, and what they allow.
//!
//! Made by whoever has checked a token, or was told by a backend; held by the loop for as long as the connection has it.
//! Plain data behind one `Arc`: lists of topics are shared by all whose tokens say the same.

use std::sync::Arc;

use serde_json::value::RawValue;

use super::token::{Claims, Grants};
use crate::topic::{Access, LevelPattern};

/// Different lists, and different claims, that are kept to be shared. Most applications say the same of most of their users.
const SHARED_MAX: usize = 32;

/// What a bearer may do, by their token alone, and who says so. Equal for many.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rights {
    /// See [`Claims::issuer`].
    pub issuer: Option<Arc<str>>,
    /// What they may subscribe to; `None` if the token does not say.
    pub subscribe: Option<Grants>,
    /// What they may publish to; `None` if the token does not say.
    pub publish: Option<Grants>,
}

/// All that a token says but the names of its bearer and its end. Equal for many, too, unless it says something of each.
#[derive(Debug, PartialEq, Eq)]
struct Terms {
    rights: Arc<Rights>,
    /// See [`Claims::carried`].
    carried: Option<Box<str>>,
}

/// Who bears a token.
#[derive(Debug, PartialEq, Eq)]
pub struct Identity {
    /// `sub`, and behind it `jti` if there is one.
    names: Box<str>,
    sub_bytes: u8,
    expires: u64,
    terms: Arc<Terms>,
}

/// Why somebody may not do something with a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// No client may.
    Nobody,
    /// Only who has shown a token may.
    Anonymous,
    /// The token does not say so.
    Scope,
}

impl Identity {
    /// Who a token's claims speak of. `shared` has the lists of others.
    #[must_use]
    pub fn new(claims: Claims, shared: &mut SharedRights) -> Arc<Self> {
        let Claims { sub, subscribe, publish, expires, jti, issuer, carried, .. } = claims;
        // Checked with the claims: it has at most 200 bytes.
        let sub_bytes = u8::try_from(sub.len()).unwrap_or(u8::MAX);
        let mut names = String::from(sub);
        names.push_str(jti.as_deref().unwrap_or_default());
        let terms = shared.share(Rights { issuer, subscribe, publish }, carried);
        Arc::new(Self { names: names.into(), sub_bytes, expires, terms })
    }

    /// Who it is, in the words of the issuer: 1 to 200 bytes without control characters.
    #[must_use]
    pub fn sub(&self) -> &str {
        self.names.get(..usize::from(self.sub_bytes)).unwrap_or_default()
    }

    /// Who says so, if that issuer has a name: two who name the same `sub` mean two bearers.
    #[must_use]
    pub fn issuer(&self) -> Option<&str> {
        self.rights().issuer.as_deref()
    }

    /// Whether these claims speak of the same bearer.
    #[must_use]
    pub fn is_meant_by(&self, claims: &Claims) -> bool {
        self.sub() == &*claims.sub && self.issuer() == claims.issuer.as_deref()
    }

    /// The name of the token, if it has one.
    #[must_use]
    pub fn jti(&self) -> Option<&str> {
        self.names.get(usize::from(self.sub_bytes)..).filter(|jti| !jti.is_empty())
    }

    /// When the token ends, in seconds since 1970; no leeway is in it.
    #[must_use]
    pub fn expires(&self) -> u64 {
        self.expires
    }

    /// What the token allows.
    #[must_use]
    pub fn rights(&self) -> &Rights {
        &self.terms.rights
    }

    /// What the application is told beside that, as a JSON object.
    #[must_use]
    pub fn carried(&self) -> Option<&RawValue> {
        serde_json::from_str(self.terms.carried.as_deref()?).ok()
    }

    /// Bytes of memory that are its own, or that it shares.
    #[must_use]
    pub fn memory(&self) -> usize {
        let own = |carried: &str| size_of::<Terms>() + 2 * size_of::<usize>() + carried.len();
        let carried = self.terms.carried.as_deref().map_or(0, own);
        size_of::<Self>() + 2 * size_of::<usize>() + self.names.len() + carried
    }
}

/// Something that a client wants of topics.
#[derive(Clone, Copy, Debug)]
pub enum Right<'a> {
    /// To subscribe to the topic of this name, or read what it keeps.
    Subscribe(&'a str),
    /// To subscribe to all that a pattern means.
    Watch(&'a LevelPattern),
    /// To publish to the topic of this name.
    Publish(&'a str),
}

/// Whether somebody has a right; `access` is what the topic's rule says of it, or the strictest of the rules that a
/// pattern can meet. The rule is the ceiling, and under it the token's list, where it has one, is the limit.
///
/// # Errors
/// Why not.
pub fn permit(access: Access, who: Option<&Identity>, right: Right<'_>) -> Result<(), Denied> {
    let who = match (access, who) {
        (Access::Nobody, _) => return Err(Denied::Nobody),
        (Access::Anyone, _) => return Ok(()),
        (Access::Identified | Access::Claim, None) => return Err(Denied::Anonymous),
        (Access::Identified | Access::Claim, Some(who)) => who,
    };
    let Rights { subscribe, publish, .. } = who.rights();
    let grants = match right {
        Right::Subscribe(_) | Right::Watch(_) => subscribe,
        Right::Publish(_) => publish,
    };
    let listed = match (grants, right) {
        (None, _) => access == Access::Identified,
        (Some(grants), Right::Subscribe(name) | Right::Publish(name)) => grants.has(name, who.sub()),
        (Some(grants), Right::Watch(pattern)) => grants.covers(pattern, who.sub()),
    };
    if listed { Ok(()) } else { Err(Denied::Scope) }
}

/// Lists of topics and claims that were seen lately, so that equal ones are kept once. Each loop has its own.
#[derive(Debug, Default)]
pub struct SharedRights {
    rights: Lately<Rights>,
    terms: Lately<Terms>,
}

/// The last different ones of something.
#[derive(Debug)]
struct Lately<T> {
    kept: Vec<Arc<T>>,
    next: usize,
}

impl<T> Default for Lately<T> {
    fn default() -> Self {
        Self { kept: Vec::new(), next: 0 }
    }
}

impl SharedRights {
    /// The same, once for all who have it.
    fn share(&mut self, rights: Rights, carried: Option<Box<str>>) -> Arc<Terms> {
        // Who has claims of their own has the rights of others nevertheless.
        let rights = self.rights.share(rights);
        self.terms.share(Terms { rights, carried })
    }
}

impl<T: PartialEq> Lately<T> {
    fn share(&mut self, one: T) -> Arc<T> {
        if let Some(known) = self.kept.iter().find(|known| ***known == one) {
            return Arc::clone(known);
        }
        let one = Arc::new(one);
        match self.kept.get_mut(self.next) {
            Some(oldest) => *oldest = Arc::clone(&one),
            None => self.kept.push(Arc::clone(&one)),
        }
        self.next = (self.next + 1) % SHARED_MAX;
        one
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::auth) fn identity(
        shared: &mut SharedRights,
        sub: &str,
        jti: Option<&str>,
        subscribe: Option<&[&str]>,
    ) -> Arc<Identity> {
        let list = |texts: &[&str]| {
            let texts: Vec<String> = texts.iter().map(ToString::to_string).collect();
            Grants::parse(&texts, sub).unwrap()
        };
        let subscribe = subscribe.map(list);
        let claims = Claims {
            sub: sub.into(),
            subscribe,
            publish: None,
            expires: 7,
            good_until: 7,
            issued: None,
            jti: jti.map(Into::into),
            issuer: None,
            carried: None,
        };
        Identity::new(claims, shared)
    }

    #[test]
    fn names_come_apart_again_and_equal_lists_are_kept_once() {
        let mut shared = SharedRights::default();
        let alice = identity(&mut shared, "älice", Some("t1"), Some(&["users/{sub}/**"]));
        let bob = identity(&mut shared, &"b".repeat(150), None, Some(&["users/{sub}/**"]));
        assert_eq!((alice.sub(), alice.jti(), alice.expires()), ("älice", Some("t1"), 7));
        assert_eq!((bob.sub().len(), bob.jti()), (150, None));
        assert!(Arc::ptr_eq(&alice.terms, &bob.terms));
        for number in 0..2 * SHARED_MAX {
            identity(&mut shared, "x", None, Some(&[&format!("room/{number}")]));
        }
        assert_eq!(shared.rights.kept.len(), SHARED_MAX, "bounded, whatever tokens say");
        let again = identity(&mut shared, "älice", None, Some(&["users/{sub}/**"]));
        assert!(!Arc::ptr_eq(&alice.terms, &again.terms) && alice.terms == again.terms);
    }

    #[test]
    fn what_is_carried_is_shared_where_it_is_equal() {
        let mut shared = SharedRights::default();
        let mut bearer = |carried: &str| {
            let claims = Claims {
                sub: "alice".into(),
                subscribe: None,
                publish: None,
                expires: 7,
                good_until: 7,
                issued: None,
                jti: None,
                issuer: None,
                carried: Some(carried.into()),
            };
            Identity::new(claims, &mut shared)
        };
        let (one, other) = (bearer(r#"{"tenant":"x"}"#), bearer(r#"{"tenant":"x"}"#));
        assert!(Arc::ptr_eq(&one.terms, &other.terms));
        assert_eq!(one.carried().unwrap().get(), r#"{"tenant":"x"}"#);
        for number in 0..2 * SHARED_MAX {
            let own = bearer(&number.to_string());
            assert_eq!(own.carried().unwrap().get(), number.to_string());
            assert!(Arc::ptr_eq(&own.terms.rights, &one.terms.rights), "what is equal of it is shared");
        }
        assert_eq!((shared.terms.kept.len(), shared.rights.kept.len()), (SHARED_MAX, 1));
    }

    #[test]
    fn the_rule_is_the_ceiling_and_the_list_the_limit_under_it() {
        let mut shared = SharedRights::default();
        let listed = identity(&mut shared, "alice", None, Some(&["users/{sub}/**"]));
        let silent = identity(&mut shared, "alice", None, None);
        let none = identity(&mut shared, "alice", None, Some(&[]));
        let (nobody, anonymous, scope) = (Err(Denied::Nobody), Err(Denied::Anonymous), Err(Denied::Scope));
        // By the rule: without a token, with a list that has the topic, with one that has not, with none.
        for (access, expected) in [
            (Access::Nobody, [nobody, nobody, nobody, nobody]),
            (Access::Claim, [anonymous, Ok(()), scope, scope]),
            (Access::Identified, [anonymous, Ok(()), scope, Ok(())]),
            (Access::Anyone, [Ok(()), Ok(()), Ok(()), Ok(())]),
        ] {
            let right = Right::Subscribe("users/alice/a");
            let got =
                [None, Some(&*listed), Some(&*none), Some(&*silent)].map(|who| permit(access, who, right));
            assert_eq!(got, expected, "{access:?}");
        }
        fn identified(who: &Identity, right: Right<'_>) -> Result<(), Denied> {
            permit(Access::Identified, Some(who), right)
        }
        assert_eq!(identified(&listed, Right::Subscribe("users/bob/a")), scope);
        assert_eq!(identified(&listed, Right::Publish("users/bob/a")), Ok(()), "of that it says nothing");
        let pattern = |text| LevelPattern::parse(text).unwrap();
        assert_eq!(identified(&listed, Right::Watch(&pattern("users/alice/*"))), Ok(()));
        assert_eq!(identified(&listed, Right::Watch(&pattern("users/*/a"))), scope);
        assert_eq!(identified(&silent, Right::Watch(&pattern("**"))), Ok(()));
    }
}
