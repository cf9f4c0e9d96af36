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

use super::account::Job;
use super::http::HttpPublisher;
use super::request::Request;
use super::{PublishError, Wanted};
use crate::base::interrupt;
use crate::base::schedule::{LATE_NS, Schedule};
use crate::base::secrets;
use crate::engine::visits::Bulletin;
use crate::engine::worker::Plan;
use crate::net::target::Target;
use crate::result::course::Course;
use crate::tls::Tls;

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
    /// When messages left, and which the publisher itself made late.
    pub(crate) by_send: Course,
    /// Sends that waited for the answers to the one before for more than 1 ms.
    pub(crate) waited: u64,
    /// How late the latest send left.
    pub(crate) late_max_ns: u64,
    /// Messages by topic.
    pub(crate) topics: Vec<u64>,
    /// By server.
    pub(crate) servers: Vec<ServerReport>,
}

/// One server's publisher.
#[derive(Debug)]
struct One {
    target: Target,
    request: Request,
    tls: Option<Arc<Tls>>,
    publisher: Option<HttpPublisher>,
    passed_over_until: Option<Instant>,
    report: ServerReport,
}

/// Publishers of all servers.
#[derive(Debug)]
pub(crate) struct Several {
    servers: Vec<One>,
}

impl Several {
    /// To these servers. Nothing is connected yet.
    pub(crate) fn new(wanted: Vec<(String, Wanted)>, plan: &Plan) -> Result<Self, String> {
        let server = |(url, wanted): (String, Wanted)| {
            let request = Request::read(&wanted, plan)?;
            let tls = Tls::of(&wanted.target, &wanted.tls, 1)?;
            let report = ServerReport { url: secrets::url(&url), ..ServerReport::default() };
            let target = wanted.target;
            Ok(One { target, request, tls, publisher: None, passed_over_until: None, report })
        };
        Ok(Self { servers: wanted.into_iter().map(server).collect::<Result<_, String>>()? })
    }

    /// Publishes to each topic the message that tells who is subscribed; every server has to take it.
    pub(crate) fn probe(&mut self, plan: &Plan) -> Result<(), String> {
        for topic in 0..plan.conversation.topics().count() {
            let planned_ns = plan.clock.now_ns();
            let job = Job::probe(topic, planned_ns);
            let key = format!("{:016x}-probe-{topic}-{planned_ns}", plan.run_id);
            for server in &mut self.servers {
                server
                    .publish(plan, &key, &job)
                    .map_err(|error| format!("{}: {error}", server.report.url))?;
            }
        }
        Ok(())
    }

    /// Publishes the whole job to all servers, one after the other.
    pub(crate) fn run(mut self, plan: &Plan, schedule: &Schedule, bulletins: &[Bulletin]) -> PublishedToAll {
        let mut published = PublishedToAll { topics: vec![0; bulletins.len()], ..PublishedToAll::default() };
        let mut free_ns = 0;
        for index in 0..schedule.count() {
            let planned_ns = schedule.planned_ns(index);
            if !plan.clock.sleep_until(planned_ns, interrupt::requested) {
                break;
            }
            let now_ns = plan.clock.now_ns();
            published.attempted += 1;
            published.late_max_ns = published.late_max_ns.max(now_ns.saturating_sub(planned_ns));
            let late = now_ns.saturating_sub(planned_ns) > LATE_NS;
            let own_ns = now_ns.saturating_sub(planned_ns.max(free_ns));
            let late_own = own_ns > LATE_NS;
            published.by_send.on_turn(planned_ns, own_ns);
            published.by_send.on_left(planned_ns, now_ns.saturating_sub(planned_ns));
            published.late_sends += u64::from(late);
            published.late_own += u64::from(late_own);
            published.waited += u64::from(late && !late_own);
            let topic = (index % bulletins.len().max(1) as u64) as usize;
            let (Some(number), Some(bulletin)) = (published.topics.get_mut(topic), bulletins.get(topic))
            else {
                break;
            };
            let mut job = Job::new(topic as u32, planned_ns);
            job.number = u32::try_from(*number).unwrap_or(u32::MAX - 1);
            bulletin.on_begin(*number);
            let mut taken = false;
            let key = format!("{:016x}-{index}", plan.run_id);
            for server in &mut self.servers {
                match server.publish(plan, &key, &job) {
                    Ok(()) => {
                        server.report.accepted += 1;
                        taken = true;
                    }
                    Err(error) => *server.report.errors.entry(error.name()).or_default() += 1,
                }
            }
            free_ns = plan.clock.now_ns();
            if taken {
                bulletin.on_done(*number, free_ns);
                *number += 1;
                published.count += 1;
            }
        }
        published.servers = self.servers.into_iter().map(|server| server.report).collect();
        published
    }
}

impl One {
    fn publish(&mut self, plan: &Plan, key: &str, job: &Job) -> Result<(), PublishError> {
        if self.passed_over_until.is_some_and(|until| Instant::now() < until) {
            return Err(PublishError::Unreached(io::ErrorKind::TimedOut.into()));
        }
        let mut request = Vec::new();
        self.request.write(plan, job, &format!("Idempotency-Key: {key}\r\n"), &mut request);
        let outcome = self.ask(&request);
        let silent = outcome.as_ref().is_err_and(is_silence);
        self.passed_over_until = silent.then(|| Instant::now() + PASSED_OVER);
        outcome
    }

    fn ask(&mut self, request: &[u8]) -> Result<(), PublishError> {
        if let Some(mut kept) = self.publisher.take() {
            match kept.publish(request) {
                // It broke off, as when another process has taken the place of the one it was to.
                Err(error @ PublishError::Unknown(_)) if !is_silence(&error) => {}
                outcome => {
                    self.publisher = Some(kept).filter(|_| !matches!(outcome, Err(PublishError::Unknown(_))));
                    return outcome;
                }
            }
        }
        let mut new = HttpPublisher::connect(self.target.clone(), self.tls.clone())?;
        let outcome = new.publish(request);
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
