//! Where the server's figures are from, for `--server-metrics`. Plain values.

use serde::Serialize;

/// Where the server's figures are from, for the report.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct MetricsReport {
    /// The page.
    pub(crate) url: String,
    /// The names on it that are used.
    pub(crate) names: Vec<&'static str>,
    /// Readings that were made.
    pub(crate) readings: u64,
    /// Of these, those that failed; what they would have said is null.
    pub(crate) failed: u64,
    /// Why the last one failed that did.
    pub(crate) last_error: Option<String>,
}

impl MetricsReport {
    /// One line of the table.
    pub(crate) fn text(&self) -> String {
        let mut text = format!("the server's own metrics at {}, read once a second", self.url);
        if self.failed > 0 {
            let why = self.last_error.as_deref().unwrap_or_default();
            text += &format!("; {} of {} readings failed ({why})", self.failed, self.readings);
        }
        text
    }
}
