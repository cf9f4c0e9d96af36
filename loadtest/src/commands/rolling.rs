//! `rolling`: subscribers that come back whenever a server sends them away, while somebody restarts the servers.
//!
//! It restarts nothing itself; it publishes to all servers for `--duration`, and keeps account of every client:
//! how it was sent away, whether it was refused, how long it was away, and what it missed while it was not.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use crate::base::failure::Failure;
use crate::base::interrupt;
use crate::base::note::note;
use crate::base::schedule::Schedule;
use crate::cli::args::RollingArgs;
use crate::engine::connection::Role;
use crate::engine::conversation::Client;
use crate::engine::message::{Filler, Shape};
use crate::engine::run::{Run, Special};
use crate::engine::sizes::Sizes;
use crate::engine::worker;
use crate::publish;
use crate::publish::several::{PublishedToAll, ServerReport, Several};
use crate::result::course::CourseReport;
use crate::result::report::{self, Common, Finished, LatencyReport, Report, Table, microseconds_text};
use crate::result::tally::{Ending, Tally};

use super::{clients_target, soon_ns};

/// Everything has arrived when nothing has come for so long.
const QUIET: Duration = Duration::from_secs(1);
/// A message whose publish was answered so shortly before a connection's end may have been on its way in any case.
const CROSSING_NS: u64 = 100_000_000;
/// More messages than this are not kept account of.
const MESSAGES_MAX: u64 = 10_000_000;

/// The result file of `rolling`.
#[derive(Debug, Serialize)]
struct RollingReport {
    #[serde(flatten)]
    common: Common,
    /// The topic of this run; null if the URLs have no place for it, or if there are several.
    topic: Option<String>,
    /// How many topics there were.
    topics: u32,
    /// The most topics that a connection was in.
    topics_per_connection: u64,
    /// Messages per second.
    rate_per_second: f64,
    /// Bytes of a message.
    size_bytes: usize,
    /// The longest wait before a client's first attempt to come back.
    backoff_seconds: f64,
    /// Subscriptions, one for each topic of a connection, that saw a message before the run began.
    subscribed: u64,
    /// Messages that came to their turn.
    planned: u64,
    /// Messages that at least one server took.
    published: u64,
    /// What became of them, by server.
    servers: Vec<ServerReport>,
    /// Connections that ended while the run went on, each counted as often as it did.
    left: u64,
    /// The same by how they ended: `close_` and the code, or what broke them.
    endings: BTreeMap<String, u64>,
    /// Those that were open again in time.
    returned: u64,
    /// Those that were not.
    unserved: u64,
    /// The most that were open again within one second.
    returned_per_second_max: u64,
    /// Attempts to come back that failed; each was followed by another.
    refused: u64,
    /// The same by kind.
    refusals: BTreeMap<String, u64>,
    /// From the start of the attempt that succeeded to the open connection.
    reconnect_latency: Option<LatencyReport>,
    /// From the end of a client's connection to its return, waits included.
    away: Option<LatencyReport>,
    /// Messages that arrived, each counted once per client.
    deliveries: u64,
    /// Messages that did not come although the client was connected from before their publish until behind it.
    missing: u64,
    /// How long before an end a message has to be answered to be owed: as long as the slowest delivery took.
    crossing_seconds: f64,
    /// Messages that were published while a client was away, or on their way to it when it ended.
    away_missed: u64,
    /// Messages that came again on the same connection.
    duplicate: u64,
    /// Messages that came again from another server, which published them later.
    again: u64,
    /// Messages of this run that arrived changed.
    corrupt: u64,
    /// Messages that came to connections of other topics.
    stray: u64,
    /// Messages of somebody else.
    foreign: u64,
    /// From the planned send time to the arrival.
    latency: Option<LatencyReport>,
    /// The same by the planned send time; null if nothing was sent.
    latency_by_send_time: Option<CourseReport>,
    /// How long clients were away, by when they were open again; null if none came back.
    away_by_return_time: Option<CourseReport>,
}

/// Runs the command.
pub(crate) fn run(args: &RollingArgs) -> Result<Finished, Failure> {
    let target = clients_target(&args.url, &args.common)?;
    let servers = servers(args)?;
    let count = Schedule::new(0, args.rate, 1, args.common.duration).count();
    if count > MESSAGES_MAX {
        return Err(Failure::Usage(format!("{count} messages are more than {MESSAGES_MAX}: lower --rate")));
    }
    let shape = Shape { sizes: Sizes::One(args.size), filler: Filler::Letters, binary: false };
    if args.resume && args.common.listen.client.unwrap_or_default() == Client::Ws {
        let what =
            "--resume: clients of a WebSocket have no position to go on at: use an event stream or polls";
        return Err(Failure::Usage(what.into()));
    }
    let special = Special {
        returning_max: args.common.connections as usize,
        resumes: args.resume,
        bulletin_messages: Some(count),
        // Several requests are on their way at once.
        overtakes: true,
        backoff: Some(args.backoff),
        ..Special::default()
    };
    let mut run = Run::start_special(&args.common.options(), target, Role::Subscribe, shape, special)?;
    let topics = run.plan.conversation.topics();
    let names_topic = std::iter::once(&args.url).chain(&args.publish_urls).any(|url| url.contains("{topic"));
    let topic = (topics.count() == 1 && names_topic).then(|| topics.name(0).into_owned());
    if let Some(topic) = &topic {
        note(&format!("topic {topic}"));
    }
    let url = topic.as_ref().map_or_else(|| args.url.clone(), |topic| args.url.replace("{topic}", topic));
    run.open(args.common.connections as usize)?;
    let mut publisher = Several::new(servers, &run.plan).map_err(Failure::Usage)?;
    let subscribed = super::probe(&mut run, |_| publisher.probe().map_err(Failure::Failed))?;
    publisher.prepare(args.rate).map_err(Failure::Failed)?;

    let schedule = Schedule::new(soon_ns(&run), args.rate, 1, args.common.duration);
    run.order(|order| order.schedule = Some(schedule.clone()));
    let (plan, planned) = (run.plan.clone(), schedule.clone());
    let thread = std::thread::spawn(move || {
        // Where it is refused, messages leave a little later.
        let _ = fantail::sys::clock::sleep_precisely();
        publisher.run(&plan, &planned)
    });
    run.wait(Duration::MAX, |_| thread.is_finished())?;
    let published = thread.join().map_err(|_| Failure::Failed("the publisher panicked".into()))?;
    await_the_rest(args, &mut run)?;
    let topics = Arc::new(published.topics.clone());
    let mut tally = run.stop(worker::Published::Topics(topics))?;
    tally.counts.sends = published.sends;
    tally.counts.late_sends = published.late_sends;
    tally.counts.late_own = published.late_own;
    tally.counts.late_max_ns = published.late_max_ns;
    tally.counts.waited_sends = published.waited;
    tally.counts.waiting_ns = published.waiting_ns;
    tally.counts.sending_ns = schedule.planned_span_ns();
    tally.by_send.merge(&published.by_send);
    report::finish(
        RollingReport::new(args, &run, &tally, (url, topic), (published, schedule), subscribed),
        &args.common.judging(),
    )
}

/// Where to publish, and what is told there.
fn servers(args: &RollingArgs) -> Result<Vec<(String, publish::Wanted)>, Failure> {
    let server = |url: &String| Ok((url.clone(), super::posting(url, &args.publish_header, &args.common)?));
    args.publish_urls.iter().map(server).collect()
}

/// Waits until everybody is back, and until nothing comes any more.
fn await_the_rest(args: &RollingArgs, run: &mut Run) -> Result<(), Failure> {
    run.wait(args.within, |run| {
        let counts = run.counts();
        counts.returned >= counts.left || interrupt::requested()
    })?;
    run.wait_while_moving(QUIET, |run| (false, run.counts().unique))?;
    Ok(())
}

impl RollingReport {
    fn new(
        args: &RollingArgs,
        run: &Run,
        tally: &Tally,
        (url, topic): (String, Option<String>),
        (published, schedule): (PublishedToAll, Schedule),
        subscribed: u64,
    ) -> Self {
        let counts = &tally.counts;
        let mut common =
            Common::new("rolling", &url, args.common.connections, run.facts(&tally.counts), tally, true);
        // Behind the slowest delivery nothing is on its way any more.
        let crossing_ns = CROSSING_NS.max(tally.latency.max());
        let lost = tally
            .cut_off
            .as_ref()
            .map_or(0, |ages| ages.count_between(ages.highest_equivalent(crossing_ns) + 1, u64::MAX));
        let unserved = counts.left.saturating_sub(counts.returned);
        let refused = counts.refusals.values().sum();
        let broken = |(ending, count): (&Ending, &u64)| match ending {
            Ending::Close(_) => 0,
            Ending::Broken(_) => *count,
        };
        common.expect_none(&[
            (counts.subscriptions.saturating_sub(subscribed), "subscriptions saw no probe before the run"),
            (published.attempted - published.count, "messages that no server took"),
            (counts.endings.iter().map(broken).sum(), "connections broke without a close frame"),
            (refused, "attempts to come back failed"),
            (unserved, "clients did not come back in time"),
            (counts.missing + lost, "messages missing while connected"),
            (counts.duplicate, "deliveries duplicate"),
            (counts.corrupt, "deliveries corrupt"),
            (counts.stray, "deliveries to connections that nobody owed them"),
        ]);
        if let Some(why) = common.generator.strain.saturated() {
            common.problems.push(why);
        }
        let returns = tally.returns.as_deref();
        Self {
            common,
            topic,
            topics: run.plan.conversation.topics().count(),
            topics_per_connection: run.plan.conversation.topics().per_connection() as u64,
            rate_per_second: args.rate,
            size_bytes: args.size,
            backoff_seconds: args.backoff.as_secs_f64(),
            subscribed,
            planned: published.attempted,
            published: published.count,
            servers: published.servers,
            left: counts.left,
            endings: counts.endings.iter().map(|(ending, count)| (ending.name(), *count)).collect(),
            returned: counts.returned,
            unserved,
            returned_per_second_max: returns
                .and_then(|returns| returns.by_second.values().copied().max())
                .unwrap_or(0),
            refused,
            refusals: counts.refusals.iter().map(|(trouble, count)| (trouble.name(), *count)).collect(),
            reconnect_latency: returns.and_then(|returns| LatencyReport::new(&returns.attempt)),
            away: returns.and_then(|returns| LatencyReport::new(&returns.away)),
            deliveries: counts.unique,
            missing: counts.missing + lost,
            crossing_seconds: crossing_ns as f64 / 1e9,
            away_missed: counts.away_missed.saturating_sub(lost),
            duplicate: counts.duplicate,
            again: counts.again,
            corrupt: counts.corrupt,
            stray: counts.stray,
            foreign: counts.foreign,
            latency: LatencyReport::new(&tally.latency),
            latency_by_send_time: tally
                .by_send
                .report(run.started_ns, Some(&schedule.first(published.attempted))),
            away_by_return_time: returns.and_then(|returns| returns.by_return.report(run.started_ns, None)),
        }
    }
}

impl Report for RollingReport {
    fn common(&mut self) -> &mut Common {
        &mut self.common
    }

    fn table(&self) -> Table {
        let mut table = Table::default();
        self.common.rows(&mut table);
        if self.topics > 1 {
            table
                .row("topics", format!("{}, up to {} a connection", self.topics, self.topics_per_connection));
        }
        table.row("messages", format!("{} of {}, {}/s", self.published, self.planned, self.rate_per_second));
        for server in &self.servers {
            table.row("  published to", format!("{}: {}", server.url, server.accepted));
            for (name, count) in &server.errors {
                table.row(&format!("    {name}"), count);
            }
        }
        table.row("sent away", self.left);
        for (name, count) in &self.endings {
            table.row(&format!("  {name}"), count);
        }
        table.row("  came back", format!("{}, {} did not", self.returned, self.unserved));
        table.row("  at most in one second", self.returned_per_second_max);
        table.row("  refused attempts", self.refused);
        for (name, count) in &self.refusals {
            table.row(&format!("    {name}"), count);
        }
        table.latency("reconnect latency", self.reconnect_latency.as_ref());
        table.latency("away, waits included", self.away.as_ref());
        table.row("deliveries", self.deliveries);
        table.row("  missing while connected", self.missing);
        let crossing = microseconds_text(Some(self.crossing_seconds * 1e6));
        table.row("  given to arrive", format!("{crossing} before an end"));
        table.row("  published while away", self.away_missed);
        table.row("  duplicate / again", format!("{} / {}", self.duplicate, self.again));
        table.row("  corrupt / foreign", format!("{} / {}", self.corrupt, self.foreign));
        if self.stray > 0 {
            table.row("  owed to nobody", self.stray);
        }
        table.latency("delivery latency", self.latency.as_ref());
        self.common.closing_rows(&mut table);
        table
    }
}
