//! Events that wait to be told: in order, held back where they may take each other back, and bounded in bytes.
//!
//! Driven by [`Webhook`](super::Webhook) under its lock, with the time given. Pure; makes no calls.

use std::collections::{BTreeMap, VecDeque};

use serde::Serialize;

/// How long a topic has to stay vacated until that is told: whoever loads a page anew is back by then.
pub(super) const HELD_MS: u64 = 3_000;

/// What an event takes beside its topic's name.
const BESIDE_BYTES: usize = 128;

/// What has happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kind {
    /// A topic has its first subscriber.
    Occupied,
    /// A topic has lost its last one.
    Vacated,
}

/// One event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Event {
    #[serde(rename = "type")]
    pub(super) kind: Kind,
    pub(super) topic: Box<str>,
    /// When it happened, in milliseconds since 1970.
    pub(super) time: u64,
}

impl Event {
    /// Bytes that it is counted by.
    fn bytes(&self) -> usize {
        self.topic.len() + BESIDE_BYTES
    }
}

/// What waits.
#[derive(Debug)]
pub(super) struct Outgoing {
    ready: VecDeque<Event>,
    /// Topics that were vacated, and when.
    held: BTreeMap<Box<str>, u64>,
    /// The same in the order of time. One whose topic is not held since then is over.
    by_time: VecDeque<(u64, Box<str>)>,
    bytes: usize,
    bytes_max: usize,
    /// Events that found no room since a batch last said so.
    missed: u64,
}

impl Outgoing {
    /// Nothing, with room for so many bytes.
    pub(super) fn new(bytes_max: usize) -> Self {
        let (ready, held, by_time) = (VecDeque::new(), BTreeMap::new(), VecDeque::new());
        Self { ready, held, by_time, bytes: 0, bytes_max, missed: 0 }
    }

    /// Takes what has happened at `now_ms`. `false`: there was no room, and it is lost.
    pub(super) fn take(&mut self, kind: Kind, topic: &str, now_ms: u64) -> bool {
        // Back before anybody was told that it was gone: nobody is told either.
        if kind == Kind::Occupied && self.held.remove(topic).is_some() {
            return true;
        }
        let event = Event { kind, topic: topic.into(), time: now_ms };
        if self.bytes + event.bytes() > self.bytes_max {
            self.missed += 1;
            return false;
        }
        self.bytes += event.bytes();
        match kind {
            Kind::Occupied => self.ready.push_back(event),
            Kind::Vacated => {
                self.by_time.push_back((now_ms, event.topic.clone()));
                self.held.insert(event.topic, now_ms);
            }
        }
        true
    }

    /// What has been held for long enough is ready. Returns when the next one will be.
    pub(super) fn ripen(&mut self, now_ms: u64) -> Option<u64> {
        while let Some((since, topic)) = self.by_time.front() {
            let (since, due) = (*since, since.saturating_add(HELD_MS));
            let is_held = self.held.get(topic) == Some(&since);
            if is_held && due > now_ms {
                return Some(due);
            }
            let Some((_, topic)) = self.by_time.pop_front() else { break };
            let event = Event { kind: Kind::Vacated, topic, time: since };
            if is_held {
                self.held.remove(&event.topic);
                self.ready.push_back(event);
            } else {
                self.bytes -= event.bytes();
            }
        }
        None
    }

    /// Everything is ready now.
    pub(super) fn ripen_all(&mut self) {
        self.ripen(u64::MAX);
    }

    /// Moves up to so many events out, and how many were missed before them.
    pub(super) fn batch(&mut self, events_max: usize, into: &mut Vec<Event>) -> u64 {
        let count = self.ready.len().min(events_max);
        for event in self.ready.drain(..count) {
            self.bytes -= event.bytes();
            into.push(event);
        }
        if count == 0 { 0 } else { std::mem::take(&mut self.missed) }
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
    use Kind::{Occupied, Vacated};

    fn told(outgoing: &mut Outgoing) -> Vec<(Kind, String, u64)> {
        let mut events = Vec::new();
        outgoing.batch(100, &mut events);
        events.into_iter().map(|event| (event.kind, event.topic.into_string(), event.time)).collect()
    }

    #[test]
    fn a_topic_that_is_back_within_three_seconds_was_never_gone() {
        let mut outgoing = Outgoing::new(1 << 20);
        assert!(outgoing.take(Occupied, "a", 1_000));
        assert_eq!(told(&mut outgoing), [(Occupied, "a".to_owned(), 1_000)]);
        // A page is loaded anew, several times.
        for now in [2_000, 4_000, 6_000] {
            assert!(outgoing.take(Vacated, "a", now));
            assert_eq!(outgoing.ripen(now + HELD_MS - 1), Some(now + HELD_MS));
            assert!(outgoing.take(Occupied, "a", now + HELD_MS - 1));
            assert_eq!(outgoing.ripen(now + HELD_MS), None, "what is over is forgotten");
        }
        assert_eq!((told(&mut outgoing), outgoing.bytes()), (vec![], 0));
        assert!(outgoing.take(Vacated, "a", 10_000));
        assert!(outgoing.take(Vacated, "b", 10_500));
        assert_eq!(outgoing.ripen(10_000 + HELD_MS), Some(10_500 + HELD_MS));
        assert!(outgoing.take(Occupied, "a", 13_001));
        let expected = [(Vacated, "a".to_owned(), 10_000), (Occupied, "a".to_owned(), 13_001)];
        assert_eq!(told(&mut outgoing), expected, "its time is when it happened, its place when it was told");
        outgoing.ripen_all();
        assert_eq!(told(&mut outgoing), [(Vacated, "b".to_owned(), 10_500)]);
        assert_eq!(outgoing.bytes(), 0);
    }

    #[test]
    fn what_finds_no_room_is_missed_and_said_so_once() {
        let mut outgoing = Outgoing::new(3 * (1 + BESIDE_BYTES));
        for (topic, fits) in [("a", true), ("b", true), ("c", true), ("d", false), ("e", false)] {
            assert_eq!(outgoing.take(Occupied, topic, 5), fits, "{topic}");
        }
        // Who is back takes no room.
        let mut events = Vec::new();
        assert_eq!(outgoing.batch(2, &mut events), 2);
        assert_eq!(events.len(), 2);
        assert_eq!(outgoing.batch(2, &mut events), 0, "it was said");
        assert_eq!((outgoing.bytes(), outgoing.has_ready()), (0, false));
        assert!(
            outgoing.take(Vacated, "a", 6)
                && outgoing.take(Vacated, "b", 6)
                && outgoing.take(Vacated, "c", 6)
        );
        assert!(!outgoing.take(Vacated, "d", 6));
        assert!(outgoing.take(Occupied, "b", 7));
        outgoing.ripen_all();
        assert_eq!(outgoing.batch(9, &mut events), 1);
        assert_eq!(outgoing.bytes(), 0);
    }
}
