//! Tokens that are not taken any more though their time has not come: by their own name, or all that somebody had been issued
//! until now.
//!
//! Written by the admin port, asked by loops with each token that is good otherwise. In memory alone: a restart forgets it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::token::Claims;

/// Revocations that are kept: at 200 bytes a name, 16 MiB.
pub const REVOKED_MAX: usize = 65_536;

/// What is revoked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Revoked {
    /// The token of this name (`jti`).
    Token(Box<str>),
    /// Every token of this bearer that was issued before.
    Bearer {
        /// In the words of this issuer; `None`: whoever has issued it.
        issuer: Option<Box<str>>,
        /// Its `sub`.
        sub: Box<str>,
    },
}

/// When it was revoked, and until when that is kept, in seconds since 1970.
#[derive(Clone, Copy, Debug)]
struct Span {
    at: u64,
    until: u64,
}

/// Everything that is revoked now.
#[derive(Debug, Default)]
pub struct Revocations {
    /// How many there are, so that nobody waits for the lock where there are none.
    count: AtomicUsize,
    all: Mutex<HashMap<Revoked, Span>>,
}

impl Revocations {
    /// Revokes from `now` on, and keeps that until `until`, in seconds since 1970. `false`: there is no room.
    #[must_use]
    pub fn add(&self, revoked: Revoked, now: u64, until: u64) -> bool {
        // A map that an insert panicked in has that entry or has not.
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= REVOKED_MAX {
            all.retain(|_, span| span.until > now);
        }
        let known = all.get(&revoked).map_or(0, |span| span.until);
        let fits = all.len() < REVOKED_MAX || known > 0;
        if fits {
            all.insert(revoked, Span { at: now, until: until.max(known) });
        }
        self.count.store(all.len(), Ordering::Release);
        fits
    }

    /// How many are kept, those whose time is over among them until their room is needed.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    /// Whether a token that says this is revoked.
    #[must_use]
    pub fn has(&self, claims: &Claims, now: u64) -> bool {
        if self.count.load(Ordering::Acquire) == 0 {
            return false;
        }
        let all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = |revoked: &Revoked| all.get(revoked).filter(|span| span.until > now);
        let by_name = claims.jti.as_ref().and_then(|jti| kept(&Revoked::Token(jti.clone())));
        // Who was issued another one since may come back with it. One that does not say when it was issued may be older.
        let issued = claims.issued.unwrap_or(0);
        let by_bearer = |issuer: Option<&str>| {
            let bearer = Revoked::Bearer { issuer: issuer.map(Into::into), sub: claims.sub.clone() };
            kept(&bearer).filter(|span| issued <= span.at)
        };
        let by_issuer = || claims.issuer.as_deref().and_then(|issuer| by_bearer(Some(issuer)));
        by_name.or_else(|| by_bearer(None)).or_else(by_issuer).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims(sub: &str, jti: Option<&str>, issued: Option<u64>) -> Claims {
        Claims {
            sub: sub.into(),
            subscribe: None,
            publish: None,
            expires: 9_000,
            good_until: 9_000,
            issued,
            jti: jti.map(Into::into),
            issuer: None,
            carried: None,
        }
    }

    #[test]
    fn by_name_one_token_is_meant_and_by_bearer_those_issued_before() {
        let revocations = Revocations::default();
        assert!(!revocations.has(&claims("alice", Some("1"), None), 1_000));
        assert!(revocations.add(Revoked::Token("1".into()), 1_000, 2_000));
        assert!(revocations.add(Revoked::Bearer { issuer: None, sub: "bob".into() }, 1_000, 2_000));
        for (of, revoked) in [
            (claims("alice", Some("1"), Some(1_500)), true),
            (claims("alice", Some("2"), None), false),
            (claims("1", None, None), false),
            (claims("bob", None, None), true),
            (claims("bob", Some("2"), Some(1_000)), true),
            (claims("bob", Some("2"), Some(1_001)), false),
        ] {
            assert_eq!(revocations.has(&of, 1_500), revoked, "{of:?}");
            assert!(!revocations.has(&of, 2_000), "it is not kept for ever");
        }
    }

    #[test]
    fn of_two_issuers_who_name_the_same_one_can_be_meant() {
        let revocations = Revocations::default();
        let of =
            |issuer: Option<&str>| Claims { issuer: issuer.map(Into::into), ..claims("bob", None, None) };
        let found = || [None, Some("us"), Some("them")].map(|issuer| revocations.has(&of(issuer), 1_500));
        let bearer =
            |issuer: Option<&str>| Revoked::Bearer { issuer: issuer.map(Into::into), sub: "bob".into() };
        assert!(revocations.add(bearer(Some("us")), 1_000, 2_000));
        assert_eq!(found(), [false, true, false]);
        assert!(revocations.add(bearer(None), 1_000, 2_000));
        assert_eq!(found(), [true, true, true]);
    }

    #[test]
    fn a_full_list_says_so_and_has_room_again_when_some_are_over() {
        let revocations = Revocations::default();
        let name = |number: usize| Revoked::Token(number.to_string().into());
        for number in 0..REVOKED_MAX {
            assert!(revocations.add(name(number), 1, if number == 0 { 10 } else { 100 }));
        }
        assert!(!revocations.add(name(REVOKED_MAX), 5, 100));
        assert!(revocations.add(name(7), 5, 200), "it is there already");
        assert!(revocations.add(name(REVOKED_MAX), 10, 100), "the first is over");
    }
}
