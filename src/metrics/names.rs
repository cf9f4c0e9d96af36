//! Every metric: name, kind and help, in one place. Names are part of the interface.

use super::counters::{Counter, LoopCounters};

/// What Prometheus calls the type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts by size, with a sum.
    Histogram,
}

/// One metric that is not simply a number per loop.
#[derive(Debug)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// Its kind.
    pub kind: Kind,
    /// One line of help.
    pub help: &'static str,
}

/// One metric that is a number per loop.
pub struct LoopMetric {
    /// Its name.
    pub name: &'static str,
    /// Its kind.
    pub kind: Kind,
    /// One line of help.
    pub help: &'static str,
    /// Where it is counted.
    pub of: fn(&LoopCounters) -> &Counter,
}

macro_rules! metrics {
    ($($name:literal, $kind:ident, $field:ident, $help:literal;)*) => {
        /// Every per-loop metric.
        pub const LOOP_METRICS: &[LoopMetric] = &[$(LoopMetric {
            name: $name, kind: Kind::$kind, help: $help, of: |counters| &counters.$field,
        },)*];
    };
}

metrics! {
    "fantail_connections_accepted_total", Counter, accepted, "Connections accepted.";
    "fantail_connections_closed_total", Counter, connections_closed, "Connections gone.";
    "fantail_handshakes", Gauge, handshakes, "Connections whose request has not arrived.";
    "fantail_tls_handshakes", Gauge, tls_handshakes, "Handshakes of TLS under way.";
    "fantail_refused_at_once_total", Counter, refused_at_once, "Connections answered a refusal and closed as they were accepted.";
    "fantail_accept_errors_total", Counter, accept_errors, "Accepts that failed for want of descriptors or memory.";
    "fantail_upgrades_total", Counter, upgrades, "Connections upgraded to WebSocket.";
    "fantail_received_bytes_total", Counter, bytes_received, "Bytes read from connections.";
    "fantail_sent_bytes_total", Counter, bytes_sent, "Bytes the kernel took for connections.";
    "fantail_messages_received_total", Counter, messages_received, "WebSocket messages read.";
    "fantail_publishes_total", Counter, publishes, "Messages published.";
    "fantail_publishes_busy_total", Counter, publishes_busy, "Publishes put off or refused because a mailbox was full.";
    "fantail_forwards_blocked_total", Counter, forwards_blocked, "Messages that had to wait until the application had answered those before them.";
    "fantail_publishes_ignored_total", Counter, ignored_publishes, "Publishes of clients that were not allowed and not answered.";
    "fantail_bad_commands_total", Counter, bad_commands, "Messages that were no command of their dialect.";
    "fantail_signatures_computed_total", Counter, signatures_computed, "Signatures of tokens that were computed with a public key.";
    "fantail_signatures_known_total", Counter, signatures_known, "Signatures of tokens that were known to be right.";
    "fantail_deliveries_total", Counter, deliveries, "Messages that the kernel took for a subscriber, to the last byte.";
    "fantail_history_replayed_total", Counter, replayed, "Deliveries that were read out of history.";
    "fantail_history_fell_behind_total", Counter, fell_behind, "Subscribers that fell behind and read on from history.";
    "fantail_history_readers", Gauge, behind, "Subscriptions that read from history now.";
    "fantail_history_forms_bytes", Gauge, replay_bytes, "Bytes of old messages made for those who read them.";
    "fantail_deflate_messages_total", Counter, deflated_messages, "Messages compressed, each once for all who get it.";
    "fantail_deflate_in_bytes_total", Counter, deflate_in_bytes, "Bytes of compressed messages before.";
    "fantail_deflate_out_bytes_total", Counter, deflate_out_bytes, "Bytes of compressed messages after.";
    "fantail_inflate_failures_total", Counter, inflate_failures, "Compressed messages of clients that were corrupt.";
    "fantail_outbox_bytes", Gauge, outbox_bytes, "Unsent bytes in outboxes; a shared message counts once for each.";
    "fantail_write_turns_total", Counter, write_turns, "Turns that flushed an outbox.";
    "fantail_would_blocks_total", Counter, would_blocks, "Writes that the kernel took in part or not at all.";
    "fantail_wakeups_total", Counter, wakeups, "Wake-ups of a loop by another thread.";
    "fantail_loop_turns_total", Counter, turns, "Turns of the event loop.";
    "fantail_loop_sleeps_total", Counter, sleeps, "Times the event loop went to sleep.";
    "fantail_stale_keys_total", Counter, stale_keys, "Events for a connection that was gone.";
    "fantail_heartbeats_sent_total", Counter, heartbeats_sent, "Pings sent to silent peers.";
    "fantail_heartbeats_unanswered_total", Counter, heartbeats_unanswered, "Pings that nobody answered in time.";
    "fantail_pongs_received_total", Counter, pongs_received, "Pongs received.";
    "fantail_subscriptions", Gauge, subscriptions, "Subscriptions of connections, waiting joins included.";
    "fantail_pattern_subscriptions", Gauge, watches, "Subscriptions of connections to patterns.";
    "fantail_replaced_messages_total", Counter, replaced, "Messages that a newer one has replaced on a loop, as the interval of their topic's rule says.";
    "fantail_inbox_bytes", Gauge, inbox_bytes, "Bytes of half-received heads and messages, and of request bodies on the admin port.";
    "fantail_slot_bytes", Gauge, slot_bytes, "Bytes of pages of connection slots.";
}

macro_rules! others {
    ($($CONST:ident = $name:literal, $kind:ident, $help:literal;)*) => {
        $(
            #[doc = $help]
            pub const $CONST: Metric = Metric { name: $name, kind: Kind::$kind, help: $help };
        )*

        /// Every metric that is not simply a number per loop.
        pub const OTHER_METRICS: &[Metric] = &[$($CONST,)*];
    };
}

others! {
    BUILD_INFO = "fantail_build_info", Gauge, "What is running, as labels; always 1.";
    CONNECTIONS = "fantail_connections", Gauge, "Connections open now.";
    CONNECTIONS_MAX = "fantail_connections_max", Gauge, "Client connections the process may hold.";
    TOPICS = "fantail_topics", Gauge, "Topics, idle ones included.";
    PATTERNS = "fantail_patterns", Gauge, "Different patterns that connections are subscribed to.";
    REVOCATIONS = "fantail_revocations", Gauge, "Revocations of tokens that are kept.";
    ADMISSION_ADDRESSES = "fantail_admission_addresses", Gauge, "Addresses that hold a connection now; 0 while no limit by address is on.";
    IDENTITIES = "fantail_identities", Gauge, "Bearers of tokens that hold a connection now; 0 while their connections are not limited.";
    ADMISSION_BYTES = "fantail_admission_bytes", Gauge, "Bytes of the table of addresses, connect rates included.";
    DRAINING = "fantail_draining", Gauge, "1 while the server is on its way out.";
    CLOSES = "fantail_closes_total", Counter, "Connections ended, by reason.";
    DROPS = "fantail_drops_total", Counter, "Messages that slow consumers missed, by policy.";
    INVALID = "fantail_messages_invalid_total", Counter, "Messages that were not what their topic takes, by reason.";
    OUTBOX_HELD = "fantail_outbox_held_bytes", Gauge, "Bytes that wait over all connections, a shared message once and 16 bytes for each reference.";
    OUTBOX_HELD_MAX = "fantail_outbox_held_bytes_max", Gauge, "Bytes that may wait over all connections.";
    OUTBOX_FULL = "fantail_outbox_full_total", Counter, "Messages and answers that found no room in what may wait over all connections.";
    CONTEXT_BYTES = "fantail_deflate_context_bytes", Gauge, "Bytes kept of clients' compressed messages, in case that later ones refer to them.";
    CONTEXT_BYTES_MAX = "fantail_deflate_context_bytes_max", Gauge, "Bytes that may be kept so.";
    DEFLATE_DECLINED = "fantail_deflate_declined_total", Counter, "Offers of compression declined because these bytes were used up.";
    HISTORY_MESSAGES = "fantail_history_messages", Gauge, "Messages that topics keep.";
    HISTORY_BYTES = "fantail_history_bytes", Gauge, "Bytes of them, and 80 for each message.";
    HISTORY_BYTES_MAX = "fantail_history_bytes_max", Gauge, "Bytes that all topics together may keep.";
    HISTORY_EXPIRED = "fantail_history_expired_total", Counter, "Messages let go because they were too old.";
    HISTORY_TRIMMED = "fantail_history_trimmed_total", Counter, "Messages let go before their time, because topics together kept too much, there were too many of them, or by a reload.";
    PRESENCE_MEMBERS = "fantail_presence_members", Gauge, "Members of topics whose rules have presence.";
    PRESENCE_BYTES = "fantail_presence_bytes", Gauge, "Bytes that they take: 128 for each, and its id; for each state 224 and its text.";
    PRESENCE_EVENTS = "fantail_presence_events_total", Counter, "Events that told who came and went.";
    PRESENCE_UNLISTED = "fantail_presence_unlisted_total", Counter, "Subscribers that found no room in the list of their topic.";
    PRESENCE_STATES = "fantail_presence_states", Gauge, "Members that have a state.";
    PRESENCE_STATES_REFUSED = "fantail_presence_states_refused_total", Counter, "States that found no room, or came too fast.";
    REFUSALS = "fantail_refusals_total", Counter, "Requests refused, by reason.";
    TLS_EXPIRY = "fantail_tls_certificate_expiry_timestamp_seconds", Gauge, "When a certificate or one of its chain expires, by file, in seconds since 1970.";
    TLS_AUTHORITY_EXPIRY = "fantail_tls_client_ca_expiry_timestamp_seconds", Gauge, "When the first authority of clients in a file expires, by file, in seconds since 1970.";
    TLS_OCSP_EXPIRY = "fantail_tls_ocsp_expiry_timestamp_seconds", Gauge, "When a response of OCSP for a certificate expires, by file, in seconds since 1970.";
    TLS_HANDSHAKES = "fantail_tls_handshakes_total", Counter, "Handshakes of TLS that were done, by version and whether a session was taken up.";
    TLS_FAILURES = "fantail_tls_failures_total", Counter, "Handshakes of TLS, and connections over it, that came to nothing, by reason.";
    BACKEND_CALLS = "fantail_backend_calls_total", Counter, "Questions about handshakes that the application was called for, by outcome.";
    BACKEND_CALL_SECONDS = "fantail_backend_call_seconds_total", Counter, "Seconds that these calls took together.";
    BACKEND_QUESTIONS = "fantail_backend_questions_total", Counter, "Questions about handshakes, by the way they were dealt with.";
    BACKEND_CALLING = "fantail_backend_calling", Gauge, "Calls under way to the application.";
    BACKEND_WAITING = "fantail_backend_waiting", Gauge, "Handshakes that wait for the application.";
    BACKEND_LEFT_ALONE = "fantail_backend_left_alone", Gauge, "1 while the application is not called because it has failed or asked for that.";
    JWKS_AGE = "fantail_jwks_age_seconds", Gauge, "Seconds since a set of keys was fetched, by address; if it never was, since that was first to be.";
    JWKS_KEYS = "fantail_jwks_keys", Gauge, "Keys in a set that is fetched, by address.";
    JWKS_FETCHES = "fantail_jwks_fetches_total", Counter, "Fetches of sets of keys, by outcome.";
    MAILBOX_BYTES = "fantail_mailbox_bytes", Gauge, "Bytes of messages that wait for a loop or that it is delivering.";
    MAILBOX_BYTES_MAX = "fantail_mailbox_bytes_max", Gauge, "Bytes that may wait for one loop.";
    MAILBOX_ENTRIES = "fantail_mailbox_entries", Gauge, "Messages that wait for a loop or that it is delivering.";
    MAILBOX_ENTRIES_MAX = "fantail_mailbox_entries_max", Gauge, "Messages that may wait for one loop.";
    TURN_SECONDS = "fantail_loop_turn_seconds", Histogram, "How long turns of the event loop took, sleep left out.";
    DESCRIPTORS = "fantail_descriptors", Gauge, "Descriptors in use, by descriptor table.";
    DESCRIPTORS_MAX = "process_max_fds", Gauge, "Maximum number of open file descriptors; each descriptor table has this limit for itself.";
    MEMORY = "fantail_memory_bytes", Gauge, "Memory of the process, by kind.";
    RESIDENT = "process_resident_memory_bytes", Gauge, "Resident memory size in bytes.";
    CPU = "process_cpu_seconds_total", Counter, "Total user and system CPU time spent in seconds.";
    STARTED = "process_start_time_seconds", Gauge, "Start time of the process since unix epoch in seconds.";
    WEBHOOK_EVENTS = "fantail_webhook_events_total", Counter, "Events of webhooks, by what became of them.";
    WEBHOOK_FAILED = "fantail_webhook_failed_calls_total", Counter, "Calls of webhooks that were not answered with success.";
    WEBHOOK_BYTES = "fantail_webhook_queue_bytes", Gauge, "Bytes of events that wait to be told.";
    FORWARD_MESSAGES = "fantail_forward_messages_total", Counter, "Messages that went to the application, by what became of them.";
    FORWARD_CALLS = "fantail_forward_calls_total", Counter, "Calls that took messages to the application, by outcome.";
    FORWARD_PUBLISHED = "fantail_forward_publishes_total", Counter, "Messages that the application wanted published, by outcome.";
    FORWARD_WAITING = "fantail_forward_waiting_messages", Gauge, "Messages that the application has not answered.";
    FORWARD_BYTES = "fantail_forward_waiting_bytes", Gauge, "Bytes of messages that the application has not answered.";
    FORWARD_CALLING = "fantail_forward_calling", Gauge, "Calls under way that take messages to the application.";
    FORWARD_LEFT_ALONE = "fantail_forward_left_alone", Gauge, "URLs that are not called because they have failed or asked for that.";
    CONFIG_RELOADS = "fantail_config_reloads_total", Counter, "Reloads of the configuration, by outcome.";
    CONFIG_LAST_SUCCESS = "fantail_config_last_reload_success_timestamp_seconds", Gauge, "When a configuration was last taken, in seconds since 1970.";
    LOG_DROPPED = "fantail_log_lines_dropped_total", Counter, "Log lines lost because standard error did not take them.";
    LOG_SUPPRESSED = "fantail_log_lines_suppressed_total", Counter, "Log lines counted instead of written, because too many of their kind came.";
}

/// The names of all metrics.
pub fn all() -> impl Iterator<Item = &'static str> {
    let per_loop = LOOP_METRICS.iter().map(|metric| metric.name);
    per_loop.chain(OTHER_METRICS.iter().map(|metric| metric.name))
}
