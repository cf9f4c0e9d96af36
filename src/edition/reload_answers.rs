//! What the main thread says to the reloads that requests have asked for, on its way to the admin loop.
//!
//! Written by the main thread once for each request, read by the admin loop when it is told of a reload.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

/// What became of one reload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReloadAnswer {
    /// Whether the configuration was applied.
    pub applied: bool,
    /// What changed, or what is wrong, as a JSON object and a line end.
    pub body: Vec<u8>,
}

/// Answers in the order in which they were asked for.
#[derive(Debug, Default)]
pub struct ReloadAnswers(Mutex<VecDeque<ReloadAnswer>>);

impl ReloadAnswers {
    /// Adds the next one.
    pub fn push(&self, answer: ReloadAnswer) {
        // Each change is whole, so a panic elsewhere left nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push_back(answer);
    }

    /// Takes the oldest.
    #[must_use]
    pub fn pop(&self) -> Option<ReloadAnswer> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }
}
