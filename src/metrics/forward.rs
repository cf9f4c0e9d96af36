//! What becomes of messages that go to the application. Written by the service, read by `/metrics` and `/stats`.

use std::sync::atomic::{AtomicU64, Ordering};

/// What may become of a message, by its label.
pub const MESSAGE_OUTCOMES: [&str; 4] = ["taken", "refused", "failed", "full"];

/// How calls end, by their labels: taken, and what else may come of one.
pub const FORWARD_CALL_OUTCOMES: [&str; 10] = [
    "taken",
    "status",
    "nonsense",
    "deadline",
    "name",
    "connection",
    "tls",
    "redirect",
    "too_long",
    "not_http",
];

/// Counts it all.
#[derive(Debug, Default)]
pub struct ForwardCounts {
    messages: [AtomicU64; MESSAGE_OUTCOMES.len()],
    calls: [AtomicU64; FORWARD_CALL_OUTCOMES.len()],
    published: AtomicU64,
    unpublished: AtomicU64,
}

/// One reading.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ForwardFacts {
    /// Messages, in the order of [`MESSAGE_OUTCOMES`].
    pub messages: [u64; MESSAGE_OUTCOMES.len()],
    /// Calls, in the order of [`FORWARD_CALL_OUTCOMES`].
    pub calls: [u64; FORWARD_CALL_OUTCOMES.len()],
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
    /// So many messages have ended so, one of [`MESSAGE_OUTCOMES`].
    pub fn told(&self, outcome: &str, messages: u64) {
        add(&MESSAGE_OUTCOMES, &self.messages, outcome, messages);
    }

    /// A call has ended so, one of [`FORWARD_CALL_OUTCOMES`].
    pub fn called(&self, outcome: &str) {
        add(&FORWARD_CALL_OUTCOMES, &self.calls, outcome, 1);
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
            messages: self.messages.each_ref().map(read),
            calls: self.calls.each_ref().map(read),
            published: read(&self.published),
            unpublished: read(&self.unpublished),
            ..ForwardFacts::default()
        }
    }
}

fn add(labels: &[&str], counters: &[AtomicU64], label: &str, count: u64) {
    let place = labels.iter().position(|other| *other == label);
    debug_assert!(place.is_some(), "{label}");
    if let Some(counter) = place.and_then(|place| counters.get(place)) {
        counter.fetch_add(count, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_counted_where_its_label_stands() {
        let counts = ForwardCounts::default();
        MESSAGE_OUTCOMES.iter().for_each(|outcome| counts.told(outcome, 3));
        FORWARD_CALL_OUTCOMES.iter().for_each(|outcome| counts.called(outcome));
        counts.called("status");
        [true, true, false].into_iter().for_each(|done| counts.published(done));
        let facts = counts.reading();
        assert_eq!((facts.messages, facts.calls[..3].to_vec()), ([3; 4], vec![1, 2, 1]));
        assert_eq!((facts.published, facts.unpublished), (2, 1));
    }
}
