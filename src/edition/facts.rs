//! One reading of the whole server, for `/metrics` and `/stats`. Made on request, by the admin loop.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use super::Edition;
use crate::metrics::facts::{Facts, HistoryFacts, LoopFacts, PresenceFacts, TableFacts};
use crate::metrics::{self, logs};
use crate::service::Backend;
use crate::service::forward::Forward;
use crate::topic::PresenceCounts;

/// What only the start of the process knows, told once when it is known.
#[derive(Clone, Copy, Debug)]
pub struct StartFacts {
    /// Open files that one descriptor table may hold.
    pub descriptors_max: u64,
    /// Descriptors of the process's table that are no loop's own, if all loops share that table.
    pub shared_table: Option<u64>,
    /// Memory before the first connection, as `MemoryUse::user_bytes` counts it.
    pub empty_user_bytes: Option<u64>,
    /// Where the admin port listens, its port known.
    pub admin: SocketAddr,
}

/// A name as a label, which quotes and ends of lines would break.
fn label_of(name: &str) -> String {
    name.chars().map(|one| if one.is_control() || one == '"' || one == '\\' { '_' } else { one }).collect()
}

/// Of each file the first of its times: it may be about several certificates, or be that of both ports.
fn first_of_each(mut files: Vec<(String, u64)>) -> Vec<(String, u64)> {
    files.sort_unstable();
    files.dedup_by(|one, before| one.0 == before.0);
    files
}

/// Seconds since 1970.
fn seconds_of(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// When the process started.
#[derive(Clone, Copy, Debug)]
pub(super) struct Started(SystemTime);

impl Default for Started {
    fn default() -> Self {
        Self(SystemTime::now())
    }
}

impl Edition {
    /// Reads everything.
    #[must_use]
    pub fn facts(&self) -> Facts<'_> {
        let (log_lines_dropped, log_lines_suppressed) = logs::counts();
        let start = self.start_facts.get();
        let since = |time: SystemTime| time.elapsed().unwrap_or_default();
        Facts {
            loops: self.loop_facts(),
            tables: self.table_facts(),
            descriptors_max: start.map(|start| start.descriptors_max),
            connections_max: self.connections_max as u64,
            topics: self.router.topics() as u64,
            patterns: self.router.patterns() as u64,
            revocations: self.revocations.count() as u64,
            context_bytes: self.contexts.bytes() as u64,
            context_bytes_max: self.contexts.bytes_max() as u64,
            deflate_declined: self.contexts.declined(),
            admission_addresses: self.admission.addresses() as u64,
            admission_bytes: self.admission.bytes() as u64,
            outbox_held_bytes: self.outbox_budget.used(),
            outbox_held_bytes_max: self.outbox_budget.total(),
            outbox_full: self.outbox_budget.met_full(),
            history: self.history_facts(),
            presence: self.presence_facts(),
            mailbox_bytes_max: self.totals.mailbox as u64,
            mailbox_entries_max: self.settings.mailbox.entries_max as u64,
            memory: metrics::memory(),
            empty_user_bytes: start.and_then(|start| start.empty_user_bytes),
            cpu_time: metrics::cpu_time(),
            started: self.started.0.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO),
            uptime: since(self.started.0),
            draining: self.is_draining(),
            reloads: self.reloads.reading(),
            webhook: self.webhook.reading(),
            certificates: self.certificate_facts(),
            authorities: self.authority_facts(),
            ocsp: self.ocsp_facts(),
            admin_tls: self.admin_tls.is_some(),
            tls_key_log: self.writes_secrets(),
            backend: self.backend().map(Backend::facts),
            forward: self.forward().map(Forward::facts),
            jwks: self.key_sets.facts(),
            log_lines_dropped,
            log_lines_suppressed,
        }
    }

    fn certificate_facts(&self) -> Vec<(String, u64)> {
        let all = self.all_tls().flat_map(|tls| &tls.certificates);
        first_of_each(all.map(|one| (label_of(&one.file), seconds_of(one.expires))).collect())
    }

    fn authority_facts(&self) -> Vec<(String, u64)> {
        let all = self.all_tls().flat_map(|tls| &tls.authorities);
        first_of_each(all.map(|one| (label_of(&one.file), seconds_of(one.expires))).collect())
    }

    /// Of those that expire.
    fn ocsp_facts(&self) -> Vec<(String, u64)> {
        let certificates = self.all_tls().flat_map(|tls| &tls.certificates);
        let all = certificates.filter_map(|certificate| certificate.ocsp.as_ref());
        let expiring = all.filter_map(|one| Some((label_of(&one.file), seconds_of(one.expires?))));
        first_of_each(expiring.collect())
    }

    fn history_facts(&self) -> HistoryFacts {
        let histories = self.router.histories();
        HistoryFacts {
            messages: histories.messages(),
            bytes: histories.bytes(),
            bytes_max: histories.bytes_max(),
            expired: histories.expired(),
            trimmed: histories.trimmed(),
        }
    }

    fn presence_facts(&self) -> PresenceFacts {
        let PresenceCounts { members, bytes, events, unlisted, states, states_refused } =
            self.presences.counts();
        PresenceFacts { members, bytes, events, unlisted, states, states_refused }
    }

    fn loop_facts(&self) -> Vec<LoopFacts<'_>> {
        let facts = self.counters.iter().enumerate().map(|(index, counters)| {
            let waiting = self.router.mailbox(index).map(|mailbox| mailbox.reserved());
            let (mailbox_entries, mailbox_bytes) = waiting.unwrap_or_default();
            LoopFacts { label: self.label(index), counters, mailbox_entries, mailbox_bytes }
        });
        facts.collect()
    }

    fn table_facts(&self) -> Vec<TableFacts> {
        let Some(start) = self.start_facts.get() else { return Vec::new() };
        let used = self.counters.iter().map(|counters| counters.descriptors.value());
        match start.shared_table {
            Some(own) => vec![TableFacts { label: "process".to_owned(), used: own + used.sum::<u64>() }],
            None => {
                used.enumerate().map(|(index, used)| TableFacts { label: self.label(index), used }).collect()
            }
        }
    }

    fn label(&self, index: usize) -> String {
        if index == self.loops() { "admin".to_owned() } else { index.to_string() }
    }
}
