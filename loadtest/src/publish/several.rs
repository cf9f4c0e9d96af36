//! Publishing every message to several servers, some of which may be away for a while.
//!
//! A server that does not answer is asked again with the next message, on a new connection. A kept connection that
//! breaks may be one to a process that has been replaced since, so that its message is posted once more; an
//! `Idempotency-Key` keeps a server from publishing it twice. What each message has come to stands in the bulletin
//! while it happens.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::PublishError;
use super::http::HttpPublisher;
use crate::base::interrupt;
use crate::base::schedule::{LATE_NS, Schedule};
use crate::engine::message::{self, PROBE_SEQUENCE, Shape, Stamp};
use crate::engine::visits::Bulletin;
use crate::engine::worker::Plan;
use crate::net::target::Target;
use crate::tls::{self, Tls};

/// How long a server that was silent is not asked again: every message would wait for it before it goes to the others.
const PASSED_OVER: Duration = Duration::from_secs(10);

/// What became of the messages at one server.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct ServerReport {
    /// Where it was published to.
    pub(crate) url: String,
    /// Messages it took.
    pub(crate) accepted: u64,
    /// Messages it did not take, or did not answer to, by kind: a server that is restarted is away for a while.
    pub(crate) errors: BTreeMap<String, u64>,
}

/// What became of all messages.
#[derive(Clone, Debug, Default)]
pub(crate) struct PublishedToAll {
    /// Messages that came to their turn before the run ended.
    pub(crate) attempted: u64,
    /// Those that at least one server took; they are numbered without a hole.
    pub(crate) count: u64,
    /// Sends that left more than 1 ms after their planned time.
    pub(crate) late_sends: u64,
    /// Of these, those that had not to wait for the answers to the one before.
    pub(crate) late_own: u64,
    /// How late the latest send left.
    pub(crate) late_max_ns: u64,
    /// By server.
    pub(crate) servers: Vec<ServerReport>,
}

/// One server's publisher.
#[derive(Debug)]
struct One {
    target: Target,
    tls: Option<Arc<Tls>>,
    publisher: Option<HttpPublisher>,
    passed_over_until: Option<Instant>,
    report: ServerReport,
}

/// Publishers of all servers.
#[derive(Debug)]
pub(crate) struct Several {
    servers: Vec<One>,
    binary: bool,
}

impl Several {
    /// For messages of this `shape`, over TLS as `tls` says where a target asks for it. Nothing is connected yet.
    pub(crate) fn new(
        targets: Vec<(String, Target)>,
        tls: &tls::Wanted,
        shape: Shape,
    ) -> Result<Self, String> {
        let server = |(url, target)| {
            let tls = Tls::of(&target, tls, 1)?;
            let report = ServerReport { url, ..ServerReport::default() };
            Ok(One { target, tls, publisher: None, passed_over_until: None, report })
        };
        let servers = targets.into_iter().map(server).collect::<Result<_, String>>()?;
        Ok(Self { servers, binary: shape.is_binary() })
    }

    /// Publishes the message that tells who is subscribed; every server has to take it.
    pub(crate) fn probe(&mut self, plan: &Plan) -> Result<(), String> {
        let mut payload = Vec::new();
        let planned_ns = plan.clock.now_ns();
        let stamp = Stamp { stream: plan.run_id, sequence: PROBE_SEQUENCE, planned_ns };
        let key = format!("{:016x}-probe-{planned_ns}", plan.run_id);
        message::write_message(&stamp, plan.shape, &plan.conversation.around(0), &mut payload);
        for server in &mut self.servers {
            server
                .publish(&key, &payload, self.binary)
                .map_err(|error| format!("{}: {error}", server.report.url))?;
        }
        Ok(())
    }

    /// Publishes the whole job to all servers, one after the other.
    pub(crate) fn run(mut self, plan: &Plan, schedule: Schedule, bulletin: &Bulletin) -> PublishedToAll {
        // The publisher has the number of the first connection.
        let around = plan.conversation.around(0);
        let mut published = PublishedToAll::default();
        let mut payload = Vec::new();
        let mut free_ns = 0;
        for index in 0..schedule.count() {
            let planned_ns = schedule.planned_ns(index);
            if !plan.clock.sleep_until(planned_ns, interrupt::requested) {
                break;
            }
            let now_ns = plan.clock.now_ns();
            published.attempted += 1;
            published.late_max_ns = published.late_max_ns.max(now_ns.saturating_sub(planned_ns));
            published.late_sends += u64::from(now_ns.saturating_sub(planned_ns) > LATE_NS);
            published.late_own += u64::from(now_ns.saturating_sub(planned_ns.max(free_ns)) > LATE_NS);
            payload.clear();
            let stamp = Stamp { stream: plan.run_id, sequence: published.count, planned_ns };
            message::write_message(&stamp, plan.shape, &around, &mut payload);
            bulletin.on_begin(published.count);
            let mut taken = false;
            let key = format!("{:016x}-{index}", plan.run_id);
            for server in &mut self.servers {
                match server.publish(&key, &payload, self.binary) {
                    Ok(()) => {
                        server.report.accepted += 1;
                        taken = true;
                    }
                    Err(error) => *server.report.errors.entry(error.name()).or_default() += 1,
                }
            }
            free_ns = plan.clock.now_ns();
            if taken {
                bulletin.on_done(published.count, free_ns);
                published.count += 1;
            }
        }
        published.servers = self.servers.into_iter().map(|server| server.report).collect();
        published
    }
}

impl One {
    fn publish(&mut self, key: &str, payload: &[u8], binary: bool) -> Result<(), PublishError> {
        if self.passed_over_until.is_some_and(|until| Instant::now() < until) {
            return Err(PublishError::Unreached(io::ErrorKind::TimedOut.into()));
        }
        let outcome = self.ask(key, payload, binary);
        let silent = outcome.as_ref().is_err_and(is_silence);
        self.passed_over_until = silent.then(|| Instant::now() + PASSED_OVER);
        outcome
    }

    fn ask(&mut self, key: &str, payload: &[u8], binary: bool) -> Result<(), PublishError> {
        let fields = format!("Idempotency-Key: {key}\r\n");
        if let Some(mut kept) = self.publisher.take() {
            match kept.publish_with(&fields, payload) {
                // It broke off, as when another process has taken the place of the one it was to.
                Err(error @ PublishError::Unknown(_)) if !is_silence(&error) => {}
                outcome => {
                    self.publisher = Some(kept).filter(|_| !matches!(outcome, Err(PublishError::Unknown(_))));
                    return outcome;
                }
            }
        }
        let mut new = HttpPublisher::connect(self.target.clone(), self.tls.clone(), binary)?;
        let outcome = new.publish_with(&fields, payload);
        // After an error the connection may be in the middle of an answer.
        if !matches!(outcome, Err(PublishError::Unknown(_))) {
            self.publisher = Some(new);
        }
        outcome
    }
}

/// Whether a server is there and does not answer.
fn is_silence(error: &PublishError) -> bool {
    let (PublishError::Unreached(error) | PublishError::Unknown(error)) = error else { return false };
    // Linux calls a socket's timeout the latter.
    matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock)
}
