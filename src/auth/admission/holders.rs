//! How many connections each bearer has, over all loops, where that is limited.
//!
//! Shared by all loops; told when a connection has shown its first token and when it ends, never in between. Bounded by the
//! connections that there are: who has none has no entry. Never blocks longer than one shard's lock, which is held for a look-up.

use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::counts::Counts;
use super::{SHARD_BITS, SHARDS};
use crate::auth::identity::Identity;

/// The table of bearers. One is known by 32 bits of a keyed hash, as an address is: two with the same share an entry, which makes
/// their limit stricter, and nobody outside can find such pairs.
pub struct Holders {
    most: u32,
    key: RandomState,
    shards: Box<[Mutex<Counts>]>,
}

impl Holders {
    /// An empty table where each bearer may have so many connections; 0: as many as they like, and nothing is counted.
    #[must_use]
    pub fn new(most: usize) -> Self {
        let most = u32::try_from(most).unwrap_or(u32::MAX);
        let shards = if most > 0 { SHARDS } else { 0 };
        Self { most, key: RandomState::new(), shards: (0..shards).map(|_| Mutex::default()).collect() }
    }

    /// Counts a connection of this bearer in. `false`: it has as many as it may, and nothing was counted.
    #[must_use]
    pub fn try_enter(&self, who: &Identity) -> bool {
        let Some((handle, mut shard)) = self.shard(who) else { return true };
        let fits = shard.count(handle) < self.most;
        if fits {
            shard.add(handle);
        }
        fits
    }

    /// Counts a connection out that was counted in.
    pub fn leave(&self, who: &Identity) {
        if let Some((handle, mut shard)) = self.shard(who) {
            shard.sub(handle);
        }
    }

    /// Bearers that have a connection now, where that is limited. Locks one shard after the other.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| lock_counts(shard).len()).sum()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn shard(&self, who: &Identity) -> Option<(u32, MutexGuard<'_, Counts>)> {
        if self.shards.is_empty() {
            return None;
        }
        let handle = ((self.key.hash_one((who.issuer(), who.sub())) >> 32) as u32).max(1);
        // The shift leaves SHARD_BITS bits.
        let shard = self.shards.get((handle >> (u32::BITS - SHARD_BITS)) as usize)?;
        Some((handle, lock_counts(shard)))
    }
}

/// A poisoned shard is whole: nothing in here panics half-way.
fn lock_counts(shard: &Mutex<Counts>) -> MutexGuard<'_, Counts> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::auth::identity::SharedRights;
    use crate::auth::token::Claims;

    fn who(issuer: Option<&str>, sub: &str) -> Arc<Identity> {
        let claims = Claims {
            sub: sub.into(),
            subscribe: None,
            publish: None,
            expires: 7,
            good_until: 7,
            issued: None,
            jti: None,
            issuer: issuer.map(Into::into),
            carried: None,
        };
        Identity::new(claims, &mut SharedRights::default())
    }

    #[test]
    fn a_bearer_has_as_many_as_may_be_and_two_issuers_name_two() {
        let table = Holders::new(2);
        let (ours, theirs) = (who(Some("us"), "alice"), who(Some("them"), "alice"));
        let unnamed = who(None, "alice");
        for who in [&ours, &theirs, &unnamed] {
            assert_eq!([(); 3].map(|()| table.try_enter(who)), [true, true, false]);
        }
        table.leave(&ours);
        assert_eq!(
            [(); 2].map(|()| table.try_enter(&ours)),
            [true, false],
            "what was refused is not counted"
        );
        for who in [&ours, &theirs, &unnamed] {
            table.leave(who);
            table.leave(who);
        }
        assert_eq!(table.len(), 0);
        table.leave(&ours);
        assert_eq!(table.len(), 0, "who was not counted in is not counted out");
    }

    #[test]
    fn without_a_limit_nothing_is_counted() {
        let table = Holders::new(0);
        assert!((0..100).all(|_| table.try_enter(&who(None, "alice"))));
        assert_eq!(table.len(), 0);
    }
}
