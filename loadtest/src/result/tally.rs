//! What a worker counted: connections, messages, latencies, troubles by kind.
//!
//! Each worker owns one behind a mutex that it holds while it works on a batch of events; the main
//! thread copies and merges them for the progress line and the report. Never decides what is wrong.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

use super::course::Course;
use super::strain::Strain;
use crate::base::schedule::LATE_NS;
use crate::base::trouble::Trouble;

/// Codes and reasons of close frames that are kept apart.
const REASONS_MAX: usize = 64;
/// Stands for the reasons beyond.
const OTHER_REASONS: &str = "(other reasons)";
const LATENCY_LOW_NS: u64 = 1_000;
const LATENCY_HIGH_NS: u64 = 600_000_000_000;

/// What an arrival turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// The expected number, or one behind a gap of so many missing messages.
    New {
        /// How many numbers were skipped.
        skipped: u32,
    },
    /// A number that was skipped before: it is late, no longer missing.
    Reordered,
    /// A number that had arrived already.
    Duplicate,
    /// A number from a range that was forgotten: late or duplicate, nobody knows.
    Unclassified,
}

/// How an open connection ended that is to come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Ending {
    /// With a close frame of this code; 1005 if it had none (RFC 6455, 7.1.5).
    Close(u16),
    /// Without one.
    Broken(Trouble),
}

impl Ending {
    /// Stable name, used in the result file.
    pub(crate) fn name(self) -> String {
        match self {
            Self::Close(code) => format!("close_{code}"),
            Self::Broken(trouble) => trouble.name(),
        }
    }
}

/// Everything that is a plain number.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts {
    /// Connections begun, each counted once.
    pub(crate) begun: u64,
    /// Connections that got their 101.
    pub(crate) opened: u64,
    /// When the last one was open or failed for the first time, in ns.
    pub(crate) settled_ns: u64,
    /// Connections that could not be opened.
    pub(crate) failed: u64,
    /// Connections that were open and ended by themselves.
    pub(crate) lost: u64,
    /// Open connections that were closed on purpose, as a stage wanted fewer.
    pub(crate) closed: u64,
    /// Connects under way that were given up for the same reason.
    pub(crate) withdrawn: u64,
    /// Open connections that have seen a probe.
    pub(crate) probed: u64,
    /// Messages sent (echo).
    pub(crate) sent: u64,
    /// Messages that were due but not sent, for want of a connection that takes them (echo).
    pub(crate) unsent: u64,
    /// Messages that arrived for the first time.
    pub(crate) unique: u64,
    /// Numbers skipped and not arrived since; complete only after the worker's end.
    pub(crate) missing: u64,
    /// Messages that arrived again.
    pub(crate) duplicate: u64,
    /// Messages that arrived after a later one.
    pub(crate) reordered: u64,
    /// Late or duplicate, the generator no longer knows which.
    pub(crate) unclassified: u64,
    /// Messages of this run whose content was changed.
    pub(crate) corrupt: u64,
    /// Of all that arrived, messages that the server had put other things around.
    pub(crate) wrapped: u64,
    /// Messages that stood in one payload more than once, each time beyond the first.
    pub(crate) repeated: u64,
    /// Messages that are not of this run.
    pub(crate) foreign: u64,
    /// Messages of this run that nobody owed the connection: of a topic it is not in, or refused and delivered all
    /// the same.
    pub(crate) stray: u64,
    /// Messages that arrived behind a later one that had left before they were answered, so that nobody owed an order.
    pub(crate) overtaken: u64,
    /// Topics of the connections that were opened, each counted once a connection.
    pub(crate) subscriptions: u64,
    /// Messages that open connections should have got; known at the end.
    pub(crate) owed: u64,
    /// Messages that came compressed.
    pub(crate) deflated: u64,
    /// Bytes of these as they came.
    pub(crate) deflated_bytes: u64,
    /// Messages whose lateness was looked at: those sent, or those the publisher came to.
    pub(crate) sends: u64,
    /// Sends that left more than 1 ms after their planned time.
    pub(crate) late_sends: u64,
    /// Of these, those that were late although nothing but the generator itself was in their way.
    pub(crate) late_own: u64,
    /// Sends that waited for more than 1 ms until a connection of the publisher was free.
    pub(crate) waited_sends: u64,
    /// For how long at least one of these waited.
    pub(crate) waiting_ns: u64,
    /// How long sending was planned to take.
    pub(crate) sending_ns: u64,
    /// How late the latest send left.
    pub(crate) late_max_ns: u64,
    /// Close frames that ended connections which should have stayed, by code and reason.
    pub(crate) closes: BTreeMap<(u16, String), u64>,
    /// Troubles by kind.
    pub(crate) troubles: BTreeMap<Trouble, u64>,
    /// Open connections that were dropped on purpose.
    pub(crate) dropped: u64,
    /// Drops that were due when no connection was open.
    pub(crate) not_dropped: u64,
    /// Dropped connections that are open again.
    pub(crate) returned: u64,
    /// Open connections that ended and are to come back (rolling).
    pub(crate) left: u64,
    /// These by how they ended.
    pub(crate) endings: BTreeMap<Ending, u64>,
    /// Messages that came again on another visit (rolling).
    pub(crate) again: u64,
    /// Messages that were published while a client was away (rolling).
    pub(crate) away_missed: u64,
    /// Attempts to come back that failed, by kind; each is followed by another.
    pub(crate) refusals: BTreeMap<Trouble, u64>,
}

/// Latencies of connections that were dropped on purpose and came back, in ns.
#[derive(Clone, Debug)]
pub(crate) struct Returns {
    /// From the start of the attempt that succeeded to the open connection.
    pub(crate) attempt: Histogram<u64>,
    /// From the drop to the open connection.
    pub(crate) away: Histogram<u64>,
    /// When the last one was open again.
    pub(crate) last_ns: u64,
    /// How many were open again, by second.
    pub(crate) by_second: BTreeMap<u64, u64>,
    /// How long they were away, by when they were open again.
    pub(crate) by_return: Course,
}

/// TLS handshakes of connections that were opened, those that came back included.
#[derive(Clone, Debug)]
pub(crate) struct Handshakes {
    /// From the TCP connection to the end of the handshake, in ns.
    pub(crate) latency: Histogram<u64>,
    /// Those that resumed an earlier session.
    pub(crate) resumed: u64,
}

/// Deliveries of one tick of the schedule.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tick {
    /// When the last one arrived.
    pub(crate) last_ns: u64,
    /// How many arrived.
    pub(crate) deliveries: u64,
}

/// All that one worker, or after merging all workers, counted.
#[derive(Clone, Debug)]
pub(crate) struct Tally {
    /// Plain numbers.
    pub(crate) counts: Counts,
    /// From the start of `connect` to the 101, in ns.
    pub(crate) connect: Histogram<u64>,
    /// From the planned send time to the arrival, in ns.
    pub(crate) latency: Histogram<u64>,
    /// The same by the planned send time.
    pub(crate) by_send: Course,
    /// Per tick of the schedule; empty unless asked for.
    pub(crate) ticks: Vec<Tick>,
    /// What the generator noticed of its own load.
    pub(crate) strain: Strain,
    /// How long before the end of a connection those messages were answered that had not come by then (rolling).
    pub(crate) cut_off: Option<Box<Histogram<u64>>>,
    /// Connections that came back; none unless some were dropped.
    pub(crate) returns: Option<Box<Returns>>,
    /// TLS handshakes; none without TLS.
    pub(crate) handshakes: Option<Box<Handshakes>>,
    /// What slow subscribers counted, apart from the others; none unless there are any.
    pub(crate) slow: Option<Box<Tally>>,
}

impl Tally {
    /// An empty one.
    pub(crate) fn new() -> Self {
        Self {
            counts: Counts::default(),
            connect: new_histogram(),
            latency: new_histogram(),
            by_send: Course::default(),
            ticks: Vec::new(),
            strain: Strain::default(),
            cut_off: None,
            returns: None,
            handshakes: None,
            slow: None,
        }
    }

    /// Counts a message that came, from its planned send time on.
    #[inline]
    pub(crate) fn on_latency(&mut self, planned_ns: u64, now_ns: u64) {
        let latency_ns = now_ns.saturating_sub(planned_ns);
        self.latency.saturating_record(latency_ns);
        self.by_send.record(planned_ns, latency_ns);
    }

    /// Counts a message that came for the first time as one of its tick.
    #[inline]
    pub(crate) fn on_tick(&mut self, tick: Option<u64>, now_ns: u64) {
        if let Some(tick) = tick.and_then(|tick| self.ticks.get_mut(tick as usize)) {
            tick.last_ns = tick.last_ns.max(now_ns);
            tick.deliveries += 1;
        }
    }

    /// Counts a send that left `late_ns` after its planned time; it had not to wait for the server.
    pub(crate) fn on_send(&mut self, planned_ns: u64, late_ns: u64) {
        self.counts.on_send(late_ns);
        self.by_send.on_turn(planned_ns, late_ns);
        self.by_send.on_left(planned_ns, late_ns);
    }

    /// Counts a connection that is open again.
    pub(crate) fn on_return(&mut self, now_ns: u64, attempt_ns: u64, away_ns: u64) {
        self.counts.returned += 1;
        let returns = self.returns.get_or_insert_with(Box::default);
        returns.attempt.saturating_record(attempt_ns);
        returns.away.saturating_record(away_ns);
        returns.last_ns = returns.last_ns.max(now_ns);
        *returns.by_second.entry(now_ns / 1_000_000_000).or_default() += 1;
        returns.by_return.record(now_ns, away_ns);
    }

    /// Counts the TLS handshake of a connection that is open.
    pub(crate) fn on_secured(&mut self, took_ns: u64, resumed: bool) {
        let handshakes = self.handshakes.get_or_insert_with(Box::default);
        handshakes.latency.saturating_record(took_ns);
        handshakes.resumed += u64::from(resumed);
    }

    /// Adds what another worker counted.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.counts.merge(&other.counts);
        // Both have the same bounds, the only way in which adding can fail.
        let _ = self.connect.add(&other.connect);
        let _ = self.latency.add(&other.latency);
        self.by_send.merge(&other.by_send);
        self.strain.merge(&other.strain);
        if let Some(other) = &other.cut_off {
            let _ = self.cut_off.get_or_insert_with(|| Box::new(new_histogram())).add(other.as_ref());
        }
        if let Some(other) = &other.returns {
            let returns = self.returns.get_or_insert_with(Box::default);
            let _ = returns.attempt.add(&other.attempt);
            let _ = returns.away.add(&other.away);
            returns.last_ns = returns.last_ns.max(other.last_ns);
            for (second, count) in &other.by_second {
                *returns.by_second.entry(*second).or_default() += count;
            }
            returns.by_return.merge(&other.by_return);
        }
        if let Some(other) = &other.handshakes {
            let handshakes = self.handshakes.get_or_insert_with(Box::default);
            let _ = handshakes.latency.add(&other.latency);
            handshakes.resumed += other.resumed;
        }
        if let Some(other) = &other.slow {
            self.slow.get_or_insert_with(|| Box::new(Self::new())).merge(other);
        }
        if self.ticks.len() < other.ticks.len() {
            self.ticks.resize(other.ticks.len(), Tick::default());
        }
        for (mine, theirs) in self.ticks.iter_mut().zip(&other.ticks) {
            mine.last_ns = mine.last_ns.max(theirs.last_ns);
            mine.deliveries += theirs.deliveries;
        }
    }
}

impl Counts {
    /// Connections that are open now.
    pub(crate) fn open(&self) -> u64 {
        self.opened.saturating_sub(self.lost + self.closed)
    }

    /// Adds what another worker counted.
    pub(crate) fn merge(&mut self, other: &Self) {
        for (mine, theirs) in [
            (&mut self.begun, other.begun),
            (&mut self.opened, other.opened),
            (&mut self.failed, other.failed),
            (&mut self.lost, other.lost),
            (&mut self.closed, other.closed),
            (&mut self.withdrawn, other.withdrawn),
            (&mut self.probed, other.probed),
            (&mut self.sent, other.sent),
            (&mut self.unsent, other.unsent),
            (&mut self.unique, other.unique),
            (&mut self.missing, other.missing),
            (&mut self.duplicate, other.duplicate),
            (&mut self.reordered, other.reordered),
            (&mut self.unclassified, other.unclassified),
            (&mut self.corrupt, other.corrupt),
            (&mut self.wrapped, other.wrapped),
            (&mut self.repeated, other.repeated),
            (&mut self.foreign, other.foreign),
            (&mut self.stray, other.stray),
            (&mut self.overtaken, other.overtaken),
            (&mut self.subscriptions, other.subscriptions),
            (&mut self.owed, other.owed),
            (&mut self.deflated, other.deflated),
            (&mut self.deflated_bytes, other.deflated_bytes),
            (&mut self.sends, other.sends),
            (&mut self.late_sends, other.late_sends),
            (&mut self.late_own, other.late_own),
            (&mut self.waited_sends, other.waited_sends),
            (&mut self.dropped, other.dropped),
            (&mut self.not_dropped, other.not_dropped),
            (&mut self.returned, other.returned),
            (&mut self.left, other.left),
            (&mut self.again, other.again),
            (&mut self.away_missed, other.away_missed),
        ] {
            *mine += theirs;
        }
        self.late_max_ns = self.late_max_ns.max(other.late_max_ns);
        self.waiting_ns = self.waiting_ns.max(other.waiting_ns);
        self.sending_ns = self.sending_ns.max(other.sending_ns);
        self.settled_ns = self.settled_ns.max(other.settled_ns);
        for ((code, reason), count) in &other.closes {
            self.on_closes(*code, reason, *count);
        }
        for (trouble, count) in &other.troubles {
            *self.troubles.entry(*trouble).or_default() += count;
        }
        for (ending, count) in &other.endings {
            *self.endings.entry(*ending).or_default() += count;
        }
        for (trouble, count) in &other.refusals {
            *self.refusals.entry(*trouble).or_default() += count;
        }
    }

    /// Counts close frames; of reasons that differ from connection to connection only the first ones are kept.
    pub(crate) fn on_closes(&mut self, code: u16, reason: &str, count: u64) {
        let known = self.closes.contains_key(&(code, reason.to_owned()));
        let reason = if known || self.closes.len() < REASONS_MAX { reason } else { OTHER_REASONS };
        *self.closes.entry((code, reason.to_owned())).or_default() += count;
    }

    /// Counts a message that arrived behind a later one to which it owed no order.
    pub(crate) fn on_overtaken(&mut self) -> bool {
        self.unique += 1;
        self.overtaken += 1;
        self.missing = self.missing.saturating_sub(1);
        true
    }

    /// Counts an arrival; true if the message is new, so that its latency counts.
    pub(crate) fn on_arrival(&mut self, arrival: Arrival) -> bool {
        match arrival {
            Arrival::New { skipped } => {
                self.unique += 1;
                self.missing += u64::from(skipped);
                return true;
            }
            Arrival::Reordered => {
                self.unique += 1;
                self.reordered += 1;
                self.missing = self.missing.saturating_sub(1);
                return true;
            }
            Arrival::Duplicate => self.duplicate += 1,
            Arrival::Unclassified => self.unclassified += 1,
        }
        false
    }

    fn on_send(&mut self, late_ns: u64) {
        self.sends += 1;
        self.late_max_ns = self.late_max_ns.max(late_ns);
        let late = u64::from(late_ns > LATE_NS);
        self.late_sends += late;
        // These sends never wait for the server.
        self.late_own += late;
    }
}

impl Default for Returns {
    fn default() -> Self {
        Self {
            attempt: new_histogram(),
            away: new_histogram(),
            last_ns: 0,
            by_second: BTreeMap::new(),
            by_return: Course::default(),
        }
    }
}

impl Default for Handshakes {
    fn default() -> Self {
        Self { latency: new_histogram(), resumed: 0 }
    }
}

/// A histogram as all runs have it: of nanoseconds, with three significant digits. Those of any two runs add up.
pub(crate) fn new_histogram() -> Histogram<u64> {
    // The bounds are constants that the library accepts; the fallback grows by itself.
    Histogram::new_with_bounds(LATENCY_LOW_NS, LATENCY_HIGH_NS, 3).unwrap_or_else(|_| {
        let mut grows = Histogram::new(3).unwrap_or_else(|_| unreachable!("3 digits are allowed"));
        grows.auto(true);
        grows
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merging_adds_and_keeps_the_maximum() {
        let mut one = Tally::new();
        let mut two = Tally::new();
        one.counts.opened = 3;
        two.counts.opened = 4;
        one.counts.on_send(5);
        two.counts.on_send(2_000_000);
        two.counts.troubles.insert(Trouble::LostEof, 2);
        one.latency.saturating_record(1_000_000);
        two.latency.saturating_record(3_000_000);
        two.ticks = vec![Tick { last_ns: 9, deliveries: 1 }];
        one.merge(&two);
        assert_eq!((one.counts.opened, one.counts.late_sends, one.counts.late_max_ns), (7, 1, 2_000_000));
        assert_eq!(one.counts.troubles[&Trouble::LostEof], 2);
        assert_eq!(one.latency.len(), 2);
        assert_eq!((one.ticks[0].last_ns, one.ticks[0].deliveries), (9, 1));
    }

    #[test]
    fn percentiles_are_of_the_planned_time() {
        // A stall of 100 ms with a message planned every 1 ms is charged to all of them, so the median is
        // about 50 ms. A generator that waited would have recorded one slow message.
        let mut tally = Tally::new();
        let received_ns = 100_000_000u64;
        for planned_ns in (0..100u64).map(|ms| ms * 1_000_000) {
            tally.latency.saturating_record(received_ns - planned_ns);
        }
        let median_ms = tally.latency.value_at_quantile(0.5) as f64 / 1e6;
        assert!((49.0..=52.0).contains(&median_ms), "{median_ms}");
    }

    #[test]
    fn late_arrivals_are_no_longer_missing() {
        let mut counts = Counts::default();
        assert!(counts.on_arrival(Arrival::New { skipped: 2 }));
        assert!(counts.on_arrival(Arrival::Reordered));
        assert!(!counts.on_arrival(Arrival::Duplicate));
        assert_eq!((counts.unique, counts.missing, counts.reordered, counts.duplicate), (2, 1, 1, 1));
    }
}
