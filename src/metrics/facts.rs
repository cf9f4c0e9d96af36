//! Everything that `/metrics` and `/stats` tell, read once. Plain data, made by the endpoint from what the
//! loops count; the two formats are made from the same reading.

use std::time::Duration;

use super::backend::BackendFacts;
use super::counters::LoopCounters;
use super::forward::ForwardFacts;
use super::jwks::JwksFacts;
use super::reloads::ReloadCounts;
use super::webhook::WebhookReading;
use crate::sys::process::MemoryUse;

/// One reading of the whole server.
#[derive(Debug)]
pub struct Facts<'a> {
    /// Client loops, the admin loop last.
    pub loops: Vec<LoopFacts<'a>>,
    /// Descriptor tables; empty when nobody told their limit.
    pub tables: Vec<TableFacts>,
    /// Open files that one table may hold.
    pub descriptors_max: Option<u64>,
    /// Client connections the process may hold.
    pub connections_max: u64,
    /// Topics that exist, idle ones included.
    pub topics: u64,
    /// Different patterns that connections are subscribed to.
    pub patterns: u64,
    /// Revocations of tokens that are kept.
    pub revocations: u64,
    /// Bytes kept of clients' compressed messages.
    pub context_bytes: u64,
    /// How many there may be.
    pub context_bytes_max: u64,
    /// Offers of compression declined because they were used up.
    pub deflate_declined: u64,
    /// Addresses in the table of admission.
    pub admission_addresses: u64,
    /// Bytes of that table.
    pub admission_bytes: u64,
    /// Bytes that wait in outboxes, a shared message once.
    pub outbox_held_bytes: u64,
    /// How many there may be.
    pub outbox_held_bytes_max: u64,
    /// How often that was found used up.
    pub outbox_full: u64,
    /// What topics keep of their messages.
    pub history: HistoryFacts,
    /// Who is on topics.
    pub presence: PresenceFacts,
    /// Bytes that may wait in one mailbox.
    pub mailbox_bytes_max: u64,
    /// Messages that may wait in one mailbox.
    pub mailbox_entries_max: u64,
    /// The process's memory, if procfs tells it.
    pub memory: Option<MemoryUse>,
    /// What [`MemoryUse::user_bytes`] was before the first connection.
    pub empty_user_bytes: Option<u64>,
    /// Processor time used.
    pub cpu_time: Option<Duration>,
    /// When the process started, since 1970.
    pub started: Duration,
    /// How long ago that was.
    pub uptime: Duration,
    /// Whether the server is on its way out.
    pub draining: bool,
    /// How reloads of the configuration went.
    pub reloads: ReloadCounts,
    /// What became of the events of webhooks.
    pub webhook: WebhookReading,
    /// Files of certificates, and when each expires, in seconds since 1970.
    pub certificates: Vec<(String, u64)>,
    /// Files of authorities of clients, and when the first in each expires, in seconds since 1970.
    pub authorities: Vec<(String, u64)>,
    /// Files of responses of OCSP that expire, and when each does, in seconds since 1970.
    pub ocsp: Vec<(String, u64)>,
    /// Whether the admin port speaks TLS.
    pub admin_tls: bool,
    /// Whether secrets of connections over TLS are written to a file.
    pub tls_key_log: bool,
    /// How the application answers what it is asked, if it is.
    pub backend: Option<BackendFacts>,
    /// What becomes of messages that go to the application, if any may.
    pub forward: Option<ForwardFacts>,
    /// Sets of keys that are fetched.
    pub jwks: JwksFacts,
    /// Log lines that were lost.
    pub log_lines_dropped: u64,
    /// Log lines that were counted instead of written.
    pub log_lines_suppressed: u64,
}

/// What all topics keep together.
#[derive(Clone, Copy, Debug, Default)]
pub struct HistoryFacts {
    /// Messages.
    pub messages: u64,
    /// Their bytes, and what stands beside each.
    pub bytes: u64,
    /// How many there may be.
    pub bytes_max: u64,
    /// Messages let go because they were too old.
    pub expired: u64,
    /// Messages let go before their time.
    pub trimmed: u64,
}

/// Who is on topics whose rules have presence.
#[derive(Clone, Copy, Debug, Default)]
pub struct PresenceFacts {
    /// Members of all topics.
    pub members: u64,
    /// Bytes that they take.
    pub bytes: u64,
    /// Events that were published.
    pub events: u64,
    /// Subscribers that were not listed.
    pub unlisted: u64,
    /// Members that have a state.
    pub states: u64,
    /// States that were refused.
    pub states_refused: u64,
}

/// One loop.
#[derive(Debug)]
pub struct LoopFacts<'a> {
    /// The label: its number, or `admin`.
    pub label: String,
    /// What it counts.
    pub counters: &'a LoopCounters,
    /// Messages that wait for it or that it is delivering.
    pub mailbox_entries: u64,
    /// Their bytes.
    pub mailbox_bytes: u64,
}

/// One descriptor table.
#[derive(Debug)]
pub struct TableFacts {
    /// The label: the loop's, or `process` when all share one.
    pub label: String,
    /// Descriptors in it.
    pub used: u64,
}

impl LoopFacts<'_> {
    /// Connections open on it.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.counters.connections()
    }
}

impl Facts<'_> {
    /// Client connections open, over all client loops.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.client_loops().iter().map(LoopFacts::connections).sum()
    }

    /// All loops but the admin loop.
    #[must_use]
    pub fn client_loops(&self) -> &[LoopFacts<'_>] {
        self.loops.split_last().map_or(&[], |(_, client)| client)
    }

    /// The sum of something over all loops.
    #[must_use]
    pub fn sum(&self, of: impl Fn(&LoopCounters) -> u64) -> u64 {
        self.loops.iter().map(|facts| of(facts.counters)).sum()
    }
}
