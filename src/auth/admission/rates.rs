//! How fast each handle does something: token buckets of one shard in a table of fixed size.
//!
//! Driven by [`super::Admission`] under the shard's lock. Made with the first one of the shard when a
//! rate is set; never grows. A bucket is one number, the time at which it is full again, so one that is full is
//! the same as one that is not there.

/// Buckets that share a place; a handle's is one of them.
const WAYS: usize = 8;

/// Places of one shard. With 64 shards there are 65,536 buckets in all, 512 KiB.
const SETS: usize = 1 << SET_BITS;
const SET_BITS: u32 = 7;

/// Bits of a handle that neither shard nor place tell.
const TAG_BITS: u32 = u32::BITS - super::SHARD_BITS - SET_BITS;
const TIME_BITS: u32 = u64::BITS - TAG_BITS;

/// Time units of one tick of 100 ms: fine enough for 10,000 connections a second, and 45 bits of them last for
/// 17 years.
const UNITS_PER_TICK: u64 = 6_400;
const UNITS_PER_SECOND: u64 = 10 * UNITS_PER_TICK;

/// Entries are the tag in the upper bits and the time at which the bucket is full again below.
#[derive(Default)]
pub(super) struct Rates {
    sets: Vec<[u64; WAYS]>,
}

impl Rates {
    /// Bytes it holds.
    pub(super) fn bytes(&self) -> usize {
        self.sets.capacity() * size_of::<[u64; WAYS]>()
    }

    /// Takes a token of `handle`'s bucket at tick `now`; `false` when it has none. `rate` is not 0.
    ///
    /// When all buckets of a place are in use, the one that owes least is given up. A handle is therefore
    /// forgotten only for others that connect faster than it, and hostile addresses, however many, push each
    /// other out.
    pub(super) fn try_take(&mut self, handle: u32, now: u32, rate: usize, burst: usize) -> bool {
        if self.sets.is_empty() {
            self.sets = vec![[0; WAYS]; SETS];
        }
        let place = (handle >> TAG_BITS) as usize % SETS;
        let tag = u64::from(handle) & ((1 << TAG_BITS) - 1);
        let now = u64::from(now) * UNITS_PER_TICK;
        let cost = UNITS_PER_SECOND.div_ceil(rate.max(1) as u64);
        let Some(set) = self.sets.get_mut(place) else { return true };
        let full_at = |entry: u64| (entry & ((1 << TIME_BITS) - 1)).max(now);
        let own = set.iter().position(|entry| entry >> TIME_BITS == tag);
        let at = own.or_else(|| (0..WAYS).min_by_key(|way| set.get(*way).map_or(0, |entry| full_at(*entry))));
        let Some(entry) = at.and_then(|at| set.get_mut(at)) else { return true };
        let owed_until = if own.is_some() { full_at(*entry) } else { now } + cost;
        if owed_until - now > cost.saturating_mul(burst.max(1) as u64) {
            return false;
        }
        *entry = tag << TIME_BITS | owed_until & ((1 << TIME_BITS) - 1);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn takes(rates: &mut Rates, handle: u32, now: u32, rate: usize, burst: usize) -> usize {
        (0..100_000).take_while(|_| rates.try_take(handle, now, rate, burst)).count()
    }

    #[test]
    fn a_quiet_bucket_gives_its_burst_and_then_its_rate() {
        for (rate, burst) in [(1, 1), (10, 5), (50, 200), (1_000, 1_000), (10_000, 10)] {
            let mut rates = Rates::default();
            assert_eq!(takes(&mut rates, 77, 1_000, rate, burst), burst, "{rate}/{burst}");
            let mut taken = 0;
            for tick in 1..=100 {
                taken += takes(&mut rates, 77, 1_000 + tick, rate, burst);
            }
            // Ten seconds: what the burst could hold of each tick's share, rounded against the peer.
            let share = (rate * 10).min(burst * 100);
            assert!(taken <= share && taken * 100 >= share * 90, "{taken} of {share} at {rate}/{burst}");
            assert_eq!(takes(&mut rates, 77, 1_000_000, rate, burst), burst, "full again");
        }
    }

    #[test]
    fn a_handle_that_owes_much_is_not_pushed_out_by_many_that_owe_little() {
        let mut rates = Rates::default();
        assert_eq!(takes(&mut rates, 5, 10, 1, 20), 20);
        // All in one place with it.
        for other in 100..10_000 {
            assert!(rates.try_take(other, 10, 1, 20), "newcomers are let in");
        }
        assert!(!rates.try_take(5, 10, 1, 20));
        assert_eq!(rates.bytes(), SETS * WAYS * 8);
    }
}
