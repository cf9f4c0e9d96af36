//! `[timeouts]`: how long the server waits for a peer.

use std::time::Duration;

use super::section::{Checker, section};
use super::value::Seconds;

section! {
    /// How long the server waits for a peer; times are kept to 0.1 s.
    Timeouts ["timeouts"] {
        /// From accept to a whole request head.
        live "handshake_seconds" => handshake: Duration as Seconds = Duration::from_secs(10),
        /// From a close frame to the peer's answer.
        live "close_seconds" => close: Duration as Seconds = Duration::from_secs(5),
        /// Silence after which a ping is sent; 0 sends none.
        live "heartbeat_seconds" => heartbeat: Duration as Seconds = Duration::from_secs(25),
        /// How often a stream of /sse gets a comment, so that neither its client nor a proxy between takes it for dead; 0
        /// sends none. Many proxies give up after 30 to 60 s, Node's fetch after 300, Python's httpx after 5 unless it is
        /// told otherwise.
        live "sse_heartbeat_seconds" => sse_heartbeat: Duration as Seconds = Duration::from_secs(15),
        /// After how long the client of a stream is asked to come back when it breaks off; each is told a time of its own
        /// between half of it and half as much again, because browsers wait without jitter.
        live "sse_retry_seconds" => sse_retry: Duration as Seconds = Duration::from_secs(3),
        /// From a ping to any answer.
        live "pong_seconds" => pong: Duration as Seconds = Duration::from_secs(10),
        /// How long a queued answer may make no progress before its connection is closed. Together with
        /// the longer heartbeat it is also TCP_USER_TIMEOUT, the time after which the kernel gives a vanished
        /// peer up.
        live "write_timeout_seconds" => write: Duration as Seconds = Duration::from_secs(10),
        /// After the last byte is sent: how long what the peer still sends is read and thrown away.
        live "linger_seconds" => linger: Duration as Seconds = Duration::from_secs(2),
        /// How long an HTTP connection may be idle between requests.
        live "keep_alive_seconds" => keep_alive: Duration as Seconds = Duration::from_secs(15),
    }
}

impl Timeouts {
    /// How long sent bytes may stay unacknowledged before the kernel gives the connection up, in milliseconds:
    /// TCP_USER_TIMEOUT.
    #[must_use]
    pub fn user_timeout_ms(&self) -> u32 {
        let heartbeat = self.heartbeat.max(self.sse_heartbeat);
        u32::try_from(self.write.as_millis() + heartbeat.as_millis()).unwrap_or(u32::MAX)
    }

    fn check_values(&self, check: &mut Checker<'_>) {
        check.time("handshake_seconds", self.handshake, None);
        check.time("close_seconds", self.close, None);
        check.time("heartbeat_seconds", self.heartbeat, Some("no heartbeat"));
        check.time("sse_heartbeat_seconds", self.sse_heartbeat, Some("no comments"));
        check.time("sse_retry_seconds", self.sse_retry, None);
        check.time("pong_seconds", self.pong, None);
        check.time("write_timeout_seconds", self.write, None);
        check.time("linger_seconds", self.linger, None);
        check.time("keep_alive_seconds", self.keep_alive, None);
    }
}
