//! Publishing by HTTP/1.1 on kept connections: each has one request under way, and whatever is due while all are busy
//! gets one more, up to a limit. Beyond it messages wait, which is counted.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::sync::Arc;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

use fantail::sys::socket;

use super::account::{Account, Job};
use super::request::Request;
use super::{PUBLISHERS_MAX, PublishError, TIMEOUT, Wanted};
use crate::base::interrupt;
use crate::engine::worker::Plan;
use crate::net::http_answer::{Head, Incoming};
use crate::net::target::Target;
use crate::tls::{self, Session, Tls};

/// A connection used more recently than this is not looked at before its next request.
const IDLE_UNCHECKED_NS: u64 = 500_000_000;
const ANSWER_BYTES_MAX: usize = 1024 * 1024;
const SCRATCH_BYTES: usize = 64 * 1024;

/// See the module's head.
#[derive(Debug)]
pub(super) struct Posts {
    target: Target,
    request: Request,
    keyed: bool,
    /// A server that was silent is not asked before: hundreds of requests would wait for it.
    passed_over_until_ns: u64,
    tls: Option<Arc<Tls>>,
    registry: Registry,
    lanes: Vec<Option<Lane>>,
    /// Places of `lanes` that hold nothing.
    empty: Vec<usize>,
    /// Connections with nothing to do, the one used last at the end.
    idle: Vec<usize>,
    waiting: VecDeque<Job>,
    /// Connections that were begun.
    begun: u64,
    most: usize,
    limit: usize,
    most_allowed: usize,
    scratch: Vec<u8>,
}

/// One connection.
#[derive(Debug)]
struct Lane {
    stream: TcpStream,
    tls: Option<Box<Session>>,
    connected: bool,
    output: Vec<u8>,
    answer: Incoming,
    job: Option<Job>,
    /// When it has to be done with what it does.
    until_ns: u64,
    /// When it was done with its last request.
    used_ns: u64,
    /// Whether it was.
    kept: bool,
}

/// How a lane goes on.
enum Next {
    /// It waits for the peer.
    Waits,
    /// The answer is whole, with this head.
    Answered(Head),
    /// It is over.
    Over(io::Error),
}

impl Posts {
    /// No connection yet.
    /// With `keyed` each message has a key by which a server knows it again, and is posted once more if its connection
    /// breaks.
    pub(super) fn new(
        wanted: &Wanted,
        request: Request,
        registry: Registry,
        tls: Option<Arc<Tls>>,
        keyed: bool,
    ) -> Self {
        Self {
            keyed,
            passed_over_until_ns: 0,
            target: wanted.target.clone(),
            request,
            tls,
            registry,
            lanes: Vec::new(),
            empty: Vec::new(),
            idle: Vec::new(),
            waiting: VecDeque::new(),
            begun: 0,
            most: 0,
            limit: wanted.publishers.unwrap_or(PUBLISHERS_MAX) as usize,
            most_allowed: wanted.publishers.unwrap_or(PUBLISHERS_MAX) as usize,
            scratch: vec![0; SCRATCH_BYTES],
        }
    }

    /// The most connections there were at once.
    pub(super) fn most(&self) -> usize {
        self.most
    }

    /// Opens no more than so many from now on; returns how many it was.
    pub(super) fn limit(&mut self, connections: usize) -> usize {
        let before = self.limit;
        self.limit = connections.min(self.most_allowed);
        before
    }

    /// Connections that are not there yet.
    pub(super) fn connecting(&self) -> usize {
        self.lanes.iter().flatten().filter(|lane| !lane.connected).count()
    }

    /// Connects until there are so many.
    pub(super) fn prepare(&mut self, connections: u32, now_ns: u64) {
        while self.live() < (connections as usize).min(self.limit) {
            if self.open(None, now_ns).is_err() {
                return;
            }
        }
    }

    /// A message is due.
    pub(super) fn submit(&mut self, plan: &Plan, account: &mut Account, mut job: Job, now_ns: u64) {
        if now_ns < self.passed_over_until_ns {
            return account.on_not_sent(&job, PublishError::Unreached(io::ErrorKind::TimedOut.into()));
        }
        while let Some(index) = self.idle.pop() {
            let Some(Some(lane)) = self.lanes.get(index) else { continue };
            if lane.is_fresh(now_ns) {
                account.on_send(&mut job, now_ns);
                return self.send(plan, account, index, job, now_ns);
            }
            self.remove(plan, account, index, now_ns);
        }
        if self.live() >= self.limit {
            return self.waiting.push_back(job);
        }
        // Not later, when it is connected: what is next must not get its number.
        account.on_send(&mut job, now_ns);
        if let Err(error) = self.open(Some((plan, job)), now_ns) {
            account.on_failed(&job, PublishError::Unreached(error));
        }
    }

    /// Something happened to a connection.
    pub(super) fn on_event(&mut self, plan: &Plan, account: &mut Account, index: usize) {
        let Some(Some(lane)) = self.lanes.get_mut(index) else { return };
        let next = lane.go_on(&mut self.scratch);
        self.settle(plan, account, index, next);
    }

    /// Ends what has taken too long.
    pub(super) fn on_look(&mut self, plan: &Plan, account: &mut Account, now_ns: u64) {
        for index in 0..self.lanes.len() {
            let late = self
                .lanes
                .get(index)
                .and_then(Option::as_ref)
                .is_some_and(|lane| now_ns >= lane.until_ns && (lane.job.is_some() || !lane.connected));
            if late {
                self.settle(plan, account, index, Next::Over(io::ErrorKind::TimedOut.into()));
            }
        }
        let timeout_ns = TIMEOUT.as_nanos() as u64;
        let too_late =
            |job: &Job| now_ns.saturating_sub(job.planned_ns) > timeout_ns || interrupt::requested();
        while let Some(job) = self.waiting.front().copied().filter(too_late) {
            self.waiting.pop_front();
            account.on_not_sent(&job, PublishError::Unreached(io::ErrorKind::TimedOut.into()));
        }
    }

    /// The field by which a server knows a message again that is posted once more.
    fn key(&self, plan: &Plan, job: &Job) -> String {
        let Job { topic, number, planned_ns, .. } = *job;
        match (self.keyed, job.is_probe) {
            (false, _) => String::new(),
            (true, true) => format!("Idempotency-Key: {:016x}-probe-{topic}-{planned_ns}\r\n", plan.run_id),
            (true, false) => format!("Idempotency-Key: {:016x}-{topic}-{number}\r\n", plan.run_id),
        }
    }

    fn live(&self) -> usize {
        self.lanes.len() - self.empty.len()
    }

    fn open(&mut self, job: Option<(&Plan, Job)>, now_ns: u64) -> io::Result<()> {
        let stream = socket::connect_from(None, self.target.address_of(self.begun))?;
        self.begun += 1;
        let mut stream = TcpStream::from_std(stream);
        let index = self.empty.pop().unwrap_or_else(|| {
            self.lanes.push(None);
            self.lanes.len() - 1
        });
        let interest = Interest::READABLE | Interest::WRITABLE;
        let registered = self.registry.register(&mut stream, Token(index), interest).and_then(|()| {
            let clock = job.map(|(plan, _)| plan.clock);
            let clock = clock.unwrap_or_else(crate::base::schedule::Clock::start);
            self.tls.as_ref().map(|tls| Session::new(tls, clock).map_err(io::Error::other)).transpose()
        });
        let tls = match registered {
            Ok(tls) => tls,
            Err(error) => {
                self.empty.push(index);
                return Err(error);
            }
        };
        let mut output = Vec::new();
        if let Some((plan, job)) = &job {
            self.request.write(plan, job, &self.key(plan, job), &mut output);
        }
        let lane = Lane {
            stream,
            tls,
            connected: false,
            output,
            answer: Incoming::default(),
            job: job.map(|(_, job)| job),
            until_ns: now_ns + TIMEOUT.as_nanos() as u64,
            used_ns: now_ns,
            kept: false,
        };
        if let Some(place) = self.lanes.get_mut(index) {
            *place = Some(lane);
        }
        self.most = self.most.max(self.live());
        Ok(())
    }

    fn send(&mut self, plan: &Plan, account: &mut Account, index: usize, job: Job, now_ns: u64) {
        let key = self.key(plan, &job);
        let Some(Some(lane)) = self.lanes.get_mut(index) else { return };
        lane.output.clear();
        self.request.write(plan, &job, &key, &mut lane.output);
        (lane.job, lane.answer) = (Some(job), Incoming::default());
        lane.until_ns = now_ns + TIMEOUT.as_nanos() as u64;
        if let Err(error) = lane.flush() {
            self.settle(plan, account, index, Next::Over(error));
        }
    }

    /// What comes of a lane, and what it does next.
    fn settle(&mut self, plan: &Plan, account: &mut Account, index: usize, next: Next) {
        let Some(Some(lane)) = self.lanes.get_mut(index) else { return };
        let now_ns = plan.clock.now_ns();
        match next {
            Next::Waits => {
                // Connected for nobody: it may be used.
                if lane.connected && lane.job.is_none() && !self.idle.contains(&index) {
                    self.use_again(plan, account, index, now_ns);
                }
            }
            Next::Answered(head) => {
                self.passed_over_until_ns = 0;
                lane.kept = true;
                if let Some(job) = lane.job.take() {
                    account.on_answer(&job, now_ns);
                    match head.status {
                        200..300 => account.on_taken(&job, now_ns, true),
                        status => {
                            let why = lane.answer.first_line(&head);
                            account.on_failed(&job, PublishError::Refused(status, why));
                        }
                    }
                }
                if !head.close {
                    self.use_again(plan, account, index, now_ns);
                } else {
                    self.remove(plan, account, index, now_ns);
                }
            }
            Next::Over(error) => {
                let unconnected =
                    !lane.connected || lane.tls.as_ref().is_some_and(|tls| tls.secured().is_none());
                let (job, kept) = (lane.job.take(), lane.kept);
                let silent = error.kind() == io::ErrorKind::TimedOut;
                if self.keyed && silent {
                    self.passed_over_until_ns = now_ns + TIMEOUT.as_nanos() as u64;
                }
                if let Some(job) = &job {
                    account.on_answer(job, now_ns);
                }
                match job {
                    // Another process may have taken the place of the one that it was to.
                    Some(job) if self.keyed && kept && !silent && !job.again => {
                        self.waiting.push_front(job.once_more());
                    }
                    Some(job) if unconnected => {
                        account.on_failed(&job, PublishError::Unreached(tls::explained(error)));
                    }
                    Some(job) => account.on_failed(&job, PublishError::Unknown(error)),
                    None => {}
                }
                self.remove(plan, account, index, now_ns);
            }
        }
    }

    /// A connection has nothing to do: it gets what waits, or waits itself.
    fn use_again(&mut self, plan: &Plan, account: &mut Account, index: usize, now_ns: u64) {
        match self.waiting.pop_front() {
            Some(mut job) => {
                account.on_send(&mut job, now_ns);
                self.send(plan, account, index, job, now_ns);
            }
            None => {
                if let Some(Some(lane)) = self.lanes.get_mut(index) {
                    lane.used_ns = now_ns;
                }
                self.idle.push(index);
            }
        }
    }

    fn remove(&mut self, plan: &Plan, account: &mut Account, index: usize, now_ns: u64) {
        if let Some(mut lane) = self.lanes.get_mut(index).and_then(Option::take) {
            // Its descriptor is closed with it, which ends the registration in any case.
            let _ = self.registry.deregister(&mut lane.stream);
            self.empty.push(index);
            self.idle.retain(|idle| *idle != index);
        }
        // There is room for another one.
        if let Some(mut job) = self.waiting.pop_front() {
            account.on_send(&mut job, now_ns);
            if let Err(error) = self.open(Some((plan, job)), now_ns) {
                account.on_failed(&job, PublishError::Unreached(error));
            }
        }
    }
}

impl Lane {
    /// Whether a kept connection can take a request. Servers close those that were idle for a while, and a request
    /// that meets such an end would be a message of unknown fate.
    fn is_fresh(&self, now_ns: u64) -> bool {
        now_ns.saturating_sub(self.used_ns) < IDLE_UNCHECKED_NS
            || self.stream.peek(&mut [0]).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
            || self.tls.is_some() && self.stream.peek(&mut [0]).is_ok_and(|count| count > 0)
    }

    /// Connects, writes, and reads until the peer is waited for.
    fn go_on(&mut self, scratch: &mut [u8]) -> Next {
        match self.connect().and_then(|connected| if connected { self.flush() } else { Ok(()) }) {
            Ok(()) if !self.connected => return Next::Waits,
            Ok(()) => {}
            Err(error) => return Next::Over(error),
        }
        loop {
            let read = match &mut self.tls {
                None => self.stream.read(scratch),
                Some(tls) => tls.read(&mut self.stream, scratch, scratch.len()),
            };
            let outcome = match read {
                Ok(0) if self.job.is_none() => return Next::Over(io::ErrorKind::UnexpectedEof.into()),
                Ok(0) => self.answer.on_end().map(Some),
                Ok(count) => self.answer.on_bytes(scratch.get(..count).unwrap_or_default(), ANSWER_BYTES_MAX),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Next::Waits,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Next::Over(error),
            };
            match outcome {
                Ok(Some(head)) if self.job.is_some() => return Next::Answered(head),
                // Nobody asked.
                Ok(Some(_)) => return Next::Over(io::ErrorKind::InvalidData.into()),
                Ok(None) => {}
                Err(error) => return Next::Over(error),
            }
        }
    }

    fn connect(&mut self) -> io::Result<bool> {
        if self.connected {
            return Ok(true);
        }
        if let Some(error) = self.stream.take_error()? {
            return Err(error);
        }
        match self.stream.peer_addr() {
            Ok(_) => {}
            // Registration reports an event before the connect has finished.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => return Ok(false),
            Err(error) => return Err(error),
        }
        // A request is written at once and must not wait for an acknowledgement.
        let _ = self.stream.set_nodelay(true);
        self.connected = true;
        if let Some(tls) = &mut self.tls {
            tls.on_connected();
        }
        Ok(true)
    }

    fn flush(&mut self) -> io::Result<()> {
        let written = match &mut self.tls {
            Some(tls) => tls.send(&mut self.stream, &self.output)?,
            None => write_some(&mut self.stream, &self.output)?,
        };
        self.output.drain(..written);
        Ok(())
    }
}

/// Writes until the kernel takes no more and returns how much it took.
fn write_some(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<usize> {
    let mut written = 0;
    while let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
        match stream.write(rest) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => written += count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(written)
}
