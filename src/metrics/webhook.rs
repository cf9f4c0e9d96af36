//! What became of the events of webhooks. Written by whoever tells them, read by `/metrics` and `/stats`.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts of events and calls.
#[derive(Debug, Default)]
pub struct WebhookCounts {
    /// Events that the URL has taken.
    pub delivered: AtomicU64,
    /// Events that found no room in the queue.
    pub overflowed: AtomicU64,
    /// Events that were tried for five minutes, or to the server's end, and not taken.
    pub undelivered: AtomicU64,
    /// Calls that were not answered, or not with a status of success.
    pub failed_calls: AtomicU64,
    /// Bytes of events that wait.
    pub queue_bytes: AtomicU64,
}

/// One reading of [`WebhookCounts`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WebhookReading {
    /// Events by outcome, each with its label.
    pub events: [(&'static str, u64); 3],
    /// Calls that failed.
    pub failed_calls: u64,
    /// Bytes of events that wait.
    pub queue_bytes: u64,
}

impl WebhookCounts {
    /// What is counted now.
    #[must_use]
    pub fn reading(&self) -> WebhookReading {
        let value = |count: &AtomicU64| count.load(Ordering::Relaxed);
        WebhookReading {
            events: [
                ("delivered", value(&self.delivered)),
                ("overflowed", value(&self.overflowed)),
                ("undelivered", value(&self.undelivered)),
            ],
            failed_calls: value(&self.failed_calls),
            queue_bytes: value(&self.queue_bytes),
        }
    }
}
