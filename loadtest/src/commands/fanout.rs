//! `fanout`: subscribers, one publisher, and the account of every delivery.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use crate::base::failure::Failure;
use crate::base::interrupt;
use crate::base::note::note;
use crate::base::schedule::Schedule;
use crate::cli::args::{FanoutArgs, PublishBy};
use crate::engine::connection::Role;
use crate::engine::message;
use crate::engine::run::{Run, Special};
use crate::engine::worker;
use crate::net::target::{Scheme, TOPIC_PLACEHOLDER, Target};
use crate::observe::server_process::{ServerProcess, cpu_between};
use crate::publish::{Published, Publisher};
use crate::result::messages_report::MessagesReport;
use crate::result::report::{self, Common, Finished, Report, Table, microseconds_text, number_text};
use crate::result::tally::{Tally, Tick};
use crate::tls::Tls;

use super::{ARRIVAL_QUIET, LINGER, soon_ns, watched, ws_target};

/// Slow subscribers have caught up when nothing has come for so long.
const QUIET: Duration = Duration::from_millis(500);
/// When no further connection has seen a probe for so long, another is sent.
const PROBE_QUIET: Duration = Duration::from_secs(1);
/// Probes before the run begins without those that have seen none.
const PROBES: usize = 10;

/// The result file of `fanout`.
#[derive(Debug, Serialize)]
pub(super) struct FanoutReport {
    #[serde(flatten)]
    pub(super) common: Common,
    /// The topic of this run; null if no URL has a place for one.
    topic: Option<String>,
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
    /// Refusals and errors of publishing by kind.
    publish_errors: BTreeMap<String, u64>,
    /// `published` times the connections that were opened (and are not slow on purpose).
    deliveries_expected: u64,
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
    let urls = Urls::new(args)?;
    let server = watched(&args.common)?;
    if let Some(topic) = &urls.topic {
        note(&format!("topic {topic}"));
    }
    let special = Special { message: args.load.message.as_deref(), ..Special::default() };
    let mut run = Run::start_special(
        &args.common.options(),
        urls.target.clone(),
        Role::Subscribe,
        args.load.shape(),
        special,
    )?;
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
    run.open(args.common.connections as usize)?;
    let tls = Tls::of(&urls.publish_target, &args.common.tls.wanted(), 1).map_err(Failure::Usage)?;
    let target = urls.publish_target.clone();
    let mut publisher = Publisher::connect(target, tls, args.load.shape(), &run.plan.conversation)
        .map_err(|error| Failure::Failed(format!("{}: {error}", urls.publish_url)))?;
    let subscribed = probe(run, &mut publisher, &urls.publish_url)?;

    let cpu_from = server.and_then(ServerProcess::cpu_time);
    let schedule = Schedule::new(soon_ns(run), args.rate, args.load.burst, args.common.duration);
    run.order(|order| order.schedule = Some(schedule));
    let plan = run.plan.clone();
    let thread = std::thread::spawn(move || {
        // Where it is refused, messages leave a little later.
        let _ = fantail::sys::clock::sleep_precisely();
        let published = publisher.run(&plan, schedule);
        (publisher, published)
    });
    run.wait(Duration::MAX, |_| {
        on_look();
        thread.is_finished()
    })?;
    let (publisher, published) =
        thread.join().map_err(|_| Failure::Failed("the publisher panicked".into()))?;
    // A run that ended early has no more messages than the publisher came to.
    let schedule = schedule.first(published.attempted);
    run.wait_while_moving(ARRIVAL_QUIET, |run| {
        on_look();
        let counts = run.counts();
        let readers = counts.opened.saturating_sub(run.slow_counts().opened);
        (counts.unique >= readers * published.count, counts.unique)
    })?;
    let cpu = cpu_between(cpu_from, server.and_then(ServerProcess::cpu_time));
    run.wait(LINGER, |_| false)?;
    let slow_in_time = run.slow_counts().unique;
    if run.plan.slow.is_some() {
        catch_up(run)?;
    }
    // Not before: closing could take messages with it that the server has not read yet.
    drop(publisher);
    let mut tally = run.stop(worker::Published::Count(published.count))?;
    tally.counts.sends = published.attempted;
    tally.counts.late_sends = published.late_sends;
    tally.counts.late_own = published.late_own;
    tally.counts.late_max_ns = published.late_max_ns;
    let readers =
        tally.counts.opened.saturating_sub(tally.slow.as_ref().map_or(0, |slow| slow.counts.opened));
    Ok(Outcome { tally, slow_in_time, readers, published, schedule, subscribed, cpu })
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

impl Outcome {
    /// Counts that should be 0.
    fn problems(&self) -> [(u64, &'static str); 3] {
        let counts = &self.tally.counts;
        let unsubscribed = counts.opened.saturating_sub(self.subscribed);
        [
            (unsubscribed, "connections saw no probe before the run"),
            (self.schedule.count().saturating_sub(self.published.count), "messages refused by the server"),
            (self.published.unknown, "messages broke off while publishing"),
        ]
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
        let messages = MessagesReport::new(args.load.offered(args.rate), &outcome.schedule, &outcome.tally);
        common.expect_none(&messages.problems("deliveries"));
        let Outcome { tally, readers, published, schedule, subscribed, cpu, .. } = outcome;
        let counts = &tally.counts;
        let FanOuts { median_ns, max_ns, complete, last_ns } = fan_outs(&schedule, &tally.ticks, readers);
        let start_ns = schedule.planned_ns(0);
        let seconds = last_ns.map(|last_ns| last_ns.saturating_sub(start_ns) as f64 / 1e9);
        Self {
            common,
            topic: urls.topic,
            publish: if args.publish == PublishBy::Ws { "ws" } else { "http" },
            publish_url: urls.publish_url,
            messages,
            subscribed,
            published: published.count,
            published_unknown: published.unknown,
            deliveries_expected: published.count * readers,
            publish_errors: published.errors,
            deliveries: counts.unique,
            deflated: counts.deflated,
            deflated_bytes: counts.deflated_bytes,
            deliveries_per_second: seconds.filter(|s| *s > 0.0).map(|s| counts.unique as f64 / s),
            fan_out_median_microseconds: median_ns.map(|ns| ns as f64 / 1e3),
            fan_out_max_microseconds: max_ns.map(|ns| ns as f64 / 1e3),
            fan_outs_complete: complete,
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
        self.messages.plan_row(table);
        table.row("  published", format!("{} of {}", self.published, self.messages.planned));
        for (name, count) in &self.publish_errors {
            table.row(&format!("  {name}"), count);
        }
        table.row("deliveries", format!("{} of {}", self.deliveries, self.deliveries_expected));
        self.messages.rows(table);
        if let Some(each) = self.deflated_bytes.checked_div(self.deflated) {
            table.row("  compressed", format!("{}, {each} bytes each", self.deflated));
        }
        table.row("  per second", number_text(self.deliveries_per_second, 0, ""));
        self.messages.latency_row("delivery latency", table);
        let median = microseconds_text(self.fan_out_median_microseconds);
        let max = microseconds_text(self.fan_out_max_microseconds);
        let text = format!("median {median}, max {max}, {} complete", self.fan_outs_complete);
        table.row("planned to last arrival", text);
        let cpu = number_text(self.server_cpu_seconds, 3, " s");
        let each = number_text(self.server_cpu_nanoseconds_per_delivery, 0, " ns");
        table.row("server processor time", format!("{cpu}, {each} per delivery"));
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

/// The URLs of a run with the topic filled in.
pub(super) struct Urls {
    /// Where subscribers connect.
    pub(super) url: String,
    publish_url: String,
    /// The topic of this run.
    pub(super) topic: Option<String>,
    /// `url`, resolved.
    pub(super) target: Target,
    publish_target: Target,
}

impl Urls {
    /// Fills the topic in and resolves.
    pub(super) fn new(args: &FanoutArgs) -> Result<Self, Failure> {
        let publish_url = args.publish_url.as_deref().unwrap_or(&args.url);
        let topic = [args.url.as_str(), publish_url]
            .iter()
            .any(|url| url.contains(TOPIC_PLACEHOLDER))
            .then(|| format!("load-{:016x}", message::random_u64()));
        let fill = |url: &str| url.replace(TOPIC_PLACEHOLDER, topic.as_deref().unwrap_or_default());
        let (url, publish_url) = (fill(&args.url), fill(publish_url));
        let target = ws_target(&url)?;
        let mut publish_target = Target::parse(&publish_url).map_err(Failure::Usage)?;
        match (args.publish, publish_target.scheme) {
            (PublishBy::Http, Scheme::Http) => {}
            (PublishBy::Ws, Scheme::Ws) => publish_target = publish_target.with_query("echo", "0"),
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
        Ok(Self { url, publish_url, topic, target, publish_target })
    }
}

/// Publishes probes until every open connection has seen one, and returns how many have. A 101 says that a
/// connection is open; with most servers it is subscribed only a moment later.
fn probe(run: &mut Run, publisher: &mut Publisher, publish_url: &str) -> Result<u64, Failure> {
    for _ in 0..PROBES {
        publisher.probe(&run.plan).map_err(|error| Failure::Failed(format!("{publish_url}: {error}")))?;
        let all_seen = run.wait_while_moving(PROBE_QUIET, |run| {
            let counts = run.counts();
            (counts.probed + counts.lost >= counts.opened, counts.probed)
        })?;
        if all_seen || interrupt::requested() {
            break;
        }
    }
    Ok(run.counts().probed)
}

struct FanOuts {
    median_ns: Option<u64>,
    max_ns: Option<u64>,
    complete: u64,
    last_ns: Option<u64>,
}

/// How long ticks took that reached every subscriber with every message.
fn fan_outs(schedule: &Schedule, ticks: &[Tick], subscribers: u64) -> FanOuts {
    let mut durations_ns = Vec::new();
    // A run that ended early has counted no more ticks than its schedule has now.
    for (index, tick) in ticks.iter().enumerate().take(schedule.ticks() as usize) {
        let messages = schedule.messages_of_tick(index as u64);
        let wanted = (messages.end - messages.start) * subscribers;
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
        let found = fan_outs(&schedule, &ticks, 10);
        assert_eq!(found.complete, 2);
        assert_eq!(found.median_ns, Some(7_000_000));
        assert_eq!(found.max_ns, Some(7_000_000));
        // Ended early, after two ticks.
        assert_eq!(fan_outs(&schedule.first(2), &ticks, 10).complete, 1);
        let none = fan_outs(&schedule, &[], 10);
        assert_eq!((none.median_ns, none.last_ns, none.complete), (None, None, 0));
    }
}
