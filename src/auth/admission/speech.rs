//! How fast each bearer speaks, over all their connections and loops, where that is limited.
//!
//! Asked with each message of whoever has shown a token, so there is no lock: a bucket is one number, changed by compare and
//! exchange. Made with the first message under a limit; a table of fixed size, as that of addresses (`super::rates`). A
//! bearer is remembered while they owe something, and so also when they come back on another connection.

use std::hash::{BuildHasher, RandomState};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::auth::identity::Identity;

/// Buckets that share a place, a line of the cache; a bearer's is one of them.
const WAYS: usize = 8;

/// Places: 65,536 buckets in all, 512 KiB.
const SETS: usize = 1 << SET_BITS;
const SET_BITS: u32 = 13;

/// Bits of the hash that tell the bearers of one place apart.
const TAG_BITS: u32 = 19;
const TIME_BITS: u32 = u64::BITS - TAG_BITS;
const TIME: u64 = (1 << TIME_BITS) - 1;

/// Time units of one tick of 100 ms: fine enough for 10,000 messages a second, and 45 bits of them last for 17 years.
const UNITS_PER_TICK: u64 = 6_400;
const UNITS_PER_SECOND: u64 = 10 * UNITS_PER_TICK;

/// A line of the cache with the buckets of one place. Each is the tag and, below it, the time at which it is full again.
#[repr(align(64))]
#[derive(Default)]
struct Set([AtomicU64; WAYS]);

/// The table of buckets.
#[derive(Default)]
pub struct Speech {
    key: RandomState,
    sets: OnceLock<Box<[Set]>>,
}

impl Speech {
    /// Takes one message's token of this bearer's bucket at tick `now` (of 100 ms); `false` when it has none. `rate` is a
    /// second's and not 0.
    ///
    /// When all buckets of a place are in use, the one that owes least is given up: somebody is forgotten only for others who
    /// speak faster. Two that take the same bucket at once both count. Two first messages of one bearer at once may make two
    /// buckets, of which one is used and the other is full again in its time.
    #[must_use]
    pub fn try_take(&self, who: &Identity, now: u32, rate: u64, burst: u64) -> bool {
        self.try_take_of(self.key.hash_one((who.issuer(), who.sub())), now, rate, burst)
    }

    fn try_take_of(&self, hash: u64, now: u32, rate: u64, burst: u64) -> bool {
        let sets = self.sets.get_or_init(|| (0..SETS).map(|_| Set::default()).collect());
        let place = (hash >> (u64::BITS - SET_BITS)) as usize;
        // An entry is never 0, which is an empty bucket.
        let tag = (hash & ((1 << TAG_BITS) - 1)).max(1);
        let now = u64::from(now) * UNITS_PER_TICK;
        let cost = UNITS_PER_SECOND.div_ceil(rate.max(1));
        let most = cost.saturating_mul(burst.max(1));
        let Some(Set(ways)) = sets.get(place) else { return true };
        let full_at = |entry: u64| (entry & TIME).max(now);
        loop {
            let seen: [u64; WAYS] =
                std::array::from_fn(|way| ways.get(way).map_or(0, |way| way.load(Ordering::Relaxed)));
            let own = seen.iter().position(|entry| entry >> TIME_BITS == tag);
            let least = || (0..WAYS).min_by_key(|way| seen.get(*way).map_or(0, |entry| full_at(*entry)));
            let Some(at) = own.or_else(least) else { return true };
            let (Some(way), Some(&entry)) = (ways.get(at), seen.get(at)) else { return true };
            let owed_until = if own.is_some() { full_at(entry) } else { now } + cost;
            if owed_until - now > most {
                return false;
            }
            let next = tag << TIME_BITS | owed_until & TIME;
            // Nothing else is read by way of it. Who finds it changed looks again: somebody else went on.
            if way.compare_exchange(entry, next, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
                return true;
            }
        }
    }

    /// Bytes of the table now; none before the first message under a limit.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.sets.get().map_or(0, |sets| size_of_val::<[Set]>(sets))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;
    use crate::auth::identity::SharedRights;
    use crate::auth::token::Claims;

    fn takes(speech: &Speech, hash: u64, now: u32, rate: u64, burst: u64) -> u64 {
        (0..100_000).take_while(|_| speech.try_take_of(hash, now, rate, burst)).count() as u64
    }

    #[test]
    fn a_quiet_bearer_has_their_burst_and_then_their_rate() {
        for (rate, burst) in [(1, 1), (10, 5), (50, 200), (1_000, 1_000), (10_000, 10)] {
            let speech = Speech::default();
            assert_eq!(speech.bytes(), 0, "nothing before the first message");
            assert_eq!(takes(&speech, 77, 1_000, rate, burst), burst, "{rate}/{burst}");
            let mut taken = 0;
            for tick in 1..=100 {
                taken += takes(&speech, 77, 1_000 + tick, rate, burst);
            }
            // Ten seconds: what the burst could hold of each tick's share, rounded against the peer.
            let share = (rate * 10).min(burst * 100);
            assert!(taken <= share && taken * 100 >= share * 90, "{taken} of {share} at {rate}/{burst}");
            assert_eq!(takes(&speech, 77, 1_000_000, rate, burst), burst, "full again");
            assert_eq!(speech.bytes(), 512 << 10);
        }
    }

    #[test]
    fn who_owes_much_is_not_pushed_out_by_many_who_owe_little() {
        let speech = Speech::default();
        assert_eq!(takes(&speech, 5, 10, 1, 20), 20);
        // All in one place with it.
        for other in 100..10_000 {
            assert!(speech.try_take_of(other, 10, 1, 20), "newcomers may speak");
        }
        assert!(!speech.try_take_of(5, 10, 1, 20));
    }

    #[test]
    fn loops_that_take_at_once_take_no_more_than_there_is() {
        let (speech, taken) = (Speech::default(), AtomicUsize::new(0));
        // The bucket is there, so that no two make it.
        assert!(speech.try_take_of(7, 10, 1, 1_000));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| taken.fetch_add(takes(&speech, 7, 10, 1, 1_000) as usize, Ordering::Relaxed));
            }
        });
        assert_eq!(taken.into_inner(), 999);
    }

    #[test]
    fn a_bearer_is_issuer_and_sub_whatever_else_their_tokens_say() {
        let who = |issuer: Option<&str>, sub: &str, jti: &str| {
            let claims = Claims {
                sub: sub.into(),
                subscribe: None,
                publish: None,
                expires: 7,
                good_until: 7,
                issued: None,
                jti: Some(jti.into()),
                issuer: issuer.map(Into::into),
                carried: None,
            };
            Identity::new(claims, &mut SharedRights::default())
        };
        let speech = Speech::default();
        let take = |who: &Identity| speech.try_take(who, 10, 1, 1);
        assert!(take(&who(Some("us"), "alice", "1")));
        assert!(!take(&who(Some("us"), "alice", "2")), "another token of the same bearer");
        assert!(take(&who(Some("them"), "alice", "1")));
        assert!(take(&who(None, "alice", "1")));
        assert!(take(&who(Some("us"), "bob", "1")));
    }
}
