//! `[deflate]`: compression of WebSocket messages and of event streams.

use super::section::{Checker, section};
use super::value::{Bytes, BytesOrAutomatic, Count, Switch};

section! {
    /// Compression of WebSocket messages (permessage-deflate, RFC 7692) for clients that offer it, and of event streams.
    Deflate ["deflate"] {
        /// Accept offers of permessage-deflate.
        live "enabled" => enabled: bool as Switch = true,
        /// Send event streams of one topic in gzip to clients that accept it. Such a stream has no end that the format asks
        /// for, because that would be each reader's own; browsers, curl and the usual libraries take it.
        live "event_streams" => event_streams: bool as Switch = false,
        /// Smallest message that is compressed. Smaller ones, and those that would not shrink, go out as they are.
        live "min_bytes" => min_bytes: usize as Bytes = 256,
        /// How hard to compress, from 1 (fast) to 9. Each message is compressed once, however many get it. Those of a topic
        /// that leave together in a form made on the loop are compressed fast in any case: each may refer to those before.
        live "level" => level: usize as Count = 5,
        /// Bytes kept of clients' compressed messages over all connections, at most 32 KiB each, until a client shows that
        /// it begins each message anew, as it has agreed to. When they are used up, newcomers get no compression. 0 takes a
        /// thirty-second of the memory that the process may have, at most 64 MiB.
        live "context_bytes_total" => context_bytes_total: Option<usize> as BytesOrAutomatic = None,
    }
}

impl Deflate {
    fn check_values(&self, check: &mut Checker<'_>) {
        check.within("min_bytes", self.min_bytes, 1..=1 << 30);
        if let Some(bytes) = self.context_bytes_total {
            check.within("context_bytes_total", bytes, 32 << 10..=1 << 40);
        }
        check.within("level", self.level, 1..=9);
    }
}
