//! `[admission]`: who may connect, how fast, and how fast a connection may speak.

use crate::auth::network::Networks;

use super::section::{Checker, section};
use super::value::{Bytes, Count, Names, Optional, Switch};

type OptionalCount = Optional<Count>;

section! {
    /// Who may connect and how fast; an address is an IPv4 address or an IPv6 /64, and 0 turns a limit off.
    Admission ["admission"] {
        /// Most connections one address holds; over it 429.
        "per_address_max" => per_address_max: usize as Count = 20_000,
        /// Connections one address opens per second; over it 429.
        "connect_rate" => connect_rate: usize as Count = 0,
        /// Connections one address opens at once after a pause.
        "connect_burst" => connect_burst: usize as Count = 100,
        /// Most topics that exist because clients of one address subscribed first; over it 429 for those that would
        /// make more. Unset, half of limits.topics_max, so that no address takes them all.
        "topics_per_address_max" => topics_per_address_max: Option<usize> as OptionalCount = None,
        /// Topics that clients of one address make per second; over it 429.
        "topic_rate" => topic_rate: usize as Count = 0,
        /// Topics that clients of one address make at once after a pause.
        "topic_burst" => topic_burst: usize as Count = 1_000,
        /// Most connections, over all addresses, whose request has not arrived; over it 503.
        "handshakes_max" => handshakes_max: usize as Count = 16_384,
        /// Messages and pings one connection sends per second; over it 1008.
        live "messages_per_second" => messages_per_second: usize as Count = 0,
        /// Messages and pings one connection sends at once after a pause.
        live "messages_burst" => messages_burst: usize as Count = 100,
        /// Bytes one upgraded connection sends per second, frame headers included; over it 1008.
        live "bytes_per_second" => bytes_per_second: usize as Bytes = 0,
        /// Bytes one upgraded connection sends at once after a pause.
        live "bytes_burst" => bytes_burst: usize as Bytes = 4 << 20,
        /// Networks of proxies that tell for whom they connect, such as "10.0.0.0/8".
        "trusted_proxies" => trusted_proxies: Vec<String> as Names = Vec::new(),
        /// Trusted proxies begin each connection with a PROXY header, version 1 or 2.
        "proxy_protocol" => proxy_protocol: bool as Switch = false,
    }
}

impl Admission {
    /// The longest time a bucket may take to fill, in seconds: longer ones are a quota, not a rate.
    const FILL_SECONDS_MAX: usize = 3_600;

    fn check_values(&self, check: &mut Checker<'_>) {
        const GIB: usize = 1 << 30;
        check.within("per_address_max", self.per_address_max, 0..=100_000_000);
        // The buckets' resolution.
        check.within("connect_rate", self.connect_rate, 0..=10_000);
        if let Some(topics) = self.topics_per_address_max {
            check.within("topics_per_address_max", topics, 0..=100_000_000);
        }
        check.within("topic_rate", self.topic_rate, 0..=10_000);
        Self::burst(check, "topic_burst", self.topic_burst, self.topic_rate);
        check.within("handshakes_max", self.handshakes_max, 0..=100_000_000);
        check.within("messages_per_second", self.messages_per_second, 0..=1_000_000);
        check.within("bytes_per_second", self.bytes_per_second, 0..=100 * GIB);
        Self::burst(check, "connect_burst", self.connect_burst, self.connect_rate);
        Self::burst(check, "messages_burst", self.messages_burst, self.messages_per_second);
        Self::burst(check, "bytes_burst", self.bytes_burst, self.bytes_per_second);
        if let Err(error) = Networks::compile(&self.trusted_proxies) {
            check.report("trusted_proxies", error.to_string());
        }
        if self.proxy_protocol && self.trusted_proxies.is_empty() {
            check.report(
                "proxy_protocol",
                "expects admission.trusted_proxies to name the networks it is believed from, got none"
                    .to_owned(),
            );
        }
    }

    /// Reports a burst that there is none of, or that takes longer to come back than a rate makes sense for.
    pub(super) fn burst(check: &mut Checker<'_>, key: &'static str, burst: usize, rate: usize) {
        let most = if rate == 0 { usize::MAX } else { rate.saturating_mul(Self::FILL_SECONDS_MAX) };
        if burst == 0 || burst > most {
            let hour = if rate == 0 { String::new() } else { format!(" to {most}, an hour of its rate") };
            check.report(key, format!("expects 1{hour}, got {burst}"));
        }
    }
}
