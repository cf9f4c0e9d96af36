//! Connections that are dropped on purpose and come back: which one goes next, and when one tries again.
//!
//! A failed attempt is followed by another after exponential backoff with full jitter, as a well-behaved
//! client does. Keeps nothing for a connection that is open.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use super::{Order, Worker};
use crate::base::trouble::Trouble;
use crate::engine::connection::{Away, Position, State};
use crate::engine::handshake;
use crate::engine::sequence::Sequence;
use crate::result::tally::{Ending, Tally, new_histogram};

/// The longest wait before the second attempt; it doubles with each failure.
pub(crate) const BACKOFF_NS: u64 = 100_000_000;
const BACKOFF_NS_MAX: u64 = 3_000_000_000;
/// Of no time at all there is no random part, and twice as long would be as soon.
const BACKOFF_NS_MIN: u64 = 1_000_000;

/// The connections of one worker that are away.
#[derive(Debug, Default)]
pub(super) struct Returning {
    dropped: u64,
    next: usize,
    waiting: BinaryHeap<Reverse<(u64, usize, Away)>>,
    /// Where clients of HTTP go on that are not open.
    positions: HashMap<usize, Position>,
    nowhere: Position,
}

impl Returning {
    /// When the next one is due; `None` if none is away and waiting.
    pub(super) fn due_ns(&self) -> Option<u64> {
        self.waiting.peek().map(|Reverse((due_ns, _, _))| *due_ns)
    }

    /// Takes one that is due.
    pub(super) fn take_due(&mut self, now_ns: u64) -> Option<(usize, Away)> {
        self.due_ns().filter(|due_ns| *due_ns <= now_ns)?;
        self.waiting.pop().map(|Reverse((_, index, away))| (index, away))
    }

    /// It comes back at this time.
    pub(super) fn come_back(&mut self, index: usize, away: Away, due_ns: u64) {
        self.waiting.push(Reverse((due_ns, index, away)));
    }

    /// Where a client goes on.
    pub(super) fn position(&self, index: usize) -> &Position {
        self.positions.get(&index).unwrap_or(&self.nowhere)
    }

    /// Remembers it until its client is open again.
    pub(super) fn keep_position(&mut self, index: usize, position: Option<Position>) {
        if let Some(position) = position {
            self.positions.insert(index, position);
        }
    }

    /// Its connection has it now.
    pub(super) fn forget_position(&mut self, index: usize) {
        if !self.positions.is_empty() {
            self.positions.remove(&index);
        }
    }

    /// An attempt failed: another one comes later.
    pub(super) fn retry(&mut self, index: usize, away: Away, now_ns: u64, backoff_ns: u64) {
        let away = Away { failures: away.failures.saturating_add(1), ..away };
        let backoff_ns = backoff_ns.max(BACKOFF_NS_MIN);
        let most_ns = backoff_ns
            .saturating_mul(1 << away.failures.min(16).saturating_sub(1))
            .min(backoff_ns.max(BACKOFF_NS_MAX));
        // Enough randomness for jitter; it must not be the same for neighbours.
        let random = u128::from_ne_bytes(handshake::key(now_ns ^ ((index as u64) << 32))) as u64;
        self.waiting.push(Reverse((now_ns + random % most_ns, index, away)));
    }
}

impl Worker {
    /// Drops as many connections as are due by now, in turn.
    pub(super) fn drop_due(&mut self, order: &Order, tally: &mut Tally) {
        while self.returning.dropped < order.drops {
            self.returning.dropped += 1;
            let Some(index) = self.next_open() else {
                tally.counts.not_dropped += 1;
                continue;
            };
            let now_ns = self.plan.clock.now_ns();
            let (from, each) = (index * self.topics_each, self.topics_each);
            let own = self.subscriptions.get_mut(from..from + each).unwrap_or_default();
            if let Some(connection) = self.connections.get_mut(index) {
                self.returning.keep_position(index, connection.position());
                connection.vanish();
                // Whether it is subscribed again is asked anew.
                let all = own.iter_mut().chain([connection.sequence_mut()]);
                let probed = all.map(Sequence::forget_probe).filter(|probed| *probed).count() as u64;
                tally.counts.probed = tally.counts.probed.saturating_sub(probed);
            }
            tally.counts.dropped += 1;
            let away = Away { since_ns: now_ns, failures: 0 };
            if self.plan.resumes {
                // Whoever is back before anything was published has nothing to resume.
                self.returning.retry(index, away, now_ns, self.plan.backoff_ns);
            } else {
                self.returning.come_back(index, away, now_ns);
            }
        }
    }

    /// An open connection ended by itself, and comes back after a wait with full jitter: everybody else may have
    /// been sent away at the same moment.
    pub(super) fn on_left(&mut self, index: usize, trouble: Trouble, tally: &mut Tally) {
        let now_ns = self.plan.clock.now_ns();
        let number = self.number(index);
        let plan = self.plan.clone();
        let Some(connection) = self.connections.get_mut(index) else { return };
        let code = connection.close().filter(|_| trouble == Trouble::LostClose).map(|(code, _)| *code);
        let ending = code.map_or(Ending::Broken(trouble), Ending::Close);
        tally.counts.left += 1;
        *tally.counts.endings.entry(ending).or_default() += 1;
        if let Some(account) = connection.account_mut() {
            // A worker that is busy finds the end some time after it has come.
            let cut_off = tally.cut_off.get_or_insert_with(|| Box::new(new_histogram()));
            for (visits, bulletin) in account.each(plan.bulletins_of(number)) {
                visits.on_end(bulletin, self.read_until_ns, &mut tally.counts, |age_ns| {
                    cut_off.saturating_record(age_ns)
                });
            }
        }
        let position = connection.position();
        connection.end();
        let away = Away { since_ns: now_ns, failures: 0 };
        match position.as_ref().and_then(|position| position.retry) {
            // Clients of event streams wait for exactly as long as they are told to, all of them.
            Some(wait) => {
                let due_ns = now_ns.saturating_add(u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX));
                self.returning.come_back(index, away, due_ns);
            }
            None => self.returning.retry(index, away, now_ns, self.plan.backoff_ns),
        }
        self.returning.keep_position(index, position);
    }

    /// The next open connection after the one that was dropped last.
    fn next_open(&mut self) -> Option<usize> {
        for _ in 0..self.connections.len() {
            let index = self.returning.next % self.connections.len();
            self.returning.next = index + 1;
            if self.connections.get(index).is_some_and(|connection| connection.state() == State::Open) {
                return Some(index);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_backoff_a_client_comes_back_within_a_millisecond() {
        let mut returning = Returning::default();
        returning.retry(0, Away { since_ns: 1, failures: 0 }, 1_000, 0);
        assert!(returning.due_ns().is_some_and(|due_ns| due_ns < 1_000 + BACKOFF_NS_MIN));
    }

    #[test]
    fn whoever_is_refused_waits_longer_each_time_but_not_forever() {
        let mut returning = Returning::default();
        let mut longest_ns = Vec::new();
        for failures in [0, 3, 40] {
            for index in 0..1_000 {
                returning.retry(index, Away { since_ns: 1, failures }, 1_000, BACKOFF_NS);
            }
            let mut last_ns = 0;
            while let Some(due_ns) = returning.due_ns() {
                assert!(due_ns >= last_ns && returning.take_due(due_ns - 1).is_none());
                let (_, away) = returning.take_due(due_ns).unwrap();
                assert_eq!(away, Away { since_ns: 1, failures: failures + 1 });
                last_ns = due_ns;
            }
            longest_ns.push(last_ns - 1_000);
        }
        // Full jitter: of a thousand some wait nearly as long as they may.
        for (longest_ns, most_ns) in longest_ns.into_iter().zip([BACKOFF_NS, BACKOFF_NS * 8, BACKOFF_NS_MAX])
        {
            assert!(longest_ns < most_ns && longest_ns > most_ns / 10 * 9, "{longest_ns} of {most_ns}");
        }
    }
}
