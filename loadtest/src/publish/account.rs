//! What became of each message: its number, whether it was published, how long that took. No socket, no clock.

use std::collections::BTreeMap;
use std::sync::Arc;

use hdrhistogram::Histogram;

use super::PublishError;
use super::several::Board;
use crate::base::schedule::LATE_NS;
use crate::engine::ledger::Ledger;
use crate::engine::message::{PROBE_SEQUENCE, Stamp};
use crate::engine::worker::OfTopic;
use crate::result::course::Course;
use crate::result::tally::new_histogram;

/// What the publisher did.
#[derive(Clone, Debug)]
pub(crate) struct Published {
    /// Messages that came to their turn before the run ended.
    pub(crate) attempted: u64,
    /// Messages that subscribers should have got, counting those of unknown fate.
    pub(crate) count: u64,
    /// Messages whose fate is unknown.
    pub(crate) unknown: u64,
    /// Messages that the server refused.
    pub(crate) refused: u64,
    /// Messages that were not sent, for want of a connection.
    pub(crate) not_sent: u64,
    /// Sends that left more than 1 ms after their planned time.
    pub(crate) late_sends: u64,
    /// Of these, those that had not to wait for a connection.
    pub(crate) late_own: u64,
    /// Sends that waited for more than 1 ms until a connection had nothing else to do.
    pub(crate) waited: u64,
    /// For how long at least one such message waited, in all.
    pub(crate) waiting_ns: u64,
    /// For how long every send up to the last one had left late.
    pub(crate) late_lasting_ns: u64,
    /// How late the latest send left.
    pub(crate) late_max_ns: u64,
    /// When the last message left.
    pub(crate) last_ns: u64,
    /// When messages left, and which the publisher itself made late.
    pub(crate) by_send: Course,
    /// From the send to the end of the server's answer, in ns; none over WebSocket.
    pub(crate) answers: Histogram<u64>,
    /// The most connections that were there at once.
    pub(crate) connections: u64,
    /// Refusals and errors by name.
    pub(crate) errors: BTreeMap<String, u64>,
    /// By topic.
    pub(crate) topics: Vec<OfTopic>,
}

/// One message to be published.
#[derive(Clone, Copy, Debug)]
pub(super) struct Job {
    /// Where it goes.
    pub(super) topic: u32,
    /// When it was planned to leave.
    pub(super) planned_ns: u64,
    /// When it came to its turn.
    pub(super) submitted_ns: u64,
    pub(super) is_probe: bool,
    /// Its number, once it has left.
    pub(super) number: u32,
    /// It has left before, on a connection that broke.
    pub(super) again: bool,
    sent_ns: u64,
}

/// See the module's head.
#[derive(Debug)]
pub(super) struct Account {
    /// What is known so far.
    pub(super) published: Published,
    /// Messages that have been submitted and whose outcome is not known.
    pub(super) under_way: u64,
    /// When the first of the sends left that have been late since; `None` if the last one was not.
    late_since_ns: Option<u64>,
    /// Until when it is known for how long messages waited.
    waited_until_ns: u64,
    probe_failed: Option<PublishError>,
    ledger: Option<Arc<Ledger>>,
    board: Option<Arc<Board>>,
}

impl Job {
    /// A message of the plan.
    pub(super) fn new(topic: u32, planned_ns: u64) -> Self {
        Self { topic, planned_ns, submitted_ns: 0, is_probe: false, number: 0, again: false, sent_ns: 0 }
    }

    /// A message that tells who is subscribed.
    pub(super) fn probe(topic: u32, planned_ns: u64) -> Self {
        Self { is_probe: true, ..Self::new(topic, planned_ns) }
    }

    /// A message of the plan whose number is known.
    pub(super) fn numbered(topic: u32, number: u32, planned_ns: u64) -> Self {
        Self { number, ..Self::new(topic, planned_ns) }
    }

    /// The same once more, on another connection.
    pub(super) fn once_more(self) -> Self {
        Self { again: true, ..self }
    }

    /// What its marker says.
    pub(super) fn stamp(&self, run_id: u64) -> Stamp {
        let sequence = if self.is_probe { PROBE_SEQUENCE } else { u64::from(self.number) };
        Stamp { stream: run_id.wrapping_add(self.topic.into()), sequence, planned_ns: self.planned_ns }
    }
}

impl Account {
    /// For so many topics; `ledger` is told of each message.
    pub(super) fn new(topics: u32, ledger: Option<Arc<Ledger>>) -> Self {
        let published = Published {
            attempted: 0,
            count: 0,
            unknown: 0,
            refused: 0,
            not_sent: 0,
            late_sends: 0,
            late_own: 0,
            waited: 0,
            waiting_ns: 0,
            late_lasting_ns: 0,
            late_max_ns: 0,
            last_ns: 0,
            by_send: Course::default(),
            answers: new_histogram(),
            connections: 0,
            errors: BTreeMap::new(),
            topics: vec![OfTopic::default(); topics as usize],
        };
        Self {
            published,
            under_way: 0,
            late_since_ns: None,
            waited_until_ns: 0,
            probe_failed: None,
            ledger,
            board: None,
        }
    }

    /// Of one of several servers: messages have their numbers from the board, which is told what becomes of them.
    pub(super) fn sharing(board: Arc<Board>) -> Self {
        Self { board: Some(board), ..Self::new(0, None) }
    }

    /// What became of a message, where others have a part in it.
    fn share(&self, job: &Job, taken: bool, now_ns: u64) {
        if let Some(board) = self.board.as_ref().filter(|_| !job.is_probe) {
            board.on_outcome(job.topic, job.number, taken, now_ns);
        }
    }

    /// A message has come to its turn, so much later than it could have.
    pub(super) fn on_turn(&mut self, planned_ns: u64, late_ns: u64) {
        self.published.attempted += 1;
        self.published.by_send.on_turn(planned_ns, late_ns);
        self.published.late_own += u64::from(late_ns > LATE_NS);
    }

    /// It leaves now, and gets its number. Since it came to its turn it has waited for a connection.
    pub(super) fn on_send(&mut self, job: &mut Job, now_ns: u64) {
        let waited_ns = now_ns.saturating_sub(job.submitted_ns);
        job.sent_ns = now_ns;
        if job.is_probe || job.again {
            return;
        }
        let late_ns = now_ns.saturating_sub(job.planned_ns);
        self.published.late_max_ns = self.published.late_max_ns.max(late_ns);
        self.published.late_sends += u64::from(late_ns > LATE_NS);
        self.published.last_ns = now_ns;
        let late_since_ns = (late_ns > LATE_NS).then(|| self.late_since_ns.unwrap_or(now_ns));
        self.late_since_ns = late_since_ns;
        self.published.late_lasting_ns = now_ns.saturating_sub(late_since_ns.unwrap_or(now_ns));
        if waited_ns > LATE_NS {
            self.published.waited += 1;
            let from_ns = job.submitted_ns.max(self.waited_until_ns);
            self.published.waiting_ns += now_ns.saturating_sub(from_ns);
            self.waited_until_ns = now_ns;
            self.published.by_send.on_waited(job.planned_ns, waited_ns);
        }
        self.published.by_send.on_left(job.planned_ns, late_ns);
        if let Some(topic) = self.published.topics.get_mut(job.topic as usize) {
            job.number = topic.numbers;
            topic.numbers += 1;
        }
        if let Some(ledger) = &self.ledger {
            ledger.on_begin(job.topic, job.number, now_ns);
        }
    }

    /// The server has answered it, or never will.
    pub(super) fn on_answer(&mut self, job: &Job, now_ns: u64) {
        if !job.is_probe {
            self.published.by_send.on_answered(job.planned_ns, now_ns.saturating_sub(job.sent_ns));
        }
    }

    /// The server has taken it; `answered` if it said so.
    pub(super) fn on_taken(&mut self, job: &Job, now_ns: u64, answered: bool) {
        self.under_way = self.under_way.saturating_sub(1);
        self.share(job, true, now_ns);
        if answered {
            self.published.answers.saturating_record(now_ns.saturating_sub(job.sent_ns));
        }
        if job.is_probe {
            return;
        }
        self.published.count += 1;
        if let Some(ledger) = self.ledger.as_ref().filter(|_| answered) {
            ledger.on_done(job.topic, job.number, now_ns);
        }
    }

    /// It was sent and not taken, or nobody knows.
    pub(super) fn on_failed(&mut self, job: &Job, error: PublishError) {
        if !job.is_probe {
            let unknown = matches!(error, PublishError::Unknown(_));
            self.published.unknown += u64::from(unknown);
            self.published.count += u64::from(unknown);
            if let Some(topic) = self.published.topics.get_mut(job.topic as usize).filter(|_| !unknown) {
                // The number goes to the next one if there is none yet, so that few are left out.
                if job.number + 1 == topic.numbers {
                    topic.numbers -= 1;
                } else {
                    let place = topic.refused.partition_point(|number| *number < job.number);
                    topic.refused.insert(place, job.number);
                }
            }
        }
        self.on_error(job, error);
    }

    /// It did not leave.
    pub(super) fn on_not_sent(&mut self, job: &Job, error: PublishError) {
        self.on_error(job, error);
    }

    fn on_error(&mut self, job: &Job, error: PublishError) {
        self.share(job, false, 0);
        self.under_way = self.under_way.saturating_sub(1);
        if job.is_probe {
            self.probe_failed.get_or_insert(error);
            return;
        }
        match &error {
            PublishError::Unknown(_) => {}
            error if error.is_refusal() => self.published.refused += 1,
            _ => self.published.not_sent += 1,
        }
        *self.published.errors.entry(error.name()).or_default() += 1;
    }

    /// Once nothing is under way: whether all probes were taken.
    pub(super) fn take_probes(&mut self) -> Option<Result<(), PublishError>> {
        (self.under_way == 0).then(|| self.probe_failed.take().map_or(Ok(()), Err))
    }

    /// What became of all messages.
    pub(super) fn close(&mut self) -> Published {
        // A number that was given back is none that was refused before it.
        for topic in &mut self.published.topics {
            while topic.refused.last().is_some_and(|number| number + 1 == topic.numbers) {
                topic.refused.pop();
                topic.numbers -= 1;
            }
        }
        self.published.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(account: &mut Account) -> Job {
        let mut job = Job { submitted_ns: 1, ..Job::new(0, 0) };
        account.under_way += 1;
        account.on_turn(0, 0);
        account.on_send(&mut job, 1);
        job
    }

    #[test]
    fn numbers_of_refused_messages_are_used_again_or_left_out() {
        let mut account = Account::new(1, None);
        let (one, two, three) = (sent(&mut account), sent(&mut account), sent(&mut account));
        account.on_failed(&two, PublishError::Refused(503, None));
        account.on_taken(&one, 5, true);
        account.on_failed(&three, PublishError::Refused(503, None));
        let again = sent(&mut account);
        assert_eq!((again.number, &account.published.topics[0].refused[..]), (2, &[1][..]));
        account.on_taken(&again, 5, true);
        let published = account.close();
        assert_eq!((published.count, published.refused, published.topics[0].published()), (2, 2, 2));
        assert_eq!(published.errors["status_503"], 2);
    }

    #[test]
    fn what_is_refused_at_the_end_leaves_no_number() {
        let mut account = Account::new(1, None);
        let (one, two) = (sent(&mut account), sent(&mut account));
        account.on_failed(&one, PublishError::Refused(500, None));
        account.on_failed(&two, PublishError::Refused(500, None));
        let published = account.close();
        assert_eq!((published.topics[0].numbers, published.topics[0].refused.len()), (0, 0));
    }

    #[test]
    fn how_long_messages_waited_and_left_late_is_known() {
        let mut account = Account::new(1, None);
        let ms = 1_000_000;
        // Two that waited together, one on time, and two that were late without having waited.
        for (planned_ms, submitted_ms, left_ms) in
            [(10, 10, 40), (20, 20, 40), (50, 50, 50), (60, 90, 90), (70, 120, 120)]
        {
            let mut job = Job { submitted_ns: submitted_ms * ms, ..Job::new(0, planned_ms * ms) };
            account.on_send(&mut job, left_ms * ms);
        }
        let published = account.close();
        assert_eq!((published.waited, published.waiting_ns), (2, 30 * ms));
        assert_eq!((published.late_sends, published.late_lasting_ns), (4, 30 * ms));
    }

    #[test]
    fn unknown_counts_as_published_and_not_sent_as_neither() {
        let mut account = Account::new(1, None);
        let one = sent(&mut account);
        account.on_failed(&one, PublishError::Unknown(std::io::ErrorKind::UnexpectedEof.into()));
        account.under_way += 1;
        account.on_not_sent(&Job::new(0, 0), PublishError::Closed(1008, "no".into()));
        let published = account.close();
        assert_eq!((published.count, published.unknown), (1, 1));
        assert_eq!((published.refused, published.not_sent, account.under_way), (0, 1, 0));
    }
}
