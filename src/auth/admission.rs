//! Who may connect, by source address: how many connections an address holds and how fast it opens them.
//!
//! Shared by all loops; asked when a connection is accepted (or when its proxy says for whom it is) and told
//! when it is closed, never in between. What a connection keeps is a `u32`. Never stores an address, never
//! blocks longer than one shard's lock, which is held for a look-up.

mod counts;
pub mod holders;
mod rates;
pub mod speech;

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::PatternError;
use super::network::Networks;
use counts::Counts;
use rates::Rates;

/// Independent parts of the table, each with a lock of its own.
const SHARDS: usize = 1 << SHARD_BITS;
const SHARD_BITS: u32 = 6;

/// What an address may do, and which addresses speak for others. A zero turns a limit off.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AdmissionRules {
    /// Connections an IPv4 address, or an IPv6 /64, may hold.
    pub per_address_max: usize,
    /// Connections it may open per second.
    pub connect_rate: usize,
    /// Connections it may open at once when it has been quiet.
    pub connect_burst: usize,
    /// Topics that may exist because its clients were the first to subscribe.
    pub topics_max: usize,
    /// Topics it may make per second.
    pub topic_rate: usize,
    /// Topics it may make at once when it has been quiet.
    pub topic_burst: usize,
    /// Connections of all addresses whose request has not arrived.
    pub handshakes_max: usize,
    /// Networks of proxies that say for whom they connect.
    pub trusted_proxies: Networks,
    /// Whether those say so with a PROXY header in front of each connection.
    pub proxy_protocol: bool,
}

impl AdmissionRules {
    /// Puts the rules together from the settings' values.
    ///
    /// # Errors
    /// A trusted proxy is not a network.
    pub fn with_proxies(self, trusted_proxies: &[String]) -> Result<Self, PatternError> {
        Ok(Self { trusted_proxies: Networks::compile(trusted_proxies)?, ..self })
    }
}

/// Why an address may not connect now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AdmissionRefusal {
    /// It holds as many connections as it may.
    TooMany,
    /// It opens them too fast.
    TooFast,
}

/// The table of addresses.
///
/// # Handles
///
/// An address is known by 32 bits of a keyed hash, its *handle*; 0 stands for none. A handle names the shard,
/// the place and the entry, so it stays good however the table grows. Two addresses with one handle share an
/// entry, which makes their limits stricter and loses no count. Nobody outside can find such pairs, because the
/// key is random for each process.
pub struct Admission {
    rules: AdmissionRules,
    key: RandomState,
    shards: Box<[Mutex<Shard>]>,
    handshakes: AtomicUsize,
}

#[derive(Default)]
struct Shard {
    counts: Counts,
    rates: Rates,
    /// Of making topics.
    topic_rates: Rates,
}

impl Admission {
    /// An empty table.
    #[must_use]
    pub fn new(rules: AdmissionRules) -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self { rules, key: RandomState::new(), shards, handshakes: AtomicUsize::new(0) }
    }

    /// The rules it keeps.
    #[must_use]
    pub fn rules(&self) -> &AdmissionRules {
        &self.rules
    }

    /// Whether `address` is a proxy that is believed.
    #[must_use]
    pub fn trusts(&self, address: IpAddr) -> bool {
        !self.rules.trusted_proxies.is_empty() && self.rules.trusted_proxies.contain(address)
    }

    /// The handle of an address; 0 when no limit asks for it.
    #[must_use]
    pub fn handle_of(&self, address: IpAddr) -> u32 {
        let AdmissionRules { per_address_max, connect_rate, topics_max, topic_rate, .. } = self.rules;
        if per_address_max == 0 && connect_rate == 0 && topics_max == 0 && topic_rate == 0 {
            return 0;
        }
        self.handle_always(address)
    }

    /// The handle of an address, for whoever counts by it without this table.
    #[must_use]
    pub fn handle_always(&self, address: IpAddr) -> u32 {
        // Who is given an IPv6 network has a whole /64 (RFC 6177), so that is what counts as one address.
        let hash = match address.to_canonical() {
            IpAddr::V4(v4) => self.key.hash_one((4_u8, u64::from(u32::from(v4)))),
            IpAddr::V6(v6) => self.key.hash_one((6_u8, (u128::from(v6) >> 64) as u64)),
        };
        ((hash >> 32) as u32).max(1)
    }

    /// Counts a connection of `handle` in at tick `now` (of 100 ms).
    ///
    /// # Errors
    /// It may not connect now; nothing was counted.
    pub fn try_enter(&self, handle: u32, now: u32) -> Result<(), AdmissionRefusal> {
        if handle == 0 {
            return Ok(());
        }
        let mut shard = self.shard(handle);
        let limited = self.rules.per_address_max > 0;
        if limited && shard.counts.count(handle) as usize >= self.rules.per_address_max {
            return Err(AdmissionRefusal::TooMany);
        }
        if self.rules.connect_rate > 0
            && !shard.rates.try_take(handle, now, self.rules.connect_rate, self.rules.connect_burst)
        {
            return Err(AdmissionRefusal::TooFast);
        }
        if limited {
            shard.counts.add(handle);
        }
        Ok(())
    }

    /// Counts a connection out that was counted in by [`Self::try_enter`].
    pub fn leave(&self, handle: u32) {
        if handle != 0 && self.rules.per_address_max > 0 {
            self.shard(handle).counts.sub(handle);
        }
    }

    /// Takes one topic's token of the rate at tick `now`; `false`: `handle` makes topics too fast. How many it
    /// has made, the router counts.
    #[must_use]
    pub fn try_make_topic(&self, handle: u32, now: u32) -> bool {
        let AdmissionRules { topic_rate, topic_burst, .. } = self.rules;
        handle == 0
            || topic_rate == 0
            || self.shard(handle).topic_rates.try_take(handle, now, topic_rate, topic_burst)
    }

    /// Counts a pending handshake in; `false` when there are as many as there may be.
    #[must_use]
    pub fn try_begin_handshake(&self) -> bool {
        let before = self.handshakes.fetch_add(1, Ordering::Relaxed);
        let admitted = self.rules.handshakes_max == 0 || before < self.rules.handshakes_max;
        if !admitted {
            self.handshakes.fetch_sub(1, Ordering::Relaxed);
        }
        admitted
    }

    /// Counts a pending handshake out.
    pub fn end_handshake(&self) {
        self.handshakes.fetch_sub(1, Ordering::Relaxed);
    }

    /// Connections whose request has not arrived; each loop shows its own share (`fantail_handshakes`).
    #[cfg(test)]
    pub(crate) fn handshakes(&self) -> usize {
        self.handshakes.load(Ordering::Relaxed)
    }

    /// Addresses that hold a connection now. Locks one shard after the other.
    #[must_use]
    pub fn addresses(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).counts.len()).sum()
    }

    /// Bytes of the table now. Locks one shard after the other.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let of_shard = |shard: &Mutex<Shard>| {
            let shard = lock(shard);
            shard.counts.bytes() + shard.rates.bytes() + shard.topic_rates.bytes()
        };
        size_of::<Mutex<Shard>>() * SHARDS + self.shards.iter().map(of_shard).sum::<usize>()
    }

    fn shard(&self, handle: u32) -> MutexGuard<'_, Shard> {
        // The shift leaves SHARD_BITS bits.
        lock(&self.shards[(handle >> (u32::BITS - SHARD_BITS)) as usize])
    }
}

/// A poisoned shard is whole: nothing in here panics half-way, and a loop that panics ends the process.
fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admission(per_address_max: usize, connect_rate: usize, connect_burst: usize) -> Admission {
        let rules = AdmissionRules { per_address_max, connect_rate, connect_burst, ..Default::default() };
        Admission::new(rules)
    }

    fn handle(admission: &Admission, address: &str) -> u32 {
        admission.handle_of(address.parse().unwrap())
    }

    #[test]
    fn an_address_holds_as_many_as_it_may() {
        let table = admission(3, 0, 0);
        let (one, other) = (handle(&table, "192.0.2.1"), handle(&table, "192.0.2.2"));
        for _ in 0..3 {
            assert_eq!(table.try_enter(one, 0), Ok(()));
        }
        assert_eq!(table.try_enter(one, 0), Err(AdmissionRefusal::TooMany));
        assert_eq!(table.try_enter(other, 0), Ok(()));
        table.leave(one);
        assert_eq!(table.try_enter(one, 0), Ok(()));
        for _ in 0..3 {
            table.leave(one);
        }
        table.leave(other);
        assert_eq!(table.addresses(), 0);
    }

    #[test]
    fn a_v6_network_counts_as_one_and_a_mapped_address_as_v4() {
        let table = admission(1, 0, 0);
        assert_eq!(handle(&table, "2001:db8:1:2::1"), handle(&table, "2001:db8:1:2:ffff::9"));
        assert_ne!(handle(&table, "2001:db8:1:2::1"), handle(&table, "2001:db8:1:3::1"));
        assert_eq!(handle(&table, "::ffff:192.0.2.1"), handle(&table, "192.0.2.1"));
    }

    #[test]
    fn without_limits_nothing_is_stored() {
        let table = admission(0, 0, 0);
        assert_eq!(handle(&table, "192.0.2.1"), 0);
        assert_eq!(table.try_enter(0, 0), Ok(()));
        table.leave(0);
        assert_eq!(table.addresses(), 0);
    }

    #[test]
    fn making_topics_has_a_rate_of_its_own_that_costs_nothing_while_it_is_off() {
        let one = "192.0.2.1".parse().unwrap();
        let rules = AdmissionRules { topics_max: 5, ..Default::default() };
        let table = Admission::new(rules.clone());
        let (handle, empty) = (table.handle_of(one), table.bytes());
        assert_ne!(handle, 0, "its topics are counted by it");
        assert_eq!(table.try_enter(handle, 0), Ok(()));
        assert!((0..100).all(|_| table.try_make_topic(handle, 0)));
        assert_eq!((table.addresses(), table.bytes()), (0, empty));
        let table = Admission::new(AdmissionRules { topic_rate: 10, topic_burst: 2, ..rules });
        assert_eq!([(); 3].map(|()| table.try_make_topic(7, 50)), [true, true, false]);
        assert!(table.try_make_topic(7, 51), "ten a second is one a tick");
        assert!(table.try_make_topic(0, 51), "whom no limit asks for");
    }

    #[test]
    fn keys_differ_between_tables() {
        let differs = |n: u8| {
            let address = IpAddr::from([192, 0, 2, n]);
            admission(1, 0, 0).handle_of(address) != admission(1, 0, 0).handle_of(address)
        };
        assert!((0..4).any(differs));
    }

    #[test]
    fn the_rate_refuses_before_the_count_is_touched() {
        let table = admission(100, 10, 2);
        let one = handle(&table, "192.0.2.1");
        assert_eq!([table.try_enter(one, 50), table.try_enter(one, 50)], [Ok(()), Ok(())]);
        assert_eq!(table.try_enter(one, 50), Err(AdmissionRefusal::TooFast));
        table.leave(one);
        table.leave(one);
        assert_eq!(table.addresses(), 0, "the refused one was not counted");
        assert_eq!(table.try_enter(one, 51), Ok(()), "ten a second is one a tick");
        assert_eq!(table.try_enter(one, 51), Err(AdmissionRefusal::TooFast));
    }

    #[test]
    fn an_address_costs_about_eleven_bytes() {
        let table = admission(1, 0, 0);
        let empty = table.bytes();
        for index in 0..200_000_u32 {
            let _ = table.try_enter(table.handle_of(IpAddr::from(index.to_be_bytes())), 0);
        }
        let each = (table.bytes() - empty) as f64 / 200_000.0;
        assert!((8.0..13.0).contains(&each), "{each}");
    }

    #[test]
    fn handshakes_are_bounded() {
        let table = Admission::new(AdmissionRules { handshakes_max: 2, ..Default::default() });
        assert_eq!([(); 3].map(|()| table.try_begin_handshake()), [true, true, false]);
        table.end_handshake();
        assert!(table.try_begin_handshake());
        assert_eq!(table.handshakes(), 2);
    }
}
