//! How the application answers what it is asked about handshakes. Written by the service and its askers, read by
//! `/metrics`.

use std::sync::atomic::{AtomicU64, Ordering};

use super::calls::{CallCounts, CallOutcome, CallReading, Counts, Reading, labelled};

/// What calls are made for: see [`FAILURES`](super::calls::FAILURES) for what else they come to.
pub const CALLS_BRING: [CallOutcome; 3] = [CallOutcome::Allow, CallOutcome::Deny, CallOutcome::Unidentified];

labelled! {
    /// How a question was dealt with.
    QuestionWay {
        /// By a call.
        Call = "call";
        /// By the call of an equal one.
        Joined = "joined";
        /// By an answer that is kept.
        Kept = "kept";
        /// Not at all, since the application is left alone.
        Down = "down";
        /// Not at all, since too many wait.
        Full = "full";
    }
}

/// Counts it all.
#[derive(Debug, Default)]
pub struct BackendCounts {
    calls: CallCounts,
    questions: Counts<QuestionWay, { QuestionWay::COUNT }>,
    call_ms: AtomicU64,
}

/// One reading.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BackendFacts {
    /// How calls have ended.
    pub calls: CallReading,
    /// How questions were dealt with.
    pub questions: Reading<QuestionWay, { QuestionWay::COUNT }>,
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
    /// A call has ended so, after so many milliseconds.
    pub fn called(&self, outcome: CallOutcome, ms: u64) {
        self.calls.count(outcome);
        self.call_ms.fetch_add(ms, Ordering::Relaxed);
    }

    /// A question was dealt with in this way.
    pub fn asked(&self, way: QuestionWay) {
        self.questions.count(way);
    }

    /// What was counted so far; the rest is told by who knows it.
    #[must_use]
    pub fn reading(&self) -> BackendFacts {
        BackendFacts {
            calls: self.calls.reading(),
            questions: self.questions.reading(),
            call_ms: self.call_ms.load(Ordering::Relaxed),
            ..BackendFacts::default()
        }
    }
}
