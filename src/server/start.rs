//! Starting: what the settings come to on this machine, the ports, the loops one after the other, and what is said of
//! it all. A start that fails ends what it has started.
//!
//! Runs on the thread that calls into `server`.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::SystemTime;

use super::supervisor::Supervisor;
use super::{
    Event, ServeError, Server, capacity, demo, failed, forward, history, key_log, maintenance, presence,
    spawn, tables_here,
};
use crate::auth::token::KeySource;
use crate::config::{KeyError, Limits, Settings, Tables, Totals};
use crate::edition::{Answered, Control, Router};
use crate::edition::{Edition, Latest, Port, StartFacts};
use crate::event_loop::run::{self as loops, Listening, LoopEvent, LoopParts, LoopWakers, Prepared};
use crate::service::webhook::{Target, Webhook};
use crate::service::{Asker, Backend, KeySets};
use crate::sys::claim::{PortClaim, is_claimed};
use crate::sys::socket::{ListenOptions, Sharing, probe_port};
use crate::sys::tables::{TableMode, open_in_table};
use crate::sys::{limits, process};
use crate::topic::{MailboxLimits, Reply, RouterLimits};
use crate::transport::tls::certificate::CertificateError;
use crate::transport::tls::files::FileLook;
use crate::transport::tls::key_log::SecretsOut;

/// Connections to the admin port at a time.
const ADMIN_CONNECTIONS_MAX: usize = 256;

/// What the server would make of these settings here.
///
/// # Errors
/// Why it would refuse them.
pub fn check(settings: &Settings) -> Result<Limits, ServeError> {
    let nofile = limits::nofile().map_err(|error| failed("read the open files limit", error))?;
    // The start raises the soft limit to the hard one.
    let limits = derive(settings, usize::try_from(nofile.hard).unwrap_or(usize::MAX), tables_here()?)?;
    Edition::check_tls(settings).map_err(ServeError::Tls)?;
    settings.topic_rules().map_err(ServeError::Key)?;
    webhook_target(settings)?;
    backend(settings)?;
    check_key_sets(settings)?;
    forward::check(settings)?;
    Ok(limits)
}

/// What there is to say of the files that go with certificates: authorities of clients, lists of revoked ones, responses of OCSP.
#[must_use]
pub fn look_at_tls(settings: &Settings) -> Vec<FileLook> {
    Edition::look_at_tls(settings)
}

fn derive(settings: &Settings, nofile: usize, tables: Tables) -> Result<Limits, ServeError> {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    Limits::derive(&settings.server, cores, nofile, tables).map_err(ServeError::Limits)
}

/// What the loops are started with.
struct Loops {
    prepared: Vec<Prepared>,
    /// Descriptors that each loop's own table keeps, if it has one.
    keep: Option<Vec<RawFd>>,
    options: ListenOptions,
    derived: Limits,
    events: Sender<Event>,
    trim: mpsc::SyncSender<loops::TrimRequest>,
}

impl Server {
    pub(super) fn start_with(
        settings: Settings,
        tables: Tables,
        events: Sender<Event>,
        received: Receiver<Event>,
    ) -> Result<Self, ServeError> {
        let nofile = limits::raise_nofile().map_err(|error| failed("read the open files limit", error))?;
        let nofile = usize::try_from(nofile.soft).unwrap_or(usize::MAX);
        let derived = derive(&settings, nofile, tables)?;
        let facts = capacity::facts_here(nofile, tables);
        let allowance = facts.allowance();
        let (listen, admin) = (settings.server.listen, settings.server.admin);
        let tls = settings.tls.listen;
        let claims = claim_ports(&settings)?;
        let (prepared, wakers, keep) =
            loops::prepare(derived.loops + 1).map_err(|error| failed("make the event loops", error))?;
        let (trim, trims) = mpsc::sync_channel(1);
        let keep = (tables == Tables::PerLoop).then_some(keep);
        let options = listen_options(&settings);
        let loops = Loops { prepared, keep, options, derived, events, trim };
        let memory = allowance.as_ref().map(|allowance| allowance.bytes);
        let secrets = key_log::start(&settings)?;
        let (backend, forwards) = (backend(&settings)?, forward::of(&settings)?);
        let edition = Arc::new(edition(settings, &derived, memory, wakers, secrets)?);
        // Before a loop could ask.
        backend.into_iter().for_each(|backend| edition.set_backend(backend));
        let mut server = Self {
            latest: Arc::new(Latest::new(Arc::clone(&edition))),
            edition,
            events: received,
            threads: Vec::new(),
            running: derived.loops,
            admin_running: true,
            drain_asked: false,
            reloads_asked: 0,
            signalled: false,
            supervisor: Supervisor::absent(),
            webhook: None,
            claims,
            allowance,
            listen,
            tls,
            admin,
        };
        server.webhook = start_webhook(&server.edition)?;
        if let Some(forward) = forwards {
            forward::start(&server.edition, forward)?;
        }
        // Polls, wakers and perhaps the claim are there, listeners and connections are not: those each loop counts.
        let mut own_descriptors = open_in_table().unwrap_or(0);
        let claimed = server.claims.len();
        if let Err(error) = server.start_loops(loops).and_then(|()| server.check_claims()) {
            server.give_up();
            return Err(error);
        }
        own_descriptors += server.claims.iter().skip(claimed).map(PortClaim::descriptors).sum::<usize>();
        note_start(
            &server.edition,
            nofile,
            (tables == Tables::Shared).then_some(own_descriptors as u64),
            server.admin,
        );
        let edition = Arc::clone(&server.edition);
        history::start(&server.edition.router)?;
        presence::start(&server.edition)?;
        server.start_backend()?;
        if server.edition.settings.server.demo {
            demo::start(&server.edition.router)?;
            tracing::info!("publishing simulated prices and sensors; open http://{}/demo", server.listen);
        }
        spawn("maintenance", move || maintenance::run(&trims, &edition))?;
        capacity::tell(&server.edition.settings, &derived, &facts);
        capacity::tell_totals(&server.edition.totals, server.allowance.as_ref());
        Ok(server)
    }

    /// Begins to ask the application about handshakes, if that is configured. Nobody was let in before.
    fn start_backend(&self) -> Result<(), ServeError> {
        let Some(backend) = self.edition.backend() else { return Ok(()) };
        let router = Arc::clone(&self.edition.router);
        let tell = move |asker: Asker, verdict| {
            let Asker { loop_index, key, ticket } = asker;
            router.send_answer(loop_index, Reply { key, ticket, answer: Answered::Verdict(verdict) });
        };
        backend.start(tell).map_err(|error| failed("start a thread", error))
    }

    fn start_loops(&mut self, loops: Loops) -> Result<(), ServeError> {
        let Loops { prepared, keep, options, derived, events, trim } = loops;
        let mut ways = Vec::new();
        // The admin loop first: whoever publishes there reaches the first client that connects.
        for (index, prepared) in prepared.into_iter().enumerate().rev() {
            let is_admin = index == derived.loops;
            let is_first = index + 1 == derived.loops;
            let parts = LoopParts {
                prepared,
                port: if is_admin { Port::Admin } else { Port::Client },
                edition: Arc::clone(&self.edition),
                latest: Arc::clone(&self.latest),
                at: self.at(is_admin),
                options: ListenOptions { sharing: self.sharing(is_admin, is_first), ..options },
                capacity: if is_admin { ADMIN_CONNECTIONS_MAX } else { derived.loop_connections_max },
                keep: keep.clone(),
                events: loop_events(&events),
                trim: trim.clone(),
            };
            let name = if is_admin { "admin".to_owned() } else { format!("loop-{index}") };
            self.threads.push(spawn(&name, move || loops::run(parts))?);
            ways.push(self.await_listening(is_admin)?);
        }
        self.tell_listening(&ways);
        Ok(())
    }

    /// Who may share the port of a loop's listener. The first loop of a server that shares with nobody finds out that
    /// nobody is there; the others join it.
    fn sharing(&self, is_admin: bool, is_first: bool) -> Sharing {
        match (is_admin, is_first && !self.edition.settings.server.share_port) {
            (true, _) => Sharing::Never,
            (false, true) => Sharing::Later,
            (false, false) => Sharing::Always,
        }
    }

    /// Says where it listens, and how the loops came to their descriptor tables.
    fn tell_listening(&self, tables: &[TableMode]) {
        let mut ways: Vec<String> = tables.iter().map(ToString::to_string).collect();
        ways.dedup();
        let table = ways.join(", ");
        tracing::info!(loops = self.edition.loops(), %table, "listening for clients on {}", self.listen);
        if let Some(tls) = self.tls {
            tracing::info!("listening for clients with TLS on {tls}");
        }
        let admin = self.admin;
        if self.edition.admin_tls.is_some() {
            tracing::info!("listening for operators on {admin} with TLS");
        } else {
            tracing::info!("listening for operators on {admin}");
            if !self.edition.settings.server.admin_is_local() {
                tracing::info!(
                    "the admin port speaks no TLS: keys reach it as they are; admin.tls_certificate would change that"
                );
            }
        }
        self.tell_certificates();
        key_log::warn(&self.edition.settings);
    }

    /// Says as whom it speaks, and until when.
    pub(super) fn tell_certificates(&self) {
        for certificate in self.edition.all_tls().flat_map(|tls| &tls.certificates) {
            let names = certificate.names.join(", ");
            let days = certificate.days_left(SystemTime::now());
            tracing::info!(
                file = certificate.file,
                subject = certificate.subject,
                names,
                days,
                "certificate"
            );
            let of_response = certificate.ocsp.as_ref().and_then(|ocsp| ocsp.warning.as_ref());
            for warning in certificate.warning.iter().chain(of_response) {
                tracing::warn!("{warning}");
            }
        }
    }

    /// Where a loop listens.
    fn at(&self, is_admin: bool) -> Listening {
        if is_admin {
            let is_secure = self.edition.admin_tls.is_some();
            Listening { address: self.admin, is_secure, tls: None }
        } else {
            Listening { address: self.listen, is_secure: false, tls: self.tls }
        }
    }

    /// Nobody may have come to the port who shares it with nobody, or who was not to share it.
    fn check_claims(&mut self) -> Result<(), ServeError> {
        for address in [Some(self.listen), self.tls].into_iter().flatten() {
            let in_use = |error| failed(&format!("listen on {address}"), error);
            if !self.edition.settings.server.share_port {
                let is_of = |claim: &PortClaim| claim.address() == address;
                if !self.claims.iter().any(is_of) {
                    // The port was the kernel's choice, or another user has the name.
                    self.claims.extend(PortClaim::take(address).map_err(in_use)?);
                }
                if !self.claims.iter().any(is_of) {
                    tracing::warn!(
                        "another user has claimed the port of {address}; a server with --share-port could join it"
                    );
                }
            } else if is_claimed(address) {
                // Its owner started at the same moment.
                return Err(in_use(io::ErrorKind::AddrInUse.into()));
            }
        }
        Ok(())
    }

    /// Ends those loops that have started.
    fn give_up(&mut self) {
        for index in 0..=self.edition.loops() {
            self.control(index, Control::Stop);
        }
        for thread in self.threads.drain(..) {
            // A loop that panicked has aborted the process.
            let _ = thread.join();
        }
    }

    fn await_listening(&mut self, is_admin: bool) -> Result<TableMode, ServeError> {
        let mut event = self.events.recv();
        while let Ok(Event::Loop(asked @ (LoopEvent::DrainAsked | LoopEvent::ReloadAsked))) = event {
            match asked {
                LoopEvent::ReloadAsked => self.reloads_asked += 1,
                _ => self.drain_asked = true,
            }
            event = self.events.recv();
        }
        match event {
            Ok(Event::Loop(LoopEvent::Listening { at, table })) => {
                if is_admin {
                    self.admin = at.address;
                } else {
                    (self.listen, self.tls) = (at.address, at.tls);
                }
                Ok(table)
            }
            Ok(Event::Loop(LoopEvent::Ended { result: Err(error), .. })) => {
                let Listening { address, tls, .. } = self.at(is_admin);
                let both = tls.map(|tls| format!(" and {tls}")).unwrap_or_default();
                Err(failed(&format!("listen on {address}{both}"), error))
            }
            _ => Err(failed("start the event loops", io::Error::other("a loop ended before it listened"))),
        }
    }
}

/// Finds out that the ports are free, before anything is started, and claims the clients' unless they are to be shared.
/// What may be free now and taken when the loops listen, they are told by the kernel.
fn claim_ports(settings: &Settings) -> Result<Vec<PortClaim>, ServeError> {
    let (server, mut claims) = (&settings.server, Vec::new());
    let addresses = [Some(server.listen), settings.tls.listen, Some(server.admin)];
    for address in addresses.into_iter().flatten().filter(|address| address.port() != 0) {
        let in_use = |error| failed(&format!("listen on {address}"), error);
        if address == server.admin {
            probe_port(address).map_err(in_use)?;
        } else if !server.share_port {
            probe_port(address).map_err(in_use)?;
            claims.extend(PortClaim::take(address).map_err(in_use)?);
        } else if is_claimed(address) {
            return Err(in_use(io::ErrorKind::AddrInUse.into()));
        }
    }
    Ok(claims)
}

/// Whom to ask about handshakes.
fn backend(settings: &Settings) -> Result<Option<Backend>, ServeError> {
    let plan = settings.auth.backend_plan();
    let unfit = |problem| ServeError::Key(KeyError { key: "auth.backend_ca", problem });
    plan.map(|plan| Backend::new(&plan).map_err(unfit)).transpose()
}

/// Looks at where keys of issuers are to be fetched.
fn check_key_sets(settings: &Settings) -> Result<(), ServeError> {
    for source in settings.issuer_plans().iter().flat_map(|plan| &plan.keys) {
        if let KeySource::Url { url, ca } = source {
            let unfit = |problem| ServeError::Key(KeyError { key: "auth.issuer.jwks_ca_file", problem });
            KeySets::check(url, ca.as_deref()).map_err(unfit)?;
        }
    }
    Ok(())
}

fn edition(
    settings: Settings,
    derived: &Limits,
    memory: Option<u64>,
    wakers: LoopWakers,
    secrets: Option<Arc<SecretsOut>>,
) -> Result<Edition, ServeError> {
    let totals = Totals::derive(&settings, derived.loops, memory);
    let router = Router::new(derived.loops + 1, router_limits(&settings, &totals), Box::new(wakers))
        .map_err(|_| failed("make the event loops", io::Error::other("server.loops is at most 63")))?;
    let (loops, most) = (derived.loops, derived.connections_max);
    let edition = Edition::with_memory(settings, Arc::new(router), loops, most, memory, secrets);
    edition.map_err(|error| {
        match error.downcast::<CertificateError>().map_err(|error| error.downcast::<KeyError>()) {
            Ok(error) => ServeError::Tls(*error),
            Err(Ok(error)) => ServeError::Key(*error),
            Err(Err(error)) => failed("compile the policies", io::Error::other(error)),
        }
    })
}

/// Who is told what happens to topics and connections, if somebody is.
fn webhook_target(settings: &Settings) -> Result<Option<Target>, ServeError> {
    let Some((url, secret_file)) = settings.webhook.target() else { return Ok(None) };
    let target = Target::new(url, secret_file, settings.webhook.ca_file.as_deref());
    target.map(Some).map_err(|(key, problem)| ServeError::Key(KeyError { key, problem }))
}

fn start_webhook(edition: &Edition) -> Result<Option<Webhook>, ServeError> {
    let Some(target) = webhook_target(&edition.settings)? else { return Ok(None) };
    let process = process_name();
    let settings = &edition.settings.webhook;
    let (bytes_max, wanted) = (settings.queue_bytes_max, settings.events);
    let webhook = Webhook::start(target, process, bytes_max, wanted, Arc::clone(&edition.webhook))
        .map_err(|error| failed("start a thread", error))?;
    // A router that has just been made has none.
    let _ = edition.router.set_tap(Box::new(webhook.ear()));
    edition.set_ear(webhook.ear());
    Ok(Some(webhook))
}

/// Tells what this process sends to others from what another one does.
pub(super) fn process_name() -> String {
    // The hash is keyed at random: no two starts have the same name.
    format!("{:016x}", RandomState::new().hash_one(std::process::id()))
}

fn router_limits(settings: &Settings, totals: &Totals) -> RouterLimits {
    RouterLimits {
        mailbox: MailboxLimits {
            bytes_max: totals.mailbox as u64,
            entries_max: settings.mailbox.entries_max as u64,
        },
        topics_max: settings.limits.topics_max,
        patterns_max: settings.limits.patterns_max,
        history_bytes_max: totals.history as u64,
        joins_max: settings.mailbox.joins_max,
        ..RouterLimits::default()
    }
}

/// The options of every client listener.
fn listen_options(settings: &Settings) -> ListenOptions {
    ListenOptions {
        backlog: u32::try_from(settings.server.backlog).unwrap_or(u32::MAX),
        user_timeout_ms: settings.timeouts.user_timeout_ms(),
        ..ListenOptions::default()
    }
}

/// A sender of loop events into the main thread's channel.
fn loop_events(events: &Sender<Event>) -> loops::EventSender {
    let events = events.clone();
    loops::EventSender::new(move |event| {
        // The receiver is gone only when the server is.
        let _ = events.send(Event::Loop(event));
    })
}

/// Tells the metrics and the page what only the start knows.
fn note_start(edition: &Edition, nofile: usize, shared_table: Option<u64>, admin: SocketAddr) {
    let facts = StartFacts {
        descriptors_max: nofile as u64,
        shared_table,
        empty_user_bytes: process::memory(None).ok().map(|memory| memory.user_bytes()),
        admin,
    };
    // Nobody else sets it.
    let _ = edition.start_facts.set(facts);
}
