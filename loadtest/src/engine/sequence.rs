//! Exact accounting of one connection's messages: in order, missing, duplicate, reordered.
//!
//! The worker feeds every sequence number that arrives on a connection. A connection that misses
//! nothing costs four bytes (the next expected number); ranges that were skipped are remembered in a
//! box, so that a late arrival is told apart from a duplicate. Never looks at payloads or time.

use crate::result::tally::Arrival;

/// Skipped ranges remembered per connection. Beyond it the oldest is forgotten: its messages stay
/// counted as missing, and what arrives from it later is `unclassified`.
const GAPS_MAX: usize = 1024;

/// The numbers of one connection.
#[derive(Debug, Default)]
pub(crate) struct Sequence {
    next: u32,
    probed: bool,
    gaps: Option<Box<Gaps>>,
}

// One for each topic of a connection.
const _: () = assert!(size_of::<Sequence>() <= 16);

#[derive(Debug, Default)]
struct Gaps {
    /// Half-open ranges, ascending.
    ranges: Vec<(u32, u32)>,
    forgotten_below: u32,
}

impl Sequence {
    /// The lowest number that nothing at or above has arrived of.
    pub(crate) fn next(&self) -> u32 {
        self.next
    }

    /// A probe has come; true if it is the first.
    pub(crate) fn on_probe(&mut self) -> bool {
        !std::mem::replace(&mut self.probed, true)
    }

    /// No probe has come since now; true if one had.
    pub(crate) fn forget_probe(&mut self) -> bool {
        std::mem::take(&mut self.probed)
    }

    /// How many of `published` messages are behind the last one that has come.
    pub(crate) fn behind(&self, published: u32) -> u64 {
        u64::from(published.saturating_sub(self.next))
    }

    /// How many of these numbers have not come; they are in order.
    pub(crate) fn holes(&self, numbers: &[u32]) -> u64 {
        let gaps = self.gaps.as_deref();
        let is_hole = |number: u32| {
            let Some(gaps) = gaps.filter(|_| number < self.next) else { return number >= self.next };
            let range = gaps.ranges.get(gaps.ranges.partition_point(|(_, end)| *end <= number));
            number < gaps.forgotten_below || range.is_some_and(|(start, _)| *start <= number)
        };
        numbers.iter().filter(|number| is_hole(**number)).count() as u64
    }

    /// Takes a number that is simply the next one; false, and nothing is remembered, if it is any other.
    #[inline]
    pub(crate) fn try_next(&mut self, number: u32) -> bool {
        let next = number == self.next && number < u32::MAX;
        self.next += u32::from(next);
        next
    }

    /// Classifies an arrival and remembers it.
    pub(crate) fn on_arrival(&mut self, number: u32) -> Arrival {
        if number >= self.next {
            let skipped = number - self.next;
            if skipped > 0 {
                self.gaps.get_or_insert_default().remember(self.next, number);
            }
            self.next = number.saturating_add(1);
            return Arrival::New { skipped };
        }
        let Some(gaps) = &mut self.gaps else { return Arrival::Duplicate };
        let arrival = gaps.fill(number);
        if gaps.ranges.is_empty() && gaps.forgotten_below == 0 {
            self.gaps = None;
        }
        arrival
    }
}

impl Gaps {
    fn remember(&mut self, start: u32, end: u32) {
        self.ranges.push((start, end));
        self.forget();
    }

    /// Keeps no more ranges than are allowed.
    fn forget(&mut self) {
        if self.ranges.len() > GAPS_MAX {
            let (_, forgotten) = self.ranges.remove(0);
            self.forgotten_below = forgotten;
        }
    }

    fn fill(&mut self, number: u32) -> Arrival {
        if number < self.forgotten_below {
            return Arrival::Unclassified;
        }
        let position = self.ranges.partition_point(|(_, end)| *end <= number);
        let Some((start, end)) = self.ranges.get(position).copied().filter(|(start, _)| *start <= number)
        else {
            return Arrival::Duplicate;
        };
        let rest = [(start, number), (number + 1, end)];
        self.ranges.splice(position..=position, rest.into_iter().filter(|(start, end)| start < end));
        // One in the middle of a range leaves two.
        self.forget();
        Arrival::Reordered
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(numbers: &[u32]) -> (Sequence, Vec<Arrival>) {
        let mut sequence = Sequence::default();
        let arrivals = numbers.iter().map(|number| sequence.on_arrival(*number)).collect();
        (sequence, arrivals)
    }

    const IN_ORDER: Arrival = Arrival::New { skipped: 0 };

    #[test]
    fn in_order_needs_no_memory() {
        let (sequence, arrivals) = feed(&[0, 1, 2, 3]);
        assert!(arrivals.iter().all(|arrival| *arrival == IN_ORDER));
        assert_eq!(sequence.next(), 4);
        assert!(sequence.gaps.is_none());
    }

    #[test]
    fn only_the_next_number_is_taken_as_such() {
        let (mut sequence, _) = feed(&[0, 3]);
        for (number, taken) in [(3, false), (5, false), (4, true), (4, false), (2, false), (5, true)] {
            assert_eq!(sequence.try_next(number), taken, "{number}");
        }
        assert_eq!((sequence.next(), sequence.on_arrival(2)), (6, Arrival::Reordered));
        let (mut last, _) = feed(&[u32::MAX - 1]);
        assert!(!last.try_next(u32::MAX));
    }

    #[test]
    fn a_planted_duplicate_is_told() {
        let (_, arrivals) = feed(&[0, 1, 1, 2, 0]);
        assert_eq!(arrivals, [IN_ORDER, IN_ORDER, Arrival::Duplicate, IN_ORDER, Arrival::Duplicate]);
    }

    #[test]
    fn a_planted_hole_is_missing() {
        let (sequence, arrivals) = feed(&[0, 3, 4]);
        assert_eq!(arrivals, [IN_ORDER, Arrival::New { skipped: 2 }, IN_ORDER]);
        assert_eq!(sequence.next(), 5);
    }

    #[test]
    fn numbers_that_never_were_are_holes() {
        let (sequence, _) = feed(&[0, 1, 4, 6]);
        assert_eq!((sequence.holes(&[2, 3, 5, 7, 9]), sequence.behind(10)), (5, 3));
        assert_eq!((sequence.holes(&[0, 2, 4]), sequence.holes(&[])), (1, 0));
        let (sequence, _) = feed(&[0, 1]);
        assert_eq!((sequence.holes(&[0, 1, 2]), sequence.behind(1)), (1, 0));
    }

    #[test]
    fn a_late_message_is_reordered_once_and_then_duplicate() {
        let (sequence, arrivals) = feed(&[0, 4, 2, 2, 1, 3, 3]);
        assert_eq!(
            arrivals,
            [
                IN_ORDER,
                Arrival::New { skipped: 3 },
                Arrival::Reordered,
                Arrival::Duplicate,
                Arrival::Reordered,
                Arrival::Reordered,
                Arrival::Duplicate
            ]
        );
        assert!(sequence.gaps.is_none());
    }

    #[test]
    fn forgotten_gaps_are_not_guessed_at() {
        let mut sequence = Sequence::default();
        for index in 0..=GAPS_MAX as u32 {
            assert_eq!(sequence.on_arrival(index * 2 + 1), Arrival::New { skipped: 1 });
        }
        assert_eq!(sequence.on_arrival(0), Arrival::Unclassified);
        assert_eq!(sequence.on_arrival(2), Arrival::Reordered);
    }

    #[test]
    fn ranges_that_fall_apart_are_bounded_too() {
        let mut sequence = Sequence::default();
        sequence.on_arrival(10 * GAPS_MAX as u32);
        for number in (1..10 * GAPS_MAX as u32).step_by(2) {
            assert!(matches!(sequence.on_arrival(number), Arrival::Reordered | Arrival::Unclassified));
            assert!(sequence.gaps.as_ref().unwrap().ranges.len() <= GAPS_MAX);
        }
    }

    #[test]
    fn the_highest_number_does_not_overflow() {
        let (sequence, arrivals) = feed(&[u32::MAX]);
        assert_eq!(arrivals, [Arrival::New { skipped: u32::MAX }]);
        assert_eq!(sequence.next(), u32::MAX);
    }

    #[test]
    fn every_permutation_of_five_balances() {
        // Whatever the order, each number is new or reordered exactly once and nothing stays missing.
        let mut orders = vec![vec![]];
        for number in 0..5u32 {
            orders = orders
                .into_iter()
                .flat_map(|order: Vec<u32>| {
                    (0..=order.len()).map(move |at| {
                        let mut longer = order.clone();
                        longer.insert(at, number);
                        longer
                    })
                })
                .collect();
        }
        assert_eq!(orders.len(), 120);
        for order in orders {
            let (sequence, arrivals) = feed(&order);
            let mut missing = 0i64;
            for arrival in &arrivals {
                match arrival {
                    Arrival::New { skipped } => missing += i64::from(*skipped),
                    Arrival::Reordered => missing -= 1,
                    other => panic!("{order:?} gave {other:?}"),
                }
            }
            assert_eq!((missing, sequence.next()), (0, 5), "{order:?}");
        }
    }
}
