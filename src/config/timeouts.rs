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
        /// From a ping to any answer.
        live "pong_seconds" => pong: Duration as Seconds = Duration::from_secs(10),
        /// How long a queued answer may make no progress before its connection is closed. Together with
        /// heartbeat_seconds it is also TCP_USER_TIMEOUT, the time after which the kernel gives a vanished
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
        u32::try_from(self.write.as_millis() + self.heartbeat.as_millis()).unwrap_or(u32::MAX)
    }

    fn check_values(&self, check: &mut Checker<'_>) {
        check.time("handshake_seconds", self.handshake, None);
        check.time("close_seconds", self.close, None);
        check.time("heartbeat_seconds", self.heartbeat, Some("no heartbeat"));
        check.time("pong_seconds", self.pong, None);
        check.time("write_timeout_seconds", self.write, None);
        check.time("linger_seconds", self.linger, None);
        check.time("keep_alive_seconds", self.keep_alive, None);
    }
}
