//! Events that wait to be told: in order, held back where they may take each other back, and bounded in bytes.
//!
//! Driven by [`Webhook`](super::Webhook) under its lock, with the times given: a date for what is told, and for how long
//! something is held a clock that nobody sets. Pure; makes no calls.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::event::{Event, Wanted, What, bytes_of_topic};

/// How long a topic has to stay vacated until that is told: whoever loads a page anew is back by then.
pub(super) const HELD_MS: u64 = 3_000;

/// The part of the room, one in so many, that only events of topics have.
const TOPICS_PART: usize = 4;

/// A topic that was vacated, while that is held back.
#[derive(Debug)]
struct Held {
    topic: Arc<str>,
    /// When that was, for whoever is told.
    time: u64,
    /// The same by the clock that it is held by.
    since_ms: u64,
}

/// What waits.
#[derive(Debug)]
pub(super) struct Outgoing {
    ready: VecDeque<Event>,
    /// By their numbers, which are in the order of time. Only what is held still: a topic that comes and goes all the time
    /// takes no more room than another.
    held: BTreeMap<u64, Held>,
    /// The number of each topic that is held.
    numbers: BTreeMap<Arc<str>, u64>,
    next_number: u64,
    bytes: usize,
    bytes_max: usize,
    /// Events that are lost, and of which no batch has said so.
    missed: u64,
    wanted: Wanted,
}

impl Outgoing {
    /// Nothing, with room for so many bytes of what is wanted.
    pub(super) fn new(bytes_max: usize, wanted: Wanted) -> Self {
        Self {
            ready: VecDeque::new(),
            held: BTreeMap::new(),
            numbers: BTreeMap::new(),
            next_number: 0,
            bytes: 0,
            bytes_max,
            missed: 0,
            wanted,
        }
    }

    /// Takes what has happened at the date `time`, which is `now_ms`. `false`: there was no room, and it is lost.
    pub(super) fn take(&mut self, what: What, time: u64, now_ms: u64) -> bool {
        if let What::Occupied { topic } = &what {
            // Back before anybody was told that it was gone: nobody is told either.
            if self.release(topic) || !self.wanted.occupied {
                return true;
            }
        }
        let bytes = what.bytes();
        // A topic whose end was lost would be occupied for ever: what clients do as fast as they like leaves some room to topics.
        let Wanted { occupied, vacated, .. } = self.wanted;
        let kept = if what.is_of_topic() || !occupied && !vacated { 0 } else { self.bytes_max / TOPICS_PART };
        if self.bytes + bytes > self.bytes_max - kept {
            self.missed += 1;
            return false;
        }
        self.bytes += bytes;
        match what {
            What::Vacated { topic } => {
                let topic: Arc<str> = topic.into();
                self.numbers.insert(Arc::clone(&topic), self.next_number);
                self.held.insert(self.next_number, Held { topic, time, since_ms: now_ms });
                self.next_number += 1;
            }
            what => self.ready.push_back(Event { what, time }),
        }
        true
    }

    /// Forgets that a topic is held. `false`: it is not.
    fn release(&mut self, topic: &str) -> bool {
        let Some(number) = self.numbers.remove(topic) else { return false };
        self.held.remove(&number);
        self.bytes -= bytes_of_topic(topic);
        true
    }

    /// What has been held for long enough is ready. Returns when the next one will be.
    pub(super) fn ripen(&mut self, now_ms: u64) -> Option<u64> {
        while let Some(first) = self.held.first_entry() {
            let due = first.get().since_ms.saturating_add(HELD_MS);
            if due > now_ms {
                return Some(due);
            }
            let Held { topic, time, .. } = first.remove();
            self.numbers.remove(&topic);
            if self.wanted.vacated {
                self.ready.push_back(Event { what: What::vacated(&topic), time });
            } else {
                self.bytes -= bytes_of_topic(&topic);
            }
        }
        None
    }

    /// Everything is ready now.
    pub(super) fn ripen_all(&mut self) {
        self.ripen(u64::MAX);
    }

    /// So many that were moved out are lost, too.
    pub(super) fn lose(&mut self, events: u64) {
        self.missed += events;
    }

    /// Moves up to so many events of so many bytes out, one at least, and how many were missed before them.
    pub(super) fn batch(&mut self, (events_max, bytes_max): (usize, usize), into: &mut Vec<Event>) -> u64 {
        let (mut count, mut moved) = (0, 0);
        while count < events_max
            && let Some(bytes) = self.ready.front().map(|event| event.what.bytes())
            && (count == 0 || moved + bytes <= bytes_max)
        {
            (count, moved) = (count + 1, moved + bytes);
            into.extend(self.ready.pop_front());
        }
        self.bytes -= moved;
        if count == 0 { 0 } else { std::mem::take(&mut self.missed) }
    }

    /// How many events wait.
    pub(super) fn len(&self) -> usize {
        self.ready.len() + self.held.len()
    }

    /// Bytes of what waits.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether there is something to be told.
    pub(super) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::webhook::Who;
    use crate::topic::Origin;
    use Kind::{Occupied, Vacated};

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Kind {
        Occupied,
        Vacated,
    }

    fn what(kind: Kind, topic: &str) -> What {
        match kind {
            Occupied => What::occupied(topic),
            Vacated => What::vacated(topic),
        }
    }

    fn outgoing(bytes_max: usize) -> Outgoing {
        Outgoing::new(bytes_max, Wanted::default())
    }

    /// By a date that is the clock's time.
    fn take(outgoing: &mut Outgoing, kind: Kind, topic: &str, now: u64) -> bool {
        outgoing.take(what(kind, topic), now, now)
    }

    fn told(outgoing: &mut Outgoing) -> Vec<(Kind, String, u64)> {
        let mut events = Vec::new();
        outgoing.batch((100, usize::MAX), &mut events);
        let of_event = |Event { what, time }| match what {
            What::Occupied { topic } => (Occupied, topic.into_string(), time),
            What::Vacated { topic } => (Vacated, topic.into_string(), time),
            other => panic!("{other:?}"),
        };
        events.into_iter().map(of_event).collect()
    }

    #[test]
    fn a_topic_that_is_back_within_three_seconds_was_never_gone() {
        let mut outgoing = outgoing(1 << 20);
        assert!(take(&mut outgoing, Occupied, "a", 1_000));
        assert_eq!(told(&mut outgoing), [(Occupied, "a".to_owned(), 1_000)]);
        // A page is loaded anew, several times.
        for now in [2_000, 4_000, 6_000] {
            assert!(take(&mut outgoing, Vacated, "a", now));
            assert_eq!(outgoing.ripen(now + HELD_MS - 1), Some(now + HELD_MS));
            assert!(take(&mut outgoing, Occupied, "a", now + HELD_MS - 1));
            assert_eq!(outgoing.ripen(now + HELD_MS), None, "what is over is forgotten");
        }
        assert_eq!((told(&mut outgoing), outgoing.bytes()), (vec![], 0));
        assert!(take(&mut outgoing, Vacated, "a", 10_000));
        assert!(take(&mut outgoing, Vacated, "b", 10_500));
        assert_eq!(outgoing.ripen(10_000 + HELD_MS), Some(10_500 + HELD_MS));
        assert!(take(&mut outgoing, Occupied, "a", 13_001));
        let expected = [(Vacated, "a".to_owned(), 10_000), (Occupied, "a".to_owned(), 13_001)];
        assert_eq!(told(&mut outgoing), expected, "its time is when it happened, its place when it was told");
        outgoing.ripen_all();
        assert_eq!(told(&mut outgoing), [(Vacated, "b".to_owned(), 10_500)]);
        assert_eq!(outgoing.bytes(), 0);
    }

    #[test]
    fn what_finds_no_room_is_missed_and_said_so_once() {
        let mut outgoing = outgoing(3 * bytes_of_topic("x"));
        for (topic, fits) in [("a", true), ("b", true), ("c", true), ("d", false), ("e", false)] {
            assert_eq!(take(&mut outgoing, Occupied, topic, 5), fits, "{topic}");
        }
        // Who is back takes no room.
        let mut events = Vec::new();
        assert_eq!(outgoing.batch((2, usize::MAX), &mut events), 2);
        assert_eq!(events.len(), 2);
        assert_eq!(outgoing.batch((2, usize::MAX), &mut events), 0, "it was said");
        assert_eq!((outgoing.bytes(), outgoing.has_ready()), (0, false));
        assert!(
            take(&mut outgoing, Vacated, "a", 6)
                && take(&mut outgoing, Vacated, "b", 6)
                && take(&mut outgoing, Vacated, "c", 6)
        );
        assert!(!take(&mut outgoing, Vacated, "d", 6));
        assert!(take(&mut outgoing, Occupied, "b", 7));
        outgoing.ripen_all();
        assert_eq!(outgoing.batch((9, usize::MAX), &mut events), 1);
        assert_eq!(outgoing.bytes(), 0);
    }

    #[test]
    fn connections_that_come_and_go_leave_room_for_topics() {
        let mut outgoing = outgoing(64 * bytes_of_topic(""));
        let connection = Origin { loop_index: 0, slot: 1, generation: 2 };
        let gone = || What::Disconnected {
            who: Who { connection, bearer: None },
            dialect: "plain",
            reason: "peer_closed",
        };
        let flood = (0..1_000).filter(|now| outgoing.take(gone(), *now, *now)).count();
        assert_eq!(flood, 48, "three quarters of it");
        assert!(take(&mut outgoing, Vacated, "a", 1_000) && take(&mut outgoing, Occupied, "b", 1_000));
        let of_topics = (0..1_000).filter(|now| take(&mut outgoing, Occupied, "c", *now)).count();
        assert!((10..16).contains(&of_topics), "{of_topics}: all of the room, and no more");
    }

    #[test]
    fn a_batch_has_no_more_bytes_than_it_may_but_for_one_event() {
        let mut outgoing = outgoing(1 << 20);
        let long = "x".repeat(150);
        for topic in ["a", "b", &long, "c", "d", "e"] {
            assert!(take(&mut outgoing, Occupied, topic, 1));
        }
        let most = 2 * bytes_of_topic("a");
        let mut lengths = Vec::new();
        while outgoing.has_ready() {
            let mut events = Vec::new();
            outgoing.batch((100, most), &mut events);
            lengths.push(events.len());
        }
        assert_eq!((lengths, outgoing.bytes()), (vec![2, 1, 2, 1], 0));
    }

    #[test]
    fn a_date_that_is_set_back_holds_nothing_back_for_longer() {
        let mut outgoing = outgoing(1 << 20);
        assert!(outgoing.take(what(Vacated, "a"), 9_000_000, 100));
        assert!(outgoing.take(what(Vacated, "b"), 5_000, 200));
        assert_eq!(outgoing.ripen(100 + HELD_MS), Some(200 + HELD_MS));
        assert_eq!(outgoing.ripen(200 + HELD_MS), None);
        assert_eq!(
            told(&mut outgoing),
            [(Vacated, "a".to_owned(), 9_000_000), (Vacated, "b".to_owned(), 5_000)]
        );
    }

    #[test]
    fn a_topic_that_comes_and_goes_takes_no_room_from_others() {
        let mut outgoing = outgoing(2 * bytes_of_topic("x"));
        assert!(take(&mut outgoing, Vacated, "a", 1));
        for now in 2..1_000 {
            assert!(take(&mut outgoing, Vacated, "b", now), "{now}");
            assert_eq!(outgoing.bytes(), 2 * bytes_of_topic("x"));
            assert!(take(&mut outgoing, Occupied, "b", now));
        }
        assert_eq!((outgoing.bytes(), outgoing.held.len()), (bytes_of_topic("x"), 1));
        outgoing.ripen_all();
        assert_eq!(told(&mut outgoing), [(Vacated, "a".to_owned(), 1)]);
        assert_eq!(outgoing.bytes(), 0);
    }

    #[test]
    fn who_wants_one_of_both_gets_that_one_and_reloads_are_silent_all_the_same() {
        let only = |occupied| Wanted { occupied, vacated: !occupied, ..Wanted::default() };
        for (wanted, expected) in [
            (only(true), [(Occupied, "a".to_owned(), 1), (Occupied, "a".to_owned(), 9_000)]),
            (only(false), [(Vacated, "a".to_owned(), 3), (Vacated, "a".to_owned(), 9_001)]),
        ] {
            let mut outgoing = Outgoing::new(1 << 20, wanted);
            for (kind, now) in [(Occupied, 1), (Vacated, 1), (Occupied, 2), (Vacated, 3)] {
                assert!(take(&mut outgoing, kind, "a", now));
            }
            outgoing.ripen(8_000);
            for (kind, now) in [(Occupied, 9_000), (Vacated, 9_001)] {
                assert!(take(&mut outgoing, kind, "a", now));
            }
            outgoing.ripen_all();
            assert_eq!((told(&mut outgoing), outgoing.bytes()), (expected.to_vec(), 0));
        }
    }
}
