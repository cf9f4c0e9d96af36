//! The main thread's side of a run: starts the workers, waits for conditions, merges what they counted.
//!
//! Commands drive it: start, open, (publish or send,) stop. It blocks the main thread only, shows the
//! progress line while it waits, and knows nothing of what a command measures.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use fantail::sys::limits;
use mio::{Poll, Waker};

use crate::base::failure::Failure;
use crate::base::interrupt;
use crate::base::note::note;
use crate::base::schedule::Clock;
use crate::base::secrets;
use crate::base::trouble::{Details, Trouble};
use crate::engine::connection::Role;
use crate::engine::conversation::{Conversation, Talk};
use crate::engine::ledger::Ledger;
use crate::engine::message::{self, Shape, Streams};
use crate::engine::visits::Bulletin;
use crate::engine::worker::{BACKOFF_NS, CONNECT_TIMEOUT, Link, Order, Plan, Published, Slow, WAKER, Worker};
use crate::net::target::{self, Scheme, Target};
use crate::observe::machine;
use crate::observe::progress::{Outlook, Progress};
use crate::observe::series::Series;
use crate::observe::server_metrics;
use crate::observe::server_process::{ServerProcess, Watched};
use crate::result::report::{Facts, TlsFacts};
use crate::result::tally::{Counts, Tally};
use crate::tls::{self, Tls};

/// Descriptors of a table that are not connections.
pub(crate) const DESCRIPTORS_RESERVED: u64 = 64;
/// Connections from which more than one thread is worth it.
const CONNECTIONS_OF_ONE_THREAD: usize = 1_000;
/// Nobody waits for so long by a plan: a day.
const LONG_WAIT_NS: u64 = 86_400_000_000_000;
/// How often a waiting main thread looks.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// A run under way.
#[derive(Debug)]
pub(crate) struct Run {
    /// What all workers share.
    pub(crate) plan: Arc<Plan>,
    /// When the first connect began, in ns.
    pub(crate) started_ns: u64,
    /// From the first connect until all were opened or failed, without pauses in between.
    pub(crate) open_ns: u64,
    /// The progress line.
    pub(crate) progress: Progress,
    /// The run over time.
    pub(crate) series: Series,
    links: Vec<Arc<Link>>,
    threads: Vec<JoinHandle<(Poll, io::Result<()>)>>,
    nofile: Option<u64>,
}

/// What only some commands ask of a run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Special<'a> {
    /// The text of `--message`, to stand around test messages.
    pub(crate) message: Option<&'a str>,
    /// Whether messages are published on several connections, so that they may overtake each other.
    pub(crate) overtakes: bool,
    /// Whether a text that comes as a binary message, or the other way round, is a change.
    pub(crate) keeps_kind: bool,
    /// Subscribers that stop reading, or nearly, when messages begin to flow.
    pub(crate) slow: Option<Slow>,
    /// Connects that each worker has under way at most while dropped connections come back.
    pub(crate) returning_max: usize,
    /// Clients whose connection ends come back and are still owed everything.
    pub(crate) resumes: bool,
    /// Connections that end come back; so many messages there will be at most.
    pub(crate) bulletin_messages: Option<u64>,
    /// The longest wait before a client comes back, unless the command's own.
    pub(crate) backoff: Option<Duration>,
}

/// What every run is told.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// Connections to open.
    pub(crate) connections: u32,
    /// Threads holding them; `None` for as many as the descriptor limit asks for.
    pub(crate) threads: Option<u32>,
    /// Connects per second; `None` for as fast as the server answers.
    pub(crate) connect_rate: Option<f64>,
    /// Source addresses as a list; `None` for enough of them on loopback, else the kernel's choice.
    pub(crate) source: Option<String>,
    /// Connections whose frames are shown.
    pub(crate) trace: u64,
    /// Whether compression is offered.
    pub(crate) deflate: bool,
    /// How TLS is spoken.
    pub(crate) tls: tls::Wanted,
    /// What connections say besides test messages.
    pub(crate) talk: Talk,
    /// The server to watch.
    pub(crate) watched: Watched,
}

impl Run {
    /// Starts the workers; no connection is opened yet.
    pub(crate) fn start(
        options: &Options,
        target: Target,
        role: Role,
        shape: Shape,
    ) -> Result<Self, Failure> {
        Self::start_special(options, target, role, shape, Special::default())
    }

    /// The same, with what only some commands ask for.
    pub(crate) fn start_special(
        options: &Options,
        target: Target,
        role: Role,
        shape: Shape,
        special: Special<'_>,
    ) -> Result<Self, Failure> {
        let conversation = Conversation::new(&options.talk, &target.path, u64::from(options.connections))
            .and_then(|conversation| conversation.with_message(special.message, shape))
            .map_err(Failure::Usage)?;
        let connections = options.connections as usize;
        let tls = Tls::of(&target, &options.tls, connections).map_err(Failure::Usage)?;
        let nofile = limits::raise_nofile().ok().map(|limit| limit.soft);
        let threads = options.threads.map_or_else(|| default_threads(connections, nofile), |n| n as usize);
        // One without a connection would have its share of the messages and nobody to send them.
        let threads = threads.min(connections).max(1);
        let sources = target::source_addresses(options.source.as_deref(), target.address, connections)
            .map_err(Failure::Usage)?;
        warn_of_few_sources(sources.as_deref(), connections);
        tell_addresses(&target);
        let clock = Clock::start();
        let topics = conversation.topics().count();
        // Streams of several topics are neighbouring numbers, and only the low half may differ.
        let run_id = message::random_u64() & !(1 << 31);
        let bulletin =
            |messages: u64| (0..topics).map(|_| Bulletin::new(messages.div_ceil(topics.into()))).collect();
        let bulletins: Option<Vec<Bulletin>> = special.bulletin_messages.map(bulletin);
        let ledger = special.overtakes.then(|| Arc::new(Ledger::new(topics)));
        let plan = Arc::new(Plan {
            clock,
            target,
            tls,
            sources,
            role,
            run_id,
            streams: Streams::new(run_id, u64::from(topics)),
            shape,
            conversation,
            ledger,
            keeps_kind: special.keeps_kind,
            details: Details::default(),
            slow: special.slow,
            returning_max: special.returning_max,
            resumes: special.resumes,
            bulletins: bulletins.map(Arc::new),
            backoff_ns: special.backoff.map_or(BACKOFF_NS, |backoff| backoff.as_nanos() as u64),
            trace: options.trace,
            deflate: options.deflate,
            threads,
            connect_rate: options.connect_rate.map(|rate| rate / threads as f64),
        });
        let mut run = Self {
            plan: plan.clone(),
            started_ns: 0,
            open_ns: 0,
            progress: progress(clock, options, &plan.target),
            series: Series::new(ServerProcess::of(&options.watched).map_err(Failure::Usage)?),
            links: Vec::new(),
            threads: Vec::new(),
            nofile,
        };
        // All polls are made before the first worker splits its table off.
        let mut workers = Vec::new();
        for index in 0..threads {
            let made = Poll::new().and_then(|poll| Ok((Waker::new(poll.registry(), WAKER)?, poll)));
            let (waker, poll) = made.map_err(|error| format!("cannot make a poll: {error}"))?;
            let link = Arc::new(Link::new(waker));
            run.links.push(link.clone());
            let capacity = share(connections, index, threads);
            workers.push(Worker::new(index, poll, link, plan.clone(), capacity));
        }
        for (index, worker) in workers.into_iter().enumerate() {
            let thread = std::thread::Builder::new().name(format!("worker-{index}"));
            let thread = thread.spawn(|| worker.run()).map_err(|e| format!("cannot start a thread: {e}"))?;
            run.threads.push(thread);
        }
        // The tables must be apart before main opens a descriptor that a worker might still copy.
        run.wait(Duration::from_secs(10), |run| run.links.iter().all(|link| link.mode().is_some()))?;
        Ok(run)
    }

    /// Opens connections up to `connections` in all and waits until each is open or failed.
    pub(crate) fn open(&mut self, connections: usize) -> Result<(), String> {
        let from_ns = self.plan.clock.now_ns();
        if self.started_ns == 0 {
            self.started_ns = from_ns;
        }
        self.series.take(from_ns, &self.merged());
        for (index, link) in self.links.iter().enumerate() {
            let open_target = share(connections, index, self.links.len());
            link.order(|order| order.open_target = open_target);
        }
        // Every connect ends by its own timeout, so this needs no deadline of its own.
        self.wait(Duration::MAX, |run| {
            let counts = run.counts();
            counts.opened + counts.failed >= connections as u64 || interrupt::requested()
        })?;
        if interrupt::requested() {
            // What is under way has a moment to settle; an order takes effect within a turn.
            self.order(|order| order.open_target = 0);
            self.wait(interrupt::GRACE, |run| {
                let counts = run.counts();
                counts.opened + counts.failed >= counts.begun
            })?;
        }
        let now_ns = self.plan.clock.now_ns();
        // This thread looks every few milliseconds only.
        let settled_ns = self.counts().settled_ns.clamp(from_ns, now_ns);
        self.open_ns += settled_ns - from_ns;
        self.series.take(now_ns, &self.merged());
        Ok(())
    }

    /// Has so many connections open from now on: more are opened, or those that were opened last are closed. Does not wait
    /// for it.
    pub(crate) fn hold(&mut self, connections: usize) {
        if self.started_ns == 0 {
            self.started_ns = self.plan.clock.now_ns();
            self.series.take(self.started_ns, &self.merged());
        }
        for (index, link) in self.links.iter().enumerate() {
            let open_target = share(connections, index, self.links.len());
            link.order(|order| (order.open_target, order.closes) = (open_target, true));
        }
    }

    /// Waits until nothing is on its way to be opened any more, after [`Self::hold`].
    pub(crate) fn settle(&mut self) -> Result<(), String> {
        // An order takes effect within a turn, and every connect ends by its own timeout.
        self.wait(CONNECT_TIMEOUT, |run| {
            let counts = run.counts();
            counts.opened + counts.failed + counts.withdrawn >= counts.begun
        })?;
        let settled_ns = self.counts().settled_ns;
        self.open_ns = settled_ns.saturating_sub(self.started_ns);
        Ok(())
    }

    /// Has `drops` connections dropped in all since the start; they come back by themselves.
    pub(crate) fn drop_up_to(&self, drops: usize) {
        for (index, link) in self.links.iter().enumerate() {
            let share = share(drops, index, self.links.len()) as u64;
            link.order(|order| order.drops = share);
        }
    }

    /// Connections that were to be dropped by now.
    pub(crate) fn drops_ordered(&self) -> u64 {
        self.links.iter().map(|link| link.ordered().drops).sum()
    }

    /// Changes the orders of all workers.
    pub(crate) fn order(&self, change: impl Fn(&mut Order)) {
        for link in &self.links {
            link.order(&change);
        }
    }

    /// The links to the workers, in their order.
    pub(crate) fn links(&self) -> &[Arc<Link>] {
        &self.links
    }

    /// The plain numbers of all workers.
    pub(crate) fn counts(&self) -> Counts {
        let mut sum = Counts::default();
        for link in &self.links {
            sum.merge(&link.tally().counts);
        }
        sum
    }

    /// The plain numbers of slow subscribers, once messages flow.
    pub(crate) fn slow_counts(&self) -> Counts {
        let mut sum = Counts::default();
        for link in &self.links {
            if let Some(slow) = &link.tally().slow {
                sum.merge(&slow.counts);
            }
        }
        sum
    }

    /// Waits for a condition, showing progress. False if it did not come before the deadline.
    pub(crate) fn wait(
        &mut self,
        at_most: Duration,
        mut done: impl FnMut(&Self) -> bool,
    ) -> Result<bool, String> {
        let from_ns = self.plan.clock.now_ns();
        let at_most_ns = u64::try_from(at_most.as_nanos()).unwrap_or(u64::MAX);
        loop {
            if done(self) {
                return Ok(true);
            }
            // A worker returns before it is told to only if its poll failed.
            if self.threads.iter().any(JoinHandle::is_finished) {
                return Err("a worker thread ended before its time".into());
            }
            let now_ns = self.plan.clock.now_ns();
            let left_ns = (from_ns.saturating_add(at_most_ns)).saturating_sub(now_ns);
            if left_ns == 0 {
                return Ok(false);
            }
            if self.progress.is_due(now_ns) {
                let tally = self.merged();
                self.series.take_if_due(now_ns, &tally);
                let outlook = self.outlook(now_ns, &tally, left_ns);
                self.progress.show(now_ns, &tally, outlook);
            }
            std::thread::sleep(LOOK_EVERY.min(Duration::from_nanos(left_ns)));
        }
    }

    /// What the plan says of now; `left_ns` is how long the command is going to wait at most.
    fn outlook(&self, now_ns: u64, tally: &Tally, left_ns: u64) -> Outlook {
        let schedule = self.links.first().and_then(|link| link.ordered().schedule);
        let Some(schedule) = schedule else {
            let bounded = left_ns < LONG_WAIT_NS;
            return Outlook { left: bounded.then(|| Duration::from_nanos(left_ns)), ..Outlook::default() };
        };
        let sends = self.plan.role.sends();
        let end_ns = schedule.planned_ns(schedule.count().saturating_sub(1));
        let due = schedule.cut(now_ns).count() as f64;
        // Each message goes to all that are in its topic.
        let topics = f64::from(self.plan.conversation.topics().count());
        let each = if sends { 1.0 } else { tally.counts.subscriptions as f64 / topics.max(1.0) };
        let left = Some(Duration::from_nanos(end_ns.saturating_sub(now_ns)));
        Outlook { due: Some(due * each), sends, left }
    }

    /// Waits for a condition for as long as a number changes; false once it has stood still for `still`. What a
    /// busy machine takes long for is late, not missing.
    pub(crate) fn wait_while_moving(
        &mut self,
        still: Duration,
        mut look: impl FnMut(&Self) -> (bool, u64),
    ) -> Result<bool, String> {
        let clock = self.plan.clock;
        let still_ns = u64::try_from(still.as_nanos()).unwrap_or(u64::MAX);
        let (mut last, mut moved_ns, mut done) = (None, clock.now_ns(), false);
        self.wait(Duration::MAX, |run| {
            let (is_done, number) = look(run);
            if last != Some(number) {
                (last, moved_ns) = (Some(number), clock.now_ns());
            }
            done = is_done;
            done || clock.now_ns() - moved_ns >= still_ns
        })?;
        Ok(done)
    }

    /// Ends all connections and returns what was counted, with what never came as missing.
    pub(crate) fn stop(&mut self, published: Published) -> Result<Tally, String> {
        if self.started_ns > 0 {
            // Before the workers end and give their memory back.
            self.series.take(self.plan.clock.now_ns(), &self.merged());
        }
        self.order(|order| order.stop = Some(published.clone()));
        for thread in self.threads.drain(..) {
            // The poll that comes back is closed here, in the table in which it was made.
            match thread.join() {
                Ok((_poll, Ok(()))) => {}
                Ok((_poll, Err(error))) => return Err(format!("a worker's poll failed: {error}")),
                Err(_) => return Err("a worker thread panicked".into()),
            }
        }
        self.progress.finish();
        Ok(self.merged())
    }

    /// What a report says of the run beside what it counted; `counts` are those of its end.
    pub(crate) fn facts(&self, counts: &Counts) -> Facts {
        let mut modes: Vec<String> =
            self.links.iter().filter_map(|link| link.mode()).map(|mode| mode.to_string()).collect();
        modes.dedup();
        let tls = self.plan.tls.as_deref();
        Facts {
            threads: self.plan.threads,
            descriptor_tables: modes.join(", "),
            descriptors_per_table: self.nofile,
            sources: self.plan.sources.as_ref().map(Vec::len),
            open_ns: self.open_ns,
            interrupted: interrupt::requested(),
            started_unix_seconds: self.series.begin_unix_seconds(),
            series: self.series.columns(),
            intervals: self.series.intervals(),
            server_files: self.series.server_files(),
            kernel: self.series.kernel(),
            quota: self.series.quota(),
            machine: machine::machine(),
            advice: advice(tls, &self.plan.details, counts),
            server_metrics: server_metrics::report(),
            tls: tls.map(Tls::summary).map(|summary| TlsFacts {
                server_name: summary.server_name,
                verified: summary.verifies,
                trust: summary.trust,
                agreed: summary.agreed,
                resumes: summary.resumes,
            }),
        }
    }

    /// All that was counted so far.
    pub(crate) fn merged(&self) -> Tally {
        let mut sum = Tally::new();
        for link in &self.links {
            sum.merge(&link.tally());
        }
        sum
    }
}

/// As many threads as the descriptor limit asks for, and all cores from a thousand connections on.
pub(crate) fn default_threads(connections: usize, nofile: Option<u64>) -> usize {
    let per_table = nofile.unwrap_or(1024).saturating_sub(DESCRIPTORS_RESERVED).max(1);
    let for_tables = connections.div_ceil(usize::try_from(per_table).unwrap_or(usize::MAX)).max(1);
    if connections < CONNECTIONS_OF_ONE_THREAD {
        return for_tables;
    }
    for_tables.max(std::thread::available_parallelism().map_or(1, usize::from))
}

fn progress(clock: Clock, options: &Options, target: &Target) -> Progress {
    Progress::new(clock, u64::from(options.connections), place(target), options.trace > 0)
}

/// Where connections go, without what nobody should read over a shoulder.
fn place(target: &Target) -> String {
    let scheme = match (target.scheme, target.secure) {
        (Scheme::Ws, false) => "ws",
        (Scheme::Ws, true) => "wss",
        (Scheme::Http, false) => "http",
        (Scheme::Http, true) => "https",
    };
    secrets::url(&format!("{scheme}://{}{}", target.authority, target.path))
}

/// Worker `index` opens every `threads`-th connection.
fn share(connections: usize, index: usize, threads: usize) -> usize {
    connections / threads + usize::from(index < connections % threads)
}

/// What to do about the troubles of a run, those of coming back included.
fn advice(tls: Option<&Tls>, details: &Details, counts: &Counts) -> Vec<String> {
    let troubles: BTreeSet<Trouble> = counts.troubles.keys().chain(counts.refusals.keys()).copied().collect();
    let of = |trouble: Trouble| {
        let hint = tls::hint(trouble, tls.is_some())?;
        let told = tls.and_then(|tls| tls.detail(trouble)).or_else(|| details.of(trouble));
        let detail = told.map(|detail| format!(" ({detail})"));
        Some(format!("{}: {hint}{}", trouble.name(), detail.unwrap_or_default()))
    };
    troubles.into_iter().filter_map(of).collect()
}

/// Says which addresses a name has, if it is not only one.
fn tell_addresses(target: &Target) {
    if !target.others.is_empty() {
        let all: Vec<String> =
            std::iter::once(&target.address).chain(&target.others).map(ToString::to_string).collect();
        note(&format!("{} addresses, used in turn: {}", all.len(), all.join(", ")));
    }
}

fn warn_of_few_sources(sources: Option<&[IpAddr]>, connections: usize) {
    let room = sources.map_or(1, <[IpAddr]>::len) * target::CONNECTIONS_PER_SOURCE * 2;
    if connections > room {
        note(&format!(
            "warning: {connections} connections from {} source address(es) may run out of ports; see --source",
            sources.map_or(1, <[IpAddr]>::len)
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_follow_the_descriptor_limit() {
        assert_eq!(default_threads(10, Some(20_000)), 1);
        assert_eq!(default_threads(500, Some(164)), 5);
        assert!(default_threads(50_000, Some(20_000)) >= 3);
        assert_eq!(default_threads(10, Some(10)), 10);
    }

    #[test]
    fn shares_add_up_and_grow_one_by_one() {
        for connections in 0..40 {
            for threads in 1..7 {
                let shares: Vec<usize> = (0..threads).map(|i| share(connections, i, threads)).collect();
                assert_eq!(shares.iter().sum::<usize>(), connections);
                assert!(shares.iter().max().unwrap() - shares.iter().min().unwrap() <= 1);
            }
        }
    }
}
