//! How often something may be done: buckets that fill with time, in a table of fixed size for each kind of thing: what
//! somebody may do often must not use up what is rare. Whoever falls into the same bucket as another shares it; which
//! one that is depends on a random key, so nobody can choose to. A restart forgets.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Of one kind, 24 bytes each.
const BUCKETS: usize = 1 << 16;

/// A kind of thing that is limited.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limit {
    /// Which of the tables is its own.
    table: usize,
    /// How many at once.
    burst: f64,
    /// Seconds until there is one more.
    seconds: f64,
}

const fn limit(table: usize, burst: f64, seconds: f64) -> Limit {
    Limit { table, burst, seconds }
}

/// Passwords tried from one address, right ones too: each costs a hash.
pub(crate) const LOGIN_ADDRESS: Limit = limit(0, 30.0, 6.0);
/// Wrong passwords of one account from devices that have never been logged in to it.
pub(crate) const LOGIN_ACCOUNT: Limit = limit(1, 10.0, 60.0);
/// Wrong passwords of one account from one device that has: an attack on the account does not touch it.
pub(crate) const LOGIN_DEVICE: Limit = limit(2, 10.0, 60.0);
/// Accounts made from one address.
pub(crate) const REGISTER_ADDRESS: Limit = limit(3, 20.0, 60.0);
/// Messages, edits and deletions of one person.
pub(crate) const MESSAGES: Limit = limit(4, 30.0, 0.5);
/// Rooms made, invitations, joins and leaves of one person.
pub(crate) const ROOMS: Limit = limit(5, 60.0, 5.0);

/// Lists of rooms and people, which cost the database most.
pub(crate) const LISTS: Limit = limit(6, 120.0, 0.5);
/// Anything else that one person reads.
pub(crate) const READS: Limit = limit(7, 600.0, 0.05);

const TABLES: usize = 8;

#[derive(Clone, Copy)]
struct Bucket {
    used: f64,
    at: Instant,
}

/// The tables.
pub(crate) struct Limits {
    hasher: RandomState,
    buckets: Mutex<Vec<Bucket>>,
}

impl Limits {
    pub(crate) fn new() -> Self {
        let empty = Bucket { used: 0.0, at: Instant::now() };
        Self { hasher: RandomState::new(), buckets: Mutex::new(vec![empty; TABLES * BUCKETS]) }
    }

    /// Takes one, or says how long to wait.
    pub(crate) fn take(&self, limit: Limit, who: &str) -> Result<(), Duration> {
        self.take_at(limit, who, Instant::now())
    }

    /// Gives one back: what was taken was no attempt after all.
    pub(crate) fn give_back(&self, limit: Limit, who: &str) {
        let slot = self.slot(limit, who);
        let mut buckets = self.buckets.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        buckets[slot].used = (buckets[slot].used - 1.0).max(0.0);
    }

    fn take_at(&self, limit: Limit, who: &str, now: Instant) -> Result<(), Duration> {
        let slot = self.slot(limit, who);
        let mut buckets = self.buckets.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let bucket = &mut buckets[slot];
        let passed = now.saturating_duration_since(bucket.at).as_secs_f64();
        bucket.used = (bucket.used - passed / limit.seconds).max(0.0);
        bucket.at = now;
        let over = bucket.used + 1.0 - limit.burst;
        if over > 0.0 {
            return Err(Duration::from_secs_f64((over * limit.seconds).max(1.0)));
        }
        bucket.used += 1.0;
        Ok(())
    }

    fn slot(&self, limit: Limit, who: &str) -> usize {
        let hash = self.hasher.hash_one((limit.table, who));
        limit.table * BUCKETS + usize::try_from(hash % BUCKETS as u64).unwrap_or_default()
    }
}

/// Who counts as one address: of IPv6 a /64, which one household has.
pub(crate) fn network(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            format!("{a:x}:{b:x}:{c:x}:{d:x}::/64")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_empties_and_fills_with_time() {
        let limits = Limits::new();
        let start = Instant::now();
        for _ in 0..10 {
            limits.take_at(LOGIN_ACCOUNT, "alice", start).unwrap();
        }
        let wait = limits.take_at(LOGIN_ACCOUNT, "alice", start).unwrap_err();
        assert_eq!(wait, Duration::from_secs(60));
        assert!(limits.take_at(LOGIN_ACCOUNT, "alice", start + wait / 2).is_err());
        limits.take_at(LOGIN_ACCOUNT, "alice", start + wait).unwrap();
        assert!(limits.take_at(LOGIN_ACCOUNT, "alice", start + wait).is_err());
        limits.give_back(LOGIN_ACCOUNT, "alice");
        limits.take_at(LOGIN_ACCOUNT, "alice", start + wait).unwrap();
    }

    #[test]
    fn ten_thousand_tries_in_an_hour_come_to_few() {
        let limits = Limits::new();
        let start = Instant::now();
        let hour = Duration::from_secs(3_600);
        let tries =
            (0..10_000).filter(|&at| limits.take_at(LOGIN_ACCOUNT, "a", start + hour * at / 10_000).is_ok());
        let let_in = tries.count();
        assert!((60..=70).contains(&let_in), "{let_in}");
    }

    #[test]
    fn who_writes_much_keeps_nobody_from_logging_in() {
        let limits = Limits::new();
        let start = Instant::now();
        for person in 0..10_000 {
            for _ in 0..30 {
                let _ = limits.take_at(MESSAGES, &format!("person {person}"), start);
            }
            let _ = limits.take_at(LOGIN_ACCOUNT, &format!("person {person}"), start);
        }
        for owner in 0..1_000 {
            limits.take_at(LOGIN_DEVICE, &format!("device {owner}"), start).unwrap();
            limits.take_at(LOGIN_ADDRESS, &format!("address {owner}"), start).unwrap();
        }
    }

    #[test]
    fn a_household_is_one_address() {
        for (one, other) in [("2001:db8::1", "2001:db8::ffff:2"), ("::ffff:192.0.2.1", "192.0.2.1")] {
            assert_eq!(network(one.parse().unwrap()), network(other.parse().unwrap()));
        }
        assert_ne!(network("2001:db8::1".parse().unwrap()), network("2001:db8:0:1::1".parse().unwrap()));
    }
}
