//! What every loop and request shares: settings, router, policies, counters, health.
//!
//! [`Edition`] is settings and the policies compiled from them, plus [`Shared`], which
//! outlives every edition. A reload makes a new edition; each loop swaps its own `Arc` of it between
//! two turns. Plain data and atomics; never a lock on a delivery path.

mod facts;
mod mail;
mod readiness;
mod reload_answers;
mod tls;

use std::error::Error;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::auth::admin_guard::AdminGuard;
use crate::auth::admin_keys::AdminKeys;
use crate::auth::admission::holders::Holders;
use crate::auth::admission::speech::Speech;
use crate::auth::admission::{Admission, AdmissionRules};
use crate::auth::origin::OriginPolicy;
use crate::auth::revoked::Revocations;
use crate::auth::token::Issuers;
use crate::config::{KeyError, Settings, Totals};
use crate::metrics::{LoopCounters, Reloads, WebhookCounts};
use crate::service::forward::{Forward, Named};
use crate::service::webhook::Ear;
use crate::service::{Backend, KeySets};
use crate::topic::{BATCH_BYTES_MAX, OutboxBudget, PresenceLimits, Presences};
use crate::transport::tls::certificate::CertificateError;
use crate::transport::tls::config::TlsConfig;
use crate::transport::tls::key_log::SecretsOut;
use crate::transport::tls::tickets::Tickets;
use crate::wire::deflate::Contexts;
use facts::Started;
use readiness::{FoundFull, FoundKeys};

pub use facts::StartFacts;
pub use mail::{Answered, Control, LocalTopics, LoopMail, Router};
pub use readiness::Readiness;
pub use reload_answers::{ReloadAnswer, ReloadAnswers};

/// Milliseconds without a finished turn after which a loop counts as stuck.
const STUCK_AFTER_MS: u64 = 5_000;

/// Which listener a request came in by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    /// The public one.
    Client,
    /// The operator's.
    Admin,
}

/// Whether one loop turns and takes newcomers. Written by the loop, read by `/healthz` and `/readyz`.
#[derive(Debug, Default)]
pub struct LoopHealth {
    /// When the turn in progress began, in milliseconds since the start, plus one; 0 while asleep in poll.
    busy_since_ms: AtomicU64,
    /// It is drained: it has no connections, and never turns again.
    ended: AtomicBool,
    /// Whoever connects to it meets no listener, or has no place there.
    accepts_nobody: AtomicBool,
}

impl LoopHealth {
    /// The loop begins a turn.
    pub fn wakes(&self, now_ms: u64) {
        self.busy_since_ms.store(now_ms + 1, Ordering::Relaxed);
    }

    /// The loop goes to sleep in poll.
    pub fn sleeps(&self) {
        self.busy_since_ms.store(0, Ordering::Relaxed);
    }

    /// The loop has made its last turn.
    pub fn ends(&self) {
        self.sleeps();
        self.ended.store(true, Ordering::Release);
    }

    /// Whether it has: then there is nothing to ask it.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// The loop has room for newcomers and a listener that takes them, or has not.
    pub fn set_accepts(&self, accepts: bool) {
        // Told each turn, and seldom new.
        if self.accepts() != accepts {
            self.accepts_nobody.store(!accepts, Ordering::Relaxed);
        }
    }

    /// Whether it has.
    #[must_use]
    pub fn accepts(&self) -> bool {
        !self.accepts_nobody.load(Ordering::Relaxed)
    }

    fn is_stuck(&self, now_ms: u64) -> bool {
        let since = self.busy_since_ms.load(Ordering::Relaxed);
        since != 0 && now_ms.saturating_sub(since - 1) > STUCK_AFTER_MS
    }
}

/// Everything shared: one edition of settings with its policies, and what all editions share.
pub struct Edition {
    /// The checked configuration.
    pub settings: Settings,
    /// Who may connect from a page.
    pub origin: OriginPolicy,
    /// From where the admin port may be used.
    pub guard: AdminGuard,
    /// With which keys.
    pub keys: AdminKeys,
    /// Who issues tokens, with their keys; nobody, where clients need none.
    pub issuers: Option<Arc<Issuers>>,
    /// What TLS handshakes of clients are answered with, if TLS is spoken.
    pub tls: Option<Arc<TlsConfig>>,
    /// The same for the admin port.
    pub admin_tls: Option<Arc<TlsConfig>>,
    /// How much may wait over all connections.
    pub totals: Totals,
    /// Where messages may go by these settings: their loops may still send there while others have newer ones.
    applications: OnceLock<Vec<Arc<Named>>>,
    shared: Arc<Shared>,
}

/// What outlives a reload.
pub struct Shared {
    /// Topics.
    pub router: Arc<Router>,
    /// Who is on which topic.
    pub presences: Arc<Presences>,
    /// What waits for slow consumers over all loops.
    pub outbox_budget: OutboxBudget,
    /// What compressed messages of clients may refer back to, over all loops.
    pub contexts: Arc<Contexts>,
    /// Bytes of memory that the process may have, if that is known.
    pub memory: Option<u64>,
    /// Who may connect, by address.
    pub admission: Admission,
    /// How many connections each bearer has.
    pub holders: Holders,
    /// How fast each bearer speaks.
    pub speech: Speech,
    /// Tokens that are not taken any more.
    pub revocations: Revocations,
    /// Keys of issuers that are fetched.
    pub key_sets: KeySets,
    /// What seals the tickets of TLS sessions, of each port by itself: a session of a client is none of an operator.
    tickets: [Tickets; 2],
    /// Where secrets of clients' connections are written down, if they are.
    key_log: Option<Arc<SecretsOut>>,
    /// Client loops first, the admin loop last.
    pub counters: Vec<Arc<LoopCounters>>,
    /// In the order of `counters`.
    pub health: Vec<LoopHealth>,
    /// Client connections the process may hold.
    pub connections_max: usize,
    /// Client loops that have a listener.
    pub listening: AtomicUsize,
    /// Whether fan-outs are cut into turns; off only to measure what that is worth.
    pub chunked: bool,
    /// Bytes of frames joined into one write; fewer than usual only to measure what joining is worth.
    pub join_bytes_max: usize,
    /// How reloads went.
    pub reloads: Reloads,
    /// What became of the events of webhooks.
    pub webhook: Arc<WebhookCounts>,
    /// What is said to those who asked for one.
    pub reload_answers: ReloadAnswers,
    /// Told by the server once all loops listen.
    pub start_facts: OnceLock<StartFacts>,
    started: Started,
    /// Who is asked about handshakes.
    backend: OnceLock<Backend>,
    /// Who is told what happens to connections.
    ear: OnceLock<Ear>,
    /// Where messages go that are the application's.
    forward: OnceLock<Forward>,
    /// What clients have sent in part, and what the operator has.
    inbox_bytes: [AtomicUsize; 2],
    open: AtomicUsize,
    draining: AtomicBool,
    found_full: FoundFull,
    found_keys: FoundKeys,
}

impl Edition {
    /// Puts them together for `loops` client loops and one admin loop, and gives the router its rules.
    ///
    /// # Errors
    /// A pattern or key of the settings does not compile; checked settings have none such.
    pub fn new(
        settings: Settings,
        router: Arc<Router>,
        loops: usize,
        connections_max: usize,
    ) -> Result<Self, Box<dyn Error + Send + Sync>> {
        Self::with_memory(settings, router, loops, connections_max, None, None)
    }

    /// The same for a process that may have so many bytes of memory; `key_log` gets the secrets of clients' connections.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with_memory(
        settings: Settings,
        router: Arc<Router>,
        loops: usize,
        connections_max: usize,
        memory: Option<u64>,
        key_log: Option<Arc<SecretsOut>>,
    ) -> Result<Self, Box<dyn Error + Send + Sync>> {
        router.set_rules(settings.topic_rules()?);
        let totals = Totals::derive(&settings, loops, memory);
        let shared = Shared {
            presences: Arc::new(Presences::new(presence_limits(&settings))),
            outbox_budget: OutboxBudget::new(totals.outbox as u64),
            contexts: Arc::new(Contexts::new(totals.contexts)),
            memory,
            tickets: Default::default(),
            key_log,
            admission: Admission::new(admission_rules(&settings)?),
            holders: Holders::new(
                settings.auth.connections_per_identity_max,
                settings.auth.connections_per_identity_full,
            ),
            speech: Speech::default(),
            revocations: Revocations::default(),
            key_sets: KeySets::default(),
            router,
            counters: (0..=loops).map(|_| Arc::default()).collect(),
            health: (0..=loops).map(|_| LoopHealth::default()).collect(),
            connections_max,
            listening: AtomicUsize::new(loops),
            chunked: settings.measure.fanout_chunked,
            join_bytes_max: if settings.measure.fanout_joined { BATCH_BYTES_MAX } else { 0 },
            reloads: Reloads::default(),
            webhook: Arc::default(),
            reload_answers: ReloadAnswers::default(),
            start_facts: OnceLock::new(),
            started: Started::default(),
            backend: OnceLock::new(),
            ear: OnceLock::new(),
            forward: OnceLock::new(),
            inbox_bytes: [AtomicUsize::new(0), AtomicUsize::new(0)],
            open: AtomicUsize::new(0),
            draining: AtomicBool::new(false),
            found_full: FoundFull::default(),
            found_keys: FoundKeys::default(),
        };
        Self::of(settings, Arc::new(shared))
    }

    /// The next edition: other settings over what all editions share. The rules of topics and the total of
    /// the outboxes are shared, and change at once, without a look at what there is.
    ///
    /// # Errors
    /// A pattern of the settings does not compile; checked settings have none such.
    pub fn with_settings(&self, settings: Settings) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let rules = settings.topic_rules()?;
        let mut next = Self::of(settings, Arc::clone(&self.shared))?;
        // Before the rules, so that there is somebody to send to.
        if let Some(forward) = self.forward() {
            let named = forward.prepare(next.settings.forward_urls());
            next.name_applications(named.map_err(|(key, problem)| KeyError { key, problem })?);
        }
        // The mailboxes stay as they were made.
        next.totals.mailbox = self.totals.mailbox;
        // Before the rules, so that what they allow to be kept finds room.
        self.router.histories().set_bytes_max(next.totals.history as u64);
        self.router.set_rules(rules);
        self.outbox_budget.set_total(next.totals.outbox as u64);
        self.presences.set_limits(presence_limits(&next.settings));
        // Who comes is counted from now on, and each loop counts those who are there.
        let auth = &next.settings.auth;
        self.holders.set(auth.connections_per_identity_max, auth.connections_per_identity_full);
        self.contexts.set_bytes_max(next.totals.contexts);
        Ok(next)
    }

    /// Reads the files of the certificates, to see what is wrong with them.
    ///
    /// # Errors
    /// What is.
    pub fn check_tls(settings: &Settings) -> Result<(), CertificateError> {
        for port in [Port::Client, Port::Admin] {
            tls::config(settings, port, &Tickets::default(), None)?;
        }
        Ok(())
    }

    fn of(settings: Settings, shared: Arc<Shared>) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let mut guard = AdminGuard::compile(&settings.admin.hosts)?;
        let keys = settings.admin.compile_keys()?;
        if !settings.server.admin_is_local() {
            // Checked with the settings, too; but what lets anybody in is looked at where it would.
            if keys.is_empty() {
                return Err("server.admin: off loopback there must be keys in admin.keys".into());
            }
            guard = guard.with_any_host();
        }
        if settings.admin.speaks_tls() {
            guard = guard.with_tls();
        }
        Ok(Self {
            origin: OriginPolicy::compile(&settings.origin.allowed, settings.origin.required)?,
            guard,
            keys,
            tls: shared.tls_config(&settings, Port::Client)?,
            admin_tls: shared.tls_config(&settings, Port::Admin)?,
            // Last: what is fetched for it is begun.
            issuers: issuers(&settings, &shared.key_sets)?,
            totals: Totals::derive(&settings, shared.loops(), shared.memory),
            applications: OnceLock::new(),
            settings,
            shared,
        })
    }
}

impl Edition {
    /// From now on messages may go to the application, for as long as the process lives; `named` are those of this edition.
    pub fn set_forward(&self, forward: Forward, named: Vec<Arc<Named>>) {
        // The first one stays, which is the only one.
        let _ = self.shared.forward.set(forward);
        self.name_applications(named);
    }

    fn name_applications(&self, named: Vec<Arc<Named>>) {
        // An edition is told once.
        let _ = self.applications.set(named);
    }

    /// What TLS handshakes with a port are answered with, if TLS is spoken there.
    #[must_use]
    pub fn tls_of(&self, port: Port) -> Option<&TlsConfig> {
        match port {
            Port::Client => self.tls.as_deref(),
            Port::Admin => self.admin_tls.as_deref(),
        }
    }

    /// Whether more than one says who clients are, so that one name may be of two.
    #[must_use]
    pub fn has_several_issuers(&self) -> bool {
        let named = self.issuers.as_deref().map_or(0, Issuers::named);
        named + usize::from(named > 0 && self.backend().is_some()) > 1
    }

    /// Lets sets of keys go that were fetched for editions before this one, which is in use now.
    pub fn keep_key_sets(&self) {
        self.key_sets.keep(self.issuers.iter().flat_map(|issuers| issuers.fetched()));
    }

    /// Both, of those ports that speak it.
    pub fn all_tls(&self) -> impl Iterator<Item = &TlsConfig> {
        [Port::Client, Port::Admin].into_iter().filter_map(|port| self.tls_of(port))
    }
}

/// Reads the keys of those who issue tokens, or has them fetched. Their warnings were told with the configuration.
fn issuers(settings: &Settings, key_sets: &KeySets) -> Result<Option<Arc<Issuers>>, KeyError> {
    let plans = settings.issuer_plans();
    if plans.is_empty() {
        return Ok(None);
    }
    let loaded = Issuers::load_with(&plans, |url, ca| key_sets.of(url, ca));
    let loaded = loaded.map_err(|error| KeyError { key: "auth.issuer", problem: error.to_string() })?;
    Ok(Some(Arc::new(loaded.issuers.carrying(&settings.auth.claims))))
}

impl Deref for Edition {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.shared
    }
}

/// The newest edition. Locked by the server on a reload and by each loop that was told of it, never
/// on the way of a message.
pub struct Latest(Mutex<Arc<Edition>>);

impl Latest {
    /// Holds the first edition.
    #[must_use]
    pub fn new(edition: Arc<Edition>) -> Self {
        Self(Mutex::new(edition))
    }

    /// Puts a new one in place.
    pub fn set(&self, edition: Arc<Edition>) {
        // The content is replaced whole, so a panic elsewhere left nothing half done.
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = edition;
    }

    /// The newest one.
    #[must_use]
    pub fn current(&self) -> Arc<Edition> {
        Arc::clone(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Shared {
    /// Who is asked about handshakes, if anybody is.
    #[must_use]
    pub fn backend(&self) -> Option<&Backend> {
        self.backend.get()
    }

    /// From now on the application is asked, for as long as the process lives.
    pub fn set_backend(&self, backend: Backend) {
        // The first one stays, which is the only one.
        let _ = self.backend.set(backend);
    }

    /// Who is told what happens to connections, if anybody is.
    #[must_use]
    pub fn ear(&self) -> Option<&Ear> {
        self.ear.get()
    }

    /// From now on that is told, for as long as the process lives.
    pub fn set_ear(&self, ear: Ear) {
        // As with the application: there is one at most.
        let _ = self.ear.set(ear);
    }

    /// Where messages go that are the application's, if any may.
    #[must_use]
    pub fn forward(&self) -> Option<&Forward> {
        self.forward.get()
    }

    /// The counters of loop `index`.
    ///
    /// # Panics
    /// On an index that the server did not make.
    #[must_use]
    pub fn counters_of(&self, index: usize) -> &Arc<LoopCounters> {
        &self.counters[index]
    }

    /// Client loops; the admin loop's index is this number.
    #[must_use]
    pub fn loops(&self) -> usize {
        self.counters.len() - 1
    }

    /// Counts a connection in; `false` when it is one too many and must be refused, which is not counted: those
    /// who are being refused must not keep others out.
    pub fn try_open_connection(&self, port: Port) -> bool {
        let one_more = |open: usize| (open < self.connections_max).then(|| open + 1);
        port == Port::Admin || self.open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_ok()
    }

    /// Counts a connection out.
    pub fn connection_closed(&self, port: Port) {
        if port == Port::Client {
            self.open.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Bytes that the connections of a port have sent in part. What clients hold must not keep the operator's
    /// requests out.
    #[must_use]
    pub fn inbox_bytes_of(&self, port: Port) -> &AtomicUsize {
        let [clients, operator] = &self.inbox_bytes;
        match port {
            Port::Client => clients,
            Port::Admin => operator,
        }
    }

    fn tls_config(
        &self,
        settings: &Settings,
        port: Port,
    ) -> Result<Option<Arc<TlsConfig>>, CertificateError> {
        let [clients, operator] = &self.tickets;
        let tickets = match port {
            Port::Client => clients,
            Port::Admin => operator,
        };
        tls::config(settings, port, tickets, self.key_log.as_ref())
    }

    /// Whether secrets of clients' connections are written down.
    #[must_use]
    pub fn writes_secrets(&self) -> bool {
        self.key_log.is_some()
    }

    /// Client connections open now.
    #[must_use]
    pub fn connections_open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// From now on not ready.
    pub fn set_draining(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Whether the server is on its way out.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// The first loop that has not turned for five seconds.
    #[must_use]
    pub fn stuck_loop(&self, now_ms: u64) -> Option<usize> {
        self.health.iter().position(|health| health.is_stuck(now_ms))
    }
}

fn presence_limits(settings: &Settings) -> PresenceLimits {
    PresenceLimits {
        members_max: settings.limits.presence_members_max as u64,
        bytes_max: settings.limits.presence_bytes_max as u64,
    }
}

fn admission_rules(settings: &Settings) -> Result<AdmissionRules, crate::auth::PatternError> {
    let section = &settings.admission;
    AdmissionRules {
        per_address_max: section.per_address_max,
        connect_rate: section.connect_rate,
        connect_burst: section.connect_burst,
        topics_max: section.topics_per_address_max.unwrap_or(settings.limits.topics_max.div_ceil(2)),
        topic_rate: section.topic_rate,
        topic_burst: section.topic_burst,
        handshakes_max: section.handshakes_max,
        proxy_protocol: section.proxy_protocol,
        ..AdmissionRules::default()
    }
    .with_proxies(&section.trusted_proxies)
}
