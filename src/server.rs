//! Puts the rooms together: threads, signals, reload, drain, stop.
//!
//! [`run`] is the process: it raises the descriptor limit, probes the port, starts the loops, says `ready`,
//! and then waits for signals and loops.
//! Only the thread that calls into here spawns threads.

pub mod capacity;
mod certificates;
mod demo;
mod forward;
mod history;
mod key_log;
mod maintenance;
mod presence;
mod reload;
pub mod sizes;
mod start;
mod supervisor;

use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use std::{fmt, io};

use crate::config::{KeyError, LimitsError, Settings, Tables};
use crate::edition::{Control, Edition, Latest};
use crate::event_loop::run::{self as loops, LoopEvent};
use crate::preflight::Allowance;
use crate::service::webhook::Webhook;
use crate::sys::claim::PortClaim;
use crate::sys::signals;
use crate::sys::tables::split_table;
use crate::transport::tls::certificate::CertificateError;

use reload::Readings;
pub use reload::Reload;
pub use start::{check, look_at_tls};
use supervisor::Supervisor;

/// How long the end waits for what a webhook has not been told yet.
const WEBHOOK_TIME: Duration = Duration::from_secs(3);

/// How long the end waits for messages that the application has not been told yet.
const FORWARD_TIME: Duration = Duration::from_secs(3);

/// How long a stopped loop may take to end.
const STOP_TIME: Duration = Duration::from_secs(5);

/// Why the server could not start or go on.
#[derive(Debug)]
pub enum ServeError {
    /// The limits do not fit together.
    Limits(LimitsError),
    /// A certificate or its key is of no use.
    Tls(CertificateError),
    /// What a key names is of no use.
    Key(KeyError),
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
            Self::Tls(error) => error.fmt(f),
            Self::Key(error) => error.fmt(f),
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
        matches!(self, Self::Limits(_) | Self::Tls(_) | Self::Key(_))
    }
}

enum Event {
    Loop(LoopEvent),
    Signal(signals::Signal),
    /// The files of certificates are others than before.
    CertificatesChanged,
    /// The configuration has been read.
    Read(reload::Reading),
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
    /// The same of reloads.
    reloads_asked: usize,
    /// A signal has asked for the end. A drain asked for through the admin port does not make the first one the second.
    signalled: bool,
    supervisor: Supervisor,
    /// Held while nobody else may join the ports.
    /// Tells what happens to topics, if somebody is told.
    webhook: Option<Webhook>,
    claims: Vec<PortClaim>,
    /// How much memory the process may have.
    allowance: Option<Allowance>,
    /// Where clients connect.
    pub listen: SocketAddr,
    /// Where those do that speak TLS.
    pub tls: Option<SocketAddr>,
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
    let readings = Readings::new(reload, events.clone());
    if server.edition.all_tls().next().is_some() {
        certificates::start(&server.latest, events.clone())?;
    }
    server.supervisor = supervisor;
    spawn("signals", move || {
        while let Ok(signal) = signals::wait() {
            if events.send(Event::Signal(signal)).is_err() {
                return;
            }
        }
    })?;
    tracing::info!("open http://{}/", server.listen);
    let tls = server.tls.map(|tls| format!(" tls={tls}")).unwrap_or_default();
    let scheme = if server.edition.admin_tls.is_some() { " admin_scheme=https" } else { "" };
    let line = format!(
        "fantail ready listen={} admin={} pid={}{tls}{scheme}\n",
        server.listen,
        server.admin,
        std::process::id()
    );
    // Whoever started it may not read, and a full pipe would hold up signals for ever: a thread waits instead, and ends
    // with the process.
    spawn("ready-line", move || {
        let mut out = io::stdout().lock();
        let _ = out.write_all(line.as_bytes()).and_then(|()| out.flush());
    })?;
    server.tell_ready();
    server.supervisor.watch(&server.edition)?;
    server.serve(readings)
}

impl Server {
    /// Starts a server whose loops share the process's descriptor table, and which nobody signals.
    #[cfg(test)]
    fn start(settings: Settings) -> Result<Self, ServeError> {
        let (events, received) = mpsc::channel();
        Self::start_with(settings, Tables::Shared, events, received)
    }

    /// Serves until a signal asks for the end, then drains; a second signal stops at once.
    fn serve(mut self, mut readings: Readings) -> Result<(), ServeError> {
        let asked = std::mem::take(&mut self.reloads_asked);
        if asked > 0 {
            self.read_anew(&mut readings, asked);
        }
        let mut event =
            if self.drain_asked { Ok(Event::Loop(LoopEvent::DrainAsked)) } else { self.events.recv() };
        loop {
            match event {
                Ok(Event::Signal(signals::Signal::Terminate | signals::Signal::Interrupt)) => {
                    tracing::info!("draining");
                    self.signalled = true;
                    break;
                }
                Ok(Event::Loop(LoopEvent::DrainAsked)) => {
                    tracing::info!("draining, asked through the admin port");
                    break;
                }
                Ok(Event::Signal(signals::Signal::Hangup)) => self.read_anew(&mut readings, 0),
                Ok(Event::Loop(LoopEvent::ReloadAsked)) => {
                    tracing::info!("reloading, asked through the admin port");
                    self.read_anew(&mut readings, 1);
                }
                Ok(Event::CertificatesChanged) => {
                    tracing::info!("the files of certificates have changed");
                    self.renew_certificates(&mut readings);
                }
                Ok(Event::Read(reading)) => self.on_read(&mut readings, reading),
                Ok(Event::Loop(event)) => self.on_loop_event(event)?,
                Err(_) => return Err(failed("wait for the event loops", io::Error::other("all are gone"))),
            }
            event = self.events.recv();
        }
        self.refuse_readings(&mut readings);
        self.drain_and_stop()
    }

    /// Drains and stops: not ready, then the delay, then listeners closed and clients sent away.
    ///
    /// # Errors
    /// A loop failed.
    fn drain_and_stop(mut self) -> Result<(), ServeError> {
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
        self.claims.clear();
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
    fn stop(mut self) -> Result<(), ServeError> {
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
        if let Some(webhook) = &self.webhook {
            let events = webhook.finish(WEBHOOK_TIME);
            if events > 0 {
                tracing::error!(events, "the webhook was not taken before the end; its events are lost");
            }
        }
        if let Some(forward) = self.edition.forward() {
            let messages = forward.finish(FORWARD_TIME);
            if messages > 0 {
                tracing::error!(
                    messages,
                    "the application was not told before the end; these messages are lost"
                );
            }
        }
        tracing::info!("stopped");
        Ok(())
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
                Ok(Event::Signal(_) | Event::Read(_) | Event::CertificatesChanged)
                | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        Ok(true)
    }

    fn on_loop_event(&mut self, event: LoopEvent) -> Result<(), ServeError> {
        if matches!(event, LoopEvent::ReloadAsked) {
            self.refuse_reload();
        }
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
        let tls = self.tls.map(|tls| format!(", with TLS on {tls}")).unwrap_or_default();
        self.supervisor.ready(&format!("serving on {listen}{tls}, admin port on {admin}"));
    }

    fn control(&self, index: usize, control: Control) {
        if self.edition.router.send_control(index, control, None).is_err() {
            tracing::error!(loop_index = index, "no room for a control entry");
        }
    }
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

fn failed(what: &str, error: io::Error) -> ServeError {
    ServeError::Io { what: format!("cannot {what}"), error }
}
