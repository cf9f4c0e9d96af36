//! When a connection was accepted, without a byte in its slot: pairs of generation and tick, some accepts
//! apart, between which the time of any other accept lies.
//!
//! Owned by one loop, written at accept, read when the admin port asks. Never larger than [`PAIRS_MAX`].

use crate::connection::Tick;

/// Accepts after which a pair is noted, however fast they come.
const ACCEPTS_APART: u32 = 1_024;

/// Ticks after which the next accept is noted, however few have come.
const TICKS_APART: Tick = 10;

/// Pairs kept. With more, every second one goes: the farther back, the coarser.
const PAIRS_MAX: usize = 2_048;

/// The log of one loop.
#[derive(Debug, Default)]
pub(super) struct AcceptLog {
    /// Generation and tick, oldest first.
    pairs: Vec<(u32, Tick)>,
    /// From this index on no pair was taken out.
    intact_from: usize,
}

impl AcceptLog {
    /// A connection of this generation was accepted at `now`.
    pub(super) fn note(&mut self, generation: u32, now: Tick) {
        if let Some(&(last, at)) = self.pairs.last()
            && generation.wrapping_sub(last) < ACCEPTS_APART
            && now - at < TICKS_APART
        {
            return;
        }
        if self.pairs.len() >= PAIRS_MAX {
            let mut index = 0;
            self.pairs.retain(|_| {
                index += 1;
                index % 2 == 1
            });
            self.intact_from = self.pairs.len();
        }
        self.pairs.push((generation, now));
    }

    /// The earliest and the latest tick at which the connection of this generation may have been accepted;
    /// `newest` is the latest generation and `now` the present tick.
    pub(super) fn accepted(&self, generation: u32, newest: u32, now: Tick) -> (Tick, Tick) {
        // Generations wrap around: what counts is how many accepts ago it was.
        let age = newest.wrapping_sub(generation);
        let behind = self.pairs.partition_point(|&(noted, _)| newest.wrapping_sub(noted) >= age);
        let before = behind.checked_sub(1).and_then(|index| self.pairs.get(index));
        let (noted, from) = before.copied().unwrap_or((generation.wrapping_sub(1), 0));
        if noted == generation {
            return (from, from);
        }
        let to = self.pairs.get(behind).map_or(now, |&(_, at)| at);
        // Had it come later than this, it would have a pair of its own, unless that was thinned out.
        let unnoted = behind > self.intact_from;
        (from, if unnoted { to.min(from + TICKS_APART - 1) } else { to })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Accepts at the given ticks; every one must be found within its bounds.
    fn check(first: u32, ticks: &[Tick], width_max: Tick) -> AcceptLog {
        let mut log = AcceptLog::default();
        let mut generation = first;
        for &tick in ticks {
            generation = generation.wrapping_add(1);
            log.note(generation, tick);
        }
        let now = ticks.last().copied().unwrap_or(0) + 5;
        for (index, &tick) in ticks.iter().enumerate() {
            let own = first.wrapping_add(index as u32 + 1);
            let (from, to) = log.accepted(own, generation, now);
            assert!(from <= tick && tick <= to, "accept {index} at {tick}, said {from} to {to}");
            assert!(to - from <= width_max, "accept {index}: {from} to {to} is too vague");
        }
        log
    }

    #[test]
    fn rare_accepts_are_known_exactly() {
        let ticks: Vec<Tick> = (1..1_000).map(|index| index * TICKS_APART).collect();
        check(0, &ticks, 0);
        check(u32::MAX - 500, &ticks, 0);
    }

    #[test]
    fn a_storm_is_known_within_a_second() {
        let ticks: Vec<Tick> = (0..200_000).map(|index| 7 + index / 4_000).collect();
        let log = check(u32::MAX - 100_000, &ticks, TICKS_APART);
        assert!(log.pairs.len() <= 200_000 / ACCEPTS_APART as usize + 10);
    }

    #[test]
    fn the_log_stays_small_and_right() {
        let ticks: Vec<Tick> = (0..300_000).map(|index| index * 3).collect();
        let log = check(12, &ticks, 300_000 * 3);
        assert!(log.pairs.len() <= PAIRS_MAX);
    }
}
