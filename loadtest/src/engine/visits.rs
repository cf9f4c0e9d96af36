//! The account of a client that is sent away and comes back: what it missed while it was connected, and what
//! was published while it was away.
//!
//! A visit lasts from a connection's 101 to its end. Of each visit it is owed, once and in order, every message
//! whose publish began behind the 101 and was answered before the end, of each of its topics. The topic's [`Bulletin`]
//! tells which those are: the publisher writes it, the workers read it. Never looks at payloads or sockets.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::result::tally::Counts;

/// Stands for the time of an answer that no server gave.
const REFUSED: u64 = u64::MAX;
/// Skipped messages of one visit that are remembered; of others it is not known whether they come late or twice.
const HOLES_MAX: usize = 1_024;

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

    /// All servers have answered it.
    pub(crate) fn on_done(&self, number: u64, now_ns: u64) {
        let done = usize::try_from(number).ok().and_then(|number| self.done_ns.get(number));
        if let Some(done) = done {
            done.store(now_ns.max(1), Ordering::SeqCst);
        }
    }

    /// No server has taken it: nobody is owed it.
    pub(crate) fn on_refused(&self, number: u64) {
        self.on_done(number, REFUSED);
    }

    fn is_refused(&self, number: u32) -> bool {
        self.done_ns(number) == REFUSED
    }

    /// The first message whose publish has not begun.
    fn next(&self) -> u32 {
        u32::try_from(self.begun.load(Ordering::SeqCst)).unwrap_or(u32::MAX)
    }

    fn done_ns(&self, number: u32) -> u64 {
        self.done_ns.get(number as usize).map_or(0, |done| done.load(Ordering::SeqCst))
    }
}

/// The visits of one client, by its topics in their order.
#[derive(Debug, Default)]
pub(crate) struct Account {
    topics: Vec<Visits>,
}

impl Account {
    /// The 101 has come, for topics of which the bulletins tell.
    pub(crate) fn on_open<'b>(&mut self, bulletins: impl Iterator<Item = &'b Bulletin>, counts: &mut Counts) {
        for (slot, bulletin) in bulletins.enumerate() {
            if slot == self.topics.len() {
                self.topics.push(Visits::default());
            }
            if let Some(visits) = self.topics.get_mut(slot) {
                visits.on_open(bulletin, counts);
            }
        }
    }

    /// Its visits to the topic at this place among its own.
    pub(crate) fn of(&mut self, slot: usize) -> Option<&mut Visits> {
        self.topics.get_mut(slot)
    }

    /// Each topic with its bulletin.
    pub(crate) fn each<'b>(
        &mut self,
        bulletins: impl Iterator<Item = &'b Bulletin>,
    ) -> impl Iterator<Item = (&mut Visits, &'b Bulletin)> {
        self.topics.iter_mut().zip(bulletins)
    }
}

/// The visits of one client to one topic.
#[derive(Clone, Debug, Default)]
pub(crate) struct Visits {
    /// The number that comes next in this visit: the lowest that is owed until a message has come.
    next: u32,
    /// Whether one has.
    heard: bool,
    /// Messages below it were received, missed, or published while away.
    settled: u32,
    /// Messages below it had begun before this visit: they may come and need not.
    opened_at: u32,
    /// Of these, those below it were settled before.
    away_from: u32,
    /// Of these, those that have come.
    early: Vec<u32>,
    /// Skipped in this visit and counted as missing: they may have been overtaken. The second says whether this client
    /// had not got it on an earlier visit.
    holes: Vec<(u32, bool)>,
}

impl Visits {
    /// The 101 has come: what has begun by now was published while it was away, unless it comes all the same.
    pub(crate) fn on_open(&mut self, bulletin: &Bulletin, counts: &mut Counts) {
        (self.next, self.opened_at, self.away_from) = (bulletin.next(), bulletin.next(), self.settled);
        self.heard = false;
        self.holes.clear();
        self.early.clear();
        self.settle(self.opened_at, false, counts);
    }

    /// A message has come; true if this client sees it for the first time. `may_overtake` says whether the first of two
    /// messages was still on its way when the second left, so that nobody owes their order.
    pub(crate) fn on_message(
        &mut self,
        number: u32,
        may_overtake: impl Fn(u32, u32) -> bool,
        counts: &mut Counts,
    ) -> bool {
        if number < self.opened_at {
            return self.on_early(number, counts);
        }
        if self.heard && number < self.next {
            let hole = self.holes.iter().position(|(skipped, _)| *skipped == number);
            let Some(hole) = hole.filter(|_| may_overtake(number, self.next - 1)) else {
                counts.duplicate += 1;
                return false;
            };
            let (_, first) = self.holes.remove(hole);
            counts.missing = counts.missing.saturating_sub(1);
            counts.overtaken += 1;
            *(if first { &mut counts.unique } else { &mut counts.again }) += 1;
            return first;
        }
        let skipped = (self.next..number).map(|skipped| (skipped, skipped >= self.settled));
        let room = HOLES_MAX.saturating_sub(self.holes.len());
        self.holes.extend(skipped.take(room));
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

    /// One came that had begun before this visit.
    fn on_early(&mut self, number: u32, counts: &mut Counts) -> bool {
        if self.early.contains(&number) {
            counts.duplicate += 1;
            return false;
        }
        if self.early.len() < HOLES_MAX {
            self.early.push(number);
        }
        // It was counted as published while away.
        let first = number >= self.away_from;
        if first {
            counts.away_missed = counts.away_missed.saturating_sub(1);
            counts.unique += 1;
        } else {
            counts.again += 1;
        }
        first
    }

    /// The connection has ended, and the end came no sooner than `came_ns`. `waited` is told of each message that had
    /// been answered by then and had not come, how long ago that was: whether it was on its way is not known yet.
    pub(crate) fn on_end(
        &mut self,
        bulletin: &Bulletin,
        came_ns: u64,
        counts: &mut Counts,
        mut waited: impl FnMut(u64),
    ) {
        self.forgive(bulletin, counts);
        for number in self.next..bulletin.next() {
            let done_ns = bulletin.done_ns(number);
            if done_ns != 0 && done_ns <= came_ns {
                waited(came_ns - done_ns);
            }
        }
    }

    /// The run is over: `published` messages were sent, and the client is there or away.
    pub(crate) fn on_finish(&mut self, open: bool, bulletin: &Bulletin, counts: &mut Counts) {
        let published = bulletin.next();
        self.forgive(bulletin, counts);
        if open {
            let refused = (self.next..published).filter(|number| bulletin.is_refused(*number)).count();
            self.owe(published, counts);
            counts.missing = counts.missing.saturating_sub(refused as u64);
        }
        self.settle(published, false, counts);
    }

    /// What no server has taken is not missing.
    fn forgive(&mut self, bulletin: &Bulletin, counts: &mut Counts) {
        let refused = self.holes.iter().filter(|(number, _)| bulletin.is_refused(*number)).count();
        counts.missing = counts.missing.saturating_sub(refused as u64);
        self.holes.clear();
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

    const NEVER: fn(u32, u32) -> bool = |_, _| false;

    fn published(bulletin: &Bulletin, numbers: std::ops::Range<u64>) {
        for number in numbers {
            bulletin.on_begin(number);
            bulletin.on_done(number, (number + 1) * 1_000_000_000);
        }
    }

    #[test]
    fn what_comes_in_order_is_not_missed() {
        let (bulletin, mut counts, mut visits) = (Bulletin::new(10), Counts::default(), Visits::default());
        visits.on_open(&bulletin, &mut counts);
        published(&bulletin, 0..3);
        assert!((0..3).all(|number| visits.on_message(number, NEVER, &mut counts)));
        visits.on_end(&bulletin, 60_000_000_000, &mut counts, |_| panic!("it has all"));
        // Three while it is away, then it is back on a server that repeats the last of them.
        published(&bulletin, 3..6);
        visits.on_open(&bulletin, &mut counts);
        assert!(visits.on_message(5, NEVER, &mut counts));
        published(&bulletin, 6..8);
        assert!(visits.on_message(6, NEVER, &mut counts) && visits.on_message(7, NEVER, &mut counts));
        visits.on_finish(true, &bulletin, &mut counts);
        assert_eq!((counts.unique, counts.missing, counts.away_missed), (6, 0, 2));
        assert_eq!((counts.duplicate, counts.again), (0, 0));
    }

    #[test]
    fn a_hole_is_missed_and_the_age_of_a_lost_end_is_told() {
        let (bulletin, mut counts, mut visits) = (Bulletin::new(20), Counts::default(), Visits::default());
        visits.on_open(&bulletin, &mut counts);
        published(&bulletin, 0..10);
        // The first never comes, nor does the fifth.
        for number in [1, 2, 3, 5, 6] {
            visits.on_message(number, NEVER, &mut counts);
        }
        assert_eq!(counts.missing, 2);
        // 7 and 8 were answered before the end, at 8 s and 9 s; 9 was not.
        let mut waited = Vec::new();
        visits.on_end(&bulletin, 9_500_000_000, &mut counts, |age_ns| waited.push(age_ns));
        assert_eq!(waited, [1_500_000_000, 500_000_000]);
        published(&bulletin, 10..20);
        visits.on_finish(false, &bulletin, &mut counts);
        assert_eq!((counts.unique, counts.missing, counts.away_missed), (5, 2, 13));
    }

    #[test]
    fn another_server_may_repeat_and_the_same_one_may_not() {
        let (bulletin, mut counts, mut visits) = (Bulletin::new(5), Counts::default(), Visits::default());
        visits.on_open(&bulletin, &mut counts);
        bulletin.on_begin(0);
        assert!(visits.on_message(0, NEVER, &mut counts));
        assert!(!visits.on_message(0, NEVER, &mut counts));
        assert_eq!((counts.duplicate, counts.again), (1, 0));
        // Sent away while message 0 is on its way to the other server.
        visits.on_end(&bulletin, 1_000, &mut counts, |_| panic!("nothing was answered"));
        visits.on_open(&bulletin, &mut counts);
        assert!(!visits.on_message(0, NEVER, &mut counts));
        assert_eq!((counts.duplicate, counts.again), (1, 1));
        published(&bulletin, 0..2);
        assert!(visits.on_message(1, NEVER, &mut counts));
        visits.on_finish(true, &bulletin, &mut counts);
        assert_eq!((counts.unique, counts.missing, counts.away_missed), (2, 0, 0));
    }

    #[test]
    fn what_was_overtaken_is_neither_missing_nor_twice_there() {
        let (bulletin, mut counts, mut visits) = (Bulletin::new(9), Counts::default(), Visits::default());
        bulletin.on_begin(0);
        visits.on_open(&bulletin, &mut counts);
        published(&bulletin, 1..6);
        let together = |late: u32, later: u32| (late, later) == (2, 3);
        // The one that had begun before comes late, and only once; that it does not come would be as well.
        for (number, first) in [(1, true), (3, true), (0, true), (2, true), (0, false), (2, false), (5, true)]
        {
            assert_eq!(visits.on_message(number, together, &mut counts), first, "{number}");
        }
        assert_eq!((counts.missing, counts.overtaken, counts.duplicate, counts.away_missed), (1, 1, 2, 0));
        // Out of order although nobody could overtake it: it stays missing.
        assert!(!visits.on_message(4, together, &mut counts));
        bulletin.on_begin(6);
        bulletin.on_refused(6);
        visits.on_finish(true, &bulletin, &mut counts);
        assert_eq!((counts.unique, counts.missing), (5, 1));
    }

    #[test]
    fn what_no_server_took_is_nobodys() {
        let (bulletin, mut counts, mut visits) = (Bulletin::new(9), Counts::default(), Visits::default());
        visits.on_open(&bulletin, &mut counts);
        published(&bulletin, 0..3);
        bulletin.on_refused(1);
        assert!(visits.on_message(0, NEVER, &mut counts) && visits.on_message(2, NEVER, &mut counts));
        visits.on_end(&bulletin, 9_000_000_000, &mut counts, |_| panic!("it has all"));
        assert_eq!((counts.unique, counts.missing), (2, 0));
    }

    #[test]
    fn whoever_stays_away_misses_nothing_while_connected() {
        let (bulletin, mut counts, mut visits) = (Bulletin::new(5), Counts::default(), Visits::default());
        visits.on_open(&bulletin, &mut counts);
        visits.on_end(&bulletin, 5, &mut counts, |_| panic!("nothing was answered"));
        published(&bulletin, 0..5);
        visits.on_finish(false, &bulletin, &mut counts);
        assert_eq!((counts.unique, counts.missing, counts.away_missed), (0, 0, 5));
        // And a connected one that hears nothing misses all.
        let mut deaf = Visits::default();
        deaf.on_open(&Bulletin::new(5), &mut counts);
        deaf.on_finish(true, &bulletin, &mut counts);
        assert_eq!((counts.missing, counts.away_missed), (5, 5));
    }
}
