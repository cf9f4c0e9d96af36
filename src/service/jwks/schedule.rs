//! When a set of keys is fetched. Pure: time is given in milliseconds of any clock that only goes forward.

use std::time::Duration;

use crate::service::caller::millis;

/// How long a set is believed at least, whatever its server says: a server that says nothing good of caches must not be asked
/// all the time.
const FRESH_MIN: Duration = Duration::from_secs(60);

/// And at most: a key that is withdrawn is believed for no longer.
const FRESH_MAX: Duration = Duration::from_secs(24 * 3_600);

/// How long a set is believed whose server does not say.
const FRESH_USUAL: Duration = Duration::from_secs(600);

/// Between two fetches for the sake of keys that are not there, so that strangers with invented names cause no more.
pub(super) const WANTED_MS: u64 = 30_000;

/// Before the first further try; each time that fails doubles it.
const PAUSE_MS: u64 = 1_000;

/// Before a further try at most.
const PAUSE_MS_MAX: u64 = 30_000;

/// Of one address.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    /// When the latest fetch began.
    began_ms: u64,
    /// When the next one is to begin if nobody asks for it before.
    due_ms: u64,
    /// Those that failed in a row.
    failures: u32,
    /// Whether there was one that did not.
    fetched: bool,
}

impl Schedule {
    /// When the next fetch begins; `wanted`: somebody asks for it.
    pub(super) fn due_ms(&self, wanted: bool) -> u64 {
        // While it fails it is tried as often as it may be.
        if wanted && self.failures == 0 { self.due_ms.min(self.wanted_ms()) } else { self.due_ms }
    }

    /// Until when a key that was not in the set is held for none; 0 if for no time.
    pub(super) fn settled_until_ms(&self) -> u64 {
        if self.fetched && self.failures == 0 { self.wanted_ms() } else { 0 }
    }

    fn wanted_ms(&self) -> u64 {
        if self.fetched { self.began_ms.saturating_add(WANTED_MS) } else { 0 }
    }

    /// A fetch that began then has brought a set, to be believed for so long as its server says.
    pub(super) fn succeeded(&mut self, began_ms: u64, fresh: Option<Duration>) {
        let fresh = fresh.unwrap_or(FRESH_USUAL).clamp(FRESH_MIN, FRESH_MAX);
        *self = Self { began_ms, due_ms: began_ms.saturating_add(millis(fresh)), failures: 0, fetched: true };
    }

    /// One has failed at `now_ms`; its server may have asked to be left alone for so long.
    pub(super) fn failed(&mut self, began_ms: u64, now_ms: u64, alone: Option<Duration>) {
        let pause = PAUSE_MS.checked_shl(self.failures).unwrap_or(PAUSE_MS_MAX).min(PAUSE_MS_MAX);
        self.failures = self.failures.saturating_add(1).min(16);
        self.began_ms = began_ms;
        self.due_ms = now_ms.saturating_add(pause.max(alone.map_or(0, millis)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000;

    #[test]
    fn a_set_is_believed_as_long_as_its_server_says_within_bounds() {
        let due = |seconds: Option<u64>| {
            let mut schedule = Schedule::default();
            assert_eq!((schedule.due_ms(false), schedule.settled_until_ms()), (0, 0), "at once");
            schedule.succeeded(5, seconds.map(Duration::from_secs));
            schedule.due_ms(false) - 5
        };
        let rows =
            [(Some(0), 60), (Some(59), 60), (Some(3_600), 3_600), (Some(1 << 40), 86_400), (None, 600)];
        for (said, seconds) in rows {
            assert_eq!(due(said), seconds * SECOND, "{said:?}");
        }
    }

    #[test]
    fn a_key_that_is_not_there_is_asked_for_once_in_half_a_minute() {
        let mut schedule = Schedule::default();
        schedule.succeeded(10 * SECOND, Some(Duration::from_secs(3_600)));
        assert_eq!((schedule.due_ms(true), schedule.settled_until_ms()), (40 * SECOND, 40 * SECOND));
        schedule.succeeded(50 * SECOND, None);
        assert_eq!((schedule.due_ms(true), schedule.due_ms(false)), (80 * SECOND, 650 * SECOND));
    }

    #[test]
    fn failures_are_tried_again_ever_later_and_never_sooner_than_is_asked_for() {
        let (mut schedule, mut now, mut pauses) = (Schedule::default(), 0, Vec::new());
        for _ in 0..20 {
            schedule.failed(now, now, None);
            assert_eq!((schedule.due_ms(true), schedule.settled_until_ms()), (schedule.due_ms(false), 0));
            pauses.push((schedule.due_ms(true) - now) / SECOND);
            now = schedule.due_ms(false);
        }
        assert_eq!(pauses[..7], [1, 2, 4, 8, 16, 30, 30]);
        assert!(pauses[6..].iter().all(|pause| *pause == 30));
        schedule.failed(now, now, Some(Duration::from_secs(300)));
        assert_eq!(schedule.due_ms(true) - now, 300 * SECOND);
        schedule.succeeded(now, None);
        schedule.failed(now, now, None);
        assert_eq!(schedule.due_ms(true) - now, SECOND, "they are counted in a row");
    }
}
