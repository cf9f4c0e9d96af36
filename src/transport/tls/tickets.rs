//! What seals the tickets of TLS sessions: keys that are made at the start, and replaced by time.
//!
//! One [`Tickets`] for all loops and all editions of settings, so that a session is taken up by whichever loop the client
//! meets. How a ticket is sealed is rustls'; when its key goes is decided here, by a clock that a test can turn.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use rustls::Error;
use rustls::crypto::aws_lc_rs;
use rustls::server::ProducesTickets;

use crate::sys::clock::monotonic_ns;

/// Seconds for which tickets are sealed with one key. They are opened for as long again, and no longer.
const KEY_SECONDS: u64 = 6 * 60 * 60;

/// Where the time is from, in seconds.
type Clock = fn() -> u64;

/// What seals the tickets of a process: keys that are made at its start, and replaced every few hours; and at once when the
/// rules for certificates of clients are others, because who takes up a session is not asked for one again.
pub struct Tickets {
    sealer: Mutex<Option<Sealer>>,
    clock: Clock,
}

/// Keys, and the mark of the rules that they are for.
struct Sealer {
    mark: Vec<u8>,
    keys: Arc<dyn ProducesTickets>,
}

/// Two keys at most: one that seals and opens, and the one before it, which opens.
struct Keys {
    clock: Clock,
    state: RwLock<State>,
}

struct State {
    current: Arc<dyn ProducesTickets>,
    previous: Option<Arc<dyn ProducesTickets>>,
    /// When the current one became that.
    since: u64,
}

impl Default for Tickets {
    fn default() -> Self {
        Self { sealer: Mutex::default(), clock: || monotonic_ns() / 1_000_000_000 }
    }
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tickets")
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys")
    }
}

impl Tickets {
    /// The keys for rules with this mark: those that there are, or new ones.
    pub(super) fn keys(&self, mark: &[u8]) -> Result<Arc<dyn ProducesTickets>, Error> {
        let mut sealer = self.sealer.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sealer) = sealer.as_ref().filter(|sealer| sealer.mark == mark) {
            return Ok(Arc::clone(&sealer.keys));
        }
        let keys: Arc<dyn ProducesTickets> = Arc::new(Keys::new(self.clock)?);
        *sealer = Some(Sealer { mark: mark.to_vec(), keys: Arc::clone(&keys) });
        Ok(keys)
    }
}

impl Keys {
    fn new(clock: Clock) -> Result<Self, Error> {
        let state = State { current: aws_lc_rs::Ticketer::new()?, previous: None, since: clock() };
        Ok(Self { clock, state: RwLock::new(state) })
    }

    /// Does something with the keys that hold now.
    fn with<R>(&self, what: impl FnOnce(&State) -> Option<R>) -> Option<R> {
        let now = (self.clock)();
        {
            let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
            if !state.is_over(now) {
                return what(&state);
            }
        }
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        if state.is_over(now) {
            state.replace(now)?;
        }
        what(&state)
    }
}

impl State {
    fn is_over(&self, now: u64) -> bool {
        now.saturating_sub(self.since) >= KEY_SECONDS
    }

    /// Begins with a new key. The one before it opens what it has sealed only if nobody has been away for longer than that:
    /// keys are replaced when somebody comes, and that may be days later. `None`: there is no randomness to be had, and
    /// without a ticket handshakes are made in full.
    fn replace(&mut self, now: u64) -> Option<()> {
        let before = std::mem::replace(&mut self.current, aws_lc_rs::Ticketer::new().ok()?);
        let periods = now.saturating_sub(self.since) / KEY_SECONDS;
        self.previous = (periods == 1).then_some(before);
        self.since += periods * KEY_SECONDS;
        Some(())
    }
}

impl ProducesTickets for Keys {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        2 * KEY_SECONDS as u32
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.with(|state| state.current.encrypt(plain))
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        self.with(|state| {
            let before = || state.previous.as_ref().and_then(|previous| previous.decrypt(cipher));
            state.current.decrypt(cipher).or_else(before)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::io::Write;
    use std::time::SystemTime;

    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;
    use rustls::version::{TLS12, TLS13};
    use rustls::{
        ClientConfig, ClientConnection, HandshakeKind, RootCertStore, ServerConnection,
        SupportedProtocolVersion,
    };

    use super::super::config::{Files, Sources, TlsConfig};
    use super::*;

    thread_local! {
        static NOW: Cell<u64> = const { Cell::new(1_000_000) };
    }

    fn pass_time(seconds: u64) {
        NOW.set(NOW.get() + seconds);
    }

    fn tickets() -> Tickets {
        Tickets { clock: || NOW.get(), ..Tickets::default() }
    }

    fn files(name: &str) -> String {
        format!("{}/loadtest/tests/tls/certificates/{name}", env!("CARGO_MANIFEST_DIR"))
    }

    fn server(tickets: &Tickets) -> TlsConfig {
        let own = Files { certificate: files("server.pem"), key: files("server.key"), ocsp: None };
        let sources = Sources { certificates: vec![own], ..Sources::default() };
        TlsConfig::read(&sources, tickets, false, SystemTime::now()).unwrap()
    }

    fn client(version: &'static SupportedProtocolVersion) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(files("ca.pem")).unwrap()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
        let builder = builder.with_protocol_versions(&[version]).unwrap();
        Arc::new(builder.with_root_certificates(roots).with_no_client_auth())
    }

    fn pass(mut write: impl FnMut(&mut dyn Write) -> std::io::Result<usize>) -> Vec<u8> {
        let mut wire = Vec::new();
        while write(&mut wire).unwrap() > 0 {}
        wire
    }

    /// A handshake of a client that keeps what it gets.
    fn shake(server: &TlsConfig, client: &Arc<ClientConfig>) -> HandshakeKind {
        let mut server = ServerConnection::new(Arc::clone(&server.server)).unwrap();
        let mut client = ClientConnection::new(Arc::clone(client), "localhost".try_into().unwrap()).unwrap();
        while client.wants_write() || server.wants_write() {
            let said = pass(|out| client.write_tls(out));
            server.read_tls(&mut &said[..]).unwrap();
            server.process_new_packets().unwrap();
            let said = pass(|out| server.write_tls(out));
            client.read_tls(&mut &said[..]).unwrap();
            client.process_new_packets().unwrap();
        }
        server.handshake_kind().unwrap()
    }

    #[test]
    fn a_session_is_taken_up_behind_one_new_key_and_not_behind_two() {
        for version in [&TLS13, &TLS12] {
            let (server, client) = (server(&tickets()), client(version));
            let shakes = || shake(&server, &client);
            assert_eq!(shakes(), HandshakeKind::Full);
            assert_eq!(shakes(), HandshakeKind::Resumed);
            pass_time(KEY_SECONDS);
            assert_eq!(shakes(), HandshakeKind::Resumed, "{version:?}, by the key before");
            pass_time(KEY_SECONDS - 1);
            assert_eq!(shakes(), HandshakeKind::Resumed);
            pass_time(2 * KEY_SECONDS);
            assert_eq!(shakes(), HandshakeKind::Full, "{version:?}, behind two keys");
            assert_eq!(shakes(), HandshakeKind::Resumed);
        }
    }

    #[test]
    fn old_tickets_are_opened_by_nobody_even_if_nobody_came_meanwhile() {
        let keys = Keys::new(|| NOW.get()).unwrap();
        let sealed = keys.encrypt(b"first").unwrap();
        pass_time(2 * KEY_SECONDS - 1);
        assert_eq!(keys.decrypt(&sealed).unwrap(), b"first");
        // By then the key has a successor, which others may have come for.
        let later = keys.encrypt(b"later").unwrap();
        pass_time(1);
        assert_eq!(keys.decrypt(&sealed), None, "twelve hours");
        assert_eq!(keys.decrypt(&later).unwrap(), b"later");
        pass_time(100 * KEY_SECONDS);
        assert_eq!(keys.decrypt(&later), None, "a month of silence");
        assert_eq!(keys.lifetime(), 2 * KEY_SECONDS as u32);
    }

    #[test]
    fn other_rules_have_other_keys_and_the_same_rules_the_same() {
        let tickets = tickets();
        let sealed = tickets.keys(b"a").unwrap().encrypt(b"one").unwrap();
        assert_eq!(tickets.keys(b"a").unwrap().decrypt(&sealed).unwrap(), b"one");
        assert_eq!(tickets.keys(b"b").unwrap().decrypt(&sealed), None);
        assert_eq!(tickets.keys(b"a").unwrap().decrypt(&sealed), None, "not even behind a way back");
    }
}
