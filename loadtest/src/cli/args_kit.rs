//! Flags that every command has beside those of the load itself: the server, the verdict, the conversation.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use clap::Args;

use crate::base::schedule::parse_duration;
use crate::cli::listen_flags::ListenFlags;
use crate::cli::presets::{Preset, Script};
use crate::engine::conversation::{Greeting, Talk};
use crate::engine::text::HEX;
use crate::engine::topics::Wanted;
use crate::result::threshold::Threshold;
use crate::tls;

/// How a command is run and judged.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Running and judging")]
pub(crate) struct Kit {
    /// Start this server first and stop it afterwards, as in 'target/release/fantail --listen 127.0.0.1:0
    /// --admin 127.0.0.1:0'; its process is watched as with --pid
    #[arg(long, value_name = "'PATH ARGS'")]
    pub(crate) server: Option<String>,

    /// The line on the server's standard output that says it is ready; what its groups `listen` and `admin`
    /// catch takes the place of {listen} and {admin} in URLs
    #[arg(
        long,
        value_name = "REGEX",
        requires = "server",
        default_value = r"ready.*\blisten=(?<listen>\S+)(.*\badmin=(?<admin>\S+))?"
    )]
    pub(crate) ready: String,

    /// The result is not ok if this is so, as in 'p99 > 50ms' or 'bytes_per_connection > 100'; may be repeated. Any
    /// figure of the result can be named; `fantail-loadtest --help` says how
    #[arg(long, value_name = "'FIGURE>VALUE'", value_parser = Threshold::parse)]
    pub(crate) fail_if: Vec<Threshold>,

    /// What to call the run in its result
    #[arg(long, value_name = "TEXT")]
    pub(crate) label: Option<String>,

    /// Run so often and report the median and the spread
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) repeat: u32,

    /// When nothing has come for so long behind the last send, what has not come is missing
    #[arg(long, default_value = "10s", value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) wait_late: Duration,

    /// Only say what the run would need (descriptors, ports, addresses, memory) and whether this machine
    /// has it; opens nothing
    #[arg(long)]
    pub(crate) plan: bool,

    /// Print nothing on standard output: somebody else prints what is wanted of the result.
    #[arg(skip)]
    pub(crate) quiet: bool,
}

/// How TLS is spoken, where a URL begins with wss:// or https://.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "TLS (wss:// and https://)")]
pub(crate) struct TlsFlags {
    /// Trust the authorities in this PEM file, and not those of the system
    #[arg(long, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,

    /// Do not verify the server's certificate; the result says so
    #[arg(long, conflicts_with = "ca")]
    pub(crate) insecure: bool,

    /// Resume earlier sessions where the server allows it, as returning clients do [default: every handshake is a
    /// full one, the most that a server can be asked for]
    #[arg(long)]
    pub(crate) tls_resume: bool,
}

/// What connections say besides test messages.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Any protocol")]
pub(crate) struct TalkFlags {
    /// Speak the protocol of a well-known server: connect, log in, subscribe to {topic}, keep alive, publish. A URL
    /// without a path gets that of the protocol, and other flags take the place of what it says
    #[arg(long, value_name = "NAME", value_enum)]
    pub(crate) preset: Option<Preset>,

    /// What a preset needs: key, secret, token, user, password, as it says; period=SECONDS of its heartbeat; may be
    /// repeated
    #[arg(long, value_name = "NAME=VALUE", requires = "preset")]
    pub(crate) set: Vec<String>,

    /// What the preset says, once it is read.
    #[arg(skip)]
    pub(crate) script: Script,

    /// Text message that each connection sends behind the upgrade; may be repeated, and goes in turn with --await as
    /// they are given. One that names {topic} is sent for each topic of the connection
    #[arg(long, value_name = "TEXT", value_parser = Placed::parse)]
    hello: Vec<Placed>,

    /// The same as a binary message, in hexadecimal digits, between which there may be names; {u16(TEXT)} and
    /// {varint(TEXT)} are a text with its length in front. Other texts can be bytes, too: 'hex:c000'
    #[arg(long, value_name = "BYTES", value_parser = Placed::parse)]
    hello_hex: Vec<Placed>,

    /// Go on with the greeting only when a message has come that matches, and count as open when all of it is done; what
    /// groups such as `(?<id>\d+)` catch is {id} in what is said later
    #[arg(long = "await", value_name = "REGEX", value_parser = Placed::parse)]
    awaited: Vec<Placed>,

    /// Whoever is told this while --await waits is refused, and waits no longer; may be repeated
    #[arg(long, value_name = "REGEX")]
    refusal: Vec<String>,

    /// Answer messages that match; may be repeated, and {1} is what the first group caught
    #[arg(long, value_name = "'REGEX=>TEXT'")]
    reply: Vec<String>,

    /// Send this every so often on each connection, as in '25s=>{"type":"ping"}'; may be repeated
    #[arg(long, value_name = "'PERIOD=>TEXT'")]
    every: Vec<String>,

    /// CSV file with one row for each connection, used again from the top when there are more connections;
    /// {NAME} in URL, headers and texts is the column's value (percent-encoded in URLs), {i} the
    /// connection's number; {NAME|json}, {NAME|url} and {NAME|plain} say how it is written
    #[arg(long, value_name = "FILE")]
    vars: Option<PathBuf>,

    /// Offer this subprotocol; may be repeated, the favourite first
    #[arg(long, value_name = "NAME")]
    subprotocol: Vec<String>,

    /// Send this header with the upgrade; may be repeated
    #[arg(long, value_name = "'NAME: VALUE'")]
    header: Vec<String>,
}

/// How many topics there are and who is in which.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Topics")]
pub(crate) struct TopicFlags {
    /// Topics, which {topic} names; messages go to each in turn [default: 1]
    #[arg(long, value_name = "N", value_parser = topics)]
    topics: Option<u32>,

    /// Connections in each topic; with more of them than connections, each is in several [default: all connections
    /// spread evenly]
    #[arg(long, value_name = "M", value_parser = topics)]
    members: Option<u32>,

    /// The column of --vars that has the topic of each connection
    #[arg(long, value_name = "NAME", requires = "vars", conflicts_with_all = ["topics", "members"])]
    topic_column: Option<String>,
}

fn topics(text: &str) -> Result<u32, String> {
    number(text).filter(|number| *number > 0).ok_or_else(|| "not a number such as 500, 10k or 1m".to_owned())
}

/// A flag's value with its place on the command line: parsers are asked in that order.
#[derive(Clone, Debug)]
struct Placed {
    at: usize,
    text: String,
}

impl Placed {
    #[expect(clippy::unnecessary_wraps, reason = "what a parser of flags has to look like")]
    fn parse(text: &str) -> Result<Self, String> {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        Ok(Self { at: NEXT.fetch_add(1, Ordering::Relaxed), text: text.to_owned() })
    }
}

/// A number up to ten million: 500, 10k, 1m.
pub(crate) fn number(text: &str) -> Option<u32> {
    let lower = text.trim().to_ascii_lowercase();
    let (digits, by) = match lower.strip_suffix('k') {
        Some(digits) => (digits, 1_000),
        None => lower.strip_suffix('m').map_or((lower.as_str(), 1), |digits| (digits, 1_000_000)),
    };
    let number: Option<u32> = digits.parse().ok();
    number.and_then(|number| number.checked_mul(by)).filter(|number| *number <= 10_000_000)
}

impl TlsFlags {
    /// The same as a plain value.
    pub(crate) fn wanted(&self) -> tls::Wanted {
        tls::Wanted { ca: self.ca.clone(), insecure: self.insecure, resume: self.tls_resume }
    }
}

impl TalkFlags {
    /// The same as a plain value.
    pub(crate) fn talk(&self, topics: &TopicFlags, listen: &ListenFlags) -> Talk {
        let of = |flags: &[Placed], step: fn(String) -> Greeting| {
            flags.iter().map(|flag| (flag.at, step(flag.text.clone()))).collect::<Vec<_>>()
        };
        let mut greeting = of(&self.hello, Greeting::Hello);
        greeting.extend(of(&self.hello_hex, |digits| Greeting::Hello(format!("{HEX}{digits}"))));
        greeting.extend(of(&self.awaited, Greeting::Await));
        greeting.sort_by_key(|(at, _)| *at);
        let greeting: Vec<Greeting> = greeting.into_iter().map(|(_, step)| step).collect();
        let script = &self.script;
        // Those that are given come first, and the first that matches answers.
        let reply = self.reply.iter().chain(&script.reply).cloned().collect();
        let refusal = self.refusal.iter().chain(&script.refusal).cloned().collect();
        let own_protocol = script.subprotocol.filter(|_| self.subprotocol.is_empty()).map(str::to_owned);
        Talk {
            greeting: if greeting.is_empty() { script.greeting.clone() } else { greeting },
            refusal,
            reply,
            every: if self.every.is_empty() { script.every.clone() } else { self.every.clone() },
            vars: self.vars.clone(),
            subprotocol: self.subprotocol.iter().cloned().chain(own_protocol).collect(),
            header: self.header.clone(),
            topics: Wanted {
                count: topics.topics,
                members: topics.members,
                column: topics.topic_column.clone(),
                published: Vec::new(),
            },
            client: listen.client.unwrap_or_default(),
            resume_url: listen.resume_url.clone(),
            position: listen.position.clone(),
        }
    }
}
