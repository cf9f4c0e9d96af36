//! `[auth]`: how clients may show who they are, and whom to ask about them. Who issues tokens is in `[[auth.issuer]]`.

use std::time::Duration;

use super::Admission;
use super::backend::{BackendDown, Down, Text, own_fields};
use super::section::{Checker, section};
use super::value::{Count, Kind, Names, RawValue, Seconds, Switch};
use crate::auth::admission::holders::WhenFull;
use crate::auth::token::{CARRIED_NAMES_MAX, may_carry};

/// Signatures that a loop may know: 32 MiB.
const SIGNATURES_KNOWN_MAX: usize = 1 << 20;

section! {
    /// How clients show who they are, where an [[auth.issuer]] is configured, and whom to ask about them. See docs/tokens.md and
    /// docs/integrate.md.
    Auth ["auth"] {
        /// Whether a token may stand in the URL (?token=), where others may read it in their logs. It may then be good for
        /// five minutes at most.
        live "query_token" => query_token: bool as Switch = false,
        /// How long before its token ends a json connection is told, so that it can bring another; 0 for never.
        live "notice_seconds" => notice: Duration as Seconds = Duration::from_secs(60),
        /// How long a connection goes on when its token is not taken any more.
        live "grace_seconds" => grace: Duration as Seconds = Duration::from_secs(10),
        /// Connections that one bearer (sub, of one issuer) may have over all loops, polls that wait among them. 0 for as many as
        /// they like.
        live "connections_per_identity_max" => connections_per_identity_max: usize as Count = 0,
        /// What becomes of one more: refuse, with 429; or close-oldest, which closes the oldest of theirs with 3006 instead, and has at
        /// most 1,000 connections.
        live "connections_per_identity_full" => connections_per_identity_full: WhenFull as Full = WhenFull::Refuse,
        /// Messages and pings that one bearer sends per second over all their connections; over it the connection that sends one
        /// more is closed with 1008. 0 for as many as they like.
        live "identity_messages_per_second" => identity_messages_per_second: usize as Count = 0,
        /// Messages and pings that one bearer sends at once after a pause.
        live "identity_messages_burst" => identity_messages_burst: usize as Count = 200,
        /// Claims of tokens, and members of the application's answers, that it is told beside sub: with what clients send (forward) and
        /// by webhooks; shown in /connections, too. At most 16, and 1,024 bytes of JSON together.
        "claims" => claims: Vec<String> as Names = Vec::new(),
        /// Signatures with public keys that each loop knows to be right, 32 bytes each, so that whoever comes back with a token has it
        /// computed once; 0 for none.
        live "signatures_known_max" => signatures_known_max: usize as Count = 4_096,
        /// Whom to ask about each handshake: the URL of the application, http:// or https://; empty for nobody.
        "backend_url" => backend_url: String as Text = String::new(),
        /// A PEM file with authorities that are trusted for it, instead of those of the system; empty for those.
        "backend_ca" => backend_ca: String as Text = String::new(),
        /// Fields of the handshake that are passed on to it.
        live "backend_headers" => backend_headers: Vec<String> as Names = own_fields(),
        /// How long a call to it may take, name, connection and answer together.
        "backend_timeout_seconds" => backend_timeout: Duration as Seconds = Duration::from_secs(5),
        /// Calls to it at a time. Each has a thread.
        "backend_calls_max" => backend_calls_max: usize as Count = 64,
        /// Handshakes that may wait for it, on each loop and in all.
        "backend_waiting_max" => backend_waiting_max: usize as Count = 32_768,
        /// How long a handshake may wait for it, from its request to the answer.
        live "backend_wait_seconds" => backend_wait: Duration as Seconds = Duration::from_secs(30),
        /// How long an answer holds for questions that are equal to the last byte; 0 for none.
        "backend_cache_seconds" => backend_cache: Duration as Seconds = Duration::from_secs(5),
        /// What becomes of handshakes while it can't be asked: deny, or allow, which lets them in as nobody in particular.
        live "backend_down" => backend_down: BackendDown as Down = BackendDown::Deny,
    }
}

pub(super) struct Full;

impl Kind for Full {
    type Out = WhenFull;
    const EXPECTS: &'static str = "refuse or close-oldest";

    fn parse(raw: &RawValue) -> Option<WhenFull> {
        match raw.word()?.as_str() {
            "refuse" => Some(WhenFull::Refuse),
            "close-oldest" => Some(WhenFull::CloseOldest),
            _ => None,
        }
    }

    fn show(value: &WhenFull) -> String {
        match value {
            WhenFull::Refuse => "\"refuse\"".to_owned(),
            WhenFull::CloseOldest => "\"close-oldest\"".to_owned(),
        }
    }
}

impl Auth {
    fn check_values(&self, check: &mut Checker<'_>) {
        check.time("notice_seconds", self.notice, Some("never"));
        check.time("grace_seconds", self.grace, Some("none"));
        if self.claims.len() > CARRIED_NAMES_MAX {
            check.report(
                "claims",
                format!("expects at most {CARRIED_NAMES_MAX} names, got {}", self.claims.len()),
            );
        }
        for (place, name) in self.claims.iter().enumerate() {
            if !may_carry(name) {
                check.report("claims", format!("{name:?} is no claim that could be told beside sub"));
            } else if self.claims.iter().take(place).any(|earlier| earlier == name) {
                check.report("claims", format!("{name:?} is there twice"));
            }
        }
        check.within("signatures_known_max", self.signatures_known_max, 0..=SIGNATURES_KNOWN_MAX);
        let most = self.connections_per_identity_max;
        if self.connections_per_identity_full == WhenFull::CloseOldest {
            // The oldest is looked for among them.
            check.within("connections_per_identity_max", most, 0..=1_000);
        }
        // The buckets' resolution.
        check.within("identity_messages_per_second", self.identity_messages_per_second, 0..=10_000);
        let (burst, rate) = (self.identity_messages_burst, self.identity_messages_per_second);
        Admission::burst(check, "identity_messages_burst", burst, rate);
        self.check_backend(check);
    }
}
