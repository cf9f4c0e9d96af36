//! How the application answers what it is asked about handshakes. Written by the service and its askers, read by
//! `/metrics`.

use std::sync::atomic::{AtomicU64, Ordering};

/// How calls end, by their labels: three answers, and what else may come of one.
pub const CALL_OUTCOMES: [&str; 12] = [
    "allow",
    "deny",
    "unidentified",
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

/// How questions are answered that need no call of their own.
pub const QUESTION_WAYS: [&str; 5] = ["call", "joined", "kept", "down", "full"];

/// Counts it all.
#[derive(Debug, Default)]
pub struct BackendCounts {
    calls: [AtomicU64; CALL_OUTCOMES.len()],
    questions: [AtomicU64; QUESTION_WAYS.len()],
    call_ms: AtomicU64,
}

/// One reading.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BackendFacts {
    /// Calls, in the order of [`CALL_OUTCOMES`].
    pub calls: [u64; CALL_OUTCOMES.len()],
    /// Questions, in the order of [`QUESTION_WAYS`].
    pub questions: [u64; QUESTION_WAYS.len()],
    /// Milliseconds that all calls took together.
    pub call_ms: u64,
    /// Calls under way.
    pub calling: u64,
    /// Handshakes that wait.
    pub waiting: u64,
    /// Whether no calls are made for a while.
    pub left_alone: bool,
}

impl BackendCounts {
    /// A call has ended so, one of [`CALL_OUTCOMES`], after so many milliseconds.
    pub fn called(&self, outcome: &str, ms: u64) {
        count(&CALL_OUTCOMES, &self.calls, outcome);
        self.call_ms.fetch_add(ms, Ordering::Relaxed);
    }

    /// A question was dealt with in this way, one of [`QUESTION_WAYS`].
    pub fn asked(&self, way: &str) {
        count(&QUESTION_WAYS, &self.questions, way);
    }

    /// What was counted so far; the rest is told by who knows it.
    #[must_use]
    pub fn reading(&self) -> BackendFacts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        BackendFacts {
            calls: self.calls.each_ref().map(read),
            questions: self.questions.each_ref().map(read),
            call_ms: read(&self.call_ms),
            ..BackendFacts::default()
        }
    }
}

fn count(labels: &[&str], counters: &[AtomicU64], label: &str) {
    let place = labels.iter().position(|other| *other == label);
    debug_assert!(place.is_some(), "{label}");
    if let Some(counter) = place.and_then(|place| counters.get(place)) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_counted_where_its_label_stands() {
        let counts = BackendCounts::default();
        CALL_OUTCOMES.iter().for_each(|outcome| counts.called(outcome, 2));
        QUESTION_WAYS.iter().for_each(|way| counts.asked(way));
        counts.asked("kept");
        let facts = counts.reading();
        assert_eq!((facts.calls, facts.questions, facts.call_ms), ([1; 12], [1, 1, 2, 1, 1], 24));
    }
}
