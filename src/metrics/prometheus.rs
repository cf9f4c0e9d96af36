//! The text of `/metrics`, in Prometheus' exposition format 0.0.4. Reads counters; never resets one.

use std::fmt::{Display, Write};

use super::backend::{self, QuestionWay};
use super::calls::{CallOutcome, CallReading, FAILURES, Labelled};
use super::facts::Facts;
use super::forward::{self, MessageOutcome};
use super::histogram::TURN_BOUNDS;
use super::jwks::FETCHES_BRING;
use super::names::{self, Kind, Metric};
use super::process::{COMMIT, RUSTC, VERSION};
use super::reasons::{CloseReason, DropReason, InvalidReason, RefuseReason, TlsFailure};

/// Writes every metric.
pub fn render(facts: &Facts<'_>, out: &mut String) {
    process(facts, out);
    totals(facts, out);
    for metric in names::LOOP_METRICS {
        head(out, metric.name, metric.kind, metric.help);
        for facts in &facts.loops {
            line(out, metric.name, &[("loop", &facts.label)], (metric.of)(facts.counters).value());
        }
    }
    loops(facts, out);
    metric(out, &names::CLOSES);
    for reason in CloseReason::ALL {
        let sum = facts.sum(|counters| counters.closes(*reason));
        line(out, names::CLOSES.name, &[("reason", reason.label())], sum);
    }
    metric(out, &names::DROPS);
    for reason in DropReason::ALL {
        let sum = facts.sum(|counters| counters.drops(reason));
        line(out, names::DROPS.name, &[("policy", reason.label())], sum);
    }
    metric(out, &names::INVALID);
    for reason in InvalidReason::ALL {
        let sum = facts.sum(|counters| counters.invalid(reason));
        line(out, names::INVALID.name, &[("reason", reason.label())], sum);
    }
    metric(out, &names::REFUSALS);
    for reason in RefuseReason::ALL {
        let sum = facts.sum(|counters| counters.refusals(*reason));
        line(out, names::REFUSALS.name, &[("reason", reason.label())], sum);
    }
    tls(facts, out);
    backend(facts, out);
    forward(facts, out);
    jwks(facts, out);
}

fn tls(facts: &Facts<'_>, out: &mut String) {
    metric(out, &names::TLS_EXPIRY);
    for (file, expires) in &facts.certificates {
        line(out, names::TLS_EXPIRY.name, &[("file", file)], expires);
    }
    metric(out, &names::TLS_AUTHORITY_EXPIRY);
    for (file, expires) in &facts.authorities {
        line(out, names::TLS_AUTHORITY_EXPIRY.name, &[("file", file)], expires);
    }
    metric(out, &names::TLS_OCSP_EXPIRY);
    for (file, expires) in &facts.ocsp {
        line(out, names::TLS_OCSP_EXPIRY.name, &[("file", file)], expires);
    }
    metric(out, &names::TLS_HANDSHAKES);
    let counts = [
        ("1.2", "no", facts.sum(|counters| counters.tls12_full.value())),
        ("1.2", "yes", facts.sum(|counters| counters.tls12_resumed.value())),
        ("1.3", "no", facts.sum(|counters| counters.tls13_full.value())),
        ("1.3", "yes", facts.sum(|counters| counters.tls13_resumed.value())),
    ];
    for (version, resumed, count) in counts {
        line(out, names::TLS_HANDSHAKES.name, &[("version", version), ("resumed", resumed)], count);
    }
    metric(out, &names::TLS_FAILURES);
    for reason in TlsFailure::ALL {
        let sum = facts.sum(|counters| counters.tls_failures(reason));
        line(out, names::TLS_FAILURES.name, &[("reason", reason.label())], sum);
    }
}

/// Without a backend there are no samples.
fn backend(facts: &Facts<'_>, out: &mut String) {
    let all = [
        &names::BACKEND_CALL_SECONDS,
        &names::BACKEND_CALLING,
        &names::BACKEND_WAITING,
        &names::BACKEND_LEFT_ALONE,
    ];
    let values = facts.backend.map(|backend| {
        let seconds = backend.call_ms as f64 / 1_000.0;
        [seconds, backend.calling as f64, backend.waiting as f64, f64::from(u8::from(backend.left_alone))]
    });
    for (place, named) in all.into_iter().enumerate() {
        metric(out, named);
        if let Some(value) = values.and_then(|values| values.get(place).copied()) {
            line(out, named.name, &[], value);
        }
    }
    metric(out, &names::BACKEND_CALLS);
    if let Some(of) = &facts.backend {
        calls(&names::BACKEND_CALLS, &backend::CALLS_BRING, &of.calls, out);
    }
    metric(out, &names::BACKEND_QUESTIONS);
    let ways = || QuestionWay::ALL.iter().copied();
    for (way, count) in facts.backend.iter().flat_map(|of| of.questions.samples(ways())) {
        line(out, names::BACKEND_QUESTIONS.name, &[("way", way)], count);
    }
}

/// How calls have ended: what they were made for, and whatever else any call may come to.
fn calls(named: &Metric, bring: &[CallOutcome], reading: &CallReading, out: &mut String) {
    for (outcome, count) in reading.samples(bring.iter().copied().chain(FAILURES)) {
        line(out, named.name, &[("outcome", outcome)], count);
    }
}

/// Where nothing may be forwarded there are no samples.
fn forward(facts: &Facts<'_>, out: &mut String) {
    let of = facts.forward.as_ref();
    metric(out, &names::FORWARD_MESSAGES);
    let outcomes = || MessageOutcome::ALL.iter().copied();
    for (outcome, count) in of.iter().flat_map(|of| of.messages.samples(outcomes())) {
        line(out, names::FORWARD_MESSAGES.name, &[("outcome", outcome)], count);
    }
    metric(out, &names::FORWARD_CALLS);
    if let Some(of) = of {
        calls(&names::FORWARD_CALLS, &forward::CALLS_BRING, &of.calls, out);
    }
    metric(out, &names::FORWARD_PUBLISHED);
    for (outcome, count) in
        of.iter().flat_map(|of| [("published", of.published), ("unpublished", of.unpublished)])
    {
        line(out, names::FORWARD_PUBLISHED.name, &[("outcome", outcome)], count);
    }
    let gauges = [
        (&names::FORWARD_WAITING, of.map(|of| of.waiting)),
        (&names::FORWARD_BYTES, of.map(|of| of.waiting_bytes)),
        (&names::FORWARD_CALLING, of.map(|of| of.calling)),
        (&names::FORWARD_LEFT_ALONE, of.map(|of| of.left_alone)),
    ];
    for (named, value) in gauges {
        metric(out, named);
        if let Some(value) = value {
            line(out, named.name, &[], value);
        }
    }
}

/// Where no keys are fetched there are no samples.
fn jwks(facts: &Facts<'_>, out: &mut String) {
    metric(out, &names::JWKS_AGE);
    for set in &facts.jwks.sets {
        line(out, names::JWKS_AGE.name, &[("url", &set.url)], set.age_seconds);
    }
    metric(out, &names::JWKS_KEYS);
    for set in &facts.jwks.sets {
        line(out, names::JWKS_KEYS.name, &[("url", &set.url)], set.keys);
    }
    metric(out, &names::JWKS_FETCHES);
    if !facts.jwks.sets.is_empty() {
        calls(&names::JWKS_FETCHES, &FETCHES_BRING, &facts.jwks.fetches, out);
    }
}

fn process(facts: &Facts<'_>, out: &mut String) {
    metric(out, &names::BUILD_INFO);
    let build = [("version", VERSION), ("commit", COMMIT), ("rustc", RUSTC)];
    line(out, names::BUILD_INFO.name, &build, 1);
    single(out, &names::STARTED, facts.started.as_secs_f64());
    if let Some(time) = facts.cpu_time {
        single(out, &names::CPU, time.as_secs_f64());
    }
    if let Some(memory) = facts.memory {
        single(out, &names::RESIDENT, memory.rss_anon + memory.rss_file + memory.rss_shmem);
        metric(out, &names::MEMORY);
        let kinds = [
            ("anon", memory.rss_anon),
            ("file", memory.rss_file),
            ("shmem", memory.rss_shmem),
            ("hugetlb", memory.hugetlb),
            ("swap", memory.swap),
        ];
        for (kind, bytes) in kinds {
            line(out, names::MEMORY.name, &[("kind", kind)], bytes);
        }
    }
    if let Some(max) = facts.descriptors_max {
        single(out, &names::DESCRIPTORS_MAX, max);
    }
    metric(out, &names::DESCRIPTORS);
    for table in &facts.tables {
        line(out, names::DESCRIPTORS.name, &[("table", &table.label)], table.used);
    }
    metric(out, &names::WEBHOOK_EVENTS);
    for (outcome, count) in facts.webhook.events {
        line(out, names::WEBHOOK_EVENTS.name, &[("outcome", outcome)], count);
    }
    single(out, &names::WEBHOOK_FAILED, facts.webhook.failed_calls);
    single(out, &names::WEBHOOK_BYTES, facts.webhook.queue_bytes);
    metric(out, &names::CONFIG_RELOADS);
    let outcomes = [("applied", facts.reloads.applied), ("refused", facts.reloads.refused)];
    for (outcome, count) in outcomes {
        line(out, names::CONFIG_RELOADS.name, &[("outcome", outcome)], count);
    }
    single(out, &names::CONFIG_LAST_SUCCESS, facts.reloads.last_success_seconds);
    single(out, &names::LOG_DROPPED, facts.log_lines_dropped);
    single(out, &names::LOG_SUPPRESSED, facts.log_lines_suppressed);
}

fn totals(facts: &Facts<'_>, out: &mut String) {
    single(out, &names::CONNECTIONS_MAX, facts.connections_max);
    single(out, &names::TOPICS, facts.topics);
    single(out, &names::PATTERNS, facts.patterns);
    single(out, &names::REVOCATIONS, facts.revocations);
    single(out, &names::ADMISSION_ADDRESSES, facts.admission_addresses);
    single(out, &names::IDENTITIES, facts.identities);
    single(out, &names::ADMISSION_BYTES, facts.admission_bytes);
    single(out, &names::DRAINING, u8::from(facts.draining));
    single(out, &names::OUTBOX_HELD, facts.outbox_held_bytes);
    single(out, &names::OUTBOX_HELD_MAX, facts.outbox_held_bytes_max);
    single(out, &names::OUTBOX_FULL, facts.outbox_full);
    single(out, &names::CONTEXT_BYTES, facts.context_bytes);
    single(out, &names::CONTEXT_BYTES_MAX, facts.context_bytes_max);
    single(out, &names::DEFLATE_DECLINED, facts.deflate_declined);
    single(out, &names::HISTORY_MESSAGES, facts.history.messages);
    single(out, &names::HISTORY_BYTES, facts.history.bytes);
    single(out, &names::HISTORY_BYTES_MAX, facts.history.bytes_max);
    single(out, &names::HISTORY_EXPIRED, facts.history.expired);
    single(out, &names::HISTORY_TRIMMED, facts.history.trimmed);
    single(out, &names::PRESENCE_MEMBERS, facts.presence.members);
    single(out, &names::PRESENCE_BYTES, facts.presence.bytes);
    single(out, &names::PRESENCE_EVENTS, facts.presence.events);
    single(out, &names::PRESENCE_UNLISTED, facts.presence.unlisted);
    single(out, &names::PRESENCE_STATES, facts.presence.states);
    single(out, &names::PRESENCE_STATES_REFUSED, facts.presence.states_refused);
    single(out, &names::MAILBOX_BYTES_MAX, facts.mailbox_bytes_max);
    single(out, &names::MAILBOX_ENTRIES_MAX, facts.mailbox_entries_max);
}

fn loops(facts: &Facts<'_>, out: &mut String) {
    metric(out, &names::CONNECTIONS);
    for facts in &facts.loops {
        line(out, names::CONNECTIONS.name, &[("loop", &facts.label)], facts.connections());
    }
    metric(out, &names::MAILBOX_BYTES);
    for facts in &facts.loops {
        line(out, names::MAILBOX_BYTES.name, &[("loop", &facts.label)], facts.mailbox_bytes);
    }
    metric(out, &names::MAILBOX_ENTRIES);
    for facts in &facts.loops {
        line(out, names::MAILBOX_ENTRIES.name, &[("loop", &facts.label)], facts.mailbox_entries);
    }
    let name = names::TURN_SECONDS.name;
    metric(out, &names::TURN_SECONDS);
    for facts in &facts.loops {
        let reading = facts.counters.turn_times.reading();
        for ((_, bound), at_most) in TURN_BOUNDS.iter().zip(reading.at_most) {
            line(out, &format!("{name}_bucket"), &[("loop", &facts.label), ("le", bound)], at_most);
        }
        line(out, &format!("{name}_bucket"), &[("loop", &facts.label), ("le", "+Inf")], reading.count);
        line(out, &format!("{name}_sum"), &[("loop", &facts.label)], reading.sum_seconds);
        line(out, &format!("{name}_count"), &[("loop", &facts.label)], reading.count);
    }
}

fn single(out: &mut String, named: &Metric, value: impl Display) {
    metric(out, named);
    line(out, named.name, &[], value);
}

fn metric(out: &mut String, metric: &Metric) {
    head(out, metric.name, metric.kind, metric.help);
}

fn head(out: &mut String, name: &str, kind: Kind, help: &str) {
    let kind = match kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram => "histogram",
    };
    // Writing to a String cannot fail.
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

/// One sample. Label values are ours or were checked where they came from: none needs escaping.
fn line(out: &mut String, name: &str, labels: &[(&str, &str)], value: impl Display) {
    out.push_str(name);
    for (index, (label, text)) in labels.iter().enumerate() {
        let before = if index == 0 { '{' } else { ',' };
        let _ = write!(out, "{before}{label}=\"{text}\"");
    }
    if !labels.is_empty() {
        out.push('}');
    }
    let _ = writeln!(out, " {value}");
}

#[cfg(test)]
#[path = "prometheus_tests.rs"]
pub(super) mod tests;
