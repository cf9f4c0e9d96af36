//! One thread of connections: its own poll, its own descriptor table, its own tally.
//!
//! The main thread makes the poll and the waker and gives orders through a [`Link`]; the worker opens
//! connections, reads, answers pings, sends what is planned, and counts. It never sleeps elsewhere than in
//! `poll` and never logs.

mod asking;
mod every;
mod parting;
mod reading;
mod returning;
mod sending;
mod trickle;

use std::collections::VecDeque;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fantail::sys::{socket, tables};
use mio::{Events, Interest, Poll, Token, Waker};

use crate::base::schedule::{Clock, Schedule};
use crate::base::trouble::{Details, Trouble};
use crate::engine::connection::{Away, Connection, Context, Listening, Role, State};
use crate::engine::conversation::{Client, Conversation};
use crate::engine::handshake;
use crate::engine::inflating::Inflating;
use crate::engine::ledger::Ledger;
use crate::engine::message::{Shape, Streams};
use crate::engine::recent::Recent;
use crate::engine::sequence::Sequence;
use crate::engine::trace::{Traced, Way};
use crate::engine::visits::Bulletin;
use crate::net::target::Target;
use crate::observe::bottleneck::Watch;
use crate::result::tally::{Counts, Tally, Tick};
use crate::tls::{Session, Tls};
use asking::Asking;
use every::Every;
use returning::Returning;
use trickle::Trickle;

pub(crate) use returning::BACKOFF_NS;
pub(crate) use trickle::Slow;

/// Token of the waker; connections have their index.
pub(crate) const WAKER: Token = Token(usize::MAX);
/// From the start of `connect` to the 101.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Connects a worker has under way at most, but for those that come back.
const IN_FLIGHT_MAX: usize = 256;
/// Events taken in one turn.
const EVENTS_PER_TURN: usize = 1_024;
/// Connects begun in one turn, so that answers are read (and timed) in between.
const CONNECTS_PER_TURN: usize = 64;
/// How far behind its rate connecting may catch up: a few of a poll's milliseconds.
const CONNECT_CREDIT_NS: u64 = 5_000_000;
/// Reads of one connection in one turn.
const READS_PER_TURN: usize = 16;
/// Messages sent in one turn, so that a generator that can't keep up still reads.
const SENDS_PER_TURN: usize = 256;
/// Ticks whose duration is measured; beyond it (hours of messages) the memory would not be small.
const TICKS_MAX: u64 = 4_000_000;
const SCRATCH_BYTES: usize = 64 * 1024;

/// What is the same for all workers of a run.
#[derive(Debug)]
pub(crate) struct Plan {
    /// The one clock.
    pub(crate) clock: Clock,
    /// Where to connect.
    pub(crate) target: Target,
    /// What its connections of TLS share; `None` for plain ones.
    pub(crate) tls: Option<Arc<Tls>>,
    /// Source addresses, used in turn; `None` leaves it to the kernel.
    pub(crate) sources: Option<Vec<IpAddr>>,
    /// What messages are for.
    pub(crate) role: Role,
    /// Identifies the run.
    pub(crate) run_id: u64,
    /// The streams of its topics, by which its messages are known.
    pub(crate) streams: Streams,
    /// What messages look like.
    pub(crate) shape: Shape,
    /// What is said besides test messages.
    pub(crate) conversation: Conversation,
    /// What the first connection with each trouble was told.
    pub(crate) details: Details,
    /// What is known of publishing, where messages may overtake each other.
    pub(crate) ledger: Option<Arc<Ledger>>,
    /// Whether a text that comes as a binary message, or the other way round, is a change.
    pub(crate) keeps_kind: bool,
    /// Which connections read slowly while messages flow, and how slowly.
    pub(crate) slow: Option<Slow>,
    /// Connects that each worker has under way at most while dropped connections come back.
    pub(crate) returning_max: usize,
    /// Whether clients whose connection ends come back and are still owed everything.
    pub(crate) resumes: bool,
    /// Set if connections that end come back; tells what each should have got.
    pub(crate) bulletins: Option<Arc<Vec<Bulletin>>>,
    /// The longest wait before the first attempt to come back that is not made at once, in ns.
    pub(crate) backoff_ns: u64,
    /// Whether compression is offered, and has to be accepted.
    pub(crate) deflate: bool,
    /// Connections whose frames are shown.
    pub(crate) trace: u64,
    /// Number of workers.
    pub(crate) threads: usize,
    /// Connects per second of one worker; `None` for as fast as the server answers.
    pub(crate) connect_rate: Option<f64>,
}

impl Plan {
    /// Connections in each topic that read, of so many in all.
    pub(crate) fn readers(&self, connections: u64) -> Vec<u64> {
        let topics = self.conversation.topics();
        let Some(slow) = self.slow else {
            return (0..topics.count()).map(|topic| topics.members(topic)).collect();
        };
        let mut readers = vec![0; topics.count() as usize];
        for topic in (0..connections).filter(|number| !slow.has(*number)).flat_map(|number| topics.of(number))
        {
            if let Some(readers) = readers.get_mut(topic as usize) {
                *readers += 1;
            }
        }
        readers
    }

    /// Set if what a connection says and hears is shown.
    fn traced(&self, number: u64) -> Option<Traced> {
        (number < self.trace).then_some(Traced::Connection(number))
    }

    /// Whether clients whose connection ends come back.
    fn comes_back(&self) -> bool {
        self.resumes || self.bulletins.is_some()
    }

    /// Whether it is told what each client missed while it was connected.
    pub(crate) fn keeps_accounts(&self) -> bool {
        self.bulletins.is_some() && !self.resumes
    }

    /// What is published so far to each topic of a connection that comes back and is not owed everything anyway.
    pub(crate) fn bulletins_of(&self, number: u64) -> impl Iterator<Item = &Bulletin> {
        let topics = self.conversation.topics();
        self.bulletins
            .iter()
            .filter(|_| self.keeps_accounts())
            .flat_map(move |bulletins| topics.of(number).filter_map(|topic| bulletins.get(topic as usize)))
    }

    /// What connection `number` needs for what is said and heard beside test messages, from now on.
    pub(crate) fn context<'a>(&'a self, number: u64, tally: &'a mut Tally) -> Context<'a> {
        Context {
            plan: self,
            role: self.role,
            number,
            traced: self.traced(number),
            topic: None,
            subscriptions: &mut [],
            inflating: None,
            recent: None,
            now_ns: self.clock.now_ns(),
            schedule: None,
            tally,
        }
    }
}

/// What a worker is to do by now. Orders only ever add up, but for a run that ends early.
#[derive(Clone, Debug, Default)]
pub(crate) struct Order {
    /// Connections to have begun.
    pub(crate) open_target: usize,
    /// Whether those beyond it are closed.
    pub(crate) closes: bool,
    /// Connections to have dropped on purpose; they come back by themselves.
    pub(crate) drops: u64,
    /// Slow connections read all there is from now on.
    pub(crate) catch_up: bool,
    /// The same before the run, of messages that nobody counts; only in echo.
    pub(crate) warm_up: Option<Schedule>,
    /// When messages leave: the publisher's plan, or in echo the workers' own.
    pub(crate) schedule: Option<Schedule>,
    /// Set when no more is to come: end all connections and return. Holds what was published.
    pub(crate) stop: Option<Published>,
}

impl Order {
    /// What is sent now, and whether it counts.
    fn sends(&self) -> Option<(&Schedule, bool)> {
        let warm_up = || self.warm_up.as_ref().map(|schedule| (schedule, false));
        self.schedule.as_ref().map(|schedule| (schedule, true)).or_else(warm_up)
    }
}

/// What every connection should have received by the end.
#[derive(Clone, Debug)]
pub(crate) enum Published {
    /// So many messages.
    Count(u64),
    /// These of each topic.
    Topics(Arc<Vec<OfTopic>>),
    /// What it sent itself.
    Own,
}

/// What was published to one topic.
#[derive(Clone, Debug, Default)]
pub(crate) struct OfTopic {
    /// Numbers that were given to messages, from 0.
    pub(crate) numbers: u32,
    /// Of these, those that the server refused, in order: nobody should get them.
    pub(crate) refused: Vec<u32>,
}

impl OfTopic {
    /// Messages that its members should have got.
    pub(crate) fn published(&self) -> u64 {
        u64::from(self.numbers).saturating_sub(self.refused.len() as u64)
    }
}

/// What main and a worker share.
#[derive(Debug)]
pub(crate) struct Link {
    order: Mutex<Order>,
    tally: Mutex<Tally>,
    mode: Mutex<Option<tables::TableMode>>,
    waker: Waker,
}

impl Link {
    /// A link whose waker wakes the worker's poll.
    pub(crate) fn new(waker: Waker) -> Self {
        Self { order: Mutex::default(), tally: Mutex::new(Tally::new()), mode: Mutex::default(), waker }
    }

    /// Changes the order and wakes the worker.
    pub(crate) fn order(&self, change: impl FnOnce(&mut Order)) {
        change(&mut lock(&self.order));
        self.wake();
    }

    /// The order as it is now.
    pub(crate) fn ordered(&self) -> Order {
        lock(&self.order).clone()
    }

    /// Wakes the worker.
    pub(crate) fn wake(&self) {
        // An eventfd that can't be written means that it is full of wake-ups.
        let _ = self.waker.wake();
    }

    /// What the worker has counted so far; it waits for the end of the worker's turn.
    pub(crate) fn tally(&self) -> MutexGuard<'_, Tally> {
        lock(&self.tally)
    }

    /// How the worker came to its descriptor table; `None` until it has started.
    pub(crate) fn mode(&self) -> Option<tables::TableMode> {
        *lock(&self.mode)
    }
}

/// The state of one worker thread.
pub(crate) struct Worker {
    index: usize,
    poll: Poll,
    link: Arc<Link>,
    plan: Arc<Plan>,
    connections: Vec<Connection>,
    /// How many of these stand; those behind them were closed on purpose.
    standing: usize,
    /// Where a connection is in several topics: those of all connections, one after the other.
    subscriptions: Vec<Sequence>,
    /// Topics of a connection in that list; 0 where each has its own account.
    topics_each: usize,
    every: Every,
    connecting: VecDeque<Attempt>,
    in_flight: usize,
    next_connect_ns: u64,
    ready: Vec<usize>,
    scratch: Vec<u8>,
    senders: Vec<u32>,
    next_send: u64,
    /// Messages that leave do not count yet.
    warming: bool,
    frame: Vec<u8>,
    payload: Vec<u8>,
    inflating: Option<Inflating>,
    recent: Recent,
    /// Whether what was read last may be what is read next, and then says all there is to say of it.
    repeats: bool,
    returning: Returning,
    asking: Asking,
    /// Whatever had come by then has been read.
    read_until_ns: u64,
    trickle: Trickle,
    watch: Watch,
}

/// A connect under way.
#[derive(Clone, Copy, Debug)]
struct Attempt {
    index: usize,
    started_ns: u64,
}

impl Worker {
    /// A worker that expects to hold `capacity` connections.
    pub(crate) fn new(index: usize, poll: Poll, link: Arc<Link>, plan: Arc<Plan>, capacity: usize) -> Self {
        let inflating = plan.deflate.then(Inflating::default);
        let topics_each = match plan.conversation.topics().per_connection() {
            several @ 2.. if plan.role == Role::Subscribe => several,
            _ => 0,
        };
        // Answers differ from connection to connection, and what is shown is shown of each.
        let repeats = plan.trace == 0 && !plan.conversation.replies();
        Self {
            index,
            poll,
            link,
            plan,
            inflating,
            recent: Recent::default(),
            repeats,
            // Growing by doubling would touch up to twice the memory.
            connections: Vec::with_capacity(capacity),
            standing: 0,
            subscriptions: Vec::with_capacity(capacity * topics_each),
            topics_each,
            every: Every::default(),
            connecting: VecDeque::new(),
            in_flight: 0,
            next_connect_ns: 0,
            ready: Vec::new(),
            scratch: vec![0; SCRATCH_BYTES],
            senders: Vec::new(),
            next_send: index as u64,
            warming: false,
            frame: Vec::new(),
            payload: Vec::new(),
            returning: Returning::default(),
            asking: Asking::default(),
            read_until_ns: 0,
            trickle: Trickle::default(),
            watch: Watch::default(),
        }
    }

    /// Runs until told to stop. The calling thread's descriptor table is split first.
    ///
    /// The poll goes back to whoever made it: where tables are apart its number is in both, this thread's ends with
    /// the thread, and only the maker can close the other.
    pub(crate) fn run(mut self) -> (Poll, io::Result<()>) {
        let outcome = self.turns();
        (self.poll, outcome)
    }

    fn turns(&mut self) -> io::Result<()> {
        // The waker's eventfd stays in main's table: an epoll holds files, not numbers.
        let mode = tables::split_table(&[self.poll.as_raw_fd()]);
        *lock(&self.link.mode) = Some(mode);
        self.watch = Watch::start();
        let mut events = Events::with_capacity(EVENTS_PER_TURN);
        let link = self.link.clone();
        let mut order = Order::default();
        loop {
            // Whoever has changed the order since has woken the poll behind it.
            let timeout = self.timeout(&order);
            if let Err(error) = self.poll.poll(&mut events, timeout)
                && error.kind() != io::ErrorKind::Interrupted
            {
                return Err(error);
            }
            order.clone_from(&lock(&link.order));
            let mut tally = link.tally();
            let loaded = order.schedule.is_some() || order.drops > 0;
            let woken_ns = self.plan.clock.now_ns();
            self.watch.on_wake(woken_ns, loaded, &mut tally.strain);
            self.size_ticks(&order, &mut tally);
            self.trickle_due(&order, &mut tally);
            self.send_due(&order, &mut tally);
            self.say_due(&mut tally);
            self.ask_due(&mut tally);
            self.recent.forget_tick();
            for index in std::mem::take(&mut self.ready) {
                self.read_turn(index, true, &order, &mut tally);
            }
            let mut handled = 0;
            for event in events.iter().filter(|event| event.token() != WAKER) {
                let index = event.token().0;
                handled += 1;
                if self.is_slow(index) {
                    self.slow_event(index, event, &mut tally);
                    continue;
                }
                if event.is_writable() || event.is_error() {
                    self.write_turn(index, &mut tally);
                }
                if event.is_readable() || event.is_read_closed() || event.is_error() {
                    self.read_turn(index, event.is_read_closed(), &order, &mut tally);
                }
            }
            self.expire(&mut tally);
            self.drop_due(&order, &mut tally);
            self.part_due(&order, &mut tally);
            self.connect_due(&order, &mut tally);
            let full = handled + 1 >= EVENTS_PER_TURN;
            if !full && self.ready.is_empty() {
                self.read_until_ns = woken_ns;
            }
            let now_ns = self.plan.clock.now_ns();
            self.watch.on_turn_end(now_ns, handled, full, loaded, &mut tally.strain);
            if let Some(published) = &order.stop {
                self.finish(published, &mut tally);
                return Ok(());
            }
        }
    }

    fn timeout(&self, order: &Order) -> Option<Duration> {
        if !self.ready.is_empty() || self.parts(order) {
            return Some(Duration::ZERO);
        }
        let now_ns = self.plan.clock.now_ns();
        // Main wakes the worker when a send becomes due; this is for what a full turn left over.
        let send_is_due = order.sends().is_some_and(|(schedule, _)| {
            self.plan.role.sends()
                && self.next_send < schedule.count()
                && schedule.planned_ns(self.next_send) <= now_ns
        });
        if send_is_due {
            return Some(Duration::ZERO);
        }
        let expiry_ns = self.connecting.front().map(Attempt::deadline_ns);
        let mut connect_ns = None;
        if self.in_flight < self.in_flight_max(order) {
            let opens = self.standing < order.open_target;
            let due_ns = if opens { Some(0) } else { self.returning.due_ns() };
            connect_ns = due_ns.map(|due_ns| due_ns.max(self.next_connect_ns));
        }
        let wake_ns =
            [expiry_ns, connect_ns, self.trickle.due_ns(), self.every.due_ns(), self.asking.due_ns()];
        wake_ns
            .into_iter()
            .flatten()
            .min()
            .map(|wake_ns| Duration::from_nanos(wake_ns.saturating_sub(now_ns)))
    }

    fn size_ticks(&self, order: &Order, tally: &mut Tally) {
        if let Some(schedule) = &order.schedule
            && self.plan.role == Role::Subscribe
            && tally.ticks.is_empty()
            && schedule.ticks() <= TICKS_MAX
        {
            tally.ticks = vec![Tick::default(); schedule.ticks() as usize];
        }
    }

    fn connect_due(&mut self, order: &Order, tally: &mut Tally) {
        let interval_ns = self.plan.connect_rate.map_or(0, |rate| (1e9 / rate) as u64);
        for _ in 0..CONNECTS_PER_TURN {
            let now_ns = self.plan.clock.now_ns();
            if self.in_flight >= self.in_flight_max(order) || now_ns < self.next_connect_ns {
                return;
            }
            // Who comes back goes before who was never there.
            let (index, away) = match self.returning.take_due(now_ns) {
                Some((index, away)) => (index, Some(away)),
                None if self.standing < order.open_target => (self.standing, None),
                None => return,
            };
            // What was missed during a pause is not caught up with in one go.
            let base_ns = self.next_connect_ns.max(now_ns.saturating_sub(CONNECT_CREDIT_NS));
            self.next_connect_ns = base_ns + interval_ns;
            self.standing = self.standing.max(index + 1);
            self.connect_one(index, away, now_ns, tally);
        }
    }

    fn in_flight_max(&self, order: &Order) -> usize {
        let rolling = self.plan.comes_back() && order.schedule.is_some();
        if order.drops > 0 || rolling { self.plan.returning_max } else { IN_FLIGHT_MAX }
    }

    fn connect_one(&mut self, index: usize, away: Option<Away>, now_ns: u64, tally: &mut Tally) {
        let number = self.number(index);
        let source = self.plan.sources.as_ref().and_then(|sources| {
            let turn = usize::try_from(number).unwrap_or(0) % sources.len().max(1);
            sources.get(turn).copied()
        });
        // Who was refused tries its luck at the next one.
        let failures = away.map_or(0, |away| u64::from(away.failures));
        let address = self.plan.target.address_of(number + failures);
        let result = socket::connect_from(source, address).and_then(|stream| {
            let mut stream = mio::net::TcpStream::from_std(stream);
            let interest = Interest::READABLE | Interest::WRITABLE;
            self.poll.registry().register(&mut stream, Token(index), interest)?;
            let begin = |tls| Session::new(tls, self.plan.clock).map_err(io::Error::other);
            Ok((stream, self.plan.tls.as_ref().map(begin).transpose()?))
        });
        tally.counts.begun += u64::from(away.is_none());
        let connection = match result {
            Ok((stream, tls)) => {
                let plan = &self.plan;
                let key = handshake::key(number ^ plan.run_id);
                let mut request = Vec::new();
                let position = self.returning.position(index);
                let filling = plan.conversation.filling(number, &position.caught);
                match plan.conversation.client() {
                    Client::Ws => plan.conversation.write_request(
                        &plan.target,
                        None,
                        key,
                        &filling,
                        plan.deflate,
                        &mut request,
                    ),
                    Client::Sse | Client::Poll => {
                        plan.conversation.write_get(&plan.target, &filling, &mut request);
                    }
                }
                let listening = Listening::of(plan.conversation.client(), position, now_ns);
                if let Some(traced) = plan.traced(number) {
                    traced.head(Way::Out, &request);
                }
                self.connecting.push_back(Attempt { index, started_ns: now_ns });
                self.in_flight += 1;
                Connection::new(stream, tls, key, request, now_ns, away, listening)
            }
            Err(error) => {
                self.on_failure(index, away, Trouble::of_connect(&error), tally);
                Connection::failed()
            }
        };
        match self.connections.get_mut(index) {
            Some(slot) => slot.replace(connection),
            None => {
                self.connections.push(connection);
                self.subscriptions.extend((0..self.topics_each).map(|_| Sequence::default()));
            }
        }
    }

    /// Counts a connect that failed; one that was to come back tries again.
    fn on_failure(&mut self, index: usize, away: Option<Away>, trouble: Trouble, tally: &mut Tally) {
        let troubles = match away {
            Some(away) => {
                self.returning.retry(index, away, self.plan.clock.now_ns(), self.plan.backoff_ns);
                &mut tally.counts.refusals
            }
            None => {
                tally.counts.failed += 1;
                tally.counts.settled_ns = self.plan.clock.now_ns();
                &mut tally.counts.troubles
            }
        };
        *troubles.entry(trouble).or_default() += 1;
    }

    fn expire(&mut self, tally: &mut Tally) {
        while let Some(attempt) = self.connecting.front().copied() {
            let connection = self.connections.get(attempt.index);
            // A later attempt of the same connection has an entry of its own.
            let waits = connection
                .filter(|connection| connection.connecting_since_ns() == Some(attempt.started_ns))
                .map(Connection::timeout_trouble);
            if let Some(trouble) = waits {
                if self.plan.clock.now_ns() < attempt.deadline_ns() {
                    return;
                }
                self.on_trouble(attempt.index, trouble, tally);
            }
            self.connecting.pop_front();
        }
    }

    fn write_turn(&mut self, index: usize, tally: &mut Tally) {
        let Some(connection) = self.connections.get_mut(index) else { return };
        if connection.has_nothing_to_say() {
            return;
        }
        match connection.on_writable() {
            Ok(()) => self.open_asked(index, tally),
            Err(trouble) => self.on_trouble(index, trouble, tally),
        }
    }

    fn on_trouble(&mut self, index: usize, trouble: Trouble, tally: &mut Tally) {
        let Some(connection) = self.connections.get_mut(index) else { return };
        match connection.state() {
            State::Open if trouble == Trouble::PolledLast => self.on_polled_last(index),
            State::Open if self.plan.comes_back() => self.on_left(index, trouble, tally),
            State::Open => {
                tally.counts.lost += 1;
                *tally.counts.troubles.entry(trouble).or_default() += 1;
                note_close(connection, tally);
                connection.end();
            }
            State::Connecting | State::Upgrading | State::Greeting => {
                let away = connection.away();
                note_close(connection, tally);
                connection.end();
                self.in_flight -= 1;
                self.on_failure(index, away, trouble, tally);
            }
            State::Failed | State::Ended => {}
        }
    }

    fn finish(&mut self, published: &Published, tally: &mut Tally) {
        for index in 0..self.connections.len() {
            let slow = self.is_slow(index);
            let number = self.number(index);
            let Some(connection) = self.connections.get_mut(index) else { continue };
            let open = connection.state() == State::Open;
            if let Some(account) = connection.account_mut() {
                for (visits, bulletin) in account.each(self.plan.bulletins_of(number)) {
                    visits.on_finish(open, bulletin, &mut tally.counts);
                }
                connection.end();
                continue;
            }
            let counts = match tally.slow.as_mut().filter(|_| slow) {
                Some(slow) => &mut slow.counts,
                None => &mut tally.counts,
            };
            match published {
                _ if !connection.was_open() => {}
                Published::Own => counts.missing += connection.sequence().behind(connection.sent()),
                Published::Count(published) => {
                    let published = u32::try_from(*published).unwrap_or(u32::MAX);
                    counts.missing += connection.sequence().behind(published);
                }
                Published::Topics(topics) => {
                    let own = self.subscriptions.get(index * self.topics_each..).unwrap_or_default();
                    for (slot, topic) in self.plan.conversation.topics().of(number).enumerate() {
                        let Some(published) = topics.get(topic as usize) else { continue };
                        let kept = own.get(slot).filter(|_| slot < self.topics_each);
                        let sequence = kept.unwrap_or(connection.sequence());
                        settle(sequence, published, counts);
                    }
                }
            }
            connection.end();
        }
    }

    /// The connection's number among those of all workers.
    fn number(&self, index: usize) -> u64 {
        (index * self.plan.threads + self.index) as u64
    }
}

impl Attempt {
    fn deadline_ns(&self) -> u64 {
        self.started_ns + CONNECT_TIMEOUT.as_nanos() as u64
    }
}

/// Counts what a connection should have got of a topic and has not.
fn settle(sequence: &Sequence, published: &OfTopic, counts: &mut Counts) {
    let holes = sequence.holes(&published.refused);
    counts.owed += published.published();
    // Those that never were have been counted as skipped, or are behind the last one.
    counts.missing = (counts.missing + sequence.behind(published.numbers)).saturating_sub(holes);
    counts.stray += (published.refused.len() as u64).saturating_sub(holes);
}

fn note_close(connection: &Connection, tally: &mut Tally) {
    if let Some((code, reason)) = connection.close() {
        tally.counts.on_closes(*code, reason, 1);
    }
}

/// A panic elsewhere must not hide what was counted.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
