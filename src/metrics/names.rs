//! Every metric's name, type and help, in the order in which they are rendered.

/// How Prometheus treats a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
}

/// A metric family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric {
    /// The name.
    pub name: &'static str,
    /// Its type.
    pub kind: Type,
    /// One sentence.
    pub help: &'static str,
}

macro_rules! metrics {
    ($($NAME:ident = $kind:ident $name:literal, $help:literal;)+) => {
        $(
            #[doc = $help]
            pub const $NAME: Metric = Metric { name: $name, kind: Type::$kind, help: $help };
        )+

        /// Every metric.
        pub const ALL: &[Metric] = &[$($NAME),+];
    };
}

metrics! {
    BUILD_INFO = Gauge "fantail_build_info", "Always 1; the labels tell the build.";
    LOOPS = Gauge "fantail_loops", "Event loops.";
    CONNECTIONS = Gauge "fantail_connections", "Open connections, by event loop.";
    DESCRIPTORS = Gauge "fantail_descriptors", "Descriptors in use, by event loop.";
    ACCEPTED = Counter "fantail_accepted_total", "Connections accepted, those refused at once included.";
    ACCEPT_ERRORS = Counter "fantail_accept_errors_total", "Errors of accept other than an empty queue.";
    OPENED = Counter "fantail_connections_opened_total", "Connections taken into a slot.";
    UPGRADES = Counter "fantail_upgrades_total", "Upgrades to WebSocket.";
    REFUSALS = Counter "fantail_refusals_total", "Requests refused, by reason.";
    CLOSES = Counter "fantail_closes_total", "Connections closed, by reason.";
    MESSAGES_RECEIVED = Counter "fantail_messages_received_total", "Messages received whole from clients.";
    PUBLISHES = Counter "fantail_publishes_total", "Published messages taken in.";
    PUBLISHES_BUSY = Counter "fantail_publishes_busy_total", "Publishes refused because a mailbox was full.";
    IGNORED_PUBLISHES = Counter "fantail_ignored_publishes_total", "Messages from clients that may not publish.";
    DELIVERIES = Counter "fantail_deliveries_total", "Messages handed on for one subscriber.";
    DROPS = Counter "fantail_drops_total", "Messages not delivered to a connected subscriber, by policy.";
    WOULD_BLOCKS = Counter "fantail_would_blocks_total", "Writes that the kernel refused for now.";
    OUTBOX_BYTES = Gauge "fantail_outbox_bytes", "Bytes waiting in outboxes.";
    HEARTBEATS_SENT = Counter "fantail_heartbeats_sent_total", "Pings sent.";
    HEARTBEATS_UNANSWERED = Counter "fantail_heartbeats_unanswered_total", "Pings that nothing answered in time.";
    WAKEUPS = Counter "fantail_wakeups_total", "Returns from poll.";
    TURNS = Counter "fantail_turns_total", "Bounded pieces of work for one connection.";
    STALE_KEYS = Counter "fantail_stale_keys_total", "Events for a connection that was gone.";
    RESIDENT_MEMORY = Gauge "process_resident_memory_bytes", "Resident memory size in bytes.";
    START_TIME = Gauge "process_start_time_seconds", "Start time of the process since the Unix epoch in seconds.";
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_keep_to_the_convention() {
        let names: BTreeSet<_> = ALL.iter().map(|metric| metric.name).collect();
        assert_eq!(names.len(), ALL.len(), "a name is there twice");
        for metric in ALL {
            assert!(
                metric.name.starts_with("fantail_") || metric.name.starts_with("process_"),
                "{}",
                metric.name
            );
            assert!(metric.name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{}", metric.name);
            assert_eq!(metric.name.ends_with("_total"), metric.kind == Type::Counter, "{}", metric.name);
            assert!(metric.help.ends_with('.') && !metric.help.contains(['\n', '\\']), "{}", metric.name);
        }
    }
}
