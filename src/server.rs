//! Puts the rooms together: threads, signals, reload, drain, stop.
//!
//! [`run`] is the process: it raises the descriptor limit, probes the port, starts the loops, says `ready`,
//! and then waits for signals and loops. [`Server`] is the same without signals, for use inside a program.
//! Only the thread that calls into here spawns threads.

pub mod capacity;
mod maintenance;
mod reload;
pub mod sizes;
mod supervisor;

use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use std::{fmt, io};

use crate::config::{Limits, LimitsError, Settings, Tables};
use crate::edition::{Edition, Latest, Port, StartFacts};
use crate::event_loop::run::{self as loops, LoopEvent, LoopParts};
use crate::sys::claim::{PortClaim, is_claimed};
use crate::sys::socket::{ListenOptions, Sharing, probe_port};
use crate::sys::tables::{TableMode, open_in_table, split_table};
use crate::sys::{limits, process, signals};
use crate::topic::{Control, MailboxLimits, Router, RouterLimits};

pub use reload::{Read, Reload};
use supervisor::Supervisor;

/// Connections to the admin port at a time.
const ADMIN_CONNECTIONS_MAX: usize = 256;

/// How long a stopped loop may take to end.
const STOP_TIME: Duration = Duration::from_secs(5);

/// Why the server could not start or go on.
#[derive(Debug)]
pub enum ServeError {
    /// The limits do not fit together.
    Limits(LimitsError),
    /// The kernel refused something.
    Io {
        /// What was attempted.
        what: String,
        /// The kernel's word.
        error: io::Error,
    },
}

impl fmt::Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Limits(error) => error.fmt(f),
            Self::Io { what, error } if error.kind() == io::ErrorKind::AddrInUse => {
                write!(
                    f,
                    "{what}: address in use; stop the other server, choose another port, or use --share-port on both"
                )
            }
            Self::Io { what, error } => write!(f, "{what}: {error}"),
        }
    }
}

impl std::error::Error for ServeError {}

impl ServeError {
    /// Whether the configuration is at fault and not the machine.
    #[must_use]
    pub fn is_configuration(&self) -> bool {
        matches!(self, Self::Limits(_))
    }
}

enum Event {
    Loop(LoopEvent),
    Signal(signals::Signal),
}

/// A running server.
pub struct Server {
    edition: Arc<Edition>,
    latest: Arc<Latest>,
    events: Receiver<Event>,
    threads: Vec<JoinHandle<()>>,
    /// Client loops that have not ended; the admin loop comes on top.
    running: usize,
    admin_running: bool,
    /// Asked through the admin port before all loops listened.
    drain_asked: bool,
    /// A signal has asked for the end. A drain asked for through the admin port does not make the first one the second.
    signalled: bool,
    supervisor: Supervisor,
    /// Held while nobody else may join the port.
    claim: Option<PortClaim>,
    /// Where clients connect.
    pub listen: SocketAddr,
    /// Where the operator does.
    pub admin: SocketAddr,
}

/// Runs the server as the process it is, until it is drained or told twice to stop; SIGHUP reads the
/// configuration anew through `reload`. The caller has blocked all signals, before any thread was started.
///
/// # Errors
/// It could not start, or a loop failed.
pub fn run(settings: Settings, reload: Reload) -> Result<(), ServeError> {
    let (events, received) = mpsc::channel();
    let supervisor = Supervisor::from_environment()?;
    let mut server = Server::start_with(settings, tables_here()?, events.clone(), received)?;
    server.supervisor = supervisor;
    spawn("signals", move || {
        while let Ok(signal) = signals::wait() {
            if events.send(Event::Signal(signal)).is_err() {
                return;
            }
        }
    })?;
    tracing::info!("open http://{}/", server.listen);
    let line =
        format!("fantail ready listen={} admin={} pid={}\n", server.listen, server.admin, std::process::id());
    // Whoever started it may not read, and a full pipe would hold up signals for ever: a thread waits instead, and ends
    // with the process.
    spawn("ready-line", move || {
        let mut out = io::stdout().lock();
        let _ = out.write_all(line.as_bytes()).and_then(|()| out.flush());
    })?;
    server.tell_ready();
    server.supervisor.watch(&server.edition)?;
    server.serve(reload)
}

impl Server {
    /// Starts a server whose loops share the process's descriptor table.
    ///
    /// # Errors
    /// It could not start.
    pub fn start(settings: Settings) -> Result<Self, ServeError> {
        let (events, received) = mpsc::channel();
        Self::start_with(settings, Tables::Shared, events, received)
    }

    fn start_with(
        settings: Settings,
        tables: Tables,
        events: Sender<Event>,
        received: Receiver<Event>,
    ) -> Result<Self, ServeError> {
        let nofile = limits::raise_nofile().map_err(|error| failed("read the open files limit", error))?;
        let nofile = usize::try_from(nofile.soft).unwrap_or(usize::MAX);
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let derived = Limits::derive(&settings.server, cores, nofile, tables).map_err(ServeError::Limits)?;
        let claim = claim_ports(&settings)?;
        let (prepared, wakers, keep) =
            loops::prepare(derived.loops + 1).map_err(|error| failed("make the event loops", error))?;
        let router = Router::new(derived.loops + 1, router_limits(&settings), Box::new(wakers))
            .map_err(|_| failed("make the event loops", io::Error::other("server.loops is at most 63")))?;
        let (listen, admin) = (settings.server.listen, settings.server.admin);
        let options = listen_options(&settings);
        let edition = Edition::new(settings, Arc::new(router), derived.loops, derived.connections_max)
            .map_err(|error| failed("compile the policies", io::Error::other(error)))?;
        let edition = Arc::new(edition);
        let (trim, trims) = mpsc::sync_channel(1);
        let mut server = Self {
            latest: Arc::new(Latest::new(Arc::clone(&edition))),
            edition,
            events: received,
            threads: Vec::new(),
            running: derived.loops,
            admin_running: true,
            drain_asked: false,
            signalled: false,
            supervisor: Supervisor::absent(),
            claim,
            listen,
            admin,
        };
        let split = tables == Tables::PerLoop;
        // Polls and wakers are there, listeners and connections are not: those each loop counts.
        let mut own_descriptors = open_in_table().unwrap_or(0);
        let claimed = server.claim.is_some();
        let start = |server: &mut Self| {
            let mut ways = Vec::new();
            // The admin loop first: whoever publishes there reaches the first client that connects.
            for (index, prepared) in prepared.into_iter().enumerate().rev() {
                let is_admin = index == derived.loops;
                let is_first = index + 1 == derived.loops;
                let parts = LoopParts {
                    prepared,
                    port: if is_admin { Port::Admin } else { Port::Client },
                    edition: Arc::clone(&server.edition),
                    latest: Arc::clone(&server.latest),
                    address: if is_admin { server.admin } else { server.listen },
                    options: ListenOptions { sharing: server.sharing(is_admin, is_first), ..options },
                    capacity: if is_admin { ADMIN_CONNECTIONS_MAX } else { derived.loop_connections_max },
                    keep: split.then(|| keep.clone()),
                    events: loop_events(&events),
                    trim: trim.clone(),
                };
                let name = if is_admin { "admin".to_owned() } else { format!("loop-{index}") };
                server.threads.push(spawn(&name, move || loops::run(parts))?);
                ways.push(server.await_listening(is_admin)?);
            }
            server.tell_listening(&ways);
            server.check_claims()
        };
        if let Err(error) = start(&mut server) {
            server.give_up();
            return Err(error);
        }
        own_descriptors +=
            server.claim.iter().filter(|_| !claimed).map(PortClaim::descriptors).sum::<usize>();
        note_start(&server.edition, nofile, (!split).then_some(own_descriptors as u64), server.admin);
        let edition = Arc::clone(&server.edition);
        spawn("maintenance", move || maintenance::run(&trims, &edition))?;
        capacity::tell(&server.edition.settings, &derived, tables, nofile);
        Ok(server)
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
        tracing::info!("listening for operators on {}", self.admin);
    }

    /// Nobody may have come to the port who shares it with nobody, or who was not to share it.
    fn check_claims(&mut self) -> Result<(), ServeError> {
        let listen = self.listen;
        let in_use = |error| failed(&format!("listen on {listen}"), error);
        if !self.edition.settings.server.share_port {
            if self.claim.is_none() {
                // The port was the kernel's choice, or another user has the name.
                self.claim = PortClaim::take(listen).map_err(in_use)?;
            }
            if self.claim.is_none() {
                tracing::warn!("another user has claimed the port; a server with --share-port could join it");
            }
        } else if is_claimed(listen) {
            // Its owner started at the same moment.
            return Err(in_use(io::ErrorKind::AddrInUse.into()));
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
        while matches!(event, Ok(Event::Loop(LoopEvent::DrainAsked))) {
            self.drain_asked = true;
            event = self.events.recv();
        }
        match event {
            Ok(Event::Loop(LoopEvent::Listening { address, table, .. })) => {
                if is_admin {
                    self.admin = address;
                } else {
                    self.listen = address;
                }
                Ok(table)
            }
            Ok(Event::Loop(LoopEvent::Ended { result: Err(error), .. })) => {
                let address = if is_admin { self.admin } else { self.listen };
                Err(failed(&format!("listen on {address}"), error))
            }
            _ => Err(failed("start the event loops", io::Error::other("a loop ended before it listened"))),
        }
    }

    /// Serves until a signal asks for the end, then drains; a second signal stops at once.
    fn serve(mut self, mut reload: Reload) -> Result<(), ServeError> {
        if self.drain_asked {
            tracing::info!("draining, asked through the admin port");
            return self.drain_and_stop();
        }
        loop {
            match self.events.recv() {
                Ok(Event::Signal(signals::Signal::Terminate | signals::Signal::Interrupt)) => {
                    tracing::info!("draining");
                    self.signalled = true;
                    return self.drain_and_stop();
                }
                Ok(Event::Signal(signals::Signal::Hangup)) => {
                    self.supervisor.reloading();
                    self.reload(&mut reload);
                    self.tell_ready();
                }
                Ok(Event::Loop(LoopEvent::DrainAsked)) => {
                    tracing::info!("draining, asked through the admin port");
                    return self.drain_and_stop();
                }
                Ok(Event::Loop(event)) => self.on_loop_event(event)?,
                Err(_) => return Err(failed("wait for the event loops", io::Error::other("all are gone"))),
            }
        }
    }

    /// Drains and stops: not ready, then the delay, then listeners closed and clients sent away.
    ///
    /// # Errors
    /// A loop failed.
    pub fn drain_and_stop(mut self) -> Result<(), ServeError> {
        let settings = &self.edition.settings;
        let delay = settings.drain.delay;
        let leaving = if settings.server.share_port { loops::LEAVING_TIME } else { Duration::ZERO };
        // However short the timeouts are: whoever is told last must have heard it before all is closed.
        let closing = (settings.timeouts.close + settings.timeouts.linger).max(loops::TELLING_TIME);
        let length = leaving + settings.drain.length + closing;
        self.edition.set_draining();
        self.supervisor.stopping(delay + length + STOP_TIME);
        if !self.wait_until(Instant::now() + delay, |_| false)? {
            return self.stop();
        }
        // The listeners go at once, and whoever takes the port then claims it.
        self.claim = None;
        for index in 0..self.edition.loops() {
            self.control(index, Control::Drain);
        }
        let drained = self.wait_until(Instant::now() + length, |server| server.running == 0)?;
        if drained && self.running > 0 {
            tracing::warn!(
                connections = self.edition.connections_open(),
                "drain time is over; closing the rest"
            );
        }
        self.stop()
    }

    /// Stops at once.
    ///
    /// # Errors
    /// A loop failed or did not end.
    pub fn stop(mut self) -> Result<(), ServeError> {
        for index in 0..=self.edition.loops() {
            self.control(index, Control::Stop);
        }
        let ended = |server: &Self| server.running == 0 && !server.admin_running;
        let deadline = Instant::now() + STOP_TIME;
        // A further signal asks for what is under way already.
        while !self.wait_until(deadline, ended)? {}
        if !ended(&self) {
            return Err(failed("stop", io::Error::other("an event loop did not end within 5 s")));
        }
        for thread in self.threads.drain(..) {
            // A loop that panicked has aborted the process.
            let _ = thread.join();
        }
        tracing::info!("stopped");
        Ok(())
    }

    /// What the server shares with its loops, for looking at it from inside a program.
    #[must_use]
    pub fn edition(&self) -> &Edition {
        &self.edition
    }

    /// Handles events until `deadline` or until `done`. `false`: a signal asked to stop at once.
    fn wait_until(&mut self, deadline: Instant, done: impl Fn(&Self) -> bool) -> Result<bool, ServeError> {
        while !done(self) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            match self.events.recv_timeout(left) {
                Ok(Event::Loop(event)) => self.on_loop_event(event)?,
                Ok(Event::Signal(signals::Signal::Terminate | signals::Signal::Interrupt)) => {
                    if std::mem::replace(&mut self.signalled, true) {
                        tracing::warn!("second signal: stopping at once");
                        return Ok(false);
                    }
                    tracing::info!("draining already; a second signal stops at once");
                }
                Ok(Event::Signal(_)) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        Ok(true)
    }

    fn on_loop_event(&mut self, event: LoopEvent) -> Result<(), ServeError> {
        if let LoopEvent::Ended { index, result } = event {
            result.map_err(|error| failed(&format!("run loop {index}"), error))?;
            if index == self.edition.loops() {
                self.admin_running = false;
            } else {
                self.running -= 1;
            }
        }
        Ok(())
    }

    fn tell_ready(&self) {
        let (listen, admin) = (self.listen, self.admin);
        self.supervisor.ready(&format!("serving on {listen}, admin port on {admin}"));
    }

    fn control(&self, index: usize, control: Control) {
        if self.edition.router.send_control(index, control, None).is_err() {
            tracing::error!(loop_index = index, "no room for a control entry");
        }
    }
}

/// Finds out that the ports are free, before anything is started, and claims the clients' unless it is to be shared.
/// What may be free now and taken when the loops listen, they are told by the kernel.
fn claim_ports(settings: &Settings) -> Result<Option<PortClaim>, ServeError> {
    let (server, mut claim) = (&settings.server, None);
    for address in [server.listen, server.admin].into_iter().filter(|address| address.port() != 0) {
        let in_use = |error| failed(&format!("listen on {address}"), error);
        if address != server.listen {
            probe_port(address).map_err(in_use)?;
        } else if !server.share_port {
            probe_port(address).map_err(in_use)?;
            claim = PortClaim::take(address).map_err(in_use)?;
        } else if is_claimed(address) {
            return Err(in_use(io::ErrorKind::AddrInUse.into()));
        }
    }
    Ok(claim)
}

fn router_limits(settings: &Settings) -> RouterLimits {
    RouterLimits {
        mailbox: MailboxLimits {
            bytes_max: settings.mailbox.bytes_max as u64,
            entries_max: settings.mailbox.entries_max as u64,
        },
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

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, ServeError> {
    thread::Builder::new()
        .name(name.to_owned())
        .stack_size(512 * 1024)
        .spawn(body)
        .map_err(|error| failed("start a thread", error))
}

/// Whether loops can have descriptor tables of their own here: a thread that ends at once tries it. Known
/// before anything is derived, since loops that have to share a table must not count it once for each.
fn tables_here() -> Result<Tables, ServeError> {
    let trial = thread::Builder::new()
        .name("table-trial".to_owned())
        .spawn(|| split_table(&[]))
        .map_err(|error| failed("start a thread", error))?;
    match trial.join() {
        Ok(mode) if mode.is_split() => Ok(Tables::PerLoop),
        _ => Ok(Tables::Shared),
    }
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

fn failed(what: &str, error: io::Error) -> ServeError {
    ServeError::Io { what: format!("cannot {what}"), error }
}
