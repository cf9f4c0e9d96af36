//! The JSON of `/stats`: the same reading as `/metrics`, with what a connection costs. Reads counters; never
//! resets one.

use super::calls::Labelled;
use super::facts::{Facts, LoopFacts};
use super::forward::MessageOutcome;
use super::json::Object;
use super::names;
use super::process::{COMMIT, RUSTC, VERSION};
use super::reasons::{CloseReason, DropReason, InvalidReason, RefuseReason};

/// Writes one JSON object and a line end.
pub fn render(facts: &Facts<'_>, out: &mut Vec<u8>) {
    let mut object = Object::default();
    object.text("version", VERSION);
    object.text("commit", COMMIT);
    object.text("rustc", RUSTC);
    object.number("pid", std::process::id());
    object.decimal("started_seconds", Some(facts.started.as_secs_f64()));
    object.decimal("uptime_seconds", Some(facts.uptime.as_secs_f64()));
    object.decimal("cpu_seconds", facts.cpu_time.map(|time| time.as_secs_f64()));
    object.number("draining", facts.draining);
    object.number("admin_tls", facts.admin_tls);
    object.number("tls_key_log", facts.tls_key_log);
    object.number("connections", facts.connections());
    object.number("connections_max", facts.connections_max);
    object.number("topics", facts.topics);
    object.number("outbox_held_bytes", facts.outbox_held_bytes);
    object.number("outbox_held_bytes_max", facts.outbox_held_bytes_max);
    object.number("outbox_full", facts.outbox_full);
    object.number("history_messages", facts.history.messages);
    object.number("history_bytes", facts.history.bytes);
    object.number("history_bytes_max", facts.history.bytes_max);
    object.number("mailbox_bytes_max", facts.mailbox_bytes_max);
    object.number("mailbox_entries_max", facts.mailbox_entries_max);
    memory(facts, &mut object);
    bytes_per_connection(facts, &mut object);
    object.object("config", |config| {
        config.number("reloads_applied", facts.reloads.applied);
        config.number("reloads_refused", facts.reloads.refused);
        config.number("last_success_seconds", facts.reloads.last_success_seconds);
    });
    if let Some(of) = &facts.forward {
        object.object("forward", |object| {
            for (outcome, count) in of.messages.samples(MessageOutcome::ALL.iter().copied()) {
                object.number(outcome, count);
            }
            object.number("waiting_messages", of.waiting);
            object.number("waiting_bytes", of.waiting_bytes);
            object.number("left_alone", of.left_alone);
        });
    }
    object.object("log", |log| {
        log.number("lines_dropped", facts.log_lines_dropped);
        log.number("lines_suppressed", facts.log_lines_suppressed);
    });
    object.optional("descriptors_max", facts.descriptors_max);
    object.array("tables", &facts.tables, |object, table| {
        object.text("table", &table.label);
        object.number("descriptors", table.used);
    });
    object.object("closes", |closes| {
        for reason in CloseReason::ALL {
            closes.number(reason.label(), facts.sum(|counters| counters.closes(*reason)));
        }
    });
    object.object("drops", |drops| {
        for reason in DropReason::ALL {
            drops.number(reason.label(), facts.sum(|counters| counters.drops(reason)));
        }
    });
    object.object("invalid", |invalid| {
        for reason in InvalidReason::ALL {
            invalid.number(reason.label(), facts.sum(|counters| counters.invalid(reason)));
        }
    });
    object.object("refusals", |refusals| {
        for reason in RefuseReason::ALL {
            refusals.number(reason.label(), facts.sum(|counters| counters.refusals(*reason)));
        }
    });
    object.object("totals", |totals| {
        for metric in names::LOOP_METRICS {
            totals.number(short(metric.name), facts.sum(|counters| (metric.of)(counters).value()));
        }
    });
    object.array("loops", &facts.loops, one_loop);
    object.write_into(out);
    out.push(b'\n');
}

fn memory(facts: &Facts<'_>, object: &mut Object) {
    let Some(memory) = facts.memory else { return object.number("memory", None::<u64>) };
    object.object("memory", |object| {
        object.number("user_bytes", memory.user_bytes());
        object.optional("empty_user_bytes", facts.empty_user_bytes);
        object.number("anon_bytes", memory.rss_anon);
        object.number("file_bytes", memory.rss_file);
        object.number("shmem_bytes", memory.rss_shmem);
        object.number("hugetlb_bytes", memory.hugetlb);
        object.number("swap_bytes", memory.swap);
    });
}

/// What one connection costs on average, in all and by part; `null` where there is none to divide by.
fn bytes_per_connection(facts: &Facts<'_>, object: &mut Object) {
    let connections = facts.sum(super::LoopCounters::connections);
    let share = |bytes: u64| (connections > 0).then(|| bytes as f64 / connections as f64);
    let user = facts.memory.map(|memory| memory.user_bytes());
    let above = user.zip(facts.empty_user_bytes).map(|(now, empty)| now.saturating_sub(empty));
    let slots = facts.sum(|counters| counters.slot_bytes.value());
    let inboxes = facts.sum(|counters| counters.inbox_bytes.value());
    // At least a position in a list each; a list has room to grow on top.
    let subscriptions = facts.sum(|counters| counters.subscriptions.value()) * LIST_ENTRY_BYTES;
    object.object("bytes_per_connection", |object| {
        object.decimal("user", user.and_then(share));
        object.decimal("above_empty", above.and_then(share));
        object.decimal("slots", share(slots));
        object.decimal("subscriptions", share(subscriptions));
        object.decimal("inboxes", share(inboxes));
        let known = slots + subscriptions + inboxes;
        object.decimal("rest", above.and_then(|above| share(above.saturating_sub(known))));
    });
}

/// One entry of a topic's subscriber list.
const LIST_ENTRY_BYTES: u64 = 4;

fn one_loop(object: &mut Object, facts: &LoopFacts<'_>) {
    object.text("loop", &facts.label);
    object.number("connections", facts.connections());
    object.number("mailbox_bytes", facts.mailbox_bytes);
    object.number("mailbox_entries", facts.mailbox_entries);
    for metric in names::LOOP_METRICS {
        object.number(short(metric.name), (metric.of)(facts.counters).value());
    }
    let turns = facts.counters.turn_times.reading();
    object.object("turn_seconds", |object| {
        object.number("count", turns.count);
        object.number("sum", turns.sum_seconds);
        for (key, percent) in [("p50_at_most", 50), ("p99_at_most", 99), ("max_at_most", 100)] {
            // A bound is kept as Prometheus writes it.
            object.optional(key, turns.percentile_bound(percent).and_then(|bound| bound.parse::<f64>().ok()));
        }
    });
}

/// A metric's name as a key.
fn short(name: &'static str) -> &'static str {
    let name = name.strip_prefix("fantail_").unwrap_or(name);
    name.strip_suffix("_total").unwrap_or(name)
}

#[cfg(test)]
#[path = "stats_tests.rs"]
mod tests;
