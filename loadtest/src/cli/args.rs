//! The command line: flags of all commands, their defaults and their help.
//!
//! Checks what can be checked without a network; the commands resolve URLs. Every wrong value is a usage
//! error (exit code 2) that names the flag.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::base::schedule::parse_duration;
use crate::cli::args_kit::{Kit, TalkFlags, TlsFlags, TopicFlags, number};
use crate::cli::listen_flags::{ListenFlags, ResumeFlags};
use crate::cli::pace_flags::{ConnectionStages, PaceFlags};
use crate::cli::settings::{command_line, settings};
use crate::cli::steps::Steps;
use crate::engine::message::{Filler, MESSAGE_BYTES_MAX, MESSAGE_BYTES_MIN, Shape};
use crate::engine::run::Options;
use crate::engine::sizes::Sizes;
use crate::engine::text::HEX;
use crate::observe::server_process::Watched;
use crate::result::messages_report::Offered;
use crate::result::report::{Files, Judging};

const EXAMPLES: &str = "\
Examples:
  What does an idle connection cost? Opens 50,000; bytes per connection:
    fantail-loadtest idle --connections 50k --pid $(pidof fantail)

  How fast does one message reach 10,000 subscribers, and does each get it?
    fantail-loadtest fanout --connections 10k --rate 10 --duration 30s

  The same for another server, with the publisher on a WebSocket:
    fantail-loadtest fanout --url ws://10.0.0.5:9001/chat --publish ws \\
      --connections 5000

  Rooms: 1,000 topics with five members each, messages to all in turn:
    fantail-loadtest fanout --topics 1000 --members 5 --connections 5000 \\
      --rate 500

  A chat server that takes nothing but JSON of its own:
    fantail-loadtest fanout --url ws://10.0.0.5:3000/ --publish ws \\
      --hello '{\"join\":\"load\"}' \\
      --message '{\"say\":\"{marker}\",\"room\":\"load\"}'

  Round-trip times of 100 connections at 20,000 messages a second together:
    fantail-loadtest echo --connections 100 --rate 20000 --size 128

  Bytes per connection by kind of memory, of any server, as a page:
    fantail-loadtest memory --url ws://127.0.0.1:9001/ --pid 4711 \\
      --steps 10k,20k,30k,40k,50k --html memory.html

  The same for a server elsewhere, over TLS, with what it tells of itself:
    fantail-loadtest memory --url wss://chat.example/ws \\
      --server-metrics https://chat.example:8081/metrics

  Everybody drops at once and comes back; what does a bystander notice?
    fantail-loadtest storm --connections 10k

  Two servers share a port and are restarted; does anybody notice?
    fantail-loadtest rolling --connections 10k --rate 100 --duration 60s \\
      --publish-url http://127.0.0.1:8081/publish/{topic} \\
      --publish-url http://127.0.0.1:8082/publish/{topic}

  The highest rate with a p99 below 50 ms, with a server of its own:
    fantail-loadtest capacity --step 'rate=100..6400*2' fanout \\
      --connections 1000 --fail-if 'p99>50ms' \\
      --server 'fantail --listen 127.0.0.1:0 --admin 127.0.0.1:0'

Latency is counted from the time a message was planned to leave, so a server that
stalls is charged for everything that should have left meanwhile. Sends the
generator itself was late with are counted.

Ctrl-C ends a run early and still reports. In URLs {listen} and {admin} are what the
server of --server says of itself, or 127.0.0.1:8080 and 127.0.0.1:8081.

Exit code: 0 all well; 1 connections not opened or lost, messages missing, duplicate
or out of order, or a --fail-if is so; 2 wrong usage.";

/// Where `fanout` subscribes unless told otherwise.
pub(crate) const FANOUT_URL: &str = "ws://{listen}/ws/{topic}";

/// Holds very many WebSocket connections, loads them, and tells exactly what arrived and when.
#[derive(Debug, Parser)]
#[command(name = "fantail-loadtest", version, after_help = help(), max_term_width = 110)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

fn help() -> String {
    format!("{EXAMPLES}\n\n{}", crate::result::threshold::help())
}

/// The commands.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Command {
    /// Open connections and hold them: what do they cost, are any lost?
    Idle(IdleArgs),
    /// Publish to subscribers: does each get every message once, in order, and how fast?
    Fanout(FanoutArgs),
    /// Send to an echo server: round-trip times at a given rate
    Echo(EchoArgs),
    /// Send WebSocket pings to any server: round-trip times without its help
    Ping(PingArgs),
    /// Drop all connections at once, or some each second, and let them come back
    Storm(StormArgs),
    /// Publish while some subscribers do not read: what do the others notice?
    Slow(SlowArgs),
    /// Publish while servers are restarted and subscribers come back: is anybody refused, is anything missed?
    Rolling(RollingArgs),
    /// Raise the connections or the rate of another command until its result is not ok
    Capacity(CapacityArgs),
    /// Open connections in steps: bytes per connection by kind of memory, with confidence intervals
    Memory(MemoryArgs),
    /// Compare two result files: ratios, and which are more than the noise
    Compare(CompareArgs),
    /// Merge the result files of several machines that loaded one server together
    Merge(MergeArgs),
}

/// Flags of every command.
#[derive(Clone, Debug, Args)]
pub(crate) struct Common {
    /// Connections to open
    #[arg(long, default_value_t = 100, value_name = "N", value_parser = connections)]
    pub(crate) connections: u32,

    /// Threads holding them, each with its own descriptor table [default: what the descriptor limit asks
    /// for; from 1,000 connections on at least one per core]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) threads: Option<u32>,

    /// Connects per second [default: as fast as the server answers, 256 under way per thread]
    #[arg(long, value_name = "PER_SECOND", value_parser = positive)]
    pub(crate) connect_rate: Option<f64>,

    /// How long to hold or send: 500ms, 5s, 2m
    #[arg(long, default_value = "5s", value_parser = parse_duration)]
    pub(crate) duration: Duration,

    /// Source addresses, as in 127.0.0.1-127.0.0.9,10.0.0.4 [default: for a loopback server one of
    /// 127.0.0.0/8 per 12,000 connections, else the kernel's choice]
    #[arg(long, value_name = "LIST")]
    pub(crate) source: Option<String>,

    /// Connect to ADDRESS:PORT instead of HOST:PORT, as curl does: host name, certificate and Host stay those of the
    /// URL. May be repeated, and several for the same place are used in turn, as all addresses of a name are
    #[arg(long, value_name = "HOST:PORT:ADDRESS:PORT")]
    pub(crate) connect_to: Vec<String>,

    /// Offer permessage-deflate and inflate what comes; a server that does not accept counts as failed
    #[arg(long)]
    pub(crate) deflate: bool,

    /// Show what the first N connections and the publisher say and hear, a line for each frame on standard error
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub(crate) trace: u32,

    /// Process id of the server, on the same machine: also report its memory and processor time
    #[arg(long, conflicts_with = "server")]
    pub(crate) pid: Option<u32>,

    /// Where a server on another machine tells its metrics in Prometheus text, as in
    /// http://10.0.0.5:8081/metrics: read once a second instead of --pid
    #[arg(long, value_name = "URL", conflicts_with_all = ["pid", "server"])]
    pub(crate) server_metrics: Option<String>,

    /// Send this header when reading metrics; may be repeated
    #[arg(long, value_name = "'NAME: VALUE'", requires = "server_metrics")]
    pub(crate) metrics_header: Vec<String>,

    /// Files to write.
    #[command(flatten)]
    pub(crate) outputs: Outputs,

    /// How the command is run and judged.
    #[command(flatten)]
    pub(crate) kit: Kit,

    /// How TLS is spoken.
    #[command(flatten)]
    pub(crate) tls: TlsFlags,

    /// Topics and their members.
    #[command(flatten)]
    pub(crate) topics: TopicFlags,

    /// What connections say besides test messages.
    #[command(flatten)]
    pub(crate) talk: TalkFlags,

    /// What kind of clients there are.
    #[command(flatten)]
    pub(crate) listen: ListenFlags,
}

impl Common {
    /// What a run is told.
    pub(crate) fn options(&self) -> Options {
        Options {
            connections: self.connections,
            threads: self.threads,
            connect_rate: self.connect_rate,
            source: self.source.clone(),
            trace: u64::from(self.trace),
            deflate: self.deflate,
            tls: self.tls.wanted(),
            talk: self.talk.talk(&self.topics, &self.listen),
            watched: self.watched(),
        }
    }

    /// The server to watch.
    pub(crate) fn watched(&self) -> Watched {
        Watched {
            pid: self.pid,
            server_metrics: self.server_metrics.clone(),
            metrics_header: self.metrics_header.clone(),
            tls: self.tls.wanted(),
        }
    }

    /// How the result is judged and where it goes.
    pub(crate) fn judging(&self) -> Judging {
        Judging {
            fail_if: self.kit.fail_if.clone(),
            label: self.kit.label.clone(),
            quiet: self.kit.quiet,
            files: self.outputs.files(),
            settings: settings(),
            command_line: command_line(),
        }
    }
}

/// Files that a result is written to.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Outputs {
    /// Also write the result to this file
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,

    /// Also write a page with charts to this file; it needs no other file and no network
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,

    /// Also write the latencies to this file, as an HdrHistogram log
    #[arg(long, value_name = "FILE")]
    pub(crate) hdr: Option<PathBuf>,

    /// Also write the verdict to this file, as the JUnit XML of continuous integration: a case for each --fail-if
    #[arg(long, value_name = "FILE")]
    pub(crate) junit: Option<PathBuf>,
}

impl Outputs {
    /// The same as a plain value.
    pub(crate) fn files(&self) -> Files {
        Files {
            json: self.json.clone(),
            html: self.html.clone(),
            hdr: self.hdr.clone(),
            junit: self.junit.clone(),
        }
    }
}

/// Flags of commands that send messages.
#[derive(Clone, Debug, Args)]
pub(crate) struct Load {
    /// Messages that leave back to back at each planned time; the rate stays the same
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) burst: u32,

    /// Bytes of a message, at least 16; below 48 they are binary, from 48 on text. Or of each another, as in
    /// uniform:64..4096, lognormal:512,1.2 (median and sigma), or @FILE with sizes of which each is as likely
    #[arg(long, default_value = "64", value_parser = Sizes::parse)]
    pub(crate) size: Sizes,

    /// When messages leave.
    #[command(flatten)]
    pub(crate) pace: PaceFlags,

    /// Send binary messages, whatever their size
    #[arg(long)]
    pub(crate) binary: bool,

    /// What messages are made of behind their marker
    #[arg(long, value_enum, default_value_t = Filler::Letters)]
    pub(crate) filler: Filler,

    /// Text to send, for a server with a protocol of its own, as in '{"type":"pub","data":"{marker}"}';
    /// {marker} becomes the test message of --size bytes (letters and digits), {i} and names as in --vars.
    /// Messages are found wherever their marker stands in what the server delivers
    #[arg(long, value_name = "TEMPLATE")]
    pub(crate) message: Option<String>,
}

impl Load {
    /// What every message looks like.
    pub(crate) fn shape(&self) -> Shape {
        let bytes = self.message.as_ref().is_some_and(|message| message.starts_with(HEX));
        Shape { sizes: self.size, filler: self.filler, binary: self.binary || bytes }
    }

    /// The load as a report tells it.
    pub(crate) fn offered(&self, rate: f64) -> Offered {
        Offered { rate, burst: self.burst, size: self.size.mean() }
    }
}

/// Flags of `idle`.
#[derive(Clone, Debug, Args)]
pub(crate) struct IdleArgs {
    /// Where to connect
    #[arg(long, default_value = "ws://{listen}/ws")]
    pub(crate) url: String,

    /// Stages instead of --connections and --duration, as in 30s@..10k,1m@10k,20s@..2k: how long, and how many are open
    /// or, as in 30s@1k..10k, from how many to how many; ..10k goes on from where the stage before has ended, and those
    /// that were opened last are closed first
    #[arg(long, value_name = "LIST", value_parser = ConnectionStages::parse,
          conflicts_with_all = ["connections", "duration", "connect_rate"])]
    pub(crate) connection_stages: Option<ConnectionStages>,

    /// Flags of every command.
    #[command(flatten)]
    pub(crate) common: Common,
}

/// Flags of `fanout`.
#[derive(Clone, Debug, Args)]
pub(crate) struct FanoutArgs {
    /// Where to subscribe; `{topic}` becomes a topic name that is new in every run
    #[arg(long, default_value = FANOUT_URL)]
    pub(crate) url: String,

    /// How messages are published.
    #[command(flatten)]
    pub(crate) publishing: Publishing,

    /// Messages published per second, to all topics in turn; each goes to every member of its topic
    #[arg(long, default_value_t = 10.0, value_name = "PER_SECOND", value_parser = positive)]
    pub(crate) rate: f64,

    /// Flags of commands that send.
    #[command(flatten)]
    pub(crate) load: Load,

    /// How clients come back.
    #[command(flatten)]
    pub(crate) resuming: ResumeFlags,

    /// Flags of every command.
    #[command(flatten)]
    pub(crate) common: Common,
}

/// How and where messages are published.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Publishing")]
pub(crate) struct Publishing {
    /// How to publish: an HTTP request per message, or a message on a WebSocket
    #[arg(long, value_enum, default_value_t = PublishBy::Http)]
    pub(crate) publish: PublishBy,

    /// Where to publish; names as in --url. Nothing is added to it [default: what a Fantail server takes at {admin},
    /// or with --publish ws the --url]
    #[arg(long, value_name = "URL")]
    pub(crate) publish_url: Option<String>,

    /// Connections to publish on at most; when all are busy at a message's time the publisher is saturated, and the
    /// result not ok [default: as many as the rate needs, up to 240]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pub(crate) publishers: Option<u32>,

    /// Send this header with each request that publishes; may be repeated, and {names} are as in --header
    #[arg(long, value_name = "'NAME: VALUE'")]
    pub(crate) publish_header: Vec<String>,

    /// What a request that publishes holds, with {marker} for the test message [default: --message, or the message
    /// alone]
    #[arg(long, value_name = "TEMPLATE")]
    pub(crate) publish_body: Option<String>,

    /// The method of requests that publish
    #[arg(long, value_name = "METHOD", default_value = "POST")]
    pub(crate) publish_method: String,

    /// Whether the place was given, and not a default.
    #[arg(skip)]
    pub(crate) given: bool,
}

/// Flags of `echo`.
#[derive(Clone, Debug, Args)]
pub(crate) struct EchoArgs {
    /// Where to connect
    #[arg(long, default_value = "ws://{listen}/echo")]
    pub(crate) url: String,

    /// Messages per second of all connections together, sent by them in turn
    #[arg(long, default_value_t = 1000.0, value_name = "PER_SECOND", value_parser = positive)]
    pub(crate) rate: f64,

    /// Flags of commands that send.
    #[command(flatten)]
    pub(crate) load: Load,

    /// Flags of every command.
    #[command(flatten)]
    pub(crate) common: Common,
}

/// Flags of `ping`.
#[derive(Clone, Debug, Args)]
pub(crate) struct PingArgs {
    /// Where to connect
    #[arg(long, default_value = "ws://{listen}/ws")]
    pub(crate) url: String,

    /// Pings per second of all connections together, sent by them in turn
    #[arg(long, default_value_t = 100.0, value_name = "PER_SECOND", value_parser = positive)]
    pub(crate) rate: f64,

    /// Bytes of a ping, 16 to 125
    #[arg(long, default_value_t = 16, value_parser = ping_size)]
    pub(crate) size: usize,

    /// When pings leave.
    #[command(flatten)]
    pub(crate) pace: PaceFlags,

    /// Flags of every command.
    #[command(flatten)]
    pub(crate) common: Common,
}

impl PingArgs {
    /// The load as a report tells it.
    pub(crate) fn offered(&self, rate: f64) -> Offered {
        Offered { rate, burst: 1, size: self.size }
    }
}

/// Flags of `storm`.
#[derive(Clone, Debug, Args)]
pub(crate) struct StormArgs {
    /// Where to connect
    #[arg(long, default_value = "ws://{listen}/ws")]
    pub(crate) url: String,

    /// Connections dropped per second for --duration [default: all at once, one time]
    #[arg(long, value_name = "PER_SECOND", value_parser = positive)]
    pub(crate) rate: Option<f64>,

    /// How long clients may take to come back
    #[arg(long, default_value = "60s", value_parser = parse_duration)]
    pub(crate) within: Duration,

    /// Where to publish by POST, as in http://{admin}/publish/{topic}: a message to each topic before the storm, and one
    /// when all are back, has to reach every connection that is in it [default: being open again is enough]
    #[arg(long, value_name = "URL")]
    pub(crate) publish_url: Option<String>,

    /// Send this header with each request that publishes; may be repeated, and {names} are as in --header
    #[arg(long, value_name = "'NAME: VALUE'", requires = "publish_url")]
    pub(crate) publish_header: Vec<String>,

    /// An echo server, where a bystander sends a message every 10 ms before and during the storm; `none`
    /// for no bystander
    #[arg(long, value_name = "URL", default_value = "ws://{listen}/echo")]
    pub(crate) bystander: String,

    /// Flags of every command.
    #[command(flatten)]
    pub(crate) common: Common,
}

/// Flags of `slow`.
#[derive(Clone, Debug, Args)]
pub(crate) struct SlowArgs {
    /// Share of the subscribers that is slow
    #[arg(long, default_value_t = 0.1, value_name = "0..1", value_parser = fraction)]
    pub(crate) slow_fraction: f64,

    /// Bytes that each slow subscriber reads in a second [default: it never reads]
    #[arg(long, default_value_t = 0, value_name = "BYTES", hide_default_value = true)]
    pub(crate) slow_rate: u64,

    /// Flags of `fanout`.
    #[command(flatten)]
    pub(crate) fanout: FanoutArgs,
}

/// Flags of `rolling`.
#[derive(Clone, Debug, Args)]
pub(crate) struct RollingArgs {
    /// Where to subscribe; `{topic}` becomes a topic name that is new in every run
    #[arg(long, default_value = "ws://{listen}/ws/{topic}")]
    pub(crate) url: String,

    /// Where to publish by POST, once for each server: every message goes to all of them, and one that is away
    /// for a while is passed over; `{topic}` as in --url
    #[arg(long = "publish-url", value_name = "URL", default_value = "http://{admin}/publish/{topic}")]
    pub(crate) publish_urls: Vec<String>,

    /// Send this header with each request that publishes; may be repeated, and {names} are as in --header
    #[arg(long, value_name = "'NAME: VALUE'")]
    pub(crate) publish_header: Vec<String>,

    /// Messages published per second
    #[arg(long, default_value_t = 10.0, value_name = "PER_SECOND", value_parser = positive)]
    pub(crate) rate: f64,

    /// The longest wait of a client before it comes back; each one waits a random part of it, and up to twice as
    /// long after each attempt that fails, up to 3 s
    #[arg(long, default_value = "100ms", value_parser = parse_duration)]
    pub(crate) backoff: Duration,

    /// Clients of event streams or polls go on where they were, and are owed what was published while they were away
    #[arg(long)]
    pub(crate) resume: bool,

    /// How long clients may take to come back when the last message is out
    #[arg(long, default_value = "30s", value_parser = parse_duration)]
    pub(crate) within: Duration,

    /// Bytes of a message, at least 16; below 48 they are binary, from 48 on text
    #[arg(long, default_value_t = 64, value_parser = message_size)]
    pub(crate) size: usize,

    /// Flags of every command.
    #[command(flatten)]
    pub(crate) common: Common,
}

/// Flags of `capacity`.
#[derive(Clone, Debug, Args)]
pub(crate) struct CapacityArgs {
    /// What is raised: rate=100,200,400 or rate=100..6400*2 or connections=1k..10k+1k
    #[arg(long, value_name = "NAME=VALUES", value_parser = Steps::parse)]
    pub(crate) step: Steps,

    /// Files to write of all steps.
    #[command(flatten)]
    pub(crate) outputs: Outputs,

    /// What to call the run in its result
    #[arg(long, value_name = "TEXT")]
    pub(crate) label: Option<String>,

    /// The command that is run at each step, with its own flags; --fail-if and --server among them.
    #[command(subcommand)]
    pub(crate) command: Stepped,
}

/// Commands that `capacity` can run.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Stepped {
    /// Open connections and hold them
    Idle(IdleArgs),
    /// Publish to subscribers
    Fanout(FanoutArgs),
    /// Send to an echo server
    Echo(EchoArgs),
    /// Send WebSocket pings
    Ping(PingArgs),
    /// Drop connections and let them come back
    Storm(StormArgs),
    /// Publish while some subscribers do not read
    Slow(SlowArgs),
    /// Has steps of its own.
    #[command(skip)]
    Memory(MemoryArgs),
    /// Needs somebody who restarts.
    #[command(skip)]
    Rolling(RollingArgs),
}

/// Flags of `memory`.
#[derive(Clone, Debug, Args)]
pub(crate) struct MemoryArgs {
    /// Where to connect
    #[arg(long, default_value = "ws://{listen}/ws")]
    pub(crate) url: String,

    /// Open connections at which memory is read for --duration, as in 10k,20k,30k [default: five even steps
    /// up to --connections]
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = step, conflicts_with = "connections")]
    pub(crate) steps: Option<Vec<u32>>,

    /// Also write every single reading to this file
    #[arg(long, value_name = "FILE")]
    pub(crate) csv: Option<PathBuf>,

    /// Flags of every command.
    #[command(flatten)]
    pub(crate) common: Common,
}

/// Flags of `compare`.
#[derive(Clone, Debug, Args)]
pub(crate) struct CompareArgs {
    /// Result file to compare with, or several repeats of it with commas between
    #[arg(value_name = "A.json")]
    pub(crate) a: String,

    /// Result file to compare, or several with commas between
    #[arg(value_name = "B.json")]
    pub(crate) b: String,

    /// Also write the comparison to this file
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,

    /// Also write the comparison as one page to this file
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
}

/// Flags of `merge`.
#[derive(Clone, Debug, Args)]
pub(crate) struct MergeArgs {
    /// Result files of one command, one of each machine
    #[arg(value_name = "FILE", required = true, num_args = 2..)]
    pub(crate) files: Vec<PathBuf>,

    /// Files to write.
    #[command(flatten)]
    pub(crate) outputs: Outputs,
}

/// How messages are published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum PublishBy {
    /// One WebSocket connection.
    Ws,
    /// HTTP POST on a kept connection.
    Http,
}

/// A number of connections at which memory is read.
fn step(text: &str) -> Result<u32, String> {
    number(text).ok_or_else(|| "not a number of connections such as 500, 10k or 1m".to_owned())
}

fn connections(text: &str) -> Result<u32, String> {
    step(text).and_then(|number| if number > 0 { Ok(number) } else { Err("must be 1 or more".into()) })
}

pub(crate) fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number > 0.0 && number <= 10_000_000.0 => Ok(number),
        Ok(_) => Err("must be above 0 and at most 10000000".into()),
        Err(_) => Err("not a number".into()),
    }
}

fn fraction(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number > 0.0 && number < 1.0 => Ok(number),
        _ => Err("must be above 0 and below 1".into()),
    }
}

/// RFC 6455 section 5.5: a control frame has no more.
fn ping_size(text: &str) -> Result<usize, String> {
    let size = text.parse().ok().filter(|size| (MESSAGE_BYTES_MIN..=125).contains(size));
    size.ok_or_else(|| {
        format!("must be {MESSAGE_BYTES_MIN} to 125; a ping holds its run, number and planned time")
    })
}

fn message_size(text: &str) -> Result<usize, String> {
    match text.parse::<usize>() {
        Ok(size) if (MESSAGE_BYTES_MIN..=MESSAGE_BYTES_MAX).contains(&size) => Ok(size),
        Ok(_) => Err(format!(
            "must be {MESSAGE_BYTES_MIN} to {MESSAGE_BYTES_MAX}; a message holds its run, number and planned time"
        )),
        Err(_) => Err("not a number of bytes".into()),
    }
}

#[cfg(test)]
mod tests;
