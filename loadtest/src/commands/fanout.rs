//! `fanout`: subscribers, one publisher, and the account of every delivery.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use crate::base::failure::Failure;
use crate::base::interrupt;
use crate::base::note::note;
use crate::base::pace::Pace;
use crate::base::schedule::Schedule;
use crate::base::secrets;
use crate::cli::args::{FanoutArgs, PublishBy};
use crate::engine::connection::Role;
use crate::engine::run::{Options, Run, Special};
use crate::engine::worker::{self, OfTopic};
use crate::net::target::{Scheme, Target};
use crate::observe::server_process::{ServerProcess, cpu_between};
use crate::publish::{self, PublishError, Published, Publisher};
use crate::result::messages_report::MessagesReport;
use crate::result::report::{
    self, Common, Finished, LatencyReport, Report, Table, microseconds_text, number_text,
};
use crate::result::tally::{Tally, Tick};

use super::resuming::{self, Drops, Resumed};
use super::{LINGER, clients_target, planned, soon_ns, watched};

/// Slow subscribers have caught up when nothing has come for so long.
const QUIET: Duration = Duration::from_secs(1);
/// A publisher that sends less than this share of what was asked is saturated.
const ACHIEVED_MIN: f64 = 0.95;
/// And if it was behind by more than this in the end, and had been for as long; less is one pause of a busy machine, behind
/// which all that was due leaves at once. Of a run that is shorter than twice that, half of it.
const BEHIND_NS_MAX: u64 = 1_000_000_000;
/// However short a run is.
const BEHIND_NS_LEAST: u64 = 100_000_000;

/// The result file of `fanout`.
#[derive(Debug, Serialize)]
pub(super) struct FanoutReport {
    #[serde(flatten)]
    pub(super) common: Common,
    /// The topic of this run; null if no URL has a place for one, or if there are several.
    topic: Option<String>,
    /// How many topics there were.
    topics: u32,
    /// The most topics that a connection was in.
    topics_per_connection: u64,
    /// `http` or `ws`.
    publish: &'static str,
    /// Where messages were published, with the topic filled in.
    publish_url: String,
    #[serde(flatten)]
    messages: MessagesReport,
    /// Connections that saw a probe before the run; the others were not subscribed in time.
    subscribed: u64,
    /// Messages published, with those of unknown fate.
    published: u64,
    /// Of these, messages whose publishing broke off, so that nobody knows their fate.
    published_unknown: u64,
    /// Messages that the server refused.
    published_refused: u64,
    /// Messages that were not sent, for want of a connection.
    published_not_sent: u64,
    /// Messages a second that left; null if none did.
    published_per_second: Option<f64>,
    /// Connections that messages were published on, the most at once.
    publish_connections: u64,
    /// From the send to the end of the server's answer; null over WebSocket.
    publish_latency: Option<LatencyReport>,
    /// Refusals and errors of publishing by kind.
    publish_errors: BTreeMap<String, u64>,
    /// What was published to each topic times its members that were opened (and are not slow on purpose).
    deliveries_expected: u64,
    /// Messages that came to connections of other topics, or although the server had refused them.
    stray: u64,
    /// Messages that came behind later ones which had left before they were answered: nobody owed an order.
    overtaken: u64,
    /// Messages that arrived, each counted once per connection.
    deliveries: u64,
    /// Deliveries, probes included, that came compressed.
    deflated: u64,
    /// Their bytes as they came, without frame headers.
    deflated_bytes: u64,
    /// Deliveries by the time from the first planned send to the last arrival.
    deliveries_per_second: Option<f64>,
    /// From the planned time of a message (or burst) to its last arrival, median of the complete ones.
    fan_out_median_microseconds: Option<f64>,
    /// The longest of the complete ones.
    fan_out_max_microseconds: Option<f64>,
    /// Messages (or bursts) that reached everybody.
    fan_outs_complete: u64,
    /// What became of clients that come back; only with `--resume`.
    #[serde(skip_serializing_if = "Option::is_none")]
    resumed: Option<Resumed>,
    /// Processor time of the server while publishing; null without `--pid` or `--server-metrics`.
    server_cpu_seconds: Option<f64>,
    /// The same per delivery.
    server_cpu_nanoseconds_per_delivery: Option<f64>,
}

/// What a run gave.
pub(super) struct Outcome {
    /// What was counted.
    pub(super) tally: Tally,
    /// Messages that slow subscribers had read before they caught up.
    pub(super) slow_in_time: u64,
    /// Connections that should have got everything.
    readers: u64,
    published: Published,
    schedule: Schedule,
    subscribed: u64,
    cpu: Option<Duration>,
}

/// Runs the command.
pub(crate) fn run(args: &FanoutArgs) -> Result<Finished, Failure> {
    resuming::check(args)?;
    let urls = Urls::new(args)?;
    let server = watched(&args.common)?;
    let mut run = Run::start_special(
        &options(args, &urls),
        urls.target.clone(),
        Role::Subscribe,
        args.load.shape(),
        special(args),
    )?;
    tell_topic(&urls, &run);
    let outcome = measure(args, &urls, server, &mut run, &mut || ())?;
    let report = FanoutReport::new("fanout", args, &run, urls, outcome);
    report::finish(report, &args.common.judging())
}

/// Subscribes, publishes, and waits for what was published. `on_look` is called every few milliseconds
/// while messages flow.
pub(super) fn measure(
    args: &FanoutArgs,
    urls: &Urls,
    server: Option<ServerProcess>,
    run: &mut Run,
    on_look: &mut dyn FnMut(),
) -> Result<Outcome, Failure> {
    let pace = pace(args);
    let schedule = planned(&pace, args.load.burst)?;
    let warm_up = args.load.pace.warm_up(&pace).map(|pace| planned(&pace, args.load.burst)).transpose()?;
    run.open(args.common.connections as usize)?;
    let mut publisher = Publisher::start(run.plan.clone(), &wanted(args, urls))
        .map_err(|error| urls.failure(args, run, &error))?;
    let subscribed = probe(run, &mut publisher, args, urls)?;
    publisher.prepare(pace.peak(), args.load.burst).map_err(|error| urls.failure(args, run, &error))?;

    if let Some(warm_up) = warm_up {
        let warm_up = warm_up.starting(soon_ns(run));
        let thread = std::thread::spawn(move || {
            publisher.warm_up(&warm_up);
            publisher
        });
        run.wait(Duration::MAX, |_| thread.is_finished())?;
        publisher = thread.join().map_err(|_| Failure::Failed("the publisher panicked".into()))?;
    }
    let cpu_from = server.and_then(ServerProcess::cpu_time);
    let schedule = schedule.starting(soon_ns(run));
    run.order(|order| order.schedule = Some(schedule.clone()));
    let plan = schedule.clone();
    let thread = std::thread::spawn(move || {
        // Where it is refused, messages leave a little later.
        let _ = fantail::sys::clock::sleep_precisely();
        let published = publisher.run(&plan);
        (publisher, published)
    });
    let mut drops = Drops::new(args, &schedule);
    run.wait(Duration::MAX, |run| {
        on_look();
        drops.on_look(run);
        thread.is_finished()
    })?;
    let (publisher, published) =
        thread.join().map_err(|_| Failure::Failed("the publisher panicked".into()))?;
    // A run that ended early has no more messages than the publisher came to.
    let schedule = schedule.first(published.attempted);
    let expected = expected(args, run, &published);
    resuming::await_returns(args, run)?;
    run.wait_while_moving(args.common.kit.wait_late, |run| {
        on_look();
        let counts = run.counts();
        let readers = counts.opened.saturating_sub(run.slow_counts().opened);
        // With everybody gone nothing comes any more.
        let gone = counts.lost >= counts.opened;
        (gone || counts.unique >= expected.unwrap_or(readers * published.count), counts.unique)
    })?;
    let cpu = cpu_between(cpu_from, server.and_then(ServerProcess::cpu_time));
    run.wait(LINGER, |_| false)?;
    let slow_in_time = run.slow_counts().unique;
    if run.plan.slow.is_some() {
        catch_up(run)?;
    }
    // Not before: closing could take messages with it that the server has not read yet.
    drop(publisher);
    let topics = Arc::new(published.topics.clone());
    let mut tally = run.stop(worker::Published::Topics(topics))?;
    tally.counts.sends = published.attempted;
    tally.counts.late_sends = published.late_sends;
    tally.counts.late_own = published.late_own;
    tally.counts.late_max_ns = published.late_max_ns;
    tally.counts.waited_sends = published.waited;
    tally.counts.waiting_ns = published.waiting_ns;
    tally.counts.sending_ns = schedule.planned_span_ns();
    tally.by_send.merge(&published.by_send);
    let readers =
        tally.counts.opened.saturating_sub(tally.slow.as_ref().map_or(0, |slow| slow.counts.opened));
    Ok(Outcome { tally, slow_in_time, readers, published, schedule, subscribed, cpu })
}

/// When messages leave.
fn pace(args: &FanoutArgs) -> Pace {
    args.load.pace.pace(args.rate, args.common.duration)
}

/// Lets slow subscribers read until nothing comes any more.
fn catch_up(run: &mut Run) -> Result<(), Failure> {
    run.order(|order| order.catch_up = true);
    run.wait_while_moving(QUIET, |run| {
        let counts = run.slow_counts();
        (counts.lost >= counts.opened, counts.unique + counts.lost)
    })?;
    Ok(())
}

/// Deliveries of a run with several topics; `None` with one, where those count that are open.
fn expected(args: &FanoutArgs, run: &Run, published: &Published) -> Option<u64> {
    if run.plan.conversation.topics().count() == 1 {
        return None;
    }
    let readers = run.plan.readers(args.common.connections.into());
    let of = |(readers, of): (&u64, &OfTopic)| readers * of.published();
    Some(readers.iter().zip(&published.topics).map(of).sum())
}

impl Outcome {
    /// Counts that should be 0.
    fn problems(&self) -> [(u64, &'static str); 5] {
        let counts = &self.tally.counts;
        let unsubscribed = counts.subscriptions.saturating_sub(self.subscribed);
        let Published { count, refused, not_sent, unknown, .. } = self.published;
        [
            (unsubscribed, "subscriptions saw no probe before the run"),
            (refused, "messages refused by the server"),
            (not_sent, "messages not sent, for want of a connection"),
            (self.schedule.count().saturating_sub(count + refused + not_sent), "messages not published"),
            (unknown, "messages broke off while publishing"),
        ]
    }

    /// Whether it took much longer than was planned, and was late for as long.
    fn is_behind(&self) -> bool {
        let took_ns = self.published.last_ns.saturating_sub(self.schedule.planned_ns(0));
        let span_ns = self.schedule.planned_span_ns();
        let behind_ns = took_ns.saturating_sub(span_ns).min(self.published.late_lasting_ns);
        behind_ns > (span_ns / 2).clamp(BEHIND_NS_LEAST, BEHIND_NS_MAX)
    }

    /// Messages a second that left, over the time that was planned for them or, if that was longer, that they took.
    fn achieved(&self) -> Option<f64> {
        let start_ns = self.schedule.planned_ns(0);
        let took_ns = self.published.last_ns.saturating_sub(start_ns).max(self.schedule.planned_span_ns());
        (self.published.attempted > 0).then(|| self.published.attempted as f64 * 1e9 / took_ns.max(1) as f64)
    }
}

impl FanoutReport {
    /// The result of `command`, which publishes.
    pub(super) fn new(
        command: &'static str,
        args: &FanoutArgs,
        run: &Run,
        urls: Urls,
        outcome: Outcome,
    ) -> Self {
        let mut common = Common::new(
            command,
            &urls.url,
            args.common.connections,
            run.facts(&outcome.tally.counts),
            &outcome.tally,
            true,
        );
        common.expect_none(&outcome.problems());
        let rate = pace(args).mean();
        let load = args.load.offered(rate);
        let messages = MessagesReport::new(load, &outcome.schedule, &outcome.tally, run.started_ns);
        common.expect_none(&messages.problems("deliveries"));
        common
            .expect_none(&[(outcome.tally.counts.stray, "deliveries to connections that nobody owed them")]);
        let resumed = Resumed::new(args, &outcome.tally);
        let unserved = resumed.as_ref().map_or(0, |resumed| resumed.unserved);
        common.expect_none(&[(unserved, "clients did not come back in time")]);
        let achieved = outcome.achieved();
        judge_publisher(&mut common, rate, achieved, outcome.is_behind());
        let Outcome { tally, readers, published, schedule, subscribed, cpu, .. } = outcome;
        let counts = &tally.counts;
        let topics = run.plan.conversation.topics();
        let by_topic = run.plan.readers(args.common.connections.into());
        let subscribers = |index: u64| match by_topic.len() as u64 {
            0 | 1 => readers,
            count => by_topic.get((index % count) as usize).copied().unwrap_or(0),
        };
        let FanOuts { median_ns, max_ns, complete, last_ns } = fan_outs(&schedule, &tally.ticks, subscribers);
        let start_ns = schedule.planned_ns(0);
        // A publisher that was dead for a while has not been faster for that.
        let span_ns = last_ns.map(|last_ns| last_ns.saturating_sub(start_ns).max(schedule.planned_span_ns()));
        let seconds = span_ns.map(|span_ns| span_ns as f64 / 1e9);
        let single = topics.count() == 1;
        Self {
            common,
            topic: (single && urls.names_topic).then(|| topics.name(0).into_owned()),
            topics: topics.count(),
            topics_per_connection: topics.per_connection() as u64,
            publish: if args.publishing.publish == PublishBy::Ws { "ws" } else { "http" },
            publish_url: urls.shown(&urls.publish_url, run),
            messages,
            subscribed,
            published: published.count,
            published_unknown: published.unknown,
            published_refused: published.refused,
            published_not_sent: published.not_sent,
            published_per_second: achieved,
            publish_connections: published.connections,
            publish_latency: LatencyReport::new(&published.answers),
            deliveries_expected: counts.owed,
            stray: counts.stray,
            overtaken: counts.overtaken,
            publish_errors: published.errors,
            deliveries: counts.unique,
            deflated: counts.deflated,
            deflated_bytes: counts.deflated_bytes,
            deliveries_per_second: seconds.filter(|s| *s > 0.0).map(|s| counts.unique as f64 / s),
            fan_out_median_microseconds: median_ns.map(|ns| ns as f64 / 1e3),
            fan_out_max_microseconds: max_ns.map(|ns| ns as f64 / 1e3),
            fan_outs_complete: complete,
            resumed,
            server_cpu_seconds: cpu.map(|cpu| cpu.as_secs_f64()),
            server_cpu_nanoseconds_per_delivery: cpu
                .filter(|_| counts.unique > 0)
                .map(|cpu| cpu.as_nanos() as f64 / counts.unique as f64),
        }
    }

    /// The rows in front of the closing ones.
    pub(super) fn rows(&self, table: &mut Table) {
        self.common.rows(table);
        table.row("published to", format!("{} ({})", self.publish_url, self.publish));
        if self.topics > 1 {
            table.row(
                "  topics",
                format!("{}, up to {} a connection", self.topics, self.topics_per_connection),
            );
        }
        self.messages.plan_row(table);
        let rate = number_text(self.published_per_second, 1, "/s");
        table.row("  published", format!("{} of {}, {rate}", self.published, self.messages.planned));
        if self.publish_latency.is_some() {
            table.latency("  answered in", self.publish_latency.as_ref());
            table.row("  on connections", self.publish_connections);
        }
        for (name, count) in &self.publish_errors {
            table.row(&format!("  {name}"), count);
        }
        table.row("deliveries", format!("{} of {}", self.deliveries, self.deliveries_expected));
        self.messages.rows(table);
        if self.overtaken > 0 {
            table.row("  published at once", format!("{} came in another order", self.overtaken));
        }
        if self.stray > 0 {
            table.row("  owed to nobody", self.stray);
        }
        if let Some(each) = self.deflated_bytes.checked_div(self.deflated) {
            table.row("  compressed", format!("{}, {each} bytes each", self.deflated));
        }
        table.row("  per second", number_text(self.deliveries_per_second, 0, ""));
        self.messages.latency_row("delivery latency", table);
        let median = microseconds_text(self.fan_out_median_microseconds);
        let max = microseconds_text(self.fan_out_max_microseconds);
        let text = format!("median {median}, max {max}, {} complete", self.fan_outs_complete);
        table.row("planned to last arrival", text);
        if let Some(resumed) = &self.resumed {
            resumed.rows(table);
        }
        let cpu = number_text(self.server_cpu_seconds, 3, " s");
        let each = number_text(self.server_cpu_nanoseconds_per_delivery, 0, " ns");
        table.row("server processor time", format!("{cpu}, {each} per delivery"));
    }
}

/// Whether the publisher held its rate, or has measured its own waiting.
fn judge_publisher(common: &mut Common, rate: f64, achieved: Option<f64>, is_behind: bool) {
    if let Some(why) = common.generator.strain.saturated() {
        common.problems.push(why);
    } else if is_behind && achieved.is_some_and(|achieved| achieved < rate * ACHIEVED_MIN) {
        let achieved = number_text(achieved, 1, "/s");
        let why = format!("publisher saturated: {achieved} of {rate}/s left");
        common.generator.strain.bottleneck.push(why.clone());
        common.problems.push(why);
    }
}

impl Report for FanoutReport {
    fn common(&mut self) -> &mut Common {
        &mut self.common
    }

    fn table(&self) -> Table {
        let mut table = Table::default();
        self.rows(&mut table);
        self.common.closing_rows(&mut table);
        table
    }
}

/// The URLs of a run.
pub(super) struct Urls {
    url: String,
    publish_url: String,
    /// Whether one has a place for a topic.
    names_topic: bool,
    /// `url`, resolved.
    pub(super) target: Target,
    publish_target: Target,
}

impl Urls {
    /// Resolves them.
    pub(super) fn new(args: &FanoutArgs) -> Result<Self, Failure> {
        let url = args.url.clone();
        let publish_url = args.publishing.publish_url.clone().unwrap_or_else(|| url.clone());
        let publish_target = super::target(&publish_url, &args.common)?;
        let target = clients_target(&url, &args.common)?;
        match (args.publishing.publish, publish_target.scheme) {
            (PublishBy::Http, Scheme::Http) | (PublishBy::Ws, Scheme::Ws) => {}
            (PublishBy::Http, Scheme::Ws) => {
                return Err(Failure::Usage(format!(
                    "--publish-url {publish_url}: needs http:// or https://, or --publish ws"
                )));
            }
            (PublishBy::Ws, Scheme::Http) => {
                return Err(Failure::Usage(format!(
                    "--publish-url {publish_url}: --publish ws needs ws:// or wss://"
                )));
            }
        }
        let publishing = &args.publishing;
        if publishing.publish == PublishBy::Ws
            && (publishing.publish_body.is_some()
                || !publishing.publish_header.is_empty()
                || publishing.publishers.is_some())
        {
            let what = "--publish-header, --publish-body and --publishers are about requests";
            return Err(Failure::Usage(format!(
                "{what}: leave out --publish ws, or use --header and --message"
            )));
        }
        let names_topic = [&url, &publish_url].iter().any(|url| url.contains("{topic"));
        Ok(Self { url, publish_url, names_topic, target, publish_target })
    }

    /// A URL as it is reported: with the topic, if there is only one, and without secrets.
    pub(super) fn shown(&self, url: &str, run: &Run) -> String {
        let topics = run.plan.conversation.topics();
        secrets::url(&if topics.count() == 1 {
            url.replace("{topic}", &topics.name(0))
        } else {
            url.to_owned()
        })
    }

    /// Why publishing can't be begun.
    fn failure(&self, args: &FanoutArgs, run: &Run, error: &PublishError) -> Failure {
        if let PublishError::Usage(what) = error {
            return Failure::Usage(what.clone());
        }
        let hint = match (args.publishing.given, args.publishing.publish) {
            (true, _) => "",
            (false, PublishBy::Http) => {
                "; no --publish-url was given, so messages go where a Fantail server takes them: name the place, or \
                 use --publish ws"
            }
            (false, PublishBy::Ws) => "; no --publish-url was given, so messages go to the --url",
        };
        Failure::Failed(format!("{}: {error}{hint}", self.shown(&self.publish_url, run)))
    }
}

/// The options of a run that publishes.
pub(super) fn options(args: &FanoutArgs, urls: &Urls) -> Options {
    let mut options = args.common.options();
    let texts = [&args.load.message, &args.publishing.publish_body].into_iter().flatten();
    options.talk.topics.published = texts.chain([&urls.publish_target.path]).cloned().collect();
    options
}

/// What a run is told that publishes.
pub(super) fn special(args: &FanoutArgs) -> Special<'_> {
    Special {
        resumes: args.resuming.resume,
        returning_max: args.common.connections as usize,
        backoff: args.resuming.resume.then_some(args.resuming.backoff),
        message: args.load.message.as_deref(),
        overtakes: args.publishing.publish == PublishBy::Http,
        keeps_kind: args.publishing.publish == PublishBy::Ws,
        ..Special::default()
    }
}

/// Says which topic is used, so that others can look at it.
pub(super) fn tell_topic(urls: &Urls, run: &Run) {
    let topics = run.plan.conversation.topics();
    match topics.count() {
        1 if urls.names_topic => note(&format!("topic {}", topics.name(0))),
        1 => {}
        count => note(&format!("topics {} to {}", topics.name(0), topics.name(count - 1))),
    }
}

fn wanted(args: &FanoutArgs, urls: &Urls) -> publish::Wanted {
    publish::Wanted {
        target: urls.publish_target.clone(),
        publishers: args.publishing.publishers,
        method: args.publishing.publish_method.clone(),
        headers: args.publishing.publish_header.clone(),
        body: args.publishing.publish_body.clone(),
        tls: args.common.tls.wanted(),
    }
}

/// As [`super::probe`]; a server that lets no client publish is told.
fn probe(run: &mut Run, publisher: &mut Publisher, args: &FanoutArgs, urls: &Urls) -> Result<u64, Failure> {
    let probed = super::probe(run, |run| publisher.probe().map_err(|error| urls.failure(args, run, &error)))?;
    let counts = run.counts();
    if args.publishing.publish == PublishBy::Ws
        && probed == 0
        && counts.opened > counts.lost
        && !interrupt::requested()
    {
        return Err(Failure::Failed(format!(
            "{}: nothing that was published there arrived anywhere: does the server let clients publish (Fantail: \
             publish.topics in its configuration), and is it what the subscribers are subscribed to?",
            urls.shown(&urls.publish_url, run)
        )));
    }
    Ok(probed)
}

struct FanOuts {
    median_ns: Option<u64>,
    max_ns: Option<u64>,
    complete: u64,
    last_ns: Option<u64>,
}

/// How long ticks took that reached every subscriber with every message.
fn fan_outs(schedule: &Schedule, ticks: &[Tick], subscribers: impl Fn(u64) -> u64) -> FanOuts {
    let mut durations_ns = Vec::new();
    // A run that ended early has counted no more ticks than its schedule has now.
    for (index, tick) in ticks.iter().enumerate().take(schedule.ticks() as usize) {
        let messages = schedule.messages_of_tick(index as u64);
        let wanted: u64 = messages.clone().map(&subscribers).sum();
        if wanted > 0 && tick.deliveries == wanted {
            durations_ns.push(tick.last_ns.saturating_sub(schedule.planned_ns(messages.start)));
        }
    }
    durations_ns.sort_unstable();
    FanOuts {
        median_ns: durations_ns.get(durations_ns.len() / 2).copied(),
        max_ns: durations_ns.last().copied(),
        complete: durations_ns.len() as u64,
        last_ns: ticks.iter().map(|tick| tick.last_ns).max().filter(|last_ns| *last_ns > 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_complete_fan_outs_have_a_duration() {
        let schedule = Schedule::new(1_000, 1000.0, 1, Duration::from_millis(3));
        let tick = |after_ms: u64, deliveries| Tick { last_ns: 1_000 + after_ms * 1_000_000, deliveries };
        let ticks = [tick(5, 10), tick(3, 9), tick(9, 10)];
        let found = fan_outs(&schedule, &ticks, |_| 10);
        assert_eq!(found.complete, 2);
        assert_eq!(found.median_ns, Some(7_000_000));
        assert_eq!(found.max_ns, Some(7_000_000));
        // Ended early, after two ticks.
        assert_eq!(fan_outs(&schedule.clone().first(2), &ticks, |_| 10).complete, 1);
        let none = fan_outs(&schedule, &[], |_| 10);
        assert_eq!((none.median_ns, none.last_ns, none.complete), (None, None, 0));
    }
}
