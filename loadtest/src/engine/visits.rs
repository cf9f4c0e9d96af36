//! The account of a client that is sent away and comes back: what it missed while it was connected, and what
//! was published while it was away.
//!
//! A visit lasts from a connection's 101 to its end. Of each visit it is owed, once and in order, every message
//! whose publish began behind the 101 and was answered before the end. The [`Bulletin`] tells which those are:
//! the publisher writes it, the workers read it. Never looks at payloads or sockets.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::result::tally::Counts;

/// How far the publisher is.
#[derive(Debug)]
pub(crate) struct Bulletin {
    begun: AtomicU64,
    /// When the publish of each message was answered by all servers; 0 before.
    done_ns: Vec<AtomicU64>,
}

impl Bulletin {
    /// For as many messages as there will be.
    pub(crate) fn new(count: u64) -> Self {
        let done_ns = (0..count).map(|_| AtomicU64::new(0)).collect();
        Self { begun: AtomicU64::new(0), done_ns }
    }

    /// The publish of message `number` begins.
    pub(crate) fn on_begin(&self, number: u64) {
        self.begun.store(number + 1, Ordering::SeqCst);
    }

    /// All servers have answered it. Numbers come in order.
    pub(crate) fn on_done(&self, number: u64, now_ns: u64) {
        let done = usize::try_from(number).ok().and_then(|number| self.done_ns.get(number));
        if let Some(done) = done {
            done.store(now_ns.max(1), Ordering::SeqCst);
        }
    }

    /// The first message whose publish has not begun.
    fn next(&self) -> u32 {
        u32::try_from(self.begun.load(Ordering::SeqCst)).unwrap_or(u32::MAX)
    }

    fn done_ns(&self, number: u32) -> u64 {
        self.done_ns.get(number as usize).map_or(0, |done| done.load(Ordering::SeqCst))
    }

    /// Messages whose publish was answered by `at_ns`.
    fn done_by(&self, at_ns: u64) -> u32 {
        let done = self.done_ns.partition_point(|done| {
            let done_ns = done.load(Ordering::SeqCst);
            done_ns != 0 && done_ns <= at_ns
        });
        u32::try_from(done).unwrap_or(u32::MAX)
    }
}

/// The visits of one client.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Visits {
    /// The number that comes next in this visit: the lowest that is owed until a message has come.
    next: u32,
    /// Whether one has.
    heard: bool,
    /// Messages below it were received, missed, or published while away.
    settled: u32,
}

impl Visits {
    /// The 101 has come.
    pub(crate) fn on_open(&mut self, bulletin: &Bulletin) {
        self.next = bulletin.next();
        self.heard = false;
    }

    /// A message has come; true if this client sees it for the first time.
    pub(crate) fn on_message(&mut self, number: u32, counts: &mut Counts) -> bool {
        if self.heard && number < self.next {
            counts.duplicate += 1;
            return false;
        }
        // What was published before the 101 may come and need not, and is not missed if it doesn't.
        self.settle(self.next.min(number), false, counts);
        self.settle(number, true, counts);
        self.next = number.saturating_add(1);
        self.heard = true;
        // A server that it came to from another one may publish what it has from there.
        let first = number >= self.settled;
        if first {
            counts.unique += 1;
            self.settled = self.next;
        } else {
            counts.again += 1;
        }
        first
    }

    /// The connection has ended, and the end came no sooner than `came_ns`. `waited` is told of each message that had
    /// been answered by then and had not come, how long ago that was: whether it was on its way is not known yet.
    pub(crate) fn on_end(&self, bulletin: &Bulletin, came_ns: u64, mut waited: impl FnMut(u64)) {
        for number in self.next..bulletin.done_by(came_ns) {
            waited(came_ns.saturating_sub(bulletin.done_ns(number)));
        }
    }

    /// The run is over: `published` messages were sent, and the client is there or away.
    pub(crate) fn on_finish(&mut self, open: bool, published: u32, counts: &mut Counts) {
        if open {
            self.owe(published, counts);
        }
        self.settle(published, false, counts);
    }

    /// Messages below `until` should have come in this visit.
    fn owe(&mut self, until: u32, counts: &mut Counts) {
        if until > self.next {
            self.settle(self.next, false, counts);
            // Those that had come on an earlier visit are missing here all the same.
            counts.missing += u64::from(until - self.next);
            self.next = until;
            self.settled = self.settled.max(until);
        }
    }

    /// What is open below `until` was missed while connected, or while away.
    fn settle(&mut self, until: u32, connected: bool, counts: &mut Counts) {
        if connected {
            counts.missing += u64::from(until.saturating_sub(self.next));
            self.settled = self.settled.max(until);
        } else if until > self.settled {
            counts.away_missed += u64::from(until - self.settled);
            self.settled = until;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn published(bulletin: &Bulletin, numbers: std::ops::Range<u64>) {
        for number in numbers {
            bulletin.on_begin(number);
            bulletin.on_done(number, (number + 1) * 1_000_000_000);
        }
    }

    #[test]
    fn what_comes_in_order_is_not_missed() {
        let (bulletin, mut counts, mut visits) = (Bulletin::new(10), Counts::default(), Visits::default());
        visits.on_open(&bulletin);
        published(&bulletin, 0..3);
        assert!((0..3).all(|number| visits.on_message(number, &mut counts)));
        visits.on_end(&bulletin, 60_000_000_000, |_| panic!("it has all"));
        // Three while it is away, then it is back on a server that repeats the last of them.
        published(&bulletin, 3..6);
        visits.on_open(&bulletin);
        assert!(visits.on_message(5, &mut counts));
        published(&bulletin, 6..8);
        assert!(visits.on_message(6, &mut counts) && visits.on_message(7, &mut counts));
        visits.on_finish(true, 8, &mut counts);
        assert_eq!((counts.unique, counts.missing, counts.away_missed), (6, 0, 2));
        assert_eq!((counts.duplicate, counts.again), (0, 0));
    }

    #[test]
    fn a_hole_is_missed_and_the_age_of_a_lost_end_is_told() {
        let (bulletin, mut counts, mut visits) = (Bulletin::new(20), Counts::default(), Visits::default());
        visits.on_open(&bulletin);
        published(&bulletin, 0..10);
        // The first never comes, nor does the fifth.
        for number in [1, 2, 3, 5, 6] {
            visits.on_message(number, &mut counts);
        }
        assert_eq!(counts.missing, 2);
        // 7 and 8 were answered before the end, at 8 s and 9 s; 9 was not.
        let mut waited = Vec::new();
        visits.on_end(&bulletin, 9_500_000_000, |age_ns| waited.push(age_ns));
        assert_eq!(waited, [1_500_000_000, 500_000_000]);
        visits.on_finish(false, 20, &mut counts);
        assert_eq!((counts.unique, counts.missing, counts.away_missed), (5, 2, 13));
    }

    #[test]
    fn another_server_may_repeat_and_the_same_one_may_not() {
        let (bulletin, mut counts, mut visits) = (Bulletin::new(5), Counts::default(), Visits::default());
        visits.on_open(&bulletin);
        bulletin.on_begin(0);
        assert!(visits.on_message(0, &mut counts));
        assert!(!visits.on_message(0, &mut counts));
        assert_eq!((counts.duplicate, counts.again), (1, 0));
        // Sent away while message 0 is on its way to the other server.
        visits.on_end(&bulletin, 1_000, |_| panic!("nothing was answered"));
        visits.on_open(&bulletin);
        assert!(!visits.on_message(0, &mut counts));
        assert_eq!((counts.duplicate, counts.again), (1, 1));
        published(&bulletin, 0..2);
        assert!(visits.on_message(1, &mut counts));
        visits.on_finish(true, 2, &mut counts);
        assert_eq!((counts.unique, counts.missing, counts.away_missed), (2, 0, 0));
    }

    #[test]
    fn whoever_stays_away_misses_nothing_while_connected() {
        let (bulletin, mut counts, mut visits) = (Bulletin::new(5), Counts::default(), Visits::default());
        visits.on_open(&bulletin);
        visits.on_end(&bulletin, 5, |_| panic!("nothing was answered"));
        published(&bulletin, 0..5);
        visits.on_finish(false, 5, &mut counts);
        assert_eq!((counts.unique, counts.missing, counts.away_missed), (0, 0, 5));
        // And a connected one that hears nothing misses all.
        let mut deaf = Visits::default();
        deaf.on_open(&Bulletin::new(5));
        deaf.on_finish(true, 5, &mut counts);
        assert_eq!((counts.missing, counts.away_missed), (5, 5));
    }
}
