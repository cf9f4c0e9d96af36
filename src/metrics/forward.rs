//! What becomes of messages that go to the application. Written by the service, read by `/metrics` and `/stats`.

use std::sync::atomic::{AtomicU64, Ordering};

use super::calls::{CallCounts, CallOutcome, CallReading, Counts, Reading, labelled};

labelled! {
    /// What has become of a message.
    MessageOutcome {
        /// The application has it.
        Taken = "taken";
        /// It does not want it.
        Refused = "refused";
        /// Nobody knows whether it has it.
        Failed = "failed";
        /// There was no room for it.
        Full = "full";
    }
}

/// What calls are made for: see [`FAILURES`](super::calls::FAILURES) for what else they come to.
pub const CALLS_BRING: [CallOutcome; 1] = [CallOutcome::Taken];

/// Counts it all.
#[derive(Debug, Default)]
pub struct ForwardCounts {
    messages: Counts<MessageOutcome, { MessageOutcome::COUNT }>,
    calls: CallCounts,
    published: AtomicU64,
    unpublished: AtomicU64,
}

/// One reading.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ForwardFacts {
    /// What has become of messages.
    pub messages: Reading<MessageOutcome, { MessageOutcome::COUNT }>,
    /// How calls have ended.
    pub calls: CallReading,
    /// Messages that were published for the application.
    pub published: u64,
    /// Those that could not be.
    pub unpublished: u64,
    /// Messages that are not answered yet.
    pub waiting: u64,
    /// Their bytes.
    pub waiting_bytes: u64,
    /// Calls under way.
    pub calling: u64,
    /// URLs that are not called for a while.
    pub left_alone: u64,
}

impl ForwardCounts {
    /// So many messages have ended so.
    pub fn told(&self, outcome: MessageOutcome, messages: u64) {
        self.messages.add(outcome, messages);
    }

    /// A call has ended so.
    pub fn called(&self, outcome: CallOutcome) {
        self.calls.count(outcome);
    }

    /// The application has wanted something published, and it was, or could not be.
    pub fn published(&self, done: bool) {
        let counter = if done { &self.published } else { &self.unpublished };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// What was counted so far; the rest is told by who knows it.
    #[must_use]
    pub fn reading(&self) -> ForwardFacts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ForwardFacts {
            messages: self.messages.reading(),
            calls: self.calls.reading(),
            published: read(&self.published),
            unpublished: read(&self.unpublished),
            ..ForwardFacts::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_published_and_what_could_not_be_is_told_apart() {
        let counts = ForwardCounts::default();
        [true, true, false].into_iter().for_each(|done| counts.published(done));
        counts.told(MessageOutcome::Failed, 3);
        let facts = counts.reading();
        assert_eq!((facts.published, facts.unpublished), (2, 1));
        assert_eq!((facts.messages.of(MessageOutcome::Failed), facts.messages.total()), (3, 3));
    }
}
