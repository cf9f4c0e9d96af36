//! Slow subscribers: connections that stop reading when messages begin to flow, or read at a trickle.
//!
//! Until then they are like any other, so that they are known to be subscribed. In the end they read all there
//! is: a close of the server stands behind what was not read. What they get is counted apart, and they are
//! never on the ready list.

use std::io;

use mio::event::Event;

use super::{Order, READS_PER_TURN, SCRATCH_BYTES, Worker};
use crate::base::trouble::Trouble;
use crate::engine::connection::{Context, State};
use crate::result::tally::Tally;

/// How often a trickling connection reads.
const EVERY_NS: u64 = 100_000_000;
/// Reads a second.
const READS_PER_SECOND: u64 = 1_000_000_000 / EVERY_NS;
/// How often all of them read when they catch up.
const CATCH_UP_EVERY_NS: u64 = 10_000_000;

/// Which connections are slow, and how slow.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Slow {
    /// Share of the connections, spread evenly over their numbers.
    pub(crate) fraction: f64,
    /// Bytes each reads in a second; 0 for none at all.
    pub(crate) bytes_per_second: u64,
}

/// The slow connections of one worker.
#[derive(Debug, Default)]
pub(super) struct Trickle {
    begun: bool,
    next_ns: Option<u64>,
    /// Reads so far, so that slow rates add up exactly.
    reads: u64,
}

impl Slow {
    /// Whether connection `number` is one of them.
    pub(crate) fn has(&self, number: u64) -> bool {
        let up_to = |number: u64| (number as f64 * self.fraction) as u64;
        up_to(number + 1) > up_to(number)
    }

    /// Bytes of read `turn`.
    fn bytes_of_read(&self, turn: u64) -> u64 {
        let up_to = |turn: u64| turn.saturating_mul(self.bytes_per_second) / READS_PER_SECOND;
        up_to(turn + 1) - up_to(turn)
    }
}

impl Trickle {
    /// When the next reads are due; `None` if there are none.
    pub(super) fn due_ns(&self) -> Option<u64> {
        self.next_ns
    }
}

impl Worker {
    /// Whether this connection reads slowly by now.
    pub(super) fn is_slow(&self, index: usize) -> bool {
        self.trickle.begun && self.plan.slow.is_some_and(|slow| slow.has(self.number(index)))
    }

    /// Begins when the schedule is there, and reads what is due.
    pub(super) fn trickle_due(&mut self, order: &Order, tally: &mut Tally) {
        let Some(slow) = self.plan.slow else { return };
        let now_ns = self.plan.clock.now_ns();
        if !self.trickle.begun {
            if order.schedule.is_none() {
                return;
            }
            self.trickle.begun = true;
            self.trickle.next_ns = (slow.bytes_per_second > 0).then_some(now_ns);
            let mut apart = Tally::new();
            apart.counts.opened =
                (0..self.connections.len()).filter(|index| self.is_open_and_slow(*index)).count() as u64;
            tally.slow = Some(Box::new(apart));
        }
        if order.catch_up {
            if self.trickle.next_ns.is_some_and(|due_ns| due_ns > now_ns) {
                return;
            }
            self.trickle.next_ns = Some(now_ns + CATCH_UP_EVERY_NS);
            self.trickle_all(SCRATCH_BYTES, READS_PER_TURN, order, tally);
            return;
        }
        let Some(due_ns) = self.trickle.next_ns.filter(|due_ns| *due_ns <= now_ns) else { return };
        let bytes = usize::try_from(slow.bytes_of_read(self.trickle.reads)).unwrap_or(usize::MAX);
        self.trickle.reads += 1;
        self.trickle.next_ns = Some(due_ns + EVERY_NS);
        if bytes > 0 {
            self.trickle_all(bytes, 1, order, tally);
        }
    }

    /// Something happened to a slow connection. Only its end is looked at, and room for pongs.
    pub(super) fn slow_event(&mut self, index: usize, event: &Event, tally: &mut Tally) {
        if event.is_error() {
            self.slow_trouble(index, Trouble::LostReset, tally);
        } else if let Some(connection) = self.connections.get_mut(index)
            && let Err(trouble) = connection.on_writable()
        {
            self.slow_trouble(index, trouble, tally);
        }
    }

    fn trickle_all(&mut self, bytes: usize, reads: usize, order: &Order, tally: &mut Tally) {
        for index in 0..self.connections.len() {
            let mut left = reads;
            while left > 0 && self.is_open_and_slow(index) && self.trickle_one(index, bytes, order, tally) {
                left -= 1;
            }
        }
    }

    fn is_open_and_slow(&self, index: usize) -> bool {
        self.is_slow(index) && self.connections.get(index).is_some_and(|one| one.state() == State::Open)
    }

    /// Reads at most `bytes` of one connection, once; false if there was nothing.
    fn trickle_one(&mut self, index: usize, bytes: usize, order: &Order, tally: &mut Tally) -> bool {
        let number = self.number(index);
        let Some(connection) = self.connections.get_mut(index) else { return false };
        let outcome = match connection.read(&mut self.scratch, bytes) {
            Ok(0) => Err(Trouble::LostEof),
            Ok(count) => Ok(count),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                return false;
            }
            Err(error) => Err(connection.trouble(&error)),
        };
        let Some(apart) = tally.slow.as_deref_mut() else { return false };
        let outcome = outcome.and_then(|count| {
            let (from, each) = (index * self.topics_each, self.topics_each);
            let mut cx = Context {
                schedule: order.schedule.as_ref(),
                subscriptions: self.subscriptions.get_mut(from..from + each).unwrap_or_default(),
                inflating: self.inflating.as_mut(),
                ..self.plan.context(number, apart)
            };
            connection.on_bytes(self.scratch.get(..count).unwrap_or_default(), &mut cx)
        });
        if let Err(trouble) = outcome {
            self.slow_trouble(index, trouble, tally);
        }
        true
    }

    fn slow_trouble(&mut self, index: usize, trouble: Trouble, tally: &mut Tally) {
        let Some(mut apart) = tally.slow.take() else { return };
        self.on_trouble(index, trouble, &mut apart);
        tally.slow = Some(apart);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_ones_are_the_fraction_and_spread_evenly() {
        for (fraction, of_thousand) in [(0.0, 0), (0.001, 1), (0.1, 100), (0.25, 250), (1.0, 1_000)] {
            let slow = Slow { fraction, bytes_per_second: 0 };
            let numbers: Vec<u64> = (0..1_000).filter(|number| slow.has(*number)).collect();
            assert_eq!(numbers.len(), of_thousand, "{fraction}");
            let gaps = numbers.windows(2).map(|pair| pair[1] - pair[0]);
            assert!(gaps.clone().max().unwrap_or(0) - gaps.min().unwrap_or(0) <= 1, "{fraction}");
        }
    }

    #[test]
    fn trickled_bytes_add_up() {
        for bytes_per_second in [1, 3, 10, 99, 65_536] {
            let slow = Slow { fraction: 1.0, bytes_per_second };
            let second: u64 = (0..READS_PER_SECOND).map(|turn| slow.bytes_of_read(turn)).sum();
            assert_eq!(second, bytes_per_second);
        }
    }
}
