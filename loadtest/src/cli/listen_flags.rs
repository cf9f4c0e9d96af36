//! Flags of clients that listen by HTTP, and of clients that come back.

use std::time::Duration;

use clap::Args;

use crate::base::schedule::parse_duration;
use crate::engine::conversation::Client;

/// What kind of clients there are, and how those of HTTP go on.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Event streams and long polls (http:// and https://)")]
pub(crate) struct ListenFlags {
    /// What clients are: WebSockets, event streams as EventSource reads them, or long polls, one request after the
    /// other [default: ws for ws:// and wss://, sse for http:// and https://]
    #[arg(long, value_name = "KIND", value_enum)]
    pub(crate) client: Option<Client>,

    /// Where to go on at {position}: the next poll, or an event stream that comes back; names as in --url. An event
    /// stream sends Last-Event-ID in any case [default: the --url]
    #[arg(long, value_name = "URL")]
    pub(crate) resume_url: Option<String>,

    /// What a poll's answer says about where to go on, in its head or in its body: its named groups are names in
    /// --resume-url and --header; may be repeated [default: the field Fantail-Position as {position}]
    #[arg(long, value_name = "REGEX")]
    pub(crate) position: Vec<String>,
}

/// How clients come back that are to miss nothing.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Resuming")]
pub(crate) struct ResumeFlags {
    /// Clients of an event stream or of polls come back when their connection ends, go on where they were, and are
    /// owed every message once and in order all the same
    #[arg(long)]
    pub(crate) resume: bool,

    /// Connections that are dropped per second, each in its turn, as when clients' networks go away
    #[arg(long, value_name = "PER_SECOND", requires = "resume", value_parser = super::args::positive)]
    pub(crate) drop_rate: Option<f64>,

    /// The longest wait of a client before it comes back, unless the stream says `retry`; it doubles with each attempt
    /// that fails, up to 3 s
    #[arg(long, value_name = "DURATION", default_value = "100ms", requires = "resume", value_parser = parse_duration)]
    pub(crate) backoff: Duration,
}
