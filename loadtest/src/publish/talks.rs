//! Publishing over WebSocket: a client like any other, which has the whole conversation and then says its messages.
//!
//! One connection, or one for each topic where the URL or the greeting differs from topic to topic. A message waits
//! while the kernel has not taken the one before it, which is counted.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use mio::{Interest, Registry, Token};

use fantail::sys::socket;
use fantail::wire::frame::{self, Opcode};

use super::account::{Account, Job};
use super::{PublishError, TIMEOUT, Wanted};
use crate::base::interrupt;
use crate::base::trouble::Trouble;
use crate::engine::connection::{Connection, Context, Role, State, mask};
use crate::engine::handshake;
use crate::engine::message::{self, random_u64};
use crate::engine::text::{Filling, Spelling, Text};
use crate::engine::trace::{Traced, Way};
use crate::engine::worker::Plan;
use crate::net::target::Target;
use crate::result::tally::Tally;
use crate::tls::{Session, Tls};

/// Connections that are being opened at once.
const OPENING_MAX: usize = 256;
const SCRATCH_BYTES: usize = 64 * 1024;
const READS_PER_TURN: usize = 16;

/// See the module's head.
#[derive(Debug)]
pub(super) struct Talks {
    target: Target,
    path: Text,
    tls: Option<Arc<Tls>>,
    registry: Registry,
    lanes: Vec<Lane>,
    /// Whether each topic has a connection.
    by_topic: bool,
    /// The first connection that has not been begun.
    next: usize,
    opening: usize,
    failed: Option<PublishError>,
    /// What connections count; nobody looks at it but for close frames.
    tally: Tally,
    scratch: Vec<u8>,
    frame: Vec<u8>,
}

#[derive(Debug)]
struct Lane {
    connection: Connection,
    topic: Option<u32>,
    queue: VecDeque<Job>,
    /// Why it is over.
    over: Option<(Trouble, Option<(u16, String)>)>,
    until_ns: u64,
    /// When each rule of `--every` is due next.
    every_ns: Vec<u64>,
}

impl Talks {
    /// Nothing is connected yet.
    pub(super) fn new(
        wanted: &Wanted,
        plan: &Plan,
        registry: Registry,
        tls: Option<Arc<Tls>>,
    ) -> Result<Self, String> {
        let conversation = &plan.conversation;
        let path = Text::read("--publish-url", &wanted.target.path, conversation.scope(), Spelling::Url)?;
        let topics = conversation.topics().count();
        let differs = path.names_topic() || !path.columns().is_empty() || conversation.greets_by_topic();
        Ok(Self {
            target: wanted.target.clone(),
            path,
            tls,
            registry,
            lanes: Vec::new(),
            by_topic: topics > 1 && differs,
            next: 0,
            opening: 0,
            failed: None,
            tally: Tally::new(),
            scratch: vec![0; SCRATCH_BYTES],
            frame: Vec::new(),
        })
        .map(|mut talks: Self| {
            let count = if talks.by_topic { topics } else { 1 };
            talks.lanes.extend((0..count).map(|topic| Lane {
                connection: Connection::failed(),
                topic: (talks.by_topic || topics == 1).then_some(topic),
                queue: VecDeque::new(),
                over: None,
                until_ns: u64::MAX,
                every_ns: Vec::new(),
            }));
            talks
        })
    }

    /// Connections.
    pub(super) fn count(&self) -> usize {
        self.lanes.len()
    }

    /// Set once all are open, or one can't be opened.
    pub(super) fn opened(&mut self) -> Option<Result<(), PublishError>> {
        if let Some(error) = self.failed.take() {
            return Some(Err(error));
        }
        let open = self.next == self.lanes.len() && self.opening == 0;
        open.then_some(Ok(()))
    }

    /// Ends all connections in order.
    pub(super) fn close(&mut self) {
        for lane in &mut self.lanes {
            lane.connection.end();
        }
    }

    /// A message is due.
    pub(super) fn submit(&mut self, plan: &Plan, account: &mut Account, job: Job, now_ns: u64) {
        let index = if self.by_topic { job.topic as usize } else { 0 };
        let Some(lane) = self.lanes.get_mut(index) else { return };
        lane.queue.push_back(job);
        self.send_waiting(plan, account, index, now_ns);
    }

    /// Something happened to a connection.
    pub(super) fn on_event(&mut self, plan: &Plan, account: &mut Account, index: usize, read_closed: bool) {
        let Some(lane) = self.lanes.get_mut(index) else { return };
        let opening = lane.is_opening();
        let mut outcome = lane.connection.on_writable();
        for _ in 0..READS_PER_TURN {
            if outcome.is_err() || lane.connection.state() == State::Connecting {
                break;
            }
            let before = lane.connection.state();
            let count = match lane.connection.read(&mut self.scratch, SCRATCH_BYTES) {
                Ok(0) if before == State::Open => {
                    outcome = Err(Trouble::LostEof);
                    break;
                }
                Ok(0) if before == State::Greeting => {
                    outcome = Err(Trouble::AwaitClosed);
                    break;
                }
                Ok(0) => {
                    outcome = Err(Trouble::ConnectClosed);
                    break;
                }
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    outcome = Err(lane.connection.trouble(&error));
                    break;
                }
            };
            let mut cx = context(plan, index, lane.topic, &mut self.tally);
            outcome = lane.connection.on_bytes(self.scratch.get(..count).unwrap_or_default(), &mut cx);
            if count < SCRATCH_BYTES && !read_closed && lane.connection.short_reads_drain() {
                break;
            }
        }
        if let Err(trouble) = outcome {
            self.on_trouble(plan, account, index, trouble);
        }
        let lane_opening = self.lanes.get(index).is_some_and(Lane::is_opening);
        if opening && !lane_opening {
            self.opening -= 1;
        }
        self.send_waiting(plan, account, index, plan.clock.now_ns());
    }

    /// Opens what is not open yet, says what is due, ends what has taken too long.
    pub(super) fn on_look(&mut self, plan: &Plan, account: &mut Account, now_ns: u64) {
        while self.next < self.lanes.len() && self.opening < OPENING_MAX && self.failed.is_none() {
            self.open(plan, account, self.next, now_ns);
            self.next += 1;
        }
        for index in 0..self.lanes.len() {
            let Some(lane) = self.lanes.get_mut(index) else { continue };
            if lane.is_opening() && now_ns >= lane.until_ns {
                let trouble = lane.connection.timeout_trouble();
                self.opening -= 1;
                self.on_trouble(plan, account, index, trouble);
                continue;
            }
            if lane.connection.state() == State::Open {
                self.say_due(plan, account, index, now_ns);
            }
            let timeout_ns = TIMEOUT.as_nanos() as u64;
            let Some(lane) = self.lanes.get_mut(index) else { continue };
            let late =
                |job: &Job| now_ns.saturating_sub(job.planned_ns) > timeout_ns || interrupt::requested();
            while let Some(job) = lane.queue.front().copied().filter(late) {
                lane.queue.pop_front();
                account.on_not_sent(&job, PublishError::Unreached(io::ErrorKind::TimedOut.into()));
            }
        }
    }

    fn say_due(&mut self, plan: &Plan, account: &mut Account, index: usize, now_ns: u64) {
        for (rule, (period, text)) in plan.conversation.every().iter().enumerate() {
            let period_ns = u64::try_from(period.as_nanos()).unwrap_or(u64::MAX);
            let Some(lane) = self.lanes.get_mut(index) else { return };
            if lane.every_ns.len() <= rule {
                lane.every_ns.push(now_ns + period_ns);
            }
            let Some(due_ns) = lane.every_ns.get_mut(rule).filter(|due_ns| **due_ns <= now_ns) else {
                continue;
            };
            *due_ns = now_ns + period_ns;
            let cx = context(plan, index, lane.topic, &mut self.tally);
            if let Err(trouble) = lane.connection.say_again(text, &cx) {
                self.on_trouble(plan, account, index, trouble);
            }
        }
    }

    fn open(&mut self, plan: &Plan, account: &mut Account, index: usize, now_ns: u64) {
        let Some(lane) = self.lanes.get_mut(index) else { return };
        let filling = filling(plan, lane.topic);
        let result = socket::connect_from(None, self.target.address_of(index as u64)).and_then(|stream| {
            let mut stream = mio::net::TcpStream::from_std(stream);
            self.registry.register(&mut stream, Token(index), Interest::READABLE | Interest::WRITABLE)?;
            let begin = |tls| Session::new(tls, plan.clock).map_err(io::Error::other);
            Ok((stream, self.tls.as_ref().map(begin).transpose()?))
        });
        match result {
            Ok((stream, tls)) => {
                let key = handshake::key(random_u64());
                let mut request = Vec::new();
                plan.conversation.write_request(
                    &self.target,
                    Some(&self.path),
                    key,
                    &filling,
                    false,
                    &mut request,
                );
                if let Some(traced) = traced(plan, index) {
                    traced.head(Way::Out, &request);
                }
                lane.connection = Connection::new(stream, tls, key, request, now_ns, None, None);
                lane.until_ns = now_ns + TIMEOUT.as_nanos() as u64;
                self.opening += 1;
            }
            Err(error) => self.on_trouble(plan, account, index, Trouble::of_connect(&error)),
        }
    }

    /// A connection is over, and with it what was to be sent on it.
    fn on_trouble(&mut self, plan: &Plan, account: &mut Account, index: usize, trouble: Trouble) {
        let Some(lane) = self.lanes.get_mut(index) else { return };
        let close = lane.connection.close().cloned();
        let opened = lane.connection.state() == State::Open;
        lane.connection.end();
        lane.over = Some((trouble, close));
        if !opened {
            let error = match lane.error() {
                PublishError::Lost(trouble, _) => PublishError::Lost(trouble, plan.details.of(trouble)),
                error => error,
            };
            self.failed.get_or_insert(error);
        }
        for job in std::mem::take(&mut lane.queue) {
            account.on_not_sent(&job, lane.error());
        }
    }

    /// Sends what waits, as long as the kernel takes it.
    fn send_waiting(&mut self, plan: &Plan, account: &mut Account, index: usize, now_ns: u64) {
        loop {
            let Some(lane) = self.lanes.get_mut(index) else { return };
            let Some(mut job) = lane.queue.front().copied() else { return };
            if lane.over.is_some() {
                lane.queue.pop_front();
                account.on_not_sent(&job, lane.error());
                continue;
            }
            if lane.connection.state() != State::Open || !lane.connection.is_drained() {
                return;
            }
            lane.queue.pop_front();
            account.on_send(&mut job, now_ns);
            self.write_frame(plan, index, &job);
            let Some(lane) = self.lanes.get_mut(index) else { return };
            match lane.connection.try_send(&self.frame) {
                Ok(true) => account.on_taken(&job, now_ns, false),
                Ok(false) => {
                    account.on_failed(&job, PublishError::Unreached(io::ErrorKind::WriteZero.into()))
                }
                Err(trouble) => {
                    // Of a frame that broke off nobody knows how much has arrived.
                    account.on_failed(&job, PublishError::Unknown(io::ErrorKind::BrokenPipe.into()));
                    self.on_trouble(plan, account, index, trouble);
                }
            }
        }
    }

    fn write_frame(&mut self, plan: &Plan, index: usize, job: &Job) {
        let caught = self.lanes.get(index).map_or(&[][..], |lane| lane.connection.caught());
        let stamp = job.stamp(plan.run_id);
        let number = plan.conversation.topics().first_member(job.topic);
        let filling = Filling {
            topic: Some(job.topic),
            message: Some((stamp.sequence, plan.shape.size_of(&stamp))),
            ..plan.conversation.filling(number, caught)
        };
        let mut payload = Vec::new();
        message::write_message(&stamp, plan.shape, &plan.conversation.around(&filling), &mut payload);
        let opcode = if plan.shape.is_binary() { Opcode::Binary } else { Opcode::Text };
        if let Some(traced) = traced(plan, index) {
            traced.frame(Way::Out, opcode, &payload);
        }
        self.frame.clear();
        frame::push_frame(&mut self.frame, opcode, &payload, Some(mask()));
    }
}

impl Lane {
    fn is_opening(&self) -> bool {
        matches!(self.connection.state(), State::Connecting | State::Upgrading | State::Greeting)
    }

    fn error(&self) -> PublishError {
        match &self.over {
            Some((_, Some((code, reason)))) => PublishError::Closed(*code, reason.clone()),
            Some((Trouble::UpgradeRefused(status), _)) => PublishError::Refused(*status, None),
            Some((trouble, None)) => PublishError::Lost(*trouble, None),
            None => PublishError::Unreached(io::ErrorKind::NotConnected.into()),
        }
    }
}

/// What names stand for on a connection that publishes to this topic, or to all.
fn filling<'a>(plan: &'a Plan, topic: Option<u32>) -> Filling<'a> {
    let number = plan.conversation.topics().first_member(topic.unwrap_or(0));
    Filling { topic, ..plan.conversation.filling(number, &[]) }
}

fn context<'a>(plan: &'a Plan, index: usize, topic: Option<u32>, tally: &'a mut Tally) -> Context<'a> {
    let number = plan.conversation.topics().first_member(topic.unwrap_or(0));
    let cx = plan.context(number, tally);
    Context { role: Role::Idle, topic, traced: traced(plan, index), ..cx }
}

/// As many publishers are shown as connections are.
fn traced(plan: &Plan, index: usize) -> Option<Traced> {
    ((index as u64) < plan.trace).then_some(Traced::Publisher(index))
}
