//! Flags that every command has beside those of the load itself: the server, the verdict, the conversation.

use std::path::PathBuf;

use clap::Args;

use crate::engine::conversation::Talk;
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

    /// The result is not ok if this is so, as in 'p99>50ms' or 'missing>0'; may be repeated.
    /// `fantail-loadtest --help` lists the metrics
    #[arg(long, value_name = "'METRIC>VALUE'", value_parser = Threshold::parse)]
    pub(crate) fail_if: Vec<Threshold>,

    /// Run so often and report the median and the spread
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) repeat: u32,

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
    /// Text message that each connection sends first
    #[arg(long, value_name = "TEXT")]
    pub(crate) hello: Option<String>,

    /// A connection counts as open only when a message has come that matches
    #[arg(long = "await", value_name = "REGEX")]
    pub(crate) awaited: Option<String>,

    /// Answer messages that match; may be repeated, and $1 is what the first group caught
    #[arg(long, value_name = "'REGEX=>TEXT'")]
    pub(crate) reply: Vec<String>,

    /// CSV file with one row for each connection, used again from the top when there are more connections;
    /// {NAME} in URL, headers and texts is the column's value (percent-encoded in URLs), {i} the
    /// connection's number
    #[arg(long, value_name = "FILE")]
    pub(crate) vars: Option<PathBuf>,

    /// Offer this subprotocol; may be repeated, the favourite first
    #[arg(long, value_name = "NAME")]
    pub(crate) subprotocol: Vec<String>,

    /// Send this header with the upgrade; may be repeated
    #[arg(long, value_name = "'NAME: VALUE'")]
    pub(crate) header: Vec<String>,
}

impl TlsFlags {
    /// The same as a plain value.
    pub(crate) fn wanted(&self) -> tls::Wanted {
        tls::Wanted { ca: self.ca.clone(), insecure: self.insecure, resume: self.tls_resume }
    }
}

impl TalkFlags {
    /// The same as a plain value.
    pub(crate) fn talk(&self) -> Talk {
        Talk {
            hello: self.hello.clone(),
            awaited: self.awaited.clone(),
            reply: self.reply.clone(),
            vars: self.vars.clone(),
            subprotocol: self.subprotocol.clone(),
            header: self.header.clone(),
        }
    }
}
